"""What makes a member of a set, and sets of all sizes, by packets (reference felix.md 8.3)."""

import re
from collections.abc import Sequence

import pytest

from bed import wait_until
from bed.felix import FelixLab, Record, ports_that_pass
from fakes.felix_records import policy, profile, rule, workload
from felix.calc.model import NamedPort, named_port_set, selector_set
from felix.render.names import set_name
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Port, Rule
from resources.selector import parse

A0 = "name == 'a0'"
REST = {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
"""What stays open when nothing may come to a0."""
ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")


def guard(lab: FelixLab, *rules: Rule) -> None:
    lab.put(policy("p", A0, list(rules), types=["Ingress"]))


def sets(lab: FelixLab) -> dict[str, set[str]]:
    """The sets on node1 with their members."""
    found: dict[str, set[str]] = {}
    for line in lab.node1.run("ipset save").stdout.splitlines():
        verb, name, *rest = line.split()
        if verb == "create":
            found[name] = set()
        else:
            found[name].add(rest[0])
    return found


def of(selector: str) -> str:
    return set_name(4, selector_set(parse(selector)).id)


@pytest.mark.scenario(42)
def test_a_refused_named_port(lab: FelixLab) -> None:
    """It is refused where the selector of its side picks, and that side is confined to what the selector picks."""
    for name, number in (("a0", 8055), ("a1", 8056)):
        lab.record(lab.workloads[name], ports=[("http", "TCP", number)])
    lab.put(policy("in", "name in {'a0', 'a1'}", [ALLOW], types=["Ingress"]))

    def from_b1() -> dict[str, set[int]]:
        tried, b1 = (80, 8055, 8056), lab.workloads["b1"]
        return {name: ports_that_pass(b1, str(lab.workloads[name].address), tried) for name in ("a0", "a1")}

    def refuse(*ports: Port, selector: str = "") -> None:
        there = EntityRule(not_ports=list(ports), selector=selector)
        lab.put(policy("p", "name == 'b1'", [], [rule("Allow", "TCP", destination=there)], types=["Egress"]))

    refuse("http")
    assert from_b1() == {"a0": {80, 8056}, "a1": {80, 8055}}
    refuse("http", 80)
    assert from_b1() == {"a0": {8056}, "a1": {8055}}
    refuse("http", selector="name == 'a1'")
    assert from_b1() == {"a0": set(), "a1": {80, 8055}}


@pytest.mark.scenario(43)
def test_a_named_port_that_two_policies_name_stays_until_the_last_use(lab: FelixLab) -> None:
    for name in ("a0", "a1"):
        lab.record(lab.workloads[name], ports=[("http", "TCP", 8055)])
    lab.put(policy("in", "name in {'a0', 'a1'}", [ALLOW], types=["Ingress"]))
    to_http = rule("Allow", "TCP", destination=EntityRule(ports=["http"]))
    users = [policy(name, "name == 'b1'", [], [to_http], types=["Egress"]) for name in ("p1", "p2")]
    lab.put(*users)
    named = set_name(4, named_port_set(parse("all()"), NamedPort("tcp", "http")).id)
    assert sets(lab)[named] == {"10.65.0.2,tcp:8055", "10.65.0.3,tcp:8055"}

    def passing() -> set[str]:
        b1 = lab.workloads["b1"]
        return {name for name in ("a0", "a1") if ports_that_pass(b1, str(lab.workloads[name].address), [8055])}

    lab.remove(users[0][0])
    lab.record(lab.workloads["a1"])
    assert sets(lab)[named] == {"10.65.0.2,tcp:8055"}
    assert passing() == {"a0"}
    lab.remove(users[1][0])
    assert named not in sets(lab)


@pytest.mark.scenario(46)
def test_a_rule_that_refuses_every_net_allows_nothing(lab: FelixLab) -> None:
    """It is refused where it is written; one that is in the store nevertheless makes a Deny of its policy."""
    lab.tolerate("record.unreadable")
    guard(lab, rule("Allow", source=EntityRule(not_nets=["0.0.0.0/0"])))
    lab.expect(REST)


@pytest.mark.scenario(47)
def test_nets_of_the_other_family_do_not_make_a_rule_of_this_one(lab: FelixLab) -> None:
    """Not even one without any net, which would allow everything."""
    guard(lab, rule("Allow", source=EntityRule(nets=["fd00::/8"])))
    lab.expect(REST)
    guard(lab, rule("Allow", source=EntityRule(not_nets=["fd00::/8"])))
    lab.expect(REST)
    guard(lab, Rule(action="Allow", ip_version=6), rule("Allow", source=EntityRule(nets=["10.65.0.3/32"])))
    lab.expect(REST | {"a1>a0"})
    lab.tolerate("rule contains both IPv4 and IPv6 CIDRs")
    guard(lab, rule("Allow", source=EntityRule(nets=["fd00::/8", "10.65.0.3/32"])))
    lab.expect(REST)


@pytest.mark.scenario(55)
def test_a_label_of_the_profile_counts_unless_the_endpoint_has_its_own(lab: FelixLab) -> None:
    def team(name: str) -> Record:
        return profile("net-b", [rule("Allow", source=EntityRule(selector="has(net-b)"))], [ALLOW],
                       {"net-b": "", "team": name})  # fmt: skip

    guard(lab, rule("Allow", source=EntityRule(selector="team == 'red'")))
    lab.put(team("red"))
    lab.expect(REST | {"b1>a0", "b2>a0"})
    lab.record(lab.workloads["b1"], labels={"team": "blue"})
    lab.expect(REST | {"b2>a0"})
    lab.put(team("blue"))
    lab.expect(REST)
    lab.record(lab.workloads["b1"], labels={"team": "red"})
    lab.expect(REST | {"b1>a0"})


def crowd(count: int, *, labels: dict[str, str]) -> list[Record]:
    """Endpoints of another host with this many addresses, a thousand on each."""
    return [
        workload(
            f"crowd{at}", *(f"10.{100 + at}.{n // 250}.{n % 250}/32" for n in range(min(1000, count - 1000 * at))),
            node="elsewhere", labels=labels, mac="",
        )
        for at in range(-(-count // 1000))
    ]  # fmt: skip


def applied(lab: FelixLab, since: int) -> list[dict[str, str]]:
    """What felix on node1 said of each apply after the first `since` characters of its log."""
    lines = [line for line in lab.felix["node1"].text[since:].splitlines() if "dataplane.applied" in line]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


@pytest.mark.scenario(57)
def test_a_change_of_a_large_set_is_a_change_of_one_member(lab: FelixLab) -> None:
    guard(lab, rule("Allow", source=EntityRule(selector="role == 'web'")))
    b1, b2 = lab.workloads["b1"], lab.workloads["b2"]

    def fastest_of(turns: int) -> float:
        took = []
        for turn in range(turns):
            at = len(lab.felix["node1"].text)
            lab.record(b2, labels={"role": "web" if turn % 2 == 0 else ""})
            [change] = applied(lab, at)
            assert change["sets"] == "1"
            assert "chains" not in change
            took.append(float(change["took_ms"]))
        return min(took)

    small = fastest_of(8)
    lab.put(*crowd(10_000, labels={"role": "web"}), timeout=30.0)
    assert len(sets(lab)[of("role == 'web'")]) == 10_000
    large = fastest_of(8)
    assert large < 3 * small + 5, f"{small} ms in an empty set, {large} ms in one of 10,000"
    lab.record(b1, labels={"role": "web"})
    lab.expect(REST | {"b1>a0"})


@pytest.mark.scenario(58)
def test_many_sets_that_come_and_go_leave_none_behind(lab: FelixLab) -> None:
    count, turns = 500, 4  # 2,000 in all, in each family

    def flap(turn: int) -> Record:
        sources: Sequence[Rule] = [
            rule("Deny", source=EntityRule(selector=f"role == 'r{n}-{turn}'")) for n in range(count)
        ]
        return policy("p", A0, [*sources, ALLOW], types=["Ingress"])

    before = sets(lab)
    for turn in range(turns):
        lab.put(flap(turn), timeout=60.0)
    lab.record(lab.workloads["b1"], labels={"role": f"r{count - 1}-{turns - 1}"})
    assert len([name for name in sets(lab) if name.startswith("cali40s:")]) >= count
    lab.expect(REST | {"a1>a0", "a2>a0", "b2>a0"})
    lab.remove(ResourceKey("globalnetworkpolicies", "p"))
    wait_until("the sets to be gone", lambda: sets(lab).keys() == before.keys(), timeout=60.0, every=0.2)
