"""How long nothing comes through: an echo each few milliseconds from one namespace to another."""

import contextlib
import itertools
import random
import socket
import struct
import threading
import time
from typing import Self

from bed.probes import IPAddress, Prober, checksum


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
