"""Rule tables: the port in front of the back ends, and the text both iptables variants read and write.

Rendering, hashing and comparing live in felix; here a rule is a line of text. A back end implements `TableKernel`:
kernel.xtables_nft and kernel.xtables_legacy do; kernel.xtables_detect chooses (reference felix.md 7.9). The functions
on text are for back ends that speak iptables-save (reference felix.md 3.10).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from kernel.errors import DataplaneError, TableIncompatible

CHAIN_PREFIXES: Final = ("cali-", "califw-", "calitw-", "califh-", "calith-", "calipi-", "calipo-", "felix-")
"""Chains that begin so are ours; all but the first are of old releases (reference felix.md 1.7)."""
KERNEL_CHAINS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "raw": ("PREROUTING", "OUTPUT"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
    }
)


class BackEnd(StrEnum):
    """A variant of iptables: its rules are in tables of their own in the kernel, beside those of the other."""

    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True, order=True)
class TableKey:
    """One table of one address family."""

    version: int
    """4 or 6."""
    table: str
    """raw, mangle, nat or filter."""

    def __str__(self) -> str:
        return f"{self.table} (IPv{self.version})"


@dataclass(frozen=True, slots=True)
class OutsideRule:
    """One rule of a chain that is not ours: a kernel chain, or one of another program that holds a rule of ours."""

    tag: str | None
    """The 16 characters after ``cali:``; None if there is no tag."""
    text: str | None
    """What follows ``-A CHAIN `` if the rule is ours (tagged, or a jump to one of our chains), else None: the rules of
    others are counted, never read."""

    @property
    def is_ours(self) -> bool:
        return self.text is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What a table holds, as far as it concerns us."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Our chains, and the tag of each of their rules in order ("" where a rule has none)."""
    outside: Mapping[str, tuple[OutsideRule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Rules in order of the kernel chains that exist, and of foreign chains with a rule of ours in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """What to write into one table. A rule is the text that follows ``-A CHAIN ``.

    Everything but `remove_chains` is one transaction.
    """

    chains: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Our chains to be made or rewritten whole."""
    delete: Sequence[tuple[str, str]] = ()
    """(chain, rule) to delete outside our chains, the rule as `TableState.outside` gave it; one line takes one rule."""
    insert: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Rules to be the first ones of a chain, in this order."""
    append: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Rules to be the last ones of a chain, in this order."""
    remove_chains: frozenset[str] = frozenset()
    """Our chains to go: emptied in the transaction, deleted in a second one."""

    def __bool__(self) -> bool:
        return bool(self.chains or self.delete or self.insert or self.append or self.remove_chains)


class TableKernel(Protocol):
    """The rule tables of one network namespace."""

    @property
    def poll_seconds(self) -> float | None:
        """Seconds after which `changed_elsewhere` is to be asked again; None: an event of the monitor says when."""

    def read(self, key: TableKey) -> TableState:
        """Return what the table holds; nothing, if it does not exist.

        Raises:
            TableIncompatible: it holds native nftables objects and cannot be read.
            ToolMissing, ToolFailed, ToolTimedOut: the program could not do it.
        """

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        """Make a change as one transaction; return the chains that could not be removed (somebody jumps to them).

        Raises:
            TableRefused: nothing was changed: a rule names a missing set or chain, a rule to be deleted is not there.
                Read the table back before the next try. Its `chain` names the chain of the guilty rule if known.
            Busy: another program holds the lock of the legacy tables.
            ToolMissing, ToolFailed, ToolTimedOut: the program could not do it.
        """

    def changed_elsewhere(self) -> bool:
        """Return whether somebody else changed rules since the last call (or since this object was made). Cheap.

        Raises:
            DataplaneError: the kernel does not tell.
        """

    def prepare(self) -> None:
        """Do beforehand what the next write would have to wait for; to be called when nothing else is to be done.

        Raises:
            ToolMissing, ToolFailed: a program cannot be started; the next write tries again.
        """

    def close(self) -> None:
        """Let go what is held open; the rules stay."""


def parse_save(text: str, key: TableKey) -> TableState:
    """Parse what ``iptables-save -t TABLE`` printed.

    Raises:
        TableIncompatible: it says so in a comment (the exit status is 0 then).
    """
    chains: dict[str, list[str]] = {}
    outside: dict[str, list[OutsideRule]] = {}
    for line in text.splitlines():
        if line.startswith("-A "):
            _, chain, rule = line.split(" ", 2) if line.count(" ") > 1 else (*line.split(" "), "")
            if chain in chains:
                chains[chain].append(_tag(rule) or "")
            else:
                outside.setdefault(chain, []).append(_outside_rule(rule))
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split(" ")
            if chain.startswith(CHAIN_PREFIXES):
                chains[chain] = []
            elif policy != "-":
                outside.setdefault(chain, [])
        elif line.startswith("#") and "is incompatible" in line:
            raise TableIncompatible(
                f"cannot read table {key}: it holds native nftables objects that iptables does not know",
                hint="see them with 'nft list ruleset', and move them to a table of their own",
            )
    kernel_chains = KERNEL_CHAINS.get(key.table, ())
    return TableState(
        chains={chain: tuple(tags) for chain, tags in chains.items()},
        outside={
            chain: tuple(rules)
            for chain, rules in outside.items()
            if chain in kernel_chains or any(rule.is_ours for rule in rules)
        },
    )


def compose(key: TableKey, change: TableChange) -> list[str]:
    """Return the lines of the transaction for ``iptables-restore --noflush``, chain removal left out.

    Declaring a chain creates it, or empties it inside the transaction (reference felix.md 3.10).
    """
    lines = [f"*{key.table}"]
    lines += (f":{chain} - -" for chain in sorted({*change.chains, *change.remove_chains}))
    for chain in sorted(change.chains):
        lines += (f"-A {chain} {rule}" for rule in change.chains[chain])
    lines += (f"-D {chain} {rule}" for chain, rule in change.delete)
    for chain in sorted(change.insert):
        lines += (f"-I {chain} 1 {rule}" for rule in reversed(change.insert[chain]))
    for chain in sorted(change.append):
        lines += (f"-A {chain} {rule}" for rule in change.append[chain])
    return [*lines, "COMMIT"]


def compose_removal(key: TableKey, chains: Sequence[str]) -> list[str]:
    """Return the lines of the transaction that deletes chains which are empty already."""
    return [f"*{key.table}", *(f"-X {chain}" for chain in chains), "COMMIT"]


# save prints -p, -s, -i before the comment; quotes only where the text needs them in some versions
_TAG = re.compile(r'(?:^| )--comment "?cali:([A-Za-z0-9_-]{16})(?:"|\s|$)')


def _tag(rule: str) -> str | None:
    if "cali:" not in rule:
        return None
    found = _TAG.search(rule)
    return found[1] if found else None


_TARGET = re.compile(r"(?:^| )-[jg] (\S+)")


def _outside_rule(rule: str) -> OutsideRule:
    tag = _tag(rule)
    target = _TARGET.search(rule) if tag is None else None
    ours = tag is not None or (target is not None and target[1].startswith(CHAIN_PREFIXES))
    return OutsideRule(tag, rule if ours else None)
