"""Docker's Engine API as the driver uses it, on a unix socket: networks, lists of containers, the version.

It answers and refuses as dockerd does during a plugin call (libnetwork.md 4.4); what a starting container
would block on, it does not answer at all.
"""

import json
import re
import socketserver
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

from libnetwork.engine import EngineUnavailable
from resources.errors import DoesNotExist


@dataclass
class FakeContainer:
    name: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeNetwork:
    """`endpoints` maps an endpoint id to its container's name; before the start is over the key has ``ep-``."""

    id: str
    name: str
    driver: str = "calico"
    endpoints: dict[str, str] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    visible: bool = True


class FakeEngine:
    """Serve with ``with FakeEngine(path) as engine:``; change `networks` and `containers` at will."""

    def __init__(self, path: Path, *, api_version: str = "1.41", minimum: str = "1.12") -> None:
        self.path, self.api_version, self.minimum = path, api_version, minimum
        self.networks: dict[str, FakeNetwork] = {}
        self.containers: dict[str, FakeContainer] = {}
        self.requests: list[str] = []
        """Paths asked for, without their version."""
        self.silent_seconds = 0.0
        """How long every answer takes."""
        self.status: int | None = None
        """Answer everything with this status."""
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> "FakeEngine":
        self.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def add_network(self, id: str, name: str, *, driver: str = "calico") -> FakeNetwork:
        self.networks[id] = FakeNetwork(id, name, driver)
        return self.networks[id]

    def add_container(self, name: str, labels: Mapping[str, str] | None = None) -> FakeContainer:
        self.containers[name] = FakeContainer(name, dict(labels or {}))
        return self.containers[name]

    def answer(self, target: str) -> tuple[int, object]:
        parts = urlsplit(target)
        path, version = _split_version(parts.path)
        self.requests.append(path)
        if self.silent_seconds:
            time.sleep(self.silent_seconds)
        if self.status is not None:
            return self.status, {"message": "the fake was told to refuse"}
        if version and not _number(self.minimum) <= _number(version) <= _number(self.api_version):
            return 400, {"message": f"client version {version} is too new. Maximum supported is {self.api_version}"}
        if path == "/version":
            return 200, {"ApiVersion": self.api_version, "MinAPIVersion": self.minimum, "Version": "20.10.24"}
        if path == "/containers/json":
            filters = json.loads(parse_qs(parts.query).get("filters", ["{}"])[0])
            return 200, [self._container(name) for name in self._matching(filters.get("name", []))]
        if match := re.fullmatch(r"/networks/([^/]+)", path):
            network = self.networks.get(unquote(match[1]))
            if network is None or not network.visible:
                return 404, {"message": f"network {match[1]} not found"}
            return 200, self._network(network)
        return 404, {"message": "page not found"}

    def _matching(self, patterns: list[str]) -> list[str]:
        return [name for name in self.containers if not patterns or any(re.search(p, f"/{name}") for p in patterns)]

    def _container(self, name: str) -> dict[str, object]:
        container = self.containers[name]
        return {"Id": name.encode().hex(), "Names": [f"/{name}"], "Labels": container.labels}

    def _network(self, network: FakeNetwork) -> dict[str, object]:
        containers = {
            (name.encode().hex() if endpoint in network.joined else f"ep-{endpoint}"): {
                "Name": name, "EndpointID": endpoint, "MacAddress": "", "IPv4Address": "", "IPv6Address": "",
            }
            for endpoint, name in network.endpoints.items()
        }
        return {
            "Name": network.name, "Id": network.id, "Scope": "global", "Driver": network.driver, "EnableIPv6": False,
            "Internal": False, "Containers": containers, "Options": {}, "Labels": {},
        }


class EngineInProcess:
    """`libnetwork.network_driver.Engine` on a FakeEngine's data, without HTTP in between."""

    def __init__(self, api: FakeEngine) -> None:
        self._api = api

    def network_name(self, network_id: str) -> str:
        return self._network(network_id).name

    def forget_network(self, network_id: str) -> None:
        """Nothing is kept."""

    def container_name(self, network_id: str, endpoint_id: str) -> str | None:
        return self._network(network_id).endpoints.get(endpoint_id)

    def container_labels(self, name: str) -> Mapping[str, str] | None:
        self._check()
        return self._api.containers[name].labels if name in self._api.containers else None

    def _network(self, network_id: str) -> FakeNetwork:
        self._check()
        network = self._api.networks.get(network_id)
        if network is None or not network.visible:
            raise DoesNotExist(f"Docker knows nothing of network {network_id[:12]}")
        return network

    def _check(self) -> None:
        if self._api.status is not None:
            raise EngineUnavailable(f"the Docker Engine API answered {self._api.status}")


def _split_version(path: str) -> tuple[str, str]:
    match = re.fullmatch(r"/v(\d+\.\d+)(/.*)", path)
    return (match[2], match[1]) if match else (path, "")


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        super().__init__(str(engine.path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        status, answer = self.server.engine.answer(self.path)
        body = json.dumps(answer).encode() + b"\n"
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Api-Version", self.server.engine.api_version)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "unix"
