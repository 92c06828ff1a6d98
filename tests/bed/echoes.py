"""Echo requests without pause, and a count of the answers that are missing."""

import os
import socket
import struct
import threading
import time
from typing import Self

from bed.probes import echo_request

_PAUSE_SECONDS = 0.005
_GRACE_SECONDS = 1.0
"""What the last answers are given."""
_ECHO_REPLY = 0


class Echoes:
    """ICMP echo requests to `target` from the network namespace that it is made in, two hundred a second until `close`.

    Each is a flow of its own. `lost` is known when it is closed.
    """

    def __init__(self, target: str) -> None:
        self.sent = 0
        self._answered: set[int] = set()
        self._target, self._token = target, os.urandom(16)
        self._stop, self._heard_all = threading.Event(), threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.settimeout(0.05)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> int:
        return self.sent - len(self._answered)

    def _send(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            payload = self._token + struct.pack("!Q", self.sent)
            self.sent += 1
            try:
                self._socket.sendto(echo_request(4, payload), (self._target, 0))
            except OSError:  # there is no way: lost like one that is not answered
                continue

    def _receive(self) -> None:
        while not self._heard_all.is_set():
            try:
                packet = self._socket.recv(200)
            except TimeoutError:
                continue
            body = packet[(packet[0] & 0x0F) * 4 :]
            if body[0] == _ECHO_REPLY and body[8:24] == self._token:
                self._answered.add(struct.unpack("!Q", body[24:32])[0])

    def close(self) -> None:
        sender, receiver = self._threads
        self._stop.set()
        sender.join()
        until = time.monotonic() + _GRACE_SECONDS
        while self.lost and time.monotonic() < until:
            time.sleep(0.01)
        self._heard_all.set()
        receiver.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
