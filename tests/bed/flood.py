"""Packets without pause from one namespace to another, and a count of those that arrive.

Each packet begins a flow of its own (another port, another identifier), so what was let in before does not let it in.
"""

import contextlib
import ipaddress
import itertools
import os
import random
import socket
import struct
import threading
import time
from typing import Self

from bed.probes import IPAddress, Prober, checksum
from bed.workload import Workload

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_EVERYTHING = 3  # ETH_P_ALL
_PAUSE_SECONDS = 0.0003
_KINDS = 400


class Flood:
    """ICMP echoes, TCP SYNs and UDP datagrams from `source` to `target`, several thousand a second, until `close`."""

    def __init__(self, source: Workload, target: Workload) -> None:
        self.sent = dict.fromkeys(PROTOCOLS, 0)
        self.heard = dict.fromkeys(PROTOCOLS, 0)
        """As the network interface of the target sees them."""
        self._target, self._stop = str(target.address), threading.Event()
        self._from = source.address.packed
        packets = {name: [_packet(name, source, target) for _ in range(_KINDS)] for name in PROTOCOLS}
        with target.entered():
            self._receiver = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))
        self._receiver.settimeout(0.05)
        with source.entered():
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        work = (self._receive, lambda: self._send(packets))
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def _send(self, packets: dict[str, list[bytes]]) -> None:
        while True:
            for at in range(_KINDS):
                for name, made in packets.items():
                    if self._stop.wait(_PAUSE_SECONDS):
                        return
                    try:
                        self._sender.sendto(made[at], (self._target, 0))
                        self.sent[name] += 1
                    except OSError:  # there is no way yet, or the queue is full
                        continue

    def _receive(self) -> None:
        numbers = {number: name for name, number in PROTOCOLS.items()}
        while not self._stop.is_set():
            try:
                packet, origin = self._receiver.recvfrom(200)
            except TimeoutError:
                continue
            except OSError:
                return
            incoming = origin[2] != socket.PACKET_OUTGOING
            if incoming and origin[1] == 0x0800 and packet[12:16] == self._from and packet[9] in numbers:
                self.heard[numbers[packet[9]]] += 1

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
        for name in PROTOCOLS:
            self.sent[name] = self.heard[name] = 0

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._receiver.close()
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pulse:
    """An ICMP echo each few milliseconds while the block runs, without waiting for answers; how long none came.

    What it measures is an outage: `longest_gap` are the seconds between two answers that are furthest apart, the begin
    and the end of the block counted as answers.
    """

    def __init__(self, source: Prober, target: IPAddress, *, pause_seconds: float = 0.005) -> None:
        self.answers: list[float] = []
        """When they came, by the monotonic clock."""
        self._target, self._pause = str(target), pause_seconds
        self._stop = threading.Event()
        self._identifier = random.randrange(1, 65536)
        with source.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.settimeout(0.05)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        self.began = self.ended = 0.0

    @property
    def longest_gap(self) -> float:
        times = [self.began, *self.answers, self.ended or time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))

    def _send(self) -> None:
        sequence = 0
        while not self._stop.wait(self._pause):
            sequence = (sequence + 1) % 65536
            body = struct.pack("!BBHHH", 8, 0, 0, self._identifier, sequence) + bytes(24)
            body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
            with contextlib.suppress(OSError):  # there is no way at the moment
                self._socket.sendto(body, (self._target, 0))

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                packet, origin = self._socket.recvfrom(200)
            except OSError:
                continue
            if origin[0] == self._target and packet[20:21] == b"\0" and packet[24:26] == self._identity:
                self.answers.append(time.monotonic())

    @property
    def _identity(self) -> bytes:
        return struct.pack("!H", self._identifier)

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = time.monotonic()
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._socket.close()


def _packet(protocol: str, source: Workload, target: Workload) -> bytes:
    addresses = source.address.packed + target.address.packed
    ports = struct.pack("!HH", random.randrange(20000, 60000), random.randrange(1, 20000))
    if protocol == "icmp":
        body = struct.pack("!BBH", 8, 0, 0) + os.urandom(24)
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    elif protocol == "udp":
        body = ports + struct.pack("!HH", 16, 0) + os.urandom(8)  # no checksum: allowed for IPv4
    else:
        body = ports + struct.pack("!IIBBHHH", random.getrandbits(32), 0, 5 << 4, 0x02, 1024, 0, 0)
        total = checksum(addresses + struct.pack("!HH", PROTOCOLS["tcp"], len(body)) + body)
        body = body[:16] + struct.pack("!H", total) + body[18:]
    assert isinstance(source.address, ipaddress.IPv4Address)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, PROTOCOLS[protocol], 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
