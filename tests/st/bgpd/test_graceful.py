"""Graceful restart both ways: what dies on one side costs no packet, and the kernel of the other shows no event.

The far side is a parameter: whatever speaks BGP with graceful restart. A flood in each direction goes over the routes
that the two sides learned of each other.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import pytest

from bed import Cluster, Timeout, wait_until
from bed.bgp import (
    EXABGP,
    BirdFarSide,
    FarSide,
    Mesh,
    OurFarSide,
    block,
    burning,
    flooding,
    monitored,
    pid_of,
    pids_of,
    send,
    with_bird,
)
from fakes.bgp_host import affinity_record, block_record, configuration_record, peer_record

FARS: dict[str, Callable[[Mesh], FarSide]] = {"ours": OurFarSide, "bird": BirdFarSide}
SHORT: dict[str, Callable[[Mesh], FarSide]] = {
    "ours": OurFarSide, "bird": lambda mesh: BirdFarSide(mesh, restart_seconds=6)
}
NEAR_ADDRESS, FAR_ADDRESS = "10.65.1.1", "10.65.2.1"


@contextmanager
def facing(make: Callable[[Mesh], FarSide], **configuration: str) -> Iterator[tuple[Mesh, FarSide]]:
    """node1 with bgpd and node2 with the far side, their session up and both their blocks in the other's kernel."""
    with Cluster(2) as cluster:
        mesh = Mesh(cluster)
        if configuration:
            mesh.put(configuration_record(**configuration))
        mesh["node1"].ip("addr", "add", f"{NEAR_ADDRESS}/32", "dev", "lo")
        mesh["node2"].ip("addr", "add", f"{FAR_ADDRESS}/32", "dev", "lo")
        mesh.start("node1", wait=False)
        far = make(mesh)
        far.start()
        await_all(mesh, far)
        yield mesh, far


def await_all(mesh: Mesh, far: FarSide, timeout: float = 30.0) -> None:
    """Wait until both sides have said everything to each other."""
    try:
        wait_until("node1 to have the session", lambda: mesh.is_up("node1", "node2"), timeout=timeout)
    except Timeout as error:
        log = mesh.daemons["node1"].text[-3000:]
        raise Timeout(f"{error}; node1: {mesh.sessions('node1')}\n{log}\nthe far side: {far.since()}") from None
    wait_until("the far side to have the session", far.is_up, timeout=timeout)
    ours = {block(1): f"via {mesh['node1'].address} dev eth0"}
    wait_until("the far side to have our block", lambda: far.routes() == ours, timeout=timeout)
    mesh.await_routes("node1", mesh.expected("node1"), timeout=timeout)


@contextmanager
def unnoticed(mesh: Mesh) -> Iterator[None]:
    """While the block runs no packet is lost in either direction, and no route of a kernel changes."""
    one, two = mesh["node1"], mesh["node2"]
    with ExitStack() as stack:
        kernels = [stack.enter_context(monitored(host)) for host in (one, two)]
        floods = [stack.enter_context(flooding(*way)) for way in ((one, FAR_ADDRESS), (two, NEAR_ADDRESS))]
        yield
        time.sleep(0.5)  # what might come of it late
    assert [flood.lost for flood in floods] == [0, 0]
    assert all(flood.sent > 100 for flood in floods)
    assert kernels == [[], []]


def kill_bgpd(mesh: Mesh) -> None:
    mesh.daemons["node1"].kill()
    mesh.start("node1", wait=False)


def kill_speaker(number: signal.Signals) -> Callable[[Mesh], None]:
    def kill(mesh: Mesh) -> None:
        before = pid_of(mesh["node1"], EXABGP)
        send(mesh["node1"], EXABGP, number)
        wait_until("another ExaBGP", lambda: pid_of(mesh["node1"], EXABGP) not in (0, before), timeout=30)

    return kill


def kill_both(mesh: Mesh) -> None:
    mesh.daemons["node1"].kill()
    send(mesh["node1"], EXABGP, signal.SIGKILL)
    mesh.start("node1", wait=False)


DEATHS: dict[str, Callable[[Mesh], None]] = {
    "ExaBGP is killed": kill_speaker(signal.SIGKILL),
    "ExaBGP is asked to end": kill_speaker(signal.SIGTERM),
    "both are killed": kill_both,
}


@pytest.mark.bgp_scenario(58, 59)
@pytest.mark.parametrize("make", FARS.values(), ids=FARS)
def test_what_dies_here_costs_no_packet_and_shows_in_no_kernel(make: Callable[[Mesh], FarSide]) -> None:
    with facing(make) as (mesh, far):
        since, speaker = far.since(), pid_of(mesh["node1"], EXABGP)
        with unnoticed(mesh):
            kill_bgpd(mesh)
            await_all(mesh, far)
        # not even the session
        assert (far.since(), pid_of(mesh["node1"], EXABGP)) == (since, speaker)
        for what, death in DEATHS.items():
            with unnoticed(mesh), burning(mesh["node1"]) if what == "both are killed" else nullcontext():
                death(mesh)
                await_all(mesh, far)
        # and what changes now goes out and comes in as before
        mesh.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
        way = f"via {mesh['node1'].address} dev eth0"
        wait_until("the new block", lambda: far.routes() == {block(1): way, "10.65.1.64/26": way})


@pytest.mark.bgp_scenario(63)
@pytest.mark.parametrize("make", SHORT.values(), ids=SHORT)
def test_a_far_side_restarts_unnoticed_and_is_given_up_when_it_never_returns(make: Callable[[Mesh], FarSide]) -> None:
    with facing(make, nodeMeshMaxRestartTime="6s") as (mesh, far):
        with unnoticed(mesh):
            far.kill()
            wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), every=0.01)
            far.start()
            await_all(mesh, far)
        with monitored(mesh["node1"]) as events:
            with flooding(mesh["node1"], FAR_ADDRESS) as flood:
                far.kill()
                wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), every=0.01)
                began = time.monotonic()
                time.sleep(2)
            assert flood.lost == 0
            mesh.await_routes("node1", {block(1): "blackhole"}, timeout=15)
            assert time.monotonic() - began > 5
        assert [line.split()[:2] for line in events] == [["Deleted", block(2)]]


@pytest.mark.bgp_scenario(65)
def test_a_host_that_lost_everything_in_a_reboot_is_up_to_date_soon() -> None:
    with with_bird() as (mesh, bird):
        ours = {block(1): f"via {mesh['node1'].address} dev eth0"}
        wait_until("BIRD to have our block", lambda: bird.routes() == ours)
        with monitored(bird.host) as events:
            mesh["node1"].reboot()
            began = time.monotonic()
            mesh.start("node1", wait=False)
            wait_until("the session", lambda: mesh.is_up("node1", "node2"), timeout=30)
            mesh.await_routes("node1", mesh.expected("node1"))
            took = time.monotonic() - began
            # it says that it restarted, so BIRD waits for its routes with what it has
            assert "Restart recovery" in bird.ask("show protocols all peer0")
            wait_until("all routes to be new", lambda: "stale" not in bird.ask("show route all").lower())
            assert bird.routes() == ours
        assert took < 30, took
        assert events == []


@pytest.mark.bgp_scenario(12)
def test_another_listening_port_costs_no_packet() -> None:
    with facing(OurFarSide) as (mesh, far), unnoticed(mesh):
        mesh.put(configuration_record("node.node1", listenPort=1790))

        def moved() -> bool:
            # node1 has the smaller address: node2 connects
            return mesh["node1"].run("ss -Htn state established 'sport = :1790'").stdout.count("\n") == 1

        wait_until("the session on the new port", moved, timeout=30)
        await_all(mesh, far)


@pytest.mark.bgp_scenario(68)
def test_what_came_while_nobody_listened_is_made_good_and_takes_no_room() -> None:
    many = [f"10.65.{number // 4}.{number % 4 * 64}/26" for number in range(8, 1020)]
    with with_bird() as (mesh, bird):
        one = mesh["node1"]
        relay = pids_of(one, r"relay\.py --socket")

        def resident() -> int:
            status = one.read_file(f"/proc/{relay[0]}/status")
            return int(status.split("VmRSS:")[1].split()[0])

        before, since = resident(), bird.ask("show protocols peer0")
        mesh.daemons["node1"].kill()
        for static in (many, many[1::2], many, many[::2]):
            bird.configure(*static)
            bird.ask("configure")
            wait_until("BIRD to have sent them", partial(bird.has_exported, len(static)))
        mesh.start("node1", wait=False)
        expected = dict.fromkeys(many[::2], f"via {bird.host.address} dev eth0") | {block(1): "blackhole"}
        mesh.await_routes("node1", expected, timeout=30)
        assert mesh.state("node1")["speaker"]["lost_events"] > 0
        assert resident() < before + 8192

        # a client that comes for a moment takes the relay's only place: bgpd is back at once, and no session falls
        one.run(["python3", "-c", _VISIT])
        wait_until("bgpd to be back", lambda: "event=speaker.detached" in mesh.daemons["node1"].text)
        wait_until("bgpd to be ready", lambda: mesh.state("node1")["speaker"]["settled"])
        bird.configure(*many)
        bird.ask("configure")
        expected = dict.fromkeys(many, f"via {bird.host.address} dev eth0") | {block(1): "blackhole"}
        mesh.await_routes("node1", expected, timeout=30)
        assert pids_of(one, r"relay\.py --socket") == relay
        assert bird.ask("show protocols peer0") == since


_VISIT = """
import socket
visitor = socket.socket(socket.AF_UNIX)
visitor.connect("/run/calico/bgp-relay.sock")
visitor.recv(100)
"""


def test_restart_and_hold_times_are_said_to_the_peer() -> None:
    with with_bird() as (mesh, bird):
        def said(*words: str) -> bool:
            shown = " ".join(bird.ask("show protocols all peer0").split())
            return all(word in shown for word in words)

        wait_until("the defaults", lambda: said("Restart time: 120", "Hold timer: ", "/9"))
        mesh.put(configuration_record(nodeMeshMaxRestartTime="33s"))
        wait_until("the time of the mesh", lambda: said("Restart time: 33", "/9"), timeout=30)
        peer = {"node": "node1", "peerIP": str(bird.host.address), "asNumber": 64512}
        mesh.put(peer_record("bird", **peer, maxRestartTime="44s", keepaliveTime="2s"))
        wait_until("the times of the peer", lambda: said("Restart time: 44", "/6"), timeout=30)
        mesh.put(peer_record("bird", **peer, maxRestartTime="0s"))
        wait_until("none", lambda: said("/9") and not said("Restart time: 44"), timeout=30)
        send(mesh["node1"], EXABGP, signal.SIGKILL)
        wait_until("BIRD to let go at once", lambda: bird.routes() == {}, timeout=5, every=0.01)
