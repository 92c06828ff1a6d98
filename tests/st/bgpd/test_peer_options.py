"""Filters, gateways and source addresses of single peers, with real ExaBGP and kernels, and BIRD as the router."""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from bed import Cluster, Host, wait_until
from bed.bgp import Mesh, bird_beside, block, monitored
from bed.routes import routes
from bgpd.calc.sessions import router_id
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    filter_record,
    node_record,
    peer_record,
    pool_record,
)
from resources.names import NodeName

ROUTER = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol static st {{ ipv4; {routes} }}
protocol bgp far {{
  local 192.0.2.7 as 65001;
  neighbor {node} as 64512;
  multihop;
  connect delay time 1; connect retry time 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
protocol bgp second {{
  local 10.88.0.3 as 65002;
  neighbor 10.88.0.1 as 64512;
  connect delay time 1; connect retry time 1;
  ipv4 {{ import all; export none; }};
}}
"""
SERVICE = "10.96.0.0/16"


@pytest.fixture
def racked() -> Iterator[tuple[Mesh, Host]]:
    """node1 and node2 with bgpd, and a router that has two more addresses: one behind it, one on a second network."""
    with Cluster(3) as cluster:
        mesh, tor = Mesh(cluster), cluster["node3"]
        mesh.remove(*mesh.records(3, tor.address))
        tor.ip("addr", "add", "192.0.2.7/32", "dev", "lo")
        for host, address in ((tor, "10.88.0.3/24"), (mesh["node1"], "10.88.0.1/24")):
            host.ip("addr", "add", address, "dev", "eth0")
        sent = (SERVICE, "0.0.0.0/0", "10.65.9.0/26", "10.65.1.0/24")
        static = " ".join(f"route {prefix} blackhole;" for prefix in sent)
        node = mesh["node1"].address
        tor.write_file("/run/bird.conf", ROUTER.format(address=tor.address, node=node, routes=static))
        tor.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
        mesh.start("node1", "node2")
        yield mesh, tor


@pytest.mark.bgp_scenario(18, 19, 38)
def test_a_router_behind_a_gateway_with_filters_and_one_on_a_second_network(racked: tuple[Mesh, Host]) -> None:
    mesh, tor = racked
    one = mesh["node1"]
    gateway = f"via {tor.address} dev eth0"
    ours = mesh.expected("node1", "node2")

    # filters that name nothing yet are passed over
    far = peer_record(
        "far", node="node1", peerIP="192.0.2.7", asNumber=65001, reachableBy=str(tor.address), filters=["rack"]
    )
    mesh.put(far)
    wait_until("the far session", lambda: mesh.sessions("node1").get("192.0.2.7", {}).get("state") == "up", timeout=30)
    way = {"192.0.2.7/32": gateway}
    learned = {"10.65.9.0/26": gateway}
    mesh.await_routes("node1", ours | way | learned)
    refused = mesh.sessions("node1")["192.0.2.7"]["routes_refused"]
    assert refused == {"not-in-pool": 1, "default": 1, "own-block": 1}
    wait_until("the router to have both blocks", lambda: set(routes(tor, "12")) == {block(1), block(2)})

    accept = {"action": "Accept", "cidr": SERVICE, "matchOperator": "In"}
    operations = [{"addCommunity": {"value": "65000:1"}}, {"prependASPath": {"prefix": [64999]}}]
    tagged = {"action": "Accept", "cidr": block(1), "matchOperator": "Equal", "operations": operations}
    mesh.put(filter_record("rack", importV4=[accept], exportV4=[tagged, {"action": "Reject"}]))
    mesh.await_routes("node1", ours | way | learned | {SERVICE: gateway})
    wait_until("the router to have one block", lambda: set(routes(tor, "12")) == {block(1)})
    seen = tor.run(["birdc", "-s", "/run/bird.ctl", "show", "route", "all", block(1)]).stdout
    assert "BGP.as_path: 64512 64999\n" in seen
    assert "BGP.community: (65000,1)\n" in seen

    # a filter that cannot be read any more closes
    mesh.put(filter_record("rack", importV4=[{"action": "Perhaps"}], exportV4=[tagged]))
    mesh.await_routes("node1", ours | way)
    assert mesh.sessions("node1")["192.0.2.7"]["routes_refused"] == {"filter-reject": 4}

    # the other router hears us from the address of its own network, with a new listener and no lost route
    mesh.put(peer_record("second", node="node1", peerIP="10.88.0.3", asNumber=65002, sourceAddress="None"))
    wait_until(
        "the second session", lambda: mesh.sessions("node1").get("10.88.0.3", {}).get("state") == "up", timeout=40
    )
    assert mesh.sessions("node1")["10.88.0.3"]["local"] == "10.88.0.1"

    mesh.remove(far)
    mesh.await_routes("node1", ours)
    wait_until("node2 to have its session again", lambda: mesh.sessions("node2")[str(one.address)]["up"], timeout=30)


def test_ttl_security_holds_whoever_opens_the_connection() -> None:
    """The router opens one each second; with TTL 1 at first."""
    with Cluster(2) as cluster:
        mesh, (one, two) = Mesh(cluster), cluster.hosts
        mesh.remove(*mesh.records(2, two.address))
        mesh.put(peer_record("tor", node="node1", peerIP=str(two.address), asNumber=65001, ttlSecurity=1))
        mesh.start("node1", wait=False)
        wait_until("bgpd to have made ready", lambda: mesh.state("node1").get("speaker", {}).get("settled", False))

        def session() -> str:
            return str(mesh.sessions("node1")[str(two.address)]["state"])

        stranger = bird_beside(two, one.address, block(2), number=65001)
        stranger.start()
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert session() != "up"
            time.sleep(0.1)
        stranger.stop()
        router = bird_beside(two, one.address, block(2), number=65001, more="ttl security on;")
        router.start()
        wait_until("the session", lambda: session() == "up", timeout=30)
        mesh.await_routes("node1", {block(1): "blackhole", block(2): f"via {two.address} dev eth0"})


RACK = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
protocol static st {{ ipv4; route 10.65.50.0/26 blackhole; route 10.65.51.0/26 blackhole; }}
protocol bgp node {{
  local {address} as {number};
  neighbor {node} as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export filter {{ if source != RTS_STATIC then reject; {more} accept; }}; }};
}}
"""


@pytest.mark.bgp_scenario(46, 47)
def test_two_racks_share_a_prefix_and_one_takes_over_without_a_hole() -> None:
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        one, left, right = cluster.hosts
        for number, host in enumerate((left, right), 2):
            mesh.remove(*mesh.records(number, host.address))
        racks = {left: (65001, ""), right: (65002, "if net = 10.65.51.0/26 then bgp_path.prepend(65002);")}
        for host, (number, more) in racks.items():
            text = RACK.format(address=host.address, node=one.address, number=number, more=more)
            host.write_file("/run/bird.conf", text)
            host.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
            mesh.put(peer_record(host.name, peerIP=str(host.address), asNumber=number))
        mesh.start("node1", wait=False)

        def ways(prefix: str) -> set[str]:
            words = one.ip("route", "show", prefix).stdout.split()
            return {after for word, after in pairwise(words) if word == "via"}

        both, shared, longer = {str(left.address), str(right.address)}, "10.65.50.0/26", "10.65.51.0/26"
        wait_until("one route with two ways", lambda: ways(shared) == both, timeout=30)
        wait_until("the shorter path", lambda: ways(longer) == {str(left.address)})
        (rival,) = [path for path in paths(mesh, longer) if path["lost_by"]]
        assert (rival["peer"], rival["lost_by"]) == (str(right.address), "longer AS path")

        for command, first, second in (("disable", {str(right.address)}, {str(right.address)}),
                                       ("enable", both, {str(left.address)})):  # fmt: skip
            with monitored(one) as events:
                left.run(["birdc", "-s", "/run/bird.ctl", command, "node"])
                wait_until("the other ways", lambda: (ways(shared), ways(longer)) == (first, second), timeout=20)  # noqa: B023
            touched = [line for line in events if shared in line or longer in line]
            assert touched
            assert not [line for line in touched if line.startswith("Deleted")]


def paths(mesh: Mesh, prefix: str) -> list[Any]:
    return next(route["paths"] for route in mesh.learned("node1") if route["prefix"] == prefix)


@pytest.mark.bgp_scenario(12, 13)
def test_each_node_has_an_as_of_its_own_and_one_listens_elsewhere(pair: Mesh) -> None:
    one, two = pair["node1"], pair["node2"]
    nodes = [node_record(f"node{n}", f"{pair[f'node{n}'].address}/24", asNumber=65010 + n) for n in (1, 2)]
    pair.put(*nodes)
    pair.start()
    for name in ("node1", "node2"):
        pair.await_routes(name, pair.expected(name))
    (path,) = paths(pair, block(2))
    assert (path["as_path"], path["next_hop"], path["external"]) == ("65012", str(two.address), True)

    # node1 begins to listen on another port: its peers connect there, and nobody loses a route
    with monitored(one) as here, monitored(two) as there:
        pair.put(configuration_record("node.node1", listenPort=1790))
        connected = "ss -Htn state established '( sport = :1790 or dport = :1790 )'"
        wait_until("the session by the new port", lambda: one.run(connected).stdout.count("\n") == 1, timeout=30)
        pair.await_mesh(timeout=30)
    assert here == there == []


@pytest.mark.bgp_scenario(5)
def test_nodes_with_ipv6_only(pair: Mesh) -> None:
    records = [pool_record("p6", "fd80::/48")]
    for number, host in enumerate(pair.cluster.hosts, 1):
        host.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        host.ip("addr", "add", f"fd99::{number}/64", "dev", "eth0", "nodad")
        cidr, name = f"fd80::{number}:0/122", f"node{number}"
        records += [
            node_record(name, ipv6=f"fd99::{number}/64"), block_record(cidr, name), affinity_record(cidr, name)
        ]  # fmt: skip
    pair.put(*records)
    pair.start(wait=False)
    wait_until("the session", lambda: pair.sessions("node1").get("fd99::2", {}).get("state") == "up", timeout=30)
    assert set(pair.sessions("node1")) == {"fd99::2"}
    one, way = pair["node1"], "fd80::2:0/122 via fd99::2 dev eth0"
    wait_until("the other's block", lambda: way in one.ip("-6", "route").stdout)
    assert pair.sessions("node1")["fd99::2"]["router_id"] == str(router_id(None, NodeName("node2")))
