"""The store in memory: the same meaning as `etcd`, for tests and for trying things without a server.

Revisions, whole transactions, watches from any kept revision, compaction and leases are as etcd does them (reference
ipam.md 5.2, 5.3); both pass the same contract tests. What etcd's operator does is a method here: `compact`, `backup`
and `restore`.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType, TracebackType

from resources.datastore.store import (
    ABSENT,
    Batch,
    Committed,
    Compacted,
    Event,
    KeyValue,
    Lost,
    Outcome,
    Snapshot,
    Transaction,
    WatchEnded,
    check_transaction,
)
from resources.errors import StoreUnavailable
from resources.runtime.backoff import Clock, SystemClock

SHORTEST_LEASE_SECONDS = 2


@dataclass(frozen=True, slots=True, order=True)
class _Lease:
    expires: float
    granted: int
    """The revision of its keys, which no other lease shares."""


@dataclass(frozen=True, slots=True)
class _Item:
    value: bytes
    revision: int
    lease: _Lease | None


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the whole store, to be restored later."""

    revision: int
    items: Mapping[str, _Item]


def _bytewise(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


class MemoryStore:
    """A `resources.datastore.store.Store` without a server; thread-safe.

    Leases run by `clock`. With a clock that only tests move, call `expire` after moving it: it wakes the watches.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._changed = threading.Condition(threading.RLock())
        self._items: dict[str, _Item] = {}
        self._log: list[tuple[int, tuple[Event, ...]]] = []
        self._revision = 1
        self._compacted = 0
        self._epoch = 0
        self._watches: set[MemoryWatch] = set()
        self._closed = False

    # --- the interface -------------------------------------------------------------------------------------------

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None:  # noqa: ARG002  never waits
        with self._changed:
            self._enter()
            return self._read(key)

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:  # noqa: ARG002
        with self._changed:
            self._enter()
            keys = sorted((key for key in self._items if key.startswith(prefix)), key=_bytewise)
            return Snapshot(
                tuple(KeyValue(key, self._items[key].value, self._items[key].revision) for key in keys), self._revision
            )

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:  # noqa: ARG002
        check_transaction(transaction)
        with self._changed:
            self._enter()
            if any(self._revision_of(key) != revision for key, revision in transaction.expect.items()):
                return Lost(self._revision, {key: self._read(key) for key in transaction.expect})
            lease = None
            if transaction.lease_seconds is not None:
                seconds = max(transaction.lease_seconds, SHORTEST_LEASE_SECONDS)
                lease = _Lease(self._clock.monotonic() + seconds, self._revision + 1)
            self._write(transaction.puts, transaction.deletes, lease)
            return Committed(self._revision)

    def watch(self, from_revisions: Mapping[str, int]) -> "MemoryWatch":
        if not from_revisions or min(from_revisions.values()) < 1:
            raise ValueError(f"watch needs prefixes, and revisions from 1 on: {dict(from_revisions)}")
        return MemoryWatch(self, from_revisions)

    def epoch(self) -> int:
        with self._changed:
            return self._epoch

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for watch in self._watches:
                watch.closed = True
            self._changed.notify_all()

    # --- what an operator or time does ---------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The revision of the last change."""
        with self._changed:
            return self._revision

    def compact(self, revision: int | None = None) -> None:
        """Forget the history before `revision` (default: all of it)."""
        with self._changed:
            self._compacted = max(self._compacted, min(revision or self._revision, self._revision))
            del self._log[: bisect_left(self._log, self._compacted, key=itemgetter(0))]

    def expire(self) -> None:
        """Delete the keys whose lease has run out by the clock."""
        with self._changed:
            now = self._clock.monotonic()
            over = {item.lease for item in self._items.values() if item.lease and item.lease.expires <= now}
            for lease in sorted(over):
                self._write({}, frozenset(key for key, item in self._items.items() if item.lease == lease), None)

    def backup(self) -> Backup:
        """Return a copy that `restore` takes."""
        with self._changed:
            self._enter()
            return Backup(self._revision, MappingProxyType(dict(self._items)))

    def restore(self, backup: Backup) -> None:
        """Become what the store was then: its revision goes back, watches end, the epoch grows."""
        with self._changed:
            self._items = dict(backup.items)
            self._revision = self._compacted = backup.revision
            self._log.clear()
            self._epoch += 1
            self.cut_watches("the store was restored")

    def cut_watches(self, reason: str = "the connection was cut") -> None:
        """End every open watch with WatchEnded."""
        with self._changed:
            for watch in self._watches:
                watch.ended = reason
            self._changed.notify_all()

    # --- below, everything runs under the lock ------------------------------------------------------------------

    def _enter(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store in memory is closed")
        self.expire()

    def _revision_of(self, key: str) -> int:
        item = self._items.get(key)
        return ABSENT if item is None else item.revision

    def _read(self, key: str) -> KeyValue | None:
        item = self._items.get(key)
        return None if item is None else KeyValue(key, item.value, item.revision)

    def _write(self, puts: Mapping[str, bytes], deletes: frozenset[str], lease: _Lease | None) -> None:
        gone = sorted((key for key in deletes if key in self._items), key=_bytewise)
        if not puts and not gone:
            return
        self._revision += 1
        for key, value in puts.items():
            self._items[key] = _Item(value, self._revision, lease)
        for key in gone:
            del self._items[key]
        events = [Event(key, value, self._revision) for key, value in puts.items()]
        self._log.append((self._revision, (*events, *(Event(key, None, self._revision) for key in gone))))
        self._changed.notify_all()

    def _open(self, watch: "MemoryWatch") -> None:
        with self._changed:
            self._enter()
            self._watches.add(watch)

    def _forget(self, watch: "MemoryWatch") -> None:
        with self._changed:
            self._watches.discard(watch)
            watch.closed = True
            self._changed.notify_all()

    def _next(self, watch: "MemoryWatch") -> Batch | None:
        """Wait for the next batch of `watch`; None when it was closed."""
        with self._changed:
            while True:
                if watch.closed:
                    return None
                if watch.ended is not None:
                    raise WatchEnded(f"the watch ended: {watch.ended}", prefixes=sorted(watch.positions))
                self.expire()
                for prefix in watch.positions:
                    if batch := self._pending(watch, prefix):
                        return batch
                self._changed.wait(self._until_next_expiry())

    def _pending(self, watch: "MemoryWatch", prefix: str) -> Batch | None:
        position = watch.positions[prefix]
        if position < self._compacted:
            raise Compacted(f"revision {position} is compacted, the store begins at {self._compacted}", prefix=prefix)
        first = bisect_left(self._log, position, key=itemgetter(0))
        events = tuple(event for _, entry in self._log[first:] for event in entry if event.key.startswith(prefix))
        watch.positions[prefix] = max(position, self._revision + 1)
        return Batch(prefix, self._revision, events) if events else None

    def _until_next_expiry(self) -> float | None:
        expiries = [item.lease.expires for item in self._items.values() if item.lease]
        return max(0.01, min(expiries) - self._clock.monotonic()) if expiries else None


class MemoryWatch:
    """A watch on a MemoryStore."""

    def __init__(self, store: MemoryStore, from_revisions: Mapping[str, int]) -> None:
        self._store = store
        self.positions = dict(from_revisions)
        self.closed = False
        self.ended: str | None = None

    def __enter__(self) -> "MemoryWatch":
        self._store._open(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._store._next(self)) is not None:
            yield batch

    def close(self) -> None:
        self._store._forget(self)
