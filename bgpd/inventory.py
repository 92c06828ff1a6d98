"""What the store says, folded from its changes, as far as routing needs it. Pure.

A record that cannot be read counts as absent and is reported under its key; everything else goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bgpd.calc.filters import Filter, closed, filter_of
from bgpd.calc.peers import Peering, peering_of
from bgpd.calc.pools import Pool, pool_of
from bgpd.calc.sessions import NodeView, node_view
from resources.blocks import AffinityState, MalformedRecord, affinity_state, block_owner
from resources.datastore.keys import (
    RESOURCES,
    ResourceKey,
    affinities_prefix,
    blocks_prefix,
    parse_affinity_key,
    parse_block_key,
)
from resources.datastore.sync import Change
from resources.kinds import bgpconfiguration, bgpfilter, bgppeer, node, pool, workloadendpoint
from resources.kinds.base import Resource
from resources.kinds.bgpconfiguration import BGPConfiguration
from resources.kinds.bgpfilter import BGPFilter
from resources.kinds.bgppeer import BGPPeer
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import IPNetwork, NodeName
from resources.typed_sync import TypedReader

K = TypeVar("K")
V = TypeVar("V")

_READER = TypedReader(
    [node.KIND, pool.KIND, bgpconfiguration.KIND, bgppeer.KIND, bgpfilter.KIND, workloadendpoint.KIND]
)


@dataclass(slots=True)
class Dirt:
    """What has to be worked out again because of the changes taken so far."""

    sessions: bool = False
    own: bool = False
    """Blocks, workloads and pools of this node: what it announces and where it drops."""
    imports: bool = False
    """Something that decides about every received route."""
    filters: set[str] = field(default_factory=set)
    """BGPFilters whose rules are others now."""
    prefixes: set[IPNetwork] = field(default_factory=set)
    """Received routes to be decided again."""


class Inventory:
    """The records of interest to `this` node, by their names."""

    def __init__(self, this: NodeName) -> None:
        self.this = this
        self.nodes: dict[NodeName, NodeView] = {}
        self.pools: dict[str, Pool] = {}
        self.configurations: dict[str, BGPConfiguration] = {}
        self.peerings: dict[str, Peering] = {}
        """BGPPeers."""
        self.filters: dict[str, Filter] = {}
        """The BGPFilters that there are. Where one cannot be read there stands a Reject of everything."""
        self.owners: dict[IPNetwork, NodeName] = {}
        """Whose each block is, by the block."""
        self.affinities: dict[IPNetwork, AffinityState] = {}
        """This node's claims."""
        self.faults: dict[str, str] = {}
        """What is wrong with records, by their keys."""
        self._endpoints: dict[ResourceKey, tuple[NodeName, frozenset[IPNetwork], str]] = {}
        self._holders: dict[IPNetwork, dict[ResourceKey, NodeName]] = {}
        self._local: set[ResourceKey] = set()
        self._dirt = Dirt()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What of the store to follow.

        All kinds of resources under one prefix, though six are needed: etcd 3.4 sometimes opens only the first three
        of several watches that are asked for in one request (seen in a quarter of the tries with four and more).
        """
        return RESOURCES, blocks_prefix(), affinities_prefix(self.this)

    def holder(self, address: IPNetwork) -> NodeName | None:
        """Return the node with the workload that has `address` (/32 or /128); of several the first by key."""
        holders = self._holders.get(address)
        return holders[min(holders)] if holders else None

    @property
    def workloads(self) -> dict[IPNetwork, str]:
        """The addresses of the workloads on this node, each with its interface."""
        local = (self._endpoints[key] for key in sorted(self._local))
        return {address: device for _, addresses, device in local for address in addresses}

    def take_dirt(self) -> Dirt:
        """Return what the changes since the last call made necessary."""
        dirt, self._dirt = self._dirt, Dirt()
        return dirt

    def take(self, changes: Iterable[Change]) -> list[tuple[str, str]]:
        """Take changes; return the keys of new bad records with what is wrong."""
        before = dict(self.faults)
        for change in changes:
            self.faults.pop(change.key, None)
            if (block := parse_block_key(change.key)) is not None:
                self._take_block(block, change)
            elif (affinity := parse_affinity_key(change.key)) is not None:
                if affinity[0] == self.this:
                    self._take_affinity(affinity[1], change)
            elif (typed := _READER.read(change)) is not None:
                if typed.bad is not None:
                    self.faults[change.key] = str(typed.bad)
                bad = None if typed.bad is None else str(typed.bad)
                self._take_resource(typed.key, typed.value, change.key, bad)
        return [(key, fault) for key, fault in self.faults.items() if before.get(key) != fault]

    # --- IPAM --------------------------------------------------------------------------------------------------------

    def _take_block(self, block: IPNetwork, change: Change) -> None:
        owner: NodeName | None = None
        if change.value is not None:
            try:
                owner = block_owner(block, change.value)
            except MalformedRecord as error:
                self.faults[change.key] = f"the block {block} cannot be read: {error}"
        before = self.owners.get(block)
        if owner == before:
            return
        if owner is None:
            del self.owners[block]
        else:
            self.owners[block] = owner
        self._dirt.prefixes.add(block)
        self._dirt.own |= self.this in (owner, before)

    def _take_affinity(self, block: IPNetwork, change: Change) -> None:
        state: AffinityState | None = None
        if change.value is not None:
            try:
                state = affinity_state(change.value)
            except MalformedRecord as error:
                self.faults[change.key] = f"the affinity of {block} cannot be read: {error}"
        if state == self.affinities.get(block):
            return
        if state is None:
            del self.affinities[block]
        else:
            self.affinities[block] = state
        self._dirt.own = True

    # --- resources ---------------------------------------------------------------------------------------------------

    def _take_resource(self, key: ResourceKey, value: Resource | None, store_key: str, bad: str | None) -> None:
        match key.plural:
            case node.KIND.plural:
                self._take_node(NodeName(key.name), value if isinstance(value, Node) else None)
            case pool.KIND.plural:
                self._take_pool(key.name, value if isinstance(value, IPPool) else None, store_key)
            case bgpconfiguration.KIND.plural:
                self._take_configuration(key.name, value if isinstance(value, BGPConfiguration) else None)
            case bgppeer.KIND.plural:
                self._take_peer(key.name, value if isinstance(value, BGPPeer) else None, store_key)
            case bgpfilter.KIND.plural:
                self._take_filter(key.name, value if isinstance(value, BGPFilter) else None, bad)
            case workloadendpoint.KIND.plural:
                self._take_endpoint(key, value if isinstance(value, WorkloadEndpoint) else None, store_key)

    def _take_node(self, name: NodeName, value: Node | None) -> None:
        view = None if value is None else node_view(value)
        before = self.nodes.get(name)
        if _replace(self.nodes, name, view):
            self._dirt.sessions = True
            # labels and numbers make sessions, and say nothing of a route
            self._dirt.imports |= _whereabouts(before) != _whereabouts(view)

    def _take_pool(self, name: str, value: IPPool | None, store_key: str) -> None:
        view: Pool | None = None
        if value is not None:
            try:
                view = pool_of(name, value)
            except ValueError as error:
                self.faults[store_key] = f"IPPool({name}) cannot be used: {error}"
        if _replace(self.pools, name, view):
            self._dirt.own = self._dirt.imports = True

    def _take_configuration(self, name: str, value: BGPConfiguration | None) -> None:
        before = self.configurations.get(name)
        if value is None:
            self.configurations.pop(name, None)
        else:
            self.configurations[name] = value
        if (before and before.spec) != (value and value.spec):
            self._dirt.sessions = self._dirt.own = True

    def _take_peer(self, name: str, value: BGPPeer | None, store_key: str) -> None:
        peering: Peering | None = None
        if value is not None:
            try:
                peering = peering_of(name, value)
            except ValueError as error:
                self.faults[store_key] = f"BGPPeer({name}) cannot be used: {error}"
        self._dirt.sessions |= _replace(self.peerings, name, peering)

    def _take_filter(self, name: str, value: BGPFilter | None, bad: str | None) -> None:
        found: Filter | None = None
        if value is not None:
            found = filter_of(value, bad or "")
        elif bad is not None:
            found = closed(bad)
        before = self.filters.get(name)
        if not _replace(self.filters, name, found):
            return
        self._dirt.filters.add(name)
        # a session tells when one of its filters is not there, or is not as it was meant
        if (before and before.fault) != (found and found.fault):
            self._dirt.sessions = True

    def _take_endpoint(self, key: ResourceKey, value: WorkloadEndpoint | None, store_key: str) -> None:
        after: tuple[NodeName, frozenset[IPNetwork], str] | None = None
        if value is not None:
            try:
                after = value.node, _addresses(value), value.spec.interface_name
            except ValueError as error:
                self.faults[store_key] = f"WorkloadEndpoint({key.name}) cannot be used: {error}"
        before = self._endpoints.get(key)
        if after == before:
            return
        if before is not None:
            self._forget_endpoint(key, before[0], before[1])
        if after is not None:
            self._endpoints[key] = after
            host, addresses, _ = after
            for address in addresses:
                self._holders.setdefault(address, {})[key] = host
            self._dirt.prefixes |= addresses
            if host == self.this:
                self._local.add(key)
                self._dirt.own = True

    def _forget_endpoint(self, key: ResourceKey, host: NodeName, addresses: frozenset[IPNetwork]) -> None:
        del self._endpoints[key]
        for address in addresses:
            holders = self._holders[address]
            del holders[key]
            if not holders:
                del self._holders[address]
        self._dirt.prefixes |= addresses
        if host == self.this:
            self._local.discard(key)
            self._dirt.own = True



def _whereabouts(node: NodeView | None) -> object:
    """Return what decides about received routes."""
    return None if node is None else (node.ipv4, node.ipv6, node.cluster_id)


def _addresses(endpoint: WorkloadEndpoint) -> frozenset[IPNetwork]:
    """Return an endpoint's addresses; raises ValueError where one is none, or is more than one."""
    for network in endpoint.networks:
        if network.prefixlen < network.max_prefixlen:
            raise ValueError(f"{network} is more than one address")
    return frozenset(endpoint.networks)


def _replace(known: dict[K, V], key: K, value: V | None) -> bool:
    """Put `value` at `key` (None: nothing) and return whether that changed anything."""
    if known.get(key) == value:
        return False
    if value is None:
        del known[key]
    else:
        known[key] = value
    return True
