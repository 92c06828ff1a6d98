"""Forwarding is switched on without taking the host's own default route (adr/0041)."""

import errno
import ipaddress

import pytest

from fakes.kernel import FakeKernel
from felix.dataplane.forwarding import Forwarding
from kernel.errors import DataplaneError, InvalidArgument, ReadOnly
from kernel.route import PROTOCOL_RA, PROTOCOL_STATIC, NextHop, Route, RouteKey
from resources.names import IfName

DEFAULT = RouteKey(ipaddress.ip_network("::/0"))
ROUTER = ipaddress.ip_address("fe80::1")
ON = ("net/ipv6/conf/all/forwarding", "1")


def accept_ra(device: str) -> str:
    return f"net/ipv6/conf/{device}/accept_ra"


@pytest.fixture
def kernel() -> FakeKernel:
    kernel = FakeKernel()
    for name in ("eth0", "eth1", "eth2", "cali1"):
        kernel.links.add(IfName(name))
        kernel.sysctls.put(accept_ra(name), "1")
    return kernel


def switch_on(kernel: FakeKernel, *versions: int, wanted: tuple[int, ...] = (4, 6)) -> list[tuple[str, str]]:
    """Switch families on and return what was written."""
    before = len(kernel.sysctls.writes)
    forwarding = Forwarding(kernel.sysctls, kernel.routes, versions=wanted, workloads=("cali",))
    for version in versions:
        forwarding.switch_on(version)
    return kernel.sysctls.writes[before:]


def by_advertisement(*devices: str) -> Route:
    hops = [NextHop(gateway=ROUTER, device=IfName(device)) for device in devices]
    return Route.multipath(hops, protocol=PROTOCOL_RA)


def test_routers_that_the_host_listens_to_are_listened_to_further(kernel: FakeKernel) -> None:
    kernel.routes.put(DEFAULT, by_advertisement("eth0", "eth2", "cali1"))
    kernel.sysctls.put(accept_ra("eth2"), "2")
    assert switch_on(kernel, 6) == [(accept_ra("eth0"), "2"), ON]
    assert switch_on(kernel, 6) == []


def test_a_host_without_advertised_routes_keeps_its_settings(kernel: FakeKernel) -> None:
    kernel.routes.put(DEFAULT, Route.via(ROUTER, IfName("eth0"), protocol=PROTOCOL_STATIC))
    assert switch_on(kernel, 6, 4) == [ON, ("net/ipv4/ip_forward", "1")]


def test_where_it_forwards_already_nothing_is_touched(kernel: FakeKernel) -> None:
    """Whoever switched it on saw to the routes."""
    kernel.routes.put(DEFAULT, by_advertisement("eth0"))
    kernel.sysctls.put(*ON)
    assert switch_on(kernel, 6) == []


def test_a_family_that_is_not_wanted_stays_as_it_is(kernel: FakeKernel) -> None:
    kernel.routes.put(DEFAULT, by_advertisement("eth0"))
    assert switch_on(kernel, 4, 6, wanted=(4,)) == [("net/ipv4/ip_forward", "1")]


def test_for_one_workload_as_well_as_for_all(kernel: FakeKernel) -> None:
    """The kernel forgets the routes of all interfaces when one is switched on."""
    kernel.routes.put(DEFAULT, by_advertisement("eth0"))
    forwarding = Forwarding(kernel.sysctls, kernel.routes, versions=(), workloads=("cali",))
    assert forwarding.switch_on_for(IfName("cali1"))
    assert kernel.sysctls.writes == [(accept_ra("eth0"), "2"), ("net/ipv6/conf/cali1/forwarding", "1")]
    assert not forwarding.switch_on_for(IfName("cali1"))
    assert len(kernel.sysctls.writes) == 2


def test_an_interface_that_is_gone_holds_nothing_up(kernel: FakeKernel) -> None:
    kernel.routes.put(DEFAULT, by_advertisement("eth9", "eth1"))
    assert switch_on(kernel, 6) == [(accept_ra("eth1"), "2"), ON]


@pytest.mark.parametrize("what", ["setting", "routes"])
def test_it_stays_off_rather_than_cut_the_host_off(kernel: FakeKernel, what: str) -> None:
    kernel.routes.put(DEFAULT, by_advertisement("eth0"))
    if what == "setting":
        kernel.sysctls.refuse[accept_ra("eth0")] = ReadOnly("cannot set it", errno=errno.EROFS)
    else:
        kernel.routes.unreadable = InvalidArgument("cannot read routes", errno=errno.EINVAL)
    with pytest.raises(DataplaneError):
        switch_on(kernel, 6)
    assert kernel.sysctls.writes == []
