"""Which policies and profiles are in force on this host, with which rules, and which sets these need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from felix.calc.book import Asked, Book
from felix.calc.ipsets import MemberSets, SetUse
from felix.calc.model import MembersChange, PolicyId, Rules, SetSpec, Turnover
from felix.calc.parameters import Parameters
from felix.calc.policies import CLOSED, effective_rules, policy_id, policy_key
from felix.calc.problems import Problems
from felix.calc.rules import without_doubt, without_sets
from felix.calc.serving import RuleUse
from resources.datastore.keys import ResourceKey
from resources.names import ProfileName


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChanges:
    """What differs since the last time; None as a value: no longer there. `specs`: of the sets that exist.

    `closing`: as in `Conclusions`.
    """

    sets: Mapping[str, MembersChange | None]
    specs: Mapping[str, SetSpec]
    closing: Mapping[str, frozenset[Asked]]
    policies: Mapping[PolicyId, Rules | None]
    profiles: Mapping[ProfileName, Rules | None]


class RulesInForce:
    """The rules that somebody asks, and their sets. A set exists while rules in force name it."""

    def __init__(self, book: Book, members: MemberSets, uses: Sequence[RuleUse], problems: Problems) -> None:
        self._book = book
        self._members = members
        self._uses = uses
        self._problems = problems
        self._set_use = SetUse()
        self._touched: set[Asked] = set()
        self._told: dict[Asked, Rules] = {}
        self._refused: frozenset[str] = frozenset()
        self._doubtful: frozenset[str] = frozenset()
        self._set_size_max = 0

    @property
    def policies(self) -> dict[PolicyId, Rules]:
        """As of the last time."""
        return {who: told for who, told in self._told.items() if isinstance(who, PolicyId)}

    @property
    def profiles(self) -> dict[ProfileName, Rules]:
        """As of the last time."""
        return {who: told for who, told in self._told.items() if not isinstance(who, PolicyId)}

    def touch(self, who: Asked) -> None:
        """Take note that the rules of a policy or profile may be others."""
        self._touched.add(who)

    def conclude(self, parameters: Parameters, turnover: Turnover) -> RuleChanges:
        """Decide which policies and profiles are in force, and with them the sets; return the changes of both.

        `turnover`: of what asks them, and of all rules beside them.
        """
        for use in self._uses:
            self._touched |= use.take_flipped()
        rules = {who: self._concluded(who) for who in self._touched}
        self._touched.clear()
        for who, concluded in rules.items():
            self._set_use.replace(_key(who), concluded or self._needed_anyway(who))
        self._set_use.settle(self._members)
        changes = self._members.flush(parameters.set_size_max)
        for who in self._affected(parameters.set_size_max):
            rules.setdefault(who, self._concluded(who))
        enforced = {who: self._enforced(who, concluded) for who, concluded in rules.items()}
        # rules that are new to somebody who asks them are his change
        if any(told is not None and self._told.get(who, told) != told for who, told in enforced.items()):
            turnover |= Turnover.CHANGES
        news = {who: told for who, told in enforced.items() if self._tell(who, told)}
        sets, closing = self._set_use.in_order(changes, turnover)
        return RuleChanges(
            sets=sets,
            specs={set_id: self._members.spec(set_id) for set_id, change in sets.items() if change is not None},
            closing={set_id: frozenset(map(_who, owners)) for set_id, owners in closing.items()},
            policies={who: told for who, told in news.items() if isinstance(who, PolicyId)},
            profiles={who: told for who, told in news.items() if not isinstance(who, PolicyId)},
        )

    def _concluded(self, who: Asked) -> Rules | None:
        """Return the rules of a policy or profile that is asked, else None."""
        is_asked = any(who in use for use in self._uses)
        if not isinstance(who, PolicyId):
            profile = self._book.profiles.get(who)
            return None if not is_asked else profile.rules if profile else CLOSED
        policy = self._book.policies.get(who)
        if policy is None:
            self._problems.note(_key(who), "tier", ())
            return None
        problem = f"tier {policy.tier} does not exist: until it does, what the policy selects is closed"
        self._problems.note(_key(who), "tier", () if policy.tier in self._book.tiers else (problem,))
        return effective_rules(policy, self._book.tiers) if is_asked else None

    def _needed_anyway(self, who: Asked) -> Rules | None:
        """Return the rules of a policy that is not in force, but whose sets are wanted on every host."""
        policy = self._book.policies.get(who) if isinstance(who, PolicyId) else None
        return policy.rules if policy is not None and policy.sets_everywhere else None

    def _affected(self, set_size_max: int) -> set[Asked]:
        """Return whose rules name sets that began or ceased to be refused or doubtful."""
        refused, self._refused = self._refused, self._members.refused
        doubtful, self._doubtful = self._doubtful, self._members.doubtful
        changed = (refused ^ self._refused) | (doubtful ^ self._doubtful)
        if self._set_size_max != set_size_max:
            self._set_size_max = set_size_max
            changed |= self._refused  # for what is said about them
        return {_who(key) for set_id in changed for key in self._set_use.owners(set_id)}

    def _enforced(self, who: Asked, rules: Rules | None) -> Rules | None:
        """Return the rules without those whose sets are too large or lack something, and say so."""
        specs = rules.all_sets if rules and (self._refused or self._doubtful) else {}
        refused, doubtful = self._refused.intersection(specs), self._doubtful.intersection(specs)
        limit = self._set_size_max
        texts = [f"selector {specs[i].selector} has more than {limit} members: rules with it allow nothing"
                 for i in sorted(refused)]  # fmt: skip
        texts += [f"selector {specs[i].selector} picks something that cannot be read in full: "
                  "rules that this would open deny instead" for i in sorted(doubtful)]  # fmt: skip
        self._problems.note(_key(who), "sets", texts)
        if rules and refused:
            rules = without_sets(rules, refused)
        return without_doubt(rules, doubtful) if rules and doubtful else rules

    def _tell(self, who: Asked, rules: Rules | None) -> bool:
        """Remember what is told of a policy or profile; tell whether it is news."""
        if self._told.get(who) == rules:
            return False
        if rules is None:
            del self._told[who]
        else:
            self._told[who] = rules
        return True


def _key(who: Asked) -> ResourceKey:
    return policy_key(who) if isinstance(who, PolicyId) else ResourceKey("profiles", who)


def _who(key: ResourceKey) -> Asked:
    return ProfileName(key.name) if key.plural == "profiles" else policy_id(key)
