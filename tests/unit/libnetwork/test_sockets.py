"""The whole driver on its two sockets, called as dockerd 20.10 and 28 call it, with Docker's API on a third."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.dockerd import DockerError, FakeDockerd, counted_ids
from fakes.engine_api import FakeEngine
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from fakes.plugin_client import Json, PluginClient, PluginError
from libnetwork.daemon import servers
from libnetwork.engine import DockerEngine
from resources.datastore.memory import MemoryStore

POOL = "17.16.10.0/24"


class Plugin:
    """Calls the driver through its sockets, with a connection for each thread, as dockerd's pool has."""

    def __init__(self, folder: Path, host: str) -> None:
        self._folder, self._host = folder, host
        self._local = threading.local()

    def call(self, call: str, request: Json | None = None) -> dict[str, object]:
        name = "calico-ipam.sock" if call.startswith("IpamDriver") else "calico.sock"
        client: PluginClient | None = getattr(self._local, name, None)
        if client is None:
            client = PluginClient(self._folder / name, host=self._host)
            setattr(self._local, name, client)
        return client.call(call, request)


@pytest.fixture
def seeded() -> SeededStore:
    seeded = SeededStore(MemoryStore(), nodes=["node1"])
    seeded.add_pool("net1", POOL)
    seeded.add_pool("six", "fd00:17::/64")
    return seeded


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        yield engine


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    return tmp_path / "plugins"


@pytest.fixture
def driver(seeded: SeededStore, engine: FakeEngine, plugins: Path) -> Iterator[LibnetworkHost]:
    host = LibnetworkHost(
        seeded.store,
        "node1",
        engine,
        environ={"CALICO_LIBNETWORK_PLUGIN_DIR": str(plugins), "CALICO_LIBNETWORK_LABEL_ENDPOINTS": "true"},
        engine=DockerEngine(engine.url, timeout_seconds=2),
    )
    running = servers(host.drivers, host.settings)
    for server in running:
        server.start()
    yield host
    for server in running:
        server.stop(patience_seconds=1)


@pytest.fixture(params=[("", False), ("plugin.moby.localhost", True)], ids=["20.10", "28"])
def docker(request: pytest.FixtureRequest, driver: LibnetworkHost, engine: FakeEngine, plugins: Path) -> FakeDockerd:
    header, later = request.param
    return FakeDockerd(Plugin(plugins, header).call, engine, ids=counted_ids(), later=later)


def test_each_socket_has_one_role(driver: LibnetworkHost, plugins: Path) -> None:
    assert {path.name for path in plugins.iterdir()} == {"calico.sock", "calico-ipam.sock"}
    roles = {name: PluginClient(plugins / name).call("Plugin.Activate") for name in ("calico.sock", "calico-ipam.sock")}
    assert roles == {
        "calico.sock": {"Implements": ["NetworkDriver"]},
        "calico-ipam.sock": {"Implements": ["IpamDriver"]},
    }


@pytest.mark.parametrize(
    ("socket", "call"), [("calico.sock", "IpamDriver.GetCapabilities"), ("calico-ipam.sock", "NetworkDriver.Leave")]
)
def test_neither_socket_answers_for_the_other(driver: LibnetworkHost, plugins: Path, socket: str, call: str) -> None:
    assert PluginClient(plugins / socket).post(call, b"").status == 404


def test_the_life_of_a_container(docker: FakeDockerd, driver: LibnetworkHost, seeded: SeededStore) -> None:
    docker.network_create("calico-net1", POOL, "fd00:17::/64", ipv6=True)
    endpoint = docker.run("web", "calico-net1", labels={"org.projectcalico.label.role": "web"})
    record = seeded.endpoints()[endpoint.id]
    assert sorted(endpoint.addresses.values()) == sorted(record.spec.ip_networks)
    assert record.metadata.labels["role"] == "web"
    assert record.metadata.annotations["docker.projectcalico.org/container"] == "web"
    assert endpoint.joined["Gateway"] == "169.254.1.1"
    assert re.match("fe80::", str(endpoint.joined["GatewayIPv6"]))
    assert len(driver.links.links()) == 3
    docker.rm("web")
    docker.network_rm("calico-net1")
    assert docker.errors == []
    assert (seeded.endpoints(), seeded.profiles(), seeded.allocated()) == ({}, {}, {})
    assert driver.links.links().keys() == {"lo"}


@pytest.mark.parametrize(
    ("subnet", "arguments", "message"),
    [
        (
            "10.1.0.0/24",
            {},
            "IpamDriver.RequestPool: The requested subnet must match the CIDR of a configured",
        ),
        (
            POOL,
            {"internal": True},
            "NetworkDriver.CreateNetwork: Calico driver does not support the flag --i",
        ),
        (
            POOL,
            {"options": {"REJECT": ""}},
            "NetworkDriver.CreateNetwork: Calico driver does not support th",
        ),
        (
            POOL,
            {"ip_range": "17.16.10.0/25"},
            "IpamDriver.RequestPool: Calico IPAM does not support sub po",
        ),
        (
            POOL,
            {"gateway": "17.16.10.1"},
            r"failed to allocate gateway \(17.16.10.1\): IpamDriver.RequestAddress: Calico IPAM does not",
        ),
    ],
)
def test_what_the_user_reads(
    docker: FakeDockerd, seeded: SeededStore, subnet: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(DockerError, match=message):
        docker.network_create("calico-net1", subnet, **arguments)  # type: ignore[arg-type]
    assert seeded.allocated() == {}


def test_a_network_of_two_pools(docker: FakeDockerd, seeded: SeededStore) -> None:
    """Docker takes the first subnet, or that of the address the user chose."""
    seeded.add_pool("net2", "173.20.19.0/24")
    docker.network_create("wide", POOL, "173.20.19.0/24")
    assert docker.run("c1", "wide").addresses[POOL].startswith("17.16.10.")
    assert docker.run("c2", "wide", ip="173.20.19.7").addresses == {"173.20.19.0/24": "173.20.19.7/32"}
    assert {tuple(record.spec.profiles) for record in seeded.endpoints().values()} == {("wide",)}


def test_a_network_without_a_subnet(docker: FakeDockerd) -> None:
    assert docker.network_create("any").pools == [(POOL, POOL)]
    assert docker.run("c1", "any").addresses[POOL].startswith("17.16.10.")


def test_a_network_without_a_subnet_on_one_host(driver: LibnetworkHost, engine: FakeEngine, plugins: Path) -> None:
    docker = FakeDockerd(Plugin(plugins, "").call, engine, ids=counted_ids(), scope="local", later=True)
    assert docker.network_create("any").pools == [("CalicoPoolIPv4", "0.0.0.0/0")]
    assert docker.run("c1", "any").addresses["CalicoPoolIPv4"].startswith("17.16.10.")


def test_twenty_containers_at_once(docker: FakeDockerd, seeded: SeededStore) -> None:
    """Docker serves each network's addresses one by one; different containers' joins go on beside."""
    docker.network_create("calico-net1", POOL)
    failed: list[Exception] = []

    def run(name: str) -> None:
        try:
            docker.run(name, "calico-net1")
        except (DockerError, PluginError) as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(f"c{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    addresses = [text for record in seeded.endpoints().values() for text in record.spec.ip_networks]
    assert len(set(addresses)) == len(addresses) == 20
    assert len(seeded.allocated()) == 20
