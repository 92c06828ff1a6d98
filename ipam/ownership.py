"""Which node a block belongs to: claiming, giving up, removing a host, deleting a pool (reference ipam.md 3.6, 4.2).

Each block is one transaction, so whatever is interrupted leaves whole blocks done and can be repeated.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from ipam import assign, tidy
from ipam.block import Block, new_block
from ipam.claim import overlapping
from ipam.edit import Edit
from ipam.errors import BlockUnreadable, NotInPool
from ipam.pools import Pool, is_within
from ipam.results import AffinityClaims
from ipam.session import Attempts, Session
from ipam.view import View
from resources.datastore.store import Committed, Lost, Unknown
from resources.errors import CalicoError, StoreUnavailable, Transient
from resources.names import IPAddress, IPNetwork, NodeName


def locate(view: View, pool: Pool | None, address: IPAddress) -> tuple[IPNetwork | None, Block | None]:
    """Return the block in which an address lies, and its CIDR; (None, None) if there is none.

    A pool may be gone, or made anew with another block size: then all blocks are looked through.

    Raises:
        BlockUnreadable: it cannot be read.
    """
    if pool is not None:
        cidr = pool.block_of(address)
        if (block := view.block(cidr).value) is not None:
            return cidr, block
    for cidr in view.block_cidrs(address.version):
        if address in cidr and (block := view.block(cidr).value) is not None:
            return cidr, block
    return None, None


class Ownership:
    """Claims and gives up blocks, for any node; `deadline_seconds` is for each block."""

    def __init__(self, session: Session, deadline_seconds: float) -> None:
        self._session = session
        self._seconds = deadline_seconds

    # --- one block -----------------------------------------------------------------------------------------------

    def claim_block(self, pool: Pool, cidr: IPNetwork, node: NodeName, view: View | None = None) -> bool:
        """Make a block `node`'s, or see that it is; return False if it is another's."""
        session = self._session

        def plan(view: View) -> Edit | bool:
            now = next((p for p in view.pools() if p.name == pool.name and not p.disabled and p.has_block(cidr)), None)
            if now is None:
                return False
            edit, read = Edit(), view.block(cidr)
            edit.requires(now.key, now.revision)
            if read.value is None:
                if overlapping(cidr, view.block_cidrs(cidr.version)):
                    return False
                edit.created_block(read, new_block(cidr, node, session.now(), session.new_sequence()))
            elif read.value.node != node:
                return False
            edit.requires(read.key, read.revision)
            edit.confirm(view.ticket(node, cidr))
            return True if edit.is_empty else edit

        return self._carry_out(plan, f"claiming {cidr} for {node}", view)

    def give_up_block(
        self,
        cidr: IPNetwork,
        node: NodeName,
        *,
        must_be_empty: bool,
        view: View | None = None,
        mark: tuple[int, int] | None = None,
    ) -> bool:
        """Take a block from `node`, in one transaction: the block is deleted if it is empty, else nobody's.

        A ticket without a block, or of a block that is another's, goes too. Returns False if there was nothing to
        give up, or the block has addresses and must be empty, or it or its ticket is not as at `mark` any more.
        """

        def plan(view: View) -> Edit | bool:
            edit, read, ticket = Edit(), view.block(cidr), view.ticket(node, cidr)
            edit.requires(read.key, read.revision)
            if mark is not None and tidy.claim_of(cidr, node, ticket, read).mark != mark:
                return False
            if read.value is not None and read.value.node == node:
                if must_be_empty and not read.value.is_empty:
                    return False
                edit.block(read, assign.disowned(read.value))
            edit.delete(ticket.key, ticket.revision)
            return False if edit.is_empty else edit

        return self._carry_out(plan, f"giving up {cidr} of {node}", view)

    def give_up_as_marked(self, cidr: IPNetwork, node: NodeName, mark: tuple[int, int]) -> bool:
        """Give up an empty block, or a ticket without one, if both are as they were at `mark`."""
        with self._session.taking_turn():
            return self.give_up_block(cidr, node, must_be_empty=True, mark=mark)

    def _carry_out(self, plan: Callable[[View], Edit | bool], what: str, view: View | None) -> bool:
        """Plan and commit until it took effect; a plan that is a bool is the answer.

        After an answer that did not come the plan is made again from what the store says then.
        """
        session, in_doubt, is_shared = self._session, False, view is not None
        attempts = Attempts(session, session.deadline(self._seconds), what)
        view = view or session.view(attempts.timeout)
        while True:
            try:
                edit = plan(view)
                if isinstance(edit, bool):
                    if is_shared or not view.source.renew():
                        return edit or in_doubt
                    continue
                match session.commit(edit, view, attempts):
                    case Committed():
                        return True
                    case Lost():
                        attempts.lost()
                    case Unknown(reason):
                        in_doubt = True
                        view.source.forget()
                        attempts.failed(StoreUnavailable(reason))
            except StoreUnavailable as error:
                attempts.failed(error)

    def claims(self, node: NodeName) -> tuple[list[tidy.Claim], Sequence[Pool], Mapping[str, str] | None]:
        """Return a node's claims, all pools, and the node's labels (None: there is no such node), read afresh."""
        view = self._session.fresh_view()
        pools, labels = view.pools(), view.labels(node)
        found: list[tidy.Claim] = []
        for _, cidr in view.all_tickets(node):
            with suppress(BlockUnreadable):  # nothing is known of it, so it stays
                found.append(tidy.claim_of(cidr, node, view.ticket(node, cidr), view.block(cidr)))
        return found, pools, labels

    # --- many blocks ---------------------------------------------------------------------------------------------

    def claim(self, cidr: IPNetwork, node: NodeName) -> AffinityClaims:
        """Claim every block of a range that lies in one enabled pool."""
        view = self._session.fresh_view()
        pool = next((p for p in view.pools() if not p.disabled and is_within(cidr, p.network)), None)
        if pool is None:
            raise NotInPool(
                f"The requested CIDR ({cidr}) is not within any configured pools.",
                hint="'calicoctl get ippool' lists the pools; disabled ones do not count",
            )
        if cidr.prefixlen > pool.block_size:
            raise NotInPool(
                f"The requested CIDR ({cidr}) is smaller than the minimum.",
                hint=f"the blocks of pool {pool.name} are /{pool.block_size}",
            )
        view.tickets(node, cidr.version)
        view.block_cidrs(cidr.version)
        claimed: list[IPNetwork] = []
        failed: list[IPNetwork] = []
        first = (int(cidr[0]) - int(pool.network[0])) >> (cidr.max_prefixlen - pool.block_size)
        with self._session.taking_turn():
            for index in range(first, first + (1 << (pool.block_size - cidr.prefixlen))):
                block = pool.block_at(index)
                (claimed if self.claim_block(pool, block, node, view) else failed).append(block)
        return AffinityClaims(tuple(claimed), tuple(failed))

    def give_up_range(self, cidr: IPNetwork, node: NodeName | None, *, must_be_empty: bool) -> int:
        """Give up blocks within a range, of one node or of all; return how many."""
        with self._session.taking_turn():
            view = self._session.fresh_view()
            blocks = [
                (owner, block) for owner, block in self._owned(view, node, (cidr.version,)) if is_within(block, cidr)
            ]
            return self._give_up(view, blocks, must_be_empty)

    def give_up_host(self, node: NodeName, *, must_be_empty: bool) -> int:
        """Give up all blocks of a node; return how many."""
        with self._session.taking_turn():
            view = self._session.fresh_view()
            return self._give_up(view, list(self._owned(view, node, (4, 6))), must_be_empty)

    def _owned(
        self, view: View, node: NodeName | None, versions: Sequence[int]
    ) -> Iterator[tuple[NodeName, IPNetwork]]:
        """Yield who owns which block, by ticket or by the block's word; each pair once."""
        seen = set()
        for owner, cidr in view.all_tickets(node):
            if cidr.version in versions:
                seen.add((owner, cidr))
                yield owner, cidr
        for version in versions:
            for cidr in view.block_cidrs(version):
                block = view.readable_block(cidr)
                holder = None if block is None else block.node
                if holder is not None and node in (None, holder) and (holder, cidr) not in seen:
                    yield holder, cidr

    def _give_up(self, view: View, blocks: Iterable[tuple[NodeName, IPNetwork]], must_be_empty: bool) -> int:
        """Give up blocks one by one, go on after an error, raise the last one at the end."""
        given_up = 0
        failure: CalicoError | None = None
        for node, cidr in blocks:
            try:
                given_up += self.give_up_block(cidr, node, must_be_empty=must_be_empty, view=view)
            except BlockUnreadable as error:
                failure = error
            except Transient as error:
                failure = error
                self._session.report("affinity.kept", block=str(cidr), node=node, error=str(error))
        if failure is not None:
            raise failure
        return given_up

    def give_up_deselected(self, view: View, version: int, requested: Sequence[IPNetwork]) -> None:
        """Give up own empty blocks in pools that no longer select this node; a failure is only reported."""
        node = self._session.node
        try:
            labels = view.labels(node) or {}
            left = [p for p in view.pools() if not p.disabled and p.network not in requested and not p.selects(labels)]
            for cidr in view.tickets(node, version):
                if any(is_within(cidr, pool.network) for pool in left):
                    self.give_up_block(cidr, node, must_be_empty=True, view=view)
        except CalicoError as error:
            self._session.report("affinity.kept", node=node, error=str(error))

    def give_up_if_deselected(self, view: View, cidr: IPNetwork, node: NodeName) -> None:
        """Give up a block that has become empty if its enabled pool no longer selects its node (3.8 step 8)."""
        try:
            pool = next((p for p in view.pools() if not p.disabled and is_within(cidr, p.network)), None)
            if pool is None or (pool.selects({}) and str(pool.node_selector) == "all()"):
                return
            labels = view.labels(node)
            if labels is not None and not pool.selects(labels):
                self.give_up_block(cidr, node, must_be_empty=True, view=view)
        except CalicoError as error:
            self._session.report("affinity.kept", block=str(cidr), node=node, error=str(error))
