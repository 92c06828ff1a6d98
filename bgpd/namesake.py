"""Serves one of BIRD's control sockets under BIRD's process name, for tools that look for that process.

    namesake.py NAME SOCKET BEHIND

It listens on SOCKET and carries each connection to BEHIND, where bgpd answers. It ends with its standard input, which
bgpd holds open: no process of that name is left when bgpd is gone (reference resources.md 5.9).
"""

import os
import selectors
import socket
import sys
from pathlib import Path

CHUNK = 1 << 16
CONNECTIONS_MAX = 128


class Namesake:
    """The listening socket and the pairs of connections behind it."""

    def __init__(self, listener: socket.socket, behind: Path) -> None:
        self._listener, self._behind = listener, behind
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}

    def run(self, parent: int) -> None:
        """Serve until the descriptor `parent` ends."""
        self._selector.register(parent, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == parent:
                    if not os.read(parent, CHUNK):
                        return
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._other:
                    self._carry(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # who does not read what it asked for is dropped, not waited for
        for one in (client, server):
            one.settimeout(1.0)
        try:
            if len(self._other) >= 2 * CONNECTIONS_MAX:
                raise OSError("too many connections")
            server.connect(str(self._behind))
        except OSError:
            client.close()
            server.close()
            return
        for one, other in ((client, server), (server, client)):
            self._other[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, source: socket.socket) -> None:
        try:
            data = source.recv(CHUNK)
            if data:
                self._other[source].sendall(data)
                return
        except OSError:
            pass
        for one in (source, self._other[source]):
            self._selector.unregister(one)
            del self._other[one]
            one.close()


def listen(path: Path) -> socket.socket:
    """Return a listening socket (0660) at `path`, in place of one that an earlier process left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(temporary))
    temporary.chmod(0o660)
    listener.listen(CONNECTIONS_MAX)
    temporary.rename(path)
    return listener


def main() -> int:
    """Run as the process that bgpd starts."""
    from resources.runtime import process_names

    name, path, behind = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    process_names.take(name)
    Namesake(listen(path), behind).run(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
