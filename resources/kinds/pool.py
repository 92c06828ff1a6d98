"""IPPool: an address range and its options (reference resources.md 2.1)."""

import ipaddress

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.names import IPNetwork


class IPPoolSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "vxlan_mode": "vxlanMode", "ipip_mode": "ipipMode", "nat_outgoing": "natOutgoing",
        "disable_bgp_export": "disableBGPExport", "block_size": "blockSize", "node_selector": "nodeSelector",
        "namespace_selector": "namespaceSelector", "allowed_uses": "allowedUses", "assignment_mode": "assignmentMode",
    },
):
    cidr: str
    vxlan_mode: str = ""
    """Never, Always or CrossSubnet."""
    ipip_mode: str = ""
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = False
    block_size: int = 0
    """Prefix length of the pool's blocks; 0 until completed (26, IPv6 122)."""
    node_selector: str = ""
    namespace_selector: str = ""
    allowed_uses: list[str] = []
    assignment_mode: str = ""


class IPPool(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: IPPoolSpec

    @property
    def network(self) -> IPNetwork:
        return ipaddress.ip_network(self.spec.cidr)


KIND = Kind(name="IPPool", plural="ippools", type=IPPool,
            aliases=("ippool", "ippools", "ipp", "ipps", "pool", "pools"))
