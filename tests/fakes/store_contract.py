"""What every store must do. A test module for one implementation derives from `StoreContract` and gives the fixtures
`store` and `operator`.

Tests of one module may share a server: each works below a prefix of its own.
"""

import itertools
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import pytest

from resources.datastore.store import (
    ABSENT,
    MAX_BYTES,
    MAX_OPERATIONS,
    Batch,
    Committed,
    Compacted,
    Event,
    Lost,
    Outcome,
    Store,
    Transaction,
    Watch,
    WatchEnded,
)
from resources.errors import StoreRefused, StoreUnavailable

PATIENCE_SECONDS = 10.0


class Operator(Protocol):
    """What is done to a store from outside."""

    def compact(self, revision: int) -> None:
        """Forget the history before `revision`."""
        ...

    def let_leases_run_out(self, seconds: int) -> None:
        """Let at least `seconds` pass, and expired leases go."""
        ...


class Reading:
    """Reads a watch in a thread of its own, so that a test can wait with a limit."""

    def __init__(self, opened: AbstractContextManager[Watch]) -> None:
        self._opened = opened
        self._got: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._entered = threading.Event()
        self.error: Exception | None = None
        self.watch: Watch | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._entered.wait(PATIENCE_SECONDS)

    def _read(self) -> None:
        try:
            with self._opened as self.watch:
                self._entered.set()
                for batch in self.watch:
                    self._got.put(batch)
        except Exception as error:  # noqa: BLE001  shown to the test
            self.error = error
        finally:
            self._entered.set()
            self._got.put(None)

    def batches(self, count: int, *, seconds: float = PATIENCE_SECONDS) -> list[Batch]:
        """Return the next `count` batches that have events."""
        batches: list[Batch] = []
        until = time.monotonic() + seconds
        while len(batches) < count:
            try:
                batch = self._got.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"only {batches} came") from None
            assert batch is not None, f"the watch ended with {self.error!r} after {batches}"
            if batch.events:
                batches.append(batch)
        return batches

    def events(self, count: int, *, seconds: float = PATIENCE_SECONDS) -> list[Event]:
        """Return the next events, at least `count`, as they come in whole batches."""
        events: list[Event] = []
        while len(events) < count:
            events += self.batches(1, seconds=seconds)[0].events
        return events

    def ended(self, *, seconds: float = PATIENCE_SECONDS) -> Exception | None:
        """Wait for the end of the iteration and return what it raised."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the watch did not end"
        return self.error

    def close(self) -> None:
        if self.watch is not None:
            self.watch.close()


@contextmanager
def reading(store: Store, from_revisions: Mapping[str, int]) -> Iterator[Reading]:
    """Open a watch and read it in the background."""
    reader = Reading(store.watch(from_revisions))
    try:
        yield reader
    finally:
        reader.close()


def committed(outcome: Outcome) -> int:
    assert isinstance(outcome, Committed), outcome
    return outcome.revision


def put(store: Store, key: str, value: bytes = b"v") -> int:
    """Write a key blindly and return its revision."""
    return committed(store.commit(Transaction(puts={key: value})))


def together(*actions: Callable[[], object]) -> None:
    """Run actions in threads of their own, started at once; raise what the first failed with."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        start.wait(PATIENCE_SECONDS)
        try:
            action()
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


class StoreContract:
    """Tests that hold for each implementation of `resources.datastore.store.Store`."""

    @pytest.fixture
    def root(self) -> str:
        return f"/test-{secrets.token_hex(6)}/"

    # --- reading and writing one key

    def test_an_absent_key_is_none(self, store: Store, root: str) -> None:
        assert store.get(root + "a") is None

    def test_a_key_is_read_back_with_the_revision_of_its_write(self, store: Store, root: str) -> None:
        first = put(store, root + "a", b"one")
        put(store, root + "b", b"other")
        kv = store.get(root + "a")
        assert kv is not None
        assert (kv.key, kv.value, kv.revision) == (root + "a", b"one", first)

    def test_values_are_any_bytes_and_keys_any_text(self, store: Store, root: str) -> None:
        values = {root + "é/字/\U0001f433": bytes(range(256)), root + "empty": b"", root + "\udcff": b"\xff"}
        for key, value in values.items():
            put(store, key, value)
            kv = store.get(key)
            assert kv is not None
            assert (kv.key, kv.value) == (key, value)
        assert {kv.key: kv.value for kv in store.list(root).items} == values

    def test_a_megabyte_is_stored_and_watched(self, store: Store, root: str) -> None:
        value = b"\x00\xff" * 500_000
        revision = put(store, root + "big", value)
        kv = store.get(root + "big")
        assert kv is not None
        assert kv.value == value
        with reading(store, {root: revision}) as reader:
            assert reader.events(1) == [Event(root + "big", value, revision)]

    def test_revisions_grow_with_each_transaction(self, store: Store, root: str) -> None:
        revisions = [put(store, root + "a"), put(store, root + "a"), put(store, root + "b")]
        assert revisions == sorted(set(revisions))

    # --- transactions

    def test_create_wins_once_and_the_loser_sees_the_winner(self, store: Store, root: str) -> None:
        key = root + "a"
        create = Transaction(expect={key: ABSENT}, puts={key: b"first"})
        revision = committed(store.commit(create))
        outcome = store.commit(Transaction(expect={key: ABSENT}, puts={key: b"second"}))
        assert isinstance(outcome, Lost)
        current = outcome.current[key]
        assert current is not None
        assert (current.value, current.revision) == (b"first", revision)
        assert outcome.revision >= revision

    def test_update_at_the_revision_read_wins_and_a_stale_one_loses(self, store: Store, root: str) -> None:
        key = root + "a"
        old = put(store, key, b"1")
        new = committed(store.commit(Transaction(expect={key: old}, puts={key: b"2"})))
        outcome = store.commit(Transaction(expect={key: old}, puts={key: b"3"}))
        assert isinstance(outcome, Lost)
        kv = store.get(key)
        assert kv is not None
        assert (kv.value, kv.revision) == (b"2", new)

    def test_a_key_deleted_and_created_again_has_another_revision(self, store: Store, root: str) -> None:
        key = root + "a"
        old = put(store, key)
        committed(store.commit(Transaction(expect={key: old}, deletes=frozenset({key}))))
        new = committed(store.commit(Transaction(expect={key: ABSENT}, puts={key: b"v"})))
        assert isinstance(store.commit(Transaction(expect={key: old}, deletes=frozenset({key}))), Lost)
        assert new > old

    def test_one_failed_compare_of_many_changes_nothing(self, store: Store, root: str) -> None:
        a, b, c = root + "a", root + "b", root + "c"
        at = put(store, a, b"a")
        transaction = Transaction(expect={a: at, b: at, c: ABSENT}, puts={c: b"c"}, deletes=frozenset({a}))
        outcome = store.commit(transaction)
        assert isinstance(outcome, Lost)
        assert outcome.current.keys() == {a, b, c}
        assert outcome.current[b] is None
        assert outcome.current[c] is None
        assert [kv.key for kv in store.list(root).items] == [a]

    def test_many_keys_change_at_one_revision(self, store: Store, root: str) -> None:
        old = put(store, root + "gone")
        transaction = Transaction(
            expect={root + "gone": old, root + "new": ABSENT},
            puts={root + "new": b"n", root + "blind": b"b"},
            deletes=frozenset({root + "gone"}),
        )
        revision = committed(store.commit(transaction))
        found = {kv.key: kv.revision for kv in store.list(root).items}
        assert found == {root + "blind": revision, root + "new": revision}

    def test_a_check_without_writes_wins_or_loses_and_changes_nothing(self, store: Store, root: str) -> None:
        revision = put(store, root + "a")
        assert isinstance(store.commit(Transaction(expect={root + "a": revision})), Committed)
        assert isinstance(store.commit(Transaction(expect={root + "a": revision + 1})), Lost)
        kv = store.get(root + "a")
        assert kv is not None
        assert kv.revision == revision

    def test_deleting_what_is_absent_commits_at_the_present_revision(self, store: Store, root: str) -> None:
        revision = put(store, root + "a")
        assert committed(store.commit(Transaction(deletes=frozenset({root + "b"})))) >= revision
        later = put(store, root + "a")
        with reading(store, {root: revision}) as reader:
            assert [event.revision for event in reader.events(2)] == [revision, later]

    def test_as_many_operations_as_are_allowed_fit(self, store: Store, root: str) -> None:
        keys = [f"{root}{n}" for n in range(MAX_OPERATIONS)]
        committed(store.commit(Transaction(expect=dict.fromkeys(keys, ABSENT), puts=dict.fromkeys(keys, b"v"))))
        assert len(store.list(root).items) == MAX_OPERATIONS

    @pytest.mark.parametrize("fault", ["compares", "puts", "puts and deletes", "bytes", "twice", "empty key", "lease"])
    def test_what_no_store_takes_is_refused_before_it_is_sent(self, store: Store, root: str, fault: str) -> None:
        many = [f"{root}{n}" for n in range(MAX_OPERATIONS + 1)]
        transaction = {
            "compares": Transaction(expect=dict.fromkeys(many, ABSENT), puts={root + "a": b"v"}),
            "puts": Transaction(puts=dict.fromkeys(many, b"v")),
            "puts and deletes": Transaction(puts=dict.fromkeys(many[:100], b"v"), deletes=frozenset(many[100:])),
            "bytes": Transaction(puts={root + "a": bytes(MAX_BYTES // 2), root + "b": bytes(MAX_BYTES // 2)}),
            "twice": Transaction(puts={root + "a": b"v"}, deletes=frozenset({root + "a"})),
            "empty key": Transaction(puts={"": b"v"}),
            "lease": Transaction(puts={root + "a": b"v"}, lease_seconds=0),
        }[fault]
        with pytest.raises(StoreRefused, match="cannot be sent"):
            store.commit(transaction)
        assert store.list(root).items == ()

    def test_of_simultaneous_creates_exactly_one_wins(self, store: Store, root: str) -> None:
        outcomes: list[Outcome] = []

        def create(name: bytes) -> None:
            outcomes.append(store.commit(Transaction(expect={root + "a": ABSENT}, puts={root + "a": name})))

        together(*(partial(create, b"%d" % n) for n in range(8)))
        assert sum(isinstance(outcome, Committed) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Lost) for outcome in outcomes) == 7

    def test_no_increment_is_lost_between_threads(self, store: Store, root: str) -> None:
        put(store, root + "count", b"0")

        def increment() -> None:
            kv = store.get(root + "count")
            for _ in range(5):
                while True:
                    assert kv is not None
                    value = b"%d" % (int(kv.value) + 1)
                    outcome = store.commit(
                        Transaction(expect={kv.key: kv.revision}, puts={kv.key: value}),
                    )
                    if isinstance(outcome, Committed):
                        kv = store.get(root + "count")
                        break
                    assert isinstance(outcome, Lost)
                    kv = outcome.current[root + "count"]

        together(*[increment] * 4)
        kv = store.get(root + "count")
        assert kv is not None
        assert kv.value == b"20"

    # --- listing

    def test_a_list_holds_the_prefix_and_nothing_else_sorted_by_bytes(self, store: Store, root: str) -> None:
        inside = ["b", "a/1", "a", "a/", "é", "Z", "a0", "\U0001f433", "￿"]
        for name in inside:
            put(store, f"{root}in/{name}")
        for name in ("in", "in0", "io", "i"):
            put(store, f"{root}{name}")
        names = [kv.key.removeprefix(root + "in/") for kv in store.list(root + "in/").items]
        assert names == sorted(inside, key=str.encode)

    def test_an_empty_list_has_the_revision_of_the_store(self, store: Store, root: str) -> None:
        revision = put(store, root + "a")
        snapshot = store.list(root + "nothing/")
        assert snapshot.items == ()
        assert snapshot.revision >= revision

    def test_everything_is_below_the_empty_prefix(self, store: Store, root: str) -> None:
        put(store, root + "a")
        put(store, root.strip("/") + "b")
        keys = {kv.key for kv in store.list("").items}
        assert {root + "a", root.strip("/") + "b"} <= keys

    def test_a_long_list_is_one_snapshot_while_others_write(self, store: Store, root: str) -> None:
        for start in range(0, 1200, 100):
            keys = [f"{root}{n:05}" for n in range(start, start + 100)]
            committed(store.commit(Transaction(puts=dict.fromkeys(keys, b"0"))))
        done = threading.Event()

        def write() -> None:
            for turn in itertools.count(1):
                pair = {f"{root}00000": b"%d" % turn, f"{root}01199": b"%d" % turn}
                committed(store.commit(Transaction(puts=pair)))
                if done.is_set():
                    return

        def read() -> None:
            try:
                for _ in range(5):
                    snapshot = store.list(root)
                    assert len(snapshot.items) == 1200
                    assert snapshot.items[0].value == snapshot.items[-1].value
                    assert snapshot.revision >= snapshot.items[-1].revision
            finally:
                done.set()

        together(write, read)

    # --- watching

    def test_a_watch_replays_whole_revisions_in_order_and_then_follows(self, store: Store, root: str) -> None:
        first = put(store, root + "a", b"1")
        put(store, root.rstrip("/") + "0", b"sibling")
        puts = {root + "b": b"2", root + "c": b"3"}
        second = committed(store.commit(Transaction(puts=puts, deletes=frozenset({root + "a"}))))
        with reading(store, {root: first}) as reader:
            events = reader.events(4)
            assert events[0] == Event(root + "a", b"1", first)
            assert set(events[1:]) == {
                Event(root + "a", None, second),
                Event(root + "b", b"2", second),
                Event(root + "c", b"3", second),
            }
            third = put(store, root + "a", b"4")
            (batch,) = reader.batches(1)
            assert batch == Batch(root, third, (Event(root + "a", b"4", third),))

    def test_a_watch_begins_at_its_revision_and_not_before(self, store: Store, root: str) -> None:
        put(store, root + "a", b"1")
        second = put(store, root + "a", b"2")
        with reading(store, {root: second}) as reader:
            assert reader.events(1) == [Event(root + "a", b"2", second)]

    def test_a_watch_from_the_future_waits_for_it(self, store: Store, root: str) -> None:
        now = put(store, root + "a", b"1")
        with reading(store, {root: now + 2}) as reader:
            assert put(store, root + "a", b"2") == now + 1
            third = put(store, root + "a", b"3")
            assert reader.events(1) == [Event(root + "a", b"3", third)]

    def test_one_watch_follows_several_prefixes_each_from_its_own_revision(self, store: Store, root: str) -> None:
        a, b = root + "a/", root + "b/"
        put(store, a + "1")
        later = put(store, b + "1")
        at = put(store, a + "2")
        with reading(store, {a: at, b: later}) as reader:
            batches = {batch.prefix: batch for batch in reader.batches(2)}
            assert batches[a].events == (Event(a + "2", b"v", at),)
            assert batches[b].events == (Event(b + "1", b"v", later),)
            both = committed(store.commit(Transaction(puts={a + "x": b"x", b + "x": b"x"})))
            batches = {batch.prefix: batch for batch in reader.batches(2)}
            assert batches[a].events == (Event(a + "x", b"x", both),)
            assert batches[b].events == (Event(b + "x", b"x", both),)

    def test_resuming_after_each_batch_loses_and_repeats_nothing(self, store: Store, root: str) -> None:
        written = [put(store, f"{root}{n % 3}", b"%d" % n) for n in range(10)]
        position = written[0]
        seen: list[int] = []
        while len(seen) < 10:
            with reading(store, {root: position}) as reader:
                (batch,) = reader.batches(1)
            seen += [event.revision for event in batch.events]
            position = batch.revision + 1
        assert seen == written

    def test_a_compacted_revision_is_told(self, store: Store, operator: Operator, root: str) -> None:
        first = put(store, root + "a")
        last = [put(store, root + "a") for _ in range(5)][-1]
        operator.compact(last)
        with reading(store, {root: first}) as reader:
            assert isinstance(reader.ended(), Compacted)

    def test_after_a_list_a_watch_goes_on_whatever_was_compacted(
        self, store: Store, operator: Operator, root: str
    ) -> None:
        put(store, root + "a")
        last = put(store, root + "a")
        operator.compact(last)
        snapshot = store.list(root)
        with reading(store, {root: snapshot.revision + 1}) as reader:
            after = put(store, root + "b")
            assert reader.events(1) == [Event(root + "b", b"v", after)]

    def test_closing_a_watch_ends_its_iteration_at_once_and_plainly(self, store: Store, root: str) -> None:
        now = put(store, root + "a")
        with reading(store, {root: now + 1}) as reader:
            reader.close()
            assert reader.ended(seconds=2) is None

    def test_a_watch_that_was_left_yields_nothing_more(self, store: Store, root: str) -> None:
        now = put(store, root + "a")
        with store.watch({root: now}) as watch:
            pass
        assert list(watch) == []

    def test_a_watch_from_before_the_beginning_is_a_mistake(self, store: Store, root: str) -> None:
        with pytest.raises(ValueError, match="from 1 on"):
            store.watch({root: 0})

    # --- leases, epochs, the end

    def test_a_key_under_a_lease_goes_when_it_runs_out(self, store: Store, operator: Operator, root: str) -> None:
        leased = Transaction(puts={root + "a": b"1", root + "kept": b"1"}, lease_seconds=2)
        revision = committed(store.commit(leased))
        put(store, root + "kept", b"2")
        assert store.get(root + "a") is not None
        with reading(store, {root: revision + 2}) as reader:
            operator.let_leases_run_out(2)
            (event,) = reader.events(1)
            assert (event.key, event.value) == (root + "a", None)
        assert [kv.key for kv in store.list(root).items] == [root + "kept"]

    def test_a_lost_transaction_with_a_lease_leaves_nothing(self, store: Store, root: str) -> None:
        revision = put(store, root + "a")
        lost = Transaction(expect={root + "a": ABSENT}, puts={root + "a": b"2"}, lease_seconds=60)
        assert isinstance(store.commit(lost), Lost)
        kv = store.get(root + "a")
        assert kv is not None
        assert kv.revision == revision

    def test_the_epoch_stands_still_in_everyday_life(self, store: Store, operator: Operator, root: str) -> None:
        before = store.epoch()
        revision = put(store, root + "a")
        store.list(root)
        operator.compact(revision)
        with reading(store, {root: revision}) as reader:
            reader.events(1)
        assert store.epoch() == before

    def test_a_closed_store_says_so_and_ends_its_watches(self, store: Store, root: str) -> None:
        now = put(store, root + "a")
        with reading(store, {root: now + 1}) as reader:
            store.close()
            assert reader.ended(seconds=2) is None
        with pytest.raises(StoreUnavailable):
            store.get(root + "a")
        with pytest.raises(StoreUnavailable):
            store.commit(Transaction(puts={root + "a": b"2"}))
        with pytest.raises((StoreUnavailable, WatchEnded)), store.watch({root: now}) as watch:
            list(watch)
        store.close()
