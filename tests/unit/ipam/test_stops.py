"""Whoever is stopped between any two of its requests, and whatever others do meanwhile, no address is given twice.

Every operation is stopped before each of its requests in turn: others act there and it goes on (4.3), or it never does
(4.2, 4.4 of reference ipam.md). Afterwards the store must be sound, and hold exactly what somebody was told.
"""

import ipaddress
from collections.abc import Callable, Mapping
from functools import cache

import pytest

from fakes.faulty_store import Killed
from fakes.ipam_world import SteppedStore, World
from fakes.stepwise_calico import SteppedCalico, advance, finish
from ipam.allocator import Allocator
from ipam.audit import Kind
from ipam.results import Release
from resources.datastore.memory import Backup, MemoryStore
from resources.datastore.store import Store
from resources.errors import CalicoError, Rejected
from resources.names import HandleId, IPAddress, NodeName, PoolName

POOL = ipaddress.ip_network("10.8.0.0/28")
MINE = HandleId("mine")
MOST_REQUESTS = 60

CALICO_LEAVES = frozenset({
    Kind.MISCOUNTED_HANDLE, Kind.LEAKED_HANDLE, Kind.MISSING_HANDLE, Kind.UNCONFIRMED_TICKET, Kind.STALE_TICKET,
    Kind.MISSING_TICKET,
})
POOL_GONE = frozenset({Kind.STRAY_BLOCK})


class Ledger:
    """A world, and who was told what in it."""

    def __init__(self, situation: Callable[["Ledger"], None] | None = None) -> None:
        self.world = World()
        self.holders: dict[IPAddress, HandleId] = {}
        self.allow: frozenset[Kind] = frozenset()
        self.serial = 0
        if situation is not None:
            backup, seconds, holders = prepared(situation)
            assert isinstance(self.world.store, MemoryStore)
            self.world.store.restore(backup)
            self.world.clock.now += seconds
            self.holders.update(holders)
        else:
            self.world.node("node1", "node2", "node3")
            self.world.pool(str(POOL), "pool", blockSize=30)

    def allocator(self, node: str, store: Store | None = None) -> Allocator:
        return self.world.allocator(node, store, seconds=2.0)

    def calico(self, host: str) -> SteppedCalico:
        self.allow |= CALICO_LEAVES
        return SteppedCalico(self.world.store, host, self.world.clock.time_ns)

    def fresh(self, stem: str) -> HandleId:
        self.serial += 1
        return HandleId(f"{stem}-{len(self.holders)}-{self.serial}")

    def told(self, addresses: list[IPAddress] | tuple[IPAddress, ...], handle: HandleId) -> None:
        for address in addresses:
            assert address not in self.holders, f"{address} was given to {self.holders[address]} and to {handle}"
            self.holders[address] = handle

    def assign(self, node: str, count: int = 1, handle: HandleId | None = None, store: Store | None = None) -> int:
        handle = handle or self.fresh(node)
        got = self.allocator(node, store).auto_assign(version=4, count=count, handle=handle)
        self.told(got.addresses, handle)
        return len(got.addresses)

    def release(self, allocator: Allocator, *stems: str) -> None:
        for address in [a for a, handle in self.holders.items() if handle.startswith(stems)]:
            allocator.release([Release(address, handle=self.holders[address])])
            del self.holders[address]

    def assert_sound(self) -> None:
        self.world.assert_sound(self.holders, allow=self.allow)


@cache
def prepared(situation: Callable[[Ledger], None]) -> tuple[Backup, float, Mapping[IPAddress, HandleId]]:
    """Return the store, the seconds passed and who holds what in a situation, made once."""
    ledger = Ledger()
    began = ledger.world.clock.now
    situation(ledger)
    assert isinstance(ledger.world.store, MemoryStore)
    return ledger.world.store.backup(), ledger.world.clock.now - began, ledger.holders


# --- where it begins


def empty(ledger: Ledger) -> None:
    """Nobody has anything."""


def everyday(ledger: Ledger) -> None:
    """Two hosts have a block each with room, two blocks are free."""
    ledger.assign("node1", 2, MINE)
    ledger.assign("node2", 2)


def crowded(ledger: Ledger) -> None:
    """No block is free; ours is full, another has room."""
    ledger.assign("node1", 4, MINE)
    ledger.assign("node3", 8)
    ledger.assign("node2", 1)


def stranded(ledger: Ledger) -> None:
    """No block is free; one of another host has been empty for long."""
    ledger.assign("node1", 4, MINE)
    ledger.assign("node2", 8)
    ledger.allocator("node3").claim_affinity(POOL, node=NodeName("node3"))
    ledger.world.clock.now += 61


# --- what is stopped


def assigns(ledger: Ledger, store: Store) -> None:
    ledger.assign("node1", 1, HandleId("stopped"), store)


def assigns_many(ledger: Ledger, store: Store) -> None:
    ledger.assign("node1", 6, HandleId("stopped"), store)


def assigns_one_asked_for(ledger: Ledger, store: Store) -> None:
    address = next(POOL[n] for n in range(15, -1, -1) if POOL[n] not in ledger.holders)
    ledger.allocator("node1", store).assign(address, handle=HandleId("stopped"))
    ledger.told([address], HandleId("stopped"))


def releases(ledger: Ledger, store: Store) -> None:
    ledger.release(ledger.allocator("node1", store), MINE)


def releases_by_handle(ledger: Ledger, store: Store) -> None:
    held = [a for a, handle in ledger.holders.items() if handle == MINE]
    if held:
        assert ledger.allocator("node1", store).release_by_handle(MINE) <= len(held)
    for address in held:
        ledger.holders.pop(address, None)


def gives_up(ledger: Ledger, store: Store) -> None:
    ledger.allocator("node1", store).release_host_affinities()


def gives_up_empty_ones(ledger: Ledger, store: Store) -> None:
    ledger.allocator("node3", store).release_host_affinities(must_be_empty=True)


def claims(ledger: Ledger, store: Store) -> None:
    ledger.allocator("node1", store).claim_affinity(POOL)


def deletes_the_pool(ledger: Ledger, store: Store) -> None:
    ledger.allow |= POOL_GONE
    ledger.allocator("node2", store).delete_pool(PoolName("pool"))


STOPPED = (
    (assigns, empty), (assigns, everyday), (assigns, crowded), (assigns, stranded), (assigns_many, empty),
    (assigns_many, crowded), (assigns_one_asked_for, everyday), (assigns_one_asked_for, crowded), (releases, everyday),
    (releases, crowded), (releases_by_handle, everyday), (releases_by_handle, crowded), (gives_up, everyday),
    (gives_up, crowded), (gives_up_empty_ones, stranded), (claims, everyday), (claims, stranded),
    (deletes_the_pool, everyday), (deletes_the_pool, stranded),
)


# --- what others do meanwhile


def nothing(ledger: Ledger) -> None:
    """Nobody does anything."""


def another_assigns(ledger: Ledger) -> None:
    ledger.assign("node2", 1)


def another_takes_all(ledger: Ledger) -> None:
    ledger.assign("node3", 16)


def the_same_host_assigns(ledger: Ledger) -> None:
    ledger.assign("node1", 2, ledger.fresh("other"))


def another_assigns_later(ledger: Ledger) -> None:
    ledger.world.clock.now += 1
    ledger.world.clock.offset += 120
    ledger.assign("node2", 1)


def another_releases(ledger: Ledger) -> None:
    ledger.release(ledger.allocator("node3"), "node")


def somebody_removes_the_host(ledger: Ledger) -> None:
    ledger.allocator("node2").remove_host(NodeName("node1"))


def somebody_releases_the_handle(ledger: Ledger) -> None:
    try:
        ledger.allocator("node2").release_by_handle(HandleId("stopped"))
    except Rejected:
        return
    for address in [a for a, handle in ledger.holders.items() if handle == "stopped"]:
        del ledger.holders[address]


def the_operator_disables_the_pool(ledger: Ledger) -> None:
    ledger.world.pool(str(POOL), "pool", blockSize=30, disabled=True)


def the_operator_deletes_the_pool(ledger: Ledger) -> None:
    ledger.allow |= POOL_GONE
    ledger.allocator("node2").delete_pool(PoolName("pool"))


def the_operator_makes_affinity_strict(ledger: Ledger) -> None:
    ledger.world.config(strict_affinity=True)


def calico_assigns(ledger: Ledger) -> None:
    handle = ledger.fresh("calico")
    got = finish(ledger.calico("node2").auto_assign(2, handle))
    ledger.told([ipaddress.ip_address(text) for text in got], handle)


def calico_on_the_same_host_assigns(ledger: Ledger) -> None:
    handle = ledger.fresh("calico")
    got = finish(ledger.calico("node1").auto_assign(2, handle))
    ledger.told([ipaddress.ip_address(text) for text in got], handle)


def calico_gives_up(ledger: Ledger) -> None:
    for host in ("node1", "node3"):
        for cidr in list(POOL.subnets(new_prefix=30)):
            finish(ledger.calico(host).give_up(str(cidr), must_be_empty=False))


MEANWHILE = (
    nothing, another_assigns, another_takes_all, the_same_host_assigns, another_assigns_later, another_releases,
    somebody_removes_the_host, somebody_releases_the_handle, the_operator_disables_the_pool,
    the_operator_deletes_the_pool, the_operator_makes_affinity_strict, calico_assigns,
    calico_on_the_same_host_assigns, calico_gives_up,
)


def name(value: Callable[..., object]) -> str:
    return value.__name__


@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=name)
@pytest.mark.parametrize(("stopped", "situation"), STOPPED, ids=name)
def test_stopped_before_any_request_and_resumed(
    stopped: Callable[[Ledger, Store], None], meanwhile: Callable[[Ledger], None], situation: Callable[[Ledger], None]
) -> None:
    for nth in range(1, MOST_REQUESTS):
        ledger = Ledger(situation)
        store = SteppedStore(ledger.world.store)
        acted = False

        def act(ledger: Ledger = ledger) -> None:
            nonlocal acted
            acted = True
            meanwhile(ledger)

        store.before(nth, act)
        try:
            stopped(ledger, store)
        except Rejected:
            assert meanwhile is not nothing
        if meanwhile is somebody_releases_the_handle:
            held = ledger.world.held()
            ledger.holders = {a: h for a, h in ledger.holders.items() if h != "stopped" or a in held}
        ledger.assert_sound()
        if not acted:
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("afterwards", [another_assigns, another_takes_all, the_same_host_assigns, calico_assigns],
                         ids=name)
@pytest.mark.parametrize(("stopped", "situation"), STOPPED, ids=name)
def test_stopped_before_any_request_for_good(
    stopped: Callable[[Ledger, Store], None], afterwards: Callable[[Ledger], None], situation: Callable[[Ledger], None]
) -> None:
    """The store is as before a transaction or as after it, never between, and the next one finds its way."""
    for nth in range(1, MOST_REQUESTS):
        ledger = Ledger(situation)
        store = SteppedStore(ledger.world.store)

        def die() -> None:
            raise Killed

        store.before(nth, die)
        told = dict(ledger.holders)
        try:
            stopped(ledger, store)
        except Killed:
            is_killed = True
        else:
            is_killed = False
        ledger.world.assert_sound(allow=ledger.allow)
        held = {address: HandleId(held.handle or "") for address, held in ledger.world.held().items()}
        new = {a: h for a, h in held.items() if a not in told}
        assert set(new.values()) <= {"stopped"}
        gone = {a: h for a, h in told.items() if a not in held}
        assert set(gone.values()) <= {MINE}
        ledger.holders = held
        try:
            afterwards(ledger)
        except Rejected:
            assert stopped is deletes_the_pool
        ledger.assert_sound()
        if not is_killed:
            return
    raise AssertionError("it never ends")


def calico_stops(ledger: Ledger) -> list[Callable[[], object]]:
    """Return operations of the original, to be stopped anywhere: what each begins when called."""
    one, three = ledger.calico("node1"), ledger.calico("node3")
    mine = [str(a) for a, handle in ledger.holders.items() if handle == MINE]
    return [
        lambda: one.auto_assign(1, "calico-x"),
        lambda: one.auto_assign(6, "calico-x"),
        lambda: three.auto_assign(3, "calico-x"),
        lambda: one.release(mine),
        lambda: one.release_by_handle(MINE),
        lambda: one.give_up("10.8.0.0/30", must_be_empty=False),
        lambda: one.give_up("10.8.0.12/30", must_be_empty=False),
        lambda: three.give_up("10.8.0.4/30", must_be_empty=True),
    ]


@pytest.mark.parametrize("resumes", [True, False], ids=["resumes", "never resumes"])
@pytest.mark.parametrize(("operation", "situation"), [
    *((operation, situation) for operation in range(6) for situation in (everyday, crowded)),
    (6, stranded), (7, stranded),
], ids=lambda value: value if isinstance(value, int) else name(value))
@pytest.mark.parametrize("ours", [
    another_takes_all, the_same_host_assigns, another_assigns_later, somebody_removes_the_host, another_releases,
    the_operator_deletes_the_pool,
], ids=name)
def test_the_original_stopped_between_any_two_requests(
    ours: Callable[[Ledger], None], operation: int, situation: Callable[[Ledger], None], resumes: bool
) -> None:
    for requests in range(MOST_REQUESTS):
        ledger = Ledger(situation)
        steps = calico_stops(ledger)[operation]()
        before = dict(ledger.holders)
        goes_on = advance(steps, requests)  # type: ignore[arg-type]
        released = operation in (3, 4)
        if released:
            ledger.holders = {a: h for a, h in ledger.holders.items() if h != MINE}
        try:
            ours(ledger)
        except CalicoError as error:
            raise AssertionError(f"after {requests} requests of the original: {error}") from error
        if goes_on and resumes:
            finish(steps)  # type: ignore[arg-type]
        held = {address: HandleId(held.handle or "") for address, held in ledger.world.held().items()}
        for address, handle in ledger.holders.items():
            assert held.get(address) == handle, "an address that somebody was told is not theirs"
        extra = {handle for address, handle in held.items() if address not in ledger.holders}
        assert extra <= {"calico-x"} | ({MINE} if released else set())
        assert set(before.values()) >= {MINE}
        ledger.world.assert_sound(allow=ledger.allow)
        ledger.allocator("node1").release_host_affinities()
        ledger.allocator("node3").release_host_affinities()
        if ours is not the_operator_deletes_the_pool:
            ledger.holders = held
            ledger.assign("node1", 1)
        ledger.world.assert_sound(allow=ledger.allow)
        if not goes_on:
            return
    raise AssertionError("it never ends")
