"""The VXLAN device and what is on it, on a fake kernel."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fakes.felix_host import FelixHost
from felix.calc.parameters import Parameters, Resolved
from felix.calc.remote import RemoteChanges
from felix.calc.vxlan import FarEnd, Tunnel
from felix.desired import LocalInterface, Update
from kernel.errors import NotSupported
from kernel.link import LinkAddress
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, PROTOCOL_STATIC, Route, RouteKey
from kernel.vxlan import VxlanDevice
from resources.names import IfName, NodeName

DEVICE, ETH0 = IfName("vxlan.calico"), IfName("eth0")
TUNNEL = Tunnel(
    version=4,
    vni=4096,
    port=4789,
    local=ipaddress.ip_address("192.0.2.10"),
    address=ipaddress.ip_address("10.65.0.1"),
    mac="66:00:00:00:00:01",
    parent=ETH0,
)
BLOCK, OTHER_BLOCK, OWN = (ipaddress.ip_network(f"10.65.{n}.0/26") for n in (1, 2, 0))


def end(number: int) -> FarEnd:
    return FarEnd(
        host=ipaddress.ip_address(f"192.0.2.{number}"),
        tunnel=ipaddress.ip_address(f"10.65.{number}.1"),
        mac=f"66:00:00:00:01:{number:02x}",
    )


def way(number: int) -> Route:
    return Route.via(end(number).tunnel, DEVICE, protocol=PROTOCOL_FELIX, onlink=True)


def want(host: FelixHost, **changes: object) -> None:
    host.dataplane.want(Update(remote=RemoteChanges(**changes)))  # type: ignore[arg-type]


def settle(host: FelixHost) -> dict[str, str]:
    """Apply until the kernel's news changes nothing any more; return what failed at last."""
    for _ in range(3):
        report = host.dataplane.apply()
        host.see_links()
    return {thing: str(error) for thing, error in report.failed.items()}


def on_device(host: FelixHost) -> tuple[dict[str, str], dict[str, str]]:
    """The permanent neighbours and the forwarding entries."""
    neighbours = host.kernel.links.neighbours(DEVICE).values()
    return (
        {str(entry.address): entry.mac or "" for entry in neighbours if entry.permanent},
        {mac: str(remote) for mac, remote in host.kernel.vxlan.entries(DEVICE).items()},
    )


@pytest.fixture
def made(host: FelixHost) -> FelixHost:
    """With a device, a far end and a route to it."""
    want(host, tunnels={4: TUNNEL}, far_ends={(4, NodeName("n1")): end(1)}, routes={BLOCK: way(1)})
    assert settle(host) == {}
    return host


def test_a_device_is_made_with_all_that_belongs_to_it(made: FelixHost) -> None:
    link = made.kernel.links.links()[DEVICE]
    assert (link.up, link.mtu, link.mac) == (True, 1450, TUNNEL.mac)
    assert LinkAddress(device=DEVICE, address=ipaddress.ip_interface("10.65.0.1/32")) in made.kernel.links.addresses()
    assert on_device(made) == ({"10.65.1.1": "66:00:00:00:01:01"}, {"66:00:00:00:01:01": "192.0.2.1"})
    assert made.kernel.routes.routes[RouteKey(BLOCK)] == way(1)


def test_one_that_is_right_is_adopted_without_a_write(made: FelixHost) -> None:
    index = made.kernel.links.links()[DEVICE].index
    made.restart()
    made.kernel.vxlan.log.clear()
    made.kernel.routes.log.clear()
    want(made, tunnels={4: TUNNEL}, far_ends={(4, NodeName("n1")): end(1)}, routes={BLOCK: way(1)})
    report = made.dataplane.apply()
    assert "tunnels" not in report.written
    assert (made.kernel.vxlan.log, made.kernel.routes.log) == ([], [])
    assert made.kernel.links.links()[DEVICE].index == index


def test_what_an_earlier_felix_left_on_it_goes(made: FelixHost) -> None:
    made.kernel.links.set_neighbour(DEVICE, end(9).tunnel, end(9).mac)
    made.kernel.vxlan.set_entry(DEVICE, end(9).mac, end(9).host)
    made.kernel.links.add_address(DEVICE, ipaddress.ip_interface("10.65.0.9/32"))
    made.restart()
    want(made, tunnels={4: TUNNEL}, far_ends={(4, NodeName("n1")): end(1)}, routes={BLOCK: way(1)})
    assert settle(made) == {}
    assert on_device(made) == ({"10.65.1.1": "66:00:00:00:01:01"}, {"66:00:00:00:01:01": "192.0.2.1"})
    assert [str(a.address) for a in made.kernel.links.addresses() if a.device == DEVICE] == ["10.65.0.1/32"]


@pytest.mark.parametrize(
    "other",
    [
        replace(TUNNEL, vni=7),
        replace(TUNNEL, port=8472),
        replace(TUNNEL, local=ipaddress.ip_address("192.0.2.11")),
        replace(TUNNEL, mac="66:00:00:00:00:09"),
        replace(TUNNEL, parent=None),
    ],
    ids=["vni", "port", "local", "mac", "parent"],
)
def test_one_that_differs_is_made_anew_with_all_that_was_on_it(made: FelixHost, other: Tunnel) -> None:
    before, index = on_device(made), made.kernel.links.links()[DEVICE].index
    want(made, tunnels={4: other})
    assert settle(made) == {}
    found = made.kernel.vxlan.read(DEVICE)
    assert found == VxlanDevice(
        name=DEVICE, mac=other.mac, vni=other.vni, port=other.port, local=other.local, parent=other.parent
    )
    assert made.kernel.links.links()[DEVICE].index != index
    assert on_device(made) == before
    assert made.kernel.routes.routes[RouteKey(BLOCK)] == way(1)


def test_the_address_is_changed_in_place(made: FelixHost) -> None:
    index = made.kernel.links.links()[DEVICE].index
    want(made, tunnels={4: replace(TUNNEL, address=ipaddress.ip_address("10.65.0.7"))})
    assert settle(made) == {}
    assert made.kernel.links.links()[DEVICE].index == index
    assert [str(a.address) for a in made.kernel.links.addresses() if a.device == DEVICE] == ["10.65.0.7/32"]


def test_the_mtu_follows_the_link_and_is_never_more_than_it_carries(made: FelixHost) -> None:
    index = made.kernel.links.links()[DEVICE].index
    for link, setting, mtu in ((9000, 0, 8950), (9000, 1400, 1400), (1500, 9000, 1450), (1400, 0, 1350)):
        made.kernel.links.set_mtu(ETH0, link)
        made.see_links()
        resolved = Resolved(parameters=Parameters(vxlan_mtu=setting), origins={}, refused=())
        made.dataplane.want(Update(parameters=resolved))
        assert settle(made) == {}
        assert made.kernel.links.links()[DEVICE].mtu == made.mtu_file.told == mtu
    assert made.kernel.links.links()[DEVICE].index == index


def test_it_goes_when_nobody_wants_it_and_only_then(made: FelixHost) -> None:
    want(made, tunnels={4: None}, far_ends={(4, NodeName("n1")): None}, routes={BLOCK: None})
    assert settle(made) == {}
    assert DEVICE not in made.kernel.links.links()
    assert RouteKey(BLOCK) not in made.kernel.routes.routes


def test_one_that_was_left_by_an_earlier_felix_goes(made: FelixHost) -> None:
    made.restart()
    assert settle(made) == {}
    assert DEVICE not in made.kernel.links.links()


def test_it_comes_back_when_somebody_deletes_it(made: FelixHost) -> None:
    before = on_device(made)
    made.kernel.links.delete(DEVICE)
    made.see_links()
    assert settle(made) == {}
    assert on_device(made) == before
    assert made.kernel.routes.routes[RouteKey(BLOCK)] == way(1)


def test_a_kernel_without_vxlan_gets_no_route_past_it(host: FelixHost) -> None:
    host.kernel.vxlan.missing = NotSupported("cannot make it: Unknown device type", hint="load the module")
    want(host, tunnels={4: TUNNEL}, far_ends={(4, NodeName("n1")): end(1)}, routes={BLOCK: way(1)})
    assert settle(host) == {"tunnel vxlan.calico": "cannot make it: Unknown device type"}
    assert RouteKey(BLOCK) not in host.kernel.routes.routes
    host.kernel.vxlan.missing = None
    assert settle(host) == {}
    assert host.kernel.routes.routes[RouteKey(BLOCK)] == way(1)


def test_an_interface_of_another_kind_with_its_name_stays_and_gets_no_route(host: FelixHost) -> None:
    host.kernel.links.add(DEVICE, kind="dummy")
    assert settle(host) == {}  # nobody needs the name
    want(host, tunnels={4: TUNNEL}, far_ends={(4, NodeName("n1")): end(1)}, routes={BLOCK: way(1)})
    assert list(settle(host)) == ["tunnel vxlan.calico"]
    assert host.kernel.links.links()[DEVICE].kind == "dummy"
    assert RouteKey(BLOCK) not in host.kernel.routes.routes


def test_one_far_end_that_cannot_be_written_holds_up_nobody_else(made: FelixHost) -> None:
    made.kernel.vxlan.refuse.add(DEVICE)
    want(made, far_ends={(4, NodeName("n2")): end(2)}, routes={OTHER_BLOCK: way(2)})
    assert list(settle(made)) == ["tunnel entry 66:00:00:00:01:02"]
    made.kernel.vxlan.refuse.clear()
    assert settle(made) == {}
    assert set(on_device(made)[0]) == {"10.65.1.1", "10.65.2.1"}


names = st.sampled_from([NodeName(f"n{number}") for number in range(4)])
ends = st.one_of(st.none(), st.builds(end, st.integers(1, 5)))


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(names, ends, max_size=4), max_size=8))
def test_far_ends_are_as_the_last_say_in_any_order(history: list[dict[NodeName, FarEnd | None]]) -> None:
    """No two hosts have a tunnel address in common at the end of an update; within one they may swap them."""
    host = FelixHost()
    want(host, tunnels={4: TUNNEL})
    held: dict[NodeName, FarEnd] = {}
    for change in history:
        after = {name: found for name, found in {**held, **change}.items() if found is not None}
        if len(set(after.values())) < len(after):
            continue
        want(host, far_ends={(4, name): found for name, found in change.items()})
        held = after
        assert host.dataplane.apply().is_clean
        assert on_device(host) == (
            {str(found.tunnel): found.mac for found in held.values()},
            {found.mac: str(found.host) for found in held.values()},
        )


# ---- routes to other hosts


def test_bgpds_route_is_taken_over_in_place_and_other_ones_stay(host: FelixHost) -> None:
    bgpds = Route.via(ipaddress.ip_address("192.0.2.1"), ETH0, protocol=PROTOCOL_BGPD)
    static = Route.via(ipaddress.ip_address("192.0.2.1"), ETH0, protocol=PROTOCOL_STATIC)
    host.kernel.routes.put(RouteKey(BLOCK), bgpds)
    host.kernel.routes.put(RouteKey(OTHER_BLOCK), static)
    want(
        host,
        tunnels={4: TUNNEL},
        far_ends={(4, NodeName("n1")): end(1), (4, NodeName("n2")): end(2)},
        routes={BLOCK: way(1), OTHER_BLOCK: way(2), OWN: Route.blackhole(protocol=PROTOCOL_FELIX)},
    )
    assert list(settle(host)) == [f"route {OTHER_BLOCK}"]
    found = host.kernel.routes.routes
    assert (found[RouteKey(BLOCK)], found[RouteKey(OTHER_BLOCK)]) == (way(1), static)
    assert found[RouteKey(OWN)] == Route.blackhole(protocol=PROTOCOL_FELIX)
    assert not [line for line in host.kernel.routes.log if line == f"delete {BLOCK}"]


def test_bgpds_route_that_was_not_known_is_taken_over_at_once(made: FelixHost) -> None:
    bgpds = Route.via(ipaddress.ip_address("192.0.2.2"), ETH0, protocol=PROTOCOL_BGPD)
    made.kernel.routes.put(RouteKey(OTHER_BLOCK), bgpds)
    want(made, far_ends={(4, NodeName("n2")): end(2)}, routes={OTHER_BLOCK: way(2)})
    assert made.dataplane.apply().is_clean
    assert made.kernel.routes.routes[RouteKey(OTHER_BLOCK)] == way(2)


def test_a_containers_route_is_never_taken_from_bgpd(host: FelixHost) -> None:
    address = ipaddress.ip_network("10.65.0.9/32")
    bgpds = Route.via(ipaddress.ip_address("192.0.2.1"), ETH0, protocol=PROTOCOL_BGPD)
    host.kernel.routes.put(RouteKey(address), bgpds)
    host.kernel.links.add(IfName("cali1"))
    host.see_links()
    host.dataplane.want(Update(interfaces={IfName("cali1"): LocalInterface(frozenset({address}), None)}))
    assert list(settle(host)) == [f"route {address}"]
    assert host.kernel.routes.routes[RouteKey(address)] == bgpds


def test_an_address_that_is_a_containers_here_goes_nowhere_else(made: FelixHost) -> None:
    address = ipaddress.ip_network("10.65.1.9/32")
    cali = IfName("cali1")
    made.kernel.links.add(cali)
    made.see_links()
    want(made, routes={address: way(1)})
    assert settle(made) == {}
    assert made.kernel.routes.routes[RouteKey(address)] == way(1)
    made.dataplane.want(Update(interfaces={cali: LocalInterface(frozenset({address}), None)}))
    assert settle(made) == {}
    assert made.cali_routes() == {"10.65.1.9/32": "cali1"}
    assert made.to_clean == []  # nobody's flows: it was elsewhere
    made.dataplane.want(Update(interfaces={cali: None}))
    made.dataplane.apply()
    made.flows_done()
    assert settle(made) == {}
    assert made.kernel.routes.routes[RouteKey(address)] == way(1)


def test_a_mode_is_changed_in_place(made: FelixHost) -> None:
    plain = Route.via(ipaddress.ip_address("192.0.2.1"), ETH0, protocol=PROTOCOL_FELIX)
    made.kernel.routes.log.clear()
    want(made, routes={BLOCK: plain})
    assert settle(made) == {}
    assert made.kernel.routes.routes[RouteKey(BLOCK)] == plain
    assert made.kernel.routes.log == [f"replace {BLOCK}"]
