"""Run levels of checks one after the other, all of them even when one fails, and sum up.

    python tests/levels.py lint types unit fv st

Each level shows its own output as it goes; at the end there is one line per level, the slowest tests, and a last line
``N passed, N failed``. The exit code is 0 only if nothing failed.

A test that fails is run once more, by itself. If it passes then, the summary names it as unsteady, and its
first failure is in the output above: a fault to be found, in the test or in the product.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = 12
UNSTEADY_MAX = 3
"""Where more fail, something is broken, and nothing is tried again."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one level came to."""

    level: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""
    tests: list[tuple[float, str]] = field(default_factory=list)
    """Seconds and name of each test."""
    failures: list[str] = field(default_factory=list)
    """Names of the tests that failed."""
    unsteady: list[str] = field(default_factory=list)
    """Names of the tests that failed among the others and passed by themselves."""


def main(levels: list[str], known: Mapping[str, Callable[[], Outcome]]) -> int:
    """Run the levels named and return the exit code."""
    unknown = [level for level in levels if level not in known]
    if unknown or not levels:
        print(f"levels are: {', '.join(known)}", file=sys.stderr)
        return 2
    outcomes = []
    for level in levels:
        print(f"\n=== {level} " + "=" * (74 - len(level)), flush=True)
        began = time.monotonic()
        outcome = known[level]()
        outcome.seconds = time.monotonic() - began
        outcomes.append(outcome)
    if {"fv", "st"} & set(levels):
        sweep()
    print(summary(outcomes), flush=True)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def lint() -> Outcome:
    exit, text = shown([tool("ruff"), "check", "."], limit_seconds=120)
    findings = re.search(r"Found (\d+) error", text)
    return counted("lint", exit, int(findings[1]) if findings else 0, "ruff")


def types() -> Outcome:
    exit, text = shown([tool("mypy")], limit_seconds=600)
    findings = re.search(r"Found (\d+) error", text)
    return counted("types", exit, int(findings[1]) if findings else 0, "mypy")


def counted(level: str, exit: int, findings: int, name: str) -> Outcome:
    """Count a checker as one check that passed, or as many failures as it found."""
    if exit == 0:
        return Outcome(level=level, passed=1, note=name)
    return Outcome(level=level, failed=max(1, findings), note=name)


def unit() -> Outcome:
    return tried_again(
        pytest("unit", limit_seconds=1800), lambda: pytest("unit", "--lf", "--lfnf=none", limit_seconds=300)
    )


def fv() -> Outcome:
    return tried_again(pytest("fv", limit_seconds=1800), lambda: pytest("fv", "--lf", "--lfnf=none", limit_seconds=300))


def st() -> Outcome:
    return tried_again(pytest("st", limit_seconds=5400), lambda: pytest("st", "--lf", "--lfnf=none", limit_seconds=600))


LEVELS: dict[str, Callable[[], Outcome]] = {"lint": lint, "types": types, "unit": unit, "fv": fv, "st": st}


def tried_again(first: Outcome, again: Callable[[], Outcome]) -> Outcome:
    """Return what a level came to when its few failures are run once more, by `again`, which runs nothing else."""
    names = list(dict.fromkeys(first.failures))
    if len(first.failures) != first.failed or not 0 < len(names) <= UNSTEADY_MAX:
        return first
    print(f"\n--- {first.level}: once more, by themselves: {', '.join(names)}", flush=True)
    second = again()
    unsteady = [name for name in names if name not in second.failures]
    if second.passed != len(unsteady) or second.failed != len(second.failures):
        return first  # it did not run just these
    first.passed, first.failed, first.unsteady = first.passed + second.passed, second.failed, unsteady
    return first


def pytest(level: str, *options: str, limit_seconds: int) -> Outcome:
    """Run the tests below tests/LEVEL and count them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"tests/{level}", f"--junitxml={report}", *options]
        exit, _ = shown(command, limit_seconds=limit_seconds)
        try:
            outcome = read_report(level, ElementTree.parse(report).getroot())
        except (OSError, ElementTree.ParseError):
            outcome = Outcome(level=level, note="ended without a report")
    if exit != 0 and not outcome.failed:  # nothing collected, killed, or an error outside any test
        outcome.failed = 1
        outcome.note = outcome.note or f"pytest ended with {exit}"
    return outcome


def read_report(level: str, root: ElementTree.Element) -> Outcome:
    """Count the cases of a JUnit report; an error in a fixture is a failure of its test."""
    outcome = Outcome(level=level)
    for case in root.iter("testcase"):
        kinds = {child.tag for child in case}
        name = f"{case.get('classname', '')}.{case.get('name', '')}".removeprefix("tests.")
        if kinds & {"failure", "error"}:
            outcome.failed += 1
            outcome.failures.append(name)
        elif "skipped" in kinds:
            outcome.skipped += 1
        else:
            outcome.passed += 1
        outcome.tests.append((float(case.get("time", "0")), name))
    return outcome


def shown(command: list[str], *, limit_seconds: int) -> tuple[int, str]:
    """Run a command, show its output as it comes, and return its exit code with the output."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        patience = iter([signal.SIGINT, signal.SIGKILL])  # pytest, interrupted, ends its fixtures and reports

        def too_long(*_: object) -> None:
            print(f"not done after {limit_seconds} s", flush=True)
            child.send_signal(next(patience, signal.SIGKILL))
            signal.alarm(60)

        previous = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(limit_seconds)
        try:
            assert child.stdout is not None
            for line in child.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
    return child.returncode, "".join(lines)


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def sweep() -> None:
    """Remove beds whose test process was killed."""
    from bed.claim import down

    for id in down():
        print(f"removed the bed {id}, which a killed test had left")


def summary(outcomes: list[Outcome]) -> str:
    """Return one line per level, the slowest tests and the sum."""
    lines = ["", "level    passed  failed  seconds"]
    for outcome in outcomes:
        counts = {"skipped": outcome.skipped, "unsteady": len(outcome.unsteady)}
        extra = [f"{count} {what}" for what, count in counts.items() if count]
        note = ", ".join([*extra, *([outcome.note] if outcome.note else [])])
        lines.append(
            f"{outcome.level:7}  {outcome.passed:6}  {outcome.failed:6}  {outcome.seconds:7.1f}  {note}".rstrip()
        )
    slowest = sorted((test for outcome in outcomes for test in outcome.tests), reverse=True)[:SLOWEST]
    if slowest:
        lines += ["", "slowest tests", *(f"{seconds:6.1f} s  {name}" for seconds, name in slowest)]
    if unsteady := [name for outcome in outcomes for name in outcome.unsteady]:
        lines += ["", "unsteady: failed among the others, passed alone", *(f"    {name}" for name in unsteady)]
    passed, failed = sum(outcome.passed for outcome in outcomes), sum(outcome.failed for outcome in outcomes)
    return "\n".join([*lines, "", f"{passed} passed, {failed} failed"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], LEVELS))
