"""Pools and hosts: which sources are masqueraded on the way out, and who may send us encapsulated packets.

Disabled pools count: their workloads are still there (reference felix.md 3.6).
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from felix.calc.ipsets import nets_by_version
from felix.calc.model import Surroundings, VxlanGuard
from felix.calc.parameters import Parameters
from felix.calc.reading import Reader, expected
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.names import IPNetwork, NodeName


@dataclass(frozen=True, slots=True)
class PoolRecord:
    network: IPNetwork
    nat_outgoing: bool
    ipip: bool
    for_workloads: bool
    """False for pools that only load balancers take addresses from."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    addresses: tuple[IPNetwork, ...]
    tunnel_address: str | None


def read_pool(pool: IPPool) -> PoolRecord:
    """Return what a pool's record says.

    Raises:
        ValueError: its CIDR is none.
    """
    return PoolRecord(
        network=ipaddress.ip_network(pool.spec.cidr, strict=False),
        nat_outgoing=pool.spec.nat_outgoing,
        ipip=pool.spec.ipip_mode in ("Always", "CrossSubnet"),
        for_workloads=pool.spec.allowed_uses != ["LoadBalancer"],
    )


def read_node(node: Node) -> NodeRecord:
    """Return what a node's record says.

    Raises:
        ValueError: an address that is none.
    """
    bgp = node.spec.bgp
    addresses = (bgp.ipv4_address, bgp.ipv6_address) if bgp else ()
    tunnel = ipaddress.IPv4Address(bgp.ipv4_ipip_tunnel_addr) if bgp and bgp.ipv4_ipip_tunnel_addr else None
    return NodeRecord(
        addresses=tuple(ipaddress.ip_network(ipaddress.ip_interface(text).ip) for text in addresses if text),
        tunnel_address=None if tunnel is None else str(tunnel),
    )


def surroundings(
    pools: Iterable[PoolRecord],
    nodes: Mapping[ResourceKey, NodeRecord],
    *,
    node: NodeName,
    external_nodes: Iterable[IPNetwork],
    ipip: bool | None,
    vxlan: Mapping[int, VxlanGuard],
) -> Surroundings:
    """Return what this host must know of the cluster. `ipip`: None if the pools decide."""
    external = nets_by_version(external_nodes)
    pools = [pool for pool in pools if pool.for_workloads]
    own = nodes.get(ResourceKey("nodes", node))
    hosts = [address for record in nodes.values() for address in record.addresses]
    return Surroundings(
        pools=nets_by_version(pool.network for pool in pools),
        masqueraded_pools=nets_by_version(pool.network for pool in pools if pool.nat_outgoing),
        hosts={version: found | external[version] for version, found in nets_by_version(hosts).items()},
        ipip=any(pool.ipip for pool in pools) if ipip is None else ipip,
        tunnel_address=own.tunnel_address if own else None,
        vxlan={
            version: replace(guard, sources=guard.sources | external[version]) for version, guard in vxlan.items()
        },
        addresses=frozenset(address.network_address for address in own.addresses) if own else frozenset(),
    )


class Cluster:
    """Reads pools and nodes."""

    def __init__(self, node: NodeName) -> None:
        self._node = node
        self._pools: dict[ResourceKey, PoolRecord] = {}
        self._nodes: dict[ResourceKey, NodeRecord] = {}
        self._dirty = True
        self._parameters: Parameters | None = None
        self._vxlan: Mapping[int, VxlanGuard] = {}
        self.told: Surroundings | None = None
        """As of the last time."""
        self.readers: Mapping[str, Reader] = {"ippools": self._read_pool, "nodes": self._read_node}

    def _read_pool(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        self._dirty = True
        if value is None:
            self._pools.pop(key, None)
        else:
            self._pools[key] = read_pool(expected(IPPool, value))
        return ()

    def _read_node(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        record = None if value is None else read_node(expected(Node, value))
        if record != self._nodes.get(key):
            self._dirty = True
        if record is None:
            self._nodes.pop(key, None)
        else:
            self._nodes[key] = record
        return ()

    def conclude(self, parameters: Parameters, vxlan: Mapping[int, VxlanGuard]) -> Surroundings | None:
        """Return what this host must know of the cluster; None if that is as the last time.

        `vxlan` is what `felix.calc.remote` concludes for the rules.
        """
        if not self._dirty and parameters == self._parameters and vxlan == self._vxlan:
            return None
        self._dirty, self._parameters, self._vxlan = False, parameters, vxlan
        now = surroundings(
            self._pools.values(),
            self._nodes,
            node=self._node,
            external_nodes=parameters.external_nodes,
            ipip=parameters.ipip,
            vxlan=vxlan,
        )
        if now == self.told:
            return None
        self.told = now
        return now
