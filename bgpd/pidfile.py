"""ExaBGP's pid file: its pid and its start time, so that a pid that was given away again is never taken for it.

The file is one line, ``PID STARTTIME``; the start time is field 22 of /proc/PID/stat (clock ticks since boot).
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from resources.runtime.paths import RUN

_DEAD = ("Z", "X")

PID_FILE = RUN / "exabgp.pid"


def write(path: Path, pid: int) -> None:
    """Write the pid file of a process that runs; nothing is written if it is gone."""
    started = start_time(pid)
    if started is not None:
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_text(f"{pid} {started}\n")
        temporary.rename(path)


def read(path: Path) -> int | None:
    """Return the pid of the process that a pid file is about, if that process still runs."""
    try:
        words = path.read_text().split()
        pid, started = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return pid if start_time(pid) == started else None


def start_time(pid: int) -> int | None:
    """Return when a process began, or None if it is gone or dead and not yet collected."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in _DEAD else int(fields[19])


def running(last_words: Sequence[str]) -> list[int]:
    """Return the pids of the processes here whose command lines end with some words, though no pid file has them.

    Those that see other files by the same names, in containers, are none of ours.
    """
    wanted = "\0".join(["", *last_words, ""]).encode()
    return [
        pid
        for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        if _command(pid).endswith(wanted) and start_time(pid) is not None and _files(pid) == _files(os.getpid())
    ]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _files(pid: int) -> str | None:
    """Return which mounts a process sees."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def send(pid: int, began: int | None, number: signal.Signals) -> None:
    """Signal the process that had this pid and began then; nobody if it is gone, though its pid be another's now."""
    if began is not None and start_time(pid) == began:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def session_members(session: int) -> list[int]:
    """Return the pids of all living processes of a session."""
    members = []
    for entry in os.listdir("/proc"):
        fields = _stat(int(entry)) if entry.isdigit() else None
        if fields is not None and fields[0] not in _DEAD and int(fields[3]) == session:
            members.append(int(entry))
    return members


def end(path: Path, *, seconds: float = 5.0) -> bool:
    """End the process of a pid file and everything in its session, first politely; False if there was none."""
    pid = read(path)
    if pid is None:
        path.unlink(missing_ok=True)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while read(path) == pid:
        if time.monotonic() > deadline:
            kill_session(pid)
            deadline = time.monotonic() + seconds
        time.sleep(0.02)
    while session_members(pid) and time.monotonic() <= deadline:
        kill_session(pid)
        time.sleep(0.01)
    path.unlink(missing_ok=True)
    return True


def kill_session(session: int) -> None:
    """Kill every process of a session that was begun by a process with this pid."""
    for member in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third on (the second may hold blanks and brackets)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
