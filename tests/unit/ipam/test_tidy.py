"""Which blocks and claims a node gives up: by tables, on a store, and with others at work in between."""

import ipaddress
import random

import pytest

from fakes.ipam_world import SteppedStore, World
from ipam.results import Release
from resources.datastore import keys
from resources.names import HandleId, IPNetwork, NodeName

NODE1 = NodeName("node1")


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


@pytest.fixture
def world() -> World:
    """A pool of four blocks of four addresses."""
    world = World()
    world.pool("10.0.0.0/28", "p", blockSize=30)
    world.node("node1", "node2")
    return world


def own(world: World, node: str = "node1") -> list[str]:
    return [cidr for cidr, owner in world.owners().items() if owner == node]


def fill(world: World, addresses: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Have node1 hold so many addresses, and return them in the order of their blocks' claims."""
    return list(world.allocator("node1").auto_assign(version=4, count=addresses, handle=HandleId("h")).addresses)


def tidy_twice(world: World) -> list[str]:
    allocator = world.allocator("node1")
    done = allocator.tidy(allocator.tidy().marks)
    world.assert_sound()
    return sorted(map(str, done.given_up))


def test_an_empty_block_goes_if_the_others_have_one_blocks_worth_free(world: World) -> None:
    held = fill(world, 9)  # three blocks: full, full, one of four
    allocator = world.allocator("node1")
    allocator.release([Release(held[8])])
    assert len(own(world)) == 3
    assert tidy_twice(world) == []  # nothing else is free
    allocator.release([Release(address) for address in held[4:8]])
    assert len(tidy_twice(world)) == 1  # of two empty ones beside a full one
    assert len(own(world)) == 2
    assert tidy_twice(world) == []
    allocator.release([Release(address) for address in held[1:4]])
    assert tidy_twice(world) == []  # three are free in the first: less than a block
    allocator.release([Release(held[0])])
    assert len(tidy_twice(world)) == 1
    assert len(own(world)) == 1  # the last one stays, for the next container


def test_what_was_claimed_last_goes_first(world: World) -> None:
    blocks = []
    for _ in range(3):
        held = fill(world, 4)
        blocks.append(str(ipaddress.ip_network(f"{held[0]}/30", strict=False)))
        world.clock.now += 60
    world.allocator("node1").release_by_handle(HandleId("h"))
    tidy_twice(world)
    assert own(world) == [blocks[0]]


def test_one_look_is_not_enough_nor_are_two_with_a_change_in_between(world: World) -> None:
    held = fill(world, 8)
    allocator = world.allocator("node1")
    allocator.release([Release(address) for address in held])
    seen = allocator.tidy()
    assert (seen.given_up, len(seen.marks)) == ((), 1)
    (spare,) = seen.marks
    taken = spare[1]
    allocator.assign(taken, handle=HandleId("again"))
    allocator.release([Release(taken)])
    assert allocator.tidy(seen.marks).given_up == ()
    assert len(own(world)) == 2


def test_a_block_that_is_needed_at_the_last_moment_stays(world: World) -> None:
    """Somebody takes an address of it between the look and the write."""
    for nth in range(1, 15):
        world = World()
        world.pool("10.0.0.0/28", "p", blockSize=30)
        world.node("node1")
        held = fill(world, 8)
        plain, store = world.allocator("node1"), SteppedStore(world.store)
        plain.release([Release(address) for address in held])
        allocator = world.allocator("node1", store)
        marks = allocator.tidy().marks
        (spare,) = marks
        took: list[bool] = []

        def take(spare: IPNetwork = spare, world: World = world, took: list[bool] = took) -> None:
            world.allocator("node1").assign(spare[0], handle=HandleId("late"))
            took.append(True)

        store.before(nth, take)
        allocator.tidy(marks)
        world.assert_sound()
        if took:
            assert str(spare) in own(world)
            assert world.held()[spare[0]].handle == "late"
            continue
        break
    assert nth > 4


def test_empty_blocks_of_pools_that_are_not_for_this_node_go(world: World) -> None:
    held = fill(world, 2)
    world.allocator("node1").release([Release(held[0])])
    world.pool("10.0.0.0/28", "p", blockSize=30, nodeSelector="rack == 'b'")
    assert tidy_twice(world) == []  # one address is in use
    world.allocator("node1").release([Release(held[1])])
    # releasing the last address gives it up at once; a claim by hand stays until the agent looks
    world.pool("10.0.0.0/28", "p", blockSize=30)
    world.allocator("node1").claim_affinity(net("10.0.0.0/30"))
    world.pool("10.0.0.0/28", "p", blockSize=30, disabled=True)
    assert tidy_twice(world) == ["10.0.0.0/30"]
    assert own(world) == []


def test_claims_of_blocks_that_are_gone_or_anothers_go_and_others_stay(world: World) -> None:
    world.allocator("node2").claim_affinity(net("10.0.0.4/30"))
    confirmed = {"state": "confirmed", "deleted": False}
    world.put(keys.affinity_key(NODE1, net("10.0.0.0/30")), confirmed)
    world.put(keys.affinity_key(NODE1, net("10.0.0.4/30")), confirmed)
    assert tidy_twice(world) == ["10.0.0.0/30", "10.0.0.4/30"]
    assert own(world, "node2") == ["10.0.0.4/30"]


def test_an_unreadable_block_and_its_claim_stay(world: World) -> None:
    world.allocator("node1").claim_affinity(net("10.0.0.0/30"))
    world.allocator("node1").claim_affinity(net("10.0.0.4/30"))
    world.put(keys.block_key(net("10.0.0.0/30")), "no JSON")
    allocator = world.allocator("node1")
    assert allocator.tidy(allocator.tidy().marks).given_up == ()


def test_nothing_is_done_for_a_node_that_is_not_registered() -> None:
    world = World()
    world.pool("10.0.0.0/28", "p", blockSize=30)
    world.node("node1")
    fill(world, 8)
    world.allocator("node1").release_by_handle(HandleId("h"))
    world.delete(keys.kind_prefix("nodes") + "node1")
    allocator = world.allocator("node1")
    assert allocator.tidy(allocator.tidy().marks).given_up == ()


def test_any_history_ends_with_room_for_a_block_and_every_address_where_it_was() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        world = World()
        world.pool("10.0.0.0/25", "p", blockSize=30)
        world.node("node1")
        allocator = world.allocator("node1")
        held = list(allocator.auto_assign(version=4, count=rng.randrange(1, 60)).addresses)
        gone = rng.sample(held, rng.randrange(len(held) + 1))
        allocator.release([Release(address) for address in gone])
        tidy_twice(world)
        assert set(world.held()) == set(held) - set(gone)
        mine = list(world.blocks().values())
        empty = [block for block in mine if block.is_empty]
        free = sum(len(block.free()) for block in mine)
        assert len(empty) <= 1
        assert not empty or free - 4 < 4, "an empty block stays only if the rest has less than its room"
