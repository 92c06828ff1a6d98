"""Host endpoints by packets (reference felix.md 8.4 and 8.5): node1's eth0 towards the world outside.

What the rendered rules mean is tested without a kernel, in tests/unit/felix/test_host_scenarios.py.
"""

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from bed import wait_until
from bed.felix import TELL_REFUSALS, FelixLab, tcp_passes, udp_passes
from bed.probes import Address, Prober, ping
from fakes.felix_records import host_endpoint, network_set, policy, profile, rule, settings
from resources.datastore.keys import ResourceKey
from resources.kinds.felixconfiguration import FelixConfigurationSpec, ProtoPort
from resources.kinds.rule import EntityRule, Port, Rule

ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")
LABELS = {"host": ""}
HOSTS = "has(host)"
ETH0 = host_endpoint("eth0", "eth0", labels=LABELS)
ALL = host_endpoint("all", "*", labels=LABELS)
OPEN = profile("open", [ALLOW], [ALLOW])
EVERYTHING = ("tcp:22", "tcp:80", "tcp:2379", "udp:53", "udp:68", "udp:99", "icmp")
FAILSAFE_IN, FAILSAFE_OUT = {"tcp:22", "tcp:2379", "udp:68"}, {"tcp:2379", "udp:53"}
WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}


def to(*ports: Port) -> EntityRule:
    return EntityRule(ports=list(ports))


def tcp(action: str, *ports: Port) -> Rule:
    return rule(action, "TCP", destination=to(*ports))


ETCD = tcp("Allow", 2379)
"""Lets felix itself speak with its store."""


def open_ways(source: Prober, address: Address, ways: Sequence[str] = EVERYTHING) -> set[str]:
    """Return what gets from a place to an address and is answered, all tried at once."""

    def passes(way: str) -> bool:
        kind, _, port = way.partition(":")
        if kind == "icmp":
            return ping(address, timeout=0.4).ok
        return (tcp_passes if kind == "tcp" else udp_passes)(address, int(port)).ok

    with source.entered(), ThreadPoolExecutor(len(ways)) as pool:
        return {way for way, passed in zip(ways, pool.map(passes, ways), strict=True) if passed}


def inward(lab: FelixLab, *ways: str) -> set[str]:
    """Return what gets from outside into node1."""
    return open_ways(lab.cluster.fabric, lab.node1.address, ways or EVERYTHING)


def outward(lab: FelixLab, *ways: str) -> set[str]:
    """Return what gets from node1 to the world outside."""
    return open_ways(lab.node1, lab.cluster.fabric.address, ways or EVERYTHING)


def input_policy(lab: FelixLab, target: str) -> None:
    lab.node1.run(["iptables", "-P", "INPUT", target])


@pytest.fixture(autouse=True)
def world(lab: FelixLab) -> Iterator[None]:
    """INPUT accepts what nobody drops, refusals are told without a limit, and the world knows where a0 is."""
    core = lab.cluster.fabric.core
    input_policy(lab, "ACCEPT")
    lab.node1.run(TELL_REFUSALS)
    core.run(TELL_REFUSALS)
    core.ip("route", "replace", "10.65.0.0/26", "via", str(lab.node1.address))
    yield
    core.ip("route", "del", "10.65.0.0/26")
    input_policy(lab, "DROP")


@pytest.mark.scenario(69)
def test_a_named_interface_without_policy_has_its_failsafe_ports_only(lab: FelixLab) -> None:
    assert inward(lab) == outward(lab) == set(EVERYTHING)
    lab.put(ETH0)
    assert inward(lab) == FAILSAFE_IN
    assert outward(lab) == FAILSAFE_OUT
    lab.expect(WITHIN)
    assert lab.node1.ping(lab.workloads["a0"].address).ok
    lab.remove(ETH0[0])
    assert inward(lab) == outward(lab) == set(EVERYTHING)


@pytest.mark.scenario(70)
def test_a_profile_and_a_policy_open_it(lab: FelixLab) -> None:
    lab.tolerate("profile open does not exist")
    lab.put(host_endpoint("eth0", "eth0", profiles=["open"], labels=LABELS))
    assert inward(lab) == FAILSAFE_IN
    lab.put(OPEN)
    assert inward(lab) == outward(lab) == set(EVERYTHING)
    lab.put(policy("p", HOSTS, [tcp("Allow", 80), rule("Allow", "ICMP")], types=["Ingress"]))
    assert inward(lab) == FAILSAFE_IN | {"tcp:80", "icmp"}
    assert outward(lab) == set(EVERYTHING)
    lab.put(policy("p", HOSTS, [], [tcp("Deny", 80), rule("Deny", "UDP"), ALLOW], types=["Egress"]))
    assert inward(lab) == set(EVERYTHING)
    assert outward(lab) == {"tcp:22", "tcp:2379", "udp:53", "icmp"}


@pytest.mark.scenario(71)
def test_without_failsafe_ports_what_is_open_goes_on_and_nothing_new_begins(lab: FelixLab) -> None:
    none = FelixConfigurationSpec(
        failsafe_inbound_host_ports=[], failsafe_outbound_host_ports=[], default_endpoint_to_host_action="Return"
    )
    # a way to the store, or felix is cut off
    lab.put(policy("store", HOSTS, [], [ETCD], types=["Egress"]))
    with lab.node1.tcp_listen(22), lab.cluster.fabric.entered():
        talker = socket.create_connection((str(lab.node1.address), 22), timeout=3.0)
        with talker:
            lab.put(settings(none, name="node.node1"), ETH0)
            assert inward(lab) == set()
            assert outward(lab) == {"tcp:2379"}
            talker.settimeout(3.0)
            assert talker.recv(100), "the listener's greeting, or what is left of it"


@pytest.mark.scenario(72)
def test_a_failsafe_port_of_a_net_is_for_that_net(lab: FelixLab) -> None:
    ports = [ProtoPort(protocol="TCP", port=22, net=f"{lab.node2.address}/32")]
    spec = FelixConfigurationSpec(failsafe_inbound_host_ports=ports, default_endpoint_to_host_action="Return")
    lab.put(settings(spec, name="node.node1"), ETH0)
    assert inward(lab) == set()
    assert open_ways(lab.node2, lab.node1.address) == {"tcp:22"}


@pytest.fixture
def second(lab: FelixLab) -> Iterator[str]:
    """An interface of node1, up1, that leads from 198.51.100.1 to the world's 198.51.100.2."""
    core = lab.cluster.fabric.core
    core.ip(
        batch=f"link add to-up1 type veth peer name up1 netns {lab.node1.net.netns}\n"
        "addr add 198.51.100.2/24 dev to-up1\nlink set to-up1 up\n"
    )
    lab.node1.ip(batch="addr add 198.51.100.1/24 dev up1\nlink set up1 up\n")
    yield "198.51.100.1"
    core.ip("link", "del", "to-up1", check=False)


def to_second(lab: FelixLab) -> set[str]:
    return open_ways(lab.cluster.fabric, "198.51.100.1", ("tcp:22", "tcp:80"))


def await_second(lab: FelixLab, wanted: set[str]) -> None:
    """Events of the kernel are not waited for as changes of the store are."""
    wait_until(f"{sorted(wanted)} to be what passes", lambda: to_second(lab) == wanted, timeout=5.0)


@pytest.mark.scenario(73)
def test_an_expected_address_that_comes_and_goes(lab: FelixLab, second: str) -> None:
    lab.tolerate("it is not in effect: no interface has 198.51.100.9")
    lab.put(host_endpoint("h", "", "198.51.100.9"))
    assert any("no interface has 198.51.100.9" in text for text in problems(lab))
    assert to_second(lab) == {"tcp:22", "tcp:80"}
    lab.node1.ip("addr", "add", "198.51.100.9/24", "dev", "up1")
    await_second(lab, {"tcp:22"})
    assert problems(lab) == []
    assert inward(lab) == set(EVERYTHING)
    lab.node1.ip("addr", "del", "198.51.100.9/24", "dev", "up1")
    await_second(lab, {"tcp:22", "tcp:80"})


def problems(lab: FelixLab) -> list[str]:
    found = lab.state(lab.node1)["problems"]
    assert isinstance(found, dict)
    return [text for texts in found.values() for text in texts]


@pytest.mark.scenario(74)
def test_of_two_for_one_interface_the_first_by_name_and_then_the_other(lab: FelixLab) -> None:
    lab.tolerate("it waits: interface eth0 belongs to hostendpoints/eth0")
    lab.put(OPEN, ETH0, host_endpoint("zz", "eth0", profiles=["open"]))
    assert inward(lab) == FAILSAFE_IN
    lab.remove(ETH0[0])
    assert inward(lab) == set(EVERYTHING)


@pytest.mark.scenario(75)
def test_a_named_one_has_its_interface_and_the_other_one_all_the_rest(lab: FelixLab, second: str) -> None:
    lab.put(OPEN, ALL, host_endpoint("eth0", "eth0", profiles=["open"]))
    assert inward(lab) == outward(lab) == set(EVERYTHING)
    await_second(lab, {"tcp:22"})
    lab.put(policy("p", HOSTS, [DENY], pre_dnat=True))
    assert inward(lab) == set(EVERYTHING)
    lab.put(policy("p", HOSTS, [tcp("Allow", 80)], types=["Ingress"]))
    assert to_second(lab) == {"tcp:22", "tcp:80"}


@pytest.mark.scenario(76)
def test_an_interface_that_is_renamed_goes_down_and_up_and_away(lab: FelixLab, second: str) -> None:
    """The rules of a named one stand whether the interface is there or not: it is closed from its first packet on."""
    lab.tolerate("there is no interface up2")
    lab.put(host_endpoint("h", "up2"))
    assert problems(lab) == ["there is no interface up2"]
    assert to_second(lab) == {"tcp:22", "tcp:80"}
    lab.node1.ip(batch="link set up1 down\nlink set up1 name up2\nlink set up2 up\n")
    assert to_second(lab) == {"tcp:22"}
    wait_until("felix to see it", lambda: problems(lab) == [], timeout=5.0)
    lab.node1.ip(batch="link set up2 down\nlink set up2 up\n")
    assert to_second(lab) == {"tcp:22"}
    lab.node1.ip(batch="link set up2 down\nlink set up2 name up1\nlink set up1 up\n")
    await_second(lab, {"tcp:22", "tcp:80"})
    wait_until("felix to miss it", lambda: problems(lab) == ["there is no interface up2"], timeout=5.0)


@pytest.mark.scenario(77, 78)
def test_policy_about_what_is_forwarded(lab: FelixLab) -> None:
    a0, outside = lab.workloads["a0"], lab.cluster.fabric
    lab.put(ETH0, policy("p", HOSTS, [DENY], [DENY]))
    ways = ("tcp:80", "udp:99", "icmp")
    assert open_ways(a0, outside.address, ways) == set(ways)
    lab.put(policy("p", HOSTS, [DENY], [DENY], apply_on_forward=True))
    assert open_ways(a0, outside.address, ways) == set()
    lab.expect({"a0>a1", "a1>a0"})
    lab.put(policy("p", HOSTS, [DENY], [tcp("Allow", 80)], apply_on_forward=True))
    assert open_ways(a0, outside.address, ways) == {"tcp:80"}
    lab.put(policy("p", HOSTS, [DENY], types=["Ingress"], apply_on_forward=True))
    assert open_ways(a0, outside.address, ways) == set(ways)


@pytest.mark.scenario(79)
def test_policy_about_what_is_forwarded_by_any_interface(lab: FelixLab) -> None:
    lab.put(ALL, policy("p", HOSTS, [ALLOW], [ALLOW], apply_on_forward=True))
    lab.expect(WITHIN)
    lab.put(policy("p", HOSTS, [DENY], [DENY], apply_on_forward=True))
    lab.expect(set())
    assert lab.node1.ping(lab.workloads["a0"].address).ok


@pytest.fixture
def translated(lab: FelixLab) -> Iterator[None]:
    """What comes to node1's ports 32010 and 32011 goes to port 8055 of a0, which takes that from anywhere."""
    a0 = lab.workloads["a0"]
    rules = [
        f"PREROUTING -d {lab.node1.address} -p tcp --dport {port} -j DNAT --to-destination {a0.address}:8055"
        for port in (32010, 32011)
    ]
    for text in rules:
        lab.node1.run(f"iptables -t nat -A {text}")
    lab.put(policy("a0", "name == 'a0'", [tcp("Allow", 8055)], types=["Ingress"]))
    yield
    for text in rules:
        lab.node1.run(f"iptables -t nat -D {text}")


@pytest.mark.scenario(80)
def test_policy_before_nat(lab: FelixLab, translated: None) -> None:
    ways = ("tcp:32010", "tcp:32011")
    inside = [str(lab.workloads["a0"].address), ("tcp:8055",)]
    assert inward(lab, *ways) == set(ways)
    allowed = policy("p", HOSTS, [tcp("Allow", 32010), DENY], pre_dnat=True)
    lab.put(ETH0, allowed)
    assert inward(lab, *ways) == {"tcp:32010"}
    assert open_ways(lab.cluster.fabric, *inside) == set()  # type: ignore[arg-type]
    assert inward(lab) == FAILSAFE_IN
    lab.put(policy("a0", "name == 'a0'", [DENY], types=["Ingress"]))
    assert inward(lab, *ways) == set(), "what it allows is still the workload's to refuse"


@pytest.mark.scenario(81)
def test_policy_without_connection_tracking(lab: FelixLab) -> None:
    back = rule("Allow", "TCP", source=to(8080))
    echo, echo_back = rule("Allow", "ICMP"), rule("Allow", "ICMP")
    lab.put(ETH0, policy("p", HOSTS, [tcp("Allow", 8080), echo], types=["Ingress"], do_not_track=True))
    ways = ("tcp:8080", "tcp:22", "icmp")
    assert inward(lab, *ways) == {"tcp:22"}
    lab.put(policy("p", HOSTS, [tcp("Allow", 8080), echo], [back, echo_back], do_not_track=True))
    assert inward(lab, *ways) == set(ways)
    with lab.node1.tcp_listen(8080), lab.cluster.fabric.entered():
        talker = socket.create_connection((str(lab.node1.address), 8080), timeout=3.0)
    with talker:
        assert talker.recv(100)
        flows = lab.node1.run("conntrack -L 2>/dev/null").stdout.splitlines()
        assert [line for line in flows if "dport=8080" in line and f"src={lab.cluster.fabric.address}" in line] == []


@pytest.mark.scenario(82)
def test_untracked_policy_that_denies_all_leaves_the_failsafe_ports(lab: FelixLab) -> None:
    outside = lab.cluster.fabric
    lab.put(ETH0, policy("p", HOSTS, [DENY], [DENY], do_not_track=True))
    assert inward(lab) == {"tcp:22", "tcp:2379"}
    assert outward(lab) == {"tcp:2379"}
    # an answer comes from the port that was asked; a refusal, which is ICMP, belongs to no flow here
    with lab.node1.udp_listen(68), outside.udp_listen(53):
        assert outside.udp_exchange(lab.node1.address, 68).ok
        assert lab.node1.udp_exchange(outside.address, 53).ok
    assert not lab.cluster.fabric.ping(lab.workloads["a0"].address, timeout=0.4).ok


@pytest.mark.scenario(83)
def test_untracked_policy_on_all_interfaces_is_ignored_with_a_warning(lab: FelixLab) -> None:
    text = "policy p is doNotTrack and ignored"
    lab.tolerate(text)
    lab.put(OPEN, host_endpoint("all", "*", labels=LABELS, profiles=["open"]),
            policy("p", HOSTS, [DENY], [DENY], do_not_track=True))  # fmt: skip
    assert inward(lab) == outward(lab) == set(EVERYTHING)
    assert lab.said(lab.node1, text)


def own_host(lab: FelixLab) -> set[str]:
    return open_ways(lab.workloads["a0"], lab.node1.address, ("tcp:81", "udp:81"))


def action(name: str) -> tuple[ResourceKey, object]:
    return settings(FelixConfigurationSpec(default_endpoint_to_host_action=name), name="node.node1")


@pytest.mark.scenario(63, 64, 65, 66)
@pytest.mark.parametrize("target", ["DROP", "ACCEPT"])
def test_a_container_and_its_own_host(lab: FelixLab, target: str) -> None:
    input_policy(lab, target)
    both = {"tcp:81", "udp:81"}
    for name, without in (("Accept", both), ("Return", both if target == "ACCEPT" else set()), ("Drop", set())):
        lab.put(action(name))  # type: ignore[arg-type]
        assert own_host(lab) == without
        for endpoint in (ETH0, ALL):
            for verdict in (ALLOW, DENY):
                lab.put(endpoint, policy("p", HOSTS, [verdict, ETCD], [verdict, ETCD]))
                assert own_host(lab) == without, "normal policy has no say here"
            lab.remove(endpoint[0], ResourceKey("globalnetworkpolicies", "p"))
        lab.put(ALL, policy("p", HOSTS, [ALLOW], pre_dnat=True))
        assert own_host(lab) == without, "it does not open"
        lab.put(policy("p", HOSTS, [DENY], pre_dnat=True))
        assert own_host(lab) == set(), "it closes"
        lab.remove(ALL[0], ResourceKey("globalnetworkpolicies", "p"))


@pytest.mark.scenario(68)
def test_a_port_of_the_host_is_open_until_it_has_an_endpoint(lab: FelixLab) -> None:
    assert inward(lab, "tcp:9091") == {"tcp:9091"}
    lab.put(ALL)
    assert inward(lab, "tcp:9091") == set()
    lab.put(policy("metrics", HOSTS, [tcp("Allow", 9091)], types=["Ingress"]))
    assert inward(lab, "tcp:9091", "tcp:9092") == {"tcp:9091"}


def test_an_endpoint_that_cannot_be_read_keeps_its_interface_closed(lab: FelixLab) -> None:
    lab.tolerate("record.unreadable", "a port that cannot be read")
    spec = b'{"node":"node1","interfaceName":"eth0","profiles":["open"],"ports":"all"}'
    lab.put(OPEN)
    lab.settle(lab.write_raw(ETH0[0], b'{"metadata":{"name":"eth0"},"spec":' + spec + b"}"))
    assert inward(lab) == FAILSAFE_IN
    assert any("hostendpoints/eth0" in line for line in lab.said(lab.node1, "record.unreadable"))
    assert any("hostendpoints/eth0" in line for line in lab.said(lab.node1, "a port that cannot be read"))


def test_what_is_rejected_is_answered(lab: FelixLab) -> None:
    spec = FelixConfigurationSpec(iptables_filter_deny_action="Reject", default_endpoint_to_host_action="Return")
    lab.put(settings(spec, name="node.node1"), ETH0)
    with lab.cluster.fabric.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(lab.node1.address), 80), timeout=3.0)
    chains = [line for line in lab.saved(lab.node1, "filter") if "REJECT" in line and "-A cali-" in line]
    assert chains


class Flood:
    """Datagrams from the world outside to an address of node1, one per millisecond at least, and who hears them."""

    def __init__(self, lab: FelixLab, address: str) -> None:
        self.sent = self.heard = 0
        self._stop = threading.Event()
        with lab.node1.entered():
            self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with lab.cluster.fabric.entered():
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("0.0.0.0", 7010))
        self._receiver.settimeout(0.1)
        self._address = address
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.wait(0.0005):
            try:
                self._sender.sendto(b"x", (self._address, 7010))
                self.sent += 1
            except OSError:
                continue  # there is no way yet

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                self._receiver.recv(10)
                self.heard += 1
            except TimeoutError:
                continue

    def __enter__(self) -> "Flood":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._receiver.close()
        self._sender.close()


def test_a_policy_replaced_by_another_is_never_absent(lab: FelixLab) -> None:
    """Another policy's allow waits behind it, so one packet would pass at any moment without both."""
    lab.put(policy("guard-0", HOSTS, [DENY], types=["Ingress"], order=1), policy("open", HOSTS, [ALLOW], order=2), ETH0)
    with Flood(lab, str(lab.node1.address)) as flood:
        for turn in range(8):
            after = policy(f"guard-{turn + 1}", HOSTS, [DENY], types=["Ingress"], order=1)
            lab.put(after, remove=[ResourceKey("globalnetworkpolicies", f"guard-{turn}")])
        assert flood.sent > 50
        assert flood.heard == 0
        lab.remove(ResourceKey("globalnetworkpolicies", "guard-8"))
        wait_until("the flood to come through, as a control", lambda: flood.heard > 0, timeout=3.0)


def test_an_interface_that_is_named_is_closed_when_it_appears(lab: FelixLab, request: pytest.FixtureRequest) -> None:
    lab.tolerate("there is no interface up1")
    lab.put(host_endpoint("h", "up1"))
    with Flood(lab, "198.51.100.1") as flood:
        request.getfixturevalue("second")
        lab.cluster.fabric.await_ping("198.51.100.2")
        wait_until("felix to see it", lambda: problems(lab) == [], timeout=5.0)
        sent = flood.sent
        wait_until("the flood to go there", lambda: flood.sent > sent + 100, timeout=5.0)
        assert flood.heard == 0
        lab.remove(ResourceKey("hostendpoints", "h"))
        wait_until("the flood to come through, as a control", lambda: flood.heard > 0, timeout=3.0)


@pytest.mark.parametrize("chosen", ["name", "address"])
def test_an_interface_with_ipv6(lab: FelixLab, chosen: str) -> None:
    """Neighbours find each other by ICMPv6, which policy must let pass; the original makes no exception either."""
    for host, address in zip(lab.hosts, ("fd00:ab::1", "fd00:ab::2"), strict=True):
        host.ip("-6", "addr", "replace", f"{address}/64", "dev", "eth0", "nodad")
    lab.node2.await_ping("fd00:ab::1")
    ways = ("tcp:22", "tcp:80", "tcp:81", "icmp")

    def inward6() -> set[str]:
        return open_ways(lab.node2, "fd00:ab::1", ways)

    assert inward6() == set(ways)
    web = tcp("Allow", 80)
    lab.put(policy("p", HOSTS, [web, rule("Allow", "ICMPv6")], [rule("Allow", "ICMPv6"), ETCD]))
    lab.put(ETH0 if chosen == "name" else host_endpoint("eth0", "", "fd00:ab::1", labels=LABELS))
    assert inward6() == {"tcp:22", "tcp:80", "icmp"}
    assert inward(lab, *ways) == {"tcp:22", "tcp:80"}
    net = EntityRule(nets=["fd00:ab::/64"])
    lab.put(policy("p", HOSTS, [rule("Allow", source=net)], [rule("Allow", "ICMPv6"), ETCD]))
    assert inward6() == set(ways)
    assert inward(lab, *ways) == {"tcp:22"}


def test_felix_starts_anew_and_writes_nothing(lab: FelixLab) -> None:
    """All chains of all tables are known again, also those that the kernel prints in other words (NOTRACK)."""
    lab.tolerate("there is no interface up1", "is doNotTrack and ignored")
    rules = [tcp("Allow", 80, 8080), rule("Deny", "UDP", source=EntityRule(selector="has(far)")), rule("Pass", "ICMP")]
    lab.put(
        OPEN,
        network_set("s", "0.0.0.0/0", "192.0.2.7/24", "::/0", "::ffff:1.2.3.4/127", labels={"far": ""}),
        policy("normal", HOSTS, rules, [*rules, ETCD], apply_on_forward=True),
        policy("early", HOSTS, rules, pre_dnat=True),
        policy("untracked", HOSTS, rules, rules, do_not_track=True),
        host_endpoint("all", "*", labels=LABELS, profiles=["open"]),
        host_endpoint("eth0", "", str(lab.node1.address), labels=LABELS, profiles=["open"]),
        host_endpoint("up1", "up1", labels=LABELS),
    )
    wait_until("eth0 to be served", lambda: "cali-th-eth0" in "".join(lab.saved(lab.node1, "raw")), timeout=5.0)
    before, generation = lab.ours(lab.node1), lab.generation(lab.node1)
    lab.felix["node1"].kill()
    lab.start(lab.node1)
    assert lab.generation(lab.node1) == generation
    assert lab.ours(lab.node1) == before
    assert "dataplane.applied" not in lab.last_start("node1")
