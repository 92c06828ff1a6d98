"""Assigning addresses: plan on what is known, one transaction, settle what became of it, again until done.

Requests that wait while a transaction is under way share the next one (reference ipam.md 6.2). A request's handle is
what makes its transactions exclude each other: all of them compare the handle at one revision, so at most one takes
effect, and an answer that was lost is found again under the handle (5.5).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ipam import assign
from ipam.block import Block, Owner, new_block
from ipam.claim import Choice, How, Search, next_block, overlapping
from ipam.edit import Edit
from ipam.errors import AddressInUse, AffinityHeld, BlockUnreadable, Contended, NotInPool, OutcomeUnknown
from ipam.handle import FENCE_VALUE, Handle
from ipam.ownership import Ownership, locate
from ipam.pools import choose, containing
from ipam.results import Assignment, Shortage
from ipam.session import Attempts, Session
from ipam.view import View
from resources.datastore import keys
from resources.datastore.store import ABSENT, Committed, Lost, Transaction, Unknown
from resources.errors import CalicoError, DoesNotExist, Rejected, StoreUnavailable
from resources.names import HandleId, IPAddress, IPNetwork, NodeName

MOST_HANDLES: Final = 100
"""Requests in one transaction: etcd takes 128 compares, and block, ticket, pool and settings are among them."""
FENCE_SECONDS: Final = 60
FENCE_TIMEOUT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A transaction whose answer did not come: what it would have taken, and the handle's revision it compared."""

    cidr: IPNetwork
    ordinals: tuple[int, ...]
    sequence: int
    handle_revision: int


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request on its way. Only the thread whose turn it is touches it."""

    version: int
    count: int
    pools: tuple[IPNetwork, ...] | None
    use: str
    owner: Owner
    handle: HandleId
    deadline: float
    address: IPAddress | None = None
    """Set: exactly this one."""
    addresses: list[IPAddress] = field(default_factory=list)
    handle_revision: int = ABSENT
    """Where our last transaction left the handle; anything else means that somebody touched what it names."""
    doubts: list[_Doubt] = field(default_factory=list)
    is_taken: bool = False
    """It is part of another thread's transaction."""
    done: Assignment | None = None

    @property
    def missing(self) -> int:
        return self.count - len(self.addresses)

    def shares(self, other: "Job") -> bool:
        """Whether both may be served from one block by one transaction."""
        return (
            (self.version, self.pools, self.use) == (other.version, other.pools, other.use)
            and self.address is None and other.address is None
            and not other.doubts and self.handle != other.handle
        )


class _Known:
    """`claim.Blocks` over a view."""

    def __init__(self, view: View, node: NodeName, version: int) -> None:
        self._view, self._node, self._version = view, node, version

    def ticketed(self) -> Iterable[IPNetwork]:
        tickets = self._view.tickets(self._node, self._version)
        return [cidr for cidr, ticket in tickets.items() if ticket.value is not None]

    def existing(self) -> Sequence[IPNetwork]:
        return self._view.block_cidrs(self._version)

    def block(self, cidr: IPNetwork) -> Block | None:
        return self._view.readable_block(cidr)

    def is_unreadable(self, cidr: IPNetwork) -> bool:
        try:
            self._view.block(cidr)
        except BlockUnreadable:
            return True
        return False


class Assigner:
    """Serves jobs, one thread at a time, for one node."""

    def __init__(self, session: Session, ownership: Ownership) -> None:
        self._session = session
        self._ownership = ownership
        self._waiting: list[Job] = []

    @property
    def waiting(self) -> int:
        with self._session.turn:
            return len(self._waiting)

    def run(self, job: Job) -> Assignment:
        """Serve a job, or let the thread at work serve it along; return what it got."""
        session = self._session
        with session.turn:
            self._waiting.append(job)
            try:
                while job.is_taken or not session.try_turn():
                    self._wait(job)
                    if job.done is not None:
                        return job.done
            finally:
                if job in self._waiting:
                    self._waiting.remove(job)
        try:
            return self._serve(job)
        finally:
            session.end_turn()

    def _wait(self, job: Job) -> None:
        remaining = job.deadline - self._session.clock.monotonic()
        if remaining <= 0 and not job.is_taken:
            raise Contended(
                f"assigning an IPv{job.version} address failed: other requests of this process took all the time",
                hint="try again",
            )
        self._session.turn.wait(None if job.is_taken else remaining)

    # --- one request, with the turn ----------------------------------------------------------------------------

    def _serve(self, job: Job) -> Assignment:
        what = f"assigning {job.address or f'{job.count} IPv{job.version} address(es)'}"
        attempts = Attempts(self._session, job.deadline, what)
        view = self._session.view(attempts.timeout)
        result = None
        try:
            while job.missing and result is None:
                try:
                    result = self._advance(job, view, attempts)
                except StoreUnavailable as error:
                    attempts.failed(error)
                except Rejected:
                    if not view.source.renew():
                        raise
        except CalicoError as error:
            return self._given_up(job, view, error)
        if job.address is None:
            self._ownership.give_up_deselected(view, job.version, job.pools or ())
        self._session.give_way()
        return result or _complete(job)

    def _advance(self, job: Job, view: View, attempts: Attempts) -> Assignment | None:
        """Make one try; return what there is if there is nothing more to take."""
        if not job.addresses and not job.doubts:
            view.source.assume_absent(keys.handle_key(job.handle))
        if job.doubts:
            self._settle(job, view, attempts.timeout())
        elif job.addresses and view.handle(job.handle).revision != job.handle_revision:
            self._recheck(job, view, attempts.timeout())
        if not job.missing:
            return None
        search = self._search(job, view)
        if job.address is not None:
            if self._has_it(job, job.address, view):
                if not view.source.renew():
                    job.addresses.append(job.address)
                return None
            choice: Choice | Shortage = self._choice_of(job.address, search, view)
        else:
            choice = next_block(search, _Known(view, self._session.node, job.version))
            if view.source.has_news() or (isinstance(choice, Shortage) and view.source.renew()):
                return None
        if isinstance(choice, Choice):
            self._take(job, choice, search, view, attempts)
        elif not job.doubts:
            return _short(job, choice, search)
        elif not self._fence(job, view):
            raise _unknown(job, "nothing else is free")
        return None

    def _has_it(self, job: Job, address: IPAddress, view: View) -> bool:
        """Whether the address is held by the job's handle already, from an earlier try of the caller."""
        _, block = locate(view, containing(view.pools(), address), address)
        owner = None if block is None else block.owner(block.ordinal(address))
        return owner is not None and owner.is_held_by(job.handle)

    def _search(self, job: Job, view: View) -> Search:
        session = self._session
        labels = view.labels(session.node)
        if labels is None:
            raise DoesNotExist(
                f"resource does not exist: Node({session.node})",
                hint="a host must be registered before it can allocate: 'calicoctl node run' does it",
                node=session.node,
            )
        settings = view.settings()
        pools = view.pools()
        if job.address is None:
            pools = choose(
                pools, version=job.version, requested=job.pools, node=session.node, labels=labels, use=job.use
            )
        return Search(
            node=session.node, pools=pools, settings=settings, reserved=view.reservations(job.version),
            limit=settings.block_limit, now=session.now(), shuffle=session.rng.getrandbits(64),
        )

    def _choice_of(self, address: IPAddress, search: Search, view: View) -> Choice:
        """Return how to take exactly this address."""
        pool = containing([pool for pool in search.pools if not pool.disabled], address)
        if pool is None:
            raise NotInPool(
                f"The provided IP address is not in a configured pool: {address}",
                hint="'calicoctl get ippool' lists the pools; disabled ones do not count",
                address=str(address),
            )
        cidr, block = locate(view, pool, address)
        if block is None or cidr is None:
            cidr = pool.block_of(address)
            if other := overlapping(cidr, view.block_cidrs(cidr.version)):
                raise AffinityHeld(
                    f"{address} cannot be assigned: its block {cidr} overlaps {other}, a block of another size",
                    hint="the pool was made anew with another blockSize; release what is left of the old blocks first",
                )
            return Choice(How.NEW, pool, cidr)
        if block.owner(block.ordinal(address)) is not None:
            raise AddressInUse(
                f"Address already assigned in block: {address}",
                hint=f"'calicoctl ipam show --ip={address}' tells who has it",
                address=str(address),
            )
        is_ours = block.node == search.node
        if block.is_virtual or (search.settings.strict_affinity and not is_ours):
            raise AffinityHeld(
                f"Block host affinity does not match: {cidr} of {address} belongs to {block.affinity or 'nobody'}",
                hint="assign it on that host, or switch strict affinity off: "
                "'calicoctl ipam configure --strictaffinity=false'",
                block=str(cidr),
            )
        return Choice(How.OWN if is_ours else How.BORROW, pool, cidr)

    # --- the transaction -----------------------------------------------------------------------------------------

    def _take(self, job: Job, choice: Choice, search: Search, view: View, attempts: Attempts) -> None:
        """Send one transaction that takes from the chosen block, for this job and for those that wait."""
        before = self._prepared(choice, view)
        followers = [] if job.address else self._followers(job, assign.room(before, search.is_reserved) - job.missing)
        try:
            after, takes = before, list[tuple[Job, _Doubt]]()
            edit = Edit()
            edit.requires_settings(choice.pool, view.config())
            for taker in (job, *followers):
                after, ordinals = _taken(after, taker, search)
                if not taker.addresses:
                    view.source.assume_absent(keys.handle_key(taker.handle))
                handle = view.handle(taker.handle)
                edit.handle(handle, (handle.value or Handle()).plus(choice.cidr, len(ordinals)))
                takes.append((taker, _Doubt(choice.cidr, ordinals, before.sequence, handle.revision)))
            self._write_block(edit, choice, after, view)
            match self._session.commit(edit, view, attempts):
                case Committed(revision):
                    for taker, take in takes:
                        taker.addresses += [after.address(o) for o in take.ordinals]
                        taker.handle_revision = revision
                        taker.doubts.clear()  # they compared what this one has changed
                    if choice.how is How.BORROW:
                        self._session.report("address.borrowed", block=str(choice.cidr), owner=before.affinity)
                case Lost():
                    attempts.lost()
                case Unknown(reason):
                    for taker, take in takes:
                        taker.doubts.append(take)
                    attempts.failed(StoreUnavailable(reason))
        finally:
            self._dismiss(followers)

    def _prepared(self, choice: Choice, view: View) -> Block:
        """Return the block to take from as it is before anything is taken."""
        session = self._session
        if choice.how is How.NEW:
            return new_block(choice.cidr, session.node, session.now(), session.new_sequence())
        block = view.block(choice.cidr).value
        assert block is not None
        return assign.taken_over(block, session.node, session.now()) if choice.how is How.RECLAIM else block

    def _write_block(self, edit: Edit, choice: Choice, after: Block, view: View) -> None:
        node, read = self._session.node, view.block(choice.cidr)
        edit.block(read, after)
        if choice.how is not How.BORROW:
            edit.confirm(view.ticket(node, choice.cidr))
        if choice.how is How.RECLAIM and read.value is not None and read.value.node is not None:
            theirs = view.ticket(read.value.node, choice.cidr)
            edit.delete(theirs.key, theirs.revision)

    def _followers(self, job: Job, room: int) -> list[Job]:
        """Take along waiting jobs that fit as a whole into what is left of the block."""
        taken: list[Job] = []
        handles = {job.handle}
        with self._session.turn:
            for other in self._waiting:
                if len(handles) < MOST_HANDLES and other.shares(job) and other.missing <= room:
                    if other.is_taken or other.done or other.handle in handles:
                        continue
                    other.is_taken = True
                    handles.add(other.handle)
                    room -= other.missing
                    taken.append(other)
        return taken

    def _dismiss(self, followers: Sequence[Job]) -> None:
        with self._session.turn:
            for follower in followers:
                follower.is_taken = False
                follower.done = None if follower.missing else _complete(follower)
            self._session.turn.notify_all()

    # --- answers that did not come -------------------------------------------------------------------------------

    def _settle(self, job: Job, view: View, timeout: float | None = None) -> None:
        """Find out what became of the job's transactions in doubt (reference ipam.md 5.5).

        While the handle is at the revision they compared, none has taken effect; the next transaction compares the
        same revision, so that one of them at most ever does. Once it has moved on, they are decided: the block says
        which one took effect, if it was not somebody else who changed the handle.

        One hole is left: a claim that compares only what does not exist and arrives after the handle and the block
        have come and gone again takes effect then. It leaks an address, under a handle that no container has.
        """
        key, store = keys.handle_key(job.handle), self._session.store
        handle = store.get(key, timeout=timeout)
        view.source.learn({key: handle})
        revision = handle.revision if handle else ABSENT
        if all(doubt.handle_revision == revision for doubt in job.doubts):
            return
        for doubt in job.doubts:
            block_key = keys.block_key(doubt.cidr)
            view.source.learn({block_key: store.get(block_key, timeout=timeout)})
            block = view.block(doubt.cidr).value
            if block is not None and all(_was_taken(block, o, doubt.sequence, job.owner) for o in doubt.ordinals):
                job.addresses += [block.address(o) for o in doubt.ordinals]
                break  # one of them at most: they excluded each other, and some may have been the same
        job.doubts.clear()
        job.handle_revision = revision

    def _recheck(self, job: Job, view: View, timeout: float) -> None:
        """Drop what somebody released under the job's handle while the job still goes on."""
        job.handle_revision = view.handle(job.handle).revision
        cidrs = {cidr for address in job.addresses if (cidr := locate(view, None, address)[0]) is not None}
        for key in map(keys.block_key, cidrs):
            view.source.learn({key: self._session.store.get(key, timeout=timeout)})
        blocks = [block for cidr in cidrs if (block := view.readable_block(cidr)) is not None]
        kept = {block.address(o) for block in blocks for o in block.held_by(job.handle)}
        job.addresses = [address for address in job.addresses if address in kept]

    def _given_up(self, job: Job, view: View, error: CalicoError) -> Assignment:
        """End a job that failed: what it has stays its own, what is in doubt is made certain if that can be done."""
        if job.doubts and not self._fence(job, view) and not job.addresses:
            raise _unknown(job, str(error)) from error
        if not job.missing:
            return _complete(job)
        if not job.addresses:
            raise error
        return replace(_complete(job), messages=(_count(job), str(error)), shortage=Shortage.INTERRUPTED,
                       hint=error.hint)

    def _fence(self, job: Job, view: View) -> bool:
        """Make the transactions in doubt lose if they come late, by changing the handle they compare."""
        key, revision = keys.handle_key(job.handle), job.doubts[-1].handle_revision
        known = view.source.get(key)
        fence = Transaction(
            expect={key: revision},
            puts={key: known.value if known and revision != ABSENT else FENCE_VALUE},
            lease_seconds=FENCE_SECONDS if revision == ABSENT else None,
        )
        try:
            outcome = self._session.store.commit(fence, timeout=FENCE_TIMEOUT_SECONDS)
            if isinstance(outcome, Lost):
                self._settle(job, view, FENCE_TIMEOUT_SECONDS)
        except CalicoError as error:
            self._session.report("fence.failed", handle=job.handle, error=str(error))
            return False
        return not isinstance(outcome, Unknown)


def _taken(block: Block, job: Job, search: Search) -> tuple[Block, tuple[int, ...]]:
    if job.address is None:
        return assign.assign(block, job.missing, job.owner, search.is_reserved)
    ordinal = block.ordinal(job.address)
    return assign.assign_ordinal(block, ordinal, job.owner), (ordinal,)


def _was_taken(block: Block, ordinal: int, sequence: int, owner: Owner) -> bool:
    """Whether an allocation is the one meant: for this owner, which names the node, made on that state of the block."""
    return block.owner(ordinal) == owner and block.sequences.get(ordinal, 0) == sequence


def _unknown(job: Job, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{why}; it is not known whether an address was assigned under the handle {job.handle}",
        hint="'calicoctl ipam check' lists it as leaked if it was and nothing uses it", handle=job.handle,
    )


def _complete(job: Job) -> Assignment:
    return Assignment(
        handle=job.handle, version=job.version, requested=job.count, addresses=tuple(job.addresses)
    )


def _count(job: Job) -> str:
    return f"Assigned {len(job.addresses)} out of {job.count} requested IPv{job.version} addresses"


def _short(job: Job, shortage: Shortage, search: Search) -> Assignment:
    """Return the assignment with the reference's words for what is missing (ipam.md 3.9)."""
    networks = " ".join(str(pool.network) for pool in search.pools)
    match shortage:
        case Shortage.BLOCK_LIMIT:
            limit = f"limit of {search.limit} blocks reached for this node"
            reason = f"Need to allocate an IPAM block but could not - {limit}"
            hint = "raise it with 'calicoctl ipam configure --strictaffinity=true --max-blocks-per-host=N'"
        case Shortage.STRICT:
            reason = "No more free affine blocks and strict affinity enabled"
            hint = "add a pool, or allow borrowing with 'calicoctl ipam configure --strictaffinity=false'"
        case Shortage.NO_CLAIMS:
            reason = "failed to find or claim a block"
            hint = "this node's own blocks are full and autoAllocateBlocks is off"
        case Shortage.EXHAUSTED | Shortage.INTERRUPTED:
            reason = f"No IPs available in pools: [{networks}]"
            hint = "add a pool; 'calicoctl ipam show --show-blocks' and 'calicoctl ipam check' tell what holds them"
    return replace(_complete(job), messages=(_count(job), reason), shortage=shortage, hint=hint)
