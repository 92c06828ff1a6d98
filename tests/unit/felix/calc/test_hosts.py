"""Which host endpoint has which interface, whatever comes first (reference felix.md 3.9; scenarios 73 to 76)."""

import ipaddress
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.felix_records import ELSEWHERE, host_endpoint
from felix.calc.endpoints import EndpointUnusable
from felix.calc.hosts import HostEndpoints, HostRecord, read_host, read_host_member
from felix.calc.labels import NO_LABELS
from felix.calc.model import ANY_INTERFACE
from resources.datastore.keys import ResourceKey
from resources.names import IfName, IPAddress

PREFIXES = ("cali",)
ETH0, ETH1 = IfName("eth0"), IfName("eth1")


def key(name: str) -> ResourceKey:
    return ResourceKey("hostendpoints", name)


def named(interface: str) -> HostRecord:
    return HostRecord(IfName(interface), frozenset(), (), NO_LABELS)


def expecting(*addresses: str) -> HostRecord:
    return HostRecord(None, frozenset(map(ipaddress.ip_address, addresses)), (), NO_LABELS)


def has(*addresses: str) -> frozenset[IPAddress]:
    return frozenset(map(ipaddress.ip_address, addresses))


class World:
    """Host endpoints, settled after each change as the calculation does it."""

    def __init__(self) -> None:
        self.hosts = HostEndpoints()
        self.told: dict[ResourceKey, tuple[str, ...]] = {}

    def put(self, name: str, record: HostRecord | None) -> "World":
        self._settle(self.hosts.put(key(name), record))
        return self

    def interface(self, name: str, addresses: frozenset[IPAddress] | None) -> "World":
        self._settle({IfName(name)} if self.hosts.set_interface(IfName(name), addresses) else set())
        return self

    def _settle(self, interfaces: set[IfName]) -> None:
        for interface in interfaces:
            self.hosts.settle(interface, PREFIXES)
        self.told |= self.hosts.take_explanations(PREFIXES)

    def served(self) -> Mapping[str, str]:
        found = {name: self.hosts.served(name) for name in self.hosts.interfaces()}
        return {name: served.name for name, served in found.items() if served is not None}


def test_a_name_is_served_whether_the_interface_is_there_or_not() -> None:
    world = World().put("a", named("eth0"))
    assert world.served() == {"eth0": "a"}
    assert world.told[key("a")] == ("there is no interface eth0",)
    world.interface("eth0", has())
    assert world.told[key("a")] == ()
    world.interface("eth0", None)
    assert world.served() == {"eth0": "a"}
    assert world.told[key("a")] == ("there is no interface eth0",)


def test_an_expected_address_that_comes_later_and_goes_again() -> None:
    world = World().put("a", expecting("192.0.2.1", "fd00::1")).interface("eth0", has("192.0.2.9"))
    assert world.served() == {}
    assert world.told[key("a")] == ("it is not in effect: no interface has 192.0.2.1, fd00::1",)
    world.interface("eth0", has("192.0.2.9", "fd00::1"))
    assert world.served() == {"eth0": "a"}
    assert world.told[key("a")] == ()
    world.interface("eth1", has("192.0.2.1"))
    assert world.served() == {"eth0": "a", "eth1": "a"}
    world.interface("eth0", None)
    world.interface("eth1", has())
    assert world.served() == {}
    assert world.told[key("a")] == ("it is not in effect: no interface has 192.0.2.1, fd00::1",)


def test_of_several_the_lowest_name_has_the_interface_and_the_next_when_it_goes() -> None:
    world = World().put("b", named("eth0")).put("c", named("eth0")).put("a", expecting("192.0.2.1"))
    assert world.served() == {"eth0": "b"}
    assert world.told[key("c")] == ("it waits: interface eth0 belongs to hostendpoints/b",)
    world.interface("eth0", has("192.0.2.1"))
    assert world.served() == {"eth0": "a"}
    assert world.told[key("b")] == ("it waits: interface eth0 belongs to hostendpoints/a",)
    world.put("a", None).put("b", None)
    assert world.served() == {"eth0": "c"}
    assert world.told[key("c")] == ()


def test_the_one_for_all_interfaces_needs_none() -> None:
    world = World().put("b", HostRecord(ANY_INTERFACE, frozenset(), (), NO_LABELS)).put("a", named("eth0"))
    assert world.served() == {ANY_INTERFACE: "b", "eth0": "a"}
    assert world.told[key("b")] == ()


def test_an_interface_of_a_workload_is_not_a_hosts() -> None:
    world = World().put("a", named("cali1")).interface("cali1", has("192.0.2.1")).put("b", expecting("192.0.2.1"))
    assert world.served() == {}
    assert world.told[key("a")] == ("it is not in effect on cali1: that is an interface of a workload",)
    assert world.told[key("b")] == ("it is not in effect on cali1: that is an interface of a workload",)


RECORDS = st.sampled_from(
    [None, named("eth0"), named("eth1"), named("cali1"), expecting("192.0.2.1"), expecting("192.0.2.1", "192.0.2.2"),
     HostRecord(ANY_INTERFACE, frozenset(), (), NO_LABELS)]
)  # fmt: skip
ADDRESSES = st.sampled_from([None, has(), has("192.0.2.1"), has("192.0.2.2"), has("192.0.2.1", "192.0.2.2")])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["a", "b", "c"]), RECORDS),
    st.tuples(st.sampled_from(["eth0", "eth1", "cali1"]), ADDRESSES),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=15))
def test_what_is_served_and_told_forgets_how_it_came(steps: list[tuple[str, object]]) -> None:
    world = World()
    last: dict[str, object] = {}
    for name, value in steps:
        last.pop(name, None)
        last[name] = value
        apply(world, name, value)
    fresh = World()
    for name, value in last.items():
        apply(fresh, name, value)
    assert world.served() == fresh.served()
    there = {key(name) for name, value in last.items() if isinstance(value, HostRecord)}
    assert {k: world.told[k] for k in there} == {k: fresh.told[k] for k in there}
    assert {k for k in there if world.hosts.is_served(k)} == {key(name) for name in fresh.served().values()}


def apply(world: World, name: str, value: object) -> None:
    if name in ("a", "b", "c"):
        assert value is None or isinstance(value, HostRecord)
        world.put(name, value)
    else:
        world.interface(name, value)  # type: ignore[arg-type]  # drawn from ADDRESSES


def test_what_cannot_be_read_is_passed_over_so_that_the_interface_stays_closed() -> None:
    ports = [("ssh", "TCP", 22), ("x", "ICMP", 1)]
    addresses = ("192.0.2.1", "nonsense", "::ffff:10.0.0.1", "192.0.2.1", "0.0.0.0")
    _, endpoint = host_endpoint("a", "eth0", *addresses, ports=ports)
    member, problems = read_host_member(endpoint)
    assert (member.ipv4, member.ipv6, member.doubtful) == (("192.0.2.1",), (), True)
    assert ([port.name for port in member.ports], member.doubtful_ports) == (["ssh"], True)
    assert len(problems) == 4
    assert read_host(endpoint) == HostRecord(ETH0, has("192.0.2.1"), (), NO_LABELS)


def test_an_expected_address_that_is_written_twice_leaves_no_doubt() -> None:
    _, endpoint = host_endpoint("a", "eth0", "fd00::a", "FD00:0::A", "192.0.2.1")
    member, problems = read_host_member(endpoint)
    assert (member.ipv4, member.ipv6, member.doubtful) == (("192.0.2.1",), ("fd00::a",), False)
    assert not member.doubtful_ports
    assert problems == ()


def test_an_endpoint_that_does_not_say_its_interface_cannot_be_used() -> None:
    for _, endpoint in (host_endpoint("a"), host_endpoint("a", "", "nonsense"), host_endpoint("a", "eth 0")):
        try:
            read_host(endpoint)
        except EndpointUnusable:
            continue
        raise AssertionError(endpoint)


def test_all_interfaces() -> None:
    _, endpoint = host_endpoint("a", "*", node=ELSEWHERE)
    assert read_host(endpoint).interface == ANY_INTERFACE
