"""Which of a node's own blocks and claims are of no use to it any more: pure (reference ipam.md 9).

A node that once had many containers would keep its blocks for good, and others would find the pool exhausted. What the
original leaves to a controller of Kubernetes the node's agent does here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from ipam.affinity import AffinityState
from ipam.block import Block
from ipam.pools import Pool
from ipam.view import Stored
from resources.names import IPNetwork, NodeName


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim ("ticket") of the node as read: the block it is for, None if there is none or it is another node's."""

    cidr: IPNetwork
    revision: int
    block: Block | None

    @property
    def mark(self) -> tuple[int, int]:
        """Something that differs as soon as claim or block was touched."""
        return self.revision, 0 if self.block is None else self.block.sequence


def claim_of(cidr: IPNetwork, node: NodeName, ticket: Stored[AffinityState], block: Stored[Block]) -> Claim:
    """Return a node's claim from its ticket and its block as they were read."""
    own = block.value if block.value is not None and block.value.node == node else None
    return Claim(cidr, ticket.revision, own)


Marks: TypeAlias = Mapping[IPNetwork, tuple[int, int]]
"""Claims that may be given up, each with `Claim.mark`."""
NO_MARKS: Marks = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Tidied:
    """What was given up, and what may be the next time if nobody touches it until then."""

    given_up: tuple[IPNetwork, ...] = ()
    marks: Marks = field(default_factory=lambda: NO_MARKS)


def superfluous(claims: Iterable[Claim], pools: Sequence[Pool], labels: Mapping[str, str]) -> Marks:
    """Return the claims that may be given up, each with its mark.

    These are claims without a block, and empty blocks: those of no enabled pool that selects the node, and others as
    long as one block's worth of addresses is still free in what stays of their pool.
    """
    marks: dict[IPNetwork, tuple[int, int]] = {}
    by_pool: dict[str, list[Claim]] = {}
    for claim in claims:
        pool = next((pool for pool in pools if pool.has_block(claim.cidr) and not pool.disabled), None)
        if claim.block is None or (claim.block.is_empty and (pool is None or not pool.selects(labels))):
            marks[claim.cidr] = claim.mark
        elif pool is not None:
            by_pool.setdefault(pool.name, []).append(claim)
    for found in by_pool.values():
        free = sum(_free(claim) for claim in found)
        # what was claimed last goes first: the others were full then
        for claim in sorted(found, key=_age, reverse=True):
            if claim.block is not None and claim.block.is_empty and free - _free(claim) >= claim.block.capacity:
                free -= _free(claim)
                marks[claim.cidr] = claim.mark
    return marks


def _age(claim: Claim) -> tuple[str, int]:
    return (claim.block and claim.block.claimed_at) or "", int(claim.cidr.network_address)


def _free(claim: Claim) -> int:
    return 0 if claim.block is None else sum(1 for _ in claim.block.free())
