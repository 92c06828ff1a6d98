"""A node's claim ticket for a block, as stored (reference ipam.md 1, 2.4). The block's own word is the truth."""

import enum

import msgspec


class AffinityState(enum.Enum):
    """How far a step-wise writer got. Our transactions only ever leave CONFIRMED or no ticket."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


CONFIRMED_VALUE = b'{"state":"confirmed","deleted":false}'


class _Wire(msgspec.Struct):
    state: str = ""
    deleted: bool = False


def decode(value: bytes) -> AffinityState | None:
    """Read a ticket; None if it is marked deleted.

    Before March 2018 the value was empty and meant confirmed. What makes no sense is read as PENDING: it has to be
    confirmed before it counts, and only the block decides whether it can be.
    """
    if not value:
        return AffinityState.CONFIRMED
    try:
        wire = msgspec.json.decode(value, type=_Wire)
        state = AffinityState(wire.state or "confirmed")
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return AffinityState.PENDING
    return None if wire.deleted else state
