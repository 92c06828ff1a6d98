"""Received routes -> kernel routes: which to accept and why not, and by which way (reference bgp.md 4.5, 4.6, 1.3)."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from bgpd.calc.filters import Filters, Ruling, Subject, ruling
from bgpd.calc.paths import Choice, Path
from bgpd.calc.pools import Encapsulation, Pool, Pools
from bgpd.calc.prefixes import PrefixTable, Ranges
from bgpd.calc.sessions import PeerSpec
from bgpd.calc.surroundings import IPIP_DEVICE, Surroundings
from kernel.route import PROTOCOL_BGPD, NextHop, Route
from resources.names import IPAddress, IPInterface, IPNetwork, NodeName


class Refusal(Enum):
    """Why a received route is not used; the value is shown to people and counted."""

    NOT_PEER = "not-peer"
    AS_LOOP = "as-loop"
    ORIGINATOR_LOOP = "originator-loop"
    CLUSTER_LOOP = "cluster-loop"
    FIRST_AS = "first-as"
    FILTER_REJECT = "filter-reject"
    DEFAULT = "default"
    OWN_BLOCK = "own-block"
    NODE_ADDRESS = "node-address"
    NOT_IN_POOL = "not-in-pool"
    TOO_LONG = "too-long"
    TOO_SHORT = "too-short"
    NEXT_HOP = "next-hop"
    SPOOFED_OWNER = "spoofed-owner"
    MAX_PREFIX = "max-prefix"


_SPECIAL: Final = PrefixTable(
    dict.fromkeys(
        ipaddress.ip_network(text)
        for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8")
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRules:
    """Everything that decides about a received route besides the route and its peer."""

    router_id: ipaddress.IPv4Address
    cluster_id: ipaddress.IPv4Address | None = None
    own_blocks: PrefixTable[None] = field(default_factory=lambda: PrefixTable({}))
    node_addresses: PrefixTable[NodeName] = field(default_factory=lambda: PrefixTable({}))
    """The address that each node speaks BGP on, this one's too, as /32 and /128."""
    own_subnets: tuple[IPInterface, ...] = ()
    """This node's BGP addresses with their prefix lengths: what CrossSubnet goes by."""
    pools: Pools = field(default_factory=lambda: Pools({}))
    surroundings: Surroundings = field(default_factory=Surroundings)
    filters: Filters = field(default_factory=Filters)
    holder: Callable[[IPNetwork], NodeName | None] = lambda _: None
    """On which node the store sees the workload with this address."""
    owners: Mapping[IPNetwork, NodeName] = field(default_factory=lambda: MappingProxyType({}))
    """Whose each block is, by the store."""
    is_strict: bool = False
    """Refuse a block that comes from another node than the store says. Off: the store may lag behind BGP."""
    guarded: Ranges = field(init=False, repr=False, compare=False)
    """All that routes of others must keep away from. Nearly none comes near: which of it it was is asked only then."""

    def __post_init__(self) -> None:
        tables = (self.own_blocks, self.node_addresses, self.surroundings.connected, _SPECIAL)
        object.__setattr__(self, "guarded", Ranges(network for table in tables for network in table.networks))

    def node_at(self, address: IPAddress) -> NodeName | None:
        """Return the node that speaks BGP on `address`, or None."""
        found = self.node_addresses.at(address)
        return None if found is None else found[1]


def accept(peer: PeerSpec, prefix: IPNetwork, path: Path, rules: ImportRules) -> Path | Refusal:
    """Return the path to be used, with what the peer's filters made of its attributes, or why it is refused.

    The first reason in the reference's order counts. A filter's Reject is final; its Accept lets in what lies in no
    pool, single addresses too, and the default route if it is named exactly. Our own blocks, the addresses of nodes and
    next hops that cannot be are no filter's to give away.
    """
    return accept_at(peer, prefix, path, PathVerdict.of(peer, path, rules), rules)


@dataclass(frozen=True, slots=True)
class PathVerdict:
    """What can be said of a path whatever its prefix is: one UPDATE gives the same path to hundreds."""

    refusal: Refusal | None
    is_next_hop: bool
    """Packets may be sent to its next hop."""

    @classmethod
    def of(cls, peer: PeerSpec, path: Path, rules: ImportRules) -> "PathVerdict":
        return cls(next(_session(peer, path, rules), None), _is_next_hop(peer, path.next_hop, rules))


def accept_at(
    peer: PeerSpec, prefix: IPNetwork, path: Path, verdict: PathVerdict, rules: ImportRules
) -> Path | Refusal:
    """Return what `accept` does, given what was said of the path."""
    if prefix.version != peer.version:
        return Refusal.NOT_PEER
    if verdict.refusal is not None:
        return verdict.refusal
    said = _filtered(peer, prefix, path, rules) if peer.filters else None
    if said is not None and not said.is_accept:
        return Refusal.FILTER_REJECT
    if (refusal := _prefix(peer, prefix, path, rules, said)) is not None:
        return refusal
    if not verdict.is_next_hop:
        return Refusal.NEXT_HOP
    if rules.is_strict and other_owner(prefix, path, rules) is not None:
        return Refusal.SPOOFED_OWNER
    if said is None or said.attributes is path.attributes:
        return path
    return replace(path, attributes=said.attributes)


def _filtered(peer: PeerSpec, prefix: IPNetwork, path: Path, rules: ImportRules) -> Ruling | None:
    subject = Subject(
        prefix=prefix,
        attributes=path.attributes,
        is_learned=True,
        is_external=peer.is_external,
        devices=rules.surroundings.devices_to(path.next_hop),
    )
    return ruling(rules.filters.imports(peer.filters, prefix.version), subject)


def _session(peer: PeerSpec, path: Path, rules: ImportRules) -> Iterator[Refusal]:
    attributes = path.attributes
    if path.peer != peer.address:
        yield Refusal.NOT_PEER
    if attributes.as_path and attributes.occurrences(peer.local_as) > peer.own_as_allowed:
        yield Refusal.AS_LOOP
    if attributes.originator is not None and attributes.originator == rules.router_id:
        yield Refusal.ORIGINATOR_LOOP
    if rules.cluster_id is not None and rules.cluster_id in attributes.clusters:
        yield Refusal.CLUSTER_LOOP
    if peer.is_external and attributes.first_as != peer.peer_as:
        yield Refusal.FIRST_AS


def _prefix(
    peer: PeerSpec, prefix: IPNetwork, path: Path, rules: ImportRules, accepted: Ruling | None
) -> Refusal | None:
    if prefix.prefixlen == 0:
        if accepted is None or not accepted.rule.points_at(prefix):
            return Refusal.DEFAULT
        return None
    if rules.guarded.overlap(prefix):
        if _touches_own_block(prefix, path, rules):
            return Refusal.OWN_BLOCK
        if _is_special(prefix, rules):
            return Refusal.NODE_ADDRESS
    return _pools(peer, prefix, path, rules) if accepted is None else None


def _pools(peer: PeerSpec, prefix: IPNetwork, path: Path, rules: ImportRules) -> Refusal | None:
    if rules.pools.of(prefix) is None:
        return Refusal.TOO_SHORT if rules.pools.has_inside(prefix) else Refusal.NOT_IN_POOL
    if prefix.prefixlen == prefix.max_prefixlen and not _may_borrow(peer, path, rules):
        return Refusal.TOO_LONG
    return None


def _may_borrow(peer: PeerSpec, path: Path, rules: ImportRules) -> bool:
    """Single addresses are borrowed ones: they come from a node, or by a reflector that says which node it is."""
    return peer.node is not None or (not peer.is_external and rules.node_at(path.next_hop) is not None)


def _touches_own_block(prefix: IPNetwork, path: Path, rules: ImportRules) -> bool:
    """A block of ours, or around one, is never another's. In one, only an address that its node is known to hold."""
    if next(rules.own_blocks.inside(prefix), None) is not None:
        return True
    if rules.own_blocks.match(prefix) is None:
        return False
    if prefix.prefixlen < prefix.max_prefixlen:
        return True
    holder = rules.holder(prefix)
    return holder is None or holder != rules.node_at(path.next_hop)


def _is_special(prefix: IPNetwork, rules: ImportRules) -> bool:
    return (
        next(rules.node_addresses.inside(prefix), None) is not None
        or rules.surroundings.connected.overlaps(prefix)
        or _SPECIAL.overlaps(prefix)
    )


def _is_next_hop(peer: PeerSpec, address: IPAddress, rules: ImportRules) -> bool:
    """A next hop is on a network of ours, or a node or the peer itself that can be reached; never our own address."""
    cost = rules.surroundings.cost(address)
    return cost is not None and (cost == 0 or address == peer.address or rules.node_at(address) is not None)


def other_owner(prefix: IPNetwork, path: Path, rules: ImportRules) -> NodeName | None:
    """Return the node that a block belongs to by the store, if it is another than the next hop's; else None."""
    owner = rules.owners.get(prefix)
    return owner if owner is not None and owner != rules.node_at(path.next_hop) else None


@dataclass(frozen=True, slots=True)
class Withheld:
    """An accepted route that is not given to the kernel, because its packets would travel as its pool forbids."""

    pool: str
    reason: str


def forward(prefix: IPNetwork, choice: Choice, rules: ImportRules) -> Route | Withheld | None:
    """Return the kernel route for the chosen paths, why there must not be one, or None if it is felix that makes it.

    In a pool with a tunnel nothing is ever sent unwrapped because the tunnel is missing.
    """
    return forward_in(rules.pools.of(prefix), prefix.version, choice, rules)


def forward_in(pool: Pool | None, version: int, choice: Choice, rules: ImportRules) -> Route | Withheld | None:
    """Return what `forward` does, for any prefix of a family in `pool` (None: in none)."""
    if pool is not None and pool.vxlan is not Encapsulation.NEVER:
        return None
    hops: set[NextHop] = set()
    for path in choice.group:
        if pool is not None and _is_wrapped(pool, path.next_hop, rules):
            if rules.surroundings.has_ipip and version == 4:
                hops.add(NextHop(gateway=path.next_hop, device=IPIP_DEVICE, onlink=True))
        else:
            reach = rules.surroundings.reach(path.next_hop)
            hops.update(reach.hops if reach is not None else ())
    if hops:
        return Route.multipath(hops, protocol=PROTOCOL_BGPD)
    if pool is None or pool.ipip is Encapsulation.NEVER:
        return Withheld("", "the next hop cannot be reached")
    return Withheld(pool.name, f"ipipMode is {pool.ipip.value} and there is no {IPIP_DEVICE} that is up")


def is_forbidden(prefix: IPNetwork, route: Route, rules: ImportRules) -> bool:
    """Return whether a route that is in the kernel sends packets in another way than the pool of `prefix` allows."""
    pool = rules.pools.of(prefix)
    if pool is None or not route.next_hops:
        return False
    if pool.vxlan is not Encapsulation.NEVER:
        return True
    return any(
        (hop.device == IPIP_DEVICE) != (hop.gateway is not None and _is_wrapped(pool, hop.gateway, rules))
        for hop in route.next_hops
    )


def _is_wrapped(pool: Pool, next_hop: IPAddress, rules: ImportRules) -> bool:
    match pool.ipip:
        case Encapsulation.NEVER:
            return False
        case Encapsulation.ALWAYS:
            return True
        case Encapsulation.CROSS_SUBNET:
            return not any(
                next_hop.version == subnet.version and next_hop in subnet.network for subnet in rules.own_subnets
            )
