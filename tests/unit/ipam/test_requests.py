"""What each operation asks of the store: one transaction, and few reads as long as no cache serves them."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence

import pytest

from fakes.faulty_store import FaultyStore
from fakes.ipam_world import World
from ipam.allocator import Allocator
from ipam.results import Release
from ipam.source import ReadThrough
from resources.datastore.store import KeyValue
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
        "assign one asked for": (7, 1), "release": (4, 1), "release again": (3, 0), "release by handle": (3, 1),
        "look": (3, 0),
    }


class Preloaded:
    """A source over a cache that all calls share and that learns from commits, as one fed by a watch would."""

    def __init__(self, cache: ReadThrough) -> None:
        self._inner = cache
        self._inner.list("")
        self._is_fresh = False

    def get(self, key: str) -> KeyValue | None:
        return self._inner.get(key)

    def list(self, prefix: str) -> Sequence[KeyValue]:
        return [record for record in self._inner.list("") if record.key.startswith(prefix)]

    def learn(self, current: Mapping[str, KeyValue | None]) -> None:
        self._inner.learn(current)

    def assume_absent(self, key: str) -> None:
        self._inner.assume_absent(key)

    def renew(self) -> bool:
        aged, was_fresh, self._is_fresh = self._inner.renew(), self._is_fresh, True
        if not was_fresh:
            self._inner.forget()
        return aged or not was_fresh

    def forget(self) -> None:
        self._inner.forget()


def test_with_a_cache_an_operation_is_its_transaction(world: World) -> None:
    faulty = FaultyStore(world.store)
    cache = ReadThrough(faulty)
    cache.list("")
    allocator = Allocator(faulty, NodeName("node1"), clock=world.clock, source=lambda: Preloaded(cache))
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
    assert [cost(faulty, operation) for operation in operations] == [(0, 1)] * len(operations)
    world.assert_sound()


def test_a_stale_cache_costs_a_try_and_never_an_address(world: World) -> None:
    faulty = FaultyStore(world.store)
    cache = ReadThrough(faulty)
    cache.list("")
    allocator = Allocator(faulty, NodeName("node1"), clock=world.clock, source=lambda: Preloaded(cache))
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
