"""Any history of commands on two hosts, with drivers that die at any write and a dockerd that crashes.

What must hold at every moment: no two running containers share an address, each has the record, interface, profile and
allocation that it needs; and when all is removed, nothing of it is left but what only a reconciliation can find.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.dockerd import DockerError, Endpoint, FakeDockerd, Network, counted_ids
from fakes.engine_api import FakeEngine
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from libnetwork.profiles import profile_name
from libnetwork.veth import host_interface
from resources.datastore.memory import MemoryStore
from resources.names import parse_address

POOLS = {"calico-net1": "17.16.10.0/28", "Calico_Net2": "173.20.19.0/28"}
NAMES = tuple(f"c{number}" for number in range(100))
HOSTS = ("node1", "node2")
BLOCK_SIZE = 30


class Cluster:
    """Two hosts whose dockerds share a cluster store: networks are on both."""

    def __init__(self) -> None:
        self.seeded = SeededStore(MemoryStore(), nodes=HOSTS)
        for name, cidr in POOLS.items():
            self.seeded.add_pool(name.lower().replace("_", "-"), cidr, block_size=BLOCK_SIZE)
        self.faulty = FaultyStore(self.seeded.store)
        ids = counted_ids()
        networks: dict[str, Network] = {}
        self.networks = networks
        api = FakeEngine(Path("/nonexistent"))
        self.hosts: dict[str, LibnetworkHost] = {}
        self.dockerds: dict[str, FakeDockerd] = {}
        for name in HOSTS:
            own = FakeEngine(Path("/nonexistent"))
            own.networks = api.networks
            self.hosts[name] = LibnetworkHost(self.faulty, name, own)
            self.dockerds[name] = FakeDockerd(self.hosts[name].call, own, ids=ids, networks=networks)

    def running(self) -> list[tuple[str, Endpoint]]:
        return [
            (name, endpoint)
            for name, dockerd in self.dockerds.items()
            for container in dockerd.containers.values()
            for endpoint in container.endpoints.values()
        ]

    @property
    def deaths(self) -> int:
        return sum(host.deaths for host in self.hosts.values())


def addresses(endpoint: Endpoint) -> list[str]:
    return [address.partition("/")[0] for address in endpoint.addresses.values()]


def _begun(machine: "Histories") -> bool:
    return machine.cluster.running() != []


def _mortal(machine: "Histories") -> bool:
    return machine.mortal


class Histories(RuleBasedStateMachine):
    """Both networks are there at first. `mortal`: drivers die and answers get lost."""

    @initialize(mortal=st.booleans())
    def begin(self, mortal: bool) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.cluster = Cluster()
        self.mortal = mortal
        self.crashes = self.made_anew = 0
        for network, subnet in POOLS.items():
            self.cluster.dockerds["node1"].network_create(network, subnet)

    def teardown(self) -> None:
        structlog.reset_defaults()

    hosts = st.sampled_from(HOSTS)
    networks = st.sampled_from(sorted(POOLS))

    @rule(data=st.data(), network=networks)
    def run_two(self, data: st.DataObject, network: str) -> None:
        for host in data.draw(st.lists(st.sampled_from(HOSTS), min_size=2, max_size=2)):
            self.run(host, network, "")

    @rule(host=hosts, network=networks, last=st.sampled_from(["", "", "", "5", "9"]))
    def run(self, host: str, network: str, last: str) -> None:
        dockerd = self.cluster.dockerds[host]
        name = next(name for name in NAMES if name not in dockerd.containers)
        ip = f"{POOLS[network].rpartition('.')[0]}.{last}" if last else ""
        with contextlib.suppress(_Expected), _told():
            dockerd.run(name, network, ip=ip)

    @precondition(_begun)
    @rule(data=st.data(), network=networks)
    def connect(self, data: st.DataObject, network: str) -> None:
        host, name = self._pick(data)
        dockerd = self.cluster.dockerds[host]
        if network not in dockerd.containers[name].endpoints:
            with contextlib.suppress(_Expected), _told():
                dockerd.connect(name, network)

    @precondition(_begun)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        host, name = self._pick(data)
        dockerd = self.cluster.dockerds[host]
        dockerd.disconnect(name, data.draw(st.sampled_from(sorted(dockerd.containers[name].endpoints))))
        if not dockerd.containers[name].endpoints:
            dockerd.rm(name)

    @precondition(_begun)
    @rule(data=st.data())
    def rm(self, data: st.DataObject) -> None:
        host, name = self._pick(data)
        self.cluster.dockerds[host].rm(name)

    def _pick(self, data: st.DataObject) -> tuple[str, str]:
        containers = [(host, name) for host, dockerd in self.cluster.dockerds.items() for name in dockerd.containers]
        return data.draw(st.sampled_from(sorted(containers)))

    @precondition(lambda self: self.made_anew < 2)
    @rule(host=hosts, network=networks)
    def network_made_anew(self, host: str, network: str) -> None:
        self.made_anew += 1
        if not any(endpoint.network.name == network for _, endpoint in self.cluster.running()):
            self.cluster.dockerds[host].network_rm(network)
            self.cluster.dockerds[host].network_create(network, POOLS[network])

    @rule(host=hosts)
    def restart_driver(self, host: str) -> None:
        self.cluster.hosts[host].restart()

    @precondition(_begun)
    @rule(host=hosts)
    def crash_docker(self, host: str) -> None:
        self.crashes += bool(self.cluster.dockerds[host].containers)
        self.cluster.dockerds[host].crash()

    @precondition(_mortal)
    @rule(nth=st.integers(1, 4), after=st.booleans())
    def driver_will_die(self, nth: int, after: bool) -> None:
        self.cluster.faulty.kill(nth, after=after)

    @precondition(_mortal)
    @rule(nth=st.integers(1, 3))
    def answer_will_be_lost(self, nth: int) -> None:
        self.cluster.faulty.lose_answer(nth)

    @invariant()
    def every_running_container_has_what_it_needs(self) -> None:
        held = self.cluster.seeded.allocated()
        records = self.cluster.seeded.endpoints()
        profiles = self.cluster.seeded.profiles()
        taken: set[str] = set()
        for host, endpoint in self.cluster.running():
            for address in addresses(endpoint):
                assert address not in taken, "an address twice"
                taken.add(address)
                assert parse_address(address) in held, "a running container whose address is free for others"
            record = records[endpoint.id]
            assert record.spec.node == host
            assert [network.partition("/")[0] for network in record.spec.ip_networks] == addresses(endpoint)
            assert record.spec.profiles == [profile_name(endpoint.network.name)]
            assert record.spec.profiles[0] in profiles
            assert host_interface(endpoint.id) in self.cluster.hosts[host].links.links()
        for dockerd in self.cluster.dockerds.values():
            for container in dockerd.containers.values():
                next_hops = [endpoint.joined["Gateway"] for endpoint in container.endpoints.values()]
                assert len(set(next_hops)) == len(next_hops)

    @precondition(lambda self: self.cluster.deaths == 0)
    @invariant()
    def without_a_death_nothing_is_left_behind(self) -> None:
        wanted = {address for _, endpoint in self.cluster.running() for address in addresses(endpoint)}
        assert {str(address) for address in self.cluster.seeded.allocated()} == wanted
        if self.crashes == 0:
            ids = {endpoint.id for _, endpoint in self.cluster.running()}
            assert self.cluster.seeded.endpoints().keys() == ids
            links = {name for host in self.cluster.hosts.values() for name in host.links.links() if name != "lo"}
            assert len(links) == 2 * len(ids)


class _Expected(Exception):
    """A refusal that this history explains."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DockerError as error:
        if any(text in str(error) for text in ("the body is empty", "already in use", "No IPs available")):
            raise _Expected from error
        raise


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


# --- every call, dying at each of its writes

COMMANDS = ("run", "connect", "rm", "network_rm")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("nth", range(1, 9))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_driver_that_dies_at_a_write_can_be_asked_again(command: str, nth: int, after: bool) -> None:
    """Docker repeats a cut call with nothing in it, gives up, and rolls back. The same command then succeeds."""
    cluster = Cluster()
    docker = cluster.dockerds["node1"]
    docker.network_create("calico-net1", POOLS["calico-net1"])
    docker.network_create("Calico_Net2", POOLS["Calico_Net2"])
    if command != "run":
        docker.run("c1", "calico-net1")
    if command == "network_rm":
        docker.rm("c1")
    cluster.faulty.kill(nth, after=after)
    commands: dict[str, Callable[[], object]] = {
        "run": lambda: docker.run("c1", "calico-net1"),
        "connect": lambda: docker.connect("c1", "Calico_Net2"),
        "rm": lambda: docker.rm("c1"),
        "network_rm": lambda: docker.network_rm("calico-net1"),
    }
    try:
        commands[command]()
    except DockerError:
        commands[command]()
    if "c1" in docker.containers:
        docker.rm("c1")
    for network in list(docker.networks):
        docker.network_rm(network)
    seeded = cluster.seeded
    allocated = seeded.allocated()
    left = [*allocated, *seeded.endpoints(), *seeded.profiles()]
    assert cluster.hosts["node1"].links.links().keys() == {"lo"}
    if not cluster.deaths:
        assert left == []
    # At most what the one cut call would have told or was about to remove; reconciliation finds it by its owner.
    assert len(left) <= 2
    for address in allocated:
        allocation = seeded.allocation(address)
        assert allocation is not None
        assert allocation.attributes["node"] == "node1"
        assert allocation.attributes["type"] == "docker"
