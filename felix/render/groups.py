"""Chains of jumps that endpoints with the same policies share: one for each longer list of policies of a tier.

The kernel validates all rules that packets can reach at each change (docs/adr/0012, 0021), and an endpoint's own jumps
are most of them. The original Calico groups policies of one selector (reference felix.md 3.5); here it is the list of a
tier. Its name comes of the list alone, so each process finds the same, and who gets another list jumps elsewhere.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from felix.calc.model import Direction, LocalEndpoint, PolicyId, TierPolicies
from felix.calc.parameters import Parameters
from felix.render.chains import Jump, Part, Rule, Verdict, any_marked, rule, unmarked
from felix.render.names import CHAIN_MAX, GROUP_PREFIX, policy_chain

GROUPED_FROM: Final = 3
"""So many policies have a chain of their own; it takes fewer rules than jumps in place even if one endpoint uses it."""
STRIDE: Final = 5
"""After so many jumps a packet that is decided about goes back."""


@dataclass(frozen=True, slots=True)
class Group:
    """The policies of one tier that are asked in one direction, in order."""

    direction: Direction
    policies: tuple[PolicyId, ...]

    @property
    def chain(self) -> str:
        prefix = GROUP_PREFIX[self.direction]
        names = "\n".join(policy_chain(policy, self.direction) for policy in self.policies)
        digest = hashlib.sha224(names.encode()).digest()
        return prefix + base64.urlsafe_b64encode(digest).decode()[: CHAIN_MAX - len(prefix)]


def group_of(tier: TierPolicies, direction: Direction) -> Group | None:
    """Return the group that the tier's policies make; None: they are asked in place."""
    policies = tier.of(direction)
    return Group(direction, policies) if len(policies) >= GROUPED_FROM else None


def groups_of(endpoint: LocalEndpoint | None) -> frozenset[Group]:
    """Return the groups whose chains an endpoint's chains jump to."""
    tiers = endpoint.tiers if endpoint is not None else ()
    found = (group_of(tier, direction) for tier in tiers for direction in Direction)
    return frozenset(group for group in found if group is not None)


def group_rules(group: Group, parameters: Parameters) -> list[Rule]:
    """Return the group's chain. Packets come to it undecided; it leaves the marks of who decided, and drops nothing."""
    decided = parameters.marks.accept | parameters.marks.passed
    rules: list[Rule] = []
    for place, policy in enumerate(group.policies):
        is_first = place % STRIDE == 0
        if place and is_first:
            back = rule(any_marked(decided), to=Verdict.RETURN, comment="Return on verdict", stands_for=Part.DECIDED)
            rules.append(back)
        still = () if is_first else (unmarked(decided),)
        rules.append(rule(*still, to=Jump(policy_chain(policy, group.direction)), stands_for=Part.POLICY))
    return rules


class Groups:
    """Which groups are in use, by how many endpoints. Its cost follows the endpoints that change."""

    def __init__(self) -> None:
        self._users: dict[Group, int] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._users)

    def __contains__(self, group: Group) -> bool:
        return group in self._users

    def take(self, before: LocalEndpoint | None, now: LocalEndpoint | None) -> Sequence[Group]:
        """Take note of what an endpoint is now, and return the groups that begin or end to be in use by that."""
        old, new = groups_of(before), groups_of(now)
        changed: list[Group] = []
        for group in new - old:
            if group not in self._users:
                changed.append(group)
            self._users[group] = self._users.get(group, 0) + 1
        for group in old - new:
            self._users[group] -= 1
            if not self._users[group]:
                del self._users[group]
                changed.append(group)
        return changed
