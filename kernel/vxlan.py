"""VXLAN devices and whom they send to: make them, read them, tell them which host is behind which MAC.

All by our own netlink messages: felix does this in its own process, and pyroute2 would cost it 22 MB.
What else a device needs (up, MTU, addresses, neighbours) is `kernel.links`.
"""

import errno
import socket
from dataclasses import dataclass
from typing import Protocol

from kernel import link_wire, vxlan_wire
from kernel.errors import AlreadyThere, NoSuchDevice, NoSuchEntry
from kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket
from kernel.routes import interface_index
from resources.names import IfName, IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanDevice:
    """What makes one VXLAN device another one than the next: none of this is changed in place."""

    name: IfName
    mac: str
    vni: int
    port: int
    """UDP, where it listens and where it sends to."""
    local: IPAddress | None
    """Where its packets come from; None, which only others make: routing says."""
    parent: IfName | None = None
    """The interface that its packets leave by; None: routing finds one."""
    learns: bool = False
    """Whether it takes the sender of any packet for a way to the packet's inner MAC."""


class VxlanKernel(Protocol):
    """The VXLAN devices of one network namespace. Every method but `read` and `delete` raises NoSuchDevice."""

    def read(self, name: IfName) -> VxlanDevice | None:
        """Return the device of a name, or None if there is no interface of that name.

        Raises:
            AlreadyThere: the name is that of another kind of interface.
        """

    def create(self, device: VxlanDevice, mtu: int) -> None:
        """Make a device, down.

        Raises:
            AlreadyThere: the name is taken, or the VNI on this port; nothing was made.
            NotSupported: this kernel has no VXLAN.
            NoSuchDevice: there is no such parent.
        """

    def delete(self, name: IfName) -> None:
        """Delete a VXLAN device, its routes, neighbours and entries with it; absent is done.

        Raises:
            AlreadyThere: the name is that of another kind of interface, which stays.
        """

    def entries(self, name: IfName) -> dict[str, IPAddress | None]:
        """Return the forwarding entries: which host has each MAC; None only by others (see `ForwardingEntry`)."""

    def set_entry(self, name: IfName, mac: str, remote: IPAddress) -> None:
        """Write a permanent forwarding entry over whatever leads to a host there for the MAC."""

    def remove_entry(self, name: IfName, mac: str) -> None:
        """Remove a forwarding entry; absent is done."""


class NetlinkVxlan:
    """VxlanKernel on rtnetlink, in the namespace of the thread that makes it and calls it."""

    def __init__(self) -> None:
        self._socket = Socket(socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._socket.close()

    def read(self, name: IfName) -> VxlanDevice | None:
        found = self._find(name)
        if found is None:
            return None
        return VxlanDevice(
            name=name,
            mac=found.mac or "",
            vni=found.vni,
            port=found.port,
            local=found.local,
            parent=_name_of(found.parent),
            learns=found.learns,
        )

    def create(self, device: VxlanDevice, mtu: int) -> None:
        body = vxlan_wire.pack_creation(
            name=device.name,
            mac=device.mac,
            mtu=mtu,
            vni=device.vni,
            port=device.port,
            local=device.local,
            parent=interface_index(device.parent) if device.parent is not None else 0,
        )
        what = f"cannot make the VXLAN device {device.name} (VNI {device.vni}, port {device.port}, from {device.local})"
        try:
            self._socket.request(link_wire.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)
        except AlreadyThere as error:
            hint = f"see whether another device has VNI {device.vni} on port {device.port}: ip -d link show type vxlan"
            raise AlreadyThere(str(error), errno=error.errno, hint=hint) from error

    def delete(self, name: IfName) -> None:
        found = self._find(name)
        if found is None:
            return
        try:
            body = vxlan_wire.pack_deletion(found.index)
            self._socket.request(link_wire.RTM_DELLINK, 0, body, f"cannot delete the interface {name}")
        except NoSuchDevice:
            return

    def entries(self, name: IfName) -> dict[str, IPAddress | None]:
        index = interface_index(name)
        what = f"cannot list the forwarding entries of {name}"
        bodies = self._socket.dump(link_wire.RTM_GETNEIGH, vxlan_wire.pack_entry_dump(index), what)
        found = (vxlan_wire.unpack_entry(body) for _, body in bodies)
        return {entry[1].mac: entry[1].remote for entry in found if entry is not None and entry[0] == index}

    def set_entry(self, name: IfName, mac: str, remote: IPAddress) -> None:
        body = vxlan_wire.pack_entry(interface_index(name), mac, remote)
        what = f"cannot write the forwarding entry for {mac} to {remote} on {name}"
        self._socket.request(link_wire.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def remove_entry(self, name: IfName, mac: str) -> None:
        body = vxlan_wire.pack_entry(interface_index(name), mac, None)
        try:
            what = f"cannot remove the forwarding entry for {mac} on {name}"
            self._socket.request(link_wire.RTM_DELNEIGH, 0, body, what)
        except NoSuchEntry:
            return

    def _find(self, name: IfName) -> vxlan_wire.VxlanLink | None:
        try:
            question = vxlan_wire.pack_question(name)
            _, body = self._socket.ask(link_wire.RTM_GETLINK, question, f"cannot read the interface {name}")
        except NoSuchDevice:
            return None
        found = vxlan_wire.unpack_device(body)
        if isinstance(found, str):
            raise another_kind(name, found)
        return found


def another_kind(name: IfName, kind: str) -> AlreadyThere:
    """Return the error that the name of a device is taken by an interface of another kind."""
    return AlreadyThere(
        f"{name} is no VXLAN device but of kind {kind or 'hardware'}, and stays",
        errno=errno.EEXIST,
        hint=f"remove or rename it: ip link del {name}",
    )


def _name_of(index: int) -> IfName | None:
    if not index:
        return None
    try:
        return IfName(socket.if_indextoname(index))
    except OSError:
        return None
