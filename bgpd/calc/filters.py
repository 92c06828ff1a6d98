"""BGPFilters: what a peer's filters say about one route (reference bgp.md 1.6). Pure.

The filters of a peer are asked in the order in which it names them, the rules of each in theirs; the first rule that
matches decides, and without one things go on as if there were no filter.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from bgpd.calc.paths import NORMAL_PRIORITY, PathAttributes, Segment
from resources.kinds.bgpfilter import ACCEPT, BGPFilter, FilterRule, Operation
from resources.names import IPNetwork, parse_network


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes in `network` with `shortest` to `longest` bits, or (`is_outside`) all others."""

    network: IPNetwork
    shortest: int
    longest: int
    is_outside: bool = False

    def has(self, prefix: IPNetwork) -> bool:
        network = self.network
        shift = network.max_prefixlen - network.prefixlen
        is_inside = (
            prefix.version == network.version
            and self.shortest <= prefix.prefixlen <= self.longest
            and prefix.prefixlen >= network.prefixlen
            and int(prefix.network_address) >> shift == int(network.network_address) >> shift
        )
        return is_inside is not self.is_outside

    @property
    def only(self) -> IPNetwork | None:
        """The one prefix that this is, or None."""
        alone = self.shortest == self.longest == self.network.prefixlen
        return self.network if alone and not self.is_outside else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The route that is asked about."""

    prefix: IPNetwork
    attributes: PathAttributes
    is_learned: bool
    """It came by BGP."""
    is_external: bool
    """The session that it came or is to go by is an eBGP one."""
    devices: tuple[str, ...] = ()
    """The interfaces that packets to it leave by; none for a block of this node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; a condition that is None or empty holds for every route."""

    is_accept: bool
    prefixes: Prefixes | None = None
    is_learned: bool = False
    """Only routes that came by BGP."""
    devices: re.Pattern[str] | None = None
    is_external: bool | None = None
    community: str = ""
    as_path: tuple[int, ...] = ()
    priority: int | None = None
    operations: tuple[Operation, ...] = ()

    def matches(self, subject: Subject) -> bool:
        """Return whether every condition holds."""
        attributes = subject.attributes
        return (
            (self.prefixes is None or self.prefixes.has(subject.prefix))
            and (subject.is_learned or not self.is_learned)
            and (self.devices is None or any(self.devices.fullmatch(device) for device in subject.devices))
            and self.is_external in (None, subject.is_external)
            and (not self.community or self.community in attributes.communities + attributes.large_communities)
            and begins_with(attributes.as_path, self.as_path)
            and self.priority in (None, attributes.priority)
        )

    def points_at(self, prefix: IPNetwork) -> bool:
        """Return whether it is about `prefix` by more than being about everything: by an interface, or by a cidr.

        That is what lets a route of the host's own out, and the default route only if it is named exactly.
        """
        wide = prefix.prefixlen == 0
        if self.prefixes is None or self.prefixes.is_outside:
            return self.devices is not None and not wide
        return self.prefixes.only == prefix or not (wide or self.prefixes.network.prefixlen == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One BGPFilter, its rules by the family (4, 6)."""

    imports: Mapping[int, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    exports: Mapping[int, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    fault: str = ""
    """Why some of it could not be read; there stands a Reject of everything."""


def filter_of(record: BGPFilter, fault: str = "") -> Filter:
    """Return the parsed form of a BGPFilter whose rules were checked (resources.kinds.bgpfilter)."""
    spec = record.spec
    return Filter(
        imports={4: _rules(spec.import_v4), 6: _rules(spec.import_v6)},
        exports={4: _rules(spec.export_v4), 6: _rules(spec.export_v6)},
        fault=fault,
    )


def closed(fault: str) -> Filter:
    """Return what stands in for a BGPFilter of which nothing can be read: it lets nothing through."""
    nothing = {4: (Rule(is_accept=False),), 6: (Rule(is_accept=False),)}
    return Filter(imports=nothing, exports=nothing, fault=fault)


def _rules(rules: Iterable[FilterRule]) -> tuple[Rule, ...]:
    return tuple(map(_rule, rules))


def _rule(rule: FilterRule) -> Rule:
    return Rule(
        is_accept=rule.action == ACCEPT,
        prefixes=_prefixes(rule) if rule.cidr else None,
        is_learned=bool(rule.source),
        devices=re.compile(".*".join(map(re.escape, rule.interface.split("*")))) if rule.interface else None,
        is_external=rule.peer_type == "eBGP" if rule.peer_type else None,
        community=_community(rule.communities.values[0]) if rule.communities else "",
        as_path=tuple(int(number) for number in rule.as_path_prefix),
        priority=rule.priority,
        operations=tuple(rule.operations),
    )


def _prefixes(rule: FilterRule) -> Prefixes:
    network = parse_network(rule.cidr)
    is_outside = rule.match_operator in ("NotEqual", "NotIn")
    if rule.prefix_length is not None:
        low, high = rule.prefix_length.min or 0, rule.prefix_length.max
        return Prefixes(
            network, max(low, network.prefixlen), network.max_prefixlen if high is None else high, is_outside
        )
    alone = rule.match_operator in ("Equal", "NotEqual")
    return Prefixes(network, network.prefixlen, network.prefixlen if alone else network.max_prefixlen, is_outside)


def _community(text: str) -> str:
    """Return a community as routes have it, without leading zeros."""
    return ":".join(str(int(part)) for part in text.split(":"))


def begins_with(path: Sequence[Segment], numbers: Sequence[int]) -> bool:
    """Return whether an AS path begins with these numbers; a set stands for any one of its members."""
    places = _places(path)
    return all(number in next(places, ()) for number in numbers)


def _places(path: Sequence[Segment]) -> Iterator[tuple[int, ...]]:
    for segment in path:
        if segment.is_set:
            yield segment.numbers
        else:
            for number in segment.numbers:
                yield (number,)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the first rule that matches says, and the route's attributes after its operations."""

    is_accept: bool
    attributes: PathAttributes
    rule: Rule


def ruling(rules: Iterable[Rule], subject: Subject) -> Ruling | None:
    """Return what `rules` say about a route; None: nothing."""
    for rule in rules:
        if rule.matches(subject):
            return Ruling(rule.is_accept, _operate(rule.operations, subject.attributes), rule)
    return None


def _operate(operations: Iterable[Operation], attributes: PathAttributes) -> PathAttributes:
    for operation in operations:
        if operation.add_community is not None:
            attributes = _with_community(attributes, _community(operation.add_community.value))
        if operation.prepend_as_path is not None:
            front = Segment(tuple(int(number) for number in operation.prepend_as_path.prefix))
            attributes = replace(attributes, as_path=joined(front, attributes.as_path))
        if operation.set_priority is not None:
            value = operation.set_priority.value
            attributes = attributes.with_priority(NORMAL_PRIORITY if value is None else value)
    return attributes


def _with_community(attributes: PathAttributes, community: str) -> PathAttributes:
    if community.count(":") == 2:
        return replace(attributes, large_communities=_added(attributes.large_communities, community))
    return replace(attributes, communities=_added(attributes.communities, community))


def _added(known: tuple[str, ...], community: str) -> tuple[str, ...]:
    return known if community in known else (*known, community)


def joined(front: Segment, path: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Return an AS path with a sequence put before it."""
    if path and not path[0].is_set:
        return Segment(front.numbers + path[0].numbers), *path[1:]
    return front, *path


@dataclass(frozen=True, slots=True)
class Filters:
    """All BGPFilters that there are, by name."""

    by_name: Mapping[str, Filter] = field(default_factory=lambda: MappingProxyType({}))

    def imports(self, names: Iterable[str], version: int) -> Iterator[Rule]:
        """Yield the rules for what comes from a peer with these filters; one that does not exist is passed over."""
        for name in names:
            if (found := self.by_name.get(name)) is not None:
                yield from found.imports.get(version, ())

    def exports(self, names: Iterable[str], version: int) -> Iterator[Rule]:
        """Yield the rules for what goes to a peer with these filters."""
        for name in names:
            if (found := self.by_name.get(name)) is not None:
                yield from found.exports.get(version, ())
