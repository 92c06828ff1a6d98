"""What the kinds of policy share (reference resources.md 2.9; names 1.6). Not a kind by itself.

A policy's spec is declared by its kind, because the stored JSON has the fields in the order of each type; what is done
with it is here, and takes the fields that the type has.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from resources.gotext import JSON, shown_float
from resources.kinds import fields
from resources.kinds.base import Column, Metadata, Path, Problem, View, name_cell
from resources.kinds.rule import (
    NAMESPACE_HINT,
    NO_NAMESPACE_LABELS,
    Rule,
    direction_problems,
    picks_no_namespace,
    picks_no_service_account,
    rules_problems,
    service_namespace_problems,
    written_rule_problems,
)
from resources.kinds.tier import DEFAULT_TIER
from resources.names import DNS_LABEL_PATTERN, NAME_PATTERN

TIER_LABEL = "projectcalico.org/tier"
NAME_ANNOTATION = "projectcalico.org/metadata"
"""Holds the name that the user gave, as JSON; never shown (reference resources.md 1.6)."""
TYPES = ("Ingress", "Egress")
STAGED_ACTIONS = ("Set", "Delete", "Learn", "Ignore")
KUBERNETES_PREFIX = "knp.default."
"""Names of NetworkPolicies that Kubernetes owns."""

STAGED_ONLY = {"stagedAction": "only StagedGlobalNetworkPolicy and StagedNetworkPolicy have it"}
GLOBAL_ONLY = dict.fromkeys(
    ("doNotTrack", "preDNAT", "applyOnForward", "namespaceSelector"),
    "a policy of a namespace has none: take the global kind",
)
"""Fields that are written into the wrong kind of policy."""

_NAME = rf"({DNS_LABEL_PATTERN}\.)?{DNS_LABEL_PATTERN}"
_NAMESPACED_NAME = rf"{_NAME}|(knp|ossg)\.default\.{NAME_PATTERN}"
_SELECTORS = ("selector", "namespace_selector", "service_account_selector")
_FLAGS = ("do_not_track", "pre_dnat", "apply_on_forward")


class Spec(Protocol):
    """The fields that the spec of every kind of policy has."""

    @property
    def tier(self) -> str: ...
    @property
    def order(self) -> float | None: ...
    @property
    def ingress(self) -> list[Rule]: ...
    @property
    def egress(self) -> list[Rule]: ...
    @property
    def selector(self) -> str: ...
    @property
    def types(self) -> list[str]: ...
    @property
    def service_account_selector(self) -> str: ...
    @property
    def performance_hints(self) -> list[str]: ...


class GlobalSpec(Spec, Protocol):
    """What the spec of a global policy has beside them."""

    @property
    def do_not_track(self) -> bool: ...
    @property
    def pre_dnat(self) -> bool: ...
    @property
    def apply_on_forward(self) -> bool: ...
    @property
    def namespace_selector(self) -> str: ...


class StagedSpec(Spec, Protocol):
    @property
    def staged_action(self) -> str: ...


class Policy(Protocol):
    """Any kind of policy."""

    @property
    def metadata(self) -> Metadata: ...
    @property
    def spec(self) -> Any: ...


P = TypeVar("P", bound=Policy)


def computed_types(*, has_ingress: bool, has_egress: bool) -> list[str]:
    """Return the types of a policy that names none."""
    if not has_egress:
        return ["Ingress"]
    return ["Ingress", "Egress"] if has_ingress else ["Egress"]


def complete(policy: P) -> P:
    """Fill in tier and types, and the label that tells the tier."""
    spec, metadata = policy.spec, policy.metadata
    tier = spec.tier or DEFAULT_TIER
    types = spec.types or computed_types(has_ingress=bool(spec.ingress), has_egress=bool(spec.egress))
    if metadata.labels.get(TIER_LABEL) != tier:
        metadata = msgspec.structs.replace(metadata, labels=metadata.labels | {TIER_LABEL: tier})
    assert isinstance(policy, msgspec.Struct)
    return msgspec.structs.replace(
        policy, metadata=metadata, spec=msgspec.structs.replace(spec, tier=tier, types=types)
    )


def spec_problems(spec: Spec) -> Iterator[Problem]:
    """Check what every kind of policy must obey."""
    yield from fields.name(("spec", "tier"), spec.tier)
    if spec.order is not None and not math.isfinite(spec.order):
        yield Problem(("spec", "order"), str(spec.order), "must be a finite number")
    yield from fields.selector(("spec", "selector"), spec.selector)
    yield from fields.selector(("spec", "serviceAccountSelector"), spec.service_account_selector)
    yield from _type_problems(("spec", "types"), spec.types)
    for index, hint in enumerate(spec.performance_hints):
        if hint != "AssumeNeededOnEveryNode" or index:
            reason = "the only hint is AssumeNeededOnEveryNode, once"
            yield Problem(("spec", "performanceHints", index), hint, reason)
    for way, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        yield from rules_problems(("spec", way), rules)
        yield from direction_problems(("spec", way), rules, ingress=way == "ingress")


def _type_problems(path: Path, types: Sequence[str]) -> Iterator[Problem]:
    for index, type_ in enumerate(types):
        at = (*path, index)
        if type_ in types[:index]:
            yield Problem(at, type_, f"'{type_}' type specified more than once")
        if not type_:
            yield Problem(at, "", "allowed are Ingress, Egress")
        yield from fields.one_of(at, type_, TYPES)


def global_problems(spec: GlobalSpec) -> Iterator[Problem]:
    """Check what only a global policy has."""
    yield from fields.selector(("spec", "namespaceSelector"), spec.namespace_selector)
    for way, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        yield from service_namespace_problems(("spec", way), rules)
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


def complete_staged(policy: P) -> P:
    """Fill in what is to be done with a staged policy, and its tier; types too, unless it only says Delete."""
    action = policy.spec.staged_action or STAGED_ACTIONS[0]
    completed = complete(policy)
    types = [] if action == "Delete" else completed.spec.types
    assert isinstance(completed, msgspec.Struct)
    return msgspec.structs.replace(
        completed, spec=msgspec.structs.replace(completed.spec, staged_action=action, types=types)
    )


def staged_problems(spec: StagedSpec) -> Iterator[Problem]:
    """Check what only a staged policy has."""
    yield from fields.one_of(("spec", "stagedAction"), spec.staged_action, STAGED_ACTIONS)
    assert isinstance(spec, msgspec.Struct)
    if spec.staged_action == "Delete" and spec != type(spec)(staged_action=spec.staged_action, tier=spec.tier):
        reason = "Spec fields, except Tier, should all be zero-value if stagedAction is Delete"
        yield Problem(("spec", "stagedAction"), spec.staged_action, reason)


def written_problems(spec: Spec) -> Iterator[Problem]:
    """Find what is refused or warned of when it is written, and is no reason not to read it where it is stored."""
    for way, type_, rules in (("ingress", "Ingress", spec.ingress), ("egress", "Egress", spec.egress)):
        yield from written_rule_problems(("spec", way), rules)
        if rules and spec.types and type_ not in spec.types:
            reason = f"these rules are never used: types has no {type_}"
            yield Problem(("spec", way), "", reason, f"add {type_} to types, or take them out", warning=True)
    text = spec.service_account_selector
    if picks_no_service_account(text):
        yield Problem(
            ("spec", "serviceAccountSelector"),
            text,
            "selects nothing: service accounts exist only in Kubernetes",
            "give the endpoints a label, and write it into selector",
        )


def written_global_problems(spec: GlobalSpec) -> Iterator[Problem]:
    """Find what a global policy is warned of when it is written."""
    text = spec.namespace_selector
    if picks_no_namespace(text):
        yield Problem(("spec", "namespaceSelector"), text, NO_NAMESPACE_LABELS, NAMESPACE_HINT, warning=True)
    if spec.do_not_track:
        allows = {
            type_: type_ in spec.types and any(rule.action == "Allow" for rule in rules)
            for type_, rules in (("Ingress", spec.ingress), ("Egress", spec.egress))
        }
        if sum(allows.values()) == 1:
            missing = next(type_ for type_, allowed in allows.items() if not allowed)
            reason = "packets that are not tracked belong to no connection: their answers are not let through with them"
            hint = f"allow the answers by rules of type {missing}"
            yield Problem(("spec", "doNotTrack"), "true", reason, hint, warning=True)


def needed(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Return which of a policy's problems make a stored one unusable: nearly all.

    A reader that skipped part of a policy would enforce another one: it has to be right as a whole.
    """
    return (problem for problem in problems if not problem.warning and problem.path[1] != "performanceHints")


def closed(document: Mapping[str, JSON], policy: type[P], spec_type: type[msgspec.Struct]) -> P | None:
    """Deny what a policy that cannot be read selects, in its place; None if it cannot be known what that is.

    Without a readable order it comes first: later, another policy could allow what this one was to deny.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return None
    names = dict(zip(spec_type.__struct_fields__, spec_type.__struct_encode_fields__, strict=True))
    texts = {name: spec.get(names[name]) or "" for name in ("tier", *_SELECTORS) if name in names}
    if not all(isinstance(text, str) for text in texts.values()):
        return None
    tier = str(texts["tier"] or DEFAULT_TIER)
    if any(True for name in _SELECTORS if name in texts for _ in fields.selector((), str(texts[name]))):
        return None
    types = spec.get("types") or computed_types(
        has_ingress=bool(spec.get("ingress")), has_egress=bool(spec.get("egress"))
    )
    if not isinstance(types, list) or not all(type_ in TYPES for type_ in types):
        return None
    order = spec.get("order")
    deny = [Rule(action="Deny")]
    values: dict[str, Any] = {
        **texts,
        **{name: spec.get(names[name]) is True for name in _FLAGS if name in names},
        "tier": tier,
        "order": float(order) if isinstance(order, int | float) else None if order is None else -math.inf,
        "ingress": deny if "Ingress" in types else [],
        "egress": deny if "Egress" in types else [],
        "types": [type_ for type_ in TYPES if type_ in types],
    }
    assert issubclass(policy, msgspec.Struct)
    return policy(metadata=Metadata(labels={TIER_LABEL: tier}), spec=spec_type(**values))


def name_fault(name: str) -> str | None:
    """Return why a global policy may not have this name, or None."""
    if re.fullmatch(_NAME, name):
        return None
    return f"name must consist of lower case alphanumeric characters or '-' (regex: {DNS_LABEL_PATTERN})"


def namespaced_name_fault(name: str) -> str | None:
    """Return why a policy of a namespace may not have this name, or None."""
    return None if re.fullmatch(_NAMESPACED_NAME, name) else name_fault(name)


def order_cell(policy: Policy, _: View) -> str:
    return "<nil>" if policy.spec.order is None else shown_float(policy.spec.order)


def selector_cell(policy: Policy, _: View) -> str:
    selector: str = policy.spec.selector
    return selector


_TIER: Column[Any] = Column("TIER", lambda policy, _: policy.spec.tier)

COLUMNS: tuple[Column[Any], ...] = (Column("NAME", name_cell), _TIER)
WIDE: tuple[Column[Any], ...] = (*COLUMNS, Column("ORDER", order_cell), Column("SELECTOR", selector_cell))
