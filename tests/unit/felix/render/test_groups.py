"""Chains of jumps that endpoints with the same policies share."""

import random
import re

import pytest

from fakes.felix_records import policy, rule, settings, tier
from fakes.packets import Packet
from fakes.scenario import LOCAL, Scenario
from felix.calc.model import Direction, PolicyId
from felix.desired import ChainKey
from felix.render.groups import GROUPED_FROM, STRIDE, Group
from felix.render.names import CHAIN_MAX
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule

ALL = "has(name)"


def picks(number: int, selector: str = ALL, *, of: str = "default") -> tuple[ResourceKey, Resource]:
    return policy(f"p{number}", selector, [rule("Deny", "TCP", destination=EntityRule(ports=[number]))],
                  types=["Ingress"], tier=of, order=number)  # fmt: skip


def jumps(world: Scenario, chain: str) -> list[str]:
    found = world.pipeline.desired().chains[ChainKey(4, "filter", chain)]
    return [found for text in found.rules for found in re.findall(r"--jump (cali-(?:pi|gi)-\S+)", text)]


def groups(world: Scenario, version: int = 4) -> set[str]:
    return {k.chain for k in world.pipeline.desired().chains if k.version == version and k.chain[:8] == "cali-gi-"}


def shared(*numbers: int) -> str:
    return Group(Direction.INGRESS, tuple(PolicyId("GlobalNetworkPolicy", f"p{number}") for number in numbers)).chain


def test_endpoints_with_the_same_policies_jump_to_one_chain() -> None:
    world = Scenario().put(*(picks(number) for number in range(7)))
    world.flush()
    assert groups(world) == groups(world, 6) == {shared(*range(7))}
    for name in LOCAL:
        assert jumps(world, f"cali-tw-cali{name}") == [shared(*range(7))]
    chain = world.pipeline.desired().chains[ChainKey(4, "filter", shared(*range(7)))]
    undecided, back = "-m mark --mark 0/0x30000 ", "-m mark ! --mark 0/0x30000 "
    assert [text.partition('" ')[2] for text in chain.rules] == [
        "--jump cali-pi-gnp/p0",
        *(f"{undecided}--jump cali-pi-gnp/p{number}" for number in range(1, STRIDE)),
        f'-m comment --comment "Return on verdict" {back}--jump RETURN',
        "--jump cali-pi-gnp/p5",
        f"{undecided}--jump cali-pi-gnp/p6",
    ]


def test_the_name_is_the_lists_and_fits() -> None:
    names = {
        Group(direction, tuple(PolicyId("NetworkPolicy", name * 50, "x") for name in order)).chain
        for direction in Direction
        for order in ("abc", "acb", "abcd")
    }
    assert len(names) == 6
    assert all(len(name) <= CHAIN_MAX for name in names)


def test_few_policies_are_asked_in_place_and_each_tier_by_itself() -> None:
    few = [picks(number) for number in range(GROUPED_FROM - 1)]
    world = Scenario().put(tier("t", 1), *few, *(picks(number, of="t") for number in range(10, 13)))
    world.flush()
    assert jumps(world, "cali-tw-calia0") == [shared(10, 11, 12), "cali-pi-gnp/p0", "cali-pi-gnp/p1"]


def test_who_gets_another_list_moves_and_the_others_are_left_alone() -> None:
    world = Scenario().put(*(picks(number) for number in range(3)))
    world.flush()
    before = world.pipeline.rendered
    update = world.put(picks(3, "name == 'a0'")).flush()
    changed = {key.chain for key in update.chains if key.version == 4}
    assert changed == {shared(0, 1, 2, 3), "cali-tw-calia0", "cali-pi-gnp/p3"}
    assert world.pipeline.rendered - before == 1 + 2 + 2  # the group; a0's two chains; the policy's in both families
    assert groups(world) == {shared(0, 1, 2), shared(0, 1, 2, 3)}
    update = world.remove(picks(3)[0]).flush()
    assert update.chains[ChainKey(4, "filter", shared(0, 1, 2, 3))] is None
    assert jumps(world, "cali-tw-calia0") == [shared(0, 1, 2)]


def test_the_chain_goes_with_its_last_user() -> None:
    world = Scenario().put(*(picks(number, "name in {'a0','a1'}") for number in range(3)))
    world.flush()
    world.remove(world.keys["a0"]).flush()
    assert groups(world) == {shared(0, 1, 2)}
    update = world.remove(world.keys["a1"]).flush()
    assert update.chains[ChainKey(4, "filter", shared(0, 1, 2))] is None
    assert groups(world) == set()


def test_from_one_to_another_in_one_flush_writes_no_chain_anew() -> None:
    world = Scenario().put(*(picks(number, "role == 'x'") for number in range(3)))
    world.endpoint("a0", labels={"role": "x"})
    world.flush()
    world.endpoint("a0")
    world.endpoint("a1", labels={"role": "x"})
    update = world.flush()
    assert {key.chain for key in update.chains} == {"cali-tw-calia0", "cali-tw-calia1"}
    assert groups(world) == {shared(0, 1, 2)}


def test_settings_reach_the_chain() -> None:
    world = Scenario().put(*(picks(number) for number in range(3)))
    world.flush()
    chosen = FelixConfigurationSpec(iptables_mark_mask=0xFF, ipv6_support=False)
    world.put(settings(chosen)).flush()
    assert groups(world, 6) == set()
    chain = world.pipeline.desired().chains[ChainKey(4, "filter", shared(0, 1, 2))]
    assert "-m mark --mark 0/0x3 " in chain.rules[1]


Own = list[tuple[str, int]]
"""Rules of a policy: an action for a port."""


def lets_in(tiers: list[tuple[str, list[Own]]], port: int) -> bool:
    """The simple model: tiers of policies of rules, one after the other; in the end the profile allows."""
    for default, policies in tiers:
        decided = next((action for own in policies for action, at in own if at == port), default)
        if decided != "Pass":
            return decided == "Allow"
    return True


@pytest.mark.scenario(34)
@pytest.mark.parametrize("seed", range(15))
def test_long_lists_decide_like_one_policy_after_the_other(seed: int) -> None:
    chance = random.Random(seed)
    tiers: list[tuple[str, list[Own]]] = []
    world = Scenario()
    for number in range(3):
        policies: list[Own] = [
            [(chance.choice(["Allow", "Deny", "Pass"]), chance.randrange(80, 100)) for _ in range(chance.randrange(4))]
            for _ in range(chance.randrange(1, 14))
        ]
        default = chance.choice(["Pass", "Pass", "Deny"])
        tiers.append((default, policies))
        world.put(tier(f"t{number}", number, default))
        for place, own in enumerate(policies):
            rules = [rule(action, "TCP", destination=EntityRule(ports=[port])) for action, port in own]
            world.put(policy(f"p{number}-{place:02}", ALL, rules, types=["Ingress"], tier=f"t{number}", order=place))
    assert groups_or_few(world, tiers)
    for port in range(80, 100):
        packet: Packet = world.packet("a1", "a0", destination_port=port)
        assert world.machine.forward(packet) == lets_in(tiers, port), port


def groups_or_few(world: Scenario, tiers: list[tuple[str, list[Own]]]) -> bool:
    world.flush()
    return len(groups(world)) == sum(len(policies) >= GROUPED_FROM for _, policies in tiers)
