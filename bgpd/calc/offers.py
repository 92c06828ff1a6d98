"""What each peer is told of each prefix (reference bgp.md 1.2, 4.7; RFC 4271 9.1.3, RFC 4456, RFC 1997). Pure.

A prefix has one `Candidate`: this node's own, else the best path that was learned, else a route of the host's. Which
peers hear of it, with what attributes and next hop, is `offer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address
from types import MappingProxyType

from bgpd.calc.exports import Advertisement, Attributes, communities_for
from bgpd.calc.filters import Filters, Subject, joined, ruling
from bgpd.calc.paths import NO_PATH_ATTRIBUTES, UNKNOWN_IDENTIFIER, Path, PathAttributes, Segment
from bgpd.calc.peers import NextHopMode
from bgpd.calc.pools import Pools
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerSpec
from bgpd.calc.surroundings import Surroundings
from resources.names import IPAddress, IPNetwork

_NO_EXPORT = frozenset(("65535:65281", "65535:65283"))
_NO_ADVERTISE = "65535:65282"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is announced with a prefix. `next_hop` None is our own address on that session.

    `attributes` are as they go out: the AS path has our own number in it where it must be. An empty one is left to
    ExaBGP, which puts our number into it where it must be.
    """

    next_hop: IPAddress | None = None
    attributes: PathAttributes = NO_PATH_ATTRIBUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What could be told of one prefix."""

    path: Path | None = None
    """The best one that was learned; None: the route is this node's own, or its host's."""
    attributes: Attributes | None = None
    """Of this node's own routes that are announced; None: only a filter lets it out."""
    devices: tuple[str, ...] = ()
    """The interfaces that packets to it leave by; of a learned one they follow from the next hop."""
    is_hosts: bool = False
    """Neither a block nor a workload, but a route that somebody else wrote on this host."""
    is_withheld: bool = False
    """It was learned, and this host sends nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferRules:
    """Everything that decides about offers besides the route and the peer."""

    cluster_id: IPv4Address | None = None
    """Set if this node is a reflector."""
    peers: Mapping[IPAddress, PeerSpec] = field(default_factory=lambda: MappingProxyType({}))
    filters: Filters = field(default_factory=Filters)
    pools: Pools = field(default_factory=lambda: Pools({}))
    own_blocks: PrefixTable[None] = field(default_factory=lambda: PrefixTable({}))
    """Those that are announced as a whole."""
    advertisements: Sequence[Advertisement] = ()
    surroundings: Surroundings = field(default_factory=Surroundings)


def offer(
    peer: PeerSpec, identifier: IPv4Address | None, prefix: IPNetwork, candidate: Candidate, rules: OfferRules
) -> Offer | None:
    """Return what `peer` is told of a prefix, or None: nothing.

    Args:
        identifier: the peer's router id, if it is known.
    """
    path = candidate.path
    if prefix.version != peer.version or (path is not None and not _may_pass(path, peer, identifier, rules)):
        return None
    attributes = _attributes(peer, prefix, candidate, rules)
    if attributes is None:
        return None
    if path is None:
        own = replace(attributes, as_path=_own_path(peer, attributes.as_path))
        return Offer(None, own if not peer.is_external else _to_outside(own))
    next_hop = _next_hop(path.next_hop, peer, rules)
    if next_hop == peer.address or (next_hop is None and candidate.is_withheld):
        return None
    return _shared(next_hop, _passed_on(attributes, path, peer, rules))


def _may_pass(path: Path, peer: PeerSpec, identifier: IPv4Address | None, rules: OfferRules) -> bool:
    """Return whether a learned route may go to a peer at all: BGP's own rules, which no filter changes."""
    if path.peer == peer.address or _NO_ADVERTISE in path.attributes.communities:
        return False
    if peer.is_external:
        return not _NO_EXPORT.intersection(path.attributes.communities)
    if path.is_external:
        return True
    sender = rules.peers.get(path.peer)
    if rules.cluster_id is None or sender is None or not (sender.is_client or peer.is_client):
        return False
    return _originator(path) != (identifier or UNKNOWN_IDENTIFIER)


def _originator(path: Path) -> IPv4Address:
    return path.attributes.originator or path.identifier


def _attributes(
    peer: PeerSpec, prefix: IPNetwork, candidate: Candidate, rules: OfferRules
) -> PathAttributes | None:
    """Return a route's attributes after the peer's filters and our own steps, or None if it stays here."""
    path = candidate.path
    said = NO_PATH_ATTRIBUTES if path is None else path.attributes
    if peer.filters:
        subject = Subject(
            prefix=prefix,
            attributes=said,
            is_learned=path is not None,
            is_external=peer.is_external,
            devices=candidate.devices if path is None else rules.surroundings.devices_to(path.next_hop),
        )
        found = ruling(rules.filters.exports(peer.filters, prefix.version), subject)
        if found is not None:
            is_let_out = found.is_accept and (not candidate.is_hosts or found.rule.points_at(prefix))
            return found.attributes if is_let_out else None
    if path is None:
        own = candidate.attributes
        return None if own is None else PathAttributes(
            communities=own.communities, large_communities=own.large_communities
        )  # fmt: skip
    if rules.pools.is_kept_home(prefix) or rules.pools.of(prefix) is None:
        return None
    if rules.own_blocks.match(prefix) is not None:
        return None
    return _tagged(said, communities_for(prefix, rules.advertisements))


def _tagged(attributes: PathAttributes, tags: Attributes) -> PathAttributes:
    if not tags.communities and not tags.large_communities:
        return attributes
    return replace(
        attributes,
        communities=tuple(dict.fromkeys(attributes.communities + tags.communities)),
        large_communities=tuple(dict.fromkeys(attributes.large_communities + tags.large_communities)),
    )


def _next_hop(learned: IPAddress, peer: PeerSpec, rules: OfferRules) -> IPAddress | None:
    """Return the next hop that a learned route goes on with; None: ourselves."""
    match peer.next_hop_mode:
        case NextHopMode.SELF:
            return None
        case NextHopMode.KEEP:
            return learned
        case NextHopMode.AUTO:
            if not peer.is_external or rules.surroundings.are_neighbours(learned, peer.address):
                return learned
            return None


def _passed_on(attributes: PathAttributes, path: Path, peer: PeerSpec, rules: OfferRules) -> PathAttributes:
    if peer.is_external:
        return _to_outside(replace(attributes, as_path=_own_path(peer, attributes.as_path, always=True)))
    if path.is_external:
        return attributes
    assert rules.cluster_id is not None
    return _reflected(attributes, _originator(path), rules.cluster_id)


@lru_cache(maxsize=4096)
def _reflected(attributes: PathAttributes, originator: IPv4Address, cluster: IPv4Address) -> PathAttributes:
    """One value for all prefixes and peers with these attributes: a reflector has a great many of them."""
    return replace(attributes, originator=originator, clusters=(cluster, *attributes.clusters))


@lru_cache(maxsize=4096)
def _shared(next_hop: IPAddress | None, attributes: PathAttributes) -> Offer:
    return Offer(next_hop, attributes)


def _own_path(peer: PeerSpec, path: tuple[Segment, ...], *, always: bool = False) -> tuple[Segment, ...]:
    """Return an AS path as `peer` is told it: outside with our number before it, unless ExaBGP puts it there."""
    if not peer.is_external or not (path or always):
        return path
    return joined(Segment((int(peer.local_as),)), path)


def _to_outside(attributes: PathAttributes) -> PathAttributes:
    """Return what of the attributes leaves the AS: no LOCAL_PREF, no reflectors, and MED means our own links."""
    carried = attributes.carried.to_outside()
    return replace(attributes, local_preference=None, med=0, originator=None, clusters=(), carried=carried)
