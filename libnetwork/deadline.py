"""The time a call of Docker may take: Docker itself sets no limit, and a user waits behind every call."""

from resources.errors import Transient
from resources.runtime.backoff import Clock, SystemClock


class OutOfTime(Transient):
    """The call's time is over before its work was done."""

    reference = "out-of-time"


class Deadline:
    """Counts down from `seconds`, its whole length."""

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._ends = self._clock.monotonic() + seconds

    def left(self, *, at_most: float | None = None) -> float:
        """Return the seconds that are left, more than 0; with `at_most` no more than that.

        Raises:
            OutOfTime: none is left.
        """
        left = self._ends - self._clock.monotonic()
        if left <= 0:
            raise OutOfTime(f"the call was not done after {self._seconds:g} s", hint="try again")
        return left if at_most is None else min(left, at_most)
