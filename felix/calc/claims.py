"""Which endpoints of this host are for which interface, and which of them has it.

Workloads and host endpoints settle that alike. They differ in which names of interfaces are theirs, in who goes first,
and in that a host endpoint may be for an interface by its address.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

from resources.datastore.keys import ResourceKey
from resources.names import IfName


class Claim(Protocol):
    """An endpoint's record. `interface`: None if it does not say the name."""

    @property
    def interface(self) -> IfName | None: ...


K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R", bound=Claim)


class Claims(ABC, Generic[R]):
    """The endpoints of one kind on this host, by the interface they claim. Cost follows what changed."""

    def __init__(self) -> None:
        self._records: dict[ResourceKey, R] = {}
        self._by_name: dict[IfName, set[ResourceKey]] = {}
        self._served: dict[IfName, ResourceKey] = {}
        self._serves: dict[ResourceKey, set[IfName]] = {}
        self._unexplained: set[ResourceKey] = set()

    def __contains__(self, key: ResourceKey) -> bool:
        return key in self._records

    def put(self, key: ResourceKey, record: R | None) -> set[IfName]:
        """Add, change or (None) forget an endpoint; return the interfaces that must be settled."""
        before = self._records.pop(key, None)
        self._unexplained.add(key)
        touched = set(self._serves.get(key, ()))
        if before is not None:
            touched |= self._claimed(before)
            self._file(key, before, there=False)
        if record is not None:
            self._records[key] = record
            self._file(key, record, there=True)
            touched |= self._claimed(record)
        return touched

    def record(self, key: ResourceKey) -> R:
        return self._records[key]

    def interfaces(self) -> set[IfName]:
        """Return all interfaces that an endpoint is for, or could be."""
        return {*self._by_name, *self._served}

    def served(self, interface: IfName) -> ResourceKey | None:
        """Return which endpoint has the interface, as settled."""
        return self._served.get(interface)

    def is_served(self, key: ResourceKey) -> bool:
        """Tell whether the endpoint has any interface, as settled."""
        return key in self._serves

    def serves(self, key: ResourceKey) -> Collection[IfName]:
        """Return the interfaces that the endpoint has, as settled."""
        return self._serves.get(key, ())

    def claimants(self, interface: IfName) -> set[ResourceKey]:
        """Return the endpoints that are for the interface, whoever has it."""
        return set(self._by_name.get(interface, ()))

    def settle(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> ResourceKey | None:
        """Decide who has the interface: of its claimants the first; nobody, if its name is not for this kind."""
        before = self._served.pop(interface, None)
        if before is not None:
            note(self._serves, before, interface, there=False)
        claims = self.claimants(interface)
        self._unexplained |= claims
        if not claims or not self._admits(interface, workload_prefixes):
            return None
        winner = min(claims, key=lambda key: self._order(key, self._records[key]))
        self._served[interface] = winner
        note(self._serves, winner, interface, there=True)
        return winner

    def take_explanations(self, workload_prefixes: tuple[str, ...]) -> dict[ResourceKey, tuple[str, ...]]:
        """Return, for the endpoints for which that may have changed, what keeps them from what they are for."""
        explained = {
            key: tuple(self._why_not_served(key, self._records[key], workload_prefixes))
            for key in self._unexplained
            if key in self._records
        }
        self._unexplained.clear()
        return explained

    def _why_not_served(self, key: ResourceKey, record: R, workload_prefixes: tuple[str, ...]) -> list[str]:
        told = []
        for interface in sorted(self._claimed(record)):
            served = self._served.get(interface)
            if not self._admits(interface, workload_prefixes):
                told.append(self._refusal(interface, workload_prefixes))
            elif served != key:
                told.append(f"it waits: interface {interface} belongs to {served}")
        return told

    def _file(self, key: ResourceKey, record: R, *, there: bool) -> None:
        """Put the endpoint into the indexes of what it claims, or take it out."""
        if record.interface is not None:
            note(self._by_name, record.interface, key, there=there)

    def _claimed(self, record: R) -> set[IfName]:
        """Return the interfaces that an endpoint is for."""
        return set() if record.interface is None else {record.interface}

    @abstractmethod
    def _order(self, key: ResourceKey, record: R) -> tuple[object, ...]:
        """Return the sort key of a claimant; the lowest has the interface."""

    @abstractmethod
    def _admits(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> bool:
        """Tell whether the interface is one for endpoints of this kind."""

    @abstractmethod
    def _refusal(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> str:
        """Say that it is not."""


def note(index: dict[K, set[V]], key: K, value: V, *, there: bool) -> None:
    """Add to a set of an index, or take out; no set stays empty."""
    if there:
        index.setdefault(key, set()).add(value)
        return
    values = index[key]
    values.discard(value)
    if not values:
        del index[key]
