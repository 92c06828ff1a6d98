"""What every RouteKernel must do. A test module for one implementation derives from `RouteContract` and gives the
fixture `world`: a host with eth0 (192.0.2.1/24, 2001:db8::1/64), cali1 and cali2, all up with a carrier, and idle0,
which is down.
"""

import ipaddress
from typing import Protocol

import pytest

from kernel.errors import AlreadyThere, DeviceDown, GatewayUnreachable, NoSuchDevice
from kernel.route import PROTOCOL_STATIC, NextHop, Route, RouteKey, RouteKind
from kernel.routes import RouteKernel
from resources.names import IfName

OURS, OTHER = 80, 81
ETH0, CALI1, CALI2, IDLE0 = IfName("eth0"), IfName("cali1"), IfName("cali2"), IfName("idle0")


class World(Protocol):
    """A host and what an operator does to it."""

    @property
    def routes(self) -> RouteKernel: ...
    def set_down(self, name: IfName) -> None: ...


def key(text: str, metric: int = 0) -> RouteKey:
    return RouteKey(ipaddress.ip_network(text), metric)


def via(*gateways: str, protocol: int = OURS) -> Route:
    hops = (NextHop(gateway=ipaddress.ip_address(gateway), device=ETH0) for gateway in gateways)
    return Route.multipath(hops, protocol=protocol)


def is_ours(_: RouteKey, route: Route) -> bool:
    return route.protocol == OURS


K4, K6 = key("10.1.0.0/26"), key("fd00:1::/122")
SHAPES = {
    "host route on a device": (key("10.0.0.1/32"), Route.on(CALI1, protocol=OURS)),
    "host route on a device, v6": (key("fd00::1/128"), Route.on(CALI1, protocol=OURS)),
    "with a source": (key("10.0.0.1/32"), Route.on(CALI1, protocol=OURS, source=ipaddress.ip_address("192.0.2.1"))),
    "through a gateway": (K4, via("192.0.2.7")),
    "through a gateway, v6": (K6, via("2001:db8::7")),
    "several gateways": (K4, via("192.0.2.9", "192.0.2.7", "192.0.2.8")),
    "several gateways, v6": (K6, via("2001:db8::9", "2001:db8::7", "2001:db8::8")),
    "weights": (
        K4,
        Route.multipath(
            [
                NextHop(gateway=ipaddress.ip_address("192.0.2.7"), device=ETH0, weight=3),
                NextHop(gateway=ipaddress.ip_address("192.0.2.8"), device=ETH0, weight=256),
            ],
            protocol=OURS,
        ),
    ),
    "onlink": (K4, Route.via(ipaddress.ip_address("172.31.0.1"), CALI1, protocol=OURS, onlink=True)),
    "blackhole": (K4, Route.blackhole(protocol=OURS)),
    "blackhole, v6": (K6, Route.blackhole(protocol=OURS)),
    "unreachable": (K4, Route(protocol=OURS, kind=RouteKind.UNREACHABLE)),
    "prohibit, v6": (K6, Route(protocol=OURS, kind=RouteKind.PROHIBIT)),
    "throw": (K4, Route(protocol=OURS, kind=RouteKind.THROW)),
    "with a metric": (key("10.1.0.0/26", 77), via("192.0.2.7")),
    "with a metric, v6": (key("fd00:1::/122", 77), via("2001:db8::7")),
    "default": (key("0.0.0.0/0"), via("192.0.2.7")),
    "default, v6": (key("::/0"), via("2001:db8::7")),
    "IPv4 through an IPv6 gateway": (K4, via("2001:db8::7")),
}
V4 = [route for where, route in SHAPES.values() if where == K4]
V6 = [route for where, route in SHAPES.values() if where == K6]


class RouteContract:
    @pytest.fixture
    def world(self) -> World:
        raise AssertionError("a test module gives this fixture")

    @pytest.fixture
    def routes(self, world: World) -> RouteKernel:
        return world.routes

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_route_is_read_as_it_was_written(self, routes: RouteKernel, shape: str) -> None:
        where, route = SHAPES[shape]
        assert routes.replace({where: route}) == {}
        assert routes.read(is_ours).ours == {where: route}
        assert routes.delete({where: route}) == {}
        assert routes.read(is_ours).ours == {}

    def test_any_shape_takes_the_place_of_any_other(self, routes: RouteKernel) -> None:
        for where, shapes in ((K4, V4), (K6, V6)):
            for before in shapes:
                for after in shapes:
                    assert routes.replace({where: before}) == {}
                    assert routes.replace({where: after}) == {}
                    assert routes.read(is_ours).ours.get(where) == after

    def test_many_are_written_and_deleted_at_once(self, routes: RouteKernel) -> None:
        wanted = {key(f"10.{i >> 8}.{i & 255}.0/26"): via("192.0.2.7") for i in range(1, 1500)}
        assert routes.add(wanted) == {}
        assert routes.read(is_ours).ours == wanted
        assert routes.delete(wanted) == {}
        assert routes.read(is_ours).ours == {}

    def test_a_bad_route_does_not_stop_the_others(self, routes: RouteKernel) -> None:
        good = {key(f"10.9.{i}.0/24"): via("192.0.2.7") for i in range(100)}
        bad = {
            key("10.9.3.1/32"): Route.on(IfName("nope0"), protocol=OURS),
            key("10.9.4.1/32"): Route.on(IDLE0, protocol=OURS),
            key("10.9.5.1/32"): via("198.51.100.1"),
        }
        failed = routes.replace(dict(sorted((good | bad).items(), key=str)))
        assert {where: type(error) for where, error in failed.items()} == {
            key("10.9.3.1/32"): NoSuchDevice,
            key("10.9.4.1/32"): DeviceDown,
            key("10.9.5.1/32"): GatewayUnreachable,
        }
        assert "10.9.5.1/32" in str(failed[key("10.9.5.1/32")])
        assert routes.read(is_ours).ours == good

    def test_adding_leaves_what_is_there(self, routes: RouteKernel) -> None:
        for where, gateway in ((K4, "192.0.2.7"), (K6, "2001:db8::7")):
            foreign = via(gateway, protocol=PROTOCOL_STATIC)
            assert routes.add({where: foreign}) == {}
            failed = routes.add({where: Route.blackhole(protocol=OURS)})
            assert type(failed[where]) is AlreadyThere
            assert routes.read(is_ours).foreign[where] == (foreign,)

    def test_replacing_takes_over_a_foreign_route(self, routes: RouteKernel) -> None:
        routes.add({K4: via("192.0.2.7", protocol=PROTOCOL_STATIC)})
        assert routes.replace({K4: via("192.0.2.8")}) == {}
        found = routes.read(is_ours)
        assert found.ours == {K4: via("192.0.2.8")}
        assert K4 not in found.foreign

    def test_only_a_route_of_the_same_protocol_is_deleted(self, routes: RouteKernel) -> None:
        for where, gateway in ((K4, "192.0.2.7"), (K6, "2001:db8::7")):
            foreign = via(gateway, protocol=OTHER)
            routes.add({where: foreign})
            assert routes.delete({where: via(gateway)}) == {}
            assert routes.read(is_ours).foreign[where] == (foreign,)

    def test_a_route_of_another_metric_is_not_deleted(self, routes: RouteKernel) -> None:
        other = key("10.1.0.0/26", 50)
        routes.add({other: via("192.0.2.7", protocol=OTHER)})
        assert routes.delete({K4: via("192.0.2.7")}) == {}
        assert other in routes.read(is_ours).foreign

    def test_deleting_what_is_not_there_is_done(self, routes: RouteKernel) -> None:
        assert routes.delete({K4: via("192.0.2.7"), K6: Route.on(IfName("nope0"), protocol=OURS)}) == {}

    def test_metrics_tell_routes_apart(self, routes: RouteKernel) -> None:
        both = {key("10.1.0.0/26", 10): via("192.0.2.7"), key("10.1.0.0/26", 20): via("192.0.2.8")}
        assert routes.add(both) == {}
        assert routes.read(is_ours).ours == both
        routes.delete({key("10.1.0.0/26", 20): via("192.0.2.8")})
        assert routes.read(is_ours).ours == {key("10.1.0.0/26", 10): via("192.0.2.7")}

    def test_routes_of_an_interface_that_goes_down_are_gone(self, world: World) -> None:
        world.routes.add({key("10.0.0.1/32"): Route.on(CALI1, protocol=OURS), K4: via("192.0.2.7")})
        world.set_down(CALI1)
        assert world.routes.read(is_ours).ours == {K4: via("192.0.2.7")}

    def test_connected_networks_are_foreign(self, routes: RouteKernel) -> None:
        assert key("192.0.2.0/24") in routes.read(is_ours).foreign

    def test_the_way_to_an_address(self, routes: RouteKernel) -> None:
        routes.add({K4: via("192.0.2.7"), key("10.1.0.5/32"): Route.on(CALI1, protocol=OURS)})
        neighbour = routes.lookup(ipaddress.ip_address("192.0.2.77"))
        remote = routes.lookup(ipaddress.ip_address("10.1.0.9"))
        local = routes.lookup(ipaddress.ip_address("10.1.0.5"))
        assert neighbour is not None
        assert neighbour.next_hops == (NextHop(device=ETH0),)
        assert remote is not None
        assert remote.next_hops == (NextHop(gateway=ipaddress.ip_address("192.0.2.7"), device=ETH0),)
        assert local is not None
        assert local.devices == {CALI1}

    @pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:ffff::1"])
    def test_no_way_to_an_address(self, routes: RouteKernel, address: str) -> None:
        assert routes.lookup(ipaddress.ip_address(address)) is None

    @pytest.mark.parametrize("kind", [RouteKind.BLACKHOLE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT])
    def test_a_route_that_ends_here_is_no_way(self, routes: RouteKernel, kind: RouteKind) -> None:
        assert routes.add({K4: Route(protocol=OURS, kind=kind), K6: Route(protocol=OURS, kind=kind)}) == {}
        assert routes.lookup(ipaddress.ip_address("10.1.0.1")) is None
        assert routes.lookup(ipaddress.ip_address("fd00:1::1")) is None
