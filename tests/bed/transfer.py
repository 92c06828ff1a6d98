"""Much data from one namespace to another by TCP, and how long it took."""

import contextlib
import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address

from bed.probes import Prober

PORT = 5201
_CHUNK = bytes(1 << 20)


def transfer(
    source: Prober, target: Prober, address: IPv4Address | IPv6Address, size: int, *, timeout: float = 60.0
) -> float:
    """Send `size` bytes to `target`, which has `address`; return the seconds until the last one was there.

    Raises:
        OSError: the connection does not come about, or stands still for `timeout` seconds.
        AssertionError: not everything came.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    got = 0
    with contextlib.ExitStack() as stack:
        with target.entered():
            server = stack.enter_context(socket.create_server((str(address), PORT), family=family))
        server.settimeout(timeout)

        def receive() -> None:
            nonlocal got
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connection.settimeout(timeout)
                with connection:
                    buffer = bytearray(len(_CHUNK))
                    while read := connection.recv_into(buffer):
                        got += read

        receiver = threading.Thread(target=receive, daemon=True)
        receiver.start()
        began = time.monotonic()
        with source.entered():
            sender = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        sender.settimeout(timeout)
        sender.connect((str(address), PORT))
        left = size
        while left > 0:
            left -= sender.send(_CHUNK[:left] if left < len(_CHUNK) else _CHUNK)
        sender.shutdown(socket.SHUT_WR)
        receiver.join(timeout)
        took = time.monotonic() - began
    assert got == size, f"{got} of {size} bytes came"
    return took
