"""The policies, tiers and profiles of the store, as far as they can be read, and their readers.

Who concludes something looks them up in the `Book`. A change is told to whom it may concern at once, so that nobody has
to look for what changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from felix.calc.ipsets import MemberSets
from felix.calc.labels import NO_LABELS, Labels, interned
from felix.calc.model import ALLOW_ALL, PolicyId, Rules
from felix.calc.policies import (
    BUILT_IN_DEFAULT,
    PolicyRecord,
    TierRecord,
    policy_id,
    read_policy,
    read_tier,
)
from felix.calc.reading import Reader, expected
from felix.calc.rules import read_profile_rules
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.profile import DEFAULT_ALLOW, Profile
from resources.kinds.tier import DEFAULT_TIER, Tier
from resources.names import ProfileName

_POLICY_TYPES: Mapping[str, type[GlobalNetworkPolicy] | type[NetworkPolicy]] = {
    "globalnetworkpolicies": GlobalNetworkPolicy,
    "networkpolicies": NetworkPolicy,
}

Asked = PolicyId | ProfileName
"""What has rules that an endpoint asks."""


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    rules: Rules
    labels: Labels


class Book:
    """The current records. Only `BookReaders` writes here."""

    def __init__(self) -> None:
        self.tiers: dict[str, TierRecord] = {DEFAULT_TIER: BUILT_IN_DEFAULT}
        self.policies: dict[PolicyId, PolicyRecord] = {}
        self.profiles: dict[ProfileName, ProfileRecord] = {
            ProfileName(DEFAULT_ALLOW): ProfileRecord(Rules(ingress=(ALLOW_ALL,), egress=(ALLOW_ALL,)), NO_LABELS)
        }


class Asking(Protocol):
    """Whose conclusions depend on which policies apply to whom."""

    def set_policy(self, policy: PolicyId, record: PolicyRecord | None, *, bearing: bool) -> None:
        """Take a policy as it is now. `bearing`: the lists of policies that it is in may be others."""

    def touch_policy(self, policy: PolicyId) -> None:
        """Take note that the lists of policies that it is in may be others."""

    def set_profile(self, profile: ProfileName, labels: Labels, *, appears: bool) -> None:
        """Take the labels that a profile hands down now. `appears`: it begins or ends to exist."""


class InForce(Protocol):
    """Whose conclusions depend on what the rules of policies and profiles are."""

    def touch(self, who: Asked) -> None:
        """Take note that its rules may be others."""


class BookReaders:
    """Reads policies, tiers and profiles into the book, and tells whom it may concern."""

    def __init__(self, book: Book, rules: InForce, asking: Sequence[Asking], members: MemberSets) -> None:
        self._book = book
        self._rules = rules
        self._asking = asking
        self._members = members
        self._policies_of_tier: dict[str, set[PolicyId]] = {}
        self.readers: Mapping[str, Reader] = {
            "profiles": self._read_profile,
            "globalnetworkpolicies": self._read_policy,
            "networkpolicies": self._read_policy,
            "tiers": self._read_tier,
        }

    def _read_profile(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        name = ProfileName(key.name)
        if name == DEFAULT_ALLOW:
            return ()
        problems: tuple[str, ...] = ()
        existed, labels = name in self._book.profiles, NO_LABELS
        if value is None:
            self._book.profiles.pop(name, None)
        else:
            profile = expected(Profile, value)
            rules, problems = read_profile_rules(profile.spec.ingress, profile.spec.egress)
            labels = interned(profile.spec.labels_to_apply)
            self._book.profiles[name] = ProfileRecord(rules, labels)
        self._members.set_profile(name, labels)
        for asking in self._asking:
            asking.set_profile(name, labels, appears=existed is (value is None))
        self._rules.touch(name)
        return problems

    def _read_policy(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        policy = policy_id(key)
        record = None if value is None else read_policy(key, expected(_POLICY_TYPES[key.plural], value))
        before = self._book.policies.pop(policy, None)
        if before is not None:
            self._policies_of_tier[before.tier].discard(policy)
            if not self._policies_of_tier[before.tier]:
                del self._policies_of_tier[before.tier]
        if record is not None:
            self._book.policies[policy] = record
            self._policies_of_tier.setdefault(record.tier, set()).add(policy)
        bearing = before is None or record is None or before.bearing != record.bearing
        for asking in self._asking:
            asking.set_policy(policy, record, bearing=bearing)
        self._rules.touch(policy)
        return record.problems if record else ()

    def _read_tier(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is not None:
            self._book.tiers[key.name] = read_tier(expected(Tier, value))
        elif key.name == DEFAULT_TIER:
            self._book.tiers[key.name] = BUILT_IN_DEFAULT
        else:
            self._book.tiers.pop(key.name, None)
        for policy in self._policies_of_tier.get(key.name, ()):
            self._rules.touch(policy)
            for asking in self._asking:
                asking.touch_policy(policy)
        return ()
