"""Rule tables in memory. Obeys `fakes.table_contract`.

It checks of a rule what the kernel checks and felix can get wrong: that the chain it jumps to and the sets it names
exist. Rules come back in the words they were written in (the real thing saves them in words of its own).
"""

import re

from fakes.sets import FakeSets
from kernel.errors import DataplaneError, TableRefused
from kernel.xtables import CHAIN_PREFIXES, KERNEL_CHAINS, TableChange, TableKey, TableState, parse_save

_TARGET = re.compile(r"(?:^| )(?:-j|--jump|-g|--goto) (\S+)")
_SET = re.compile(r"--match-set (\S+)")

Rules = dict[str, list[str]]


def _short(rule: str) -> str:
    """Return a rule with the short options, as saved text has them."""
    return rule.replace("--jump ", "-j ").replace("--goto ", "-g ")


class FakeTables:
    """TableKernel. Names of missing sets are refused if `sets` is given.

    `refuse` holds chains whose every write fails; `unwritable` and `unreadable` fail everything; `silent` fails the
    question whether others wrote, `unprepared` the preparation. `log` keeps the transactions that worked.
    """

    poll_seconds: float | None = None

    def __init__(self, sets: FakeSets | None = None) -> None:
        self.refuse: set[str] = set()
        self.unreadable: DataplaneError | None = None
        self.unwritable: DataplaneError | None = None
        self.silent: DataplaneError | None = None
        self.unprepared: DataplaneError | None = None
        self.log: list[tuple[TableKey, TableChange]] = []
        self._sets = sets
        self._tables: dict[TableKey, Rules] = {}
        self._changed_elsewhere = False
        if sets is not None:
            sets.users.append(self._named_sets)

    def rules(self, key: TableKey) -> dict[str, tuple[str, ...]]:
        """Return all rules of a table by chain, foreign ones included."""
        return {chain: tuple(rules) for chain, rules in self._table(key).items()}

    def put(self, key: TableKey, chain: str, *rules: str) -> None:
        """Make or fill a chain as another program would."""
        table = self._table(key)
        table[chain] = list(rules)
        self._tables[key] = table
        self._changed_elsewhere = True

    # ---- TableKernel

    def read(self, key: TableKey) -> TableState:
        if self.unreadable is not None:
            raise self.unreadable
        table = self._table(key)
        lines = [f":{chain} {'ACCEPT' if chain in KERNEL_CHAINS[key.table] else '-'} [0:0]" for chain in table]
        lines += (
            f"-A {chain} {_short(rule)}".rstrip()
            for chain, rules in table.items()
            for rule in rules
        )
        return parse_save("\n".join(lines), key)

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        if not change:
            return {}
        if self.unwritable is not None:
            raise self.unwritable
        table = {chain: list(rules) for chain, rules in self._table(key).items()}
        self._change(key, table, change)
        self._check(key, table)
        self._tables[key] = table
        self.log.append((key, change))
        return self._remove(key, table, change)

    def changed_elsewhere(self) -> bool:
        if self.silent is not None:
            raise self.silent
        changed, self._changed_elsewhere = self._changed_elsewhere, False
        return changed

    def prepare(self) -> None:
        if self.unprepared is not None:
            raise self.unprepared

    def close(self) -> None:
        """Nothing is open."""

    # ---- inside

    def _table(self, key: TableKey) -> Rules:
        return self._tables.get(key) or {chain: [] for chain in KERNEL_CHAINS[key.table]}

    def _named_sets(self) -> set[str]:
        rules = (rule for table in self._tables.values() for chain in table.values() for rule in chain)
        return {name for rule in rules for name in _SET.findall(rule)}

    def _change(self, key: TableKey, table: Rules, change: TableChange) -> None:
        for chain in (*change.chains, *change.remove_chains):
            if chain in self.refuse:
                raise TableRefused(f"cannot write table {key}: refused, in {chain}", chain=chain)
            table[chain] = list(change.chains.get(chain, ()))
        for chain, rule in change.delete:
            saved = list(map(_short, table.get(chain, [])))
            if _short(rule) not in saved:
                raise TableRefused(f"cannot write table {key}: Bad rule, in '-D {chain} {rule}'", chain=chain)
            del table[chain][saved.index(_short(rule))]
        for chain, rules in change.insert.items():
            self._outside(key, table, chain)[:0] = rules
        for chain, rules in change.append.items():
            self._outside(key, table, chain).extend(rules)

    def _outside(self, key: TableKey, table: Rules, chain: str) -> list[str]:
        if chain not in table:
            raise TableRefused(f"cannot write table {key}: Chain '{chain}' does not exist", chain=chain)
        return table[chain]

    def _check(self, key: TableKey, table: Rules) -> None:
        for chain, rules in table.items():
            for rule in rules:
                target = _TARGET.search(rule)
                if target and target[1].startswith(CHAIN_PREFIXES) and target[1] not in table:
                    raise TableRefused(f"cannot write table {key}: Chain '{target[1]}' does not exist")
                missing = [name for name in _SET.findall(rule) if self._sets and name not in self._sets.members]
                if missing:
                    raise TableRefused(f"cannot write table {key}: Set {missing[0]} doesn't exist", chain=chain)

    def _remove(self, key: TableKey, table: Rules, change: TableChange) -> dict[str, DataplaneError]:
        failed: dict[str, DataplaneError] = {}
        for chain in sorted(change.remove_chains):
            jumps = [found for rules in table.values() for rule in rules for found in _TARGET.findall(rule)]
            if chain in jumps:
                failed[chain] = TableRefused(f"cannot write table {key}: busy, in '-X {chain}'", chain=chain)
            else:
                table.pop(chain, None)
        return failed
