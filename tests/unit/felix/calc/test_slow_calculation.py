"""The incremental graph concludes what a calculation concludes that recomputes everything, whatever the history.

Records come, change, repeat and go in any order, with flushes in between; so do addresses of the host's interfaces.
"""

import ipaddress
from collections.abc import Mapping
from random import Random
from typing import TypeVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakes.felix_records import HERE
from fakes.random_history import Event, Flush, Historian, Interface, Put, shown
from fakes.shrinking import shortest
from fakes.slow_calculation import Concluded, SlowCalculation, neutral
from fakes.slow_remote import folded_remote
from felix.calc.conclusions import Conclusions, Whole
from felix.calc.graph import Graph
from felix.calc.model import SetSpec
from felix.calc.remote import RemoteChanges
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, NodeName

K = TypeVar("K")
V = TypeVar("V")


class Folded:
    """What all flushes amount to, by what each said had changed."""

    def __init__(self) -> None:
        self.sets: dict[str, tuple[SetSpec, dict[int, frozenset[str]]]] = {}
        self.whole = Whole(
            sets={}, policies={}, profiles={}, endpoints={}, host_endpoints={}, surroundings=None,
            remote=RemoteChanges(), problems={},
        )  # fmt: skip

    def fold(self, changes: Conclusions) -> None:
        for set_id, change in changes.sets.items():
            if change is None:
                del self.sets[set_id]
                continue
            held = {4: frozenset[str](), 6: frozenset[str]()} if change.whole else self.sets[set_id][1]
            gone = {version: change.removed.get(version, frozenset()) for version in held}
            now = {version: (held[version] - gone[version]) | change.added[version] for version in held}
            self.sets[set_id] = changes.specs[set_id], now
        self.whole = Whole(
            sets=dict(self.sets),
            policies=_folded(self.whole.policies, changes.policies),
            profiles=_folded(self.whole.profiles, changes.profiles),
            endpoints=_folded(self.whole.endpoints, changes.endpoints),
            host_endpoints=_folded(self.whole.host_endpoints, changes.host_endpoints),
            surroundings=changes.surroundings or self.whole.surroundings,
            remote=folded_remote(self.whole.remote, changes.remote),
            problems={key: texts for key, texts in {**self.whole.problems, **changes.problems}.items() if texts},
        )


def _folded(before: Mapping[K, V], changes: Mapping[K, V | None]) -> dict[K, V]:
    return {key: value for key, value in {**before, **changes}.items() if value is not None}


def difference(events: list[Event]) -> str:
    """Return how graph and slow calculation first differ after a flush; nothing if they never do."""
    graph, folded = Graph(NodeName(HERE)), Folded()
    records: dict[ResourceKey, Resource] = {}
    interfaces: dict[str, frozenset[str]] = {}
    limit = 1048576
    for event in events:
        match event:
            case Put(key, value):
                graph.update(key, value)
                records.pop(key, None)
                if value is not None:
                    records[key] = value
            case Interface(name, addresses):
                parsed = None if addresses is None else frozenset(map(ipaddress.ip_address, addresses))
                graph.set_interface(IfName(name), parsed)
                interfaces.pop(name, None)
                if addresses is not None:
                    interfaces[name] = frozenset(addresses)
            case Flush():
                folded.fold(graph.flush())
                limits = [getattr(r.spec, "max_ipset_size", None) for k, r in records.items() if k.name == "default"]
                limit = next((found for found in limits if found), 1048576)
                wanted = SlowCalculation(HERE, records, interfaces, limit).concluded()
                for found, name in ((neutral(graph.whole()), "graph"), (neutral(folded.whole), "changes")):
                    if text := _first_difference(found, wanted):
                        return f"{name}: {text}"
                problems = _anew(records, interfaces).problems
                for known in (graph.whole().problems, folded.whole.problems):
                    if known != problems:
                        return f"problems: {known}\ninstead of {problems}"
    return ""


def _anew(records: Mapping[ResourceKey, Resource], interfaces: Mapping[str, frozenset[str]]) -> Whole:
    """Return what a graph without a past concludes."""
    graph = Graph(NodeName(HERE))
    for key, value in records.items():
        graph.update(key, value)
    for name, addresses in interfaces.items():
        graph.set_interface(IfName(name), frozenset(map(ipaddress.ip_address, addresses)))
    graph.flush()
    return graph.whole()


def _first_difference(found: Concluded, wanted: Concluded) -> str:
    for field in ("endpoints", "host_endpoints", "policies", "profiles"):
        there, right = getattr(found, field), getattr(wanted, field)
        for key in sorted(there.keys() | right.keys()):
            if there.get(key) != right.get(key):
                return f"{field} {key}: {there.get(key)}\ninstead of {right.get(key)}"
    for field in ("sets", "surroundings"):
        there, right = getattr(found, field), getattr(wanted, field)
        if there != right:
            return f"{field} {there}\ninstead of {right}"
    return ""


@settings(max_examples=120, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(st.integers(0, 2**48))
def test_any_history_ends_as_if_everything_had_been_computed_anew(seed: int) -> None:
    events = Historian(Random(seed)).events(60)
    if difference(events):
        short = shortest(events, lambda fewer: bool(difference(fewer)))
        text = "\n".join(map(shown, short))
        pytest.fail(f"seed {seed}: {difference(short)}\n{text}")
