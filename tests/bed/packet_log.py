"""A listener of the kernel's packet log (NFLOG), by netlink: which prefix was logged, with which packet.

Source: Linux include/uapi/linux/netfilter/nfnetlink_log.h.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = _SUBSYSTEM, _SUBSYSTEM | 1
_REQUEST_ACK = 0x5
_ERROR = 2
_HEADER, _FAMILY = struct.Struct("=IHHII"), struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_CFG_COMMAND, _CFG_MODE, _CFG_TIMEOUT, _CFG_THRESHOLD = 1, 2, 4, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10


@dataclass(frozen=True)
class Logged:
    """One packet: the group, the prefix, and the beginning of the packet from its IP header on."""

    group: int
    prefix: str
    packet: bytes

    @property
    def ends(self) -> tuple[str, str, int]:
        """Source, destination and destination port (0 where there is none) of an IPv4 packet."""
        header = (self.packet[0] & 15) * 4
        port = struct.unpack_from("!H", self.packet, header + 2)[0] if self.packet[9] in (6, 17) else 0
        return socket.inet_ntoa(self.packet[12:16]), socket.inet_ntoa(self.packet[16:20]), port


class PacketLog:
    """Hears groups of the network namespace of the thread that made it."""

    def __init__(self, *groups: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(5.0)
        for group in groups:
            self._configure(group, _CFG_COMMAND, bytes([_BIND]))
            self._configure(group, _CFG_MODE, struct.pack("!IBx", 256, _COPY_PACKET))
            self._configure(group, _CFG_THRESHOLD, struct.pack("!I", 1))
            self._configure(group, _CFG_TIMEOUT, struct.pack("!I", 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for(self, count: int, *, timeout: float = 3.0) -> list[Logged]:
        """Return what was logged, when it is `count` packets or the time is over."""
        until = time.monotonic() + timeout
        found: list[Logged] = []
        while len(found) < count and (left := until - time.monotonic()) > 0:
            found += self._receive(left)
        return found + self._receive(0.05)

    def _receive(self, timeout: float) -> list[Logged]:
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return []
        return [_logged(body) for kind, body in _messages(data) if kind == _PACKET]

    def _configure(self, group: int, attribute: int, value: bytes) -> None:
        payload = _ATTRIBUTE.pack(4 + len(value), attribute) + value + bytes(-len(value) % 4)
        body = _FAMILY.pack(socket.AF_INET, 0, socket.htons(group)) + payload
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST_ACK, 1, 0) + body)
        while True:
            for kind, answer in _messages(self._socket.recv(1 << 16)):
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", answer)[0]
                    if number:
                        raise OSError(number, f"{os.strerror(number)}, log group {group}")
                    return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _logged(body: bytes) -> Logged:
    group = socket.ntohs(_FAMILY.unpack_from(body)[2])
    prefix, packet, offset = "", b"", _FAMILY.size
    while offset + 4 <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        value = body[offset + 4 : offset + length]
        if kind & 0x3FFF == _PREFIX:
            prefix = value.rstrip(b"\0").decode()
        elif kind & 0x3FFF == _PAYLOAD:
            packet = value
        offset += (length + 3) & ~3
    return Logged(group, prefix, packet)
