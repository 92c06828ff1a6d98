"""The summary of `make test`: what is counted, and when it fails."""

import xml.etree.ElementTree as ElementTree

import pytest

import levels

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_one" time="0.5"/>
<testcase classname="tests.unit.test_a" name="test_two" time="2.25"><failure message="no"/></testcase>
<testcase classname="tests.unit.test_a" name="test_three" time="0"><error message="fixture"/></testcase>
<testcase classname="tests.unit.test_a" name="test_four" time="0"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted() -> None:
    outcome = levels.read_report("unit", ElementTree.fromstring(REPORT))
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 2, 1)
    assert max(outcome.tests) == (2.25, "unit.test_a.test_two")


def test_the_summary_ends_with_the_sum() -> None:
    outcomes = [
        levels.Outcome(level="lint", passed=1, seconds=0.5, note="ruff"),
        levels.Outcome(level="unit", passed=10, failed=2, skipped=1, seconds=3.0, tests=[(2.25, "unit.test_slow")]),
    ]
    lines = levels.summary(outcomes).splitlines()
    assert lines[2:4] == [
        "lint          1       0      0.5  ruff",
        "unit         10       2      3.0  1 skipped",
    ]
    assert "   2.2 s  unit.test_slow" in lines
    assert lines[-1] == "11 passed, 2 failed"


@pytest.mark.parametrize(("exit", "findings", "failed"), [(0, 0, 0), (1, 7, 7), (2, 0, 1)])
def test_a_checker_that_fails_counts_at_least_once(exit: int, findings: int, failed: int) -> None:
    outcome = levels.counted("lint", exit, findings, "ruff")
    assert (outcome.passed, outcome.failed) == (0 if failed else 1, failed)


def test_every_level_runs_even_when_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    def level(name: str, failed: int) -> levels.Outcome:
        ran.append(name)
        return levels.Outcome(level=name, passed=1, failed=failed)

    known = {"lint": lambda: level("lint", 1), "unit": lambda: level("unit", 0)}
    assert levels.main(["lint", "unit"], known) == 1
    assert ran == ["lint", "unit"]
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 1 failed"
    assert levels.main(["unit"], known) == 0
    assert levels.main(["nonsense"], known) == 2
