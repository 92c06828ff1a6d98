"""What the benchmarks found: rows with a reference beside each figure, one table, kept with commit and machine."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = (
    "| what | ours | p90 | reference | its figure | ratio | aim |\n"
    "|---|---:|---:|---|---:|---:|---:|\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours beside one of something that ran in the same minutes.

    `samples` in `unit` (ms, s, MB, %, 1/s), `reference` likewise; either may be a single figure. `aim`: the ratio that
    was set as a goal, at most, or at least with `more_is_better`; with `absolute` it speaks of our figure itself.
    """

    name: str
    samples: Sequence[float]
    unit: str = "ms"
    reference_name: str = ""
    reference: Sequence[float] = ()
    aim: float | None = None
    more_is_better: bool = False
    absolute: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        beside = statistics.median(self.reference) if self.reference else 0.0
        return self.median / beside if beside else None  # a processor that was not used at all is no reference

    @property
    def misses(self) -> bool:
        """Whether there is an aim and it is missed."""
        figure = self.median if self.absolute else self.ratio
        if self.aim is None or figure is None:
            return False
        return figure < self.aim if self.more_is_better else figure > self.aim


def p90(samples: Sequence[float]) -> float:
    """Return the figure that nine of ten samples do not exceed."""
    return sorted(samples)[max(0, math.ceil(len(samples) * 0.9) - 1)]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table that reads well on a terminal too."""
    return _HEAD + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    ratio = row.ratio
    cells = [
        row.name,
        _figure(row.median, row.unit),
        _figure(p90(row.samples), row.unit) if len(row.samples) > 1 else "",
        row.reference_name,
        _figure(statistics.median(row.reference), row.unit) if row.reference else "",
        "" if ratio is None else f"{ratio:.2f}",
        _aim(row),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _aim(row: Row) -> str:
    if row.aim is None:
        return ""
    wanted = f"{'≥' if row.more_is_better else '≤'} {row.aim:g}{f' {row.unit}' if row.absolute else ''}"
    return f"{wanted} **missed**" if row.misses else wanted


def _figure(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def tell(rows: Sequence[Row]) -> None:
    """Print what a script found: a table, or with ``--json`` among its arguments what `told` reads."""
    print(json.dumps([asdict(row) for row in rows]) if "--json" in sys.argv else table(rows))


def told(text: str) -> list[Row]:
    return [Row(**found) for found in json.loads(text)]


def heading() -> str:
    """Return what tells this run from others: date, commit, machine."""
    cores, kernel = os.cpu_count(), platform.release().split("-")[0]
    return f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_commit()}, {cores} cores, Linux {kernel}"


def _commit() -> str:
    def git(*words: str) -> str:
        asked = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return asked.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"commit {git('rev-parse', '--short', 'HEAD') or 'unknown'}{' and changes' if changed else ''}"


def keep(rows: Sequence[Row], seconds: float, file: Path = RESULTS) -> None:
    """Add the rows to the file as its newest section; the earlier ones stay below it."""
    section = f"{heading()}, {seconds:.0f} s\n\n{table(rows)}\n"
    text = file.read_text() if file.exists() else "# Results\n\n"
    at = text.find("\n## ") + 1 or len(text)
    file.write_text(text[:at] + section + text[at:])
