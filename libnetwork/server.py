"""Docker's plugin protocol over HTTP on unix sockets: one socket and one role for each driver.

Reference libnetwork.md 1: every call is ``POST /<Kind>.<Method>``, an answer is status 200 and a JSON object, every
failure another status and ``{"Err": text}``. Calls are served by threads, so that none blocks another.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from waitress.server import create_server

from libnetwork.deadline import Deadline
from libnetwork.messages import Activated, Empty, Failure, Message, NoArguments, NotAMessage, decode, encode
from resources.errors import CalicoError
from resources.runtime.health import bind_unix

SOCKET_MODE = 0o660
CONTENT_TYPE = "application/vnd.docker.plugins.v1.1+json"
REQUEST_MAX = 1024 * 1024
CONNECTIONS_MAX = 1024

NEVER_SECONDS = 10 * 365 * 24 * 3600
"""Idle connections are not closed by us: Docker would repeat a call that crosses the close with an empty body."""

Request = TypeVar("Request", bound=Message)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Call(Generic[Request]):
    """One method: what its request is, and who answers it."""

    request: type[Request]
    answer: Callable[[Request, Deadline], Message]


@dataclass(frozen=True, slots=True)
class Role:
    """What a socket says it is (``NetworkDriver`` or ``IpamDriver``), and its methods by name."""

    name: str
    calls: Mapping[str, Call[Any]]

    def by_path(self) -> dict[str, Call[Any]]:
        """All calls of the socket, the activation included, by path."""
        activate = Call(NoArguments, lambda _, __: Activated(implements=[self.name]))
        named = {f"/{self.name}.{method}": call for method, call in self.calls.items()}
        return {"/Plugin.Activate": activate, **named}


def succeed(_: Message, __: Deadline) -> Message:
    """Answer a call that changes nothing."""
    return Empty()


class PluginApp:
    """The WSGI application of one role."""

    def __init__(self, role: Role, *, call_seconds: float) -> None:
        self._calls = role.by_path()
        self._call_seconds = call_seconds

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.monotonic()
        path = str(environ.get("PATH_INFO", ""))
        call = self._calls.get(path)
        answer: Message
        if call is None:
            status, answer = "404 Not Found", failure(f"unknown call {path}")
        elif environ.get("REQUEST_METHOD") != "POST":
            status, answer = "405 Method Not Allowed", failure(f"{path} is called by POST")
        else:
            status, answer = self._answer(path, call, environ["wsgi.input"].read())
        body = encode(answer)
        start_response(status, [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
        log.debug("call.answered", call=path, status=status[:3], took_ms=round(1000 * (time.monotonic() - began), 1))
        return [body]

    def _answer(self, path: str, call: Call[Any], body: bytes) -> tuple[str, Message]:
        try:
            request = decode(body, call.request)
        except NotAMessage as error:
            log.warning("call.refused", call=path, reason=str(error), bytes=len(body))
            return "400 Bad Request", failure(f"not a request of {path[1:]}: {error}")
        try:
            return "200 OK", call.answer(request, Deadline(self._call_seconds))
        except CalicoError as error:
            log.warning("call.failed", call=path, error=str(error), hint=error.hint, **error.context)
            return "500 Internal Server Error", failure(sentence(error))
        except Exception as error:
            # A defect of ours met by one container. The process lives on: it keeps no state that this could have
            # spoilt, and its end would fail the calls of all other containers that are under way.
            log.exception("call.broke", call=path)
            return "500 Internal Server Error", failure(
                f"a defect of calico-libnetwork ({type(error).__name__}); its log has the details"
            )


def failure(text: str) -> Failure:
    return Failure(err=text)


def sentence(error: CalicoError) -> str:
    """Return what the user reads after ``Error response from daemon: ``: what failed, then the way out."""
    text = str(error).rstrip()
    if not error.hint:
        return text
    return f"{text}{' ' if text.endswith(('.', '!', '?')) else '; '}{error.hint}"


class PluginServer:
    """Serves one application on one unix socket, from threads of its own, between `start` and `stop`."""

    def __init__(self, app: PluginApp, path: Path, *, threads: int) -> None:
        self.path = path
        self._app, self._threads = app, threads
        self._server: Any = None
        self._inode = 0

    def start(self) -> None:
        """Make the socket, in place of one that a dead process left, and answer. Returns when calls are taken."""
        listener = bind_unix(self.path, SOCKET_MODE)
        self._inode = self.path.stat().st_ino
        self._server = create_server(
            self._app,
            sockets=[listener],
            threads=self._threads,
            ident=None,
            asyncore_use_poll=True,
            channel_timeout=NEVER_SECONDS,
            connection_limit=CONNECTIONS_MAX,
            max_request_body_size=REQUEST_MAX,
        )
        threading.Thread(target=self._server.run, name=f"serve {self.path.name}", daemon=True).start()

    def stop(self, *, patience_seconds: float = 10.0) -> None:
        """Take no new connections, finish the calls under way, and remove the socket (unless it is another's now)."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self.path.exists() and self.path.stat().st_ino == self._inode:
            self.path.unlink()
        ends = time.monotonic() + patience_seconds
        while time.monotonic() < ends and any(map(_is_busy, list(server.active_channels.values()))):
            time.sleep(0.02)
        closed = threading.Event()
        # a loop that is awake may take the order, and close its trigger, before it is woken by it
        with contextlib.suppress(OSError):
            server.trigger.pull_trigger(lambda: _close(server, closed))
        closed.wait(1.0)
        server.task_dispatcher.shutdown(timeout=1)


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests or channel.total_outbufs_len)


def _close(server: Any, closed: threading.Event) -> None:
    """Runs in the server's own thread: with nothing left to wait for, its loop ends."""
    for channel in list(server.active_channels.values()):
        channel.handle_close()
    server.close()
    closed.set()
