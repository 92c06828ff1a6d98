"""Commands: run to their end, or left running with a log file."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = str | Sequence[str]
"""A text is run by ``sh -c``; a list of words as it stands."""

PATH = f"{Path(sys.prefix) / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
"""Our own programs first, then Debian's: a newer docker client in /usr/local must not get in."""


def clean_environment() -> dict[str, str]:
    """Return the environment commands get: nothing of the developer's own proxies, bundles or locale."""
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command that ended left behind."""

    command: str
    exit: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.exit == 0

    @property
    def text(self) -> str:
        """What a person at the terminal would have read, both streams, without the last newline."""
        return "\n".join(part for part in (self.stdout.rstrip("\n"), self.stderr.rstrip("\n")) if part)


class CommandFailed(AssertionError):
    """A command ended with another exit code than 0, or not in time."""

    def __init__(self, done: Done, where: str = "") -> None:
        super().__init__(f"{where and where + ': '}`{done.command}` ended with {done.exit}\n{done.text}")
        self.done = done


class Timeout(AssertionError):
    """Something did not happen in time."""


def words(command: Command) -> list[str]:
    return ["sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]


def spelled(command: Command) -> str:
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)


def run(
    command: Command,
    *,
    prefix: Sequence[str] = (),
    timeout: float = 30.0,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    check: bool = True,
    where: str = "",
) -> Done:
    """Run `command` (behind the words of `prefix`, such as ``nsenter ...``) to its end.

    Raises:
        CommandFailed: `check` is set and the exit code is not 0, or the time is over (the exit code is then 124).
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [*prefix, *words(command)],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**clean_environment(), **(env or {})},
        text=True,
        errors="replace",
        start_new_session=True,  # so that the whole group can be ended, and Ctrl-C comes to us alone
    )
    late = False
    try:
        stdout, stderr = process.communicate(stdin or None, timeout=timeout)
    except subprocess.TimeoutExpired:
        late = True
        end_group(process)
        stdout, stderr = _rest(process)
        stderr += f"(not done after {timeout:g} s: killed)\n"
    except BaseException:
        end_group(process)
        process.wait()
        raise
    done = Done(
        command=spelled(command),
        exit=124 if late else process.returncode,
        stdout=stdout,
        stderr=stderr,
        seconds=time.monotonic() - began,
    )
    if late or (check and not done.ok):
        raise CommandFailed(done, where)
    return done


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read what a killed process wrote; one that left its group may hold the pipes open, so not for ever."""
    try:
        return process.communicate(timeout=1.0)
    except subprocess.TimeoutExpired:
        return "", ""


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process started in a session of its own, with everything in its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Process:
    """A command left running, its output in a file."""

    def __init__(
        self,
        name: str,
        command: Command,
        *,
        log: Path,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.log = name, log
        self._entered = bool(prefix)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, *words(command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**clean_environment(), **(env or {})},
                text=True,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit(self) -> int | None:
        return self._process.poll()

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the command itself, once it has begun (nsenter, which only waits for it, has another one)."""
        return children(self._process.pid)[0] if self._entered else self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself (nsenter, which only waits for it, is spared)."""
        if self._entered:  # just started, nsenter may not have come to it yet
            wait_until(
                f"{self.name} to begin", lambda: not self.alive or bool(children(self._process.pid)), every=0.005
            )
        for pid in children(self._process.pid) if self._entered else [self._process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def pause(self) -> None:
        """Stop the command until `resume`; it is stopped when this returns."""
        self.signal(signal.SIGSTOP)
        # nsenter stops itself when what it waits for is stopped, and lets both go on when it goes on itself
        wait_until(f"{self.name} to be stopped", self._is_stopped, every=0.002)

    def resume(self) -> None:
        """Let the command go on after `pause`."""
        self._process.send_signal(signal.SIGCONT)

    def _is_stopped(self) -> bool:
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].startswith("T")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end and return the exit code.

        Raises:
            Timeout: it still runs.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{self.name} still runs after {timeout:g} s; its log: {self.log}") from None

    def terminate(self, grace: float = 15.0) -> int:
        """Ask the command to end, wait, and kill it when the grace is over."""
        if self.alive:
            self.signal(signal.SIGTERM)
            try:
                return self.wait(grace)
            except Timeout:
                return self.kill()
        return self.wait(0)

    def kill(self) -> int:
        """Kill the command as ``kill -9`` does."""
        if self.alive:
            self.signal(signal.SIGKILL)
            try:
                return self.wait(2.0)
            except Timeout:
                end_group(self._process)
        return self.wait(5.0)


def children(parent: int) -> list[int]:
    """Return the pids whose parent is `parent`. (Kernels without /proc/PID/task/TID/children exist.)"""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry))
    return found


PATIENCE = 2.0
"""How often the time that a wait names may pass before it is given up.

The times are those of a quiet machine, with some room; a slower or a busy one is not a fault of what is tested. Not
more than twice: some waits end well before felix's refresh (90 s) for what must not have to wait for that.
"""


def wait_until(what: str, condition: Callable[[], bool], *, timeout: float = 10.0, every: float = 0.02) -> float:
    """Wait until `condition()` holds and return the seconds it took; `timeout` is in the seconds of a quiet machine.

    Raises:
        Timeout: it does not hold in `PATIENCE` times that time; the message says `what` was waited for.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout * PATIENCE:
            raise Timeout(f"waited {timeout * PATIENCE:g} s in vain for: {what}")
        time.sleep(every)
    return time.monotonic() - began
