"""Asks peers that are down whether they are back, by opening and closing a TCP connection to their BGP port.

ExaBGP waits longer after each failed attempt, up to a minute, and there is no command to shorten that. So bgpd looks
itself, and has ExaBGP begin anew with a peer that answers (reference bgp.md 2.6).
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from resources.names import IPAddress

TIMEOUT_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to try, from our own BGP address, as ExaBGP would."""

    address: IPAddress
    port: int
    local: IPAddress


@dataclass(frozen=True, slots=True)
class PeerAnswers:
    """Something accepts connections on the peer's BGP port."""

    address: IPAddress


class Prober:
    """Tries peers in a thread of its own; one round at a time."""

    def __init__(self, post: Callable[[PeerAnswers], None]) -> None:
        self._post = post
        self._busy = threading.Lock()

    def probe(self, targets: Iterable[Target]) -> None:
        """Try all `targets` at once; PeerAnswers comes for each that answers. Nothing if a round is under way."""
        listed = list(targets)
        if listed and self._busy.acquire(blocking=False):
            threading.Thread(target=self._round, args=(listed,), name="probe", daemon=True).start()

    def _round(self, targets: list[Target]) -> None:
        try:
            for address in answering(targets):
                self._post(PeerAnswers(address))
        finally:
            self._busy.release()


def answering(targets: Iterable[Target], *, timeout: float = TIMEOUT_SECONDS) -> list[IPAddress]:
    """Return which peers accept a connection within `timeout` seconds."""
    found: list[IPAddress] = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        for target in targets:
            family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
            connection = opened.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            with contextlib.suppress(OSError):
                connection.bind((str(target.local), 0))
                connection.connect_ex((str(target.address), target.port))
                selector.register(connection, selectors.EVENT_WRITE, target)
        deadline = time.monotonic() + timeout
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(key.data.address)
    return found
