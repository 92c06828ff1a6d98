"""Rule tables by iptables-legacy, for hosts whose other rules are there, and kernels without nftables.

A legacy table is copied whole by each commit, so a write costs what the table holds; small changes are made in process,
by python-iptables where that is installed, the rest by ``iptables-legacy-restore --noflush`` (reference felix.md 7.3,
7.4, 7.9). Either way the xtables lock is held from before the first look to after the commit.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kernel.errors import DataplaneError
from kernel.programs import Outcome, run
from kernel.xtables import TableChange, TableKey, TableState, compose, parse_save
from kernel.xtables_info import TableInfo
from kernel.xtables_lock import LockEvents, XtablesLock
from kernel.xtables_restore import refusal, remove_chains

SMALL_CHANGE: Final = 30
"""Rules. About here the program, started anew each time, becomes as quick as python-iptables (felix.md 7.3, 7.4)."""
_TIMEOUT_SECONDS: Final = 120.0
_WAIT_SECONDS: Final = "5"
_LOCK_IS_NAMED_SINCE: Final = (1, 8, 6)
"""The version of iptables that knows the variable XTABLES_LOCKFILE."""
_STATUS_LOCKED: Final = 4
_VERSION: Final = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


class SmallWriter(Protocol):
    """Makes small changes without a process; kernel.xtables_iptc has one."""

    def write(self, key: TableKey, change: TableChange) -> bool:
        """Make a change, with the chains to go emptied only, or leave all as it is and return False.

        The restore program is to try it then, and says what is wrong with it.
        """

    def remove(self, key: TableKey, chains: Sequence[str]) -> bool:
        """Delete chains that are empty, all of them, or leave all as it is and return False."""


class LegacyTables:
    """TableKernel on iptables-legacy-save and -restore, in the network namespace of the calling thread.

    One object serves all tables of both families. What others do is noticed by the lock that their programs let go, and
    by the size of each table, which is asked every `poll_seconds`. What neither shows, a rule replaced by one of the
    same size without the lock, is found when the tables are read back.
    """

    poll_seconds: float | None = 0.3

    def __init__(self, lock: XtablesLock | None = None, *, small: SmallWriter | None = None) -> None:
        """`small` makes the small changes; without it the restore program makes all of them."""
        self._lock = lock or XtablesLock()
        self._small = small
        self._info = TableInfo()
        self._events: LockEvents | None = None
        self.deaf: DataplaneError | None = None
        """Why the lock cannot be watched, if so."""
        try:
            self._events = LockEvents(self._lock.path)
        except DataplaneError as error:
            self.deaf = error
        self._sizes: dict[TableKey, bytes] = {}
        self._changed = False
        self._names_lock: bool | None = None

    def close(self) -> None:
        self._info.close()
        self._lock.close()
        if self._events is not None:
            self._events.close()

    def read(self, key: TableKey) -> TableState:
        size = self._info.of(key)
        outcome = run((_program(key, "save"), "-t", key.table), timeout=_TIMEOUT_SECONDS)
        if outcome.status:
            raise outcome.failure(f"cannot read table {key}")
        self._sizes[key] = size
        return parse_save(outcome.output, key)

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        if not change:
            return {}
        if not self._can_name_lock():  # such programs take the lock themselves, so it cannot be held around them
            return self._measured(key, lambda: self._write_whole(key, change))
        with self._lock.held():
            return self._measured(key, lambda: self._write_small(key, change))

    def changed_elsewhere(self) -> bool:
        changed = self._changed or (self._events is not None and self._events.happened())
        self._changed = False
        for key in list(self._sizes):
            changed |= self._is_resized(key)
        return changed

    def prepare(self) -> None:
        """Nothing: a legacy write must not have read the table before it has the lock."""

    def _measured(self, key: TableKey, write: Callable[[], dict[str, DataplaneError]]) -> dict[str, DataplaneError]:
        """Write, and take the size of the table afterwards for ours; that of before tells whether others wrote."""
        self._changed |= self._is_resized(key)
        try:
            return write()
        finally:
            self._sizes[key] = self._info.of(key)

    def _is_resized(self, key: TableKey) -> bool:
        """Return whether a table has another size than we know of, and know it from now on."""
        before, now = self._sizes.get(key), self._info.of(key)
        self._sizes[key] = now
        return before is not None and before != now

    def _write_small(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        """Write in process what is small, and with the restore program what is not or is not understood."""
        if self._small is None or rule_count(change) > SMALL_CHANGE or not self._small.write(key, change):
            return self._write_whole(key, change)
        doomed = sorted(change.remove_chains)
        if not doomed or self._small.remove(key, doomed):
            return {}
        return remove_chains(key, doomed, self._restore)

    def _write_whole(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        self._restore(key, compose(key, change))
        return remove_chains(key, sorted(change.remove_chains), self._restore)

    def _restore(self, key: TableKey, lines: Sequence[str]) -> None:
        outcome = run(
            (_program(key, "restore"), "--noflush", "--wait", _WAIT_SECONDS),
            feed="\n".join(lines) + "\n",
            timeout=_TIMEOUT_SECONDS,
            env={"XTABLES_LOCKFILE": f"{self._lock.path}.calico"} if self._can_name_lock() else {},
        )
        if outcome.status == _STATUS_LOCKED:
            raise outcome.failure(f"cannot write table {key}")
        if outcome.status:
            raise refusal(key, lines, outcome)

    def _can_name_lock(self) -> bool:
        """Whether the restore program can be told another lock, so that it does not wait for ours."""
        if self._names_lock is None:
            self._names_lock = version_of(run(("iptables-legacy-restore", "--version"))) >= _LOCK_IS_NAMED_SINCE
        return self._names_lock


def version_of(outcome: Outcome) -> tuple[int, int, int]:
    """Return the version that a program of iptables printed; zeros if it printed none."""
    found = _VERSION.search(outcome.output)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def rule_count(change: TableChange) -> int:
    """Return how many rules and chains a change is about."""
    rules = (*change.chains.values(), *change.insert.values(), *change.append.values())
    return sum(map(len, rules)) + len(change.chains) + len(change.delete) + len(change.remove_chains)


def _program(key: TableKey, verb: str) -> str:
    return f"{'ip6tables' if key.version == 6 else 'iptables'}-legacy-{verb}"
