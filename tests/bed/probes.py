"""Packets sent and received by this process, in the network namespace the calling thread is in.

A ping costs no process this way: 81 pairs take as long as the slowest. Call these inside `with X.entered():`, or use
the methods of the same names that workloads, containers and hosts have.
"""

import contextlib
import itertools
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol, Self

from bed.command import wait_until

IPAddress = IPv4Address | IPv6Address
Address = IPAddress | str
_ECHO_REPLY, _ECHO_REQUEST = {4: 0, 6: 129}, {4: 8, 6: 128}
_ERRORS = {4: {3: "unreachable", 11: "time exceeded"}, 6: {1: "unreachable", 2: "packet too big", 3: "time exceeded"}}
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
"""Packets are not to be cut, and what is known of the way does not matter."""
_UNREACHABLE, _TOO_LARGE = 3, 4
_identifiers = itertools.count(1)
"""Of echo requests. None twice: connection tracking would take it for a flow that policy let pass half a minute ago,
and random ones meet often enough in thousands of probes."""


class Reply(Protocol):
    """What a probe found out."""

    @property
    def ok(self) -> bool: ...
    @property
    def mark(self) -> str:
        """Three characters at most, for a grid."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """The answer to one echo request; `ttl` is that of the reply as it arrived."""

    ok: bool
    ttl: int | None = None
    rtt_seconds: float | None = None
    error: str = ""

    @property
    def mark(self) -> str:
        return str(self.ttl) if self.ok else "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkResult:
    """A connection or an exchange of datagrams with a Listener; `seen_as` is our address as the server saw it."""

    ok: bool
    seen_as: str | None = None
    error: str = ""

    @property
    def mark(self) -> str:
        return "ok" if self.ok else "-"


def ping(
    address: Address, *, timeout: float = 1.0, size: int = 56, source: Address | None = None, whole: bool = False
) -> PingResult:
    """Send one ICMP echo request of `size` bytes of payload and wait for its reply or an ICMP error about it.

    With `whole` no router may cut it: one that cannot pass it on answers "packet too big".
    """
    target = ip_address(str(address))
    version = target.version
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    token = os.urandom(16)
    payload = (token + bytes(size))[: max(size, len(token))]
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        if version == 6:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
        if whole:
            raw.setsockopt(*_MTU_DISCOVER[version], _PROBE)
        began = time.monotonic()
        try:
            if source is not None:
                raw.bind((str(source), 0))
            raw.sendto(echo_request(version, payload), (str(target), 0))
        except OSError as error:
            return PingResult(ok=False, error=error.strerror or str(error))
        while (left := began + timeout - time.monotonic()) > 0:
            if not select.select([raw], [], [], left)[0]:
                break
            kind, ttl, body = _received(raw, version)
            if token not in body:
                continue
            if kind == _ECHO_REPLY[version]:
                return PingResult(ok=True, ttl=ttl, rtt_seconds=time.monotonic() - began)
            if (version, kind, body[0]) == (4, _UNREACHABLE, _TOO_LARGE):
                return PingResult(ok=False, error=_ERRORS[6][2])
            if kind in _ERRORS[version]:
                return PingResult(ok=False, error=_ERRORS[version][kind])
    return PingResult(ok=False, error="no answer")


def _received(raw: socket.socket, version: int) -> tuple[int, int, bytes]:
    """Return ICMP type, TTL and everything behind the type."""
    packet: bytes
    packet, ancillary, _, _ = raw.recvmsg(65535, 256)
    if version == 4:
        header = (packet[0] & 0x0F) * 4
        return packet[header], packet[8], packet[header + 1 :]
    hops = 0
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT):
            hops = int.from_bytes(bytes(data), sys.byteorder)
    return packet[0], hops, packet[1:]


def echo_request(version: int, payload: bytes) -> bytes:
    """Return an echo request with an identifier of its own."""
    head = struct.pack("!BBHHH", _ECHO_REQUEST[version], 0, 0, next(_identifiers) & 0xFFFF, 1)
    if version == 6:
        return head + payload  # the kernel adds the checksum
    return head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:] + payload


def checksum(data: bytes) -> int:
    """Return the internet checksum. Source: RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp_connect(address: Address, port: int, *, timeout: float = 1.0, source: Address | None = None) -> TalkResult:
    """Connect to a Listener and return what it saw of us. (Towards another server `seen_as` stays None.)"""
    try:
        with socket.create_connection(
            (str(address), port), timeout=timeout, source_address=(str(source), 0) if source else None
        ) as connection:
            try:
                return TalkResult(ok=True, seen_as=connection.recv(200).decode().strip() or None)
            except TimeoutError:
                return TalkResult(ok=True)
    except OSError as error:
        return TalkResult(ok=False, error=error.strerror or str(error))


def udp_exchange(address: Address, port: int, *, timeout: float = 1.0, source: Address | None = None) -> TalkResult:
    """Send a datagram to a Listener and return what it saw of us."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as talker:
        talker.settimeout(timeout)
        try:
            if source is not None:
                talker.bind((str(source), 0))
            talker.connect((str(address), port))
            talker.send(b"?")
            return TalkResult(ok=True, seen_as=talker.recv(200).decode())
        except OSError as error:
            return TalkResult(ok=False, error=error.strerror or str(error))


class Listener:
    """A TCP or UDP server that tells each client the address it was seen with, and remembers it.

    It belongs to the namespace of the thread that makes it and is served by a thread of this process.
    """

    def __init__(self, port: int, *, protocol: str = "tcp", address: Address = "0.0.0.0") -> None:
        self.protocol = protocol
        self.seen: list[str] = []
        """The clients' addresses, oldest first."""
        kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[protocol]
        self._socket = socket.socket(_family(address), kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((str(address), port))
        self.port: int = self._socket.getsockname()[1]
        if protocol == "tcp":
            self._socket.listen(64)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"{protocol} {port}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        server = self._socket.fileno()
        while server in select.select([server, self._stop], [], [])[0]:
            with contextlib.suppress(OSError):
                if self.protocol == "udp":
                    _, peer = self._socket.recvfrom(65535)
                    self.seen.append(peer[0])
                    self._socket.sendto(peer[0].encode(), peer)
                else:
                    connection, peer = self._socket.accept()
                    with connection:
                        self.seen.append(peer[0])
                        connection.sendall(peer[0].encode())

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join(5.0)
        self._socket.close()
        os.close(self._stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(str(address)).version == 6 else socket.AF_INET


class Prober:
    """What everything with a network namespace can do with packets."""

    name: str

    def entered(self) -> contextlib.AbstractContextManager[None]:
        raise TypeError(f"{type(self).__name__} has no namespace")

    def ping(
        self,
        address: Address,
        *,
        timeout: float = 1.0,
        size: int = 56,
        source: Address | None = None,
        whole: bool = False,
    ) -> PingResult:
        """Send one ICMP echo request."""
        with self.entered():
            return ping(address, timeout=timeout, size=size, source=source, whole=whole)

    def await_ping(self, address: Address, *, timeout: float = 10.0) -> float:
        """Ping until there is an answer, and return the seconds that took.

        Raises:
            Timeout: there was none in time.
        """
        with self.entered():
            what = f"{self.name} to reach {address}"
            return wait_until(what, lambda: ping(address, timeout=0.1).ok, timeout=timeout, every=0.01)

    def tcp_connect(
        self, address: Address, port: int, *, timeout: float = 1.0, source: Address | None = None
    ) -> TalkResult:
        """Connect to a `tcp_listen` of somebody else."""
        with self.entered():
            return tcp_connect(address, port, timeout=timeout, source=source)

    def udp_exchange(
        self, address: Address, port: int, *, timeout: float = 1.0, source: Address | None = None
    ) -> TalkResult:
        """Exchange a datagram with a `udp_listen` of somebody else."""
        with self.entered():
            return udp_exchange(address, port, timeout=timeout, source=source)

    @contextlib.contextmanager
    def tcp_listen(self, port: int, *, address: Address = "0.0.0.0") -> Iterator[Listener]:
        """Serve for the length of the block; `Listener.seen` has the addresses of the clients."""
        with self.entered():
            listener = Listener(port, protocol="tcp", address=address)
        with listener:
            yield listener

    @contextlib.contextmanager
    def udp_listen(self, port: int, *, address: Address = "0.0.0.0") -> Iterator[Listener]:
        """As `tcp_listen`, for datagrams."""
        with self.entered():
            listener = Listener(port, protocol="udp", address=address)
        with listener:
            yield listener
