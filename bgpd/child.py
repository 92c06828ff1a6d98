"""ExaBGP and its relay as real processes: the `Child` of bgpd.speaker.

Threads do what may block (connecting, reading, writing, validating, waiting for the end) and post what comes of it.
"""

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bgpd import pidfile, relay
from bgpd.plan import Found, digest
from bgpd.speaker import ChildEnded, ChildMessage, Lines, RelayClosed, Validated
from kernel import socket_filter
from kernel.errors import DataplaneError
from kernel.process_sockets import tcp_sockets
from resources.names import IPAddress
from resources.runtime import paths

EXABGP = Path(sys.executable).parent / "exabgp"
VALIDATE_SECONDS = 30.0
LOG_BYTES_MAX = 1 << 20
_RECEIVE_BYTES = 1 << 18
_RETRY_SECONDS = 0.02
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
_ADVICE = (
    "environment file missing",
    'generate it using "exabgp env',
    # said whatever it was that kept it from listening, which the line before tells
    "unset exabgp.tcp.bind if",
    "check that no other daemon is already binding",
)

Post = Callable[[ChildMessage], None]


class ExabgpChild:
    """Runs ``exabgp server`` in a session of its own, so that it outlives this process.

    Args:
        run: folder of its files: ``exabgp.conf``, ``exabgp.pid``, ``exabgp.state``, ``bgp-relay.sock``.
        log: file for what it writes to standard error.
        post: takes messages, from any thread.
        say: takes ExaBGP's own log lines, from any thread.
    """

    def __init__(
        self, *, run: Path = paths.RUN, log: Path | None = None, post: Post, say: Callable[[str], None]
    ) -> None:
        self._run, self._post, self._say = run, post, say
        self._log = log or paths.LOG / "bgpd" / "exabgp.log"
        self._conf = run / "exabgp.conf"
        self._pid_file = run / pidfile.PID_FILE.name
        self._state = run / "exabgp.state"
        self._socket = run / "bgp-relay.sock"
        self._pid: int | None = None
        self._began: int | None = None
        """When the process of that pid began: an ExaBGP is gone for hours where none can be started."""
        self._failures = 0
        self._connection: _Connection | None = None
        self._connections = 0
        self._validating = threading.Lock()
        """All checks use one file, and a check may be asked for while one that nobody waits for any more goes on."""

    @property
    def relay_command(self) -> tuple[str, ...]:
        """How ExaBGP is to start the relay. -I -S: it needs nothing that is installed."""
        return sys.executable, "-I", "-S", str(Path(relay.__file__).resolve()), "--socket", str(self._socket)

    # --- the process -------------------------------------------------------------------------------------------------

    def find(self) -> Found | None:
        pid = pidfile.read(self._pid_file)
        if pid is None:
            return None
        try:
            noted = json.loads(self._state.read_bytes())
            found = Found(pid, str(noted["configuration"]), str(noted["environment"])) if noted["pid"] == pid else None
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        # without a note nobody knows what it runs with: digests that fit nothing have it restarted
        self._watch(pid, None, _Tail(self._log, self._say))
        return found or Found(pid, "", "")

    def start(self, configuration: str, environment: Mapping[str, str]) -> int:
        # one that was not adopted, or did not end, must not hold the port
        pidfile.end(self._pid_file)
        for pid in pidfile.running(("server", str(self._conf))):
            # we were killed between its start and the writing of its pid
            pidfile.kill_session(pid)
        try:
            self.install(configuration)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            tail = _Tail(self._log, self._say)
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [str(EXABGP), "server", str(self._conf)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(environment),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._failures += 1
            self._post(ChildEnded(-self._failures, None, str(error)))
            return -self._failures
        pidfile.write(self._pid_file, process.pid)
        self._watch(process.pid, process, tail)
        return process.pid

    def _watch(self, pid: int, process: "subprocess.Popen[bytes] | None", tail: "_Tail") -> None:
        self._pid, self._began = pid, pidfile.start_time(pid)
        threading.Thread(target=self._wait, args=(pid, process, tail), name="exabgp", daemon=True).start()

    def _wait(self, pid: int, process: "subprocess.Popen[bytes] | None", tail: "_Tail") -> None:
        """Wait for the end of ExaBGP and pass on what it logs meanwhile."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            descriptor = None
        if descriptor is not None:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while not poll.poll(1000):
                tail.read()
            os.close(descriptor)
        status = None if process is None else process.wait()
        # a relay that was stopped does not notice that its ExaBGP is gone
        pidfile.kill_session(pid)
        tail.read()
        self._post(ChildEnded(pid, status, tail.last))

    def guard(self, least_ttl: Mapping[IPAddress, int]) -> str | None:
        if self._pid is None or self._pid <= 0:
            return None
        try:
            programs = {
                family: socket_filter.from_near(least_ttl, version)
                for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6))
            }
            with tcp_sockets(self._pid) as found:
                for one in found:
                    socket_filter.attach(one, programs[one.family])
        except (DataplaneError, OSError, ValueError) as error:
            return str(error)
        return None

    def end(self, *, hard: bool) -> None:
        self._disconnect()
        if self._pid is None or pidfile.start_time(self._pid) not in (None, self._began):
            return
        if hard:
            pidfile.kill_session(self._pid)
        else:
            pidfile.send(self._pid, self._began, signal.SIGTERM)

    # --- its configuration -------------------------------------------------------------------------------------------

    def validate(self, configuration: str, environment: Mapping[str, str]) -> None:
        threading.Thread(
            target=self._validate, args=(configuration, environment), name="validate", daemon=True
        ).start()

    def _validate(self, configuration: str, environment: Mapping[str, str]) -> None:
        with self._validating:
            checked = self._checked(configuration, environment)
        self._post(checked)

    def _checked(self, configuration: str, environment: Mapping[str, str]) -> Validated:
        candidate = self._conf.with_suffix(".candidate")
        is_verdict = False
        try:
            _write_private(candidate, configuration)
            answer = subprocess.run(
                [str(EXABGP), "validate", str(candidate)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(environment),
                timeout=VALIDATE_SECONDS,
                check=False,
            )
            lines = [line for line in answer.stdout.decode(errors="replace").splitlines() if not _is_advice(line)]
            fault = None if answer.returncode == 0 else " / ".join(lines[-5:]) or f"exit status {answer.returncode}"
            # below 0 it was killed
            is_verdict = answer.returncode >= 0
        except (OSError, subprocess.TimeoutExpired) as error:
            fault = str(error)
        candidate.unlink(missing_ok=True)
        return Validated(digest(configuration), fault, is_verdict)

    def install(self, configuration: str) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        _write_private(self._conf, configuration)

    def reload(self) -> None:
        if self._pid is not None:
            pidfile.send(self._pid, self._began, signal.SIGUSR1)

    def note(self, found: Found) -> None:
        text = json.dumps(
            {"pid": found.pid, "configuration": found.configuration, "environment": found.environment}
        )
        _write_private(self._state, text + "\n")

    # --- the relay ---------------------------------------------------------------------------------------------------

    def connect(self, seconds: float) -> int:
        self._disconnect()
        self._connections += 1
        self._connection = _Connection(self._connections, self._socket, seconds, self._post)
        return self._connections

    def write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(data)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Let go of the relay; ExaBGP stays."""
        self._disconnect()


class _Connection:
    """One connection to the relay, with a thread that reads and one that writes."""

    def __init__(self, number: int, path: Path, seconds: float, post: Post) -> None:
        self._number, self._path, self._post = number, path, post
        self._deadline = time.monotonic() + seconds
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name=f"relay-in-{number}", daemon=True).start()

    def write(self, data: bytes) -> None:
        self._outgoing.put(data)

    def close(self) -> None:
        self._closed.set()
        self._outgoing.put(None)
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            connection = self._connect()
            if connection is None:
                return
            with connection:
                threading.Thread(
                    target=self._write, args=(connection,), name=f"relay-out-{self._number}", daemon=True
                ).start()
                reason = self._receive(connection)
        except OSError as error:
            reason = f"{self._path}: {error}"
        self._outgoing.put(None)
        if not self._closed.is_set():
            self._post(RelayClosed(self._number, reason))

    def _connect(self) -> socket.socket | None:
        """Return a connection, or None if it is no longer wanted; raises OSError when the time is over."""
        while not self._closed.is_set():
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                if time.monotonic() >= self._deadline:
                    raise
                self._closed.wait(_RETRY_SECONDS)
                continue
            self._socket = connection
            return connection
        return None

    def _receive(self, connection: socket.socket) -> str:
        tail = b""
        while not self._closed.is_set():
            data = connection.recv(_RECEIVE_BYTES)
            if not data:
                return "the relay closed its socket"
            whole, newline, tail = (tail + data).rpartition(b"\n")
            if newline and not self._closed.is_set():
                self._post(Lines(self._number, tuple(whole.split(b"\n"))))
        return ""

    def _write(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := self._outgoing.get()) is not None:
                connection.sendall(data)


class _Tail:
    """Reads what is new in a log file, and keeps the file small."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self.last = ""

    def read(self) -> None:
        try:
            with self._path.open("r+b") as file:
                file.seek(self._offset)
                data = self._rest + file.read()
                self._offset = file.tell()
                if self._offset > LOG_BYTES_MAX:
                    # the writer appends, so it goes on at the new end
                    file.truncate(0)
                    self._offset = 0
        except OSError:
            return
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text and not _is_advice(text):
                self.last = text
                self._say(text)


def _is_advice(line: str) -> bool:
    """Whether a line is one with which ExaBGP tells a person what to do about a file or setting of its own."""
    return any(advice in line for advice in _ADVICE)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return ExaBGP's environment: nothing of ours but what every program needs, so that no secret travels."""
    return {**{key: os.environ[key] for key in _PASSED_ON if key in os.environ}, **own}


def _write_private(path: Path, text: str) -> None:
    """Write a file for root alone, replacing it as a whole."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.rename(path)
