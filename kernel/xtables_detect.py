"""Which back end writes the rules: nft or legacy (reference felix.md 7.7).

Accepting a packet ends only the hook it happens in: with Docker's DROP policy in one variant an accept in the other is
of no use. So ours must be where the others' rules are.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from kernel import probe
from kernel.programs import run
from kernel.xtables import CHAIN_PREFIXES


class BackEnd(StrEnum):
    """A variant of iptables."""

    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class Choice:
    """A back end and why, for the log."""

    back_end: BackEnd
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is there before we write. Rules of ours do not count."""

    nft_works: bool
    nft_rules: int
    legacy_rules: int


_LEGACY_TABLES: Final = ("ip_tables_names", "ip6_tables_names")


def choose(setting: str, found: Findings) -> Choice:
    """Return the back end: the setting ("nft", "legacy"), or with "auto" the one that others use, nft in doubt."""
    if setting.lower() in tuple(BackEnd):
        return Choice(BackEnd(setting.lower()), "set by configuration")
    if not found.nft_works:
        return Choice(BackEnd.LEGACY, "this kernel or its iptables-nft cannot make nft rules")
    if found.legacy_rules and found.legacy_rules >= found.nft_rules:
        counts = f"{found.legacy_rules} legacy and {found.nft_rules} nft rules"
        return Choice(BackEnd.LEGACY, f"other programs use legacy tables ({counts})")
    return Choice(BackEnd.NFT, f"nft works, and other programs have {found.legacy_rules} legacy rules")


def look(proc: Path = Path("/proc/thread-self/net")) -> Findings:
    """Find out what works and what is there, in the network namespace of the calling thread.

    The legacy programs are run only if the kernel has legacy tables already: running them makes the tables.

    Raises:
        DataplaneError: a program could not be run.
    """
    nft = tuple(feature for feature in probe.FEATURES if feature.name == "nf_tables")
    works = all(finding.works for finding in probe.try_features(nft))
    legacy = legacy_families(proc)
    return Findings(
        nft_works=works,
        nft_rules=sum(_foreign_rules(f"{program}-nft-save") for program in ("iptables", "ip6tables")) if works else 0,
        legacy_rules=sum(_foreign_rules(f"{name.partition('_')[0]}tables-legacy-save") for name in legacy),
    )


def legacy_families(proc: Path = Path("/proc/thread-self/net")) -> list[str]:
    """Return the files of `proc` that name legacy tables: those of IPv4, of IPv6, or none. Cheap."""
    return [family for family in _LEGACY_TABLES if _has_lines(proc / family)]


def count_foreign(saved: str) -> int:
    """Return how many rules of ``iptables-save`` text are in chains of others and are not ours."""
    rules = (line for line in saved.splitlines() if line.startswith("-A "))
    return sum(not line[3:].startswith(CHAIN_PREFIXES) and "cali:" not in line for line in rules)


def _foreign_rules(program: str) -> int:
    outcome = run((program,))
    if outcome.status:
        raise outcome.failure("cannot count the rules of other programs")
    return count_foreign(outcome.output)


def _has_lines(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except OSError:
        return False
