"""The routes in memory keep the contract of the kernel's."""

import ipaddress

import pytest

from fakes.kernel import FakeKernel
from fakes.route_contract import CALI1, CALI2, ETH0, IDLE0, OURS, RouteContract, World, is_ours, key, via
from fakes.routes import FakeRoutes
from kernel.errors import DumpInterrupted, InvalidArgument
from kernel.route import Route
from resources.names import IfName


class FakeWorld:
    def __init__(self) -> None:
        self.kernel = FakeKernel()
        links = self.kernel.links
        links.add(ETH0, ipaddress.ip_interface("192.0.2.1/24"), ipaddress.ip_interface("2001:db8::1/64"))
        links.add(CALI1)
        links.add(CALI2)
        links.add(IDLE0, up=False)

    @property
    def routes(self) -> FakeRoutes:
        return self.kernel.routes

    def set_down(self, name: IfName) -> None:
        self.kernel.links.set_down(name)


class TestFakeRoutes(RouteContract):
    @pytest.fixture
    def world(self) -> World:
        return FakeWorld()


def test_a_refused_key_fails_and_the_rest_goes_on() -> None:
    routes = FakeWorld().routes
    routes.refuse.add(key("10.1.0.0/26"))
    failed = routes.add({key("10.1.0.0/26"): via("192.0.2.7"), key("10.2.0.0/26"): via("192.0.2.7")})
    assert [type(error) for error in failed.values()] == [InvalidArgument]
    assert routes.routes == {key("10.2.0.0/26"): via("192.0.2.7")}
    assert routes.log == ["add 10.1.0.0/26", "add 10.2.0.0/26"]


def test_a_read_can_be_made_to_fail() -> None:
    routes = FakeWorld().routes
    routes.unreadable = DumpInterrupted("changed all the time")
    with pytest.raises(DumpInterrupted):
        routes.read(is_ours)


def test_another_program_writes_and_removes() -> None:
    routes = FakeWorld().routes
    routes.put(key("10.1.0.0/26"), Route.blackhole(protocol=OURS))
    assert list(routes.routes) == [key("10.1.0.0/26")]
    routes.lose(key("10.1.0.0/26"))
    assert routes.routes == {}
    assert routes.log == []
