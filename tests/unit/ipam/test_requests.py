"""What each operation asks of the store: one transaction, and few reads as long as no cache serves them."""

import ipaddress
from collections.abc import Callable, Sequence

import pytest

from fakes.faulty_store import FaultyStore
from fakes.ipam_world import World
from ipam.allocator import Allocator
from ipam.cache import WatchedCache
from ipam.errors import AddressInUse, ReleaseRefused
from ipam.results import Release
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Store
from resources.datastore.sync import Change, Changes, InSync, OutOfSync
from resources.names import HandleId, NodeName

H = HandleId("h")


@pytest.fixture
def world() -> World:
    world = World()
    world.node("node1", "node2")
    world.pool("10.8.0.0/28", blockSize=30)
    return world


def cost(faulty: FaultyStore, action: Callable[[], object]) -> tuple[int, int]:
    """Return reads and transactions."""
    reads, writes = faulty.reads, faulty.writes
    action()
    return faulty.reads - reads, faulty.writes - writes


def test_requests_without_a_cache(world: World) -> None:
    """Reads: node, settings, pools, reservations, own tickets; then the blocks that come into question."""
    faulty = FaultyStore(world.store)
    allocator = world.allocator("node1", faulty)
    claim = cost(faulty, lambda: allocator.auto_assign(version=4, handle=H))
    own = cost(faulty, lambda: allocator.auto_assign(version=4))
    many = cost(faulty, lambda: allocator.auto_assign(version=4, count=2))
    (address, *_), = [allocator.addresses_of_handle(H)]
    asked_for = cost(faulty, lambda: allocator.assign(ipaddress.ip_address("10.8.0.9")))
    released = cost(faulty, lambda: allocator.release([Release(address)]))
    again = cost(faulty, lambda: allocator.release([Release(address)]))
    allocator.assign(address, handle=H)
    by_handle = cost(faulty, lambda: allocator.release_by_handle(H))
    looked = cost(faulty, lambda: allocator.attributes(ipaddress.ip_address("10.8.0.9")))
    assert {
        "claim and assign": claim, "assign in own block": own, "assign two": many, "assign one asked for": asked_for,
        "release": released, "release again": again, "release by handle": by_handle, "look": looked,
    } == {
        "claim and assign": (6, 1), "assign in own block": (6, 1), "assign two": (6, 1),
        "assign one asked for": (7, 1), "release": (4, 1), "release again": (2, 0), "release by handle": (3, 1),
        "look": (2, 0),
    }


def fed(cache: WatchedCache, store: Store) -> WatchedCache:
    """Tell a cache what the store holds, as a syncer does."""
    for prefix in cache.prefixes:
        cache.take(Changes(tuple(Change(kv.key, kv.value, kv.revision) for kv in store.list(prefix).items)))
    cache.take(InSync())
    return cache


def test_with_a_cache_an_operation_is_its_transaction(world: World) -> None:
    faulty = FaultyStore(world.store)
    cache = fed(WatchedCache(faulty, NodeName("node1")), world.store)
    allocator = Allocator(faulty, NodeName("node1"), clock=world.clock, source=cache.source)
    operations: Sequence[Callable[[], object]] = [
        lambda: allocator.auto_assign(version=4, handle=H),
        lambda: allocator.auto_assign(version=4),
        lambda: allocator.auto_assign(version=4, count=2),
        lambda: allocator.auto_assign(version=4),
        lambda: allocator.assign(ipaddress.ip_address("10.8.0.1")),
        lambda: allocator.release([Release(ipaddress.ip_address("10.8.0.1"))]),
        lambda: allocator.auto_assign(version=4, handle=HandleId("g")),
        lambda: allocator.release_by_handle(H),
    ]
    claim, own = (1, 1), (0, 1)  # which blocks exist is asked when a new one is needed
    by_handle = (3, 1)  # how many addresses it has is what nothing compares
    assert [cost(faulty, operation) for operation in operations] == [claim, own, own, claim, own, own, own, by_handle]
    world.assert_sound()


def test_a_stale_cache_costs_a_try_and_never_an_address(world: World) -> None:
    faulty = FaultyStore(world.store)
    cache = fed(WatchedCache(faulty, NodeName("node1")), world.store)
    allocator = Allocator(faulty, NodeName("node1"), clock=world.clock, source=cache.source)
    told = {allocator.auto_assign(version=4, handle=H).one(): H}
    for index, name in enumerate(("a", "b", "c")):
        handle = HandleId(name)
        got = world.allocator("node2").auto_assign(version=4, count=3 + index, handle=handle)
        told.update(dict.fromkeys(got.addresses, handle))
        mine = allocator.auto_assign(version=4, handle=HandleId(f"mine-{name}"))
        told[mine.one()] = mine.handle
        world.assert_sound(told)
    assert allocator.auto_assign(version=4).addresses == ()
    world.allocator("node2").release_by_handle(HandleId("a"))
    assert allocator.auto_assign(version=4).one()


def test_while_the_watch_is_behind_the_store_is_asked(world: World) -> None:
    faulty = FaultyStore(world.store)
    cache = WatchedCache(faulty, NodeName("node1"))
    allocator = Allocator(faulty, NodeName("node1"), clock=world.clock, source=cache.source)
    assert cost(faulty, lambda: allocator.auto_assign(version=4)) == (6, 1)
    fed(cache, world.store)
    assert cost(faulty, lambda: allocator.auto_assign(version=4)) == (0, 1)
    cache.take(OutOfSync("it is away"))
    assert cost(faulty, lambda: allocator.auto_assign(version=4)) == (6, 1)


def test_nothing_that_was_remembered_of_another_store_is_used(world: World) -> None:
    store = world.store
    assert isinstance(store, MemoryStore)
    backup = store.backup()
    cache = fed(WatchedCache(store, NodeName("node1")), store)
    allocator = Allocator(store, NodeName("node1"), clock=world.clock, source=cache.source)
    address = allocator.auto_assign(version=4, handle=H).one()
    remembered = [key for key in (kv.key for kv in store.list("/calico/ipam/").items) if cache.get(key)]
    assert remembered
    store.restore(backup)
    cache.take(OutOfSync("the store was restored"))
    fed(cache, store)
    assert [key for key in remembered if cache.get(key)] == []
    assert allocator.attributes(address) is None
    assert allocator.auto_assign(version=4, handle=H).one() == address
    world.assert_sound({address: H})


def test_an_answer_that_no_compare_checks_is_not_given_from_the_cache(world: World) -> None:
    """The cache was filled long ago and nothing reached it since."""
    cache = fed(WatchedCache(world.store, NodeName("node1")), world.store)
    allocator = Allocator(world.store, NodeName("node1"), clock=world.clock, source=cache.source)
    other = world.allocator("node2")
    address = other.auto_assign(version=4, handle=H).one()
    assert allocator.release([Release(address, handle=H)]) == []
    allocator.assign(address, handle=H)
    other.release_by_handle(H)
    allocator.assign(address, handle=H)
    assert world.held()[address].handle == H
    other.release_by_handle(H)
    other.assign(address, handle=HandleId("other"))
    with pytest.raises(AddressInUse):
        allocator.assign(address, handle=H)
    with pytest.raises(ReleaseRefused):
        allocator.release([Release(address, handle=H)])
    world.pool("10.9.0.0/28", blockSize=30)
    allocator.assign(ipaddress.ip_address("10.9.0.1"))
    assert allocator.auto_assign(version=4, pools=[ipaddress.ip_network("10.9.0.0/28")]).one()
    world.assert_sound()


def test_a_store_that_lost_history_is_read_anew_by_the_cache(world: World) -> None:
    assert isinstance(world.store, MemoryStore)
    backup = world.store.backup()
    cache = fed(WatchedCache(world.store, NodeName("node1")), world.store)
    allocator = Allocator(world.store, NodeName("node1"), clock=world.clock, source=cache.source)
    allocator.auto_assign(version=4, count=9)
    world.store.restore(backup)
    fed(cache, world.store)
    got = allocator.auto_assign(version=4, handle=H)
    world.assert_sound({got.one(): H})
