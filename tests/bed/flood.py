"""Packets without pause from one namespace to another, and a count of those that arrive.

Each packet begins a flow of its own (another port, another identifier), so what was let in before does not let it in.
"""

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Self

from bed.probes import checksum
from bed.workload import Workload

PROTOCOLS = {4: {"icmp": 1, "tcp": 6, "udp": 17}, 6: {"icmp6": 58, "tcp6": 6, "udp6": 17}}
"""By address family: what a flood consists of, and its number in the header."""
_ETHER_TYPES = {0x0800: 4, 0x86DD: 6}
_EVERYTHING = 3  # ETH_P_ALL
_PAUSE_SECONDS = 0.0003
_KINDS = 400


class Flood:
    """ICMP echoes, TCP SYNs and UDP datagrams from `source` to `target`, several thousand a second, until `close`.

    In each address family that both have. `translated`: the target sees another source
    address, so it counts whatever comes.
    """

    def __init__(self, source: Workload, target: Workload, *, translated: bool = False) -> None:
        self._translated = translated
        others = {address.version for address in target.addresses}
        self._versions = sorted({int(address.version) for address in source.addresses if address.version in others})
        names = [name for version in self._versions for name in PROTOCOLS[version]]
        self.sent = dict.fromkeys(names, 0)
        self.heard = dict.fromkeys(names, 0)
        """As the network interface of the target sees them."""
        self._stop = threading.Event()
        self._from = {version: source.address_of(version).packed for version in self._versions}
        packets: list[tuple[str, int, str, list[bytes]]] = []
        for version in self._versions:
            for name, number in PROTOCOLS[version].items():
                made = [_packet(number, version, source, target) for _ in range(_KINDS)]
                packets.append((name, version, str(target.address_of(version)), made))
        with target.entered():
            self._receiver = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))
        self._receiver.settimeout(0.05)
        with source.entered():
            self._senders: dict[int, socket.socket] = {version: _raw_socket(version) for version in self._versions}
        work = (self._receive, lambda: self._send(packets))
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def _send(self, packets: Sequence[tuple[str, int, str, Sequence[bytes]]]) -> None:
        while True:
            for at in range(_KINDS):
                for name, version, target, made in packets:
                    if self._stop.wait(_PAUSE_SECONDS):
                        return
                    try:
                        self._senders[version].sendto(made[at], (target, 0))
                        self.sent[name] += 1
                    except OSError:  # there is no way yet, or the queue is full
                        continue

    def _receive(self) -> None:
        names = {(version, PROTOCOLS[version][name]): name for version in self._versions for name in PROTOCOLS[version]}
        while not self._stop.is_set():
            try:
                packet, origin = self._receiver.recvfrom(200)
            except TimeoutError:
                continue
            except OSError:
                return
            incoming = origin[2] != socket.PACKET_OUTGOING
            version = _ETHER_TYPES.get(origin[1], 0)
            if not incoming or version not in self._versions:
                continue
            number, sender = (packet[9], packet[12:16]) if version == 4 else (packet[6], packet[8:24])
            if (self._translated or sender == self._from[version]) and (version, number) in names:
                self.heard[names[version, number]] += 1

    def expect_closed(self) -> None:
        """Check that a hundred packets of each kind were sent since `begin_anew`, and that none arrived.

        Raises:
            AssertionError: with the counts.
        """
        until = time.monotonic() + 5.0
        while min(self.sent.values()) < 100 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)  # what is under way arrives
        assert min(self.sent.values()) >= 100, f"not much of a flood: {self.sent}"
        assert not any(self.heard.values()), f"{self.heard} of {self.sent} came through"

    def begin_anew(self) -> None:
        """Forget what was counted."""
        for name in self.sent:
            self.sent[name] = self.heard[name] = 0

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._receiver.close()
        for sender in self._senders.values():
            sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _raw_socket(version: int) -> socket.socket:
    """Return a socket that takes packets with their header."""
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _packet(number: int, version: int, source: Workload, target: Workload) -> bytes:
    addresses = source.address_of(version).packed + target.address_of(version).packed
    ports = struct.pack("!HH", random.randrange(20000, 60000), random.randrange(1, 20000))

    def summed(body: bytes, at: int, pseudo: bool = True) -> bytes:
        before = addresses + struct.pack("!HH" if version == 4 else "!II", number, len(body)) if pseudo else b""
        return body[:at] + struct.pack("!H", checksum(before + body)) + body[at + 2 :]

    match number:
        case 1 | 58:
            body = struct.pack("!BBHHH", 8 if number == 1 else 128, 0, 0, random.getrandbits(16), 0) + os.urandom(24)
            body = summed(body, 2, pseudo=version == 6)
        case 17:
            body = summed(ports + struct.pack("!HH", 16, 0) + os.urandom(8), 6)
        case _:
            body = summed(ports + struct.pack("!IIBBHHH", random.getrandbits(32), 0, 5 << 4, 0x02, 1024, 0, 0), 16)
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), number, 64) + addresses + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, number, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
