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


def once_more(first: levels.Outcome, second: levels.Outcome) -> str:
    return levels.summary([levels.tried_again(first, lambda: second)])


def test_what_fails_and_then_passes_by_itself_is_named_as_unsteady() -> None:
    first = levels.Outcome(level="st", passed=7, failed=2, failures=["st.one", "st.two"])
    second = levels.Outcome(level="st", passed=1, failed=1, failures=["st.two"])
    lines = once_more(first, second).splitlines()
    assert "st            8       1      0.0  1 unsteady" in lines
    assert "    st.one" in lines
    assert "    st.two" not in lines
    assert lines[-1] == "8 passed, 1 failed"


@pytest.mark.parametrize(
    ("failed", "failures", "second"),
    [
        (4, ["a", "b", "c", "d"], levels.Outcome(level="st", passed=4)),  # too many
        (1, [], levels.Outcome(level="st", passed=1)),  # pytest itself failed
        (1, ["a"], levels.Outcome(level="st")),  # nothing ran
        (1, ["a"], levels.Outcome(level="st", passed=500)),  # everything ran
        (1, ["a"], levels.Outcome(level="st", passed=1, failed=1, note="pytest ended with 3")),
    ],
)
def test_a_second_try_does_not_hide_a_failure(failed: int, failures: list[str], second: levels.Outcome) -> None:
    first = levels.Outcome(level="st", passed=7, failed=failed, failures=failures)
    assert once_more(first, second).splitlines()[-1] == f"7 passed, {failed} failed"
    assert first.unsteady == []


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
