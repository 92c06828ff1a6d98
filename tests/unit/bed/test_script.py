"""The demo's script: what is printed, and when it counts as passed."""

import pytest

from bed.demo.script import Script, StepFailed


def test_a_step_passes_only_if_something_was_checked_and_all_of_it_held(capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    with script.step("good"):
        script.check("one and one is two", True)
    assert script.passed
    with script.step("empty"):
        pass
    assert not script.passed
    assert "   ok    one and one is two\n" in capsys.readouterr().out


def test_an_error_ends_its_step_and_not_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    with script.step("broken"):
        raise ValueError("the cause")
    with script.step("given up"):
        script.need("water is dry", False, "it is wet")
        raise AssertionError("not reached")
    with script.step("after"):
        script.check("still here", True)
    script.notes.append("a note")
    summary = script.summary().splitlines()
    assert not script.passed
    assert [line.split()[:3] for line in summary if line[2:3] == "."] == [
        ["1.", "broken", "FAIL"],
        ["2.", "given", "up"],
        ["3.", "after", "pass"],
    ]
    assert "      ValueError: the cause" in summary
    assert "      water is dry: it is wet" in summary
    assert "a note" in summary
    assert summary[-1].startswith("1 of 3 steps pass")
    assert "FAIL  ValueError: the cause" in capsys.readouterr().out


def test_an_interrupt_is_not_swallowed() -> None:
    script = Script()
    with pytest.raises(KeyboardInterrupt), script.step("interrupted"):
        raise KeyboardInterrupt
    assert not script.passed


def test_a_fault_is_kept_even_when_the_step_ends_early() -> None:
    script = Script()
    with script.step("mixed"):
        script.check("first", False, "second")
        raise StepFailed("third")
    assert script.steps[0].faults == ["first", "third"]
