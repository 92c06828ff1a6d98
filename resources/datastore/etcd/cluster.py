"""The members of an etcd cluster behind their endpoints: who is asked, how long, what an answer or its lack means.

Every request asks that the member have a leader, so one cut off from its cluster answers at once that it has none
instead of going quiet, and the next endpoint is tried.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception
from requests.adapters import DEFAULT_POOLBLOCK, HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ReadTimeoutError
from urllib3.util import Timeout

from resources.datastore.etcd import gateway
from resources.datastore.etcdconfig import DEFAULT_ENDPOINT, EtcdConfig, endpoint_fault
from resources.errors import ConfigurationError, StoreRefused, StoreUnavailable
from resources.runtime.backoff import Backoff

ROUNDS = 3
"""How often all endpoints are tried when they refuse at once, as they do while etcd restarts."""

_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]

_WANTS_TOKEN = ("user name is empty", "revision of auth store is old")

T = TypeVar("T")


class NotSent(Exception):
    """The endpoint cannot have acted on the request; another one may be asked."""


class Unanswered(Exception):
    """The endpoint may have acted on the request."""


class Unauthenticated(Exception):
    """The token is missing or no longer known."""


class OutOfRange(Exception):
    """The revision asked for is compacted."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Cluster:
    """The endpoints of one cluster, a session of its own, the token of a user, and the epoch.

    Raises:
        ConfigurationError: an endpoint or a file of the configuration is unusable.
    """

    def __init__(self, config: EtcdConfig, *, call_seconds: float, rng: random.Random | None = None) -> None:
        self._endpoints = tuple(_parse_endpoint(url) for url in config.endpoints)
        if not self._endpoints:
            raise ConfigurationError("no etcd endpoint is given", hint="set ETCD_ENDPOINTS")
        self._user = (config.username, config.password) if config.username and config.password else None
        self._log_in_lock = threading.Lock()
        self._log_ins = 0
        """How often we logged in, or found that the cluster has no users."""
        self._files = _PemFiles()
        self._session = _session(config, self._files)
        self.call_seconds = call_seconds
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._first = (rng or random.Random()).randrange(len(self._endpoints))
        """Index of the endpoint to ask first: the last one that answered."""
        self._seen = gateway.Header("0", 0, 0)
        self._epoch = 0

    def close(self) -> None:
        self.closed.set()
        self._session.close()
        self._files.close()

    # --- calls and endpoints -------------------------------------------------------------------------------------

    def call(
        self,
        path: str,
        request: gateway.Message,
        timeout: float | None,
        *,
        repeat: bool = True,
        linear: bool = True,
    ) -> gateway.Message:
        """POST to the endpoints in turn until one answers.

        With `repeat` off, an endpoint that may have acted ends it with Unanswered. `linear`: the answer's header
        is as new as any answer before it.
        """

        def ask(endpoint: Endpoint, share: float, remaining: float) -> gateway.Message:
            return self._post(endpoint, path, request, share, share if repeat else remaining, linear=linear)

        return self.try_each(ask, timeout, repeat=repeat)

    def try_each(
        self, ask: Callable[[Endpoint, float, float], T], timeout: float | None, *, repeat: bool = True
    ) -> T:
        """Return what `ask(endpoint, seconds of its share, seconds left)` gives for the first endpoint that answers.

        Raises:
            StoreUnavailable: none did; the message has each with its last reason.
        """
        deadline = time.monotonic() + (timeout or self.call_seconds)
        backoff = Backoff(0.1, 0.4)
        reasons: dict[Endpoint, str] = {}
        for turn in range(ROUNDS):
            remaining = deadline - time.monotonic()
            if self.closed.is_set() or (turn and (remaining < 0.2 or self.closed.wait(backoff.next()))):
                break
            order = self._order()
            for number, endpoint in enumerate(order):
                remaining = deadline - time.monotonic()
                if remaining <= 0.01 and reasons:
                    break
                try:
                    answer = ask(endpoint, max(remaining / (len(order) - number), 0.01), max(remaining, 0.01))
                except (NotSent, Unanswered) as error:
                    reasons[endpoint] = str(error)
                    self.avoid(endpoint)
                    if isinstance(error, Unanswered) and not repeat:
                        raise Unanswered(f"{endpoint}: {error}") from error
                else:
                    return answer
        raise self._unavailable(reasons)

    def _unavailable(self, reasons: Mapping[Endpoint, str]) -> StoreUnavailable:
        if self.closed.is_set():
            return StoreUnavailable("the connection to etcd was closed")
        each = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in reasons.items())
        return StoreUnavailable(
            f"no answer from etcd at {each}",
            hint="check that etcd runs there; it is named by ETCD_ENDPOINTS, or by calicoctl's configuration file",
        )

    def _order(self) -> list[Endpoint]:
        return [*self._endpoints[self._first :], *self._endpoints[: self._first]]

    def avoid(self, endpoint: Endpoint) -> None:
        """Ask another endpoint first from now on."""
        with self._lock:
            if self._endpoints[self._first] == endpoint:
                self._first = (self._first + 1) % len(self._endpoints)

    def _post(
        self,
        endpoint: Endpoint,
        path: str,
        request: gateway.Message,
        connect_seconds: float,
        read_seconds: float,
        *,
        linear: bool = True,
    ) -> gateway.Message:
        """POST to one endpoint and return its answer; with user and password, with a fresh token if need be."""
        floor = self._seen

        def ask() -> gateway.Message:
            client = self._client(endpoint, connect_seconds, read_seconds)
            try:
                return cast(gateway.Message, client.post(client.get_url(path), json=request))
            except Etcd3Exception as error:
                raise _judge(endpoint, error) from error
            except (requests.RequestException, ValueError) as error:
                raise Unanswered(in_words(error)) from error

        answer = self.with_token(endpoint, ask, connect_seconds)
        if linear:
            self.note(floor, gateway.header(answer))
        return answer

    def probe(self, endpoint: Endpoint) -> None:
        """Ask one endpoint for next to nothing.

        Raises:
            NotSent, Unanswered: it does not answer.
        """
        try:
            self._post(endpoint, "kv/range", gateway.probe_request(), self.call_seconds, self.call_seconds)
        except StoreRefused:
            pass  # that is an answer too: a user may not read everywhere

    def check_epoch(self) -> None:
        """Make an answer of a majority decide whether the store has gone back."""
        try:
            self.call("kv/range", gateway.probe_request(), None)
        except StoreRefused:
            pass

    def _client(self, endpoint: Endpoint, connect_seconds: float, read_seconds: float) -> Etcd3Client:
        timeout = Timeout(total=read_seconds, connect=connect_seconds)
        return Etcd3Client(
            endpoint.host,
            endpoint.port,
            endpoint.scheme,
            timeout=cast(float, timeout),  # requests takes urllib3's, which also bounds the sum
            api_path="/v3/",
            session=self._session,
        )

    def open_stream(self, endpoint: Endpoint, body: bytes, seconds: float) -> requests.Response:
        """POST a watch request; return the answer with its body still to come. To be run by `with_token`.

        Without ``Connection: close`` Go's HTTP server throws away what it has not read of a request once it begins to
        answer. The gateway reads 512 bytes at a time, so of a longer body, that is of three prefixes or more, the last
        watches were sometimes never opened.
        """
        url = self._client(endpoint, seconds, seconds).get_url("watch")
        try:
            response = self._session.post(
                url, data=body, stream=True, timeout=seconds, headers={"Connection": "close"}
            )
            if response.status_code != requests.codes["ok"]:
                with response:
                    raise verdict(endpoint, gateway.refusal(response.text), response.reason)
        except requests.RequestException as error:
            raise NotSent(in_words(error)) from error
        return response

    def with_token(self, endpoint: Endpoint, ask: Callable[[], T], seconds: float) -> T:
        """Run `ask`, logged in; tokens die when they are not used and when a member restarts."""
        log_ins = self._log_ins
        if self._user and not log_ins:
            log_ins = self._log_in(endpoint, self._user, seconds, log_ins)
        try:
            return ask()
        except Unauthenticated as error:
            if not self._user:
                raise StoreRefused(
                    f"etcd at {endpoint} wants a user: {error}", hint="set ETCD_USERNAME and ETCD_PASSWORD"
                ) from error
        self._log_in(endpoint, self._user, seconds, log_ins)
        try:
            return ask()
        except Unauthenticated as error:
            raise StoreRefused(f"etcd at {endpoint} does not take its own token: {error}") from error

    def _log_in(self, endpoint: Endpoint, user: tuple[str, str], seconds: float, seen: int) -> int:
        """Get a token, unless another thread did after log-in number `seen`; return the number of this one.

        What fails here was not sent as far as the request goes that wants the token.
        """
        with self._log_in_lock:
            if self._log_ins != seen:
                return self._log_ins
            client = self._client(endpoint, seconds, seconds)
            request = {"name": user[0], "password": user[1]}
            without_token = {"Authorization": None}  # etcd refuses a log-in that carries a dead one
            try:
                answer = client.post(client.get_url("auth/authenticate"), json=request, headers=without_token)
                self._session.headers["Authorization"] = str(answer["token"])
            except Etcd3Exception as error:
                meant = _judge(endpoint, error)
                if "authentication is not enabled" not in (error.detail_text or ""):
                    raise (meant if isinstance(meant, StoreRefused) else NotSent(str(meant))) from error
            except (requests.RequestException, ValueError) as error:
                raise NotSent(in_words(error)) from error
            self._log_ins += 1
            return self._log_ins

    def log_in_again(self) -> None:
        """Before the next request: what was refused may have been refused to nobody."""
        with self._log_in_lock:
            self._log_ins = 0

    # --- the epoch -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def seen(self) -> gateway.Header:
        """The newest of each number seen in headers of this epoch; take it before sending, give it to `note` after."""
        return self._seen

    def note(self, floor: gateway.Header, header: gateway.Header, *, revision: bool = True) -> None:
        """Compare an answer's header with what had been seen before it was asked for.

        Another cluster, an older raft term or (in linearizable answers) an older revision: the store was replaced or
        restored. A term that went back for another reason, a member that lagged, costs a read too many.
        """
        with self._lock:
            if floor.cluster != "0" and (
                header.cluster != floor.cluster
                or header.term < floor.term
                or (revision and header.revision < floor.revision)
            ):
                self._epoch += 1
                self._seen = header
            elif header.cluster != "0":
                seen = max(self._seen.revision, header.revision) if revision else self._seen.revision
                self._seen = gateway.Header(header.cluster, seen, max(self._seen.term, header.term))


# --- what went wrong ----------------------------------------------------------------------------------------------


def _judge(endpoint: Endpoint, error: Etcd3Exception) -> Exception:
    """Return what an exception of etcd3gw means. It hides requests' own behind text, but keeps it as its context."""
    cause = error.__context__
    if isinstance(cause, requests.RequestException):
        kind = NotSent if _never_sent(cause) else Unanswered
        return kind(in_words(cause))
    return verdict(endpoint, gateway.refusal(error.detail_text or ""), *map(str, error.args))


def verdict(endpoint: Endpoint, refusal: gateway.Refusal, *http_reason: str) -> Exception:
    """Return what an answer other than 200 means for the caller."""
    text = refusal.text
    if refusal.code == gateway.CODE_UNAUTHENTICATED or any(t in text for t in _WANTS_TOKEN):
        return Unauthenticated(text)
    if refusal.code == gateway.CODE_OUT_OF_RANGE:
        return OutOfRange(text)
    if "no leader" in text or "too many requests" in text or refusal.code == gateway.CODE_NOT_FOUND:
        return NotSent(text)
    if refusal.code == 0 and "Not Found" in http_reason:
        return NotSent(f"it is no etcd: {text}")
    if "database space exceeded" in text:
        return StoreRefused(
            f"etcd at {endpoint} is full: {text}",
            hint="compact and defragment it (etcdctl compact, defrag), then etcdctl alarm disarm",
        )
    if refusal.code in (3, gateway.CODE_PERMISSION_DENIED, gateway.CODE_EXHAUSTED, 9, 12):
        return StoreRefused(f"etcd at {endpoint} refused: {text}")
    return Unanswered(text)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, depth first, those that it wraps."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__context__, one.__cause__, *one.args, getattr(one, "reason", None)]


def _never_sent(error: requests.RequestException) -> bool:
    """Tell whether the connection failed before anything of the request was sent."""
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError):
        return True
    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def in_words(error: BaseException) -> str:
    """Return the innermost reason in a few words."""
    chain = list(causes(error))
    if texts := [one.strerror for one in chain if isinstance(one, OSError) and one.strerror]:
        return texts[-1][:1].lower() + texts[-1][1:]
    if any(isinstance(one, requests.Timeout | ReadTimeoutError | ConnectTimeoutError | TimeoutError) for one in chain):
        return "no answer in time"
    return str(chain[-1]) or repr(chain[-1])


# --- the session --------------------------------------------------------------------------------------------------


def _parse_endpoint(url: str) -> Endpoint:
    if fault := endpoint_fault(url):
        raise ConfigurationError(f"the etcd endpoint {url} {fault}", hint=f"write it as {DEFAULT_ENDPOINT}")
    parts = urlsplit(url)
    return Endpoint(parts.scheme, parts.hostname or "", parts.port or 2379)


class _Adapter(HTTPAdapter):
    """A pool of our own whose connections notice a dead path."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = DEFAULT_POOLBLOCK, **arguments: object
    ) -> None:
        options = [*HTTPConnection.default_socket_options, *_KEEPALIVE]
        super().init_poolmanager(connections, maxsize, block, socket_options=options, **arguments)


def _session(config: EtcdConfig, files: "_PemFiles") -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # else proxies and CA bundles of the environment would apply to etcd
    session.headers = requests.structures.CaseInsensitiveDict({"Grpc-Metadata-hasleader": "true"})
    adapter = _Adapter(pool_connections=max(4, len(config.endpoints)), pool_maxsize=32)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    for file in (config.ca_file, config.cert_file, config.key_file):
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigurationError(f"the certificate or key file {file} cannot be read")
    ca = files.path(config.ca_pem) or (str(config.ca_file) if config.ca_file else None)
    cert = files.path(config.cert_pem) or (str(config.cert_file) if config.cert_file else None)
    key = files.path(config.key_pem) or (str(config.key_file) if config.key_file else None)
    session.verify = ca or True
    if cert and key:
        session.cert = (cert, key)
    return session


class _PemFiles:
    """Certificates given as text, as files in memory that nobody else sees."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def path(self, pem: str | None) -> str | None:
        if pem is None:
            return None
        descriptor = os.memfd_create("etcd-pem")
        self._descriptors.append(descriptor)
        os.write(descriptor, pem.encode())
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
