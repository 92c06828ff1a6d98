"""What a verdict says beside yes and no: who decided, who was asked on the way, at which end."""

import ipaddress

import pytest

from fakes.felix_records import HERE, network_profile, policy, profile, rule, settings, tier, workload
from felix.calc.answers import Answer, HostVerdict, Outcome, Reason, Step
from felix.calc.graph import Graph
from felix.calc.match import Packet, State
from felix.calc.model import Action, Direction, IcmpType, PolicyId
from felix.calc.verdict import HostView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule
from resources.names import IfName, NodeName, ProfileName

A0, A1, ETH0 = IfName("calia0"), IfName("calia1"), IfName("eth0")
WORKLOADS = (
    workload("a0", "10.0.0.1/32", "fd00::1/128", profiles=["net"], labels={"name": "a0"}),
    workload("a1", "10.0.0.2/32", profiles=["net"], labels={"name": "a1"}),
)
NET = ProfileName("net")
OF_A0 = "name == 'a0'"


def view(*records: tuple[ResourceKey, Resource]) -> HostView:
    graph = Graph(NodeName(HERE))
    there: list[tuple[ResourceKey, Resource]] = [*WORKLOADS, network_profile("net"), *records]
    for key, value in there:
        graph.update(key, value)
    graph.flush()
    return HostView(NodeName(HERE), graph.whole(), graph.parameters)


def packet(source: str = "10.0.0.2", destination: str = "10.0.0.1", protocol: int = 6, **more: object) -> Packet:
    fields: dict[str, object] = {"source_port": 40000, "destination_port": 80, **more}
    return Packet(
        source=ipaddress.ip_address(source),
        destination=ipaddress.ip_address(destination),
        protocol=protocol,
        **fields,  # type: ignore[arg-type]
    )


def last(verdict: HostVerdict) -> Answer:
    return verdict.answers[-1]


def test_both_ends_are_asked_and_the_walk_is_told() -> None:
    pass_on = policy(
        "on", OF_A0, [rule("Log", "TCP"), rule("Deny", "UDP"), rule("Pass")], tier="first", types=["Ingress"]
    )
    quiet = policy("quiet", OF_A0, [rule("Deny", "UDP")], order=1, types=["Ingress"])
    allow = policy("web", OF_A0, [rule("Log"), rule("Allow", "TCP", destination=EntityRule(ports=[80]))], order=2)
    verdict = view(tier("first", 1), pass_on, quiet, allow).forward(packet(), A1, A0)
    assert verdict.outcome is Outcome.ALLOWED
    sender, receiver = verdict.answers
    assert (sender.interface, sender.direction, sender.reason) == (A1, Direction.EGRESS, Reason.PROFILE_RULE)
    assert sender.walk == (Step(profile=NET, rule=1, action=Action.ALLOW),)
    assert (receiver.interface, receiver.direction, receiver.reason) == (A0, Direction.INGRESS, Reason.POLICY_RULE)
    gnp = "GlobalNetworkPolicy"
    assert receiver.walk == (
        Step(tier="first", policy=PolicyId(gnp, "on"), logged=(1,), rule=3, action=Action.PASS),
        Step(tier="default", policy=PolicyId(gnp, "quiet")),
        Step(tier="default", policy=PolicyId(gnp, "web"), logged=(1,), rule=2, action=Action.ALLOW),
    )
    assert receiver.decided_by == receiver.walk[-1]


def test_the_end_of_a_tier_decides_where_no_policy_did() -> None:
    verdict = view(policy("none", OF_A0, types=["Ingress"])).forward(packet(), A1, A0)
    assert verdict.outcome is Outcome.DENIED
    assert last(verdict).reason is Reason.END_OF_TIER
    assert last(verdict).decided_by == Step(tier="default", action=Action.DENY)


def test_a_tier_whose_end_passes_leads_to_the_profiles() -> None:
    verdict = view(tier("t", 1, "Pass"), policy("none", OF_A0, types=["Ingress"], tier="t")).forward(packet(), A1, A0)
    assert verdict.outcome is Outcome.ALLOWED
    assert last(verdict).walk == (
        Step(tier="t", policy=PolicyId("GlobalNetworkPolicy", "none")),
        Step(tier="t", action=Action.PASS),
        Step(profile=NET, rule=1, action=Action.ALLOW),
    )


def test_the_sender_s_denial_is_not_taken_to_the_receiver() -> None:
    verdict = view(policy("out", "name == 'a1'", egress=[rule("Deny")], types=["Egress"])).forward(packet(), A1, A0)
    assert verdict.outcome is Outcome.DENIED
    assert [answer.direction for answer in verdict.answers] == [Direction.EGRESS]
    assert last(verdict).decided_by == Step(
        tier="default", policy=PolicyId("GlobalNetworkPolicy", "out"), rule=1, action=Action.DENY
    )


@pytest.mark.parametrize(
    ("asked", "interfaces", "reason"),
    [
        (packet(source="192.0.2.1"), (ETH0, A0), Reason.NO_PROFILE),
        (packet(), (A1, IfName("calinobody")), Reason.UNKNOWN_ENDPOINT),
        (packet(), (IfName("calinobody"), A0), Reason.SPOOFED),
        (packet(source="10.0.0.9"), (A1, A0), Reason.SPOOFED),
        (packet(state=State.INVALID), (A1, A0), Reason.INVALID),
        (packet(protocol=4), (A1, ETH0), Reason.TUNNEL),
        (packet(protocol=17, destination_port=4789), (A1, ETH0), Reason.TUNNEL),
    ],
)
def test_what_else_denies(asked: Packet, interfaces: tuple[IfName, IfName], reason: Reason) -> None:
    verdict = view().forward(asked, *interfaces)
    assert (verdict.outcome, verdict.reason) == (Outcome.DENIED, reason)
    assert last(verdict).decided_by is None


def test_an_established_flow_asks_no_policy() -> None:
    closed = policy("none", "all()", types=["Ingress", "Egress"])
    verdict = view(closed).forward(packet(state=State.ESTABLISHED), A1, A0)
    assert (verdict.outcome, verdict.reason, len(verdict.answers)) == (Outcome.ALLOWED, Reason.KNOWN_FLOW, 1)


def test_between_interfaces_of_the_host_nobody_is_asked() -> None:
    verdict = view().forward(packet(), ETH0, IfName("eth1"))
    assert (verdict.outcome, verdict.answers, verdict.reason) == (Outcome.LEFT, (), None)


@pytest.mark.parametrize(
    ("action", "outcome"), [("Drop", Outcome.DENIED), ("Return", Outcome.LEFT), ("Accept", Outcome.ALLOWED)]
)
def test_what_policy_lets_to_the_host_is_up_to_the_host_s_action(action: str, outcome: Outcome) -> None:
    asked = packet(destination="172.16.0.1")
    host = view(settings(FelixConfigurationSpec(default_endpoint_to_host_action=action)))
    verdict = host.to_host(asked, A1)
    assert (verdict.outcome, verdict.reason) == (outcome, Reason.HOST_ACTION)
    host = view(
        settings(FelixConfigurationSpec(default_endpoint_to_host_action=action)),
        policy("out", "name == 'a1'", egress=[], types=["Egress"]),
    )
    assert host.to_host(asked, A1).reason is Reason.END_OF_TIER


def test_neighbour_discovery_with_the_host_needs_no_policy() -> None:
    closed = policy("none", "all()", types=["Ingress", "Egress"])
    asked = packet("fd00::1", "fd00::ff", 58, icmp=IcmpType(135, 0))
    assert view(closed).to_host(asked, A0).reason is Reason.NEIGHBOUR_DISCOVERY
    echo = packet("fd00::1", "fd00::ff", 58, icmp=IcmpType(128, 0))
    assert view(closed).to_host(echo, A0).reason is Reason.END_OF_TIER


def test_a_host_always_reaches_its_own_workloads() -> None:
    closed = policy("none", "all()", types=["Ingress", "Egress"])
    verdict = view(closed).from_host(packet(source="172.16.0.1"), A0)
    assert (verdict.outcome, verdict.reason) == (Outcome.LEFT, Reason.OWN_HOST)


def test_a_profile_that_is_missing_denies_and_pass_in_a_profile_does_too() -> None:
    lost = workload("a0", "10.0.0.1/32", profiles=["gone", "net"])
    gone = Step(profile=ProfileName("gone"), rule=0, action=Action.DENY)
    assert last(view(lost).forward(packet(), A1, A0)).walk == (gone,)
    first = profile("first", [rule("Pass", "TCP")])
    lost = workload("a0", "10.0.0.1/32", profiles=["first", "net"])
    assert last(view(lost, first).forward(packet(), A1, A0)).outcome is Outcome.DENIED
