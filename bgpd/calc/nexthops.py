"""Next hops that packets do not simply reach: what is the matter with each, and the way out (reference bgp.md 4.5).

A next hop is good if it is on a network of this host, or if packets to it are wrapped and it can be reached. What is
left is refused (nothing leads to it, or a router that nobody peers with), or used with a warning: a node behind a
router gets the packets of its containers only if that router knows the blocks.
"""

from collections.abc import Collection

from bgpd.calc.imports import ImportRules
from bgpd.calc.surroundings import Reach
from resources.names import IPAddress

_ENCAPSULATION = "set vxlanMode or ipipMode of the IPPool to CrossSubnet"


def trouble(next_hop: IPAddress, peers: Collection[IPAddress], rules: ImportRules) -> str | None:
    """Return what is the matter with a next hop and the way out, or None if it is on a network of this host.

    Args:
        peers: with whom this node has sessions; a router among them knows our blocks by itself.
    """
    if next_hop in rules.surroundings.addresses:
        return (
            f"{next_hop} is an address of this host itself; have the peer that announces it set itself as next hop "
            "(nextHopMode: Self in its BGPPeer, next-hop-self on a router)"
        )
    node = rules.node_at(next_hop)
    name = f"{next_hop} (node {node})" if node else str(next_hop)
    reach = rules.surroundings.reach(next_hop)
    if reach is None and node is not None:
        return f"{name}: no route of this host leads to it; it needs one, with a tunnel too (ip route get {next_hop})"
    if reach is None:
        return (
            f"{name}: it is no node's, and no route of this host leads to it; have the peer that announces it set "
            "itself as next hop (nextHopMode: Self in its BGPPeer, next-hop-self on a router)"
        )
    if reach.cost == 0:
        return None
    routers = _routers(reach)
    if node is None:
        return (
            f"{name}: it is no node's, and behind the router {_listed(routers)}; peer with that router (BGPPeer), or "
            f"have the peer that announces it set itself as next hop"
        )
    if all(router in peers for router in routers):
        return None
    return (
        f"{name}: it is behind the router {_listed(routers)}, which drops what is sent to containers there unless it "
        f"knows their blocks; {_ENCAPSULATION}, or peer with that router (BGPPeer)"
    )


def _routers(reach: Reach) -> list[IPAddress]:
    return sorted({hop.gateway for hop in reach.hops if hop.gateway is not None}, key=int)


def _listed(routers: Collection[IPAddress]) -> str:
    return ", ".join(map(str, routers))
