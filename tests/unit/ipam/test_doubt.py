"""Answers that do not come: what happened is found out, exactly one allocation is made, none is lost silently
(reference ipam.md 5.5)."""

import ipaddress
from collections.abc import Callable

import pytest

from fakes.faulty_store import FaultyStore
from fakes.ipam_world import SteppedStore, World
from ipam.allocator import Allocator
from ipam.errors import Contended, OutcomeUnknown, ReleaseRefused
from ipam.results import Release, Shortage
from resources.datastore import keys
from resources.datastore.memory import Backup, MemoryStore
from resources.datastore.store import Committed, Lost
from resources.errors import StoreUnavailable
from resources.names import HandleId, IPAddress, NodeName, PoolName

H = HandleId("mine")


@pytest.fixture
def world() -> World:
    world = World()
    world.node("node1", "node2", "node3")
    world.pool("10.8.0.0/28", "pool", blockSize=30)
    return world


@pytest.fixture
def faulty(world: World) -> FaultyStore:
    return FaultyStore(world.store)


@pytest.fixture
def allocator(world: World, faulty: FaultyStore) -> Allocator:
    return world.allocator("node1", faulty)


def fresh(world: World) -> None:
    """Nothing is there."""


def in_own_block(world: World) -> None:
    world.allocator("node1").auto_assign(version=4, handle=HandleId("before"))


def borrowing(world: World) -> None:
    world.allocator("node1").auto_assign(version=4, count=4, handle=HandleId("before"))
    world.allocator("node2").auto_assign(version=4, count=9, handle=HandleId("before"))


def reclaiming(world: World) -> None:
    world.allocator("node2").auto_assign(version=4, count=12, handle=HandleId("before"))
    world.allocator("node3").claim_affinity(ipaddress.ip_network("10.8.0.0/28"))
    world.clock.now += 61


SITUATIONS = [fresh, in_own_block, borrowing, reclaiming]


def name(value: Callable[..., object]) -> str:
    return value.__name__


def goes_down(faulty: FaultyStore) -> None:
    """Let the store go away while a write is on its way to it."""
    faulty.go_down()
    raise StoreUnavailable("no etcd endpoint answers: connection refused")


def mine(world: World) -> list[IPAddress]:
    return [address for address, held in world.held().items() if held.handle == H]


@pytest.mark.parametrize("situation", SITUATIONS, ids=name)
def test_an_answer_lost_after_the_commit_is_found_again(
    world: World, faulty: FaultyStore, allocator: Allocator, situation: Callable[[World], None]
) -> None:
    situation(world)
    faulty.lose_answer(1)
    got = allocator.auto_assign(version=4, handle=H)
    assert [got.one()] == mine(world)
    assert faulty.writes == 1
    world.assert_sound()


@pytest.mark.parametrize("situation", SITUATIONS, ids=name)
def test_one_that_never_arrived_is_made_again(
    world: World, faulty: FaultyStore, allocator: Allocator, situation: Callable[[World], None]
) -> None:
    situation(world)
    faulty.delay(1)
    got = allocator.auto_assign(version=4, handle=H)
    assert [got.one()] == mine(world)
    assert faulty.writes == 2
    (late,) = faulty.deliver()
    assert isinstance(late, Lost)
    assert [got.one()] == mine(world)
    world.assert_sound()


@pytest.mark.parametrize("situation", SITUATIONS, ids=name)
def test_one_that_arrives_while_the_second_is_made_makes_that_lose(
    world: World, faulty: FaultyStore, allocator: Allocator, situation: Callable[[World], None]
) -> None:
    situation(world)
    faulty.delay(1)
    late: list[object] = []
    faulty.before(2, lambda: late.extend(faulty.deliver()))
    got = allocator.auto_assign(version=4, handle=H)
    assert isinstance(late[0], Committed)
    assert [got.one()] == mine(world)
    world.assert_sound()


@pytest.mark.parametrize("situation", [fresh, in_own_block], ids=name)
def test_one_that_arrives_when_the_block_went_to_another_is_decided_by_the_handle(
    world: World, faulty: FaultyStore, allocator: Allocator, situation: Callable[[World], None]
) -> None:
    situation(world)
    faulty.delay(1)
    other = world.allocator("node2")
    faulty.before(2, lambda: other.auto_assign(version=4, count=16, handle=HandleId("other")))
    none = allocator.auto_assign(version=4, handle=H)
    assert none.shortage is Shortage.EXHAUSTED
    (late,) = faulty.deliver()
    assert isinstance(late, Lost)
    assert mine(world) == []
    world.clock.now += 61  # the handle that fenced it off goes by itself
    world.assert_sound()


def test_the_second_of_several_transactions_may_be_the_one_in_doubt(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    for fault in (faulty.lose_answer, faulty.delay):
        fault(2)
        got = allocator.auto_assign(version=4, count=7, handle=H)
        faulty.deliver()
        assert sorted(map(str, got.addresses)) == sorted(map(str, mine(world)))
        assert len(set(got.addresses)) == 7
        world.assert_sound()
        allocator.release_by_handle(H)


def test_a_transaction_made_again_is_not_counted_twice(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    """The first of several never arrives; the second try is the same, and more are needed after it."""
    faulty.delay(1)
    got = allocator.auto_assign(version=4, count=7, handle=H)
    assert len(set(got.addresses)) == 7
    assert sorted(map(str, got.addresses)) == sorted(map(str, mine(world)))


def test_two_in_doubt_that_would_do_the_same_count_once(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    faulty.delay(1)
    faulty.lose_answer(2)
    got = allocator.auto_assign(version=4, count=3, handle=H)
    assert len(set(got.addresses)) == 3
    assert sorted(map(str, got.addresses)) == sorted(map(str, mine(world)))


def test_a_release_by_handle_in_doubt_is_not_taken_for_done_because_the_handle_moved(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    allocator.auto_assign(version=4, handle=H)
    faulty.before(1, lambda: world.allocator("node2").auto_assign(version=4, handle=H))
    faulty.lose_answer(1)
    assert allocator.release_by_handle(H) == 2
    world.assert_sound({})


def test_what_another_host_took_under_the_same_handle_is_not_mistaken_for_ours(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    """Both planned on the same state; the other's transaction came first, and our answer was lost."""
    other = world.allocator("node2")
    other.auto_assign(version=4, count=13, handle=HandleId("before"))
    faulty.before(1, lambda: other.auto_assign(version=4, handle=H))
    faulty.lose_answer(1)
    got = allocator.auto_assign(version=4, handle=H).one()
    assert sorted(held.attributes["node"] for held in world.held().values() if held.handle == H) == ["node1", "node2"]
    assert world.held()[got].attributes["node"] == "node1"


def test_an_address_asked_for_in_doubt(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    address = ipaddress.ip_address("10.8.0.9")
    for fault in (faulty.lose_answer, faulty.delay):
        fault(1)
        allocator.assign(address, handle=H)
        faulty.deliver()
        assert mine(world) == [address]
        world.assert_sound({address: H})
        allocator.release([Release(address, handle=H)])


def test_with_a_handle_that_has_addresses_already(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    allocator.auto_assign(version=4, handle=H)
    for fault in (faulty.lose_answer, faulty.delay):
        before = len(mine(world))
        fault(2)  # the first try only learns where the handle is
        assert allocator.auto_assign(version=4, handle=H).one()
        faulty.deliver()
        assert len(mine(world)) == before + 1
        world.assert_sound()


# --- at the deadline


def test_given_up_means_it_cannot_happen_later(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    faulty.delay(1)
    with pytest.raises(StoreUnavailable, match="time-out"):
        allocator.auto_assign(version=4, handle=H, timeout=0)
    assert world.handles() == {"mine": {}}
    (late,) = faulty.deliver()
    assert isinstance(late, Lost)
    assert world.held() == {}
    world.clock.now += 61
    assert world.handles() == {}
    assert world.ipam() == {}


def test_what_happened_after_all_is_a_success_even_at_the_deadline(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    faulty.lose_answer(1)
    got = allocator.auto_assign(version=4, handle=H, timeout=0)
    assert [got.one()] == mine(world)
    world.assert_sound()


def test_what_stays_unknown_is_said_to_be(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    faulty.delay(1)
    faulty.delay(2)
    with pytest.raises(OutcomeUnknown, match="not known whether an address was assigned under the handle mine"):
        allocator.auto_assign(version=4, handle=H, timeout=0)
    first, second = faulty.deliver()
    assert isinstance(first, Committed)
    assert isinstance(second, Lost)
    assert len(mine(world)) == 1
    assert world.held()[mine(world)[0]].attributes["node"] == "node1"


def test_a_store_that_went_away_in_doubt_is_said_to_be(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    faulty.delay(1)
    faulty.before(2, lambda: goes_down(faulty))
    with pytest.raises(OutcomeUnknown):
        allocator.auto_assign(version=4, handle=H, timeout=0)
    assert world.reports[-1][0] == "fence.failed"


def test_what_was_got_before_the_store_went_away_is_told(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    faulty.before(2, lambda: goes_down(faulty))
    got = allocator.auto_assign(version=4, count=7, handle=H)
    assert len(got.addresses) == 4
    assert got.shortage is Shortage.INTERRUPTED
    assert got.messages[0] == "Assigned 4 out of 7 requested IPv4 addresses"
    assert "no etcd endpoint answers" in got.messages[1]
    assert sorted(map(str, got.addresses)) == sorted(map(str, mine(world)))


def test_a_store_that_is_away_is_told_in_time_and_waited_for_until_then(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    faulty.go_down()
    before = world.clock.now
    with pytest.raises(StoreUnavailable):
        allocator.auto_assign(version=4, timeout=3)
    assert 3 <= world.clock.now - before < 3.5
    faulty.come_up()
    assert world.ipam() == {}
    faulty.fail(1)
    faulty.fail(2)
    assert allocator.auto_assign(version=4).one()


def test_losing_every_race_ends_at_the_deadline(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    other = world.allocator("node1")
    address = allocator.auto_assign(version=4, handle=H).one()

    def race() -> None:
        other.release([Release(address)])
        other.assign(address, handle=H)
        faulty.before(1, race)

    faulty.before(1, race)
    before = world.clock.now
    with pytest.raises(Contended, match="others changed the same blocks faster"):
        allocator.auto_assign(version=4, timeout=3)
    assert 3 <= world.clock.now - before < 3.5
    assert list(world.held()) == [address]


# --- releases and ownership


def test_a_release_in_doubt(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    for fault in (faulty.lose_answer, faulty.delay):
        got = allocator.auto_assign(version=4, count=2, handle=H).addresses
        fault(1)
        assert allocator.release([Release(address) for address in got]) == []
        faulty.deliver()
        world.assert_sound({})
        assert world.handles() == {}


def test_a_release_in_doubt_spares_who_got_the_address_meanwhile(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    other = world.allocator("node2")
    address = allocator.auto_assign(version=4, handle=H).one()
    store = SteppedStore(faulty)
    faulty.lose_answer(1)
    took = 0

    def take_it() -> None:
        nonlocal took
        if address not in world.held():
            other.assign(address, handle=HandleId("other"))
            took += 1

    for nth in range(1, 12):
        store.before(nth, take_it)
    stepped = world.allocator("node1", store)
    assert stepped.release([Release(address)]) == []
    assert took == 1
    world.assert_sound({address: HandleId("other")})
    with pytest.raises(ReleaseRefused):
        stepped.release([Release(address, handle=H)])


def test_a_release_that_arrives_late_cannot_hit_the_next_holder(
    world: World, faulty: FaultyStore, allocator: Allocator
) -> None:
    address = allocator.auto_assign(version=4, handle=H).one()
    faulty.delay(1)
    assert allocator.release([Release(address)]) == []
    allocator.assign(address, handle=HandleId("next"))
    (late,) = faulty.deliver()
    assert isinstance(late, Lost)
    world.assert_sound({address: HandleId("next")})


def test_a_release_by_handle_in_doubt_counts_once(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    for fault in (faulty.lose_answer, faulty.delay):
        allocator.auto_assign(version=4, count=6, handle=H)
        fault(1)
        assert allocator.release_by_handle(H) == 6
        faulty.deliver()
        world.assert_sound({})


def test_ownership_in_doubt(world: World, faulty: FaultyStore, allocator: Allocator) -> None:
    pool = ipaddress.ip_network("10.8.0.0/28")
    for fault in (faulty.lose_answer, faulty.delay):
        fault(2)
        assert len(allocator.claim_affinity(pool).claimed) == 4
        faulty.deliver()
        world.assert_sound({})
        address = world.allocator("node1").auto_assign(version=4, handle=H).one()
        fault(1)
        assert allocator.remove_host(NodeName("node1")) == 4
        faulty.deliver()
        world.assert_sound({address: H})
        allocator.release([Release(address)])
        assert world.ipam() == {}


@pytest.mark.parametrize("nth", range(1, 7))
def test_the_deletion_of_a_pool_in_doubt(world: World, faulty: FaultyStore, allocator: Allocator, nth: int) -> None:
    allocator.claim_affinity(ipaddress.ip_network("10.8.0.0/28"))
    faulty.lose_answer(nth)
    allocator.delete_pool(PoolName("pool"))
    assert world.ipam() == {}
    assert world.store.get(keys.kind_prefix("ippools") + "pool") is None


# --- a store that went back in time


def test_revisions_of_a_lost_history_are_not_trusted() -> None:
    """The store is restored and written anew while a worker is between reading and writing: equal revisions then mean
    different things."""
    for nth in range(1, 7):
        world = World()
        assert isinstance(world.store, MemoryStore)
        world.node("node1", "node2")
        world.pool("10.8.0.0/28", blockSize=30)
        world.allocator("node1").auto_assign(version=4, handle=HandleId("old"))
        backup = world.store.backup()
        world.allocator("node1").auto_assign(version=4, handle=HandleId("lost"))
        store = SteppedStore(world.store)

        def rewind(memory: MemoryStore = world.store, world: World = world, backup: Backup = backup) -> None:
            memory.restore(backup)
            world.allocator("node1").auto_assign(version=4, count=2, handle=HandleId("new"))

        store.before(nth, rewind)
        got = world.allocator("node1", store).auto_assign(version=4, handle=H)
        held = world.held()
        assert held[got.one()].handle == H
        assert sorted(str(h.handle) for h in held.values()) == ["mine", "new", "new", "old"]
        world.assert_sound()
