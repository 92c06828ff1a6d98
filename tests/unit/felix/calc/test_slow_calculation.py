"""The incremental graph concludes what a calculation concludes that recomputes everything, whatever the history.

Records come, change, repeat and go in any order, with flushes in between; so do addresses of the host's interfaces.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakes.felix_records import HERE, host, policy, pool
from fakes.felix_records import settings as configuration
from fakes.random_world import HOSTS, Dice
from fakes.shrinking import shortest, told
from fakes.slow_calculation import Concluded, SlowCalculation, neutral
from felix.calc.graph import Conclusions, Graph, Whole
from felix.calc.model import SetSpec
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import IfName, NodeName

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Put:
    """A record as it is now, None: gone."""

    key: ResourceKey
    value: Resource | None


@dataclass(frozen=True, slots=True)
class Interface:
    """The addresses of an interface of the host as they are now, None: it is gone."""

    name: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Flush:
    pass


Event = Put | Interface | Flush


class Historian(Dice):
    """Draws histories."""

    def events(self, count: int) -> list[Event]:
        drawn: list[Event] = []
        pending = list(self.world().items())
        there: dict[ResourceKey, Resource] = {}
        for _ in range(count):
            what = self.random.randrange(20)
            if what < 3:
                drawn.append(Flush())
            elif what < 5:
                drawn.append(self.interface())
            elif what < 11 and pending:
                drawn.append(Put(*pending.pop(self.random.randrange(len(pending)))))
            elif what < 14 and there:
                drawn.append(Put(self.one(sorted(there)), None))
            elif what < 15 and there:
                key = self.one(sorted(there))
                drawn.append(Put(key, there[key]))
            else:
                drawn.append(Put(*self.any_record()))
            match drawn[-1]:
                case Put(key, None):
                    there.pop(key, None)
                case Put(key, value) if value is not None:
                    there[key] = value
        return [*drawn, Flush()]

    def interface(self) -> Interface:
        addresses = tuple(self.some([*HOSTS[HERE], "192.0.2.77"], 3))
        return Interface(self.one(["eth0", "eth1"]), None if self.chance(4) else addresses)

    def any_record(self) -> tuple[ResourceKey, Resource]:
        """Draw a record under a name that is likely to be there already."""
        number = self.random.randrange(3)
        return self.one(
            [
                self.moving_endpoint, lambda: self.profile(f"p{number}"),
                lambda: self.tier(self.one(["default", "first", "last", "gone"])), lambda: self.policy(f"p{number}"),
                lambda: self.network_policy(f"p{number}"), lambda: self.network_set(f"set{number}"),
                lambda: self.host_endpoint(f"hep{number}"), lambda: self.early_policy(f"early{number}"),
                self.unusable_policy, self.limit, self.pool, self.node,
            ]
        )()  # fmt: skip

    def moving_endpoint(self) -> tuple[ResourceKey, WorkloadEndpoint]:
        """Draw an endpoint that may claim another's interface, or be on another host than before."""
        key, endpoint = self.endpoint(HERE, self.random.randrange(3))
        interface = self.one([endpoint.spec.interface_name, endpoint.spec.interface_name, "calih0", "eth9"])
        node = self.one([HERE, HERE, "node2"])
        spec = msgspec.structs.replace(endpoint.spec, interface_name=interface, node=node)
        return key, msgspec.structs.replace(endpoint, spec=spec)

    def unusable_policy(self) -> tuple[ResourceKey, Resource]:
        """Draw a policy with something that cannot be understood."""
        wrong = Rule(action=self.one(["Allow", "Deny", "Pass", "Log"]), destination=EntityRule(ports=[80]))
        selector = self.one(["has(role)", "broken (("])
        return policy("p0", selector, [wrong, *self.rules()], [*self.rules(), wrong], order=self.order())

    def pool(self) -> tuple[ResourceKey, Resource]:
        cidr = self.one(["10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "0.0.0.0/0"])
        return pool(cidr, nat=self.chance(2), ipip=self.one(["Never", "Always"]), disabled=self.chance(3))

    def node(self) -> tuple[ResourceKey, Resource]:
        addresses = {"ipv4": self.one(["", "172.16.0.1/24"]), "ipv6": self.one(["", "fd99::1/64"])}
        return host(self.one([HERE, "node2"]), tunnel=self.one(["", "10.0.0.9"]), **addresses)

    def limit(self) -> tuple[ResourceKey, Resource]:
        return configuration(FelixConfigurationSpec(max_ipset_size=self.one([None, 1, 2, 4])))


class Folded:
    """What all flushes amount to, by what each said had changed."""

    def __init__(self) -> None:
        self.sets: dict[str, tuple[SetSpec, dict[int, frozenset[str]]]] = {}
        self.whole = Whole(
            sets={}, policies={}, profiles={}, endpoints={}, host_endpoints={}, surroundings=None, problems={}
        )

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


def shown(event: Event) -> str:
    return told({event.key: event.value}) if isinstance(event, Put) and event.value is not None else str(event)


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
