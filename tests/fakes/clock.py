"""A clock that only the test moves."""


class ManualClock:
    """Implements `resources.runtime.backoff.Clock`; sleeping moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
