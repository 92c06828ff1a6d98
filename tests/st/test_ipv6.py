"""IPv6 beside IPv4 through the whole product: two hosts with all daemons and Docker, containers with both addresses."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_network

import pytest

from bed import Cluster, Container, Dockerd, Host, Workload, complaints, node_run, wait_until
from bed.network import Network
from bed.node import Flood, daemons, is_meshed, is_ready

POOLS = """
- {apiVersion: v1, kind: ipPool, metadata: {cidr: 10.64.0.0/24}}
- {apiVersion: v1, kind: ipPool, metadata: {cidr: 'fd00:64::/64'}}
"""
DUAL = ("--driver", "calico", "--ipam-driver", "calico-ipam", "--ipv6", "--subnet", "10.64.0.0/24")
POOL6 = IPv6Network("fd00:64::/64")


@dataclass
class World:
    """node1 and node2 in a mesh of both families; `near` and `here` are on node1, `far` is on node2."""

    cluster: Cluster
    network: Network
    near: Workload
    here: Workload
    far: Workload
    dockerds: list[Dockerd]

    @property
    def node1(self) -> Host:
        return self.cluster["node1"]

    @property
    def node2(self) -> Host:
        return self.cluster["node2"]

    def await_mesh(self) -> None:
        def meshed() -> bool:
            return all(is_meshed(host, 1, version) for host in self.cluster.hosts for version in (4, 6))

        wait_until("the mesh of both families", meshed, timeout=60)


def start(cluster: Cluster, host: Host) -> Dockerd:
    node_run(cluster, host)
    return Dockerd(host, cluster.store)


@pytest.fixture(scope="module")
def built() -> Iterator[World]:
    with Cluster(2, ipv6=True, env={"NO_DEFAULT_POOLS": "true"}) as cluster:
        dockerds = cluster.on_each(lambda host: start(cluster, host))
        network = Network(cluster, "net1", "10.65.0.0/24", "fd00:65::/64")
        one, two = cluster.hosts
        near, here, far = (network.attach(host, name) for host, name in ((one, "near"), (one, "here"), (two, "far")))
        one.run("calicoctl create -f -", stdin=POOLS)
        dockerds[0].docker("network", "create", *DUAL, "--subnet", str(POOL6), "dual")
        near.await_ping(far.address_of(6), timeout=30)
        near.await_ping(here.address_of(6))
        yield World(cluster, network, near, here, far, dockerds)
        found = [line for host in cluster.hosts for line in complaints(host)]
        assert [line for line in found if "event=speaker.lost" not in line] == []  # a test kills it


@pytest.fixture
def world(built: World) -> Iterator[World]:
    yield built
    for dockerd in built.dockerds:
        for name in dockerd.docker("ps", "-aq").stdout.split():
            dockerd.docker("rm", "-f", name)
    built.await_mesh()


def routes(host: Host) -> dict[str, str]:
    """Return bgpd's IPv6 routes: how each destination is reached."""
    found = {}
    for line in host.ip("-6", "route", "show", "proto", "81").stdout.splitlines():
        destination, _, way = line.removeprefix("blackhole ").partition(" ")
        found[destination] = "blackhole" if line.startswith("blackhole") else way.partition(" metric")[0].strip()
    return found


def block_of(address: object) -> str:
    return str(ip_network(f"{address}/122", strict=False))


GOLDEN = """\
IPv6 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |    INFO     |
+--------------+-------------------+-------+----------+-------------+
| fd00:77::{0}   | node-to-node mesh | up    | HH:MM:SS | Established |
+--------------+-------------------+-------+----------+-------------+

"""


def test_node_status_shows_the_sessions_of_both_families(world: World) -> None:
    world.await_mesh()
    for host, other in ((world.node1, 2), (world.node2, 1)):
        found = re.sub(r"\d\d:\d\d:\d\d", "HH:MM:SS", host.run("calicoctl node status").stdout)
        assert f"| 10.77.0.{other}    | node-to-node mesh | up " in found
        assert found.endswith("\n" + GOLDEN.format(other))


@pytest.mark.bgp_scenario(41)
def test_blocks_of_64_addresses_go_by_the_ipv6_sessions_alone(world: World) -> None:
    near, far = world.near.address_of(6), world.far.address_of(6)
    for host, mine, other in ((world.node1, near, far), (world.node2, far, near)):
        peer = world.node2 if host is world.node1 else world.node1
        expected = {block_of(mine): "blackhole", block_of(other): f"via {peer.address6} dev eth0"}
        wait_until(f"the routes of {host.name}", lambda: expected.items() <= routes(host).items())  # noqa: B023
    log = world.node1.run("cat /var/log/calico/bgpd/current").stdout
    assert "route.refused" not in log


def test_what_runs_in_the_two_networks_reaches_whom_it_should(world: World) -> None:
    near, here, far = world.near, world.here, world.far
    assert near.ping(far.address_of(6)).ttl == near.ping(far.address_of(4)).ttl == 62
    assert near.ping(here.address_of(6)).ttl == 63
    assert near.ping(world.node1.address6).ok
    assert world.node1.ping(near.address_of(6)).ok
    assert not world.node2.ping(near.address_of(6), timeout=0.4).ok
    with far.tcp_listen(80, address="::"):
        assert near.tcp_connect(far.address_of(6), 80).seen_as == str(near.address_of(6))


def test_containers_have_both_addresses_and_reach_each_other_from_the_first_moment(world: World) -> None:
    one, two = world.dockerds
    far = two.run("far", "--net", "dual")
    assert isinstance(far.address6, IPv6Address)
    assert far.address6 in POOL6
    wait_until("its block to be known", lambda: block_of(far.address6) in routes(world.node1))
    # the first packet goes out with the first process, and is not sent twice
    near = one.run("near", "--net", "dual", command=f"ping6 -c 1 -W 3 {far.address6} >/first; sleep 100000")
    said = wait_for_text(near, "/first", "1 packets transmitted")
    assert " 0% packet loss" in said
    assert "ttl=62" in said
    assert (near.ping(far.address6).ttl, near.ping(far.address).ttl) == (62, 62)
    assert near.ping(world.near.address_of(6), timeout=0.4).ok is False
    default = near.run("ip -6 route show default").stdout.split()
    gateway = IPv6Address(default[2])
    assert gateway.is_link_local
    assert near.inspect("{{range .NetworkSettings.Networks}}{{.IPv6Gateway}}{{end}}") == str(gateway)
    assert f"inet6 {near.address6}/128" in near.run("ip -6 addr show dev cali0").stdout
    assert f"{near.address6} dev cali" in world.node1.ip("-6", "route", "show", "proto", "80").stdout
    assert str(far.address6) in near.run("nslookup far").stdout
    assert near.run("ping6 -c 1 far.dual").ok


def wait_for_text(container: Container, path: str, text: str) -> str:
    wait_until(f"{text!r} in {path}", lambda: text in container.run(["cat", path]).stdout, every=0.1)
    return container.run(["cat", path]).stdout


def test_a_fixed_address_and_an_address_of_no_pool(world: World) -> None:
    one = world.dockerds[0]
    fixed = one.run("fixed", "--net", "dual", "--ip6", "fd00:64::beef")
    assert str(fixed.address6) == "fd00:64::beef"
    taken = world.dockerds[1].docker("run", "-d", "--net", "dual", "--ip6", "fd00:64::beef", "bb:1", check=False)
    assert "fd00:64::beef is already in use" in taken.text
    refused = one.docker("network", "create", *DUAL, "--subnet", "fd00:99::/64", "other", check=False)
    assert "Subnet fd00:99::/64 is in no pool" in refused.text


ONLY_PING = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: only-ping}
spec:
  selector: has(net1)
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128}}
"""


def test_a_policy_about_icmpv6(world: World) -> None:
    near, far = world.near, world.far
    world.node1.run("calicoctl create -f -", stdin=ONLY_PING)

    def is_there() -> bool:
        return all("only-ping" in world.node2.run(f"{tables}-save").stdout for tables in ("iptables", "ip6tables"))

    wait_until("the policy", is_there)
    with far.tcp_listen(80, address="::"):
        assert not near.tcp_connect(far.address_of(6), 80, timeout=0.4).ok
        # neighbours are found all the same: nobody knows any more where the other one is
        for place in (near, far):
            place.ip("-6", "neigh", "flush", "dev", "cali0")
            place.host.ip("-6", "neigh", "flush", "dev", place.interface)
        assert near.ping(far.address_of(6)).ok
        assert not near.ping(far.address_of(4), timeout=0.4).ok
        world.node1.run("calicoctl delete gnp only-ping")
        wait_until("the policy to go", lambda: near.tcp_connect(far.address_of(6), 80, timeout=0.3).ok)


NAT = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: net1-pool6}}
spec: {{cidr: 'fd00:65::/64', natOutgoing: {0}}}
"""


def test_containers_leave_the_cluster_by_the_address_of_their_host_if_the_pool_says_so(world: World) -> None:
    """The world outside has no way back to a container."""
    near, outside = world.near, world.cluster.fabric
    with outside.tcp_listen(4000, address="::"), world.far.tcp_listen(4000, address="::"):
        assert not near.tcp_connect(outside.address6, 4000, timeout=0.4).ok
        world.node1.run("calicoctl apply -f -", stdin=NAT.format("true"))
        wait_until("NAT", lambda: near.tcp_connect(outside.address6, 4000, timeout=0.4).ok)
        assert near.tcp_connect(outside.address6, 4000).seen_as == str(world.node1.address6)
        assert near.tcp_connect(world.far.address_of(6), 4000).seen_as == str(near.address_of(6))
        world.node1.run("calicoctl apply -f -", stdin=NAT.format("false"))


PASSWORD = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}
"""


def test_the_sessions_of_both_families_have_the_password_of_the_mesh(world: World) -> None:
    """The kernel drops what is not signed with it, of both families: it tells which keys a connection has."""
    one, two = world.node1, world.node2

    def signed() -> set[str]:
        shown = one.run("ss -tnieOH state established '( sport = :179 or dport = :179 )'").stdout
        return set(re.findall(r"md5keys:([0-9a-f.:]+)/", shown))

    assert signed() == set()
    for host in world.cluster.hosts:
        host.write_file("/etc/calico/secrets/bgp/mesh", "known to two", mode=0o600)
    one.run("calicoctl create -f -", stdin=PASSWORD)
    wait_until("signed connections", lambda: signed() == {str(two.address), str(two.address6)}, timeout=30)
    world.await_mesh()
    one.run("calicoctl delete bgpconfig default")
    wait_until("the password to go", lambda: signed() == set(), timeout=30)


@pytest.mark.parametrize("name", ["calico-felix", "calico-bgpd", "exabgp"])
def test_a_killed_daemon_costs_no_packet(world: World, name: str) -> None:
    before = daemons(world.node1)[name]
    with (
        Flood(world.far, world.near.address_of(6)) as across,
        Flood(world.here, world.near.address_of(6)) as local,
    ):
        wait_until("the floods to flow", lambda: min(across.sent, local.sent) > 20)
        world.node1.run(["kill", f"-{signal.SIGKILL}", str(before)])
        wait_until(f"{name} to be back", lambda: daemons(world.node1).get(name, before) != before)
        for daemon in ("felix", "bgpd"):
            wait_until(f"{daemon} to be ready", lambda: is_ready(world.node1, daemon))  # noqa: B023
        world.await_mesh()
        sent = across.sent
        wait_until("the floods to go on", lambda: across.sent > sent + 50)
    assert across.lost == local.lost == []
