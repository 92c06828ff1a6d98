"""The typed client: what each write does to the store, and what it says when it may not."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fakes.clock import ManualClock
from fakes.faulty_store import FaultyStore
from resources.codec import BadRecord
from resources.datastore.client import ResourceClient
from resources.datastore.keys import (
    ResourceKey,
    block_key,
    felix_last_status_key,
    felix_status_key,
    resource_key,
)
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction
from resources.errors import (
    AlreadyExists,
    DoesNotExist,
    OperationNotSupported,
    Rejected,
    StoreUnavailable,
    UpdateConflict,
)
from resources.invalid import InvalidResource
from resources.kinds.base import Kind, Metadata
from resources.kinds.bgpconfiguration import KIND as BGP
from resources.kinds.clusterinformation import KIND as CLUSTER
from resources.kinds.clusterinformation import ClusterInformation, ClusterInformationSpec
from resources.kinds.felixconfiguration import KIND as FELIX
from resources.kinds.globalnetworkpolicy import KIND as POLICY
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy, GlobalNetworkPolicySpec
from resources.kinds.networkpolicy import KIND as NETWORK_POLICY
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec, NodeStatus
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.profile import Profile, ProfileSpec
from resources.kinds.stagedglobalnetworkpolicy import KIND as STAGED_GLOBAL_POLICY
from resources.kinds.stagednetworkpolicy import KIND as STAGED_POLICY
from resources.kinds.tier import KIND as TIER
from resources.kinds.tier import Tier, TierSpec
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.kinds.workloadendpoint import WorkloadEndpoint, WorkloadEndpointSpec
from resources.names import IPAddress, IPNetwork, NodeName, parse_network

NOW = datetime(2026, 11, 21, 10, 0, 41, tzinfo=UTC)
ROOT = "/calico/resources/v3/projectcalico.org/"


class FakeIpam:
    """Records what it is told to release, and how the store looked then."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.pools: list[tuple[IPNetwork, bool]] = []
        self.nodes: list[tuple[NodeName, list[str]]] = []
        self.during: Callable[[], object] = lambda: None

    def release_pool(self, pool: IPNetwork) -> None:
        disabled = all(
            json.loads(item.value)["spec"].get("disabled")
            for item in self._store.list(f"{ROOT}ippools/").items
            if json.loads(item.value)["spec"]["cidr"] == str(pool)
        )
        self.pools.append((pool, disabled))
        self.during()

    def release_node(self, node: NodeName, addresses: Sequence[IPAddress]) -> None:
        assert self._store.get(f"{ROOT}nodes/{node}") is not None
        self.nodes.append((node, sorted(map(str, addresses))))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def faulty(store: MemoryStore) -> FaultyStore:
    return FaultyStore(store)


@pytest.fixture
def ipam(store: MemoryStore) -> FakeIpam:
    return FakeIpam(store)


@pytest.fixture
def client(faulty: FaultyStore, ipam: FakeIpam) -> ResourceClient:
    return ResourceClient(faulty, ipam=ipam, clock=ManualClock(), now=lambda: NOW)


def put(store: MemoryStore, key: str, value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    store.commit(Transaction(puts={ROOT + key: data}))


def at(store: MemoryStore, key: str) -> dict[str, Any]:
    item = store.get(ROOT + key)
    assert item is not None, f"{key} is not in the store"
    document = json.loads(item.value)
    assert isinstance(document, dict)
    return document


def pool(name: str, cidr: str, **spec: Any) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **spec))


def policy(name: str, **spec: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(metadata=Metadata(name=name), spec=GlobalNetworkPolicySpec(**spec))


def profile(name: str, **labels: str) -> Profile:
    return Profile(metadata=Metadata(name=name), spec=ProfileSpec(labels_to_apply=labels))


def labelled(resource: Any, **labels: str) -> Any:
    return msgspec.structs.replace(resource, metadata=msgspec.structs.replace(resource.metadata, labels=labels))


def versioned(resource: Any, version: str) -> Any:
    metadata = msgspec.structs.replace(resource.metadata, resource_version=version)
    return msgspec.structs.replace(resource, metadata=metadata)


# --- create


def test_create_writes_a_complete_resource_with_uid_and_time(client: ResourceClient, store: MemoryStore) -> None:
    given = IPPool(
        metadata=Metadata(name="a", uid="mine", creation_timestamp="2020-01-01T00:00:00Z", labels={"site": "east"}),
        spec=IPPoolSpec(cidr="10.0.0.0/24"),
    )
    created = client.create(POOL, given)
    written = at(store, "ippools/a")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", written["metadata"]["uid"])
    assert written["metadata"]["creationTimestamp"] == "2026-11-21T10:00:41Z"
    assert written["metadata"]["labels"] == {"site": "east"}
    assert "resourceVersion" not in written["metadata"]
    assert written["spec"]["allowedUses"] == ["Workload", "Tunnel"]
    item = store.get(ROOT + "ippools/a")
    assert item is not None
    assert created.metadata.resource_version == str(item.revision)
    assert created == client.get(POOL, "a")


def test_create_refuses_what_exists(client: ResourceClient, store: MemoryStore) -> None:
    client.create(POOL, pool("a", "10.0.0.0/24"))
    before = store.get(ROOT + "ippools/a")
    with pytest.raises(AlreadyExists, match=r"^resource already exists: IPPool\(a\)$"):
        client.create(POOL, pool("a", "10.0.0.0/24"))
    with pytest.raises(AlreadyExists):
        client.create(POOL, pool("a", "10.1.0.0/24"))
    assert store.get(ROOT + "ippools/a") == before


def test_create_refuses_a_resource_version(client: ResourceClient) -> None:
    with pytest.raises(InvalidResource) as caught:
        client.create(POOL, versioned(pool("a", "10.0.0.0/24"), "5"))
    assert str(caught.value) == (
        "error with field metadata.resourceVersion = '5' (field must not be set for a Create request)"
    )


def test_several_faults_are_told_together(client: ResourceClient, store: MemoryStore) -> None:
    with pytest.raises(InvalidResource) as caught:
        client.create(POOL, pool("UPPER", "10.0.0.0/24", block_size=19, ipip_mode="Always", vxlan_mode="Always"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "error with the following fields:"
    assert len(lines) == 4
    assert all(line.startswith("-  ") for line in lines[1:])
    assert store.list("").items == ()


def test_public_space_is_no_error_of_the_client(client: ResourceClient) -> None:
    assert client.create(POOL, pool("a", "17.16.10.0/24")).spec.cidr == "17.16.10.0/24"


def test_a_namespaced_kind_needs_a_namespace_and_a_global_one_has_none(client: ResourceClient) -> None:
    with pytest.raises(Rejected, match="namespace is not specified on namespaced resource"):
        client.create(ENDPOINT, WorkloadEndpoint(metadata=Metadata(name="x")))
    with pytest.raises(Rejected, match="IPPool is not a namespaced resource"):
        client.get(POOL, "a", "libnetwork")


def test_a_lost_answer_of_a_create_is_settled(client: ResourceClient, faulty: FaultyStore) -> None:
    faulty.lose_answer(1)
    created = client.create(PROFILE, profile("a"))
    assert created == client.get(PROFILE, "a")


def test_a_create_that_takes_effect_late_takes_effect_once(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    faulty.delay(1)
    created = client.create(PROFILE, profile("a"))
    before = store.get(ROOT + "profiles/a")
    faulty.deliver()
    assert store.get(ROOT + "profiles/a") == before
    assert created.metadata.uid == at(store, "profiles/a")["metadata"]["uid"]


def test_a_create_that_meets_another_while_unknown_loses(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    faulty.delay(1)
    faulty.before(2, lambda: put(store, "profiles/a", {"metadata": {"name": "a", "uid": "other"}, "spec": {}}))
    with pytest.raises(AlreadyExists):
        client.create(PROFILE, profile("a"))
    assert at(store, "profiles/a")["metadata"]["uid"] == "other"


def test_a_store_that_never_answers_is_told(client: ResourceClient, faulty: FaultyStore) -> None:
    for nth in range(1, 20):
        faulty.delay(nth)
    with pytest.raises(StoreUnavailable, match=r"did not say whether it took the write of Profile\(a\)"):
        client.create(PROFILE, profile("a"))


def test_a_store_that_is_away_is_told_at_once(client: ResourceClient, faulty: FaultyStore) -> None:
    faulty.go_down()
    with pytest.raises(StoreUnavailable):
        client.create(PROFILE, profile("a"))
    assert faulty.writes == 0


# --- update, apply, modify


def test_update_replaces_spec_labels_and_annotations_and_keeps_the_rest(
    client: ResourceClient, store: MemoryStore
) -> None:
    put(
        store,
        "profiles/a",
        {
            "metadata": {"name": "a", "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"old": "1"},
                         "annotations": {"note": "x"}, "finalizers": ["f"]},
            "spec": {"labelsToApply": {"a": ""}, "newer": 5},
        },
    )  # fmt: skip
    updated = client.update(PROFILE, labelled(profile("a", b=""), new="2"))
    written = at(store, "profiles/a")
    assert written["metadata"] == {
        "name": "a", "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"new": "2"},
        "finalizers": ["f"],
    }  # fmt: skip
    assert written["spec"] == {"labelsToApply": {"b": ""}, "newer": 5}
    assert updated == client.get(PROFILE, "a")


def test_update_of_nothing(client: ResourceClient) -> None:
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: Profile\(a\)$"):
        client.update(PROFILE, profile("a"))


def test_update_at_an_old_version_conflicts(client: ResourceClient) -> None:
    first = client.create(PROFILE, profile("a"))
    second = client.update(PROFILE, versioned(profile("a", x=""), first.metadata.resource_version))
    with pytest.raises(UpdateConflict, match=r"^update conflict: Profile\(a\)$"):
        client.update(PROFILE, versioned(profile("a", y=""), first.metadata.resource_version))
    assert client.get(PROFILE, "a") == second


def test_update_without_a_version_wins_over_a_write_in_between(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    client.create(PROFILE, profile("a"))
    faulty.before(1, lambda: put(store, "profiles/a", {"metadata": {"name": "a", "uid": "u"}, "spec": {"new": 1}}))
    client.update(PROFILE, profile("a", mine=""))
    assert at(store, "profiles/a")["spec"] == {"labelsToApply": {"mine": ""}, "new": 1}


def test_update_with_a_version_loses_to_a_write_in_between(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    created = client.create(PROFILE, profile("a"))
    faulty.before(1, lambda: put(store, "profiles/a", {"metadata": {"name": "a", "uid": "u"}, "spec": {"new": 1}}))
    with pytest.raises(UpdateConflict):
        client.update(PROFILE, versioned(profile("a", mine=""), created.metadata.resource_version))
    assert at(store, "profiles/a")["spec"] == {"new": 1}


def test_an_endless_conflict_is_reported_as_one(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    client.create(PROFILE, profile("a"))
    for nth in range(1, 40):
        value = {"metadata": {"name": "a", "uid": "u"}, "spec": {"n": nth}}
        faulty.before(nth, lambda value=value: put(store, "profiles/a", value))  # type: ignore[misc]
    with pytest.raises(UpdateConflict):
        client.update(PROFILE, profile("a", mine=""))


def test_a_lost_answer_of_an_update_is_settled(client: ResourceClient, faulty: FaultyStore) -> None:
    client.create(PROFILE, profile("a"))
    faulty.lose_answer(1)
    updated = client.update(PROFILE, profile("a", x=""))
    assert updated == client.get(PROFILE, "a")


def test_an_update_that_changes_nothing_writes_nothing(client: ResourceClient, faulty: FaultyStore) -> None:
    created = client.create(PROFILE, profile("a", x=""))
    writes = faulty.writes
    assert client.update(PROFILE, profile("a", x="")) == created
    assert faulty.writes == writes


def test_apply_creates_then_updates(client: ResourceClient) -> None:
    first = client.apply(PROFILE, versioned(profile("a", x=""), "99"))
    second = client.apply(PROFILE, profile("a", y=""))
    assert first.metadata.uid == second.metadata.uid
    assert client.get(PROFILE, "a").spec.labels_to_apply == {"y": ""}
    with pytest.raises(UpdateConflict):
        client.apply(PROFILE, versioned(profile("a", z=""), first.metadata.resource_version))


def test_apply_survives_others_who_create_and_delete(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    faulty.before(1, lambda: put(store, "profiles/a", {"metadata": {"name": "a", "uid": "other"}, "spec": {}}))
    client.apply(PROFILE, profile("a", x=""))
    assert at(store, "profiles/a")["metadata"]["uid"] == "other"
    assert at(store, "profiles/a")["spec"] == {"labelsToApply": {"x": ""}}


def test_modify_retries_with_fresh_state(client: ResourceClient, faulty: FaultyStore, store: MemoryStore) -> None:
    client.create(NODE, Node(metadata=Metadata(name="n")))
    faulty.before(1, lambda: put(store, "nodes/n", {"metadata": {"name": "n", "uid": "u"}, "spec": {"x": 1}}))

    def with_address(node: Node) -> Node:
        return msgspec.structs.replace(node, spec=NodeSpec(bgp=NodeBGPSpec(ipv4_address="10.0.0.1/24")))

    client.modify(NODE, "n", with_address)
    assert at(store, "nodes/n")["spec"] == {"bgp": {"ipv4Address": "10.0.0.1/24"}, "x": 1}


def test_a_status_is_not_wiped_by_a_document_without_one(client: ResourceClient) -> None:
    client.create(NODE, Node(metadata=Metadata(name="n"), status=NodeStatus(pod_cidrs=["10.0.0.0/26"])))
    client.update(NODE, Node(metadata=Metadata(name="n"), spec=NodeSpec(bgp=NodeBGPSpec(ipv4_address="10.0.0.1/24"))))
    assert client.get(NODE, "n").status.pod_cidrs == ["10.0.0.0/26"]


# --- get, list


def test_get_of_nothing(client: ResourceClient) -> None:
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: IPPool\(a\)$"):
        client.get(POOL, "a")
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: WorkloadEndpoint\(libnetwork/a\)$"):
        client.get(ENDPOINT, "a", "libnetwork")
    with pytest.raises(Rejected, match="resource name may not be empty"):
        client.get(POOL, "")


@pytest.mark.parametrize("name", ["a/b", "../nodes/n", "a\n", "\x00"])
def test_a_name_cannot_lead_to_another_key(client: ResourceClient, store: MemoryStore, name: str) -> None:
    put(store, "nodes/n", {"metadata": {"name": "n"}, "spec": {}})
    put(store, f"nodes/{name}", {"metadata": {"name": name}, "spec": {}})
    with pytest.raises(DoesNotExist):
        client.get(NODE, name)
    with pytest.raises(DoesNotExist):
        client.delete(NODE, name)


def test_list_has_the_readable_ones_in_order_and_tells_the_others(client: ResourceClient, store: MemoryStore) -> None:
    put(store, "ippools/b", {"metadata": {"name": "b"}, "spec": {"cidr": "10.0.1.0/24"}})
    put(store, "ippools/a", {"metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/24"}})
    put(store, "ippools/broken", b"{not json")
    put(store, "ippools/a/b", {"metadata": {"name": "b"}, "spec": {"cidr": "10.0.1.0/24"}})
    listing = client.list(POOL)
    assert [item.metadata.name for item in listing.items] == ["a", "b"]
    assert [bad.name for bad in listing.bad] == ["IPPool(broken)"]
    assert listing.revision == str(store.revision)
    with pytest.raises(BadRecord, match=r"IPPool\(broken\) cannot be read"):
        client.get(POOL, "broken")


def test_tiers_are_listed_by_order(client: ResourceClient) -> None:
    client.ensure_defaults()
    for name, order in (("zz", 10.0), ("aa", None)):
        client.create(TIER, Tier(metadata=Metadata(name=name), spec=TierSpec(order=order)))
    assert [tier.metadata.name for tier in client.list(TIER).items] == ["zz", "aa", "default"]


def test_namespaces_are_kept_apart(client: ResourceClient) -> None:
    for namespace, node in (("libnetwork", "n1"), ("default", "n2")):
        spec = WorkloadEndpointSpec(orchestrator="docker", workload="w", node=node, endpoint="e", interface_name="c1")
        client.create(ENDPOINT, WorkloadEndpoint(metadata=Metadata(namespace=namespace), spec=spec))
    assert [e.spec.node for e in client.list(ENDPOINT).items] == ["n2", "n1"]
    assert [e.spec.node for e in client.list(ENDPOINT, "libnetwork").items] == ["n1"]
    assert client.list(ENDPOINT, "lib").items == ()


def test_an_endpoint_gets_its_name_and_labels(client: ResourceClient, store: MemoryStore) -> None:
    spec = WorkloadEndpointSpec(orchestrator="libnetwork", node="node-1", endpoint="ab-c", interface_name="cali1")
    metadata = Metadata(namespace="libnetwork", labels={"role": "web", "projectcalico.org/namespace": "forged"})
    created = client.create(ENDPOINT, WorkloadEndpoint(metadata=metadata, spec=spec))
    assert created.metadata.name == "node--1-libnetwork-libnetwork-ab--c"
    assert at(store, f"workloadendpoints/libnetwork/{created.metadata.name}")["metadata"]["labels"] == {
        "projectcalico.org/namespace": "libnetwork",
        "projectcalico.org/orchestrator": "libnetwork",
        "role": "web",
    }


# --- delete


def test_delete(client: ResourceClient, store: MemoryStore) -> None:
    client.create(PROFILE, profile("a"))
    client.delete(PROFILE, "a")
    assert store.get(ROOT + "profiles/a") is None
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: Profile\(a\)$"):
        client.delete(PROFILE, "a")


def test_delete_at_an_old_version_conflicts(client: ResourceClient) -> None:
    first = client.create(PROFILE, profile("a"))
    second = client.update(PROFILE, profile("a", x=""))
    with pytest.raises(UpdateConflict):
        client.delete(PROFILE, "a", resource_version=first.metadata.resource_version)
    client.delete(PROFILE, "a", resource_version=second.metadata.resource_version)


def test_delete_by_name_wins_over_a_write_in_between(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    client.create(PROFILE, profile("a"))
    faulty.before(1, lambda: put(store, "profiles/a", {"metadata": {"name": "a"}, "spec": {"x": 1}}))
    client.delete(PROFILE, "a")
    assert store.get(ROOT + "profiles/a") is None


@pytest.mark.parametrize("fault", ["lose_answer", "delay"])
def test_a_lost_answer_of_a_delete_is_settled(client: ResourceClient, faulty: FaultyStore, fault: str) -> None:
    client.create(PROFILE, profile("a"))
    getattr(faulty, fault)(1)
    client.delete(PROFILE, "a")
    faulty.deliver()
    with pytest.raises(DoesNotExist):
        client.get(PROFILE, "a")


def test_a_broken_record_can_be_deleted(client: ResourceClient, store: MemoryStore) -> None:
    put(store, "ippools/broken", b"{not json")
    client.delete(POOL, "broken")
    assert store.get(ROOT + "ippools/broken") is None


def test_a_broken_record_can_be_replaced(client: ResourceClient, store: MemoryStore) -> None:
    put(store, "profiles/broken", b"{not json")
    put(store, "profiles/half", {"metadata": {"name": "half", "labels": [1]}, "spec": {"ingress": 5, "newer": 1}})
    for name in ("broken", "half"):
        with pytest.raises(BadRecord):
            client.get(PROFILE, name)
        with pytest.raises(UpdateConflict):
            client.update(PROFILE, versioned(profile(name), "99999"))
        client.apply(PROFILE, profile(name, x=""))
        assert client.get(PROFILE, name).spec.labels_to_apply == {"x": ""}
    assert at(store, "profiles/half")["spec"] == {"labelsToApply": {"x": ""}, "newer": 1}


def test_a_broken_pool_is_not_replaced_by_one_that_overlaps(client: ResourceClient, store: MemoryStore) -> None:
    client.create(POOL, pool("a", "10.0.0.0/24"))
    put(store, "ippools/broken", b"{not json")
    with pytest.raises(InvalidResource, match="overlaps"):
        client.update(POOL, pool("broken", "10.0.0.0/16"))


def test_an_endpoint_without_a_name_is_found_by_its_identifiers(client: ResourceClient) -> None:
    spec = WorkloadEndpointSpec(orchestrator="docker", workload="w", node="n", endpoint="e", interface_name="c1")
    given = WorkloadEndpoint(metadata=Metadata(namespace="libnetwork"), spec=spec)
    created = client.create(ENDPOINT, given)
    with pytest.raises(AlreadyExists, match=r"WorkloadEndpoint\(libnetwork/n-docker-w-e\)$"):
        client.create(ENDPOINT, given)
    assert client.apply(ENDPOINT, given) == created


# --- pools


@pytest.mark.parametrize("cidr", ["10.0.0.64/26", "10.0.0.0/16", "10.0.0.0/24"])
def test_pools_do_not_overlap(client: ResourceClient, cidr: str) -> None:
    client.create(POOL, pool("a", "10.0.0.0/24"))
    with pytest.raises(InvalidResource) as caught:
        client.create(POOL, pool("x", cidr))
    assert f"spec.cidr = '{cidr}' (IPPool(x) CIDR overlaps with IPPool(a) CIDR 10.0.0.0/24)" in str(caught.value)
    client.create(POOL, pool("next", "10.0.1.0/24"))
    client.create(POOL, pool("v6", "fd00::/64"))


def test_of_two_overlapping_pools_made_at_once_the_first_stays(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore, ipam: FakeIpam
) -> None:
    other = ResourceClient(store, ipam=ipam, clock=ManualClock())
    faulty.before(1, lambda: other.create(POOL, pool("first", "10.0.0.0/16")))
    with pytest.raises(InvalidResource, match="overlaps"):
        client.create(POOL, pool("second", "10.0.0.0/24"))
    assert [p.metadata.name for p in client.list(POOL).items] == ["first"]


def test_a_pool_made_after_ours_does_not_drive_ours_away(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    value = {"metadata": {"name": "later"}, "spec": {"cidr": "10.0.0.0/16"}}
    faulty.after(1, lambda: put(store, "ippools/later", value))
    client.create(POOL, pool("ours", "10.0.0.0/24"))
    assert store.get(ROOT + "ippools/ours") is not None


def test_blocks_of_another_size_forbid_a_pool(client: ResourceClient, store: MemoryStore) -> None:
    store.commit(Transaction(puts={block_key(parse_network("10.0.0.64/28")): b"{}"}))
    with pytest.raises(InvalidResource, match=r"blocks of another size exist inside the pool: 10\.0\.0\.64/28"):
        client.create(POOL, pool("a", "10.0.0.0/24"))
    client.create(POOL, pool("b", "10.0.1.0/24"))
    client.create(POOL, pool("c", "10.0.0.0/24", block_size=28))


def test_cidr_and_block_size_of_a_pool_stay(client: ResourceClient) -> None:
    client.create(POOL, pool("a", "fd00::/64"))
    with pytest.raises(InvalidResource, match="IPPool BlockSize cannot be modified"):
        client.update(POOL, pool("a", "fd00::/64", block_size=124))
    with pytest.raises(InvalidResource, match="IPPool CIDR cannot be modified"):
        client.update(POOL, pool("a", "fd01::/64"))
    assert client.update(POOL, pool("a", "FD00:0::/64", nat_outgoing=True)).spec.cidr == "fd00::/64"


def test_a_pool_is_disabled_and_emptied_before_it_goes(
    client: ResourceClient, store: MemoryStore, ipam: FakeIpam
) -> None:
    client.create(POOL, pool("a", "10.0.0.0/24"))
    client.delete(POOL, "a")
    assert ipam.pools == [(parse_network("10.0.0.0/24"), True)]
    assert store.get(ROOT + "ippools/a") is None
    assert isinstance(client.clock, ManualClock)
    assert client.clock.now == pytest.approx(1000.5)


def test_a_pool_that_somebody_changes_meanwhile_is_emptied_again(
    client: ResourceClient, store: MemoryStore, ipam: FakeIpam
) -> None:
    client.create(POOL, pool("a", "10.0.0.0/24"))

    def enable() -> None:
        ipam.during = lambda: None
        put(store, "ippools/a", {"metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/24"}})

    ipam.during = enable
    client.delete(POOL, "a")
    assert ipam.pools == [(parse_network("10.0.0.0/24"), True)] * 2
    assert store.get(ROOT + "ippools/a") is None


def test_a_pool_delete_at_a_version_gives_up_when_somebody_changes_it(
    client: ResourceClient, store: MemoryStore, ipam: FakeIpam
) -> None:
    created = client.create(POOL, pool("a", "10.0.0.0/24"))
    value = {"metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/24"}}
    ipam.during = lambda: put(store, "ippools/a", value)
    with pytest.raises(UpdateConflict):
        client.delete(POOL, "a", resource_version=created.metadata.resource_version)
    assert store.get(ROOT + "ippools/a") is not None


def test_a_client_without_ipam_deletes_neither_pools_nor_nodes(store: MemoryStore) -> None:
    client = ResourceClient(store, clock=ManualClock())
    client.create(POOL, pool("a", "10.0.0.0/24"))
    client.create(NODE, Node(metadata=Metadata(name="n")))
    with pytest.raises(OperationNotSupported):
        client.delete(POOL, "a")
    with pytest.raises(OperationNotSupported):
        client.delete(NODE, "n")
    assert not client.get(POOL, "a").spec.disabled


# --- policies


def test_a_policy_is_stored_in_the_form_of_3_32(client: ResourceClient, store: MemoryStore) -> None:
    created = client.create(POLICY, policy("p1", selector="all()"))
    written = at(store, "globalnetworkpolicies/p1")
    assert written["metadata"]["name"] == "p1"
    assert written["metadata"]["labels"] == {"projectcalico.org/tier": "default"}
    assert written["metadata"]["annotations"] == {"projectcalico.org/metadata": '{"name":"p1"}'}
    assert written["spec"] == {"tier": "default", "selector": "all()", "types": ["Ingress"]}
    assert created.metadata.annotations == {}
    assert client.get(POLICY, "p1") == created
    assert store.get(ROOT + "tiers/default") is not None


def test_a_policy_needs_its_tier(client: ResourceClient) -> None:
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: Tier\(nosuch\)$"):
        client.create(POLICY, policy("q", tier="nosuch"))
    with pytest.raises(DoesNotExist) as caught:
        client.create(POLICY, policy("q", tier="defualt"))
    assert caught.value.hint == "create the tier first, or did you mean 'default'?"


OLD_FORMS = {
    "3.28": {"metadata": {"name": "default.old", "uid": "u"}, "spec": {"selector": "all()"}},
    "3.29": {
        "metadata": {"name": "default.old", "uid": "u", "labels": {"projectcalico.org/tier": "default"}},
        "spec": {"tier": "default", "selector": "all()"},
    },
    "3.31": {
        "metadata": {
            "name": "default.old", "uid": "u", "annotations": {"projectcalico.org/metadata": '{"name":"old"}'},
        },
        "spec": {"selector": "all()"},
    },
}  # fmt: skip


@pytest.mark.parametrize("era", OLD_FORMS)
@pytest.mark.parametrize("name", ["old", "default.old"])
def test_policies_of_older_releases_are_found_by_both_names(
    client: ResourceClient, store: MemoryStore, era: str, name: str
) -> None:
    put(store, "globalnetworkpolicies/default.old", OLD_FORMS[era])
    found = client.get(POLICY, name)
    assert found.metadata.name == "old"
    assert found.metadata.annotations == {}
    assert [p.metadata.name for p in client.list(POLICY).items] == ["old"]
    client.modify(POLICY, name, lambda found: found)
    client.apply(POLICY, policy(name, selector="has(x)"))
    assert [item.key for item in store.list(ROOT + "globalnetworkpolicies/").items] == [
        ROOT + "globalnetworkpolicies/default.old"
    ]
    written = at(store, "globalnetworkpolicies/default.old")
    assert (written["metadata"]["name"], written["metadata"]["uid"]) == ("default.old", "u")
    assert json.loads(written["metadata"]["annotations"]["projectcalico.org/metadata"])["name"] == "old"
    assert written["spec"]["selector"] == "has(x)"
    with pytest.raises(AlreadyExists):
        client.create(POLICY, policy(name))
    client.delete(POLICY, name)
    assert store.list(ROOT + "globalnetworkpolicies/").items == ()


def test_a_policy_of_another_tier_is_not_the_default_one(client: ResourceClient, store: MemoryStore) -> None:
    client.create(TIER, Tier(metadata=Metadata(name="t")))
    client.create(POLICY, policy("foo", tier="t"))
    with pytest.raises(DoesNotExist):
        client.get(POLICY, "default.foo")
    client.create(POLICY, policy("default.foo"))
    assert {item.key.rpartition("/")[2] for item in store.list(ROOT + "globalnetworkpolicies/").items} == {
        "foo", "default.foo",
    }  # fmt: skip
    assert client.get(POLICY, "foo").spec.tier == "t"
    assert client.get(POLICY, "default.foo").spec.tier == "default"


def test_a_user_cannot_forge_the_shown_name(client: ResourceClient, store: MemoryStore) -> None:
    forged = Metadata(name="p", annotations={"projectcalico.org/metadata": '{"name":"q"}', "note": "n"})
    created = client.create(POLICY, GlobalNetworkPolicy(metadata=forged))
    assert (
        at(store, "globalnetworkpolicies/p")["metadata"]["annotations"]["projectcalico.org/metadata"] == '{"name":"p"}'
    )
    assert client.get(POLICY, "p").metadata.annotations == {"note": "n"}
    assert created.metadata.name == "p"


# --- tiers, profiles, cluster information


def test_built_in_tiers_and_tiers_with_policies_stay(client: ResourceClient, store: MemoryStore) -> None:
    client.ensure_defaults()
    with pytest.raises(OperationNotSupported, match=r"^operation Delete is not supported on default: Cannot delete de"):
        client.delete(TIER, "default")
    client.create(TIER, Tier(metadata=Metadata(name="t1")))
    client.create(POLICY, policy("q", tier="t1"))
    with pytest.raises(OperationNotSupported, match="on t1: Cannot delete a non-empty tier"):
        client.delete(TIER, "t1")
    client.delete(POLICY, "q")
    put(store, "networkpolicies/ns/q", {"spec": {"tier": "t1"}})
    with pytest.raises(OperationNotSupported):
        client.delete(TIER, "t1")
    store.commit(Transaction(deletes=frozenset((ROOT + "networkpolicies/ns/q",))))
    client.delete(TIER, "t1")
    assert store.get(ROOT + "tiers/t1") is None


@pytest.mark.parametrize("kind", [NETWORK_POLICY, STAGED_POLICY, STAGED_GLOBAL_POLICY], ids=lambda kind: kind.name)
def test_every_kind_of_policy_holds_its_tier(client: ResourceClient, kind: Kind[Any]) -> None:
    client.ensure_defaults()
    namespace = "ns" if kind.namespaced else ""
    new = kind.type(metadata=Metadata(name="q", namespace=namespace), spec=msgspec.convert({"tier": "t1"}, _spec(kind)))
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: Tier\(t1\)$"):
        client.create(kind, new)
    client.create(TIER, Tier(metadata=Metadata(name="t1")))
    client.create(kind, new)
    moved = msgspec.structs.replace(new, spec=msgspec.structs.replace(new.spec, tier="t2"))
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: Tier\(t2\)$"):
        client.apply(kind, moved)
    with pytest.raises(OperationNotSupported, match="Cannot delete a non-empty tier") as caught:
        client.delete(TIER, "t1")
    assert caught.value.hint == f"delete its policies first, such as {kind.label('q', namespace)}"
    client.delete(kind, "q", namespace)
    client.delete(TIER, "t1")


def _spec(kind: Kind[Any]) -> Any:
    return type(kind.type().spec)


@pytest.mark.parametrize("kind", [NETWORK_POLICY, STAGED_POLICY], ids=lambda kind: kind.name)
def test_names_of_kubernetes_are_not_ours(client: ResourceClient, store: MemoryStore, kind: Kind[Any]) -> None:
    stored = {"metadata": {"name": "knp.default.x", "namespace": "ns"}, "spec": {}}
    put(store, f"{kind.plural}/ns/knp.default.x", stored)
    theirs = kind.type(metadata=Metadata(name="knp.default.x", namespace="ns"))
    for write in (client.create, client.update, client.apply):
        with pytest.raises(OperationNotSupported, match="must be managed through the kubernetes API"):
            write(kind, theirs)
    with pytest.raises(OperationNotSupported, match="must be managed through the kubernetes API"):
        client.delete(kind, "knp.default.x", "ns")
    assert client.get(kind, "knp.default.x", "ns").metadata.name == "knp.default.x"


@pytest.mark.parametrize("kind", [NETWORK_POLICY, STAGED_POLICY, STAGED_GLOBAL_POLICY], ids=lambda kind: kind.name)
def test_every_kind_of_policy_has_its_names_of_all_eras(
    client: ResourceClient, store: MemoryStore, kind: Kind[Any]
) -> None:
    namespace = "ns" if kind.namespaced else ""
    at_key = f"{kind.plural}/{namespace}/default.old" if namespace else f"{kind.plural}/default.old"
    put(store, at_key, {"metadata": {"name": "default.old", "uid": "u", "namespace": namespace}, "spec": {}})
    assert client.get(kind, "old", namespace).metadata.name == "old"
    client.apply(kind, kind.type(metadata=Metadata(name="old", namespace=namespace)))
    assert [item.key for item in store.list(ROOT + kind.plural).items] == [ROOT + at_key]
    client.delete(kind, "old", namespace)
    client.create(kind, kind.type(metadata=Metadata(name="new", namespace=namespace)))
    written = at(store, at_key.replace("default.old", "new"))
    assert written["metadata"]["annotations"] == {"projectcalico.org/metadata": '{"name":"new"}'}
    assert written["metadata"]["labels"] == {"projectcalico.org/tier": "default"}


def test_the_default_tier_stays_as_it_is(client: ResourceClient) -> None:
    client.ensure_defaults()
    with pytest.raises(InvalidResource, match=r"default tier order must be 1e\+06"):
        client.apply(TIER, Tier(metadata=Metadata(name="default"), spec=TierSpec(order=5.0)))
    with pytest.raises(InvalidResource, match="must have default action 'Deny'"):
        client.apply(TIER, Tier(metadata=Metadata(name="default"), spec=TierSpec(default_action="Pass")))


def test_one_profile_is_always_there(client: ResourceClient, store: MemoryStore) -> None:
    name = "projectcalico-default-allow"
    assert client.get(PROFILE, name).metadata.resource_version == "1"
    client.create(PROFILE, profile("zz"))
    assert [p.metadata.name for p in client.list(PROFILE).items] == [name, "zz"]
    with pytest.raises(AlreadyExists):
        client.create(PROFILE, profile(name))
    for write in (client.update, client.apply):
        with pytest.raises(OperationNotSupported, match="operation Update is not supported on " + name):
            write(PROFILE, profile(name))
    with pytest.raises(OperationNotSupported, match="operation Delete is not supported on " + name):
        client.delete(PROFILE, name)
    assert store.get(ROOT + f"profiles/{name}") is None


def test_cluster_information_is_read_only(client: ResourceClient) -> None:
    info = ClusterInformation(metadata=Metadata(name="default"))
    with pytest.raises(OperationNotSupported, match=r"^operation create or apply is not supported on Cluster\w+$"):
        client.create(CLUSTER, info)
    with pytest.raises(OperationNotSupported, match=r"on ClusterInformation: resource is readonly$"):
        client.apply(CLUSTER, info)
    with pytest.raises(OperationNotSupported, match=r"^operation apply or replace is not supported on Clust"):
        client.update(CLUSTER, info)
    with pytest.raises(OperationNotSupported, match=r"^operation delete is not supported on ClusterInformation$"):
        client.delete(CLUSTER, "default")


def test_the_defaults_of_a_datastore(client: ResourceClient, store: MemoryStore) -> None:
    info = client.ensure_defaults("docker")
    assert re.fullmatch("[0-9a-f]{32}", info.spec.cluster_guid)
    assert at(store, "clusterinformations/default")["spec"] == {
        "clusterGUID": info.spec.cluster_guid, "clusterType": "docker", "datastoreReady": True,
    }  # fmt: skip
    assert at(store, "tiers/default")["spec"] == {"order": 1000000, "defaultAction": "Deny"}
    revision = store.revision
    assert client.ensure_defaults("docker") == info
    assert store.revision == revision
    assert client.ensure_defaults("bgp").spec.cluster_type == "docker,bgp"


def test_a_lock_stays_locked(client: ResourceClient, store: MemoryStore) -> None:
    client.set_datastore_ready(False)
    assert client.ensure_defaults("docker").spec.datastore_ready is False
    client.set_datastore_ready(True)
    assert at(store, "clusterinformations/default")["spec"]["datastoreReady"] is True


def test_a_half_made_cluster_information_is_completed(client: ResourceClient, store: MemoryStore) -> None:
    put(store, "clusterinformations/default", {"metadata": {"name": "default"}, "spec": {"clusterType": "k8s"}})
    spec = client.ensure_defaults("docker").spec
    assert spec == ClusterInformationSpec(
        cluster_guid=spec.cluster_guid, cluster_type="k8s,docker", datastore_ready=True
    )
    assert at(store, "clusterinformations/default")["metadata"]["uid"]


def test_two_hosts_that_start_at_once_agree(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    other = ResourceClient(store, clock=ManualClock())
    faulty.before(1, lambda: other.ensure_defaults("docker"))
    info = client.ensure_defaults("docker")
    assert info.spec.cluster_guid == at(store, "clusterinformations/default")["spec"]["clusterGUID"]


def test_a_node_makes_the_defaults_first(client: ResourceClient, store: MemoryStore) -> None:
    client.create(NODE, Node(metadata=Metadata(name="n")))
    assert store.get(ROOT + "clusterinformations/default") is not None
    assert store.get(ROOT + "tiers/default") is not None


# --- nodes


def test_a_node_takes_everything_of_its_own_with_it(
    client: ResourceClient, store: MemoryStore, ipam: FakeIpam
) -> None:
    for node in ("node1", "node1-x"):
        bgp = NodeBGPSpec(ipv4_address="10.9.0.1/24", ipv4_ipip_tunnel_addr="10.0.0.1")
        spec_of_node = NodeSpec(bgp=bgp, ipv4_vxlan_tunnel_addr="10.0.0.2")
        client.create(NODE, Node(metadata=Metadata(name=node), spec=spec_of_node))
        for endpoint, address in (("e1", "10.0.0.5/32"), ("e2", "fd00::5")):
            spec = WorkloadEndpointSpec(
                orchestrator="docker", workload="w", node=node, endpoint=endpoint, interface_name="c1",
                ip_networks=[address],
            )  # fmt: skip
            client.create(ENDPOINT, WorkloadEndpoint(metadata=Metadata(namespace="libnetwork"), spec=spec))
        put(store, f"bgppeers/p-{node}", {"spec": {"node": node}})
        put(store, f"hostendpoints/h-{node}", {"spec": {"node": node}})
        put(store, f"felixconfigurations/node.{node}", {"spec": {}})
        put(store, f"bgpconfigurations/node.{node}", {"spec": {}})
        status = {felix_status_key(NodeName(node)): b"{}", felix_last_status_key(NodeName(node)): b"{}"}
        store.commit(Transaction(puts=status))
    put(store, "bgppeers/global", {"spec": {"peerIP": "10.9.9.9"}})
    put(store, "bgppeers/broken", b"{")
    bad = {"spec": {"node": "node1", "ipNetworks": ["x", "10.0.0.9"]}}
    put(store, "workloadendpoints/libnetwork/node1-broken", bad)
    client.delete(NODE, "node1")
    assert ipam.nodes == [
        (NodeName("node1"), sorted(["10.0.0.5", "fd00::5", "10.0.0.9", "10.0.0.1", "10.0.0.2"]))
    ]
    left = {item.key.removeprefix("/calico/") for item in store.list("").items}
    assert not {key for key in left if "node1" in key and "node1-x" not in key and "node1--x" not in key}
    assert len([key for key in left if "node1-x" in key or "node1--x" in key]) == 9
    assert {"resources/v3/projectcalico.org/bgppeers/global", "resources/v3/projectcalico.org/bgppeers/broken"} <= left


def test_a_node_removal_that_died_can_be_repeated(
    client: ResourceClient, faulty: FaultyStore, store: MemoryStore
) -> None:
    client.create(NODE, Node(metadata=Metadata(name="n")))
    put(store, "felixconfigurations/node.n", {"metadata": {"name": "node.n"}, "spec": {}})
    put(store, "bgpconfigurations/node.n", {"metadata": {"name": "node.n"}, "spec": {}})
    faulty.fail(2)
    with pytest.raises(StoreUnavailable):
        client.delete(NODE, "n")
    assert store.get(ROOT + "nodes/n") is not None
    client.delete(NODE, "n")
    assert [k for k in (FELIX, BGP, NODE) if store.list(f"{ROOT}{k.plural}/").items] == []


@pytest.mark.parametrize("kind", [POOL, NODE, PROFILE, ENDPOINT], ids=lambda kind: kind.name)
def test_keys_are_those_of_the_reference(kind: Kind[Any]) -> None:
    key = ResourceKey(kind.plural, "a", "ns" if kind.namespaced else "")
    assert resource_key(key) == f"{ROOT}{kind.plural}/{'ns/' if kind.namespaced else ''}a"


# --- v1


def test_a_v1_pool_is_identified_by_its_cidr(client: ResourceClient, store: MemoryStore) -> None:
    client.create(POOL, pool("default-ipv4-ippool", "10.0.0.0/24", block_size=28, node_selector="has(x)"))
    document = pool("10-0-0-0-24", "10.0.0.0/24", nat_outgoing=True)
    with pytest.raises(AlreadyExists, match=r"^resource already exists: IPPool\(cidr=10\.0\.0\.0/24\)$"):
        client.create(POOL, document, v1=True)
    updated = client.update(POOL, document, v1=True)
    assert (updated.metadata.name, updated.spec.nat_outgoing) == ("default-ipv4-ippool", True)
    assert (updated.spec.block_size, updated.spec.node_selector) == (28, "has(x)")
    assert client.name_of_v1(POOL, "10.0.0.0/24") == "default-ipv4-ippool"
    client.delete(POOL, client.name_of_v1(POOL, "10.0.0.0/24"), label="IPPool(cidr=10.0.0.0/24)")
    assert store.list(ROOT + "ippools/").items == ()
    with pytest.raises(DoesNotExist, match=r"^resource does not exist: IPPool\(cidr=10\.0\.0\.0/24\)$"):
        client.update(POOL, document, v1=True)
    created = client.apply(POOL, document, v1=True)
    assert created.metadata.name == "10-0-0-0-24"
    assert client.name_of_v1(POOL, "10.0.0.0/24") == "10-0-0-0-24"


def test_an_update_by_v1_keeps_labels_that_v1_does_not_have(client: ResourceClient) -> None:
    client.create(PROFILE, labelled(profile("a", x=""), mark="kept"))
    updated = client.update(PROFILE, profile("a", y=""), v1=True)
    assert updated.metadata.labels == {"mark": "kept"}
    assert updated.spec.labels_to_apply == {"y": ""}
