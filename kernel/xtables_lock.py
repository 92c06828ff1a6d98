"""The lock of the legacy iptables programs, /run/xtables.lock: taken while we write, and listened to.

Legacy tables have no lock and no notification of their own. The programs agree on a flock; each that lets it go closes
the file, which inotify tells. We keep the file open and only lock and unlock it, so what is told is never ourselves
(reference felix.md 7.6, 7.7).
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kernel.errors import Busy, DataplaneError, from_errno

PATIENCE_SECONDS: Final = 5.0
"""How long a held lock is waited for; the whole apply fails then, and is tried again."""
_BREAK_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.005
_IN_CLOSE: Final = 0x8 | 0x10
"""IN_CLOSE_WRITE, IN_CLOSE_NOWRITE."""
_IN_NEW: Final = 0x80 | 0x100
"""IN_MOVED_TO, IN_CREATE."""


def lock_path() -> Path:
    """Return where the programs of this host have their lock."""
    return Path(os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock")


class XtablesLock:
    """The lock file, kept open."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or lock_path()
        self._fd = -1
        self._impatient_until = 0.0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; the programs wait meanwhile.

        Whoever waited in vain just now does not wait again, so that an apply of eight tables waits once.

        Raises:
            Busy: another program has held it all the time; the text names it.
            DataplaneError: the file cannot be opened.
        """
        self._open()
        began = time.monotonic()
        patience = 0.0 if began < self._impatient_until else PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if (now := time.monotonic()) - began >= patience:
                    self._impatient_until = now + _BREAK_SECONDS
                    raise self._busy() from None
                time.sleep(_PAUSE_SECONDS)
        self._impatient_until = 0.0
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open(self) -> None:
        """Open the file, again if it was replaced by another one of that name."""
        try:
            if self._fd >= 0:
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._fd), self.path.stat()):
                        return
                self.close()
            self._fd = open_lock(self.path)
        except OSError as exc:
            raise from_errno(exc.errno or 0, f"cannot open the lock of iptables, {self.path}") from exc

    def _busy(self) -> DataplaneError:
        holder = self._holder()
        by = f"by {holder}" if holder else "by another program"
        return Busy(
            f"the lock of iptables, {self.path}, is held {by}; rules are not written meanwhile",
            errno=errno.EAGAIN,
            hint=f"see who holds it with 'fuser -v {self.path}', and end it if it hangs",
        )

    def _holder(self) -> str:
        """Return "NAME (pid N)" of who holds the lock, or nothing if the kernel does not say."""
        inode = os.fstat(self._fd).st_ino
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/locks").read_text().splitlines():
                # 1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF
                words = line.split()
                if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode and int(words[4]) > 0:
                    name = Path("/proc", words[4], "comm").read_text().strip()
                    return f"{name} (pid {words[4]})"
        return ""


class LockEvents:
    """Tells when a program lets the lock go; `fileno` is readable then.

    A lock file that is replaced is followed as soon as that is heard.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Make the file if it is not there, as the programs do.

        Raises:
            DataplaneError: it cannot be watched.
        """
        self._path = path or lock_path()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        try:
            self._fd = self._check(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
            self._watch(self._path.parent, _IN_NEW)
            self._follow()
            self.happened()  # that was us, if the file was not there
        except OSError as exc:
            self.close()
            raise from_errno(exc.errno or 0, f"cannot watch the lock of iptables, {self._path}") from exc

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def happened(self) -> bool:
        """Return whether the lock was let go by somebody since the last call. Cheap."""
        found = False
        while heard := self._read():
            found |= self._understand(heard)
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 4096)
        except BlockingIOError:
            return b""

    def _understand(self, heard: bytes) -> bool:
        """Walk struct inotify_event: watch, mask, cookie, length, name."""
        found, offset = False, 0
        while offset + 16 <= len(heard):
            mask = int.from_bytes(heard[offset + 4 : offset + 8], "little")
            length = int.from_bytes(heard[offset + 12 : offset + 16], "little")
            name = heard[offset + 16 : offset + 16 + length].rstrip(b"\0")
            offset += 16 + length
            if mask & _IN_CLOSE:
                found = True
            elif name == self._path.name.encode():
                with contextlib.suppress(OSError):
                    self._follow()
                found = True
        return found

    def _follow(self) -> None:
        os.close(open_lock(self._path))
        self._watch(self._path, _IN_CLOSE)

    def _watch(self, path: Path, mask: int) -> None:
        self._check(self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask))

    def _check(self, answer: int) -> int:
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer


def open_lock(path: Path) -> int:
    """Open the lock file as the programs do: made if it is not there, for root only."""
    return os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
