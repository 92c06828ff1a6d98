"""One transaction under construction: what it compares, what it writes, and what the source holds once it committed.

Whatever an operation looked at to decide is compared, so that it takes effect on exactly that state or not at all
(reference ipam.md 5.2).
"""

from collections.abc import Iterator, Mapping

from ipam import assign
from ipam import block as block_form
from ipam import handle as handle_form
from ipam.affinity import CONFIRMED_VALUE, AffinityState
from ipam.block import Block
from ipam.config import IPAMConfig
from ipam.handle import Handle
from ipam.pools import Pool
from ipam.view import Stored
from resources.datastore.store import ABSENT, KeyValue, Transaction


class Edit:
    """Collects one transaction. A key is written once; writing it compares the revision it was read at."""

    def __init__(self) -> None:
        self._expect: dict[str, int] = {}
        self._puts: dict[str, bytes] = {}
        self._deletes: set[str] = set()
        self._blocks: dict[str, Block] = {}

    @property
    def is_empty(self) -> bool:
        """Nothing is to be written."""
        return not self._puts and not self._deletes

    def requires(self, key: str, revision: int) -> None:
        """Let the transaction lose if the key is not at this revision."""
        assert self._expect.setdefault(key, revision) == revision
        self._expect[key] = revision

    def requires_settings(self, pool: Pool, config: Stored[IPAMConfig]) -> None:
        """Let the transaction lose if the pool or the settings have changed: a pool deleted, strictness switched on."""
        self.requires(pool.key, pool.revision)
        self.requires(config.key, config.revision)

    def put(self, key: str, revision: int, value: bytes) -> None:
        self.requires(key, revision)
        self._puts[key] = value

    def delete(self, key: str, revision: int) -> None:
        self.requires(key, revision)
        if revision != ABSENT:
            self._deletes.add(key)

    def block(self, read: Stored[Block], new: Block) -> None:
        """Write a changed block under its next sequence number; delete it when it is empty and nobody's."""
        if new.affinity is None and new.is_empty:
            self.delete(read.key, read.revision)
        else:
            self.created_block(read, assign.written(new))

    def created_block(self, read: Stored[Block], new: Block) -> None:
        """Write a new block from which nothing was taken yet: its number is that of its creation."""
        self.put(read.key, read.revision, block_form.encode(new))
        self._blocks[read.key] = new

    def confirm(self, ticket: Stored[AffinityState]) -> None:
        """Make sure that a ticket is there and confirmed."""
        self.requires(ticket.key, ticket.revision)
        if ticket.value is not AffinityState.CONFIRMED:
            self.put(ticket.key, ticket.revision, CONFIRMED_VALUE)

    def handle(self, read: Stored[Handle], new: Handle) -> None:
        """Write a changed handle; delete it when no block is left in it."""
        if any(count > 0 for count in new.counts.values()):
            self.put(read.key, read.revision, handle_form.encode(new))
        else:
            self.delete(read.key, read.revision)

    def transaction(self) -> Transaction:
        return Transaction(expect=dict(self._expect), puts=dict(self._puts), deletes=frozenset(self._deletes))

    def result(self, revision: int) -> Mapping[str, KeyValue | None]:
        """Return the keys written as they are after a commit at `revision`."""
        written: dict[str, KeyValue | None] = dict.fromkeys(self._deletes)
        written.update({key: KeyValue(key, value, revision) for key, value in self._puts.items()})
        return written

    def blocks(self, revision: int) -> Iterator[tuple[KeyValue, Block]]:
        """Return the blocks written, each with its record after a commit at `revision`."""
        for key, block in self._blocks.items():
            yield KeyValue(key, self._puts[key], revision), block
