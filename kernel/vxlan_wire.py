"""VXLAN devices and their forwarding entries as netlink messages: bytes <-> values, nothing sent.

Source: Linux include/uapi/linux/{if_link,neighbour}.h.
"""

import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from kernel.link import ForwardingEntry
from kernel.netlink import attribute, attributes, text_of
from resources.names import IfName, IPAddress

KIND: Final = "vxlan"

_IFINFOMSG = struct.Struct("=BxHiII")
_NDMSG = struct.Struct("=BxxxiHBB")
_UINT = struct.Struct("=I")
_PORT = struct.Struct("!H")

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2

_VXLAN_ID = 1
_VXLAN_LINK = 3
_VXLAN_LOCAL = 4
_VXLAN_LEARNING = 7
_VXLAN_PORT = 15
_VXLAN_LOCAL6 = 17

_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_PORT = 6
_NDA_VNI = 7
_NDA_IFINDEX = 8
_NDA_NH_ID = 13
_ODD = frozenset({_NDA_PORT, _NDA_VNI, _NDA_IFINDEX, _NDA_NH_ID})
"""The kernel tells these of an entry only where they are not the device's."""
_NUD_PERMANENT = 0x80
_NTF_SELF = 0x02
_NESTED = 0x8000


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanLink:
    """A VXLAN device as the kernel has it, with indices where people use names."""

    index: int
    mac: str | None
    vni: int
    port: int
    local: IPAddress | None
    parent: int
    """Index of the interface that its packets leave by; 0: routing finds one."""
    learns: bool


def pack_creation(
    *, name: IfName, mac: str, mtu: int, vni: int, port: int, local: IPAddress | None, parent: int
) -> bytes:
    """Return the body of an RTM_NEWLINK that makes a device, down, which learns no MACs by itself."""
    data = [
        attribute(_VXLAN_ID, _UINT.pack(vni)),
        attribute(_VXLAN_LEARNING, b"\0"),
        attribute(_VXLAN_PORT, _PORT.pack(port)),
    ]
    if local is not None:
        data.append(attribute(_VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6, local.packed))
    if parent:
        data.append(attribute(_VXLAN_LINK, _UINT.pack(parent)))
    info = attribute(_IFLA_INFO_KIND, KIND.encode()) + attribute(_IFLA_INFO_DATA | _NESTED, b"".join(data))
    return b"".join(
        [
            _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            attribute(_IFLA_IFNAME, name.encode() + b"\0"),
            attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))),
            attribute(_IFLA_MTU, _UINT.pack(mtu)),
            attribute(_IFLA_LINKINFO | _NESTED, info),
        ]
    )


def pack_question(name: IfName) -> bytes:
    """Return the body of an RTM_GETLINK for one interface."""
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")


def pack_deletion(index: int) -> bytes:
    """Return the body of an RTM_DELLINK."""
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)


def unpack_device(body: bytes) -> VxlanLink | str:
    """Return the device of an RTM_NEWLINK body; of another kind of interface the name of the kind ("" for hardware)."""
    _, _, index, _, _ = _IFINFOMSG.unpack_from(body)
    found = dict(attributes(body, _IFINFOMSG.size))
    info = dict(attributes(found[_IFLA_LINKINFO])) if _IFLA_LINKINFO in found else {}
    kind = text_of(info[_IFLA_INFO_KIND]) if _IFLA_INFO_KIND in info else ""
    if kind != KIND:
        return kind
    data = dict(attributes(info[_IFLA_INFO_DATA])) if _IFLA_INFO_DATA in info else {}
    local = data.get(_VXLAN_LOCAL, data.get(_VXLAN_LOCAL6))
    mac = found.get(_IFLA_ADDRESS)
    return VxlanLink(
        index=index,
        mac=bytes(mac).hex(":") if mac is not None and len(mac) == 6 else None,
        vni=_UINT.unpack(data[_VXLAN_ID])[0] if _VXLAN_ID in data else 0,
        port=_PORT.unpack(data[_VXLAN_PORT])[0] if _VXLAN_PORT in data else 0,
        local=ipaddress.ip_address(bytes(local)) if local is not None else None,
        parent=_UINT.unpack(data[_VXLAN_LINK])[0] if _VXLAN_LINK in data else 0,
        learns=_VXLAN_LEARNING in data and bytes(data[_VXLAN_LEARNING]) != b"\0",
    )


def pack_entry(index: int, mac: str, remote: IPAddress | None) -> bytes:
    """Return the body of an RTM_NEWNEIGH for a permanent forwarding entry, or (no `remote`) of an RTM_DELNEIGH."""
    head = _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    body = head + attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return body if remote is None else body + attribute(_NDA_DST, remote.packed)


def pack_entry_dump(index: int) -> bytes:
    """Return the body of an RTM_GETNEIGH dump of the forwarding entries of one device."""
    return _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + attribute(_NDA_IFINDEX, _UINT.pack(index))


def unpack_entry(body: bytes) -> tuple[int, ForwardingEntry] | None:
    """Return interface index and entry of an RTM_NEWNEIGH or RTM_DELNEIGH body; None if it leads to nowhere else."""
    family, index, _, _, _ = _NDMSG.unpack_from(body)
    found = dict(attributes(body, _NDMSG.size))
    is_odd = not _ODD.isdisjoint(found)
    if family != socket.AF_BRIDGE or len(found.get(_NDA_LLADDR, b"")) != 6 or not (is_odd or _NDA_DST in found):
        return None
    remote = None if is_odd else ipaddress.ip_address(bytes(found[_NDA_DST]))
    return index, ForwardingEntry(mac=bytes(found[_NDA_LLADDR]).hex(":"), remote=remote)
