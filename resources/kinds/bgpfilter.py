"""BGPFilter: which routes go to a peer and come from it (reference resources.md 2.4, bgp.md 1.6)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from resources.gotext import JSON
from resources.kinds import fields
from resources.kinds.base import ASN, Column, Kind, Metadata, Path, Problem, name_cell, wire
from resources.kinds.community import community_fault
from resources.names import parse_network

ACCEPT: Final = "Accept"
REJECT: Final = "Reject"
ACTIONS = (ACCEPT, REJECT)
OPERATORS = ("Equal", "NotEqual", "In", "NotIn")
SOURCES = ("RemotePeers",)
PEER_TYPES = ("eBGP", "iBGP")
PRIORITY_MAX = 2147483646
"""Priorities are metrics of kernel routes."""
OPERATIONS_MAX = 10
PREPENDED_MAX = 10

_INTERFACE = r"[a-zA-Z0-9_.*-]{1,15}"
_LENGTHS = {4: 32, 6: 128}


class PrefixLength(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    min: int | None = None
    max: int | None = None


class CommunityMatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    values: list[str] = []
    """Exactly one."""


class AddCommunity(msgspec.Struct, frozen=True, kw_only=True):
    value: str = ""


class PrependASPath(msgspec.Struct, frozen=True, kw_only=True):
    prefix: list[ASN] = []


class SetPriority(msgspec.Struct, frozen=True, kw_only=True):
    value: int | None = None


class Operation(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(prepend_as_path="prependASPath")
):
    """Exactly one of them."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependASPath | None = None
    set_priority: SetPriority | None = None


class FilterRule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(as_path_prefix="asPathPrefix")
):
    """Matches a route for which everything holds that is given."""

    cidr: str = ""
    prefix_length: PrefixLength | None = None
    source: str = ""
    """RemotePeers: learned by BGP, not of this node."""
    interface: str = ""
    """The outgoing device, with ``*`` for any text."""
    match_operator: str = ""
    peer_type: str = ""
    communities: CommunityMatch | None = None
    as_path_prefix: list[ASN] = []
    priority: int | None = None
    action: str
    operations: list[Operation] = []
    """Done to what is accepted, in this order."""


class BGPFilterSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(export_v4="exportV4", import_v4="importV4", export_v6="exportV6", import_v6="importV6"),
):
    """Of each list the first rule that matches decides; if none does, what holds without a filter."""

    export_v4: list[FilterRule] = []
    import_v4: list[FilterRule] = []
    export_v6: list[FilterRule] = []
    import_v6: list[FilterRule] = []


class BGPFilter(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: BGPFilterSpec = BGPFilterSpec()


_LISTS = (("exportV4", 4), ("importV4", 4), ("exportV6", 6), ("importV6", 6))


def _lists(spec: BGPFilterSpec) -> Iterator[tuple[str, int, Sequence[FilterRule]]]:
    """Yield each list of rules with its name and IP version."""
    lists = (spec.export_v4, spec.import_v4, spec.export_v6, spec.import_v6)
    for (name, version), rules in zip(_LISTS, lists, strict=True):
        yield name, version, rules


def _check(filter_: BGPFilter) -> Iterable[Problem]:
    for name, version, rules in _lists(filter_.spec):
        for index, rule in enumerate(rules):
            at: Path = ("spec", name, index)
            yield from rule_problems(at, rule, version)
            yield from _vain_problems(at, rule, version)


def _needs(filter_: BGPFilter) -> Iterable[Problem]:
    for name, version, rules in _lists(filter_.spec):
        for index, rule in enumerate(rules):
            yield from rule_problems(("spec", name, index), rule, version)


def rule_problems(path: Path, rule: FilterRule, version: int) -> Iterator[Problem]:
    """Find what keeps a rule from having a meaning."""
    if not rule.action:
        yield Problem((*path, "action"), "", f"must be set: {ACCEPT} or {REJECT}")
    yield from fields.one_of((*path, "action"), rule.action, ACTIONS)
    yield from _prefix_problems(path, rule, version)
    yield from fields.one_of((*path, "source"), rule.source, SOURCES)
    yield from fields.pattern(
        (*path, "interface"), rule.interface, _INTERFACE, "an interface name, with * for any text: 1 to 15 characters"
    )
    yield from fields.one_of((*path, "peerType"), rule.peer_type, PEER_TYPES)
    if rule.communities is not None:
        at = (*path, "communities", "values")
        if len(rule.communities.values) != 1:
            hint = "write one rule for each" if rule.communities.values else None
            yield Problem(at, ",".join(rule.communities.values), "exactly one community is needed", hint)
        for index, value in enumerate(rule.communities.values):
            if fault := community_fault(value):
                yield Problem((*at, index), value, fault)
    yield from fields.between((*path, "priority"), rule.priority, 1, PRIORITY_MAX)
    yield from _operation_problems((*path, "operations"), rule)


def _prefix_problems(path: Path, rule: FilterRule, version: int) -> Iterator[Problem]:
    if rule.cidr and not rule.match_operator:
        hint = f"write one of {', '.join(OPERATORS)}"
        yield Problem((*path, "cidr"), rule.cidr, "MatchOperator cannot be empty when CIDR is not", hint)
    if rule.match_operator and not rule.cidr:
        reason = "CIDR cannot be empty when MatchOperator is not"
        yield Problem((*path, "matchOperator"), rule.match_operator, reason)
    yield from fields.one_of((*path, "matchOperator"), rule.match_operator, OPERATORS)
    yield from fields.network((*path, "cidr"), rule.cidr, version, bare=False)
    if rule.prefix_length is None:
        return
    if not rule.cidr:
        reason = "CIDR cannot be empty when PrefixLength is set"
        yield Problem((*path, "prefixLength"), "", reason, "for any prefix of a length write the cidr "
                      + ("0.0.0.0/0" if version == 4 else "::/0"))  # fmt: skip
    for name, value in (("min", rule.prefix_length.min), ("max", rule.prefix_length.max)):
        yield from fields.between((*path, "prefixLength", name), value, 0, _LENGTHS[version])


def _operation_problems(path: Path, rule: FilterRule) -> Iterator[Problem]:
    if rule.operations and rule.action == REJECT:
        yield Problem(path, "", f"operations are allowed with {ACCEPT} only", "a rejected route is not changed")
    if len(rule.operations) > OPERATIONS_MAX:
        yield Problem(path, str(len(rule.operations)), f"at most {OPERATIONS_MAX} operations")
    for index, operation in enumerate(rule.operations):
        at = (*path, index)
        given = (operation.add_community, operation.prepend_as_path, operation.set_priority)
        if sum(one is not None for one in given) != 1:
            yield Problem(at, "", "exactly one of addCommunity, prependASPath and setPriority is needed")
        if operation.add_community is not None and (fault := community_fault(operation.add_community.value)):
            yield Problem((*at, "addCommunity", "value"), operation.add_community.value, fault)
        if operation.prepend_as_path is not None and not (
            1 <= len(operation.prepend_as_path.prefix) <= PREPENDED_MAX
        ):
            reason = f"1 to {PREPENDED_MAX} AS numbers are needed"
            yield Problem((*at, "prependASPath", "prefix"), str(len(operation.prepend_as_path.prefix)), reason)
        if operation.set_priority is not None:
            where = (*at, "setPriority", "value")
            if operation.set_priority.value is None:
                yield Problem(where, "", "must be set")
            yield from fields.between(where, operation.set_priority.value, 1, PRIORITY_MAX)


def _vain_problems(path: Path, rule: FilterRule, version: int) -> Iterator[Problem]:
    """Warn of lengths that no prefix can have."""
    lengths = rule.prefix_length
    if lengths is None or not rule.cidr:
        return
    try:
        shortest = parse_network(rule.cidr).prefixlen
    except ValueError:
        return
    low = max(shortest, lengths.min or 0)
    high = _LENGTHS[version] if lengths.max is None else lengths.max
    if low > high:
        reason = f"no prefix inside {rule.cidr} has such a length"
        shown = f"{low} to {high}"
        yield Problem((*path, "prefixLength"), shown, reason, warning=True)


def _closed(document: Mapping[str, JSON]) -> BGPFilter | None:
    """Keep the rules of each list before the first that cannot be read: from there on everything is rejected."""
    spec = document.get("spec") or {}
    lists: dict[str, list[FilterRule]] = {}
    for (name, version), attribute in zip(_LISTS, BGPFilterSpec.__struct_fields__, strict=True):
        entries: JSON = spec.get(name) if isinstance(spec, dict) else "unreadable"
        lists[attribute] = _readable([] if entries is None else entries, version)
    return BGPFilter(spec=BGPFilterSpec(**lists))


def _readable(entries: JSON, version: int) -> list[FilterRule]:
    found: list[FilterRule] = []
    for entry in entries if isinstance(entries, list) else [None]:
        try:
            rule = msgspec.convert(entry, FilterRule)
        except msgspec.ValidationError:
            rule = None
        if rule is None or any(rule_problems((), rule, version)):
            return [*found, FilterRule(action=REJECT)]
        found.append(rule)
    return found


_COLUMNS: tuple[Column[BGPFilter], ...] = (
    Column("NAME", name_cell),
    Column("NUMEXPORTV4", lambda filter_, _: str(len(filter_.spec.export_v4))),
    Column("NUMIMPORTV4", lambda filter_, _: str(len(filter_.spec.import_v4))),
    Column("NUMEXPORTV6", lambda filter_, _: str(len(filter_.spec.export_v6))),
    Column("NUMIMPORTV6", lambda filter_, _: str(len(filter_.spec.import_v6))),
)

KIND: Kind[BGPFilter] = Kind(
    name="BGPFilter",
    plural="bgpfilters",
    type=BGPFilter,
    aliases=("bgpfilter", "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"),
    check=_check,
    needs=_needs,
    closed=_closed,
    columns=_COLUMNS,
    wide=_COLUMNS,
)
