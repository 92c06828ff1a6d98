"""Node: a host, its addresses, its AS number (reference resources.md 2.5)."""

import ipaddress

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.names import IPInterface, NodeName

NODE_ID_ANNOTATION = "calico-docker.org/node-id"
"""The random id of the host that registered the Node: two hosts must not share a name (design section 9)."""


class NodeBGPSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "as_number": "asNumber", "ipv4_address": "ipv4Address", "ipv6_address": "ipv6Address",
        "ipv4_ipip_tunnel_addr": "ipv4IPIPTunnelAddr", "route_reflector_cluster_id": "routeReflectorClusterID",
    },
):
    as_number: int | None = None
    ipv4_address: str = ""
    """``address/length`` with host bits; a bare address means /32."""
    ipv6_address: str = ""
    ipv4_ipip_tunnel_addr: str = ""
    route_reflector_cluster_id: str = ""


class OrchRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    node_name: str = ""
    orchestrator: str


class NodeAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    address: str
    type: str = ""


class NodeInterface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    addresses: list[str] = []


class NodeWireguard(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"interface_ipv4_address": "interfaceIPv4Address", "interface_ipv6_address": "interfaceIPv6Address"},
):
    interface_ipv4_address: str = ""
    interface_ipv6_address: str = ""


class NodeSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "ipv4_vxlan_tunnel_addr": "ipv4VXLANTunnelAddr", "vxlan_tunnel_mac_addr": "vxlanTunnelMACAddr",
        "ipv6_vxlan_tunnel_addr": "ipv6VXLANTunnelAddr", "vxlan_tunnel_mac_addr_v6": "vxlanTunnelMACAddrV6",
        "orch_refs": "orchRefs",
    },
):
    bgp: NodeBGPSpec | None = None
    ipv4_vxlan_tunnel_addr: str = ""
    vxlan_tunnel_mac_addr: str = ""
    ipv6_vxlan_tunnel_addr: str = ""
    vxlan_tunnel_mac_addr_v6: str = ""
    orch_refs: list[OrchRef] = []
    wireguard: NodeWireguard | None = None
    addresses: list[NodeAddress] = []
    interfaces: list[NodeInterface] = []


class NodeStatus(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "wireguard_public_key": "wireguardPublicKey", "wireguard_public_key_v6": "wireguardPublicKeyV6",
        "pod_cidrs": "podCIDRs",
    },
):
    wireguard_public_key: str = ""
    wireguard_public_key_v6: str = ""
    pod_cidrs: list[str] = []


class Node(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def name(self) -> NodeName:
        return NodeName(self.metadata.name)

    @property
    def ipv4(self) -> ipaddress.IPv4Interface | None:
        """The node's IPv4 address with its subnet, or None."""
        text = self.spec.bgp.ipv4_address if self.spec.bgp else ""
        return ipaddress.IPv4Interface(text) if text else None

    @property
    def ipv6(self) -> ipaddress.IPv6Interface | None:
        text = self.spec.bgp.ipv6_address if self.spec.bgp else ""
        return ipaddress.IPv6Interface(text) if text else None

    def address(self, version: int) -> IPInterface | None:
        return self.ipv4 if version == 4 else self.ipv6


KIND = Kind(name="Node", plural="nodes", type=Node, aliases=("node", "nodes", "no", "nos"))
