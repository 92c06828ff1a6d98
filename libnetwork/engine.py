"""Docker's Engine API, asked from inside Docker's own calls: names of networks and containers, labels.

Only requests that answer during such a call are made (reference libnetwork.md 4.4): a network by its id, and lists of
containers. To inspect a container that is starting would wait for the start, which waits for us.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from resources.errors import DoesNotExist, Transient

if TYPE_CHECKING:
    from docker import APIClient

NAMES_KEPT = 4096
T = TypeVar("T")


class EngineUnavailable(Transient):
    """Docker's Engine API did not answer, or not as it should."""

    reference = "docker-unavailable"


class DockerEngine:
    """The Engine API at `url` (``unix:///var/run/docker.sock``); thread-safe.

    The client library is loaded, and the version agreed upon with the daemon, at the first question: when this process
    starts there may be no dockerd yet.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._url, self._timeout = url, timeout_seconds
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._names: OrderedDict[str, str] = OrderedDict()

    def network_name(self, network_id: str) -> str:
        """Return the name of a network; asked once, as names never change.

        Raises:
            DoesNotExist: Docker knows no such network.
            EngineUnavailable: it does not say.
        """
        with self._lock:
            name = self._names.get(network_id)
        if name is None:
            name = _text(self._network(network_id), "Name")
            with self._lock:
                self._names[network_id] = name
                while len(self._names) > NAMES_KEPT:
                    self._names.popitem(last=False)
        return name

    def forget_network(self, network_id: str) -> None:
        with self._lock:
            self._names.pop(network_id, None)

    def container_name(self, network_id: str, endpoint_id: str) -> str | None:
        """Return the name of the container that has an endpoint, or None if Docker lists none (yet).

        During Join the endpoint is listed, during CreateEndpoint it is not.

        Raises:
            DoesNotExist, EngineUnavailable
        """
        for entry in _mapping(self._network(network_id), "Containers").values():
            if isinstance(entry, Mapping) and entry.get("EndpointID") == endpoint_id:
                return _text(entry, "Name") or None
        return None

    def container_labels(self, name: str) -> Mapping[str, str] | None:
        """Return the labels of a container, or None if Docker lists no such container.

        Raises:
            EngineUnavailable
        """
        listed = self._ask(
            lambda client: client.containers(all=True, filters={"name": name}), f"the containers called {name}"
        )
        for container in listed:
            if f"/{name}" in (container.get("Names") or ()):  # the filter matches parts of names
                return {str(key): str(value) for key, value in (container.get("Labels") or {}).items()}
        return None

    def _network(self, network_id: str) -> Mapping[str, object]:
        return self._ask(lambda client: client.inspect_network(network_id), f"network {network_id[:12]}")

    def _ask(self, question: Callable[["APIClient"], T], what: str) -> T:
        import docker.errors

        try:
            return question(self._connect())
        except docker.errors.NotFound as error:
            raise DoesNotExist(f"Docker knows nothing of {what}") from error
        except (docker.errors.DockerException, OSError, ValueError) as error:
            # requests' errors, which the client lets through, are OSErrors; an answer that is not JSON a ValueError
            self._disconnect()
            raise EngineUnavailable(
                f"the Docker Engine API at {self._url} did not tell {what}: {_reason(error)}",
                hint="if dockerd listens elsewhere, set DOCKER_HOST",
            ) from error

    def _connect(self) -> "APIClient":
        import docker

        with self._lock:
            client = self._client
        if client is None:  # two threads may both come here: either's client is good
            client = docker.APIClient(base_url=self._url, version="auto", timeout=self._timeout)  # type: ignore[arg-type]  # requests takes a float
            client.trust_env = False
            with self._lock:
                self._client = client
        return client

    def _disconnect(self) -> None:
        """Agree upon the version anew with the next question: the daemon may have been replaced."""
        with self._lock:
            self._client = None


def _text(document: Mapping[str, object], member: str) -> str:
    value = document.get(member)
    return value if isinstance(value, str) else ""


def _mapping(document: Mapping[str, object], member: str) -> Mapping[str, object]:
    value = document.get(member)
    return value if isinstance(value, Mapping) else {}


def _reason(error: BaseException) -> str:
    """Return the innermost reason: the client library wraps it in several layers of text."""
    inner: Any = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return str(inner) or type(inner).__name__
