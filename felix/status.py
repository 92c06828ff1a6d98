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
        interval_seconds: float,
        ttl_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._node = node
        self._interval = interval_seconds
        self._ttl = ttl_seconds
        self._now = now
        self._log = structlog.get_logger().bind(component="felix.status")
        self._started = time.monotonic()
        self._first = True
        self._failing = False
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to report, unless the interval is 0."""
        if self._interval > 0:
            threading.Thread(target=self._run, name="status", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        wait = min(FIRST_AFTER_SECONDS, self._interval)
        while not self._stopping.wait(wait):
            self.report()
            wait = self._interval

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
