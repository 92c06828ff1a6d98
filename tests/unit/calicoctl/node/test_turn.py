"""Commands that change what runs on a host take turns."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from calicoctl.node.turn import Occupied, holder, taken


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "node.lock"


def test_a_turn_is_given_back(file: Path) -> None:
    for _ in range(2):
        with taken(file=file, seconds=0) as lock:
            assert lock is not None
            assert holder(file) == str(os.getpid())


def test_a_second_one_waits_says_so_and_gives_up_naming_the_first(file: Path) -> None:
    waits: list[str] = []
    named = pytest.raises(Occupied, match=rf"at work on this host \(pid {os.getpid()}\)")
    with taken(file=file), named, taken(file=file, seconds=0.1, waiting=lambda: waits.append("once")):
        pass
    assert waits == ["once"]


def test_a_second_one_goes_on_when_the_first_is_done(file: Path) -> None:
    order: list[str] = []
    waits, inside = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait(5)
        with taken(file=file, seconds=10, waiting=waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with taken(file=file):
        inside.set()
        assert waits.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_who_finds_done_what_he_came_for_does_not_wait(file: Path) -> None:
    with taken(file=file), taken(file=file, unless=lambda: True) as lock:
        assert lock is None


def test_a_file_that_was_taken_away_locks_nobody_out_and_lets_nobody_in_twice(file: Path) -> None:
    """`node clean` removes the folder while it has the turn."""
    with taken(file=file):
        file.unlink()
        with taken(file=file, seconds=0) as lock:
            assert lock is not None
            with pytest.raises(Occupied), taken(file=file, seconds=0):
                pass


def test_who_inherits_the_lock_keeps_the_turn(file: Path) -> None:
    with taken(file=file) as lock:
        assert lock is not None
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with pytest.raises(Occupied), taken(file=file, seconds=0):
        pass
    heir.communicate(b"\n", timeout=10)
    with taken(file=file, seconds=0) as again:
        assert again is not None
