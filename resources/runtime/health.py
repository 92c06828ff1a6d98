"""Liveness and readiness of a daemon, over HTTP on a unix socket of its own (0600).

``/liveness`` is 204 while the owner's loop turns, whatever etcd does. ``/readiness`` is 204 when nothing is waited for,
else 503 with one line per thing. ``/state`` is the daemon's state as JSON, for people and for `calicoctl`; a daemon may
have further pages.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from waitress.server import create_server

from resources.errors import CalicoError


class Health:
    """What a daemon says about itself; thread-safe."""

    def __init__(self, *waiting_for: str) -> None:
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(waiting_for)
        self._alive: Callable[[], float] | None = None
        self._patience = 90.0
        self.state: Callable[[], object] = dict
        self.pages: dict[str, Callable[[], object]] = {}
        """Further pages as JSON, by path, made by a thread of the server's. One that raises CalicoError answers 503."""
        self.texts: dict[str, tuple[str, Callable[[], bytes]]] = {}
        """The same for pages that are not JSON: their content type, and what makes them."""

    def watch_loop(self, turned_at: Callable[[], float], *, patience_seconds: float = 90.0) -> None:
        """Call the daemon alive while `turned_at()` (monotonic) is younger than the patience."""
        self._alive, self._patience = turned_at, patience_seconds

    def wait_for(self, thing: str) -> None:
        """Not ready until `done(thing)`."""
        with self._lock:
            self._waiting[thing] = None

    def done(self, thing: str) -> None:
        with self._lock:
            self._waiting.pop(thing, None)

    def waiting_for(self) -> list[str]:
        with self._lock:
            return list(self._waiting)

    def is_alive(self) -> bool:
        return self._alive is None or time.monotonic() - self._alive() < self._patience

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application."""
        path = environ.get("PATH_INFO", "")
        if path == "/liveness":
            return _answer(start_response, None if self.is_alive() else "the main loop does not turn\n")
        if path == "/readiness":
            waiting = self.waiting_for()
            return _answer(start_response, "".join(f"waiting for {thing}\n" for thing in waiting) or None)
        content_type, make = self.texts.get(path, ("application/json", None))
        page = self.state if path == "/state" else self.pages.get(path)
        if make is None and page is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        try:
            body = make() if make is not None else _json(page() if page is not None else None)
        except CalicoError as error:
            return _answer(start_response, f"{error}\n" + (f"{error.hint}\n" if error.hint else ""))
        start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    def serve(self, path: Path) -> None:
        """Serve on a unix socket at `path` from a daemon thread; a stale socket of a dead process is replaced."""
        listener = bind_unix(path, 0o600)
        server = create_server(self, sockets=[listener], threads=2, ident=None)
        threading.Thread(target=server.run, name="health", daemon=True).start()


def _json(value: object) -> bytes:
    return json.dumps(value, default=str, indent=2).encode() + b"\n"


def bind_unix(path: Path, mode: int) -> socket.socket:
    """Return a unix socket bound at `path` with `mode`; a stale socket file is replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(temporary))
    temporary.chmod(mode)
    temporary.rename(path)
    return listener


_TIMED_OUT = "no answer within"


def ask(path: Path, question: str, *, timeout: float = 2.0) -> tuple[int, str]:
    """Ask a daemon's health socket for ``/liveness``, ``/readiness``, ``/state`` or another page.

    Returns:
        The HTTP status and the body. Status 0 means that nobody answers; the body then says why.
    """
    import http.client

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(str(path))

    connection = Connection("localhost", timeout=timeout)
    try:
        connection.request("GET", question)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except TimeoutError:
        return 0, f"{path}: {_TIMED_OUT} {timeout:g} s"
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{path}: {error}"
    finally:
        connection.close()


def is_stuck(code: int, text: str) -> bool:
    """Return whether what `ask` returned means that the daemon is there, and its loop does not turn."""
    return code == HTTPStatus.SERVICE_UNAVAILABLE or (code == 0 and _TIMED_OUT in text)


def _answer(start_response: StartResponse, trouble: str | None) -> Iterable[bytes]:
    body = (trouble or "").encode()
    status = "503 Service Unavailable" if trouble else "204 No Content"
    headers = [("Content-Type", "text/plain; charset=utf-8")] if trouble else []
    start_response(status, [*headers, ("Content-Length", str(len(body)))] if trouble else [])
    return [body] if trouble else []


