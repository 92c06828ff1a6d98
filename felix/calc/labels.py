"""Which selectors match which labelled items, kept up to date as either changes (reference felix.md 4.6).

An item has labels of its own and inherits those of its parents: its own win, then the first parent in listed order.
Cost follows the change: a changed item is tried only against selectors whose necessary condition it satisfies, a new
selector only against items that satisfy its necessary condition, whichever of its conditions is satisfied by the
fewest.

With ten thousand items most of felix's memory is in here, so groups are dicts without values (half as large as sets),
and which selectors match an item is kept with the selectors only: they are few among those that the item's labels
lead to.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Generic, TypeVar

from resources.selector import Condition, Requirement, Selector

I = TypeVar("I", bound=Hashable)  # noqa: E741
S = TypeVar("S", bound=Hashable)

Labels = Mapping[str, str]
NO_LABELS: Labels = MappingProxyType({})


def interned(labels: Labels) -> Labels:
    """Return the labels with texts and whole mappings shared between items: thousands of items carry the same few."""
    return _shared(tuple(sorted((str(key), str(value)) for key, value in labels.items()))) if labels else NO_LABELS


@lru_cache(maxsize=4096)
def _shared(labels: tuple[tuple[str, str], ...]) -> Labels:
    return MappingProxyType({sys.intern(key): sys.intern(value) for key, value in labels})


Place = tuple[str, str | None]
"""Where a selector is filed: under a label with this value, or (None) with any."""


@dataclass(frozen=True, slots=True)
class _Item:
    labels: Labels
    parents: tuple[str, ...]


@dataclass(slots=True)
class _Wanted(Generic[I]):
    """A selector, and where it is filed (empty: nowhere, it may match anything)."""

    selector: Selector
    places: tuple[Place, ...] = ()
    matching: dict[I, None] = field(default_factory=dict)


class LabelIndex(Generic[I, S]):
    """Calls `matched(selector id, item)` and `unmatched(selector id, item)` as matches begin and end."""

    def __init__(self, matched: Callable[[S, I], None], unmatched: Callable[[S, I], None]) -> None:
        self._matched = matched
        self._unmatched = unmatched
        self._items: dict[I, _Item] = {}
        self._items_by_label: dict[str, dict[str, dict[I, None]]] = {}
        self._parent_labels: dict[str, Labels] = {}
        self._children: dict[str, dict[I, None]] = {}
        self._selectors: dict[S, _Wanted[I]] = {}
        self._filed: dict[str, dict[str | None, dict[S, None]]] = {}
        self._unfiled: dict[S, None] = {}
        self.evaluations = 0
        """How often a selector was tried on an item: the cost, for tests and metrics."""

    def items_of(self, selector_id: S) -> frozenset[I]:
        """Return the items that the selector matches."""
        wanted = self._selectors.get(selector_id)
        return frozenset(wanted.matching) if wanted else frozenset()

    def is_used(self, selector_id: S) -> bool:
        """Tell whether the selector matches anything."""
        wanted = self._selectors.get(selector_id)
        return wanted is not None and bool(wanted.matching)

    def selectors_of(self, item: I) -> frozenset[S]:
        """Return the selectors that match the item."""
        known = self._items.get(item)
        return frozenset(self._matching(item, self._effective(known))) if known else frozenset()

    def set_item(self, item: I, labels: Labels, parents: tuple[str, ...] = ()) -> None:
        """Add an item or change its labels or parents."""
        known = self._items.get(item)
        now = _Item(labels, parents)
        if known == now:
            return
        before = self._effective(known) if known else NO_LABELS
        for parent in set(known.parents).difference(parents) if known else ():
            self._orphan(item, parent)
        for parent in parents:
            self._children.setdefault(parent, {})[item] = None
        self._items[item] = now
        self._relabelled(item, before, self._effective(now))

    def remove_item(self, item: I) -> None:
        """Forget an item; its matches end."""
        known = self._items.get(item)
        if known is None:
            return
        labels = self._effective(known)
        for selector_id in self._matching(item, labels):
            self._end(selector_id, self._selectors[selector_id], item)
        self._unindex(item, labels)
        for parent in set(known.parents):
            self._orphan(item, parent)
        del self._items[item]

    def set_parent(self, parent: str, labels: Labels) -> None:
        """Set the labels that a parent hands down; none if it is gone."""
        if self._parent_labels.get(parent, NO_LABELS) == labels:
            return
        children = [(item, self._items[item]) for item in self._children.get(parent, ())]
        before = [self._effective(known) for _, known in children]
        if labels:
            self._parent_labels[parent] = labels
        else:
            del self._parent_labels[parent]
        for (item, known), old in zip(children, before, strict=True):
            self._relabelled(item, old, self._effective(known))

    def set_selector(self, selector_id: S, selector: Selector) -> None:
        """Add a selector or replace it by another."""
        wanted = self._selectors.get(selector_id)
        if wanted is not None:
            if wanted.selector == selector:
                return
            self._unfile(selector_id, wanted)
            for item in [i for i in wanted.matching if not self._matches(selector, self._effective(self._items[i]))]:
                self._end(selector_id, wanted, item)
            wanted.selector = selector
        else:
            wanted = self._selectors[selector_id] = _Wanted(selector)
        conditions = selector.conditions()
        self._file(selector_id, wanted, conditions)
        for item in self._candidates(conditions):
            if item not in wanted.matching and self._matches(selector, self._effective(self._items[item])):
                self._begin(selector_id, wanted, item)

    def remove_selector(self, selector_id: S) -> None:
        """Forget a selector; its matches end."""
        wanted = self._selectors.get(selector_id)
        if wanted is None:
            return
        self._unfile(selector_id, wanted)
        for item in list(wanted.matching):
            self._end(selector_id, wanted, item)
        del self._selectors[selector_id]

    def _orphan(self, item: I, parent: str) -> None:
        del self._children[parent][item]
        if not self._children[parent]:
            del self._children[parent]

    def _effective(self, item: _Item) -> Labels:
        inherited = [labels for parent in item.parents if (labels := self._parent_labels.get(parent))]
        if not inherited:
            return item.labels
        effective: dict[str, str] = {}
        for labels in reversed(inherited):
            effective.update(labels)
        effective.update(item.labels)
        return effective

    def _matches(self, selector: Selector, labels: Labels) -> bool:
        self.evaluations += 1
        return selector.matches(labels)

    def _begin(self, selector_id: S, wanted: _Wanted[I], item: I) -> None:
        wanted.matching[item] = None
        self._matched(selector_id, item)

    def _end(self, selector_id: S, wanted: _Wanted[I], item: I) -> None:
        del wanted.matching[item]
        self._unmatched(selector_id, item)

    def _relabelled(self, item: I, before: Labels, after: Labels) -> None:
        matching = self._matching(item, before)
        self._unindex(item, before, keep=after)
        for label, value in after.items():
            self._items_by_label.setdefault(label, {}).setdefault(value, {})[item] = None
        for selector_id in matching:
            wanted = self._selectors[selector_id]
            if not self._matches(wanted.selector, after):
                self._end(selector_id, wanted, item)
        for selector_id in self._possible(after).difference(matching):
            wanted = self._selectors[selector_id]
            if self._matches(wanted.selector, after):
                self._begin(selector_id, wanted, item)

    def _unindex(self, item: I, labels: Labels, keep: Labels = NO_LABELS) -> None:
        for label, value in labels.items():
            if keep.get(label) == value:
                continue
            values = self._items_by_label[label]
            del values[value][item]
            if not values[value]:
                del values[value]
            if not values:
                del self._items_by_label[label]

    def _matching(self, item: I, labels: Labels) -> list[S]:
        """Return the selectors that match the item, which has had these labels."""
        return [selector_id for selector_id in self._possible(labels) if item in self._selectors[selector_id].matching]

    def _possible(self, labels: Labels) -> set[S]:
        """Return the selectors whose necessary condition an item with these labels satisfies."""
        possible = set(self._unfiled)
        for label, value in labels.items():
            values = self._filed.get(label)
            if values is not None:
                possible.update(values.get(None, ()), values.get(value, ()))
        return possible

    def _candidates(self, conditions: tuple[Condition, ...]) -> Iterable[I]:
        """Return items that satisfy the condition that the fewest satisfy."""
        if not conditions:
            return list(self._items)
        best = min(conditions, key=lambda condition: sum(map(self._satisfying, condition)))
        found: set[I] = set()
        for requirement in best:
            values = self._items_by_label.get(requirement.label, {})
            for value in values if requirement.values is None else requirement.values:
                found.update(values.get(value, ()))
        return found

    def _satisfying(self, requirement: Requirement) -> int:
        values = self._items_by_label.get(requirement.label, {})
        chosen = values if requirement.values is None else requirement.values
        return sum(len(values[value]) for value in chosen if value in values)

    def _file(self, selector_id: S, wanted: _Wanted[I], conditions: tuple[Condition, ...]) -> None:
        """File the selector where the fewest others are: a label that all selectors mention tells nothing."""
        if not conditions:
            self._unfiled[selector_id] = None
            return
        wanted.places = min(map(_places, conditions), key=lambda places: sum(map(self._filed_at, places)))
        for label, value in wanted.places:
            self._filed.setdefault(label, {}).setdefault(value, {})[selector_id] = None

    def _filed_at(self, place: Place) -> int:
        label, value = place
        return len(self._filed.get(label, {}).get(value, ()))

    def _unfile(self, selector_id: S, wanted: _Wanted[I]) -> None:
        self._unfiled.pop(selector_id, None)
        for label, value in wanted.places:
            values = self._filed[label]
            del values[value][selector_id]
            if not values[value]:
                del values[value]
            if not values:
                del self._filed[label]
        wanted.places = ()


@lru_cache(maxsize=4096)
def _places(condition: Condition) -> tuple[Place, ...]:
    """Return where a selector with this condition can be filed; the same tuple for all that are alike."""
    return tuple(
        {
            (requirement.label, value): None
            for requirement in condition
            for value in (requirement.values if requirement.values is not None else (None,))
        }
    )
