"""What all operations of an allocator share: the store, the clock, deadlines and pauses, one owner at a time."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from ipam.edit import Edit
from ipam.errors import Contended
from ipam.source import ReadThrough, Source
from ipam.view import DecodedBlocks, Report, View, report_nothing
from resources.datastore.store import Committed, Lost, Outcome, Store
from resources.errors import StoreUnavailable
from resources.names import NodeName
from resources.runtime import backoff

CALL_TIMEOUT_SECONDS = 3.0
"""How long one request may take, so that a silent etcd member leaves time for another."""
LONGEST_PAUSE_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.002
CALM_SECONDS = 1.0
"""How long after a lost race a winner keeps giving way."""
COURTESY_SECONDS = 0.004


SourceFactory = Callable[[Callable[[], float]], Source]
"""Makes the source of one call; each request it has to make may take as many seconds as the function says."""


class Clock(backoff.Clock, Protocol):
    """Also tells the time of day."""

    def time_ns(self) -> int: ...


class SystemClock(backoff.SystemClock):
    """The real clock."""

    def time_ns(self) -> int:
        return time.time_ns()


class Attempts:
    """The tries of one call until its deadline: the second at once, the others after growing pauses at random."""

    def __init__(self, session: "Session", deadline: float, what: str) -> None:
        self._session, self._deadline, self._what = session, deadline, what
        self._lost = self._failed = 0

    @property
    def remaining(self) -> float:
        return self._deadline - self._session.clock.monotonic()

    def timeout(self) -> float:
        """Return the seconds the next request may take."""
        return max(0.1, min(self.remaining, CALL_TIMEOUT_SECONDS))

    def lost(self) -> None:
        """Note a lost race and wait before the next try.

        Raises:
            Contended: the deadline has passed.
        """
        self._session.conflicted()
        if self.remaining <= 0:
            raise Contended(
                f"{self._what} failed: others changed the same blocks faster, {self._lost + 1} times in a row",
                hint="Max retries hit - excessive concurrent IPAM requests; try again, or give nodes smaller pools",
                lost=self._lost + 1,
            )
        if self._lost:
            self._pause(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._lost, 10)))
        self._lost += 1

    def failed(self, error: StoreUnavailable) -> None:
        """Note that the store did not answer and wait before the next try. At the deadline raise `error`."""
        self._failed += 1
        if self.remaining <= 0:
            raise error
        self._pause(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failed + 3, 10)))

    def _pause(self, bound: float) -> None:
        self._session.clock.sleep(max(0.0, min(self._session.rng.uniform(0, bound), self.remaining)))


class Session:
    """One node's dealings with the store. Operations take turns: two threads never race each other at the store."""

    def __init__(
        self, store: Store, node: NodeName, *, clock: Clock | None = None, rng: random.Random | None = None,
        report: Report = report_nothing, source: SourceFactory | None = None,
    ) -> None:
        self.store, self.node = store, node
        self.clock = clock or SystemClock()
        self.rng = rng or random.Random()
        self.report = _Once(report)
        self.turn = threading.Condition()
        self._source = source
        self._decoded = DecodedBlocks()
        self._busy = False
        self._conflict_at = float("-inf")
        self._sequence = 0

    # --- turns

    @contextmanager
    def taking_turn(self) -> Iterator[None]:
        """Wait until no other thread is at work, then be the one that is."""
        with self.turn:
            while self._busy:
                self.turn.wait()
            self._busy = True
        try:
            yield
        finally:
            self.end_turn()

    def try_turn(self) -> bool:
        """Begin a turn if no other thread has it; call with `turn` held."""
        if self._busy:
            return False
        self._busy = True
        return True

    def end_turn(self) -> None:
        with self.turn:
            self._busy = False
            self.turn.notify_all()

    # --- time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.time_ns() // 1_000_000_000, UTC)

    def deadline(self, seconds: float) -> float:
        return self.clock.monotonic() + seconds

    def new_sequence(self) -> int:
        """Return the first sequence number of a new block: the time in ns, and never one given before."""
        self._sequence = max(self._sequence + 1, self.clock.time_ns())
        return self._sequence

    def conflicted(self) -> None:
        self._conflict_at = self.clock.monotonic()

    def give_way(self) -> None:
        """After a success: if others were in the way a moment ago, let them have a go."""
        if self.clock.monotonic() - self._conflict_at < CALM_SECONDS:
            self.clock.sleep(self.rng.uniform(0, COURTESY_SECONDS))

    # --- the store

    def view(self, timeout: Callable[[], float] = lambda: CALL_TIMEOUT_SECONDS) -> View:
        """Begin to read what will be compared when it is written: each request may take `timeout` seconds."""
        return self._view(self._source(timeout) if self._source else ReadThrough(self.store, timeout))

    def fresh_view(self, timeout: Callable[[], float] = lambda: CALL_TIMEOUT_SECONDS) -> View:
        """Begin to read from the store itself, for answers that no compare will check, or for much at once."""
        return self._view(ReadThrough(self.store, timeout))

    def _view(self, source: Source) -> View:
        return View(source, self.now, self.report, self.store.epoch, self._decoded)

    def commit(self, edit: Edit, view: View, attempts: Attempts) -> Outcome:
        """Send the transaction; the view learns what the store tells."""
        if view.has_lapsed():
            return Lost(0, {})
        outcome = self.store.commit(edit.transaction(), timeout=attempts.timeout())
        match outcome:
            case Committed(revision):
                view.source.wrote(edit.result(revision))
                for record, block in edit.blocks(revision):
                    view.remember(record, block)
            case Lost():
                view.source.learn(outcome.current)
        return outcome


class _Once:
    """Passes on a report about a key only once per revision of it."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told: dict[tuple[str, object], object] = {}

    def __call__(self, event: str, **facts: object) -> None:
        key, revision = facts.get("key"), facts.get("revision")
        if key is not None:
            if self._told.get((event, key)) == revision:
                return
            self._told[event, key] = revision
        self._report(event, **facts)
