"""GlobalNetworkPolicy: ordered rules for what a selector picks (reference resources.md 2.9; names 1.6)."""

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from resources.gotext import JSON, shown_float
from resources.kinds import fields, rule_v1
from resources.kinds.base import V1, Column, Kind, Metadata, Problem, View, name_cell, wire
from resources.kinds.naming import policy_name
from resources.kinds.rule import Rule, direction_problems, rules_problems
from resources.kinds.rule_v1 import RuleV1
from resources.kinds.tier import DEFAULT_TIER
from resources.names import DNS_LABEL_PATTERN

TIER_LABEL = "projectcalico.org/tier"
NAME_ANNOTATION = "projectcalico.org/metadata"
"""Holds the name that the user gave, as JSON; never shown (reference resources.md 1.6)."""
TYPES = ("Ingress", "Egress")

_NAME = rf"({DNS_LABEL_PATTERN}\.)?{DNS_LABEL_PATTERN}"


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
    if re.fullmatch(_NAME, name):
        return None
    return f"name must consist of lower case alphanumeric characters or '-' (regex: {DNS_LABEL_PATTERN})"


def _order_cell(policy: GlobalNetworkPolicy, _: View) -> str:
    return "<nil>" if policy.spec.order is None else shown_float(policy.spec.order)


def _selector_cell(policy: GlobalNetworkPolicy, _: View) -> str:
    return policy.spec.selector


class PolicyMetadataV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    annotations: dict[str, str] = {}


class PolicySpecV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(pre_dnat="preDNAT")):
    order: float | None = None
    ingress: list[RuleV1] = []
    egress: list[RuleV1] = []
    selector: str = ""
    do_not_track: bool = False
    pre_dnat: bool = False
    types: list[str] = []


class PolicyV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: PolicyMetadataV1 = PolicyMetadataV1()
    spec: PolicySpecV1 = PolicySpecV1()


def _check_v1(policy: PolicyV1) -> Iterable[Problem]:
    spec = policy.spec
    yield from rule_v1.name_problems(("metadata", "name"), policy.metadata.name, slash=True)
    for index, type_ in enumerate(spec.types):
        at = ("spec", "types", index)
        if not type_:
            yield Problem(at, "", "allowed are ingress, egress")
        yield from fields.one_of(at, type_, ("ingress", "egress"))
    yield from rule_v1.rules_problems(("spec", "ingress"), spec.ingress)
    yield from rule_v1.rules_problems(("spec", "egress"), spec.egress)


def _to_v3(policy: PolicyV1) -> GlobalNetworkPolicy:
    spec = policy.spec
    return GlobalNetworkPolicy(
        metadata=Metadata(name=policy_name(policy.metadata.name), annotations=policy.metadata.annotations),
        spec=GlobalNetworkPolicySpec(
            order=spec.order,
            ingress=rule_v1.rules_to_v3(spec.ingress),
            egress=rule_v1.rules_to_v3(spec.egress),
            selector=rule_v1.selector_to_v3(spec.selector),
            types=[type_.title() for type_ in spec.types],
            do_not_track=spec.do_not_track,
            pre_dnat=spec.pre_dnat,
            apply_on_forward=spec.do_not_track or spec.pre_dnat,
        ),
    )


def _from_v3(policy: GlobalNetworkPolicy) -> PolicyV1:
    spec = policy.spec
    return PolicyV1(
        metadata=PolicyMetadataV1(name=policy.metadata.name, annotations=policy.metadata.annotations),
        spec=PolicySpecV1(
            order=spec.order,
            ingress=rule_v1.rules_from_v3(spec.ingress),
            egress=rule_v1.rules_from_v3(spec.egress),
            selector=spec.selector,
            do_not_track=spec.do_not_track,
            pre_dnat=spec.pre_dnat,
            types=[type_.lower() for type_ in spec.types],
        ),
    )


def _keep(stored: GlobalNetworkPolicy, new: GlobalNetworkPolicy) -> GlobalNetworkPolicy:
    """Take what v1 can say from the new policy, and what narrows the stored one otherwise from that."""
    kept = stored.spec
    spec = msgspec.structs.replace(
        new.spec,
        tier=kept.tier,
        apply_on_forward=new.spec.apply_on_forward or kept.apply_on_forward,
        namespace_selector=kept.namespace_selector,
        service_account_selector=kept.service_account_selector,
        performance_hints=kept.performance_hints,
    )
    metadata = msgspec.structs.replace(stored.metadata, annotations=new.metadata.annotations)
    return GlobalNetworkPolicy(metadata=metadata, spec=spec)


_V1: V1[GlobalNetworkPolicy] = V1(
    name="policy",
    type=PolicyV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=lambda policy: f"Policy(name={policy.metadata.name})",
    name_of=policy_name,
    keep=_keep,
    paths=((("spec", "applyOnForward"), ("spec", "doNotTrack")),),
    columns=(Column("NAME", name_cell),),
    wide=(Column("NAME", name_cell), Column("ORDER", _order_cell), Column("SELECTOR", _selector_cell)),
)

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
        Column("SELECTOR", _selector_cell),
    ),
    v1=_V1,
)
