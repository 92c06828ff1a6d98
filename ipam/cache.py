"""What one node's allocator needs of the store, kept between calls, so that an operation is its transaction.

A watch follows what is small and seldom changes: settings, pools, reservations, this node and its tickets. Blocks and
handles are remembered from our own transactions, or from one that somebody else made lose: a watch on all blocks would
bring every host the work of every other.

Correctness never rests on it: what a plan is made from is compared, and what no compare checks is read from the store
first: that nothing is free, that an address is not allocated, which blocks exist when a new one is needed (reference
ipam.md 6.2, 6.3). Only reservations are as old as the watch: an assignment made just now may not know one written a
moment ago.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ipam import pools as pool_form
from ipam.source import ReadThrough, Source
from ipam.view import RESERVATIONS_PREFIX
from resources.datastore import keys
from resources.datastore.store import KeyValue, Store
from resources.datastore.sync import Changes, InSync, OutOfSync, SyncMessage
from resources.names import NodeName

MOST_BLOCKS: Final = 256
MOST_HANDLES: Final = 4096


class WatchedCache:
    """Feed it by a syncer: ``Syncer(store, cache.prefixes, cache.take)``, and give `source` to an Allocator."""

    def __init__(self, store: Store, node: NodeName) -> None:
        self._store = store
        self.prefixes: tuple[str, ...] = (
            keys.affinities_prefix(node), keys.IPAM_CONFIG, pool_form.PREFIX, RESERVATIONS_PREFIX,
            keys.kind_prefix("nodes") + node,
        )
        self._lock = threading.Lock()
        self._watched: dict[str, dict[str, KeyValue]] = {prefix: {} for prefix in self.prefixes}
        self._blocks: OrderedDict[str, KeyValue] = OrderedDict()
        self._handles: OrderedDict[str, KeyValue] = OrderedDict()
        self._epoch = store.epoch()
        self._is_in_sync = False

    # --- what the watch tells

    def take(self, message: SyncMessage) -> None:
        """Take a syncer's message; in its thread."""
        with self._lock:
            match message:
                case Changes(changes):
                    self._drop_lost_history()
                    for change in changes:
                        value = change.value
                        record = None if value is None else KeyValue(change.key, value, change.revision)
                        self._set(change.key, record, change.revision)
                case InSync():
                    self._is_in_sync = True
                case OutOfSync():
                    self._is_in_sync = False

    def _drop_lost_history(self) -> None:
        if self._store.epoch() != self._epoch:
            self._epoch = self._store.epoch()
            self._blocks.clear()
            self._handles.clear()
            for entries in self._watched.values():
                entries.clear()

    def _set(self, key: str, record: KeyValue | None, revision: int) -> None:
        """Note a watched key's state at a revision, unless a newer one is known."""
        entries = self._entries_of(key)
        if entries is None or ((known := entries.get(key)) is not None and known.revision > revision):
            return
        if record is None:
            entries.pop(key, None)
        else:
            entries[key] = record

    def _entries_of(self, key: str) -> dict[str, KeyValue] | None:
        for prefix, entries in self._watched.items():
            if key.startswith(prefix):
                return entries
        return None

    # --- what calls ask and tell

    def source(self, timeout: Callable[[], float]) -> Source:
        """Return what one call reads from: the cache, or the store while the watch is behind."""

        def fresh() -> ReadThrough:
            return ReadThrough(self._store, timeout)

        with self._lock:
            return CachedSource(self, fresh, is_renewed=not self._is_in_sync)

    def watches(self, key_or_prefix: str) -> bool:
        return self._entries_of(key_or_prefix) is not None

    def get(self, key: str) -> KeyValue | None:
        """Return a key as last told; None: it is absent, or it is not watched and we have not met it."""
        with self._lock:
            entries = self._entries_of(key)
            if entries is None:
                entries = self._blocks if key.startswith(keys.IPAM_BLOCKS) else self._handles
            return entries.get(key)

    def below(self, prefix: str) -> Sequence[KeyValue]:
        """Return what is below a watched prefix, sorted by key."""
        with self._lock:
            entries = self._entries_of(prefix) or {}
            return [record for key, record in sorted(entries.items()) if key.startswith(prefix)]

    def learn(self, current: Mapping[str, KeyValue | None]) -> None:
        """Take note of what a transaction wrote or found; absence counts as of now."""
        with self._lock:
            for key, record in current.items():
                if key.startswith(keys.IPAM_BLOCKS):
                    _remember(self._blocks, key, record, MOST_BLOCKS)
                elif key.startswith(keys.IPAM_HANDLES):
                    _remember(self._handles, key, record, MOST_HANDLES)
                elif record is not None:
                    self._set(key, record, record.revision)
                elif (entries := self._entries_of(key)) is not None:
                    entries.pop(key, None)


def _remember(known: OrderedDict[str, KeyValue], key: str, record: KeyValue | None, most: int) -> None:
    known.pop(key, None)
    if record is not None:
        known[key] = record
        if len(known) > most:
            known.popitem(last=False)


class CachedSource:
    """One call's reading: what it saw once stays as it is for it, so that a plan is made from one state per key."""

    def __init__(self, cache: WatchedCache, fresh: Callable[[], ReadThrough], *, is_renewed: bool) -> None:
        self._cache, self._fresh, self._through = cache, fresh, fresh()
        self._is_renewed = is_renewed
        self._has_news = False
        self._seen: dict[str, KeyValue | None] = {}
        self._lists: dict[str, dict[str, KeyValue]] = {}

    def get(self, key: str) -> KeyValue | None:
        if self._is_renewed:
            return self._through.get(key)
        if key not in self._seen:
            known = self._cache.get(key)
            if known is None and not self._cache.watches(key):
                known = self._through.get(key)
                self._cache.learn({key: known})
            self._seen[key] = known
        return self._seen[key]

    def list(self, prefix: str) -> Sequence[KeyValue]:
        if self._is_renewed:
            return self._through.list(prefix)
        if not self._cache.watches(prefix):
            return self._list_fresh(prefix)
        if prefix not in self._lists:
            self._lists[prefix] = {record.key: record for record in self._cache.below(prefix)}
            for key, record in self._seen.items():
                self._note(key, record)
        return [record for _, record in sorted(self._lists[prefix].items())]

    def _list_fresh(self, prefix: str) -> Sequence[KeyValue]:
        """Read a prefix that no watch follows; what was remembered of it gives way."""
        records = self._through.list(prefix)
        there = {record.key: record for record in records}
        for key in [key for key in self._seen if key.startswith(prefix)]:
            if self._seen[key] != there.get(key):
                self._has_news = True
                self._seen[key] = there.get(key)
                self._cache.learn({key: there.get(key)})
        return records

    def has_news(self) -> bool:
        news, self._has_news = self._has_news, False
        return self._through.has_news() or news

    def learn(self, current: Mapping[str, KeyValue | None]) -> None:
        self._through.learn(current)
        self._remember(current)

    def wrote(self, current: Mapping[str, KeyValue | None]) -> None:
        self._through.wrote(current)
        self._remember(current)

    def _remember(self, current: Mapping[str, KeyValue | None]) -> None:
        self._cache.learn(current)
        self._seen.update(current)
        for key, record in current.items():
            self._note(key, record)

    def _note(self, key: str, record: KeyValue | None) -> None:
        for prefix, below in self._lists.items():
            if key.startswith(prefix):
                if record is None:
                    below.pop(key, None)
                else:
                    below[key] = record

    def assume_absent(self, key: str) -> None:
        if self._is_renewed:
            self._through.assume_absent(key)
        elif not self._cache.watches(key):
            self._seen.setdefault(key, self._cache.get(key))

    def renew(self) -> bool:
        if self._is_renewed:
            return self._through.renew()
        self.forget()
        return True

    def forget(self) -> None:
        """Read from the store itself from now on."""
        self._is_renewed = True
        self._through = self._fresh()
