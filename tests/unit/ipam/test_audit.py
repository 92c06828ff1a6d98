"""The audit: nothing on a sound store, one finding for each thing that is wrong, and a way out with it."""

import ipaddress
import json
from collections.abc import Callable

import pytest

from fakes.ipam_world import SteppedStore, World
from ipam import audit
from ipam.audit import Audit, Kind
from ipam.results import Release
from resources.datastore import keys
from resources.names import HandleId, IPAddress, NodeName

H = HandleId("h")
ENDPOINTS = keys.kind_prefix("workloadendpoints")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def endpoint(world: World, address: str, name: str = "node1-libnetwork-libnetwork-e1") -> None:
    spec = {"orchestrator": "libnetwork", "workload": "libnetwork", "node": "node1", "endpoint": "e1",
            "interfaceName": "cali1", "ipNetworks": [f"{address}/32"], "profiles": ["net1"]}
    document = {"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "libnetwork"}, "spec": spec}
    world.put(f"{ENDPOINTS}libnetwork/{name}", document)


@pytest.fixture
def world() -> World:
    """A pool, two nodes, one container with an address."""
    world = World()
    world.node("node1", "node2")
    world.pool("10.8.0.0/28", "pool", blockSize=30)
    world.allocator("node1").assign(ip("10.8.0.5"), handle=H)
    endpoint(world, "10.8.0.5")
    return world


def check(world: World) -> Audit:
    return audit.check(world.store, world.clock.moment)


def kinds(found: Audit) -> list[tuple[Kind, str]]:
    return [(finding.kind, finding.subject) for finding in found.findings]


def test_a_sound_store_has_no_findings(world: World) -> None:
    found = check(world)
    assert found.findings == ()
    assert found.problems == 0
    assert found.evidence.users == {ip("10.8.0.5"): ("Workload(libnetwork/node1-libnetwork-libnetwork-e1)",)}
    assert found.evidence.nodes == {"node1", "node2"}


def test_an_empty_store_has_no_findings() -> None:
    assert check(World()).findings == ()


BLOCK = "/calico/ipam/v2/assignment/ipv4/block/10.8.0.4-30"


def changed_block(world: World, **members: object) -> None:
    kv = world.store.get(BLOCK)
    assert kv is not None
    world.put(BLOCK, {**json.loads(kv.value), **members})


def leak(world: World) -> None:
    world.delete(f"{ENDPOINTS}libnetwork/node1-libnetwork-libnetwork-e1")


def use_outside_of_pools(world: World) -> None:
    endpoint(world, "203.0.113.7", "other")


def use_without_allocation(world: World) -> None:
    endpoint(world, "10.8.0.9", "other")


def use_twice(world: World) -> None:
    endpoint(world, "10.8.0.5", "other")


def handle_of_nothing(world: World) -> None:
    world.put(keys.handle_key(HandleId("gone")), {"block": {"10.8.0.4/30": 1, "10.8.0.0/30": 2}})


def handle_that_overstates(world: World) -> None:
    world.put(keys.handle_key(H), {"block": {"10.8.0.4/30": 3}})


def handle_without_record(world: World) -> None:
    world.delete(keys.handle_key(H))


def block_of_garbage(world: World) -> None:
    world.put(BLOCK, b"garbage")


def lost_ordinal(world: World) -> None:
    changed_block(world, unallocated=[0, 2])


def overlapping_block(world: World) -> None:
    world.put("/calico/ipam/v2/assignment/ipv4/block/10.8.0.6-31", {
        "cidr": "10.8.0.6/31", "affinity": None, "allocations": [None, None], "unallocated": [0, 1], "attributes": [],
    })


def block_of_a_removed_node(world: World) -> None:
    world.delete(keys.kind_prefix("nodes") + "node1")


def ticket_without_block(world: World) -> None:
    world.put(keys.affinity_key(NodeName("node2"), ipaddress.ip_network("10.8.0.0/30")), {"state": "confirmed"})


def ticket_for_anothers_block(world: World) -> None:
    world.put(keys.affinity_key(NodeName("node2"), ipaddress.ip_network("10.8.0.4/30")), b"")


def ticket_pending(world: World) -> None:
    world.put(keys.affinity_key(NodeName("node1"), ipaddress.ip_network("10.8.0.4/30")), {"state": "pending"})


def ticket_lost(world: World) -> None:
    world.delete(keys.affinity_key(NodeName("node1"), ipaddress.ip_network("10.8.0.4/30")))


def pool_gone(world: World) -> None:
    world.remove_pool("pool")


@pytest.mark.parametrize(("harm", "expected", "problems"), [
    (leak, [(Kind.LEAKED, "10.8.0.5")], 1),
    (use_outside_of_pools, [(Kind.OUTSIDE_POOLS, "203.0.113.7")], 1),
    (use_without_allocation, [(Kind.UNALLOCATED, "10.8.0.9")], 1),
    (use_twice, [(Kind.SHARED, "10.8.0.5")], 0),
    (handle_of_nothing, [(Kind.LEAKED_HANDLE, "gone")], 1),
    (handle_that_overstates, [(Kind.MISCOUNTED_HANDLE, "h")], 0),
    (handle_without_record, [(Kind.MISSING_HANDLE, "h")], 0),
    (block_of_garbage, [(Kind.INVALID_BLOCK, BLOCK)], 1),
    (lost_ordinal, [(Kind.INVALID_BLOCK, BLOCK)], 1),
    (overlapping_block, [
        (Kind.OVERLAPPING_BLOCKS, "/calico/ipam/v2/assignment/ipv4/block/10.8.0.6-31"),
        (Kind.STRAY_BLOCK, "/calico/ipam/v2/assignment/ipv4/block/10.8.0.6-31"),
    ], 1),
    (block_of_a_removed_node, [(Kind.UNKNOWN_NODE, BLOCK)], 0),
    (ticket_without_block, [(Kind.STALE_TICKET, "/calico/ipam/v2/host/node2/ipv4/block/10.8.0.0-30")], 0),
    (ticket_for_anothers_block, [(Kind.STALE_TICKET, "/calico/ipam/v2/host/node2/ipv4/block/10.8.0.4-30")], 0),
    (ticket_pending, [(Kind.UNCONFIRMED_TICKET, "/calico/ipam/v2/host/node1/ipv4/block/10.8.0.4-30")], 0),
    (ticket_lost, [(Kind.MISSING_TICKET, BLOCK)], 0),
    (pool_gone, [(Kind.OUTSIDE_POOLS, "10.8.0.5"), (Kind.STRAY_BLOCK, BLOCK)], 1),
], ids=lambda value: value.__name__ if callable(value) else "")
def test_each_thing_that_is_wrong_is_found(
    world: World, harm: Callable[[World], None], expected: list[tuple[Kind, str]], problems: int
) -> None:
    harm(world)
    found = check(world)
    assert kinds(found) == expected
    assert found.problems == problems
    assert all(finding.detail and finding.remedy for finding in found.findings)


def test_what_is_found_reads_as_the_original_has_it(world: World) -> None:
    leak(world)
    endpoint(world, "203.0.113.7", "x")
    endpoint(world, "10.8.0.9", "y")
    texts = [finding.detail for finding in check(world).findings]
    assert texts == [
        "10.8.0.5 leaked; attrs Main:h Extra:node=node1",
        "203.0.113.7 in use by Workload(libnetwork/x) is not in any active IP pool.",
        "10.8.0.9 in use by Workload(libnetwork/y) and in active IPAM pool but has no IPAM allocation.",
    ]


def test_the_tunnel_addresses_of_nodes_are_in_use(world: World) -> None:
    world.allocator("node1").assign(ip("10.8.0.6"), handle=HandleId("ipip-tunnel-addr-node1"))
    spec = {"bgp": {"ipv4IPIPTunnelAddr": "10.8.0.6"}, "wireguard": {"interfaceIPv4Address": "10.8.0.10"}}
    world.put(keys.kind_prefix("nodes") + "node1", {"metadata": {"name": "node1"}, "spec": spec})
    assert kinds(check(world)) == [(Kind.UNALLOCATED, "10.8.0.10")]


def test_cooling_and_kept_back_addresses_are_no_leaks(world: World) -> None:
    world.config(ipCooldownSeconds=30)
    world.allocator("node1").assign(ip("10.8.0.6"))
    world.allocator("node1").release([Release(ip("10.8.0.6"))])
    kept = [{"handle_id": "windows-reserved-ipam-handle"}]
    world.put("/calico/ipam/v2/assignment/ipv4/block/10.8.0.8-30", {
        "cidr": "10.8.0.8/30", "affinity": "host:node2", "allocations": [0, 0, 0, 0], "unallocated": [],
        "attributes": kept,
    })
    world.put(keys.affinity_key(NodeName("node2"), ipaddress.ip_network("10.8.0.8/30")), b"")
    assert kinds(check(world)) == []


def test_a_handle_with_addresses_in_an_unreadable_block_is_not_called_leaked(world: World) -> None:
    block_of_garbage(world)
    assert [kind for kind, _ in kinds(check(world))] == [Kind.INVALID_BLOCK]


def test_an_address_released_and_a_container_begun_meanwhile_are_no_findings(world: World) -> None:
    """What is only wrong on one of two readings is somebody at work."""
    store = SteppedStore(world.store)

    def start_another() -> None:
        got = world.allocator("node2").auto_assign(version=4, handle=HandleId("new"))
        endpoint(world, str(got.one()), "new")
        world.allocator("node1").release([Release(ip("10.8.0.5"))])

    calls = 0
    for nth in range(1, 40):
        store = SteppedStore(world.store)
        store.before(nth, start_another)
        leak(world)
        found = audit.check(store, world.clock.moment)
        assert [kind for kind, _ in kinds(found) if kind not in (Kind.LEAKED,)] == []
        calls = store.calls
        if calls < nth:
            break
        world = World()
        world.node("node1", "node2")
        world.pool("10.8.0.0/28", "pool", blockSize=30)
        world.allocator("node1").assign(ip("10.8.0.5"), handle=H)
        endpoint(world, "10.8.0.5")
    assert calls > 8


def test_records_that_cannot_be_read_are_reported_and_the_others_judged(world: World) -> None:
    told: list[str] = []
    world.put(f"{ENDPOINTS}libnetwork/bad", b"x")
    found = audit.check(world.store, world.clock.moment, lambda event, **facts: told.append(event))
    assert found.findings == ()
    assert told == ["endpoint.skipped"]


def test_a_handle_that_holds_something_is_not_dropped(world: World) -> None:
    allocator = world.allocator("node1")
    assert not allocator.drop_empty_handle(H)
    assert not allocator.drop_empty_handle(HandleId("nobody"))
    assert check(world).findings == ()


@pytest.mark.parametrize("nth", range(1, 7))
def test_who_takes_an_address_under_a_handle_that_is_about_to_go_has_both(world: World, nth: int) -> None:
    old = HandleId("old")
    world.put(keys.handle_key(old), {"handleID": old, "block": {"10.8.0.4/30": 1}, "deleted": False})
    store, other, taken = SteppedStore(world.store), world.allocator("node1"), []
    store.before(nth, lambda: taken.append(other.assign(ip("10.8.0.6"), handle=old)))
    dropped = World(store).allocator("node2").drop_empty_handle(old)
    assert dropped or taken
    if not taken:
        other.assign(ip("10.8.0.6"), handle=old)
    # nothing uses it; the handle is there and may say too much, as it did before
    found = kinds(check(world))
    assert found[0] == (Kind.LEAKED, "10.8.0.6")
    assert found[1:] in ([], [(Kind.MISCOUNTED_HANDLE, "old")])
    assert other.release_by_handle(old) == 1
