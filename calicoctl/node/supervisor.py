"""The daemons of a host under supervisord: configuration, start, readiness, stop.

Only supervisord's configuration file and pid file are used. Its RUNNING proves nothing, so readiness is asked of each
daemon itself (`resources.runtime.health`).
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resources.errors import CalicoError
from resources.runtime import health, paths

CONFIGURATION = paths.RUN / "supervisord.conf"
SOCKET = paths.RUN / "supervisor.sock"
PID_FILE = paths.RUN / "supervisord.pid"
LOG_BYTES = 10_000_000
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class DaemonFailed(CalicoError):
    """A daemon did not become ready. The message names it and ends with its last lines."""

    reference = "daemon-failed"


@dataclass(frozen=True, slots=True)
class Program:
    """One daemon: its name (of the socket and the log folder) and its command line."""

    name: str
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        return paths.LOG / self.name / "current"


def script(name: str) -> str:
    """Return the path of one of our console scripts, beside the interpreter that runs us."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise CalicoError(f"the program {name} is not installed", hint=f"it belongs beside {sys.executable}")
    return found


def programs(*, driver: bool, bgp: bool) -> tuple[Program, ...]:
    """Return the daemons of a host; `driver` is Docker's, `bgp` is off with CALICO_NETWORKING_BACKEND=none."""
    wanted = [Program("felix", (script("calico-felix"),))]
    if bgp:
        wanted.append(Program("bgpd", (script("calico-bgpd"),)))
    if driver:
        wanted.append(Program("libnetwork", (script("calico-libnetwork"),)))
    return tuple(wanted)


def configuration(wanted: Sequence[Program]) -> str:
    """Return supervisord's configuration file. Pure. The daemons inherit supervisord's own environment."""
    lines = [
        "[supervisord]",
        "user=root",
        f"pidfile={PID_FILE}",
        f"logfile={paths.LOG / 'supervisord.log'}",
        f"logfile_maxbytes={LOG_BYTES}",
        "logfile_backups=2",
        f"childlogdir={paths.LOG}",
        "directory=/",
        "umask=027",
        "minfds=4096",
        "",
        "[unix_http_server]",
        f"file={SOCKET}",
        "chmod=0600",
        "",
        "[supervisorctl]",
        f"serverurl=unix://{SOCKET}",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in wanted:
        lines += [
            "",
            f"[program:{program.name}]",
            f"command={' '.join(program.command).replace('%', '%%')}",
            "autostart=true",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000000",
            "stopsignal=TERM",
            "stopwaitsecs=8",
            # what a daemon leaves running on purpose (the BGP speaker) is not ours to kill
            "stopasgroup=false",
            "killasgroup=false",
            "redirect_stderr=true",
            f"stdout_logfile={program.log}",
            f"stdout_logfile_maxbytes={LOG_BYTES}",
            "stdout_logfile_backups=3",
        ]
    return "\n".join(lines) + "\n"


def pid() -> int | None:
    """Return the process id of the supervisor that runs on this host, or None."""
    try:
        number = int(PID_FILE.read_text())
        command = Path(f"/proc/{number}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return number if b"supervisord" in command else None


def write(wanted: Sequence[Program]) -> None:
    """Write the configuration and make the folders it names."""
    for folder in (paths.RUN, paths.LOG, *(program.log.parent for program in wanted)):
        folder.mkdir(parents=True, exist_ok=True)
    temporary = CONFIGURATION.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(configuration(wanted))
    temporary.rename(CONFIGURATION)


def start_background(wanted: Sequence[Program], environment: Mapping[str, str]) -> None:
    """Start supervisord as a daemon of its own session.

    Raises:
        DaemonFailed: supervisord itself does not start.
    """
    write(wanted)
    answer = subprocess.run(
        [script("supervisord"), "-c", str(CONFIGURATION)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_SECONDS, check=False,
        env=dict(environment),
    )
    if answer.returncode != 0:
        raise DaemonFailed(f"supervisord did not start: {(answer.stdout + answer.stderr).strip()}")


def exec_foreground(wanted: Sequence[Program], environment: Mapping[str, str]) -> None:
    """Become supervisord; does not return."""
    write(wanted)
    program = script("supervisord")
    os.execve(program, [program, "-n", "-c", str(CONFIGURATION)], dict(environment))


def wait_ready(
    wanted: Sequence[Program], say: Callable[[str], None], *, seconds: float = START_SECONDS
) -> None:
    """Wait until every daemon answers that it is ready, saying so for each.

    Raises:
        DaemonFailed: one is not ready in time, or the supervisor ended. The message shows its last lines.
    """
    deadline = time.monotonic() + seconds
    waiting = list(wanted)
    last: dict[str, str] = {}
    while waiting:
        for program in list(waiting):
            status, text = health.ask(paths.health_socket(program.name), "/readiness", timeout=1)
            last[program.name] = text.strip()
            if status == 204:
                say(f"calico-{program.name} is ready")
                waiting.remove(program)
        if waiting and (time.monotonic() > deadline or (pid() is None and time.monotonic() > deadline - seconds + 5)):
            raise _failure(waiting[0], last.get(waiting[0].name, ""))
        if waiting:
            time.sleep(0.05)


def say_unready(wanted: Sequence[Program], say: Callable[[str], None]) -> list[str]:
    """Say of each daemon that is not ready what it waits for; return their names."""
    unready = []
    for program in wanted:
        status, text = health.ask(paths.health_socket(program.name), "/readiness", timeout=1)
        if status != 204:
            say(f"calico-{program.name} is not ready: {text.strip() or 'it does not answer'}")
            unready.append(program.name)
    return unready


def _failure(program: Program, last: str) -> DaemonFailed:
    try:
        tail = program.log.read_text(errors="replace").splitlines()[-12:]
    except OSError as error:
        tail = [str(error)]
    lines = "\n".join(f"    {line}" for line in tail)
    return DaemonFailed(
        f"calico-{program.name} is not ready: {last or 'it does not answer'}\n"
        f"  the last lines of {program.log}:\n{lines}",
        hint="the daemons that did start go on trying; 'calicoctl node stop' ends them",
    )


def stop(*, seconds: float = STOP_SECONDS) -> bool:
    """End supervisord and, through it, the daemons. Returns False if none runs.

    Raises:
        DaemonFailed: it is still there after `seconds`.
    """
    number = pid()
    if number is None:
        return False
    os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while pid() == number:
        if time.monotonic() > deadline:
            raise DaemonFailed(f"supervisord (pid {number}) does not end", hint=f"see {paths.LOG / 'supervisord.log'}")
        time.sleep(0.05)
    return True
