"""GlobalNetworkPolicy: ordered rules for what a selector picks (reference resources.md 2.9; names 1.6)."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from resources.gotext import JSON
from resources.kinds import fields, rule_v1
from resources.kinds.base import V1, Column, Kind, Metadata, Problem, name_cell, wire
from resources.kinds.naming import policy_name
from resources.kinds.policy import (
    COLUMNS,
    STAGED_ONLY,
    WIDE,
    closed,
    complete,
    global_problems,
    name_fault,
    needed,
    order_cell,
    selector_cell,
    spec_problems,
    written_global_problems,
    written_problems,
)
from resources.kinds.rule import Rule
from resources.kinds.rule_v1 import RuleV1


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


def _problems(spec: GlobalNetworkPolicySpec) -> Iterator[Problem]:
    yield from spec_problems(spec)
    yield from global_problems(spec)


def _check(policy: GlobalNetworkPolicy) -> Iterable[Problem]:
    yield from _problems(policy.spec)
    yield from written_problems(policy.spec)
    yield from written_global_problems(policy.spec)


def _needs(policy: GlobalNetworkPolicy) -> Iterable[Problem]:
    return needed(_problems(policy.spec))


def _closed(document: Mapping[str, JSON]) -> GlobalNetworkPolicy | None:
    return closed(document, GlobalNetworkPolicy, GlobalNetworkPolicySpec)


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
    wide=(Column("NAME", name_cell), Column("ORDER", order_cell), Column("SELECTOR", selector_cell)),
)

KIND: Kind[GlobalNetworkPolicy] = Kind(
    name="GlobalNetworkPolicy",
    plural="globalnetworkpolicies",
    type=GlobalNetworkPolicy,
    aliases=("globalnetworkpolicy", "globalnetworkpolicies", "gnp", "gnps"),
    complete=complete,
    check=_check,
    needs=_needs,
    closed=_closed,
    name_fault=name_fault,
    foreign=STAGED_ONLY,
    columns=COLUMNS,
    wide=WIDE,
    v1=_V1,
)
