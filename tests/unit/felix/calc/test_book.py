"""What the book has of tiers and policies as they come and go, and who is told of it."""

import math

import pytest

from fakes.felix_records import policy, profile, rule, tier
from felix.calc.book import Asked, Book, BookReaders
from felix.calc.ipsets import MemberSets
from felix.calc.labels import Labels
from felix.calc.model import Action, PolicyId
from felix.calc.policies import BUILT_IN_DEFAULT, PolicyRecord, TierRecord
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import ProfileName

P, Q = (PolicyId("GlobalNetworkPolicy", name, "") for name in "pq")


class Listener:
    """Notes whom something may concern."""

    def __init__(self) -> None:
        self.lists: list[PolicyId] = []
        self.rules: list[Asked] = []

    def set_policy(self, policy: PolicyId, record: PolicyRecord | None, *, bearing: bool) -> None:
        if bearing:
            self.lists.append(policy)

    def touch_policy(self, policy: PolicyId) -> None:
        self.lists.append(policy)

    def set_profile(self, profile: ProfileName, labels: Labels, *, appears: bool) -> None:
        pass

    def touch(self, who: Asked) -> None:
        self.rules.append(who)


class World:
    def __init__(self) -> None:
        self.book, self.heard = Book(), Listener()
        self._readers = BookReaders(self.book, self.heard, [self.heard], MemberSets()).readers

    def put(self, *records: tuple[ResourceKey, Resource | None]) -> Listener:
        """Read records; return what was told of them."""
        self.heard.lists, self.heard.rules = [], []
        for key, value in records:
            self._readers[key.plural](key, value)
        return self.heard


@pytest.fixture
def world() -> World:
    return World()


def test_a_tier_that_is_gone_does_not_exist_and_the_default_one_always_does(world: World) -> None:
    assert world.book.tiers == {"default": BUILT_IN_DEFAULT}
    world.put(tier("first", 1, "Pass"), tier("default", 5, "Pass"))
    assert world.book.tiers == {"first": TierRecord(1, Action.PASS), "default": TierRecord(5, Action.PASS)}
    world.put((tier("first", 1)[0], None), (tier("default", 5)[0], None))
    assert world.book.tiers == {"default": BUILT_IN_DEFAULT}


def test_a_tier_concerns_the_policies_that_are_in_it_now(world: World) -> None:
    world.put(policy("p", "all()", tier="one"), policy("q", "all()", tier="two"))
    assert world.put(tier("one", 1)).rules == [P]
    world.put(policy("p", "all()", tier="two"))
    heard = world.put(tier("one", 2))
    assert (heard.rules, heard.lists) == ([], [])
    heard = world.put(tier("two", 2))
    assert (sorted(heard.rules, key=str), sorted(heard.lists, key=str)) == ([P, Q], [P, Q])
    world.put((policy("p", "all()")[0], None))
    assert world.put((tier("two", 2)[0], None)).rules == [Q]


def test_rules_alone_leave_the_lists_as_they_are(world: World) -> None:
    world.put(policy("p", "all()", [rule("Allow")]))
    heard = world.put(policy("p", "all()", [rule("Deny")]))
    assert (heard.rules, heard.lists) == ([P], [])
    # but not if it has a say in a direction for the first time
    heard = world.put(policy("p", "all()", [rule("Deny")], [rule("Deny")]))
    assert (heard.rules, heard.lists) == ([P], [P])
    assert world.book.policies[P].order == math.inf


def test_a_profile_that_is_gone_has_no_rules(world: World) -> None:
    key, value = profile("net", [rule("Allow")])
    assert world.put((key, value)).rules == [ProfileName("net")]
    assert ProfileName("net") in world.book.profiles
    world.put((key, None))
    assert ProfileName("net") not in world.book.profiles
