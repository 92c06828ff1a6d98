"""Network interfaces: see them, switch them, give them addresses and neighbours, make veth pairs.

What the daemons do all the time (lists, up and down, addresses, neighbours) goes by our own netlink messages; making,
deleting and moving a device goes by pyroute2, imported on first use (reference start.md 3: 95 to 170 ms, 22 MB).
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kernel import link_wire as wire
from kernel import probe
from kernel.errors import AlreadyThere, NoSuchDevice, NoSuchEntry, NotSupported, from_errno
from kernel.link import Link, LinkAddress, Neighbour
from kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket
from kernel.routes import interface_index, interface_names
from resources.names import IfName, IPAddress, IPInterface

__all__ = ["Link", "LinkAddress", "LinkKernel", "Neighbour", "NetlinkLinks", "supports"]


class LinkKernel(Protocol):
    """The interfaces of one network namespace. Every method that names one raises NoSuchDevice if it is not there."""

    def links(self) -> dict[IfName, Link]:
        """Return all interfaces by name."""

    def addresses(self) -> list[LinkAddress]:
        """Return all addresses of all interfaces, in the kernel's order."""

    def neighbours(self, device: IfName) -> dict[IPAddress, Neighbour]:
        """Return the neighbour entries of one interface, both families."""

    def set_up(self, name: IfName) -> None:
        """Switch on. Done already is done. `Link.running` follows when the kernel notices the carrier, within 1 s."""

    def set_down(self, name: IfName) -> None:
        """Switch off; its routes go. Done already is done."""

    def set_mtu(self, name: IfName, mtu: int) -> None:
        """Set the greatest size of a packet, in bytes."""

    def add_address(self, device: IfName, address: IPInterface) -> None:
        """Add an address; there already is done."""

    def remove_address(self, device: IfName, address: IPInterface) -> None:
        """Remove an address; absent is done."""

    def set_neighbour(self, device: IfName, address: IPAddress, mac: str) -> None:
        """Write a permanent neighbour entry over whatever is there."""

    def remove_neighbour(self, device: IfName, address: IPAddress) -> None:
        """Remove a neighbour entry; absent is done."""

    def create_veth(
        self,
        name: IfName,
        peer: IfName,
        *,
        mac: str | None = None,
        peer_mac: str | None = None,
        mtu: int | None = None,
    ) -> None:
        """Make a veth pair, both ends down, in this namespace.

        Raises:
            AlreadyThere: one of the names is taken; nothing was made.
        """

    def create_ipip(self, name: IfName) -> None:
        """Make an IPIP device that takes packets from everybody and is told by each route whom to send to, down.

        The kernel has at most one such device, called tunl0; loading its module may make it.

        Raises:
            AlreadyThere: there is one, or the name is taken.
            NotSupported: this kernel has no IPIP.
        """

    def delete(self, name: IfName) -> None:
        """Delete a device (and its veth peer, wherever that is); absent is done."""

    def move(self, name: IfName, namespace: str) -> None:
        """Move a device into another network namespace: a name below /run/netns, or a path.

        Raises:
            NoSuchEntry: no such namespace.
        """


def supports(kind: str) -> bool:
    """Return whether this kernel can make devices of `kind` (veth, ipip, vxlan), by making one in a new namespace."""
    features = tuple(feature for feature in probe.LINKS if feature.name == kind)
    if not features:
        raise ValueError(f"no probe for device kind {kind}")
    return all(finding.works for finding in probe.try_features(features))


class NetlinkLinks:
    """LinkKernel on rtnetlink, in the namespace of the thread that makes it and calls it."""

    def __init__(self) -> None:
        self._socket = Socket(socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._socket.close()

    def links(self) -> dict[IfName, Link]:
        found = (
            wire.unpack_link(body)
            for _, body in self._socket.dump(wire.RTM_GETLINK, wire.pack_link_dump(), "cannot list interfaces")
        )
        return {link.name: link for link in found if link is not None}

    def addresses(self) -> list[LinkAddress]:
        bodies = self._socket.dump(wire.RTM_GETADDR, wire.pack_address_dump(), "cannot list addresses")
        names = interface_names()
        found = (wire.unpack_address(body, names) for _, body in bodies)
        return [address for address in found if address is not None]

    def fleeting_addresses(self) -> list[LinkAddress]:
        """Return those IPv6 addresses that will go or are not in use: privacy, deprecated, duplicate."""
        bodies = self._socket.dump(wire.RTM_GETADDR, wire.pack_address_dump(), "cannot list addresses")
        names = interface_names()
        found = (wire.unpack_address(body, names) for _, body in bodies if wire.is_fleeting(body))
        return [address for address in found if address is not None]

    def neighbours(self, device: IfName) -> dict[IPAddress, Neighbour]:
        index = interface_index(device)
        entries: dict[IPAddress, Neighbour] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                bodies = self._socket.dump(
                    wire.RTM_GETNEIGH, wire.pack_neighbour_dump(family, index), "cannot list neighbours"
                )
            except NotSupported:
                continue
            for _, body in bodies:
                entry = wire.unpack_neighbour(body)
                if entry is not None and entry[0] == index:
                    entries[entry[1].address] = entry[1]
        return entries

    def set_up(self, name: IfName) -> None:
        self._switch(name, up=True)

    def set_down(self, name: IfName) -> None:
        self._switch(name, up=False)

    def set_mtu(self, name: IfName, mtu: int) -> None:
        body = wire.pack_mtu(interface_index(name), mtu)
        self._socket.request(wire.RTM_NEWLINK, 0, body, f"cannot set the MTU of {name} to {mtu}")

    def add_address(self, device: IfName, address: IPInterface) -> None:
        body = wire.pack_address(interface_index(device), address)
        what = f"cannot add address {address} to {device}"
        try:
            self._socket.request(wire.RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)
        except AlreadyThere:
            return

    def remove_address(self, device: IfName, address: IPInterface) -> None:
        body = wire.pack_address(interface_index(device), address)
        try:
            self._socket.request(wire.RTM_DELADDR, 0, body, f"cannot remove address {address} from {device}")
        except NoSuchEntry:
            return

    def set_neighbour(self, device: IfName, address: IPAddress, mac: str) -> None:
        body = wire.pack_neighbour(interface_index(device), address, mac)
        what = f"cannot write neighbour {address} at {mac} on {device}"
        self._socket.request(wire.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def remove_neighbour(self, device: IfName, address: IPAddress) -> None:
        body = wire.pack_neighbour(interface_index(device), address, None)
        try:
            self._socket.request(wire.RTM_DELNEIGH, 0, body, f"cannot remove neighbour {address} from {device}")
        except NoSuchEntry:
            return

    def create_veth(
        self,
        name: IfName,
        peer: IfName,
        *,
        mac: str | None = None,
        peer_mac: str | None = None,
        mtu: int | None = None,
    ) -> None:
        ends = [{"ifname": end, **_set(address=own, mtu=mtu)} for end, own in ((name, mac), (peer, peer_mac))]
        _by_pyroute2(
            lambda route: route.link("add", kind="veth", **ends[0], peer=ends[1]),
            f"cannot make the veth pair {name} and {peer}",
        )

    def create_ipip(self, name: IfName) -> None:
        # by our own message: felix makes it in its own process, and pyroute2 would cost it 22 MB
        body = wire.pack_creation(name, "ipip")
        what = f"cannot make the IPIP device {name}"
        self._socket.request(wire.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)

    def delete(self, name: IfName) -> None:
        try:
            index = interface_index(name)
            _by_pyroute2(lambda route: route.link("del", index=index), f"cannot delete the interface {name}")
        except NoSuchDevice:
            return

    def move(self, name: IfName, namespace: str) -> None:
        index = interface_index(name)
        path = Path("/run/netns", namespace)
        what = f"cannot move {name} to the namespace {namespace}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise from_errno(exc.errno or 0, what) from exc
        try:
            _by_pyroute2(lambda route: route.link("set", index=index, net_ns_fd=descriptor), what)
        finally:
            os.close(descriptor)

    def _switch(self, name: IfName, *, up: bool) -> None:
        body = wire.pack_link_state(interface_index(name), up=up)
        self._socket.request(wire.RTM_NEWLINK, 0, body, f"cannot set {name} {'up' if up else 'down'}")


def _by_pyroute2(act: Callable[[Any], object], what: str) -> None:
    """Run `act` on a pyroute2 IPRoute of this namespace and translate its error."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            act(route)
    except NetlinkError as exc:
        number = int(exc.code or 0)
        raise from_errno(number, what) from exc
    except OSError as exc:
        raise from_errno(exc.errno or errno.EIO, what) from exc


def _set(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
