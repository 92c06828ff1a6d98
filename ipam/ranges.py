"""Sets of integers as sorted ranges: reserved addresses, block numbers that are taken. Cost follows their number,
never the size of a pool."""

from bisect import bisect_right
from collections.abc import Iterable

from resources.names import IPNetwork


class Ranges:
    """An immutable set of integers."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """Take inclusive (first, last) pairs in any order; they may overlap."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in sorted(ranges):
            if self._ends and first <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], last)
            else:
                self._starts.append(first)
                self._ends.append(last)

    def pairs(self) -> Iterable[tuple[int, int]]:
        """Return the ranges, first and last number of each, in order and with gaps between them."""
        return zip(self._starts, self._ends, strict=True)

    def __contains__(self, number: int) -> bool:
        return self.covers(number, number)

    def covers(self, first: int, last: int) -> bool:
        """Whether every number from `first` to `last` is in the set."""
        at = bisect_right(self._starts, first) - 1
        return at >= 0 and last <= self._ends[at]

    def next_outside(self, number: int) -> int:
        """Return the smallest number from `number` on that is not in the set."""
        at = bisect_right(self._starts, number) - 1
        return self._ends[at] + 1 if at >= 0 and number <= self._ends[at] else number

    def count_within(self, first: int, last: int) -> int:
        """Return how many of the numbers from `first` to `last` are in the set."""
        return sum(max(0, min(end, last) - max(start, first) + 1) for start, end in self.pairs())


def of_networks(networks: Iterable[IPNetwork]) -> Ranges:
    """Return the addresses of networks of one version, as integers."""
    return Ranges((int(network[0]), int(network[-1])) for network in networks)
