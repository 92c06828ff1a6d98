"""Docker's IPAM calls, with requests as Docker 20.10 and 28 send them (reference libnetwork.md 3)."""

import re
import time

import pytest

from fakes.dockerd import FakeDockerd, counted_ids
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from fakes.plugin_client import Json, PluginError
from ipam.allocator import Allocator
from ipam.handle import new_handle
from resources.names import NodeName, parse_address

POOL = "17.16.10.0/24"
GLOBAL, LOCAL = "CalicoGlobalAddressSpace", "CalicoLocalAddressSpace"
GATEWAY = "com.docker.network.gateway"


@pytest.fixture(autouse=True)
def _pools(seeded: SeededStore) -> None:
    seeded.add_pool("net1", POOL)
    seeded.add_pool("six", "fd00:17::/64")
    seeded.add_pool("off", "173.20.19.0/24", disabled=True)


def request_pool(
    host: LibnetworkHost, pool: str = "", *, space: str = GLOBAL, sub_pool: str = "", v6: bool = False,
    options: dict[str, str] | None = None,
) -> dict[str, object]:
    return host.call(
        "IpamDriver.RequestPool",
        {"AddressSpace": space, "Pool": pool, "SubPool": sub_pool, "Options": options or {}, "V6": v6},
    )


def request_address(host: LibnetworkHost, pool_id: str = POOL, address: str = "", **options: str) -> str:
    given = options or None
    answer = host.call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": address, "Options": given})
    assert answer["Data"] == {}
    return str(answer["Address"])


def release_address(host: LibnetworkHost, address: str, pool_id: str = POOL) -> None:
    bare = address.partition("/")[0]
    assert host.call("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": bare}) == {}


def refused(host: LibnetworkHost, call: str, request: Json) -> str:
    with pytest.raises(PluginError) as error:
        host.call(f"IpamDriver.{call}", request)
    assert error.value.status == 500
    return error.value.text


# --- what the driver says of itself


def test_capabilities_and_address_spaces(host: LibnetworkHost) -> None:
    assert host.call("IpamDriver.GetCapabilities") == {"RequiresMACAddress": False, "RequiresRequestReplay": False}
    assert host.call("IpamDriver.GetDefaultAddressSpaces") == {
        "LocalDefaultAddressSpace": LOCAL, "GlobalDefaultAddressSpace": GLOBAL,
    }


# --- pools


@pytest.mark.parametrize("space", [GLOBAL, LOCAL])
def test_a_subnet_equal_to_a_pool(host: LibnetworkHost, space: str) -> None:
    for _ in range(2):
        assert request_pool(host, POOL, space=space) == {
            "PoolID": POOL, "Pool": POOL, "Data": {GATEWAY: "0.0.0.0/0"},
        }
    assert request_pool(host, "fd00:17::/64", space=space, v6=True) == {
        "PoolID": "fd00:17::/64", "Pool": "fd00:17::/64", "Data": {GATEWAY: "::/0"},
    }


@pytest.mark.parametrize("text", ["17.16.10.7/24", "17.16.10.0/255.255.255.0"])
def test_a_subnet_is_compared_after_masking(host: LibnetworkHost, text: str) -> None:
    assert request_pool(host, text)["PoolID"] == POOL


def test_a_subnet_in_no_pool_is_told_the_pools_and_the_way_out(host: LibnetworkHost) -> None:
    assert refused(host, "RequestPool", {"AddressSpace": GLOBAL, "Pool": "10.1.0.0/24"}) == (
        "The requested subnet must match the CIDR of a configured Calico IP Pool. Subnet 10.1.0.0/24 is in no pool;"
        " pools are 17.16.10.0/24, 173.20.19.0/24 (disabled), fd00:17::/64; create one with calicoctl create -f"
    )


def test_a_part_of_a_pool_is_refused_with_the_pool(host: LibnetworkHost) -> None:
    assert refused(host, "RequestPool", {"AddressSpace": GLOBAL, "Pool": "17.16.10.64/26"}) == (
        "The requested subnet must match the CIDR of a configured Calico IP Pool. Subnet 17.16.10.64/26 is only a part"
        " of pool 17.16.10.0/24 (net1); give --subnet 17.16.10.0/24"
    )


def test_a_disabled_pool_is_refused_at_once(host: LibnetworkHost) -> None:
    text = refused(host, "RequestPool", {"AddressSpace": GLOBAL, "Pool": "173.20.19.0/24"})
    assert text.startswith("The requested subnet must match the CIDR of a configured Calico IP Pool. Pool 173.20.19.0")
    assert "disabled" in text


@pytest.mark.parametrize(
    ("request_", "first"),
    [
        ({"Pool": "nonsense"}, "Invalid CIDR"),
        ({"Pool": POOL, "Options": {"com.example": "1"}}, "Arbitrary options are not supported"),
        (
            {"Pool": POOL, "SubPool": "17.16.10.128/25"},
            "Calico IPAM does not support sub pool configuration on 'docker create network'. Calico IP Pools should be"
            " configured first and IP assignment is from those pre-configured pools.",
        ),
    ],
)
def test_known_refusals(host: LibnetworkHost, request_: dict[str, object], first: str) -> None:
    assert refused(host, "RequestPool", {"AddressSpace": GLOBAL, **request_}).startswith(first)


def test_without_a_subnet_a_shared_network_is_told_the_pool_it_got(host: LibnetworkHost) -> None:
    assert request_pool(host) == {"PoolID": POOL, "Pool": POOL, "Data": {GATEWAY: "0.0.0.0/0"}}
    assert request_pool(host, v6=True)["Pool"] == "fd00:17::/64"


def test_without_a_subnet_a_network_of_one_host_is_given_no_pool_that_docker_would_refuse(host: LibnetworkHost) -> None:
    """Docker asks again for ever when a pool overlaps a route of the host; only 0.0.0.0/0 is excepted."""
    assert request_pool(host, space=LOCAL) == {
        "PoolID": "CalicoPoolIPv4", "Pool": "0.0.0.0/0", "Data": {GATEWAY: "0.0.0.0/0"},
    }
    text = refused(host, "RequestPool", {"AddressSpace": LOCAL, "Pool": "", "V6": True})
    assert "give --subnet" in text


@pytest.mark.parametrize("space", [GLOBAL, LOCAL])
def test_without_any_pool_the_way_to_one_is_told(host: LibnetworkHost, seeded: SeededStore, space: str) -> None:
    seeded.remove_pool("net1")
    text = refused(host, "RequestPool", {"AddressSpace": space, "Pool": ""})
    assert text == (
        "There is no IPv4 pool that could give addresses to containers; pools are 173.20.19.0/24 (disabled),"
        " fd00:17::/64; create one with calicoctl create -f"
    )


def test_pools_that_are_not_for_every_container_are_not_chosen(host: LibnetworkHost, seeded: SeededStore) -> None:
    seeded.add_pool("a-manual", "10.1.0.0/24", assignment_mode="Manual")
    seeded.add_pool("a-tunnels", "10.2.0.0/24", allowed_uses=["Tunnel"])
    seeded.add_pool("a-rack", "10.3.0.0/24", node_selector="rack == '1'")
    assert request_pool(host)["Pool"] == POOL


def test_a_pool_is_released_without_a_word(host: LibnetworkHost) -> None:
    for pool_id in (POOL, "CalicoPoolIPv4", "unheard"):
        assert host.call("IpamDriver.ReleasePool", {"PoolID": pool_id}) == {}


# --- addresses


def test_an_address_of_the_pool_is_given_whole(host: LibnetworkHost) -> None:
    assert re.fullmatch(r"17\.16\.10\.(0|64|128|192)/32", request_address(host)), "the first address of a block"


def test_an_ipv6_address_is_128_long(host: LibnetworkHost) -> None:
    assert re.fullmatch(r"fd00:17::[0-9a-f:]*/128", request_address(host, "fd00:17::/64"))


@pytest.mark.parametrize("pool_id", [POOL, "net1", "CalicoPoolIPv4"])
def test_all_forms_of_pool_ids(host: LibnetworkHost, pool_id: str) -> None:
    assert request_address(host, pool_id).startswith("17.16.10.")


def test_the_id_of_any_ipv6_pool(host: LibnetworkHost) -> None:
    assert request_address(host, "CalicoPoolIPv6").startswith("fd00:17:")


def test_each_address_has_a_handle_of_its_own_and_says_whose_it_is(host: LibnetworkHost, seeded: SeededStore) -> None:
    addresses = [request_address(host), request_address(host, address="17.16.10.99")]
    allocations = [seeded.allocation(address.partition("/")[0]) for address in addresses]
    assert len({allocation.handle for allocation in allocations if allocation}) == 2
    for allocation in allocations:
        assert allocation is not None
        assert re.fullmatch("docker-[0-9a-f]{32}", allocation.handle or "")
        attributes = dict(allocation.attributes)
        stamp = time.strptime(attributes.pop("timestamp"), "%Y-%m-%dT%H:%M:%SZ")
        assert attributes == {"node": "node1", "type": "docker"}
        assert abs(time.mktime(stamp) - time.mktime(time.gmtime())) < 60


def test_the_address_asked_for_is_given(host: LibnetworkHost) -> None:
    assert request_address(host, address="17.16.10.100") == "17.16.10.100/32"
    assert request_address(host, "fd00:17::/64", "fd00:17::77") == "fd00:17::77/128"


def test_an_address_in_use_is_refused_with_its_holder(host: LibnetworkHost, docker: FakeDockerd) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("docker-test1", "calico-net1", ip="17.16.10.100")
    request = {"PoolID": POOL, "Address": "17.16.10.100", "Options": None}
    text = "Address 17.16.10.100 is already in use by container docker-test1 on node1; choose another one"
    assert refused(host, "RequestAddress", request).startswith(text)


def test_an_address_in_use_without_an_endpoint_is_refused_with_its_node(host: LibnetworkHost) -> None:
    request_address(host, address="17.16.10.100")
    text = refused(host, "RequestAddress", {"PoolID": POOL, "Address": "17.16.10.100", "Options": None})
    assert text.startswith("Address 17.16.10.100 is already in use on node1;")


@pytest.mark.parametrize("address", ["10.1.1.1", "173.20.19.5"])
def test_an_address_in_no_enabled_pool_is_refused(host: LibnetworkHost, address: str) -> None:
    text = refused(host, "RequestAddress", {"PoolID": POOL, "Address": address, "Options": None})
    assert text.startswith(f"Address {address} is in no enabled pool; pools are 17.16.10.0/24, ")
    assert "calicoctl create -f" in text


@pytest.mark.parametrize("address", ["", "17.16.10.1"])
def test_a_gateway_is_refused(host: LibnetworkHost, address: str) -> None:
    text = refused(
        host, "RequestAddress", {"PoolID": POOL, "Address": address, "Options": {"RequestAddressType": GATEWAY}}
    )
    assert text.startswith("Calico IPAM does not support specifying a gateway.")


@pytest.mark.parametrize("pool_id", ["net1", POOL])
@pytest.mark.parametrize("address", [""])
def test_a_pool_that_was_deleted(host: LibnetworkHost, seeded: SeededStore, pool_id: str, address: str) -> None:
    seeded.remove_pool("net1")
    text = refused(host, "RequestAddress", {"PoolID": pool_id, "Address": address, "Options": None})
    assert text.startswith(
        "The network references a Calico pool which has been deleted. Please re-instate the Calico pool before using"
        " the network."
    )
    assert pool_id in text


def test_a_full_pool_says_so(host: LibnetworkHost, seeded: SeededStore) -> None:
    seeded.add_pool("tiny", "10.9.0.0/30", block_size=30)
    for _ in range(4):
        request_address(host, "10.9.0.0/30")
    text = refused(host, "RequestAddress", {"PoolID": "10.9.0.0/30", "Address": "", "Options": None})
    assert "No IPs available in pools: [10.9.0.0/30]" in text


def test_addresses_come_from_the_networks_own_pool(host: LibnetworkHost, seeded: SeededStore) -> None:
    seeded.add_pool("another", "10.9.0.0/24")
    assert request_address(host, "10.9.0.0/24").startswith("10.9.0.")
    assert request_address(host, POOL).startswith("17.16.10.")


# --- releases


def test_an_address_released_is_free_and_a_repeat_changes_nothing(host: LibnetworkHost, seeded: SeededStore) -> None:
    address = request_address(host)
    for _ in range(2):
        release_address(host, address)
        assert seeded.allocated() == {}
        assert seeded.handles() == []


def test_a_new_process_releases_what_the_old_one_gave(host: LibnetworkHost, seeded: SeededStore) -> None:
    address = request_address(host)
    host.restart()
    release_address(host, address)
    assert seeded.allocated() == {}


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_made_up_gateway_is_released_without_asking_the_store(
    host: LibnetworkHost, faulty: FaultyStore, address: str
) -> None:
    faulty.go_down()
    release_address(host, address)


@pytest.mark.parametrize("address", ["17.16.10.5", "8.8.8.8", "fd00:17::5"])
def test_what_was_never_assigned_is_released_without_a_word(host: LibnetworkHost, address: str) -> None:
    release_address(host, address)


def test_the_address_of_somebody_else_by_now_is_kept(host: LibnetworkHost, seeded: SeededStore) -> None:
    """Given, released behind our back, and given to another: Docker's late word must not free it."""
    address = request_address(host).partition("/")[0]
    other = Allocator(seeded.store, NodeName("node2"))
    allocation = seeded.allocation(address)
    assert allocation is not None
    assert allocation.handle
    other.release_by_handle(allocation.handle)
    other.assign(parse_address(address), handle=new_handle(), attributes={"node": "node2", "type": "docker"})
    release_address(host, address)
    assert seeded.allocated().keys() == {parse_address(address)}


def stamp(age_seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age_seconds))


@pytest.mark.parametrize(
    ("attributes", "age_seconds", "released"),
    [
        ({"node": "node1", "type": "docker"}, None, True),
        ({"node": "node1"}, None, True),
        ({"node": "node2", "type": "docker"}, 3600, True),
        ({"node": "node2", "type": "docker"}, None, True),
        ({"node": "node2", "type": "docker"}, 1, False),
        ({"node": "node1", "type": "ipipTunnelAddress"}, None, False),
        ({"node": "node2", "type": "vxlanTunnelAddress"}, None, False),
    ],
)
def test_who_may_release_what_this_process_did_not_give(
    host: LibnetworkHost, seeded: SeededStore, attributes: dict[str, str], age_seconds: float | None, released: bool
) -> None:
    address = parse_address("17.16.10.5")
    if age_seconds is not None:
        attributes = {**attributes, "timestamp": stamp(age_seconds)}
    Allocator(seeded.store, NodeName("node2")).assign(address, handle=new_handle(), attributes=attributes)
    release_address(host, "17.16.10.5")
    assert (seeded.allocation(address) is None) is released


def test_the_address_of_an_endpoint_on_another_node_is_kept(
    host: LibnetworkHost, docker: FakeDockerd, seeded: SeededStore, faulty: FaultyStore
) -> None:
    """However long ago it was assigned; when the endpoint is gone, Docker's word is good."""
    docker.network_create("calico-net1", POOL)
    endpoint = docker.run("docker-test1", "calico-net1", ip="17.16.10.100")
    address = parse_address("17.16.10.100")
    elsewhere = LibnetworkHost(faulty, "node2", host.api, now=lambda: time.time() + 3600)
    release_address(elsewhere, "17.16.10.100")
    assert seeded.allocated().keys() == {address}
    FakeDockerd(elsewhere.call, docker.engine, ids=counted_ids()).disconnect_by_force(endpoint)
    assert seeded.allocated() == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_the_container_of_a_lost_host_is_disconnected_from_elsewhere(
    host: LibnetworkHost, docker: FakeDockerd, seeded: SeededStore, faulty: FaultyStore, restarted: bool
) -> None:
    """Just started or not: its endpoint was removed a moment before. A new process is only more careful."""
    docker.network_create("calico-net1", POOL)
    endpoint = docker.run("docker-test1", "calico-net1")
    elsewhere = LibnetworkHost(faulty, "node2", host.api)
    ids = {"NetworkID": endpoint.network.id, "EndpointID": endpoint.id}
    elsewhere.call("NetworkDriver.DeleteEndpoint", ids)
    if restarted:
        elsewhere.restart()
    release_address(elsewhere, endpoint.addresses[POOL])
    assert seeded.endpoints() == {}
    assert (seeded.allocated() == {}) is not restarted


def test_what_is_no_address_is_refused(host: LibnetworkHost) -> None:
    assert "is not an address" in refused(host, "ReleaseAddress", {"PoolID": POOL, "Address": "x"})
    assert "is not an address" in refused(host, "RequestAddress", {"PoolID": POOL, "Address": "x"})


# --- the store in trouble


def test_a_store_that_is_down_is_named(host: LibnetworkHost, faulty: FaultyStore) -> None:
    faulty.go_down("connection refused")
    text = refused(host, "RequestPool", {"AddressSpace": GLOBAL, "Pool": POOL})
    assert "connection refused" in text


def test_an_answer_that_is_lost_is_looked_for(host: LibnetworkHost, faulty: FaultyStore, seeded: SeededStore) -> None:
    faulty.lose_answer(1)
    address = request_address(host).partition("/")[0]
    assert seeded.allocated().keys() == {parse_address(address)}


@pytest.mark.parametrize("after", [False, True])
def test_a_release_cut_by_death_is_completed_by_the_next(
    host: LibnetworkHost, faulty: FaultyStore, seeded: SeededStore, after: bool
) -> None:
    address = request_address(host)
    faulty.kill(1, after=after)
    with pytest.raises(Exception, match="ReleaseAddress"):
        release_address(host, address)
    release_address(host, address)
    assert seeded.allocated() == {}
    assert seeded.handles() == []
