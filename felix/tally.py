"""What is counted, for whom and where: the words of the counters. Pure."""

from dataclasses import dataclass, field

from felix.calc.model import Direction, PolicyId
from felix.desired import ChainKey
from resources.names import ProfileName


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes. A difference is never below nothing: the counters are not read at one instant."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: "Count") -> "Count":
        return Count(max(0, self.packets - other.packets), max(0, self.bytes - other.bytes))


NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Where:
    """Where a packet was dropped.

    `reason`: a `Part` by name, "rule", or REFUSED. `rules`: numbers of rules, one of which it was; 0 stands for the
    whole policy. `owners`: policies or profiles, in one of which it was.
    """

    reason: str
    tier: str = ""
    owners: tuple[PolicyId | ProfileName, ...] = ()
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Whose chain: of an interface in one direction; the host itself has no interface.

    `kind`: WORKLOAD, HOST_ENDPOINT or HOST. `note`: which traffic of a host endpoint.
    """

    kind: str
    direction: Direction | None
    interface: str = ""
    note: str = ""


WORKLOAD, HOST_ENDPOINT, HOST = "workload", "host endpoint", "host"
NORMAL, FORWARDED, BEFORE_DNAT, AFTER_NAT, UNTRACKED = "", "forwarded", "before DNAT", "after NAT", "untracked"
"""Notes of host endpoints: whose policies a chain asks (felix.render.hosts)."""
REFUSED = "refused"
"""Reason: the kernel refused the chain, and a DROP stands in its place."""


@dataclass(slots=True)
class Passage:
    """What went through the chains of one place."""

    established: Count = NOTHING
    allowed: Count = NOTHING
    drops: dict[Where, Count] = field(default_factory=dict)

    def drop(self, where: Where, count: Count) -> None:
        self.drops[where] = self.drops.get(where, NOTHING) + count

    @property
    def dropped(self) -> Count:
        return sum(self.drops.values(), NOTHING)


RuleKey = tuple[PolicyId | ProfileName, Direction, int]


@dataclass(slots=True)
class Tally:
    """All counters of a host."""

    rules: dict[RuleKey, Count] = field(default_factory=dict)
    """By policy or profile, direction and number of the rule; a rule that is in no chain is not here."""
    places: dict[Place, Passage] = field(default_factory=dict)
    missing: list[ChainKey] = field(default_factory=list)
    """Chains that are not in the kernel as they were rendered."""
