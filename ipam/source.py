"""Where the allocator reads: keys as last seen, which may be stale, because every write compares revisions.

`ReadThrough` asks the store once per key and call. A source over a cache that a watch keeps up to date (ipam.cache)
asks nothing (reference ipam.md 6.2, 6.3).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from resources.datastore.store import KeyValue, Store


class Source(Protocol):
    """Keys and their values, each at the revision it was seen at. One per call; what is behind it may be shared."""

    def get(self, key: str) -> KeyValue | None: ...

    def list(self, prefix: str) -> Sequence[KeyValue]:
        """Return the keys below a prefix, sorted by key."""
        ...

    def learn(self, current: Mapping[str, KeyValue | None]) -> None:
        """Take note of newer values that were found: those that made a transaction lose."""
        ...

    def wrote(self, current: Mapping[str, KeyValue | None]) -> None:
        """Take note of what a transaction of ours wrote, None for what it deleted."""
        ...

    def has_news(self) -> bool:
        """Whether reading more has shown, since this was last asked, that something read before is out of date."""
        ...

    def assume_absent(self, key: str) -> None:
        """Take a key for absent without asking, if nothing else is known; the transaction's compare will tell."""
        ...

    def renew(self) -> bool:
        """Make sure that what is read from now on is newer than this call of the allocator, and than what it learned.

        Returns False if all that was read in it is so already: nothing new is to be expected.
        """
        ...

    def forget(self) -> None:
        """Drop everything: the store lost history, and revisions seen before mean nothing any more."""
        ...


class ReadThrough:
    """A source for one call of the allocator: reads what is asked for when it is first asked for, and remembers it."""

    def __init__(self, store: Store, timeout: Callable[[], float | None] = lambda: None) -> None:
        self._store = store
        self._timeout = timeout
        self._known: dict[str, KeyValue | None] = {}
        self._lists: dict[str, dict[str, KeyValue]] = {}
        self._aged = self._has_news = False

    def get(self, key: str) -> KeyValue | None:
        if key in self._known:
            return self._known[key]
        for prefix, below in self._lists.items():
            if key.startswith(prefix):
                return below.get(key)
        self._known[key] = found = self._store.get(key, timeout=self._timeout())
        return found

    def list(self, prefix: str) -> Sequence[KeyValue]:
        if prefix not in self._lists:
            snapshot = self._store.list(prefix, timeout=self._timeout())
            self._lists[prefix] = below = {record.key: record for record in snapshot.items}
            for key in [key for key in self._known if key.startswith(prefix)]:
                self._has_news = self._has_news or self._known[key] != below.get(key)
                del self._known[key]
        return [record for _, record in sorted(self._lists[prefix].items())]

    def learn(self, current: Mapping[str, KeyValue | None]) -> None:
        for key, record in current.items():
            known = next((below.get(key) for below in self._covering(key)), self._known.get(key, record))
            self._aged = self._aged or known != record
        self.wrote(current)

    def wrote(self, current: Mapping[str, KeyValue | None]) -> None:
        for key, record in current.items():
            covering = self._covering(key)
            for below in covering:
                if record is None:
                    below.pop(key, None)
                else:
                    below[key] = record
            if not covering:
                self._known[key] = record

    def _covering(self, key: str) -> Sequence[dict[str, KeyValue]]:
        return [below for prefix, below in self._lists.items() if key.startswith(prefix)]

    def assume_absent(self, key: str) -> None:
        if not self._covering(key):
            self._known.setdefault(key, None)

    def has_news(self) -> bool:
        news, self._has_news = self._has_news, False
        return news

    def renew(self) -> bool:
        aged, self._aged = self._aged, False
        if aged:
            self.forget()
        return aged

    def forget(self) -> None:
        self._known.clear()
        self._lists.clear()
