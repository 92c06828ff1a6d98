"""Routes as values. The table is always main and the type of service 0; see kernel.routes for reading and writing.

The numbers are the kernel's: Linux include/uapi/linux/rtnetlink.h.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from resources.names import IfName, IPAddress, IPNetwork

PROTOCOL_KERNEL: Final = 2
PROTOCOL_BOOT: Final = 3
PROTOCOL_STATIC: Final = 4
PROTOCOL_RA: Final = 9
"""From router advertisements that the kernel took."""
PROTOCOL_FELIX: Final = 80
PROTOCOL_BGPD: Final = 81

LAST_RESORT_METRIC: Final = (1 << 32) - 1
"""Of a route that stands for a prefix only while nobody has another one there (adr/0032)."""

_IPV6_METRIC: Final = 1024
"""What the kernel writes for an IPv6 route without a metric."""


class RouteKind(IntEnum):
    """What happens to a packet (RTN_*)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9

    @property
    def has_next_hops(self) -> bool:
        """False for the kinds that end a packet's way here; the kernel keeps no device for them."""
        return self < RouteKind.BLACKHOLE


class Scope(IntEnum):
    """How far the destination is (RT_SCOPE_*). Means something in IPv4 only."""

    UNIVERSE = 0
    SITE = 200
    LINK = 253
    HOST = 254
    NOWHERE = 255


@dataclass(frozen=True, slots=True)
class RouteKey:
    """What the kernel tells routes of one table apart by.

    An IPv6 route without a metric has 1024: this is what the kernel makes of 0.
    """

    destination: IPNetwork
    metric: int = 0
    _hash: int = field(init=False, repr=False, compare=False)
    """Kept: a route passes a dozen tables under its key."""

    def __post_init__(self) -> None:
        if self.metric == 0 and self.destination.version == 6:
            object.__setattr__(self, "metric", _IPV6_METRIC)
        object.__setattr__(self, "_hash", hash((self.destination, self.metric)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def order(self) -> tuple[int, int, int, int]:
        """For sorting by address."""
        destination = self.destination
        return destination.version, int(destination.network_address), destination.prefixlen, self.metric

    def __str__(self) -> str:
        plain = self.metric == (_IPV6_METRIC if self.destination.version == 6 else 0)
        return str(self.destination) if plain else f"{self.destination} metric {self.metric}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """One way on: through a gateway, or straight to a device."""

    gateway: IPAddress | None = None
    device: IfName | None = None
    """None: the kernel finds the device of the gateway. A route that is read back always names it, so a route that is
    to be compared with the kernel's needs it too."""
    onlink: bool = False
    """Take the gateway as a neighbour on `device` even if no network there contains it (tunnels)."""
    weight: int = 1
    """1 to 256, share of the flows among several next hops."""


def _order(hop: NextHop) -> tuple[int, int, str, bool, int]:
    gateway = hop.gateway
    return (gateway.version if gateway else 0, int(gateway or 0), hop.device or "", hop.onlink, hop.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where packets to a destination go, in one normal form, so that equal routes are equal values.

    Next hops are sorted, and one alone has no weight; kinds without next hops have none; the scope follows from the
    rest when not given.
    """

    protocol: int
    """Who wrote it: the mark of ownership (reference felix.md 2.5)."""
    kind: RouteKind = RouteKind.UNICAST
    next_hops: tuple[NextHop, ...] = ()
    scope: Scope | None = None
    source: IPAddress | None = None
    """Preferred source address of packets from this host."""

    def __post_init__(self) -> None:
        hops = tuple(sorted(self.next_hops, key=_order)) if self.kind.has_next_hops else ()
        if len(hops) == 1 and hops[0].weight != 1:
            hops = (replace(hops[0], weight=1),)
        object.__setattr__(self, "next_hops", hops)
        if self.scope is None:
            object.__setattr__(self, "scope", self._natural_scope())

    def _natural_scope(self) -> Scope:
        if self.kind is RouteKind.LOCAL:
            return Scope.HOST
        if self.next_hops and all(hop.gateway is None for hop in self.next_hops):
            return Scope.LINK
        return Scope.UNIVERSE

    @classmethod
    def on(cls, device: IfName, *, protocol: int, source: IPAddress | None = None) -> "Route":
        """Return a route to a neighbour on `device` (scope link)."""
        return cls(protocol=protocol, next_hops=(NextHop(device=device),), source=source)

    @classmethod
    def via(cls, gateway: IPAddress, device: IfName | None = None, *, protocol: int, onlink: bool = False) -> "Route":
        """Return a route through one gateway."""
        return cls(protocol=protocol, next_hops=(NextHop(gateway=gateway, device=device, onlink=onlink),))

    @classmethod
    def multipath(cls, next_hops: Iterable[NextHop], *, protocol: int) -> "Route":
        """Return a route whose flows are spread over several next hops."""
        return cls(protocol=protocol, next_hops=tuple(next_hops))

    @classmethod
    def blackhole(cls, *, protocol: int) -> "Route":
        """Return a route that drops silently."""
        return cls(protocol=protocol, kind=RouteKind.BLACKHOLE)

    @classmethod
    def unreachable(cls, *, protocol: int) -> "Route":
        """Return a route that drops and says so to the sender."""
        return cls(protocol=protocol, kind=RouteKind.UNREACHABLE)

    @property
    def devices(self) -> frozenset[IfName]:
        """The interfaces it leaves by."""
        return frozenset(hop.device for hop in self.next_hops if hop.device is not None)

    def __str__(self) -> str:
        return " ".join([*self._words(), f"proto {self.protocol}"])

    def _words(self) -> Iterable[str]:
        if self.kind is not RouteKind.UNICAST:
            yield self.kind.name.lower()
        for hop in self.next_hops:
            if len(self.next_hops) > 1:
                yield "nexthop"
            if hop.gateway is not None:
                yield f"via {hop.gateway}"
            if hop.device is not None:
                yield f"dev {hop.device}"
            if hop.onlink:
                yield "onlink"
        if self.source is not None:
            yield f"src {self.source}"


DEFAULT_IPV4: Final = ipaddress.IPv4Network("0.0.0.0/0")
DEFAULT_IPV6: Final = ipaddress.IPv6Network("::/0")
