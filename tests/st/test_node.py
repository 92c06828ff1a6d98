"""calicoctl node run, status, stop: three hosts without Docker, all daemons of the product on each."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
import yaml

from bed import Cluster, Firewall, Host, HostPlan, Workload, complaints, matrix, wait_until
from bed.guest import machine_has
from bed.network import Network
from bed.node import Flood, daemons, has_sessions, is_meshed, is_ready, records
from calicoctl.node.checks import openings
from ipam.allocator import Allocator
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import connect
from resources.names import HandleId, NodeName

LISTED = openings(docker=False)
CHECKED = Firewall(
    open=[each.rule for each in LISTED if 4 in each.families],
    open6=[each.rule for each in LISTED if 6 in each.families],
)
"""What checksystem lists, and nothing else: no etcd runs on these hosts, no Docker, no tunnel."""
PLANS = [
    HostPlan(name="node1", hostname="web-a", firewall=CHECKED),
    HostPlan(name="node2", hostname="NODE2.Example.ORG", firewall=CHECKED),
    HostPlan(name="node3", firewall=CHECKED),
]
KERNEL = (
    "ip route show proto 80; ip route show proto 81; ip rule; "
    "iptables-save | grep -v '^[#:]'; ip6tables-save | grep -v '^[#:]'; ipset save"
)
"""What the kernel holds of ours, and of others, without times and counters."""
DAEMONS = {"calico-felix", "calico-bgpd", "calico-libnetwork", "supervise", "agent", "exabgp"}


@dataclass
class World:
    """Three hosts, meshed, with a workload of one network on each and a second one on node1."""

    cluster: Cluster
    took: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network: Network
        self.workloads: list[Workload]
        self.neighbour: Workload

    @property
    def node1(self) -> Host:
        return self.cluster["node1"]

    @property
    def others(self) -> list[Host]:
        return self.cluster.hosts[1:]

    def await_sessions(self) -> None:
        wait_until("the sessions of three", lambda: all(has_sessions(host, 2) for host in self.cluster.hosts))

    def await_mesh(self) -> None:
        wait_until("the mesh of three", lambda: all(is_meshed(host, 2) for host in self.cluster.hosts), timeout=60)


@pytest.fixture(scope="module")
def built() -> Iterator[World]:
    began = time.monotonic()
    with Cluster(PLANS) as cluster:
        world = World(cluster)
        world.took["bed"] = time.monotonic() - began
        runs = cluster.on_each(lambda host: host.run(["calicoctl", "node", "run"], timeout=90.0))
        world.said = [run.text for run in runs]
        world.took["last node run"] = time.monotonic() - began
        world.await_mesh()
        world.took["mesh"] = time.monotonic() - began
        world.network = Network(cluster)
        world.workloads = cluster.on_each(lambda host: world.network.attach(host, f"on-{host.name}"))
        for workload in world.workloads[1:]:
            workload.await_ping(world.workloads[0].address)
        world.took["pinging"] = time.monotonic() - began
        world.neighbour = world.network.attach(world.node1, "neighbour")
        world.neighbour.await_ping(world.workloads[0].address)
        yield world
        found = [line for host in cluster.hosts for line in complaints(host)]
        told = ("event=routes.withheld", "event=tunnel.unavailable")
        assert [line for line in found if not any(event in line for event in told)] == []


@pytest.fixture
def world(built: World) -> Iterator[World]:
    """The same three hosts for every test, which leaves them as it found them."""
    yield built
    for host in built.cluster.hosts:
        assert daemons(host).keys() == DAEMONS, host.name
    built.await_sessions()


def test_three_hosts_are_meshed_soon_after_the_last_node_run(world: World) -> None:
    print(", ".join(f"{what} after {seconds:.1f} s" for what, seconds in world.took.items()))
    assert world.took["mesh"] - world.took["last node run"] < 30  # two on an idle machine
    everyone = [*world.workloads, world.neighbour]
    grid = matrix(everyone, everyone).expect(lambda source, target: True)
    assert grid["on-node1", "on-node2"].mark == "62"
    assert grid["on-node1", "neighbour"].mark == "63"


def test_a_node_is_called_by_its_nodename_not_by_its_host_name(world: World) -> None:
    assert [host.run("hostname").stdout.strip() for host in world.cluster.hosts] == [
        "web-a", "NODE2.Example.ORG", "node3"
    ]
    nodes = world.node1.run("calicoctl get node").stdout.split()
    assert [word for word in nodes if word.startswith("node")] == ["node1", "node2", "node3"]
    # without NODENAME in the environment the name is found on the disk
    assert "node1" in world.node1.run("env -u NODENAME calicoctl node run --dryrun").stdout


def test_each_setting_is_said_once_with_its_origin_and_each_daemon_when_it_is_ready(world: World) -> None:
    said = world.said[0].splitlines()
    settings = [line for line in said if line.startswith("setting ")]
    names = [line.split()[1] for line in settings]
    assert len(names) == len(set(names))
    assert "setting node_name = node1 (from environment)" in settings
    assert f"setting ip = {world.node1.address} (from environment)" in settings
    assert "setting as = (unset) (from default)" in settings
    assert "setting no_default_pools = false (from default)" in settings
    daemons_of_a_host = ("felix", "bgpd", "libnetwork", "agent")
    assert said[-5:-1] == unordered(*(f"calico-{name} is ready" for name in daemons_of_a_host))
    assert said[-1] == "Calico is running on node node1."


class unordered:  # noqa: N801  # reads as a word in an assertion
    """Equal to any list with the same items."""

    def __init__(self, *items: str) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and sorted(other) == sorted(self.items)

    def __repr__(self) -> str:
        return f"unordered{self.items}"


GOLDEN = """\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |    INFO     |
+--------------+-------------------+-------+----------+-------------+
| {0:12} | node-to-node mesh | up    | HH:MM:SS | Established |
| {1:12} | node-to-node mesh | up    | HH:MM:SS | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found.

"""


def test_node_status_word_for_word(world: World) -> None:
    world.await_mesh()
    for host in world.cluster.hosts:
        done = host.run("calicoctl node status")
        peers = [str(other.address) for other in world.cluster.hosts if other is not host]
        assert re.sub(r"\d\d:\d\d:\d\d", "HH:MM:SS", done.stdout) == GOLDEN.format(*peers)
        assert done.stderr == ""


TUNNELLED = """
apiVersion: v1
kind: ipPool
metadata:
  cidr: 10.90.0.0/24
spec:
  ipip:
    enabled: true
"""


@contextmanager
def without_tunnel(host: Host) -> Iterator[str]:
    """Have a host that makes no tunl0, and give the reason that felix has for it.

    Where this machine's kernel has IPIP, felix is told to do without: another kernel is not to be had for three hosts.
    That a kernel which lacks it is told of shows in a guest (tests/fv/kernel/test_links.py).
    """
    if not machine_has("ipip"):
        yield "this kernel has no IPIP"
        return
    name = f"node.{host.node}"
    before = host.run(f"calicoctl get felixconfiguration {name} -o yaml").stdout
    document = yaml.safe_load(before)
    document["spec"]["ipipEnabled"] = False
    host.run("calicoctl apply -f -", stdin=yaml.safe_dump(document))
    yield ""
    del document["spec"]["ipipEnabled"]
    document["metadata"].pop("resourceVersion", None)
    host.run("calicoctl apply -f -", stdin=yaml.safe_dump(document))
    wait_until("felix to be ready", lambda: is_ready(host, "felix"), timeout=30)


@pytest.mark.bgp_scenario(51)
def test_status_warns_of_routes_that_are_withheld_for_want_of_a_tunnel(world: World) -> None:
    with without_tunnel(world.others[1]) as reason:
        warns_of_withheld_routes(world, reason)


def warns_of_withheld_routes(world: World, reason: str) -> None:
    cluster, (second, third) = world.cluster, world.others
    second.run("calicoctl create -f -", stdin=TUNNELLED)
    with cluster.fabric.entered():
        store = connect(EtcdConfig(endpoints=tuple(cluster.store.endpoint_list)))
        allocator = Allocator(store, NodeName("node2"))
        pools = [ip_network("10.90.0.0/24")]
        address = allocator.auto_assign(version=4, pools=pools, handle=HandleId("tunnelled")).one()
    block = str(ip_network(f"{address}/26", strict=False))
    wait_until("the warning", lambda: block in third.run("calicoctl node status").stderr)
    wait_until("felix to say why", lambda: reason in third.run("calicoctl node status").stderr)
    done = third.run("calicoctl node status")
    assert "ipipMode is Always and there is no tunl0" in done.stderr
    assert re.sub(r"\d\d:\d\d:\d\d", "HH:MM:SS", done.stdout) == GOLDEN.format("10.77.0.1", "10.77.0.2")
    # closed, so that nothing leaves by the default route in the clear (docs/adr/0032)
    assert [line.split()[0] for line in third.ip("route").stdout.splitlines() if block in line] == ["unreachable"]
    with cluster.fabric.entered():
        allocator.release_by_handle(HandleId("tunnelled"))
        store.close()
    second.run("calicoctl delete ippool 10-90-0-0-24")
    wait_until("the warning to go", lambda: third.run("calicoctl node status").stderr == "")


def test_run_again_says_so_and_changes_nothing(world: World) -> None:
    before = daemons(world.node1), records(world.cluster), world.node1.run(KERNEL).stdout
    done = world.node1.run("calicoctl node run")
    assert re.fullmatch(
        r"Calico is already running on this host \(its supervisor has pid \d+\); nothing was changed\.\n", done.stdout
    )
    assert daemons(world.node1) == before[0]
    assert records(world.cluster) == before[1]
    assert world.node1.run(KERNEL).stdout == before[2]


def test_two_runs_at_once_on_a_stopped_host_start_one_set_of_daemons(world: World) -> None:
    world.node1.run("calicoctl node stop")
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: world.node1.run("calicoctl node run", timeout=90.0), range(3)))
    assert sum("Calico is running on node node1." in run.stdout for run in runs) == 1
    assert sum("already running" in run.stdout for run in runs) == 2
    assert daemons(world.node1).keys() == DAEMONS


@pytest.mark.parametrize("command", ["run", "stop", "clean --yes", "status", "checksystem"])
def test_who_is_not_root_is_told_so(world: World, command: str) -> None:
    before = daemons(world.node1)
    as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    done = world.node1.run(f"{as_nobody} calicoctl node {command}", check=False)
    assert (done.exit, done.stdout) == (1, "")
    assert "Need super user privileges: Operation not permitted" in done.stderr
    assert daemons(world.node1) == before


def test_stop_leaves_the_network_and_a_restart_loses_nothing(world: World) -> None:
    mine, far = world.workloads[0], world.workloads[1]
    before = world.node1.run(KERNEL).stdout
    routes = [host.run("ip route").stdout for host in world.others]
    with Flood(world.neighbour, mine.address) as here, Flood(far, mine.address) as across:
        done = world.node1.run("calicoctl node stop")
        assert done.stdout == (
            "Calico is stopped. Routes and rules of this host stay, running containers keep their network.\n"
            "Other hosts keep their routes to this one for 120 s.\n"
        )
        assert daemons(world.node1) == {}
        again = world.node1.run("calicoctl node stop")
        assert again.stdout == "Calico is not running on this host; nothing was changed.\n"
        status = world.node1.run("calicoctl node status", check=False)
        assert (status.exit, status.stdout) == (1, "")
        assert status.stderr.startswith("Calico process is not running.\n")
        time.sleep(1)
        assert world.node1.run(KERNEL).stdout == before
        assert [host.run("ip route").stdout for host in world.others] == routes
        world.node1.run("calicoctl node run", timeout=90.0)
        world.await_mesh()
        time.sleep(1)
    assert here.lost == across.lost == []
    assert min(here.sent, across.sent) > 100
    assert world.node1.run(KERNEL).stdout == before


@pytest.mark.parametrize("name", ["felix", "bgpd", "libnetwork", "agent"])
def test_a_killed_daemon_is_back_soon_and_the_others_do_not_notice(world: World, name: str) -> None:
    before = daemons(world.node1)
    comm = name if name == "agent" else f"calico-{name}"
    with Flood(world.workloads[1], world.workloads[0].address) as across:
        world.node1.run(["kill", "-9", str(before[comm])])
        took = wait_until(f"{name} to be back", lambda: daemons(world.node1).get(comm, before[comm]) != before[comm])
        ready = wait_until(f"{name} to be ready", lambda: is_ready(world.node1, name))
    print(f"{name}: started after {took:.2f} s, ready after {took + ready:.2f} s")
    after = daemons(world.node1)
    assert {key: pid for key, pid in after.items() if key != comm} == {
        key: pid for key, pid in before.items() if key != comm
    }
    assert across.lost == []


def test_a_killed_supervisor_takes_the_daemons_along_and_run_starts_one_set(world: World) -> None:
    before = daemons(world.node1)
    with Flood(world.workloads[1], world.workloads[0].address) as across:
        world.node1.run(["kill", "-9", str(before["supervise"])])
        wait_until("the daemons to end", lambda: daemons(world.node1).keys() == {"exabgp"})
        status = world.node1.run("calicoctl node status", check=False)
        assert status.exit == 1
        assert "Calico process is not running." in status.stderr
        done = world.node1.run("calicoctl node run", timeout=90.0)
        assert "Calico is running on node node1." in done.stdout
    assert across.lost == []
    assert daemons(world.node1)["exabgp"] == before["exabgp"]  # no session was lost


def test_a_daemon_that_was_started_by_hand_is_replaced(world: World) -> None:
    world.node1.run("calicoctl node stop")
    by_hand = world.node1.popen(["calico-bgpd"])
    wait_until("bgpd to answer", lambda: is_ready(world.node1, "bgpd"))
    done = world.node1.run("calicoctl node run", timeout=90.0)
    assert "ended calico-bgpd (pid " in done.stdout
    assert not by_hand.alive
