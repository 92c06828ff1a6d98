"""Records that somebody wrote into the store by hand and wrong.

What such a record might have allowed stays closed, everything else goes on, felix's log and calicoctl name it, and when
it is mended it counts.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bed.felix import FelixLab
from fakes.felix_records import host_endpoint, network_policy, network_profile, network_set, policy, rule, tier
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
TO_A0, B_TO_A0 = {"a1>a0", "a2>a0"}, {"b1>a0", "b2>a0"}
A0 = "name == 'a0'"
ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")

Fields = Mapping[str, Any]
ALLOW_ALL: Fields = {"selector": A0, "types": ["Ingress"], "order": 5, "ingress": [{"action": "Allow"}]}


def allowing(**fields: Any) -> bytes:
    """A policy that lets everybody to a0, but for these fields of its spec; None leaves one out."""
    spec = {name: value for name, value in {**ALLOW_ALL, **fields}.items() if value is not None}
    return json.dumps({"metadata": {"name": "p"}, "spec": spec}).encode()


def one_rule(**fields: Any) -> bytes:
    return allowing(ingress=[{"action": "Allow", **fields}, {"action": "Allow"}])


READ_IN_PART = {
    "rules that are none": allowing(ingress="Allow"),
    "a rule that is none": allowing(ingress=[7]),
    "no such action": allowing(ingress=[{"action": "Permit"}]),
    "a rule without action": allowing(ingress=[{"protocol": "TCP"}, {"action": "Allow"}]),
    "a selector that does not end": one_rule(source={"selector": "name == "}),
    "a net that is none": one_rule(source={"nets": ["10.65.0.0/33"]}),
    "an address beyond its net": one_rule(source={"nets": ["10.65.0.300/32"]}),
    "a port that is none": one_rule(protocol="TCP", destination={"ports": [0]}),
    "ports the wrong way round": one_rule(protocol="TCP", destination={"ports": ["90:80"]}),
    "ports without a protocol": one_rule(destination={"ports": [80]}),
    "a protocol that is none": one_rule(protocol={"no": "such"}),
    "an order that is none": allowing(order="first"),
    "unknown family": one_rule(ipVersion=5),
}
"""The policy is known to select a0 for ingress: a Deny stands in its place."""
NOT_READ = {
    "no JSON": b'{"metadata": {"name": "p"}, "spec": {"selector"',
    "no object": b'["p"]',
    "no text at all": b"\xff\xfe\x00p",
    "nothing": b"",
    "a selector of whom that does not end": allowing(selector="name == "),
    "a selector of whom that is none": allowing(selector=["a0"]),
    "no such types": allowing(types=["Sideways"]),
}
"""Nobody knows what it selects: it is skipped, and the profile decides."""


NOT_ENFORCED: Mapping[str, Fields] = {
    "requests of HTTP": {"http": {"methods": ["GET"]}},
    "services": {"source": {"services": {"name": "web", "namespace": "default"}}},
}
"""Well written, and beyond what rules on packets can tell: such an Allow is left out, such a Deny denies all."""


def key_of(namespaced: bool) -> ResourceKey:
    if namespaced:
        return ResourceKey("networkpolicies", "p", "libnetwork")
    return ResourceKey("globalnetworkpolicies", "p")


def logs(lab: FelixLab, since: Mapping[str, int]) -> dict[str, list[str]]:
    """What each felix said of records that cannot be read, after so many characters of its log."""
    return {
        name: [line for line in felix.text[since[name] :].splitlines() if "record.unreadable" in line]
        for name, felix in lab.felix.items()
    }


@pytest.mark.scenario(36)
@pytest.mark.any_back_end
@pytest.mark.parametrize("namespaced", [False, True], ids=["global", "namespace"])
def test_policies(lab: FelixLab, namespaced: bool) -> None:
    lab.tolerate("record.unreadable")
    key = key_of(namespaced)
    other = policy("q", "name == 'b1'", [rule("Allow", source=EntityRule(selector="name == 'a0'"))], types=["Ingress"])
    mended = network_policy if namespaced else policy
    for number, (what, value) in enumerate([*READ_IN_PART.items(), *NOT_READ.items()]):
        before = {name: len(felix.text) for name, felix in lab.felix.items()}
        lab.settle(lab.write_raw(key, value))
        among = [lab.workloads[name] for name in ("a0", "a1", "b1")]
        found = lab.open_pairs(among)
        open_to_a0 = set() if what in READ_IN_PART else {"a1>a0"}
        assert found == {"a0>a1"} | open_to_a0, what
        for lines in logs(lab, before).values():
            assert len(lines) == 1, what
            assert str(key) in lines[0]
            assert ("a Deny stands in its place" if what in READ_IN_PART else "it is skipped") in lines[0]
        if number % 8 == 0:  # the rest goes on, and mended it counts
            lab.put(other)
            assert lab.open_pairs(among) == {"a0>a1", "a0>b1"} | open_to_a0
            lab.remove(other[0])
            lab.put(mended("p", A0, [ALLOW], types=["Ingress"]))
            assert lab.open_pairs(among) == {"a0>a1", "a1>a0", "b1>a0"}


@pytest.mark.parametrize("namespaced", [False, True], ids=["global", "namespace"])
def test_a_rule_that_cannot_be_enforced_allows_nothing_and_denies_all(lab: FelixLab, namespaced: bool) -> None:
    lab.tolerate("record.trouble", "record.unreadable")
    key, among = key_of(namespaced), [lab.workloads[name] for name in ("a0", "a1")]
    for what, fields in NOT_ENFORCED.items():
        for rules, found in (
            ([{"action": "Allow", **fields}], {"a0>a1"}),
            ([{"action": "Allow", **fields}, {"action": "Allow"}], {"a0>a1", "a1>a0"}),
            ([{"action": "Deny", **fields}, {"action": "Allow"}], {"a0>a1"}),
        ):
            lab.settle(lab.write_raw(key, allowing(ingress=rules)))
            assert lab.open_pairs(among) == found, what
            assert list(lab.state(lab.node1)["problems"]) == [str(key)]  # type: ignore[call-overload]
    assert str(key) in lab.felix["node1"].text


@pytest.mark.any_back_end
@pytest.mark.parametrize("value", [READ_IN_PART["no such action"], NOT_READ["no JSON"]], ids=["in part", "no JSON"])
def test_calicoctl_names_what_it_cannot_read(lab: FelixLab, value: bytes) -> None:
    lab.tolerate("record.unreadable")
    lab.put(policy("good", "name == 'b1'", [ALLOW]))
    for key, words in ((key_of(False), ["gnp"]), (key_of(True), ["networkpolicy", "--all-namespaces"])):
        lab.settle(lab.write_raw(key, value))
        done = lab.node1.run(["calicoctl", "get", *words, "-o", "wide"], check=False)
        [line] = [line for line in done.stderr.splitlines() if "cannot be read" in line]
        assert "Policy(" in line
        assert key.name in line
        told = lab.node1.run(["calicoctl", "node", "status"]).stderr
        [line] = [line for line in told.splitlines() if f"{key}: " in line]
        assert "cannot be read" in line
        assert "'calicoctl delete" in told.splitlines()[-1]
    assert "good" in lab.node1.run(["calicoctl", "get", "gnp"]).stdout


def test_profiles_tiers_and_network_sets(lab: FelixLab) -> None:
    lab.tolerate("record.unreadable", "record.trouble")
    among = [lab.workloads[name] for name in ("a0", "a1", "a2", "b1")]

    def is_open() -> set[str]:
        return lab.open_pairs(among)

    within = {pair for pair in WITHIN if "b" not in pair}
    # a profile: what belongs to it is closed, and everybody else is not
    key, profile = network_profile("net-a")
    for value in (b"{", b'{"spec": {"ingress": [{"action": "Permit"}], "egress": [{"action": "Allow"}]}}'):
        lab.settle(lab.write_raw(key, value))
        assert is_open() <= {f"{source}>b1" for source in ("a0", "a1", "a2")}
        assert lab.workloads["b2"].ping(lab.workloads["b1"].address).ok
    lab.put((key, profile))
    assert is_open() == within
    # a tier: what its policies select is closed, whatever the next tier says
    key, first = tier("first", 1, "Pass")
    lab.put((key, first), policy("p", A0, [rule("Allow", 47)], types=["Ingress"], tier="first"))
    assert is_open() == within
    for value in (b"{", b'{"metadata": {"name": "first"}, "spec": {"order": "one"}}',
                  b'{"metadata": {"name": "first"}, "spec": {"order": 1, "defaultAction": "Perhaps"}}'):  # fmt: skip
        lab.settle(lab.write_raw(key, value))
        assert is_open() == within - TO_A0
    lab.put((key, first))
    assert is_open() == within
    lab.remove(ResourceKey("globalnetworkpolicies", "p"))
    # a network set: who is let in for being in it is not any more
    key, members = network_set("good", "10.66.0.2/32", labels={"good": ""})
    allow = rule("Allow", source=EntityRule(selector="has(good)"))
    lab.put((key, members), policy("p", A0, [allow], types=["Ingress"]))
    assert is_open() == (within - TO_A0) | {"b1>a0"}
    lab.settle(lab.write_raw(key, b"{"))
    assert is_open() == within - TO_A0
    lab.put((key, members))
    assert is_open() == (within - TO_A0) | {"b1>a0"}


def test_a_host_endpoint_that_cannot_be_read_opens_nothing(lab: FelixLab) -> None:
    """Its profile would let everybody in to the host; what can be read of it keeps the interface closed."""
    lab.tolerate("record.unreadable", "record.trouble")
    key, _ = host_endpoint("uplink", "eth0")
    spec = {"node": "node1", "interfaceName": "eth0", "profiles": ["projectcalico-default-allow"], "expectedIPs": [7]}
    lab.settle(lab.write_raw(key, json.dumps({"metadata": {"name": key.name}, "spec": spec}).encode()))
    assert not lab.node2.ping(lab.node1.address, timeout=0.4).ok
    assert lab.workloads["a0"].ping(lab.workloads["a2"].address).ok  # what only passes through is not its business
    spec["expectedIPs"] = []
    lab.settle(lab.write_raw(key, json.dumps({"metadata": {"name": key.name}, "spec": spec}).encode()))
    assert lab.node2.ping(lab.node1.address).ok
