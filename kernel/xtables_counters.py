"""How many packets and bytes each rule of ours matched: the counters of ``iptables-save -c``.

The kernel counts a rule from when its chain was last written; a rule that nobody writes keeps counting, whoever
restarts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from kernel.errors import TableIncompatible
from kernel.programs import run
from kernel.xtables import CHAIN_PREFIXES, KERNEL_CHAINS

_TIMEOUT_SECONDS: Final = 60.0
# [packets:bytes] -A chain rule; save prints -p, -s, -i before the comment
_RULE = re.compile(r"\[(\d+):(\d+)\] -A (\S+)(.*)")
_TAG = re.compile(r' --comment "?cali:([A-Za-z0-9_-]{16})(?:"|\s|$)')
_INCOMPATIBLE = re.compile(r"# Table `([^']+)' is incompatible")


@dataclass(frozen=True, slots=True)
class RuleCount:
    """One rule: its tag ("" if it has none) and what it matched."""

    tag: str
    packets: int
    bytes: int


Counted = Mapping[str, Mapping[str, tuple[RuleCount, ...]]]
"""The rules of our chains in order, by table and chain."""


def read_counters(variant: str, version: int) -> Counted:
    """Return the counters of all tables of one address family, read at once; callable from any thread.

    Args:
        variant: whose tables, ``nft`` or ``legacy``. The legacy program makes the tables if they are not there.
        version: 4 or 6.

    Raises:
        TableIncompatible: a table holds native nftables objects and cannot be read.
        ToolMissing, ToolFailed, ToolTimedOut: the program could not do it.
    """
    program = f"{'ip6tables' if version == 6 else 'iptables'}-{variant}-save"
    outcome = run((program, "-c"), timeout=_TIMEOUT_SECONDS)
    if outcome.status:
        raise outcome.failure(f"cannot read the counters of the rules (IPv{version})")
    return parse_counters(outcome.output.splitlines())


def parse_counters(lines: Iterable[str]) -> Counted:
    """Parse what ``iptables-save -c`` printed of any tables.

    Raises:
        TableIncompatible: it says so in a comment (the exit status is 0 then).
    """
    found: dict[str, dict[str, list[RuleCount]]] = {}
    chains: dict[str, list[RuleCount]] = {}
    for line in lines:
        if line.startswith("["):
            if (rule := _RULE.match(line)) and rule[3].startswith(CHAIN_PREFIXES):
                tag = _TAG.search(rule[4])
                count = RuleCount(tag[1] if tag else "", int(rule[1]), int(rule[2]))
                chains.setdefault(rule[3], []).append(count)
        elif line.startswith("*"):
            chains = found.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chain = line[1:].split(" ", 1)[0]
            if chain.startswith(CHAIN_PREFIXES):
                chains.setdefault(chain, [])
        elif (told := _INCOMPATIBLE.match(line)) and told[1] in KERNEL_CHAINS:  # not somebody's own table
            raise TableIncompatible(
                f"cannot read the counters: table {told[1]} holds native nftables objects that iptables does not know",
                hint="see them with 'nft list ruleset', and move them to a table of their own",
            )
    return {table: {chain: tuple(rules) for chain, rules in of.items()} for table, of in found.items()}
