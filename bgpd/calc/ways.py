"""How a session's packets travel: by which gateway, and from which address (reference bgp.md 1.5). Pure.

``reachableBy`` is a route of ours to the peer alone, which is there before its session and until after it.
``sourceAddress: None`` leaves the address of this side to the kernel. ExaBGP cannot match a connection that comes in
while it knows no address, so the one that the kernel would choose is worked out here, and follows the host's routes.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from bgpd.calc.sessions import PeerSpec, Sessions, Unusable
from bgpd.calc.surroundings import Surroundings
from kernel.route import PROTOCOL_BGPD, Route
from resources.names import IPAddress, IPNetwork


def ways(peers: Iterable[PeerSpec], surroundings: Surroundings) -> dict[IPNetwork, Route]:
    """Return the routes to peers that are reached by a gateway; none where the gateway is on no network of ours."""
    found: dict[IPNetwork, Route] = {}
    for peer in peers:
        if peer.gateway is None or surroundings.cost(peer.gateway) != 0:
            continue
        reach = surroundings.reach(peer.gateway)
        assert reach is not None
        found[ipaddress.ip_network(peer.address)] = Route.multipath(reach.hops, protocol=PROTOCOL_BGPD)
    return found


def placed(
    wanted: Sessions,
    surroundings: Surroundings | None,
    there: Collection[IPNetwork],
    before: Mapping[IPAddress, PeerSpec],
) -> Sessions:
    """Return the sessions that can be, with the addresses that they are spoken from.

    One that is there already stays as it is while an interface is down: its end is BGP's to find out.

    Args:
        surroundings: what the host's routes say, those of `ways` with them; None: not known yet, and what depends on it
            waits.
        there: the routes of `ways` that the kernel has.
        before: the sessions that are there now.
    """
    peers: dict[IPAddress, PeerSpec] = {}
    unusable = list(wanted.unusable)
    for address, spec in wanted.peers.items():
        found, reason = _placed(spec, surroundings, there, before.get(address))
        if found is not None:
            peers[address] = found
        elif reason:
            what = f"BGPPeer({spec.origin})"
            unusable.append(Unusable(what=what, reason=reason, address=address, kind=spec.kind))
    return replace(wanted, peers=peers, unusable=tuple(unusable))


def _placed(
    spec: PeerSpec, surroundings: Surroundings | None, there: Collection[IPNetwork], before: PeerSpec | None
) -> tuple[PeerSpec | None, str]:
    """Return the session, or None and why it cannot be; "" where it only has to wait."""
    if spec.gateway is None and not spec.any_source:
        return spec, ""
    if surroundings is None:
        return before, ""
    known = before is not None and before.gateway == spec.gateway
    if spec.gateway is not None and not known:
        if surroundings.cost(spec.gateway) != 0:
            return None, f"reachableBy: {spec.gateway} is on no network of this host, so it cannot be a gateway"
        if ipaddress.ip_network(spec.address) not in there:
            return None, ""
    if spec.any_source:
        source = surroundings.source_to(spec.address)
        if source is None and before is not None and before.any_source:
            source = before.local_address
        if source is None:
            return None, f"sourceAddress is None, and this host has no route to {spec.address}"
        return replace(spec, local_address=source), ""
    return spec, ""
