"""From an interface to its endpoint's chain, in two steps at most.

An interface that has none meets the rules at the end: for workloads a drop, for host endpoints the one for all
interfaces, or none.

Names are sorted and binned by the character after their longest common beginning. A bin of one is matched in the root,
a larger one in a child chain of its own, so that a packet is tried against few rules, and one endpoint more rewrites
the root and one child (reference felix.md 3.5).
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from felix.render.chains import Goto, InInterface, OutInterface, Part, Rule, Target, rule
from felix.render.names import (
    FORWARD_FROM_HOST,
    FORWARD_TO_HOST,
    FROM_HOST,
    FROM_WORKLOAD,
    TO_HOST,
    TO_WORKLOAD,
    endpoint_chain,
)
from resources.names import IfName

_AFTER = "\x7f"
"""Sorts after every character of an interface's name."""


@dataclass(frozen=True, slots=True)
class Side:
    """One direction: the root chain, the prefix of endpoint chains and children, which interface is looked at."""

    root: str
    prefix: str
    incoming: bool

    def condition(self, name: str) -> InInterface | OutInterface:
        return InInterface(name) if self.incoming else OutInterface(name)

    def child(self, beginning: str) -> str:
        """Name the chain of a bin. The slash keeps it apart from the chain of an interface of that very name."""
        return f"{self.prefix}{beginning}/"


FROM = Side("cali-from-wl-dispatch", FROM_WORKLOAD, incoming=True)
TO = Side("cali-to-wl-dispatch", TO_WORKLOAD, incoming=False)
HOST_FROM = Side("cali-from-host-endpoint", FROM_HOST, incoming=True)
HOST_TO = Side("cali-to-host-endpoint", TO_HOST, incoming=False)
FORWARD_FROM = Side("cali-from-hep-forward", FORWARD_FROM_HOST, incoming=True)
FORWARD_TO = Side("cali-to-hep-forward", FORWARD_TO_HOST, incoming=False)


def unknown_interface(target: Target) -> tuple[Rule, ...]:
    """Return the end of a dispatch in which every interface must have an endpoint."""
    return (rule(to=target, comment="Unknown interface", stands_for=Part.UNKNOWN_INTERFACE),)


@dataclass(frozen=True, slots=True)
class Bin:
    """Interfaces whose names begin alike: the sorted names from `start` to before `end`."""

    beginning: str
    start: int
    end: int

    @property
    def single(self) -> bool:
        return self.end - self.start == 1


class Dispatch:
    """The interfaces of endpoints, and which dispatch chains they make."""

    def __init__(self) -> None:
        self._names: list[IfName] = []
        self._common = ""
        self._touched: set[IfName] = set()
        self._children: set[str] = set()
        self._all = True

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: IfName) -> None:
        at = bisect_left(self._names, name)
        if at == len(self._names) or self._names[at] != name:
            insort(self._names, name)
            self._touched.add(name)

    def remove(self, name: IfName) -> None:
        at = bisect_left(self._names, name)
        if at < len(self._names) and self._names[at] == name:
            del self._names[at]
            self._touched.add(name)

    def touch_all(self) -> None:
        """Give every chain again at the next turn."""
        self._all = True

    def take_changes(self, ends: Mapping[Side, Sequence[Rule]]) -> dict[str, list[Rule] | None]:
        """Return the chains that may have changed since the last time, None for a child that is gone.

        `ends`: which sides there are, and what an interface without an endpoint meets there; `touch_all` if it is
        another than the last time.
        """
        if not self._touched and not self._all:
            return {}
        common = _common_beginning(self._names)
        bins = self._bins(len(common) + 1)
        children = {one.beginning: one for one in bins if not one.single}
        stale = {name[: len(common) + 1] for name in self._touched} & children.keys()
        if self._all or common != self._common:
            stale = set(children)
        changes: dict[str, list[Rule] | None] = {}
        for side, end in ends.items():
            changes |= {side.child(beginning): None for beginning in self._children - children.keys()}
            for beginning in stale:
                names = self._names[children[beginning].start : children[beginning].end]
                changes[side.child(beginning)] = [*(_exact(side, name) for name in names), *end]
            changes[side.root] = [
                *(
                    _exact(side, self._names[one.start])
                    if one.single
                    else rule(side.condition(one.beginning + "+"), to=Goto(side.child(one.beginning)))
                    for one in bins
                ),
                *end,
            ]
        self._common, self._children, self._all = common, set(children), False
        self._touched.clear()
        return changes

    def _bins(self, length: int) -> list[Bin]:
        """Step from bin to bin through the sorted names; bins go by the first `length` characters."""
        bins: list[Bin] = []
        start = 0
        while start < len(self._names):
            beginning = self._names[start][:length]
            whole = len(beginning) < length  # the name is the common beginning itself
            end = start + 1 if whole else bisect_left(self._names, beginning + _AFTER, start)
            bins.append(Bin(beginning, start, end))
            start = end
        return bins


def _exact(side: Side, name: IfName) -> Rule:
    return rule(side.condition(name), to=Goto(endpoint_chain(side.prefix, name)))


def _common_beginning(names: Sequence[str]) -> str:
    """Return the longest common beginning of sorted names, of one name without its last character."""
    if not names:
        return ""
    first, last = names[0], names[-1]
    if len(names) == 1:
        return first[:-1]
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]
