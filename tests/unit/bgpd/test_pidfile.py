"""Whose pid a pid file holds, and the end of a session."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd import pidfile

# a child that would stay, in a process group of its own as ExaBGP's relay is
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=os.setpgrp)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process, child
    pidfile.kill_session(process.pid)
    process.wait(10)
    process.stdout.close()


def test_a_pid_counts_with_its_start_time_only(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile.write(path, os.getpid())
    assert pidfile.read(path) == os.getpid()
    pid, started = path.read_text().split()
    path.write_text(f"{pid} {int(started) + 1}\n")
    assert pidfile.read(path) is None


@pytest.mark.parametrize("text", ["", "x y", "1", "99999999 5", "-1 0"])
def test_nonsense_is_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    assert pidfile.read(path) is None


def test_no_file_is_nobody(tmp_path: Path) -> None:
    assert pidfile.read(tmp_path / "pid") is None
    assert pidfile.end(tmp_path / "pid") is False


def test_a_process_that_is_gone_leaves_no_file(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(10)
    pidfile.write(tmp_path / "pid", process.pid)
    assert not (tmp_path / "pid").exists()


def test_the_end_takes_the_whole_session(tmp_path: Path, family: tuple[subprocess.Popen[str], int]) -> None:
    process, child = family
    path = tmp_path / "pid"
    pidfile.write(path, process.pid)
    assert set(pidfile.session_members(process.pid)) == {process.pid, child}
    assert pidfile.end(path) is True
    assert process.wait(10) == -signal.SIGTERM
    assert pidfile.session_members(process.pid) == []
    assert not path.exists()


def test_one_that_does_not_want_to_is_killed(tmp_path: Path, family: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = family
    path = tmp_path / "pid"
    pidfile.write(path, process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    assert pidfile.end(path, seconds=0.05) is True
    assert process.wait(10) < 0


def test_a_dead_process_that_nobody_collected_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    path = tmp_path / "pid"
    pidfile.write(path, process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert pidfile.read(path) is None
    process.wait(10)


def test_only_the_process_that_is_meant_is_signalled(family: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = family
    began = pidfile.start_time(process.pid)
    assert began is not None
    # as if its pid had been another's before, or had never been looked at
    for other in (began - 1, None):
        pidfile.send(process.pid, other, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    pidfile.send(process.pid, began, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    pidfile.send(process.pid, began, signal.SIGTERM)


def test_a_process_without_a_pid_file_is_found_by_the_end_of_its_command(tmp_path: Path) -> None:
    wait, file = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], str(tmp_path / "a.conf")
    words = [["server", file], ["server", f"{file}.new"], ["server", file, "more"], ["noserver", file]]
    processes = [subprocess.Popen([*wait, *last], stdout=subprocess.PIPE) for last in words]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert pidfile.running(("server", file)) == [processes[0].pid]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert pidfile.running(("server", file)) == []
