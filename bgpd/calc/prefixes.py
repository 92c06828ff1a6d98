"""Prefixes to values, asked by longest match; both address families in one table."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from resources.names import IPAddress, IPNetwork

V = TypeVar("V")

_BITS = {4: 32, 6: 128}


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

    @property
    def networks(self) -> Iterator[IPNetwork]:
        """All prefixes."""
        return (network for found in self._values.values() for network, _ in found.values())

    def match(self, network: IPNetwork) -> tuple[IPNetwork, V] | None:
        """Return the most specific entry that contains `network` (or is it), or None."""
        return self._longest(network.version, int(network.network_address), network.prefixlen)

    def at(self, address: IPAddress) -> tuple[IPNetwork, V] | None:
        """Return the most specific entry that contains `address`, or None."""
        return self._longest(address.version, int(address), address.max_prefixlen)

    def _longest(self, version: int, start: int, length: int) -> tuple[IPNetwork, V] | None:
        bits = _BITS[version]
        for candidate in self._lengths[version]:
            if candidate <= length:
                found = self._values[version, candidate].get(start >> (bits - candidate))
                if found is not None:
                    return found
        return None

    def inside(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, V]]:
        """Yield the entries that lie in `network` (or are it), by address."""
        version, first = network.version, int(network.network_address)
        starts = self._starts[version]
        last = _last(network)
        for index in range(bisect_left(starts, first), bisect_right(starts, last)):
            start, length = self._sorted[version][index]
            if length >= network.prefixlen:
                yield self._values[version, length][start >> (network.max_prefixlen - length)]

    def overlaps(self, network: IPNetwork) -> bool:
        """Return whether any entry contains `network` or lies in it."""
        return self.match(network) is not None or next(self.inside(network), None) is not None


class Ranges:
    """The addresses of some prefixes, to ask whether a network has any of them: one search, however many there are."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in networks:
            found[network.version].append((int(network.network_address), _last(network)))
        self._firsts: dict[int, list[int]] = {}
        self._lasts: dict[int, list[int]] = {}
        for version, ranges in found.items():
            firsts: list[int] = []
            lasts: list[int] = []
            # of two prefixes that meet one contains the other, and the larger one comes first
            for first, last in sorted(ranges, key=lambda one: (one[0], -one[1])):
                if not lasts or first > lasts[-1]:
                    firsts.append(first)
                    lasts.append(last)
            self._firsts[version], self._lasts[version] = firsts, lasts

    def overlap(self, network: IPNetwork) -> bool:
        """Return whether any prefix contains `network` or lies in it."""
        version = network.version
        lasts = self._lasts[version]
        index = bisect_left(lasts, int(network.network_address))
        return index < len(lasts) and self._firsts[version][index] <= _last(network)


def _last(network: IPNetwork) -> int:
    """Return the last address of a network. (Its broadcast_address makes an object, and keeps it.)"""
    return int(network.network_address) | ((1 << (_BITS[network.version] - network.prefixlen)) - 1)
