"""Answers about packets as data: who was asked, who decided, and why. What `felix.calc.verdict` gives."""

import enum
from dataclasses import dataclass

from felix.calc.model import Action, Direction, PolicyId
from resources.names import IfName, NodeName, ProfileName


class Outcome(enum.Enum):
    """What becomes of a packet. LEFT: policy has no say, so what comes next decides, at last the host's own rules.

    (Where IptablesFilterAllowAction is Return, they come after ALLOWED too.)
    """

    ALLOWED = "allowed"
    DENIED = "denied"
    LEFT = "left to others"


class Reason(enum.Enum):
    """Why."""

    POLICY_RULE = "a rule of a policy"
    PROFILE_RULE = "a rule of a profile"
    END_OF_TIER = "the end of a tier"
    NO_PROFILE = "no profile matched"
    NO_POLICY = "no policy of that kind"
    PASSED = "passed on by every tier"
    KNOWN_FLOW = "the flow is established"
    INVALID = "no flow, by connection tracking"
    TUNNEL = "a tunnel from inside a workload"
    UNKNOWN_ENDPOINT = "nobody's interface"
    SPOOFED = "a source address that is not the endpoint's"
    NEIGHBOUR_DISCOVERY = "neighbour discovery with the own host"
    HOST_ACTION = "DefaultEndpointToHostAction"
    OWN_HOST = "from the workload's own host"
    IPIP = "IPIP between hosts"
    FAILSAFE = "a failsafe port"
    LINK_UPKEEP = "neighbour discovery and the like, which no policy forbids a host"


class Hook(enum.Enum):
    """At which point of a packet's way a question is asked, in order."""

    SOURCE_CHECK = "check of source addresses"
    UNTRACKED = "before connection tracking"
    PRE_DNAT = "before destinations are translated"
    FORWARD = "forwarded"
    TO_HOST = "to the host"
    FROM_HOST = "from the host"
    AFTER_NAT = "after destinations were translated"


class Way(enum.Enum):
    """Which way a packet takes through a host."""

    FORWARDED = "forwarded"
    TO_HOST = "to the host"
    FROM_HOST = "from the host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A policy or profile that was asked, or, where neither is named, the end of a tier.

    `logged`: the Log rules that the packet matched. `rule` and `action`: which one decided; None if none did. At the
    end of a tier `action` is the tier's. Rules go by their place in the record, from 1; 0 stands for what is put in
    the place of a record that is missing or cannot be used.
    """

    tier: str | None = None
    policy: PolicyId | None = None
    profile: ProfileName | None = None
    logged: tuple[int, ...] = ()
    rule: int | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one question came to: at one end (`direction` as seen from the endpoint behind `interface`), at one hook.

    `host_endpoint`: the record of the host endpoint that was asked; empty for a workload.
    """

    outcome: Outcome
    reason: Reason
    hook: Hook
    interface: IfName | None = None
    direction: Direction | None = None
    host_endpoint: str = ""
    walk: tuple[Step, ...] = ()
    """All that was asked, in order; the last one decided, if the reason is a rule or the end of a tier."""

    @property
    def decided_by(self) -> Step | None:
        """The policy, profile or end of tier that decided, if any did."""
        return self.walk[-1] if self.reason in _BY_STEP else None


_BY_STEP = (Reason.POLICY_RULE, Reason.PROFILE_RULE, Reason.END_OF_TIER)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVerdict:
    """What one host makes of a packet. `answers`: to all that was asked, in order; the last one decided.

    (Unless that is LEFT by a policy before connection tracking or before NAT: an earlier Allow then stands.)
    """

    node: NodeName
    way: Way
    outcome: Outcome
    answers: tuple[Answer, ...]

    @property
    def is_untracked(self) -> bool:
        """Whether policy keeps the packet from connection tracking on this host, and so from NAT."""
        return any(answer.hook is Hook.UNTRACKED and answer.outcome is Outcome.ALLOWED for answer in self.answers)

    @property
    def reason(self) -> Reason | None:
        """Why; None if nobody was asked."""
        return self.answers[-1].reason if self.answers else None
