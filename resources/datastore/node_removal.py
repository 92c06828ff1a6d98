"""What goes with a node (reference resources.md 2.5): endpoints, addresses, peers, its own settings, its status."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from resources.codec import readable_document
from resources.datastore.keys import (
    ResourceKey,
    felix_last_status_key,
    felix_status_key,
    kind_prefix,
    resource_key,
)
from resources.datastore.store import KeyValue, Store
from resources.errors import DoesNotExist
from resources.gotext import JSON
from resources.kinds import bgpconfiguration, felixconfiguration
from resources.kinds.node import Node
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.names import IPAddress, NodeName, parse_address, parse_network

_TRIES = 8


class Records(Protocol):
    """The part of the client that this needs."""

    @property
    def store(self) -> Store: ...
    def remove(self, item: KeyValue, label: str) -> bool: ...


class NodeCleanup(Protocol):
    def release_node(self, node: NodeName, addresses: Sequence[IPAddress]) -> None: ...


def remove_node_records(records: Records, ipam: NodeCleanup, node: Node) -> None:
    """Remove everything that belongs to a node but the Node itself; may be repeated after a crash at any point.

    Addresses are released before the records that name them go: a crash in between leaves a record of what is left.
    """
    endpoints = [item for item in records.store.list(kind_prefix(ENDPOINT.plural)).items if _spec_of(item, node.name)]
    addresses = [address for item in endpoints for address in _addresses(_spec_of(item, node.name))]
    ipam.release_node(node.name, [*addresses, *_tunnel_addresses(node)])
    for item in endpoints:
        _remove(records, item, f"{ENDPOINT.name}({'/'.join(item.key.split('/')[-2:])})")
    for plural, kind in (("bgppeers", "BGPPeer"), ("hostendpoints", "HostEndpoint")):
        for item in records.store.list(kind_prefix(plural)).items:
            if _spec_of(item, node.name):
                _remove(records, item, f"{kind}({item.key.rpartition('/')[2]})")
    for key in _own_keys(node.name):
        if (found := records.store.get(key)) is not None:
            _remove(records, found, key)


def _spec_of(item: KeyValue, node: NodeName) -> dict[str, JSON]:
    """Return the spec of a record if it is of this node, else nothing. Works on records that are bad otherwise."""
    spec = (readable_document(item.value) or {}).get("spec")
    return spec if isinstance(spec, dict) and spec.get("node") == node else {}


def _addresses(spec: dict[str, JSON]) -> Iterator[IPAddress]:
    networks = spec.get("ipNetworks")
    for text in networks if isinstance(networks, list) else ():
        try:
            yield parse_network(str(text)).network_address
        except ValueError:
            continue


def _tunnel_addresses(node: Node) -> Iterable[IPAddress]:
    spec = node.spec
    texts = [
        spec.bgp.ipv4_ipip_tunnel_addr if spec.bgp else "",
        spec.ipv4_vxlan_tunnel_addr,
        spec.ipv6_vxlan_tunnel_addr,
        *((spec.wireguard.interface_ipv4_address, spec.wireguard.interface_ipv6_address) if spec.wireguard else ()),
    ]
    for text in texts:
        try:
            yield parse_address(text)
        except ValueError:
            continue


def _own_keys(node: NodeName) -> tuple[str, ...]:
    return (
        resource_key(ResourceKey(felixconfiguration.KIND.plural, felixconfiguration.NODE_PREFIX + node)),
        resource_key(ResourceKey(bgpconfiguration.KIND.plural, bgpconfiguration.NODE_PREFIX + node)),
        felix_status_key(node),
        felix_last_status_key(node),
    )


def _remove(records: Records, item: KeyValue, label: str) -> None:
    """Remove a key in whatever state it is by now."""
    try:
        for _ in range(_TRIES):
            if records.remove(item, label):
                return
            current = records.store.get(item.key)
            if current is None:
                return
            item = current
    except DoesNotExist:
        return
