"""How full the pools are: what is reserved, what cannot be read, what lies in no pool (reference ipam.md 3.8)."""

import ipaddress

import pytest

from fakes.ipam_world import World
from ipam.results import BlockUse, PoolUse
from resources.names import HandleId, IPNetwork, NodeName

ONE, TWO = ipaddress.ip_network("10.1.0.0/28"), ipaddress.ip_network("10.2.0.0/28")
H = HandleId("h")


@pytest.fixture
def world() -> World:
    """One pool of two blocks, and a node."""
    world = World()
    world.node("node1")
    world.pool(str(ONE), "one", blockSize=29)
    return world


def take(world: World, count: int, *, pool: IPNetwork = ONE) -> BlockUse:
    """Let node1 have some addresses; return its block as it should be shown then."""
    got = world.allocator("node1").auto_assign(version=4, count=count, handle=H, pools=[pool])
    assert len(got.addresses) == count
    (cidr,) = {ipaddress.ip_network(f"{address}/29", strict=False) for address in got.addresses}
    return BlockUse(cidr=cidr, node=NodeName("node1"), capacity=8, in_use=count)


def pool_use(name: str, cidr: IPNetwork, *blocks: BlockUse, reserved: int = 0) -> PoolUse:
    in_use = sum(block.in_use for block in blocks)
    return PoolUse(name=name, cidr=cidr, capacity=16, in_use=in_use, reserved=reserved, blocks=blocks)  # type: ignore[arg-type]


def test_all_pools_by_name_the_disabled_too_and_only_those_that_were_asked_for(world: World) -> None:
    world.pool(str(TWO), "also", blockSize=29, disabled=True)
    block = take(world, 3)
    also, one = pool_use("also", TWO), pool_use("one", ONE, block)
    allocator = world.allocator("node1")
    assert allocator.utilization() == [also, one]
    assert allocator.utilization([ONE]) == [one]
    assert allocator.utilization([]) == []


def test_what_is_reserved_counts_once_though_somebody_has_it(world: World) -> None:
    block = take(world, 3)
    world.reserve(str(block.cidr[0]), "10.1.0.7/32", "10.9.0.0/24")
    assert world.allocator("node1").utilization() == [pool_use("one", ONE, block, reserved=1)]
    world.reserve(str(ONE))
    assert world.allocator("node1").utilization() == [pool_use("one", ONE, block, reserved=13)]


def test_blocks_of_no_pool_stand_at_the_end_unless_pools_were_asked_for(world: World) -> None:
    world.pool(str(TWO), "two", blockSize=29)
    kept, orphan = take(world, 1), take(world, 2, pool=TWO)
    world.remove_pool("two")
    allocator = world.allocator("node1")
    rest = PoolUse(name=None, cidr=None, capacity=0, in_use=2, reserved=0, blocks=(orphan,))
    assert allocator.utilization() == [pool_use("one", ONE, kept), rest]
    assert allocator.utilization([ONE]) == [pool_use("one", ONE, kept)]


def test_a_block_that_cannot_be_read_counts_as_full_and_says_why(world: World) -> None:
    block = take(world, 1)
    (key,) = [key for key in world.ipam() if "/block/" in key and not key.startswith("host/")]
    world.put(f"/calico/ipam/v2/{key}", b"no block")
    world.reserve(str(block.cidr[7]))
    (use,) = world.allocator("node1").utilization()
    (shown,) = use.blocks
    assert (shown.cidr, shown.node, shown.in_use, use.in_use, use.reserved) == (block.cidr, None, 8, 8, 1)
    assert shown.unreadable
