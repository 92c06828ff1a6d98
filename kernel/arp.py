"""ARP answers that nobody asked for: they end the wait of a neighbour whose question was not answered.

Source: RFC 826; Linux arp_process() takes an answer for an address that it has asked for, whenever it comes.
"""

import socket
import struct
from ipaddress import IPv4Address
from typing import Final, Protocol

from kernel.errors import from_errno
from kernel.link import Link

_ETHERTYPE_ARP: Final = 0x0806
_BROADCAST: Final = bytes([0xFF] * 6)
_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ETHERNET, _IPV4, _REPLY = 1, 0x0800, 2


class Announcer(Protocol):
    """Tells the other end of a link who answers for an address."""

    def announce(self, link: Link, address: IPv4Address, to: IPv4Address) -> None:
        """Tell the neighbour with the address `to` that `address` is behind our end of `link`; once, unconfirmed.

        Raises:
            DataplaneError: it could not be sent (NoSuchDevice, DeviceDown).
        """


class ArpAnnouncer:
    """Announcer on packet sockets, in the network namespace of the calling thread."""

    def announce(self, link: Link, address: IPv4Address, to: IPv4Address) -> None:
        frame = pack_reply(link.mac or "", address, to)
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as packets:
                packets.bind((link.name, _ETHERTYPE_ARP))
                packets.send(frame)
        except OSError as exc:
            raise from_errno(exc.errno or 0, f"cannot announce {address} on {link.name}") from exc


def pack_reply(mac: str, address: IPv4Address, to: IPv4Address) -> bytes:
    """Return the frame of an ARP reply, broadcast, that says: `address` is at `mac`."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    return _FRAME.pack(
        *(_BROADCAST, hardware, _ETHERTYPE_ARP),
        *(_ETHERNET, _IPV4, 6, 4, _REPLY),
        *(hardware, address.packed, _BROADCAST, to.packed),
    )
