"""The TCP sockets of another process, to set what that program itself does not set (pidfd_getfd(2), Linux 5.6)."""

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator

from kernel.errors import from_errno

_PIDFD_GETFD = 438
"""The number of the call on every architecture."""


@contextlib.contextmanager
def tcp_sockets(pid: int) -> Iterator[list[socket.socket]]:
    """Hand out the TCP sockets that a process has now, for the length of the block.

    They are the process's own: what is set on them, it has. One that it closes meanwhile is in the list or not.

    Raises:
        DataplaneError: the process is gone, is not to be touched by us, or the kernel cannot do it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as opened:
        try:
            process = os.pidfd_open(pid)
            opened.callback(os.close, process)
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            raise from_errno(error.errno or 0, f"cannot open process {pid}") from error
        found = []
        for name in names:
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except OSError:
                continue  # closed meanwhile
            descriptor = library.syscall(_PIDFD_GETFD, process, int(name), 0)
            if descriptor < 0:
                if ctypes.get_errno() == errno.EBADF:
                    continue  # closed meanwhile
                raise from_errno(ctypes.get_errno(), f"cannot take a socket of process {pid}")
            one = opened.enter_context(socket.socket(fileno=descriptor))
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                found.append(one)
        yield found
