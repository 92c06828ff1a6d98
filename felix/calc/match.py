"""Whether a packet matches a rule, by the rule as data and the members of its sets. No kernel, no rule text.

The kernel's matches are the measure (reference felix.md 4.3): a rule of one family never matches a packet of the other,
a named port is one protocol's, an ICMP type is that of the packet's own family.
"""

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from felix.calc.model import IcmpType, PolicyRule, SetSpec, Side
from resources.names import IPAddress, IPNetwork

ICMP_NUMBER = {4: 1, 6: 58}
"""The protocol number of ICMP by address family."""
IPIP_NUMBER, UDP_NUMBER = 4, 17

_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
_PORT_NAMES = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}


class State(enum.Enum):
    """What connection tracking knows of a packet."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"

    @property
    def is_known_flow(self) -> bool:
        return self in (State.ESTABLISHED, State.RELATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet, as far as policy can see it. Ports are 0 where the protocol has none, `icmp` is None beside ICMP."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp: IcmpType | None = None
    """Type and code, both given."""
    state: State = State.NEW
    sent_to: tuple[IPAddress, int] | None = None
    """Address and port that NAT on the first host puts in the place of the destination, if the packet is tracked."""

    @property
    def version(self) -> int:
        return self.source.version

    @property
    def translated(self) -> "Packet":
        """The packet after `sent_to`."""
        if self.sent_to is None or self.state in (State.INVALID, State.UNTRACKED):
            return self
        address, port = self.sent_to
        return replace(self, destination=address, destination_port=port, sent_to=None)


class Members:
    """The sets of a host by id, read once each for questions about membership."""

    def __init__(self, sets: Mapping[str, tuple[SetSpec, Mapping[int, frozenset[str]]]]) -> None:
        self._sets = sets
        self._nets: dict[tuple[str, int], tuple[IPNetwork, ...]] = {}

    def has_address(self, set_id: str, address: IPAddress) -> bool:
        """Tell whether the address is in a set of addresses or inside one of its networks."""
        members = self._sets[set_id][1][address.version]
        return str(address) in members or any(address in net for net in self._networks(set_id, address.version))

    def has_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        """Tell whether a set of named ports has this port of this address."""
        name = _PORT_NAMES.get(protocol)
        return name is not None and f"{address},{name}:{port}" in self._sets[set_id][1][address.version]

    def _networks(self, set_id: str, version: int) -> tuple[IPNetwork, ...]:
        key = set_id, version
        if key not in self._nets:
            members = self._sets[set_id][1][version]
            self._nets[key] = tuple(ipaddress.ip_network(member) for member in members if "/" in member)
        return self._nets[key]


def matches(rule: PolicyRule, packet: Packet, members: Members) -> bool:
    """Tell whether the packet matches every condition of the rule."""
    if packet.version not in rule.versions:
        return False
    if rule.protocol is not None and protocol_number(rule.protocol) != packet.protocol:
        return False
    if rule.not_protocol is not None and protocol_number(rule.not_protocol) == packet.protocol:
        return False
    if rule.icmp is not None and not _is_icmp(rule.icmp, packet):
        return False
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, packet):
        return False
    return _side(rule.source, packet.source, packet.source_port, packet, members) and _side(
        rule.destination, packet.destination, packet.destination_port, packet, members
    )


def protocol_number(protocol: str) -> int:
    """Return the number of a protocol as `PolicyRule` names it: lower-case name or decimal number."""
    return _NUMBERS.get(protocol) or int(protocol)


def _is_icmp(wanted: IcmpType, packet: Packet) -> bool:
    if packet.icmp is None or packet.protocol != ICMP_NUMBER[packet.version]:
        return False
    return packet.icmp.type == wanted.type and wanted.code in (None, packet.icmp.code)


def _side(side: Side, address: IPAddress, port: int, packet: Packet, members: Members) -> bool:
    nets = [net for net in side.nets if net.version == address.version]
    if nets and not _inside(address, nets):
        return False
    if _inside(address, side.not_nets):
        return False
    if not all(members.has_address(spec.id, address) for spec in side.sets):
        return False
    if any(members.has_address(spec.id, address) for spec in side.not_sets):
        return False

    def named(specs: Iterable[SetSpec]) -> bool:
        return any(members.has_port(spec.id, address, packet.protocol, port) for spec in specs)

    if (side.ports or side.port_sets) and not (_in_ranges(side.ports, port) or named(side.port_sets)):
        return False
    return not (_in_ranges(side.not_ports, port) or named(side.not_port_sets))


def _inside(address: IPAddress, nets: Iterable[IPNetwork]) -> bool:
    return any(net.version == address.version and address in net for net in nets)


def _in_ranges(ranges: Iterable[tuple[int, int]], port: int) -> bool:
    return any(low <= port <= high for low, high in ranges)
