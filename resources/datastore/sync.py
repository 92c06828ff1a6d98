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
    """Every prefix has been read completely for the first time, or again after a loss."""


@dataclass(frozen=True, slots=True)
class OutOfSync:
    """The store does not answer; what was said before may age. An InSync follows when it is back."""

    reason: str


SyncMessage = Changes | InSync | OutOfSync
