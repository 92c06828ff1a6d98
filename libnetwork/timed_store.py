"""Typed access to the store for the length of one call of Docker."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from libnetwork.deadline import Deadline
from resources.datastore.client import ResourceClient
from resources.datastore.store import KeyValue, Outcome, Snapshot, Store, Transaction, Watch


class TimedStore:
    """A store none of whose calls outlasts `deadline`; once it has passed they raise OutOfTime."""

    def __init__(self, store: Store, deadline: Deadline) -> None:
        self._store, self._deadline = store, deadline

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None:
        return self._store.get(key, timeout=self._deadline.left(at_most=timeout))

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        return self._store.list(prefix, timeout=self._deadline.left(at_most=timeout))

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:
        return self._store.commit(transaction, timeout=self._deadline.left(at_most=timeout))

    def watch(self, from_revisions: Mapping[str, int]) -> AbstractContextManager[Watch]:
        return self._store.watch(from_revisions)

    def epoch(self) -> int:
        return self._store.epoch()

    def close(self) -> None:
        self._store.close()


class Datastore:
    """The store, as a typed client for each call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def until(self, deadline: Deadline) -> ResourceClient:
        """Return a client whose requests end by `deadline`."""
        return ResourceClient(TimedStore(self._store, deadline))
