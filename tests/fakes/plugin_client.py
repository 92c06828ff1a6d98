"""Calls a Docker plugin as dockerd does: HTTP on a unix socket, with dockerd's own headers (libnetwork.md 1.2)."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Json = Mapping[str, object]


class PluginError(Exception):
    """The plugin answered another status than 200; the text is what Docker shows the user."""

    def __init__(self, call: str, status: int, text: str) -> None:
        super().__init__(f"{call}: {text}")
        self.status, self.text = status, text


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def document(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class PluginClient:
    """One kept connection to a plugin's socket. `host` is empty up to Docker 20.10.25."""

    def __init__(self, path: Path, *, host: str = "", timeout: float = 20.0) -> None:
        self._connection, self._host = _Connection(path, timeout), host

    def post(self, call: str, body: bytes) -> Answer:
        connection = self._connection
        connection.putrequest("POST", f"/{call}", skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self._host)
        connection.putheader("User-Agent", "Go-http-client/1.1")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Accept", "application/vnd.docker.plugins.v1.2+json")
        connection.endheaders(body or None)
        response = connection.getresponse()
        return Answer(response.status, response.read())

    def call(self, call: str, request: Json | None = None) -> dict[str, object]:
        """Call, and return the answer.

        Raises:
            PluginError: as Docker decodes it.
        """
        answer = self.post(call, b"" if request is None else json.dumps(request).encode() + b"\n")
        if answer.status != 200:
            document = json.loads(answer.body)
            raise PluginError(call, answer.status, str(document["Err"]))
        return answer.document()

    def close(self) -> None:
        self._connection.close()
