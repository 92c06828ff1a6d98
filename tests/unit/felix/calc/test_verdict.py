"""What a verdict says beside yes and no: who decided, who was asked on the way, at which end."""

import ipaddress

import pytest

from fakes.felix_records import HERE, host_endpoint, network_profile, policy, profile, rule, settings, tier, workload
from felix.calc.answers import Answer, Hook, HostVerdict, Outcome, Reason, Step
from felix.calc.graph import Graph
from felix.calc.match import Packet, State
from felix.calc.model import Action, Direction, IcmpType, PolicyId
from felix.calc.verdict import HostView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
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
    graph.set_interface(ETH0, frozenset({ipaddress.ip_address("172.16.0.1")}))
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


# Host endpoints.

OF_ETH0 = host_endpoint("eth", "eth0", labels={"role": "host"})
OF_ALL = host_endpoint("all", "*", labels={"role": "host"})
HOST = "role == 'host'"
GNP = "GlobalNetworkPolicy"


def test_a_host_endpoint_s_policy_is_asked_about_the_host_s_own_packets() -> None:
    host = view(OF_ETH0, policy("web", HOST, [rule("Allow", "TCP", destination=EntityRule(ports=[80]))]))
    verdict = host.to_host(packet("192.0.2.1", "172.16.0.1"), ETH0)
    assert (verdict.outcome, last(verdict).hook, last(verdict).host_endpoint) == (Outcome.ALLOWED, Hook.TO_HOST, "eth")
    assert last(verdict).decided_by == Step(
        tier="default", policy=PolicyId(GNP, "web"), rule=1, action=Action.ALLOW
    )
    verdict = host.to_host(packet("192.0.2.1", "172.16.0.1", destination_port=81), ETH0)
    assert (verdict.outcome, verdict.reason) == (Outcome.DENIED, Reason.END_OF_TIER)
    verdict = host.from_host(packet("172.16.0.1", "192.0.2.1"), ETH0)
    assert (verdict.outcome, verdict.reason) == (Outcome.DENIED, Reason.NO_PROFILE)
    assert host.forward(packet("192.0.2.1", "10.0.0.1"), ETH0, IfName("eth1")).outcome is Outcome.ALLOWED


@pytest.mark.parametrize(
    ("asked", "way", "outcome"),
    [
        (packet("192.0.2.1", "172.16.0.1", destination_port=22), "in", Outcome.ALLOWED),
        (packet("192.0.2.1", "172.16.0.1", 17, destination_port=22), "in", Outcome.DENIED),
        (packet("172.16.0.1", "192.0.2.1", 17, destination_port=53), "out", Outcome.ALLOWED),
        (packet("172.16.0.1", "192.0.2.1", destination_port=22), "out", Outcome.DENIED),
    ],
)
def test_failsafe_ports_need_no_policy(asked: Packet, way: str, outcome: Outcome) -> None:
    host = view(OF_ETH0)
    verdict = host.to_host(asked, ETH0) if way == "in" else host.from_host(asked, ETH0)
    assert verdict.outcome is outcome
    assert (verdict.reason is Reason.FAILSAFE) is (outcome is Outcome.ALLOWED)


def icmp6(kind: int) -> Packet:
    return packet("fe80::1", "fd00::ff", 58, icmp=IcmpType(kind, 0))


def test_a_host_endpoint_keeps_its_link_alive_without_policy_and_no_more() -> None:
    closed = policy("closed", HOST, [Rule(action="Deny")], [Rule(action="Deny")])
    before_nat = policy("early", HOST, [Rule(action="Deny")], pre_dnat=True)
    untracked = policy("first", HOST, [Rule(action="Deny")], [Rule(action="Deny")], do_not_track=True)
    for host in (view(OF_ETH0), view(OF_ALL, closed), view(OF_ETH0, before_nat), view(OF_ETH0, untracked)):
        for kind in range(128, 144):
            upkeep = kind in (130, 131, 132, 133, 134, 135, 136, 143)
            for verdict in (host.to_host(icmp6(kind), ETH0), host.from_host(icmp6(kind), ETH0)):
                assert verdict.outcome is (Outcome.ALLOWED if upkeep else Outcome.DENIED), kind
                assert (verdict.reason is Reason.LINK_UPKEEP) is upkeep
    assert view(OF_ETH0).to_host(packet("192.0.2.1", "172.16.0.1", 58, icmp=IcmpType(135, 0)), ETH0).outcome is (
        Outcome.DENIED
    )


def test_before_tracking_an_allow_ends_the_questions_to_host_endpoints() -> None:
    early = policy("early", HOST, [rule("Allow", "UDP")], types=["Ingress"], do_not_track=True)
    host = view(OF_ETH0, early)
    verdict = host.to_host(packet("192.0.2.1", "172.16.0.1", 17), ETH0)
    assert [answer.hook for answer in verdict.answers] == [Hook.UNTRACKED]
    assert verdict.outcome is Outcome.ALLOWED
    verdict = host.to_host(packet("192.0.2.1", "172.16.0.1"), ETH0)
    assert [answer.hook for answer in verdict.answers] == [Hook.UNTRACKED, Hook.TO_HOST]
    assert [answer.reason for answer in verdict.answers] == [Reason.PASSED, Reason.NO_PROFILE]


def test_what_is_allowed_before_nat_still_meets_the_workload_s_policy() -> None:
    early = policy("early", HOST, [rule("Allow", "TCP")], types=["Ingress"], pre_dnat=True)
    published = packet("192.0.2.1", "172.16.0.1", sent_to=(ipaddress.ip_address("10.0.0.1"), 80))
    verdict = view(OF_ETH0, early).forward(published, ETH0, A0)
    assert [answer.hook for answer in verdict.answers] == [Hook.PRE_DNAT, Hook.FORWARD]
    assert (verdict.outcome, verdict.reason) == (Outcome.DENIED, Reason.NO_PROFILE)
    to_80 = rule("Allow", "TCP", destination=EntityRule(nets=["10.0.0.1/32"], ports=[80]))
    to_a0 = policy("to-a0", OF_A0, [to_80])
    assert view(OF_ETH0, early, to_a0).forward(published, ETH0, A0).outcome is Outcome.ALLOWED
    none = policy("early", HOST, [rule("Deny", destination=EntityRule(nets=["172.16.0.1/32"]))], pre_dnat=True)
    verdict = view(OF_ETH0, none, to_a0).forward(published, ETH0, A0)
    assert [answer.hook for answer in verdict.answers] == [Hook.PRE_DNAT]


def test_forward_policy_of_the_endpoint_for_all_interfaces_is_about_workloads_too() -> None:
    closed = policy("closed", HOST, [rule("Deny", "TCP")], apply_on_forward=True, types=["Ingress"])
    verdict = view(OF_ALL, closed).forward(packet(), A1, A0)
    assert (verdict.outcome, last(verdict).host_endpoint, last(verdict).interface) == (Outcome.DENIED, "all", A1)
    normal = policy("closed", HOST, [rule("Deny", "TCP")], types=["Ingress"])
    assert view(OF_ALL, normal).forward(packet(), A1, A0).outcome is Outcome.ALLOWED


def test_what_nat_sends_elsewhere_from_the_host_is_asked_about_when_it_leaves() -> None:
    published = packet("172.16.0.1", "192.0.2.1", sent_to=(ipaddress.ip_address("192.0.2.9"), 81))
    to_81 = policy("out", HOST, egress=[rule("Allow", "TCP", destination=EntityRule(ports=[81]))], types=["Egress"])
    verdict = view(OF_ETH0, to_81).from_host(published, ETH0)
    assert (verdict.outcome, last(verdict).hook) == (Outcome.LEFT, Hook.AFTER_NAT)
    assert view(OF_ETH0).from_host(published, ETH0).outcome is Outcome.DENIED
    assert view(OF_ETH0).from_host(published, A0).outcome is Outcome.LEFT
