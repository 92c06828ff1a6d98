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
    TierPolicies,
)
from felix.calc.rules import read_rules
from resources.datastore.keys import ResourceKey
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.policy import computed_types
from resources.kinds.tier import DEFAULT_ORDER, DEFAULT_TIER, Tier
from resources.selection import policy_selector
from resources.selector import Selector

CLOSED = Rules(ingress=(DENY_ALL,), egress=(DENY_ALL,))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy as the calculation keeps it. `order` is infinite where none is given."""

    id: PolicyId
    tier: str
    order: float
    selector: Selector
    rules: Rules
    for_workloads: bool = True
    """False for what is applied to host endpoints before connection tracking or NAT."""
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def place(self) -> tuple[float, str, str, str]:
        """Sort key within a tier: order, name, namespace, kind."""
        return self.order, self.id.name, self.id.namespace, self.id.kind


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


def read_policy(key: ResourceKey, policy: GlobalNetworkPolicy) -> PolicyRecord:
    """Return what a policy's record says.

    Raises:
        SelectorError: it cannot be told what it selects.
    """
    spec = policy.spec
    types = spec.types or computed_types(has_ingress=bool(spec.ingress), has_egress=bool(spec.egress))
    rules, problems = read_rules(
        spec.ingress if "Ingress" in types else None, spec.egress if "Egress" in types else None
    )
    return PolicyRecord(
        id=PolicyId("GlobalNetworkPolicy", key.name),
        tier=spec.tier or DEFAULT_TIER,
        order=_order(spec.order),
        selector=policy_selector(
            spec.selector, namespaces=spec.namespace_selector, service_accounts=spec.service_account_selector
        ),
        rules=rules,
        for_workloads=not (spec.do_not_track or spec.pre_dnat),
        problems=problems,
    )


def _order(order: float | None) -> float:
    return math.inf if order is None or math.isnan(order) else order


def ordered(policies: Iterable[PolicyRecord], tiers: Mapping[str, TierRecord]) -> tuple[TierPolicies, ...]:
    """Return the policies that apply to one endpoint, by tier, both in the order in which they are asked.

    A tier that does not exist comes first: its policies are closed (see `effective_rules`), and nothing may be
    allowed before them.
    """
    by_tier: dict[str, list[PolicyRecord]] = {}
    for policy in policies:
        if policy.for_workloads:
            by_tier.setdefault(policy.tier, []).append(policy)
    return tuple(
        _tier_policies(name, tiers.get(name), by_tier[name])
        for name in sorted(by_tier, key=lambda name: (_tier_order(tiers.get(name)), name))
    )


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
    return Rules(
        ingress=None if policy.rules.ingress is None else CLOSED.ingress,
        egress=None if policy.rules.egress is None else CLOSED.egress,
        tier=policy.tier,
    )
