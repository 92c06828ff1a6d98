"""ARP answers in memory."""

import errno
from ipaddress import IPv4Address

from fakes.links import FakeLinks
from kernel.errors import DeviceDown, NoSuchDevice
from kernel.link import Link
from resources.names import IfName


class FakeAnnouncer:
    """Announcer. `heard` keeps (interface, address, to) of those that went out."""

    def __init__(self, links: FakeLinks) -> None:
        self.heard: list[tuple[IfName, IPv4Address, IPv4Address]] = []
        self._links = links

    def announce(self, link: Link, address: IPv4Address, to: IPv4Address) -> None:
        there = self._links.links().get(link.name)
        if there is None:
            raise NoSuchDevice(f"cannot announce {address} on {link.name}", errno=errno.ENODEV)
        if not there.up:
            raise DeviceDown(f"cannot announce {address} on {link.name}", errno=errno.ENETDOWN)
        self.heard.append((link.name, address, to))
