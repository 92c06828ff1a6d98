"""The environment of calico-node: what Calico's container understood (reference resources.md 5.9), declared once."""

import ipaddress
from collections.abc import Callable

from resources.names import IPNetwork
from resources.runtime.options import Option, boolean, choice, integer, seconds, text


def as_number(value: str) -> int | None:
    """Parse a decimal AS number or ``hi.lo`` of 16 bits each."""
    high, dot, low = value.partition(".")
    try:
        parts = [int(part) for part in ((high, low) if dot else (high,))]
    except ValueError:
        raise ValueError("it must be an AS number such as 64512 or 1.10") from None
    limit = 0xFFFF if dot else 0xFFFFFFFF
    if not all(0 <= part <= limit for part in parts):
        raise ValueError(f"each part of an AS number is between 0 and {limit}")
    number = (parts[0] << 16) + parts[1] if dot else parts[0]
    if number == 0:
        raise ValueError("0 is no AS number (RFC 7607); leave it out to have the global one")
    return number


def network(version: int, longest: int) -> Callable[[str], IPNetwork | None]:
    """Return a parser of a pool's CIDR of one family, at most `longest` bits of prefix."""

    def parse(value: str) -> IPNetwork | None:
        try:
            parsed = ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueError(f"it must be a CIDR: {error}") from None
        if parsed.version != version or parsed.prefixlen > longest:
            raise ValueError(f"it must be an IPv{version} CIDR of at least /{longest}")
        return parsed

    return parse


ON_OFF = choice("Always", "CrossSubnet", "Never", "Off")

IP = Option(
    name="ip", keys=("IP",), parse=text, default="autodetect", example="172.16.60.215",
    help="this node's IPv4 address; autodetect: found by ip_autodetection_method; none: it has IPv6 only",
)
IP6 = Option(
    name="ip6", keys=("IP6",), parse=text, default="none", example="2001:db8::215/64",
    help="this node's IPv6 address, autodetect, or none",
)
IP_METHOD = Option(
    name="ip_autodetection_method", keys=("IP_AUTODETECTION_METHOD",), parse=text, default="first-found",
    help="first-found, can-reach=ADDRESS, interface=REGEX[,...] or skip-interface=REGEX[,...]",
)
IP6_METHOD = Option(
    name="ip6_autodetection_method", keys=("IP6_AUTODETECTION_METHOD",), parse=text, default="first-found",
    help="as ip_autodetection_method, for IPv6",
)
AS = Option(name="as", keys=("AS",), parse=as_number, default=None, help="this node's AS number, if not the global one")
BACKEND = Option(
    name="networking_backend", keys=("CALICO_NETWORKING_BACKEND",),
    parse=choice("exabgp", "bird", "gobgp", "none"), default="exabgp",
    help="exabgp, or none for no BGP on this host; bird and gobgp are taken for exabgp",
)
DRIVER = Option(
    name="libnetwork_enabled", keys=("CALICO_LIBNETWORK_ENABLED",), parse=boolean, default=True,
    help="whether to run Docker's network and IPAM driver",
)
NO_POOLS = Option(
    name="no_default_pools", keys=("NO_DEFAULT_POOLS",), parse=boolean, default=False,
    help="true: create no default pools in an empty store",
)
POOL4 = Option(
    name="ipv4pool_cidr", keys=("CALICO_IPV4POOL_CIDR",), parse=network(4, 32), default=None,
    help="CIDR of the default IPv4 pool; unset: the first of 192.168.0.0/16, 172.16.0.0/16 ... that is free here",
)
POOL4_IPIP = Option(
    name="ipv4pool_ipip", keys=("CALICO_IPV4POOL_IPIP",), parse=ON_OFF, default="Never",
    help="tunnel mode of the default IPv4 pool: Always, CrossSubnet or Never",
)
POOL4_VXLAN = Option(
    name="ipv4pool_vxlan", keys=("CALICO_IPV4POOL_VXLAN",), parse=ON_OFF, default="Never",
    help="VXLAN mode of the default IPv4 pool",
)
POOL4_BLOCK = Option(
    name="ipv4pool_block_size", keys=("CALICO_IPV4POOL_BLOCK_SIZE",), parse=integer(20, 32), default=26,
    help="prefix length of the blocks of the default IPv4 pool",
)
POOL4_NAT = Option(
    name="ipv4pool_nat_outgoing", keys=("CALICO_IPV4POOL_NAT_OUTGOING",), parse=boolean, default=True,
    help="whether containers of the default IPv4 pool reach the world by the host's address",
)
POOL4_SELECTOR = Option(
    name="ipv4pool_node_selector", keys=("CALICO_IPV4POOL_NODE_SELECTOR",), parse=text, default="all()",
    help="which nodes take addresses from the default IPv4 pool by themselves",
)
POOL6 = Option(
    name="ipv6pool_cidr", keys=("CALICO_IPV6POOL_CIDR",), parse=network(6, 128), default=None,
    help="CIDR of the default IPv6 pool; unset: a /64 of a random ULA prefix",
)
POOL6_BLOCK = Option(
    name="ipv6pool_block_size", keys=("CALICO_IPV6POOL_BLOCK_SIZE",), parse=integer(116, 128), default=122,
    help="prefix length of the blocks of the default IPv6 pool",
)
POOL6_NAT = Option(
    name="ipv6pool_nat_outgoing", keys=("CALICO_IPV6POOL_NAT_OUTGOING",), parse=boolean, default=False,
    help="whether containers of the default IPv6 pool reach the world by the host's address",
)
POOL6_SELECTOR = Option(
    name="ipv6pool_node_selector", keys=("CALICO_IPV6POOL_NODE_SELECTOR",), parse=text, default="all()",
    help="which nodes take addresses from the default IPv6 pool by themselves",
)

START_SECONDS = Option(
    name="start_seconds", keys=("CALICO_START_SECONDS",), parse=seconds(minimum=1), default=30.0, unit="s",
    help="how long node run waits for the daemons to be ready before it gives up and ends them",
)

OPTIONS = (
    IP, IP6, IP_METHOD, IP6_METHOD, AS, BACKEND, DRIVER, NO_POOLS, POOL4, POOL4_IPIP, POOL4_VXLAN, POOL4_BLOCK,
    POOL4_NAT, POOL4_SELECTOR, POOL6, POOL6_BLOCK, POOL6_NAT, POOL6_SELECTOR, START_SECONDS,
)
