"""Each chain as it was rendered, beside what the kernel counted in it. Pure.

A chain that is not in the kernel (yet) as it was rendered has no counts: they are not guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from felix.calc.conclusions import Conclusions
from felix.calc.model import Action, PolicyRule
from felix.desired import ChainKey
from felix.render.chains import Jump, PacketLog, Part
from felix.render.explained import Explained, grouped
from felix.render.flowlog import chain_owners
from felix.tally import NOTHING, Count
from kernel.xtables_counters import Counted, RuleCount


@dataclass(slots=True)
class Asked:
    """A policy, group or profile that an endpoint's chain asks: how many came, and how many it allowed."""

    chain: str
    came: Count
    allowed: Count = NOTHING
    went_on: Count | None = None
    """Undecided, where that is counted."""


class Chains:
    """The chains as they were rendered, beside what the kernel counted in them."""

    def __init__(
        self,
        conclusions: Conclusions,
        rendered: Mapping[ChainKey, Explained],
        counted: Mapping[int, Counted],
        condemned: str,
    ) -> None:
        """`counted`: by address family. `condemned`: the tag of the rule that stands in for a refused chain."""
        self.rendered = rendered
        self.groups = grouped(rendered)
        """Chains of policies, by the chain that endpoints with the same policies share."""
        self.owners = chain_owners(conclusions.policies, conclusions.profiles)
        self._counted = counted
        self._condemned = condemned
        self._users: dict[ChainKey, int] = {}
        for key, explained in rendered.items():
            for rule in explained.rules:
                if rule.stands_for in (Part.POLICY, Part.GROUP, Part.PROFILE) and isinstance(rule.target, Jump):
                    asked = ChainKey(key.version, key.table, rule.target.chain)
                    self._users[asked] = self._users.get(asked, 0) + 1

    def seen(self, key: ChainKey) -> Sequence[RuleCount]:
        return self._counted.get(key.version, {}).get(key.table, {}).get(key.chain, ())

    def is_refused(self, key: ChainKey) -> bool:
        return [one.tag for one in self.seen(key)] == [self._condemned]

    def counts(self, key: ChainKey, explained: Explained) -> list[Count] | None:
        """Return the counts of a chain's rules, None if the chain is not in the kernel as it was rendered."""
        seen = self.seen(key)
        if tuple(one.tag for one in seen) != explained.tags:
            return None
        return [Count(one.packets, one.bytes) for one in seen]

    def denies(self, key: ChainKey, chain: str) -> dict[int, Count]:
        """Return what each Deny of a policy or profile counted, by its number."""
        asked = ChainKey(key.version, key.table, chain)
        explained = self.rendered[asked]
        counts = self.counts(asked, explained) or [NOTHING] * len(explained.rules)
        return {
            rule.stands_for.number: count
            for rule, count in zip(explained.rules, counts, strict=True)
            if isinstance(rule.stands_for, PolicyRule)
            and rule.stands_for.action is Action.DENY
            and not isinstance(rule.target, PacketLog)
        }

    def denied_by(self, key: ChainKey, chain: str) -> Count:
        return sum(self.denies(key, chain).values(), NOTHING)

    def is_told_by(self, key: ChainKey, asked: Asked) -> bool:
        """Whether a policy's own rules have counted exactly the packets that it decided about for this chain.

        Its chain may be older than the one that asks it, or have been written anew since.
        """
        if asked.went_on is None or not self.is_own(key, asked.chain):
            return False
        there = ChainKey(key.version, key.table, asked.chain)
        explained = self.rendered[there]
        counts = self.counts(there, explained) or [NOTHING] * len(explained.rules)
        decided = sum(
            (
                count
                for rule, count in zip(explained.rules, counts, strict=True)
                if isinstance(rule.stands_for, PolicyRule)
                and rule.stands_for.action is not Action.LOG
                and not isinstance(rule.target, PacketLog)
            ),
            NOTHING,
        )
        return decided == asked.came - asked.went_on

    def is_own(self, key: ChainKey, chain: str) -> bool:
        """Whether no other chain asks this policy or profile."""
        return self._users.get(ChainKey(key.version, key.table, chain)) == 1

    def actions(self, key: ChainKey, chain: str) -> set[Action]:
        asked = ChainKey(key.version, key.table, chain)
        explained = self.rendered.get(asked)
        if asked in self.groups and not self.is_refused(asked):
            return set().union(*(self.actions(key, policy) for policy in self.groups[asked]))
        if explained is None or (chain not in self.owners and asked not in self.groups):
            return set()
        if self.is_refused(asked):
            return {Action.DENY}
        return {rule.stands_for.action for rule in explained.rules if isinstance(rule.stands_for, PolicyRule)}
