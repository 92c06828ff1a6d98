"""VXLAN as data: what pools and nodes say about it, and this host's own tunnel. Pure.

Each host has one device for each address family. Who is behind which tunnel address and MAC follows from the Node
records alone, so nothing is learned from packets and no BGP is needed.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from felix.calc.mtu import VXLAN6_OVERHEAD, VXLAN_OVERHEAD
from felix.calc.parameters import Parameters
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.names import IfName, IPAddress, IPInterface, IPNetwork, NodeName, parse_address
from resources.vxlan import DEVICES, tunnel_mac

OVERHEAD: Final = {4: VXLAN_OVERHEAD, 6: VXLAN6_OVERHEAD}
"""Bytes that wrapping adds to a packet."""
A = TypeVar("A", bound=IPAddress | IPInterface)
_LOOPBACK: Final = IfName("lo")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class Mode(Enum):
    """When packets to a pool's addresses on other hosts are wrapped (reference resources.md 2.1)."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"


@dataclass(frozen=True, slots=True)
class VxlanPool:
    """Disabled pools count like others: their workloads are still there."""

    network: IPNetwork
    mode: Mode


@dataclass(frozen=True, slots=True)
class VxlanNode:
    """A host as far as tunnels care, by address family."""

    addresses: Mapping[int, IPInterface]
    """Its own addresses with their subnets."""
    tunnels: Mapping[int, IPAddress]
    macs: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FarEnd:
    """Another host's end of the tunnel."""

    host: IPAddress
    """Where wrapped packets are sent to."""
    tunnel: IPAddress
    """The next hop of routes to its blocks, and the neighbour that has the MAC."""
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """This host's end, as a device that is to be there."""

    version: int
    vni: int
    port: int
    local: IPAddress
    address: IPAddress
    mac: str
    parent: IfName | None
    """The interface that has `local`; None if that is the loopback interface, so routing finds the way."""

    @property
    def name(self) -> IfName:
        return DEVICES[self.version]


def read_pool(pool: IPPool) -> VxlanPool:
    """Return what a pool's record says.

    Raises:
        ValueError: its CIDR or its mode cannot be read.
    """
    text = pool.spec.vxlan_mode
    try:
        mode = Mode(text) if text else Mode.NEVER
    except ValueError:
        raise ValueError(f"vxlanMode is {text!r}: it is Never, Always or CrossSubnet") from None
    return VxlanPool(ipaddress.ip_network(pool.spec.cidr, strict=False), mode)


def read_node(name: NodeName, node: Node) -> VxlanNode:
    """Return what a node's record says.

    Raises:
        ValueError: an address or a MAC that is none.
    """
    spec = node.spec
    own = {version: node.address(version) for version in (4, 6)}
    tunnels = {4: spec.ipv4_vxlan_tunnel_addr, 6: spec.ipv6_vxlan_tunnel_addr}
    macs = {4: spec.vxlan_tunnel_mac_addr, 6: spec.vxlan_tunnel_mac_addr_v6}
    return VxlanNode(
        addresses={version: address for version, address in own.items() if address is not None},
        tunnels={version: _of(version, parse_address(text)) for version, text in tunnels.items() if text},
        macs={version: _mac(text) if text else tunnel_mac(name, version) for version, text in macs.items()},
    )


def own_tunnel(
    version: int, node: VxlanNode | None, interfaces: Iterable[IfName], parameters: Parameters
) -> Tunnel | str:
    """Return this host's tunnel of one family, or why there is none.

    Args:
        interfaces: those of this host that have the node's address.
    """
    local = node.addresses.get(version) if node else None
    if node is None or local is None:
        return f"this node has no IPv{version} address in the store"
    address = node.tunnels.get(version)
    if address is None:
        return f"this node has no IPv{version} VXLAN tunnel address yet (calico-node agent gives it one)"
    parent = parent_of(interfaces)
    if parent is None:
        return f"no interface of this host has its address {local.ip}"
    return Tunnel(
        version=version,
        vni=parameters.vxlan_vni,
        port=parameters.vxlan_port,
        local=local.ip,
        address=address,
        mac=node.macs[version],
        parent=None if parent == _LOOPBACK else parent,
    )


def parent_of(interfaces: Iterable[IfName]) -> IfName | None:
    """Return which of the interfaces with the node's address packets leave by: loopback if there is no other."""
    return min(interfaces, key=lambda name: (name == _LOOPBACK, name), default=None)


def _of(version: int, address: A) -> A:
    if address.version != version:
        raise ValueError(f"{address} where an IPv{version} address belongs")
    return address


def _mac(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if not _MAC.match(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(f"{text!r} cannot be the MAC of a tunnel: it is six bytes in hex, of one host")
    return mac
