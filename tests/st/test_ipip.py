"""IPIP between hosts: the device, its address and size, who may send, and a pool whose mode changes under traffic.

Runs in a guest where the machine's kernel has no ipip; rules there are those of the legacy back end.
"""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from bed import Namespace, wait_until
from bed.node import Flood
from bed.probes import checksum
from bed.transfer import transfer
from bed.whole import Whole
from bed.workload import Workload
from resources.kinds.base import Metadata
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec

pytestmark = pytest.mark.ipip

PLAIN = {"node1": {"node2": "eth0", "node3": "eth0"}, "node2": {"node1": "eth0", "node3": "eth0"},
         "node3": {"node1": "eth0", "node2": "eth0"}}
TUNNELLED = {host: dict.fromkeys(others, "tunl0") for host, others in PLAIN.items()}
# the nodes' addresses are 10.77.0.1/31, .2/31, .3/31: the second and the third are in one subnet
CROSSING = {"node1": {"node2": "tunl0", "node3": "tunl0"}, "node2": {"node1": "tunl0", "node3": "eth0"},
            "node3": {"node1": "tunl0", "node2": "eth0"}}


@pytest.fixture(scope="module")
def built() -> Iterator[Whole]:
    with Whole(3, iptables="legacy", subnet_length=31) as whole:
        whole.workloads = [whole.network.attach(host, f"on-{host.name}") for host in whole.hosts]
        whole.encapsulate(ipip="Always")
        await_routes(whole, TUNNELLED)
        await_pings(whole)
        yield whole


@pytest.fixture
def whole(built: Whole) -> Iterator[Whole]:
    """The hosts with IPIP on: each test leaves them so."""
    yield built
    built.encapsulate(ipip="Always")
    await_routes(built, TUNNELLED)
    await_pings(built)


def await_routes(whole: Whole, expected: Mapping[str, Mapping[str, str]]) -> None:
    for host, routes in expected.items():
        wait_until(
            f"{host} to send by {routes}", lambda: whole.routes(host) == routes, timeout=60.0  # noqa: B023
        )


def await_pings(whole: Whole) -> None:
    one, *others = whole.workloads
    for other in others:
        one.await_ping(other.address, timeout=60.0)


def received(whole: Whole, host: str) -> int:
    """Return how many packets a host has taken out of the tunnel."""
    return int(whole[host].read_file("/sys/class/net/tunl0/statistics/rx_packets"))


def test_each_host_has_the_device_with_an_address_of_its_own_and_packets_go_through_it(whole: Whole) -> None:
    for host in whole.hosts:
        recorded = whole.node(host.node).spec.bgp
        assert recorded is not None
        device = whole.device(host.name, "tunl0")
        assert (device["mtu"], "UP" in device["flags"]) == (1480, True)
        assert [found["local"] for found in device["addr_info"] if found["family"] == "inet"] == [
            recorded.ipv4_ipip_tunnel_addr
        ]
        blocks = [line.split()[1] for line in host.ip("route", "show", "type", "blackhole").stdout.splitlines()]
        assert any(ip_address(recorded.ipv4_ipip_tunnel_addr) in ip_network(block) for block in blocks)
        assert host.path("/var/lib/calico/mtu").read_text() == "1480\n"
    before = received(whole, "node2")
    answer = whole.workloads[0].ping(whole.workloads[1].address)
    assert (answer.ok, answer.ttl) == (True, 62)
    assert received(whole, "node2") > before


def test_a_host_reaches_other_hosts_workloads_by_its_tunnel_address_if_their_policy_lets_it(whole: Whole) -> None:
    own = whole.node("node1").spec.bgp
    assert own is not None
    seen = whole.workloads[1].popen("tcpdump -n -l -i cali0 icmp")
    wait_until("tcpdump to listen", lambda: "listening" in seen.text, timeout=20.0)
    whole["node1"].ping(whole.workloads[1].address)  # the profile lets nobody else in: not answered
    source = whole["node1"].ip("route", "get", str(whole.workloads[1].address)).stdout
    assert f"src {own.ipv4_ipip_tunnel_addr}" in source
    seen.kill()
    assert "ICMP echo request" not in seen.text


@pytest.mark.bgp_scenario(48, 49)
@pytest.mark.scenario(90)
def test_a_live_pool_changes_its_mode_and_loses_less_than_a_second_each_time(whole: Whole) -> None:
    one, two, three = whole.workloads
    whole.encapsulate()
    await_routes(whole, PLAIN)
    await_pings(whole)
    lost: dict[str, float] = {}
    for mode, expected in (("Always", TUNNELLED), ("CrossSubnet", CROSSING), ("Never", PLAIN)):
        with Flood(one, two.address) as across, Flood(two, three.address) as near:
            time.sleep(0.5)
            whole.encapsulate(ipip=mode)
            await_routes(whole, expected)
            time.sleep(1.5)
        assert min(across.sent, near.sent) > 20
        for what, flood in (("across", across), ("near", near)):
            lost[f"{mode} {what}"] = round(flood.lost[-1] - flood.lost[0] + 0.01, 2) if flood.lost else 0.0
    print("seconds without an answer:", lost)
    assert max(lost.values()) < 1.0
    # no pool wants it: the address has gone, then the device is off, and the rules with it
    for host in whole.hosts:
        wait_until(
            f"tunl0 of {host.name} to be off without an address",
            lambda: whole.device(host.name, "tunl0")["addr_info"] == []  # noqa: B023
            and "UP" not in whole.device(host.name, "tunl0")["flags"],  # noqa: B023
            timeout=30.0,
        )
        rules = host.run("iptables -S cali-INPUT; iptables -S cali-OUTPUT").stdout
        assert "Calico hosts" not in rules
        recorded = whole.node(host.node).spec.bgp
        assert recorded is not None
        assert recorded.ipv4_ipip_tunnel_addr == ""
        assert host.path("/var/lib/calico/mtu").read_text() == "1500\n"


@pytest.mark.scenario(89)
def test_the_size_of_the_device_follows_setting_and_link_and_stray_addresses_go(whole: Whole) -> None:
    def size() -> int:
        return int(whole.device("node1", "tunl0")["mtu"])

    for setting, mtu in ((1380, 1380), (0, 1480)):
        whole.configure_felix(ipip_mtu=setting)
        wait_until(f"tunl0 to have {mtu}", lambda: size() == mtu, timeout=30.0)  # noqa: B023
    whole["node1"].ip("addr", "add", "203.0.113.9/32", "dev", "tunl0")
    wait_until("the stray address to go", lambda: len(whole.device("node1", "tunl0")["addr_info"]) == 1, timeout=30.0)
    whole["node1"].ip("link", "set", "tunl0", "down")
    wait_until("tunl0 to be up again", lambda: "UP" in whole.device("node1", "tunl0")["flags"], timeout=30.0)
    await_routes(whole, {"node1": TUNNELLED["node1"]})


def test_full_packets_pass_the_tunnel_over_any_link_and_larger_ones_are_answered(whole: Whole) -> None:
    """Of links of 9000, 1450 and 1500 bytes a tunnel leaves 20 less; what was made for larger ones adapts."""
    older: tuple[Workload, Workload] | None = None
    try:
        for number, mtu in enumerate((9000, 1450, 1500)):
            whole.cluster.resize_links(mtu)
            for host in whole.hosts:
                file = host.path("/var/lib/calico/mtu")
                wait_until(f"felix to tell {mtu - 20}", lambda: file.read_text() == f"{mtu - 20}\n", timeout=30.0)  # noqa: B023
            one, two = (whole.network.attach(host, f"{host.name}-{number}") for host in whole.hosts[:2])
            one.await_ping(two.address, timeout=60.0)
            full = one.ping(two.address, size=mtu - 48, whole=True, timeout=5.0)
            assert full.ok, (mtu, full)
            assert one.ping(two.address, size=mtu - 47, whole=True).error == "Message too long"
            transfer(one, two, two.address, 1 << 30)
            if older is None:
                older = one, two
                continue
            over = older[0].ping(two.address, size=mtu - 47, whole=True, timeout=5.0)
            assert over.error == "packet too big", (mtu, over)
            transfer(*older, older[1].address, 64 << 20)
    finally:
        whole.cluster.resize_links(1500)


# --- who may send ----------------------------------------------------------------------------------------------------


class Stranger:
    """A machine on the fabric that is no node: sends IPIP packets with an echo request to a workload inside."""

    def __init__(self, whole: Whole, address: str) -> None:
        self.address = IPv4Address(address)
        self.net: Namespace = whole.cluster.fabric.namespace("stranger")
        whole.cluster.fabric.join("to-stranger", self.net)
        self.net.ip(batch=f"addr add {address}/24 dev eth0\nlink set eth0 up\n")

    def send(self, host: IPv4Address, inner_source: IPv4Address, target: Workload) -> None:
        assert isinstance(target.address, IPv4Address)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 7) + bytes(24)
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0, inner_source.packed,
                           target.address.packed)
        packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
        with self.net.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as raw:
            raw.sendto(packet, (str(host), 0))


@pytest.fixture(scope="module")
def stranger(built: Whole) -> Stranger:
    return Stranger(built, "10.77.0.150")


def gets_in(whole: Whole, stranger: Stranger) -> bool:
    """Whether what a stranger sends comes out of the tunnel of node1."""
    before = received(whole, "node1")
    inner = whole.workloads[1].address
    assert isinstance(inner, IPv4Address)
    for _ in range(3):
        stranger.send(whole["node1"].address, inner, whole.workloads[0])
    time.sleep(0.2)
    return received(whole, "node1") >= before + 3


@pytest.mark.scenario(87)
def test_only_hosts_of_the_cluster_and_those_named_may_send(whole: Whole, stranger: Stranger) -> None:
    assert not gets_in(whole, stranger)
    whole.configure_felix(external_nodes_list=[f"{stranger.address}/32"])
    wait_until("the stranger to be let in", lambda: gets_in(whole, stranger), timeout=30.0)
    whole.configure_felix(external_nodes_list=None)
    wait_until("the stranger to be shut out", lambda: not gets_in(whole, stranger), timeout=30.0)


@pytest.mark.scenario(88)
def test_a_node_that_is_gone_may_not_send_and_the_set_of_hosts_is_repaired(whole: Whole, stranger: Stranger) -> None:
    def members() -> str:
        return whole["node1"].run("ipset list cali40all-hosts-net").stdout

    bgp = NodeBGPSpec(ipv4_address=f"{stranger.address}/31")
    record = Node(metadata=Metadata(name="node9"), spec=NodeSpec(bgp=bgp))
    with whole.cluster.fabric.entered():
        whole.client.create(NODE, record)
    wait_until("the new node to be let in", lambda: gets_in(whole, stranger), timeout=30.0)
    with whole.cluster.fabric.entered():
        whole.client.delete(NODE, "node9")
    wait_until("the node that is gone to be shut out", lambda: not gets_in(whole, stranger), timeout=30.0)

    other = str(whole["node2"].address)
    whole.configure_felix(ipsets_refresh_interval="2s")
    whole["node1"].run(f"ipset del cali40all-hosts-net {other}")
    wait_until("the set to be repaired", lambda: other in members(), timeout=30.0)
    whole.configure_felix(ipsets_refresh_interval="90s")
