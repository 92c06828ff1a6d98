"""Policies and tiers: what a record says, and which policies apply to an endpoint in which order.

Source: reference felix.md 4.1, 4.2; resources.md 2.9, 2.10, 7.2.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from felix.calc.model import (
    DENY_ALL,
    Action,
    Direction,
    PolicyId,
    Rules,
    Stage,
    TierPolicies,
)
from felix.calc.rules import read_rules
from resources.datastore.keys import ResourceKey
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy, GlobalNetworkPolicySpec
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.policy import computed_types
from resources.kinds.tier import DEFAULT_ORDER, DEFAULT_TIER, Tier
from resources.selection import policy_selector
from resources.selector import Selector

NEEDED_EVERYWHERE = "AssumeNeededOnEveryNode"
_KINDS = {"globalnetworkpolicies": "GlobalNetworkPolicy", "networkpolicies": "NetworkPolicy"}
_PLURALS = {kind: plural for plural, kind in _KINDS.items()}

CLOSED = Rules(ingress=(DENY_ALL,), egress=(DENY_ALL,))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy as the calculation keeps it. `order` is infinite where none is given."""

    id: PolicyId
    tier: str
    order: float
    selector: Selector
    rules: Rules
    on_forward: bool = False
    """Asked about what passes through a host endpoint too; about workloads it is asked anyway."""
    sets_everywhere: bool = False
    """Its sets are kept on hosts where nobody is selected too, so that they are there when it counts."""
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def for_workloads(self) -> bool:
        """Whether it selects workloads: policies of the other stages are for host endpoints only."""
        return self.rules.stage is Stage.NORMAL

    @property
    def place(self) -> tuple[float, str, str, str]:
        """Sort key within a tier: order, name, namespace, kind."""
        return self.order, self.id.name, self.id.namespace, self.id.kind

    @property
    def bearing(self) -> tuple[object, ...]:
        """All of it that the lists of policies of the endpoints it selects depend on."""
        rules = self.rules
        return self.tier, self.order, rules.stage, self.on_forward, rules.ingress is None, rules.egress is None


@dataclass(frozen=True, slots=True)
class TierRecord:
    """A tier; `order` is infinite where none is given."""

    order: float
    default_action: Action


BUILT_IN_DEFAULT = TierRecord(DEFAULT_ORDER, Action.DENY)


def read_tier(tier: Tier) -> TierRecord:
    """Return what a tier's record says; anything but Pass is Deny."""
    order = math.inf if tier.spec.order is None else tier.spec.order
    return TierRecord(order, Action.PASS if tier.spec.default_action == "Pass" else Action.DENY)


def read_policy(key: ResourceKey, policy: GlobalNetworkPolicy | NetworkPolicy) -> PolicyRecord:
    """Return what a policy's record says. One of a namespace is confined to that, as are its rules' selectors.

    Raises:
        SelectorError: it cannot be told what it selects.
    """
    spec = policy.spec
    types = spec.types or computed_types(has_ingress=bool(spec.ingress), has_egress=bool(spec.egress))
    rules, problems = read_rules(
        spec.ingress if "Ingress" in types else None, spec.egress if "Egress" in types else None, key.namespace
    )
    stage, on_forward, namespaces = Stage.NORMAL, False, ""
    if isinstance(policy, GlobalNetworkPolicy):
        stage, on_forward = _stage(policy.spec), policy.spec.apply_on_forward
        namespaces = policy.spec.namespace_selector
    selector = policy_selector(
        spec.selector,
        namespace=key.namespace,
        namespaces=namespaces,
        service_accounts=spec.service_account_selector,
    )
    return PolicyRecord(
        id=policy_id(key),
        tier=spec.tier or DEFAULT_TIER,
        order=_order(spec.order),
        selector=selector,
        rules=rules if stage is Stage.NORMAL else replace(rules, stage=stage),
        on_forward=on_forward,
        sets_everywhere=NEEDED_EVERYWHERE in spec.performance_hints,
        problems=problems,
    )


def policy_id(key: ResourceKey) -> PolicyId:
    return PolicyId(_KINDS[key.plural], key.name, key.namespace)


def policy_key(policy: PolicyId) -> ResourceKey:
    return ResourceKey(_PLURALS[policy.kind], policy.name, policy.namespace)


def _stage(spec: GlobalNetworkPolicySpec) -> Stage:
    return Stage.UNTRACKED if spec.do_not_track else Stage.PRE_DNAT if spec.pre_dnat else Stage.NORMAL


def _order(order: float | None) -> float:
    return math.inf if order is None or math.isnan(order) else order


def ordered(policies: Iterable[PolicyRecord], tiers: Mapping[str, TierRecord]) -> tuple[TierPolicies, ...]:
    """Return the policies that apply to one endpoint, by tier, both in the order in which they are asked.

    A tier that does not exist comes first: its policies are closed (see `effective_rules`), and nothing may be
    allowed before them.
    """
    by_tier: dict[str, list[PolicyRecord]] = {}
    for policy in policies:
        by_tier.setdefault(policy.tier, []).append(policy)
    return tuple(
        _tier_policies(name, tiers.get(name), by_tier[name])
        for name in sorted(by_tier, key=lambda name: (_tier_order(tiers.get(name)), name))
    )


def of_host_endpoint(
    policies: Iterable[PolicyRecord], tiers: Mapping[str, TierRecord]
) -> dict[Stage | None, tuple[TierPolicies, ...]]:
    """Return the policies that apply to a host endpoint, by stage; under None those about what it forwards.

    Before connection tracking and before NAT nothing ends with a tier: there is more to be asked later.
    """
    by_stage: dict[Stage | None, list[PolicyRecord]] = {None: [], **{stage: [] for stage in Stage}}
    for policy in policies:
        by_stage[policy.rules.stage].append(policy)
        if policy.rules.stage is Stage.NORMAL and policy.on_forward:
            by_stage[None].append(policy)
    found = {stage: ordered(chosen, tiers) for stage, chosen in by_stage.items()}
    for stage in (Stage.UNTRACKED, Stage.PRE_DNAT):
        found[stage] = tuple(replace(tier, default_action=Action.PASS) for tier in found[stage])
    found[Stage.PRE_DNAT] = tuple(replace(tier, egress=()) for tier in found[Stage.PRE_DNAT] if tier.ingress)
    return found


def _tier_order(tier: TierRecord | None) -> float:
    return -math.inf if tier is None else tier.order


def _tier_policies(name: str, tier: TierRecord | None, policies: list[PolicyRecord]) -> TierPolicies:
    policies = sorted(policies, key=lambda policy: policy.place)
    return TierPolicies(
        name=name,
        default_action=tier.default_action if tier else Action.DENY,
        ingress=tuple(policy.id for policy in policies if policy.rules.of(Direction.INGRESS) is not None),
        egress=tuple(policy.id for policy in policies if policy.rules.of(Direction.EGRESS) is not None),
    )


def effective_rules(policy: PolicyRecord, tiers: Mapping[str, TierRecord]) -> Rules:
    """Return the policy's rules with its tier, closed if that does not exist."""
    if policy.tier in tiers:
        return replace(policy.rules, tier=policy.tier)
    return replace(
        policy.rules,
        ingress=None if policy.rules.ingress is None else CLOSED.ingress,
        egress=None if policy.rules.egress is None else CLOSED.egress,
        tier=policy.tier,
    )
