"""Docker's network calls, with requests as Docker 20.10 and 28 send them (reference libnetwork.md 2, 6.3, 6.4)."""

from collections.abc import Callable, Mapping

import pytest
from msgspec.structs import replace

from fakes.dockerd import DockerError, FakeDockerd, counted_ids
from fakes.engine_api import FakeEngine
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from fakes.plugin_client import PluginError
from kernel.link import link_local_of
from libnetwork.network_driver import endpoint_labels, mac_of
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import KIND, WorkloadEndpoint
from resources.names import IfName

POOL = "17.16.10.0/24"
NETWORK, ENDPOINT = "978ea500" * 8, "218b43d95c8e0f11" * 4
HOST, CONTAINER = IfName("cali218b43d95c8"), IfName("temp218b43d95c8")
IDS = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}


@pytest.fixture(autouse=True)
def _world(seeded: SeededStore, api: FakeEngine) -> None:
    seeded.add_pool("net1", POOL)
    seeded.add_pool("six", "fd00:17::/64")
    api.add_network(NETWORK, "calico-net1")


def create_endpoint(
    host: LibnetworkHost, address: str = "17.16.10.100/32", *, ipv6: str = "", mac: str = "", endpoint: str = ENDPOINT
) -> dict[str, object]:
    return host.call(
        "NetworkDriver.CreateEndpoint",
        {
            "NetworkID": NETWORK,
            "EndpointID": endpoint,
            "Interface": {"Address": address, "AddressIPv6": ipv6, "MacAddress": mac},
            "Options": {
                "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 99}],
                "com.docker.network.portmap": [
                    {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
                ],
            },
        },
    )


def join(
    host: LibnetworkHost, *, sandbox: str = "/run/docker/netns/e14ccc934819", endpoint: str = ENDPOINT
) -> dict[str, object]:
    request = {"NetworkID": NETWORK, "EndpointID": endpoint, "SandboxKey": sandbox, "Options": {}}
    return host.call("NetworkDriver.Join", request)


def create_network(
    host: LibnetworkHost,
    *,
    space: str = "CalicoGlobalAddressSpace",
    gateway: str = "0.0.0.0/0",
    options: Mapping[str, object] | None = None,
) -> dict[str, object]:
    named = {
        f"com.docker.network.{name}": value
        for name, value in {"enable_ipv6": False, "generic": {}, **(options or {})}.items()
    }
    data = [{"AddressSpace": space, "Pool": POOL, "Gateway": gateway, "AuxAddresses": {"x": "17.16.10.7/32"}}]
    return host.call(
        "NetworkDriver.CreateNetwork", {"NetworkID": NETWORK, "Options": named, "IPv4Data": data, "IPv6Data": []}
    )


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(PluginError) as error:
        call()
    assert error.value.status == 500
    return error.value.text


# --- what the driver says of itself


def test_capabilities(host: LibnetworkHost) -> None:
    assert host.call("NetworkDriver.GetCapabilities") == {"Scope": "global", "ConnectivityScope": "global"}


def test_the_scope_is_a_setting(faulty: FaultyStore, api: FakeEngine) -> None:
    host = LibnetworkHost(faulty, "node1", api, environ={"CALICO_LIBNETWORK_SCOPE": "local"})
    assert host.call("NetworkDriver.GetCapabilities") == {"Scope": "local", "ConnectivityScope": "local"}


def test_these_need_neither_docker_nor_the_store(host: LibnetworkHost, faulty: FaultyStore, api: FakeEngine) -> None:
    faulty.go_down()
    api.status = 500
    assert host.call("NetworkDriver.GetCapabilities")
    assert create_network(host) == {}
    assert host.call("NetworkDriver.EndpointOperInfo", IDS) == {"Value": {}}
    assert host.call("NetworkDriver.ProgramExternalConnectivity", {**IDS, "Options": {}}) == {}
    assert host.call("NetworkDriver.RevokeExternalConnectivity", IDS) == {}
    assert host.call("NetworkDriver.Leave", IDS) == {}
    discovery = {"DiscoveryType": 1, "DiscoveryData": {"Address": "10.77.0.2", "BindAddress": "", "Self": False}}
    assert host.call("NetworkDriver.DiscoverNew", discovery) == {}
    assert host.call("NetworkDriver.DiscoverDelete", discovery) == {}
    assert host.call("NetworkDriver.FreeNetwork", {"NetworkID": NETWORK}) == {}


def test_swarm_networks_are_refused_with_what_works_instead(host: LibnetworkHost) -> None:
    text = refused(lambda: host.call("NetworkDriver.AllocateNetwork", {"NetworkID": NETWORK, "Options": {}}))
    assert text.startswith("Calico driver does not support swarm networks")
    assert "CALICO_LIBNETWORK_SCOPE=local" in text


# --- networks


@pytest.mark.parametrize("space", ["CalicoGlobalAddressSpace", "CalicoLocalAddressSpace"])
def test_a_network_of_20_10_and_of_28(host: LibnetworkHost, faulty: FaultyStore, space: str) -> None:
    for _ in range(2):
        assert create_network(host, space=space) == {}
        assert create_network(host, space=space, options={"enable_ipv4": True}) == {}
    assert faulty.writes == 0


def test_a_network_with_ipv6_only(host: LibnetworkHost) -> None:
    data = [{"AddressSpace": "CalicoGlobalAddressSpace", "Pool": "fd00:17::/64", "Gateway": "::/0"}]
    options = {"com.docker.network.enable_ipv4": False, "com.docker.network.enable_ipv6": True}
    request = {"NetworkID": NETWORK, "Options": options, "IPv4Data": [], "IPv6Data": data}
    assert host.call("NetworkDriver.CreateNetwork", request) == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"internal": True}, "Calico driver does not support the flag --internal."),
        ({"generic": {"REJECT": ""}}, "Calico driver does not support the flag REJECT."),
        ({"generic": {"REJECT2": "1", "REJECT": ""}}, "Calico driver does not support the flags REJECT, REJECT2."),
        ({"generic": {"a": ""}, "internal": True}, "Calico driver does not support the flags a, --internal."),
    ],
)
def test_what_has_no_meaning_is_refused(host: LibnetworkHost, options: dict[str, object], sentence: str) -> None:
    text = refused(lambda: create_network(host, options=options))
    assert text.startswith(sentence)
    assert "knows no options (-o)" in text


@pytest.mark.parametrize(
    ("space", "gateway"),
    [("LocalDefault", "10.0.0.1/24"), ("GlobalDefault", "0.0.0.0/0"), ("CalicoGlobalAddressSpace", "17.16.10.1/24")],
)
def test_another_ipam_is_refused(host: LibnetworkHost, space: str, gateway: str) -> None:
    text = refused(lambda: create_network(host, space=space, gateway=gateway))
    assert text == "Non-Calico IPAM driver is used; give --ipam-driver calico-ipam as well"


def test_an_unknown_network_is_deleted_without_a_word(host: LibnetworkHost) -> None:
    assert host.call("NetworkDriver.DeleteNetwork", {"NetworkID": "0123" * 16}) == {}


# --- endpoints


def test_the_record_is_that_of_calicos_own_plugin(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    record = seeded.endpoints()[ENDPOINT]
    assert record.metadata.name == f"node1-libnetwork-libnetwork-{ENDPOINT}"
    assert record.metadata.labels == {
        "projectcalico.org/namespace": "libnetwork",
        "projectcalico.org/orchestrator": "libnetwork",
    }
    spec = record.spec
    assert (spec.orchestrator, spec.workload, spec.node, spec.endpoint) == (
        "libnetwork",
        "libnetwork",
        "node1",
        ENDPOINT,
    )
    assert spec.ip_networks == ["17.16.10.100/32"]
    assert spec.profiles == ["calico-net1"]
    assert spec.interface_name == HOST
    assert record.metadata.annotations["docker.projectcalico.org/network"] == "calico-net1"


def test_the_mac_is_made_unless_the_user_gave_one(host: LibnetworkHost, seeded: SeededStore) -> None:
    made = mac_of(ENDPOINT)
    assert create_endpoint(host) == {"Interface": {"MacAddress": made}}
    assert seeded.endpoints()[ENDPOINT].spec.mac == made
    assert create_endpoint(host, mac="02:11:22:33:44:55") == {"Interface": {}}
    assert seeded.endpoints()[ENDPOINT].spec.mac == "02:11:22:33:44:55"


def test_made_macs_are_unicast_local_and_differ() -> None:
    first, second = mac_of(ENDPOINT), mac_of("0" * 64)
    assert first != second
    for mac in (first, second):
        octets = bytes.fromhex(mac.replace(":", ""))
        assert len(octets) == 6
        assert octets[0] & 3 == 2


@pytest.mark.parametrize("address", ["17.16.10.100/32", "17.16.10.100/24", "17.16.10.100"])
def test_an_address_is_cut_to_one(host: LibnetworkHost, seeded: SeededStore, address: str) -> None:
    create_endpoint(host, address, ipv6="fd00:17::5/128")
    assert seeded.endpoints()[ENDPOINT].spec.ip_networks == ["17.16.10.100/32", "fd00:17::5/128"]


def test_no_address_at_all_is_refused(host: LibnetworkHost, faulty: FaultyStore) -> None:
    assert refused(lambda: create_endpoint(host, "")) == "No address assigned for endpoint"
    assert refused(lambda: host.call("NetworkDriver.CreateEndpoint", IDS)) == "No address assigned for endpoint"
    assert faulty.writes == 0


def test_a_name_that_docker_does_not_tell_fails_the_endpoint(
    host: LibnetworkHost, api: FakeEngine, faulty: FaultyStore
) -> None:
    api.status = 500
    assert "Engine API" in refused(lambda: create_endpoint(host))
    assert faulty.writes == 0


def test_creation_twice_is_creation_once(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    first = seeded.endpoints()[ENDPOINT]
    create_endpoint(host)
    assert seeded.endpoints() == {ENDPOINT: first}


def test_creation_again_keeps_what_others_wrote_into_the_record(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)

    def labelled(record: WorkloadEndpoint) -> WorkloadEndpoint:
        return replace(record, metadata=replace(record.metadata, labels={**record.metadata.labels, "role": "db"}))

    seeded.client.modify(KIND, seeded.endpoints()[ENDPOINT].metadata.name, labelled, "libnetwork")
    create_endpoint(host, "17.16.10.101/32")
    record = seeded.endpoints()[ENDPOINT]
    assert record.metadata.labels["role"] == "db"
    assert record.spec.ip_networks == ["17.16.10.101/32"]


def test_another_record_of_this_node_with_the_address_is_stale(host: LibnetworkHost, seeded: SeededStore) -> None:
    """dockerd was killed: it released the address and never deleted the endpoint."""
    create_endpoint(host, endpoint="0" * 64)
    join(host, endpoint="0" * 64)
    create_endpoint(host)
    assert seeded.endpoints().keys() == {ENDPOINT}
    assert host.links.links().keys() == {"lo"}


def test_a_stale_record_is_found_by_a_new_process_too(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host, endpoint="0" * 64)
    host.restart()
    create_endpoint(host)
    assert seeded.endpoints().keys() == {ENDPOINT}


def test_a_record_of_another_node_is_not_ours_to_remove(
    host: LibnetworkHost, seeded: SeededStore, faulty: FaultyStore, api: FakeEngine
) -> None:
    create_endpoint(LibnetworkHost(faulty, "node2", api), endpoint="0" * 64)
    create_endpoint(host)
    assert seeded.endpoints().keys() == {ENDPOINT, "0" * 64}


def test_deletion_takes_record_and_interface_and_may_be_repeated(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    join(host)
    for _ in range(2):
        assert host.call("NetworkDriver.DeleteEndpoint", IDS) == {}
        assert seeded.endpoints() == {}
        assert host.links.links().keys() == {"lo"}


def test_the_endpoint_of_a_lost_host_is_deleted_from_elsewhere(
    host: LibnetworkHost, seeded: SeededStore, faulty: FaultyStore, api: FakeEngine
) -> None:
    create_endpoint(host)
    elsewhere = LibnetworkHost(faulty, "node2", api)
    assert elsewhere.call("NetworkDriver.DeleteEndpoint", IDS) == {}
    assert seeded.endpoints() == {}


# --- join


def test_the_answer_of_20_10s_day(host: LibnetworkHost) -> None:
    create_endpoint(host)
    assert join(host) == {
        "InterfaceName": {"SrcName": CONTAINER, "DstPrefix": "cali"},
        "Gateway": "169.254.1.1",
        "GatewayIPv6": "",
        "StaticRoutes": [{"Destination": "169.254.1.1/32", "RouteType": 1, "NextHop": ""}],
        "DisableGatewayService": False,
    }


def test_the_interface_is_there_when_docker_comes_for_it(host: LibnetworkHost) -> None:
    create_endpoint(host)
    join(host)
    links = host.links.links()
    assert links[HOST].running
    assert links[CONTAINER].mac == mac_of(ENDPOINT)


def test_ipv6_only_with_an_ipv6_address(host: LibnetworkHost) -> None:
    create_endpoint(host, ipv6="fd00:17::5/128")
    answer = join(host)
    mac = host.links.links()[HOST].mac
    gateway = str(link_local_of(mac or ""))
    assert (answer["Gateway"], answer["GatewayIPv6"]) == ("169.254.1.1", gateway)
    assert answer["StaticRoutes"] == [
        {"Destination": "169.254.1.1/32", "RouteType": 1, "NextHop": ""},
        {"Destination": f"{gateway}/128", "RouteType": 1, "NextHop": ""},
    ]


def test_an_endpoint_with_ipv6_only_gets_no_nat_bridge_beside_it(host: LibnetworkHost) -> None:
    create_endpoint(host, "", ipv6="fd00:17::5/128")
    answer = join(host)
    assert answer["Gateway"] == ""
    assert answer["DisableGatewayService"] is True
    assert [route["Destination"] for route in answer["StaticRoutes"]] == [f"{answer['GatewayIPv6']}/128"]  # type: ignore[attr-defined]


def test_the_interface_prefix_is_a_setting(faulty: FaultyStore, api: FakeEngine) -> None:
    host = LibnetworkHost(faulty, "node1", api, environ={"CALICO_LIBNETWORK_IFPREFIX": "eth"})
    create_endpoint(host)
    assert join(host)["InterfaceName"] == {"SrcName": CONTAINER, "DstPrefix": "eth"}


def test_the_container_and_its_sandbox_are_noted(host: LibnetworkHost, seeded: SeededStore, api: FakeEngine) -> None:
    create_endpoint(host)
    api.networks[NETWORK].endpoints[ENDPOINT] = "docker-test1"
    join(host)
    annotations = seeded.endpoints()[ENDPOINT].metadata.annotations
    assert annotations["docker.projectcalico.org/container"] == "docker-test1"
    assert annotations["docker.projectcalico.org/sandbox"] == "/run/docker/netns/e14ccc934819"


def test_a_container_without_a_name_starts_all_the_same(host: LibnetworkHost, api: FakeEngine) -> None:
    create_endpoint(host)
    api.status = 500
    assert join(host)["Gateway"] == "169.254.1.1"


def test_join_twice_leaves_one_interface_and_one_answer(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    first = join(host), seeded.endpoints()
    assert (join(host), seeded.endpoints()) == first
    assert host.links.links().keys() == {"lo", HOST, CONTAINER}


def test_an_endpoint_without_a_record_cannot_join(host: LibnetworkHost) -> None:
    assert "has no record on node1" in refused(lambda: join(host))
    assert host.links.links().keys() == {"lo"}


@pytest.mark.parametrize("restarts", [False, True])
def test_each_endpoint_of_a_sandbox_has_a_next_hop_of_its_own(
    host: LibnetworkHost, seeded: SeededStore, restarts: bool
) -> None:
    ids = [str(digit) * 64 for digit in range(1, 5)]
    hops = []
    for number, endpoint in enumerate(ids):
        create_endpoint(host, f"17.16.10.{number}/32", endpoint=endpoint)
        if restarts:
            host.restart()
        hops.append(join(host, endpoint=endpoint)["Gateway"])
    assert hops == ["169.254.1.1", "169.254.1.2", "169.254.1.3", "169.254.1.4"]
    host.call("NetworkDriver.DeleteEndpoint", {"NetworkID": NETWORK, "EndpointID": ids[1]})
    create_endpoint(host, "17.16.10.9/32")
    assert join(host)["Gateway"] == "169.254.1.2"
    create_endpoint(host, "17.16.10.10/32", endpoint="f" * 64)
    assert join(host, endpoint="f" * 64, sandbox="/run/docker/netns/another")["Gateway"] == "169.254.1.1"
    assert [seeded.endpoints()[endpoint].spec.ipv4_gateway for endpoint in (ids[0], ids[2])] == ["", "169.254.1.3"]


def test_leave_removes_the_interface_and_keeps_the_record(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    join(host)
    for _ in range(2):
        assert host.call("NetworkDriver.Leave", IDS) == {}
        assert host.links.links().keys() == {"lo"}
    assert seeded.endpoints().keys() == {ENDPOINT}


# --- labels


@pytest.fixture
def labelling(faulty: FaultyStore, api: FakeEngine) -> LibnetworkHost:
    environ = {"CALICO_LIBNETWORK_LABEL_ENDPOINTS": "true", "CALICO_LIBNETWORK_LABEL_POLL_TIMEOUT": "100ms"}
    return LibnetworkHost(faulty, "node1", api, environ=environ)


def test_labels_of_the_container_are_on_the_endpoint_before_it_runs(
    labelling: LibnetworkHost, seeded: SeededStore, api: FakeEngine
) -> None:
    docker = FakeDockerd(labelling.call, api, ids=counted_ids())
    docker.network_create("calico-net2", POOL)
    labels = {"org.projectcalico.label.role": "db", "org.projectcalico.label.com.example/tier": "", "maintainer": "me"}
    endpoint = docker.run("db", "calico-net2", labels=labels)
    found = seeded.endpoints()[endpoint.id].metadata.labels
    assert {key: value for key, value in found.items() if not key.startswith("projectcalico.org/")} == {
        "role": "db",
        "com.example/tier": "",
    }


def test_without_the_setting_labels_stay_where_they_are(docker: FakeDockerd, seeded: SeededStore) -> None:
    docker.network_create("calico-net2", POOL)
    endpoint = docker.run("db", "calico-net2", labels={"org.projectcalico.label.role": "db"})
    assert "role" not in seeded.endpoints()[endpoint.id].metadata.labels


def test_a_container_whose_labels_are_not_told_does_not_start(labelling: LibnetworkHost, api: FakeEngine) -> None:
    create_endpoint(labelling)
    assert "did not tell the container's labels in time" in refused(lambda: join(labelling))
    api.status = 500
    assert "did not tell the container's labels in time" in refused(lambda: join(labelling))
    assert labelling.links.links().keys() == {"lo"}


@pytest.mark.parametrize(
    ("label", "value", "reason"),
    [
        ("org.projectcalico.label.", "x", "label key"),
        ("org.projectcalico.label.a b", "x", "label key"),
        ("org.projectcalico.label.a", "x y", "label value"),
        ("org.projectcalico.label.a", "v" * 64, "label value"),
        ("org.projectcalico.label.projectcalico.org/orchestrator", "k8s", "set by Calico itself"),
    ],
)
def test_a_label_that_policies_could_not_match_is_refused(label: str, value: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        endpoint_labels({label: value})


# --- profiles


def test_the_profile_lets_the_network_reach_itself_and_the_world(host: LibnetworkHost, seeded: SeededStore) -> None:
    create_endpoint(host)
    spec = seeded.profiles()["calico-net1"].spec
    assert spec.ingress == [Rule(action="Allow", source=EntityRule(selector="has(calico-net1)"))]
    assert spec.egress == [Rule(action="Allow")]
    assert spec.labels_to_apply == {"calico-net1": ""}


def test_the_profile_is_there_before_the_record(host: LibnetworkHost, faulty: FaultyStore, seeded: SeededStore) -> None:
    faulty.fail(2)
    with pytest.raises(PluginError):
        create_endpoint(host)
    assert list(seeded.profiles()) == ["calico-net1"]
    assert seeded.endpoints() == {}


def test_without_profiles_nothing_is_allowed_by_one(faulty: FaultyStore, api: FakeEngine, seeded: SeededStore) -> None:
    host = LibnetworkHost(faulty, "node1", api, environ={"CALICO_LIBNETWORK_CREATE_PROFILES": "false"})
    create_endpoint(host)
    api.status = 500
    create_endpoint(host, "17.16.10.101/32", endpoint="0" * 64)
    assert {tuple(record.spec.profiles) for record in seeded.endpoints().values()} == {()}
    assert seeded.profiles() == {}


# --- what the user reads


def test_a_failed_container_is_rolled_back(docker: FakeDockerd, host: LibnetworkHost, seeded: SeededStore) -> None:
    docker.network_create("calico-net2", POOL)
    docker.run("c1", "calico-net2")
    next_interface = IfName("cali" + "5000" * 2 + "500")
    host.links.refuse.add(next_interface)
    with pytest.raises(DockerError, match=f"cannot make the veth pair {next_interface}"):
        docker.run("c2", "calico-net2")
    assert len(seeded.endpoints()) == len(seeded.allocated()) == 1
    host.links.refuse.clear()
    docker.run("c2", "calico-net2")
    assert len(seeded.endpoints()) == len(seeded.allocated()) == 2
