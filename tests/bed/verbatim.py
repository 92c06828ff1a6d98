"""A BGP peer that says what it is told, byte for byte, and hears nothing: for what no speaker of Debian's sends.

    peer = Verbatim(host, near)
    peer.say(update("10.65.2.0/26", host.address, attribute(16, bytes(8), flags=0xC0)))
"""

import ipaddress
import struct
from ipaddress import IPv4Address

from bed.host import Host

_PROGRAM = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 179))
for line in sys.stdin:
    connection.sendall(bytes.fromhex(line))
"""
_STEPS = "/run/verbatim"


class Verbatim:
    """An iBGP peer without graceful restart, on a host that no other speaker has."""

    def __init__(self, host: Host, near: IPv4Address, *, number: int = 64512) -> None:
        self._host = host
        host.run(["mkfifo", _STEPS])
        # it has both ends of the pipe, so that it does not end with the first that writes
        self.process = host.popen(["sh", "-c", f'exec python3 -c "$0" "$1" <>{_STEPS}', _PROGRAM, str(near)])
        capabilities = bytes([2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 65, 4]) + struct.pack("!I", number)
        opening = struct.pack("!BHH4sB", 4, number, 90, host.address.packed, len(capabilities)) + capabilities
        self.say(_message(1, opening) + _message(4))

    def say(self, messages: bytes) -> None:
        self._host.run(f"cat >{_STEPS}", stdin=f"{messages.hex()}\n")


def attribute(code: int, value: bytes, *, flags: int = 0x40) -> bytes:
    """Return one attribute; `flags` say that it is well known, or 0xc0: optional and transitive."""
    return struct.pack("!BBB", flags, code, len(value)) + value


def update(prefix: str, next_hop: bytes, *more: bytes, longer: int = 0) -> bytes:
    """Return an UPDATE with the attributes that it must have and `more`; `longer`: by how much it lies of them."""
    said = attribute(1, b"\0") + attribute(2, b"") + attribute(3, next_hop) + attribute(5, struct.pack("!I", 100))
    said += b"".join(more)
    network = ipaddress.ip_network(prefix)
    nlri = bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]
    return _message(2, struct.pack("!HH", 0, len(said) + longer) + said + nlri)


def _message(kind: int, body: bytes = b"") -> bytes:
    return b"\xff" * 16 + struct.pack("!HB", 19 + len(body), kind) + body
