"""The allocator as its users see it; `ipam.allocator.Allocator` is the real one, `fakes` may have another."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from ipam.results import AffinityClaims, Allocation, Assignment, PoolUse, Release
from ipam.tidy import NO_MARKS, Marks, Tidied
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, PoolName

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


class AddressAllocator(Protocol):
    """Allocates for one node. Thread-safe. `timeout` is in seconds and defaults to the allocator's own deadline.

    Every call may raise StoreUnavailable, StoreRefused, and at its deadline Contended or OutcomeUnknown.
    """

    def auto_assign(
        self, *, version: int, count: int = 1, pools: Sequence[IPNetwork] | None = None, handle: HandleId | None = None,
        attributes: Mapping[str, str] = NO_ATTRIBUTES, use: str = "Workload", timeout: float | None = None,
    ) -> Assignment:
        """Take `count` free addresses of `version` (4 or 6) from this node's blocks, claiming or borrowing as needed.

        `pools` must equal enabled pools' CIDRs; None: those that select this node. Without a handle a fresh one is
        made. ``node`` is added to the attributes. Fewer addresses than asked for is no error: see `Assignment`.

        Raises:
            PoolUnusable: no pool to take from; nothing was written.
            DoesNotExist: this node has no Node record.
            ConfigurationError: a name or handle that cannot stand in a key.
        """
        ...

    def assign(
        self, address: IPAddress, *, handle: HandleId | None = None, attributes: Mapping[str, str] = NO_ATTRIBUTES,
        timeout: float | None = None,
    ) -> HandleId:
        """Take exactly this address, from any enabled pool; held by `handle` already is success. Returns the handle.

        Raises:
            NotInPool: no enabled pool contains it.
            AddressInUse: somebody else has it.
            AffinityHeld: strict affinity is on and the block is another node's.
        """
        ...

    def release(self, releases: Sequence[Release], *, timeout: float | None = None) -> list[IPAddress]:
        """Give addresses back; return those that were not allocated (no error, so a repeat is safe).

        Raises:
            ReleaseRefused: a handle or sequence number does not match; nothing of that block was released, other
                blocks' addresses were.
        """
        ...

    def release_by_handle(self, handle: HandleId, *, timeout: float | None = None) -> int:
        """Give back all addresses of a handle; return how many there were. Raises DoesNotExist if it is unknown."""
        ...

    def addresses_of_handle(self, handle: HandleId) -> list[IPAddress]:
        """Return what a handle holds, sorted; empty if it is unknown."""
        ...

    def attributes(self, address: IPAddress) -> Allocation | None:
        """Return who holds an address, or None if it is not allocated."""
        ...

    def utilization(self, pools: Sequence[IPNetwork] | None = None) -> list[PoolUse]:
        """Return figures per pool in name order; without a choice of pools the last entry has the blocks of no pool,
        if there are any."""
        ...

    def claim_affinity(self, cidr: IPNetwork, *, node: NodeName | None = None) -> AffinityClaims:
        """Claim every block of a range for a node (default: this one). Raises NotInPool."""
        ...

    def release_affinity(self, cidr: IPNetwork, node: NodeName | None = None, *, must_be_empty: bool = False) -> int:
        """Give up a node's blocks in a range; return how many. Allocations stay. Raises NotInPool."""
        ...

    def release_host_affinities(self, node: NodeName | None = None, *, must_be_empty: bool = False) -> int:
        """Give up all blocks of a node; return how many. Allocations stay."""
        ...

    def release_pool_affinities(self, cidr: IPNetwork) -> int:
        """Give up every node's blocks in a range; return how many. Allocations stay."""
        ...

    def remove_host(self, node: NodeName) -> int:
        """Give up all blocks of a node that leaves; return how many. Releases no address."""
        ...

    def tidy(self, before: Marks = NO_MARKS) -> Tidied:
        """Give up what this node has claimed and does not need, if it was so at the call that returned `before`, too.

        These are claims of blocks that are not there or another node's, empty blocks of pools that are not for this
        node, and empty blocks while the others of their pool have one block's worth of free addresses.
        """
        ...

    def delete_pool(self, name: PoolName, *, revision: int | None = None) -> None:
        """Disable a pool, give up all blocks in it, delete it; allocations stay until they are released.

        Raises:
            DoesNotExist: no such pool.
            UpdateConflict: it is not at `revision`.
        """
        ...
