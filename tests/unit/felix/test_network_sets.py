"""Network sets and policies of namespaces (reference felix.md 4.1, 4.4; scenarios 52, 53, 56), by rendered rules."""

import pytest

from fakes.felix_records import network_policy, network_set, policy, rule, workload
from fakes.scenario import OUTSIDE, Scenario
from felix.calc.model import selector_set
from felix.desired import ChainKey, SetChange
from felix.render.names import set_name
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule
from resources.names import IfName
from resources.selector import parse

OFFICE = {"zone": "office"}
IN_OFFICE = EntityRule(selector="zone == 'office'")
NOT_IN_OFFICE = EntityRule(not_selector="zone == 'office'")
ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")
A0 = "name == 'a0'"


def office(version: int = 4) -> str:
    return set_name(version, selector_set(parse("zone == 'office'")).id)


def guarded(*rules: Rule) -> Scenario:
    """Let a0 have what these rules say, in, and nothing else."""
    return Scenario().put(policy("p", A0, list(rules), types=["Ingress"]))


class TestMembers:
    def test_networks_of_both_families_host_bits_and_bare_addresses(self) -> None:
        nets = ("192.0.2.0/25", "198.51.100.9/24", "203.0.113.7", "fd00::5/64", "fd01::1", "::ffff:1.2.3.4", "::/96")
        world = guarded(rule("Allow", source=IN_OFFICE)).put(network_set("s", *nets, labels=OFFICE))
        sets = world.desired.sets
        assert sets[office()].members == {"192.0.2.0/25", "198.51.100.0/24", "203.0.113.7"}
        # as ipset prints them: what it says differently would be repaired for ever
        assert sets[office(6)].members == {"fd00::/64", "fd01::1", "::ffff:1.2.3.4", "::/96"}
        assert world.reaches("192.0.2.1", "a0")
        assert world.reaches("198.51.100.77", "a0")
        assert not world.reaches("192.0.2.200", "a0")

    def test_a_change_of_one_entry_is_one_line(self) -> None:
        many = [f"198.51.{n >> 8}.{n & 255}" for n in range(2000)]
        world = guarded(rule("Allow", source=IN_OFFICE)).put(network_set("s", *many, labels=OFFICE))
        world.flush()
        world.put(network_set("s", *many[1:], "192.0.2.0/24", labels=OFFICE))
        update = world.flush()
        assert update.sets == {office(): SetChange(frozenset({"192.0.2.0/24"}), frozenset({"198.51.0.0"}))}
        assert update.chains == {}

    def test_overlapping_and_equal_entries_are_counted(self) -> None:
        world = guarded(rule("Allow", source=IN_OFFICE)).put(
            network_set("s", "10.9.0.0/16", "10.9.3.3/16", "192.0.2.1/32", labels=OFFICE),
            network_set("t", "10.9.0.0/16", "10.9.1.0/24", "0.0.0.0/0", labels=OFFICE),
            network_set("u", "0.0.0.0/1", labels=OFFICE, namespace="libnetwork"),
        )
        world.endpoint("b2", labels=OFFICE, address="192.0.2.1")
        assert world.desired.sets[office()].members == {
            "10.9.0.0/16", "10.9.1.0/24", "0.0.0.0/1", "128.0.0.0/1", "192.0.2.1",
        }  # fmt: skip
        world.remove(ResourceKey("globalnetworksets", "t"), world.keys["b2"])
        assert world.desired.sets[office()].members == {"10.9.0.0/16", "0.0.0.0/1", "192.0.2.1"}

    def test_labels_decide_and_may_change(self) -> None:
        world = guarded(rule("Allow", source=IN_OFFICE)).put(network_set("s", "192.0.2.0/24"))
        assert not world.reaches("192.0.2.1", "a0")
        world.put(network_set("s", "192.0.2.0/24", labels=OFFICE))
        assert world.reaches("192.0.2.1", "a0")
        world.put(network_set("s", "192.0.2.0/24", labels={"zone": "home"}))
        assert not world.reaches("192.0.2.1", "a0")

    def test_a_set_has_no_ports(self) -> None:
        world = guarded(rule("Allow", "TCP", destination=EntityRule(ports=["http"])))
        world.put(network_set("s", "0.0.0.0/0", labels=OFFICE))
        world.endpoint("a0", ports=[("http", "TCP", 80)])
        assert world.reaches("a1", "a0", destination_port=80)
        assert not world.reaches("a1", "a0", destination_port=81)


class TestUnreadable:
    """An entry that cannot be read could have been anything: nothing is opened by its absence."""

    BAD = network_set("s", "192.0.2.0/24", "nonsense", labels=OFFICE)
    GOOD = network_set("s", "192.0.2.0/24", labels=OFFICE)

    @pytest.mark.parametrize(
        ("rules", "good", "bad"),
        [
            ([rule("Allow", source=IN_OFFICE)], {OUTSIDE}, {OUTSIDE}),
            ([rule("Allow", source=NOT_IN_OFFICE)], {"a1", "b1"}, set()),
            ([rule("Deny", source=IN_OFFICE), ALLOW], {"a1", "b1"}, set()),
            ([rule("Deny", source=NOT_IN_OFFICE), ALLOW], {OUTSIDE}, {OUTSIDE}),
            ([rule("Pass", source=IN_OFFICE), ALLOW], {"a1", "b1"}, set()),
            ([rule("Log", source=IN_OFFICE), ALLOW], {OUTSIDE, "a1", "b1"}, {OUTSIDE, "a1", "b1"}),
        ],
    )
    def test_it_opens_nothing(self, rules: list[Rule], good: set[str], bad: set[str]) -> None:
        world = guarded(*rules)
        for record, expected in ((self.GOOD, good), (self.BAD, bad), (self.GOOD, good)):
            world.put(record)
            assert {source for source in (OUTSIDE, "a1", "b1") if world.reaches(source, "a0")} == expected
        world.put(self.BAD)
        world.remove(self.BAD[0])
        assert world.desired == guarded(*rules).desired

    def test_it_is_told_at_the_set_and_at_who_uses_it(self) -> None:
        world = guarded(rule("Deny", source=IN_OFFICE), ALLOW).put(self.BAD)
        problems = world.flush().problems
        assert problems[self.BAD[0]] == ("'nonsense' in nets is no network: rules that this would open deny instead",)
        user = ResourceKey("globalnetworkpolicies", "p")
        assert problems[user] == (
            'selector zone == "office" picks something that cannot be read in full: '
            "rules that this would open deny instead",
        )
        assert world.put(self.GOOD).flush().problems == {self.BAD[0]: (), user: ()}

    def test_rules_with_other_sets_go_on(self) -> None:
        world = guarded(rule("Deny", source=EntityRule(selector="zone == 'home'")), ALLOW).put(self.BAD)
        assert world.reaches("a1", "a0")


class TestNamespaces:
    def test_a_policy_selects_in_its_namespace_only(self) -> None:
        world = Scenario().put(network_policy("p", "", [DENY], namespace="default"))
        assert world.reaches("a1", "a0")
        world.put(network_policy("p", "", [DENY]))
        assert not any(pair.endswith((">a0", ">a1", ">b1")) for pair in world.reachable())

    def test_its_rules_select_in_its_namespace_only(self) -> None:
        allowed = rule("Allow", source=IN_OFFICE)
        world = Scenario().put(network_policy("p", A0, [allowed], types=["Ingress"]))
        world.put(network_set("s", "192.0.2.0/24", labels=OFFICE))
        world.put(network_set("s", "198.51.100.0/24", labels=OFFICE, namespace="default"))
        world.put(network_set("s", "203.0.113.0/24", labels=OFFICE, namespace="libnetwork"))
        world.endpoint("b1", labels=OFFICE)
        reached = {s for s in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "b1", "a1") if world.reaches(s, "a0")}
        assert reached == {"203.0.113.1", "b1"}
        everywhere = EntityRule(selector="zone == 'office'", namespace_selector="global()")
        world.put(network_policy("p", A0, [rule("Allow", source=everywhere)], types=["Ingress"]))
        assert world.reaches("192.0.2.1", "a0")
        assert not world.reaches("203.0.113.1", "a0")

    def test_a_label_does_not_put_anybody_into_a_namespace(self) -> None:
        forged = {"projectcalico.org/namespace": "libnetwork", "pcns.team": "x", **OFFICE}
        world = Scenario().put(network_policy("p", A0, [rule("Allow", source=IN_OFFICE)], types=["Ingress"]))
        world.put(network_set("s", "192.0.2.0/24", labels=forged))
        assert not world.reaches("192.0.2.1", "a0")
        team = EntityRule(selector="has(pcns.team)")
        world.put(policy("p", "name == 'a1'", [rule("Allow", source=team)], types=["Ingress"]))
        world.endpoint("a2", labels=forged)
        assert not world.reaches("a2", "a1")
        assert not world.reaches("192.0.2.1", "a1")

    def test_order_then_name_then_namespace_then_kind(self) -> None:
        world = Scenario().put(network_policy("b", A0, [ALLOW]), policy("b", A0, [DENY]))
        assert not world.reaches("a1", "a0"), "GlobalNetworkPolicy has no namespace, so it is before"
        world.put(network_policy("a", A0, [ALLOW]))
        assert world.reaches("a1", "a0"), "the name is before the kind"
        world.put(policy("z", A0, [DENY], order=1))
        assert not world.reaches("a1", "a0"), "the order is before the name"

    def test_the_chain_is_called_by_namespace_and_name(self) -> None:
        made = Scenario().put(network_policy("p", A0, [DENY])).desired
        chain = made.chains[ChainKey(4, "filter", "cali-pi-np/libnetwork/p")]
        assert '--comment "NetworkPolicy libnetwork/p ingress"' in chain.rules[0]

    def test_one_of_each_kind_with_one_name_are_two_policies(self) -> None:
        world = Scenario().put(network_policy("p", A0, [ALLOW]), policy("p", A0, [ALLOW]))
        world.flush()
        world.remove(ResourceKey("globalnetworkpolicies", "p"))
        chains = {key.chain for key in world.desired.chains}
        assert "cali-pi-np/libnetwork/p" in chains
        assert "cali-pi-gnp/p" not in chains


def test_sets_that_are_needed_on_every_host_are_there_before_anybody_is_selected() -> None:
    hinted = policy("p", "role == 'web'", [rule("Allow", source=IN_OFFICE)], hints=["AssumeNeededOnEveryNode"])
    world = Scenario().put(hinted, network_set("s", "192.0.2.0/24", labels=OFFICE))
    desired = world.desired
    assert desired.sets[office()].members == {"192.0.2.0/24"}
    assert not any("gnp/p" in key.chain for key in desired.chains)
    world.put(policy("p", "role == 'web'", [rule("Allow", source=IN_OFFICE)]))
    assert office() not in world.desired.sets


def test_an_endpoint_without_the_label_is_in_its_namespace_all_the_same() -> None:
    key, record = workload("a9", "10.1.0.9/32", profiles=["net-a"], labels={"name": "a9"})
    del record.metadata.labels["projectcalico.org/namespace"]
    world = Scenario().put((key, record), network_policy("p", "", [DENY]))
    world.flush()
    chains = {k.chain: chain for k, chain in world.pipeline.desired().chains.items()}
    assert any("cali-pi-np/libnetwork/p" in text for text in chains["cali-tw-calia9"].rules)
    assert IfName("calia9") in world.pipeline.desired().interfaces
