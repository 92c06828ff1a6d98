"""The store as its callers see it: get, list, commit, watch. Keys are text, values bytes, revisions etcd's.

Two implementations, `etcd` and `memory`, pass the same contract tests (tests/unit/resources/datastore and tests/fv).
Nothing here knows what the keys mean.

Every write is one transaction that compares revisions (reference ipam.md 5.2). Its outcome is a value, not an
exception, because "lost" and "unknown" are everyday answers that the caller must settle.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Protocol

from resources.errors import StoreRefused, Transient

ABSENT = 0
"""The revision to expect of a key that must not exist."""

MAX_OPERATIONS = 128
"""Compares, and writes, of one transaction at most (etcd's default)."""

MAX_BYTES = 1536 * 1024
"""Keys and values of one transaction at most (etcd's default, which also counts a few bytes around each)."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as read: `revision` is its mod revision."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys of a prefix, sorted by key, as they were at `revision` (of the store)."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """If every key of `expect` is at its revision (ABSENT = 0), put and delete; else change nothing.

    `puts` may carry keys that are not in `expect` (a blind write). `lease_seconds` gives every put key a lease of that
    length (etcd rounds less than 2 up); a later put without one keeps the key. A key occurs once in puts and deletes
    together.
    """

    expect: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    puts: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    deletes: frozenset[str] = frozenset()
    lease_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction took effect; every key put is now at `revision`.

    Where nothing had to change (nothing put, only absent keys deleted) it is the revision the store was at.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A compare failed and nothing changed. `current` has every compared key as it is now, None if absent."""

    revision: int
    current: Mapping[str, KeyValue | None]


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer came: it may have committed, or may commit later. Never repeat blindly (reference ipam.md 5.5)."""

    reason: str


Outcome = Committed | Lost | Unknown


@dataclass(frozen=True, slots=True)
class Event:
    """A key changed at `revision`; value None means deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Events below `prefix`, of one or several whole revisions, in order; resume from `revision` + 1.

    Without events: nothing happened below the prefix up to `revision`, and the watch lives.
    """

    prefix: str
    revision: int
    events: tuple[Event, ...]


class Compacted(Transient):
    """The revision asked for is gone: list again and watch from there."""

    reference: ClassVar[str] = "store-compacted"


class WatchEnded(Transient):
    """The watch was cut, cancelled or fell silent: open it again from the last revision + 1."""

    reference: ClassVar[str] = "store-watch-ended"


class Watch(Protocol):
    """An open watch: iterate for batches; the iteration ends only by raising Compacted or WatchEnded, or by close.

    The order of batches is that of revisions for each prefix, not across prefixes: a transaction that touches two
    prefixes arrives as two batches of the same revision.
    """

    def __iter__(self) -> Iterator[Batch]: ...
    def close(self) -> None:
        """End the iteration (plainly, without an exception); callable from another thread."""
        ...


class Store(Protocol):
    """A key-value store with revisions. Usable from several threads.

    Every call may raise `resources.errors.StoreUnavailable` within `timeout` seconds (the adapter's default if None),
    and `StoreRefused` when the store answers no. `commit` raises StoreUnavailable only when nothing can have been
    sent; otherwise it returns Unknown.
    """

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None: ...

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        """Read a prefix ("" is everything) as one consistent snapshot, in pages underneath.

        `timeout` is for each page: a long list that makes progress goes on.
        """
        ...

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome: ...

    def watch(self, from_revisions: Mapping[str, int]) -> AbstractContextManager[Watch]:
        """Watch some prefixes over one connection, each from its own revision on (inclusive, at least 1).

        Entering opens the watch and may raise like any call; Compacted is raised by the iteration.
        """
        ...

    def epoch(self) -> int:
        """Return a number that grows when an answer shows that the store lost history or is another one.

        It was restored from an older copy, say: then revisions and values read before mean nothing any more, and
        whoever keeps some reads again. Unchanged after a read, it vouches for what was read since it had this value.
        """
        ...

    def close(self) -> None:
        """End every watch; calls under way end within their time. Callable from another thread."""
        ...


def check_transaction(transaction: Transaction) -> None:
    """Refuse what no store takes, before anything is sent.

    Raises:
        StoreRefused: more than MAX_OPERATIONS or MAX_BYTES, a key put and deleted, a lease of no length, an empty key.
    """
    puts, deletes = transaction.puts, transaction.deletes
    if fault := _fault(transaction):
        keys = sorted({*transaction.expect, *puts, *deletes})
        raise StoreRefused(
            f"a transaction on {len(keys)} keys ({', '.join(keys[:2])}, ...) cannot be sent: {fault}",
            expect=len(transaction.expect),
            puts=len(puts),
            deletes=len(deletes),
        )


def _fault(transaction: Transaction) -> str | None:
    puts, deletes = transaction.puts, transaction.deletes
    if len(transaction.expect) > MAX_OPERATIONS:
        return f"it compares {len(transaction.expect)} keys, etcd takes {MAX_OPERATIONS}"
    if len(puts) + len(deletes) > MAX_OPERATIONS:
        return f"it writes {len(puts) + len(deletes)} keys, etcd takes {MAX_OPERATIONS}"
    if both := puts.keys() & deletes:
        return f"it puts and deletes {min(both)}"
    if "" in transaction.expect or "" in puts or "" in deletes:
        return "a key is empty"
    if transaction.lease_seconds is not None and transaction.lease_seconds < 1:
        return f"its lease is {transaction.lease_seconds} s long"
    size = sum(len(key.encode(errors="surrogateescape")) + len(value) for key, value in puts.items())
    if size > MAX_BYTES:
        return f"its values are {size} bytes long, etcd takes {MAX_BYTES}"
    return None
