"""What is logged for a flow log: nothing unless asked for, and then exactly what ended a packet's way."""

from fakes.felix_records import network_profile, policy, rule, settings, tier
from fakes.packets import Machine
from fakes.scenario import Scenario
from felix.calc.model import Action, Direction, PolicyId
from felix.render.flowlog import PREFIX_MAX, Owner, end_of_tier_log, no_profile_log, rule_log
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.names import ProfileName

ALLOW, DENY, PASS = (Rule(action=action) for action in ("Allow", "Deny", "Pass"))
ON = settings(FelixConfigurationSpec(flow_logs_enabled=True))
OFF = settings(FelixConfigurationSpec())
A0 = "name == 'a0'"


def owner(name: str, tier: str = "default") -> Owner:
    return Owner(Direction.INGRESS, PolicyId("GlobalNetworkPolicy", name), tier)


def prefix(name: str, number: int = 1) -> str:
    return rule_log(owner(name), Action.DENY, number).prefix


def test_a_prefix_says_action_place_tier_and_policy() -> None:
    namespaced = Owner(Direction.EGRESS, PolicyId("NetworkPolicy", "web", "shop"), "security")
    assert rule_log(owner("allow-web"), Action.ALLOW, 1).prefix == "API0|default|gnp/allow-web"
    assert rule_log(namespaced, Action.PASS, 12).prefix == "PPE11|security|np/shop/web"
    assert rule_log(Owner(Direction.EGRESS, ProfileName("net-a")), Action.ALLOW, 1).prefix == "ARE0|net-a"
    assert end_of_tier_log("default", Action.DENY, Direction.INGRESS).prefix == "DPI|default"
    assert end_of_tier_log("t", Action.PASS, Direction.EGRESS).prefix == "PPE|t"
    assert no_profile_log(Direction.EGRESS).prefix == "DRE"


def test_what_stands_for_a_whole_policy_has_no_place() -> None:
    assert prefix("broken", 0) == "DPI|default|gnp/broken"


def test_the_group_is_that_of_the_direction() -> None:
    assert no_profile_log(Direction.INGRESS).group == 1
    assert no_profile_log(Direction.EGRESS).group == 2


def test_long_prefixes_fit_the_kernel_and_stay_apart() -> None:
    long = "a" * 200
    found = {prefix(long), prefix(long, 2), prefix(long + "b"), prefix("c" + long)}
    assert len(found) == 4
    assert {len(each) for each in found} == {PREFIX_MAX}
    assert prefix(long).startswith("DPI0|default|gnp/aaa")


def test_a_name_cannot_write_rules_nor_forge_the_hash_of_another() -> None:
    evil = prefix('x" --jump ACCEPT')
    assert len(evil) == PREFIX_MAX
    assert '"' not in evil
    assert " " not in evil
    hashed = prefix("a" * 200)
    assert prefix(hashed.removeprefix("DPI0|default|gnp/")) != hashed


def test_off_there_is_no_rule_of_it_and_on_and_off_again_leaves_the_same_chains() -> None:
    world = Scenario().put(policy("p", A0, [ALLOW, DENY], [PASS]))
    world.pipeline.flush()
    plain = world.pipeline.desired()
    assert not any("NFLOG" in text for chain in plain.chains.values() for text in chain.rules)
    world.put(ON).pipeline.flush()
    logged = world.pipeline.desired()
    assert any("NFLOG" in text for chain in logged.chains.values() for text in chain.rules)
    world.put(OFF).pipeline.flush()
    assert world.pipeline.desired() == plain


def logs(world: Scenario, source: str, target: str, **packet: int) -> tuple[bool, list[tuple[int, str]]]:
    """Whether a new flow gets through, and what was logged on its way."""
    reached = world.reaches(source, target, **packet)
    machine = world.machine
    assert isinstance(machine, Machine)
    found, machine.flow_log = machine.flow_log, []
    return reached, found


def test_each_end_of_a_way_is_logged_once_and_the_verdict_is_as_without() -> None:
    tcp = {port: EntityRule(ports=[port]) for port in (80, 81, 82)}
    world = Scenario().put(
        ON,
        tier("first", 1),
        policy("guard", A0, [rule("Deny", "TCP", destination=tcp[81]), PASS], tier="first"),
        policy("web", A0, [rule("Allow", "TCP", destination=tcp[80])]),
    )
    sent = (2, "ARE0|net-a")
    passed = (1, "PPI1|first|gnp/guard")
    assert logs(world, "a1", "a0", destination_port=80) == (True, [sent, passed, (1, "API0|default|gnp/web")])
    assert logs(world, "a1", "a0", destination_port=81) == (False, [sent, (1, "DPI0|first|gnp/guard")])
    assert logs(world, "a1", "a0", destination_port=82) == (False, [sent, passed, (1, "DPI|default")])
    assert logs(world, "b1", "a1", destination_port=80) == (False, [(2, "ARE0|net-b"), (1, "DRI")])
    assert logs(world, "a0", "a1", destination_port=80) == (True, [sent, (1, "ARI0|net-a")])


def test_the_end_of_a_tier_that_passes_is_logged_too() -> None:
    world = Scenario().put(
        ON, tier("first", 1, "Pass"), policy("guard", A0, [rule("Deny", source=EntityRule(nets=["192.0.2.1/32"]))],
                                             tier="first"), network_profile("net-a"),
    )  # fmt: skip
    assert logs(world, "a1", "a0") == (True, [(2, "ARE0|net-a"), (1, "PPI|first"), (1, "ARI0|net-a")])
