"""Pools with VXLAN: three hosts, two of one subnet and one behind a router, felix on each and no BGP at all."""

import contextlib
import errno
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_network

import pytest

from bed import Host, Workload, wait_until
from bed.felix import FelixLab
from bed.probes import Prober, checksum
from bed.pulse import Pulse
from bed.transfer import transfer
from fakes.felix_records import host as node_record
from fakes.felix_records import host_endpoint, pool
from resources.datastore.keys import ResourceKey, block_key
from resources.kinds.node import Node
from resources.names import NodeName
from resources.vxlan import tunnel_mac

pytestmark = pytest.mark.any_back_end

POOL = "10.67.0.0/16"
DEVICE = "vxlan.calico"
ROUTER = "10.78.0.254"
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14


class VxlanLab:
    """Three hosts with a block, a tunnel address and a workload each; node3 is behind a router."""

    def __init__(self, lab: FelixLab) -> None:
        self.lab = lab
        self.addresses = {host.name: str(host.address) for host in lab.hosts} | {"node3": "10.78.0.3"}

    def build(self) -> "VxlanLab":
        self._move(self.lab.hosts[2])
        for host in self.lab.hosts:
            self.put_block(host.name)
        self.lab.settle(self.lab.write(*(self.node(host.name) for host in self.lab.hosts)))
        for number, host in enumerate(self.lab.hosts, 1):
            self.lab.attach(host, f"v{number}", self.inside(host.name, 2), profiles=["net-a"])
        return self

    def _move(self, host: Host) -> None:
        """Put a host behind the fabric, which becomes a router."""
        core = self.lab.cluster.fabric.core
        core.run("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects")
        core.run("echo 0 >/proc/sys/net/ipv4/conf/br0/send_redirects")
        core.ip("addr", "add", f"{ROUTER}/24", "dev", "br0")
        host.ip(
            batch=f"addr flush dev eth0 scope global\naddr add {self.addresses[host.name]}/24 dev eth0\n"
            f"route add default via {ROUTER}\n"
        )

    # -- records

    def inside(self, name: str, number: int) -> str:
        """The address of a number in the block of a host."""
        return str(ip_network(self.block(name))[number])

    def block(self, name: str) -> str:
        return f"10.67.{int(name[-1])}.0/26"

    def node(self, name: str, **changes: str) -> tuple[ResourceKey, Node]:
        return node_record(name, f"{self.addresses[name]}/24", **{"vxlan": self.inside(name, 1), **changes})

    def put_block(self, name: str, borrowed: Mapping[int, str] | None = None) -> None:
        nodes = [name, *(borrowed or {}).values()]
        allocations: list[int | None] = [None] * 64
        for index, at in enumerate(borrowed or {}, 1):
            allocations[at] = index
        value = {
            "cidr": self.block(name),
            "affinity": f"host:{name}",
            "allocations": allocations,
            "unallocated": [at for at in range(64) if allocations[at] is None],
            "attributes": [{"secondary": {"node": node}} for node in nodes],
            "deleted": False,
        }
        key = block_key(ip_network(self.block(name)))
        self.lab.settle(self.lab._commit({key: json.dumps(value).encode()}, []))

    def set_mode(self, mode: str) -> None:
        self.lab.put(pool(POOL, vxlan=mode))

    # -- the kernel

    def routes(self, host: Host) -> list[str]:
        """Felix's routes to other hosts and its drops."""
        lines = host.ip("route", "show", "proto", "80").stdout.splitlines()
        return sorted(" ".join(line.split()) for line in lines if "dev cali" not in line and "169.254" not in line)

    def far_ends(self, host: Host) -> list[str]:
        found = host.run(f"bridge fdb show dev {DEVICE}", check=False).stdout.split("\n")
        return sorted(line.split(" dst ")[1].split()[0] for line in found if " dst " in line)

    def neighbours(self, host: Host) -> list[str]:
        found = host.ip("neigh", "show", "dev", DEVICE, "nud", "permanent", check=False).stdout
        return sorted(line.split()[0] for line in found.splitlines() if ":" not in line.split()[0])

    def device(self, host: Host) -> dict[str, object]:
        (link,) = json.loads(host.ip("-j", "-d", "link", "show", "dev", DEVICE).stdout)
        return link  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def built() -> Iterator[VxlanLab]:
    with FelixLab(hosts=3) as lab:
        yield VxlanLab(lab).build()


@pytest.fixture
def lab(built: VxlanLab) -> Iterator[VxlanLab]:
    """No pool with VXLAN at the beginning; what a test puts into the store goes after it."""
    before, workloads = built.lab.snapshot(), set(built.lab.workloads)
    built.lab.forget_complaints()
    yield built
    for name in set(built.lab.workloads) - workloads:
        built.lab.detach(name)
    built.lab.restore(before)
    for host in built.lab.hosts:
        built.put_block(host.name)
    assert built.lab.complaints() == []


def everybody(*numbers: int) -> set[str]:
    return {f"v{one}>v{other}" for one in numbers for other in numbers if one != other}


def endpoints(lab: VxlanLab) -> list[Workload]:
    return [lab.lab.workloads[name] for name in ("v1", "v2", "v3")]


@contextlib.contextmanager
def links_of(lab: VxlanLab, size: int) -> Iterator[None]:
    """All links of the bed have this MTU while the block runs; those of workloads, too."""

    def set_all(mtu: int) -> None:
        core = lab.lab.cluster.fabric.core
        for host in lab.lab.hosts:
            core.ip("link", "set", host.port, "mtu", str(mtu))
            host.ip("link", "set", "eth0", "mtu", str(mtu))
        core.ip("link", "set", "br0", "mtu", str(mtu))
        for workload in endpoints(lab):
            workload.host.ip("link", "set", workload.interface, "mtu", str(mtu))
            workload.ip("link", "set", "cali0", "mtu", str(mtu))

    set_all(size)
    try:
        yield
    finally:
        set_all(1500)


def wrapped(lab: VxlanLab, payload: bytes) -> bytes:
    """A VXLAN packet to node1, with a UDP datagram from v2 to v1's port 4000 in it."""
    v1, v2, _ = endpoints(lab)
    udp = struct.pack("!HHHH", 4001, 4000, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + v2.address.packed + v1.address.packed
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    ends = (bytes.fromhex(tunnel_mac(NodeName(name), 4).replace(":", "")) for name in ("node1", "node2"))
    return struct.pack("!II", 0x08000000, 4096 << 8) + b"".join(ends) + b"\x08\x00" + head + udp


def arrives(lab: VxlanLab, sender: Prober, payload: bytes) -> bool:
    """Return whether what a host wraps itself comes out at v1."""
    v1 = endpoints(lab)[0]
    with v1.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((str(v1.address), 4000))
    receiver.settimeout(0.3)
    with receiver, sender.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer:
        for _ in range(5):
            outer.sendto(wrapped(lab, payload), (lab.addresses["node1"], 4789))
        try:
            return receiver.recv(100) == payload
        except TimeoutError:
            return False


def test_blocks_of_others_are_reached_through_the_tunnel_without_bgp(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    node1, _, _ = lab.lab.hosts
    v1, v2, _ = endpoints(lab)
    lab.lab.expect(everybody(1, 2, 3), endpoints(lab))
    assert v1.ping(v2.address).mark == "62"
    assert lab.routes(node1) == [
        "10.67.2.0/26 via 10.67.2.1 dev vxlan.calico onlink",
        "10.67.3.0/26 via 10.67.3.1 dev vxlan.calico onlink",
        "blackhole 10.67.1.0/26",
    ]
    assert lab.far_ends(node1) == ["10.77.0.2", "10.78.0.3"]
    assert lab.neighbours(node1) == ["10.67.2.1", "10.67.3.1"]
    link = lab.device(node1)
    assert (link["mtu"], link["address"]) == (1450, tunnel_mac(NodeName("node1"), 4))


def test_only_what_crosses_subnets_is_wrapped(lab: VxlanLab) -> None:
    lab.set_mode("CrossSubnet")
    node1, _, node3 = lab.lab.hosts
    lab.lab.expect(everybody(1, 2, 3), endpoints(lab))
    assert lab.routes(node1) == [
        "10.67.2.0/26 via 10.77.0.2 dev eth0",
        "10.67.3.0/26 via 10.67.3.1 dev vxlan.calico onlink",
        "blackhole 10.67.1.0/26",
    ]
    assert lab.routes(node3) == [
        "10.67.1.0/26 via 10.67.1.1 dev vxlan.calico onlink",
        "10.67.2.0/26 via 10.67.2.1 dev vxlan.calico onlink",
        "blackhole 10.67.3.0/26",
    ]


def test_a_live_pool_changes_its_mode(lab: VxlanLab) -> None:
    """What bgpd would have in a plain pool is a route of protocol 81 here; felix takes it over and does not keep it."""
    node1, node2, _ = lab.lab.hosts
    v1, v2, _ = endpoints(lab)
    for host, other in ((node1, "node2"), (node2, "node1")):
        host.ip("route", "add", lab.block(other), "via", lab.addresses[other], "proto", "81")
    with Pulse(v1, v2.address) as pulse:
        wait_until("answers to come", lambda: len(pulse.answers) > 20)
        for mode, way in (("Always", DEVICE), ("CrossSubnet", "dev eth0"), ("Always", DEVICE)):
            lab.set_mode(mode)
            for host, other in ((node1, "node2"), (node2, "node1")):
                found = host.ip("route", "show", lab.block(other)).stdout.strip().splitlines()
                assert len(found) == 1
                assert way in found[0]
                assert "proto 80" in found[0]
            seen = len(pulse.answers)
            wait_until("answers to come", lambda: len(pulse.answers) > seen + 20)  # noqa: B023
    assert pulse.longest_gap < 1.0
    lab.lab.remove(pool(POOL)[0])
    assert lab.routes(node1) == []
    assert node1.ip("link", "show", "dev", DEVICE, check=False).exit != 0


def test_felix_is_killed_and_comes_back(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    node1 = lab.lab.node1
    v1, v2, _ = endpoints(lab)
    before, index = lab.routes(node1), lab.device(node1)["ifindex"]
    with Pulse(v1, v2.address) as pulse:
        wait_until("answers to come", lambda: len(pulse.answers) > 20)
        lab.lab.felix[node1.name].kill()
        assert lab.routes(node1) == before
        lab.lab.start(node1)
        seen = len(pulse.answers)
        wait_until("answers to come", lambda: len(pulse.answers) > seen + 20)
    assert pulse.longest_gap < 1.0
    assert (lab.routes(node1), lab.device(node1)["ifindex"]) == (before, index)


def test_a_packet_of_full_size_passes_and_a_larger_one_is_answered(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    v1, v2, _ = endpoints(lab)
    assert v1.ping(v2.address, size=1422).ok  # not to be fragmented: 1422 and 28 of headers are 1450
    v1.ip("route", "flush", "cache")  # it remembers for ten minutes what a test with smaller links taught it
    with v1.entered():
        talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with talker:
        talker.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        talker.connect((str(v2.address), 4000))

        def is_refused() -> bool:
            try:
                talker.send(bytes(1451 - 28))
            except OSError as error:
                return error.errno == errno.EMSGSIZE
            return False

        wait_until("a packet of 1451 bytes to be answered", is_refused)
        assert talker.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1450


@pytest.mark.parametrize("size", [9000, 1500, 1450])
def test_links_of_each_size(lab: VxlanLab, size: int) -> None:
    """The device is as large as the link allows, and so are packets not to be fragmented; and a gigabyte arrives."""
    lab.set_mode("Always")
    v1, v2, v3 = endpoints(lab)
    with links_of(lab, size):
        for host in lab.lab.hosts:
            wait_until("the device to follow", lambda: lab.device(host)["mtu"] == size - 50)  # noqa: B023
        for target in (v2, v3):
            assert v1.ping(target.address, size=size - 50 - 28).ok
        assert lab.lab.node1.read_file("/var/lib/calico/mtu") == f"{size - 50}\n"
        transfer(v1, v2, v2.address, 1 << 30)


def test_a_closed_host_endpoint_lets_the_tunnel_through(lab: VxlanLab) -> None:
    """What is inside is judged by the policy of workloads; who may send it, by the list of hosts."""
    lab.set_mode("Always")
    lab.lab.put(host_endpoint("uplink", "eth0", node="node1"))
    lab.lab.expect(everybody(1, 2, 3), endpoints(lab))
    assert not lab.lab.node2.ping(lab.addresses["node1"], timeout=0.3).ok


def test_wrapped_packets_of_strangers_are_dropped(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    fabric, node2 = lab.lab.cluster.fabric, lab.lab.node2
    assert arrives(lab, node2, b"from a host of the cluster")
    assert not arrives(lab, fabric, b"from a stranger")
    lab.lab.put(lab.node("node2", vxlan=""))
    assert not arrives(lab, node2, b"from a host without a tunnel address")


def test_a_host_that_is_gone_is_forgotten(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    node1 = lab.lab.node1
    key, _ = lab.node("node3")
    lab.lab.remove(key)
    assert lab.routes(node1) == [
        "10.67.2.0/26 via 10.67.2.1 dev vxlan.calico onlink",
        "blackhole 10.67.1.0/26",
        "unreachable 10.67.3.0/26 metric 4294967295",
    ]
    assert (lab.far_ends(node1), lab.neighbours(node1)) == (["10.77.0.2"], ["10.67.2.1"])
    assert lab.lab.state(node1)["withheld"] == {
        "node3": "no route to 10.67.3.0/26 on node node3: there is no such node in the store"
    }
    lab.lab.put(lab.node("node3"))
    lab.lab.expect(everybody(1, 3), [endpoints(lab)[0], endpoints(lab)[2]])


def test_a_borrowed_address_is_reached_where_it_is(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    node1, node2, _ = lab.lab.hosts
    lab.put_block("node1", {9: "node2"})
    lab.lab.attach(node2, "guest", lab.inside("node1", 9), profiles=["net-a"])
    lab.lab.expect(
        {f"{one}>{other}" for one in ("v1", "v3", "guest") for other in ("v1", "v3", "guest") if one != other},
        [*endpoints(lab)[::2], lab.lab.workloads["guest"]],
    )
    assert "10.67.1.9 via 10.67.2.1 dev vxlan.calico onlink" in lab.routes(node1)


def test_a_device_that_somebody_deletes_or_changes_comes_back(lab: VxlanLab) -> None:
    lab.set_mode("Always")
    node1 = lab.lab.node1
    v1, v2, _ = endpoints(lab)
    before = (lab.routes(node1), lab.far_ends(node1), lab.neighbours(node1))
    lab.lab.tolerate("tunnel.repaired")
    node1.ip("link", "del", DEVICE)
    wait_until("the device to be back", lambda: v1.ping(v2.address, timeout=0.3).ok)
    node1.ip("link", "set", DEVICE, "down")
    wait_until("the device to be up", lambda: v1.ping(v2.address, timeout=0.3).ok)
    node1.ip("link", "set", DEVICE, "mtu", "1400")
    wait_until("the MTU to be back", lambda: lab.device(node1)["mtu"] == 1450)
    assert (lab.routes(node1), lab.far_ends(node1), lab.neighbours(node1)) == before


def test_who_is_where_is_put_right_at_once_when_somebody_changes_it(lab: VxlanLab) -> None:
    """Felix looks by itself each 90 s only."""
    lab.set_mode("Always")
    node1, node2, _ = lab.lab.hosts
    v1, v2, _ = endpoints(lab)
    lab.lab.tolerate("tunnel.repaired")
    wait_until("the other's block to answer", lambda: v1.ping(v2.address, timeout=0.3).ok)
    mac, near = tunnel_mac(NodeName(node2.node), 4), lab.inside("node2", 1)
    for damage in (
        f"bridge fdb del {mac} dev {DEVICE} self",
        f"bridge fdb replace {mac} dev {DEVICE} dst 10.77.0.99 self permanent",
        f"ip neigh del {near} dev {DEVICE}",
        f"ip neigh replace {near} lladdr 66:00:00:00:09:09 dev {DEVICE} nud permanent",
    ):
        times, _ = lab.lab.repaired(node1, f"tunnel {DEVICE}")
        node1.run(damage)
        wait_until("it to be told", lambda times=times: lab.lab.repaired(node1, f"tunnel {DEVICE}")[0] > times)  # type: ignore[misc]
        wait_until("the way to be back", lambda: v1.ping(v2.address, timeout=0.3).ok)
    assert lab.lab.said(node1, "event=tunnel.repaired")


def test_without_a_device_there_is_no_route_past_it(lab: VxlanLab) -> None:
    """Another interface has the name: nothing goes unwrapped, and it is said."""
    node1 = lab.lab.node1
    node1.ip(batch=f"link add {DEVICE} type veth peer name peer0\nlink set {DEVICE} up\nlink set peer0 up\n")
    lab.lab.tolerate("dataplane.failed")
    lab.lab.write(pool(POOL, vxlan="Always"))
    wait_until("it to be said", lambda: f"tunnel {DEVICE}" in str(lab.lab.state(node1).get("errors")))
    assert lab.routes(node1) == [
        "blackhole 10.67.1.0/26",
        "unreachable 10.67.2.0/26 metric 4294967295",
        "unreachable 10.67.3.0/26 metric 4294967295",
    ]
    assert "stays" in str(lab.lab.state(node1)["errors"])
    node1.ip("link", "del", DEVICE)
    ways = [f"10.67.{n}.0/26 via 10.67.{n}.1 dev {DEVICE} onlink" for n in (2, 3)]
    wait_until("the routes", lambda: lab.routes(node1) == [*ways, "blackhole 10.67.1.0/26"], timeout=20)
