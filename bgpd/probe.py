"""Asks peers that are down whether they are back, by opening and closing a TCP connection to their BGP port, as
ExaBGP would open it: signed if the session has a password, and with the TTL that a peer next door expects.

ExaBGP waits longer after each failed attempt, up to a minute, and there is no command to shorten that. So bgpd looks
itself, and has ExaBGP begin anew with a peer that answers (reference bgp.md 2.6).
"""

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from resources.names import IPAddress

TIMEOUT_SECONDS = 1.5
TCP_MD5SIG = 14
"""Linux include/uapi/linux/tcp.h; the module socket does not name it."""
HOPS_MAX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A peer to try, from our own BGP address."""

    address: IPAddress
    port: int
    local: IPAddress | None
    """None: the kernel chooses."""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PeerAnswers:
    """Something accepts connections on the BGP ports of these peers."""

    addresses: tuple[IPAddress, ...]


class Prober:
    """Tries peers in a thread of its own; one round at a time."""

    def __init__(self, post: Callable[[PeerAnswers], None]) -> None:
        self._post = post
        self._busy = threading.Lock()

    def probe(self, targets: Iterable[Target]) -> None:
        """Try all `targets` at once; one PeerAnswers names all that answer. Nothing if a round is under way."""
        listed = list(targets)
        if listed and self._busy.acquire(blocking=False):
            threading.Thread(target=self._round, args=(listed,), name="probe", daemon=True).start()

    def _round(self, targets: list[Target]) -> None:
        try:
            if found := answering(targets):
                self._post(PeerAnswers(tuple(found)))
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
                _dress(connection, target)
                # one that fails at once has no error on its socket later, and looks as if it were connected
                if connection.connect_ex((str(target.address), target.port)) in (0, errno.EINPROGRESS):
                    selector.register(connection, selectors.EVENT_WRITE, target)
        deadline = time.monotonic() + timeout
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(key.data.address)
    return found


def _dress(connection: socket.socket, target: Target) -> None:
    """Make a socket such as ExaBGP would use. Raises OSError."""
    if target.address.version == 4:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, HOPS_MAX)
    else:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS_MAX)
    if target.password is not None:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, signature(target.address, target.password.encode()))
    if target.local is not None:
        connection.bind((str(target.local), 0))


def signature(address: IPAddress, key: bytes) -> bytes:
    """Return the kernel's struct tcp_md5sig: packets from and to `address` are signed with `key` (RFC 2385)."""
    if address.version == 4:
        name = struct.pack("=HH4s", socket.AF_INET, 0, address.packed)
    else:
        name = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address.packed, 0)
    return struct.pack("=128sBBHI80s", name, 0, 0, len(key), 0, key)
