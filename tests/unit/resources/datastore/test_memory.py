"""The store in memory: the contract, and what only it has."""

import pytest

from fakes.clock import ManualClock
from fakes.store_contract import StoreContract, committed, put, reading
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction, WatchEnded


class MemoryOperator:
    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self._store, self._clock = store, clock

    def compact(self, revision: int) -> None:
        self._store.compact(revision)

    def let_leases_run_out(self, seconds: int) -> None:
        self._clock.sleep(seconds)
        self._store.expire()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


class TestContract(StoreContract):
    @pytest.fixture
    def operator(self, store: MemoryStore, clock: ManualClock) -> MemoryOperator:
        return MemoryOperator(store, clock)


def test_restoring_an_older_copy_takes_the_revision_back_and_tells_everybody(store: MemoryStore) -> None:
    put(store, "/a", b"old")
    backup = store.backup()
    epoch = store.epoch()
    now = put(store, "/a", b"new")
    put(store, "/b")
    with reading(store, {"/": now + 2}) as reader:
        store.restore(backup)
        assert isinstance(reader.ended(), WatchEnded)
    assert store.epoch() > epoch
    assert store.revision == backup.revision
    assert [(kv.key, kv.value) for kv in store.list("/").items] == [("/a", b"old")]


def test_cutting_ends_open_watches_with_the_reason(store: MemoryStore) -> None:
    with reading(store, {"/": 1}) as reader:
        store.cut_watches("the cable is out")
        assert "the cable is out" in str(reader.ended())


def test_a_waiting_watch_sees_a_lease_run_out_by_itself() -> None:
    class HastyClock(ManualClock):
        def monotonic(self) -> float:
            self.now += 0.7
            return self.now

    store = MemoryStore(HastyClock())
    revision = committed(store.commit(Transaction(puts={"/a": b"v"}, lease_seconds=2)))
    with reading(store, {"/": revision + 1}) as reader:
        assert reader.events(1)[0].value is None
