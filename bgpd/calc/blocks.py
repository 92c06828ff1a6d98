"""The little of IPAM's records that routing needs: whose a block is, and whether this node's claim to it stands.

A reader for others' data: it takes every form that releases of Calico wrote (reference ipam.md 2.2, 2.4, 2.7) and reads
only these members. `ipam` has the whole of it.
"""

import json
from enum import Enum

from resources.names import IPNetwork, NodeName

_HOST = "host:"


class MalformedRecord(ValueError):
    """A record that is no JSON object, or whose members have other types. The text says which."""


class AffinityState(Enum):
    """What a node's claim to a block is worth."""

    CONFIRMED = "confirmed"
    PENDING = "pending"
    PENDING_DELETION = "pendingDeletion"


def block_owner(cidr: IPNetwork, value: bytes) -> NodeName | None:
    """Return the node that a block is affine to, or None: nobody's, not a host's, or marked as deleted.

    Raises:
        MalformedRecord: the record is unusable, or is about another block than its key says.
    """
    record = _object(value)
    stated = record.get("cidr")
    if stated != str(cidr):
        raise MalformedRecord(f"its cidr is {stated!r}, its key says {cidr}")
    if _deleted(record):
        return None
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
