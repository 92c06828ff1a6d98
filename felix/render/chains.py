"""Rules as values: conditions that must all hold, and a target. Writing them down is the back end's business."""

import enum
from dataclasses import dataclass, field

from felix.calc.model import PolicyRule, PortRange
from resources.names import IPNetwork


class End(enum.Enum):
    """Source or destination of a packet."""

    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class InInterface:
    """Came in by this interface; a final ``+`` stands for anything."""

    name: str


@dataclass(frozen=True, slots=True)
class OutInterface:
    name: str


@dataclass(frozen=True, slots=True)
class HasProtocol:
    """`protocol`: name or decimal number."""

    protocol: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InNet:
    end: End
    net: IPNetwork
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """`port`: the set holds addresses with ports, and both are looked up."""

    end: End
    set: str
    negated: bool = False
    port: bool = False


@dataclass(frozen=True, slots=True)
class InPorts:
    """At most 15 slots; a range takes two."""

    end: End
    ports: tuple[PortRange, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HasIcmpType:
    version: int
    type: int
    code: int | None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class MarkIs:
    """The bits of `mask` have the value `value`; `negated`: another one."""

    value: int
    mask: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InState:
    """Connection tracking's view: ``RELATED,ESTABLISHED``, ``INVALID``, ``DNAT``."""

    states: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsLocal:
    """The address is one of this host's; `outgoing`: of the outgoing interface."""

    end: End
    negated: bool = False
    outgoing: bool = False


@dataclass(frozen=True, slots=True)
class SourceNotRoutedBack:
    """The way back to the source is not by the interface that the packet came from."""


Condition = (
    InInterface
    | OutInterface
    | HasProtocol
    | InNet
    | InSet
    | InPorts
    | HasIcmpType
    | MarkIs
    | InState
    | IsLocal
    | SourceNotRoutedBack
)


class Verdict(enum.Enum):
    """Targets that need nothing more."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"
    REJECT = "REJECT"
    """Only in the filter table."""
    RETURN = "RETURN"
    NOTRACK = "NOTRACK"
    """Keep connection tracking from the packet, and go on; only in the raw table."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Walk the chain and come back unless it decides."""

    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in the chain; its end is the end of this one too."""

    chain: str


@dataclass(frozen=True, slots=True)
class SetMark:
    """Set the bits of `mask` to `value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class ClearMark:
    """Set the bits to zero."""

    bits: int


@dataclass(frozen=True, slots=True)
class Log:
    prefix: str


@dataclass(frozen=True, slots=True)
class PacketLog:
    """Hand the packet's beginning to who listens to the netlink log group (NFLOG)."""

    group: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Masquerade:
    ports: PortRange | None = None
    random: bool = True


@dataclass(frozen=True, slots=True)
class SourceNat:
    address: str
    ports: PortRange | None = None
    random: bool = True


Target = Verdict | Jump | Goto | SetMark | ClearMark | Log | PacketLog | Masquerade | SourceNat


class Part(enum.Enum):
    """What a rule of a chain is there for, as far as its counter tells people something."""

    ESTABLISHED = "established"
    """A flow that connection tracking knows is let through."""
    INVALID = "invalid"
    """A packet that connection tracking calls invalid is dropped."""
    TUNNEL = "tunnel"
    """A workload's own tunnel is dropped."""
    TIER = "tier"
    """Every packet that comes to a tier."""
    POLICY = "policy"
    """The jump to a policy's chain."""
    GROUP = "group"
    """The jump to a chain of several policies' jumps (felix.render.groups)."""
    DECIDED = "decided"
    """In such a chain: one of the policies asked so far allowed or passed the packet."""
    ALLOWED = "allowed"
    """The policy or profile that was asked last allowed the packet."""
    END_OF_TIER = "end of tier"
    PROFILE = "profile"
    """The jump to a profile's chain."""
    NO_PROFILE = "no profile"
    UNKNOWN_INTERFACE = "unknown interface"
    SPOOFED = "spoofed source"
    TO_HOST = "to host"
    """What becomes of a workload's packet to its own host that policy let pass."""
    NOT_ASKED = "not asked"
    """A new flow of a workload that rules of others had accepted before our chain of FORWARD was asked."""
    TUNNEL_IN = "tunnel in"
    """IPIP from who is no host of the cluster is dropped."""
    VXLAN_IN = "vxlan in"
    """So is VXLAN."""


@dataclass(frozen=True, slots=True)
class Rule:
    """All conditions hold -> target. Comments are for people."""

    conditions: tuple[Condition, ...]
    target: Target
    comments: tuple[str, ...] = ()
    stands_for: PolicyRule | Part | None = field(default=None, compare=False)
    """What its counter counts (felix.counters): the packets that a policy's rule matched, or a step of an endpoint's
    chain. No part of its text."""


def rule(
    *conditions: Condition, to: Target, comment: str | None = None, stands_for: PolicyRule | Part | None = None
) -> Rule:
    """Make a rule in one line of text."""
    return Rule(conditions, to, () if comment is None else (comment,), stands_for)


def marked(bit: int) -> MarkIs:
    return MarkIs(bit, bit)


def unmarked(bits: int) -> MarkIs:
    return MarkIs(0, bits)


def any_marked(bits: int) -> MarkIs:
    """One of the bits is set."""
    return MarkIs(0, bits, negated=True)


def mark(bit: int) -> SetMark:
    return SetMark(bit, bit)


def clear(bits: int) -> ClearMark:
    return ClearMark(bits)
