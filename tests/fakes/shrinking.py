"""Making a world that shows something wrong as small as it can be while it still shows it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource

T = TypeVar("T")


def shrunk(
    records: Mapping[ResourceKey, Resource],
    is_wrong: Callable[[dict[ResourceKey, Resource]], bool],
    *,
    tries: int = 5000,
) -> dict[ResourceKey, Resource]:
    """Return the smallest world found that is still wrong: fewer records first, then simpler ones.

    `tries`: so often `is_wrong` is asked at most.
    """
    asked = itertools.count()
    smallest = dict(records)
    while next(asked) < tries:
        for candidate in _simpler_worlds(smallest):
            if next(asked) >= tries:
                break
            if is_wrong(candidate):
                smallest = candidate
                break
        else:
            break
    return smallest


def _simpler_worlds(records: dict[ResourceKey, Any]) -> Iterator[dict[ResourceKey, Resource]]:
    for key in records:
        yield {other: value for other, value in records.items() if other != key}
    for key, value in records.items():
        for spec in _simpler(value.spec):
            yield records | {key: msgspec.structs.replace(value, spec=spec)}
        for name in value.metadata.labels:
            labels = {k: v for k, v in value.metadata.labels.items() if k != name}
            metadata = msgspec.structs.replace(value.metadata, labels=labels)
            yield records | {key: msgspec.structs.replace(value, metadata=metadata)}


def _simpler(value: Any) -> Iterator[Any]:
    """Return simpler forms of a value: with less in its lists, with fields as if not given."""
    if isinstance(value, list):
        for position in range(len(value)):
            yield value[:position] + value[position + 1 :]
        for position, element in enumerate(value):
            for simpler in _simpler(element):
                yield [*value[:position], simpler, *value[position + 1 :]]
    elif isinstance(value, msgspec.Struct):
        defaults = {field.name: field for field in msgspec.structs.fields(value)}
        for name, field in defaults.items():
            held = getattr(value, name)
            if not field.required:
                default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
                if held == default:
                    continue
                yield msgspec.structs.replace(value, **{name: default})
            for simpler in _simpler(held):
                yield msgspec.structs.replace(value, **{name: simpler})


def shortest(steps: Sequence[T], is_wrong: Callable[[list[T]], bool]) -> list[T]:
    """Return as few of the steps as are still wrong, in their order: halves are left out first, single ones last."""
    left = list(steps)
    size = max(1, len(left) // 2)
    while True:
        at = 0
        while at < len(left):
            candidate = left[:at] + left[at + size :]
            if is_wrong(candidate):
                left = candidate
            else:
                at += size
        if size == 1:
            return left
        size //= 2


def told(records: Mapping[ResourceKey, Resource]) -> str:
    """Return the records as text, what is not given left out."""
    lines = []
    for key, value in sorted(records.items()):
        labels = {k: v for k, v in value.metadata.labels.items() if not k.startswith("projectcalico.org/")}
        lines.append(f"{key} {labels or ''} {msgspec.json.encode(value.spec).decode()}")
    return "\n".join(lines)
