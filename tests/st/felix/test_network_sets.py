"""Network sets and policies of namespaces, by packets (reference felix.md 8.3)."""

import pytest

from bed.felix import FelixLab, tcp_passes, udp_passes
from bed.probes import Address
from fakes.felix_records import network_policy, network_set, policy, rule
from felix.calc.model import selector_set
from felix.render.names import set_name
from resources.kinds.rule import EntityRule, Rule
from resources.selector import parse

A0 = "name == 'a0'"
PEER = "kind == 'peer'"
PEERS = EntityRule(selector=PEER)
LABELS = {"kind": "peer"}
ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")


def allow_peers(lab: FelixLab) -> None:
    lab.put(policy("p", A0, [rule("Allow", source=PEERS)], types=["Ingress"]))


def reaching_a0(lab: FelixLab) -> set[str]:
    """Return who reaches a0 by TCP, UDP and ICMP; by all of them or by none."""
    address: Address = str(lab.workloads["a0"].address)
    found = set()
    for name in ("a1", "a2", "b1", "b2"):
        source = lab.workloads[name]
        with source.entered():
            ways = [tcp_passes(address, 80).ok, udp_passes(address, 81).ok]
        ways.append(source.ping(address, timeout=0.4).ok)
        assert len(set(ways)) == 1, (name, ways)
        found |= {name} if all(ways) else set()
    return found


def members(lab: FelixLab) -> set[str]:
    name = set_name(4, selector_set(parse(PEER)).id)
    return {line.split()[2] for line in lab.node1.run(["ipset", "save", name]).stdout.splitlines() if line[:3] == "add"}


@pytest.mark.scenario(52)
def test_entries_come_change_and_go_and_so_do_labels(lab: FelixLab) -> None:
    a1, a2 = (str(lab.workloads[name].address) for name in ("a1", "a2"))
    allow_peers(lab)
    assert reaching_a0(lab) == set()
    lab.put(network_set("s", a1, labels=LABELS))
    assert reaching_a0(lab) == {"a1"}
    lab.put(network_set("s", a1, f"{a2}/26", labels=LABELS))
    assert reaching_a0(lab) == {"a1", "a2"}
    lab.put(network_set("s", f"{a2}/32", labels=LABELS))
    assert reaching_a0(lab) == {"a2"}
    lab.put(network_set("s", f"{a2}/32"))
    assert reaching_a0(lab) == set()
    lab.put(network_set("s", f"{a2}/32", labels=LABELS))
    assert reaching_a0(lab) == {"a2"}
    lab.remove(network_set("s")[0])
    assert reaching_a0(lab) == set()


@pytest.mark.scenario(53)
def test_sets_that_overlap_repeat_each_other_or_hold_everything(lab: FelixLab) -> None:
    allow_peers(lab)
    lab.put(
        network_set("s", "10.65.0.0/26", "10.65.0.9/26", "10.65.0.0/24", labels=LABELS),
        network_set("t", "10.65.0.0/26", "10.66.0.0/26", labels=LABELS, namespace="libnetwork"),
    )
    assert members(lab) == {"10.65.0.0/26", "10.65.0.0/24", "10.66.0.0/26"}
    assert reaching_a0(lab) == {"a1", "a2", "b1"}
    lab.remove(network_set("t", namespace="libnetwork")[0])
    assert members(lab) == {"10.65.0.0/26", "10.65.0.0/24"}
    assert reaching_a0(lab) == {"a1", "a2"}
    lab.put(network_set("u", "0.0.0.0/0", labels=LABELS))
    assert members(lab) == {"10.65.0.0/26", "10.65.0.0/24", "0.0.0.0/1", "128.0.0.0/1"}
    assert reaching_a0(lab) == {"a1", "a2", "b1", "b2"}
    lab.put(network_set("v", "0.0.0.0/1", labels=LABELS))
    lab.remove(network_set("u")[0])
    assert members(lab) == {"10.65.0.0/26", "10.65.0.0/24", "0.0.0.0/1"}
    assert reaching_a0(lab) == {"a1", "a2", "b1", "b2"}


def test_an_entry_that_cannot_be_read_opens_nothing(lab: FelixLab) -> None:
    lab.tolerate("record.trouble")
    strangers = rule("Allow", source=EntityRule(not_selector=PEER))
    lab.put(policy("p", A0, [strangers], types=["Ingress"]), network_set("s", "10.66.0.0/24", labels=LABELS))
    assert reaching_a0(lab) == {"a1", "a2"}
    lab.put(network_set("s", "10.66.0.0/24", "10.65.O.0/24", labels=LABELS))
    assert reaching_a0(lab) == set()
    told = "\n".join(lab.said(lab.node1, "globalnetworksets/s"))
    assert "'10.65.O.0/24' in nets is no network" in told
    lab.put(network_set("s", "10.66.0.0/24", labels=LABELS))
    assert reaching_a0(lab) == {"a1", "a2"}


@pytest.mark.scenario(56)
def test_a_policy_of_another_namespace_selects_no_container(lab: FelixLab) -> None:
    lab.put(network_policy("p", "", [DENY], [DENY], namespace="default"))
    assert reaching_a0(lab) == {"a1", "a2"}
    lab.put(network_policy("p", A0, [DENY], types=["Ingress"]))
    assert reaching_a0(lab) == set()
    lab.put(network_policy("p", A0, [rule("Allow", source=PEERS)], types=["Ingress"]))
    lab.put(network_set("s", "10.65.0.0/24", labels=LABELS))
    lab.put(network_set("t", "10.66.0.0/24", labels=LABELS, namespace="x"))
    assert reaching_a0(lab) == set(), "sets of no namespace and of another one are not meant"
    lab.record(lab.workloads["b1"], labels=LABELS)
    assert reaching_a0(lab) == {"b1"}
    anywhere = EntityRule(selector=PEER, namespace_selector="global()")
    lab.put(network_policy("p", A0, [rule("Allow", source=anywhere)], types=["Ingress"]))
    assert reaching_a0(lab) == {"a1", "a2"}


@pytest.mark.scenario(56)
def test_a_selector_over_namespaces(lab: FelixLab) -> None:
    lab.put(policy("p", "", [DENY], types=["Ingress"], namespace_selector="team == 'x'"))
    assert reaching_a0(lab) == {"a1", "a2"}
    lab.put(policy("p", A0, [DENY], types=["Ingress"], namespace_selector="all()"))
    assert reaching_a0(lab) == set()
