"""Large sets, long policies and many of them: the verdicts are right at the first, at the last and beyond."""

import re
from collections.abc import Iterator

import pytest

from bed.command import wait_until
from bed.felix import FelixLab, Record, ports_that_pass
from fakes.felix_records import network_set, policy, rule, settings, workload
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule

A0 = "name == 'a0'"
REST = {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
"""What stays open when nothing may come to a0."""
PATIENCE = 60.0
"""Seconds; the machine may be busy. How long it takes is the benchmarks' business."""


def crowd(count: int, first: str, last: str) -> Record:
    """A network set of so many members, `first` and `last` among them."""
    others = [f"100.{64 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(count - 2)]
    return network_set("crowd", first, *others, last, labels={"crowd": ""})


def test_a_set_of_fifty_thousand_members(lab: FelixLab) -> None:
    a1, b2 = (f"{lab.workloads[name].address}/32" for name in ("a1", "b2"))
    in_crowd = EntityRule(selector="has(crowd)")
    lab.put(policy("p", A0, [rule("Allow", source=in_crowd)], types=["Ingress"]))
    lab.put(crowd(50_000, a1, b2), timeout=PATIENCE)
    assert "Number of entries: 50000" in lab.node1.run("ipset list -t").stdout
    lab.expect(REST | {"a1>a0", "b2>a0"})
    lab.put(crowd(50_000, a1, "10.66.0.2/32"), timeout=PATIENCE)
    lab.expect(REST | {"a1>a0", "b1>a0"})
    lab.put(policy("p", A0, [rule("Deny", source=in_crowd), Rule(action="Allow")], types=["Ingress"]))
    lab.expect(REST | {"a2>a0", "b2>a0"})


def ports(lab: FelixLab, source: str = "a1") -> set[int]:
    tried = [999, 1000, 1001, 1500, 1998, 1999, 2000]
    return ports_that_pass(lab.workloads[source], str(lab.workloads["a0"].address), tried)


def test_a_policy_of_a_thousand_rules(lab: FelixLab) -> None:
    rules = [
        rule("Allow" if n % 2 == 0 else "Deny", "TCP", destination=EntityRule(ports=[n])) for n in range(1000, 2000)
    ]
    lab.put(policy("p", A0, rules, types=["Ingress"]), timeout=PATIENCE)
    assert ports(lab) == {1000, 1500, 1998}
    lab.put(policy("p", A0, [*rules, Rule(action="Allow")], types=["Ingress"]), timeout=PATIENCE)
    assert ports(lab) == {999, 1000, 1500, 1998, 2000}
    from_each = [rule("Allow", source=EntityRule(nets=[f"100.64.{n // 256}.{n % 256}/32"])) for n in range(999)]
    last = rule("Allow", source=EntityRule(nets=[f"{lab.workloads['b2'].address}/32"]))
    lab.put(policy("p", A0, [*from_each, last], types=["Ingress"]), timeout=PATIENCE)
    lab.expect(REST | {"b2>a0"})


def test_a_thousand_policies_on_one_endpoint(lab: FelixLab) -> None:
    def one(n: int, action: str) -> Record:
        return policy(f"p{n}", A0, [rule(action, "TCP", destination=EntityRule(ports=[n]))], types=["Ingress"], order=n)

    lab.put(*(one(n, "Allow") for n in range(1000, 2000)), timeout=PATIENCE)
    assert ports(lab) == {1000, 1001, 1500, 1998, 1999}
    lab.put(one(1000, "Deny"), one(1999, "Deny"), policy("q", A0, [Rule(action="Allow")], types=["Ingress"]))
    assert ports(lab) == {999, 1001, 1500, 1998, 2000}


@pytest.fixture
def ten_members(lab: FelixLab) -> Iterator[FelixLab]:
    """A lab where a set may have ten members on node1."""

    def restart(limit: int) -> None:
        spec = FelixConfigurationSpec(default_endpoint_to_host_action="Return", max_ipset_size=limit)
        lab.tolerate("setting.restart_needed", "record.trouble")
        lab.write(settings(spec, name="node.node1"))
        assert lab.felix["node1"].wait(10.0) == 129
        lab.start(lab.node1)

    restart(10)
    yield lab
    restart(1048576)


def test_a_set_that_is_larger_than_the_setting_lets_it_closes_what_names_it(ten_members: FelixLab) -> None:
    lab = ten_members
    a1, b2 = (f"{lab.workloads[name].address}/32" for name in ("a1", "b2"))
    allow, deny = (rule(action, source=EntityRule(selector="has(crowd)")) for action in ("Allow", "Deny"))
    lab.put(crowd(10, a1, b2), policy("p", A0, [allow], types=["Ingress"]))
    lab.expect(REST | {"a1>a0", "b2>a0"})
    lab.put(crowd(11, a1, b2))
    lab.expect(REST)
    [(key, [problem])] = lab.state(lab.node1)["problems"].items()  # type: ignore[attr-defined]
    assert key == "globalnetworkpolicies/p"
    assert problem == "selector has(crowd) has more than 10 members: rules with it allow nothing"
    assert f"{key}: {problem}" in lab.node1.run(["calicoctl", "node", "status"]).stderr
    lab.put(policy("p", A0, [deny, Rule(action="Allow")], types=["Ingress"]))
    lab.expect(REST)
    lab.put(crowd(10, a1, b2))
    lab.expect(REST | {"a2>a0", "b1>a0"})
    assert lab.state(lab.node1)["problems"] == {}


@pytest.mark.scenario(113)
def test_an_endpoint_that_comes_costs_what_it_costs_among_few(lab: FelixLab) -> None:
    """A thousand policies, a hundred of them at work on this host, and ten thousand endpoints elsewhere."""

    def comes() -> dict[str, str]:
        at = len(lab.felix["node1"].text)

        def said() -> list[dict[str, str]]:
            lines = [line for line in lab.felix["node1"].text[at:].splitlines() if "dataplane.applied" in line]
            return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines if "routes=" in line]

        lab.attach(lab.node1, "new", "10.65.0.20")
        wait_until("felix to say what it wrote", lambda: bool(said()), timeout=30)
        [found] = said()
        lab.workloads["a1"].await_ping("10.65.0.20")
        lab.detach("new")
        return found

    few = comes()
    lab.put(
        *(
            policy(f"p{n}", f"role == 'r{n}'" if n % 10 else "name == 'b1'",
                   [rule("Allow", source=EntityRule(selector=f"role == 'r{n % 7}'"))], types=["Ingress"])
            for n in range(1000)
        ),
        *(
            workload(f"w{n}", f"10.{100 + n // 65536}.{n // 256 % 256}.{n % 256}/32", node="elsewhere",
                     profiles=["net-b"], labels={"role": f"r{n % 1000}"}, mac="")
            for n in range(10_000)
        ),
        timeout=PATIENCE,
    )  # fmt: skip
    many = comes()
    for kind in ("sets", "chains", "settings", "routes"):
        assert many.get(kind) == few.get(kind), kind
