"""Rule tables by iptables-nft: what Docker uses on a current Debian, and the default (reference felix.md 7.7).

Every write is one ``iptables-nft-restore --noflush``, which costs what the change costs, not what the table holds
(reference felix.md 7.4). No lock is needed: the kernel refuses a transaction made on an older generation and the
program starts it again.
"""

import re
from collections.abc import Sequence
from typing import Final

from kernel.errors import DataplaneError
from kernel.nfgen import Generation
from kernel.programs import run
from kernel.standing import Standing
from kernel.xtables import KERNEL_CHAINS, TableChange, TableKey, TableState, compose, parse_save
from kernel.xtables_restore import refusal, remove_chains

_TIMEOUT_SECONDS: Final = 60.0


class NftTables:
    """TableKernel on iptables-nft-save and -restore, in the network namespace of the calling thread.

    One object serves all tables of both families: all of them share one generation number.
    """

    poll_seconds: float | None = None

    def __init__(self) -> None:
        """Raises NotSupported on a kernel without nftables."""
        self._generation = Generation()
        self._expected = self._generation.now()
        self._saved: dict[int, tuple[int, dict[str, str]]] = {}
        self._restores: dict[int, Standing] = {}

    def prepare(self) -> None:
        for standing in self._restores.values():
            standing.prepare()

    def close(self) -> None:
        self._generation.close()
        for standing in self._restores.values():
            standing.close()

    def read(self, key: TableKey) -> TableState:
        """All tables of a family are saved at once, as that costs what one costs; each such text is used once."""
        generation, texts = self._saved.get(key.version, (None, {}))
        if generation != (now := self._generation.now()) or key.table not in texts:
            outcome = run((_program(key, "save"),), timeout=_TIMEOUT_SECONDS)
            if outcome.status:
                raise outcome.failure(f"cannot read table {key}")
            texts = dict.fromkeys(KERNEL_CHAINS, "") | sections(outcome.output)
            self._saved[key.version] = now, texts
        return parse_save(texts.pop(key.table), key)

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        if not change:
            return {}
        self._restore(key, compose(key, change))
        return remove_chains(key, sorted(change.remove_chains), self._restore)

    def changed_elsewhere(self) -> bool:
        now = self._generation.now()
        changed = now != self._expected
        self._expected = now
        return changed

    def _restore(self, key: TableKey, lines: Sequence[str]) -> None:
        before = self._generation.now()
        standing = self._restores.get(key.version)
        if standing is None:
            command = (_program(key, "restore"), "--noflush", "--verbose")
            standing = self._restores[key.version] = Standing(command)
        outcome = standing.run("\n".join(lines) + "\n", timeout=_TIMEOUT_SECONDS)
        if outcome.status:
            raise refusal(key, lines, outcome)
        if self._generation.now() != before:
            # one commit of ours; a second step would be somebody else's and must stay visible
            self._expected = (self._expected + 1) & 0xFFFFFFFF


_ABOUT_TABLE = re.compile(r"\*(\w+)|# Table `(\w+)' ")


def sections(text: str) -> dict[str, str]:
    """Return the lines about each table of what ``iptables-nft-save`` printed of all of them."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if about := _ABOUT_TABLE.match(line):
            lines = found.setdefault(about[1] or about[2], [])
        lines.append(line)
        if line == "COMMIT":
            lines = []
    return {table: "\n".join(lines) for table, lines in found.items()}


def _program(key: TableKey, verb: str) -> str:
    return f"{'ip6tables' if key.version == 6 else 'iptables'}-nft-{verb}"
