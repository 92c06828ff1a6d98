"""What addresses have to do with the removal of a pool or a node (the port is in resources.datastore.rules)."""

from collections.abc import Iterator, Sequence

from ipam.allocator import Allocator
from ipam.borrowed import stored_blocks
from ipam.errors import ReleaseRefused
from ipam.results import Release
from resources.datastore.store import Store
from resources.errors import DoesNotExist
from resources.names import IPAddress, IPNetwork, NodeName

TRIES = 5


class Cleanup:
    """Gives back what a pool or a node holds. Every call may be repeated after a crash at any point."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # releasing is done in nobody's name; nothing is ever assigned by this allocator
        self._allocator = Allocator(store, NodeName("calicoctl"))

    def release_pool(self, pool: IPNetwork) -> None:
        """Give up every node's affinity to a block inside the pool; empty blocks go."""
        self._allocator.release_pool_affinities(pool)

    def release_node(self, node: NodeName, addresses: Sequence[IPAddress]) -> None:
        """Release what blocks say the node holds, and of `addresses` what nobody else holds; then give up its blocks.

        An address in another node's name stays, whatever the removed node's records said.
        """
        for attempt in range(TRIES):
            try:
                self._allocator.release(list(self._held(node, frozenset(addresses))))
                break
            except ReleaseRefused:  # somebody changed an allocation in between: look again
                if attempt == TRIES - 1:
                    raise
        try:
            self._allocator.remove_host(node)
        except DoesNotExist:
            pass

    def _held(self, node: NodeName, addresses: frozenset[IPAddress]) -> Iterator[Release]:
        for block in stored_blocks(self._store):
            for ordinal in range(block.capacity):
                owner = block.owner(ordinal)
                if owner is None or owner.released_at is not None:
                    continue
                holder = owner.attributes.get("node")
                address = block.address(ordinal)
                if holder == node or (holder is None and address in addresses):
                    yield Release(address, owner.handle, block.sequences.get(ordinal))
