"""How large packets may be: of the host's links, of each tunnel, of the workloads (reference felix.md 2.7). Pure.

A tunnel puts headers around each packet, so what goes into it must be smaller than the link that the result leaves by:
by 20 bytes for IPIP (an IPv4 header), 50 for VXLAN over IPv4 (IPv4 20, UDP 8, VXLAN 8, Ethernet 14), 70 over IPv6.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kernel.link import Link
from resources.names import IfName

IPIP_OVERHEAD, VXLAN_OVERHEAD, VXLAN6_OVERHEAD = 20, 50, 70
DEFAULT_MTU = 1500
"""Where the host has no link that could lead to other hosts."""
LEAST_MTU = 576
"""What every IPv4 host takes; a link that says less is not believed."""
DEFAULT_PATTERN = re.compile(r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)")
"""Names of interfaces that lead to other hosts, as the original has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mtus:
    """Greatest sizes of IP packets in bytes: on the way to other hosts as they are, and inside each tunnel."""

    host: int = DEFAULT_MTU
    ipip: int = DEFAULT_MTU - IPIP_OVERHEAD
    vxlan: int = DEFAULT_MTU - VXLAN_OVERHEAD
    vxlan_v6: int = DEFAULT_MTU - VXLAN6_OVERHEAD


def host_mtu(links: Mapping[IfName, Link], pattern: re.Pattern[str], carriers: Collection[IfName] = ()) -> int | None:
    """Return the least MTU of the links that lead to other hosts, or None if there is no such link.

    Args:
        pattern: what their names match, from the beginning.
        carriers: the interfaces that have this node's own addresses; they count whatever they are called (a bond, a
            VLAN, a bridge).
    """
    found = [
        link.mtu
        for name, link in links.items()
        if link.up and link.mtu >= LEAST_MTU and (name in carriers or pattern.match(name))
    ]
    return min(found, default=None)


def mtus(host: int | None, *, ipip: int = 0, vxlan: int = 0, vxlan_v6: int = 0) -> Mtus:
    """Return all sizes for a host's link MTU (None: not known); the others are settings, 0 for automatic."""
    link = DEFAULT_MTU if host is None else host
    return Mtus(
        host=link,
        ipip=ipip or link - IPIP_OVERHEAD,
        vxlan=min(vxlan or link, link - VXLAN_OVERHEAD),  # the kernel takes no more
        vxlan_v6=min(vxlan_v6 or link, link - VXLAN6_OVERHEAD),
    )


def workload_mtu(sizes: Mtus, *, ipip: bool, vxlan: bool = False, vxlan_v6: bool = False) -> int:
    """Return the MTU for the interfaces of workloads: the least of the tunnels in use, without any the host's.

    One size for all workloads: each may talk to one behind a tunnel, whatever pool its own address is from.
    """
    used = ((ipip, sizes.ipip), (vxlan, sizes.vxlan), (vxlan_v6, sizes.vxlan_v6))
    return min((size for is_used, size in used if is_used), default=sizes.host)
