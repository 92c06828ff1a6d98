"""IPv6 from one end to the other: neighbours, routes, rules, sets, ICMPv6, by packets (reference felix.md 2, 3, 8)."""

import ipaddress
import random
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from bed import wait_until
from bed.felix import FelixLab, ports_that_pass, raw_passes
from bed.probes import checksum
from fakes.felix_records import host_endpoint, network_set, policy, pool, rule
from resources.kinds.rule import ICMP, EntityRule, Port, Protocol, Rule

HOSTS = {"node1": "fd00:ab::1", "node2": "fd00:ab::2"}
BLOCKS = {"node1": ("fd00:65:0:1::/64", "fd00:66:0:1::/64"), "node2": ("fd00:65:0:2::/64", "fd00:66:0:2::/64")}
PLACES = {
    "v0": ("node1", "10.65.0.40", "fd00:65:0:1::40"),
    "v1": ("node1", "10.65.0.41", "fd00:65:0:1::41"),
    "w1": ("node1", "10.66.0.40", "fd00:66:0:1::40"),
    "v2": ("node2", "10.65.0.96", "fd00:65:0:2::60"),
}
ALLOW = Rule(action="Allow")


@pytest.fixture
def six(lab: FelixLab) -> Iterator[FelixLab]:
    """v0, v1 on node1 and v2 on node2 of net-a, w1 on node1 of net-b, all with an address of each family."""
    for host, (other, far) in zip(lab.hosts, reversed([*BLOCKS.items()]), strict=True):
        host.ip("-6", "addr", "replace", f"{HOSTS[host.name]}/64", "dev", "eth0", "nodad")
        for block in far:
            host.ip("-6", "route", "replace", block, "via", HOSTS[other], "proto", "81")
        host.run("ip6tables -P FORWARD DROP")
        host.sysctl("net.ipv6.conf.default.dad_transmits", 0)  # a second saved for each interface
    for name, (node, *addresses) in PLACES.items():
        lab.attach(lab.cluster[node], name, addresses, profiles=["net-a" if name[0] == "v" else "net-b"])
    for name, other in (("v0", "v1"), ("v1", "v2"), ("v2", "v0"), ("w1", "")):
        target = at(lab, other) if other else HOSTS["node1"]
        lab.workloads[name].await_ping(target)
    yield lab
    for host in lab.hosts:
        host.run("ip6tables -P FORWARD ACCEPT")
        host.sysctl("net.ipv6.conf.default.dad_transmits", 1)


def at(lab: FelixLab, name: str) -> str:
    return str(lab.workloads[name].address_of(6))


def reachable(lab: FelixLab, *, patience: float = 0.4) -> set[str]:
    """Return who reaches whom by ping over IPv6."""
    pairs = [(source, target) for source in PLACES for target in PLACES if source != target]
    return {
        f"{source}>{target}"
        for source, target in pairs
        if lab.workloads[source].ping(at(lab, target), timeout=patience).ok
    }


WITHIN = {"v0>v1", "v1>v0", "v0>v2", "v2>v0", "v1>v2", "v2>v1"}


def test_members_reach_each_other_and_nobody_else(six: FelixLab) -> None:
    assert reachable(six) == WITHIN
    v0 = six.workloads["v0"]
    assert v0.ping(at(six, "v1")).ttl == 63
    assert v0.ping(at(six, "v2")).ttl == 62
    assert six.node1.ping(at(six, "v0")).ok
    assert six.node1.ping(at(six, "w1")).ok
    assert v0.ping(HOSTS["node1"]).ok
    assert not six.node2.ping(at(six, "v0"), timeout=0.4).ok  # the other host is no member of the network
    with six.workloads["v2"].tcp_listen(80, address="::"):
        assert v0.tcp_connect(at(six, "v2"), 80).seen_as == at(six, "v0")
    with six.workloads["v2"].udp_listen(81, address="::"):
        assert v0.udp_exchange(at(six, "v2"), 81).seen_as == at(six, "v0")


def test_routes_and_settings_of_an_interface(six: FelixLab) -> None:
    node1 = six.node1

    def routes() -> set[str]:
        return {line.strip() for line in node1.ip("-6", "route", "show", "proto", "80").stdout.splitlines()}

    before = routes()
    for name in ("v0", "v1", "w1"):
        interface = six.workloads[name].interface
        assert any(line.startswith(f"{at(six, name)} dev {interface} ") for line in before)
        for setting, value in (("proxy_ndp", "1"), ("forwarding", "1"), ("accept_ra", "0")):
            assert node1.sysctl(f"net.ipv6.conf.{interface}.{setting}") == value
    assert len(before) == 3
    node1.ip("-6", "route", "del", f"{at(six, 'v0')}/128")
    assert wait_until("the route to be back", lambda: routes() == before) < 1.0
    gone, address = six.workloads["w1"], at(six, "w1")
    assert address in node1.run("conntrack -L -f ipv6 2>/dev/null").stdout
    six.detach("w1")
    assert not any(address in line for line in routes())
    assert gone.interface not in node1.run("ip6tables-save").stdout
    wait_until("its flows to go", lambda: address not in node1.run("conntrack -L -f ipv6 2>/dev/null").stdout)


def guard(lab: FelixLab, *rules: Rule) -> None:
    """Let v0 have what these rules say, in, and nothing else."""
    lab.put(policy("p", "name == 'v0'", list(rules), types=["Ingress"]))


def reached(lab: FelixLab, ports: Sequence[int], source: str = "v1", protocol: str = "tcp") -> set[int]:
    return ports_that_pass(lab.workloads[source], at(lab, "v0"), ports, protocol=protocol)


def test_rules_of_all_sorts(six: FelixLab) -> None:
    wide: list[Port] = [80, 8080, "9000:9002", *range(1000, 1016)]
    there = EntityRule(ports=wide, nets=[f"{at(six, 'v0')}/128", "fd00:99::/64"])
    near = EntityRule(nets=["fd00:65:0:1::/64", "fd00:98::/64"])
    for protocol, other in (("TCP", "udp"), ("UDP", "tcp")):
        guard(six, rule("Allow", protocol, source=near, destination=there))
        tried = [79, 80, 1000, 1015, 1016, 9002, 9003]
        assert reached(six, tried, protocol=protocol.lower()) == {80, 1000, 1015, 9002}
        assert reached(six, [80], protocol=other) == set()
        assert reached(six, [80], "v2", protocol=protocol.lower()) == set()
    guard(six, rule("Allow", "TCP", source=EntityRule(selector="name == 'v2'")))
    assert (reached(six, [80]), reached(six, [80], "v2")) == (set(), {80})
    guard(six, rule("Allow", "TCP", source=EntityRule(not_selector="name == 'v2'")))
    assert (reached(six, [80], "w1"), reached(six, [80], "v2")) == ({80}, set())
    six.record(six.workloads["v0"], profiles=["net-a"], ports=[("http", "TCP", 8055)])
    guard(six, rule("Allow", "TCP", destination=EntityRule(ports=["http"])))
    assert reached(six, [80, 8055]) == {8055}
    six.put(network_set("far", "fd00:65:0:2::/64", "10.65.0.41/32", labels={"far": ""}))
    guard(six, rule("Allow", source=EntityRule(selector="has(far)")))
    assert (reached(six, [80]), reached(six, [80], "v2")) == (set(), {80})
    assert six.workloads["v1"].ping("10.65.0.40").ok


@pytest.mark.scenario(47)
def test_a_rule_of_one_family_is_none_of_the_other(six: FelixLab) -> None:
    rules: list[tuple[Rule, set[int]]] = [
        (Rule(action="Allow", ip_version=6), {6}),
        (Rule(action="Allow", ip_version=4), {4}),
        (rule("Allow", source=EntityRule(nets=["fd00::/8"])), {6}),
        (rule("Allow", source=EntityRule(nets=["10.0.0.0/8"])), {4}),
        (rule("Allow", source=EntityRule(not_nets=["fd00:99::/64"])), {6}),
        (rule("Allow", "ICMP"), {4}),
        (rule("Allow", "ICMPv6"), {6}),
        (ALLOW, {4, 6}),
    ]
    v1 = six.workloads["v1"]
    for allowed, families in rules:
        guard(six, allowed)
        answered = {4: v1.ping("10.65.0.40", timeout=0.3).ok, 6: v1.ping(at(six, "v0"), timeout=0.3).ok}
        assert {family for family, ok in answered.items() if ok} == families, allowed


def query(kind: int) -> bytes:
    """A query that connection tracking knows; the kernel adds the checksum."""
    return struct.pack("!BBHHH", kind, 0, 0, random.getrandbits(16), 1) + random.randbytes(24)


@pytest.mark.scenario(50)
def test_icmpv6_types(six: FelixLab) -> None:
    v0, v1 = six.workloads["v0"], six.workloads["v1"]

    def types() -> set[int]:
        sent = {kind: query(kind) for kind in (128, 139)}  # echo request, node information query
        return {kind for kind, data in sent.items() if passes(data)}

    def passes(data: bytes) -> bool:
        with v0.entered():
            receiver = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        receiver.settimeout(0.4)
        with receiver, v1.entered(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
            sender.sendto(data, (at(six, "v0"), 0))
            try:
                while not receiver.recv(200).endswith(data[8:]):
                    continue
            except TimeoutError:
                return False
            return True

    guard(six, Rule(action="Allow", protocol="ICMPv6", icmp=ICMP(type=128)))
    assert types() == {128}
    guard(six, Rule(action="Allow", protocol="ICMPv6", not_icmp=ICMP(type=128)))
    assert types() == {139}
    guard(six, Rule(action="Allow", protocol="ICMPv6", icmp=ICMP(type=128, code=1)))
    assert types() == set()


@pytest.mark.scenario(51)
def test_other_protocols(six: FelixLab) -> None:
    v0, v1 = six.workloads["v0"], six.workloads["v1"]
    packets: dict[int, Callable[[], bytes]] = {
        47: lambda: struct.pack("!HH", 0, 0x6558) + random.randbytes(60),
        50: lambda: struct.pack("!II", 0x1234, 1) + random.randbytes(64),
        94: lambda: random.randbytes(64),
    }

    def passing() -> set[int]:
        with ThreadPoolExecutor() as pool:
            passed = {n: pool.submit(raw_passes, v1, v0, n, payload=made(), version=6) for n, made in packets.items()}
            return {number for number, result in passed.items() if result.result()}

    protocols: list[tuple[Protocol, int]] = [(47, 47), (50, 50), (132, 132), ("SCTP", 132)]
    for protocol, number in protocols:
        six.forget_flows()
        guard(six, rule("Allow", protocol))
        assert passing() == packets.keys() & {number}
        six.forget_flows()
        guard(six, Rule(action="Allow", not_protocol=protocol))
        assert passing() == packets.keys() - {number}


def test_a_container_that_may_send_next_to_nothing_still_finds_its_host(six: FelixLab) -> None:
    """Discovery of neighbours is not for policy to forbid; everything else to the host is."""
    v0 = six.workloads["v0"]
    to_v1 = rule("Allow", "TCP", destination=EntityRule(selector="name == 'v1'"))
    six.put(policy("p", "name == 'v0'", [], [to_v1], types=["Egress"]))
    v0.ip("-6", "neigh", "flush", "dev", "cali0")
    six.node1.ip("-6", "neigh", "flush", "dev", v0.interface)
    assert ports_that_pass(v0, at(six, "v1"), [80]) == {80}
    assert not v0.ping(at(six, "v1"), timeout=0.4).ok
    assert not v0.ping(HOSTS["node1"], timeout=0.4).ok


def test_an_endpoint_of_the_host_that_nothing_opens_keeps_its_neighbours(six: FelixLab) -> None:
    """What was known of them is forgotten, so everything here begins with a question for a neighbour."""
    node1, node2 = six.node1, six.node2
    closed = policy("closed", "has(host)", [Rule(action="Deny")], [Rule(action="Deny")])
    six.put(host_endpoint("eth0", "eth0", labels={"host": ""}), closed)
    for source, target, host in ((node2, HOSTS["node1"], node1), (six.workloads["v0"], at(six, "v2"), node2)):
        for each in six.hosts:
            each.ip("-6", "neigh", "flush", "dev", "eth0")
        if source is node2:
            with host.tcp_listen(22, address="::"), host.tcp_listen(80, address="::"):
                assert source.tcp_connect(target, 22).ok
                assert not source.tcp_connect(target, 80, timeout=0.4).ok
                assert not source.ping(target, timeout=0.4).ok
        else:
            assert source.ping(target).ttl == 62


def forged(source: str, target: str) -> bytes:
    """Return an echo request with any source address."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    echo = struct.pack("!BBHHH", 128, 0, 0, random.getrandbits(16), 7) + b"forged"
    total = checksum(addresses + struct.pack("!II", len(echo), socket.IPPROTO_ICMPV6) + echo)
    head = struct.pack("!IHBB", 6 << 28, len(echo), socket.IPPROTO_ICMPV6, 64)
    return head + addresses + echo[:2] + struct.pack("!H", total) + echo[4:]


@pytest.mark.scenario(84)
def test_a_container_sends_with_its_own_address_or_not_at_all(six: FelixLab) -> None:
    """The first is its own, the second its neighbour's, the third from outside; the receiver would take all of them."""
    v0, v2 = six.workloads["v0"], six.workloads["v2"]
    six.put(policy("open", "name in {'v0', 'v2'}", [ALLOW], [ALLOW]))
    for source, passes in (("fd00:65:0:1::40", True), ("fd00:65:0:1::41", False), ("2001:db8::7", False)):
        with v2.entered():
            receiver = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        receiver.settimeout(2.0 if passes else 0.4)
        with receiver, v0.entered(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.sendto(forged(source, at(six, "v2")), (at(six, "v2"), 0))
            heard = b""
            try:
                while not heard.endswith(b"forged"):
                    heard = receiver.recv(200)
            except TimeoutError:
                pass
        assert heard.endswith(b"forged") is passes


@pytest.mark.scenario(91, 92)
def test_nat_towards_the_outside(six: FelixLab) -> None:
    v0 = six.workloads["v0"]
    with six.node2.tcp_listen(4000, address="::"):
        assert v0.tcp_connect(HOSTS["node2"], 4000).seen_as == at(six, "v0")
        six.put(pool("fd00:65::/32", nat=True))
        assert v0.tcp_connect(HOSTS["node2"], 4000).seen_as == HOSTS["node1"]
    with six.workloads["v2"].tcp_listen(80, address="::"):
        assert v0.tcp_connect(at(six, "v2"), 80).seen_as == at(six, "v0")


def test_felix_starts_anew_and_writes_nothing(six: FelixLab) -> None:
    before = six.node1.run("ip6tables-save | grep -v '^#'; ipset save | sort; ip -6 route").stdout
    six.felix["node1"].kill()
    six.start(six.node1)
    assert "dataplane.applied" not in six.last_start("node1")
    after = six.node1.run("ip6tables-save | grep -v '^#'; ipset save | sort; ip -6 route").stdout
    assert _rules(after) == _rules(before)
    assert reachable(six) == WITHIN


def advertise(lab: FelixLab, *, seconds: int) -> None:
    """Have the fabric say that it is a router for so long. Source: RFC 4861, section 4.2."""
    with lab.cluster.fabric.entered():
        index = socket.if_nametoindex("br0")
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
            router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            router.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, seconds, 0, 0), ("ff02::1", 0, 0, index))


@pytest.mark.any_back_end
def test_the_host_keeps_the_default_route_that_its_router_advertises(six: FelixLab) -> None:
    node1 = six.node1
    accept_ra, forwarding = "net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.all.forwarding"
    six.tolerate("setting.changed")

    def has_route() -> bool:
        return "proto ra" in node1.ip("-6", "route", "show", "default").stdout

    def hears() -> bool:
        advertise(six, seconds=600)
        return has_route()

    six.felix["node1"].kill()
    node1.sysctl(forwarding, 0)
    wait_until("a route from the router", hears)
    six.start(node1)
    assert (node1.sysctl(forwarding), node1.sysctl(accept_ra)) == ("1", "2")
    assert has_route()
    node1.ip("-6", "route", "del", "default")
    wait_until("the route to be renewed", hears)
    assert len(six.said(node1, "setting.changed")) == 1
    six.workloads["v0"].await_ping(at(six, "v2"))
    advertise(six, seconds=0)
    wait_until("the route to go", lambda: not has_route())
    node1.sysctl(accept_ra, 1)


def _rules(text: str) -> list[str]:
    return [line.partition(" [")[0] for line in text.splitlines()]
