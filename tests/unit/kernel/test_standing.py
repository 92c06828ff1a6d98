"""A program that stands ready: success is told before its end, failure at its end, and each process serves once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.errors import ToolMissing, ToolTimedOut
from kernel.standing import FEED_MAX, Standing

Make = Callable[[str], Standing]
LINGERS = "cat; sleep 0.7"
"""Repeats what it reads, and takes its time to end."""


@pytest.fixture
def standing() -> Iterator[Make]:
    made: list[Standing] = []

    def make(script: str, patience: float = 0.2) -> Standing:
        made.append(Standing(("sh", "-c", script), patience=patience))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_success_is_told_before_the_end_of_the_program(standing: Make, tmp_path: Path) -> None:
    outcome = standing(f"cat; sleep 5; touch {tmp_path}/ended").run("one\ntwo\n")
    assert not (tmp_path / "ended").exists()
    assert outcome.status == 0
    assert outcome.output.startswith("one\ntwo\n")


def test_each_process_serves_once_and_the_next_stands_ready(standing: Make) -> None:
    program = standing("echo $$; cat")
    pids = []
    for _ in range(8):  # more than may be ending at a time
        program.prepare()
        pids.append(program.run("").output.split()[0])
    assert len(set(pids)) == 8


def test_one_that_ends_while_an_elder_is_waited_for_has_told_all(standing: Make, tmp_path: Path) -> None:
    slow_once = f"if mkdir {tmp_path}/first 2>/dev/null; then cat; sleep 0.7; else cat; fi"
    program = standing(slow_once)
    for number in range(8):  # more than may be ending at a time
        assert program.run(f"{number}\n").output.startswith(f"{number}\n")


def test_a_failure_is_told_with_status_and_words(standing: Make) -> None:
    outcome = standing("head -c 4; echo 'line 2 failed' >&2; exit 3").run("one\ntwo\n")
    assert (outcome.status, outcome.complaint) == (3, "line 2 failed\n")


def test_one_that_ended_while_it_stood_there_is_replaced(standing: Make) -> None:
    program = standing("cat")
    program.prepare()
    assert program._ready is not None
    program._ready.kill()
    program._ready.wait()
    assert program.run("x\n").status == 0


def test_one_that_repeats_nothing_is_judged_by_its_end(standing: Make) -> None:
    program = standing("cat >/dev/null")
    assert program.run("x\n").status == 0
    program.prepare()
    assert program._ready is None
    assert program.run("x\n").status == 0


def test_one_that_hears_nothing_is_killed(standing: Make) -> None:
    with pytest.raises(ToolTimedOut):
        standing("exec sleep 60").run("x\n", timeout=0.5)


def test_those_that_do_not_end_are_killed() -> None:
    program = Standing(("sh", "-c", "cat; exec sleep 60"), end_seconds=0.1)
    for _ in range(7):
        assert program.run("x\n").status == 0
    program.close()
    assert program._ending == []


def test_a_large_feed_is_given_whole(standing: Make) -> None:
    feed = "line\n" * FEED_MAX
    assert standing("wc -c").run(feed).output.split() == [str(len(feed))]


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ToolMissing, match="no-such-program"):
        Standing(("no-such-program",)).run("x\n")
