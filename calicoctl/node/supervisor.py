"""The daemons of a host under supervisord: configuration, start, end, and what supervisord knows of them.

supervisord runs in a session of its own (`calico-node supervise`) and is found by its control socket: whoever listens
there is the supervisor.

**A daemon ends with its supervisor**, also when that is killed: one whose log nobody reads and whom nobody starts again
would look healthy until its first trouble. Routes, rules and the BGP speaker stay, as after `node stop`.
"""

import http.client
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resources.errors import CalicoError
from resources.runtime import paths

CONFIGURATION = paths.RUN / "supervisord.conf"
SOCKET = paths.RUN / "supervisor.sock"
PID_FILE = paths.RUN / "supervisord.pid"
COMPLAINTS = paths.LOG / "supervisord.err"
"""What supervisord says before it can write its log."""
LOG_BYTES = 10_000_000
DAEMONS = ("felix", "bgpd", "libnetwork", "agent")
LISTEN_SECONDS = 20.0
STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02


class DaemonFailed(CalicoError):
    """A daemon, or their supervisor, does not start or does not end. The message names it."""

    reference = "daemon-failed"


@dataclass(frozen=True, slots=True)
class Program:
    """One daemon: its name (of the socket and the log folder) and its command line."""

    name: str
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        return paths.LOG / self.name / "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What supervisord knows of a daemon. `ended_at` is when it last ended (wall time, whole seconds), 0 for never."""

    name: str
    running: bool
    exit_status: int
    ended_at: int
    trouble: str
    """supervisord's word on why it does not run."""


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
    wanted.append(Program("agent", (script("calico-node"), "agent")))
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
        command = ("setpriv", "--pdeathsig", "TERM", "--", *program.command)
        lines += [
            "",
            f"[program:{program.name}]",
            f"command={' '.join(command).replace('%', '%%')}",
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


# --- who runs --------------------------------------------------------------------------------------------------------


def pid() -> int | None:
    """Return the process id of the supervisor that runs on this host, or None. It looks around then."""
    return listener(SOCKET)


def listener(path: Path) -> int | None:
    """Return the pid of the process that listens on a unix socket, or None if nobody does.

    It is 0 for a process that this one cannot see, in a container beside ours.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    number: int = struct.unpack("3i", credentials)[0]
    return number


def strays() -> dict[str, int]:
    """Return name and pid of daemons that answer although no supervisor runs."""
    found = {name: listener(paths.health_socket(name)) for name in DAEMONS}
    return {name: number for name, number in found.items() if number is not None}


def processes() -> list[Process]:
    """Return what supervisord knows of the daemons; nothing if it does not answer."""
    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport())
    try:
        answer = proxy.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return []
    rows: Iterable[object] = answer if isinstance(answer, list) else ()
    return [
        Process(
            name=str(row.get("name")),
            running=row.get("statename") in ("STARTING", "RUNNING"),
            exit_status=int(row.get("exitstatus", 0)),
            ended_at=int(row.get("stop", 0)),
            trouble=str(row.get("spawnerr", "")),
        )
        for row in rows
        if isinstance(row, dict)
    ]


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(2.0)
        self.sock.connect(str(SOCKET))


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return _Connection("localhost")


# --- start and end ---------------------------------------------------------------------------------------------------


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
    """Start supervisord in a session of its own; the daemons are being started when this returns.

    Raises:
        DaemonFailed: supervisord itself does not start.
    """
    write(wanted)
    with COMPLAINTS.open("wb") as complaints:
        process = subprocess.Popen(
            _command(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints,
            env=dict(environment), cwd="/", umask=0o027, start_new_session=True,
        )
    deadline = time.monotonic() + LISTEN_SECONDS
    while pid() != process.pid:
        status = process.poll()
        if status is None and time.monotonic() > deadline:
            process.kill()
            status = process.wait()
        if status is not None:
            said = COMPLAINTS.read_text(errors="replace").strip().splitlines()
            raise DaemonFailed(
                f"the supervisor did not start (exit status {status}): {said[-1] if said else 'it said nothing'}",
                hint=f"see {COMPLAINTS} and {paths.LOG / 'supervisord.log'}",
            )
        time.sleep(_POLL_SECONDS)


def exec_foreground(wanted: Sequence[Program], environment: Mapping[str, str]) -> None:
    """Become supervisord; does not return."""
    write(wanted)
    command = _command()
    os.chdir("/")
    os.umask(0o027)
    os.execve(command[0], command, dict(environment))


def _command() -> list[str]:
    return [script("calico-node"), "supervise"]


def stop() -> bool:
    """End supervisord and, through it, the daemons; then daemons that ran without one. Returns False if none runs.

    Raises:
        DaemonFailed: one is still there although it was killed, or is out of reach.
    """
    number = pid()
    if number is not None:
        _end("the supervisor", number)
    return bool(end_strays()) or number is not None


def end_strays() -> list[str]:
    """End daemons that run without a supervisor, started by hand or left behind; return what they were."""
    found = strays()
    for name, number in found.items():
        _end(f"calico-{name}", number)
    return [f"calico-{name} (pid {number})" for name, number in found.items()]


def _end(what: str, number: int) -> None:
    """Ask a process to end, wait, and kill it if it does not."""
    if number == 0:
        raise DaemonFailed(
            f"{what} runs where this command cannot reach it, in another container",
            hint="end it from there, or from the host",
        )
    for word in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        with suppress(ProcessLookupError):
            os.kill(number, word)
        while time.monotonic() < deadline:
            if not _is_alive(number):
                return
            time.sleep(_POLL_SECONDS)
    raise DaemonFailed(f"{what} (pid {number}) does not end", hint=f"see the logs in {paths.LOG}")


def _is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
