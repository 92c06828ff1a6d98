"""The label index without an index: evaluates every selector on every item. The oracle for the fast one."""

from collections.abc import Mapping

from resources.selector import Selector


class NaiveLabelIndex:
    def __init__(self) -> None:
        self.items: dict[str, tuple[Mapping[str, str], tuple[str, ...]]] = {}
        self.parents: dict[str, Mapping[str, str]] = {}
        self.selectors: dict[str, Selector] = {}

    def effective(self, item: str) -> dict[str, str]:
        labels, parents = self.items[item]
        merged: dict[str, str] = {}
        for parent in reversed(parents):
            merged |= self.parents.get(parent, {})
        return {**merged, **labels}

    def matches(self) -> set[tuple[str, str]]:
        """Return all pairs of selector and item."""
        return {
            (name, item)
            for name, selector in self.selectors.items()
            for item in self.items
            if selector.matches(self.effective(item))
        }
