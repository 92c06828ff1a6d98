"""What writes small changes is loaded beside other work; until it is there nobody waits for it."""

import threading
from collections.abc import Sequence

from felix.back_end import LoadedLater
from kernel.xtables import TableChange, TableKey
from kernel.xtables_legacy import SmallWriter

FILTER = TableKey(4, "filter")
CHANGE = TableChange(chains={"cali-a": ("-j DROP",)})


class Writer:
    """Understands everything, and remembers it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, key: TableKey, change: TableChange) -> bool:
        self.done.append((key, change))
        return True

    def remove(self, key: TableKey, chains: Sequence[str]) -> bool:
        self.done.append((key, chains))
        return True


def test_what_is_not_loaded_yet_leaves_changes_to_the_restore_program() -> None:
    begun, may_go_on, writer = threading.Event(), threading.Event(), Writer()

    def load() -> SmallWriter:
        begun.set()
        may_go_on.wait(10)
        return writer

    later = LoadedLater(load)
    assert begun.wait(10)
    assert not later.write(FILTER, CHANGE)
    assert not later.remove(FILTER, ["cali-a"])
    may_go_on.set()
    later.wait()
    assert later.write(FILTER, CHANGE)
    assert later.remove(FILTER, ["cali-a"])
    assert writer.done == [(FILTER, CHANGE), (FILTER, ["cali-a"])]


def test_what_cannot_be_had_leaves_them_to_it_for_good() -> None:
    later = LoadedLater(lambda: None)
    later.wait()
    assert not later.write(FILTER, CHANGE)
    assert not later.remove(FILTER, ["cali-a"])
