"""The interfaces in memory keep the contract of the kernel's."""

import ipaddress

import pytest

from fakes.kernel import FakeKernel
from fakes.link_contract import CALI, TEMP, Host, IpipContract, LinkContract
from fakes.links import FakeLinks
from kernel.errors import InvalidArgument
from kernel.route import Route, RouteKey
from resources.names import IfName


class FakeHost:
    beside = "beside"

    def __init__(self) -> None:
        self.links = FakeLinks()
        self.links.namespaces[self.beside] = {}

    def links_beside(self) -> set[str]:
        return set(self.links.namespaces[self.beside])


class TestFakeLinks(LinkContract):
    @pytest.fixture
    def host(self) -> Host:
        return FakeHost()


class TestFakeIpip(IpipContract):
    @pytest.fixture
    def host(self) -> Host:
        return FakeHost()


def test_a_refused_interface_cannot_be_made_changed_or_deleted() -> None:
    links = FakeLinks()
    links.refuse.add(CALI)
    with pytest.raises(InvalidArgument):
        links.create_veth(CALI, TEMP)
    links.add(CALI)
    with pytest.raises(InvalidArgument):
        links.set_down(CALI)
    with pytest.raises(InvalidArgument):
        links.delete(CALI)


def test_a_renamed_interface_keeps_what_it_has() -> None:
    links = FakeLinks()
    before = links.add(CALI, ipaddress.ip_interface("10.0.0.1/24"))
    links.rename(CALI, IfName("eth7"))
    assert links.links()[IfName("eth7")].index == before.index
    assert [found.device for found in links.addresses()] == ["eth7"]
    assert CALI not in links.links()


def test_the_routes_of_an_interface_that_vanishes_are_gone() -> None:
    kernel = FakeKernel()
    kernel.links.add(CALI)
    key = RouteKey(ipaddress.ip_network("10.0.0.1/32"))
    kernel.routes.add({key: Route.on(CALI, protocol=80)})
    kernel.links.remove(CALI)
    assert kernel.routes.routes == {}
