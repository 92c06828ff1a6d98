"""The allocator on one store: pools, limits, strictness, reservations, single addresses, releases, ownership."""

import ipaddress
import json
from collections.abc import Mapping

import pytest

from fakes.faulty_store import FaultyStore
from fakes.ipam_world import World
from ipam import block as block_form
from ipam import config as config_form
from ipam.allocator import Allocator
from ipam.audit import Kind
from ipam.errors import (
    AddressInUse,
    AffinityHeld,
    BlockUnreadable,
    IPAMConfigInvalid,
    NotInPool,
    PoolExhausted,
    PoolUnusable,
    ReleaseRefused,
)
from ipam.results import Assignment, Release, Shortage
from resources.datastore import keys
from resources.errors import ConfigurationError, DoesNotExist, UpdateConflict
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, PoolName

H, G = HandleId("h"), HandleId("g")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


@pytest.fixture
def world() -> World:
    world = World()
    world.node("node1", "node2", "node3")
    return world


def texts(assignment: Assignment) -> list[str]:
    return [str(address) for address in assignment.addresses]


def take(allocator: Allocator, count: int = 1, version: int = 4, **more: str) -> list[str]:
    handle = HandleId(more["handle"]) if "handle" in more else None
    pools = [net(more["pool"])] if "pool" in more else None
    return texts(allocator.auto_assign(version=version, count=count, handle=handle, pools=pools))


# --- basic


def test_the_first_assignment_claims_one_block_and_gives_its_first_address(world: World) -> None:
    pool = world.pool("17.16.10.0/24")
    got = world.allocator("node1").auto_assign(version=4, attributes={"type": "docker"})
    (cidr,) = world.blocks()
    assert got.one() == cidr[0]
    assert cidr.prefixlen == 26
    assert cidr[0] in pool
    ticket = f"host/node1/ipv4/block/{str(cidr).replace('/', '-')}"
    assert world.ipam()[ticket] == b'{"state":"confirmed","deleted":false}'
    assert world.handles() == {got.handle: {str(cidr): 1}}
    assert got.handle.startswith("docker-")
    held = world.held()[got.one()]
    assert held.attributes == {"node": "node1", "type": "docker"}
    world.assert_sound({got.one(): got.handle})


def test_the_second_is_the_next_of_the_same_block_and_a_released_one_comes_last(world: World) -> None:
    world.pool("17.16.10.0/24")
    allocator = world.allocator("node1")
    first = allocator.auto_assign(version=4).one()
    assert allocator.auto_assign(version=4).one() == first + 1
    assert allocator.release([Release(first)]) == []
    assert allocator.auto_assign(version=4, count=63).addresses == (*(first + n for n in range(2, 64)), first)


def test_two_hosts_take_from_different_blocks_and_a_restarted_one_from_its_own(world: World) -> None:
    world.pool("17.16.10.0/24")
    ours, theirs = take(world.allocator("node1")), take(world.allocator("node2"))
    again = take(world.allocator("node1"))
    assert len(world.blocks()) == 2
    assert world.owners()[f"{ours[0]}/26"] == "node1"
    assert world.owners()[f"{theirs[0]}/26"] == "node2"
    assert ip(again[0]) == ip(ours[0]) + 1


def test_a_whole_pool_is_given_and_then_the_message_names_it(world: World) -> None:
    pool = world.pool("17.16.10.0/24")
    allocator = world.allocator("node1")
    all_of_it = allocator.auto_assign(version=4, count=256)
    assert set(all_of_it.addresses) == set(pool)
    assert all_of_it.error is None
    none = allocator.auto_assign(version=4, count=1)
    assert none.addresses == ()
    assert none.messages == (
        "Assigned 0 out of 1 requested IPv4 addresses", "No IPs available in pools: [17.16.10.0/24]",
    )
    with pytest.raises(PoolExhausted, match=r"Assigned 0 out of 1 .*; No IPs available in pools: \[17.16.10.0/24\]"):
        none.one()
    world.assert_sound(dict.fromkeys(pool, all_of_it.handle))


def test_some_are_better_than_none(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    got = world.allocator("node1").auto_assign(version=4, count=9, handle=H)
    assert len(got.addresses) == 8
    assert got.shortage is Shortage.EXHAUSTED
    assert got.messages[0] == "Assigned 8 out of 9 requested IPv4 addresses"
    assert world.handles() == {"h": {"10.8.0.0/30": 4, "10.8.0.4/30": 4}}


def test_both_families(world: World) -> None:
    world.pool("17.16.10.0/24")
    world.pool("fd80:24e2:f998:72d6::/64")
    allocator = world.allocator("node1")
    four, six = take(allocator, handle="h"), take(allocator, version=6, handle="h")
    assert ip(six[0]) in net("fd80:24e2:f998:72d6::/64")
    assert net(f"{six[0]}/122") in world.blocks()
    assert allocator.addresses_of_handle(H) == [ip(four[0]), ip(six[0])]
    assert allocator.release_by_handle(H) == 2
    assert world.handles() == {}
    world.assert_sound({})


@pytest.mark.parametrize(("cidr", "size", "version"), [("10.0.0.0/26", 32, 4), ("fd00::/122", 128, 6)])
def test_blocks_of_one_address(world: World, cidr: str, size: int, version: int) -> None:
    pool = world.pool(cidr, blockSize=size)
    world.config(strict_affinity=True, maxBlocksPerHost=300)
    got = world.allocator("node1").auto_assign(version=version, count=64)
    assert set(got.addresses) == set(pool)
    assert len(world.blocks()) == 64
    world.assert_sound()


def test_a_node_name_that_begins_like_another_is_another(world: World) -> None:
    world.node("node10", "a" * 253, "web-1.example.com")
    world.pool("17.16.0.0/16")
    for name in ("node10", "node1", "a" * 253, "web-1.example.com"):
        take(world.allocator(name))
    assert sorted(filter(None, world.owners().values())) == sorted(["node1", "node10", "a" * 253, "web-1.example.com"])
    world.assert_sound()


@pytest.mark.parametrize("name", ["a/b", ""])
def test_names_that_cannot_stand_in_a_key_are_refused_before_any_write(world: World, name: str) -> None:
    world.pool("17.16.10.0/24")
    with pytest.raises(ConfigurationError, match="cannot be a node name"):
        Allocator(world.store, NodeName(name))
    with pytest.raises(ConfigurationError, match="cannot be an IPAM handle"):
        world.allocator("node1").auto_assign(version=4, handle=HandleId(name))
    with pytest.raises(ConfigurationError, match="cannot be a node name"):
        world.allocator("node1").remove_host(NodeName(name))
    assert world.ipam() == {}


def test_a_host_that_is_not_registered_gets_nothing(world: World) -> None:
    world.pool("17.16.10.0/24")
    with pytest.raises(DoesNotExist, match=r"resource does not exist: Node\(nosuch\)"):
        world.allocator("nosuch").auto_assign(version=4)
    assert world.ipam() == {}


# --- pools


def test_requested_pools_are_used_in_the_order_given_and_returned_to(world: World) -> None:
    world.pool("10.1.0.0/29", blockSize=30)
    second = world.pool("10.2.0.0/29", blockSize=30)
    first = world.pool("10.3.0.0/29", blockSize=30)
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, count=9, pools=[first, second])
    assert set(got.addresses[:8]) == set(first)
    assert got.addresses[8] in second
    assert take(allocator, pool="10.2.0.0/29") == [str(got.addresses[8] + 1)]


@pytest.mark.parametrize("asked", ["10.9.0.0/16", "17.16.10.0/25", "10.5.0.0/24", "fd00::/64"])
def test_a_requested_pool_must_be_an_enabled_pool_of_that_version(world: World, asked: str) -> None:
    world.pool("17.16.10.0/24")
    world.pool("10.5.0.0/24", disabled=True)
    world.pool("fd00::/64")
    with pytest.raises(PoolUnusable, match=f"the given pool \\({asked}\\)"):
        world.allocator("node1").auto_assign(version=4, pools=[net(asked)])
    assert world.ipam() == {}


def test_without_pools_there_is_nothing_to_qualify(world: World) -> None:
    with pytest.raises(PoolUnusable, match="cannot find a qualified ippool"):
        world.allocator("node1").auto_assign(version=4)
    world.pool("fd00::/64")
    world.pool("10.5.0.0/24", disabled=True)
    with pytest.raises(PoolUnusable, match="cannot find a qualified ippool"):
        world.allocator("node1").auto_assign(version=4)


def test_selectors_decide_unless_a_pool_is_asked_for(world: World) -> None:
    world.node("rack1", rack="1")
    world.pool("10.1.0.0/24", nodeSelector="rack == '1'")
    world.pool("fd00:1::/64", nodeSelector="rack == '1'")
    assert take(world.allocator("rack1"))[0].startswith("10.1.")
    for version, cidr in ((4, "10.1.0.0/24"), (6, "fd00:1::/64")):
        with pytest.raises(PoolUnusable, match="no configured Calico pools for node node2"):
            world.allocator("node2").auto_assign(version=version)
        assert ip(take(world.allocator("node2"), version=version, pool=cidr)[0]) in net(cidr)


def test_when_labels_change_the_next_pool_is_used_and_empty_blocks_are_given_up(world: World) -> None:
    world.node("mobile", rack="1")
    world.pool("10.1.0.0/28", "one", blockSize=30, nodeSelector="rack == '1'")
    world.pool("10.2.0.0/24", "two", nodeSelector="rack == '2'")
    allocator = world.allocator("mobile")
    stays = allocator.auto_assign(version=4, count=5)
    allocator.release([Release(stays.addresses[4])])
    empty, used = f"{stays.addresses[4]}/30", f"{stays.addresses[0]}/30"
    world.node("mobile", rack="2")
    moved = allocator.auto_assign(version=4)
    assert moved.one() in net("10.2.0.0/24")
    assert empty not in world.owners()
    assert world.owners()[used] == "mobile"
    allocator.release([Release(address) for address in stays.addresses[:4]])
    assert set(world.owners()) == {f"{moved.one()}/26"}
    world.assert_sound({moved.one(): moved.handle})


def test_a_deselected_block_in_a_pool_that_was_asked_for_is_kept(world: World) -> None:
    world.node("mobile", rack="1")
    pool = world.pool("10.1.0.0/29", blockSize=30, nodeSelector="rack == '2'")
    allocator = world.allocator("mobile")
    allocator.claim_affinity(pool)
    take(allocator, pool="10.1.0.0/29")
    assert len(world.blocks()) == 2


def test_a_pool_deleted_in_use_leaves_its_addresses_with_nobodys_block(world: World) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    world.pool("10.2.0.0/24", "two")
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, count=2)
    allocator.claim_affinity(net("10.1.0.0/28"), node=NodeName("node2"))
    allocator.delete_pool(PoolName("one"))
    assert world.owners() == {f"{got.addresses[0]}/30": None}
    assert not [key for key in world.ipam() if key.startswith("host/")]
    assert world.allocator("node2").auto_assign(version=4).one() in net("10.2.0.0/24")
    found = allocator.attributes(got.addresses[1])
    assert found is not None
    assert (found.handle, found.block_node) == (got.handle, None)
    assert allocator.release([Release(got.addresses[0])]) == []
    assert f"{got.addresses[0]}/30" in world.owners()
    assert allocator.release([Release(got.addresses[1])]) == []
    assert f"{got.addresses[0]}/30" not in world.owners()
    with pytest.raises(DoesNotExist):
        allocator.delete_pool(PoolName("one"))


@pytest.mark.parametrize("spec", [{}, {"disabled": False}, {"disabled": True}])
def test_a_pool_is_disabled_before_its_blocks_go(world: World, spec: dict[str, bool]) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    world.allocator("node1").claim_affinity(net("10.1.0.0/28"))
    world.pool("10.1.0.0/28", "one", blockSize=30, **spec)
    key, found = keys.kind_prefix("ippools") + "one", []

    def look() -> None:
        record = world.store.get(key)
        assert record is not None
        found.append(json.loads(record.value)["spec"].get("disabled"))

    faulty = FaultyStore(world.store)
    first_that_gives_up = 1 if spec.get("disabled") else 2
    faulty.before(first_that_gives_up, look)
    world.allocator("node1", faulty).delete_pool(PoolName("one"))
    assert found == [True]
    assert world.store.get(key) is None
    assert world.owners() == {}


@pytest.mark.parametrize("record", [b"no JSON", b"[]", b'{"kind": "IPPool"}', b'{"spec": null}', b'{"spec": []}'])
def test_a_record_that_is_no_pool_can_be_deleted_as_one(world: World, record: bytes) -> None:
    key = keys.kind_prefix("ippools") + "one"
    world.put(key, record)
    world.allocator("node1").delete_pool(PoolName("one"))
    assert world.store.get(key) is None


def test_a_claim_under_way_loses_against_the_deletion_of_its_pool(world: World) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    world.pool("10.2.0.0/28", "two", blockSize=30)
    faulty = FaultyStore(world.store)
    faulty.before(1, lambda: world.allocator("node2").delete_pool(PoolName("one")))
    got = world.allocator("node1", faulty).auto_assign(version=4)
    assert faulty.writes > 1
    assert got.one() in net("10.2.0.0/28")
    assert list(world.blocks()) == [net(f"{got.one()}/30")]


def test_a_claim_under_way_loses_against_a_change_of_the_settings(world: World) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    faulty = FaultyStore(world.store)
    faulty.before(1, lambda: world.config(auto_allocate_blocks=False))
    assert world.allocator("node1", faulty).auto_assign(version=4).addresses == ()
    assert world.blocks() == {}


def test_a_pool_is_deleted_only_at_the_revision_that_was_seen(world: World) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    seen = world.store.get(keys.kind_prefix("ippools") + "one")
    assert seen is not None
    world.pool("10.1.0.0/28", "one", blockSize=30, natOutgoing=True)
    with pytest.raises(UpdateConflict, match=r"IPPool\(one\)"):
        world.allocator("node1").delete_pool(PoolName("one"), revision=seen.revision)
    take(world.allocator("node1"))
    world.allocator("node1").delete_pool(PoolName("one"), revision=seen.revision + 1)
    assert world.store.get(keys.kind_prefix("ippools") + "one") is None


def test_a_pool_made_anew_uses_old_blocks_of_its_size_and_leaves_others_alone(world: World) -> None:
    world.pool("10.1.0.0/28", "one", blockSize=30)
    allocator = world.allocator("node1")
    first = allocator.auto_assign(version=4).one()
    world.pool("10.1.0.0/28", "one", blockSize=30)
    assert allocator.auto_assign(version=4).one() == first + 1
    world.pool("10.1.0.0/28", "one", blockSize=29)
    other = allocator.auto_assign(version=4).one()
    old = net(f"{first}/30")
    around = old.supernet(new_prefix=29)
    assert other not in around
    with pytest.raises(AffinityHeld, match="overlaps"):
        allocator.assign(next(address for address in around if address not in old))
    assert allocator.assign(first + 2, handle=H) == H
    assert world.block(str(old)).in_use == 3
    assert allocator.release([Release(first + n) for n in range(3)]) == []
    world.assert_sound(allow=frozenset({Kind.STRAY_BLOCK}))


def test_uses_are_respected(world: World) -> None:
    world.pool("10.1.0.0/24", allowedUses=["Tunnel"])
    allocator = world.allocator("node1")
    with pytest.raises(PoolUnusable, match=r"no pools match the required use \(Workload\)"):
        allocator.auto_assign(version=4)
    allocator.auto_assign(version=4, use="Tunnel").one()
    world.pool("10.2.0.0/24", allowedUses=["Workload"])
    assert allocator.auto_assign(version=4).one() in net("10.2.0.0/24")
    assert len(world.blocks()) == 2


def test_a_manual_pool_is_used_only_when_asked_for(world: World) -> None:
    world.pool("10.1.0.0/24", assignmentMode="Manual")
    with pytest.raises(PoolUnusable, match="no configured Calico pools"):
        world.allocator("node1").auto_assign(version=4)
    assert take(world.allocator("node1"), pool="10.1.0.0/24")


@pytest.mark.parametrize("spec", [
    {"cidr": "10.1.0.0/24", "blockSize": 19}, {"cidr": "10.1.0.0/27"}, {"cidr": "fd00::/64", "blockSize": 64},
    {"cidr": "10.1.0.3/24"}, {"cidr": 5}, {"cidr": "10.1.0.0/24", "nodeSelector": "rack =="},
    {"cidr": "10.1.0.0/24", "namespaceSelector": "!"},
])
def test_a_pool_that_makes_no_sense_is_skipped_and_told_once_and_the_others_work(
    world: World, spec: Mapping[str, object]
) -> None:
    world.put(keys.kind_prefix("ippools") + "bad", {"metadata": {"name": "bad"}, "spec": spec})
    world.pool("10.2.0.0/24")
    allocator = world.allocator("node1")
    assert len(take(allocator, 2)) == 2
    assert len(take(allocator)) == 1
    (report,) = world.reports
    assert report[0] == "pool.skipped"
    assert report[1]["key"] == keys.kind_prefix("ippools") + "bad"


def test_a_pool_with_a_namespace_selector_is_not_for_containers_without_namespace(world: World) -> None:
    world.pool("10.1.0.0/24", namespaceSelector="team == 'a'", allowedUses=["Workload"])
    with pytest.raises(PoolUnusable, match="no configured Calico pools"):
        world.allocator("node1").auto_assign(version=4)


# --- limits and strictness


def test_the_limit_of_blocks(world: World) -> None:
    world.pool("10.8.0.0/24", blockSize=30)
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, count=100)
    assert len(got.addresses) == 80
    assert got.shortage is Shortage.BLOCK_LIMIT
    assert got.messages == (
        "Assigned 80 out of 100 requested IPv4 addresses",
        "Need to allocate an IPAM block but could not - limit of 20 blocks reached for this node",
    )
    allocator.release([Release(got.addresses[7])])
    assert allocator.auto_assign(version=4).one() == got.addresses[7]
    world.config(strict_affinity=True, maxBlocksPerHost=21)
    assert len(allocator.auto_assign(version=4, count=100).addresses) == 4


def fill_small_pool(world: World) -> tuple[Allocator, Allocator]:
    """Make a pool of two blocks of four, one of each host, ours full."""
    world.pool("10.8.0.0/29", blockSize=30)
    ours, theirs = world.allocator("node1"), world.allocator("node2")
    assert len(take(ours, 4)) == 4
    assert len(take(theirs, 1)) == 1
    return ours, theirs


def test_strict_affinity_forbids_borrowing_until_it_is_switched_off(world: World) -> None:
    world.config(strict_affinity=True)
    ours, _ = fill_small_pool(world)
    none = ours.auto_assign(version=4)
    assert none.messages == (
        "Assigned 0 out of 1 requested IPv4 addresses", "No more free affine blocks and strict affinity enabled",
    )
    world.config()
    assert ours.auto_assign(version=4).one()


def test_borrowed_addresses_come_from_the_others_block_and_go_back_there(world: World) -> None:
    ours, theirs = fill_small_pool(world)
    borrowed = ours.auto_assign(version=4, count=2)
    held = world.held()
    for address in borrowed.addresses:
        assert held[address].block_node == "node2"
        assert held[address].attributes["node"] == "node1"
    assert [event for event, _ in world.reports] == ["address.borrowed"]
    assert ours.release([Release(address) for address in borrowed.addresses]) == []
    assert theirs.auto_assign(version=4, count=3).addresses[1:] == borrowed.addresses
    world.assert_sound()


def test_without_leave_to_claim_blocks_only_own_ones_serve(world: World) -> None:
    world.config(strict_affinity=True, auto_allocate_blocks=False)
    world.pool("10.8.0.0/29", blockSize=30)
    allocator = world.allocator("node1")
    assert allocator.auto_assign(version=4).messages[1] == "failed to find or claim a block"
    allocator.claim_affinity(net("10.8.0.0/30"))
    got = allocator.auto_assign(version=4, count=5)
    assert len(got.addresses) == 4
    assert got.shortage is Shortage.NO_CLAIMS


def test_settings_are_changed_by_compare_and_equal_ones_are_not_written(world: World) -> None:
    faulty = FaultyStore(world.store)
    allocator = world.allocator("node1", faulty)
    world.put(keys.IPAM_CONFIG, b'{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled","x":[1]}')
    allocator.configure(lambda old: config_form.changed(old, strict_affinity=False))
    assert faulty.writes == 0
    faulty.before(1, lambda: world.put(keys.IPAM_CONFIG, b'{"auto_allocate_blocks":true,"ipCooldownSeconds":9,"x":1}'))
    new = allocator.configure(lambda old: config_form.changed(old, strict_affinity=True, max_blocks_per_host=4))
    assert world.ipam()["config"] == (
        b'{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4,"ipCooldownSeconds":9,"x":1}'
    )
    assert allocator.configuration() == new
    faulty.lose_answer(1)
    assert allocator.configure(lambda old: config_form.changed(old, max_blocks_per_host=5)).max_blocks_per_host == 5
    with pytest.raises(IPAMConfigInvalid):
        allocator.configure(lambda old: config_form.changed(old, strict_affinity=False))


def test_settings_that_cannot_be_read_stop_assignments(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    world.put(keys.IPAM_CONFIG, b"x")
    with pytest.raises(IPAMConfigInvalid):
        world.allocator("node1").auto_assign(version=4)
    assert list(world.ipam()) == ["config"]


def test_in_exhaustion_an_old_empty_block_of_another_changes_hands_in_one_step(world: World) -> None:
    world.config(strict_affinity=True)
    ours, theirs = fill_small_pool(world)
    (address,) = [a for a, held in world.held().items() if held.block_node == "node2"]
    theirs.release([Release(address)])
    assert ours.auto_assign(version=4).shortage is Shortage.STRICT
    world.clock.now += 61
    faulty = FaultyStore(world.store)
    got = world.allocator("node1", faulty).auto_assign(version=4)
    assert faulty.writes == 1
    assert got.one() == address + 1
    assert set(world.owners().values()) == {"node1"}
    assert not [key for key in world.ipam() if key.startswith("host/node2")]
    world.assert_sound()


# --- reservations


def test_reserved_addresses_are_skipped_and_can_be_asked_for(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=29)
    world.reserve("10.8.0.0/31", " 10.8.0.3 ", "", "10.8.0.3/32")
    allocator = world.allocator("node1")
    assert take(allocator, 2) == ["10.8.0.2", "10.8.0.4"]
    allocator.assign(ip("10.8.0.3"))
    got = allocator.auto_assign(version=4, count=9)
    assert texts(got) == ["10.8.0.5", "10.8.0.6", "10.8.0.7"]
    assert got.shortage is Shortage.EXHAUSTED


def test_an_address_reserved_while_in_use_stays_and_is_not_given_again(world: World) -> None:
    world.pool("10.8.0.0/30", blockSize=30)
    allocator = world.allocator("node1")
    first = allocator.auto_assign(version=4).one()
    world.reserve(str(first))
    assert first in world.held()
    allocator.release([Release(first)])
    assert texts(allocator.auto_assign(version=4, count=9)) == [str(first + n) for n in (1, 2, 3)]


def test_a_malformed_reservation_is_told_and_the_others_hold(world: World) -> None:
    world.pool("10.8.0.0/30", blockSize=30)
    world.reserve("10.8.0.1/24", "10.8.0.0/31")
    world.put(keys.kind_prefix("ipreservations") + "worse", b"x")
    allocator = world.allocator("node1")
    assert take(allocator, 9) == ["10.8.0.2", "10.8.0.3"]
    take(allocator)
    assert [event for event, _ in world.reports] == ["reservation.skipped"] * 2


def test_a_wholly_reserved_pool_is_exhausted(world: World) -> None:
    world.pool("fd00::/64")
    world.reserve("fd00::/64")
    assert world.allocator("node1").auto_assign(version=6).shortage is Shortage.EXHAUSTED
    assert world.ipam() == {}


# --- one address


@pytest.mark.parametrize("address", ["17.16.10.77", "fd00::7"])
def test_an_address_asked_for_is_given_once(world: World, address: str) -> None:
    world.pool("17.16.10.0/24")
    world.pool("fd00::/64")
    allocator = world.allocator("node1")
    assert allocator.assign(ip(address), handle=H) == H
    before = world.ipam()
    assert allocator.assign(ip(address), handle=H) == H
    assert world.ipam() == before
    with pytest.raises(AddressInUse, match=f"Address already assigned in block: {address}"):
        allocator.assign(ip(address), handle=G)
    with pytest.raises(AddressInUse):
        world.allocator("node2").assign(ip(address))
    assert world.ipam() == before
    world.assert_sound({ip(address): H})


def test_an_address_outside_of_enabled_pools_is_refused(world: World) -> None:
    world.pool("17.16.10.0/24", disabled=True)
    for address in ("203.0.113.1", "17.16.10.7", "fd00::1"):
        with pytest.raises(NotInPool, match="The provided IP address is not in a configured pool"):
            world.allocator("node1").assign(ip(address))


def test_an_address_in_anothers_block_is_borrowed_unless_strict(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    world.allocator("node2").assign(ip("10.8.0.1"))
    world.allocator("node1").assign(ip("10.8.0.2"), handle=H)
    held = world.held()[ip("10.8.0.2")]
    assert (held.block_node, held.attributes["node"]) == ("node2", "node1")
    world.config(strict_affinity=True)
    with pytest.raises(AffinityHeld, match="Block host affinity does not match"):
        world.allocator("node1").assign(ip("10.8.0.3"))
    world.allocator("node2").assign(ip("10.8.0.3"))
    world.assert_sound()


def test_an_address_asked_for_ignores_limit_selector_and_mode(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30, nodeSelector="has(nothing)", assignmentMode="Manual")
    world.config(strict_affinity=True, maxBlocksPerHost=1)
    allocator = world.allocator("node1")
    allocator.assign(ip("10.8.0.0"))
    allocator.assign(ip("10.8.0.4"))
    assert set(world.owners().values()) == {"node1"}


# --- release


def test_what_is_not_allocated_is_told_and_nothing_is_written(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    faulty = FaultyStore(world.store)
    allocator = world.allocator("node1", faulty)
    got = allocator.auto_assign(version=4).one()
    writes = faulty.writes
    elsewhere = next(address for address in net("10.8.0.0/29") if address not in net(f"{got}/30"))
    nothing = [ip("203.0.113.9"), got + 1, elsewhere, ip("fd00::1")]
    assert sorted(map(str, allocator.release([Release(address) for address in nothing]))) == sorted(map(str, nothing))
    assert faulty.writes == writes
    assert allocator.release([Release(got), Release(got), Release(got + 1)]) == [got + 1]
    assert allocator.release([Release(got)]) == [got]
    world.assert_sound({})


def test_a_wrong_handle_or_number_releases_nothing_of_that_block_only(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, count=5, handle=H).addresses
    in_first = [address for address in got if address in net(f"{got[0]}/30")]
    other = got[4]
    for bad in (Release(got[1], handle=G), Release(got[1], sequence=17)):
        with pytest.raises(ReleaseRefused, match=f"update conflict: {got[1]}: bad"):
            allocator.release([Release(got[0]), bad, Release(other)])
        assert set(world.held()) == set(in_first)
        allocator.assign(other, handle=H)
    found = allocator.attributes(got[1])
    assert found is not None
    assert allocator.release([Release(got[1], handle=H, sequence=found.sequence)]) == []
    world.assert_sound()


def test_the_number_of_an_earlier_allocation_under_the_same_handle_is_refused(world: World) -> None:
    world.pool("10.8.0.0/30", blockSize=30)
    allocator = world.allocator("node1")
    address = ip("10.8.0.2")

    def assigned() -> int:
        allocator.assign(address, handle=H)
        found = allocator.attributes(address)
        assert found is not None
        return found.sequence

    first = assigned()
    allocator.release([Release(address)])
    second = assigned()
    with pytest.raises(ReleaseRefused):
        allocator.release([Release(address, sequence=first)])
    allocator.release([Release(address, sequence=second)])
    world.clock.offset -= 3600
    allocator.release_host_affinities()
    assert world.ipam() == {}
    third = assigned()
    assert len({first, second, third}) == 3
    with pytest.raises(ReleaseRefused):
        allocator.release([Release(address, sequence=second)])


def test_release_by_handle_goes_through_blocks_and_versions_and_spares_others(world: World) -> None:
    world.pool("10.8.0.0/28", blockSize=30)
    world.pool("fd00::/64")
    allocator = world.allocator("node1")
    other = allocator.auto_assign(version=4, handle=G).one()
    allocator.auto_assign(version=4, count=9, handle=H)
    allocator.auto_assign(version=6, count=2, handle=H)
    faulty = FaultyStore(world.store)
    assert world.allocator("node2", faulty).release_by_handle(H) == 11
    assert faulty.writes == 1
    assert world.handles().keys() == {"g"}
    world.assert_sound({other: G})
    with pytest.raises(DoesNotExist, match=r"IPAMHandleKey\(id=h\)"):
        allocator.release_by_handle(H)
    assert allocator.addresses_of_handle(H) == []


def test_a_handle_that_says_more_than_its_blocks_goes_with_them(world: World) -> None:
    world.pool("10.8.0.0/28", blockSize=30)
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, handle=H).one()
    world.put(keys.handle_key(H), {"block": {f"{got}/30": 12, "10.9.0.0/30": 1, "10.8.0.12/30": 2}, "deleted": False})
    assert allocator.release_by_handle(H) == 1
    assert world.handles() == {}
    got = allocator.auto_assign(version=4, handle=H, count=2).addresses[0]
    world.put(keys.handle_key(H), {"block": {f"{ip(str(got)) - int(got) % 4}/30": 12}, "deleted": False})
    allocator.release([Release(got)])
    assert sum(world.handles()["h"].values()) == 11
    allocator.release([Release(got + 1)])
    assert world.handles() == {}


def test_an_empty_handle_is_released_away(world: World) -> None:
    world.put(keys.handle_key(H), {"block": {}, "deleted": False})
    assert world.allocator("node1").release_by_handle(H) == 0
    assert world.handles() == {}


def test_many_addresses_with_a_handle_each_are_released_in_few_transactions(world: World) -> None:
    world.pool("10.8.0.0/24", blockSize=24)
    allocator = world.allocator("node1")
    got = [allocator.auto_assign(version=4).one() for _ in range(230)]
    faulty = FaultyStore(world.store)
    assert world.allocator("node2", faulty).release([Release(address) for address in got]) == []
    assert faulty.writes == 3
    assert world.handles() == {}
    world.assert_sound({})


def test_a_cooldown_is_kept(world: World) -> None:
    world.pool("10.8.0.0/30", blockSize=30)
    world.config(ipCooldownSeconds=30)
    allocator = world.allocator("node1")
    first = allocator.auto_assign(version=4, handle=H).one()
    allocator.release([Release(first)])
    found = allocator.attributes(first)
    assert found is not None
    assert found.cooling
    assert allocator.release([Release(first)]) == [first]
    assert len(allocator.auto_assign(version=4, count=4).addresses) == 3
    with pytest.raises(AddressInUse):
        allocator.assign(first)
    world.clock.now += 30
    assert allocator.attributes(first) is None
    assert allocator.auto_assign(version=4).one() == first
    world.assert_sound()


def test_who_holds_an_address(world: World) -> None:
    world.pool("10.8.0.0/29", blockSize=30)
    allocator = world.allocator("node1")
    got = allocator.auto_assign(version=4, handle=H, attributes={"type": "docker"}).one()
    found = world.allocator("node2").attributes(got)
    assert found is not None
    assert (found.address, found.handle, found.block_node, found.cooling) == (got, "h", "node1", False)
    assert dict(found.attributes) == {"node": "node1", "type": "docker"}
    for nobody in (got + 1, ip("203.0.113.1"), ip("fd00::1")):
        assert allocator.attributes(nobody) is None


# --- ownership


def test_a_range_is_claimed_block_by_block_and_belongs_to_the_first(world: World) -> None:
    world.pool("10.8.0.0/16")
    first = world.allocator("node1").claim_affinity(net("10.8.8.0/24"))
    assert [str(cidr) for cidr in first.claimed] == [f"10.8.8.{n}/26" for n in (0, 64, 128, 192)]
    assert first.failed == ()
    assert world.allocator("node1").claim_affinity(net("10.8.8.0/24")) == first
    second = world.allocator("node1").claim_affinity(net("10.8.8.0/23"), node=NodeName("node2"))
    assert second.failed == first.claimed
    assert len(second.claimed) == 4
    assert world.block("10.8.9.0/26").owners is None
    world.assert_sound({})


def test_what_cannot_be_claimed(world: World) -> None:
    world.pool("10.8.0.0/16")
    allocator = world.allocator("node1")
    with pytest.raises(NotInPool, match=r"The requested CIDR \(10.8.0.0/27\) is smaller than the minimum."):
        allocator.claim_affinity(net("10.8.0.0/27"))
    for outside in ("10.0.0.0/8", "10.9.0.0/24", "fd00::/64"):
        with pytest.raises(NotInPool, match="is not within any configured pools"):
            allocator.claim_affinity(net(outside))
    assert world.ipam() == {}


def test_blocks_are_given_up_empty_ones_deleted_used_ones_kept(world: World) -> None:
    world.pool("10.8.0.0/28", blockSize=30)
    allocator = world.allocator("node1")
    allocator.claim_affinity(net("10.8.0.0/28"))
    allocator.assign(ip("10.8.0.5"), handle=H)
    allocator.assign(ip("10.8.0.9"), handle=H)
    assert allocator.release_affinity(net("10.8.0.0/29"), must_be_empty=True) == 1
    assert world.owners() == {"10.8.0.4/30": "node1", "10.8.0.8/30": "node1", "10.8.0.12/30": "node1"}
    assert allocator.release_affinity(net("10.8.0.0/29"), NodeName("node2")) == 0
    assert allocator.release_affinity(net("10.8.0.0/29")) == 1
    assert allocator.release_host_affinities(must_be_empty=True) == 1
    assert world.owners() == {"10.8.0.4/30": None, "10.8.0.8/30": "node1"}
    assert world.allocator("node2").remove_host(NodeName("node1")) == 1
    assert world.owners() == {"10.8.0.4/30": None, "10.8.0.8/30": None}
    assert set(world.held()) == {ip("10.8.0.5"), ip("10.8.0.9")}
    assert allocator.remove_host(NodeName("nosuch")) == 0
    world.assert_sound({ip("10.8.0.5"): H, ip("10.8.0.9"): H})
    assert allocator.release_by_handle(H) == 2
    assert world.ipam() == {}


def test_a_removed_hosts_blocks_of_deleted_pools_and_lost_tickets_go_too(world: World) -> None:
    world.pool("10.8.0.0/28", "one", blockSize=30)
    world.pool("fd00::/64")
    allocator = world.allocator("node1")
    allocator.claim_affinity(net("10.8.0.0/28"))
    take(allocator, version=6)
    world.remove_pool("one")
    world.delete(keys.affinity_key(NodeName("node1"), net("10.8.0.4/30")))
    assert allocator.remove_host(NodeName("node1")) == 5
    assert set(world.owners().values()) == {None}


# --- broken and foreign data


def test_an_unreadable_block_is_full_and_the_pool_goes_on(world: World) -> None:
    world.pool("10.8.0.0/28", blockSize=30)
    allocator = world.allocator("node1")
    first = allocator.auto_assign(version=4, count=2, handle=H).addresses
    bad = f"{first[0]}/30"
    world.put(keys.block_key(net(bad)), b"garbage")
    more = allocator.auto_assign(version=4, count=20)
    assert len(more.addresses) == 12
    assert not set(more.addresses) & set(net(bad))
    with pytest.raises(BlockUnreadable, match=bad.replace("/", "-")):
        allocator.release([Release(first[0]), Release(more.addresses[0])])
    last = net(f"{ip(str(more.addresses[0])) - int(more.addresses[0]) % 4}/30")
    assert block_form.decode(last, world.ipam()[f"assignment/ipv4/block/{last}".replace("/30", "-30")]).in_use == 3
    with pytest.raises(BlockUnreadable):
        allocator.assign(first[0] + 2)
    assert allocator.release_by_handle(H) == 0
    assert world.handles()["h"] == {bad: 2}
    assert world.ipam()[f"assignment/ipv4/block/{bad.replace('/', '-')}"] == b"garbage"
    assert len([event for event, _ in world.reports if event == "block.skipped"]) == 1
