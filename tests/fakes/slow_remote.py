"""Ways to other hosts without any memory: recomputed from all records, by the definitions. RemoteBlocks' oracle."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from felix.calc.remote import RemoteChanges
from kernel.route import Route
from resources.blocks import BlockView
from resources.datastore.keys import ResourceKey
from resources.names import IfName

K = TypeVar("K")
V = TypeVar("V")
DEVICE = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
NEVER = "Never"


@dataclass
class SlowRemote:
    """One host and all records; `enabled` and `versions` are parameters."""

    node: str
    records: Mapping[ResourceKey, Any]
    blocks: Mapping[Any, BlockView]
    interfaces: Mapping[IfName, frozenset[Any]]
    enabled: bool | None = None
    versions: tuple[int, ...] = (4, 6)

    def nodes(self) -> dict[str, Any]:
        return {key.name: node.spec for key, node in self.records.items() if key.plural == "nodes"}

    def own(self, name: str, version: int) -> Any:
        """Address with subnet, tunnel address, MAC of a host, each None if not there."""
        spec = self.nodes().get(name)
        if spec is None:
            return None, None, None
        host = spec.bgp.ipv4_address if version == 4 else spec.bgp.ipv6_address
        tunnel = spec.ipv4_vxlan_tunnel_addr if version == 4 else spec.ipv6_vxlan_tunnel_addr
        mac = spec.vxlan_tunnel_mac_addr if version == 4 else spec.vxlan_tunnel_mac_addr_v6
        digest = hashlib.sha1((name if version == 4 else name + "-v6").encode()).digest()
        mac = mac or bytes([0x66, *digest[:5]]).hex(":")
        return (host and ip_interface(host)) or None, (tunnel and ip_address(tunnel)) or None, mac

    def mode(self, prefix: Any) -> str:
        pools = [
            (ip_network(pool.spec.cidr), pool.spec.vxlan_mode)
            for key, pool in sorted(self.records.items())
            if key.plural == "ippools"
        ]
        around = [
            (cidr.prefixlen, -number, mode)
            for number, (cidr, mode) in enumerate(pools)
            if mode != NEVER and cidr.version == prefix.version and prefix.subnet_of(cidr)
        ]
        return max(around)[2] if around else NEVER

    def is_used(self, version: int) -> bool:
        asked = any(
            pool.spec.vxlan_mode != NEVER and ip_network(pool.spec.cidr).version == version
            for key, pool in self.records.items()
            if key.plural == "ippools"
        )
        return version in self.versions and (asked if self.enabled is None else self.enabled)

    def parent(self, version: int) -> str | None:
        host, _, _ = self.own(self.node, version)
        names = [name for name, found in self.interfaces.items() if host and host.ip in found]
        names = [name for name in names if not name.startswith("cali")]
        return min(names, key=lambda name: (name == "lo", name), default=None)

    def tunnel(self, version: int) -> tuple[Any, ...] | None:
        host, address, mac = self.own(self.node, version)
        parent = self.parent(version)
        if not self.is_used(version) or host is None or address is None or parent is None:
            return None
        return (host.ip, address, mac, None if parent == "lo" else parent)

    def far_end(self, name: str, version: int) -> tuple[Any, ...] | None:
        host, tunnel, mac = self.own(name, version)
        here, _, _ = self.own(self.node, version)
        if name == self.node or version not in self.versions or host is None or tunnel is None:
            return None
        if here is not None and here.ip == host.ip:
            return None
        for other in sorted(self.nodes()):
            _, their_tunnel, their_mac = self.own(other, version)
            comes_first = other == self.node or (other < name and name != self.node)
            if other != name and comes_first and their_tunnel and (their_tunnel == tunnel or their_mac == mac):
                return None
        return host.ip, tunnel, mac

    def holders(self) -> dict[Any, str]:
        holders: dict[Any, str] = {cidr: block.owner for cidr, block in self.blocks.items() if block.owner is not None}
        for _, block in sorted(self.blocks.items(), key=lambda item: item[0].prefixlen):
            holders |= {ip_network(address): node for address, node in block.borrowed.items()}
        return holders

    def route(self, prefix: Any, holder: str) -> tuple[Any, ...] | str | None:
        version, mode = prefix.version, self.mode(prefix)
        if mode == NEVER or version not in self.versions:
            return None
        if holder == self.node:
            return ("blackhole",) if prefix.prefixlen < prefix.max_prefixlen else None
        there, here = self.own(holder, version)[0], self.own(self.node, version)[0]
        if (there and there.ip in prefix) or (here and here.ip in prefix):
            return "missing, with a host in it"
        if mode == "CrossSubnet" and there and here and there.ip in here.network and there.ip != here.ip:
            parent = self.parent(version)
            return ("via", there.ip, parent, False) if parent else "missing"
        end = self.far_end(holder, version)
        if end is None or self.tunnel(version) is None:
            return "missing"
        return ("via", end[1], DEVICE[version], True)

    def guards(self) -> dict[int, tuple[set[str], bool]]:
        """By family in which VXLAN is used: who may send wrapped packets, and whether this host has an end itself."""
        used = [version for version in (4, 6) if self.is_used(version)]
        found: dict[int, tuple[set[str], bool]] = {}
        for version in used:
            ends = [self.far_end(name, version) for name in self.nodes()] if self.tunnel(version) else []
            found[version] = {str(end[0]) for end in ends if end}, bool(self.tunnel(version))
        return found

    def concluded(self) -> dict[str, Any]:
        routes = {prefix: self.route(prefix, holder) for prefix, holder in self.holders().items()}
        ends = [self.far_end(name, 6) for name in self.nodes()] if self.tunnel(6) else []
        neighbours = {ip_network(end[1]): ("via", None, DEVICE[6], False) for end in ends if end}
        routes = {prefix: route for prefix, route in routes.items() if prefix not in neighbours}
        return {
            "tunnels": {version: found for version in (4, 6) if (found := self.tunnel(version))},
            "far_ends": {
                (version, name): end
                for version in (4, 6)
                for name in self.nodes()
                if self.tunnel(version) and (end := self.far_end(name, version))
            },
            "routes": {prefix: route for prefix, route in routes.items() if isinstance(route, tuple)}
            | {prefix: ("unreachable",) for prefix, route in routes.items() if route == "missing"}
            | neighbours,
            "withheld": {self.holders()[prefix] for prefix, route in routes.items() if isinstance(route, str)},
        }


def neutral(found: RemoteChanges) -> dict[str, Any]:
    """Bring what RemoteBlocks concludes into the oracle's form."""
    tunnels = {version: tunnel for version, tunnel in found.tunnels.items() if tunnel}
    return {
        "tunnels": {v: (t.local, t.address, t.mac, t.parent) for v, t in tunnels.items()},
        "far_ends": {key: (end.host, end.tunnel, end.mac) for key, end in found.far_ends.items() if end},
        "routes": {prefix: _way(route) for prefix, route in found.routes.items() if route},
        "withheld": {name for name, text in found.withheld.items() if text},
    }


def _way(route: Route) -> tuple[Any, ...]:
    for hop in route.next_hops:
        return "via", hop.gateway, hop.device, hop.onlink
    return (route.kind.name.lower(),)


def folded_remote(before: RemoteChanges, changes: RemoteChanges) -> RemoteChanges:
    """Return what both amount to."""
    return RemoteChanges(
        tunnels=_folded(before.tunnels, changes.tunnels),
        far_ends=_folded(before.far_ends, changes.far_ends),
        routes=_folded(before.routes, changes.routes),
        withheld=_folded(before.withheld, changes.withheld),
    )


def _folded(before: Mapping[K, V | None], changes: Mapping[K, V | None]) -> dict[K, V | None]:
    return {key: value for key, value in {**before, **changes}.items() if value is not None}
