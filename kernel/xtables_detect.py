"""Which back end writes the rules: nft or legacy (reference felix.md 7.7).

Accepting a packet ends only the hook it happens in: with Docker's DROP policy in one variant an accept in the other is
of no use. So ours must be where the others' rules are.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kernel import probe
from kernel.errors import DataplaneError
from kernel.programs import is_installed, run
from kernel.xtables import CHAIN_PREFIXES, KERNEL_CHAINS, BackEnd, TableKey


@dataclass(frozen=True, slots=True)
class Choice:
    """A back end and why, for the log."""

    back_end: BackEnd
    reason: str
    trouble: str = ""
    """Why it does not work here, if so; the other does not work either, or the operator wants this one."""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is there before we write. Rules of ours do not count."""

    nft_trouble: str = ""
    """Why nft rules cannot be made here; empty if they can."""
    legacy_trouble: str = ""
    """Why legacy rules cannot be made here; empty if they can, or if that was not tried (trying loads modules)."""
    nft_rules: int = 0
    legacy_rules: int = 0
    default: BackEnd | None = None
    """What the program called iptables is; None if there is none."""


_LEGACY_TABLES: Final = ("ip_tables_names", "ip6_tables_names")
_HINTS: Final = {
    BackEnd.NFT: "install iptables 1.8 or newer and a kernel with nftables, or set IptablesBackend to Legacy",
    BackEnd.LEGACY: "install iptables with its legacy programs (Debian: iptables) and a kernel with ip_tables, or set "
    "IptablesBackend to NFT",
}


def choose(setting: str, found: Findings) -> Choice:
    """Return the back end: the setting ("nft", "legacy"), or with "auto" the one that others use, nft in doubt."""
    trouble = {BackEnd.NFT: found.nft_trouble, BackEnd.LEGACY: found.legacy_trouble}
    back_end, reason = _decide(setting.lower(), found)
    return Choice(back_end, reason, trouble[back_end], _HINTS[back_end] if trouble[back_end] else "")


def _decide(setting: str, found: Findings) -> tuple[BackEnd, str]:
    if setting in tuple(BackEnd):
        return BackEnd(setting), "set by IptablesBackend" + _against_others(BackEnd(setting), found)
    if found.nft_trouble and not found.legacy_trouble:
        return BackEnd.LEGACY, f"nft rules cannot be made here: {found.nft_trouble}"
    counts = f"{found.legacy_rules} legacy and {found.nft_rules} nft rules"
    if found.legacy_trouble:
        return BackEnd.NFT, f"legacy rules cannot be made here: {found.legacy_trouble}"
    if found.legacy_rules and found.legacy_rules >= found.nft_rules:
        return BackEnd.LEGACY, f"other programs use legacy tables ({counts})"
    if not found.nft_rules and not found.legacy_rules and found.default is BackEnd.LEGACY:
        return BackEnd.LEGACY, "other programs have no rules, and the host's iptables is the legacy one"
    return BackEnd.NFT, f"nft works, and is what other programs use or nobody does ({counts})"


def _against_others(chosen: BackEnd, found: Findings) -> str:
    """Return what to know of a back end that is not the one that other programs use most."""
    rules = {BackEnd.NFT: found.nft_rules, BackEnd.LEGACY: found.legacy_rules}
    other = BackEnd.LEGACY if chosen is BackEnd.NFT else BackEnd.NFT
    if rules[other] <= rules[chosen]:
        return ""
    count = f"{rules[other]} rules"
    return f"; but other programs use {other} ({count}): what they drop stays dropped, whatever policy allows"


def decide(setting: str) -> Choice:
    """Look at this host and choose; a host that cannot be looked at is told as trouble."""
    try:
        return choose(setting, look(setting))
    except DataplaneError as error:
        back_end = BackEnd.LEGACY if setting.lower() == BackEnd.LEGACY else BackEnd.NFT
        hint = error.hint or _HINTS[back_end]
        return Choice(back_end, "the rules of other programs cannot be read", str(error), hint)


def look(setting: str = "auto", proc: Path = Path("/proc/thread-self/net")) -> Findings:
    """Find out what works and what is there, in the network namespace of the calling thread.

    The legacy programs are run here only if the kernel has legacy tables already: running them makes the tables.
    Whether they work at all is tried in a throw-away namespace, and only if it matters.

    Raises:
        DataplaneError: a program could not be run.
    """
    nft_trouble = trouble_with(BackEnd.NFT)
    families = legacy_families(proc)
    default = default_back_end()
    legacy_matters = bool(nft_trouble or families or default is BackEnd.LEGACY or setting.lower() == BackEnd.LEGACY)
    legacy_trouble = trouble_with(BackEnd.LEGACY) if legacy_matters else ""
    return Findings(
        nft_trouble=nft_trouble,
        legacy_trouble=legacy_trouble,
        nft_rules=0 if nft_trouble else sum(_foreign_rules(f"{p}-nft-save") for p in ("iptables", "ip6tables")),
        legacy_rules=0 if legacy_trouble else sum(_foreign_rules(_legacy_save(family)) for family in families),
        default=default,
    )


def trouble_with(back_end: BackEnd) -> str:
    """Return why rules of this kind cannot be made by this kernel and the programs it has, or nothing if they can."""
    missing = [program for program in probe.rule_programs(back_end) if not is_installed(program)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    [finding] = probe.try_features((probe.rules_feature(back_end),), back_end)
    return "" if finding.works else finding.detail or "no reason was given"


def default_back_end() -> BackEnd | None:
    """Return which variant the program called iptables is."""
    try:
        said = run(("iptables", "--version")).output
    except DataplaneError:
        return None
    return BackEnd.NFT if "nf_tables" in said else BackEnd.LEGACY


def legacy_families(proc: Path = Path("/proc/thread-self/net")) -> list[str]:
    """Return the files of `proc` that name legacy tables: those of IPv4, of IPv6, or none. Cheap."""
    return [family for family in _LEGACY_TABLES if _has_lines(proc / family)]


def legacy_tables(proc: Path = Path("/proc/thread-self/net")) -> list[TableKey]:
    """Return the legacy tables that exist and that we know. Cheap."""
    found = []
    for version, name in zip((4, 6), _LEGACY_TABLES, strict=True):
        with contextlib.suppress(OSError):
            tables = (proc / name).read_text().split()
            found += [TableKey(version, table) for table in tables if table in KERNEL_CHAINS]
    return found


def _legacy_save(family: str) -> str:
    return f"{family.partition('_')[0]}tables-legacy-save"


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
