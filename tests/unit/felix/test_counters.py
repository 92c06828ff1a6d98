"""Counters by rule and by endpoint: what the tally says against what was sent through the rendered rules."""

import datetime
import json
import random
from collections import Counter
from typing import Any, Self

import msgspec
import pytest

from fakes.counted import PACKET_BYTES, counters_of
from fakes.felix_records import host_endpoint, policy, profile, rule, settings, tier
from fakes.felix_records import workload as workload_record
from fakes.packets import Machine
from fakes.scenario import ADDRESSES, HOST, LOCAL, OUTSIDE, Scenario
from felix.accounts import Accounts, NoRulesYet
from felix.calc.endpoints import CONTAINER
from felix.calc.model import Direction, PolicyId
from felix.counters import tally
from felix.desired import ChainKey, Update
from felix.render.explained import explain
from felix.tally import NOTHING, REFUSED, Count, Place, Tally, Where
from kernel.xtables_counters import Counted, RuleCount
from libnetwork import records
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.names import NodeName, ProfileName

ALLOW, DENY, PASS, LOG = (Rule(action=action) for action in ("Allow", "Deny", "Pass", "Log"))
A0 = "name == 'a0'"
INGRESS, EGRESS = Direction
CONDEMNED = "condemned0000000"
NOTHING_DROPPED: dict[Where, int] = {}


def to(*ports: int | str) -> EntityRule:
    return EntityRule(ports=list(ports))


def named(name: str) -> PolicyId:
    return PolicyId("GlobalNetworkPolicy", name)


class World(Scenario):
    """The scenario, with counters. Change first, then send."""

    def send(self, source: str, destination: str, times: int = 1, **fields: object) -> None:
        for _ in range(times):
            self.reaches(source, destination, **fields)

    def counted(self) -> dict[int, Counted]:
        return counters_of(self.machine.desired, {4: self.machine})

    def tally(self, counted: dict[int, Counted] | None = None) -> Tally:
        conclusions = self.pipeline.conclusions()
        chains = {key: chain for key, chain in explain(conclusions).items() if key.version == 4}
        return tally(conclusions, chains, self.counted() if counted is None else counted, CONDEMNED)

    def rules(self, name: str, direction: Direction = INGRESS) -> dict[int, int]:
        """Packets by the numbers of a policy's rules, where there were any."""
        found = self.tally().rules.items()
        return {
            number: count.packets
            for (who, at, number), count in found
            if who == named(name) and at is direction and count != NOTHING
        }

    def drops(self, name: str, direction: Direction = INGRESS, found: Tally | None = None) -> dict[Where, int]:
        passage = (found or self.tally()).places[workload(name, direction)]
        return {where: count.packets for where, count in passage.drops.items() if count != NOTHING}


def workload(name: str, direction: Direction = INGRESS) -> Place:
    return Place("workload", direction, f"cali{name}")


def by_rule(number: int, name: str, tier: str = "default") -> Where:
    return Where("rule", tier, (named(name),), (number,))


def test_each_rule_counts_what_it_matched_and_what_none_matched_falls_at_the_end_of_the_tier() -> None:
    world = World().put(
        policy("p", A0, [rule("Allow", "TCP", destination=to(80)), rule("Deny", "TCP", destination=to(81)), LOG,
                         rule("Pass", "UDP")]),
    )  # fmt: skip
    world.send("a1", "a0", 3, destination_port=80)
    world.send("a1", "a0", 2, destination_port=81)
    world.send("a1", "a0", 5, destination_port=82)
    world.send("a1", "a0", 1, protocol=17)
    assert world.rules("p") == {1: 3, 2: 2, 3: 6, 4: 1}
    assert world.drops("a0") == {by_rule(2, "p"): 2, Where("END_OF_TIER", "default"): 5}
    passage = world.tally().places[workload("a0")]
    assert passage.allowed == Count(4, 4 * PACKET_BYTES)
    assert passage.dropped == Count(7, 7 * PACKET_BYTES)


def test_a_rule_that_takes_many_rules_of_the_kernel_counts_a_packet_once() -> None:
    ports = list(range(1000, 1040, 2))
    nets = EntityRule(nets=["10.1.0.0/24", "10.3.0.0/24"], not_nets=["10.1.0.3/32", "10.9.0.0/16"])
    world = World().put(policy("p", A0, [rule("Deny", "TCP", source=nets, destination=to(*ports)), ALLOW]))
    world.send("a1", "a0", 4, destination_port=1038)
    world.send("a1", "a0", 1, destination_port=1039)
    world.send("a2", "a0", 1, destination_port=1038)
    assert world.rules("p") == {1: 4, 2: 2}
    assert world.drops("a0") == {by_rule(1, "p"): 4}


def test_a_shared_rule_counts_for_all_and_the_drops_are_each_ones_own() -> None:
    world = World().put(policy("p", "has(net-a)", [rule("Deny", "TCP", destination=to(81)), ALLOW]))
    world.send("a1", "a0", 3, destination_port=81)
    world.send("a0", "a1", 2, destination_port=81)
    assert world.rules("p") == {1: 5}
    assert world.drops("a0") == {by_rule(1, "p"): 3}
    assert world.drops("a1") == {by_rule(1, "p"): 2}
    assert world.drops("b1") == NOTHING_DROPPED


def test_which_of_two_denies_it_was_is_said_where_it_can_be_told() -> None:
    two = [rule("Deny", "TCP", destination=to(81)), rule("Deny", "TCP", destination=to(82)), ALLOW]
    world = World().put(policy("own", A0, two), policy("shared", "name in {'a1','b1'}", two))
    for port in (81, 82):
        world.send("a1", "a0", port - 80, destination_port=port)
        world.send("a0", "a1", port - 80, destination_port=port)
    assert world.drops("a0") == {by_rule(1, "own"): 1, by_rule(2, "own"): 2}
    assert world.drops("a1") == {Where("rule", "default", (named("shared"),), (1, 2)): 3}


def test_a_policy_that_denies_and_passes_is_told_from_others_of_the_tier() -> None:
    world = World().put(
        tier("t", 1),
        policy("one", A0, [rule("Deny", "TCP", destination=to(81)), rule("Pass", "TCP", destination=to(80))],
               tier="t", order=1),
        policy("two", A0, [rule("Deny", "TCP", destination=to(82)), rule("Allow", "TCP", destination=to(83))],
               tier="t", order=2),
    )  # fmt: skip
    for port, times in {80: 1, 81: 2, 82: 4, 83: 8, 84: 16}.items():
        world.send("a1", "a0", times, destination_port=port)
    assert world.drops("a0") == {
        by_rule(1, "one", "t"): 2, by_rule(1, "two", "t"): 4, Where("END_OF_TIER", "t"): 16
    }  # fmt: skip


def test_of_two_that_deny_and_pass_both_are_named() -> None:
    both = [rule("Deny", "TCP", destination=to(81)), rule("Pass", "TCP", destination=to(80))]
    world = World().put(policy("one", A0, both), policy("two", A0, [rule("Deny", "UDP"), PASS]))
    for fields in ({"destination_port": 80}, {"destination_port": 81}, {"protocol": 17}):
        world.send("a1", "a0", 1, **fields)
    assert world.drops("a0") == {Where("rule", "default", (named("one"), named("two"))): 2}


def test_profiles_and_what_no_profile_allows() -> None:
    strict = profile("strict", [rule("Deny", "TCP", destination=to(81)), rule("Allow", "TCP", destination=to(80))])
    world = World().put(strict)
    world.endpoint("a0", profiles=["strict"])
    for port, times in {80: 1, 81: 2, 82: 4}.items():
        world.send("b1", "a0", times, destination_port=port)
    world.send("a0", "b1", 8)
    assert world.drops("a0") == {Where("rule", "", (ProfileName("strict"),), (1,)): 2, Where("NO_PROFILE"): 4}
    assert world.drops("a0", EGRESS) == {Where("NO_PROFILE"): 8}


def test_what_policy_never_saw_is_named() -> None:
    world = World()
    world.send("a1", "a0", 2, state="INVALID")
    world.send("a0", "b2", 3, protocol=4)
    world.send("a0", "b2", 1, protocol=17, destination_port=4789)
    world.send("a1", "a0", 5, state="ESTABLISHED")
    world.send("a1", "a0", 7, spoofed=True)
    world.send("a1", "a0", 6, in_interface="calistranger")
    for _ in range(4):  # as if rules of others had accepted it before ours were asked
        world.machine.walk("mangle", "cali-not-asked", world.packet("a1", "a0"))
    found = world.tally().places
    assert world.drops("a1", EGRESS) == {Where("INVALID"): 2}
    assert world.drops("a0", EGRESS) == {Where("TUNNEL"): 4}
    assert found[workload("a1", EGRESS)].established.packets == 5  # accepted there, before the receiver is asked
    assert found[Place("host", None)].drops[Where("SPOOFED")].packets == 7
    assert found[Place("host", None)].drops[Where("NOT_ASKED")].packets == 4
    assert found[Place("host", EGRESS)].drops[Where("UNKNOWN_INTERFACE")].packets == 6


def test_a_packet_to_the_host_counts_as_dropped_only_if_it_is() -> None:
    for action, dropped in (("Drop", 2), ("Return", 0), ("Accept", 0)):
        world = World().put(settings(FelixConfigurationSpec(default_endpoint_to_host_action=action)))
        for _ in range(2):
            world.machine.to_host(world.packet("a0", "172.16.60.215", out_interface=""))
        host = world.tally().places[Place("host", None)]
        assert host.drops.get(Where("TO_HOST"), NOTHING).packets == dropped


def test_rules_keep_the_numbers_of_the_record_when_one_of_them_cannot_be_used() -> None:
    broken = Rule(action="Allow", http={})  # type: ignore[arg-type]  # what no layer-3 policy can do
    world = World().put(policy("p", A0, [broken, ALLOW, Rule(action="Deny", http={})]))  # type: ignore[arg-type]
    world.send("a1", "a0", 3)
    assert world.rules("p") == {2: 3}


def test_a_chain_that_is_not_as_rendered_is_not_counted_but_named() -> None:
    world = World().put(policy("p", A0, [ALLOW]))
    world.send("a1", "a0", 3)
    counted = world.counted()
    chains = dict(counted[4]["filter"])
    chains["cali-pi-gnp/p"] = (RuleCount("somethingelse000", 9, 9),)
    found = world.tally({4: {**counted[4], "filter": chains}})
    assert [key.chain for key in found.missing] == ["cali-pi-gnp/p"]
    assert (named("p"), INGRESS, 1) not in found.rules
    assert found.places[workload("a0")].allowed.packets == 3


def test_a_refused_chain_says_so() -> None:
    world = World()
    world.flush()
    counted = world.counted()
    chains = {**counted[4]["filter"], "cali-tw-calia0": (RuleCount(CONDEMNED, 5, 300),)}
    found = world.tally({4: {**counted[4], "filter": chains}})
    assert found.places[workload("a0")].drops == {Where(REFUSED): Count(5, 300)}


def test_the_refused_chain_of_a_policy_is_blamed_for_what_falls_there() -> None:
    world = World().put(policy("p", A0, [ALLOW]))
    world.send("a1", "a0", 4)
    counted = world.counted()
    chains = dict(counted[4]["filter"])
    places = [one for one in chains["cali-tw-calia0"] if one.packets]
    assert len(places) == 4  # clean start, start of the tier, the jump, what was allowed
    chains["cali-tw-calia0"] = tuple(
        RuleCount(one.tag, 0, 0) if one == places[-1] else one for one in chains["cali-tw-calia0"]
    )
    chains["cali-pi-gnp/p"] = (RuleCount(CONDEMNED, 4, 240),)
    found = world.tally({4: {**counted[4], "filter": chains}})
    assert {where: count.packets for where, count in found.places[workload("a0")].drops.items() if count.packets} == {
        Where(REFUSED, "default", (named("p"),)): 4
    }


@pytest.mark.parametrize("seed", range(12))
def test_random_policies_and_packets_agree_with_what_was_logged(seed: int) -> None:
    """The flow log names what dropped each packet; the tally must come to the same numbers from counters alone."""
    chance = random.Random(seed)
    world = World().put(settings(FelixConfigurationSpec(flow_logs_enabled=True)), tier("t1", 1), tier("t2", 2, "Pass"))
    for number in range(6):
        rules = [
            rule(chance.choice(["Allow", "Deny", "Pass", "Log"]), "TCP", destination=to(chance.randrange(80, 86)))
            for _ in range(chance.randrange(4))
        ]
        selector = chance.choice([A0, "has(net-a)", "all()"])
        chosen = chance.choice(["t1", "t2", "default"])
        world.put(policy(f"p{number}", selector, rules, types=["Ingress"], tier=chosen, order=chance.randrange(4)))
    dropped: Counter[tuple[str, str]] = Counter()
    for _ in range(300):
        source, target = chance.sample(["a0", "a1", "b1"], 2)
        if not world.reaches(source, target, destination_port=chance.randrange(80, 86)):
            dropped[target, world.machine.flow_log[-1][1].split("|", 1)[-1]] += 1
    for name in ("a0", "a1", "b1"):
        logged = {what: packets for (at, what), packets in dropped.items() if at == name}
        told = world.drops(name)
        assert sum(told.values()) == sum(logged.values())
        for where, packets in told.items():
            match where:
                case Where("END_OF_TIER"):
                    assert logged[where.tier] == packets
                case Where("rule"):
                    assert sum(logged.get(f"{where.tier}|gnp/{who.name}", 0) for who in where.owners
                               if isinstance(who, PolicyId)) == packets  # fmt: skip


THREE = "name in {'a0','a1','b1'}"


def four(selector: str = THREE, **rules: list[Rule]) -> World:
    """Policies p1 to p4, by default each with one Deny, of port 81 to 84; so many share a chain of jumps."""
    world = World()
    for number in range(1, 5):
        own = rules.get(f"p{number}", [rule("Deny", "TCP", destination=to(80 + number))])
        world.put(policy(f"p{number}", selector, own, types=["Ingress"], order=number))
    return world


def jumps(world: World, name: str) -> list[str]:
    chain = next(c for key, c in world.desired.chains.items() if key.chain == f"cali-tw-cali{name}")
    return [word for text in chain.rules for word in text.split() if word.startswith(("cali-pi-", "cali-gi-"))]


def test_of_policies_that_endpoints_ask_together_the_one_is_named_that_denied_anything() -> None:
    world = four()
    assert jumps(world, "a0") == jumps(world, "b1")
    assert len(jumps(world, "a0")) == 1
    world.send("a1", "a0", 3, destination_port=83)
    world.send("a1", "b1", 2, destination_port=83)
    world.send("a1", "b1", 4, destination_port=90)
    assert world.drops("a0") == {by_rule(1, "p3"): 3}
    assert world.drops("b1") == {by_rule(1, "p3"): 2, Where("END_OF_TIER", "default"): 4}
    assert world.drops("a1") == NOTHING_DROPPED
    assert world.rules("p3") == {1: 5}


def test_of_the_only_one_that_lost_anything_all_is_told() -> None:
    two = [rule("Deny", "TCP", destination=to(82)), rule("Deny", "TCP", destination=to(92))]
    world = four(p2=two, p4=[rule("Allow", "TCP", destination=to(84)), DENY])
    for port, times in {81: 1, 82: 2, 92: 4, 84: 8, 99: 16}.items():
        world.send("a0", "a1", times, destination_port=port)
    world.send("a1", "a0", 5, destination_port=84)
    assert world.drops("a1") == {by_rule(1, "p1"): 1, by_rule(1, "p2"): 2, by_rule(2, "p2"): 4, by_rule(2, "p4"): 16}
    assert world.tally().places[workload("a1")].allowed.packets == 8
    assert world.drops("a0") == NOTHING_DROPPED


def test_where_two_policies_denied_things_to_two_endpoints_both_are_named() -> None:
    world = four(p4=[ALLOW])
    world.send("a1", "a0", 3, destination_port=81)
    world.send("a1", "b1", 2, destination_port=82)
    world.send("a1", "b1", 9, destination_port=83)
    named_all = tuple(named(f"p{number}") for number in (1, 2, 3))
    assert world.drops("a0") == {Where("rule", "default", named_all): 3}
    assert world.drops("b1") == {Where("rule", "default", named_all): 11}
    (line,) = (one for one in told(world)["drops"] if one["interface"] == "calia0")
    assert line["where"] == "a rule of policy p1 or policy p2 or policy p3 (tier default)"
    assert [one["name"] for one in line["by"]] == ["p1", "p2", "p3"]


def test_of_many_policies_not_all_names_are_told() -> None:
    world = World()
    for number in range(9):
        world.put(policy(f"p{number}", THREE, [rule("Deny", "TCP", destination=to(80 + number))], types=["Ingress"],
                         order=number))  # fmt: skip
    for number in range(9):
        world.send("a0", "a1" if number % 2 else "b1", destination_port=80 + number)
    (line,) = (one for one in told(world)["drops"] if one["interface"] == "calia1")
    assert line["where"].endswith("policy p4, policy p5 or one of 3 more (tier default)")
    assert len(line["by"]) == 9


def test_a_pass_of_one_and_a_deny_of_another_in_a_shared_chain_are_told_apart() -> None:
    world = World().put(tier("t", 1))
    for number, own in enumerate([[rule("Pass", "TCP", destination=to(81))], [rule("Deny", "TCP", destination=to(82))],
                                  [LOG]]):  # fmt: skip
        world.put(policy(f"p{number}", THREE, own, types=["Ingress"], tier="t", order=number))
    for port, times in {81: 1, 82: 2, 83: 4}.items():
        world.send("a1", "a0", times, destination_port=port)
        world.send("a0", "a1", times, destination_port=port)
    assert world.drops("a0") == {by_rule(1, "p1", "t"): 2, Where("END_OF_TIER", "t"): 4}
    assert world.tally().places[workload("a0")].allowed.packets == 1  # by the profile


def test_a_refused_chain_of_many_says_so_of_each_that_asks_it() -> None:
    world = four()
    world.send("a1", "a0", 3, destination_port=90)
    counted = world.counted()
    chains = dict(counted[4]["filter"])
    (group,) = jumps(world, "a0")
    chains[group] = (RuleCount(CONDEMNED, 3, 180),)
    (end,) = (one for one in chains["cali-tw-calia0"] if one.packets and one == chains["cali-tw-calia0"][6])
    assert end.packets == 3
    chains["cali-tw-calia0"] = tuple(RuleCount(c.tag, 0, 0) if c == end else c for c in chains["cali-tw-calia0"])
    found = world.tally({4: {**counted[4], "filter": chains}})
    assert {where: count.packets for where, count in found.places[workload("a0")].drops.items() if count.packets} == {
        Where(REFUSED, "default", tuple(named(f"p{number}") for number in range(1, 5))): 3
    }


def test_a_shared_chain_that_somebody_changed_leaves_all_that_deny() -> None:
    world = four(p2=[ALLOW])
    world.send("a1", "a0", 3, destination_port=81)
    counted = world.counted()
    (group,) = jumps(world, "a0")
    chains = {**counted[4]["filter"], group: (RuleCount("somethingelse000", 9, 9),)}
    found = world.tally({4: {**counted[4], "filter": chains}})
    assert [key.chain for key in found.missing] == [group]
    (where,) = (where for where, count in found.places[workload("a0")].drops.items() if count.packets)
    assert where.owners == (named("p1"), named("p3"), named("p4"))


class Lasting(World):
    """Counters last as in the kernel: those of a chain that is written anew begin at nothing.

    `dropped`: what really dropped packets, by endpoint and then by the tier and policy that the flow log names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropped: dict[str, Counter[str]] = {}
        self.put(settings(FelixConfigurationSpec(flow_logs_enabled=True)))

    def flush(self) -> Update:
        """Bring the kernel up to date."""
        old = self._machine
        update = self.pipeline.flush()
        self._machine = new = Machine(self.pipeline.desired(), 4, frozenset({HOST}))
        for name in LOCAL:
            if ChainKey(4, "filter", f"cali-tw-cali{name}") in update.chains:
                self.dropped[name] = Counter()
        if old is not None:
            for (table, chain, place), packets in old.counted.items():
                key = ChainKey(4, table, chain)
                if key in new.desired.chains and key not in update.chains:
                    new.counted[table, chain, place] = packets
        new.check_all()
        return update

    def put(self, *records: tuple[ResourceKey, Resource]) -> Self:
        for key, value in records:
            self.pipeline.update(key, value)
        return self

    def remove(self, *keys: ResourceKey) -> Self:
        for key in keys:
            self.pipeline.update(key, None)
        return self

    @property
    def machine(self) -> Machine:
        assert self._machine is not None
        return self._machine

    def counted(self) -> dict[int, Counted]:
        return counters_of(self.machine.desired, {4: self.machine})

    def try_one(self, source: str, target: str, port: int) -> None:
        if not self.reaches(source, target, destination_port=port):
            (prefix,) = (text for _, text in self.machine.flow_log[-1:])
            if prefix[2] == "I":
                self.dropped[target][prefix.split("|", 1)[-1]] += 1
        self.machine.flow_log.clear()


ACTIONS = (["Deny"], ["Allow", "Deny"], ["Allow"], ["Deny", "Pass"], ["Log", "Deny", "Deny"], ["Pass", "Allow"])


def random_policy(chance: random.Random) -> tuple[ResourceKey, Resource]:
    """One of nine; its actions stay the same, as what rules did that are gone cannot be told."""
    number = chance.randrange(9)
    rules = [rule(action, "TCP", destination=to(chance.randrange(80, 86))) for action in ACTIONS[number % len(ACTIONS)]]
    chance.shuffle(rules)
    selector = chance.choice([A0, "name in {'a0','a1'}", "all()", "all()", "role == 'r'"])
    return policy(f"p{number}", selector, rules, types=["Ingress"], tier=("t1", "t2")[number % 2], order=number)


@pytest.mark.parametrize("seed", range(12))
def test_through_all_changes_nobody_is_blamed_for_what_another_did(seed: int) -> None:
    """A line counts exactly what those that it names dropped of the endpoint's, since its chain is there."""
    chance = random.Random(seed)
    world = Lasting()
    world.put(tier("t1", 1, chance.choice(["Pass", "Deny"])), tier("t2", 2), *(random_policy(chance) for _ in range(9)))
    world.flush()
    for _ in range(8):
        for _ in range(chance.randrange(60)):
            source, target = chance.sample(LOCAL, 2)
            world.try_one(source, target, chance.randrange(80, 86))
        found = world.tally()
        for name in LOCAL:
            told: Counter[tuple[str, ...]] = Counter()
            for where, packets in world.drops(name, found=found).items():
                match where:
                    case Where("END_OF_TIER"):
                        told[where.tier,] += packets
                    case Where("NO_PROFILE"):
                        told["DRI",] += packets
                    case _:
                        path = [f"{where.tier}|gnp/{who.name}" for who in where.owners if isinstance(who, PolicyId)]
                        told[tuple(path)] += packets
            assert told == {names: sum(world.dropped[name][one] for one in names) for names in told}
            assert told.total() == world.dropped[name].total()
        match chance.randrange(5):
            case 0 | 1:
                world.put(random_policy(chance))
            case 2:
                world.remove(random_policy(chance)[0])
            case 3:
                name = chance.choice(LOCAL)
                world.endpoint(name, labels={"role": chance.choice("rs")}, profiles=[f"net-{chance.choice('ab')}"])
            case _:
                name = chance.choice(LOCAL)
                world.remove(world.keys[name])
                world.flush()
                world.endpoint(name)
        world.flush()


def accounts(world: World) -> Accounts:
    return Accounts(
        NodeName("node1"), world.pipeline.conclusions, lambda version: world.counted().get(version, {}),
        lambda: datetime.datetime(2026, 1, 1, 3, tzinfo=datetime.UTC),
    )  # fmt: skip


def told(world: World) -> dict[str, Any]:
    """The answer as it goes over the socket, for the rules of IPv4 (no packet of IPv6 is sent here)."""
    found = json.loads(json.dumps(accounts(world).counters()))
    assert isinstance(found, dict)
    return found


def test_what_is_told_has_names_and_the_order_in_which_packets_meet_the_policies() -> None:
    world = World().put(
        tier("early", 1),
        policy("z-first", A0, [PASS], tier="early", order=1),
        policy("a-second", A0, [rule("Deny", "TCP", destination=to(81))], tier="early", order=2),
        policy("last", A0, [ALLOW]),
    )
    key, value = workload_record("a1", f"{ADDRESSES['a1']}/32", profiles=["net-a"], labels={"name": "a1"})
    annotated = msgspec.structs.replace(value.metadata, annotations={CONTAINER: "web-1"})
    world.put((key, msgspec.structs.replace(value, metadata=annotated)))
    world.send("a0", "a1", 2, destination_port=80)
    world.send("b1", "a1", 3)
    found = told(world)
    assert [(one["tier"], one["name"]) for one in found["policies"]] == [
        ("early", "z-first"), ("early", "a-second"), ("default", "last")
    ]  # fmt: skip
    assert found["policies"][1]["rules"] == [
        {"direction": "ingress", "rule": 1, "action": "Deny", "matches": "tcp to port 81", "packets": 0, "bytes": 0}
    ]
    (drop,) = (one for one in found["drops"] if one["kind"] == "workload")
    assert (drop["name"], drop["interface"], drop["where"], drop["packets"]) == (
        "web-1", "calia1", "no profile matched", 3
    )  # fmt: skip
    (line,) = (one for one in found["endpoints"] if one["name"] == "web-1" and one["direction"] == "ingress")
    assert (line["addresses"], line["allowed"]["packets"], line["dropped"]["packets"]) == ([ADDRESSES["a1"]], 2, 3)


def test_the_name_of_a_container_is_where_the_driver_puts_it() -> None:
    assert records.CONTAINER == CONTAINER


def test_before_the_store_is_read_there_is_no_answer() -> None:
    silent = Accounts(NodeName("n"), lambda: None, lambda _: {}, lambda: datetime.datetime.now(datetime.UTC))
    for question in (silent.counters, silent.prefixes):
        with pytest.raises(NoRulesYet):
            question()


def test_every_prefix_that_is_logged_is_told() -> None:
    world = World().put(
        settings(FelixConfigurationSpec(flow_logs_enabled=True)), tier("t", 1, "Pass"),
        policy("x" * 80, A0, [rule("Deny", "TCP", destination=to(81)), rule("Log")], tier="t"),
    )  # fmt: skip
    for port in (80, 81):
        world.send("a1", "a0", destination_port=port)
        world.send("b1", "a0", destination_port=port)
    prefixes = accounts(world).prefixes()["prefixes"]
    assert isinstance(prefixes, dict)
    logged = {prefix for _, prefix in world.machine.flow_log}
    assert len(logged) == 6
    assert logged <= prefixes.keys()
    (hashed,) = (prefix for prefix in logged if prefix.startswith("DPI0"))
    assert prefixes[hashed] == {
        "group": 1, "tier": "t", "kind": "GlobalNetworkPolicy", "namespace": "", "name": "x" * 80, "rule": 1,
        "action": "Deny", "direction": "ingress",
    }  # fmt: skip
    assert prefixes["PPI|t"] == {"group": 1, "tier": "t", "end_of_tier": True, "action": "Pass", "direction": "ingress"}
    assert prefixes["DRI"] == {"group": 1, "no_profile": True, "action": "Deny", "direction": "ingress"}


def host_world(*records: tuple[ResourceKey, Resource]) -> World:
    """The host has an endpoint of its own on eth0, with the label ``up``."""
    return World().put(host_endpoint("up", "eth0", labels={"up": ""}), *records)


def host_drops(world: World, direction: Direction, note: str = "") -> dict[Where, int]:
    passage = world.tally().places[Place("host endpoint", direction, "eth0", note)]
    return {where: count.packets for where, count in passage.drops.items() if count != NOTHING}


def test_a_host_endpoint_has_its_own_lines() -> None:
    world = host_world(policy("hosts", "has(up)", [rule("Deny", "TCP", destination=to(81)), ALLOW], order=1))
    for port, times in {80: 1, 81: 2}.items():
        for _ in range(times):
            world.machine.to_host(world.packet(OUTSIDE, HOST, destination_port=port, out_interface=""))
    assert world.rules("hosts") == {1: 2, 2: 1}
    assert host_drops(world, INGRESS) == {by_rule(1, "hosts"): 2}
    (line,) = (one for one in told(world)["endpoints"] if one["kind"] == "host endpoint" and not one["note"]
               and one["direction"] == "ingress")  # fmt: skip
    assert (line["name"], line["interface"], line["allowed"]["packets"]) == ("up", "eth0", 1)
    assert [one["name"] for one in line["policies"]] == ["hosts"]


def test_policy_before_nat_is_told_apart_although_nothing_is_counted_behind_it() -> None:
    rules = [rule("Deny", "TCP", destination=to(81)), rule("Deny", "TCP", destination=to(82)), PASS]
    world = host_world(policy("early", "has(up)", rules, pre_dnat=True, apply_on_forward=True))
    for port, times in {80: 1, 81: 2, 82: 3}.items():
        for _ in range(times):
            world.machine.to_host(world.packet(OUTSIDE, HOST, destination_port=port, out_interface=""))
    assert host_drops(world, INGRESS, "before DNAT") == {by_rule(1, "early"): 2, by_rule(2, "early"): 3}
    assert host_drops(world, INGRESS) == {Where("NO_PROFILE"): 1}


def test_both_address_families_are_added_up() -> None:
    world = World().put(policy("p", A0, [rule("Deny", "TCP", destination=to(81)), Rule(action="Deny", ip_version=6)]))
    world.send("a1", "a0", 3, destination_port=81)
    counted = world.counted()[4]
    of_6 = counters_of(world.machine.desired, {6: Machine(world.machine.desired, 6)})[6]
    chains = dict(of_6["filter"])
    chains["cali-pi-gnp/p"] = tuple(
        RuleCount(one.tag, 10 * (place + 1), 0) for place, one in enumerate(of_6["filter"]["cali-pi-gnp/p"])
    )
    both = {4: counted, 6: {**of_6, "filter": chains}}
    conclusions = world.pipeline.conclusions()
    found = tally(conclusions, explain(conclusions), both, CONDEMNED)
    # marks come before drops: the third rule of the chain of IPv6 is what the second of the policy matched
    assert found.rules[named("p"), INGRESS, 1].packets == 3 + 10
    assert found.rules[named("p"), INGRESS, 2].packets == 30
    assert found.missing == []
