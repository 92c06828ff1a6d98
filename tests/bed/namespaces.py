"""Network namespaces: made and deleted by name, entered by a thread, searched for processes."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bed.command import Command, Done, run

NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Put the calling thread into a network namespace for the length of the block.

    Sockets opened inside stay in the namespace for their whole life, and threads and processes started inside begin in
    it; other threads are not touched. `namespace` is any namespace file, such as /run/netns/NAME or /proc/PID/ns/net.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(inside)
        finally:
            os.close(inside)
        try:
            yield
        finally:
            _setns(before)
    finally:
        os.close(before)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def ip(*arguments: str, batch: str = "", check: bool = True) -> Done:
    """Run iproute2's ``ip`` in the machine's mount namespace; `batch` is a list of commands, one per line."""
    words = ["ip", *arguments, *(["-batch", "-"] if batch else [])]
    return run(words, stdin=batch, check=check)


def add(name: str) -> Path:
    """Make a named namespace and return its file."""
    ip("netns", "add", name)
    return NETNS / name


def names(prefix: str) -> list[str]:
    """Return the names of namespaces that begin with `prefix`."""
    try:
        return sorted(entry.name for entry in NETNS.iterdir() if entry.name.startswith(prefix))
    except FileNotFoundError:
        return []


def delete(*doomed: str) -> None:
    """Kill what runs in the named namespaces and delete them; names that are gone already are fine."""
    kill_inside(*doomed)
    for name in doomed:
        if (NETNS / name).exists():
            ip("netns", "del", name, check=False)


def processes(*wanted: str) -> list[int]:
    """Return the pids in the named namespaces, this process excepted."""
    inodes = set()
    for name in wanted:
        with contextlib.suppress(FileNotFoundError):
            inodes.add((NETNS / name).stat().st_ino)
    found = []
    for entry in os.listdir("/proc") if inodes else ():
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    found.append(int(entry))
    return found


def kill_inside(*doomed: str, timeout: float = 10.0) -> None:
    """Kill every process in the named namespaces and wait until none is left.

    nsenter and unshare wait for a child in another PID namespace. They come last: killed before it, they would leave
    its remains to the machine's init, and that PID namespace does not end until those are collected.
    """
    deadline = time.monotonic() + timeout
    while pids := processes(*doomed):
        for pid in [pid for pid in pids if _comm(pid) not in ("nsenter", "unshare")] or pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} in {', '.join(doomed)} do not die")
        time.sleep(0.01)


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Namespace:
    """A bare network namespace of a bed, with nothing but a loopback device.

    For one-host tests that need a real kernel and nothing else; `fabric.namespace()` or the `netns` fixture makes one.
    """

    def __init__(self, name: str, *, label: str = "") -> None:
        self.netns = name
        """Its name for ``ip -n`` and in /run/netns."""
        self.name = label or name
        self.path = add(name)
        ip("-n", name, "link", "set", "lo", "up")

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into this namespace: ``with netns.entered(): ...``."""
        return entered(self.path)

    def run(
        self,
        command: Command,
        *,
        timeout: float = 30.0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Done:
        """Run a command in this network namespace (the machine's files and processes)."""
        prefix = ["nsenter", f"--net={self.path}", "--"]
        return run(command, prefix=prefix, timeout=timeout, stdin=stdin, env=env, check=check, where=self.name)

    def ip(self, *arguments: str, batch: str = "", check: bool = True) -> Done:
        """Run ``ip`` on this namespace."""
        return ip("-n", self.netns, *arguments, batch=batch, check=check)

    def close(self) -> None:
        delete(self.netns)

    def __enter__(self) -> "Namespace":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
