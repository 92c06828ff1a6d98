"""Felix's own status in the store (reference felix.md 6.1, resources.md 3.1).

One key is under a lease, so that its absence tells of a dead agent; another one stays.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from resources.datastore import keys
from resources.datastore.store import Store, Transaction
from resources.errors import CalicoError
from resources.names import NodeName

FIRST_AFTER_SECONDS = 10.0


class StatusReporter:
    """A thread that reports at an interval. A failed report is logged once and tried at the next interval."""

    def __init__(
        self,
        store: Store,
        node: NodeName,
        *,
        interval_seconds: float = 30.0,
        ttl_seconds: float = 90.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._node = node
        self._interval = interval_seconds
        self._ttl = ttl_seconds
        self._now = now
        self._log = structlog.get_logger()
        self._started = time.monotonic()
        self._first = True
        self._failing = False
        self._stopped = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Begin to report."""
        threading.Thread(target=self._run, name="status", daemon=True).start()

    def follow(self, *, interval_seconds: float, ttl_seconds: float) -> None:
        """Report so often from now on (0: not at all), each status holding so long."""
        with self._changed:
            self._interval, self._ttl = interval_seconds, ttl_seconds
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        due = self._started + FIRST_AFTER_SECONDS
        while self._waited_until(due):
            self.report()
            due = time.monotonic() + self._interval

    def _waited_until(self, due: float) -> bool:
        """Wait until then, or as long as a new interval says; False: it is over."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._interval > 0:
                    due = min(due, now + self._interval)
                    if now >= due:
                        return True
                self._changed.wait(due - now if self._interval > 0 else None)
            return False

    def report(self) -> bool:
        """Write both keys; return whether it worked."""
        try:
            self._write()
        except CalicoError as error:
            if not self._failing:
                self._log.warning("status.write_failed", error=str(error), retry_seconds=self._interval)
            self._failing = True
            return False
        self._failing = self._first = False
        return True

    def _write(self) -> None:
        value = json.dumps(
            {
                "time": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                "uptime": round(time.monotonic() - self._started, 3),
                "first_update": self._first,
            },
            separators=(",", ":"),
        ).encode()
        self._store.commit(Transaction(puts={keys.felix_last_status_key(self._node): value}))
        self._store.commit(
            Transaction(puts={keys.felix_status_key(self._node): value}, lease_seconds=max(1, int(self._ttl)))
        )
