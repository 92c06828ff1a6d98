"""The little of IPAM's records that routing needs: whose a block is, which of its addresses others hold, and whether a
node's claim to it stands.

A reader for others' data: it takes every form that releases of Calico wrote (reference ipam.md 2.2, 2.4, 2.7) and reads
only these members. `ipam` has the whole of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from resources.names import IPAddress, IPNetwork, NodeName

_HOST = "host:"


class MalformedRecord(ValueError):
    """A record that is no JSON object, or whose members have other types. The text says which."""


class AffinityState(Enum):
    """What a node's claim to a block is worth."""

    CONFIRMED = "confirmed"
    PENDING = "pending"
    PENDING_DELETION = "pendingDeletion"


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block as far as packets care."""

    owner: NodeName | None
    """The node that it is affine to; None: nobody's, or not a host's."""
    borrowed: Mapping[IPAddress, NodeName] = field(default_factory=lambda: MappingProxyType({}))
    """Addresses of it that another node than the owner holds (reference ipam.md 1, Borrowing)."""


def block_owner(cidr: IPNetwork, value: bytes) -> NodeName | None:
    """Return the node that a block is affine to, or None: nobody's, not a host's, or marked as deleted.

    Raises:
        MalformedRecord: the record is unusable, or is about another block than its key says.
    """
    record = _block(cidr, value)
    return None if record is None else _owner(record)


def block_view(cidr: IPNetwork, value: bytes) -> BlockView | None:
    """Return whose a block is and who else holds addresses of it, or None if it is marked as deleted.

    Raises:
        MalformedRecord: as `block_owner`, or its allocations are not those of a block of this size.
    """
    record = _block(cidr, value)
    if record is None:
        return None
    owner = _owner(record)
    return BlockView(owner, _borrowed(cidr, record, owner))


def _block(cidr: IPNetwork, value: bytes) -> dict[str, object] | None:
    record = _object(value)
    stated = record.get("cidr")
    if stated != str(cidr):
        raise MalformedRecord(f"its cidr is {stated!r}, its key says {cidr}")
    return None if _deleted(record) else record


def _owner(record: dict[str, object]) -> NodeName | None:
    affinity = record.get("affinity")
    if affinity is None:
        # the form before 1.0 of libcalico, without a prefix
        affinity = record.get("hostAffinity")
        if affinity is None:
            return None
        if isinstance(affinity, str) and affinity:
            return NodeName(affinity)
    if not isinstance(affinity, str):
        raise MalformedRecord(f"its affinity is {affinity!r}, not a text")
    return NodeName(affinity[len(_HOST) :]) if affinity.startswith(_HOST) and affinity != _HOST else None


def _borrowed(cidr: IPNetwork, record: dict[str, object], owner: NodeName | None) -> dict[IPAddress, NodeName]:
    allocations, attributes = record.get("allocations"), record.get("attributes")
    if not isinstance(allocations, list) or len(allocations) != cidr.num_addresses:
        raise MalformedRecord(f"it has no list of {cidr.num_addresses} allocations")
    holders = [_holder(entry) for entry in attributes] if isinstance(attributes, list) else []
    if not {holder for holder in holders if holder is not None} - {owner}:
        return {}
    found: dict[IPAddress, NodeName] = {}
    for ordinal, index in enumerate(allocations):
        # an index that points nowhere is an address with an unknown owner (reference ipam.md 2.7)
        holder = holders[index] if type(index) is int and 0 <= index < len(holders) else None
        if holder is not None and holder != owner:
            found[cidr.network_address + ordinal] = NodeName(holder)
    return found


def _holder(attributes: object) -> str | None:
    secondary = attributes.get("secondary") if isinstance(attributes, dict) else None
    node = secondary.get("node") if isinstance(secondary, dict) else None
    return node if isinstance(node, str) and node else None


def affinity_state(value: bytes) -> AffinityState | None:
    """Return the state of an affinity, or None if it is marked as deleted.

    An empty value, or one without a state, is a confirmed one (written before March 2018).

    Raises:
        MalformedRecord: no JSON object, or a state that nobody writes.
    """
    record = _object(value) if value else {}
    if _deleted(record):
        return None
    state = record.get("state")
    if state is None or state == "":
        return AffinityState.CONFIRMED
    try:
        return AffinityState(state)
    except ValueError:
        raise MalformedRecord(f"its state is {state!r}") from None


def _object(value: bytes) -> dict[str, object]:
    try:
        record = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord(f"it is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise MalformedRecord("it is no JSON object")
    return record


def _deleted(record: dict[str, object]) -> bool:
    return record.get("deleted") is True
