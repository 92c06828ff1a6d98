"""The chains of the failsafe ports: what stands in each, and where they have to be (reference felix.md 3.9)."""

from ipaddress import ip_network

import pytest

from felix.calc.model import ANY_INTERFACE, Action, Direction, LocalHostEndpoint, PolicyId, TierPolicies
from felix.calc.parameters import HostPort, Parameters
from felix.render.chains import Jump
from felix.render.hosts import HostChains, failsafe_rules
from felix.render.iptables import render_chain
from resources.names import IfName, ProfileName

NEAR, NEAR6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
PARAMETERS = Parameters(
    failsafe_inbound=(HostPort("tcp", 22), HostPort("udp", 68, NEAR), HostPort("tcp", 23, NEAR6)),
    failsafe_outbound=(HostPort("udp", 53, NEAR), HostPort("tcp", 179, NEAR6)),
)
IN, OUT = Direction.INGRESS, Direction.EGRESS
ETH0 = IfName("eth0")
P, Q = PolicyId("GlobalNetworkPolicy", "p", ""), PolicyId("GlobalNetworkPolicy", "q", "")


def chain(direction: Direction, table: str, version: int = 4) -> list[str]:
    rules = failsafe_rules(direction, table, version, PARAMETERS)
    return [text.split('" ', 1)[1] for text in render_chain("cali-failsafe", rules).rules]


def port(protocol: str, side: str, number: int, net: str = "") -> str:
    return f"-p {protocol} -m multiport --{side}-ports {number} {net + ' ' if net else ''}--jump ACCEPT"


@pytest.mark.parametrize("table", ["filter", "mangle"])
def test_a_net_is_where_a_packet_comes_from_on_its_way_in_and_where_it_goes_on_its_way_out(table: str) -> None:
    assert chain(IN, table) == [
        port("tcp", "destination", 22), port("udp", "destination", 68, "--source 192.0.2.0/24")
    ]  # fmt: skip
    assert chain(OUT, table) == [port("udp", "destination", 53, "--destination 192.0.2.0/24")]


def test_before_tracking_the_answers_of_the_other_direction_pass_too() -> None:
    assert chain(IN, "raw") == [
        port("tcp", "destination", 22),
        port("udp", "destination", 68, "--source 192.0.2.0/24"),
        port("udp", "source", 53, "--source 192.0.2.0/24"),
    ]
    assert chain(OUT, "raw") == [
        port("udp", "destination", 53, "--destination 192.0.2.0/24"),
        port("tcp", "source", 22),
        port("udp", "source", 68, "--destination 192.0.2.0/24"),
    ]


def test_a_port_of_a_net_is_for_its_family_only() -> None:
    in_6, out_6 = chain(IN, "filter", 6), chain(OUT, "filter", 6)
    assert [text for text in in_6 if "icmp" not in text] == [
        port("tcp", "destination", 22), port("tcp", "destination", 23, "--source 2001:db8::/32")
    ]  # fmt: skip
    assert [text for text in out_6 if "icmp" not in text] == [
        port("tcp", "destination", 179, "--destination 2001:db8::/32")
    ]


# --- where they are needed


def tier(*ingress: PolicyId, egress: tuple[PolicyId, ...] = ()) -> tuple[TierPolicies, ...]:
    return (TierPolicies(name="t", default_action=Action.DENY, ingress=ingress, egress=egress),)


def endpoint(interface: str = "eth0", **stages: tuple[TierPolicies, ...]) -> LocalHostEndpoint:
    return LocalHostEndpoint(name="h", interface=IfName(interface), profiles=(ProfileName("prof"),), **stages)


FILTER = {("filter", IN), ("filter", OUT), ("mangle", OUT)}
BEFORE_NAT, RAW = {("mangle", IN)}, {("raw", IN), ("raw", OUT)}


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        ([], set()),
        ([endpoint()], FILTER),
        ([endpoint(pre_dnat=tier(P))], FILTER | BEFORE_NAT),
        ([endpoint(ANY_INTERFACE, pre_dnat=tier(P))], FILTER | BEFORE_NAT),
        ([endpoint(ANY_INTERFACE, normal=tier(P))], FILTER),
        ([endpoint(untracked=tier(P))], FILTER | RAW),
        ([endpoint(), endpoint("eth1", untracked=tier(P), pre_dnat=tier(P))], FILTER | BEFORE_NAT | RAW),
    ],
)
def test_they_are_where_a_chain_jumps_to_them(
    served: list[LocalHostEndpoint], expected: set[tuple[str, Direction]]
) -> None:
    chains = HostChains()
    chains.take({one.interface: one for one in served})
    assert chains.failsafe == expected
    rendered = chains.render([one.interface for one in served], Parameters())
    jumps = {
        (table, rule.target)
        for (table, _), rules in rendered.items()
        for rule in rules or ()
        if isinstance(rule.target, Jump) and "failsafe" in rule.target.chain
    }
    assert len(jumps) == len(expected)
    chains.take(dict.fromkeys(one.interface for one in served))
    assert chains.failsafe == set()


def test_whose_rules_are_asked_after_nat_follows_who_asks_them() -> None:
    chains, eth1 = HostChains(), IfName("eth1")
    prof = ProfileName("prof")
    both = {ETH0: endpoint(normal=tier(P, egress=(Q,))), eth1: endpoint("eth1", normal=tier(egress=(Q,)))}
    assert chains.take(both) == {Q, prof}
    assert [chains.is_asked_after_nat(who) for who in (P, Q, prof)] == [False, True, True]
    assert chains.take({ETH0: endpoint(normal=tier(P))}) == set()
    assert chains.is_asked_after_nat(Q)
    assert chains.take({eth1: None}) == {Q}
    assert [chains.is_asked_after_nat(who) for who in (Q, prof)] == [False, True]
    # the same turn may take from one interface what it gives to another
    assert chains.take({ETH0: None, eth1: endpoint("eth1")}) == set()
    assert chains.is_asked_after_nat(prof)
