"""What the syncer tells a daemon's owner thread. Implemented in syncer.py.

The contract is weak on purpose: intermediate values may be skipped and repeats may come; a consumer keeps a map and
never relies on history.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A key has this value at this revision now; None means it is gone."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of whole revisions, in order."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class InSync:
    """The first: every prefix has been read completely. After an OutOfSync: the store answers again, and what was
    missed follows at once."""


@dataclass(frozen=True, slots=True)
class OutOfSync:
    """The store does not answer (also said before the first InSync); what was said before may age. An InSync follows
    when it is back."""

    reason: str


SyncMessage = Changes | InSync | OutOfSync
