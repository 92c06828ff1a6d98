"""The store that fails on purpose: without a fault it is a store like any other, with one it does what it says."""

import threading

import pytest

from fakes.clock import ManualClock
from fakes.faulty_store import FaultyStore, Killed
from fakes.store_contract import StoreContract, put, reading
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Committed, Transaction, Unknown, WatchEnded
from resources.errors import StoreUnavailable


class FaultyOperator:
    def __init__(self, memory: MemoryStore, clock: ManualClock) -> None:
        self._memory, self._clock = memory, clock

    def compact(self, revision: int) -> None:
        self._memory.compact(revision)

    def let_leases_run_out(self, seconds: int) -> None:
        self._clock.sleep(seconds)
        self._memory.expire()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def store(memory: MemoryStore) -> FaultyStore:
    return FaultyStore(memory)


class TestContract(StoreContract):
    @pytest.fixture
    def operator(self, memory: MemoryStore, clock: ManualClock) -> FaultyOperator:
        return FaultyOperator(memory, clock)


WRITE = Transaction(puts={"/a": b"1"})


def test_a_failed_write_is_not_sent_and_only_the_chosen_one_fails(memory: MemoryStore, store: FaultyStore) -> None:
    store.fail(2)
    assert isinstance(store.commit(WRITE), Committed)
    with pytest.raises(StoreUnavailable):
        store.commit(Transaction(puts={"/b": b"2"}))
    assert memory.get("/b") is None
    assert isinstance(store.commit(WRITE), Committed)


def test_a_lost_answer_hides_a_commit(memory: MemoryStore, store: FaultyStore) -> None:
    store.lose_answer()
    assert isinstance(store.commit(WRITE), Unknown)
    assert memory.get("/a") is not None


def test_a_delayed_write_takes_effect_when_delivered(memory: MemoryStore, store: FaultyStore) -> None:
    store.delay()
    assert isinstance(store.commit(WRITE), Unknown)
    assert memory.get("/a") is None
    assert [type(outcome) for outcome in store.deliver()] == [Committed]
    assert memory.get("/a") is not None
    assert store.deliver() == []


@pytest.mark.parametrize("after", [False, True])
def test_killing_happens_before_or_after_the_write(memory: MemoryStore, store: FaultyStore, after: bool) -> None:
    store.kill(1, after=after)
    with pytest.raises(Killed):
        store.commit(WRITE)
    assert (memory.get("/a") is not None) == after


def test_another_runs_between_two_writes(memory: MemoryStore, store: FaultyStore) -> None:
    seen: list[bool] = []
    store.before(1, lambda: seen.append(memory.get("/a") is None))
    store.after(1, lambda: seen.append(memory.get("/a") is not None))
    store.commit(WRITE)
    assert seen == [True, True]


@pytest.mark.parametrize("kill", [False, True])
def test_a_held_write_waits_for_its_release(memory: MemoryStore, store: FaultyStore, kill: bool) -> None:
    hold = store.hold(1)
    died: list[bool] = []

    def work() -> None:
        try:
            store.commit(WRITE)
        except Killed:
            died.append(True)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    hold.wait_until_reached()
    assert memory.get("/a") is None
    (hold.kill if kill else hold.release)()
    worker.join(10)
    assert (memory.get("/a") is None, died == [True]) == (kill, kill)


def test_a_store_that_is_down_answers_nothing_and_ends_its_watches(store: FaultyStore) -> None:
    now = put(store, "/a")
    with reading(store, {"/": now + 1}) as reader:
        store.go_down("no route to host")
        error = reader.ended()
        assert isinstance(error, WatchEnded)
        assert "no route to host" in str(error)
    for call in (lambda: store.get("/a"), lambda: store.list("/"), lambda: store.commit(WRITE)):
        with pytest.raises(StoreUnavailable, match="no route to host"):
            call()
    with pytest.raises(StoreUnavailable), store.watch({"/": 1}):
        pass
    store.come_up()
    assert store.get("/a") is not None
