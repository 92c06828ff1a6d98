"""Who reads the records of which kind; and what becomes of a record that cannot be read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from felix.calc.problems import Problems
from resources.datastore.keys import ResourceKey
from resources.errors import Rejected
from resources.kinds.base import Resource

V = TypeVar("V")

Reader = Callable[[ResourceKey, Resource | None], tuple[str, ...]]
"""Takes one record as it is now, None: it is gone. Keeps what matters of it, notes what that may change, and returns
what is wrong with parts of it that are passed over. Raises ValueError or Rejected if it can use nothing of it."""


class Part(Protocol):
    """A part of the calculation that reads records.

    What it has to conclude from them is of a type of its own: `conclude`, which `Graph.flush` calls, returns what
    differs from the last time. That depends on the current records and the parameters only.
    """

    @property
    def readers(self) -> Mapping[str, Reader]:
        """By the plural of the kind. A kind may be read by several parts."""


class Readers:
    """Hands each record to those who read its kind. One that cannot be used counts as absent, and becomes a problem."""

    def __init__(self, problems: Problems, parts: Iterable[Part]) -> None:
        self._problems = problems
        self._by_plural: dict[str, list[Reader]] = {}
        for part in parts:
            for plural, reader in part.readers.items():
                self._by_plural.setdefault(plural, []).append(reader)

    @property
    def plurals(self) -> frozenset[str]:
        """The kinds that somebody reads."""
        return frozenset(self._by_plural)

    def update(self, key: ResourceKey, value: Resource | None) -> None:
        """Hand a record on; kinds that nobody reads are ignored."""
        readers = self._by_plural.get(key.plural, ())
        if value is None:
            self._problems.forget(key)
        problems: dict[str, None] = {}
        for reader in readers:
            problems |= dict.fromkeys(_read(reader, key, value))
        self._problems.note(key, "record", problems)


def _read(reader: Reader, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
    if value is None:
        return reader(key, None)
    try:
        return reader(key, value)
    except (ValueError, Rejected) as error:
        reader(key, None)
        return (f"it cannot be used and counts as absent: {error}",)


def expected(kind: type[V], value: object) -> V:
    """Return the value as what the store's types promise for its kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value
