"""Interfaces in memory. Obeys `fakes.link_contract`."""

import dataclasses
import errno
from collections.abc import Callable

from kernel.errors import AlreadyThere, DataplaneError, InvalidArgument, NoSuchDevice, NoSuchEntry, NotSupported
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from resources.names import IfName, IPAddress, IPInterface

NAME_BYTES = 15


class FakeLinks:
    """LinkKernel of a host that begins with `lo`.

    `refuse` holds names on which every change fails with `refusal`; `has_ipip` off makes a kernel without IPIP.
    `on_lost` is called with an interface that went down or away (the fake routes forget its routes then, as the kernel
    does). `on_neighbour` is called with each entry about who is where that was written or is gone (True), by whomever.
    """

    def __init__(self) -> None:
        self.refuse: set[IfName] = set()
        self.refusal: Callable[[str], DataplaneError] = lambda what: InvalidArgument(what, errno=errno.EINVAL)
        self.has_ipip = True
        self.dumps = 0
        """How often all addresses were read."""
        self.on_lost: list[Callable[[IfName], None]] = []
        self.neighbour_dumps = 0
        """How often the neighbours of an interface were read."""
        self.on_neighbour: list[Callable[[IfName, Neighbour | ForwardingEntry, bool], None]] = []
        self.on_address: list[Callable[[IfName, IPInterface], None]] = []
        self.namespaces: dict[str, dict[IfName, Link]] = {}
        self._links: dict[IfName, Link] = {}
        self._peers: dict[IfName, IfName] = {}
        self._addresses: list[LinkAddress] = []
        self._neighbours: dict[IfName, dict[IPAddress, Neighbour]] = {}
        self._index = 0
        self.add(IfName("lo"))

    # ---- what happens outside

    def add(self, name: IfName, *addresses: IPInterface, up: bool = True, kind: str | None = None) -> Link:
        """Let an interface appear, with a carrier, and with addresses."""
        self._index += 1
        mac = f"02:00:00:00:{self._index >> 8:02x}:{self._index & 255:02x}"
        self._links[name] = Link(index=self._index, name=name, up=up, running=up, mtu=1500, mac=mac, kind=kind)
        self._neighbours[name] = {}
        for address in addresses:
            self.add_address(name, address)
        return self._links[name]

    def remove(self, name: IfName) -> None:
        """Let an interface vanish, with its peer."""
        self.delete(name)

    def change(self, name: IfName, *, mac: str) -> None:
        """Let an interface have another MAC."""
        self._links[name] = dataclasses.replace(self._links[name], mac=mac)

    def rename(self, name: IfName, new: IfName) -> None:
        link = self._links.pop(name)
        self._links[new] = dataclasses.replace(link, name=new)
        self._neighbours[new] = self._neighbours.pop(name)
        self._addresses = [
            dataclasses.replace(found, device=new) if found.device == name else found for found in self._addresses
        ]

    # ---- LinkKernel

    def links(self) -> dict[IfName, Link]:
        return dict(self._links)

    def addresses(self) -> list[LinkAddress]:
        self.dumps += 1
        return list(self._addresses)

    def neighbours(self, device: IfName) -> dict[IPAddress, Neighbour]:
        self._get(device)
        self.neighbour_dumps += 1
        return dict(self._neighbours[device])

    def set_up(self, name: IfName) -> None:
        self._changeable(name)
        self._set(name, up=True)

    def set_down(self, name: IfName) -> None:
        self._changeable(name)
        self._set(name, up=False)
        self._lose(name)

    def set_mtu(self, name: IfName, mtu: int) -> None:
        link = self._changeable(name)
        if not 68 <= mtu <= 65535:
            raise InvalidArgument(f"cannot set the MTU of {name} to {mtu}", errno=errno.EINVAL)
        self._links[name] = dataclasses.replace(link, mtu=mtu)

    def add_address(self, device: IfName, address: IPInterface) -> None:
        self._changeable(device)
        entry = LinkAddress(device=device, address=address)
        if entry not in self._addresses:
            self._addresses.append(entry)
            for tell in self.on_address:
                tell(device, address)

    def remove_address(self, device: IfName, address: IPInterface) -> None:
        self._changeable(device)
        self._addresses = [found for found in self._addresses if found != LinkAddress(device=device, address=address)]

    def set_neighbour(self, device: IfName, address: IPAddress, mac: str) -> None:
        self._changeable(device)
        self._neighbours[device][address] = entry = Neighbour(address=address, mac=mac, permanent=True)
        self.tell_neighbour(device, entry, gone=False)

    def remove_neighbour(self, device: IfName, address: IPAddress) -> None:
        self._changeable(device)
        entry = self._neighbours[device].pop(address, None)
        if entry is not None:
            self.tell_neighbour(device, entry, gone=True)

    def create_veth(
        self,
        name: IfName,
        peer: IfName,
        *,
        mac: str | None = None,
        peer_mac: str | None = None,
        mtu: int | None = None,
    ) -> None:
        what = f"cannot make the veth pair {name} and {peer}"
        for end in (name, peer):
            if len(end.encode()) > NAME_BYTES:
                raise InvalidArgument(what, errno=errno.ERANGE)
            if end in self.refuse:
                raise self.refusal(what)
            if end in self._links:
                raise AlreadyThere(what, errno=errno.EEXIST)
        for end, own in ((peer, peer_mac), (name, mac)):
            link = self.add(end, up=False, kind="veth")
            self._links[end] = dataclasses.replace(link, mac=own or link.mac, mtu=mtu or link.mtu)
        self._peers |= {name: peer, peer: name}

    def create_ipip(self, name: IfName) -> None:
        what = f"cannot make the IPIP device {name}"
        if name in self.refuse:
            raise self.refusal(what)
        if not self.has_ipip:
            raise NotSupported(what, errno=errno.EOPNOTSUPP)
        if name in self._links or any(link.kind == "ipip" for link in self._links.values()):
            raise AlreadyThere(what, errno=errno.EEXIST)
        self.add(name, up=False, kind="ipip")
        self._links[name] = dataclasses.replace(self._links[name], mac=None, mtu=1480)

    def delete(self, name: IfName) -> None:
        if name in self.refuse:
            raise self.refusal(f"cannot delete the interface {name}")
        for end in (name, self._peers.get(name)):
            if end in self._links:
                del self._links[end], self._neighbours[end]
                self._addresses = [found for found in self._addresses if found.device != end]
                self._lose(end)
            for inside in self.namespaces.values():
                if end is not None:
                    inside.pop(end, None)

    def move(self, name: IfName, namespace: str) -> None:
        self._changeable(name)
        if namespace not in self.namespaces:
            raise NoSuchEntry(f"cannot move {name} to the namespace {namespace}", errno=errno.ENOENT)
        self.namespaces[namespace][name] = self._links.pop(name)
        self._lose(name)

    def tell_neighbour(self, device: IfName, entry: Neighbour | ForwardingEntry, *, gone: bool) -> None:
        for tell in self.on_neighbour:
            tell(device, entry, gone)

    # ---- inside

    def _get(self, name: IfName) -> Link:
        if name not in self._links:
            raise NoSuchDevice(f"no interface {name}", errno=errno.ENODEV, device=name)
        return self._links[name]

    def _changeable(self, name: IfName) -> Link:
        link = self._get(name)
        if name in self.refuse:
            raise self.refusal(f"cannot change {name}")
        return link

    def _set(self, name: IfName, *, up: bool) -> None:
        self._links[name] = dataclasses.replace(self._links[name], up=up)
        peer = self._peers.get(name)
        for end in (name, peer):
            if end in self._links:
                link = self._links[end]
                carrier = peer is None or peer not in self._links or self._other_is_up(end)
                self._links[end] = dataclasses.replace(link, running=link.up and carrier)

    def _other_is_up(self, end: IfName) -> bool:
        other = self._links.get(self._peers[end])
        return other is not None and other.up

    def _lose(self, name: IfName) -> None:
        for tell in self.on_lost:
            tell(name)
