"""The host's interfaces and their addresses, as the kernel tells of them. No I/O, no clock of its own.

An address that goes is kept for a moment: a flap shall not take the host endpoint that expects it off its interface
(reference felix.md 2.6). What comes counts at once.
"""

from collections.abc import Iterable, Mapping

from kernel.link import Link, LinkAddress
from resources.names import IfName, IPAddress, IPInterface

GONE_AFTER_SECONDS = 0.1
Addresses = frozenset[IPAddress]


class HostInterfaces:
    """Which interfaces there are, and which addresses each has. Cost follows what changed."""

    def __init__(self) -> None:
        self._indices: dict[IfName, int] = {}
        self._addresses: dict[IfName, set[IPInterface]] = {}
        self._going: dict[LinkAddress, float] = {}
        self._went: tuple[int, set[IPInterface]] | None = None
        self._dirty: set[IfName] = set()
        self._told: dict[IfName, Addresses] = {}

    def read(self, links: Mapping[IfName, Link], addresses: Iterable[LinkAddress]) -> None:
        """Take everything as it was read."""
        self._indices = {name: link.index for name, link in links.items()}
        found: dict[IfName, set[IPInterface]] = {name: set() for name in links}
        for entry in (*addresses, *self._going):
            if entry.device in found:
                found[entry.device].add(entry.address)
        for name in found.keys() | self._addresses.keys():
            if found.get(name) != self._addresses.get(name):
                self._dirty.add(name)
        self._addresses, self._went = found, None

    def link_changed(self, link: Link) -> None:
        """Take an interface that is new or changed; one that had another name a moment ago keeps its addresses."""
        if link.name not in self._addresses:
            renamed = self._went is not None and self._went[0] == link.index
            self._addresses[link.name] = self._went[1] if self._went is not None and renamed else set()
            self._dirty.add(link.name)
        elif self._indices.get(link.name) != link.index:
            self._addresses[link.name] = set()
            self._dirty.add(link.name)
        self._indices[link.name] = link.index
        self._went = None

    def link_gone(self, name: IfName) -> None:
        addresses, index = self._addresses.pop(name, None), self._indices.pop(name, None)
        if addresses is not None and index is not None:
            self._went = index, addresses
            self._dirty.add(name)

    def address_added(self, entry: LinkAddress) -> None:
        self._going.pop(entry, None)
        known = self._addresses.get(entry.device)
        if known is not None and entry.address not in known:
            known.add(entry.address)
            self._dirty.add(entry.device)

    def address_gone(self, entry: LinkAddress, now: float) -> None:
        """Take note that an address went at `now`, by a monotonic clock in seconds."""
        if entry.address in self._addresses.get(entry.device, ()):
            self._going.setdefault(entry, now + GONE_AFTER_SECONDS)

    @property
    def due(self) -> float | None:
        """When an address that went stops to count, or None."""
        return min(self._going.values(), default=None)

    @property
    def has_changes(self) -> bool:
        """Whether something changed that was not taken yet."""
        return bool(self._dirty)

    def take_changes(self, now: float) -> dict[IfName, Addresses | None]:
        """Return the interfaces that have other addresses than last told; None: gone."""
        for entry in [entry for entry, gone_at in self._going.items() if now >= gone_at]:
            del self._going[entry]
            self._addresses.get(entry.device, set()).discard(entry.address)
            self._dirty.add(entry.device)
        changes: dict[IfName, Addresses | None] = {}
        for name in self._dirty:
            known = self._addresses.get(name)
            addresses = None if known is None else frozenset(address.ip for address in known)
            if addresses != self._told.get(name):
                changes[name] = addresses
                if addresses is None:
                    del self._told[name]
                else:
                    self._told[name] = addresses
        self._dirty.clear()
        return changes
