"""Kernel settings below /proc/sys, of the network namespace of the calling thread."""

import errno
import os
from pathlib import Path
from typing import Protocol

from kernel.errors import DataplaneError, InvalidArgument, NoSuchEntry, from_errno


class Sysctls(Protocol):
    """Settings by their path below /proc/sys ("net/ipv4/conf/cali1/proxy_arp"; slashes, as names may hold dots)."""

    def read(self, path: str) -> str:
        """Return the value without surrounding white space.

        Raises:
            NoSuchEntry: no such setting (its interface is not there, or the kernel lacks the feature).
        """

    def write(self, path: str, value: str) -> None:
        """Set the value.

        Raises:
            NoSuchEntry: as above.
            ReadOnly: /proc/sys is mounted read-only.
            InvalidArgument: the kernel does not take the value.
        """


class ProcSysctls:
    """Sysctls on the proc file system."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def read(self, path: str) -> str:
        try:
            return self._file(path).read_text().strip()
        except OSError as exc:
            raise _error(exc, f"cannot read the setting {path}") from exc

    def write(self, path: str, value: str) -> None:
        try:
            descriptor = os.open(self._file(path), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise _error(exc, f"cannot set {path} to {value}") from exc

    def _file(self, path: str) -> Path:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"{path!r} is not the path of a setting", errno=errno.EINVAL)
        return self._root / path


def _error(exc: OSError, what: str) -> DataplaneError:
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return NoSuchEntry(f"{what}: there is no such setting", errno=exc.errno)
    return from_errno(exc.errno or 0, what)
