"""Host endpoints of this host: which interface each has, and what applies to it (reference felix.md 3.9).

An endpoint is for the interface that it names, or, where it names none, for those that have one of its addresses; or it
is for all interfaces (``*``). Of several for one interface the one with the lowest name is served, the others wait.

An endpoint that names its interface is served whether that is there or not: the rules stand before the interface can
carry a packet. Interfaces of workloads are nobody's here.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from felix.calc.book import Book
from felix.calc.claims import Claims, note
from felix.calc.endpoints import DeclaredPort, EndpointUnusable, Member, declared_port, distinct_profiles, own_labels
from felix.calc.ipsets import MemberSets
from felix.calc.labels import Labels
from felix.calc.model import ANY_INTERFACE, LocalHostEndpoint, Stage
from felix.calc.policies import PolicyRecord, of_host_endpoint
from felix.calc.problems import Problems
from felix.calc.reading import Reader, expected
from felix.calc.serving import Serving
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.hostendpoint import ALL_INTERFACES, HostEndpoint
from resources.names import INTERFACE_REGEX, IfName, IPAddress, NodeName, ProfileName

Addresses = frozenset[IPAddress]
NO_ADDRESSES: Addresses = frozenset()


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host endpoint of this host as its record has it. `interface`: None if `addresses` say which it is."""

    interface: IfName | None
    addresses: Addresses
    profiles: tuple[ProfileName, ...]
    labels: Labels


def read_host_member(endpoint: HostEndpoint) -> tuple[Member, tuple[str, ...]]:
    """Return what the endpoint contributes to sets, and what was wrong with parts that are passed over.

    To pass over the whole endpoint would open its interface.
    """
    addresses, problems = _addresses(endpoint)
    lacks_addresses = bool(problems)
    ports: list[DeclaredPort] = []
    lacks_ports = False
    for port in endpoint.spec.ports:
        try:
            ports.append(declared_port(port))
        except EndpointUnusable as error:
            problems.append(f"passed over: {error}")
            lacks_ports = True
    member = Member(
        labels=own_labels(endpoint.metadata.labels, ""),
        profiles=distinct_profiles(endpoint.spec.profiles),
        ipv4=tuple(str(address) for address in addresses if address.version == 4),
        ipv6=tuple(str(address) for address in addresses if address.version == 6),
        ports=tuple(ports),
        doubtful=lacks_addresses,
        doubtful_ports=lacks_ports,
    )
    return member, tuple(problems)


def read_host(endpoint: HostEndpoint) -> HostRecord:
    """Return a host endpoint of this host.

    Raises:
        EndpointUnusable: it does not say which interface it is for.
    """
    name, (addresses, _) = endpoint.spec.interface_name, _addresses(endpoint)
    if name == ALL_INTERFACES:
        interface: IfName | None = ANY_INTERFACE
    elif name:
        if not INTERFACE_REGEX.match(name):
            raise EndpointUnusable(f"interface name {name!r} is none")
        interface = IfName(name)
    elif addresses:
        interface = None
    else:
        raise EndpointUnusable("it has neither interfaceName nor expectedIPs")
    return HostRecord(
        interface=interface,
        addresses=frozenset(addresses),
        profiles=distinct_profiles(endpoint.spec.profiles),
        labels=own_labels(endpoint.metadata.labels, ""),
    )


def _addresses(endpoint: HostEndpoint) -> tuple[dict[IPAddress, None], list[str]]:
    found: dict[IPAddress, None] = {}
    problems: list[str] = []
    for text in endpoint.spec.expected_ips:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            problems.append(f"passed over: {text!r} in expectedIPs is no address")
            continue
        if isinstance(address, ipaddress.IPv6Address) and int(address) >> 32 in (0, 0xFFFF):
            problems.append(f"passed over: {text} in expectedIPs is an IPv4 address in the form of an IPv6 one")
            continue
        if address.is_unspecified:  # the kernel refuses it in a set of ports, and all of a large set with it
            problems.append(f"passed over: {text} in expectedIPs is nobody's address")
            continue
        found[address] = None
    return found, problems


class HostEndpoints(Claims[HostRecord]):
    """The host endpoints of this host and its interfaces, and which has which."""

    def __init__(self) -> None:
        super().__init__()
        self._by_address: dict[IPAddress, set[ResourceKey]] = {}
        self._interfaces: dict[IfName, Addresses] = {}
        self._holders: dict[IPAddress, set[IfName]] = {}

    def set_interface(self, name: IfName, addresses: Addresses | None) -> bool:
        """Take the addresses of an interface as they are now, None: it is gone. Return whether it must be settled."""
        before = self._interfaces.get(name)
        if before == addresses:
            return False
        old, new = before or NO_ADDRESSES, addresses or NO_ADDRESSES
        for address in old ^ new:
            note(self._holders, address, name, there=address in new)
            self._unexplained |= self._by_address.get(address, set())
        self._unexplained |= self._by_name.get(name, set())
        if addresses is None:
            del self._interfaces[name]
        else:
            self._interfaces[name] = addresses
        return True

    def interfaces(self) -> set[IfName]:
        return super().interfaces() | self._interfaces.keys()

    def claimants(self, interface: IfName) -> set[ResourceKey]:
        found = super().claimants(interface)
        for address in self._interfaces.get(interface, ()):
            found |= self._by_address.get(address, set())
        return found

    def _file(self, key: ResourceKey, record: HostRecord, *, there: bool) -> None:
        super()._file(key, record, there=there)
        for address in record.addresses if record.interface is None else ():
            note(self._by_address, address, key, there=there)

    def _claimed(self, record: HostRecord) -> set[IfName]:
        if record.interface is not None:
            return {record.interface}
        return {name for address in record.addresses for name in self._holders.get(address, ())}

    def _order(self, key: ResourceKey, _: HostRecord) -> tuple[object, ...]:
        return (key.name,)

    def _admits(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> bool:
        return interface == ANY_INTERFACE or not interface.startswith(workload_prefixes)

    def _refusal(self, interface: IfName, _: tuple[str, ...]) -> str:
        return f"it is not in effect on {interface}: that is an interface of a workload"

    def _why_not_served(self, key: ResourceKey, record: HostRecord, workload_prefixes: tuple[str, ...]) -> list[str]:
        if not self._claimed(record):
            return [f"it is not in effect: no interface has {', '.join(sorted(map(str, record.addresses)))}"]
        absent = [
            f"there is no interface {interface}"
            for interface in self.serves(key)
            if interface not in self._interfaces and interface != ANY_INTERFACE
        ]
        return super()._why_not_served(key, record, workload_prefixes) + absent


class Hosts(Serving[HostRecord, LocalHostEndpoint]):
    """Reads host endpoints: all as members of sets, those of this host to serve them."""

    def __init__(self, node: NodeName, members: MemberSets, book: Book, problems: Problems) -> None:
        self._endpoints = HostEndpoints()
        super().__init__(self._endpoints, book, problems)
        self._node = node
        self._members = members
        self.readers: Mapping[str, Reader] = {"hostendpoints": self._read}

    def set_interface(self, name: IfName, addresses: Addresses | None) -> None:
        """Take note of the addresses that an interface of this host has now; None: there is no such interface."""
        if self._endpoints.set_interface(name, addresses):
            self._unsettled.add(name)

    def _read(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        problems: tuple[str, ...] = ()
        member = host = None
        if value is not None:
            endpoint = expected(HostEndpoint, value)
            member, problems = read_host_member(endpoint)
            host = read_host(endpoint) if endpoint.spec.node == self._node else None
        self._members.set_endpoint(key, member)
        self.put(key, host)
        return problems

    def _is_asked(self, _: PolicyRecord) -> bool:
        return True

    def _conclude(
        self, interface: IfName, key: ResourceKey, record: HostRecord, policies: Sequence[PolicyRecord]
    ) -> tuple[LocalHostEndpoint, Sequence[str]]:
        by_stage = of_host_endpoint(policies, self._book.tiers)
        untracked, ignored = by_stage[Stage.UNTRACKED], set[str]()
        if interface == ANY_INTERFACE:
            ignored = {policy.name for tier in untracked for policy in tier.ingress + tier.egress}
            untracked = ()
        endpoint = LocalHostEndpoint(
            name=key.name,
            interface=interface,
            profiles=record.profiles,
            untracked=untracked,
            pre_dnat=by_stage[Stage.PRE_DNAT],
            normal=by_stage[Stage.NORMAL],
            forward=by_stage[None],
        )
        effect = "is doNotTrack and ignored: this endpoint is for all interfaces, and that needs a named one"
        return endpoint, [f"policy {name} {effect}" for name in sorted(ignored)]
