"""Network interfaces, their addresses and neighbours as values."""

from dataclasses import dataclass
from ipaddress import IPv6Address

from resources.names import IfName, IPAddress, IPInterface


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface as the kernel has it now."""

    index: int
    name: IfName
    up: bool
    """Switched on by the administrator (IFF_UP)."""
    running: bool
    """Able to carry packets: up, with a carrier (IFF_RUNNING). For a veth: both ends are up."""
    mtu: int
    mac: str | None = None
    """``ee:ee:ee:ee:ee:ee``, lower case; None where there is none (tunnels)."""
    kind: str | None = None
    """veth, bridge, vxlan, ipip ...; None for hardware and loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An entry of the neighbour table (ARP, ND) of one interface."""

    address: IPAddress
    mac: str | None
    """None while it is not resolved."""
    permanent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingEntry:
    """Which host has a MAC, as a VXLAN device is told."""

    mac: str
    remote: IPAddress | None
    """None: not simply a host, but another port, VNI or interface than the device's, or a nexthop group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """An address of an interface."""

    device: IfName
    address: IPInterface


def link_local_of(mac: str) -> IPv6Address:
    """Return the link-local address that the kernel makes from a MAC. Source: RFC 4291, appendix A."""
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return IPv6Address(bytes.fromhex("fe80") + bytes(6) + identifier)
