"""Profiles of Docker networks: their names, and their life with the networks they were made for."""

import hashlib
import string
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes.dockerd import DockerError, FakeDockerd, counted_ids
from fakes.engine_api import FakeEngine
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from libnetwork.profiles import NETWORKS, profile_name
from resources.kinds.profile import KIND, Profile
from resources.kinds.rule import Rule
from resources.names import label_key_fault, name_fault

POOL = "17.16.10.0/24"


@pytest.fixture(autouse=True)
def _pool(seeded: SeededStore) -> None:
    seeded.add_pool("net1", POOL)


# --- names


@pytest.mark.parametrize("network", ["calico-net1", "a", "web.example.com", "0", "all", "x" * 63])
def test_a_network_name_that_fits_is_the_profiles_name(network: str) -> None:
    assert profile_name(network) == network


@pytest.mark.parametrize(
    ("network", "profile"),
    [
        ("Web_Tier", "web-tier-38278387"),
        ("my_app_default", "my-app-default-" + hashlib.sha1(b"my_app_default").hexdigest()[:8]),
        ("x" * 64, "x" * 54 + "-" + hashlib.sha1(b"x" * 64).hexdigest()[:8]),
        ("___", "network-" + hashlib.sha1(b"___").hexdigest()[:8]),
    ],
)
def test_any_other_is_cut_and_hashed(network: str, profile: str) -> None:
    assert profile_name(network) == profile


def test_a_network_is_not_given_the_profile_that_allows_everything() -> None:
    assert profile_name("projectcalico-default-allow") != "projectcalico-default-allow"


DOCKER_NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=80)


@given(DOCKER_NAMES | st.text(min_size=1, max_size=80))
@example("-")
@example("a" * 53 + "." + "b" * 20)
@example("İ")
def test_every_network_has_a_profile_that_can_be_named_and_selected(network: str) -> None:
    name = profile_name(network)
    assert name_fault(name) is None
    assert label_key_fault(name) is None


@given(DOCKER_NAMES, DOCKER_NAMES)
@example("Web", "web")
@example("a_b", "a-b")
def test_two_networks_have_two_profiles(one: str, other: str) -> None:
    assert (profile_name(one) == profile_name(other)) is (one == other)


# --- their life


def change(seeded: SeededStore, name: str, edit: Callable[[Profile], Profile]) -> None:
    seeded.client.modify(KIND, name, edit)


def test_the_profile_comes_with_the_first_container_and_goes_with_the_network(
    docker: FakeDockerd, seeded: SeededStore
) -> None:
    network = docker.network_create("calico-net1", POOL)
    assert seeded.profiles() == {}
    docker.run("c1", "calico-net1")
    assert seeded.profiles()["calico-net1"].metadata.annotations == {NETWORKS: network.id}
    docker.rm("c1")
    assert seeded.profiles().keys() == {"calico-net1"}
    docker.network_rm("calico-net1")
    assert seeded.profiles() == {}


def test_it_goes_although_docker_tells_no_name_any_more_and_the_process_is_another(
    docker: FakeDockerd, host: LibnetworkHost, seeded: SeededStore
) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    docker.rm("c1")
    host.restart()
    docker.network_rm("calico-net1")
    assert docker.errors == []
    assert seeded.profiles() == {}


def test_a_profile_that_was_there_is_neither_changed_nor_removed(docker: FakeDockerd, seeded: SeededStore) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    change(seeded, "calico-net1", lambda profile: replace(profile, metadata=replace(profile.metadata, annotations={})))
    before = seeded.profiles()
    docker.run("c2", "calico-net1")
    docker.rm("c1")
    docker.rm("c2")
    docker.network_rm("calico-net1")
    assert seeded.profiles() == before


def test_a_profile_that_somebody_changed_stays(docker: FakeDockerd, seeded: SeededStore) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    rules = [Rule(action="Deny")]
    change(seeded, "calico-net1", lambda profile: replace(profile, spec=replace(profile.spec, egress=rules)))
    docker.rm("c1")
    docker.network_rm("calico-net1")
    assert seeded.profiles()["calico-net1"].spec.egress == rules
    assert NETWORKS not in seeded.profiles()["calico-net1"].metadata.annotations


def test_a_profile_that_was_deleted_by_hand_is_made_again(docker: FakeDockerd, seeded: SeededStore) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    seeded.client.delete(KIND, "calico-net1")
    docker.run("c2", "calico-net1")
    assert seeded.profiles().keys() == {"calico-net1"}


def test_networks_of_one_name_on_two_hosts_share_a_profile_until_the_last_goes(
    docker: FakeDockerd, faulty: FaultyStore, seeded: SeededStore
) -> None:
    """Without a cluster store each host has a network of its own."""
    there = FakeEngine(docker.engine.path)
    elsewhere = FakeDockerd(LibnetworkHost(faulty, "node2", there).call, there, ids=lambda: "f" * 64)
    for dockerd in (docker, elsewhere):
        dockerd.network_create("calico-net1", POOL)
        dockerd.run("c1", "calico-net1")
    docker.rm("c1")
    docker.network_rm("calico-net1")
    assert seeded.profiles()["calico-net1"].metadata.annotations == {NETWORKS: "f" * 64}
    elsewhere.rm("c1")
    elsewhere.network_rm("calico-net1")
    assert seeded.profiles() == {}


def test_a_profile_that_an_endpoint_still_names_stays(
    docker: FakeDockerd, host: LibnetworkHost, seeded: SeededStore
) -> None:
    network = docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    assert host.call("NetworkDriver.DeleteNetwork", {"NetworkID": network.id}) == {}
    assert seeded.profiles().keys() == {"calico-net1"}


def test_without_profiles_none_is_removed(
    docker: FakeDockerd, faulty: FaultyStore, api: FakeEngine, seeded: SeededStore
) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    docker.rm("c1")
    off = LibnetworkHost(faulty, "node1", api, environ={"CALICO_LIBNETWORK_CREATE_PROFILES": "false"})
    off.call("NetworkDriver.DeleteNetwork", {"NetworkID": docker.networks["calico-net1"].id})
    assert seeded.profiles().keys() == {"calico-net1"}


@pytest.mark.parametrize("nth", [1, 2])
def test_two_hosts_that_make_the_profile_at_once(
    docker: FakeDockerd, faulty: FaultyStore, seeded: SeededStore, nth: int
) -> None:
    """The other host creates, or removes, the profile just before our write."""
    there = FakeEngine(docker.engine.path)
    elsewhere = FakeDockerd(LibnetworkHost(seeded.store, "node2", there).call, there, ids=lambda: "f" * 64)
    elsewhere.network_create("calico-net1", POOL)
    docker.network_create("calico-net1", POOL)

    def other_comes() -> None:
        elsewhere.run("c1", "calico-net1")

    def other_goes() -> None:
        elsewhere.rm("c1")
        elsewhere.network_rm("calico-net1")

    faulty.before(2, other_comes)  # the first write takes the address
    if nth == 2:
        faulty.before(3, other_goes)
    docker.run("c1", "calico-net1")
    ids = seeded.profiles()["calico-net1"].metadata.annotations[NETWORKS].split(",")
    assert docker.networks["calico-net1"].id in ids
    assert ("f" * 64 in ids) is (nth == 1)


def test_a_profile_that_another_host_begins_to_use_while_we_remove_it_stays(
    docker: FakeDockerd, faulty: FaultyStore, seeded: SeededStore
) -> None:
    there = FakeEngine(docker.engine.path)
    elsewhere = FakeDockerd(LibnetworkHost(seeded.store, "node2", there).call, there, ids=lambda: "f" * 64)
    elsewhere.network_create("calico-net1", POOL)
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    docker.rm("c1")
    faulty.before(1, lambda: elsewhere.run("c1", "calico-net1"))
    docker.network_rm("calico-net1")
    assert seeded.profiles()["calico-net1"].metadata.annotations == {NETWORKS: "f" * 64}


def test_a_network_in_use_refuses_and_keeps_its_profile(docker: FakeDockerd, seeded: SeededStore) -> None:
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1")
    with pytest.raises(DockerError, match="has active endpoints"):
        docker.network_rm("calico-net1")
    assert seeded.profiles().keys() == {"calico-net1"}


def test_identifiers_of_the_fake_differ() -> None:
    ids = counted_ids()
    made = [ids() for _ in range(300)]
    assert len({identifier[:11] for identifier in made}) == 300
    assert {len(identifier) for identifier in made} == {64}
