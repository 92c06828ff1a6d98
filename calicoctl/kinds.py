"""Which kind a word on the command line means, and in which era's tables it is shown (reference resources.md 1.1, 5.8).

A kind asked for by its v1 spelling (``ipPool``) is shown as v1 did, unless an API version is asked for.
"""

from dataclasses import dataclass
from typing import Any

from resources.errors import Rejected
from resources.kinds import all_kinds
from resources.kinds.base import Kind, Resource


class UnknownKind(Rejected):
    """No kind goes by that word."""

    reference = "unknown-kind"


def _short(kind: Kind[Any]) -> str:
    short = min((alias for alias in kind.aliases if len(alias) > 2), key=len, default="")
    return short if short != kind.name.lower() else ""


def _words() -> str:
    words = sorted(f"{kind.name} ({short})" if (short := _short(kind)) else kind.name for kind in all_kinds())
    v1 = sorted(kind.v1.name for kind in all_kinds() if kind.v1 is not None)
    return f"Kinds, upper or lower case: {', '.join(words)}. As v1 spells them: {', '.join(v1)}."


KINDS = _words()
"""For the help of commands that take a kind."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A kind, and whether v1's tables, messages and YAML are wanted."""

    kind: Kind[Any]
    v1: bool

    @property
    def name(self) -> str:
        """The kind as its era spells it."""
        return self.kind.v1.name if self.v1 and self.kind.v1 else self.kind.name

    def label(self, resource: Resource) -> str:
        """Return how messages of the era name the object."""
        if self.v1 and self.kind.v1:
            return self.kind.v1.identifier(resource)
        return self.kind.label(resource.metadata.name, resource.metadata.namespace)


def asked(word: str, api_version: str | None) -> Asked:
    """Return what `word` asks for.

    Raises:
        UnknownKind: no kind goes by it.
    """
    for kind in all_kinds():
        v1 = kind.v1
        if v1 is not None and word == v1.name and word != word.lower():
            return Asked(kind, api_version != "v3")
    lower = word.lower()
    if api_version == "v1":
        for kind in all_kinds():
            if kind.v1 is not None and lower == kind.v1.name.lower():
                return Asked(kind, True)
    for kind in all_kinds():
        if lower == kind.name.lower() or lower in kind.aliases:
            return Asked(kind, api_version == "v1" and kind.v1 is not None)
    for kind in all_kinds():
        if kind.v1 is not None and lower == kind.v1.name.lower():
            return Asked(kind, api_version != "v3")
    raise UnknownKind(
        f"resource type '{word}' is not supported",
        hint="supported: " + ", ".join(sorted(kind.name for kind in all_kinds())),
    )
