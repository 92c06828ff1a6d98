"""GlobalNetworkPolicy: ordered rules for what a selector picks (reference resources.md 2.9; names 1.6)."""

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from resources.gotext import JSON, shown_float
from resources.kinds import fields
from resources.kinds.base import Column, Kind, Metadata, Problem, View, name_cell, wire
from resources.kinds.rule import Rule, direction_problems, rules_problems
from resources.kinds.tier import DEFAULT_TIER
from resources.names import DNS_LABEL_PATTERN

TIER_LABEL = "projectcalico.org/tier"
NAME_ANNOTATION = "projectcalico.org/metadata"
"""Holds the name that the user gave, as JSON; never shown (reference resources.md 1.6)."""
TYPES = ("Ingress", "Egress")

_NAME = re.compile(rf"({DNS_LABEL_PATTERN}\.)?{DNS_LABEL_PATTERN}\Z")


class GlobalNetworkPolicySpec(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(pre_dnat="preDNAT")
):
    tier: str = ""
    order: float | None = None
    """None is infinity: after all others."""
    ingress: list[Rule] = []
    egress: list[Rule] = []
    selector: str = ""
    types: list[str] = []
    """Ingress, Egress; computed when empty."""
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    namespace_selector: str = ""
    service_account_selector: str = ""
    performance_hints: list[str] = []


class GlobalNetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


def computed_types(*, has_ingress: bool, has_egress: bool) -> list[str]:
    """Return the types of a policy that names none."""
    if not has_egress:
        return ["Ingress"]
    return ["Ingress", "Egress"] if has_ingress else ["Egress"]


def _complete(policy: GlobalNetworkPolicy) -> GlobalNetworkPolicy:
    spec, metadata = policy.spec, policy.metadata
    tier = spec.tier or DEFAULT_TIER
    types = spec.types or computed_types(has_ingress=bool(spec.ingress), has_egress=bool(spec.egress))
    if metadata.labels.get(TIER_LABEL) != tier:
        metadata = msgspec.structs.replace(metadata, labels=metadata.labels | {TIER_LABEL: tier})
    return GlobalNetworkPolicy(metadata=metadata, spec=msgspec.structs.replace(spec, tier=tier, types=types))


def _check(policy: GlobalNetworkPolicy) -> Iterable[Problem]:
    spec = policy.spec
    yield from fields.name(("spec", "tier"), spec.tier)
    if spec.order is not None and not math.isfinite(spec.order):
        yield Problem(("spec", "order"), str(spec.order), "must be a finite number")
    yield from fields.selector(("spec", "selector"), spec.selector)
    yield from fields.selector(("spec", "namespaceSelector"), spec.namespace_selector)
    yield from fields.selector(("spec", "serviceAccountSelector"), spec.service_account_selector)
    for index, type_ in enumerate(spec.types):
        at = ("spec", "types", index)
        if type_ in spec.types[:index]:
            yield Problem(at, type_, f"'{type_}' type specified more than once")
        if not type_:
            yield Problem(at, "", "allowed are Ingress, Egress")
        yield from fields.one_of(at, type_, TYPES)
    for index, hint in enumerate(spec.performance_hints):
        if hint != "AssumeNeededOnEveryNode" or index:
            reason = "the only hint is AssumeNeededOnEveryNode, once"
            yield Problem(("spec", "performanceHints", index), hint, reason)
    yield from _flag_problems(spec)
    for way, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        yield from rules_problems(("spec", way), rules)
        yield from direction_problems(("spec", way), rules, ingress=way == "ingress")


def _flag_problems(spec: GlobalNetworkPolicySpec) -> Iterable[Problem]:
    if spec.pre_dnat and spec.do_not_track:
        reason = "PreDNAT and DoNotTrack cannot both be true, for a given PolicySpec"
        yield Problem(("spec", "preDNAT"), "true", reason)
    if spec.pre_dnat and spec.egress:
        yield Problem(("spec", "egress"), "", "PreDNAT PolicySpec cannot have any Egress rules")
    if spec.pre_dnat and "Egress" in spec.types:
        yield Problem(("spec", "types"), ", ".join(spec.types), "PreDNAT PolicySpec cannot have 'egress' Type")
    if (spec.pre_dnat or spec.do_not_track) and not spec.apply_on_forward:
        reason = "ApplyOnForward must be true if either PreDNAT or DoNotTrack is true, for a given PolicySpec"
        yield Problem(("spec", "applyOnForward"), "false", reason)


def _needs(policy: GlobalNetworkPolicy) -> Iterable[Problem]:
    # A reader that skipped part of a policy would enforce another one: it has to be right as a whole.
    return (problem for problem in _check(policy) if not problem.warning and problem.path[1] != "performanceHints")


def _closed(document: Mapping[str, JSON]) -> GlobalNetworkPolicy | None:
    """Deny what the policy selects, in its place; None if it cannot be known what that is.

    Without a readable order it comes first: later, another policy could allow what this one was to deny.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return None
    texts = {name: spec.get(name) or "" for name in ("selector", "namespaceSelector", "serviceAccountSelector", "tier")}
    if not all(isinstance(text, str) for text in texts.values()):
        return None
    selectors = {name: str(text) for name, text in texts.items()}
    tier = selectors.pop("tier") or DEFAULT_TIER
    if any(True for name, text in selectors.items() for _ in fields.selector((name,), text)):
        return None
    types = spec.get("types") or computed_types(
        has_ingress=bool(spec.get("ingress")), has_egress=bool(spec.get("egress"))
    )
    if not isinstance(types, list) or not all(type_ in TYPES for type_ in types):
        return None
    order = spec.get("order")
    deny = [Rule(action="Deny")]
    return GlobalNetworkPolicy(
        metadata=Metadata(labels={TIER_LABEL: tier}),
        spec=GlobalNetworkPolicySpec(
            tier=tier,
            order=float(order) if isinstance(order, int | float) else None if order is None else -math.inf,
            ingress=deny if "Ingress" in types else [],
            egress=deny if "Egress" in types else [],
            selector=selectors["selector"],
            types=[type_ for type_ in TYPES if type_ in types],
            namespace_selector=selectors["namespaceSelector"],
            service_account_selector=selectors["serviceAccountSelector"],
            do_not_track=spec.get("doNotTrack") is True,
            pre_dnat=spec.get("preDNAT") is True,
            apply_on_forward=spec.get("applyOnForward") is True,
        ),
    )


def _name_fault(name: str) -> str | None:
    if _NAME.match(name):
        return None
    return f"name must consist of lower case alphanumeric characters or '-' (regex: {DNS_LABEL_PATTERN})"


def _order_cell(policy: GlobalNetworkPolicy, _: View) -> str:
    return "<nil>" if policy.spec.order is None else shown_float(policy.spec.order)


_TIER: Column[GlobalNetworkPolicy] = Column("TIER", lambda policy, _: policy.spec.tier)

KIND: Kind[GlobalNetworkPolicy] = Kind(
    name="GlobalNetworkPolicy",
    plural="globalnetworkpolicies",
    type=GlobalNetworkPolicy,
    aliases=("globalnetworkpolicy", "globalnetworkpolicies", "gnp", "gnps"),
    complete=_complete,
    check=_check,
    needs=_needs,
    closed=_closed,
    name_fault=_name_fault,
    columns=(Column("NAME", name_cell), _TIER),
    wide=(
        Column("NAME", name_cell),
        _TIER,
        Column("ORDER", _order_cell),
        Column("SELECTOR", lambda policy, _: policy.spec.selector),
    ),
)
