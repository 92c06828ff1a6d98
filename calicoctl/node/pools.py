"""The pools that the first node of a cluster makes (reference resources.md 5.9). Pure but for the random ULA prefix."""

import ipaddress
import random
from collections.abc import Iterable, Sequence

from calicoctl.node import options as o
from resources.kinds.base import Metadata
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.names import IPNetwork
from resources.runtime.options import Settings

IPV4_NAME, IPV6_NAME = "default-ipv4-ippool", "default-ipv6-ippool"
CANDIDATES = tuple(
    ipaddress.IPv4Network(text) for text in ("192.168.0.0/16", *(f"172.{n}.0.0/16" for n in range(16, 32)))
)


def free_range(taken: Iterable[IPNetwork]) -> ipaddress.IPv4Network | None:
    """Return the first candidate that overlaps none of the networks this host knows."""
    known = [network for network in taken if isinstance(network, ipaddress.IPv4Network)]
    return next((c for c in CANDIDATES if not any(c.overlaps(network) for network in known)), None)


def random_ula(rng: random.Random) -> ipaddress.IPv6Network:
    """Return a /64 below a random /48 of fd00::/8 (RFC 4193, section 3.2)."""
    prefix = (0xFD << 120) | (rng.getrandbits(40) << 80)
    return ipaddress.IPv6Network((prefix, 64))


def default_pools(settings: Settings, taken: Sequence[IPNetwork], rng: random.Random) -> list[IPPool]:
    """Return the pools to create in a store that has none."""
    found: list[IPPool] = []
    if cidr4 := settings[o.POOL4] or free_range(taken):
        found.append(
            IPPool(
                metadata=Metadata(name=IPV4_NAME),
                spec=IPPoolSpec(
                    cidr=str(cidr4),
                    ipip_mode=_mode(settings[o.POOL4_IPIP]),
                    vxlan_mode=_mode(settings[o.POOL4_VXLAN]),
                    block_size=settings[o.POOL4_BLOCK],
                    nat_outgoing=settings[o.POOL4_NAT],
                    node_selector=settings[o.POOL4_SELECTOR],
                ),
            )
        )
    found.append(
        IPPool(
            metadata=Metadata(name=IPV6_NAME),
            spec=IPPoolSpec(
                cidr=str(settings[o.POOL6] or random_ula(rng)),
                block_size=settings[o.POOL6_BLOCK],
                nat_outgoing=settings[o.POOL6_NAT],
                node_selector=settings[o.POOL6_SELECTOR],
            ),
        )
    )
    return found


def _mode(word: str) -> str:
    return "Never" if word == "Off" else word
