"""The fields of a rule, one by one (reference felix.md 4.3, 8.3), by a walk through the rendered rules."""

import pytest

from fakes.felix_records import policy, profile, rule
from fakes.scenario import OUTSIDE, Scenario
from felix.desired import Chain, ChainKey
from resources.kinds.rule import ICMP, EntityRule, HTTPMatch, Port, Protocol, Rule, ServiceAccounts, Services

ALLOW = Rule(action="Allow")
HTTP_PORTS = {"a0": [("http", "TCP", 8055)], "a1": [("http", "TCP", 8056)]}


def world_with(*rules: Rule, direction: str = "ingress") -> Scenario:
    """a0 with a policy of these rules; the other direction is free."""
    world = Scenario().put(profile("net-a", [ALLOW], [ALLOW], {"net-a": ""}))
    if direction == "ingress":
        return world.put(policy("p", "name == 'a0'", list(rules), types=["Ingress"]))
    return world.put(policy("p", "name == 'a0'", egress=list(rules), types=["Egress"]))


def chain_of(world: Scenario, version: int = 4) -> Chain:
    """The rendered chain of the policy under test."""
    found = [c for key, c in world.desired.chains.items() if key == ChainKey(version, "filter", "cali-pi-gnp/p")]
    return found[0]


def to(ports: list[Port]) -> EntityRule:
    return EntityRule(ports=ports)


def open_ports(world: Scenario, ports: list[int], protocol: int = 6) -> list[int]:
    return [p for p in ports if world.reaches("a1", "a0", protocol=protocol, destination_port=p)]


def test_a_port_of_a_protocol() -> None:
    world = world_with(rule("Allow", "TCP", destination=to([80])))
    assert open_ports(world, [79, 80, 81]) == [80]
    assert open_ports(world, [80], protocol=17) == []


@pytest.mark.parametrize("count", [15, 16, 31])
def test_many_ports(count: int) -> None:
    ports = list(range(1000, 1000 + 2 * count, 2))
    world = world_with(rule("Allow", "TCP", destination=to(list(ports))))
    assert open_ports(world, list(range(999, 1001 + 2 * count))) == ports


def test_a_range_that_does_not_fit_the_fifteenth_slot() -> None:
    world = world_with(rule("Allow", "TCP", destination=to([*range(1000, 1014), "2000:2002", 3000])))
    assert open_ports(world, [1013, 1014, 1999, 2000, 2002, 2003, 3000]) == [1013, 2000, 2002, 3000]


def test_refused_ports_more_than_fit_one_match() -> None:
    refused = list(range(1000, 1016))
    world = world_with(rule("Allow", "TCP", destination=EntityRule(not_ports=list(refused))))
    assert open_ports(world, list(range(998, 1018))) == [998, 999, 1016, 1017]
    assert len(chain_of(world).rules) == 1


def test_source_ports() -> None:
    world = world_with(rule("Allow", "UDP", source=to([53]), destination=to(["1024:65535"])))
    assert world.reaches("a1", "a0", protocol=17, source_port=53, destination_port=2000)
    assert not world.reaches("a1", "a0", protocol=17, source_port=54, destination_port=2000)


def named_world(*rules: Rule, direction: str = "egress") -> Scenario:
    """Egress of b1 towards a0 and a1, which declare http on different ports."""
    world = Scenario().put(profile("net-a", [ALLOW], [ALLOW], {"net-a": ""}))
    for name, ports in HTTP_PORTS.items():
        world.endpoint(name, ports=ports)
    return world.put(policy("p", "name == 'b1'", egress=list(rules), types=["Egress"]))


def reached(world: Scenario, protocol: int = 6) -> set[tuple[str, int]]:
    return {
        (name, port)
        for name in ("a0", "a1", "a2", OUTSIDE)
        for port in (80, 8055, 8056, 9000)
        if world.reaches("b1", name, destination_port=port, protocol=protocol)
    }


def test_a_named_port_is_each_endpoints_own() -> None:
    world = named_world(rule("Allow", "TCP", destination=to(["http"])))
    assert reached(world) == {("a0", 8055), ("a1", 8056)}
    assert reached(world, protocol=17) == set()


@pytest.mark.parametrize("numeric", [[80], [80, *range(20000, 20015)]])
def test_named_and_numeric_ports_are_a_union(numeric: list[Port]) -> None:
    world = named_world(rule("Allow", "TCP", destination=to([*numeric, "http"])))
    everywhere = {(name, 80) for name in ("a0", "a1", "a2", OUTSIDE)}
    assert reached(world) == {("a0", 8055), ("a1", 8056)} | everywhere


def test_named_ports_within_a_selector() -> None:
    side = EntityRule(selector="name == 'a1'", ports=["http"])
    world = named_world(rule("Allow", "TCP", destination=side))
    assert reached(world) == {("a1", 8056)}
    (key,) = (key for key in world.desired.chains if key.version == 4 and key.chain == "cali-po-gnp/p")
    assert world.desired.chains[key].rules[0].count("--match-set") == 1  # the ports' set needs no other beside it
    mixed = EntityRule(selector="name in {'a1', 'a2'}", ports=["http", 80])
    assert reached(named_world(rule("Allow", "TCP", destination=mixed))) == {("a1", 8056), ("a1", 80), ("a2", 80)}


def test_a_refused_named_port() -> None:
    everything = {(name, port) for name in ("a0", "a1", "a2", OUTSIDE) for port in (80, 8055, 8056, 9000)}
    world = named_world(rule("Allow", "TCP", destination=EntityRule(not_ports=["http"])))
    assert reached(world) == everything - {("a0", 8055), ("a1", 8056)}
    within = EntityRule(selector="name == 'a1'", not_ports=["http"])
    assert reached(named_world(rule("Allow", "TCP", destination=within))) == {("a1", 80), ("a1", 8055), ("a1", 9000)}


def test_a_named_port_without_protocol_is_of_the_protocol_that_it_is_declared_with() -> None:
    world = named_world(rule("Allow", destination=to(["http", "dns"])))
    world.endpoint("a2", ports=[("dns", "UDP", 9000)])
    assert reached(world) == {("a0", 8055), ("a1", 8056)}
    assert reached(world, protocol=17) == {("a2", 9000)}


NETS = EntityRule(nets=["10.1.0.0/30", "10.2.0.0/16"])
SIXTEEN_PORTS: list[Port] = list(range(1000, 1016))


@pytest.mark.parametrize("port", [1000, 1015, 1016])
@pytest.mark.parametrize("source", ["a1", "b1", OUTSIDE])
@pytest.mark.parametrize("destination", ["a0", "2.2.2.2"])
def test_three_blocks_must_all_hold(source: str, destination: str, port: int) -> None:
    """The original forgets the second scratch bit between blocks: its third block holds for everything."""
    side = EntityRule(nets=["10.1.0.1/32", "10.9.0.0/16"], ports=SIXTEEN_PORTS)
    world = world_with(rule("Allow", "TCP", source=NETS, destination=side))
    packet = world.packet(source, destination, destination_port=port)
    verdict, mark = world.machine.walk("filter", "cali-pi-gnp/p", packet)
    allowed = source != OUTSIDE and destination == "a0" and port < 1016
    assert (verdict, bool(mark & 0x10000)) == (None, allowed)


def test_the_blocks_of_the_reference() -> None:
    side = EntityRule(ports=SIXTEEN_PORTS, not_nets=["10.9.0.0/16", "10.8.0.0/16"])
    allowed = rule("Allow", "TCP", source=EntityRule(nets=["10.1.0.0/16", "10.2.0.0/16"]), destination=side)
    world = world_with(allowed, Rule(action="Pass"))
    texts = [text.split('" ', 1)[1] for text in chain_of(world).rules]
    fifteen = ",".join(str(port) for port in range(1000, 1015))
    assert texts == [
        '-m comment --comment "GlobalNetworkPolicy p ingress" --jump MARK --set-mark 0x0/0x180000',
        f"-p tcp -m multiport --destination-ports {fifteen} --jump MARK --set-mark 0x80000/0x80000",
        "-p tcp -m multiport --destination-ports 1015 --jump MARK --set-mark 0x80000/0x80000",
        "--source 10.1.0.0/16 --jump MARK --set-mark 0x100000/0x100000",
        "--source 10.2.0.0/16 --jump MARK --set-mark 0x100000/0x100000",
        "-m mark --mark 0/0x100000 --jump MARK --set-mark 0/0x80000",
        "--destination 10.9.0.0/16 --jump MARK --set-mark 0/0x80000",
        "--destination 10.8.0.0/16 --jump MARK --set-mark 0/0x80000",
        "-p tcp -m mark --mark 0x80000/0x80000 --jump MARK --set-mark 0x10000/0x10000",
        "-m mark --mark 0x10000/0x10000 --jump RETURN",
        "--jump MARK --set-mark 0x20000/0x20000",
    ]


def test_net_and_refused_net_on_one_side() -> None:
    world = world_with(rule("Allow", source=EntityRule(nets=["10.0.0.0/8"], not_nets=["10.1.0.0/16"])))
    assert not world.reaches("a1", "a0")
    assert world.reaches("b1", "a0")
    assert not world.reaches(OUTSIDE, "a0")


def test_only_refused_nets() -> None:
    world = world_with(rule("Allow", source=EntityRule(not_nets=["10.1.0.0/16", "10.3.0.0/16"])))
    assert not world.reaches("a1", "a0")
    assert world.reaches("b1", "a0")


@pytest.mark.parametrize(
    "side",
    [
        EntityRule(not_nets=["0.0.0.0/0"]),
        EntityRule(nets=["fd00::/8"]),
        EntityRule(not_nets=["fd00::/8"]),
        EntityRule(nets=["10.0.0.0/8"], not_nets=["fd00::/8"]),
    ],
)
def test_a_rule_that_cannot_match_in_this_family_is_left_out(side: EntityRule) -> None:
    assert chain_of(world_with(rule("Allow", source=side))).rules == ()


def test_nets_of_both_families_are_told_apart() -> None:
    world = world_with(rule("Allow", source=EntityRule(nets=["10.2.0.0/16", "fd00::/8"])))
    assert "--source 10.2.0.0/16" in chain_of(world, 4).rules[0]
    assert "--source fd00::/8" in chain_of(world, 6).rules[0]
    assert world.reaches("b1", "a0")


def test_ip_version() -> None:
    world = world_with(Rule(action="Allow", ip_version=6))
    assert not world.reaches("a1", "a0")
    assert len(chain_of(world, 6).rules) == 1


def test_selector_and_refused_selector_make_one_set() -> None:
    world = world_with(rule("Allow", source=EntityRule(selector="has(net-a)", not_selector="name == 'a2'")))
    assert world.reaches("a1", "a0")
    assert not world.reaches("a2", "a0")
    assert chain_of(world).rules[0].count("--match-set") == 1


def test_a_refused_selector_alone_lets_strangers_in() -> None:
    world = world_with(rule("Allow", source=EntityRule(not_selector="has(net-b)")))
    assert world.reaches("a1", "a0")
    assert world.reaches(OUTSIDE, "a0")
    assert not world.reaches("b1", "a0")


def test_a_selector_that_selects_nobody_matches_nothing() -> None:
    world = world_with(rule("Deny", source=EntityRule(selector="has(nobody)")), ALLOW)
    assert world.reaches("a1", "a0")


@pytest.mark.parametrize(
    ("made", "sent", "matches"),
    [
        (Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=8)), (8, 0), True),
        (Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=8)), (0, 0), False),
        (Rule(action="Allow", protocol=1, icmp=ICMP(type=3, code=4)), (3, 4), True),
        (Rule(action="Allow", protocol=1, icmp=ICMP(type=3, code=4)), (3, 3), False),
        (Rule(action="Allow", protocol="ICMP", not_icmp=ICMP(type=8)), (8, 0), False),
        (Rule(action="Allow", protocol="ICMP", not_icmp=ICMP(type=8)), (0, 0), True),
        (Rule(action="Allow", not_icmp=ICMP(type=8)), (8, 0), False),
        (Rule(action="Allow", not_icmp=ICMP(type=8)), (0, 0), True),
    ],
)
def test_icmp(made: Rule, sent: tuple[int, int], matches: bool) -> None:
    assert world_with(made).reaches("a1", "a0", protocol=1, icmp=sent) is matches


def test_a_refused_icmp_type_says_nothing_of_other_protocols() -> None:
    assert world_with(Rule(action="Allow", not_icmp=ICMP(type=8))).reaches("a1", "a0")


@pytest.mark.parametrize(
    ("protocol", "not_protocol", "passing"),
    [("SCTP", None, {132}), (132, None, {132}), (47, None, {47}), (None, "UDP", {6, 47, 132}), ("TCP", "UDP", {6}),
     ("TCP", 6, set())],
)  # fmt: skip
def test_protocols(protocol: Protocol | None, not_protocol: Protocol | None, passing: set[int]) -> None:
    world = world_with(Rule(action="Allow", protocol=protocol, not_protocol=not_protocol))
    assert {number for number in (6, 17, 47, 132) if world.reaches("a1", "a0", protocol=number)} == passing


def test_egress_rules_look_at_the_destination() -> None:
    world = world_with(rule("Allow", destination=EntityRule(selector="name == 'a2'")), direction="egress")
    assert world.reaches("a0", "a2")
    assert not world.reaches("a0", "a1")


# What cannot be enforced as written never widens what is allowed.

UNUSABLE = [
    EntityRule(services=Services(name="s", namespace="n")),
    EntityRule(selector="role = 'x'"),
    EntityRule(nets=["10.0.0.0/33"]),
    EntityRule(ports=[99999]),
]


@pytest.mark.parametrize("side", UNUSABLE)
@pytest.mark.parametrize(("action", "reached"), [("Allow", True), ("Log", True), ("Deny", False), ("Pass", False)])
def test_an_unusable_rule_is_left_out_or_denies(action: str, reached: bool, side: EntityRule) -> None:
    world = world_with(rule(action, "TCP", source=side), Rule(action="Allow"))
    key, (text,) = next(iter(world.flush().problems.items()))
    assert key.name == "p"
    assert text.startswith(f"ingress rule 1 ({action}) cannot be used")
    assert world.reaches("a1", "a0") is reached


@pytest.mark.parametrize("side", UNUSABLE)
def test_an_unusable_allow_allows_nothing(side: EntityRule) -> None:
    assert not world_with(rule("Allow", "TCP", source=side)).reaches("a1", "a0")


@pytest.mark.parametrize(
    "unusable",
    [
        Rule(action="Allow", http=HTTPMatch(methods=["GET"])),
        Rule(action="Allow", protocol="XTP"),
        Rule(action="Allow", protocol=256),
        Rule(action="Allow", destination=EntityRule(ports=[80])),
        Rule(action="Allow", protocol=47, destination=EntityRule(not_ports=[80])),
        Rule(action="Allow", protocol="TCP", icmp=ICMP(type=8)),
        Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=255)),
        Rule(action="Allow", protocol="ICMP", icmp=ICMP(code=0)),
        Rule(action="Permit"),
    ],
    ids=str,
)
def test_what_layer_3_cannot_tell_is_not_allowed(unusable: Rule) -> None:
    world = world_with(unusable)
    assert world.flush().problems
    assert not any(world.reaches("a1", "a0", protocol=protocol) for protocol in (1, 6, 17, 47))


def test_service_accounts_select_nobody_here() -> None:
    accounts = EntityRule(service_accounts=ServiceAccounts(names=["x"], selector="has(y)"))
    world = world_with(rule("Allow", source=accounts))
    assert not world.reaches("a1", "a0")
    assert world.reaches("a0", "a1")
