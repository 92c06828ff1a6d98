"""The syncer on the store in memory, with failures between any two of its steps."""

import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fakes.faulty_store import FaultyStore
from fakes.store_contract import PATIENCE_SECONDS, put
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Snapshot, Transaction, Watch
from resources.datastore.sync import Change, Changes, InSync, OutOfSync, SyncMessage
from resources.datastore.syncer import Syncer
from resources.errors import StoreUnavailable
from resources.runtime.backoff import Backoff

AT_ONCE = Backoff(0.001, 0.001)


class Daemon:
    """The owner thread's side: takes messages and keeps the map a daemon would keep."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[SyncMessage] = queue.SimpleQueue()
        self.map: dict[str, bytes] = {}
        self.messages: list[SyncMessage] = []

    def next(self) -> SyncMessage:
        message = self.queue.get(timeout=PATIENCE_SECONDS)
        self.messages.append(message)
        if isinstance(message, Changes):
            for change in message.changes:
                if change.value is None:
                    self.map.pop(change.key, None)
                else:
                    self.map[change.key] = change.value
        return message

    def until(self, wanted: type[SyncMessage]) -> list[Change]:
        """Take messages until one of the wanted type came; return the changes that came before and with it."""
        changes: list[Change] = []
        while True:
            message = self.next()
            if isinstance(message, Changes):
                changes += message.changes
            if isinstance(message, wanted):
                return changes

    def until_map(self, wanted: dict[str, bytes]) -> None:
        while self.map != wanted:
            self.next()

    def nothing_more(self) -> None:
        assert self.queue.empty(), self.queue.get()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FaultyStore:
    return FaultyStore(memory)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@contextmanager
def syncing(store: FaultyStore, daemon: Daemon, *prefixes: str, chunk: int = 1000) -> Iterator[Syncer]:
    syncer = Syncer(store, prefixes or ("/a/", "/b/"), daemon.queue.put, chunk=chunk, backoff=AT_ONCE)
    syncer.start()
    try:
        yield syncer
    finally:
        syncer.stop()


def test_everything_is_told_then_in_sync_then_what_happens(store: FaultyStore, daemon: Daemon) -> None:
    first = put(store, "/a/1", b"1")
    second = put(store, "/b/1", b"2")
    put(store, "/c/1", b"other")
    with syncing(store, daemon) as syncer:
        changes = daemon.until(InSync)
        assert sorted(changes, key=lambda c: c.key) == [Change("/a/1", b"1", first), Change("/b/1", b"2", second)]
        assert syncer.in_sync
        third = put(store, "/b/2", b"3")
        assert daemon.next() == Changes((Change("/b/2", b"3", third),))
        store.commit(Transaction(deletes=frozenset({"/b/1"})))
        assert daemon.next() == Changes((Change("/b/1", None, third + 1),))


def test_an_empty_store_is_in_sync_without_changes(store: FaultyStore, daemon: Daemon) -> None:
    with syncing(store, daemon):
        assert daemon.next() == InSync()


def test_a_big_snapshot_comes_in_chunks(store: FaultyStore, daemon: Daemon) -> None:
    for n in range(25):
        put(store, f"/a/{n}")
    with syncing(store, daemon, chunk=10):
        daemon.until(InSync)
    assert [len(m.changes) for m in daemon.messages if isinstance(m, Changes)] == [10, 10, 5]


def test_a_short_cut_goes_unmentioned_and_loses_nothing(
    memory: MemoryStore, store: FaultyStore, daemon: Daemon
) -> None:
    with syncing(store, daemon):
        daemon.until(InSync)
        reads = store.reads
        for n in range(5):
            put(store, f"/a/{n}")
            memory.cut_watches()
            put(store, f"/b/{n}")
        daemon.until_map({f"/{p}/{n}": b"v" for p in "ab" for n in range(5)})
        assert store.reads == reads, "it resumes and does not list again"
    assert {type(message) for message in daemon.messages} == {Changes, InSync}


def test_an_outage_is_told_once_and_what_happened_meanwhile_follows(
    memory: MemoryStore, store: FaultyStore, daemon: Daemon
) -> None:
    put(store, "/a/kept")
    put(store, "/a/gone")
    with syncing(store, daemon) as syncer:
        daemon.until(InSync)
        store.go_down("connection refused by etcd1")
        message = daemon.next()
        assert isinstance(message, OutOfSync)
        assert "connection refused by etcd1" in message.reason
        assert not syncer.in_sync
        memory.commit(Transaction(puts={"/b/new": b"n"}, deletes=frozenset({"/a/gone"})))
        store.come_up()
        daemon.until_map({"/a/kept": b"v", "/b/new": b"n"})
        if not syncer.in_sync:
            daemon.until(InSync)
    assert [type(m) for m in daemon.messages if not isinstance(m, Changes)] == [InSync, OutOfSync, InSync]


def test_a_store_that_is_away_at_the_start_is_told_too(store: FaultyStore, daemon: Daemon) -> None:
    put(store, "/a/1")
    store.go_down()
    with syncing(store, daemon):
        assert isinstance(daemon.next(), OutOfSync)
        store.come_up()
        assert [change.key for change in daemon.until(InSync)] == ["/a/1"]


def test_after_a_compaction_only_the_differences_are_told(
    memory: MemoryStore, store: FaultyStore, daemon: Daemon
) -> None:
    for key in ("/a/same", "/a/changed", "/a/gone", "/b/same"):
        put(store, key)
    with syncing(store, daemon):
        daemon.until(InSync)
        before = len(daemon.messages)
        store.go_down()
        daemon.until(OutOfSync)
        memory.commit(Transaction(puts={"/a/changed": b"2", "/b/new": b"n"}, deletes=frozenset({"/a/gone"})))
        memory.commit(Transaction(puts={"/c/x": b"x"}))
        memory.compact()
        store.come_up()
        daemon.until_map({"/a/same": b"v", "/a/changed": b"2", "/b/same": b"v", "/b/new": b"n"})
        changes = [change for m in daemon.messages[before:] if isinstance(m, Changes) for change in m.changes]
    assert {(change.key, change.value) for change in changes} == {
        ("/a/gone", None),
        ("/a/changed", b"2"),
        ("/b/new", b"n"),
    }


def test_a_restored_store_is_read_again_whole(memory: MemoryStore, store: FaultyStore, daemon: Daemon) -> None:
    put(store, "/a/1", b"old")
    put(store, "/a/0", b"same")
    backup = memory.backup()
    put(store, "/a/1", b"new")
    put(store, "/a/2", b"lost")
    with syncing(store, daemon):
        daemon.until(InSync)
        memory.restore(backup)
        daemon.until_map({"/a/1": b"old", "/a/0": b"same"})
        put(store, "/b/after", b"v")
        daemon.until_map({"/a/1": b"old", "/a/0": b"same", "/b/after": b"v"})


def test_a_restored_store_that_overtook_us_is_still_read_again(
    memory: MemoryStore, store: FaultyStore, daemon: Daemon
) -> None:
    """The revisions are the same numbers again, with other contents."""
    backup = memory.backup()
    put(store, "/a/1", b"first history")
    with syncing(store, daemon):
        daemon.until(InSync)
        store.go_down()
        daemon.until(OutOfSync)
        memory.restore(backup)
        assert put(memory, "/a/1", b"other history") == backup.revision + 1
        put(memory, "/b/1", b"v")
        store.come_up()
        daemon.until_map({"/a/1": b"other history", "/b/1": b"v"})


def test_a_restored_store_found_when_the_watch_is_opened_is_read_again(memory: MemoryStore, daemon: Daemon) -> None:
    put(memory, "/a/1", b"old")
    backup = memory.backup()
    put(memory, "/a/1", b"new")

    class RestoredMeanwhile(FaultyStore):
        def watch(self, from_revisions: Mapping[str, int]) -> AbstractContextManager[Watch]:
            if memory.revision > backup.revision:
                memory.restore(backup)
            return super().watch(from_revisions)

    with syncing(RestoredMeanwhile(memory), daemon):
        daemon.until(InSync)
        assert daemon.map == {"/a/1": b"old"}


class ListsFail(FaultyStore):
    """Lists of the given prefix fail while this is so."""

    def __init__(self, memory: MemoryStore) -> None:
        super().__init__(memory)
        self.failing: str | None = None

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        if prefix == self.failing:
            raise StoreUnavailable(f"cannot list {prefix}")
        return super().list(prefix, timeout=timeout)


def test_a_failed_list_deletes_nothing(memory: MemoryStore, daemon: Daemon) -> None:
    store = ListsFail(memory)
    put(store, "/a/1")
    put(store, "/b/1")
    with syncing(store, daemon):
        daemon.until(InSync)
        store.failing = "/b/"
        memory.commit(Transaction(puts={"/b/2": b"2"}))
        daemon.until_map({"/a/1": b"v", "/b/1": b"v", "/b/2": b"2"})
        memory.restore(memory.backup())
        daemon.until(OutOfSync)
        assert daemon.map == {"/a/1": b"v", "/b/1": b"v", "/b/2": b"2"}
        store.failing = None
        daemon.until(InSync)
        assert daemon.map == {"/a/1": b"v", "/b/1": b"v", "/b/2": b"2"}
    assert all(c.value is not None for m in daemon.messages if isinstance(m, Changes) for c in m.changes)


def test_in_sync_waits_for_every_prefix(memory: MemoryStore, daemon: Daemon) -> None:
    store = ListsFail(memory)
    store.failing = "/b/"
    put(store, "/a/1")
    with syncing(store, daemon):
        assert [change.key for change in daemon.until(OutOfSync)] == ["/a/1"]
        put(store, "/b/1")
        store.failing = None
        assert [change.key for change in daemon.until(InSync)] == ["/b/1"]


def test_prefixes_that_others_cover_are_told_once(store: FaultyStore, daemon: Daemon) -> None:
    put(store, "/a/x/1")
    with syncing(store, daemon, "/a/x/", "/a/", "/a/"):
        assert [change.key for change in daemon.until(InSync)] == ["/a/x/1"]
        put(store, "/a/x/2")
        assert [change.key for change in daemon.until(Changes)] == ["/a/x/2"]
        put(store, "/a/y")
        assert [change.key for change in daemon.until(Changes)] == ["/a/y"]


@pytest.mark.parametrize("state", ["watching", "away"])
def test_stopping_is_prompt_and_the_last_word(store: FaultyStore, daemon: Daemon, state: str) -> None:
    syncer = Syncer(store, ["/"], daemon.queue.put, backoff=Backoff(60, 60))
    if state == "away":
        store.go_down()
    syncer.start()
    daemon.until(InSync if state == "watching" else OutOfSync)
    stopper = threading.Thread(target=syncer.stop, daemon=True)
    stopper.start()
    stopper.join(1.5)
    assert not stopper.is_alive()
    store.come_up()
    put(store, "/a")
    daemon.nothing_more()


def test_the_sink_may_stop_the_syncer(store: FaultyStore) -> None:
    stopped = threading.Event()

    def sink(_: SyncMessage) -> None:
        syncer.stop()
        stopped.set()

    syncer = Syncer(store, ["/"], sink)
    syncer.start()
    assert stopped.wait(PATIENCE_SECONDS)


def test_a_bug_in_the_sink_is_not_swallowed(store: FaultyStore) -> None:
    crashes: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def sink(_: SyncMessage) -> None:
        raise RuntimeError("a bug")

    Syncer(store, ["/"], sink, on_crash=crashes.put).start()
    assert str(crashes.get(timeout=PATIENCE_SECONDS)) == "a bug"


KEYS = ["/a/1", "/a/2", "/b/1", "/b/2", "/c/1"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 40))
def test_whatever_happens_the_daemon_ends_with_the_state_of_the_store(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    memory = MemoryStore()
    store = FaultyStore(memory)
    daemon = Daemon()
    backups = [memory.backup()]
    happenings: list[Callable[[], object]] = [
        lambda: memory.commit(Transaction(puts={rng.choice(KEYS): b"%d" % rng.randrange(9)})),
        lambda: memory.commit(Transaction(deletes=frozenset(rng.sample(KEYS, 2)))),
        lambda: memory.commit(Transaction(puts=dict.fromkeys(KEYS, b"%d" % rng.randrange(9)))),
        lambda: backups.append(memory.backup()),
        lambda: memory.restore(rng.choice(backups)),
        memory.compact,
        memory.cut_watches,
        store.go_down,
        store.come_up,
        lambda: daemon.queue.empty() or daemon.next(),
    ]
    with syncing(store, daemon, chunk=2):
        for happening in rng.choices(happenings, k=steps):
            happening()
        store.come_up()
        wanted = {item.key: item.value for item in memory.list("").items if not item.key.startswith("/c/")}
        daemon.until_map(wanted)
        memory.commit(Transaction(puts={"/a/last": b"v"}))
        daemon.until_map(wanted | {"/a/last": b"v"})
