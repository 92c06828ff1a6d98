"""A watch on etcd: one HTTP stream for several prefixes, that notices when it is canceled, cut or dead."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import TracebackType

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from resources.datastore.etcd import gateway
from resources.datastore.etcd.cluster import (
    Cluster,
    Endpoint,
    NotSent,
    Unanswered,
    Unauthenticated,
    causes,
    in_words,
    verdict,
)
from resources.datastore.store import Batch, Compacted, WatchEnded
from resources.errors import CalicoError, StoreRefused

PULSE_SECONDS = 15.0
"""A watch that heard nothing for so long asks its member whether it lives."""

IDLE_SECONDS = 720.0
"""A watch that heard nothing for so long is opened anew. etcd tells its progress each 10 to 11 minutes, so such a
silence means that the stream is dead though its member is not. Opening anew more often would be costly: etcd searches
its history from the revision asked for on, which on a quiet prefix of a busy store is long ago."""


class EtcdWatch:
    """One stream with a watch for each prefix, kept open over silences; see `resources.datastore.store.Watch`."""

    def __init__(
        self,
        cluster: Cluster,
        from_revisions: Mapping[str, int],
        *,
        pulse_seconds: float,
        idle_seconds: float,
        on_left: "Callable[[EtcdWatch], None]",
    ) -> None:
        self._cluster = cluster
        self._positions = dict(from_revisions)
        self._prefixes = tuple(from_revisions)
        self._pulse_seconds, self._idle_seconds = pulse_seconds, idle_seconds
        self._on_left = on_left
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._heard = time.monotonic()
        self._cut_reason: str | None = None

    def __enter__(self) -> "EtcdWatch":
        try:
            self._open()
        except BaseException:
            self._leave()
            raise
        threading.Thread(target=self._feel_pulse, name="etcd-pulse", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.close()
        self._on_left(self)
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        self._done.set()
        with self._lock:
            if self._stream is not None:
                self._stream.shut()

    def __iter__(self) -> Iterator[Batch]:
        while not self._done.is_set():
            try:
                message = self._next()
            except _Idle:
                yield self._reopened()
                continue
            if self._done.is_set():
                return
            match message:
                case Batch() as batch:
                    self._positions[batch.prefix] = batch.revision + 1
                    yield batch
                case gateway.Created():
                    pass  # all were waited for when the stream was opened
                case gateway.Canceled(0, reason) | gateway.StreamError(reason):
                    raise self._ended(reason)
                case gateway.Canceled(compact_revision):
                    raise Compacted(f"etcd was compacted at revision {compact_revision}", prefixes=self._prefixes)
                case None:
                    raise self._ended("the server ended the stream")

    def _next(self) -> gateway.WatchMessage | None:
        assert self._stream is not None, "enter the watch first"
        try:
            message = next(self._stream.messages, None)
        except Unanswered as error:
            message = gateway.StreamError(str(error))
        self._heard = time.monotonic()
        return message

    def _open(self) -> None:
        floor = self._cluster.seen
        stream = self._cluster.try_each(self._open_at, None)
        with self._lock:
            self._stream = stream
            if self._done.is_set():
                stream.shut()
        self._heard = time.monotonic()
        behind = False
        for created in stream.created:
            self._cluster.note(floor, created.header, revision=False)
            behind |= created.header.revision < self._positions[self._prefixes[created.number - 1]] - 1
        if behind:
            self._cluster.check_epoch()

    def _open_at(self, endpoint: Endpoint, share: float, _: float) -> "_Stream":
        body = gateway.watch_request([(prefix, self._positions[prefix]) for prefix in self._prefixes])

        def ask() -> _Stream:
            stream = _Stream(endpoint, self._cluster.open_stream(endpoint, body, share), self._prefixes)
            try:
                stream.wait_until_created()
            except BaseException:
                stream.close()
                raise
            stream.be_patient(self._idle_seconds)
            return stream

        try:
            return self._cluster.with_token(endpoint, ask, share)
        except StoreRefused:
            self._cluster.log_in_again()
            raise

    def _reopened(self) -> Batch:
        """Open the stream anew after a silence; the batch without events tells that the watch lives."""
        if self._stream is not None:
            self._stream.close()
        try:
            self._open()
        except CalicoError as error:
            raise self._ended(f"silence, and it could not be opened anew: {error}") from error
        prefix = self._prefixes[0]
        return Batch(prefix, self._positions[prefix] - 1, ())

    def _feel_pulse(self) -> None:
        """End a stream whose member does not answer other questions either."""
        while not self._done.wait(self._pulse_seconds):
            stream = self._stream
            if stream is None or time.monotonic() - self._heard < self._pulse_seconds:
                continue
            try:
                self._cluster.probe(stream.endpoint)
            except (NotSent, Unanswered) as error:
                self._cluster.avoid(stream.endpoint)
                with self._lock:
                    if self._stream is stream:
                        self._cut_reason = f"silence, and when asked: {error}"
                        stream.shut()

    def _ended(self, reason: str) -> WatchEnded:
        endpoint = self._stream.endpoint if self._stream else "etcd"
        return WatchEnded(f"the watch at {endpoint} ended: {self._cut_reason or reason}", prefixes=self._prefixes)


class _Idle(Exception):
    """Nothing came for the longest time."""


class _Stream:
    """The answer to a watch request: a line for each message, without an end."""

    def __init__(self, endpoint: Endpoint, response: requests.Response, prefixes: tuple[str, ...]) -> None:
        self.endpoint = endpoint
        self.created: list[gateway.Created] = []
        self._response = response
        self._prefixes = prefixes
        self.messages = self._read()

    def wait_until_created(self) -> None:
        """Read until every watch of the stream is open; what comes in between is kept."""
        early: list[gateway.WatchMessage] = []
        while len(self.created) < len(self._prefixes):
            try:
                message = next(self.messages, None)
            except _Idle:
                raise NotSent("no answer in time") from None
            match message:
                case gateway.Created() as created:
                    self.created.append(created)
                case gateway.Canceled(0, reason) if "Unauthenticated" in reason:
                    raise Unauthenticated(reason)
                case gateway.Canceled(0, reason):
                    raise StoreRefused(f"etcd at {self.endpoint} refused a watch: {reason}", prefixes=self._prefixes)
                case gateway.StreamError(reason, code):
                    raise verdict(self.endpoint, gateway.Refusal(code, reason))
                case None:
                    raise NotSent("the server ended the stream")
                case _:
                    early.append(message)
        self.messages = chain(early, self.messages)

    def be_patient(self, seconds: float) -> None:
        """From now on wait so long for a message."""
        connection = self._response.raw.connection
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(seconds)

    def shut(self) -> None:
        """Make the reader see the end; callable from any thread."""
        try:
            self._response.raw.shutdown()
        except (ValueError, RuntimeError, OSError):
            pass  # it is at its end already

    def close(self) -> None:
        """Give up the connection; for the reader's thread."""
        self._response.close()

    def _read(self) -> Iterator[gateway.WatchMessage]:
        for line in self._lines():
            try:
                message = gateway.watch_message(line, self._prefixes)
            except ValueError as error:
                raise Unanswered(str(error)) from error
            if message is not None:
                yield message

    def _lines(self) -> Iterator[bytes]:
        pieces: list[bytes] = []
        for chunk in self._chunks():
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                pieces.append(line)
                if whole_line := b"".join(pieces).strip():
                    yield whole_line
                pieces.clear()
            pieces.append(rest)

    def _chunks(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_content(chunk_size=None)
        except (requests.RequestException, HTTPError, OSError, AttributeError, ValueError) as error:
            if any(isinstance(cause, ReadTimeoutError | TimeoutError) for cause in causes(error)):
                raise _Idle from error
            raise Unanswered(in_words(error)) from error
