"""Nodes that are up and do not announce blocks which by the store are theirs: the far end of what goes wrong there."""

from collections.abc import Collection, Mapping

from bgpd.calc.pools import Encapsulation, Pools
from resources.names import IPNetwork, NodeName

Told = Mapping[tuple[NodeName, int], Collection[IPNetwork]]
"""What nodes announce over their own sessions, by node and address family."""


def untold(told: Told, owners: Mapping[IPNetwork, NodeName], pools: Pools) -> dict[NodeName, list[IPNetwork]]:
    """Return the blocks that nodes should announce and do not, by node, sorted.

    Args:
        told: of the nodes that have had time to say everything, and are not held back by a filter.
        owners: whose each block is.
    """
    missing: dict[NodeName, list[IPNetwork]] = {}
    for block, owner in owners.items():
        said = told.get((owner, block.version))
        if said is None or block in said:
            continue
        pool = pools.of(block)
        # what a VXLAN pool needs comes from the store
        if pool is not None and pool.is_exported and pool.vxlan is Encapsulation.NEVER:
            missing.setdefault(owner, []).append(block)
    return {node: sorted(blocks, key=lambda block: (block.version, block)) for node, blocks in sorted(missing.items())}
