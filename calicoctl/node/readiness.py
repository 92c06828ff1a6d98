"""Whether the daemons of this host are ready, asked of each daemon itself, and why one is not."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from calicoctl.node.supervisor import DaemonFailed, Process, Program
from resources.runtime import health, paths

STARTS = 2
"""A daemon that ended so often before it was ready does not start: it is not waited for any longer."""
TAIL_LINES = 12
POLL_SECONDS = 0.05
LOOK_SECONDS = 0.5
"""How often supervisord is asked who ended; a daemon that ended rests for a second at least before its next start."""
READY = 204
_SETTING = re.compile(r"\blevel=info\b.*\bevent=setting\.")

Ask = Callable[[Program], tuple[int, str]]


class NotReady(DaemonFailed):
    """A daemon did not become ready. `lines` are the last ones it logged."""

    reference = "daemon-not-ready"

    def __init__(self, program: Program, reason: str, lines: Sequence[str]) -> None:
        super().__init__(f"calico-{program.name} {reason}")
        self.lines = tuple(lines)
        self.log = program.log


def ask(program: Program) -> tuple[int, str]:
    """Return the HTTP status and the text of a daemon's readiness; status 0: nobody answers."""
    return health.ask(paths.health_socket(program.name), "/readiness", timeout=1)


def wait_ready(
    wanted: Sequence[Program],
    say: Callable[[str], None],
    *,
    log_sizes: Mapping[str, int],
    processes: Callable[[], Iterable[Process]],
    ask: Ask = ask,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until every daemon answers that it is ready, saying so for each.

    `log_sizes` says where each log ended before the start, so that an old line is not shown as the reason.

    Raises:
        NotReady: one is not after `seconds`, or ended again and again.
    """
    deadline = clock() + seconds
    look_at = clock() + LOOK_SECONDS
    waiting = list(wanted)
    last: dict[str, str] = {}
    ends: dict[str, set[int]] = {}

    def failed(program: Program, reason: str) -> NotReady:
        return NotReady(program, reason, tail(program.log, log_sizes.get(program.name, 0)))

    while True:
        for program in list(waiting):
            status, text = ask(program)
            last[program.name] = "; ".join(text.strip().splitlines()) if status else ""
            if status == READY:
                say(f"calico-{program.name} is ready")
                waiting.remove(program)
        if not waiting:
            return
        if clock() >= look_at:
            look_at = clock() + LOOK_SECONDS
            known = {process.name: process for process in processes()}
            for program in waiting:
                if reason := _hopeless(known.get(program.name), ends.setdefault(program.name, set())):
                    raise failed(program, reason)
        if clock() >= deadline:
            waits = last[waiting[0].name] or "it does not answer"
            raise failed(waiting[0], f"is not ready after {seconds:g} s: {waits}")
        sleep(POLL_SECONDS)


def _hopeless(process: Process | None, ends: set[int]) -> str:
    """Return why it is no use to wait for a daemon, or nothing; `ends` collects when it ended."""
    if process is None or process.running:
        return ""
    if process.exit_status:
        ends.add(process.ended_at)
        return f"ends as soon as it is started (exit status {process.exit_status})" if len(ends) >= STARTS else ""
    return f"cannot be started: {process.trouble}" if process.trouble else ""


def unready(wanted: Sequence[Program]) -> list[str]:
    """Return a line for each daemon that is not ready, with what it waits for."""
    found = []
    for program in wanted:
        status, text = ask(program)
        if status != READY:
            waits = "; ".join(text.strip().splitlines()) if status else ""
            found.append(f"calico-{program.name} is not ready: {waits or 'it does not answer'}")
    return found


def log_sizes(wanted: Sequence[Program]) -> dict[str, int]:
    """Return how long each daemon's log is now."""
    return {program.name: program.log.stat().st_size for program in wanted if program.log.exists()}


def tail(log: Path, start: int, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log that may say what is wrong.

    Lines before the byte `start` are of an earlier start (all count if the log was begun anew since), and settings are
    many and seldom the reason.
    """
    try:
        data = log.read_bytes()
    except OSError as error:
        return [str(error)]
    told = data[start if start <= len(data) else 0 :].decode(errors="replace").splitlines()
    return [line for line in told if not _SETTING.search(line)][-lines:]
