"""Policy as data: what the calculation concludes, before anybody turns it into rules.

The renderer is one reader of these values; whoever explains a verdict without a packet is another.
"""

import base64
import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from resources.names import IfName, IPAddress, IPNetwork, ProfileName
from resources.selector import Selector


class Action(enum.Enum):
    """What a rule does with a packet that it matches (reference felix.md 4.2)."""

    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"
    LOG = "Log"


class Direction(enum.Enum):
    """As seen from the endpoint: ingress is to it, egress from it."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, order=True)
class PolicyId:
    """A policy; `namespace` is empty for global ones."""

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that endpoints declare by name; protocol in lower case: tcp, udp, sctp."""

    protocol: str
    name: str


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A set of addresses, or with `port` of (address, protocol, port number), by what makes its members.

    Two specs with one id are the same set.
    """

    id: str
    selector: Selector = field(compare=False)
    port: NamedPort | None = field(default=None, compare=False)


@lru_cache(maxsize=4096)
def selector_set(selector: Selector) -> SetSpec:
    """Return the set of the addresses of what the selector picks (reference felix.md 4.4)."""
    return SetSpec(selector.unique_id, selector)


def named_port_set(selector: Selector, port: NamedPort) -> SetSpec:
    """Return the set of a named port of what the selector picks (reference felix.md 4.4)."""
    text = f"n:{selector.unique_id},{port.protocol},{port.name}".encode("utf-8", "surrogatepass")
    return SetSpec("n:" + base64.urlsafe_b64encode(hashlib.sha224(text).digest()).decode().rstrip("="), selector, port)


class Growth(enum.Flag):
    """What a new member of a set does to what passes, by the rules that name the set."""

    OPENS = enum.auto()
    """More may pass: an Allow asks for members."""
    CLOSES = enum.auto()
    """Less may pass: a Deny asks for members."""


NO_GROWTH = Growth(0)


class Turnover(enum.Flag):
    """What becomes of the rules that packets meet, in one flush."""

    COMES = enum.auto()
    """A workload that was not there is asked about; until its rules are there, nothing of it passes."""
    GOES = enum.auto()
    """A workload goes; once its rules are gone, nothing of it passes."""
    CHANGES = enum.auto()
    """Anything else."""


NO_TURNOVER = Turnover(0)


PortRange = tuple[int, int]
"""First and last port, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Conditions on one end of a packet; all hold, an empty one always does.

    `nets`: in one of them. `sets`: in each. `ports` and `port_sets` together: one of them. The `not_` fields: in none.
    """

    nets: tuple[IPNetwork, ...] = ()
    sets: tuple[SetSpec, ...] = ()
    ports: tuple[PortRange, ...] = ()
    port_sets: tuple[SetSpec, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    not_sets: tuple[SetSpec, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    not_port_sets: tuple[SetSpec, ...] = ()

    @property
    def all_sets(self) -> tuple[SetSpec, ...]:
        return self.sets + self.port_sets + self.not_sets + self.not_port_sets


ANYWHERE = Side()


@dataclass(frozen=True, slots=True)
class IcmpType:
    type: int
    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule, ready to be rendered.

    `versions`: the address families in which it can match at all. `protocol`: lower-case name or decimal number.
    """

    action: Action
    number: int = 0
    """Its place in the list of the record, from 1; 0: no rule of the record, but what stands for all of it."""
    versions: tuple[int, ...] = (4, 6)
    protocol: str | None = None
    not_protocol: str | None = None
    icmp: IcmpType | None = None
    not_icmp: IcmpType | None = None
    source: Side = ANYWHERE
    destination: Side = ANYWHERE
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.source, self.destination

    @property
    def all_sets(self) -> tuple[SetSpec, ...]:
        return self.source.all_sets + self.destination.all_sets

    def growth(self, *, negated: bool) -> Growth:
        """Return what a new member of a set does that the rule asks for, or (`negated`) refuses."""
        match self.action:
            case Action.ALLOW:
                return Growth.CLOSES if negated else Growth.OPENS
            case Action.DENY:
                return Growth.OPENS if negated else Growth.CLOSES
            case Action.PASS:
                return Growth.OPENS | Growth.CLOSES  # what comes later may allow or deny
            case Action.LOG:
                return NO_GROWTH


DENY_ALL = PolicyRule(action=Action.DENY)
ALLOW_ALL = PolicyRule(action=Action.ALLOW)


class Stage(enum.Enum):
    """When a policy is asked on a packet's way through the host (reference felix.md 3.9)."""

    UNTRACKED = "doNotTrack"
    """First of all, before connection tracking. What it allows is not tracked, so answers must be allowed too."""
    PRE_DNAT = "preDNAT"
    """Before destinations are translated; only what comes in."""
    NORMAL = "normal"
    """At the end of the way. All policies of workloads are of this stage, and profiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a policy or profile; None: it says nothing about that direction."""

    ingress: tuple[PolicyRule, ...] | None
    egress: tuple[PolicyRule, ...] | None
    stage: Stage = Stage.NORMAL
    tier: str = ""
    """The policy's tier; empty for a profile."""

    def of(self, direction: Direction) -> tuple[PolicyRule, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress

    @property
    def all_sets(self) -> dict[str, SetSpec]:
        """All sets that the rules mention, by id."""
        rules = (self.ingress or ()) + (self.egress or ())
        return {spec.id: spec for rule in rules for spec in rule.all_sets}

    @property
    def set_growth(self) -> dict[str, Growth]:
        """What a new member of each set that the rules mention does, by the set's id."""
        found: dict[str, Growth] = {}
        for rule in (self.ingress or ()) + (self.egress or ()):
            for side in (rule.source, rule.destination):
                for specs, negated in (
                    (side.sets + side.port_sets, False), (side.not_sets + side.not_port_sets, True)
                ):  # fmt: skip
                    for spec in specs:
                        found[spec.id] = found.get(spec.id, NO_GROWTH) | rule.growth(negated=negated)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPolicies:
    """The policies of one tier that apply to one endpoint, in order; the tier counts where the list is not empty."""

    name: str
    default_action: Action
    """DENY or PASS: what happens to a packet that no policy of the tier decided about."""
    ingress: tuple[PolicyId, ...] = ()
    egress: tuple[PolicyId, ...] = ()

    def of(self, direction: Direction) -> tuple[PolicyId, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEndpoint:
    """A container interface of this host, with what applies to it."""

    interface: IfName
    addresses: frozenset[IPNetwork]
    mac: str | None
    tiers: tuple[TierPolicies, ...]
    profiles: tuple[ProfileName, ...]
    spoofed_sources: tuple[IPNetwork, ...] = ()
    """Networks that it may send from beside its own addresses, if the host's settings agree."""
    name: str = ""
    """What people call it: the container's name, if that is known."""

    @property
    def policies(self) -> frozenset[PolicyId]:
        """All that is asked."""
        return frozenset(policy for tier in self.tiers for policy in tier.ingress + tier.egress)


ANY_INTERFACE = IfName("any-interface-at-all")
"""Stands for the interface of a host endpoint that is for all interfaces; longer than the name of any real one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalHostEndpoint:
    """An interface of this host itself, with what applies to it in each of the four ways (reference felix.md 3.9).

    Ingress is what comes in by the interface, egress what leaves by it. The failsafe ports come before all but
    `forward`. An Allow of `untracked` or `pre_dnat` is final here: no other policy of a host endpoint is asked about
    the packet that comes in, but the policy of a workload that it goes to is.

    The endpoint behind ANY_INTERFACE is asked about every interface that has no endpoint of its own, those of workloads
    included; but not in `normal` about what the host itself sends to its workloads.
    """

    name: str
    """Of the record that the interface is served by."""
    interface: IfName
    profiles: tuple[ProfileName, ...]
    """Asked last about what `normal` is asked about; if none decides: denied."""
    untracked: tuple[TierPolicies, ...] = ()
    """Both directions, forwarded or not; a tier that decides nothing passes. Never of ANY_INTERFACE."""
    pre_dnat: tuple[TierPolicies, ...] = ()
    """Ingress, forwarded or not; a tier that decides nothing passes."""
    normal: tuple[TierPolicies, ...] = ()
    """What the host's own processes send and get."""
    forward: tuple[TierPolicies, ...] = ()
    """What the host forwards. Where no tier has a policy about a direction: allowed."""

    @property
    def policies(self) -> frozenset[PolicyId]:
        """All that is asked in any way."""
        tiers = self.untracked + self.pre_dnat + self.normal + self.forward
        return frozenset(policy for tier in tiers for policy in tier.ingress + tier.egress)


@dataclass(frozen=True, slots=True)
class Order:
    """When the members of a set are written: those that come, and those that go, before the rules or after them.

    `alone`: in a batch of its own, after the others that come early and before the others that come late.
    """

    adds_late: bool = False
    removes_late: bool = False
    alone: bool = False


EARLY = Order()


@dataclass(frozen=True, slots=True)
class MembersChange:
    """A set's members that came and went, by address family; with `whole`, all members of a new set are `added`.

    `order`: when they are to be written.
    """

    added: Mapping[int, frozenset[str]]
    removed: Mapping[int, frozenset[str]]
    whole: bool = False
    order: Order = EARLY


def members_order(before: Growth, now: Growth) -> tuple[bool, bool]:
    """Return whether members of a set are to come, and to go, after the rules of the same flush are written.

    Sets and rules are not written at one stroke. Until the rules are there, the old ones meet the set as it is then:
    what comes early must close by the old rules. Afterwards the new ones meet what was left: what is left for later
    must open by the new rules. So nothing passes meanwhile that neither the old state nor the new one lets pass. Where
    neither holds (`unsafe_moves`), this is the order for a member that is the only one of this kind.

    Args:
        before: by the rules of the last flush.
        now: by the rules of this one.
    """
    adds_late = bool(before & Growth.OPENS) and not now & Growth.CLOSES
    return adds_late, bool(before & Growth.CLOSES)


def unsafe_moves(before: Growth, now: Growth) -> tuple[bool, bool]:
    """Return whether members that come, and that go, may open something early by the old rules and close it late."""
    adds = bool(before & Growth.OPENS) and bool(now & Growth.CLOSES)
    return adds, bool(before & Growth.CLOSES) and bool(now & Growth.OPENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanGuard:
    """What rules must know of VXLAN in one address family."""

    sources: frozenset[str]
    """The hosts that wrapped packets may come from, in ipset's text."""
    has_tunnel: bool
    """This host has its own end, so packets of its own may leave by the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the host must know of the rest of the cluster. Members of sets in ipset's text, by address family."""

    pools: Mapping[int, frozenset[str]]
    masqueraded_pools: Mapping[int, frozenset[str]]
    hosts: Mapping[int, frozenset[str]]
    ipip: bool
    """Some pool wants IPIP, or the settings say so."""
    tunnel_address: str | None
    """This host's own IPIP tunnel address."""
    vxlan: Mapping[int, VxlanGuard] = field(default_factory=lambda: MappingProxyType({}))
    """By the address families in which VXLAN is used."""
    addresses: frozenset[IPAddress] = frozenset()
    """This host's own addresses: where they are is the link to the other hosts."""
