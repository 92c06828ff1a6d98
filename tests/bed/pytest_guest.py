"""Tests marked `ipip` on a machine whose kernel has no ipip: all that are selected run in one guest, by a pytest there.

The hooks are brought into pytest by tests/conftest.py. In the guest the same hooks write down what happened; outside
they hand it on as if it had happened here.
"""

import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from bed.command import CommandFailed
from bed.guest import WORK, machine_has, run_in_guest

_REPORT = "BED_GUEST_REPORT"
_KEY = pytest.StashKey["Delegated"]()


@dataclass(slots=True)
class Delegated:
    """The tests that go to the guest, and once it was there, what it said of them."""

    ids: list[str]
    reports: dict[str, list[dict[str, str]]] | None = None
    trouble: str = ""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which tests this kernel cannot run."""
    marked = [item.nodeid for item in session.items if item.get_closest_marker("ipip")]
    if marked and _REPORT not in os.environ and not session.config.option.collectonly and not machine_has("ipip"):
        session.config.stash[_KEY] = Delegated(marked)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a delegated test: the first one runs them all."""
    delegated = item.config.stash.get(_KEY, None)
    if delegated is None or item.nodeid not in delegated.ids:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    if delegated.reports is None:
        delegated.reports = _run(delegated, item.config.rootpath)
    lines = delegated.reports.get(item.nodeid) or [
        {"when": "call", "outcome": "failed", "text": f"the guest says nothing of this test\n{delegated.trouble}"}
    ]
    for line in lines:
        item.ihook.pytest_runtest_logreport(report=_report(item, line))
    # what an earlier test of this module or class set up was left for this one to tear down
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _run(delegated: Delegated, root: Path) -> dict[str, list[dict[str, str]]]:
    """Run the delegated tests in a guest and return its reports by test."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={root}"]
    command = [sys.executable, "-m", "pytest", *options, *delegated.ids]
    files: dict[str, str] = {"report": ""}
    try:
        done = run_in_guest(
            command,
            timeout=60.0 + 90.0 * len(delegated.ids),
            memory="1536M",
            env={_REPORT: f"{WORK}/report"},
            files=files,
            check=False,
        )
        delegated.trouble = done.text
    except CommandFailed as failure:
        delegated.trouble = str(failure)
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in files["report"].splitlines():
        report = json.loads(line)
        found[report.pop("id")].append(report)
    return found


def _report(item: pytest.Item, line: dict[str, str]) -> pytest.TestReport:
    outcome = line["outcome"]
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="passed" if outcome == "passed" else "skipped" if outcome == "skipped" else "failed",
        longrepr=line.get("text") or None,
        when="setup" if line["when"] == "setup" else "teardown" if line["when"] == "teardown" else "call",
        sections=[("in the guest", line["output"])] if line.get("output") else [],
        duration=float(line.get("seconds", "0")),
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the guest: write down what happened."""
    if file := os.environ.get(_REPORT):
        line = {
            "id": report.nodeid,
            "when": report.when or "call",
            "outcome": report.outcome,
            "text": report.longreprtext,
            "output": report.capstdout + report.capstderr,
            "seconds": str(report.duration),
        }
        with Path(file).open("a") as lines:
            lines.write(json.dumps(line) + "\n")
