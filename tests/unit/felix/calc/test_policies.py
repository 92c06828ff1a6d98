"""Which policies an endpoint is asked about, in which order, and what a missing tier makes of their rules."""

import math
from dataclasses import replace

import pytest

from felix.calc.model import DENY_ALL, Action, PolicyId, PolicyRule, Rules, Stage, TierPolicies
from felix.calc.policies import PolicyRecord, TierRecord, effective_rules, of_host_endpoint, ordered, read_tier
from resources.kinds.base import Metadata
from resources.kinds.tier import Tier, TierSpec
from resources.selector import parse

ALLOW = (PolicyRule(action=Action.ALLOW),)
TIERS = {
    "first": TierRecord(100.0, Action.PASS),
    "second": TierRecord(200.0, Action.DENY),
    "last": TierRecord(math.inf, Action.DENY),
}


def policy(
    name: str,
    *,
    tier: str = "second",
    order: float = math.inf,
    namespace: str = "",
    ingress: bool = True,
    egress: bool = True,
    stage: Stage = Stage.NORMAL,
    on_forward: bool = False,
) -> PolicyRecord:
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    rules = Rules(ingress=ALLOW if ingress else None, egress=ALLOW if egress else None, stage=stage)
    return PolicyRecord(
        id=PolicyId(kind, name, namespace), tier=tier, order=order, selector=parse("all()"), rules=rules,
        on_forward=on_forward,
    )  # fmt: skip


def names(policies: tuple[PolicyId, ...]) -> list[str]:
    return [one.name for one in policies]


def test_tiers_go_by_order_then_name_and_one_that_is_missing_comes_first_and_denies() -> None:
    also_last = TIERS | {"a-last": TierRecord(math.inf, Action.PASS)}
    found = ordered([policy("p", tier=tier) for tier in ("last", "second", "gone", "first", "a-last")], also_last)
    assert [(tier.name, tier.default_action) for tier in found] == [
        ("gone", Action.DENY), ("first", Action.PASS), ("second", Action.DENY), ("a-last", Action.PASS),
        ("last", Action.DENY),
    ]  # fmt: skip


def test_policies_of_a_tier_go_by_order_name_namespace_and_those_without_order_are_last() -> None:
    found = ordered(
        [
            policy("z", order=1), policy("a"), policy("b", order=2), policy("b", order=2, namespace="n"),
            policy("b", order=2, namespace="m"), policy("a", order=2),
        ],
        TIERS,
    )  # fmt: skip
    (tier,) = found
    assert [(one.name, one.namespace) for one in tier.ingress] == [
        ("z", ""), ("a", ""), ("b", ""), ("b", "m"), ("b", "n"), ("a", ""),
    ]  # fmt: skip
    assert tier.egress == tier.ingress


def test_a_policy_is_asked_in_its_directions_only() -> None:
    (tier,) = ordered([policy("in", egress=False), policy("out", ingress=False), policy("both")], TIERS)
    assert (names(tier.ingress), names(tier.egress)) == (["both", "in"], ["both", "out"])


@pytest.mark.parametrize(("ingress", "egress"), [(True, False), (False, True), (True, True), (False, False)])
def test_without_its_tier_a_policy_is_closed_in_its_directions_and_in_no_other(ingress: bool, egress: bool) -> None:
    found = effective_rules(policy("p", tier="gone", ingress=ingress, egress=egress), TIERS)
    assert found.ingress == ((DENY_ALL,) if ingress else None)
    assert found.egress == ((DENY_ALL,) if egress else None)
    assert found.tier == "gone"


def test_with_its_tier_a_policys_rules_stand() -> None:
    one = policy("p", egress=False)
    assert effective_rules(one, TIERS) == replace(one.rules, tier="second")


@pytest.mark.parametrize(
    ("word", "action"), [("Pass", Action.PASS), ("Deny", Action.DENY), ("", Action.DENY), ("pass", Action.DENY)]
)
def test_a_tier_ends_in_deny_unless_it_says_pass(word: str, action: Action) -> None:
    record = read_tier(Tier(metadata=Metadata(name="t"), spec=TierSpec(order=7, default_action=word)))
    assert record == TierRecord(7, action)
    assert read_tier(Tier(metadata=Metadata(name="t"))).order == math.inf


def test_a_host_endpoint_asks_each_policy_at_its_stage() -> None:
    found = of_host_endpoint(
        [
            policy("plain"), policy("forwarded", on_forward=True), policy("early", stage=Stage.UNTRACKED),
            policy("before", stage=Stage.PRE_DNAT, on_forward=True), policy("out", stage=Stage.PRE_DNAT, ingress=False),
        ],
        TIERS,
    )  # fmt: skip

    def told(tiers: tuple[TierPolicies, ...]) -> list[tuple[Action, list[str], list[str]]]:
        return [(tier.default_action, names(tier.ingress), names(tier.egress)) for tier in tiers]

    assert told(found[Stage.NORMAL]) == [(Action.DENY, ["forwarded", "plain"], ["forwarded", "plain"])]
    assert told(found[None]) == [(Action.DENY, ["forwarded"], ["forwarded"])]
    assert told(found[Stage.UNTRACKED]) == [(Action.PASS, ["early"], ["early"])]
    assert told(found[Stage.PRE_DNAT]) == [(Action.PASS, ["before"], [])]


def test_before_nat_a_tier_that_says_nothing_about_what_comes_in_is_not_there() -> None:
    found = of_host_endpoint([policy("out", stage=Stage.PRE_DNAT, ingress=False)], TIERS)
    assert found[Stage.PRE_DNAT] == ()
