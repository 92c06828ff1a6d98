"""A block of a pool with its allocations, as stored: the unit of compare-and-swap (reference ipam.md 1, 2.2 to 2.7).

`decode` keeps what it reads, defects and unknown members included, so that `encode` gives the same text again for
everything that any Calico v3 release wrote. Reading methods (`free`, `owner`, ...) see through the defects of 2.7;
`mended` removes them, and every changed block is made from a mended one (ipam.assign).
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from ipam.errors import BlockUnreadable
from resources.datastore import keys
from resources.gotext import escaped
from resources.names import HandleId, IPAddress, IPNetwork, NodeName

Document: TypeAlias = Mapping[str, object]
"""A JSON object as decoded."""

WINDOWS_RESERVED = "windows-reserved-ipam-handle"
"""Handle of the addresses a Windows host keeps back in each block; such a block counts as empty."""

HOST: Final = "host:"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_OPTIONAL_MEMBERS: Final = frozenset({"sequenceNumber", "sequenceNumberForAllocation", "deleted"})


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds some addresses of a block: one entry of its ``attributes`` (reference ipam.md 2.3).

    Two owners are equal if all they say is equal; a member that is null, empty or missing says nothing.
    """

    handle: HandleId | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    released_at: str | None = None
    """Set: nobody holds the address, it is kept back for the cooldown."""
    others: Document = field(default_factory=lambda: MappingProxyType({}))
    """Members we do not know, carried."""
    document: Document | None = field(default=None, compare=False)
    """The entry as read, to be written the same."""

    @property
    def holder(self) -> str | None:
        """The handle without what some imports appended after a carriage return (reference ipam.md 2.7)."""
        return None if self.handle is None else self.handle.split("\r", 1)[0]

    def is_held_by(self, handle: HandleId) -> bool:
        return self.released_at is None and self.holder == handle.split("\r", 1)[0]

    def encoded(self) -> Document:
        if self.document is not None:
            return self.document
        entry: dict[str, object] = {}
        if self.handle is not None:
            entry["handle_id"] = self.handle
        if self.attributes:
            entry["secondary"] = dict(sorted(self.attributes.items()))
        entry.update(self.others)
        if self.released_at is not None:
            entry["releasedAt"] = self.released_at
        return entry


NOBODY_KNOWN: Final = Owner()
"""The owner of an address that is allocated without handle and attributes, or to an entry that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as read or to be written. All ordinals are offsets in `cidr`."""

    cidr: IPNetwork
    affinity: str | None
    """``host:NODE`` or ``virtual:NAME``; None: nobody's."""
    claimed_at: str | None = None
    """RFC 3339; None (all releases before 3.32): very long ago."""
    allocations: tuple[int | None, ...]
    """Per address the index of its owner, None if free."""
    unallocated: tuple[int, ...]
    """The queue of free ordinals as stored; `free` is the one to use."""
    owners: tuple[Owner, ...] | None = None
    """None in a block never allocated from: it is written as null."""
    sequence: int
    sequences: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """Per allocated ordinal the block's sequence number before the write that allocated it."""
    deleted: bool = False
    strict_affinity: bool | None = None
    """Written up to 3.13; without meaning."""
    absent: frozenset[str] = frozenset()
    """Optional members that were missing, to stay missing until they say something."""
    others: Document = field(default_factory=lambda: MappingProxyType({}))
    """Members we do not know, carried."""

    # --- addresses

    @property
    def capacity(self) -> int:
        return len(self.allocations)

    def address(self, ordinal: int) -> IPAddress:
        return self.cidr.network_address + ordinal

    def ordinal(self, address: IPAddress) -> int:
        return int(address) - int(self.cidr.network_address)

    # --- whose

    @property
    def node(self) -> NodeName | None:
        """The node whose block it is; None for nobody's and for a virtual owner's."""
        return NodeName(self.affinity[len(HOST) :]) if self.affinity and self.affinity.startswith(HOST) else None

    @property
    def is_virtual(self) -> bool:
        """It belongs to a load balancer of Calico's: leave it alone (reference ipam.md 2.1)."""
        return self.affinity is not None and not self.affinity.startswith(HOST)

    def claim_age_seconds(self, now: datetime) -> float | None:
        """Return how long ago the block was claimed; None if that is not recorded."""
        claimed = None if self.claimed_at is None else parse_time(self.claimed_at)
        return None if claimed is None else (now - claimed).total_seconds()

    # --- what is in it

    def free(self) -> tuple[int, ...]:
        """Return the free ordinals in order of use.

        An ordinal is free if it has no owner; the stored queue gives the order. What the queue lost comes last.
        """
        allocations, size = self.allocations, len(self.allocations)
        if None not in allocations:
            return ()
        queue = dict.fromkeys(o for o in self.unallocated if 0 <= o < size and allocations[o] is None)
        free_count = allocations.count(None)
        if len(queue) < free_count:
            queue.update(dict.fromkeys(o for o in range(size) if allocations[o] is None))
        return tuple(queue)

    @property
    def in_use(self) -> int:
        """How many addresses are not free, those cooling down included."""
        return self.capacity - self.allocations.count(None)

    def owner(self, ordinal: int) -> Owner | None:
        """Return who holds an ordinal, None if it is free."""
        index = self.allocations[ordinal]
        if index is None:
            return None
        owners = self.owners or ()
        return owners[index] if 0 <= index < len(owners) else NOBODY_KNOWN

    def held_by(self, handle: HandleId) -> tuple[int, ...]:
        """Return the ordinals a handle holds."""
        indexes = {index for index, owner in enumerate(self.owners or ()) if owner.is_held_by(handle)}
        return tuple(o for o, index in enumerate(self.allocations) if index in indexes) if indexes else ()

    @property
    def is_empty(self) -> bool:
        """Nothing is allocated but what a Windows host keeps back. A cooling address is allocated."""
        if self.allocations.count(None) == self.capacity:
            return True
        taken = {index: self.owner(o) for o, index in enumerate(self.allocations) if index is not None}
        return all(owner and (owner.handle or "").lower() == WINDOWS_RESERVED for owner in taken.values())

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with the stored form, in words (reference ipam.md 7.3 "block validation")."""
        owners, size, found = self.owners or (), self.capacity, []
        for o, index in enumerate(self.allocations):
            if index is not None and not 0 <= index < len(owners):
                found.append(f"address {self.address(o)} points at attribute {index} of {len(owners)}")
        used = set(self.allocations)
        found += [f"attribute {index} is used by no address" for index in range(len(owners)) if index not in used]
        seen: set[int] = set()
        for o in self.unallocated:
            if not 0 <= o < size:
                found.append(f"free ordinal {o} is outside the block")
            elif o in seen:
                found.append(f"address {self.address(o)} is twice in the list of free addresses")
            elif self.allocations[o] is not None:
                found.append(f"address {self.address(o)} is both allocated and in the list of free addresses")
            seen.add(o)
        lost = [o for o, index in enumerate(self.allocations) if index is None and o not in seen]
        found += [f"address {self.address(o)} is neither allocated nor in the list of free addresses" for o in lost]
        return tuple(found)

    # --- other forms of the same block

    def mended(self) -> "Block":
        """Return the block without the defects of reference ipam.md 2.7; same allocations, same owners."""
        owners = list(self.owners or ())
        if any(index is not None and not 0 <= index < len(owners) for index in self.allocations):
            unknown = owners.index(NOBODY_KNOWN) if NOBODY_KNOWN in owners else len(owners)
            owners += [NOBODY_KNOWN] * (unknown == len(owners))
            known = range(len(owners))
            allocations = tuple(i if i is None or i in known else unknown for i in self.allocations)
        else:
            allocations = self.allocations
        used = set(allocations)
        if not used.issuperset(range(len(owners))):
            kept = [index for index in range(len(owners)) if index in used]
            moved = {old: new for new, old in enumerate(kept)}
            allocations = tuple(None if index is None else moved[index] for index in allocations)
            owners = [owners[index] for index in kept]
        sequences = self.sequences
        if any(not 0 <= o < len(allocations) or allocations[o] is None for o in sequences):
            sequences = {o: n for o, n in sequences.items() if 0 <= o < len(allocations) and allocations[o] is not None}
        return replace(
            self,
            allocations=allocations,
            unallocated=self.free(),
            owners=None if self.owners is None and not owners else tuple(owners),
            sequences=sequences,
        )

    def swept(self, now: datetime, cooldown_seconds: int) -> "Block":
        """Return the block after freeing what has cooled down long enough; in ordinal order, at the queue's tail."""
        if not any(owner.released_at is not None for owner in self.owners or ()):
            return self
        over = {index for index, owner in enumerate(self.owners or ()) if _has_cooled(owner, now, cooldown_seconds)}
        freed = [o for o, index in enumerate(self.allocations) if index in over]
        if not freed:
            return self
        gone = set(freed)
        return replace(
            self,
            allocations=tuple(None if o in gone else index for o, index in enumerate(self.allocations)),
            unallocated=(*(o for o in self.unallocated if o not in gone), *freed),
        ).mended()


def new_block(cidr: IPNetwork, node: NodeName, now: datetime, sequence: int) -> Block:
    """Return an empty block of a node, claimed now."""
    size = cidr.num_addresses
    return Block(
        cidr=cidr, affinity=HOST + node, claimed_at=format_time(now), allocations=(None,) * size,
        unallocated=tuple(range(size)), sequence=sequence,
    )


def _has_cooled(owner: Owner, now: datetime, cooldown_seconds: int) -> bool:
    if owner.released_at is None:
        return False
    released = parse_time(owner.released_at)
    return cooldown_seconds <= 0 or released is None or (now - released).total_seconds() >= cooldown_seconds


def parse_time(text: str) -> datetime | None:
    """Parse RFC 3339 as Go writes it, to whole seconds; None if it is something else."""
    match = _TIME.match(text)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC and whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the wire form -----------------------------------------------------------------------------------------------


class _Wire(msgspec.Struct, rename={"claimed_at": "affinity_claim_time", "owners": "attributes",
                                    "sequence": "sequenceNumber", "sequences": "sequenceNumberForAllocation",
                                    "strict_affinity": "strictAffinity", "host_affinity": "hostAffinity"}):
    cidr: str
    allocations: list[int | None]
    unallocated: list[int]
    affinity: str | None = None
    claimed_at: str | None = None
    owners: list[dict[str, object]] | None = None
    sequence: int | None = None
    sequences: dict[str, int] | None = None
    deleted: bool | None = None
    strict_affinity: bool | None = None
    host_affinity: str | None = None


class _WireOwner(msgspec.Struct, rename={"handle": "handle_id", "attributes": "secondary",
                                         "released_at": "releasedAt"}):
    handle: str | None = None
    attributes: dict[str, str] | None = None
    released_at: str | None = None


_MEMBERS: Final = frozenset(_Wire.__struct_encode_fields__)
_OWNER_MEMBERS: Final = frozenset(_WireOwner.__struct_encode_fields__)


def decode(cidr: IPNetwork, value: bytes) -> Block:
    """Read the value of a block's key.

    Raises:
        BlockUnreadable: it is no block, not this one, or its lists do not fit its size.
    """
    key = keys.block_key(cidr)
    try:
        document = msgspec.json.decode(value.decode(errors="replace"), type=dict[str, object])
        wire = msgspec.convert(document, _Wire)
        owners = None if wire.owners is None else tuple(_decode_owner(entry) for entry in wire.owners)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BlockUnreadable(key, str(error)) from error
    if wire.cidr != str(cidr) and not _is_same_network(wire.cidr, cidr):
        raise BlockUnreadable(key, f"it says it is {wire.cidr}")
    if len(wire.allocations) != cidr.num_addresses:
        raise BlockUnreadable(key, f"{len(wire.allocations)} allocations for {cidr.num_addresses} addresses")
    old_affinity = HOST + wire.host_affinity if wire.host_affinity else None
    others = {name: member for name, member in document.items() if name not in _MEMBERS}
    return Block(
        cidr=cidr,
        affinity=wire.affinity if wire.affinity else old_affinity,
        claimed_at=wire.claimed_at,
        allocations=tuple(wire.allocations),
        unallocated=tuple(wire.unallocated),
        owners=owners,
        sequence=wire.sequence or 0,
        sequences={int(o): number for o, number in (wire.sequences or {}).items() if o.isascii() and o.isdecimal()},
        deleted=bool(wire.deleted),
        strict_affinity=wire.strict_affinity,
        absent=_OPTIONAL_MEMBERS - document.keys(),
        others=others,
    )


def _decode_owner(entry: dict[str, object]) -> Owner:
    wire = msgspec.convert(entry, _WireOwner)
    return Owner(
        None if wire.handle is None else HandleId(wire.handle),
        wire.attributes or {},
        wire.released_at,
        {name: member for name, member in entry.items() if name not in _OWNER_MEMBERS and member not in (None, {})},
        entry,
    )


def _is_same_network(text: str, cidr: IPNetwork) -> bool:
    try:
        return ipaddress.ip_network(text) == cidr
    except ValueError:
        return False


def encode(block: Block) -> bytes:
    """Return the value of a block's key, byte for byte as Calico writes it (reference ipam.md 2.2)."""
    document: dict[str, object] = {"cidr": str(block.cidr), "affinity": block.affinity}
    if block.claimed_at is not None:
        document["affinity_claim_time"] = block.claimed_at
    if block.strict_affinity is not None:
        document["strictAffinity"] = block.strict_affinity
    document["allocations"] = list(block.allocations)
    document["unallocated"] = list(block.unallocated)
    document["attributes"] = None if block.owners is None else [dict(owner.encoded()) for owner in block.owners]
    if block.sequence or "sequenceNumber" not in block.absent:
        document["sequenceNumber"] = block.sequence
    if block.sequences or "sequenceNumberForAllocation" not in block.absent:
        document["sequenceNumberForAllocation"] = dict(sorted((str(o), n) for o, n in block.sequences.items()))
    if block.deleted or "deleted" not in block.absent:
        document["deleted"] = block.deleted
    document.update(block.others)
    return escaped(msgspec.json.encode(document))
