"""Prefixes to values, asked by longest match; both address families in one table."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from resources.names import IPNetwork

V = TypeVar("V")


class PrefixTable(Generic[V]):
    """A fixed set of prefixes. A question costs one look-up per different prefix length, not per entry."""

    def __init__(self, entries: Mapping[IPNetwork, V]) -> None:
        self._values: dict[tuple[int, int], dict[int, tuple[IPNetwork, V]]] = {}
        starts: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network, value in entries.items():
            version, length, start = network.version, network.prefixlen, int(network.network_address)
            self._values.setdefault((version, length), {})[start >> (network.max_prefixlen - length)] = (network, value)
            starts[version].append((start, length))
        self._lengths = {
            version: sorted((length for family, length in self._values if family == version), reverse=True)
            for version in (4, 6)
        }
        self._sorted = {version: sorted(found) for version, found in starts.items()}
        self._starts = {version: [entry[0] for entry in found] for version, found in self._sorted.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefixTable) and self._values == other._values

    def __hash__(self) -> int:
        return hash(frozenset(self._values))

    def containing(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, V]]:
        """Yield the entries that contain `network` (or are it), the most specific first."""
        version, length, start, bits = (
            network.version, network.prefixlen, int(network.network_address), network.max_prefixlen,
        )
        for candidate in self._lengths[version]:
            if candidate <= length:
                found = self._values[version, candidate].get(start >> (bits - candidate))
                if found is not None:
                    yield found

    def match(self, network: IPNetwork) -> tuple[IPNetwork, V] | None:
        """Return the most specific entry that contains `network` (or is it), or None."""
        return next(self.containing(network), None)

    def inside(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, V]]:
        """Yield the entries that lie in `network` (or are it), by address."""
        version, first = network.version, int(network.network_address)
        starts = self._starts[version]
        last = int(network.broadcast_address)
        for index in range(bisect_left(starts, first), bisect_right(starts, last)):
            start, length = self._sorted[version][index]
            if length >= network.prefixlen:
                yield self._values[version, length][start >> (network.max_prefixlen - length)]

    def overlaps(self, network: IPNetwork) -> bool:
        """Return whether any entry contains `network` or lies in it."""
        return self.match(network) is not None or next(self.inside(network), None) is not None
