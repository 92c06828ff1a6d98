"""What an earlier felix left in the back end that is not used any more (reference felix.md 1.7, 7.7)."""

from collections.abc import Callable, Mapping, Sequence

import structlog

from kernel.errors import DataplaneError, TableIncompatible
from kernel.xtables import TableChange, TableKernel, TableKey

Find = Callable[[], tuple[TableKernel, Sequence[TableKey]] | None]


class LeftOver:
    """Our chains and our rules in the other back end; they go once, when ours are in place in the one that is used."""

    def __init__(self, find: Find) -> None:
        """`find` returns the other back end and its tables, or None if there is none."""
        self._find = find
        self._done = False

    def sweep(self) -> Mapping[str, DataplaneError]:
        """Remove what is there, a table at a time; what fails is returned and tried again at the next call."""
        if self._done:
            return {}
        failed: dict[str, DataplaneError] = {}
        if (found := self._find()) is not None:
            tables, keys = found
            for key in keys:
                try:
                    self._sweep(tables, key)
                except TableIncompatible:
                    continue  # native objects of others stand in it, which no felix of ours would have written beside
                except DataplaneError as error:
                    failed[f"old table {key}"] = error
            tables.close()
        self._done = not failed
        return failed

    def _sweep(self, tables: TableKernel, key: TableKey) -> None:
        state = tables.read(key)
        change = TableChange(
            delete=[(chain, rule.text) for chain, rules in state.outside.items() for rule in rules if rule.text],
            remove_chains=frozenset(state.chains),
        )
        if not change:
            return
        stuck = tables.write(key, change)
        structlog.get_logger().info(
            "backend.swept", table=str(key), chains=len(state.chains) - len(stuck), rules=len(change.delete),
            reason="rules are written with the other back end now",
        )  # fmt: skip
        for error in stuck.values():
            raise error
