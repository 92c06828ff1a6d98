"""Giving addresses back: by address, or all of a handle; one transaction per block, handle included
(reference ipam.md 3.8)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ipam import assign
from ipam.block import Block, Owner
from ipam.edit import Edit
from ipam.errors import BlockUnreadable, ReleaseRefused
from ipam.ownership import Ownership, locate
from ipam.pools import containing
from ipam.results import Release
from ipam.session import Attempts, Session
from ipam.view import View
from resources.datastore.store import Committed, Lost, Unknown
from resources.errors import DoesNotExist, Rejected, StoreUnavailable
from resources.names import HandleId, IPAddress, IPNetwork

MOST_ADDRESSES: Final = 100
"""Of one transaction: each may have a handle of its own, and etcd takes 128 compares."""
MOST_BLOCKS: Final = 50
MOST_CAPACITY: Final = 4096
"""Addresses in all blocks of one transaction: etcd takes 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A release whose answer did not come: if the address is not held like this any more, it took effect."""

    handle: HandleId | None
    sequence: int


@dataclass(frozen=True, slots=True)
class _Held:
    """An allocation of a handle."""

    cidr: IPNetwork
    ordinal: int
    sequence: int
    handle: HandleId

    def is_in(self, view: View) -> bool:
        block = view.readable_block(self.cidr)
        owner = None if block is None else block.owner(self.ordinal)
        return (
            block is not None and owner is not None and owner.is_held_by(self.handle)
            and block.sequences.get(self.ordinal, 0) == self.sequence
        )


class Releaser:
    """Releases addresses in any node's blocks."""

    def __init__(self, session: Session, ownership: Ownership) -> None:
        self._session = session
        self._ownership = ownership

    # --- by address ----------------------------------------------------------------------------------------------

    def release(self, releases: Sequence[Release], deadline: float) -> list[IPAddress]:
        """Release addresses; return those that were not allocated. Blocks that refuse do not stop the others."""
        unallocated: list[IPAddress] = []
        refused: Rejected | None = None
        wanted = {release.address: release for release in reversed(releases)}
        attempts = Attempts(self._session, deadline, f"releasing {len(wanted)} address(es)")
        with self._session.taking_turn():
            view = self._session.view(attempts.timeout)
            blocks: dict[IPNetwork, list[Release]] = {}
            for release in sorted(wanted.values(), key=lambda r: (r.address.version, r.address)):
                try:
                    cidr = self._block_of(release.address, view, attempts)
                except BlockUnreadable as error:
                    refused = error
                    continue
                if cidr is None:
                    unallocated.append(release.address)
                else:
                    blocks.setdefault(cidr, []).append(release)
            for cidr, of_block in blocks.items():
                for first in range(0, len(of_block), MOST_ADDRESSES):
                    part = of_block[first : first + MOST_ADDRESSES]
                    try:
                        unallocated += self._release_in(cidr, part, view, attempts)
                    except (ReleaseRefused, BlockUnreadable) as error:
                        refused = error
        if refused is not None:
            raise refused
        return unallocated

    def _block_of(self, address: IPAddress, view: View, attempts: Attempts) -> IPNetwork | None:
        while True:
            try:
                cidr, _ = locate(view, containing(view.pools(), address), address)
                if cidr is not None or not view.source.renew():
                    return cidr
            except BlockUnreadable:
                if not view.source.renew():
                    raise
            except StoreUnavailable as error:
                attempts.failed(error)

    def _release_in(
        self, cidr: IPNetwork, releases: Sequence[Release], view: View, attempts: Attempts
    ) -> list[IPAddress]:
        pinned: dict[IPAddress, _Pinned] = {}
        while True:
            try:
                block = view.block(cidr).value
                ordinals, missing = _matching(block, releases, pinned)
                if missing and view.source.renew():
                    continue
                if block is None or not ordinals:
                    return missing
                edit = Edit()
                after = self._freed(edit, view, cidr, block, ordinals)
                match self._session.commit(edit, view, attempts):
                    case Committed():
                        self._after_release(cidr, after, view)
                        return missing
                    case Lost():
                        attempts.lost()
                    case Unknown(reason):
                        pinned = {block.address(o): _pinned(block, o) for o in ordinals}
                        view.source.forget()
                        attempts.failed(StoreUnavailable(reason))
            except (ReleaseRefused, BlockUnreadable):
                if not view.source.renew():
                    raise
            except StoreUnavailable as error:
                attempts.failed(error)

    def _freed(self, edit: Edit, view: View, cidr: IPNetwork, block: Block, ordinals: Iterable[int]) -> Block:
        """Add to the edit a block without some allocations, and what their handles have left; return the block."""
        after = assign.release(
            block, ordinals, now=self._session.now(), cooldown_seconds=view.settings().cooldown_seconds
        )
        edit.block(view.block(cidr), after)
        counts = Counter(owner.handle for o in ordinals if (owner := block.owner(o)) and owner.handle)
        for handle_id, count in sorted(counts.items()):
            handle = view.handle(handle_id)
            if handle.value is not None:
                left = len(after.held_by(handle_id))
                edit.handle(handle, handle.value.minus(cidr, count, left=left))
        return after

    def _after_release(self, cidr: IPNetwork, block: Block, view: View) -> None:
        """Give up the block if it is empty now and its pool no longer selects its node."""
        if block.is_empty and block.node is not None:
            self._ownership.give_up_if_deselected(view, cidr, block.node)

    # --- by handle -----------------------------------------------------------------------------------------------

    def release_handle(self, handle_id: HandleId, deadline: float) -> int:
        """Release all addresses of a handle, in as few transactions as etcd allows; return how many."""
        attempts = Attempts(self._session, deadline, f"releasing the addresses of {handle_id}")
        with self._session.taking_turn():
            view = self._session.fresh_view(attempts.timeout)
            released, was_seen = 0, False
            doubtful: list[_Held] = []
            while True:
                try:
                    handle = view.handle(handle_id)
                    released += sum(not held.is_in(view) for held in doubtful)
                    doubtful = []
                    if handle.value is None and not was_seen:
                        raise DoesNotExist(
                            f"resource does not exist: IPAMHandleKey(id={handle_id})",
                            hint="it was released before, or never used", handle=handle_id,
                        )
                    was_seen = True
                    edit, freed = self._without_handle(handle_id, view)
                    if edit.is_empty:
                        return released
                    match self._session.commit(edit, view, attempts):
                        case Committed():
                            released += len(freed)
                        case Lost():
                            attempts.lost()
                        case Unknown(reason):
                            doubtful = freed
                            view.source.forget()
                            attempts.failed(StoreUnavailable(reason))
                except StoreUnavailable as error:
                    attempts.failed(error)

    def drop_empty_handle(self, handle_id: HandleId, deadline: float) -> bool:
        """Remove the record of a handle that holds no address; False if it holds one, or there is none.

        Nothing is released: who takes an address under the handle at this moment wins.
        """
        attempts = Attempts(self._session, deadline, f"removing the handle {handle_id}")
        with self._session.taking_turn():
            view = self._session.fresh_view(attempts.timeout)
            dropped = False
            while True:
                try:
                    if view.handle(handle_id).value is None:
                        return dropped
                    edit, held = self._without_handle(handle_id, view)
                    if held or edit.is_empty:
                        return False
                    match self._session.commit(edit, view, attempts):
                        case Committed():
                            dropped = True
                        case Lost():
                            attempts.lost()
                        case Unknown(reason):
                            view.source.forget()
                            attempts.failed(StoreUnavailable(reason))
                except StoreUnavailable as error:
                    attempts.failed(error)

    def _without_handle(self, handle_id: HandleId, view: View) -> tuple[Edit, list[_Held]]:
        """Plan the next transaction; blocks that cannot be read keep their place in the handle."""
        edit, freed, capacity, blocks = Edit(), list[_Held](), 0, 0
        handle = view.handle(handle_id)
        if handle.value is None:
            return edit, []
        rest = handle.value
        for cidr in handle.value.counts:
            try:
                read = view.block(cidr)
            except BlockUnreadable:
                continue
            capacity += cidr.num_addresses
            blocks += 1
            if blocks > 1 and (capacity > MOST_CAPACITY or blocks > MOST_BLOCKS):
                break
            ordinals = () if read.value is None else read.value.held_by(handle_id)
            if read.value is not None and ordinals:
                edit.block(read, assign.release(
                    read.value, ordinals, now=self._session.now(), cooldown_seconds=view.settings().cooldown_seconds
                ))
                freed += [_Held(cidr, o, read.value.sequences.get(o, 0), handle_id) for o in ordinals]
            else:
                edit.requires(read.key, read.revision)
            rest = rest.minus(cidr, len(ordinals), left=0)
        if rest != handle.value or not handle.value.counts:
            edit.handle(handle, rest)
        return edit, freed


def _matching(
    block: Block | None, releases: Sequence[Release], pinned: dict[IPAddress, _Pinned]
) -> tuple[list[int], list[IPAddress]]:
    """Return the ordinals to free and the addresses that are not allocated.

    Raises:
        ReleaseRefused: a handle or sequence number does not match.
    """
    ordinals, missing = [], []
    for release in releases:
        address = release.address
        owner = None if block is None else block.owner(block.ordinal(address))
        if block is None or owner is None or owner.released_at is not None:
            if address not in pinned:
                missing.append(address)
            continue
        ordinal = block.ordinal(address)
        if address in pinned:
            if _pinned(block, ordinal) == pinned[address]:
                ordinals.append(ordinal)
            continue
        _check(release, owner, block.sequences.get(ordinal, 0))
        ordinals.append(ordinal)
    return ordinals, missing


def _pinned(block: Block, ordinal: int) -> _Pinned:
    owner = block.owner(ordinal) or Owner()
    return _Pinned(owner.handle, block.sequences.get(ordinal, 0))


def _check(release: Release, owner: Owner, sequence: int) -> None:
    if release.sequence is not None and release.sequence != sequence:
        raise ReleaseRefused(
            f"update conflict: {release.address}: bad sequence number {release.sequence}, its own is {sequence}",
            hint="the address was released and assigned anew since; it is not yours to release",
            address=str(release.address),
        )
    if release.handle is not None and not owner.is_held_by(release.handle):
        raise ReleaseRefused(
            f"update conflict: {release.address}: bad handle {release.handle}, {owner.handle or 'nobody'} holds it",
            hint="somebody else has the address now; it is not yours to release",
            address=str(release.address),
        )
