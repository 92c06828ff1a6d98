"""Desired, actual and the difference, under the kernel's own key. One class for all effectors; no I/O."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_NOTHING = object()


class Delta(Generic[K, V]):
    """Two maps and the keys on which they differ, kept up to date so that an apply costs what changed.

    `want`/`unwant` change the desired side, `saw`/`gone` what is known of the actual side. `missing` yields what
    must be written, `stale` what must be removed.
    """

    def __init__(self, order: Callable[[K], Any] = str) -> None:
        """`order`: what keys are sorted by, for `missing` and `stale`."""
        self._order = order
        self._desired: dict[K, V] = {}
        self._actual: dict[K, V] = {}
        self._dirty: set[K] = set()

    @property
    def desired(self) -> Mapping[K, V]:
        return self._desired

    @property
    def actual(self) -> Mapping[K, V]:
        return self._actual

    def want(self, key: K, value: V) -> None:
        self._desired[key] = value
        self._note(key)

    def unwant(self, key: K) -> None:
        self._desired.pop(key, None)
        self._note(key)

    def want_all(self, desired: Mapping[K, V]) -> None:
        """Replace the whole desired side."""
        for key in self._desired.keys() - desired.keys():
            self.unwant(key)
        for key, value in desired.items():
            if self._desired.get(key) != value:
                self.want(key, value)

    def saw(self, key: K, value: V) -> None:
        """Note that the kernel now has `value` at `key`."""
        self._actual[key] = value
        self._note(key)

    def gone(self, key: K) -> None:
        """Note that the kernel has nothing of ours at `key`."""
        self._actual.pop(key, None)
        self._note(key)

    def saw_all(self, actual: Mapping[K, V]) -> None:
        """Replace what is known of the actual side by a full read."""
        self._actual = dict(actual)
        self._dirty = {
            key for key in self._actual.keys() | self._desired.keys() if not self._settled(key)
        }

    def missing(self) -> Iterator[tuple[K, V]]:
        """Yield what is desired and not there (or there with another value), in a stable order."""
        for key in self._ordered(key for key in self._dirty if key in self._desired):
            yield key, self._desired[key]

    def stale(self) -> Iterator[K]:
        """Yield keys that are there and not desired, in a stable order."""
        yield from self._ordered(key for key in self._dirty if key not in self._desired and key in self._actual)

    def __bool__(self) -> bool:
        """True if anything is to be written or removed."""
        return bool(self._dirty)

    def _ordered(self, keys: Iterable[K]) -> list[K]:
        return sorted(keys, key=self._order)

    def _settled(self, key: K) -> bool:
        wanted, there = self._desired.get(key, _NOTHING), self._actual.get(key, _NOTHING)
        # most equal ones are the same object
        return wanted is there or wanted == there

    def _note(self, key: K) -> None:
        if self._settled(key):
            self._dirty.discard(key)
        else:
            self._dirty.add(key)
