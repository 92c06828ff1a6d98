"""Hosts to which there is no route though there should be one: shown at once, told of when it lasts. No I/O, no clock.

A host that joins claims a block a moment before its tunnel address is in the store, and so do all hosts when a pool
begins to ask for tunnels: that is nobody's trouble.
"""

from collections.abc import Mapping

from resources.names import NodeName

LASTING_SECONDS = 5.0


class Withheld:
    """What is missing now, by the host, and what of it people have heard of."""

    def __init__(self) -> None:
        self._texts: dict[NodeName, str] = {}
        self._told: set[NodeName] = set()
        self._tell_at: dict[NodeName, float] = {}

    def take(self, changes: Mapping[NodeName, str | None], now: float) -> list[NodeName]:
        """Take what changed at `now`, by a monotonic clock; return the hosts whose trouble was told of and is over."""
        over = []
        for name, text in changes.items():
            if text is not None:
                self._texts[name] = text
                self._tell_at.setdefault(name, now + LASTING_SECONDS)
                continue
            self._texts.pop(name, None)
            self._tell_at.pop(name, None)
            if name in self._told:
                self._told.discard(name)
                over.append(name)
        return over

    def lasting(self, now: float) -> dict[NodeName, str]:
        """Return what is to be told of now; it is taken for told."""
        names = [name for name, at in self._tell_at.items() if now >= at]
        for name in names:
            del self._tell_at[name]
            self._told.add(name)
        return {name: self._texts[name] for name in names}

    @property
    def due(self) -> float | None:
        """When there may be something to tell of, or None."""
        return min(self._tell_at.values(), default=None)

    @property
    def texts(self) -> dict[str, str]:
        """Everything that is missing now; callable from any thread."""
        return dict(sorted(self._texts.copy().items()))
