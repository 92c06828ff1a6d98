"""The kernel's own table main keeps the contract, and iproute2 sees what we see."""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bed import Namespace
from fakes.route_contract import CALI1, IDLE0, OURS, SHAPES, RouteContract, World, is_ours, key, via
from kernel.errors import OutcomeUnknown
from kernel.route import Route, RouteKey, RouteKind
from kernel.routes import NetlinkRoutes
from resources.names import IfName, IPNetwork


@dataclass
class RealWorld:
    routes: NetlinkRoutes
    netns: Namespace

    def set_down(self, name: IfName) -> None:
        self.netns.ip("link", "set", name, "down")


@pytest.fixture
def real(netns: Namespace) -> Iterator[RealWorld]:
    for name in ("eth0", "cali1", "cali2", "idle0"):
        netns.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-far")
        if name != "idle0":
            netns.ip("link", "set", name, "up")
            netns.ip("link", "set", f"{name}-far", "up")
    netns.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    netns.ip("address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    with netns.entered():
        routes = NetlinkRoutes()
        yield RealWorld(routes, netns)
        routes.close()


class TestNetlinkRoutes(RouteContract):
    @pytest.fixture
    def world(self, real: RealWorld) -> World:
        return real


Words = tuple[IPNetwork, int, int, str | None, tuple[tuple[str, str, bool, int], ...]]


def seen_by_ip(netns: Namespace) -> set[Words]:
    """Return our routes as ``ip -j route`` shows them: destination, metric, kind, source, next hops."""
    found: set[Words] = set()
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        for route in json.loads(netns.ip("-j", "-N", family, "route", "show", "proto", str(OURS)).stdout):
            destination = ipaddress.ip_network(everything if route["dst"] == "default" else route["dst"])
            kind = int(route.get("type", 1))
            hops = route.get("nexthops", [route]) if kind < RouteKind.BLACKHOLE else []
            found.add((destination, int(route.get("metric", 0)), kind, route.get("prefsrc"), tuple(_hops(hops))))
    return found


def _hops(hops: list[dict[str, Any]]) -> list[tuple[str, str, bool, int]]:
    return sorted(
        (
            str(hop.get("gateway") or hop.get("via", {}).get("host")),
            hop["dev"],
            "onlink" in hop.get("flags", []),
            hop.get("weight", 1),
        )
        for hop in hops
    )


def in_words(where: RouteKey, route: Route) -> Words:
    hops = tuple(sorted((str(hop.gateway), str(hop.device), hop.onlink, hop.weight) for hop in route.next_hops))
    source = None if route.source is None else str(route.source)
    return where.destination, where.metric, int(route.kind), source, hops


@pytest.mark.parametrize("shape", SHAPES)
def test_iproute2_shows_the_route_that_was_written(real: RealWorld, shape: str) -> None:
    where, route = SHAPES[shape]
    assert real.routes.replace({where: route}) == {}
    assert seen_by_ip(real.netns) == {in_words(where, route)}


def test_routes_that_iproute2_wrote_are_read(real: RealWorld) -> None:
    for text in (
        "10.1.0.0/26 via 192.0.2.7 dev eth0",
        "10.2.0.0/26 dev cali1 scope link src 192.0.2.1",
        "unreachable 10.3.0.0/16 metric 9",
        f"10.4.0.0/26 proto {OURS} nexthop via 192.0.2.7 dev eth0 weight 2 nexthop via 192.0.2.8 dev eth0",
        "10.5.0.0/26 via inet6 2001:db8::7 dev eth0",
        "fd00:1::/64 via 2001:db8::7 dev eth0",
        "blackhole fd00:2::/64",
        "10.6.0.0/26 via 192.0.2.7 dev eth0 mtu 1300 advmss 1000",
    ):
        marked = text if "proto" in text else f"{text} proto {OURS}"
        real.netns.ip("route", "add", *marked.split())
    ours = real.routes.read(is_ours).ours
    assert len(ours) == 8
    assert {in_words(where, route) for where, route in ours.items()} == seen_by_ip(real.netns)


def test_other_tables_and_types_of_service_are_not_seen(real: RealWorld) -> None:
    real.netns.ip("route", "add", "10.1.0.0/26", "dev", "cali1", "table", "77", "proto", str(OURS))
    real.netns.ip("route", "add", "10.1.0.0/26", "dev", "cali1", "tos", "0x10", "proto", str(OURS))
    assert real.routes.read(is_ours).ours == {}


def test_the_kernel_filters_by_protocol(real: RealWorld) -> None:
    real.routes.add({key("10.1.0.0/26"): via("192.0.2.7"), key("10.2.0.0/26"): via("192.0.2.7", protocol=99)})
    assert [where for where, _ in real.routes.dump(protocol=99)] == [key("10.2.0.0/26")]


def test_an_appended_twin_is_foreign_beside_ours(real: RealWorld) -> None:
    real.routes.add({key("10.1.0.0/26"): via("192.0.2.7")})
    real.netns.ip("route", "append", "10.1.0.0/26", "via", "192.0.2.8", "proto", "static")
    found = real.routes.read(is_ours)
    assert found.ours[key("10.1.0.0/26")] == via("192.0.2.7")
    assert found.foreign[key("10.1.0.0/26")] == (via("192.0.2.8", protocol=4),)


def test_a_refusal_carries_the_words_of_the_kernel(real: RealWorld) -> None:
    (error,) = real.routes.replace({key("10.1.0.0/26"): via("198.51.100.1")}).values()
    assert "10.1.0.0/26 via 198.51.100.1 dev eth0" in str(error)
    assert "invalid gateway" in str(error)


def test_thousands_of_refusals_all_come_back(real: RealWorld) -> None:
    bad = {key(f"10.{i >> 8}.{i & 255}.0/26"): via("198.51.100.1") for i in range(3000)}
    failed = real.routes.replace(bad)
    assert failed.keys() == bad.keys()
    assert not any(isinstance(error, OutcomeUnknown) for error in failed.values())


def test_many_next_hops_fit(real: RealWorld) -> None:
    wide = via(*(f"192.0.2.{i}" for i in range(2, 130)))
    wanted = {key(f"10.{i >> 8}.{i & 255}.0/26"): wide for i in range(600)}
    assert real.routes.replace(wanted) == {}
    assert real.routes.read(is_ours).ours == wanted


def test_the_way_without_a_gateway_is_asked_of_all_tables(real: RealWorld) -> None:
    own = real.routes.lookup(ipaddress.ip_address("192.0.2.1"))
    assert own is not None
    assert own.kind is RouteKind.LOCAL


def test_an_interface_that_is_down_takes_no_route_and_leaves_none(real: RealWorld) -> None:
    where = key("10.0.0.1/32")
    assert where in real.routes.replace({where: Route.on(IDLE0, protocol=OURS)})
    real.netns.ip("link", "set", "idle0", "up")
    assert real.routes.replace({where: Route.on(IDLE0, protocol=OURS)}) == {}
    assert real.routes.replace({where: Route.on(CALI1, protocol=OURS)}) == {}
    assert real.routes.read(is_ours).ours == {where: Route.on(CALI1, protocol=OURS)}
