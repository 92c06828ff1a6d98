"""Routes as netlink messages: bytes <-> values, nothing sent.

Source: Linux include/uapi/linux/rtnetlink.h (struct rtmsg, struct rtnexthop, RTA_*).
"""

import ipaddress
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Final

from kernel.netlink import attribute, attributes
from kernel.route import NextHop, Route, RouteKey, RouteKind, Scope
from resources.names import IfName, IPAddress, IPNetwork
from resources.networks import key_network_at

RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
TABLE_MAIN: Final = 254

_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_INT = struct.Struct("=i")
_UINT = struct.Struct("=I")
_VIA = struct.Struct("=H")

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTA_VIA = 18

_ROUTE_ATTRIBUTES = (_RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_VIA)
"""Those that make a route what it is; the others make its key, or do not matter to us."""

_RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200

_KINDS = frozenset(RouteKind)
_SCOPES = frozenset(Scope)

IndexOf = Callable[[IfName], int]
"""Interface name -> kernel index."""


def family_of(network: IPNetwork | IPAddress) -> int:
    """Return the socket family of an address or network."""
    return socket.AF_INET if network.version == 4 else socket.AF_INET6


class Packer:
    """Values -> bodies of route messages. A route that is given for many keys is packed once.

    For one writing: it keeps the interface numbers that it was told.
    """

    def __init__(self, index_of: IndexOf) -> None:
        self._index_of = index_of
        # each route is kept with its bytes, so that its identity is not another's meanwhile
        self._ends: dict[tuple[int, int], tuple[Route, int, bytes]] = {}
        self._devices: dict[int, tuple[Route, bytes]] = {}

    def written(self, key: RouteKey, route: Route) -> bytes:
        """Return the body of RTM_NEWROUTE.

        Raises:
            NoSuchDevice: an interface of the route is not there.
        """
        version = key.destination.version
        known = self._ends.get((id(route), version))
        if known is None:
            hops = route.next_hops
            flags = _RTNH_F_ONLINK if len(hops) == 1 and hops[0].onlink else 0
            known = self._ends[id(route), version] = route, flags, self._end(route, version)
        _, flags, end = known
        return _start(key, route.protocol, route.scope or 0, route.kind, flags) + end

    def _end(self, route: Route, version: int) -> bytes:
        hops = route.next_hops
        parts = [] if route.source is None else [attribute(_RTA_PREFSRC, route.source.packed)]
        if len(hops) == 1:
            parts += _hop_attributes(hops[0], version)
            parts.append(self._device(route))
        elif hops:
            parts.append(attribute(_RTA_MULTIPATH, b"".join(_pack_hop(h, version, self._index_of) for h in hops)))
        return b"".join(parts)

    def deleted(self, key: RouteKey, route: Route) -> bytes:
        """Return the body of RTM_DELROUTE for the route of this key, protocol and (if it has one) device.

        The rest are wildcards: scope nowhere, kind 0 (reference felix.md 2.4). Without the protocol an IPv4 deletion
        with metric 0 would take a foreign route of any metric.

        Raises:
            NoSuchDevice: the interface of the route is not there.
        """
        known = self._devices.get(id(route))
        if known is None:
            known = self._devices[id(route)] = route, self._device(route)
        return _start(key, route.protocol, Scope.NOWHERE, 0, 0) + known[1]

    def _device(self, route: Route) -> bytes:
        if len(route.next_hops) != 1 or route.next_hops[0].device is None:
            return b""
        return attribute(_RTA_OIF, _INT.pack(self._index_of(route.next_hops[0].device)))


def pack_dump(family: int, protocol: int | None) -> bytes:
    """Return the body of an RTM_GETROUTE dump of table main; the kernel filters by protocol."""
    return _RTMSG.pack(family, 0, 0, 0, TABLE_MAIN, protocol or 0, 0, 0, 0)


def pack_lookup(address: IPAddress) -> bytes:
    """Return the body of an RTM_GETROUTE question for the way to one address."""
    head = _RTMSG.pack(family_of(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return head + attribute(_RTA_DST, address.packed)


class Decoder:
    """Bodies of route messages -> values. Equal routes of one decoder are one object: a table of thousands has few.

    For one reading of a table: it keeps the interface names it is given.
    """

    def __init__(self, names: Mapping[int, IfName]) -> None:
        """`names`: index -> name of the interfaces of this namespace."""
        self._names = names
        self._seen: dict[tuple[object, ...], Route | None] = {}

    def entry(self, body: bytes) -> tuple[RouteKey, Route] | None:
        """Return key and route of an RTM_NEWROUTE or RTM_DELROUTE body.

        None if it is not of table main, not of type of service 0, a cache entry, of an unknown kind, or on an interface
        without a known name, which means that the interface is on its way out.
        """
        family, length, _, tos, table, _, _, _, flags = _RTMSG.unpack_from(body)
        found = dict(attributes(body, _RTMSG.size))
        if _RTA_TABLE in found:
            (table,) = _UINT.unpack(found[_RTA_TABLE])
        if table != TABLE_MAIN or tos or flags & _RTM_F_CLONED or family not in (socket.AF_INET, socket.AF_INET6):
            return None
        route = self._route(body, found)
        if route is None:
            return None
        destination = found.get(_RTA_DST)
        (metric,) = _UINT.unpack(found[_RTA_PRIORITY]) if _RTA_PRIORITY in found else (0,)
        raw = int.from_bytes(destination, "big") if destination is not None else 0
        return RouteKey(key_network_at(4 if family == socket.AF_INET else 6, raw, length), metric), route

    def route(self, body: bytes) -> Route | None:
        """Return only the route, of whichever table (the answer to `pack_lookup`)."""
        return self._route(body, dict(attributes(body, _RTMSG.size)))

    def _route(self, body: bytes, found: Mapping[int, memoryview]) -> Route | None:
        identity = (
            body[0],
            *body[5:12],
            *(bytes(found[kind]) if kind in found else None for kind in _ROUTE_ATTRIBUTES),
        )
        if identity not in self._seen:
            self._seen[identity] = _unpack_route(body, found, self._names)
        return self._seen[identity]


def _start(key: RouteKey, protocol: int, scope: int, kind: int, flags: int) -> bytes:
    """Return what a body begins with: the header, and the attributes that are the key."""
    destination = key.destination
    length = destination.prefixlen
    start = _RTMSG.pack(family_of(destination), length, 0, 0, TABLE_MAIN, protocol, scope, kind, flags)
    if length:
        start += attribute(_RTA_DST, destination.network_address.packed)
    if key.metric:
        start += attribute(_RTA_PRIORITY, _UINT.pack(key.metric))
    return start


def _hop_attributes(hop: NextHop, version: int) -> list[bytes]:
    if hop.gateway is None:
        return []
    if hop.gateway.version == version:
        return [attribute(_RTA_GATEWAY, hop.gateway.packed)]
    return [attribute(_RTA_VIA, _VIA.pack(family_of(hop.gateway)) + hop.gateway.packed)]


def _pack_hop(hop: NextHop, version: int, index_of: IndexOf) -> bytes:
    nested = b"".join(_hop_attributes(hop, version))
    index = index_of(hop.device) if hop.device is not None else 0
    flags = _RTNH_F_ONLINK if hop.onlink else 0
    return _NEXT_HOP.pack(_NEXT_HOP.size + len(nested), flags, hop.weight - 1, index) + nested


def _unpack_route(body: bytes, found: Mapping[int, memoryview], names: Mapping[int, IfName]) -> Route | None:
    family, _, _, _, _, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    if kind not in _KINDS:
        return None
    hops: tuple[NextHop, ...] | None = ()
    if RouteKind(kind).has_next_hops:
        if _RTA_MULTIPATH in found:
            hops = _unpack_hops(found[_RTA_MULTIPATH], names)
        else:
            (index,) = _INT.unpack(found[_RTA_OIF]) if _RTA_OIF in found else (0,)
            hop = _unpack_hop(found, index, flags, 0, names)
            hops = None if hop is None else (hop,)
    if hops is None:
        return None
    source = ipaddress.ip_address(bytes(found[_RTA_PREFSRC])) if _RTA_PREFSRC in found else None
    return Route(
        protocol=protocol,
        kind=RouteKind(kind),
        next_hops=hops,
        scope=Scope(scope) if family == socket.AF_INET and scope in _SCOPES else None,
        source=source,
    )


def _unpack_hops(data: memoryview, names: Mapping[int, IfName]) -> tuple[NextHop, ...] | None:
    hops: list[NextHop] = []
    offset = 0
    while offset + _NEXT_HOP.size <= len(data):
        length, flags, more, index = _NEXT_HOP.unpack_from(data, offset)
        if length < _NEXT_HOP.size:
            break
        nested = dict(attributes(data[offset + _NEXT_HOP.size : offset + length]))
        hop = _unpack_hop(nested, index, flags, more, names)
        if hop is None:
            return None
        hops.append(hop)
        offset += (length + 3) & ~3
    return tuple(hops)


def _unpack_hop(
    found: Mapping[int, memoryview], index: int, flags: int, more: int, names: Mapping[int, IfName]
) -> NextHop | None:
    gateway: IPAddress | None = None
    if _RTA_GATEWAY in found:
        gateway = ipaddress.ip_address(bytes(found[_RTA_GATEWAY]))
    elif _RTA_VIA in found:
        gateway = ipaddress.ip_address(bytes(found[_RTA_VIA][_VIA.size :]))
    if index and index not in names:
        return None
    device = names[index] if index else None
    return NextHop(gateway=gateway, device=device, onlink=bool(flags & _RTNH_F_ONLINK), weight=more + 1)
