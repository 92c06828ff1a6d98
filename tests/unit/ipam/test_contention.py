"""Many at once: threads of one process share transactions, hosts do not starve each other, nothing is given twice."""

import ipaddress
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from fakes.faulty_store import FaultyStore, Killed
from fakes.ipam_world import World
from ipam.allocator import Allocator
from ipam.results import Assignment, Release
from resources.datastore.memory import MemoryStore
from resources.names import HandleId, IPAddress, NodeName

PATIENCE_SECONDS = 30.0


def together(workers: Sequence[Callable[[], None]]) -> None:
    """Run workers in threads and raise what one of them raised."""
    failures: list[BaseException] = []

    def run(worker: Callable[[], None]) -> None:
        try:
            worker()
        except BaseException as error:  # noqa: BLE001  it is raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "a worker never ended"
    if failures:
        raise failures[0]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


@pytest.fixture
def world() -> World:
    world = World(MemoryStore())
    world.node(*(f"node{n}" for n in range(8)))
    return world


def real(world: World, node: str, store: FaultyStore | None = None) -> Allocator:
    """Return an allocator with the real clock."""
    return Allocator(store or world.store, NodeName(node), deadline_seconds=20)


def test_requests_that_wait_share_the_next_transaction(world: World) -> None:
    world.pool("10.8.0.0/24")
    faulty = FaultyStore(world.store)
    allocator = real(world, "node1", faulty)
    got: list[Assignment] = []
    hold = faulty.hold(1)

    def assign() -> None:
        got.append(allocator.auto_assign(version=4))

    def release_when_all_wait() -> None:
        hold.wait_until_reached()
        until(lambda: allocator.waiting == 63)
        hold.release()

    together([*[assign] * 64, release_when_all_wait])
    addresses = [assignment.one() for assignment in got]
    assert len(set(addresses)) == 64
    assert len(world.blocks()) == 1
    assert faulty.writes == 2
    world.assert_sound({assignment.one(): assignment.handle for assignment in got})


@pytest.mark.parametrize("fault", ["lost answer", "late", "killed"])
def test_a_shared_transaction_that_goes_wrong_is_settled_by_each(world: World, fault: str) -> None:
    world.pool("10.8.0.0/24")
    faulty = FaultyStore(world.store)
    allocator = real(world, "node1", faulty)
    got: list[Assignment] = []
    hold = faulty.hold(1)
    if fault == "lost answer":
        faulty.lose_answer(2)
    elif fault == "late":
        faulty.delay(2)
        faulty.before(4, faulty.deliver)
    else:
        faulty.kill(2, after=True)

    def assign() -> None:
        try:
            got.append(allocator.auto_assign(version=4))
        except Killed:
            assert fault == "killed"

    def release_when_all_wait() -> None:
        hold.wait_until_reached()
        until(lambda: allocator.waiting == 7)
        hold.release()

    together([*[assign] * 8, release_when_all_wait])
    told = {assignment.one(): assignment.handle for assignment in got}
    if fault == "killed":
        assert len(told) >= 6
        world.assert_sound()
        assert told.items() <= {a: h.handle for a, h in world.held().items()}.items()
    else:
        assert len(told) == 8
        world.assert_sound(told)


def test_a_request_that_does_not_fit_makes_its_own_way(world: World) -> None:
    world.pool("10.8.0.0/24", blockSize=29)
    world.pool("10.9.0.0/24", assignmentMode="Manual")
    world.pool("fd00::/64")
    faulty = FaultyStore(world.store)
    allocator = real(world, "node1", faulty)
    got: list[Assignment] = []
    hold = faulty.hold(1)
    other_pool = [ipaddress.ip_network("10.9.0.0/24")]
    requests = [
        lambda: got.append(allocator.auto_assign(version=4, count=3)),
        lambda: got.append(allocator.auto_assign(version=4, count=6)),
        lambda: got.append(allocator.auto_assign(version=6)),
        lambda: got.append(allocator.auto_assign(version=4, pools=other_pool)),
        lambda: got.append(allocator.auto_assign(version=4, handle=HandleId("twice"))),
        lambda: got.append(allocator.auto_assign(version=4, handle=HandleId("twice"))),
    ]

    def release_when_all_wait() -> None:
        hold.wait_until_reached()
        until(lambda: allocator.waiting == len(requests) - 1)
        hold.release()

    together([*requests, release_when_all_wait])
    assert sorted(len(assignment.addresses) for assignment in got) == [1, 1, 1, 1, 3, 6]
    assert world.handles()["twice"]
    world.assert_sound({address: assignment.handle for assignment in got for address in assignment.addresses})


def test_hosts_empty_a_pool_to_the_last_address_without_giving_one_twice(world: World) -> None:
    pool = world.pool("10.8.0.0/25", blockSize=28)
    told: list[tuple[IPAddress, HandleId]] = []

    def work(node: str) -> None:
        allocator = real(world, node)
        for _ in range(16):
            got = allocator.auto_assign(version=4)
            told.append((got.one(), got.handle))

    together([lambda n=n: work(f"node{n}") for n in range(8)])  # type: ignore[misc]
    assert {address for address, _ in told} == set(pool)
    assert len(told) == 128
    world.assert_sound(dict(told))


def test_processes_of_one_host_on_one_block_all_make_progress(world: World) -> None:
    world.pool("10.8.0.0/26")
    told: list[tuple[IPAddress, HandleId]] = []
    ends: list[float] = []

    def work() -> None:
        allocator = real(world, "node1")
        for _ in range(8):
            began = time.monotonic()
            got = allocator.auto_assign(version=4)
            ends.append(time.monotonic() - began)
            told.append((got.one(), got.handle))

    together([work] * 8)
    assert len(world.blocks()) == 1
    assert len(told) == 64
    world.assert_sound(dict(told))


def test_coming_and_going_of_many_hosts_ends_with_what_they_hold(world: World) -> None:
    world.pool("10.8.0.0/27", blockSize=29)
    held: dict[IPAddress, HandleId] = {}
    lock = threading.Lock()

    def work(node: str) -> None:
        allocator = real(world, node)
        mine: list[tuple[IPAddress, HandleId]] = []
        for turn in range(24):
            if turn % 3 == 2 and mine:
                address, handle = mine.pop(0)
                with lock:
                    del held[address]
                assert allocator.release([Release(address, handle=handle)]) == []
                continue
            got = allocator.auto_assign(version=4)
            with lock:
                for address in got.addresses:
                    assert address not in held
                    held[address] = got.handle
                    mine.append((address, got.handle))

    together([lambda n=n: work(f"node{n}") for n in range(6)])  # type: ignore[misc]
    world.assert_sound(held)


def test_a_pool_is_deleted_under_hosts_that_allocate(world: World) -> None:
    world.pool("10.8.0.0/26", "old", blockSize=29)
    world.pool("10.9.0.0/24", "young")
    told: list[tuple[IPAddress, HandleId]] = []
    half_way = threading.Barrier(4)

    def work(node: str) -> None:
        allocator = real(world, node)
        for turn in range(10):
            if turn == 3:
                half_way.wait(PATIENCE_SECONDS)
            got = allocator.auto_assign(version=4)
            told.append((got.one(), got.handle))

    def delete() -> None:
        from resources.names import PoolName

        half_way.wait(PATIENCE_SECONDS)
        real(world, "node7").delete_pool(PoolName("old"))

    together([*(lambda n=n: work(f"node{n}") for n in range(3)), delete])
    old = ipaddress.ip_network("10.8.0.0/26")
    assert [block.node for cidr, block in world.blocks().items() if cidr[0] in old and block.node] == []
    assert len(told) == 30
    assert {a: h.handle for a, h in world.held().items()} == dict(told)
