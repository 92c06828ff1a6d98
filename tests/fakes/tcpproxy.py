"""A TCP proxy on the loopback device that loses what a test wants to be lost."""

import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType


class TcpProxy:
    """Forwards to a port, both ways, until told otherwise.

    `lose_answers`: what the server answers from now on is thrown away and the connection cut, after it got the request.
    `go_silent`: nothing is forwarded any more, connections stay open. `cut`: every open connection ends. `on_request`
    is called with what comes from a client before it is passed on.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.lose_answers = False
        self.on_request: Callable[[bytes], None] = lambda _: None
        self.silent = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.connections = 0

    def __enter__(self) -> "TcpProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def go_silent(self) -> None:
        self.silent.set()

    def cut(self) -> None:
        with self._lock:
            for end in self._open:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended already

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._target)
            except OSError:
                return
            with server:
                self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        try:
            self._forward(client, server)
        except OSError:
            pass  # one side ended
        finally:
            with self._lock:
                self._open -= {client, server}

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for end in select.select([client, server], [], [], 0.2)[0]:
                if self.silent.is_set():
                    continue
                data = end.recv(65536)
                if not data or (end is server and self.lose_answers):
                    return
                if end is client:
                    self.on_request(data)
                (server if end is client else client).sendall(data)
