"""What goes into and comes out of the allocator."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from ipam.errors import BlockLimitReached, PoolExhausted
from resources.errors import CalicoError, Transient
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, PoolName

Sequence64: TypeAlias = int
"""A block's sequence number (reference ipam.md 2.2): above 2**53, never to be put into a float."""


class Shortage(enum.Enum):
    """Why fewer addresses than asked for came."""

    EXHAUSTED = "exhausted"
    """Nothing is free in the pools, borrowing included."""
    STRICT = "strict"
    """Own blocks are full, no block is free, and strict affinity forbids borrowing."""
    BLOCK_LIMIT = "block limit"
    """Own blocks are full and this node may not claim one more; no borrowing then."""
    NO_CLAIMS = "no claims"
    """Own blocks are full and `autoAllocateBlocks` is off."""
    INTERRUPTED = "interrupted"
    """The store failed, or others were faster until the deadline, after some addresses had been assigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What `Allocator.auto_assign` got: `addresses` are ours from now on, under `handle`, however few they are.

    `messages` are sentences for people, in the reference's words (ipam.md 3.9); empty when all were assigned.
    """

    handle: HandleId
    version: int
    requested: int
    addresses: tuple[IPAddress, ...]
    messages: tuple[str, ...] = ()
    shortage: Shortage | None = None
    hint: str | None = None

    @property
    def error(self) -> CalicoError | None:
        """The shortage as an error to raise, or None when every address asked for is there."""
        text = "; ".join(self.messages)
        match self.shortage:
            case None:
                return None
            case Shortage.BLOCK_LIMIT:
                return BlockLimitReached(text, hint=self.hint)
            case Shortage.INTERRUPTED:
                return Transient(text, hint=self.hint)
            case Shortage.EXHAUSTED | Shortage.STRICT | Shortage.NO_CLAIMS:
                return PoolExhausted(text, hint=self.hint)

    def one(self) -> IPAddress:
        """Return the only address asked for.

        Raises:
            PoolExhausted, BlockLimitReached: it did not come.
        """
        if self.error is not None:
            raise self.error
        return self.addresses[0]


@dataclass(frozen=True, slots=True)
class Release:
    """An allocation to give back. With `handle` or `sequence` it is refused if somebody else holds the address now."""

    address: IPAddress
    handle: HandleId | None = None
    sequence: Sequence64 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Who holds an address: the handle and the "active owner attributes" (``node``, ``type``, ``pod`` ...)."""

    address: IPAddress
    block: IPNetwork
    block_node: NodeName | None
    """The node whose block it is; None if nobody's."""
    handle: HandleId | None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sequence: Sequence64 = 0
    """To be named in a `Release` of this very allocation."""
    cooling: bool = False
    """Released, and kept back for the cooldown."""


@dataclass(frozen=True, slots=True)
class AffinityClaims:
    """Blocks of a range that were claimed, and those that belong to another node."""

    claimed: tuple[IPNetwork, ...]
    failed: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUse:
    """One block's figures; `in_use` counts what is not free, cooling addresses included."""

    cidr: IPNetwork
    node: NodeName | None
    capacity: int
    in_use: int
    unreadable: str | None = None
    """Why the block cannot be read; it counts as full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """A pool's figures and its blocks in key order. `name` None: the blocks of no pool, which have no capacity.

    `reserved` counts addresses that are not in use and kept back by reservations.
    """

    name: PoolName | None
    cidr: IPNetwork | None
    capacity: int
    in_use: int
    reserved: int
    blocks: tuple[BlockUse, ...]

    @property
    def free(self) -> int:
        return self.capacity - self.in_use - self.reserved
