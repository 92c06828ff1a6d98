"""Which block comes next for a node: pure, decided from what is known (reference ipam.md 3.1 steps 4 to 8, 3.5).

A choice may rest on stale knowledge; the transaction made from it compares revisions and loses then.
"""

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ipam import assign
from ipam.block import Block
from ipam.config import IPAMConfig
from ipam.pools import Pool, is_within
from ipam.ranges import Ranges
from ipam.results import Shortage
from resources.names import IPNetwork, NodeName

RECLAIM_AFTER_SECONDS = 60
"""An empty block of another node may be taken over when it was claimed longer ago than this."""


class How(enum.Enum):
    OWN = "own"
    """A block of ours with room; its ticket may still have to be confirmed."""
    NEW = "new"
    """A block that does not exist yet."""
    RECLAIM = "reclaim"
    """An empty block of another node, or of nobody."""
    BORROW = "borrow"
    """A block of another node, or of nobody, that stays theirs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Take from this block, in this way."""

    how: How
    pool: Pool
    cidr: IPNetwork


class Blocks(Protocol):
    """What is known of the blocks of one version and of this node's tickets."""

    def ticketed(self) -> Iterable[IPNetwork]:
        """Return the blocks for which this node has a ticket, in key order."""
        ...

    def existing(self) -> Sequence[IPNetwork]:
        """Return all blocks, in key order."""
        ...

    def block(self, cidr: IPNetwork) -> Block | None:
        """Return a block; None if it does not exist."""
        ...

    def is_unreadable(self, cidr: IPNetwork) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A request for a block: `pools` in order of preference, `limit` of blocks this node may own in them."""

    node: NodeName
    pools: tuple[Pool, ...]
    settings: IPAMConfig
    reserved: Ranges
    limit: int
    now: datetime
    shuffle: int = 0
    """Where to start in pools whose blocks are single addresses: another number per call spreads them."""

    def is_reserved(self, address: int) -> bool:
        """Whether an address, given as its integer, is never assigned by itself."""
        return address in self.reserved


def next_block(search: Search, blocks: Blocks) -> Choice | Shortage:
    """Return the block to take from: own ones first, then a new, a reclaimed, a borrowed one."""
    owned = 0
    for cidr in blocks.ticketed():
        pool = next((pool for pool in search.pools if is_within(cidr, pool.network)), None)
        if pool is None or blocks.is_unreadable(cidr):
            owned += pool is not None
            continue
        block = blocks.block(cidr)
        if block is not None and block.node != search.node:
            continue  # the ticket is stale: the block's word counts
        owned += 1
        if not pool.has_block(cidr) or _is_reserved(cidr, search.reserved):
            continue
        if block is not None and assign.room(block, search.is_reserved):
            return Choice(How.OWN, pool, cidr)
        if block is None and overlapping(cidr, blocks.existing()) is None:
            return Choice(How.NEW, pool, cidr)
    if owned >= search.limit:
        return Shortage.BLOCK_LIMIT
    if not search.settings.auto_allocate_blocks:
        return Shortage.NO_CLAIMS
    return _claim(search, blocks) or _borrow(search, blocks)


def _claim(search: Search, blocks: Blocks) -> Choice | None:
    existing = blocks.existing()
    for pool in search.pools:
        if (cidr := absent_block(pool, start_index(pool, search), existing, search.reserved)) is not None:
            return Choice(How.NEW, pool, cidr)
    for pool, cidr, block in _in_host_order(search, blocks):
        if block.node == search.node and assign.room(block, search.is_reserved):
            return Choice(How.OWN, pool, cidr)  # its ticket was lost; it gets one
    for pool, cidr, block in _in_host_order(search, blocks):
        if block.node != search.node and is_reclaimable(block, search.now):
            return Choice(How.RECLAIM, pool, cidr)
    return None


def _borrow(search: Search, blocks: Blocks) -> Choice | Shortage:
    if search.settings.strict_affinity:
        return Shortage.STRICT
    for pool, cidr, block in _in_host_order(search, blocks):
        if not block.is_virtual and assign.room(block, search.is_reserved):
            return Choice(How.BORROW, pool, cidr)
    return Shortage.EXHAUSTED


def is_reclaimable(block: Block, now: datetime) -> bool:
    """Whether another node may take the block over: empty, and not claimed a moment ago."""
    age = block.claim_age_seconds(now)
    return not block.is_virtual and block.is_empty and (age is None or age > RECLAIM_AFTER_SECONDS)


def start_index(pool: Pool, search: Search) -> int:
    """Return where a node begins to look for blocks in a pool.

    The same node starts at the same place, different nodes far apart. Blocks of one address would make all nodes of a
    restarted cluster walk the same way, so those start anywhere.
    """
    if pool.block_size == pool.network.max_prefixlen:
        return search.shuffle % pool.block_count
    digest = hashlib.blake2b(search.node.encode(errors="surrogateescape"), digest_size=16).digest()
    return int.from_bytes(digest, "big") % pool.block_count


def absent_block(pool: Pool, start: int, existing: Iterable[IPNetwork], reserved: Ranges) -> IPNetwork | None:
    """Return the first block from `start` on, wrapping around, that overlaps no existing one and is not all reserved.

    The cost follows the number of existing blocks and reservations, not the size of the pool.
    """
    blocked = Ranges((*_indexes_touched(pool, existing), *_indexes_covered(pool, reserved)))
    index = blocked.next_outside(start)
    if index >= pool.block_count:
        index = blocked.next_outside(0)
        if index >= start:
            return None
    return pool.block_at(index)


def _indexes_touched(pool: Pool, cidrs: Iterable[IPNetwork]) -> Iterable[tuple[int, int]]:
    """Return the ranges of block numbers that some networks overlap; also those left of another block size."""
    base, shift = int(pool.network[0]), pool.network.max_prefixlen - pool.block_size
    for cidr in cidrs:
        if cidr.version == pool.network.version and cidr.overlaps(pool.network):
            first, last = max(int(cidr[0]), base), min(int(cidr[-1]), int(pool.network[-1]))
            yield (first - base) >> shift, (last - base) >> shift


def _indexes_covered(pool: Pool, reserved: Ranges) -> Iterable[tuple[int, int]]:
    """Return the ranges of block numbers that are wholly reserved."""
    base, shift = int(pool.network[0]), pool.network.max_prefixlen - pool.block_size
    size = 1 << shift
    for first, last in reserved.pairs():
        low, high = -(-(first - base) // size), (last + 1 - base) // size - 1
        if low <= high:
            yield max(low, 0), high


def _in_host_order(search: Search, blocks: Blocks) -> Iterable[tuple[Pool, IPNetwork, Block]]:
    """Yield the existing blocks of the pools that can be read, each pool's from the node's start index on."""
    for pool in search.pools:
        start, shift = start_index(pool, search), pool.network.max_prefixlen - pool.block_size
        base = int(pool.network[0])
        numbers = {(int(cidr[0]) - base) >> shift: cidr for cidr in blocks.existing() if pool.has_block(cidr)}
        for index in sorted(numbers, key=lambda number: (number - start) % pool.block_count):
            cidr = numbers[index]
            if _is_reserved(cidr, search.reserved) or blocks.is_unreadable(cidr):
                continue
            if (block := blocks.block(cidr)) is not None:
                yield pool, cidr, block


def _is_reserved(cidr: IPNetwork, reserved: Ranges) -> bool:
    return reserved.covers(int(cidr[0]), int(cidr[-1]))


def overlapping(cidr: IPNetwork, others: Iterable[IPNetwork]) -> IPNetwork | None:
    """Return the first of some networks that shares an address with `cidr`."""
    return next((other for other in others if is_within(other, cidr) or is_within(cidr, other)), None)
