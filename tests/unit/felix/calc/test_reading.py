"""Records go to whoever reads their kind; one that cannot be used counts as absent, for that reader only."""

from collections.abc import Mapping

from fakes.felix_records import pool
from felix.calc.problems import Problems
from felix.calc.reading import Reader, Readers
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource


class Pools:
    """Keeps the pools that it was told of; cannot use those of `refused`."""

    def __init__(self, refused: str = "", remark: str = "") -> None:
        self.kept: set[ResourceKey] = set()
        self.readers: Mapping[str, Reader] = {"ippools": self._read}
        self._refused = refused
        self._remark = remark

    def _read(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is None:
            self.kept.discard(key)
            return ()
        if key.name == self._refused:
            raise ValueError("no such thing")
        self.kept.add(key)
        return (self._remark,) if self._remark else ()


def test_a_record_that_one_reader_cannot_use_is_there_for_the_others() -> None:
    key, value = pool("10.0.0.0/16")
    problems, picky, other = Problems(), Pools(refused=key.name), Pools()
    readers = Readers(problems, (picky, other))
    readers.update(key, value)
    assert (picky.kept, other.kept) == (set(), {key})
    assert problems.take_changes() == {key: ("it cannot be used and counts as absent: no such thing",)}


def test_what_several_readers_say_alike_is_said_once_and_goes_with_the_record() -> None:
    key, value = pool("10.0.0.0/16")
    problems = Problems()
    readers = Readers(problems, (Pools(remark="odd"), Pools(remark="odd"), Pools(remark="even")))
    readers.update(key, value)
    assert problems.take_changes() == {key: ("odd", "even")}
    readers.update(key, None)
    assert problems.take_changes() == {key: ()}


def test_kinds_that_nobody_reads_are_ignored() -> None:
    key, value = pool("10.0.0.0/16")
    problems = Problems()
    readers = Readers(problems, ())
    readers.update(key, value)
    assert (readers.plurals, problems.whole()) == (frozenset(), {})
