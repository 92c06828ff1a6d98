"""Which kind a word on the command line means, and in which era's tables it is shown (reference resources.md 1.1, 5.8).

A kind asked for by its v1 spelling (``ipPool``) is shown as v1 did, unless an API version is asked for.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from resources.codec import shown_v1_document
from resources.errors import Rejected
from resources.kinds import all_kinds
from resources.kinds.base import Kind, R, Resource
from resources.kinds.bgppeer import SCOPES
from resources.kinds.naming import norm, segment_name


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


@dataclass(frozen=True, slots=True)
class Filters:
    """Identifiers beside the name, by which v1 asks for what it does not know by a name alone; "" is any."""

    node: str = ""
    scope: str = ""
    orchestrator: str = ""
    workload: str = ""

    def given(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value}

    def refuse(self, wanted: Asked | None) -> None:
        """Raise if a filter is given that the kind does not have.

        Raises:
            FilterNotForKind.
            UnknownScope.
        """
        known = wanted.kind.v1.filters if wanted and wanted.v1 and wanted.kind.v1 else ()
        for name in self.given():
            if name not in known:
                kinds = [k.v1.name for k in all_kinds() if k.v1 is not None and name in k.v1.filters]
                listed = " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
                own = wanted.kind.v1.name if wanted and wanted.kind.v1 else ""
                raise FilterNotForKind(
                    f"--{name} is an identifier of v1's {listed} only",
                    hint=f"write the kind as v1 does, such as: {own if own in kinds else kinds[0]} --{name}=...",
                )
        if self.scope not in ("", *SCOPES):
            raise UnknownScope(f"Unrecognized scope '{self.scope}', must be one of: {', '.join(SCOPES)}")


class FilterNotForKind(Rejected):
    """An identifier of v1 with a kind that does not have it."""

    reference = "filter-not-for-kind"


class UnknownScope(Rejected):
    """``--scope`` with something that is none."""

    reference = "unknown-scope"


def filtered(wanted: Asked, resources: Iterable[R], name: str, filters: Filters) -> list[R]:
    """Return which resources v1 means by a name ("" is any) and filters; its own or the stored name counts."""
    v1 = wanted.kind.v1
    assert v1 is not None
    found = []
    for resource in resources:
        metadata: Any = shown_v1_document(wanted.kind, resource)["metadata"]
        called = metadata.get(v1.named_by, "")
        given = filters.given().items()
        same = all(metadata.get(key, "") in (value, norm(value), segment_name(value)) for key, value in given)
        named = name in ("", resource.metadata.name) or v1.name_of(name) == v1.name_of(called)
        if same and (named or v1.is_called(resource, name)):
            found.append(resource)
    return found


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
    from resources.reader import closest  # only after a mistake

    names = sorted(kind.name for kind in all_kinds())
    near = closest(word, (*names, *(alias for kind in all_kinds() for alias in kind.aliases)))
    raise UnknownKind(
        f"resource type '{word}' is not supported",
        hint=(f"did you mean '{near}'? " if near else "") + "supported: " + ", ".join(names),
    )
