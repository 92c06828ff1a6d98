"""Assign and release inside one block: pure, from a block as read to the block to be written.

Every function returns a mended block (ipam.block) whose sequence number is still that of the block read; `written`
raises it, once per write however many changes the write carries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from ipam.block import WINDOWS_RESERVED, Block, Owner, format_time
from resources.names import NodeName


def room(block: Block, is_reserved: Callable[[int], bool]) -> int:
    """Return how many addresses may be assigned by itself; `is_reserved` takes the integer value of an address."""
    base = int(block.cidr.network_address)
    return sum(not is_reserved(base + o) for o in block.free())


def assign(
    block: Block, count: int, owner: Owner, is_reserved: Callable[[int], bool]
) -> tuple[Block, tuple[int, ...]]:
    """Give `owner` up to `count` addresses from the head of the queue; reserved ones keep their place in it.

    Returns the changed block and the ordinals taken, in order.
    """
    base = int(block.cidr.network_address)
    taken: list[int] = []
    for o in block.free():
        if len(taken) == count:
            break
        if not is_reserved(base + o):
            taken.append(o)
    return _taken(block, taken, owner), tuple(taken)


def assign_ordinal(block: Block, ordinal: int, owner: Owner) -> Block:
    """Give `owner` one free address, wherever it stands in the queue."""
    assert block.allocations[ordinal] is None
    return _taken(block, [ordinal], owner)


def _taken(block: Block, ordinals: Sequence[int], owner: Owner) -> Block:
    block = block.mended()
    if not ordinals:
        return block
    owners = block.owners or ()
    index = owners.index(owner) if owner in owners else len(owners)
    gone = set(ordinals)
    return replace(
        block,
        allocations=tuple(index if o in gone else old for o, old in enumerate(block.allocations)),
        unallocated=tuple(o for o in block.unallocated if o not in gone),
        owners=owners if index < len(owners) else (*owners, owner),
        sequences={**block.sequences, **dict.fromkeys(ordinals, block.sequence)},
    )


def release(block: Block, ordinals: Iterable[int], *, now: datetime, cooldown_seconds: int) -> Block:
    """Free allocated ordinals, in the order given, at the queue's tail; or keep them back for the cooldown."""
    block = block.mended()
    gone = dict.fromkeys(o for o in ordinals if block.allocations[o] is not None)
    if not gone:
        return block
    owners = block.owners or ()
    index: int | None = None
    if cooldown_seconds > 0:
        cooling = Owner(released_at=format_time(now))
        index = owners.index(cooling) if cooling in owners else len(owners)
        owners = owners if index < len(owners) else (*owners, cooling)
    return replace(
        block,
        allocations=tuple(index if o in gone else old for o, old in enumerate(block.allocations)),
        unallocated=block.unallocated if cooldown_seconds > 0 else (*block.unallocated, *gone),
        owners=owners,
        sequences={o: number for o, number in block.sequences.items() if o not in gone},
    ).mended()


def disowned(block: Block) -> Block:
    """Return the block without its node: it stays until its last address is released, others may borrow from it."""
    return replace(block.mended(), affinity=None, claimed_at=None)


def taken_over(block: Block, node: NodeName, now: datetime) -> Block:
    """Return an empty block of somebody else as `node`'s own; the order of the queue stays."""
    assert block.is_empty
    block = block.mended()
    kept_back = [o for o, index in enumerate(block.allocations) if index is not None]
    return replace(
        block,
        affinity=f"host:{node}",
        claimed_at=format_time(now),
        allocations=(None,) * block.capacity,
        unallocated=(*block.unallocated, *kept_back),
        owners=None if block.owners is None else (),
        sequences={},
    )


def written(block: Block) -> Block:
    """Return the block with the sequence number it has after this write."""
    return replace(block, sequence=block.sequence + 1)


def is_kept_back(owner: Owner) -> bool:
    """Whether an address is one that a Windows host reserves for itself: neither in use nor a leak."""
    return (owner.handle or "").lower() == WINDOWS_RESERVED
