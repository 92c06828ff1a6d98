"""A store that fails when told to: before sending, after committing, or in between two writes of somebody.

Wrap any store. Writes are counted from 1 by `FaultyStore.writes`; faults are set for the n-th write *from now*:

    faulty.fail(2)            the second commit from now raises StoreUnavailable and sends nothing
    faulty.lose_answer(1)     the next commit takes effect and answers Unknown
    faulty.delay(1)           the next commit answers Unknown and takes effect only when `deliver` is called
    faulty.kill(3, after=True)  the caller dies by `Killed` right after its third commit
    faulty.before(2, action)  `action` runs in the caller's thread just before its second commit
    hold = faulty.hold(2)     the second commit waits, in its own thread, until `hold.release()` or `hold.kill()`
    faulty.go_down("...")     everything raises StoreUnavailable and watches end, until `come_up`
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType

from resources.datastore.store import (
    Batch,
    KeyValue,
    Outcome,
    Snapshot,
    Store,
    Transaction,
    Unknown,
    Watch,
    WatchEnded,
)
from resources.errors import StoreUnavailable

PATIENCE_SECONDS = 10.0

Fault = Callable[[Transaction], Outcome | None]
"""Runs in place of a commit; None goes on with the commit."""


class Killed(BaseException):
    """The worker ends here, as by kill -9: no handler of `Exception` runs."""


class Hold:
    """One write that waits."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._goes_on = threading.Event()
        self._killed = False

    def wait_until_reached(self) -> None:
        assert self._reached.wait(PATIENCE_SECONDS), "nobody came to the held write"

    def release(self) -> None:
        self._goes_on.set()

    def kill(self) -> None:
        self._killed = True
        self._goes_on.set()

    def __call__(self, _: Transaction) -> None:
        self._reached.set()
        assert self._goes_on.wait(PATIENCE_SECONDS), "nobody released the held write"
        if self._killed:
            raise Killed


class FaultyStore:
    """A `resources.datastore.store.Store` around another one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._before: dict[int, Fault] = {}
        self._after: dict[int, Callable[[], Outcome | None]] = {}
        self._delayed: list[Transaction] = []
        self._down: str | None = None
        self._watches: set[_FaultyWatch] = set()
        self.writes = 0
        """Commits asked for so far."""
        self.reads = 0
        """Gets and lists asked for so far."""

    # --- faults

    def before(self, nth: int, action: Callable[[], object]) -> None:
        """Run `action` just before the n-th write from now; what it raises comes out of that write."""

        def fault(_: Transaction) -> None:
            action()

        self._before[self.writes + nth] = fault

    def after(self, nth: int, action: Callable[[], object]) -> None:
        """Run `action` when the n-th write from now has committed (or lost), before its caller hears of it."""

        def fault() -> None:
            action()

        self._after[self.writes + nth] = fault

    def fail(self, nth: int = 1, reason: str = "connection refused") -> None:
        def fault(_: Transaction) -> None:
            raise StoreUnavailable(f"no etcd endpoint answers: {reason}")

        self._before[self.writes + nth] = fault

    def lose_answer(self, nth: int = 1) -> None:
        self._after[self.writes + nth] = lambda: Unknown("the connection was cut before the answer came")

    def delay(self, nth: int = 1) -> None:
        def fault(transaction: Transaction) -> Outcome:
            self._delayed.append(transaction)
            return Unknown("time-out")

        self._before[self.writes + nth] = fault

    def deliver(self) -> list[Outcome]:
        """Commit what was delayed, in its order, and return what became of it."""
        delayed, self._delayed = self._delayed, []
        return [self._store.commit(transaction) for transaction in delayed]

    def kill(self, nth: int = 1, *, after: bool = False) -> None:
        def die(*_: object) -> None:
            raise Killed

        if after:
            self._after[self.writes + nth] = die
        else:
            self._before[self.writes + nth] = die

    def hold(self, nth: int = 1) -> Hold:
        hold = Hold()
        self._before[self.writes + nth] = hold
        return hold

    def go_down(self, reason: str = "connection refused") -> None:
        with self._lock:
            self._down = reason
            watches = list(self._watches)
        for watch in watches:
            watch.cut(reason)

    def come_up(self) -> None:
        with self._lock:
            self._down = None

    # --- the interface

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None:
        self._read()
        return self._store.get(key, timeout=timeout)

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        self._read()
        return self._store.list(prefix, timeout=timeout)

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:
        with self._lock:
            self.writes += 1
            before, after = self._before.pop(self.writes, None), self._after.pop(self.writes, None)
        self._check()
        outcome = before(transaction) if before else None
        if outcome is None:
            outcome = self._store.commit(transaction, timeout=timeout)
        return (after() if after else None) or outcome

    def watch(self, from_revisions: Mapping[str, int]) -> AbstractContextManager[Watch]:
        return _FaultyWatch(self, from_revisions)

    def epoch(self) -> int:
        return self._store.epoch()

    def close(self) -> None:
        self._store.close()

    def _read(self) -> None:
        with self._lock:
            self.reads += 1
        self._check()

    def _check(self) -> None:
        with self._lock:
            if self._down is not None:
                raise StoreUnavailable(f"no etcd endpoint answers: {self._down}")


class _FaultyWatch:
    def __init__(self, faulty: FaultyStore, from_revisions: Mapping[str, int]) -> None:
        self._faulty = faulty
        self._opened = faulty._store.watch(from_revisions)
        self._watch: Watch | None = None
        self._cut: str | None = None

    def __enter__(self) -> "_FaultyWatch":
        self._faulty._check()
        self._watch = self._opened.__enter__()
        with self._faulty._lock:
            self._faulty._watches.add(self)
            down = self._faulty._down
        if down is not None:
            self.cut(down)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._faulty._lock:
            self._faulty._watches.discard(self)
        self._opened.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Batch]:
        assert self._watch is not None, "enter the watch first"
        for batch in self._watch:
            if self._cut is not None:
                break
            yield batch
        if self._cut is not None:
            raise WatchEnded(f"the watch ended: {self._cut}")

    def cut(self, reason: str) -> None:
        self._cut = reason
        self.close()

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
