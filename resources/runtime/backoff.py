"""Bounded waits with full jitter, and the clock as a port so that tests need no sleep."""

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds and sleeping."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Backoff:
    """Waits that grow from `first` to `most` seconds, each drawn at random below its bound ("full jitter")."""

    def __init__(self, first: float, most: float, *, rng: random.Random | None = None) -> None:
        self._first, self._most = first, most
        self._tries = 0
        self._rng = rng or random.Random()

    def next(self) -> float:
        """Return the seconds to wait before the next try."""
        bound = min(self._most, self._first * 2 ** min(self._tries, 30))
        self._tries += 1
        return self._rng.uniform(bound / 2, bound)

    def reset(self) -> None:
        self._tries = 0
