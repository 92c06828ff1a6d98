"""bgpd, ExaBGP, a peer, the store or a link goes away and comes back: what is kept, for how long, how it heals."""

import signal
import time

import pytest

from bed import wait_until
from bed.bgp import (
    EXABGP,
    HOLD_SECONDS,
    RELAY,
    Mesh,
    block,
    flooding,
    monitored,
    pid_of,
    pids_of,
    send,
    with_bird,
)
from fakes.bgp_host import affinity_record, block_record, node_record
from resources.runtime import health


def reach(pair: Mesh) -> str:
    """Put an address of node2's block on node2 and return it: answered only over the BGP route."""
    pair["node2"].ip("addr", "add", "10.65.2.1/32", "dev", "lo")
    return "10.65.2.1"


def test_a_stopped_bgpd_leaves_routes_and_sessions_until_the_speaker_is_ended(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    assert pair.daemons["node1"].terminate() == 0
    assert "event=daemon.stopped" in pair.daemons["node1"].text
    time.sleep(0.5)
    assert pair.routes("node1") == pair.expected("node1")
    assert pair.is_up("node2")
    assert one.run(["calico-bgpd", "--end-speaker"]).stdout == "The BGP speaker has ended.\n"
    assert one.run(["calico-bgpd", "--end-speaker"]).stdout == "No BGP speaker is running.\n"
    assert pids_of(one, f"{EXABGP}|{RELAY}") == []
    assert pair.routes("node1") == pair.expected("node1")
    wait_until("the session to be down", lambda: not pair.is_up("node2"))
    # the other side keeps its routes for the restart time
    assert pair.routes("node2") == pair.expected("node2")


@pytest.mark.bgp_scenario(67)
def test_the_relay_is_stopped_among_a_thousand_routes_and_the_watchdog_finds_out() -> None:
    with with_bird(env={"BGPD_PATIENCE_SECONDS": "3"}) as (mesh, bird):
        mesh.await_routes("node1", mesh.expected("node1"))
        send(mesh["node1"], RELAY, signal.SIGSTOP)
        many = [f"10.65.{number // 4}.{number % 4 * 64}/26" for number in range(8, 1020)]
        bird.configure(*many)
        bird.ask("configure")
        wait_until("the speaker to be replaced", lambda: mesh.state("node1")["speaker"]["restarts"] == 1, timeout=40)
        expected = dict.fromkeys(many, f"via {bird.host.address} dev eth0") | {block(1): "blackhole"}
        mesh.await_routes("node1", expected, timeout=40)
        assert len(pids_of(mesh["node1"], RELAY)) == 1


@pytest.mark.bgp_scenario(69)
def test_a_bad_file_that_poisons_exabgp_is_overcome(pair: Mesh) -> None:
    pair.start()
    address = reach(pair)
    one = pair["node1"]
    good = one.read_file("/run/calico/exabgp.conf")
    one.write_file("/run/calico/exabgp.conf", good.replace("hold-time 9", "hold-time soon"), mode=0o600)
    send(one, EXABGP, signal.SIGUSR1)
    time.sleep(1)
    assert pair.is_up("node1")
    assert pair.state("node1")["speaker"]["restarts"] == 0
    before = pid_of(one, EXABGP)
    with monitored(one) as here, flooding(one, address) as flood:
        pair.put(node_record("node7", "10.77.0.77/24"))
        # the reload fails, and fails again, until ExaBGP is started anew
        wait_until("a new speaker", lambda: pid_of(one, EXABGP) != before, timeout=20, every=0.2)
        wait_until("the plan to be applied", lambda: pair.state("node1")["speaker"]["settled"], timeout=30)
        pair.await_mesh(timeout=30)
    assert flood.lost == 0
    assert here == []
    assert "neighbor 10.77.0.77" in one.read_file("/run/calico/exabgp.conf")


@pytest.mark.bgp_scenario(70)
def test_etcd_goes_away_and_comes_back(pair: Mesh) -> None:
    pair.start()
    since = pair.sessions("node1")
    with monitored(pair["node1"]) as events:
        pair.store.stop()
        wait_until("bgpd to notice", lambda: pair.state("node1")["in_sync"] is False, timeout=40)
        assert pair.is_up("node1")
        pair.store.start()
        wait_until("bgpd to be in sync", lambda: pair.state("node1")["in_sync"] is True, timeout=40)
    assert events == []
    assert pair.sessions("node1") == since
    pair.put(block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2"))
    pair.await_routes(
        "node1", pair.expected("node1") | {"10.65.2.64/26": f"via {pair['node2'].address} dev eth0"}
    )


@pytest.mark.bgp_scenario(60)
def test_all_is_dead_and_the_store_does_not_answer(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    pair.daemons["node1"].kill()
    send(one, EXABGP, signal.SIGKILL)
    pair.store.stop()
    with monitored(one) as events:
        pair.start("node1", wait=False)
        time.sleep(6)
        assert pair.routes("node1") == pair.expected("node1")
        status, body = health.ask(one.path("/run/calico/bgpd.sock"), "/readiness")
        assert status == 503
        assert "the datastore" in body
    assert events == []
    pair.store.start()
    pair.await_mesh(timeout=40)
    assert pair.routes("node1") == pair.expected("node1")


@pytest.mark.bgp_scenario(61)
def test_what_disappeared_during_an_outage_goes_when_the_peer_has_told_all(pair: Mesh) -> None:
    more = [block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2")]
    pair.put(*more)
    pair.start()
    wide = pair.expected("node1") | {"10.65.2.64/26": f"via {pair['node2'].address} dev eth0"}
    pair.await_routes("node1", wide)
    pair.daemons["node1"].kill()
    send(pair["node1"], EXABGP, signal.SIGKILL)
    pair.daemons["node2"].kill()
    send(pair["node2"], EXABGP, signal.SIGKILL)
    pair.remove(*more)
    pair.start("node1", wait=False)
    wait_until("bgpd to have read the store", lambda: pair.state("node1").get("in_sync") is True)
    time.sleep(1)
    assert pair.routes("node1") == wide
    pair.start("node2")
    pair.await_routes("node1", pair.expected("node1"), timeout=20)


@pytest.mark.bgp_scenario(66)
def test_a_cable_is_cut_for_less_and_for_more_than_the_hold_time(pair: Mesh) -> None:
    pair.start()
    fabric, two = pair.cluster.fabric, pair["node2"]
    since = pair.sessions("node1")[str(two.address)]["since"]
    fabric.link(two.port, up=False)
    time.sleep(2)
    fabric.link(two.port, up=True)
    wait_until("a keepalive after the cut", lambda: two.ping(pair["node1"].address, timeout=1.0).ok)
    assert pair.sessions("node1")[str(two.address)]["since"] == since

    fabric.link(two.port, up=False)
    wait_until("the hold timer", lambda: not pair.is_up("node1"), timeout=2 * HOLD_SECONDS)
    pair.await_routes("node1", {block(1): "blackhole"})
    assert pair.sessions("node1")[str(two.address)]["error"] == "BGP Error: Hold timer expired"
    # long enough for ExaBGP to try seldom only
    time.sleep(8)
    fabric.link(two.port, up=True)
    pair.await_mesh(timeout=20)
    pair.await_routes("node1", pair.expected("node1"))


# --- BIRD on the far side --------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(61)
def test_a_block_that_was_given_up_while_all_was_dead_goes_from_bird_alone() -> None:
    more = [block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1")]
    with with_bird() as (mesh, bird):
        mesh.put(*more)
        ours = dict.fromkeys((block(1), "10.65.1.64/26"), f"via {mesh['node1'].address} dev eth0")
        wait_until("BIRD to have our blocks", lambda: bird.routes() == ours)
        mesh.daemons["node1"].kill()
        send(mesh["node1"], EXABGP, signal.SIGKILL)
        mesh.remove(*more)
        with monitored(bird.host) as events:
            mesh.start("node1", wait=False)
            wait_until("BIRD to have one block", lambda: len(bird.routes()) == 1, timeout=30)
            time.sleep(0.5)
        assert [line.split()[:2] for line in events] == [["Deleted", "10.65.1.64/26"]]


@pytest.mark.bgp_scenario(62)
def test_a_bird_that_does_not_restart_gracefully() -> None:
    with with_bird(graceful="off") as (mesh, bird):
        mesh.await_routes("node1", mesh.expected("node1"))
        bird.process.kill()
        mesh.await_routes("node1", {block(1): "blackhole"}, timeout=2)
        bird.start()
        mesh.await_routes("node1", mesh.expected("node1"), timeout=15)


@pytest.mark.bgp_scenario(63)
def test_a_bird_that_restarts_gracefully() -> None:
    with with_bird(block(2), "10.65.2.64/26", restart_seconds=6) as (mesh, bird):
        full = mesh.expected("node1") | {"10.65.2.64/26": f"via {mesh['node2'].address} dev eth0"}
        mesh.await_routes("node1", full)
        with monitored(mesh["node1"]) as events:
            bird.process.kill()
            wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), every=0.01)
            bird.configure(block(2))
            bird.start()
            wait_until("the session to be back", lambda: mesh.is_up("node1", "node2"), timeout=20)
        assert [line.split()[:2] for line in events] == [["Deleted", "10.65.2.64/26"]]
