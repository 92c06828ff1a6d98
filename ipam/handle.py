"""Handles: a caller's name for a group of allocations, kept as an index from handle to blocks (reference ipam.md 2.4).

The index may overstate (more than the blocks hold) and may be missing; blocks are the truth.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from ipam.block import Document
from resources.gotext import escaped
from resources.names import HandleId, IPNetwork


def new_handle() -> HandleId:
    """Return a handle nobody has: ``docker-`` and 32 hex digits.

    A transaction that compares "this handle does not exist" can take effect once, however often it is repeated
    (reference ipam.md 5.5).
    """
    return HandleId(f"docker-{secrets.token_hex(16)}")


@dataclass(frozen=True, slots=True)
class Handle:
    """How many addresses a handle has in which blocks."""

    counts: Mapping[IPNetwork, int] = field(default_factory=lambda: MappingProxyType({}))
    others: Document = field(default_factory=lambda: MappingProxyType({}))
    """Members we do not know, carried."""

    def plus(self, cidr: IPNetwork, count: int) -> "Handle":
        return replace(self, counts={**self.counts, cidr: self.counts.get(cidr, 0) + count})

    def minus(self, cidr: IPNetwork, count: int, *, left: int) -> "Handle":
        """Return the handle after `count` addresses of a block were released.

        `left` says how many the block really holds for it: with none left the block's entry goes, however many the
        handle claimed.
        """
        rest = self.counts.get(cidr, 0) - count
        counts = {block: number for block, number in self.counts.items() if block != cidr}
        if left > 0:
            counts[cidr] = max(rest, left)
        return replace(self, counts=counts)


class _Wire(msgspec.Struct):
    block: dict[str, int] | None = None
    deleted: bool = False


def decode(value: bytes) -> Handle | None:
    """Read a handle; None if it is marked deleted. One that makes no sense is empty: blocks are the truth."""
    try:
        document = msgspec.json.decode(value, type=dict[str, object])
        wire = msgspec.convert(document, _Wire)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Handle()
    if wire.deleted:
        return None
    counts: dict[IPNetwork, int] = {}
    for text, count in (wire.block or {}).items():
        try:
            counts[ipaddress.ip_network(text)] = count
        except ValueError:
            continue
    return Handle(counts, {name: member for name, member in document.items() if name not in ("block", "deleted")})


def encode(handle: Handle) -> bytes:
    counts = {str(cidr): count for cidr, count in handle.counts.items() if count > 0}
    return escaped(msgspec.json.encode({"block": dict(sorted(counts.items())), "deleted": False, **handle.others}))


FENCE_VALUE = encode(Handle())
"""A handle without blocks: it makes every transaction that expects the handle's absence lose."""
