"""bgpd with BIRD, FRR and GoBGP: as route reflectors and routers of another AS; IPv4 and IPv6, with passwords."""

import json
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from bed import Cluster, wait_until
from bed.bgp import ENV, Mesh, block
from bed.host import Host
from bed.speakers import SPEAKERS, Neighbor, Speaker, Told
from calicoctl.node import birdctl
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    filter_record,
    node_record,
    peer_record,
    pool_record,
)

PASSWORD = "it's;{4}racks"
"""With what ExaBGP's file is made of."""
SECRET = {"password": {"secretKeyRef": {"name": "bgp", "key": "rack1"}}}


def block6(node: int) -> str:
    return f"fd80::{node}:0/122"


class Rack(Mesh):
    """node1 and node2 have bgpd and addresses of both families; another speaker has node3 to itself."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.put(pool_record("p6", "fd80::/48"))
        for number, host in enumerate(cluster.hosts[:2], 1):
            self.put(
                node_record(host.name, f"{host.address}/24", ipv6=f"{host.address6}/64"),
                block_record(block6(number), host.name),
                affinity_record(block6(number), host.name),
            )
        self.remove(*self.records(3, cluster["node3"].address))

    @property
    def far(self) -> Host:
        return self["node3"]

    def clients(self, *, password: str = "") -> list[Neighbor]:
        return [
            Neighbor(address=str(address), password=password)
            for host in self.cluster.hosts[:2]
            for address in (host.address, host.address6)
        ]

    def peer_with(self, number: int, **options: object) -> None:
        """Have every node peer with the other speaker, by both families."""
        for version, address in ((4, self.far.address), (6, self.far.address6)):
            self.put(peer_record(f"far{version}", peerIP=str(address), asNumber=number, **options))

    def start(self, *names: str, wait: bool = False) -> None:
        for name in ("node1", "node2"):
            self.daemons[name] = self[name].popen(["calico-bgpd"], env={**ENV, "BGPD_ROUTE_REFRESH_SECONDS": "1"})

    def is_up_with_far(self, name: str) -> bool:
        sessions = self.sessions(name)
        return all(
            sessions.get(str(address), {}).get("state") == "up" for address in (self.far.address, self.far.address6)
        )

    def await_far(self) -> None:
        for name in ("node1", "node2"):
            wait_until(f"{name} to be up: {self.sessions(name)}", lambda: self.is_up_with_far(name), timeout=30)  # noqa: B023

    def all_routes(self, name: str) -> dict[str, str]:
        """The routes of both families."""
        found = self.routes(name)
        for route in json.loads(self[name].ip("-6", "-j", "-N", "route", "show", "proto", "81").stdout or "[]"):
            blackhole = route.get("type") == "6"
            found[route["dst"]] = "blackhole" if blackhole else f"via {route.get('gateway')} dev {route.get('dev')}"
        return found


@pytest.fixture(params=SPEAKERS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Speaker]:
    found: type[Speaker] = request.param
    return found


@pytest.fixture
def rack() -> Iterator[Rack]:
    with Cluster(3, ipv6=True) as cluster:
        yield Rack(cluster)


@pytest.mark.bgp_scenario(16, 22)
def test_a_route_reflector(rack: Rack, kind: type[Speaker]) -> None:
    rack.put(configuration_record(nodeToNodeMeshEnabled=False))
    rack.peer_with(64512)
    reflector = kind(rack.far, neighbors=rack.clients(), reflects=True)
    reflector.start()
    rack.start()
    rack.await_far()
    one, two = rack["node1"], rack["node2"]
    expected = {
        "node1": {
            block(1): "blackhole", block(2): f"via {two.address} dev eth0",
            block6(1): "blackhole", block6(2): f"via {two.address6} dev eth0",
        },
        "node2": {
            block(2): "blackhole", block(1): f"via {one.address} dev eth0",
            block6(2): "blackhole", block6(1): f"via {one.address6} dev eth0",
        },
    }  # fmt: skip
    for name, routes in expected.items():
        wait_until(f"{name} to have {routes}", lambda: rack.all_routes(name) == routes, timeout=15)  # noqa: B023
        assert set(rack.sessions(name)) == {str(rack.far.address), str(rack.far.address6)}
    assert reflector.learned(4) == {block(1): Told(str(one.address)), block(2): Told(str(two.address))}
    assert reflector.learned(6) == {block6(1): Told(str(one.address6)), block6(2): Told(str(two.address6))}
    [learned] = [route for route in rack.learned("node1") if route["prefix"] == block(2)]
    [path] = learned["paths"]
    assert (path["originator"], path["clusters"]) == (str(two.address), [str(rack.far.address)])
    for socket, far in (("bird.ctl", rack.far.address), ("bird6.ctl", rack.far.address6)):
        shown = birdctl.peers(one.path(f"/run/calico/{socket}"))
        assert [(peer.address, peer.type, peer.state, peer.info) for peer in shown] == [
            (str(far), "global", "up", "Established")
        ]

    # a password, at run time, on both sides
    for host in (one, two):
        host.run("mkdir -p -m 700 /etc/calico/secrets/bgp")
        host.write_file("/etc/calico/secrets/bgp/rack1", PASSWORD)
        host.run("chmod 600 /etc/calico/secrets/bgp/rack1")
    rack.peer_with(64512, **SECRET)
    wait_until("the sessions to fall", lambda: not any(map(rack.is_up_with_far, expected)), timeout=30)
    reflector.neighbors = rack.clients(password=PASSWORD)
    reflector.restart()
    rack.await_far()
    for name, routes in expected.items():
        wait_until(f"{name} to have {routes}", lambda: rack.all_routes(name) == routes, timeout=15)  # noqa: B023


@pytest.mark.bgp_scenario(13)
def test_a_router_of_another_as(rack: Rack, kind: type[Speaker]) -> None:
    """It learns all blocks; what it tells comes in by a filter only; and it reaches containers."""
    one, two = rack["node1"], rack["node2"]
    rack.far.ip("addr", "add", "10.50.0.1/32", "dev", "lo")
    rack.peer_with(65001)
    announced = ["10.50.0.0/16", "0.0.0.0/0", "fd50::/48"]
    router = kind(rack.far, number=65001, neighbors=rack.clients(), announces=announced)
    router.start()
    rack.put(endpoint_record("node1", "w", "10.65.1.7/32"))
    one.ip("addr", "add", "10.65.1.7/32", "dev", "lo")
    rack.start()
    rack.await_far()
    told = {4: {block(n): Told(str(rack[f"node{n}"].address), (64512,)) for n in (1, 2)},
            6: {block6(n): Told(str(rack[f"node{n}"].address6), (64512,)) for n in (1, 2)}}  # fmt: skip
    for version, blocks in told.items():
        wait_until(f"{kind.name} to have {blocks}", lambda: router.learned(version) == blocks, timeout=15)  # noqa: B023

    def refused() -> dict[str, str]:
        far = {str(rack.far.address), str(rack.far.address6)}
        return {
            route["prefix"]: path["refused"]
            for route in rack.learned("node1")
            for path in route["paths"]
            if path["peer"] in far
        }

    usual = {"10.50.0.0/16": "not-in-pool", "0.0.0.0/0": "default", "fd50::/48": "not-in-pool"}
    wait_until("all that it tells", lambda: refused().items() >= usual.items())
    own = {
        block(1): "blackhole", block(2): f"via {two.address} dev eth0",
        block6(1): "blackhole", block6(2): f"via {two.address6} dev eth0",
    }  # fmt: skip
    assert rack.all_routes("node1") == own

    rack.put(
        filter_record(
            "racks",
            importV4=[{"action": "Accept", "matchOperator": "In", "cidr": "10.50.0.0/16"}],
            importV6=[{"action": "Accept", "matchOperator": "Equal", "cidr": "fd50::/48"}],
        )
    )
    rack.peer_with(65001, filters=["racks"])
    own |= {"10.50.0.0/16": f"via {rack.far.address} dev eth0", "fd50::/48": f"via {rack.far.address6} dev eth0"}
    wait_until(f"node1 to have {own}", lambda: rack.all_routes("node1") == own, timeout=20)
    if kind.in_kernel:
        wait_until(
            "the container to answer the server behind the router",
            lambda: rack.far.ping(ip_address("10.65.1.7"), source=ip_address("10.50.0.1")).ok,
            timeout=15,
        )
