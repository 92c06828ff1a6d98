"""The tunnel addresses of a node, kept in a store by the real allocator: taken, moved, given back, and killed."""

import ipaddress
import json
from collections.abc import Callable

import pytest

from calicoctl.node.agent.keeper import Keeper, Kept
from calicoctl.node.agent.tunnels import IPIP, KINDS, VXLAN, VXLAN6, TunnelKind, sources
from fakes.ipam_world import SteppedStore, World
from ipam.errors import PoolExhausted
from resources.datastore import keys
from resources.datastore.client import ResourceClient
from resources.errors import DoesNotExist
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.pool import KIND as POOL
from resources.names import HandleId, NodeName
from resources.vxlan import tunnel_mac

NODE1 = NodeName("node1")
POOL_A, POOL_B = "10.1.0.0/24", "10.2.0.0/24"


class Host:
    """One node's keeper on a world's store, or on `store` above it."""

    def __init__(self, world: World, store: SteppedStore | None = None) -> None:
        self.client = ResourceClient(store or world.store)
        self.keeper = Keeper(NODE1, self.client, world.allocator("node1", store or world.store))

    def settle(self, kind: TunnelKind = IPIP) -> Kept:
        pools = self.client.list(POOL).items
        return self.keeper.settle(kind, sources(kind, pools, self.node.metadata.labels))

    @property
    def node(self) -> Node:
        return self.client.get(NODE, NODE1)

    def recorded(self, kind: TunnelKind = IPIP) -> str:
        return kind.recorded(self.node)


@pytest.fixture
def world() -> World:
    world = World()
    put_node(world)
    return world


def put_node(world: World, ipip: str = "") -> None:
    bgp = {"ipv4Address": "192.0.2.1/24"} | ({"ipv4IPIPTunnelAddr": ipip} if ipip else {})
    document = {"kind": "Node", "metadata": {"name": "node1"}, "spec": {"bgp": bgp, "kept": "as it is"}}
    world.put(keys.kind_prefix("nodes") + "node1", document)


def raw_node(world: World) -> dict[str, object]:
    found = world.store.get(keys.kind_prefix("nodes") + "node1")
    assert found is not None
    document: dict[str, object] = json.loads(found.value)
    return document


def held(world: World) -> dict[str, tuple[str | None, dict[str, str]]]:
    return {str(address): (found.handle, dict(found.attributes)) for address, found in world.held().items()}


def test_each_kind_takes_an_address_from_its_own_pools_with_the_originals_handle_and_attributes(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    world.pool(POOL_B, vxlanMode="CrossSubnet")
    world.pool("fd00::/64", vxlanMode="Always")
    host = Host(world)
    for kind in KINDS:
        assert str(host.settle(kind).address) == host.recorded(kind)
    assert held(world) == {
        host.recorded(IPIP): ("ipip-tunnel-addr-node1", {"node": "node1", "type": "ipipTunnelAddress"}),
        host.recorded(VXLAN): ("vxlan-tunnel-addr-node1", {"node": "node1", "type": "vxlanTunnelAddress"}),
        host.recorded(VXLAN6): ("vxlan-v6-tunnel-addr-node1", {"node": "node1", "type": "vxlanV6TunnelAddress"}),
    }
    assert ipaddress.ip_address(host.recorded(IPIP)) in ipaddress.ip_network(POOL_A)
    assert raw_node(world)["spec"] == {
        "bgp": {"ipv4Address": "192.0.2.1/24", "ipv4IPIPTunnelAddr": host.recorded(IPIP)},
        "ipv4VXLANTunnelAddr": host.recorded(VXLAN), "ipv6VXLANTunnelAddr": host.recorded(VXLAN6), "kept": "as it is",
        "vxlanTunnelMACAddr": "66:f9:37:c3:7e:94", "vxlanTunnelMACAddrV6": tunnel_mac(NodeName("node1"), 6),
    }
    world.assert_sound()


def test_a_second_look_writes_nothing(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    host = Host(world)
    host.settle()
    before = world.store.list("/").items
    assert str(host.settle().address) == host.recorded()
    assert world.store.list("/").items == before


def test_it_goes_when_no_pool_wants_it_any_more(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    host = Host(world)
    host.settle()
    world.pool(POOL_A, ipipMode="Never")
    assert host.settle() == Kept(None)
    assert (host.recorded(), held(world), world.handles()) == ("", {}, {})


def test_it_moves_when_its_pool_goes(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    host = Host(world)
    host.settle()
    world.pool(POOL_A, ipipMode="Always", disabled=True)
    world.pool(POOL_B, ipipMode="Always")
    host.settle()
    assert ipaddress.ip_address(host.recorded()) in ipaddress.ip_network(POOL_B)
    assert list(held(world)) == [host.recorded()]
    world.assert_sound()


def test_the_same_address_is_taken_again_when_its_allocation_was_lost(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    host = Host(world)
    host.settle()
    address = host.recorded()
    world.allocator("node1").release_by_handle(IPIP.handle(NODE1))
    host.settle()
    assert host.recorded() == address
    assert list(held(world)) == [address]


def test_an_address_that_a_container_has_is_left_to_it(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    put_node(world, ipip="10.1.0.5")
    world.node("node2")
    world.allocator("node2").assign(ipaddress.ip_address("10.1.0.5"), handle=HandleId("docker-1"))
    host = Host(world)
    host.settle()
    assert host.recorded() not in ("", "10.1.0.5")
    assert held(world)["10.1.0.5"][0] == "docker-1"


def test_the_address_of_an_old_calico_gets_its_handle(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    world.allocator("node1").assign(ipaddress.ip_address("10.1.0.5"), handle=HandleId("x"))
    key = keys.block_key(next(iter(world.blocks())))
    block = world.store.get(key)
    assert block is not None
    document = json.loads(block.value)
    document["attributes"] = [{}]
    world.put(key, document)
    world.delete(keys.IPAM_HANDLES + "x")
    put_node(world, ipip="10.1.0.5")
    host = Host(world)
    host.settle()
    assert host.recorded() == "10.1.0.5"
    assert held(world)["10.1.0.5"] == ("ipip-tunnel-addr-node1", dict(IPIP.attributes(NODE1)))


def test_a_full_pool_is_told_and_nothing_is_recorded(world: World) -> None:
    world.pool("10.1.0.0/30", ipipMode="Always", blockSize=30)
    world.allocator("node1").auto_assign(version=4, count=4)
    host = Host(world)
    with pytest.raises(PoolExhausted):
        host.settle()
    assert host.recorded() == ""


def test_an_address_is_not_left_behind_when_the_node_is_removed_meanwhile(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    store = SteppedStore(world.store)
    host = Host(world, store)
    wanted = sources(IPIP, host.client.list(POOL).items, {})

    def settle_with_node_gone_at(nth: int) -> None:
        put_node(world)
        store.before(nth, lambda: world.delete(keys.kind_prefix("nodes") + "node1"))
        with pytest.raises(DoesNotExist):
            host.keeper.settle(IPIP, wanted)

    for nth in range(1, 7):
        settle_with_node_gone_at(nth)
        assert held(world) == {}


def test_a_record_that_changes_meanwhile_is_decided_about_again(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")
    store = SteppedStore(world.store)
    host = Host(world, store)
    for nth in range(2, 12):
        put_node(world)
        host.settle()
        put_node(world)
        store.before(nth, lambda: put_node(world, ipip="10.1.0.77"))
        host.settle()
        host.settle()
        assert list(held(world)) == [host.recorded()]


class Killed(BaseException):
    """The process ends here."""


def _die() -> None:
    raise Killed


def _appears(world: World) -> None:
    world.pool(POOL_A, ipipMode="Always")


def _moves(world: World) -> None:
    _appears(world)
    Host(world).settle()
    world.pool(POOL_A, ipipMode="Always", disabled=True)
    world.pool(POOL_B, ipipMode="Always")


def _goes(world: World) -> None:
    _appears(world)
    Host(world).settle()
    world.pool(POOL_A, ipipMode="Never")


@pytest.mark.parametrize("begin", [_appears, _moves, _goes])
def test_killed_anywhere_and_started_again_it_ends_in_the_same_state(begin: Callable[[World], None]) -> None:
    calls = 0
    while True:
        world = World()
        put_node(world)
        begin(world)
        store = SteppedStore(world.store)
        store.before(calls + 1, _die)
        try:
            Host(world, store).settle()
            break
        except Killed:
            recorded = Host(world).recorded()
            assert not recorded or held(world)[recorded][0] == "ipip-tunnel-addr-node1", "recorded, and anybody's"
        host = Host(world)
        host.settle()
        wanted = [host.recorded()] if begin is not _goes else []
        assert list(held(world)) == wanted, f"killed before call {calls + 1}"
        world.assert_sound()
        calls += 1
    assert calls > 5
