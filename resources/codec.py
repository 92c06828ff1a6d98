"""Stored JSON <-> typed resource (reference resources.md 1.2).

What is written is byte for byte what the original writes: members in the order of the types, zero values omitted, Go's
numbers and escapes, no resourceVersion. What we do not know in the stored document is carried through at every level:
`encode` takes the document as it was read beside the resource as it shall be.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Generic

import msgspec

from resources.datastore.keys import ResourceKey
from resources.errors import Rejected
from resources.gotext import JSON, json_bytes
from resources.kinds.base import API_VERSION, API_VERSION_V1, Kind, Metadata, Path, Problem, R

_NEVER_STORED = ("resourceVersion", "selfLink")
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a value raises that is none, or one of more levels than Python can follow."""


class BadRecord(Rejected):
    """A stored record that cannot be used. `problems` says what is wrong with it."""

    reference: ClassVar[str] = "bad-record"

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(
            f"{name} cannot be read: {'; '.join(map(str, self.problems))}",
            hint="mend it with calicoctl replace, or remove it with calicoctl delete",
            name=name,
        )


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A resource as read: complete, with its revision as `resource_version`, and the bytes it came from."""

    resource: R
    value: bytes
    revision: int

    @property
    def document(self) -> dict[str, JSON]:
        """The stored document, with whatever we do not know in it."""
        return readable_document(self.value) or {}


def decode(kind: Kind[R], value: bytes, revision: int, key: ResourceKey | None = None) -> Stored[R]:
    """Read a stored value. `key` names it where the value itself has no name, and in errors.

    Raises:
        BadRecord: it is no JSON, has values of wrong types, or lacks what every reader needs.
    """
    name = kind.label(key.name, key.namespace) if key else kind.name
    try:
        resource = _decoder(kind).decode(value)
    except _NO_JSON:
        resource = _decode_carefully(kind, value, name)
    metadata = resource.metadata
    resource = _with_metadata(
        resource,
        msgspec.structs.replace(
            metadata,
            resource_version=str(revision),
            name=metadata.name or (key.name if key else ""),
            namespace=metadata.namespace or (key.namespace if key else ""),
        ),
    )
    resource = kind.complete(resource)
    if problems := tuple(kind.needs(resource)):
        raise BadRecord(name, problems)
    return Stored(resource, value, revision)


def readable_document(value: bytes) -> dict[str, JSON] | None:
    """Return the JSON object of a record that may be bad, or None if it is none."""
    try:
        document = msgspec.json.decode(value)
    except _NO_JSON:
        return None
    return document if isinstance(document, dict) else None


@cache
def _decoder(kind: Kind[R]) -> "msgspec.json.Decoder[R]":
    return msgspec.json.Decoder(kind.type)


def _decode_carefully(kind: Kind[R], value: bytes, name: str) -> R:
    """Read what the fast decoder refuses: nulls are harmless (Go means "not given"); the rest is explained."""
    from resources.reader import Reader
    from resources.tree import from_json

    try:
        document = from_json(msgspec.json.decode(value))
    except RecursionError as error:
        raise BadRecord(name, [Problem((), "", "its JSON is nested too deeply to be read")]) from error
    except _NO_JSON as error:
        raise BadRecord(name, [Problem((), "", f"it is no JSON ({error})")]) from error
    reader = Reader(strict=False)
    resource = reader.read(_struct(kind), document)
    if reader.problems or resource is None:
        raise BadRecord(name, reader.problems or [Problem((), "", "it is no JSON object")])
    return resource  # type: ignore[return-value]


def _struct(kind: Kind[R]) -> type[msgspec.Struct]:
    assert issubclass(kind.type, msgspec.Struct)
    return kind.type


def _with_metadata(resource: R, metadata: Metadata) -> R:
    assert isinstance(resource, msgspec.Struct)
    return msgspec.structs.replace(resource, metadata=metadata)


def with_metadata(resource: R, **changes: Any) -> R:
    """Return the resource with some of its metadata changed."""
    return _with_metadata(resource, msgspec.structs.replace(resource.metadata, **changes))


def encode(kind: Kind[R], resource: R, stored: Mapping[str, JSON] | None = None) -> bytes:
    """Return the bytes to store. `stored` is the document that they replace: its unknown fields are kept."""
    document = document_of(kind, resource, stored)
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    for member in _NEVER_STORED:
        metadata.pop(member, None)
    return json_bytes(document)


def document_of(kind: Kind[R], resource: R, stored: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """Return the resource as a JSON document in the order of the types, as it is stored (but with resourceVersion)."""
    assert isinstance(resource, msgspec.Struct)
    head: dict[str, JSON] = {"kind": kind.name, "apiVersion": API_VERSION}
    return head | _document(resource, stored, kind.always, known=head)


def shown_document(kind: Kind[R], resource: R) -> dict[str, JSON]:
    """Return the document as `get -o yaml` and `-o json` show it: empty sides of rules are left out."""
    assert isinstance(resource, msgspec.Struct)
    head: dict[str, JSON] = {"kind": kind.name, "apiVersion": API_VERSION}
    return head | _document(resource, None, kind.always, hide_empty=True)


def shown_v1_document(kind: Kind[R], resource: R) -> dict[str, JSON]:
    """Return the document in the v1 spelling of a kind that has one."""
    assert kind.v1 is not None
    head: dict[str, JSON] = {"apiVersion": API_VERSION_V1, "kind": kind.v1.name}
    return head | _document(kind.v1.from_v3(resource), None, (), hide_empty=True)


@dataclass(frozen=True, slots=True)
class _Member:
    attribute: str
    name: str
    default: object
    optional: bool
    """May be left out when it has its zero value."""


@cache
def _members(cls: type[msgspec.Struct]) -> tuple[_Member, ...]:
    defaults = cls.__struct_defaults__
    missing = len(cls.__struct_fields__) - len(defaults)
    found = []
    for index, (attribute, name) in enumerate(
        zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    ):
        default = msgspec.NODEFAULT if index < missing else defaults[index - missing]
        optional = cls.__struct_config__.omit_defaults and default is not msgspec.NODEFAULT
        found.append(_Member(attribute, name, default, optional))
    return tuple(found)


def _document(
    value: msgspec.Struct,
    stored: object,
    always: tuple[Path, ...],
    *,
    known: Mapping[str, JSON] | None = None,
    hide_empty: bool = False,
) -> dict[str, JSON]:
    members = _members(type(value))
    before: Mapping[str, JSON] = stored if isinstance(stored, dict) else {}
    document: dict[str, JSON] = {}
    for member in members:
        item = getattr(value, member.attribute)
        inner = tuple(path[1:] for path in always if path[0] == member.name)
        if item is None or (member.optional and () not in inner and _is_zero(item, member.default)):
            continue
        if isinstance(item, msgspec.Struct):
            part = _document(item, before.get(member.name), inner, hide_empty=hide_empty)
            if part or not hide_empty or not member.optional or member.default is None:
                document[member.name] = part
        elif isinstance(item, list):
            document[member.name] = _list(item, before.get(member.name), hide_empty)
        else:
            document[member.name] = dict(sorted(item.items())) if isinstance(item, dict) else item
    names = {member.name for member in members}
    document.update((n, v) for n, v in before.items() if n not in names and n not in (known or ()))
    return document


def _is_zero(item: object, default: object) -> bool:
    """Return whether Go's omitempty leaves it out: never a pointer (None by default) nor a struct."""
    if default is None or isinstance(item, msgspec.Struct):
        return False
    return not item if isinstance(item, list | dict) else item == default


def _list(items: list[Any], stored: object, hide_empty: bool) -> list[JSON]:
    if not items or not isinstance(items[0], msgspec.Struct):
        return list(items)
    partners = _partners(items, stored) if isinstance(stored, list) else [None] * len(items)
    return [
        _document(item, partner, (), hide_empty=hide_empty) for item, partner in zip(items, partners, strict=True)
    ]


def _partners(items: list[msgspec.Struct], stored: list[object]) -> list[object]:
    """Return, for each item, the stored entry that it is: the equal one, or the one in its place if none came or went.

    So unknown fields stay with their entry when others are inserted, removed or moved, and are not handed to another.
    """
    read = [_converted(entry, type(items[0])) for entry in stored]
    free = set(range(len(stored)))
    partners: list[object] = [None] * len(items)
    open_items = []
    for index, item in enumerate(items):
        same = [j for j in free if read[j] == item]
        if not same:
            open_items.append(index)
            continue
        match = index if index in same else min(same)
        free.discard(match)
        partners[index] = stored[match]
    if len(items) == len(stored):
        for index in open_items:
            if index in free:
                partners[index] = stored[index]
    return partners


def _converted(entry: object, cls: type[msgspec.Struct]) -> msgspec.Struct | None:
    try:
        return msgspec.convert(entry, cls)
    except msgspec.ValidationError:
        return None
