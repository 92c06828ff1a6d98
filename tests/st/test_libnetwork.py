"""The driver under a real dockerd 20.10: two hosts with a cluster store, and one host by itself.

felix and bgpd do not run here: what they would program is put in by hand where packets are to flow.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bed import Cluster, Container, Dockerd, Fabric, Host, Process, complaints, wait_until
from fakes.plugin_client import PluginClient
from resources.names import parse_address, parse_network
from resources.runtime.health import ask

POOLS = {"17.16.10.0/24": "net1", "173.20.19.0/24": "net2", "fd00:17::/64": "six"}
POOL, POOL2, POOL6 = POOLS
SOCKETS = ("/run/docker/plugins/calico.sock", "/run/docker/plugins/calico-ipam.sock")
HEALTH = "/run/calico/libnetwork.sock"
ENDPOINTS = "/calico/resources/v3/projectcalico.org/workloadendpoints/"
PROFILES = "/calico/resources/v3/projectcalico.org/profiles/"
HANDLES = "/calico/ipam/v2/handle/"


@dataclass
class Node:
    """A host with our driver and its dockerd."""

    cluster: Cluster
    host: Host
    env: dict[str, str]
    shared: bool

    def __post_init__(self) -> None:
        node = f"apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {self.host.node}}}\n"
        self.host.run(["calicoctl", "create", "-f", "-"], stdin=node)
        self.driver: Process
        self.start_driver()
        self.dockerd = Dockerd(self.host, self.cluster.store if self.shared else None)

    def start_driver(self) -> None:
        """Start the driver, and wait until it says that it is ready."""
        self.driver = self.host.popen(["calico-libnetwork"], env=self.env)
        wait_until("the driver to be ready", lambda: ask(self.host.path(HEALTH), "/readiness")[0] == 204)

    def docker(self, *words: str) -> str:
        """Run docker and return what the user reads, of success or of failure."""
        return self.dockerd.docker(*words, check=False).text

    def create_network(self, name: str, *words: str) -> str:
        return self.docker("network", "create", "--driver", "calico", "--ipam-driver", "calico-ipam", *words, name)

    def links(self) -> list[str]:
        names = [link["ifname"] for link in json.loads(self.host.ip("-j", "link").stdout)]
        return [name for name in names if name.startswith(("cali", "temp"))]


def contents(cluster: Cluster, *prefixes: str) -> list[str]:
    """Return what of Docker's is in the store: endpoint records, profiles and handles, without their prefixes."""
    return [key for prefix in prefixes or (ENDPOINTS, PROFILES, HANDLES) for key in cluster.store.contents(prefix)]


def records(cluster: Cluster) -> dict[str, dict[str, object]]:
    """Return the endpoint records by the name of their container."""
    found = [json.loads(value) for value in cluster.store.contents(ENDPOINTS).values()]
    return {record["metadata"]["annotations"]["docker.projectcalico.org/container"]: record for record in found}


def create_pools(cluster: Cluster) -> None:
    documents = [
        f"apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}'}}\n"
        for cidr, name in POOLS.items()
    ]
    cluster.hosts[0].run(["calicoctl", "create", "-f", "-"], stdin="---\n".join(documents))


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    with Cluster(2) as cluster:
        create_pools(cluster)
        env = {"CALICO_LIBNETWORK_LABEL_ENDPOINTS": "true"}
        one, two = cluster.on_each(lambda host: Node(cluster, host, env, shared=True))
        yield one, two


@pytest.fixture
def one(nodes: tuple[Node, Node]) -> Iterator[Node]:
    """The first host; after the test nothing of it may be left anywhere, and no daemon may have complained."""
    yield nodes[0]
    for node in nodes:
        for name in node.docker("ps", "-aq").split():
            node.docker("rm", "-f", name)
    for name in nodes[0].docker("network", "ls", "--filter", "driver=calico", "--format", "{{.Name}}").split():
        nodes[0].docker("network", "rm", name)
    assert contents(nodes[0].cluster) == []
    for node in nodes:
        assert node.links() == []
        assert complaints(node.host) == []
        assert "level=error" not in node.driver.text


@pytest.fixture
def two(nodes: tuple[Node, Node]) -> Node:
    return nodes[1]


def test_the_sockets_are_there_before_docker(one: Node) -> None:
    for path in SOCKETS:
        assert one.host.path(path).is_socket()
        role = "IpamDriver" if "ipam" in path else "NetworkDriver"
        assert PluginClient(one.host.path(path)).call("Plugin.Activate") == {"Implements": [role]}


def test_a_container_gets_the_mtu_that_felix_has_told_when_it_starts(one: Node) -> None:
    told = one.host.path("/var/lib/calico/mtu")
    one.create_network("calico-net1", "--subnet", POOL)

    def mtu_of(name: str) -> int:
        return int(one.dockerd.run(name, "--net", "calico-net1").run("cat /sys/class/net/cali0/mtu").stdout)

    try:
        for mtu in (1480, 8980):
            told.write_text(f"{mtu}\n")
            assert mtu_of(f"of-{mtu}") == mtu
    finally:
        told.unlink()
    assert mtu_of("of-1500") == 1500


def test_a_network_and_its_containers_on_two_hosts(one: Node, two: Node) -> None:
    network = one.create_network("calico-net1", "--subnet", POOL)
    listed = two.docker(
        "network", "ls", "--no-trunc", "--filter", "driver=calico", "--format", "{{.ID}} {{.Name}} {{.Scope}}"
    )
    assert listed == f"{network} calico-net1 global"
    first = one.dockerd.run("docker-test1", "--net", "calico-net1", "--label", "org.projectcalico.label.role=db")
    second = two.dockerd.run("docker-test2", "--net", "calico-net1")
    for container in (first, second):
        assert f"inet {container.address}/32 scope global cali0" in container.run("ip addr show cali0").stdout
        routes = [line.strip() for line in container.run("ip route").stdout.splitlines()]
        assert routes == ["default via 169.254.1.1 dev cali0", "169.254.1.1 dev cali0 scope link"]
        record = records(one.cluster)[container.name]
        assert record["spec"]["ipNetworks"] == [f"{container.address}/32"]  # type: ignore[index]
        assert record["spec"]["profiles"] == ["calico-net1"]  # type: ignore[index]
        assert record["spec"]["mac"] in container.run("cat /sys/class/net/cali0/address").stdout  # type: ignore[index]
    assert records(one.cluster)["docker-test1"]["metadata"]["labels"]["role"] == "db"  # type: ignore[index]
    assert "has active endpoints" in two.docker("network", "rm", "calico-net1")
    let_packets_flow(one, two, first, second)
    assert "ttl=62" in first.run("ping -c 1 -W 2 docker-test2.calico-net1").stdout
    assert "ttl=62" in second.run("ping -c 1 -W 2 docker-test1").stdout
    for node, container in ((one, first), (two, second)):
        node.docker("rm", "-f", container.name)
    assert contents(one.cluster, ENDPOINTS, HANDLES) == []
    assert contents(one.cluster, PROFILES) == ["/calico/resources/v3/projectcalico.org/profiles/calico-net1"]
    assert two.docker("network", "rm", "calico-net1") == "calico-net1"
    assert contents(one.cluster) == []


def let_packets_flow(one: Node, two: Node, first: Container, second: Container) -> None:
    """Do felix's and bgpd's work for one container on each host."""
    for node, own, other in ((one, first, (two, second)), (two, second, (one, first))):
        (interface,) = node.links()
        for name in ("net.ipv4.ip_forward", f"net.ipv4.conf.{interface}.proxy_arp"):
            node.host.sysctl(name, 1)
        node.host.sysctl(f"net.ipv4.neigh.{interface}.proxy_delay", 0)
        node.host.run("iptables -P FORWARD ACCEPT")
        node.host.ip("route", "add", f"{own.address}/32", "dev", interface)
        node.host.ip("route", "add", f"{other[1].address}/32", "via", str(other[0].host.address))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--subnet", "10.1.0.0/24"],
            "IpamDriver.RequestPool: The requested subnet must match the CIDR of a configured Calico IP Pool. Subnet"
            " 10.1.0.0/24 is in no pool; pools are 17.16.10.0/24, 173.20.19.0/24, fd00:17::/64; create one with"
            " calicoctl create -f",
        ),
        (
            ["--subnet", POOL, "--internal"],
            "NetworkDriver.CreateNetwork: Calico driver does not support the flag --internal.",
        ),
        (
            ["--subnet", POOL, "-o", "REJECT2=1", "-o", "REJECT=1"],
            "NetworkDriver.CreateNetwork: Calico driver does not support the flags REJECT, REJECT2.",
        ),
        (
            ["--subnet", POOL, "--gateway", "17.16.10.1"],
            "failed to allocate gateway (17.16.10.1): IpamDriver.RequestAddress: Calico IPAM does not support"
            " specifying a gateway.",
        ),
        (["--subnet", POOL, "--ipam-opt", "a=b"], "IpamDriver.RequestPool: Arbitrary options are not supported"),
        (["--subnet", POOL, "--ip-range", "17.16.10.0/25"], "IpamDriver.RequestPool: Calico IPAM does not support sub"),
    ],
)
def test_networks_that_cannot_be(one: Node, words: list[str], message: str) -> None:
    assert one.create_network("refused", *words).startswith(f"Error response from daemon: {message}")
    assert "refused" not in one.docker("network", "ls")


def test_another_ipam_driver_is_refused(one: Node) -> None:
    assert "Non-Calico IPAM driver is used" in one.docker("network", "create", "--driver", "calico", "other-ipam")


def test_our_ipam_without_our_network_needs_a_subnet(one: Node) -> None:
    assert "ipv4 pool is empty" in one.docker("network", "create", "--ipam-driver", "calico-ipam", "other-driver")


def test_without_a_subnet_the_pool_chosen_is_shown(one: Node) -> None:
    one.create_network("any")
    config = json.loads(one.docker("network", "inspect", "--format", "{{json .IPAM.Config}}", "any"))
    assert config[0]["Subnet"] == POOL
    assert one.dockerd.run("c1", "--net", "any").address in parse_network(POOL)


def test_an_address_of_the_users_choice(one: Node, two: Node) -> None:
    one.create_network("calico-net1", "--subnet", POOL)
    assert str(one.dockerd.run("chosen", "--net", "calico-net1", "--ip", "17.16.10.99").address) == "17.16.10.99"
    run = ("run", "-d", "--name", "late", "--net", "calico-net1", "--ip")
    assert "Address 17.16.10.99 is already in use by container chosen on node1; choose" in two.docker(
        *run, "17.16.10.99", "bb:1"
    )
    two.docker("rm", "late")
    assert "does not belong to any of this network's subnets" in two.docker(*run, "10.1.1.1", "bb:1")
    two.docker("rm", "late")
    one.docker("rm", "-f", "chosen")
    assert str(two.dockerd.run("late", "--net", "calico-net1", "--ip", "17.16.10.99").address) == "17.16.10.99"


def test_two_networks_on_one_container(one: Node) -> None:
    one.create_network("calico-net1", "--subnet", POOL)
    one.create_network("calico-net2", "--subnet", POOL2)
    container = one.dockerd.run("both", "--net", "calico-net1")
    assert one.docker("network", "connect", "calico-net2", "both") == ""
    assert next_hops(container) == {"169.254.1.1": "cali0", "169.254.1.2": "cali1"}
    assert one.docker("restart", "-t", "0", "both") == "both"
    again = next_hops(container)  # which network gets which name is Docker's choice at each start
    assert sorted(again) == ["169.254.1.1", "169.254.1.2"]
    assert sorted(again.values()) == ["cali0", "cali1"]
    assert one.docker("network", "disconnect", "calico-net1", "both") == ""
    ((gateway, interface),) = next_hops(container).items()
    assert f"default via {gateway} dev {interface}" in container.run("ip route").stdout


def next_hops(container: Container) -> dict[str, str]:
    """Return the container's next hops and the interface each is on."""
    found = {}
    for line in container.run("ip route").stdout.splitlines():
        words = line.split()
        if words[0].startswith("169.254.1."):
            found[words[0]] = words[2]
    return found


def test_ipv6_beside_ipv4(one: Node) -> None:
    one.create_network("dual", "--ipv6", "--subnet", POOL, "--subnet", POOL6)
    container = one.dockerd.run("c6", "--net", "dual")
    default = container.run("ip -6 route show default").stdout.split()
    host_side = one.host.ip("-6", "addr", "show", "dev", one.links()[0]).stdout
    assert parse_address(default[2]).is_link_local
    assert f"inet6 {default[2]}/64" in host_side
    assert len(records(one.cluster)["c6"]["spec"]["ipNetworks"]) == 2  # type: ignore[index]


def test_the_container_of_a_lost_host(one: Node, two: Node) -> None:
    one.create_network("calico-net1", "--subnet", POOL)
    two.dockerd.run("lost", "--net", "calico-net1")
    two.dockerd.kill()
    assert one.docker("network", "disconnect", "-f", "calico-net1", "lost") == ""
    wait_until("record and address to go", lambda: contents(one.cluster, ENDPOINTS, HANDLES) == [])
    two.host.run("rm -f /run/docker.pid")
    two.dockerd.start()
    two.host.run("for i in $(ls /sys/class/net | grep ^cali); do ip link del $i; done")


def test_docker_is_killed_and_the_address_goes_to_another(one: Node) -> None:
    """Only the address is released then: the stale record goes when the address is given to the next container."""
    one.create_network("calico-net1", "--subnet", POOL)
    one.dockerd.run("killed", "--net", "calico-net1", "--ip", "17.16.10.50")
    one.dockerd.kill()
    one.host.run("rm -f /run/docker.pid")
    one.dockerd.start()
    wait_until("the address to be released", lambda: contents(one.cluster, HANDLES) == [])
    one.dockerd.run("next", "--net", "calico-net1", "--ip", "17.16.10.50")
    assert records(one.cluster).keys() == {"next"}
    assert len(one.links()) == 1


@pytest.mark.parametrize("gently", [True, False])
def test_the_driver_is_started_again_between_calls(one: Node, gently: bool) -> None:
    one.create_network("calico-net1", "--subnet", POOL)
    one.dockerd.run("before", "--net", "calico-net1")
    one.driver.terminate() if gently else one.driver.kill()
    assert one.host.path(SOCKETS[0]).exists() is not gently
    one.start_driver()
    one.dockerd.run("after", "--net", "calico-net1")
    assert records(one.cluster).keys() == {"before", "after"}
    assert one.docker("rm", "-f", "before") == "before"
    assert records(one.cluster).keys() == {"after"}
    assert len(contents(one.cluster, HANDLES)) == 1


def test_eight_containers_at_once_on_each_host(one: Node, two: Node) -> None:
    one.create_network("calico-net1", "--subnet", POOL)
    run = "docker run -d --stop-signal KILL --net calico-net1 --name $0-$i bb:1 sleep 1000"
    loop = f"for i in 1 2 3 4 5 6 7 8; do {run} & done; wait"
    started = one.cluster.on_each(lambda host: host.run(["sh", "-c", loop, host.name], env=CLIENT, timeout=120))
    assert [len(done.stdout.split()) for done in started] == [8, 8]
    addresses = [record["spec"]["ipNetworks"][0] for record in records(one.cluster).values()]  # type: ignore[index]
    assert len(set(addresses)) == 16


CLIENT = {"DOCKER_CONFIG": "/run/docker-client", "DOCKER_HOST": "unix:///run/docker.sock"}


# --- without a cluster store


LOCAL = {"CALICO_LIBNETWORK_SCOPE": "local", "CALICO_LIBNETWORK_CALL_TIMEOUT": "3s"}


@pytest.fixture
def alone() -> Iterator[Node]:
    with Cluster(1) as cluster:
        create_pools(cluster)
        yield Node(cluster, cluster["node1"], LOCAL, shared=False)


def test_a_host_by_itself(alone: Node) -> None:
    alone.create_network("any")
    alone.create_network("Calico_Net1", "--subnet", POOL)
    assert alone.docker("network", "ls", "--filter", "driver=calico", "--format", "{{.Scope}}").split() == ["local"] * 2
    assert alone.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "any") == "0.0.0.0/0"
    for network in ("any", "Calico_Net1"):
        alone.dockerd.run(f"c-{network}", "--net", network)
    profiles = {name: record["spec"]["profiles"] for name, record in records(alone.cluster).items()}  # type: ignore[index]
    assert profiles == {"c-any": ["any"], "c-Calico_Net1": ["calico-net1-ea66bba6"]}
    refused = alone.create_network("six", "--ipv6")
    assert "give --subnet with the CIDR of an IPv6 pool" in refused
    for network in ("any", "Calico_Net1"):
        alone.docker("rm", "-f", f"c-{network}")
        alone.docker("network", "rm", network)
    assert contents(alone.cluster) == []
    assert alone.links() == []


def test_a_member_of_a_swarm_has_networks_of_its_own(alone: Node) -> None:
    assert alone.docker("swarm", "init", "--advertise-addr", "eth0").startswith("Swarm initialized")
    refused = alone.create_network("shared", "--subnet", POOL, "--scope", "swarm")
    assert "legacy plugin calico of type NetworkDriver is not supported in swarm mode" in refused
    alone.create_network("own", "--subnet", POOL)
    assert alone.dockerd.run("c1", "--net", "own").address in parse_network(POOL)
    alone.docker("rm", "-f", "c1")
    assert alone.docker("network", "rm", "own") == "own"
    assert contents(alone.cluster) == []


def test_etcd_is_away_and_comes_back(alone: Node) -> None:
    """A start fails in time and says why; what runs goes on; what is removed meanwhile is removed later."""
    alone.create_network("calico-net1", "--subnet", POOL)
    for name in ("before", "stays"):
        alone.dockerd.run(name, "--net", "calico-net1")
    alone.cluster.store.stop()
    refused = alone.dockerd.docker("run", "--name", "during", "--net", "calico-net1", "bb:1", "true", check=False)
    assert "IpamDriver.RequestAddress: no answer from etcd at http://" in refused.text
    assert refused.seconds < 10
    assert alone.docker("exec", "stays", "ip", "route").startswith("default via 169.254.1.1")
    assert alone.docker("rm", "-f", "before") == "before"
    assert len(alone.links()) == 1
    alone.cluster.store.start()
    wait_until("the removals to be done", lambda: len(contents(alone.cluster, ENDPOINTS, HANDLES)) == 2, timeout=20)
    assert alone.docker("start", "-a", "during") == ""
    assert records(alone.cluster).keys() == {"stays"}


# --- the daemon itself


def test_without_etcd_the_sockets_answer_and_readiness_says_what_is_missing(fabric: Fabric) -> None:
    host = Host(fabric, "node1")
    driver = host.popen(["calico-libnetwork"], env={"ETCD_ENDPOINTS": f"http://{fabric.address}:2379"})
    wait_until("health to answer", lambda: ask(host.path(HEALTH), "/liveness")[0] == 204)
    wait_until("sockets to be there", lambda: host.path(SOCKETS[1]).exists())
    waiting = "waiting for this node's endpoints in the datastore\n"
    wait_until("only the store to be missing", lambda: ask(host.path(HEALTH), "/readiness") == (503, waiting))
    for path in SOCKETS:
        assert PluginClient(host.path(path)).call("Plugin.Activate")
    assert driver.terminate() == 0
    assert not any(host.path(path).exists() for path in SOCKETS)
    assert "event=setting.effective name=scope value=global origin=default" in driver.text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "CALICO_LIBNETWORK_VETH_MTU",
            "big",
            "environment: CALICO_LIBNETWORK_VETH_MTU = 'big' cannot be used: it must be",
        ),
        ("NODENAME", "Node_1", "the node name 'Node_1' (from environment) cannot be used"),
        ("ETCD_ENDPOINTS", "etcd", "ETCD_ENDPOINTS"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_start(fabric: Fabric, name: str, value: str, message: str) -> None:
    done = Host(fabric, "node1").run(["calico-libnetwork"], env={name: value}, check=False)
    assert done.exit == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
