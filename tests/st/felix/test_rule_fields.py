"""Fields of a rule that take the kernel more than one match, or a set, by packets (reference felix.md 8.3)."""

import random
import struct
from collections.abc import Sequence

import pytest

from bed.felix import FelixLab, ports_that_pass, raw_passes
from bed.probes import checksum
from fakes.felix_records import policy, rule
from resources.kinds.rule import ICMP, EntityRule, Port, Rule

A0 = "name == 'a0'"


def guard(lab: FelixLab, *rules: Rule) -> None:
    """Let a0 have what these rules say, in, and nothing else."""
    lab.put(policy("p", A0, list(rules), types=["Ingress"]))


def reached(lab: FelixLab, ports: Sequence[int], source: str = "a1", protocol: str = "tcp") -> set[int]:
    return ports_that_pass(lab.workloads[source], str(lab.workloads["a0"].address), ports, protocol=protocol)


def to(*ports: Port) -> EntityRule:
    return EntityRule(ports=list(ports))


@pytest.mark.scenario(37, 38)
@pytest.mark.parametrize("count", [1, 15, 16, 31])
def test_ports(lab: FelixLab, count: int) -> None:
    ports = set(range(1000, 1000 + 2 * count, 2))
    guard(lab, rule("Allow", "TCP", destination=to(*sorted(ports))))
    assert reached(lab, range(999, 1001 + 2 * count)) == ports
    assert reached(lab, [1000], protocol="udp") == set()


@pytest.mark.scenario(38)
def test_a_range_that_does_not_fit_the_fifteenth_slot(lab: FelixLab) -> None:
    guard(lab, rule("Allow", "UDP", destination=to(*range(1000, 1014), "2000:2002", 3000)))
    tried = [1013, 1014, 1999, 2000, 2001, 2002, 2003, 3000]
    assert reached(lab, tried, protocol="udp") == {1013, 2000, 2001, 2002, 3000}


@pytest.mark.scenario(39)
def test_refused_ports(lab: FelixLab) -> None:
    refused: list[Port] = list(range(1000, 1016))
    guard(lab, rule("Allow", "TCP", destination=EntityRule(not_ports=refused)))
    assert reached(lab, range(998, 1018)) == {998, 999, 1016, 1017}


@pytest.mark.scenario(44)
def test_three_blocks_must_all_hold(lab: FelixLab) -> None:
    """Nets on both sides and more ports than fit one match: each is a block, and none may be forgotten."""
    a0, a1 = (str(lab.workloads[name].address) for name in ("a0", "a1"))
    sixteen: list[Port] = list(range(1000, 1016))

    def blocks(sources: list[str], destinations: list[str]) -> Rule:
        there = EntityRule(nets=destinations, ports=sixteen)
        return rule("Allow", "TCP", source=EntityRule(nets=sources), destination=there)

    near, far = ["198.51.100.0/24", "203.0.113.0/24"], [f"{a0}/32", "192.0.2.0/24"]
    guard(lab, blocks([f"{a1}/32", "192.0.2.0/24"], far))
    assert reached(lab, [1000, 1015, 1016]) == {1000, 1015}
    assert reached(lab, [1000], source="a2") == set()
    guard(lab, blocks(near, far))
    assert reached(lab, [1000, 1015, 1016]) == set()
    guard(lab, blocks([f"{a1}/32", "192.0.2.0/24"], near))
    assert reached(lab, [1000, 1015, 1016]) == set()


@pytest.mark.scenario(45)
def test_nets_and_refused_nets(lab: FelixLab) -> None:
    a2 = lab.workloads["a2"]
    guard(lab, rule("Allow", source=EntityRule(nets=["10.65.0.0/24"], not_nets=[f"{a2.address}/32"])))
    lab.expect({"a1>a0"} | {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"})
    guard(lab, rule("Allow", source=EntityRule(not_nets=["10.65.0.0/26", "10.66.0.0/26"])))
    lab.expect({"a2>a0", "b2>a0"} | {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"})


@pytest.mark.scenario(40, 41)
def test_named_ports(lab: FelixLab) -> None:
    """a0 calls 8055 http, and a1 calls 8056 so; egress of b1 goes by the name."""
    for name, number in (("a0", 8055), ("a1", 8056)):
        lab.record(lab.workloads[name], ports=[("http", "TCP", number)])
    lab.put(policy("in", "name in {'a0', 'a1'}", [Rule(action="Allow")], types=["Ingress"]))

    def from_b1() -> dict[str, set[int]]:
        b1, tried = lab.workloads["b1"], (80, 8055, 8056)
        return {name: ports_that_pass(b1, str(lab.workloads[name].address), tried) for name in ("a0", "a1")}

    def egress(*ports: Port, selector: str = "") -> None:
        there = EntityRule(ports=list(ports), selector=selector)
        lab.put(policy("p", "name == 'b1'", [], [rule("Allow", "TCP", destination=there)], types=["Egress"]))

    egress("http")
    assert from_b1() == {"a0": {8055}, "a1": {8056}}
    egress("http", 80)
    assert from_b1() == {"a0": {8055, 80}, "a1": {8056, 80}}
    egress("http", *range(20000, 20016), selector="name == 'a1'")
    assert from_b1() == {"a0": set(), "a1": {8056}}
    lab.record(lab.workloads["a1"])
    assert from_b1() == {"a0": set(), "a1": set()}


def icmp(kind: int, code: int = 0) -> bytes:
    head = struct.pack("!BBHHH", kind, code, 0, random.getrandbits(16), 1) + bytes(12)
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


@pytest.mark.scenario(50)
def test_icmp_types(lab: FelixLab) -> None:
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]

    def types() -> set[int]:
        return {kind for kind in (8, 13) if raw_passes(a1, a0, 1, payload=icmp(kind))}

    guard(lab, Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=8)))
    assert types() == {8}
    guard(lab, Rule(action="Allow", protocol="ICMP", not_icmp=ICMP(type=8)))
    assert types() == {13}
    guard(lab, Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=8, code=1)))
    assert types() == set()


@pytest.mark.scenario(51)
def test_protocols_by_number(lab: FelixLab) -> None:
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]

    def protocols() -> set[int]:
        return {number for number in (94, 253) if raw_passes(a1, a0, number)}

    guard(lab, rule("Allow", 253))
    assert protocols() == {253}
    guard(lab, Rule(action="Allow", not_protocol=253))
    assert protocols() == {94}
    assert reached(lab, [80]) == {80}


@pytest.mark.scenario(48, 49)
def test_selectors_in_and_out(lab: FelixLab) -> None:
    rest = {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
    guard(lab, rule("Allow", source=EntityRule(selector="has(net-a)", not_selector="name == 'a2'")))
    lab.expect({"a1>a0"} | rest)
    guard(lab, rule("Allow", source=EntityRule(not_selector="has(net-a)")))
    lab.expect({"b1>a0", "b2>a0"} | rest)
    lab.cluster.fabric.core.ip("route", "replace", "10.65.0.0/26", "via", str(lab.node1.address))
    assert lab.cluster.fabric.ping(lab.workloads["a0"].address).ok  # a stranger is no member either
    lab.cluster.fabric.core.ip("route", "del", "10.65.0.0/26")


def test_a_label_moves_an_endpoint_between_sets(lab: FelixLab) -> None:
    guard(lab, rule("Allow", source=EntityRule(selector="role == 'web'")))
    rest = {"a0>a1", "a0>a2", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
    lab.expect(rest)
    lab.record(lab.workloads["b2"], labels={"role": "web"})
    lab.expect({"b2>a0"} | rest)
    lab.record(lab.workloads["b2"], labels={"role": "db"})
    lab.record(lab.workloads["a2"], labels={"role": "web"})
    lab.expect({"a2>a0"} | rest)
