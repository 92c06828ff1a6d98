"""What the syncer says about keys, turned into typed resources (design section 5, point 5).

One bad record harms nobody else: it comes through as a change with `bad` set, to be logged, and without a value, as if
it were not there. For a policy whose selector and types can be read `value` is then a Deny that stands in its place.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from resources.codec import BadRecord, decode, readable_document, with_metadata
from resources.datastore.keys import ResourceKey, kind_prefix, parse_resource_key
from resources.datastore.sync import Change
from resources.kinds.base import Kind, Resource


@dataclass(frozen=True, slots=True)
class TypedChange:
    """A resource is this now; `value` None means it is gone, or cannot be read if `bad` says so."""

    key: ResourceKey
    value: Resource | None
    bad: BadRecord | None = None


class TypedReader:
    """Reads the changes of the kinds that its owner wants; the others are ignored."""

    def __init__(self, kinds: Iterable[Kind[Any]]) -> None:
        self._kinds = {kind.plural: kind for kind in kinds}
        self._namespaced = frozenset(plural for plural, kind in self._kinds.items() if kind.namespaced)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes of the store that hold these kinds."""
        return tuple(kind_prefix(plural) for plural in sorted(self._kinds))

    def read(self, change: Change) -> TypedChange | None:
        """Return what a change means, or None if it is about no resource of these kinds."""
        key = parse_resource_key(change.key, self._namespaced)
        kind = self._kinds.get(key.plural) if key else None
        if key is None or kind is None:
            return None
        if change.value is None:
            return TypedChange(key, None)
        try:
            return TypedChange(key, decode(kind, change.value, change.revision, key).resource)
        except BadRecord as bad:
            return TypedChange(key, _stand_in(kind, change, key), bad)

    def read_all(self, changes: Iterable[Change]) -> Iterator[TypedChange]:
        for change in changes:
            if typed := self.read(change):
                yield typed


def _stand_in(kind: Kind[Any], change: Change, key: ResourceKey) -> Resource | None:
    document = readable_document(change.value or b"")
    closed: Resource | None = None if document is None else kind.closed(document)
    if closed is None:
        return None
    return with_metadata(closed, name=key.name, namespace=key.namespace, resource_version=str(change.revision))
