"""The join of several hosts' answers: who is asked, in which order, with which packet."""

import ipaddress

import pytest

from fakes.felix_records import ELSEWHERE, HERE, host_endpoint, network_profile, policy, pool, rule, workload
from felix.calc.answers import Outcome, Reason, Way
from felix.calc.graph import Graph
from felix.calc.match import Packet
from felix.calc.reach import Cluster, Place, Site, Verdict, Where
from felix.calc.verdict import HostView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.rule import EntityRule
from resources.names import IfName, NodeName

NODES = {HERE: "172.16.0.1", ELSEWHERE: "172.16.0.2"}
WORKLOADS = (
    workload("a0", "10.0.0.1/32", profiles=["net"], labels={"name": "a0"}),
    workload("a1", "10.0.0.2/32", profiles=["net"], labels={"name": "a1"}),
    workload("a2", "10.1.0.1/32", node=ELSEWHERE, profiles=["net"], labels={"name": "a2"}),
)


def cluster(*records: tuple[ResourceKey, Resource], nodes: tuple[str, ...] = (HERE, ELSEWHERE)) -> Cluster:
    sites = []
    there: list[tuple[ResourceKey, Resource]] = [*WORKLOADS, network_profile("net"), *records]
    for node in nodes:
        graph = Graph(NodeName(node))
        for key, value in there:
            graph.update(key, value)
        graph.flush()
        view = HostView(NodeName(node), graph.whole(), graph.parameters)
        sites.append(Site(view=view, addresses=frozenset({ipaddress.ip_address(NODES[node])}), uplink=IfName("eth0")))
    return Cluster(sites)


def tcp(source: str, destination: str) -> Packet:
    return Packet(
        source=ipaddress.ip_address(source), destination=ipaddress.ip_address(destination), protocol=6,
        source_port=40000, destination_port=80,
    )  # fmt: skip


def ways(verdict: Verdict) -> list[tuple[str, Way]]:
    return [(host.node, host.way) for host in verdict.hosts]


@pytest.mark.parametrize(
    ("source", "destination", "wanted"),
    [
        ("10.0.0.1", "10.0.0.2", [(HERE, Way.FORWARDED)]),
        ("10.0.0.1", "10.1.0.1", [(HERE, Way.FORWARDED), (ELSEWHERE, Way.FORWARDED)]),
        ("10.1.0.1", "172.16.0.1", [(ELSEWHERE, Way.FORWARDED), (HERE, Way.TO_HOST)]),
        ("172.16.0.1", "10.1.0.1", [(HERE, Way.FROM_HOST), (ELSEWHERE, Way.FORWARDED)]),
        ("172.16.0.1", "10.0.0.1", [(HERE, Way.FROM_HOST)]),
        ("10.0.0.1", "172.16.0.1", [(HERE, Way.TO_HOST)]),
        ("172.16.0.1", "172.16.0.2", [(HERE, Way.FROM_HOST), (ELSEWHERE, Way.TO_HOST)]),
        ("192.0.2.1", "10.1.0.1", [(ELSEWHERE, Way.FORWARDED)]),
        ("10.1.0.1", "192.0.2.1", [(ELSEWHERE, Way.FORWARDED)]),
        ("192.0.2.1", "192.0.2.2", []),
        ("172.16.0.1", "172.16.0.1", []),
    ],
)
def test_every_host_on_the_way_is_asked_in_order(
    source: str, destination: str, wanted: list[tuple[str, Way]]
) -> None:
    open_to_all = policy("open", "all()", [rule("Allow")], [rule("Allow")])
    assert ways(cluster(open_to_all).ask(tcp(source, destination))) == wanted


def test_both_ends_must_allow_and_the_first_that_denies_is_the_last_asked() -> None:
    assert cluster().ask(tcp("10.0.0.1", "10.1.0.1")).outcome is Outcome.ALLOWED
    at_source = policy("p", "name == 'a0'", egress=[rule("Deny")], types=["Egress"])
    verdict = cluster(at_source).ask(tcp("10.0.0.1", "10.1.0.1"))
    assert (verdict.outcome, ways(verdict)) == (Outcome.DENIED, [(HERE, Way.FORWARDED)])
    at_destination = policy("p", "name == 'a2'", [rule("Deny")], types=["Ingress"])
    verdict = cluster(at_destination).ask(tcp("10.0.0.1", "10.1.0.1"))
    assert [host.outcome for host in verdict.hosts] == [Outcome.ALLOWED, Outcome.DENIED]
    assert verdict.hosts[1].reason is Reason.POLICY_RULE


def test_what_one_host_leaves_to_its_own_rules_is_not_allowed_by_the_other() -> None:
    open_to_all = policy("open", "all()", [rule("Allow")], [rule("Allow")])
    verdict = cluster(open_to_all).ask(tcp("172.16.0.1", "10.1.0.1"))
    assert [host.outcome for host in verdict.hosts] == [Outcome.LEFT, Outcome.ALLOWED]
    assert verdict.outcome is Outcome.LEFT


def test_a_packet_may_come_from_elsewhere_than_its_source_says() -> None:
    place = Place(where=Where.WORKLOAD, node=NodeName(HERE), interface=IfName("calia1"))
    verdict = cluster().ask(tcp("10.0.0.1", "10.1.0.1"), place)
    assert (verdict.outcome, verdict.hosts[0].reason) == (Outcome.DENIED, Reason.SPOOFED)


def test_a_host_that_is_not_among_them_counts_as_outside() -> None:
    verdict = cluster(nodes=(HERE,)).ask(tcp("10.0.0.1", "10.1.0.1"))
    assert ways(verdict) == [(HERE, Way.FORWARDED)]
    assert verdict.destination.where is Where.OUTSIDE


def test_the_second_host_sees_a_masqueraded_packet_with_the_first_host_s_address() -> None:
    seen_as = policy("p", "role == 'host'", [rule("Allow", source=EntityRule(nets=["172.16.0.1/32"]))])
    records = (
        seen_as, pool("10.0.0.0/16", nat=True), host_endpoint("e", "eth0", node=ELSEWHERE, labels={"role": "host"}),
    )  # fmt: skip
    verdict = cluster(*records).ask(tcp("10.0.0.1", "172.16.0.2"))
    assert [host.outcome for host in verdict.hosts] == [Outcome.ALLOWED, Outcome.ALLOWED]
    not_masqueraded = (seen_as, pool("10.0.0.0/16"), records[2])
    assert cluster(*not_masqueraded).ask(tcp("10.0.0.1", "172.16.0.2")).outcome is Outcome.DENIED
    between_pools = (*records, pool("10.1.0.0/16"), policy("q", "name == 'a2'", [rule("Allow")]))
    assert cluster(*between_pools).ask(tcp("10.0.0.1", "10.1.0.1")).outcome is Outcome.ALLOWED
