"""List, watch, in sync: keeps a daemon's owner thread told of everything below some prefixes of the store.

It owns what the daemons must not care about: reading everything once, following the changes, coming back after the
store was away (from where it stopped), reading again after a compaction (telling the differences only) or after the
store was restored from an older copy (telling everything), and never taking a failed read for deletions.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from resources.datastore.store import Batch, Compacted, Store, Watch, WatchEnded
from resources.datastore.sync import Change, Changes, InSync, OutOfSync, SyncMessage
from resources.errors import CalicoError
from resources.runtime.backoff import Backoff

Sink = Callable[[SyncMessage], None]

_UNKNOWN_REVISION = -1
_STEADY_SECONDS = 5.0


class Syncer:
    """Reads `prefixes` of `store` in a thread of its own and hands messages to `sink`, in that thread.

    First come `Changes` with all there is (at most `chunk` changes each), then one `InSync`, then `Changes` as they
    happen. When the store stops answering (also at the very start) one `OutOfSync` says why, and an `InSync` follows
    when it is back. A watch that could be opened again at the first try is not worth a message.

    An exception that is no CalicoError, of `sink` for example, is a bug: it goes to `on_crash` (default:
    `threading.excepthook`) and the thread ends.
    """

    def __init__(
        self,
        store: Store,
        prefixes: Iterable[str],
        sink: Sink,
        *,
        chunk: int = 1000,
        backoff: Backoff | None = None,
        on_crash: Callable[[Exception], None] | None = None,
    ) -> None:
        self._store = store
        self._prefixes = _without_covered(prefixes)
        self._sink = sink
        self._chunk = chunk
        self._backoff = backoff or Backoff(0.1, 5.0)
        self._on_crash = on_crash
        self._revisions: dict[str, dict[str, int]] = {prefix: {} for prefix in self._prefixes}
        """Per prefix what was told of the keys below it, without the prefix: there may be many."""
        self._positions: dict[str, int] = {}
        """Per prefix the revision up to which everything was told; missing: to be listed."""
        self._epoch = store.epoch()
        self._told: bool | None = None
        """True: InSync was said last; False: OutOfSync."""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)

    @property
    def in_sync(self) -> bool:
        """True if the last thing said about the store was that it answers."""
        return self._told is True

    def start(self) -> None:
        """Begin; messages come from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End; callable from any thread. No message comes after it returned, which it does promptly."""
        with self._lock:
            self._stopping.set()
            watch = self._watch
        if watch is not None:
            watch.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    # --- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except Exception as error:
            if self._on_crash is None:
                raise
            self._on_crash(error)

    def _turn(self) -> None:
        """List what must be listed, then watch until that ends; wait a little if it ended badly."""
        try:
            self._follow()
            return
        except Compacted:
            self._positions.clear()
        except WatchEnded:
            pass
        except CalicoError as error:
            self._say_out_of_sync(str(error))
        self._stopping.wait(self._backoff.next())

    def _follow(self) -> None:
        self._notice_another_store()
        for prefix in self._prefixes:
            if prefix not in self._positions:
                self._list(prefix)
        with self._store.watch({prefix: position + 1 for prefix, position in self._positions.items()}) as watch:
            if self._store.epoch() != self._epoch:
                return
            with self._lock:
                if self._stopping.is_set():
                    return
                self._watch = watch
            self._say_in_sync()
            opened = time.monotonic()
            try:
                for batch in watch:
                    if self._store.epoch() != self._epoch:
                        return
                    self._take(batch)
                    self._backoff.reset()
            finally:
                self._watch = None
                if time.monotonic() - opened > _STEADY_SECONDS:
                    self._backoff.reset()

    def _notice_another_store(self) -> None:
        """Forget revisions, and that anything was read, if the store is not the one it was.

        The keys are kept: those that the store no longer has must still be told as deleted.
        """
        epoch = self._store.epoch()
        if epoch != self._epoch:
            self._epoch = epoch
            self._positions.clear()
            for known in self._revisions.values():
                known.update(dict.fromkeys(known, _UNKNOWN_REVISION))

    def _list(self, prefix: str) -> None:
        """Read a prefix and tell how it differs from what was told before."""
        snapshot = self._store.list(prefix)
        known = self._revisions[prefix]
        gone = sorted(known.keys() - {item.key.removeprefix(prefix) for item in snapshot.items})
        changes = [Change(prefix + rest, None, snapshot.revision) for rest in gone]
        changes += [
            Change(item.key, item.value, item.revision)
            for item in snapshot.items
            if known.get(item.key.removeprefix(prefix)) != item.revision
        ]
        self._tell(prefix, changes)
        self._positions[prefix] = snapshot.revision

    def _take(self, batch: Batch) -> None:
        self._tell(batch.prefix, [Change(event.key, event.value, event.revision) for event in batch.events])
        self._positions[batch.prefix] = batch.revision

    def _tell(self, prefix: str, changes: Sequence[Change]) -> None:
        known = self._revisions[prefix]
        for change in changes:
            rest = change.key.removeprefix(prefix)
            if change.value is None:
                known.pop(rest, None)
            else:
                known[rest] = change.revision
        for start in range(0, len(changes), self._chunk):
            self._emit(Changes(tuple(changes[start : start + self._chunk])))

    def _say_in_sync(self) -> None:
        if self._told is not True:
            self._told = True
            self._emit(InSync())

    def _say_out_of_sync(self, reason: str) -> None:
        if self._told is not False:
            self._told = False
            self._emit(OutOfSync(reason))

    def _emit(self, message: SyncMessage) -> None:
        with self._lock:
            if not self._stopping.is_set():
                self._sink(message)


def _without_covered(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return the prefixes in their order, without repeats and those that another one contains."""
    unique = list(dict.fromkeys(prefixes))
    return tuple(
        prefix for prefix in unique if not any(prefix != other and prefix.startswith(other) for other in unique)
    )
