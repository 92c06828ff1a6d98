"""Equal routes are equal values, and a person can read them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.route import NextHop, Route, RouteKey, RouteKind, Scope
from resources.names import IfName

ETH0 = IfName("eth0")
GATEWAYS = [NextHop(gateway=ipaddress.ip_address(f"192.0.2.{i}"), device=ETH0) for i in range(1, 6)]


@given(st.permutations(GATEWAYS))
def test_the_order_of_next_hops_does_not_matter(shuffled: list[NextHop]) -> None:
    assert Route.multipath(shuffled, protocol=81) == Route.multipath(GATEWAYS, protocol=81)


def test_an_ipv6_route_without_a_metric_has_1024() -> None:
    network = ipaddress.ip_network("fd00::/64")
    assert RouteKey(network) == RouteKey(network, 1024)
    assert RouteKey(network) != RouteKey(network, 256)
    assert RouteKey(ipaddress.ip_network("10.0.0.0/8")).metric == 0


def test_a_blackhole_has_no_next_hop_whatever_is_said() -> None:
    told = Route(protocol=81, kind=RouteKind.BLACKHOLE, next_hops=(NextHop(device=IfName("lo")),))
    assert told == Route.blackhole(protocol=81)


def test_one_next_hop_has_no_weight() -> None:
    heavy = NextHop(gateway=GATEWAYS[0].gateway, device=ETH0, weight=7)
    assert Route.multipath([heavy], protocol=81) == Route.multipath(GATEWAYS[:1], protocol=81)


@pytest.mark.parametrize(
    ("route", "scope"),
    [
        (Route.on(ETH0, protocol=80), Scope.LINK),
        (Route.via(ipaddress.ip_address("192.0.2.1"), ETH0, protocol=80), Scope.UNIVERSE),
        (Route.blackhole(protocol=80), Scope.UNIVERSE),
        (Route(protocol=80, kind=RouteKind.LOCAL, next_hops=(NextHop(device=ETH0),)), Scope.HOST),
        (Route(protocol=80, next_hops=(NextHop(device=ETH0),), scope=Scope.UNIVERSE), Scope.UNIVERSE),
    ],
)
def test_the_scope_follows_from_the_rest(route: Route, scope: Scope) -> None:
    assert route.scope is scope


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Route.on(ETH0, protocol=80), "dev eth0 proto 80"),
        (Route.blackhole(protocol=81), "blackhole proto 81"),
        (
            Route.via(ipaddress.ip_address("192.0.2.1"), IfName("tunl0"), protocol=81, onlink=True),
            "via 192.0.2.1 dev tunl0 onlink proto 81",
        ),
        (
            Route.multipath(GATEWAYS[:2], protocol=81),
            "nexthop via 192.0.2.1 dev eth0 nexthop via 192.0.2.2 dev eth0 proto 81",
        ),
        (Route.on(ETH0, protocol=80, source=ipaddress.ip_address("192.0.2.9")), "dev eth0 src 192.0.2.9 proto 80"),
        (RouteKey(ipaddress.ip_network("10.0.0.0/26")), "10.0.0.0/26"),
        (RouteKey(ipaddress.ip_network("fd00::/64")), "fd00::/64"),
        (RouteKey(ipaddress.ip_network("10.0.0.0/26"), 5), "10.0.0.0/26 metric 5"),
    ],
)
def test_a_route_reads_like_iproute2(value: Route | RouteKey, text: str) -> None:
    assert str(value) == text
