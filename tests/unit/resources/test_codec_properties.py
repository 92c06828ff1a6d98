"""For any resource at all: what is written is read as the same, and what we do not know is never lost."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.codec import document_of, encode
from resources.gotext import JSON, json_bytes
from resources.kinds import all_kinds
from resources.kinds.base import Kind
from resources.reader import (
    Field,
    Flag,
    NumberOrText,
    Reader,
    Real,
    Record,
    Several,
    Shape,
    Text,
    Texts,
    Whole,
    record_of,
)
from resources.tree import Mapping
from resources.yamldoc import documents

WORDS = st.text(alphabet="abcXYZ019._-<>&é\u2028", min_size=1, max_size=8)
DURATIONS = st.sampled_from(["1s", "1m30s", "0s", "1h0m0s"])
UNKNOWN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-4, 4) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
SLOW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def struct_of(kind: Kind[Any]) -> type[msgspec.Struct]:
    cls: object = kind.type
    assert isinstance(cls, type)
    assert issubclass(cls, msgspec.Struct)
    return cls


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Any value of a field, in the form in which it is stored."""
    match shape:
        case Text(form="duration"):
            return DURATIONS
        case Text():
            return WORDS
        case Flag():
            return st.booleans()
        case Whole(low=low, high=high):
            return st.integers(low, high)
        case Real():
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case NumberOrText():
            return st.integers(1, 255) | st.sampled_from(["TCP", "80:81", "http"])
        case Texts():
            return st.dictionaries(WORDS, WORDS, max_size=2)
        case Several():
            return st.lists(values(shape.item), min_size=1, max_size=2)
        case Record():
            return structs(shape)


def structs(record: Record[Any]) -> st.SearchStrategy[Any]:
    """Any struct of a type, with some of its optional fields."""

    def built(draw: st.DrawFn) -> Any:
        needed = [f for f in record.fields.values() if f.required]
        others = [f for f in record.fields.values() if not f.required]
        some = st.lists(st.sampled_from(others), max_size=5, unique_by=lambda f: f.attribute) if others else st.just([])
        chosen: list[Field] = draw(some)
        return record.type(**{f.attribute: draw(values(f.shape)) for f in (*needed, *chosen)})

    return st.composite(lambda draw: built(draw))()


def with_unknown(draw: st.DrawFn, document: JSON) -> JSON:
    """Put members that nobody knows into mappings of structs, at every level."""
    if isinstance(document, list):
        return [with_unknown(draw, item) for item in document]
    if not isinstance(document, dict):
        return document
    grown = {name: with_unknown(draw, item) for name, item in document.items()}
    if "kind" in document or draw(st.booleans()):
        grown["zzz"] = draw(UNKNOWN)
    return grown


def known_maps_stay(document: JSON, original: JSON, within: str = "") -> JSON:
    """Take what was put into maps of texts out again: there every member is known.

    `within`: the field; an empty mapping is written of the one optional map, and otherwise of a struct.
    """
    if isinstance(document, list) and isinstance(original, list):
        return [known_maps_stay(a, b) for a, b in zip(document, original, strict=True)]
    if not isinstance(document, dict) or not isinstance(original, dict):
        return document
    is_map = all(isinstance(item, str) for item in original.values()) and (bool(original) or within == "bpfLogFilters")
    return {
        name: known_maps_stay(item, original.get(name), name)
        for name, item in document.items()
        if not (is_map and name == "zzz")
    }


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
@SLOW
@given(data=st.data())
def test_what_is_written_is_read_as_the_same(kind: Kind[Any], data: st.DataObject) -> None:
    resource = data.draw(structs(record_of(struct_of(kind))))
    metadata = msgspec.structs.replace(resource.metadata, resource_version="")
    resource = msgspec.structs.replace(resource, metadata=metadata)
    written = encode(kind, resource)
    assert msgspec.json.decode(written, type=kind.type) == resource
    assert encode(kind, msgspec.json.decode(written, type=kind.type)) == written
    (node,) = documents(written)
    assert isinstance(node, Mapping)
    reader = Reader(strict=True, dropped=[("kind",), ("apiVersion",)])
    assert (reader.read(kind.type, node), reader.problems) == (resource, [])


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
@SLOW
@given(data=st.data())
def test_nothing_unknown_is_lost(kind: Kind[Any], data: st.DataObject) -> None:
    resource = data.draw(structs(record_of(struct_of(kind))))
    plain = document_of(kind, msgspec.structs.replace(resource, metadata=type(resource.metadata)(name="a")))
    grown = known_maps_stay(data.draw(st.composite(lambda draw: with_unknown(draw, plain))()), plain)
    assert isinstance(grown, dict)
    again = msgspec.json.decode(json_bytes(grown), type=kind.type)
    stored = msgspec.json.decode(json_bytes(grown))
    assert msgspec.json.decode(encode(kind, again, stored)) == stored
