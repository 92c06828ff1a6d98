"""Ways to the addresses on other hosts, for pools with VXLAN: from the store's blocks, nodes and pools, without BGP.

A block goes to the host that it is affine to, a borrowed address to the host that holds it (reference ipam.md 1). An
own block is dropped where no route to a container says otherwise. Where a host cannot be reached as its pool asks for,
what it has is unreachable: nothing goes unwrapped because a tunnel is missing. That is told by the name of the host.

One block costs its own routes, one node those of its blocks;
a pool, this host's own node or a setting costs all.
"""

import heapq
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from felix.calc.model import VxlanGuard
from felix.calc.parameters import Parameters
from felix.calc.reading import Reader, expected
from felix.calc.vxlan import (
    FarEnd,
    Mode,
    Tunnel,
    VxlanNode,
    VxlanPool,
    own_tunnel,
    parent_of,
    read_node,
    read_pool,
)
from kernel.route import Route
from resources.blocks import BlockView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.names import IfName, IPAddress, IPNetwork, NodeName
from resources.vxlan import DEVICES

K = TypeVar("K")
V = TypeVar("V")

VERSIONS = (4, 6)
SHOWN = 3
"""Prefixes that are named where routes are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteChanges:
    """What differs since the last time; None as a value: no longer there."""

    tunnels: Mapping[int, Tunnel | None] = field(default_factory=lambda: MappingProxyType({}))
    """This host's own, by address family."""
    far_ends: Mapping[tuple[int, NodeName], FarEnd | None] = field(default_factory=lambda: MappingProxyType({}))
    routes: Mapping[IPNetwork, Route | None] = field(default_factory=lambda: MappingProxyType({}))
    withheld: Mapping[NodeName, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """Hosts to which routes are missing that there should be, with the reason."""

    @property
    def is_written(self) -> bool:
        """Whether anything in the kernel follows from it."""
        return bool(self.tunnels or self.far_ends or self.routes)


@dataclass(frozen=True, slots=True)
class _Settings:
    """The parameters that matter here."""

    versions: tuple[int, ...]
    enabled: bool | None
    vni: int
    port: int
    protocol: int
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, parameters: Parameters) -> "_Settings":
        return cls(
            parameters.versions,
            parameters.vxlan,
            parameters.vxlan_vni,
            parameters.vxlan_port,
            parameters.route_protocol,
            parameters.interface_prefixes,
        )


class RemoteBlocks:
    """All blocks, nodes and pools, as far as this host's routes to other hosts follow from them."""

    def __init__(self, this: NodeName) -> None:
        self._this = this
        self._pools: dict[ResourceKey, VxlanPool] = {}
        self._nodes: dict[NodeName, VxlanNode] = {}
        self._blocks: dict[IPNetwork, BlockView] = {}
        self._singles: dict[IPNetwork, dict[IPNetwork, NodeName]] = {}
        """Borrowed addresses as /32 or /128: who holds each, by the block that says so."""
        self._interfaces: dict[IfName, frozenset[IPAddress]] = {}

        self._holders: dict[IPNetwork, NodeName] = {}
        self._held: dict[NodeName, set[IPNetwork]] = {}
        self._tunnel_users: dict[tuple[int, IPAddress], set[NodeName]] = {}
        self._mac_users: dict[tuple[int, str], set[NodeName]] = {}
        self._modes: dict[int, dict[int, dict[IPNetwork, Mode]]] = {version: {} for version in VERSIONS}
        """Of pools that ask for VXLAN, by family, by length, by network."""

        self._dirty_prefixes: set[IPNetwork] = set()
        self._dirty_nodes: set[NodeName] = set()
        self._own_dirty = True
        self._pools_dirty = True
        self._parameters: _Settings | None = None

        self._tunnels: dict[int, Tunnel | str] = {}
        self._parents: dict[int, IfName | None] = {}
        self._far_ends: dict[tuple[int, NodeName], FarEnd] = {}
        self._neighbours: dict[IPNetwork, NodeName] = {}
        """IPv6 tunnel addresses of others. In IPv6 the kernel takes no gateway, not even onlink, that it would look for
        elsewhere, as it does while there is another route to the block that the address is from."""
        self._routes: dict[IPNetwork, Route] = {}
        self._reasons: dict[IPNetwork, tuple[NodeName, str]] = {}
        self._missing: dict[NodeName, set[IPNetwork]] = {}
        self._surrounded: tuple[object, ...] = ()
        self._told_tunnels: dict[int, Tunnel] = {}
        self._told_withheld: dict[NodeName, str] = {}
        self.guards: Mapping[int, VxlanGuard] = {}
        """What the rules must know, by the families in which VXLAN is used, as of the last time."""
        self.readers: Mapping[str, Reader] = {"ippools": self._read_pool, "nodes": self._read_node}

    # --- what there is -----------------------------------------------------------------------------------------------

    def _read_pool(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        pool = None if value is None else read_pool(expected(IPPool, value))
        if self._pools.get(key) != pool:
            _put(self._pools, key, pool)
            self._pools_dirty = True
        return ()

    def _read_node(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        name = NodeName(key.name)
        node = None if value is None else read_node(name, expected(Node, value))
        before = self._nodes.get(name)
        if before == node:
            return ()
        _put(self._nodes, name, node)
        self._dirty_nodes.add(name)
        if name == self._this:
            self._own_dirty = True
        for version in VERSIONS:
            (old_tunnel, old_mac), (tunnel, mac) = _at(before, version), _at(node, version)
            self._use(self._tunnel_users, version, name, old_tunnel, tunnel)
            self._use(self._mac_users, version, name, old_mac, mac)
        return ()

    def set_block(self, cidr: IPNetwork, block: BlockView | None) -> None:
        """Take note of a block as it is now; None: there is none."""
        before = self._blocks.get(cidr)
        if before == block:
            return
        _put(self._blocks, cidr, block)
        old, new = (view.borrowed if view else {} for view in (before, block))
        for address in old.keys() | new.keys():
            if old.get(address) != new.get(address):
                self._borrow(cidr, ipaddress.ip_network(address), new.get(address))
        self._assign(cidr)

    def set_interface(self, name: IfName, addresses: frozenset[IPAddress] | None) -> None:
        """Take note of the addresses that an interface of this host has now; None: there is no such interface."""
        before = self._interfaces.get(name, frozenset())
        _put(self._interfaces, name, addresses)
        own = {address.ip for address in self._own.addresses.values()} if self._own else set()
        if own & (before ^ (addresses or frozenset())):
            self._own_dirty = True

    # --- what follows ------------------------------------------------------------------------------------------------

    def conclude(self, parameters: Parameters) -> RemoteChanges:
        """Return what differs from the last time."""
        settings = _Settings.of(parameters)
        if settings != self._parameters:
            self._parameters = settings
            self._own_dirty = self._pools_dirty = True
        if self._pools_dirty:
            self._settle_pools()
        if self._own_dirty or self._pools_dirty:
            self._settle_own(settings, parameters)
        far_ends = self._settle_far_ends(settings)
        routes, hosts = self._settle_routes(settings)
        tunnels: dict[int, Tunnel | None] = {}
        for version in VERSIONS:
            found = self._tunnels.get(version)
            tunnel = found if isinstance(found, Tunnel) else None
            if tunnel != self._told_tunnels.get(version):
                tunnels[version] = tunnel
                _put(self._told_tunnels, version, tunnel)
        if far_ends or tunnels or self._own_dirty or self._pools_dirty:
            self._guard()
        self._own_dirty = self._pools_dirty = False
        return RemoteChanges(tunnels=tunnels, far_ends=far_ends, routes=routes, withheld=self._settle_withheld(hosts))

    def whole(self) -> RemoteChanges:
        """Return everything that is concluded, as of the last time."""
        return RemoteChanges(
            tunnels=dict(self._told_tunnels),
            far_ends=dict(self._far_ends),
            routes=dict(self._routes),
            withheld=dict(self._told_withheld),
        )

    # --- who holds what ----------------------------------------------------------------------------------------------

    @property
    def _own(self) -> VxlanNode | None:
        return self._nodes.get(self._this)

    def _use(
        self,
        users: dict[tuple[int, V], set[NodeName]],
        version: int,
        name: NodeName,
        before: V | None,
        now: V | None,
    ) -> None:
        """Note what a node uses now that only one may use; all that use it are looked at again."""
        if before == now:
            return
        if before is not None:
            left = users[version, before]
            left.discard(name)
            self._dirty_nodes |= left
            if not left:
                del users[version, before]
        if now is not None:
            there = users.setdefault((version, now), set())
            self._dirty_nodes |= there
            there.add(name)

    def _borrow(self, block: IPNetwork, address: IPNetwork, holder: NodeName | None) -> None:
        said = self._singles.setdefault(address, {})
        _put(said, block, holder)
        if not said:
            del self._singles[address]
        self._assign(address)

    def _assign(self, prefix: IPNetwork) -> None:
        """Decide anew who holds a prefix. Of blocks that lie in one another the smaller one counts."""
        said = self._singles.get(prefix)
        holder: NodeName | None = None
        if said:
            holder = said[max(said, key=lambda block: block.prefixlen)]
        elif (view := self._blocks.get(prefix)) is not None:
            holder = view.owner
        before = self._holders.get(prefix)
        if holder == before:
            return
        _put(self._holders, prefix, holder)
        if before is not None:
            self._held[before].discard(prefix)
            if not self._held[before]:
                del self._held[before]
        if holder is not None:
            self._held.setdefault(holder, set()).add(prefix)
        self._dirty_prefixes.add(prefix)

    # --- steps of a settlement, in order -----------------------------------------------------------------------------

    def _settle_pools(self) -> None:
        modes: dict[int, dict[int, dict[IPNetwork, Mode]]] = {version: {} for version in VERSIONS}
        for key in sorted(self._pools, reverse=True):  # of two pools with one CIDR the first by name stands
            pool = self._pools[key]
            if pool.mode is not Mode.NEVER:
                modes[pool.network.version].setdefault(pool.network.prefixlen, {})[pool.network] = pool.mode
        if modes != self._modes:
            self._modes = {version: dict(sorted(found.items(), reverse=True)) for version, found in modes.items()}
            self._dirty_prefixes.update(self._holders)

    def _settle_own(self, settings: _Settings, parameters: Parameters) -> None:
        own = self._own
        for version in VERSIONS:
            self._tunnels[version] = self._own_tunnel(version, settings, parameters)
            self._parents[version] = parent_of(self._interfaces_of(own, version, settings.prefixes))
        now = (settings, own.addresses if own else None, dict(self._tunnels), dict(self._parents))
        if now != self._surrounded:
            self._surrounded = now
            self._dirty_prefixes.update(self._holders)
            self._dirty_nodes.update(self._nodes)

    def _is_used(self, version: int) -> bool:
        settings = self._parameters
        if settings is None or version not in settings.versions or settings.enabled is False:
            return False
        return settings.enabled is True or bool(self._modes[version])

    def _own_tunnel(self, version: int, settings: _Settings, parameters: Parameters) -> Tunnel | str:
        if not self._is_used(version):
            return f"IPv{version} VXLAN is switched off here (VXLANEnabled, Ipv6Support)"
        return own_tunnel(version, self._own, self._interfaces_of(self._own, version, settings.prefixes), parameters)

    def _interfaces_of(self, node: VxlanNode | None, version: int, prefixes: tuple[str, ...]) -> Iterable[IfName]:
        local = node.addresses.get(version) if node else None
        if local is None:
            return []
        return [name for name, found in self._interfaces.items() if local.ip in found and not name.startswith(prefixes)]

    def _settle_far_ends(self, settings: _Settings) -> dict[tuple[int, NodeName], FarEnd | None]:
        changes: dict[tuple[int, NodeName], FarEnd | None] = {}
        for name in self._dirty_nodes:
            self._dirty_prefixes |= self._held.get(name, set())
            for version in VERSIONS:
                found = self._far_end(version, name) if version in settings.versions else "switched off"
                end = found if isinstance(found, FarEnd) and isinstance(self._tunnels[version], Tunnel) else None
                before = self._far_ends.get((version, name))
                if before != end:
                    changes[version, name] = end
                    _put(self._far_ends, (version, name), end)
                    if version == 6:
                        self._note_neighbour(name, before, end)
        self._dirty_nodes.clear()
        return changes

    def _note_neighbour(self, name: NodeName, before: FarEnd | None, end: FarEnd | None) -> None:
        if before is not None:
            address = ipaddress.ip_network(before.tunnel)
            self._dirty_prefixes.add(address)
            if self._neighbours.get(address) == name:  # else another one has it by now
                del self._neighbours[address]
        if end is not None:
            address = ipaddress.ip_network(end.tunnel)
            self._dirty_prefixes.add(address)
            self._neighbours[address] = name

    def _far_end(self, version: int, name: NodeName) -> FarEnd | str:
        """Return a node's end of the tunnel, or why it has none that can be used."""
        node = self._nodes.get(name)
        if node is None:
            return "there is no such node in the store"
        if name == self._this:
            return "this host"
        host, tunnel = node.addresses.get(version), node.tunnels.get(version)
        if host is None:
            return f"it has no IPv{version} address in the store"
        if tunnel is None:
            return f"it has no IPv{version} VXLAN tunnel address (does calico-node run there?)"
        own = self._own.addresses.get(version) if self._own else None
        if own is not None and host.ip == own.ip:
            return f"its address {host.ip} is this host's own"
        mac = node.macs[version]
        for what, users in (
            (f"tunnel address {tunnel}", self._tunnel_users[version, tunnel]),
            (f"tunnel MAC {mac}", self._mac_users[version, mac]),
        ):
            first = min(users, key=lambda user: (user != self._this, user))
            if first != name:
                return f"its {what} is node {first}'s, too"
        return FarEnd(host=host.ip, tunnel=tunnel, mac=mac)

    def _guard(self) -> None:
        self.guards = {
            version: VxlanGuard(
                sources=frozenset(str(end.host) for (of, _), end in self._far_ends.items() if of == version),
                has_tunnel=version in self._told_tunnels,
            )
            for version in VERSIONS
            if self._is_used(version)
        }

    def _settle_routes(self, settings: _Settings) -> tuple[dict[IPNetwork, Route | None], set[NodeName]]:
        changes: dict[IPNetwork, Route | None] = {}
        hosts: set[NodeName] = set()
        for prefix in self._dirty_prefixes:
            holder = self._holders.get(prefix)
            found: Route | str | None = None
            if prefix in self._neighbours:
                found = Route.on(DEVICES[prefix.version], protocol=settings.protocol)
            elif holder is not None:
                found = self._route(prefix, holder, settings)
            route = found if isinstance(found, Route) else None
            if isinstance(found, str) and holder is not None and not self._has_host(prefix, holder):
                route = Route.unreachable(protocol=settings.protocol)
            if self._routes.get(prefix) != route:
                changes[prefix] = route
                _put(self._routes, prefix, route)
            hosts |= self._note_missing(prefix, holder, found if isinstance(found, str) else None)
        self._dirty_prefixes.clear()
        return changes, hosts

    def _route(self, prefix: IPNetwork, holder: NodeName, settings: _Settings) -> Route | str | None:
        """Return the way to a prefix, why there is none, or None if none is felix's to make."""
        version = prefix.version
        mode = self._mode(prefix)
        if mode is Mode.NEVER or version not in settings.versions:
            return None
        if holder == self._this:
            # a single address is a container's here, and its route is made with its endpoint
            return Route.blackhole(protocol=settings.protocol) if prefix.prefixlen < prefix.max_prefixlen else None
        node, own = self._nodes.get(holder), self._own
        there = node.addresses.get(version) if node else None
        here = own.addresses.get(version) if own else None
        if self._has_host(prefix, holder):
            return "it contains the address of a host itself"
        if mode is Mode.CROSS_SUBNET and there and here and there.ip in here.network and there.ip != here.ip:
            parent = self._parents[version]
            if parent is None:
                return f"no interface of this host has its address {here.ip}"
            return Route.via(there.ip, parent, protocol=settings.protocol)
        tunnel, end = self._tunnels[version], self._far_end(version, holder)
        if isinstance(end, str):
            return end
        if isinstance(tunnel, str):
            return tunnel
        return Route.via(end.tunnel, tunnel.name, protocol=settings.protocol, onlink=True)

    def _has_host(self, prefix: IPNetwork, holder: NodeName) -> bool:
        """Return whether a prefix contains the address of its holder or of this host."""
        known = (node.addresses.get(prefix.version) for node in (self._nodes.get(holder), self._own) if node)
        return any(address and address.ip in prefix for address in known)

    def _mode(self, prefix: IPNetwork) -> Mode:
        for length, networks in self._modes[prefix.version].items():
            if length <= prefix.prefixlen:
                mode = networks.get(prefix.supernet(new_prefix=length))
                if mode is not None:
                    return mode
        return Mode.NEVER

    def _note_missing(self, prefix: IPNetwork, holder: NodeName | None, reason: str | None) -> set[NodeName]:
        """Note why there is no route to a prefix; return the hosts about which something else is to be said now."""
        before = self._reasons.get(prefix)
        now = None if holder is None or reason is None else (holder, reason)
        if before == now:
            return set()
        _put(self._reasons, prefix, now)
        if before is not None:
            self._missing[before[0]].discard(prefix)
        if now is not None:
            self._missing.setdefault(now[0], set()).add(prefix)
        return {said[0] for said in (before, now) if said is not None}

    def _settle_withheld(self, hosts: Iterable[NodeName]) -> dict[NodeName, str | None]:
        changes: dict[NodeName, str | None] = {}
        for name in hosts:
            missing = self._missing[name]
            text: str | None = None
            if missing:
                first = heapq.nsmallest(SHOWN, missing, key=lambda prefix: (prefix.version, prefix))
                named = ", ".join(map(str, first)) + (" ..." if len(missing) > SHOWN else "")
                text = f"no route to {named} on node {name}: {self._reasons[first[0]][1]}"
            else:
                del self._missing[name]
            if self._told_withheld.get(name) != text:
                changes[name] = text
                _put(self._told_withheld, name, text)
        return changes


def _at(node: VxlanNode | None, version: int) -> tuple[IPAddress | None, str | None]:
    """Return a node's tunnel address, and its MAC if it has one; one without a tunnel address uses no MAC."""
    tunnel = node.tunnels.get(version) if node else None
    return tunnel, node.macs[version] if node and tunnel is not None else None


def _put(known: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value
