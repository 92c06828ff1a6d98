import ipaddress
from dataclasses import replace

import pytest

from fakes.felix_host import FelixHost
from felix.dataplane.routes import owns
from felix.desired import LocalInterface, Update
from kernel.errors import AlreadyThere, DumpInterrupted
from kernel.route import Route, RouteKey
from resources.names import IfName

CALI1, CALI2 = IfName("cali1"), IfName("cali2")
A = ipaddress.ip_network("10.0.0.1/32")
B = ipaddress.ip_network("10.0.0.2/32")


def local(*addresses: ipaddress.IPv4Network | ipaddress.IPv6Network) -> LocalInterface:
    return LocalInterface(frozenset(addresses), None)


def want(host: FelixHost, **interfaces: LocalInterface | None) -> None:
    host.dataplane.want(Update(interfaces={IfName(name): wanted for name, wanted in interfaces.items()}))


def test_a_route_is_written_when_interface_and_endpoint_are_both_there(host: FelixHost) -> None:
    want(host, cali1=local(A))
    host.dataplane.apply()
    assert host.cali_routes() == {}
    host.kernel.links.add(CALI1)
    host.see_links()
    assert host.dataplane.apply().is_clean
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}
    assert host.dataplane.is_programmed(CALI1)


def test_an_interface_that_is_down_gets_its_route_when_it_comes_up(host: FelixHost) -> None:
    host.kernel.links.add(CALI1, up=False)
    host.see_links()
    want(host, cali1=local(A))
    assert host.dataplane.apply().is_clean
    assert host.cali_routes() == {}
    host.kernel.links.set_up(CALI1)
    host.see_links()
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}


def test_a_flap_ends_with_the_route_written_again(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    want(host, cali1=local(A))
    host.dataplane.apply()
    host.kernel.links.set_down(CALI1)
    host.see_links()
    host.kernel.links.set_up(CALI1)
    host.see_links()
    host.flows_done()
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}


def test_the_newest_of_two_interfaces_gets_the_address_and_then_the_other(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.kernel.links.add(CALI2)
    host.see_links()
    want(host, cali1=local(A), cali2=local(A))
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali2"}
    want(host, cali2=None)
    host.dataplane.apply()
    host.flows_done()
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}


def test_flows_of_an_address_go_before_its_next_route_comes(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.kernel.links.add(CALI2)
    host.see_links()
    want(host, cali1=local(A))
    host.dataplane.apply()
    want(host, cali1=None, cali2=local(A))
    host.dataplane.apply()
    assert host.to_clean == [A.network_address]
    assert host.cali_routes() == {}
    host.flows_done()
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali2"}


def test_a_stale_route_of_an_earlier_process_goes_with_its_flows(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.kernel.routes.put(RouteKey(B), Route.on(CALI1, protocol=80))
    host.restart()
    host.dataplane.apply()
    assert host.cali_routes() == {}
    assert host.to_clean == [B.network_address]


def test_a_foreign_route_at_the_same_place_is_left_and_reported(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    foreign = Route.on(IfName("eth0"), protocol=4)
    host.kernel.routes.put(RouteKey(A), foreign)
    host.see_links()
    want(host, cali1=local(A))
    report = host.dataplane.apply()
    assert [type(error) for error in report.failed.values()] == [AlreadyThere]
    assert host.kernel.routes.routes[RouteKey(A)] == foreign


def test_a_restart_writes_no_route(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    want(host, cali1=local(A))
    host.dataplane.apply()
    host.kernel.routes.log.clear()
    host.restart()
    want(host, cali1=local(A))
    assert host.dataplane.apply().is_clean
    assert host.kernel.routes.log == []


def test_one_refused_route_does_not_stop_the_others(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.kernel.links.add(CALI2)
    host.see_links()
    host.kernel.routes.refuse.add(RouteKey(A))
    want(host, cali1=local(A), cali2=local(B))
    assert list(host.dataplane.apply().failed) == ["route 10.0.0.1/32"]
    assert host.cali_routes() == {"10.0.0.2/32": "cali2"}
    host.kernel.routes.refuse.clear()
    assert host.dataplane.apply().is_clean
    assert host.cali_routes() == {"10.0.0.1/32": "cali1", "10.0.0.2/32": "cali2"}


def test_a_route_removed_by_hand_comes_back_at_the_resync(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    want(host, cali1=local(A))
    host.dataplane.apply()
    host.kernel.routes.lose(RouteKey(A))
    host.dataplane.resync_routes()
    host.dataplane.apply()
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}


def test_a_host_without_a_default_route_still_answers_for_the_gateway(host: FelixHost) -> None:
    host.kernel.routes.lose(RouteKey(ipaddress.ip_network("0.0.0.0/0")))
    host.dataplane.apply()
    assert host.kernel.routes.routes[RouteKey(ipaddress.ip_network("169.254.1.1/32"))].devices == {"lo"}


@pytest.mark.parametrize(
    ("destination", "route", "ours"),
    [
        ("10.0.0.1/32", Route.on(CALI1, protocol=80), True),
        ("10.0.0.1/32", Route.on(IfName("eth0"), protocol=80), True),
        ("10.0.0.0/26", Route.blackhole(protocol=80), True),
        ("10.0.0.0/26", Route.blackhole(protocol=81), False),
        ("10.0.0.1/32", Route.on(CALI1, protocol=3), True),
        ("10.0.0.1/32", Route.on(CALI1, protocol=2), False),
        ("fe80::/64", Route.on(CALI1, protocol=3), False),
        ("10.0.0.1/32", Route.on(IfName("eth0"), protocol=3), False),
        ("10.0.0.0/26", Route.via(ipaddress.ip_address("192.0.2.1"), IfName("eth0"), protocol=81), False),
    ],
)
def test_whose_route_it_is(destination: str, route: Route, ours: bool) -> None:
    key = RouteKey(ipaddress.ip_network(destination))
    assert owns(("cali",), protocol=80, remove_external=True)(key, route) is ours


def test_routes_from_before_the_protocol_number_was_changed_are_ours_still() -> None:
    answer = owns(("cali",), protocol=90, remove_external=False)
    for number, ours in ((90, True), (80, True), (81, False), (3, False)):
        assert answer(RouteKey(ipaddress.ip_network("10.0.0.0/26")), Route.blackhole(protocol=number)) is ours


def test_news_of_a_flap_that_is_older_than_our_route_does_no_harm(host: FelixHost) -> None:
    """The interface flapped twice; the route was written after both, and then the second one's news came."""
    link = host.kernel.links.add(CALI1)
    host.see_links()
    want(host, cali1=local(A))
    host.dataplane.apply()
    host.dataplane.link_changed(CALI1, replace(link, up=False, running=False))
    host.dataplane.link_changed(CALI1, link)
    host.flows_done()
    assert host.dataplane.apply().is_clean
    assert host.dataplane.is_programmed(CALI1)


def test_a_foreign_route_at_our_place_is_reported_and_not_read_again_and_again(host: FelixHost) -> None:
    foreign = Route.on(IfName("eth0"), protocol=3)
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.routes.put(RouteKey(A), foreign)
    want(host, cali1=local(A))
    assert [type(error) for error in host.dataplane.apply().failed.values()] == [AlreadyThere]
    host.kernel.routes.unreadable = DumpInterrupted("nobody should read now")
    assert [type(error) for error in host.dataplane.apply().failed.values()] == [AlreadyThere]
    assert host.kernel.routes.routes[RouteKey(A)] == foreign
