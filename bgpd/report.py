"""What bgpd knows, as plain data: for its pages and ``show calico json``, and so for `calicoctl` (reference bgp.md 5).

Made on the owner's thread when somebody asks, and never otherwise.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from bgpd.calc.imports import Refusal
from bgpd.calc.paths import Path, PathAttributes, lost_by
from bgpd.neighbor import Neighbor
from bgpd.rib import Entry
from bgpd.routing import Routing
from bgpd.status import row
from resources.names import IPAddress, IPNetwork

IN_KERNEL = "in kernel"

MEANING: Mapping[Refusal, str] = {
    Refusal.NOT_PEER: "its peer is not configured any more",
    Refusal.AS_LOOP: "this node's own AS number is in the AS path; numAllowedLocalASNumbers of the BGPPeer allows it",
    Refusal.ORIGINATOR_LOOP: "this node announced it, and a route reflector gave it back",
    Refusal.CLUSTER_LOOP: "this route reflector's cluster ID is in its cluster list: it was here already",
    Refusal.FIRST_AS: "its AS path does not begin with the AS number of the peer",
    Refusal.FILTER_REJECT: "an import rule of one of the peer's BGPFilters rejects it",
    Refusal.DEFAULT: "a default route is taken only where an import rule of a BGPFilter names it exactly",
    Refusal.OWN_BLOCK: "it is a block of this node, around one or in one",
    Refusal.NODE_ADDRESS: "it covers a node's address, a network of this host or a special one",
    Refusal.NOT_IN_POOL: "it is in no IPPool, and no import rule of a BGPFilter accepts it",
    Refusal.TOO_LONG: "a single address is taken only from the node that has the container",
    Refusal.TOO_SHORT: "it is larger than the IPPool in it",
    Refusal.NEXT_HOP: "its next hop is on no network of this host, and no node's that a route leads to; "
    "give the pool ipipMode or vxlanMode, or peer with the router between",
    Refusal.SPOOFED_OWNER: "by the datastore the block is another node's (BGPD_STRICT_OWNERS)",
    Refusal.MAX_PREFIX: "its peer sends more routes than are accepted of one (BGPD_MAX_PREFIXES)",
}
"""What a refusal means, and the way out where there is one."""


def session(neighbor: Neighbor, routing: Routing) -> dict[str, object]:
    """Return one session and what it brought."""
    table = routing.rib.table(neighbor.spec.address)
    spec = neighbor.spec
    return {
        "name": spec.name,
        "peer": str(spec.address),
        "node": spec.node,
        "type": spec.kind.value,
        "origin": spec.origin,
        "up": neighbor.is_up,
        "state": row(neighbor).state,
        "phase": neighbor.shown_phase.value,
        "passive": spec.passive,
        "since": neighbor.since,
        "error": neighbor.error,
        "transitions": neighbor.transitions,
        "local": str(spec.local_address),
        "local_as": spec.local_as,
        "peer_as": spec.peer_as,
        "router_id": None if neighbor.router_id is None else str(neighbor.router_id),
        "end_of_rib_received": neighbor.end_received,
        "end_of_rib_sent": neighbor.has_fed,
        "routes_received": len(table.entries),
        "routes_accepted": table.accepted,
        "routes_stale": len(table.stale),
        "routes_refused": {reason.value: count for reason, count in table.refused.items()},
        "routes_offered": neighbor.announced,
    }


def learned(routing: Routing, neighbors: Mapping[IPAddress, Neighbor]) -> list[dict[str, object]]:
    """Return every prefix that a peer told of: all its paths, the route in the kernel, or why there is none."""
    return [_prefix(prefix, routing, neighbors) for prefix in sorted(routing.rib.prefixes, key=_order)]


def _order(prefix: IPNetwork) -> tuple[int, int, int]:
    return prefix.version, int(prefix.network_address), prefix.prefixlen


def _prefix(
    prefix: IPNetwork, routing: Routing, neighbors: Mapping[IPAddress, Neighbor]
) -> dict[str, object]:
    entries = routing.rib.entries(prefix)
    accepted = [entry.used for entry in entries.values() if entry.is_decided and entry.used is not None]
    fate = routing.fate(prefix)
    return {
        "prefix": str(prefix),
        "in_kernel": fate.in_kernel,
        "route": None if fate.route is None else str(fate.route),
        "why_not": fate.why_not,
        "paths": [
            {
                **_path(entry, routing, accepted),
                "name": neighbors[peer].spec.name if peer in neighbors else "",
                "stale": prefix in routing.rib.table(peer).stale,
            }
            for peer, entry in sorted(entries.items(), key=lambda item: int(item[0]))
        ],
    }


def _path(entry: Entry, routing: Routing, accepted: Iterable[Path]) -> dict[str, object]:
    usable = entry.is_decided and entry.used is not None
    # as filters made it, which is what counts and goes on
    path = entry.used if usable and entry.used is not None else entry.path
    lost = lost_by(path, accepted, routing.rules.surroundings.cost) if usable else None
    return {
        "peer": str(path.peer),
        "next_hop": str(path.next_hop),
        "since": entry.told_at,
        "refused": None if entry.refusal is None else entry.refusal.value,
        "chosen": usable and lost is None,
        "lost_by": lost,
        "external": path.is_external,
        **_attributes(path.attributes),
    }


def _attributes(attributes: PathAttributes) -> dict[str, object]:
    return {
        "as_path": as_path(attributes),
        "origin": attributes.origin.name.lower(),
        "local_preference": attributes.local_preference,
        "med": attributes.med,
        "communities": list(attributes.communities + attributes.large_communities),
        "originator": None if attributes.originator is None else str(attributes.originator),
        "clusters": [str(cluster) for cluster in attributes.clusters],
        "extended_communities": list(attributes.carried.extended_communities),
        "aggregator": ":".join(map(str, attributes.carried.aggregator or ())),
        "atomic_aggregate": attributes.carried.is_atomic,
        "unknown_attributes": list(attributes.carried.unknown),
    }


def as_path(attributes: PathAttributes) -> str:
    """Return an AS path as BIRD and FRR write it: ``65001 64512 {65010 65011}``."""
    segments = (
        f"{{{' '.join(map(str, segment.numbers))}}}" if segment.is_set else " ".join(map(str, segment.numbers))
        for segment in attributes.as_path
    )
    return " ".join(segments)


def twin(name: str, identifier: IPv4Address) -> str:
    """Return what a person should read of a peer that has this node's BGP identifier (RFC 6286)."""
    return (
        f"{name} has this node's BGP identifier, {identifier}: they get no session, and no reflector passes routes of "
        "one to the other; give one of them another by CALICO_ROUTER_ID, and start it again"
    )
