"""calicoctl on a store in memory, in this process."""

from collections.abc import Callable
from dataclasses import dataclass

from resources.datastore.store import Store


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both outputs."""

    exit: int
    out: str
    err: str


Calicoctl = Callable[..., Ran]
"""``calicoctl("get", "node", stdin="...")``."""


class Unclosed:
    """A store that stays open when a command closes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return (lambda: None) if name == "close" else getattr(self._store, name)
