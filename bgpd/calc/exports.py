"""This node's blocks and workloads -> what it announces, and where it drops (reference bgp.md 1.2).

Host prefixes that are no block and no workload never come in here, so connected networks, Docker's bridges and default
routes stay at home by construction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bgpd.calc.pools import Pools
from bgpd.calc.prefixes import PrefixTable
from resources.blocks import AffinityState
from resources.kinds.bgpconfiguration import BGPConfiguration, BGPConfigurationSpec
from resources.names import IPNetwork, NodeName, parse_network


@dataclass(frozen=True, slots=True)
class Attributes:
    """What goes with an announced prefix besides the next hop, which is always this node; sorted."""

    communities: tuple[str, ...] = ()
    """``aa:nn``"""
    large_communities: tuple[str, ...] = ()
    """``aa:nn:mm``"""


NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Communities for every announced prefix that lies in `network`."""

    network: IPNetwork
    communities: tuple[str, ...]


def own_blocks(
    node: NodeName, affinities: Mapping[IPNetwork, AffinityState], owners: Mapping[IPNetwork, NodeName]
) -> frozenset[IPNetwork]:
    """Return the blocks whose aggregate is this node's: its claim is confirmed and the block itself names it.

    Both, because each alone may be stale (reference ipam.md 4.1, I6).
    """
    return frozenset(
        block
        for block, state in affinities.items()
        if state is AffinityState.CONFIRMED and owners.get(block) == node
    )


def aggregates(blocks: Iterable[IPNetwork]) -> frozenset[IPNetwork]:
    """Return the blocks that stand for all their addresses: a block of one address does not, its workload does."""
    return frozenset(block for block in blocks if block.prefixlen < block.max_prefixlen)


def exports(
    blocks: frozenset[IPNetwork],
    addresses: Iterable[IPNetwork],
    pools: Pools,
    advertisements: Sequence[Advertisement] = (),
) -> dict[IPNetwork, Attributes]:
    """Return what this node announces of its own.

    Args:
        blocks: `own_blocks`.
        addresses: those of the workloads on this node, as /32 and /128.
    """
    whole = aggregates(blocks)
    inside = PrefixTable(dict.fromkeys(whole))
    found = {block: communities_for(block, advertisements) for block in whole if not pools.is_kept_home(block)}
    for address in addresses:
        pool = pools.of(address)
        if pool is None or pools.is_kept_home(address) or inside.match(address) is not None:
            continue
        found[address] = communities_for(address, advertisements)
    return found


def communities_for(prefix: IPNetwork, advertisements: Sequence[Advertisement]) -> Attributes:
    """Return the communities that prefix advertisements put on an announced prefix."""
    if not advertisements:
        return NO_ATTRIBUTES
    values = {
        value
        for advertisement in advertisements
        if advertisement.network.version == prefix.version
        and int(advertisement.network.network_address) <= int(prefix.network_address)
        and int(prefix.broadcast_address) <= int(advertisement.network.broadcast_address)
        for value in advertisement.communities
    }
    if not values:
        return NO_ATTRIBUTES
    return Attributes(
        communities=tuple(sorted((v for v in values if v.count(":") == 1), key=_numbers)),
        large_communities=tuple(sorted((v for v in values if v.count(":") == 2), key=_numbers)),
    )


def _numbers(community: str) -> list[int]:
    return [int(part) for part in community.split(":")]


def advertisements(
    this: NodeName, configurations: Mapping[str, BGPConfiguration]
) -> tuple[tuple[Advertisement, ...], tuple[str, ...]]:
    """Return the prefix advertisements in force on `this` node, and what is wrong with those passed over.

    A node's own BGPConfiguration replaces the global list as a whole. Names of communities are resolved by the global
    one.
    """
    empty = BGPConfiguration()
    default = configurations.get("default", empty).spec
    own = configurations.get(f"node.{this}", empty).spec
    values = _values(default) | _values(own)
    found: list[Advertisement] = []
    faults: list[str] = []
    for entry in own.prefix_advertisements or default.prefix_advertisements:
        try:
            network = parse_network(entry.cidr)
        except ValueError as error:
            faults.append(f"prefixAdvertisements: {error}")
            continue
        communities = []
        for word in entry.communities:
            value = values.get(word, word)
            if _is_community(value):
                communities.append(value)
            else:
                faults.append(f"prefixAdvertisements {entry.cidr}: {word!r} is no community and names none")
        found.append(Advertisement(network, tuple(communities)))
    return tuple(found), tuple(faults)


def _values(spec: BGPConfigurationSpec) -> dict[str, str]:
    return {community.name: community.value for community in spec.communities}


def _is_community(text: str) -> bool:
    parts = text.split(":")
    if not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts):
        return False
    limit = {2: 1 << 16, 3: 1 << 32}.get(len(parts), 0)
    return all(int(part) < limit for part in parts)
