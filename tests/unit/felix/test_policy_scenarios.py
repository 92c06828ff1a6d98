"""The scenarios of reference felix.md 8.1, 8.2 and 8.4, by a walk through the rendered rules."""

import pytest

from fakes.felix_records import policy, profile, rule, settings, tier, workload
from fakes.scenario import HOST, OUTSIDE, Scenario
from resources.datastore.keys import ResourceKey
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule, RuleMetadata

ALLOW, DENY, PASS, LOG = (Rule(action=action) for action in ("Allow", "Deny", "Pass", "Log"))
WITHIN_A = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1"}
FROM_B_OUT = {"b1>b2", "b1>a2", "b2>b1", "a0>b2", "a1>b2"}
"""Egress is free by profile; whether the other host lets it in is not ours to decide."""


def from_(name: str) -> EntityRule:
    return EntityRule(selector=f"name == '{name}'")


def test_members_of_a_network_reach_each_other_and_nobody_else() -> None:
    assert Scenario().reachable() == WITHIN_A | FROM_B_OUT


def test_ingress_policy_without_rules_closes_ingress_only() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", types=["Ingress"]))
    assert world.reachable() == (WITHIN_A | FROM_B_OUT) - {"a1>a0", "a2>a0"}


def test_egress_policy_without_rules_closes_egress_only() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", types=["Egress"]))
    assert world.reachable() == (WITHIN_A | FROM_B_OUT) - {"a0>a1", "a0>a2", "a0>b2"}


def test_rules_of_a_direction_that_the_types_leave_out_are_ignored() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", [ALLOW], [DENY], types=["Ingress"]))
    assert world.reaches("a0", "a1")


def test_both_directions_closed_but_for_one_peer() -> None:
    allowed = rule("Allow", source=from_("a1"))
    world = Scenario().put(policy("p", "name == 'a0'", [allowed], types=["Ingress", "Egress"]))
    assert world.reaches("a1", "a0")
    assert not world.reaches("a2", "a0")
    assert not any(world.reaches("a0", other) for other in ("a1", "a2", "b2", OUTSIDE))


@pytest.mark.parametrize(("deny_order", "reached"), [(10, False), (30, True)])
def test_order_decides(deny_order: float, reached: bool) -> None:
    world = Scenario().put(
        policy("x", "name == 'a0'", [rule("Deny", source=from_("a1"))], order=deny_order),
        policy("y", "name == 'a0'", [ALLOW], order=20),
    )
    assert world.reaches("a1", "a0") is reached
    assert world.reaches("a2", "a0")


def test_names_break_ties_and_no_order_is_last() -> None:
    world = Scenario().put(
        policy("p1", "name == 'a0'", [DENY], order=5), policy("p2", "name == 'a0'", [ALLOW], order=5),
        policy("a", "name == 'a1'", [DENY]), policy("z", "name == 'a1'", [ALLOW], order=1000),
    )  # fmt: skip
    assert not world.reaches("a1", "a0")
    assert world.reaches("a0", "a1")


def test_pass_leaves_the_tier_and_asks_the_profile() -> None:
    world = Scenario().put(
        policy("p1", "name == 'a0'", [PASS], order=1), policy("p2", "name == 'a0'", [ALLOW], order=2)
    )
    assert world.reaches("a1", "a0")
    assert not world.reaches("b1", "a0")


def test_pass_asks_the_next_tier() -> None:
    world = Scenario().put(
        tier("t1", 1), tier("default", 1_000_000),
        policy("p1", "name == 'a0'", [PASS], tier="t1"),
        policy("p2", "name == 'a0'", [rule("Deny", source=from_("a1")), ALLOW]),
    )  # fmt: skip
    assert not world.reaches("a1", "a0")
    assert world.reaches("b1", "a0")


@pytest.mark.parametrize(("default_action", "reached"), [("Deny", False), ("Pass", True)])
def test_end_of_a_tier(default_action: str, reached: bool) -> None:
    world = Scenario().put(
        tier("t1", 1, default_action),
        policy("p1", "name == 'a0'", [rule("Allow", 47)], tier="t1"),
        policy("p2", "name == 'a0'", [ALLOW]),
    )
    assert world.reaches("a1", "a0") is reached
    assert world.reaches("a1", "a0", protocol=47)


def test_a_tier_whose_policies_select_others_is_skipped() -> None:
    world = Scenario().put(tier("t1", 1), policy("p1", "name == 'b1'", [DENY], tier="t1"))
    assert world.reaches("a1", "a0")


def test_a_policy_in_a_tier_that_does_not_exist_closes_what_it_selects() -> None:
    world = Scenario().put(policy("first", "name == 'a0'", [ALLOW]), policy("p", "name == 'a0'", [ALLOW], tier="none"))
    assert not world.reaches("a1", "a0")
    assert world.reaches("a0", "a1")
    world.put(tier("none", 5))
    assert world.reaches("a1", "a0")


def test_the_default_tier_needs_no_record() -> None:
    world = Scenario().put(tier("t1", 2_000_000), policy("p1", "name == 'a0'", [DENY], tier="t1"))
    world.put(policy("p2", "name == 'a0'", [ALLOW]))
    assert world.reaches("a1", "a0")


def test_a_removed_policy_leaves_no_trace() -> None:
    world = Scenario()
    before = world.desired
    key, value = policy("p", "name == 'a0'", [rule("Deny", source=from_("a1"))])
    assert not world.put((key, value)).reaches("a1", "a0")
    assert world.remove(key).desired == before


def test_open_flows_go_on_and_invalid_packets_do_not() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", [DENY], [DENY]))
    assert world.reaches("a1", "a0", state="ESTABLISHED")
    assert not world.reaches("a1", "a0")
    assert not world.reaches("a0", "a1", state="INVALID")


def test_a_missing_profile_closes_the_endpoint_until_it_appears() -> None:
    world = Scenario()
    world.endpoint("a0", profiles=["new"])
    assert not any(world.reaches(*pair) for pair in (("a0", "a1"), ("a1", "a0")))
    world.put(profile("new", [ALLOW], [ALLOW], {"net-a": ""}))
    assert world.reaches("a0", "a1")
    assert world.reaches("b1", "a0")
    world.remove(ResourceKey("profiles", "new"))
    assert not world.reaches("b1", "a0")


def test_the_profile_that_is_never_stored_allows_everything() -> None:
    world = Scenario()
    world.endpoint("a0", profiles=["projectcalico-default-allow"])
    assert world.reaches("b1", "a0")
    assert world.reaches("a0", OUTSIDE)


def test_an_endpoint_without_profile_and_policy_is_closed() -> None:
    world = Scenario()
    world.endpoint("a0", profiles=[])
    assert not any("a0" in pair for pair in world.reachable())


def test_the_second_profile_is_asked_if_the_first_does_not_match() -> None:
    world = Scenario().put(profile("from-b", [rule("Allow", source=from_("b1"))]))
    world.endpoint("a0", profiles=["from-b", "net-a"])
    assert world.reaches("b1", "a0")
    assert world.reaches("a1", "a0")
    assert not world.reaches("b2", "a0")


def test_log_goes_on_with_the_next_rule() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", [LOG, ALLOW]))
    assert world.reaches("a1", "a0")
    assert world.machine.log == ["calico-packet: "]


def test_a_policy_is_here_only_while_it_selects_somebody_here() -> None:
    world = Scenario()
    before = world.desired
    world.put(policy("p", "team == 'x'", [rule("Deny", source=EntityRule(selector="has(foe)"))]))
    assert world.desired == before
    world.endpoint("a0", labels={"team": "x"})
    desired = world.desired
    assert [key.chain for key in desired.chains.keys() - before.chains.keys()] == ["cali-pi-gnp/p"] * 2
    assert len(desired.sets) == len(before.sets) + 2
    world.endpoint("a0")
    assert world.desired == before


def test_a_policy_that_selects_only_workloads_elsewhere_is_not_here() -> None:
    world = Scenario()
    before = world.desired
    world.put(policy("p", "name == 'a2'", [DENY]))
    assert world.desired == before


def test_many_policies_of_one_selector() -> None:
    allowed = [rule("Allow", "TCP", destination=EntityRule(ports=[80 + n])) for n in range(8)]
    world = Scenario().put(*(policy(f"p{n}", "name == 'a0'", [one]) for n, one in enumerate(allowed)))
    assert [world.reaches("a1", "a0", destination_port=port) for port in (79, 80, 83, 87, 88)] == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_annotations_of_all_sorts_become_harmless_comments() -> None:
    annotations = {f"k{n}": "ü\"'\n-j ACCEPT $(x)" * 50 for n in range(20)}
    world = Scenario().put(
        policy("p", "name == 'a0'", [Rule(action="Deny", metadata=RuleMetadata(annotations=annotations)), ALLOW])
    )
    assert not world.reaches("a1", "a0")


def test_policies_applied_before_nat_are_not_for_workloads() -> None:
    world = Scenario().put(policy("p", "name == 'a0'", [DENY], pre_dnat=True))
    assert world.reaches("a1", "a0")


def test_namespaces() -> None:
    world = Scenario().put(
        policy("p", "name == 'a0'", [rule("Allow", source=EntityRule(namespace_selector="global()")), DENY]),
        policy("q", "name == 'a1'", [rule("Allow", source=EntityRule(namespace_selector="all()")), DENY]),
        policy("r", "name == 'b1'", [DENY], namespace_selector="has(nobody)"),
    )
    assert not world.reaches("a1", "a0")
    assert world.reaches("b1", "a1")
    assert not world.reaches(OUTSIDE, "a1")
    assert world.reaches("b2", "b1")


# Workload to host (8.4): INPUT policy, action.


@pytest.mark.parametrize(
    ("policy_of_input", "action", "reached"),
    [
        ("DROP", "Accept", True), ("DROP", "Return", False), ("DROP", "Drop", False), ("ACCEPT", "Drop", False),
        ("ACCEPT", "Return", True),
    ],
)  # fmt: skip
def test_workload_to_its_host(policy_of_input: str, action: str, reached: bool) -> None:
    world = Scenario().put(settings(FelixConfigurationSpec(default_endpoint_to_host_action=action)))
    assert world.machine.to_host(world.packet("a0", HOST, out_interface=""), policy=policy_of_input) is reached


def test_egress_policy_counts_towards_the_host_too() -> None:
    world = Scenario().put(
        settings(FelixConfigurationSpec(default_endpoint_to_host_action="Accept")),
        policy("p", "name == 'a0'", egress=[rule("Deny", destination=EntityRule(nets=[f"{HOST}/32"])), ALLOW]),
    )
    assert not world.machine.to_host(world.packet("a0", HOST, out_interface=""))
    assert world.machine.to_host(world.packet("a1", HOST, out_interface=""))


def test_a_host_always_reaches_its_own_workloads() -> None:
    world = Scenario().put(policy("p", "all()", [DENY], [DENY]))
    assert world.machine.from_host(world.packet(HOST, "a0", in_interface=""))


def test_traffic_that_is_not_ours_is_left_alone() -> None:
    world = Scenario()
    foreign = world.packet(OUTSIDE, "198.51.100.1", in_interface="eth0", out_interface="docker0", mark=0xFFFF0000)
    assert world.machine.forward(foreign, policy="ACCEPT")
    assert not world.machine.forward(foreign, policy="DROP")


# Spoofing and encapsulation (8.6).


def test_a_false_source_is_dropped() -> None:
    world = Scenario()
    assert not world.reaches("a0", "a1", spoofed=True)
    assert world.machine.forward(world.packet(OUTSIDE, "198.51.100.1", spoofed=True), policy="ACCEPT")


@pytest.mark.parametrize(("spoofing", "reached"), [("Any", True), ("Disabled", False)])
def test_a_foreign_source_that_the_endpoint_may_use(spoofing: str, reached: bool) -> None:
    world = Scenario().put(settings(FelixConfigurationSpec(workload_source_spoofing=spoofing)))
    world.put(workload("a0", "10.1.0.1/32", profiles=["net-a"], spoofed=["198.51.100.0/24"]))
    sent = {"in_interface": "calia0", "spoofed": True}
    assert world.reaches("198.51.100.7", "a2", **sent) is reached
    assert not world.reaches("203.0.113.7", "a2", **sent)


@pytest.mark.parametrize("allowed", [False, True])
def test_tunnels_of_workloads(allowed: bool) -> None:
    spec = FelixConfigurationSpec(
        allow_vxlan_packets_from_workloads=allowed, allow_ipip_packets_from_workloads=allowed
    )
    world = Scenario().put(settings(spec))
    assert world.reaches("a0", "a2", protocol=4) is allowed
    assert world.reaches("a0", "a2", protocol=17, destination_port=4789) is allowed
    assert world.reaches("a0", "a2", protocol=17, destination_port=4788)
