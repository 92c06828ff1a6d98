"""Which selectors match which labelled items, kept up to date as either changes (reference felix.md 4.6).

An item has labels of its own and inherits those of its parents: its own win, then the first parent in listed order.
Cost follows the change: a changed item is tried only against selectors whose necessary condition it satisfies, a new
selector only against items that satisfy its necessary condition, whichever of its conditions is satisfied by the
fewest.
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


@dataclass(slots=True)
class _Item(Generic[S]):
    labels: Labels
    parents: tuple[str, ...]
    matching: set[S] = field(default_factory=set)


@dataclass(slots=True)
class _Wanted(Generic[I]):
    """A selector, the requirements under which it is filed (None: under none, it may match anything)."""

    selector: Selector
    filed: Condition | None
    matching: set[I] = field(default_factory=set)


class LabelIndex(Generic[I, S]):
    """Calls `matched(selector id, item)` and `unmatched(selector id, item)` as matches begin and end."""

    def __init__(self, matched: Callable[[S, I], None], unmatched: Callable[[S, I], None]) -> None:
        self._matched = matched
        self._unmatched = unmatched
        self._items: dict[I, _Item[S]] = {}
        self._items_by_label: dict[str, dict[str, set[I]]] = {}
        self._parent_labels: dict[str, Labels] = {}
        self._children: dict[str, set[I]] = {}
        self._selectors: dict[S, _Wanted[I]] = {}
        self._filed: dict[Requirement, set[S]] = {}
        self._valued_labels: dict[str, int] = {}
        self._unfiled: set[S] = set()
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
        return frozenset(known.matching) if known else frozenset()

    def set_item(self, item: I, labels: Labels, parents: tuple[str, ...] = ()) -> None:
        """Add an item or change its labels or parents."""
        known = self._items.get(item)
        if known is None:
            known = self._items[item] = _Item(NO_LABELS, ())
            before: Labels = NO_LABELS
        elif known.labels == labels and known.parents == parents:
            return
        else:
            before = self._effective(known)
        for parent in set(known.parents).difference(parents):
            self._children[parent].discard(item)
            if not self._children[parent]:
                del self._children[parent]
        for parent in parents:
            self._children.setdefault(parent, set()).add(item)
        known.labels, known.parents = labels, parents
        self._relabelled(item, known, before)

    def remove_item(self, item: I) -> None:
        """Forget an item; its matches end."""
        known = self._items.get(item)
        if known is None:
            return
        for selector_id in known.matching:
            self._selectors[selector_id].matching.discard(item)
            self._unmatched(selector_id, item)
        self._unindex(item, self._effective(known))
        for parent in set(known.parents):
            self._children[parent].discard(item)
            if not self._children[parent]:
                del self._children[parent]
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
            self._relabelled(item, known, old)

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
            wanted = self._selectors[selector_id] = _Wanted(selector, None)
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

    def _effective(self, item: _Item[S]) -> Labels:
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
        wanted.matching.add(item)
        self._items[item].matching.add(selector_id)
        self._matched(selector_id, item)

    def _end(self, selector_id: S, wanted: _Wanted[I], item: I) -> None:
        wanted.matching.discard(item)
        self._items[item].matching.discard(selector_id)
        self._unmatched(selector_id, item)

    def _relabelled(self, item: I, known: _Item[S], before: Labels) -> None:
        after = self._effective(known)
        self._unindex(item, before, keep=after)
        for label, value in after.items():
            self._items_by_label.setdefault(label, {}).setdefault(value, set()).add(item)
        for selector_id in [i for i in known.matching if not self._matches(self._selectors[i].selector, after)]:
            self._end(selector_id, self._selectors[selector_id], item)
        for selector_id in self._possible(after) - known.matching:
            wanted = self._selectors[selector_id]
            if self._matches(wanted.selector, after):
                self._begin(selector_id, wanted, item)

    def _unindex(self, item: I, labels: Labels, keep: Labels = NO_LABELS) -> None:
        for label, value in labels.items():
            if keep.get(label) == value:
                continue
            values = self._items_by_label.get(label, {})
            items = values.get(value, set())
            items.discard(item)
            if not items and values.pop(value, None) is not None and not values:
                del self._items_by_label[label]

    def _possible(self, labels: Labels) -> set[S]:
        """Return the selectors whose necessary condition an item with these labels satisfies."""
        possible = set(self._unfiled)
        for label, value in labels.items():
            possible |= self._filed.get(Requirement(label), frozenset())
            if label in self._valued_labels:
                possible |= self._filed.get(Requirement(label, frozenset((value,))), frozenset())
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
                found |= values.get(value, set())
        return found

    def _satisfying(self, requirement: Requirement) -> int:
        values = self._items_by_label.get(requirement.label, {})
        chosen = values if requirement.values is None else requirement.values
        return sum(len(values[value]) for value in chosen if value in values)

    def _file(self, selector_id: S, wanted: _Wanted[I], conditions: tuple[Condition, ...]) -> None:
        """File the selector where the fewest others are: a label that all selectors mention tells nothing."""
        if not conditions:
            wanted.filed = None
            self._unfiled.add(selector_id)
            return
        single = [_single_values(condition) for condition in conditions]
        wanted.filed = min(single, key=lambda condition: sum(len(self._filed.get(r, ())) for r in condition))
        for requirement in wanted.filed:
            self._filed.setdefault(requirement, set()).add(selector_id)
            if requirement.values is not None:
                self._valued_labels[requirement.label] = self._valued_labels.get(requirement.label, 0) + 1

    def _unfile(self, selector_id: S, wanted: _Wanted[I]) -> None:
        self._unfiled.discard(selector_id)
        for requirement in wanted.filed or ():
            self._filed[requirement].discard(selector_id)
            if not self._filed[requirement]:
                del self._filed[requirement]
            if requirement.values is not None:
                self._valued_labels[requirement.label] -= 1
                if not self._valued_labels[requirement.label]:
                    del self._valued_labels[requirement.label]
        wanted.filed = None


def _single_values(condition: Condition) -> Condition:
    """Return the condition with one requirement for each value, the form in which it is looked up."""
    return frozenset(
        Requirement(requirement.label, frozenset((value,)))
        for requirement in condition
        for value in requirement.values or ()
    ) | frozenset(requirement for requirement in condition if requirement.values is None)
