"""What both variants of iptables-restore have in common: their complaints, and chains that are not let go."""

import re
from collections.abc import Callable, Sequence

from kernel.errors import DataplaneError, TableRefused
from kernel.programs import Outcome
from kernel.xtables import TableKey, compose_removal

_PREAMBLE = re.compile(
    r"^ip6?tables(?:-nft|-legacy)?-restore(?: v[^:]*)?: |^line \d+: |: line \d+ failed(?=:)|line \d+ failed(?:: |$)"
)
_GUILTY_LINE = re.compile(r"(?:Error occurred at line: |^line |: line )(\d+)", re.MULTILINE)

Restore = Callable[[TableKey, Sequence[str]], None]
"""Feeds lines to a restore program; raises TableRefused."""


def refusal(key: TableKey, lines: Sequence[str], outcome: Outcome) -> TableRefused:
    """Return the error for what a restore program refused; it names the guilty line if that is told."""
    found = _GUILTY_LINE.search(outcome.complaint)
    line = lines[int(found[1]) - 1] if found and 0 < int(found[1]) <= len(lines) else "COMMIT"
    # "iptables-nft-restore v1.8.9 (nf_tables): " may be all of the first line
    reasons = [_PREAMBLE.sub("", text).strip(" .") for text in outcome.complaint.splitlines()]
    hollow = ("Error occurred at line", "Try `")  # what legacy says besides, or when it knows no reason
    reason = next((text for text in reasons if text and not text.startswith(hollow)), "the kernel refuses")
    if line == "COMMIT":  # noticed only then: the rule is not known
        return TableRefused(f"cannot write table {key}: {reason} (exit status {outcome.status})")
    verb, *words = line.split()
    chain = words[0] if verb.startswith("-") and words else None
    return TableRefused(f"cannot write table {key}: {reason}, in {line!r}", chain=chain)


def remove_chains(key: TableKey, chains: Sequence[str], restore: Restore) -> dict[str, DataplaneError]:
    """Delete emptied chains, all at once, or one by one if that is refused; return those that stay."""
    if not chains:
        return {}
    try:
        restore(key, compose_removal(key, chains))
    except TableRefused as exc:
        if len(chains) == 1:
            return {chains[0]: exc}
        failed: dict[str, DataplaneError] = {}
        for chain in chains:
            failed |= remove_chains(key, [chain], restore)
        return failed
    return {}
