"""bgpd on several hosts, with real ExaBGP, etcd and kernels, and BIRD on the far side where that matters.

There is no felix here: nothing but bgpd writes routes. The address of a "workload" is put on its host's loopback.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from bed import Cluster, Fabric, Host, HostPlan, wait_until
from bed.bgp import ENV, POOL, Mesh, bird_beside, block, monitored, put, with_bird
from bed.etcd import Etcd
from calicoctl.node import birdctl
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    node_record,
    peer_record,
    pool_record,
)
from resources.runtime import health

# --- the mesh ---------------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(1)
def test_three_nodes_are_meshed_and_connected_once(mesh: Mesh) -> None:
    mesh.start()
    for name in ("node1", "node2", "node3"):
        mesh.await_routes(name, mesh.expected(name))
    for host in mesh.cluster.hosts:
        established = host.run("ss -Htn state established '( sport = :179 or dport = :179 )'").stdout.splitlines()
        assert len(established) == 2
        listening = host.run("ss -Hltn 'sport = :179'").stdout.split()
        assert f"{host.address}:179" in listening
        assert not any(word.startswith(("0.0.0.0:179", "*:179")) for word in listening)
        assert {session["transitions"] for session in mesh.sessions(host.name).values()} == {1}
        status, body = health.ask(host.path("/run/calico/bgpd.sock"), "/readiness")
        assert (status, body) == (204, "")
        assert host.run("stat -c %a /run/calico/exabgp.conf /run/calico/bgp-relay.sock").stdout.split() == ["600"] * 2
    shown = birdctl.peers(mesh["node1"].path("/run/calico/bird.ctl"))
    assert [(peer.address, peer.type, peer.state, peer.info) for peer in shown] == [
        (str(mesh[name].address), "node-to-node mesh", "up", "Established") for name in ("node2", "node3")
    ]
    assert birdctl.peers(mesh["node1"].path("/run/calico/bird6.ctl")) == []
    assert "advice" not in mesh.daemons["node1"].text


@pytest.mark.bgp_scenario(3)
def test_the_smaller_address_waits_and_connections_never_collide() -> None:
    """10.77.0.9 and .10: as text the other one would be smaller."""
    plans = [HostPlan(name=f"node{number}") for number in range(1, 11)]
    with Fabric() as fabric:
        addresses = [fabric.next_address() for _ in plans]
        nine, ten = (
            Host(fabric, f"node{number}", address=addresses[number - 1], env={"IP": str(addresses[number - 1])})
            for number in (9, 10)
        )
        etcd = Etcd(fabric)
        put(etcd, POOL, node_record("node9", f"{nine.address}/24"), node_record("node10", f"{ten.address}/24"))
        for _ in range(3):
            daemons = [
                host.popen(["calico-bgpd"], env={**ENV, "ETCD_ENDPOINTS": etcd.endpoints}) for host in (ten, nine)
            ]
            for host, other, passive in ((nine, ten, True), (ten, nine, False)):
                def ready(host: Host = host) -> bool:
                    status, _ = health.ask(host.path("/run/calico/bgpd.sock"), "/readiness")
                    return status == 204

                wait_until(f"{host.name} to be ready", ready, timeout=20)

                def session(host: Host = host, other: Host = other) -> Any:
                    _, body = health.ask(host.path("/run/calico/bgpd.sock"), "/state", timeout=5)
                    [found] = [one for one in json.loads(body)["sessions"] if one["peer"] == str(other.address)]
                    return found

                wait_until(f"{host.name} to be up", lambda: session()["up"], timeout=20)
                assert session()["passive"] is passive
                assert session()["transitions"] == 1
            for daemon in daemons:
                daemon.terminate()
            for host in (nine, ten):
                assert host.run(["calico-bgpd", "--end-speaker"]).stdout == "The BGP speaker has ended.\n"


@pytest.mark.bgp_scenario(2, 4)
def test_nodes_come_go_and_move_without_touching_the_others(mesh: Mesh) -> None:
    mesh.start("node1", "node2")
    one, two, three = (mesh[f"node{number}"] for number in (1, 2, 3))
    before = mesh.sessions("node1")[str(two.address)]["since"]
    mesh.start("node3")
    mesh.await_routes("node1", mesh.expected("node1"))

    mesh.remove(*mesh.records(3, three.address))
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    mesh.await_routes("node2", mesh.expected("node2", "node1"))
    assert set(mesh.sessions("node1")) == {str(two.address)}

    moved = IPv4Address("10.77.0.33")
    three.ip("addr", "replace", f"{moved}/24", "dev", "eth0")
    mesh.put(*mesh.records(3, moved))
    expected = mesh.expected("node1", "node2") | {block(3): f"via {moved} dev eth0"}
    mesh.await_routes("node1", expected, timeout=30)
    assert set(mesh.sessions("node1")) == {str(two.address), str(moved)}
    assert mesh.sessions("node1")[str(two.address)]["since"] == before
    assert one.run("ss -Htn state established 'sport = :179 or dport = :179'").stdout.count("\n") == 2


def test_a_node_whose_record_is_deleted_and_written_again_at_once_is_meshed(mesh: Mesh) -> None:
    mesh.start()
    speakers = {name: mesh.state(name)["speaker"]["pid"] for name in mesh.daemons}
    record = mesh.records(2, mesh["node2"].address)[0]
    for pause in (0.0, 0.3):
        mesh.remove(record)
        time.sleep(pause)
        mesh.put(record)
        for name in mesh.daemons:
            mesh.await_routes(name, mesh.expected(name), timeout=30)
        wait_until("all to be up again", lambda: all(mesh.is_up(name) for name in mesh.daemons), timeout=30)
    assert {name: mesh.state(name)["speaker"]["pid"] for name in mesh.daemons} == speakers


def test_a_bad_record_harms_nobody(mesh: Mesh) -> None:
    mesh.start()
    mesh.put(node_record("node9", "10.77.0.300/24"), pool_record("bad", "10.66.0.0/99"))
    mesh.put(node_record("node8", "10.77.0.88/24; } process evil { run /bin/sh; }"))
    mesh.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    mesh.await_routes("node2", mesh.expected("node2") | {"10.65.1.64/26": f"via {mesh['node1'].address} dev eth0"})
    assert mesh.is_up("node1")
    assert "evil" not in mesh["node1"].read_file("/run/calico/exabgp.conf")
    assert any("node9" in str(one) for one in (mesh.state("node1")["unusable"], mesh.state("node1")["records"]))


@pytest.mark.bgp_scenario(32, 33, 34, 35)
def test_blocks_and_borrowed_addresses(mesh: Mesh) -> None:
    mesh.start()
    own = [block_record("10.65.1.128/26", "node1"), affinity_record("10.65.1.128/26", "node1", "pending")]
    mesh.put(*own, endpoint_record("node1", "b", "10.65.2.7/32"))
    borrowed = {"10.65.2.7/32": f"via {mesh['node1'].address} dev eth0"}
    for name in ("node2", "node3"):
        mesh.await_routes(name, mesh.expected(name) | borrowed)
    # the owner of the block prefers the holder of the address over its own blackhole
    way = mesh["node2"].ip("route", "get", "10.65.2.7").stdout
    assert str(mesh["node1"].address) in way

    mesh.put(affinity_record("10.65.1.128/26", "node1"))
    grown = {"10.65.1.128/26": f"via {mesh['node1'].address} dev eth0"}
    mesh.await_routes("node3", mesh.expected("node3") | borrowed | grown)
    mesh.put(affinity_record("10.65.1.128/26", "node1", "pendingDeletion"))
    mesh.remove(endpoint_record("node1", "b"))
    for name in ("node2", "node3"):
        mesh.await_routes(name, mesh.expected(name))
    mesh.await_routes("node1", mesh.expected("node1"))

    mesh.put(pool_record("p", "10.65.0.0/16", disableBGPExport=True))
    mesh.await_routes("node2", {block(2): "blackhole"})
    mesh.put(POOL)
    mesh.await_routes("node2", mesh.expected("node2"))


@pytest.mark.bgp_scenario(39)
def test_host_routes_stay_at_home(mesh: Mesh) -> None:
    mesh.start("node1", "node2")
    one = mesh["node1"]
    one.ip("link", "add", "docker0", "type", "bridge")
    one.ip("addr", "add", "172.17.0.1/16", "dev", "docker0")
    one.ip("link", "set", "docker0", "up")
    one.ip("route", "add", "10.65.200.0/24", "via", str(mesh["node3"].address))
    mesh.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    mesh.await_routes(
        "node2", mesh.expected("node2", "node1") | {"10.65.1.64/26": f"via {one.address} dev eth0"}
    )


@pytest.mark.bgp_scenario(41)
def test_ipv6_has_sessions_of_its_own(pair: Mesh) -> None:
    for number, host in enumerate(pair.cluster.hosts, 1):
        host.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        host.ip("addr", "add", f"fd99::{number}/64", "dev", "eth0", "nodad")
        name = f"node{number}"
        pair.put(
            node_record(name, f"{host.address}/24", ipv6=f"fd99::{number}/64"),
            pool_record("p6", "fd80::/48"),
            block_record(f"fd80::{number}:0/122", name),
            affinity_record(f"fd80::{number}:0/122", name),
        )
    pair.start()
    one = pair["node1"]

    def six() -> str:
        return one.ip("-6", "-N", "route", "show", "proto", "81").stdout

    wait_until("the other's IPv6 block", lambda: "fd80::2:0/122 via fd99::2 dev eth0" in six())
    assert "6 fd80::1:0/122 dev lo" in six()  # 6: blackhole
    assert set(pair.sessions("node1")) == {str(pair["node2"].address), "fd99::2"}


# --- kernel -----------------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(52)
def test_drift_is_repaired_and_foreign_routes_are_respected(pair: Mesh) -> None:
    pair.start()
    one, two = pair["node1"], pair["node2"]
    expected = pair.expected("node1")
    one.ip("route", "del", block(2))
    pair.await_routes("node1", expected, timeout=1)
    one.ip("route", "flush", "proto", "81")
    pair.await_routes("node1", expected, timeout=1)

    one.ip("route", "add", "10.65.2.64/26", "via", "10.77.0.200")
    pair.put(block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2"))
    wait_until("the conflict", lambda: list(pair.state("node1")["kernel"]["conflicts"]) == ["10.65.2.64/26"])
    assert "via 10.77.0.200" in one.ip("route", "show", "10.65.2.64/26").stdout
    assert pair.routes("node1") == expected
    one.ip("route", "del", "10.65.2.64/26")
    more = {"10.65.2.64/26": f"via {two.address} dev eth0"}
    pair.await_routes("node1", expected | more, timeout=2)
    assert "level=error" in pair.daemons["node1"].text
    assert "event=route.conflict" in pair.daemons["node1"].text


@pytest.mark.bgp_scenario(53)
def test_an_interface_goes_down_and_up(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    one.ip("link", "set", "eth0", "down")
    pair.await_routes("node1", {block(1): "blackhole"}, timeout=2)
    one.ip("link", "set", "eth0", "up")
    pair.await_routes("node1", pair.expected("node1"), timeout=2)


@pytest.mark.bgp_scenario(50)
def test_what_goes_through_tunnels_that_are_not_there_is_withheld(pair: Mesh) -> None:
    pair.start()
    pair.put(pool_record("p", "10.65.0.0/16", ipipMode="Always"))
    pair.await_routes("node1", {block(1): "blackhole", block(2): "unreachable"})
    assert list(pair.state("node1")["withheld"]) == [block(2)]
    # nothing for these addresses leaves the host in the clear by way of the default route either
    assert "No route to host" in pair["node1"].ip("route", "get", "10.65.2.1", check=False).stderr
    wait_until("it to be told", lambda: "event=routes.withheld" in pair.daemons["node1"].text, timeout=20)
    pair.put(pool_record("p", "10.65.0.0/16", vxlanMode="Always"))
    pair.await_routes("node1", {}, timeout=10)  # these are felix's, which does not run here
    assert not pair.state("node1")["withheld"]
    pair.put(POOL)
    pair.await_routes("node1", pair.expected("node1"))


# --- BIRD on the far side ---------------------------------------------------------------------------------------------
@pytest.mark.bgp_scenario(71, 72)
def test_node_status_shows_each_kind_of_session() -> None:
    with with_bird() as (mesh, _):
        one, address, fabric = mesh["node1"], str(mesh["node2"].address), str(mesh.cluster.fabric.address)
        mesh.put(
            node_record("node3", "10.77.0.250/24"),  # never there; its address is the greater one: node1 waits
            peer_record("nobody", peerIP=fabric, asNumber=65001),  # no BGP speaker there
            peer_record("unread", peerIP="10.77.0.251", asNumber=65001,
                        password={"secretKeyRef": {"name": "bgp", "key": "absent"}}),
        )

        def shown() -> dict[str, tuple[str, ...]]:
            peers = birdctl.peers(one.path("/run/calico/bird.ctl"))
            return {peer.address: (peer.type, peer.state, peer.info.split(":")[0]) for peer in peers}

        refused = ("global", "start", "Active Socket")
        wait_until("the refused connection", lambda: shown().get(fabric) == refused, timeout=20)
        assert shown() == {
            address: ("node-to-node mesh", "up", "Established"),
            "10.77.0.250": ("node-to-node mesh", "start", "Passive"),
            fabric: refused,
            "10.77.0.251": ("global", "down", "Down Error"),
        }
        before = shown()
        status = one.run("calicoctl node status -o json", check=False)
        assert status.exit == 1  # felix does not run here
        found = json.loads(status.stdout)
        assert (found["running"], found["ipv6"]) == (False, [])
        assert {peer["address"]: peer["state"] for peer in found["ipv4"]} == {
            peer: state for peer, (_, state, _) in before.items()
        }
        assert [line for line in found["warnings"] if "bgp/absent" in line]


@pytest.mark.bgp_scenario(43, 73)
def test_routes_that_bird_sends_and_must_not() -> None:
    sent = {
        block(2): None,
        "0.0.0.0/0": "default",
        block(1): "own-block",
        "10.65.1.0/24": "own-block",
        "10.65.1.5/32": "own-block",
        "10.77.0.1/32": "node-address",
        "172.17.0.0/16": "not-in-pool",
        "10.66.0.0/26": "not-in-pool",
        "10.65.9.0/26 via 10.77.0.99": None,
    }
    with with_bird(*sent, next_hop_self=True) as (mesh, _):
        expected = {prefix.split()[0]: reason for prefix, reason in sent.items()}

        def refused() -> dict[str, str | None]:
            return {route["prefix"]: route["paths"][0]["refused"] for route in mesh.learned("node1")}

        wait_until("all routes", lambda: len(refused()) == len(expected))
        assert refused() == expected
        here = mesh.expected("node1") | {"10.65.9.0/26": f"via {mesh['node2'].address} dev eth0"}
        mesh.await_routes("node1", here)
        counts = mesh.sessions("node1")[str(mesh["node2"].address)]
        assert counts["routes_refused"] == {"default": 1, "own-block": 3, "node-address": 1, "not-in-pool": 2}
        assert (counts["routes_received"], counts["routes_accepted"]) == (9, 2)
        shown = mesh["node1"].run("calicoctl node routes 10.65.1.0/24").stdout
        peer = str(mesh["node2"].address)
        assert [[line.split()[n] for n in (0, 1, 2)] + line.split()[4:] for line in shown.splitlines()[1:5]] == [
            ["0.0.0.0/0", peer, peer, "no:", "default"],
            *([prefix, peer, peer, "no:", "own-block"] for prefix in ("10.65.1.0/24", block(1), "10.65.1.5/32")),
        ]
        assert "own-block: it is a block of this node, around one or in one\n" in shown
        found = mesh["node1"].run(["calicoctl", "node", "routes", "10.65.9.7", "-o", "json"]).stdout
        assert [(route["prefix"], route["in_kernel"], route["route"]) for route in json.loads(found)["routes"]] == [
            ("0.0.0.0/0", False, None), ("10.65.9.0/26", True, f"via {peer} dev eth0 proto 81")
        ]
        status = json.loads(mesh["node1"].run("calicoctl node status -o json", check=False).stdout)
        assert [(one["address"], one["state"], one["info"], one["routes_accepted"]) for one in status["ipv4"]] == [
            (peer, "up", "Established", 2)
        ]
        _, figures = health.ask(mesh["node1"].path("/run/calico/bgpd.sock"), "/metrics", timeout=10)
        assert f'calico_bgp_routes_rejected_total{{peer="{peer}",reason="own-block"}} 3.0\n' in figures
        assert 'calico_process_resident_bytes{process="exabgp"}' in figures

        # a bridge of Docker's makes one of them a network of our own
        one = mesh["node1"]
        one.ip("link", "add", "docker0", "type", "bridge")
        one.ip("addr", "add", "172.17.0.1/16", "dev", "docker0")
        one.ip("link", "set", "docker0", "up")
        wait_until("the bridge to count", lambda: refused()["172.17.0.0/16"] == "node-address")


@pytest.mark.bgp_scenario(55)
def test_ten_thousand_routes_come_and_go() -> None:
    many = [f"10.{128 + n // 1024}.{n // 4 % 256}.{n % 4 * 64}/26" for n in range(10_000)]
    with with_bird(*many) as (mesh, bird):
        mesh.put(pool_record("wide", "10.128.0.0/9"))
        wait_until("all routes", lambda: len(mesh.routes("node1")) == 10_001, timeout=30)
        # everything in the kernel is decided again and nothing is written
        with monitored(mesh["node1"]) as events:
            mesh.daemons["node1"].kill()
            mesh.start("node1", wait=False)
            wait_until("bgpd to be back", lambda: mesh.is_up("node1", "node2"), timeout=30)
            time.sleep(1)
        assert events == []
        bird.ask("disable peer0")
        mesh.await_routes("node1", {block(1): "blackhole"}, timeout=10)


SECRET = {"secretKeyRef": {"name": "bgp", "key": "mesh"}}
QUICK = ENV | {"BGPD_ROUTE_REFRESH_SECONDS": "1"}


def put_secret(host: Host, password: str, mode: int = 0o600) -> None:
    host.write_file("/etc/calico/secrets/bgp/mesh", password, mode=mode)


def withheld(mesh: Mesh, name: str) -> list[str]:
    return [one["reason"] for one in mesh.state(name).get("unusable", ())]


@pytest.mark.bgp_scenario(16)
def test_the_mesh_has_a_password_from_a_file(pair: Mesh) -> None:
    pair.put(configuration_record(nodeMeshPassword=SECRET))
    put_secret(pair["node1"], "s3cret-1\n")
    for name in ("node1", "node2"):
        pair.daemons[name] = pair[name].popen(["calico-bgpd"], env=QUICK)

    wait_until("node2 to tell the file", lambda: withheld(pair, "node2") != [], timeout=20)
    (reason,) = withheld(pair, "node2")
    assert reason.startswith("password: /etc/calico/secrets/bgp/mesh is not there: put the password into it")
    assert pair.sessions("node2") == {}
    put_secret(pair["node2"], "s3cret-1", mode=0o644)
    wait_until("the open file to be refused", lambda: withheld(pair, "node2")[0].endswith("(mode 0644): chmod 0600"))

    put_secret(pair["node2"], "s3cret-2")
    wait_until("node2 to try", lambda: pair.sessions("node2") != {}, timeout=20)
    time.sleep(5)
    assert not pair.is_up("node1", "node2")
    put_secret(pair["node2"], "s3cret-1")
    pair.await_mesh()
    pair.await_routes("node1", pair.expected("node1"))
    for name in ("node1", "node2"):
        assert withheld(pair, name) == []
        assert "s3cret" not in pair.daemons[name].text + json.dumps(pair.state(name))


@pytest.mark.bgp_scenario(16)
def test_bird_and_we_mean_the_same_password() -> None:
    password = "s3;cr{et} '\\ x"
    with Cluster(2) as cluster:
        mesh = Mesh(cluster)
        mesh.put(configuration_record(nodeMeshPassword=SECRET))
        put_secret(mesh["node1"], password)
        mesh.daemons["node1"] = mesh["node1"].popen(["calico-bgpd"], env=QUICK)
        bird = bird_beside(mesh["node2"], mesh["node1"].address, block(2), password=password)
        bird.start()
        wait_until("the session with BIRD", lambda: mesh.is_up("node1", "node2"), timeout=20)
        mesh.await_routes("node1", mesh.expected("node1"))
        put_secret(mesh["node1"], "another")
        wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), timeout=20)
        time.sleep(3)
        assert "Established" not in bird.ask("show protocols peer0")
        put_secret(mesh["node1"], password)
        wait_until("the session to be back", lambda: mesh.is_up("node1", "node2"), timeout=40)


@pytest.fixture
def router() -> Iterator[tuple[Mesh, Host]]:
    """node1 and node2 with bgpd, and a host that is no node."""
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        mesh.remove(*mesh.records(3, cluster["node3"].address))
        yield mesh, cluster["node3"]


@pytest.mark.bgp_scenario(17)
def test_a_router_of_another_as_with_distance_and_password(router: tuple[Mesh, Host]) -> None:
    mesh, tor = router
    mesh.start("node1", "node2")
    since = mesh.sessions("node1")[str(mesh["node2"].address)]["since"]
    put_secret(mesh["node1"], "rack 1")
    peer = {"node": "node1", "peerIP": str(tor.address), "asNumber": 65001, "ttlSecurity": 1, "password": SECRET}
    mesh.put(peer_record("tor", **peer))
    bird = bird_beside(
        tor, mesh["node1"].address, "10.65.9.0/26", "10.65.9.7/32", "0.0.0.0/0",
        number=65001, password="rack 1", more="ttl security on; default bgp_local_pref 50;",
    )  # fmt: skip
    bird.start()
    wait_until("the session with the router", lambda: str(tor.address) in up(mesh, "node1"), timeout=30)
    here = mesh.expected("node1", "node2") | {"10.65.9.0/26": f"via {tor.address} dev eth0"}
    mesh.await_routes("node1", here)
    # and of the other node's block the way that has no detour
    ours = {block(number): f"via {mesh[f'node{number}'].address} dev eth0" for number in (1, 2)}
    wait_until("the router to have the blocks", lambda: bird.routes() == ours, timeout=10)
    for number in (1, 2):
        assert "BGP.as_path: 64512" in bird.ask(f"show route all {block(number)}")
    assert mesh.sessions("node1")[str(tor.address)]["routes_refused"] == {"default": 1, "too-long": 1}
    assert up(mesh, "node2") == {str(mesh["node1"].address)}

    # changed while it runs: that session only
    put_secret(mesh["node1"], "another")
    mesh.put(peer_record("tor", **peer | {"maxRestartTime": "60s"}))
    wait_until("the session to fall", lambda: str(tor.address) not in up(mesh, "node1"), timeout=20)
    put_secret(mesh["node1"], "rack 1")
    mesh.put(peer_record("tor", **peer))
    wait_until("the session to be back", lambda: str(tor.address) in up(mesh, "node1"), timeout=40)
    mesh.await_routes("node1", here)
    mesh.remove(peer_record("tor"))
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    assert mesh.sessions("node1")[str(mesh["node2"].address)]["since"] == since


REFLECTOR = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
template bgp node {{
  local {address} as 64512;
  rr client; rr cluster id 7.7.7.7;
  connect delay time 1; connect retry time 2;
  ipv4 {{ import all; export where source = RTS_BGP; }};
}}
protocol bgp one from node {{ neighbor {one} as 64512; }}
protocol bgp two from node {{ neighbor {two} as 64512; }}
"""


@pytest.mark.bgp_scenario(6, 22)
def test_a_reflector_in_place_of_the_mesh(router: tuple[Mesh, Host]) -> None:
    mesh, reflector = router
    one, two = (mesh[name].address for name in ("node1", "node2"))
    reflector.write_file("/run/bird.conf", REFLECTOR.format(address=reflector.address, one=one, two=two))
    reflector.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
    mesh.start("node1", "node2")
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    mesh.put(peer_record("rr", peerIP=str(reflector.address), asNumber=64512))
    for name in ("node1", "node2"):
        wait_until("the session with the reflector", partial(up_with, mesh, name, reflector), timeout=30)
    with monitored(mesh["node1"]) as events:
        mesh.put(configuration_record(nodeToNodeMeshEnabled=False))
        for name in ("node1", "node2"):
            wait_until("the mesh to end", partial(has_only, mesh, name, reflector))
        # a borrowed address comes by the reflector too
        mesh["node2"].ip("addr", "add", "10.65.1.7/32", "dev", "lo")
        mesh.put(endpoint_record("node2", "borrower", "10.65.1.7/32"))
        borrowed = {"10.65.1.7/32": f"via {two} dev eth0"}
        mesh.await_routes("node1", mesh.expected("node1", "node2") | borrowed)
    # the block of the other was never without its route
    assert not [line for line in events if block(2) in line]
    assert mesh["node1"].ping(ip_address("10.65.1.7"), timeout=2.0).ok


def up(mesh: Mesh, name: str) -> set[str]:
    return {peer for peer, session in mesh.sessions(name).items() if session["state"] == "up"}


def has_only(mesh: Mesh, name: str, other: Host) -> bool:
    return list(mesh.sessions(name)) == [str(other.address)]


def up_with(mesh: Mesh, name: str, other: Host) -> bool:
    return str(other.address) in up(mesh, name)


def test_settings_of_the_store_reach_exabgp() -> None:
    with with_bird() as (mesh, bird):
        mesh.put(configuration_record(nodeMeshMaxRestartTime="33s", listenPort=1790))
        wait_until(
            "the new port", lambda: ":1790" in mesh["node1"].run("ss -Hltn 'sport = :1790'").stdout, timeout=20
        )
        assert "graceful-restart 33" in mesh["node1"].read_file("/run/calico/exabgp.conf")
        assert bird.process.alive
