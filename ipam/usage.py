"""How full the pools are (reference ipam.md 3.8 GetUtilization, 7.3 ``ipam show``)."""

from collections.abc import Sequence

from ipam.errors import BlockUnreadable
from ipam.pools import Pool, is_within
from ipam.ranges import Ranges
from ipam.results import BlockUse, PoolUse
from ipam.view import View
from resources.names import IPNetwork


def utilization(view: View, networks: Sequence[IPNetwork] | None) -> list[PoolUse]:
    """Return the pools in name order, disabled ones too; without a choice of pools at the end the blocks of no pool."""
    pools = [pool for pool in view.pools() if networks is None or pool.network in networks]
    blocks = {version: view.block_cidrs(version) for version in (4, 6)}
    reserved = {version: view.reservations(version) for version in (4, 6)}
    uses = []
    inside: set[IPNetwork] = set()
    for pool in pools:
        own = [cidr for cidr in blocks[pool.network.version] if is_within(cidr, pool.network)]
        inside.update(own)
        uses.append(_pool_use(view, pool, own, reserved[pool.network.version]))
    orphans = [cidr for version in (4, 6) for cidr in blocks[version] if cidr not in inside]
    if networks is None and orphans:
        orphan_uses = tuple(_block_use(view, cidr) for cidr in orphans)
        in_use = sum(use.in_use for use in orphan_uses)
        uses.append(PoolUse(name=None, cidr=None, capacity=0, in_use=in_use, reserved=0, blocks=orphan_uses))
    return uses


def _pool_use(view: View, pool: Pool, cidrs: Sequence[IPNetwork], reserved: Ranges) -> PoolUse:
    blocks = tuple(_block_use(view, cidr) for cidr in cidrs)
    kept_back = reserved.count_within(int(pool.network[0]), int(pool.network[-1]))
    for cidr in cidrs:
        if kept_back and (block := view.readable_block(cidr)) is not None:
            taken = (int(block.address(o)) for o, index in enumerate(block.allocations) if index is not None)
            kept_back -= sum(address in reserved for address in taken)
    return PoolUse(
        name=pool.name, cidr=pool.network, capacity=pool.network.num_addresses,
        in_use=sum(block.in_use for block in blocks), reserved=kept_back, blocks=blocks,
    )


def _block_use(view: View, cidr: IPNetwork) -> BlockUse:
    """Return a block's figures; one that cannot be read counts as full."""
    capacity = cidr.num_addresses
    try:
        block = view.block(cidr).value
    except BlockUnreadable as error:
        return BlockUse(cidr=cidr, node=None, capacity=capacity, in_use=capacity, unreadable=error.reason)
    if block is None:
        return BlockUse(cidr=cidr, node=None, capacity=capacity, in_use=0)
    return BlockUse(cidr=cidr, node=block.node, capacity=capacity, in_use=block.in_use)
