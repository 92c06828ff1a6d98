"""Host endpoints of this host, and which interface each has (reference felix.md 3.9, resources.md 2.7).

An endpoint is for the interface that it names, or, where it names none, for those that have one of its addresses; or it
is for all interfaces (``*``). Of several for one interface the one with the lowest name is served, the others wait.

An endpoint that names its interface is served whether that is there or not: the rules stand before the interface can
carry a packet. Interfaces of workloads are nobody's here.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from felix.calc.endpoints import DeclaredPort, EndpointUnusable, Member, declared_port, distinct_profiles, own_labels
from felix.calc.model import ANY_INTERFACE
from resources.datastore.keys import ResourceKey
from resources.kinds.hostendpoint import ALL_INTERFACES, HostEndpoint
from resources.names import INTERFACE_REGEX, IfName, IPAddress, ProfileName

K = TypeVar("K")
V = TypeVar("V")

Addresses = frozenset[IPAddress]
NO_ADDRESSES: Addresses = frozenset()


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host endpoint of this host as its record has it. `interface`: None if `addresses` say which it is."""

    interface: IfName | None
    addresses: Addresses
    profiles: tuple[ProfileName, ...]


def read_host_member(endpoint: HostEndpoint) -> tuple[Member, tuple[str, ...]]:
    """Return what the endpoint contributes to sets, and what was wrong with parts that are passed over.

    To pass over the whole endpoint would open its interface.
    """
    addresses, problems = _addresses(endpoint)
    ports: list[DeclaredPort] = []
    for port in endpoint.spec.ports:
        try:
            ports.append(declared_port(port))
        except EndpointUnusable as error:
            problems.append(f"passed over: {error}")
    member = Member(
        labels=own_labels(endpoint.metadata.labels, ""),
        profiles=distinct_profiles(endpoint.spec.profiles),
        ipv4=tuple(str(address) for address in addresses if address.version == 4),
        ipv6=tuple(str(address) for address in addresses if address.version == 6),
        ports=tuple(ports),
        doubtful=len(addresses) < len(set(endpoint.spec.expected_ips)),
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
    return HostRecord(interface, frozenset(addresses), distinct_profiles(endpoint.spec.profiles))


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
        found[address] = None
    return found, problems


class HostEndpoints:
    """The host endpoints of this host and its interfaces, and which has which. Cost follows what changed."""

    def __init__(self) -> None:
        self._records: dict[ResourceKey, HostRecord] = {}
        self._by_name: dict[IfName, set[ResourceKey]] = {}
        self._by_address: dict[IPAddress, set[ResourceKey]] = {}
        self._interfaces: dict[IfName, Addresses] = {}
        self._holders: dict[IPAddress, set[IfName]] = {}
        self._served: dict[IfName, ResourceKey] = {}
        self._serves: dict[ResourceKey, set[IfName]] = {}
        self._unexplained: set[ResourceKey] = set()

    def put(self, key: ResourceKey, record: HostRecord | None) -> set[IfName]:
        """Add, change or (None) forget an endpoint; return the interfaces that must be settled."""
        before = self._records.pop(key, None)
        self._unexplained.add(key)
        touched = set(self._serves.get(key, ()))
        if before is not None:
            touched |= self._claimed(before)
            self._file(key, before, add=False)
        if record is not None:
            self._records[key] = record
            self._file(key, record, add=True)
            touched |= self._claimed(record)
        return touched

    def _file(self, key: ResourceKey, record: HostRecord, *, add: bool) -> None:
        if record.interface is not None:
            _note(self._by_name, record.interface, key, there=add)
        else:
            for address in record.addresses:
                _note(self._by_address, address, key, there=add)

    def set_interface(self, name: IfName, addresses: Addresses | None) -> bool:
        """Take the addresses of an interface as they are now, None: it is gone. Return whether it must be settled."""
        before = self._interfaces.get(name)
        if before == addresses:
            return False
        old, new = before or NO_ADDRESSES, addresses or NO_ADDRESSES
        for address in old ^ new:
            _note(self._holders, address, name, there=address in new)
            self._unexplained |= self._by_address.get(address, set())
        self._unexplained |= self._by_name.get(name, set())
        if addresses is None:
            del self._interfaces[name]
        else:
            self._interfaces[name] = addresses
        return True

    def record(self, key: ResourceKey) -> HostRecord:
        return self._records[key]

    def interfaces(self) -> set[IfName]:
        """Return all interfaces that an endpoint is for, or could be."""
        return {*self._by_name, *self._interfaces, *self._served}

    def served(self, interface: IfName) -> ResourceKey | None:
        """Return which endpoint has the interface, as settled."""
        return self._served.get(interface)

    def is_served(self, key: ResourceKey) -> bool:
        """Tell whether the endpoint has any interface, as settled."""
        return key in self._serves

    def serves(self, key: ResourceKey) -> Iterable[IfName]:
        return self._serves.get(key, ())

    def claimants(self, interface: IfName) -> set[ResourceKey]:
        """Return the endpoints that are for the interface, whoever has it."""
        found = set(self._by_name.get(interface, ()))
        for address in self._interfaces.get(interface, ()):
            found |= self._by_address.get(address, set())
        return found

    def settle(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> ResourceKey | None:
        """Decide who has the interface: the claimant with the lowest name."""
        before = self._served.pop(interface, None)
        if before is not None:
            _note(self._serves, before, interface, there=False)
        claims = set() if _is_workloads(interface, workload_prefixes) else self.claimants(interface)
        if not claims:
            return None
        winner = min(claims, key=lambda key: key.name)
        self._unexplained |= claims
        self._served[interface] = winner
        _note(self._serves, winner, interface, there=True)
        return winner

    def take_explanations(self, workload_prefixes: tuple[str, ...]) -> dict[ResourceKey, tuple[str, ...]]:
        """Return, for the endpoints for which that may have changed, what keeps them from what they are for."""
        explained = {
            key: self._why_not_served(key, workload_prefixes) for key in self._unexplained if key in self._records
        }
        self._unexplained.clear()
        return explained

    def _why_not_served(self, key: ResourceKey, workload_prefixes: tuple[str, ...]) -> tuple[str, ...]:
        record = self._records[key]
        claimed = self._claimed(record)
        if not claimed:
            addresses = ", ".join(sorted(map(str, record.addresses)))
            return (f"it is not in effect: no interface has {addresses}",)
        told = []
        for interface in sorted(claimed):
            served = self._served.get(interface)
            if _is_workloads(interface, workload_prefixes):
                told.append(f"it is not in effect on {interface}: that is an interface of a workload")
            elif served != key:
                told.append(f"it waits: interface {interface} belongs to {served}")
            elif interface not in self._interfaces and interface != ANY_INTERFACE:
                told.append(f"there is no interface {interface}")
        return tuple(told)

    def _claimed(self, record: HostRecord) -> set[IfName]:
        """Return the interfaces that an endpoint is for."""
        if record.interface is not None:
            return {record.interface}
        return {name for address in record.addresses for name in self._holders.get(address, ())}


def _is_workloads(interface: IfName, prefixes: tuple[str, ...]) -> bool:
    return interface != ANY_INTERFACE and interface.startswith(prefixes)


def _note(index: dict[K, set[V]], key: K, value: V, *, there: bool) -> None:
    """Add to a set of an index, or take out; no set stays empty."""
    if there:
        index.setdefault(key, set()).add(value)
        return
    values = index[key]
    values.discard(value)
    if not values:
        del index[key]
