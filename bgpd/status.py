"""Session states on BIRD's control sockets, in BIRD 1.6's words, for any calicoctl to read (reference bgp.md 5).

``bird.ctl`` has the IPv4 sessions, ``bird6.ctl`` those of IPv6. Commands: ``show protocols``, ``show status``, and one
of ours, ``show calico json``, whose answer is the daemon's whole state on one line of code 1900.
"""

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bgpd.calc.sessions import Unusable, session_name
from bgpd.neighbor import Neighbor
from resources.names import IPAddress
from resources.runtime.health import bind_unix
from resources.runtime.paths import RUN

SOCKETS = {4: RUN / "bird.ctl", 6: RUN / "bird6.ctl"}

_VERSION = "BIRD v0.3.3+birdv1.6.8"
_HEADING = "2002-name     proto    table    state  since       info"
_RECENT_SECONDS = 20 * 3600
_COMMAND_BYTES = 4096
_CONNECTIONS_MAX = 512


@dataclass(frozen=True, slots=True)
class Row:
    """One session as BIRD shows it: `since` is wall time, `phase` BIRD's BGP state, `text` the last trouble."""

    version: int
    name: str
    state: str
    since: float
    phase: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the sockets show."""

    rows: tuple[Row, ...] = ()
    router_id: str = "0.0.0.0"
    booted: float = 0.0
    reconfigured: float = 0.0


def row(neighbor: Neighbor) -> Row:
    """Return a session's row (reference bgp.md 5.3)."""
    spec = neighbor.spec
    if not neighbor.is_up:
        return Row(spec.version, spec.name, "start", neighbor.since, neighbor.shown_phase.value, neighbor.error)
    state = "up"
    if not neighbor.has_fed:
        state = "feed"
    elif neighbor.restart_seconds is not None and not (neighbor.end_received or neighbor.end_is_unknown):
        state = "wait"
    return Row(spec.version, spec.name, state, neighbor.since, "Established")


def withheld_row(unusable: Unusable, address: IPAddress, since: float) -> Row:
    """Return the row of a session that is not to be."""
    name = session_name(unusable.kind, address)
    return Row(address.version, name, "down", since, "Down", f"Error: {unusable.reason}")


# --- the protocol ----------------------------------------------------------------------------------------------------


def greeting() -> bytes:
    return f"0001 {_VERSION} ready.\n".encode()


def answer(command: str, snapshot: Snapshot, version: int, now: float, state: Callable[[], object]) -> bytes:
    """Return the reply to one command line."""
    match command.split():
        case ["show", "protocols"]:
            return _protocols(snapshot, version, now)
        case ["show", "status"]:
            return _status(snapshot, now)
        case ["show", "calico", "json"]:
            return f"1900-{json.dumps(state(), default=str, separators=(',', ':'))}\n0000 \n".encode()
        case []:
            return b"9001 syntax error, unexpected END\n"
        case words:
            wrong = next((word for word in words if word not in ("show", "protocols", "status")), words[-1])
            shown = "".join(character if character.isprintable() else "?" for character in wrong[:64])
            return f"9001 syntax error, unexpected {shown}\n".encode()


def _protocols(snapshot: Snapshot, version: int, now: float) -> bytes:
    lines = [_line("static1", "Static", "up", snapshot.booted, now, ""),
             _line("kernel1", "Kernel", "up", snapshot.booted, now, "")]
    lines += [
        _line(found.name, "BGP", found.state, found.since, now, f"{found.phase:<14}{found.text}")
        for found in snapshot.rows
        if found.version == version
    ]
    first, *rest = lines
    return "\n".join([_HEADING, f"1002-{first}", *(f" {line}" for line in rest), "0000 \n"]).encode()


def _line(name: str, proto: str, state: str, since: float, now: float, info: str) -> str:
    return f"{name:<8} {proto:<8} {'master':<8} {state:<5}  {_since(since, now):<10}  {info}"


def _since(since: float, now: float) -> str:
    form = "%H:%M:%S" if now - since < _RECENT_SECONDS else "%Y-%m-%d"
    return time.strftime(form, time.localtime(since))


def _status(snapshot: Snapshot, now: float) -> bytes:
    return (
        f"1000-{_VERSION}\n"
        f"1011-Router ID is {snapshot.router_id}\n"
        f" Current server time is {_moment(now)}\n"
        f" Last reboot on {_moment(snapshot.booted)}\n"
        f" Last reconfiguration on {_moment(snapshot.reconfigured)}\n"
        "0013 Daemon is up and running\n"
    ).encode()


def _moment(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


# --- the sockets -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Client:
    version: int
    received: bytes = b""
    outgoing: bytes = b""
    closing: bool = False


class StatusServer:
    """Serves both sockets from one thread; a client that does not read holds up nobody.

    Args:
        state: makes the answer to ``show calico json``; called from the server's thread, may take a while.
    """

    def __init__(self, sockets: dict[int, Path], state: Callable[[], object]) -> None:
        self._state = state
        self._snapshot = Snapshot()
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._stopping = False
        for version, path in sockets.items():
            listener = bind_unix(path, 0o660)
            listener.listen(128)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, version)
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Show this from now on; callable from any thread."""
        self._snapshot = snapshot

    def close(self) -> None:
        """End the thread and close everything; the socket files stay for the next one to replace."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select():
                connection = key.fileobj
                if not isinstance(connection, socket.socket):
                    continue
                if isinstance(key.data, _Client):
                    self._serve(connection, key.data, events)
                else:
                    self._accept(connection, key.data)

    def _accept(self, listener: socket.socket, version: int) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._selector.get_map()) > _CONNECTIONS_MAX:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(version, outgoing=greeting())
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._send(connection, client)

    def _serve(self, connection: socket.socket, client: _Client, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                data = connection.recv(_COMMAND_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data is not None:
                client.closing |= not data
                self._take(client, data)
        self._send(connection, client)

    def _take(self, client: _Client, data: bytes) -> None:
        *lines, client.received = (client.received + data).split(b"\n")
        client.closing |= len(client.received) > _COMMAND_BYTES
        for line in lines:
            command = line.decode("ascii", "replace")
            client.outgoing += answer(command, self._snapshot, client.version, time.time(), self._state)

    def _send(self, connection: socket.socket, client: _Client) -> None:
        try:
            while client.outgoing:
                client.outgoing = client.outgoing[connection.send(client.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            client.outgoing, client.closing = b"", True
        if client.closing and not client.outgoing:
            self._selector.unregister(connection)
            connection.close()
            return
        # a client that leaves its answers lying gets no further command read
        wanted = selectors.EVENT_WRITE if client.outgoing else selectors.EVENT_READ
        self._selector.modify(connection, wanted, client)


def rows(neighbors: Iterable[Neighbor], unusable: Mapping[Unusable, float]) -> tuple[Row, ...]:
    """Return all rows, by address. `unusable`: since when, in seconds of the epoch."""
    found = [(neighbor.spec.address, row(neighbor)) for neighbor in neighbors]
    found += [
        (one.address, withheld_row(one, one.address, since))
        for one, since in unusable.items()
        if one.address is not None
    ]
    return tuple(shown for _, shown in sorted(found, key=lambda item: (item[0].version, int(item[0]))))
