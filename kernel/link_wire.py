"""Interfaces, addresses and neighbours as netlink messages: bytes <-> values, nothing sent.

Source: Linux include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

import ipaddress
import socket
import struct
from collections.abc import Mapping
from typing import Final

from kernel.link import Link, LinkAddress, Neighbour
from kernel.netlink import attribute, attributes, text_of
from resources.names import IfName, IPAddress, IPInterface

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBi")
_NDMSG = struct.Struct("=BxxxiHBB")
_UINT = struct.Struct("=I")

_IFF_UP = 0x1
_IFF_RUNNING = 0x40

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_EXT_MASK = 29
_IFLA_INFO_KIND = 1
_RTEXT_FILTER_SKIP_STATS = 8

_IFA_ADDRESS = 1
_IFA_LOCAL = 2

_IFA_F_TEMPORARY = 0x01
_IFA_F_NODAD = 0x02
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20

_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_IFINDEX = 8
_NUD_PERMANENT = 0x80
_RTN_UNICAST = 1


def pack_link_dump() -> bytes:
    """Return the body of an RTM_GETLINK dump without counters."""
    no_counters = attribute(_IFLA_EXT_MASK, _UINT.pack(_RTEXT_FILTER_SKIP_STATS))
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + no_counters


def pack_link_state(index: int, *, up: bool) -> bytes:
    """Return the body of an RTM_NEWLINK that switches an interface on or off."""
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP)


def pack_mtu(index: int, mtu: int) -> bytes:
    """Return the body of an RTM_NEWLINK that sets an MTU."""
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_MTU, _UINT.pack(mtu))


def pack_creation(name: IfName, kind: str) -> bytes:
    """Return the body of an RTM_NEWLINK that makes a device which needs no settings of its kind, down."""
    info = attribute(_IFLA_INFO_KIND, kind.encode())
    head = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return head + attribute(_IFLA_LINKINFO, info)


def unpack_link(body: bytes) -> Link | None:
    """Return the interface of an RTM_NEWLINK or RTM_DELLINK body; None if it is a bridge port's extra message."""
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    found = dict(attributes(body, _IFINFOMSG.size))
    if family != socket.AF_UNSPEC or _IFLA_IFNAME not in found:
        return None
    info = dict(attributes(found[_IFLA_LINKINFO])) if _IFLA_LINKINFO in found else {}
    return Link(
        index=index,
        name=IfName(text_of(found[_IFLA_IFNAME])),
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_UP and flags & _IFF_RUNNING),
        mtu=_UINT.unpack(found[_IFLA_MTU])[0] if _IFLA_MTU in found else 0,
        mac=_mac(found.get(_IFLA_ADDRESS)),
        kind=text_of(info[_IFLA_INFO_KIND]) if _IFLA_INFO_KIND in info else None,
    )


def pack_address_dump() -> bytes:
    """Return the body of an RTM_GETADDR dump of all families."""
    return _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)


def unpack_address(body: bytes, names: Mapping[int, IfName]) -> LinkAddress | None:
    """Return the address of an RTM_NEWADDR or RTM_DELADDR body; None if its interface has no name in `names`."""
    family, length, _, _, index = _IFADDRMSG.unpack_from(body)
    found = dict(attributes(body, _IFADDRMSG.size))
    # IFA_ADDRESS is the other end on a point-to-point link; IFA_LOCAL, where given, is ours
    raw = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
    if index not in names or raw is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return LinkAddress(device=names[index], address=ipaddress.ip_interface((bytes(raw), length)))


def is_fleeting(body: bytes) -> bool:
    """Return whether an RTM_NEWADDR body is of an IPv6 address that will go or is not in use.

    These are the ones made for privacy, those past their preferred life, and those that somebody else has.
    """
    family, _, flags, _, _ = _IFADDRMSG.unpack_from(body)
    return family == socket.AF_INET6 and bool(flags & (_IFA_F_TEMPORARY | _IFA_F_DEPRECATED | _IFA_F_DADFAILED))


def pack_address(index: int, address: IPInterface) -> bytes:
    """Return the body of RTM_NEWADDR and RTM_DELADDR.

    An IPv6 address is usable at once: duplicates are excluded by whoever gave it out.
    """
    family, flags = (socket.AF_INET, 0) if address.version == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    head = _IFADDRMSG.pack(family, address.network.prefixlen, flags, 0, index)
    return head + attribute(_IFA_LOCAL, address.ip.packed) + attribute(_IFA_ADDRESS, address.ip.packed)


def pack_neighbour_dump(family: int, index: int) -> bytes:
    """Return the body of an RTM_GETNEIGH dump of one family on one interface."""
    return _NDMSG.pack(family, 0, 0, 0, 0) + attribute(_NDA_IFINDEX, _UINT.pack(index))


def unpack_neighbour(body: bytes) -> tuple[int, Neighbour] | None:
    """Return interface index and entry of an RTM_NEWNEIGH or RTM_DELNEIGH body; None if it is not an IP neighbour."""
    family, index, state, _, _ = _NDMSG.unpack_from(body)
    found = dict(attributes(body, _NDMSG.size))
    if family not in (socket.AF_INET, socket.AF_INET6) or _NDA_DST not in found:
        return None
    address = ipaddress.ip_address(bytes(found[_NDA_DST]))
    return index, Neighbour(address=address, mac=_mac(found.get(_NDA_LLADDR)), permanent=bool(state & _NUD_PERMANENT))


def pack_neighbour(index: int, address: IPAddress, mac: str | None) -> bytes:
    """Return the body of RTM_NEWNEIGH for a permanent entry, or (`mac` None) of RTM_DELNEIGH."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, _RTN_UNICAST) + attribute(_NDA_DST, address.packed)
    return body if mac is None else body + attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))


def _mac(payload: memoryview | None) -> str | None:
    return bytes(payload).hex(":") if payload is not None and len(payload) == 6 else None
