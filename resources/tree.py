"""A document before it has types: scalars as they were typed, mappings, sequences, and where each of them stands.

Made from YAML by `resources.yamldoc`, from stored JSON by `from_json`; read by `resources.reader`.
"""

from dataclasses import dataclass

from resources.gotext import JSON
from resources.kinds.base import Path


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column in the file, both from 1."""

    line: int
    column: int


NOWHERE = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as typed. `plain`: without quotes, so that it may also stand for a number, a boolean or nothing."""

    text: str
    plain: bool
    at: Position = NOWHERE
    tag: str = ""
    """An explicit tag such as ``!has(a)``; standard ones (``!!str``) are resolved already."""


@dataclass(frozen=True, slots=True)
class Entry:
    key: Scalar
    value: "Node"


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: tuple[Entry, ...]
    at: Position = NOWHERE
    tag: str = ""

    def get(self, name: str) -> "Node | None":
        return next((entry.value for entry in self.entries if entry.key.text == name), None)


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple["Node", ...]
    at: Position = NOWHERE
    tag: str = ""


Node = Scalar | Mapping | Sequence

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and not node.tag and node.text in _NULLS


def from_json(value: JSON) -> Node:
    """Return the tree of parsed JSON; strings are quoted, everything else is plain."""
    match value:
        case str():
            return Scalar(value, plain=False)
        case bool():
            return Scalar("true" if value else "false", plain=True)
        case None:
            return Scalar("null", plain=True)
        case int() | float():
            return Scalar(str(value), plain=True)
        case list():
            return Sequence(tuple(from_json(item) for item in value))
        case dict():
            return Mapping(
                tuple(Entry(Scalar(name, plain=False), from_json(item)) for name, item in value.items())
            )


def locate(node: Node, path: Path) -> Position:
    """Return where a path leads, or where the last part of it that exists is."""
    at = node.at
    for part in path:
        if isinstance(part, int):
            if not isinstance(node, Sequence) or not 0 <= part < len(node.items):
                break
            node = node.items[part]
            at = node.at
            continue
        entry = next((e for e in node.entries if e.key.text == part), None) if isinstance(node, Mapping) else None
        if entry is None:
            break
        node = entry.value
        at = entry.key.at if isinstance(node, Mapping | Sequence) else node.at
    return at


def is_there(node: Node, path: Path) -> bool:
    """Return whether a path leads to something."""
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str):
            entry = node.get(part)
        elif isinstance(node, Sequence) and isinstance(part, int) and 0 <= part < len(node.items):
            entry = node.items[part]
        else:
            entry = None
        if entry is None:
            return False
        node = entry
    return True
