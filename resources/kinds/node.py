"""Node: a host, its addresses, its AS number (reference resources.md 2.5)."""

import base64
import binascii
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from resources.kinds import fields, rule_v1
from resources.kinds.base import ASN, V1, Column, Kind, Metadata, Path, Problem, View, name_cell, wire
from resources.kinds.naming import node_name
from resources.names import IPAddress, IPInterface, NodeName, parse_interface

NODE_ID_ANNOTATION = "calico-docker.org/node-id"
"""The random id of the host that registered the Node: two hosts must not share a name (design section 9)."""

ADDRESS_TYPES = ("CalicoNodeIP", "InternalIP", "ExternalIP")


class NodeBGPSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        ipv4_ipip_tunnel_addr="ipv4IPIPTunnelAddr", route_reflector_cluster_id="routeReflectorClusterID"
    ),
):
    as_number: ASN | None = None
    ipv4_address: str = ""
    """``address/length`` with host bits; a bare address means /32."""
    ipv6_address: str = ""
    ipv4_ipip_tunnel_addr: str = ""
    route_reflector_cluster_id: str = ""


class OrchRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
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
    rename=wire(interface_ipv4_address="interfaceIPv4Address", interface_ipv6_address="interfaceIPv6Address"),
):
    interface_ipv4_address: str = ""
    interface_ipv6_address: str = ""


class NodeSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        ipv4_vxlan_tunnel_addr="ipv4VXLANTunnelAddr", vxlan_tunnel_mac_addr="vxlanTunnelMACAddr",
        ipv6_vxlan_tunnel_addr="ipv6VXLANTunnelAddr", vxlan_tunnel_mac_addr_v6="vxlanTunnelMACAddrV6",
    ),
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
    rename=wire(pod_cidrs="podCIDRs"),
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
        return _ipv4(text) if text else None

    @property
    def ipv6(self) -> ipaddress.IPv6Interface | None:
        text = self.spec.bgp.ipv6_address if self.spec.bgp else ""
        return ipaddress.IPv6Interface(text) if text else None

    def address(self, version: int) -> IPInterface | None:
        return self.ipv4 if version == 4 else self.ipv6

    @property
    def tunnel_addresses(self) -> tuple[IPAddress, ...]:
        """What the host itself has out of pools, for its tunnels; what cannot be read is left out."""
        ipip = self.spec.bgp.ipv4_ipip_tunnel_addr if self.spec.bgp else ""
        found = []
        for text in (ipip, self.spec.ipv4_vxlan_tunnel_addr, self.spec.ipv6_vxlan_tunnel_addr):
            with suppress(ValueError):
                found.append(ipaddress.ip_address(text))
        return tuple(found)


def peer_address_fault(address: IPAddress) -> str | None:
    """Return why others cannot speak BGP to a node at `address`, or None."""
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return f"{address} cannot be a node's address"
    return None


def _ipv4(text: str) -> ipaddress.IPv4Interface:
    """Parse an IPv4 address, also one that was stored as IPv4-mapped IPv6 (reference resources.md 9)."""
    if ":" not in text:
        return ipaddress.IPv4Interface(text)
    mapped = ipaddress.IPv6Interface(text)
    if mapped.ip.ipv4_mapped is None or mapped.network.prefixlen < 96:
        raise ValueError(f"{text} is no IPv4 address")
    return ipaddress.IPv4Interface(f"{mapped.ip.ipv4_mapped}/{mapped.network.prefixlen - 96}")


def _check(node: Node) -> Iterable[Problem]:
    spec = node.spec
    if spec.bgp is not None:
        yield from _bgp_problems(("spec", "bgp"), spec.bgp)
    yield from fields.address(("spec", "ipv4VXLANTunnelAddr"), spec.ipv4_vxlan_tunnel_addr, 4)
    yield from fields.address(("spec", "ipv6VXLANTunnelAddr"), spec.ipv6_vxlan_tunnel_addr, 6)
    yield from fields.mac(("spec", "vxlanTunnelMACAddr"), spec.vxlan_tunnel_mac_addr)
    yield from fields.mac(("spec", "vxlanTunnelMACAddrV6"), spec.vxlan_tunnel_mac_addr_v6)
    for index, ref in enumerate(spec.orch_refs):
        if not ref.orchestrator:
            yield Problem(("spec", "orchRefs", index, "orchestrator"), "", "must be set")
    if spec.wireguard is not None:
        at: Path = ("spec", "wireguard")
        yield from fields.address((*at, "interfaceIPv4Address"), spec.wireguard.interface_ipv4_address, 4)
        yield from fields.address((*at, "interfaceIPv6Address"), spec.wireguard.interface_ipv6_address, 6)
    for index, address in enumerate(spec.addresses):
        at = ("spec", "addresses", index)
        yield from _required((*at, "address"), address.address)
        yield from fields.cidr((*at, "address"), address.address)
        yield from fields.one_of((*at, "type"), address.type, ADDRESS_TYPES)
    for index, interface in enumerate(spec.interfaces):
        at = ("spec", "interfaces", index)
        yield from fields.interface((*at, "name"), interface.name)
        for place, text in enumerate(interface.addresses):
            yield from _required((*at, "addresses", place), text)
            yield from fields.cidr((*at, "addresses", place), text)
    yield from _status_problems(node.status)


def _required(path: Path, text: str) -> Iterator[Problem]:
    if not text:
        yield Problem(path, "", "must be an IP address/length")


def _bgp_problems(path: Path, bgp: NodeBGPSpec) -> Iterator[Problem]:
    if bgp == NodeBGPSpec():
        yield Problem(path, "", "Spec.BGP should not be empty", "leave 'bgp' out, or give it an ipv4Address")
    if bgp.as_number is not None:
        yield from fields.as_number((*path, "asNumber"), bgp.as_number)
    for name, text, version in (("ipv4Address", bgp.ipv4_address, 4), ("ipv6Address", bgp.ipv6_address, 6)):
        found = list(fields.cidr((*path, name), text, version))
        yield from found
        if text and not found and (fault := peer_address_fault(parse_interface(text).ip)):
            yield Problem((*path, name), text, fault, "BGP leaves this address out", warning=True)
    yield from fields.address((*path, "ipv4IPIPTunnelAddr"), bgp.ipv4_ipip_tunnel_addr, 4)
    yield from fields.address((*path, "routeReflectorClusterID"), bgp.route_reflector_cluster_id, 4)


def _status_problems(status: NodeStatus) -> Iterator[Problem]:
    for name, key in (
        ("wireguardPublicKey", status.wireguard_public_key),
        ("wireguardPublicKeyV6", status.wireguard_public_key_v6),
    ):
        try:
            valid = not key or len(base64.b64decode(key, validate=True)) == 32
        except (binascii.Error, ValueError):
            valid = False
        if not valid:
            yield Problem(("status", name), key, "must be a WireGuard key: 32 bytes in base64")
    for index, text in enumerate(status.pod_cidrs):
        yield from fields.cidr(("status", "podCIDRs", index), text)


def _needs(node: Node) -> Iterable[Problem]:
    bgp = node.spec.bgp
    if bgp is None:
        return
    for name, text in (("ipv4Address", bgp.ipv4_address), ("ipv6Address", bgp.ipv6_address)):
        try:
            _ = node.ipv4 if name == "ipv4Address" else node.ipv6
        except ValueError:
            yield Problem(("spec", "bgp", name), text, f"must be an {name[:4].replace('ip', 'IP')} address/length")
    yield from fields.address(("spec", "bgp", "ipv4IPIPTunnelAddr"), bgp.ipv4_ipip_tunnel_addr, 4)


def _as_number_cell(node: Node, view: View) -> str:
    if node.spec.bgp is None:
        return ""
    return f"({view.as_number})" if node.spec.bgp.as_number is None else str(node.spec.bgp.as_number)


class NodeMetadataV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""


class NodeBGPV1(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(as_number="asNumber")
):
    as_number: ASN | None = None
    ipv4_address: str = ""
    ipv6_address: str = ""


class NodeSpecV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    bgp: NodeBGPV1 | None = None
    orch_refs: list[OrchRef] = []


class NodeV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: NodeMetadataV1 = NodeMetadataV1()
    spec: NodeSpecV1 = NodeSpecV1()


def _check_v1(node: NodeV1) -> Iterable[Problem]:
    yield from rule_v1.name_problems(("metadata", "name"), node.metadata.name)
    bgp = node.spec.bgp
    if bgp is None:
        return
    if not bgp.ipv4_address and not bgp.ipv6_address:
        yield Problem(("spec", "bgp"), "", "no BGP IP address and subnet specified")
    yield from fields.cidr(("spec", "bgp", "ipv4Address"), bgp.ipv4_address, 4)
    yield from fields.cidr(("spec", "bgp", "ipv6Address"), bgp.ipv6_address, 6)


def _to_v3(node: NodeV1) -> Node:
    bgp = node.spec.bgp
    return Node(
        metadata=Metadata(name=node_name(node.metadata.name)),
        spec=NodeSpec(
            bgp=None
            if bgp is None
            else NodeBGPSpec(
                as_number=bgp.as_number,
                ipv4_address=rule_v1.full_length(bgp.ipv4_address) if bgp.ipv4_address else "",
                ipv6_address=rule_v1.full_length(bgp.ipv6_address) if bgp.ipv6_address else "",
            ),
            orch_refs=node.spec.orch_refs,
        ),
    )


def _from_v3(node: Node) -> NodeV1:
    bgp = node.spec.bgp
    shown = bgp is not None and bool(bgp.ipv4_address or bgp.ipv6_address)
    return NodeV1(
        metadata=NodeMetadataV1(name=node.metadata.name),
        spec=NodeSpecV1(
            bgp=NodeBGPV1(as_number=bgp.as_number, ipv4_address=bgp.ipv4_address, ipv6_address=bgp.ipv6_address)
            if bgp is not None and shown
            else None,
            orch_refs=node.spec.orch_refs,
        ),
    )


def _keep(stored: Node, new: Node) -> Node:
    """Take what v1 can say from the new node, and the rest (tunnel addresses, labels) from the stored one."""
    said, bgp = new.spec.bgp, stored.spec.bgp or NodeBGPSpec()
    bgp = msgspec.structs.replace(
        bgp,
        as_number=said.as_number if said else None,
        ipv4_address=said.ipv4_address if said else "",
        ipv6_address=said.ipv6_address if said else "",
    )
    spec = msgspec.structs.replace(
        stored.spec, bgp=None if bgp == NodeBGPSpec() else bgp, orch_refs=new.spec.orch_refs
    )
    return msgspec.structs.replace(stored, spec=spec)


_WIDE: tuple[Column[Node], ...] = (
    Column("NAME", name_cell),
    Column("ASN", _as_number_cell),
    Column("IPV4", lambda node, _: node.spec.bgp.ipv4_address if node.spec.bgp else ""),
    Column("IPV6", lambda node, _: node.spec.bgp.ipv6_address if node.spec.bgp else ""),
)

_V1: V1[Node] = V1(
    name="node",
    type=NodeV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=lambda node: f"Node(name={node.metadata.name})",
    name_of=node_name,
    keep=_keep,
    columns=(Column("NAME", name_cell),),
    wide=_WIDE,
)

KIND: Kind[Node] = Kind(
    name="Node",
    plural="nodes",
    type=Node,
    aliases=("node", "nodes", "no", "nos"),
    check=_check,
    needs=_needs,
    columns=(Column("NAME", name_cell),),
    wide=_WIDE,
    v1=_V1,
)
