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

from resources.errors import Transient

ABSENT = 0
"""The revision to expect of a key that must not exist."""

MAX_OPERATIONS = 128
"""Compares, and writes, of one transaction at most (etcd's default)."""


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
    length. A key occurs once in puts and deletes together.
    """

    expect: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    puts: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    deletes: frozenset[str] = frozenset()
    lease_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction took effect; every key put is now at `revision`."""

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
    """Events of one or several whole revisions, in order. Empty: nothing happened up to `revision`, the watch lives."""

    revision: int
    events: tuple[Event, ...]


class Compacted(Transient):
    """The revision asked for is gone: list again and watch from there."""

    reference: ClassVar[str] = "store-compacted"


class WatchEnded(Transient):
    """The watch was cut, cancelled or fell silent: open it again from the last revision + 1."""

    reference: ClassVar[str] = "store-watch-ended"


class Watch(Protocol):
    """An open watch: iterate for batches; the iteration ends only by raising Compacted or WatchEnded, or by close."""

    def __iter__(self) -> Iterator[Batch]: ...
    def close(self) -> None:
        """End the iteration; callable from another thread."""
        ...


class Store(Protocol):
    """A key-value store with revisions.

    Every call may raise `resources.errors.StoreUnavailable` within `timeout` seconds (the adapter's default if None),
    and `StoreRefused` when the store answers no. `commit` raises StoreUnavailable only when nothing can have been
    sent; otherwise it returns Unknown.
    """

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None: ...

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        """Read a prefix as one consistent snapshot, in pages underneath."""
        ...

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome: ...

    def watch(self, prefix: str, from_revision: int) -> AbstractContextManager[Watch]:
        """Watch a prefix from `from_revision` on (inclusive)."""
        ...

    def close(self) -> None: ...
