"""Who reaches whom without any policy, and by which routes and addresses (reference felix.md 8.1, 8.4, 8.6)."""

import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from bed import Timeout, wait_until
from bed.dockerd import Dockerd
from bed.felix import FelixLab, raw_passes, tcp_passes
from bed.probes import checksum
from bed.workload import Workload
from fakes.felix_records import policy, pool, rule, settings, workload
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
WORKLOADS = ("a0", "a1", "a2", "b1", "b2")
TO_HOSTS = {f"{workload}>{host}" for workload in WORKLOADS for host in ("node1", "node2")}
FROM_HOSTS = {"node1>a0", "node1>a1", "node1>b1", "node2>a2", "node2>b2", "node1>node2", "node2>node1"}


def saved(lab: FelixLab, table: str = "filter") -> list[str]:
    return lab.node1.run(["iptables-save", "-t", table]).stdout.splitlines()


@pytest.mark.scenario(1, 2, 3, 4, 5)
def test_members_reach_each_other_hosts_their_own_and_every_container_every_host(lab: FelixLab) -> None:
    lab.expect(WITHIN | TO_HOSTS | FROM_HOSTS, [*lab.workloads.values(), *lab.hosts])
    a0, a1, a2 = (lab.workloads[name] for name in ("a0", "a1", "a2"))
    assert a0.ping(a1.address).ttl == 63
    assert a0.ping(a2.address).ttl == 62
    with a2.tcp_listen(80) as server:
        assert a0.tcp_connect(a2.address, 80).seen_as == str(a0.address)
        assert server.seen == [str(a0.address)]


@pytest.mark.any_back_end
@pytest.mark.scenario(7)
def test_a_host_has_one_route_for_each_of_its_containers_and_nothing_else_of_ours(lab: FelixLab) -> None:
    interfaces = {str(w.address): w.interface for w in lab.workloads.values() if w.host is lab.node1}
    routes = [line.strip() for line in lab.node1.ip("route", "show", "proto", "80").stdout.splitlines()]
    for_the_gateway = "169.254.1.1 dev lo scope link"  # if a test took the default route away before
    wanted = {f"{address} dev {name} scope link" for address, name in interfaces.items()}
    assert {line for line in routes if line != for_the_gateway} == wanted
    assert lab.node1.ip("route").stdout.count("cali") == len(interfaces)


def test_docker_keeps_its_rules_and_ours_stand_around_them(lab: FelixLab, docker: Dockerd) -> None:
    def stand() -> bool:
        lines = saved(lab)
        forward = [line for line in lines if line.startswith("-A FORWARD ")]
        between = forward[1:-2]
        return (
            "cali-FORWARD" in forward[0]
            and all("cali:" in line for line in forward[-2:])
            and any("DOCKER-USER" in line for line in between)
            and not any("cali" in line for line in between)
            and ":FORWARD DROP" in next(line for line in lines if line.startswith(":FORWARD"))
        )

    if not any(line.startswith("-A FORWARD ") and "DOCKER-USER" in line for line in saved(lab)):
        # another test of this lab has emptied FORWARD, which Docker does not fill again before its next start
        docker.stop()
        docker.start()
    # Docker may have only just begun, and felix to be about to take its places again
    try:
        wait_until("our rules to stand around Docker's", stand)
    except Timeout as error:
        error.add_note("\n".join(saved(lab)))
        raise


@pytest.mark.scenario(6, 59, 60, 61, 62)
@pytest.mark.parametrize(
    ("input_policy", "action", "reached"),
    [
        ("DROP", "Accept", True),
        ("DROP", "Return", False),
        ("DROP", "Drop", False),
        ("ACCEPT", "Drop", False),
        ("ACCEPT", "Return", True),
    ],
)
def test_what_a_container_may_send_to_its_own_host(
    lab: FelixLab, input_policy: str, action: str, reached: bool
) -> None:
    lab.put(settings(FelixConfigurationSpec(default_endpoint_to_host_action=action), name="node.node1"))
    lab.node1.run(["iptables", "-P", "INPUT", input_policy])
    try:
        with lab.workloads["a0"].entered():
            assert tcp_passes(lab.node1.address, 81).ok is reached
        assert lab.workloads["a0"].ping(lab.node2.address).ok
    finally:
        lab.node1.run(["iptables", "-P", "INPUT", "DROP"])


@pytest.mark.scenario(67)
def test_egress_policy_counts_towards_the_own_host_too(lab: FelixLab) -> None:
    lab.put(settings(FelixConfigurationSpec(default_endpoint_to_host_action="Accept"), name="node.node1"))
    a0 = lab.workloads["a0"]
    with a0.entered():
        assert tcp_passes(lab.node1.address, 81).ok
    to_host = EntityRule(nets=[f"{lab.node1.address}/32"])
    egress = [rule("Deny", destination=to_host), rule("Allow")]
    lab.put(policy("p", "name == 'a0'", [], egress, types=["Egress"]))
    with a0.entered():
        assert not tcp_passes(lab.node1.address, 81).ok
    assert a0.ping(lab.node2.address).ok


class Outside:
    """A server in the fabric's namespace, where containers are strangers, that notes who comes."""

    def __init__(self, lab: FelixLab) -> None:
        self.address = lab.cluster.fabric.address
        with lab.cluster.fabric.entered():
            self._socket = socket.create_server((str(self.address), 0))
        self._socket.settimeout(3.0)
        self.port: int = self._socket.getsockname()[1]

    def seen(self, source: Workload) -> tuple[str, int]:
        """Return the address and the port that it saw `source` come from."""
        with source.entered(), socket.create_connection((str(self.address), self.port), timeout=3.0):
            connection, (address, port) = self._socket.accept()
            connection.close()
            return address, port

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def outside(lab: FelixLab) -> Iterator[Outside]:
    server = Outside(lab)
    lab.cluster.fabric.core.ip("route", "replace", "10.65.0.0/26", "via", str(lab.node1.address))
    yield server
    lab.cluster.fabric.core.ip("route", "del", "10.65.0.0/26")
    server.close()


@pytest.mark.scenario(91, 92)
def test_nat_towards_the_outside_and_never_between_containers(lab: FelixLab, outside: Outside) -> None:
    a0, a2 = lab.workloads["a0"], lab.workloads["a2"]
    assert outside.seen(a0)[0] == str(a0.address)
    lab.put(pool("10.65.0.0/24", nat=True), pool("10.66.0.0/24"))
    assert outside.seen(a0)[0] == str(lab.node1.address)
    with a2.tcp_listen(80):
        assert a0.tcp_connect(a2.address, 80).seen_as == str(a0.address)
    sets = lab.node1.run("ipset save").stdout
    assert "add cali40masq-ipam-pools 10.65.0.0/24" in sets
    assert "add cali40all-ipam-pools 10.66.0.0/24" in sets
    lab.put(settings(FelixConfigurationSpec(nat_port_range="41000:41003"), name="default"))
    assert outside.seen(a0)[1] in range(41000, 41004)
    lab.put(pool("10.65.0.0/24"))
    assert outside.seen(a0)[0] == str(a0.address)
    assert not any("MASQUERADE" in line and "cali" in line for line in saved(lab, "nat"))
    assert "masq-ipam-pools" not in lab.node1.run("ipset save").stdout


def forged(source: str, target: str) -> bytes:
    """Return an echo request with any source address."""
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 7) + b"forged"
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, 64, 1, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + echo


@pytest.mark.scenario(84)
@pytest.mark.parametrize(("source", "passes"), [("10.65.0.2", True), ("10.65.0.3", False), ("192.0.2.7", False)])
def test_a_container_sends_with_its_own_address_or_not_at_all(lab: FelixLab, source: str, passes: bool) -> None:
    """The first is its own, the second its neighbour's, the third from outside; the receiver would take all of them."""
    a0, a2 = lab.workloads["a0"], lab.workloads["a2"]
    lab.put(policy("open", "name in {'a0', 'a2'}", [rule("Allow")], [rule("Allow")]))
    with a2.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with receiver:
        with a0.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.sendto(forged(source, str(a2.address)), (str(a2.address), 0))
        seen = bool(select.select([receiver], [], [], 2.0 if passes else 0.4)[0])
    assert seen is passes


def test_a_container_that_may_send_from_other_addresses_does(lab: FelixLab) -> None:
    """Also on a host whose kernel checks sources strictly; and from those addresses only."""
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    any_source = FelixConfigurationSpec(workload_source_spoofing="Any", default_endpoint_to_host_action="Return")
    lab.node1.sysctl(f"net.ipv4.conf.{a0.interface}.rp_filter", 1)
    lab.put(
        settings(any_source, name="node.node1"),
        policy("open", "name in {'a0', 'a1'}", [rule("Allow")], [rule("Allow")]),
        workload("a0", f"{a0.address}/32", interface=a0.interface, profiles=["net-a"], labels={"name": "a0"},
                 spoofed=["198.51.100.0/24"], mac=""),
    )  # fmt: skip
    with a1.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with receiver, a0.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for source, passes in (("203.0.113.7", False), ("198.51.100.7", True)):
            sender.sendto(forged(source, str(a1.address)), (str(a1.address), 0))
            assert bool(select.select([receiver], [], [], 2.0 if passes else 0.4)[0]) is passes


@pytest.mark.scenario(85)
def test_a_packet_of_no_connection_makes_none(lab: FelixLab) -> None:
    """Where policy closes, and also where it lets everything pass; a SYN from there is the control."""
    a0, b1 = lab.workloads["a0"], lab.workloads["b1"]
    ack, reset, answer, begin = 0x10, 0x04, 0x12, 0x02

    def arrives(flags: int, port: int, timeout: float = 0.4) -> bool:
        with b1.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        segment = struct.pack("!HHIIBBHHH", port, 80, 1, 1, 5 << 4, flags, 1024, 0, 0)
        addresses = a0.address.packed + b1.address.packed
        total = checksum(addresses + struct.pack("!HH", 6, len(segment)) + segment)
        with receiver:
            with a0.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender:
                sender.sendto(segment[:16] + struct.pack("!H", total) + segment[18:], (str(b1.address), 0))
            return bool(select.select([receiver], [], [], timeout)[0])

    assert not arrives(ack, 4444)
    lab.put(policy("open", "name in {'a0', 'b1'}", [rule("Allow")], [rule("Allow")]))
    assert not arrives(reset, 4445)
    assert not arrives(answer, 4446)
    flows = lab.node1.run("conntrack -L 2>/dev/null").stdout
    assert [port for port in (4444, 4445, 4446) if f"sport={port} " in flows] == []
    assert "dport=2379 " in flows, "felix's own connection shows that flows are listed"
    assert arrives(begin, 4447, timeout=3.0)


@pytest.mark.scenario(86)
def test_tunnels_of_containers_are_dropped_unless_the_settings_allow_them(lab: FelixLab) -> None:
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]

    def vxlan_passes() -> bool:
        with a1.udp_listen(4789):
            return a0.udp_exchange(a1.address, 4789, timeout=0.4).ok

    assert raw_passes(a0, a1, 47, payload=struct.pack("!HH", 0, 0x88BE) + b"any other protocol passes")
    assert not raw_passes(a0, a1, 4)
    assert not vxlan_passes()
    allowed = FelixConfigurationSpec(
        allow_ipip_packets_from_workloads=True, allow_vxlan_packets_from_workloads=True
    )
    lab.put(settings(allowed, name="default"))
    assert raw_passes(a0, a1, 4)
    assert vxlan_passes()


@pytest.mark.scenario(8)
def test_a_container_that_goes_leaves_nothing(lab: FelixLab) -> None:
    made = lab.attach(lab.node1, "gone", "10.65.0.9")
    assert lab.workloads["a1"].ping(made.address).ok
    node1 = lab.node1
    assert "10.65.0.9" in node1.run("conntrack -L 2>/dev/null").stdout
    assert made.interface in node1.run("iptables-save").stdout
    lab.detach("gone")
    assert made.interface not in node1.run("iptables-save; ip6tables-save; ip route").stdout
    assert "10.65.0.9" not in node1.run("ipset save; ip route").stdout
    wait_until("its flows to go", lambda: "10.65.0.9" not in node1.run("conntrack -L 2>/dev/null").stdout)


@pytest.mark.scenario(9)
def test_a_flow_does_not_outlive_the_owner_of_its_address(lab: FelixLab) -> None:
    """An address of net-a comes to a container of net-b at once: what a1 had open with the first stays out."""
    a1, b1 = lab.workloads["a1"], lab.workloads["b1"]
    first = lab.attach(lab.node1, "first", "10.65.0.10")
    with first.entered():
        server = socket.create_server(("0.0.0.0", 80))
    with a1.entered():
        client = socket.create_connection((str(first.address), 80), timeout=3.0)
    accepted, _ = server.accept()
    server.close()
    lab.detach("first")
    second = lab.attach(lab.node1, "second", "10.65.0.10", profiles=["net-b"], wait=False)
    with second.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with receiver, client, accepted:
        b1.await_ping(second.address, timeout=3.0)
        client.send(b"still there?")
        assert not select.select([receiver], [], [], 0.7)[0]  # it is sent again after 0.2, 0.4 s
    assert not a1.ping(second.address, timeout=0.3).ok


@pytest.mark.any_back_end
@pytest.mark.scenario(10)
def test_proxy_arp_answers_on_a_host_without_a_default_route(lab: FelixLab) -> None:
    lab.node1.ip("route", "del", "default")
    try:
        late = lab.attach(lab.node1, "late", "10.65.0.11")
        late.await_ping(lab.workloads["a0"].address, timeout=3.0)
        assert "169.254.1.1 dev lo proto 80" in lab.node1.ip("route").stdout
    finally:
        lab.node1.ip("route", "add", "default", "via", str(lab.cluster.fabric.address))


@pytest.mark.any_back_end
def test_a_first_packet_waits_for_felix_and_not_for_a_second(lab: FelixLab) -> None:
    """It is sent before felix knows anything, so the question for the gateway goes unanswered at first."""
    a0 = lab.workloads["a0"]
    early = lab.attach(lab.node1, "early", "10.65.0.12", record=False)
    with early.entered():
        pinged = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with pinged:
        pinged.sendto(forged(str(early.address), str(a0.address))[20:], (str(a0.address), 0))
        time.sleep(0.05)
        began = time.monotonic()
        lab.record(early, wait=False)
        assert select.select([pinged], [], [], 3.0)[0]
    assert time.monotonic() - began < 0.8


@pytest.mark.scenario(91)
def test_what_is_masqueraded_as_whom_and_where(lab: FelixLab, outside: Outside) -> None:
    a0, own = lab.workloads["a0"], str(lab.workloads["a0"].address)
    lab.put(pool("10.65.0.0/24", nat=True))
    lab.node1.ip("addr", "add", "10.77.0.77/24", "dev", "eth0")
    lab.node2.run(["iptables", "-P", "INPUT", "ACCEPT"])
    try:
        lab.put(settings(FelixConfigurationSpec(nat_outgoing_address="10.77.0.77"), name="default"))
        assert outside.seen(a0)[0] == "10.77.0.77"
        with lab.node2.tcp_listen(4001):
            assert a0.tcp_connect(lab.node2.address, 4001).seen_as == "10.77.0.77"
            no_hosts = FelixConfigurationSpec(nat_outgoing_exclusions="IPPoolsAndHostIPs")
            lab.put(settings(no_hosts, name="default"))
            assert a0.tcp_connect(lab.node2.address, 4001).seen_as == own
        assert outside.seen(a0)[0] == str(lab.node1.address)
        elsewhere = FelixConfigurationSpec(iptables_nat_outgoing_interface_filter="up+")
        lab.put(settings(elsewhere, name="default"))
        assert outside.seen(a0)[0] == own
    finally:
        lab.node1.ip("addr", "del", "10.77.0.77/24", "dev", "eth0")
        lab.node2.run(["iptables", "-P", "INPUT", "DROP"])
