"""What could not be removed because etcd was away: Docker asks only once, so it is tried again from here.

Kept in memory only. What a process that dies meanwhile leaves behind is found by comparing the store with Docker.
"""

import threading
from collections.abc import Callable

import structlog

from libnetwork.deadline import Deadline
from resources.errors import CalicoError, Transient
from resources.runtime.backoff import Backoff

Removal = Callable[[Deadline], object]
"""May be done twice. Raises Transient if it is worth another try."""

log = structlog.get_logger()


class Leftovers:
    """Removals that wait for the store, by what they remove. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[str, Removal] = {}
        self._changed = threading.Condition()
        self._stopping = False

    def add(self, what: str, removal: Removal) -> None:
        with self._changed:
            self._waiting[what] = removal
            self._changed.notify_all()
        log.warning("removal.postponed", what=what)

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting)

    def try_all(self, *, seconds: float) -> None:
        """Try each removal once, for at most `seconds`; those that fail for now stay."""
        with self._changed:
            waiting = list(self._waiting.items())
        for what, removal in waiting:
            try:
                removal(Deadline(seconds))
            except Transient:
                continue
            except CalicoError as error:
                log.error("removal.given_up", what=what, error=str(error))
            else:
                log.info("removal.done", what=what)
            with self._changed:
                if self._waiting.get(what) is removal:
                    del self._waiting[what]

    def run(self, *, seconds: float) -> None:
        """Try again and again, with growing pauses, until `stop`."""
        backoff = Backoff(0.5, 10.0)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting)
                if not self._stopping:
                    self._changed.wait_for(lambda: self._stopping, timeout=backoff.next())
                if self._stopping:
                    return
            self.try_all(seconds=seconds)
            if not len(self):
                backoff.reset()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
