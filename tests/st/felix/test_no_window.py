"""Whoever is denied before and after a change is denied while it is made: a flood of new flows tells, IPv4 and IPv6.

After each there is a control: the denial goes, and the same flood gets through.
"""

import random
import time
from collections.abc import Iterator

import pytest

from bed import Dockerd, wait_until
from bed.felix import FelixLab, Record
from bed.flood import Flood
from bed.workload import Workload
from fakes.felix_records import network_set, policy, rule, tier
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule

D0 = "name == 'd0'"
ADDRESSES = {"d0": ("10.65.0.44", "fd00:65:0:1::44"), "d1": ("10.65.0.45", "fd00:65:0:1::45")}
ALLOW, DENY, PASS = (Rule(action=action) for action in ("Allow", "Deny", "Pass"))
POLICIES = "globalnetworkpolicies"


def from_(selector: str) -> EntityRule:
    return EntityRule(selector=selector)


def guard(name: str = "guard", *rules: Rule, order: float = 1, tier: str = "default") -> Record:
    """A policy that keeps d1 from d0."""
    denied = rule("Deny", source=from_("name == 'd1'"))
    return policy(name, D0, [*rules, denied], types=["Ingress"], order=order, tier=tier)


OPEN = policy("open", D0, [ALLOW], types=["Ingress"], order=1000)
"""Waits behind the guard: a moment without that is a moment with this."""


@pytest.fixture
def pair(lab: FelixLab) -> FelixLab:
    """d0 and d1, each with an address of both families."""
    lab.node1.sysctl("net.ipv6.conf.default.dad_transmits", 0)  # a second saved
    for name, addresses in ADDRESSES.items():
        lab.attach(lab.node1, name, addresses)
    lab.node1.sysctl("net.ipv6.conf.default.dad_transmits", 1)
    for address in ADDRESSES["d0"]:
        lab.workloads["d1"].await_ping(address)
    return lab


@pytest.fixture
def flood(pair: FelixLab) -> Iterator[Flood]:
    """From d1 to d0, which only `guard` keeps out: closed all the time, and open when it has gone."""
    lab = pair
    lab.put(guard(), OPEN)
    lab.forget_flows()
    with Flood(lab.workloads["d1"], lab.workloads["d0"]) as flood:
        yield flood
        flood.expect_closed()
        lab.put(remove=[key for key in ours(lab) if key.name.startswith("guard")])
        wait_until("the flood to get through, as a control", lambda: all(flood.heard.values()), timeout=5.0)


def ours(lab: FelixLab) -> list[ResourceKey]:
    names = (key.rpartition("/")[2] for key in lab.snapshot() if f"/{POLICIES}/" in key)
    return [ResourceKey(POLICIES, name) for name in names]


@pytest.mark.scenario(112)
def test_a_policy_is_replaced_changed_and_moved(lab: FelixLab, flood: Flood) -> None:
    lab.put(guard("guard-0"), remove=[ResourceKey(POLICIES, "guard")])
    for turn in range(6):
        lab.put(guard(f"guard-{turn + 1}", order=turn), remove=[ResourceKey(POLICIES, f"guard-{turn}")])
    for number in range(6):
        extra = [rule("Deny", "TCP", source=from_(f"role == 'r{n}'")) for n in range(number)]
        lab.put(guard("guard-6", *extra, order=number))


def test_tiers_come_change_places_and_go(lab: FelixLab, flood: Flood) -> None:
    lab.tolerate("tier first does not exist")
    first, second = tier("first", 1, "Pass"), tier("second", 2, "Pass")
    lab.put(first, second)
    for name in ("first", "second", "default", "first"):
        lab.put(guard(tier=name))
    lab.put(tier("first", 3, "Pass"), tier("second", 1))  # the other way round, and what is in the one passes no more
    lab.put(policy("pass", D0, [PASS], types=["Ingress"], tier="second"))
    lab.put(tier("first", 3))
    lab.put(remove=[first[0]])  # a policy whose tier is not there is closed
    lab.put(first)
    lab.put(remove=[ResourceKey(POLICIES, "pass"), second[0]])
    lab.put(guard())


def test_the_denied_one_changes_its_labels_and_the_policy_its_word_for_it(lab: FelixLab, flood: Flood) -> None:
    """Both in one flush, as felix sees it, and another policy keeps the sets alive (felix.calc.model.members_order)."""
    d1 = lab.workloads["d1"]

    def deny(word: str) -> Record:
        return policy("guard", D0, [rule("Deny", source=from_(f"role == '{word}'"))], types=["Ingress"], order=1)

    both = [rule("Deny", source=from_(f"role == '{word}'")) for word in ("bad", "evil")]
    transition = policy("guard", D0, both, types=["Ingress"], order=1)
    lab.put(policy("else", "name == 'b1'", both, types=["Ingress"]))
    lab.record(d1, labels={"role": "bad"})
    lab.put(deny("bad"))
    for word in ("evil", "bad") * 4:
        lab.felix["node1"].pause()  # so that it hears all three at once
        lab.write(transition)
        revision = lab.record(d1, labels={"role": word}, wait=False)
        revision = lab.write(deny(word))
        time.sleep(0.03)
        lab.felix["node1"].resume()
        lab.settle(revision)


def test_it_goes_from_one_denied_set_to_another_and_back(lab: FelixLab, flood: Flood) -> None:
    d1 = lab.workloads["d1"]
    both = [rule("Deny", source=from_(f"role == '{word}'")) for word in ("bad", "evil")]
    lab.put(policy("guard-2", D0, both, types=["Ingress"], order=1))
    lab.record(d1, labels={"role": "bad"})
    lab.put(remove=[ResourceKey(POLICIES, "guard")])
    for word in ("evil", "bad") * 10:
        lab.record(d1, labels={"role": word})
    members = network_set("them", *(f"{each}/{each.max_prefixlen}" for each in d1.addresses), labels={"role": "bad"})
    lab.put(members)
    lab.record(d1)
    for word in ("bad", "evil"):
        lab.put(network_set("them", "10.65.0.40/29", "fd00:65:0:1::/64", labels={"role": word}))


def both_ways(*roles: str) -> Record:
    """A policy for somebody else that names roles by what opens and by what closes: their sets have no safe order."""
    rules = [rule(action, source=from_(f"role == '{role}'")) for action in ("Deny", "Allow") for role in roles]
    return policy("else", "name == 'b1'", rules, types=["Ingress"])


def test_what_allowed_it_had_it_been_good_denies_it_now_that_it_is(lab: FelixLab, flood: Flood) -> None:
    """Members and rules of one set in one flush, and no order of the two is safe (adr 17)."""
    d1 = lab.workloads["d1"]
    allowing = guard("guard", rule("Allow", source=from_("role == 'good'")))
    denying = policy("guard", D0, [rule("Deny", source=from_("role == 'good'"))], types=["Ingress"], order=1)
    lab.put(both_ways("good"))
    lab.put(allowing)
    for turn in range(8):
        lab.felix["node1"].pause()  # so that it hears all three at once; and if not, each step is closed
        lab.write(guard())
        lab.record(d1, labels={} if turn % 2 else {"role": "good"}, wait=False)
        revision = lab.write(allowing if turn % 2 else denying)
        time.sleep(0.03)
        lab.felix["node1"].resume()
        lab.settle(revision)
    assert lab.said(lab.node1, "closed=")


def test_two_change_their_labels_at_once_and_their_sets_are_allowed_and_denied(lab: FelixLab, flood: Flood) -> None:
    """No rule changes. d1 may reach d0 if the one is good and the other is bad, which is never so."""
    d0, d1 = lab.workloads["d0"], lab.workloads["d1"]
    lab.put(both_ways("good", "bad"))
    allowed = rule("Allow", source=from_("role == 'good'"), destination=from_("role == 'bad'"))
    lab.put(guard("guard", allowed))
    for turn in range(12):
        good = lab.record_of(d1, labels={} if turn % 2 else {"role": "good"})
        bad = lab.record_of(d0, labels={"role": "bad"} if turn % 2 else {})
        lab.put(good, bad)
    assert lab.said(lab.node1, "closed=")


def test_felix_is_killed_and_started_again_and_again(lab: FelixLab, flood: Flood) -> None:
    for turn in range(4):
        lab.write(guard("guard", *[rule("Deny", "TCP", source=from_("has(x)"))] * turn))
        lab.write(policy(f"more-{turn}", D0, [ALLOW], types=["Ingress"], order=100 + turn))
        time.sleep(random.uniform(0, 0.05))
        lab.felix["node1"].kill()
        lab.write(guard("guard", *[rule("Deny", "UDP", source=from_("has(y)"))] * turn))
        lab.start(lab.node1, wait=turn % 2 == 0)
        time.sleep(random.uniform(0, 0.2))
    lab.felix["node1"].kill()
    lab.start(lab.node1)


def test_a_thousand_policies_come_and_go(lab: FelixLab, flood: Flood) -> None:
    thousand = [policy(f"p{n}", D0, [ALLOW], types=["Ingress"], order=10 + n) for n in range(1000)]
    lab.put(*thousand, timeout=60.0)
    lab.put(guard("guard-last", order=2), remove=[ResourceKey(POLICIES, "guard")])
    lab.put(remove=[key for key, _ in thousand], timeout=60.0)


@pytest.mark.scenario(111)
@pytest.mark.parametrize("policies", [1, 1000])
def test_a_new_container_sends_and_is_sent_nothing(pair: FelixLab, policies: int) -> None:
    """Both floods begin before felix knows of it; of a thousand policies the first denies, and the others allow."""
    lab, both = pair, ["Ingress", "Egress"]
    others = [policy(f"p{n}", "has(mute)", [ALLOW], [ALLOW], types=both, order=n) for n in range(1, policies)]
    mute = policy("mute", "has(mute)", [DENY], [DENY], types=both, order=0)
    lab.put(mute, policy("open", D0, [ALLOW], [ALLOW], types=both), *others, timeout=60.0)
    d0 = lab.workloads["d0"]
    new = lab.attach(lab.node1, "new", ["10.65.0.20", "fd00:65:0:1::20"], record=False)
    with Flood(d0, new) as into, Flood(new, d0) as out:
        time.sleep(0.1)
        revision = lab.record(new, labels={"mute": ""}, wait=False)
        lab.settle(revision, timeout=30.0)
        into.expect_closed()
        out.expect_closed()
        lab.put(remove=[mute[0], *(key for key, _ in others)], timeout=60.0)
        wait_until("the control: in", lambda: all(into.heard.values()), timeout=5.0)
        wait_until("the control: out", lambda: all(out.heard.values()), timeout=5.0)




class OnTheBridge(Workload):
    """A namespace on Docker's bridge, as a container there is, that outlives dockerd."""

    def _attach(self) -> None:
        self.host.ip(
            batch=f"link add {self.interface} type veth peer name eth0 netns {self.net.netns}\n"
            f"link set {self.interface} master docker0 up\n"
        )
        self.net.ip(batch=f"link set eth0 up\naddr add {self.address}/16 dev eth0\nroute add default via 172.17.0.1\n")


@pytest.mark.scenario(110)
def test_docker_starts_and_its_rules_stand_above_ours_for_a_moment(pair: FelixLab, docker: Dockerd) -> None:
    """Its ``-i docker0 ! -o docker0 -j ACCEPT`` would let a container on its bridge in, past the policy of ours."""
    lab = pair
    allowing = policy("p", D0, [ALLOW], types=["Ingress"])
    lab.put(policy("p", D0, [DENY], types=["Ingress"]))
    with (
        OnTheBridge(lab.node1, "bridged", "172.17.200.1", interface="vethbridged") as bridged,
        Flood(bridged, lab.workloads["d0"], translated=True) as flood,
    ):
        for _ in range(2):
            docker.stop()
            docker.start()
        flood.expect_closed()
        lab.put(allowing)
        wait_until("the flood to get through, as a control", lambda: all(flood.heard.values()), timeout=5.0)


def test_rules_are_flushed_and_others_accept(lab: FelixLab, flood: Flood) -> None:
    """``iptables -F`` takes our jump away, and FORWARD accepts; until it is back, what is new does not pass."""
    node1 = lab.node1
    lab.tolerate("rules.repaired")
    try:
        for program in ("iptables", "ip6tables"):
            node1.run(f"{program} -P FORWARD ACCEPT")
        for _ in range(4):
            node1.run("iptables -F FORWARD; ip6tables -F FORWARD")
            time.sleep(random.uniform(0.0, 0.2))
            node1.run("iptables -I FORWARD -j ACCEPT; ip6tables -I FORWARD -j ACCEPT")
            time.sleep(0.1)
            node1.run("iptables -D FORWARD -j ACCEPT; ip6tables -D FORWARD -j ACCEPT")
    finally:
        node1.run("iptables -P FORWARD DROP; ip6tables -P FORWARD ACCEPT")
