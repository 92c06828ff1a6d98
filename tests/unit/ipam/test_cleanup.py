import ipaddress
from collections.abc import Callable

import pytest

from fakes.faulty_store import FaultyStore
from ipam.allocator import Allocator
from ipam.cleanup import TRIES, Cleanup
from ipam.errors import ReleaseRefused
from ipam.handle import new_handle
from ipam.results import Release
from resources.datastore.client import ResourceClient
from resources.datastore.keys import IPAM_HANDLES, IPAM_HOSTS, blocks_prefix
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Snapshot, Transaction
from resources.kinds.base import Metadata
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.names import HandleId, IPAddress, NodeName

POOL_CIDR = ipaddress.ip_network("10.0.0.0/28")
N1, N2 = NodeName("node1"), NodeName("node2")


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    client = ResourceClient(store)
    client.ensure_defaults()
    for name in (N1, N2):
        client.create(NODE, Node(metadata=Metadata(name=name)))
    client.create(POOL, IPPool(metadata=Metadata(name="pool"), spec=IPPoolSpec(cidr=str(POOL_CIDR), block_size=30)))
    return store


def left(store: MemoryStore, prefix: str) -> list[str]:
    return [item.key for item in store.list(prefix).items]


def test_a_removed_node_leaves_no_address_no_handle_and_no_block(store: MemoryStore) -> None:
    allocator = Allocator(store, N1)
    for _ in range(6):
        allocator.auto_assign(version=4, handle=new_handle())
    Cleanup(store).release_node(N1, [])
    for prefix in (IPAM_HOSTS, IPAM_HANDLES, blocks_prefix()):
        assert left(store, prefix) == []


def test_what_another_node_holds_stays(store: MemoryStore) -> None:
    kept = Allocator(store, N2).auto_assign(version=4, handle=new_handle()).one()
    Allocator(store, N1).auto_assign(version=4, handle=new_handle())
    Cleanup(store).release_node(N1, [kept])
    assert Allocator(store, N2).attributes(kept) is not None
    assert left(store, IPAM_HOSTS) == [f"{IPAM_HOSTS}node2/ipv4/block/{_block_of(kept)}-30"]


def _block_of(address: object) -> str:
    return str(ipaddress.ip_network(f"{address}/30", strict=False).network_address)


@pytest.mark.parametrize("recorded", [True, False])
def test_of_what_no_node_is_named_for_only_the_nodes_own_addresses_go(store: MemoryStore, recorded: bool) -> None:
    allocator = Allocator(store, N1)
    own = allocator.auto_assign(version=4, handle=HandleId("h")).one()
    kept = allocator.auto_assign(version=4, handle=HandleId("kept")).one()
    # as other writers may leave it
    for item in store.list(blocks_prefix()).items:
        store.commit(Transaction(puts={item.key: item.value.replace(b'"node"', b'"other"')}))
    Cleanup(store).release_node(N1, [own] if recorded else [])
    assert (allocator.attributes(own) is None) is recorded
    assert allocator.attributes(kept) is not None


class Moving(FaultyStore):
    """A store in which something happens after each listing of all blocks."""

    def __init__(self, store: MemoryStore, happens: Callable[[], None]) -> None:
        super().__init__(store)
        self._happens = happens

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        found = super().list(prefix, timeout=timeout)
        if prefix == blocks_prefix():
            self._happens()
        return found


def _given_again(store: MemoryStore, address: IPAddress, turns: list[int]) -> Callable[[], None]:
    """Return what gives the node's address to another of its containers, as often as there are turns left."""

    def happens() -> None:
        if turns:
            allocator = Allocator(store, N1)
            allocator.release([Release(address)])
            allocator.assign(address, handle=HandleId(f"h{turns.pop()}"))

    return happens


def test_an_address_that_changes_hands_meanwhile_is_looked_at_again(store: MemoryStore) -> None:
    address = Allocator(store, N1).auto_assign(version=4, handle=HandleId("h")).one()
    Cleanup(Moving(store, _given_again(store, address, list(range(TRIES - 1))))).release_node(N1, [])
    assert Allocator(store, N1).attributes(address) is None
    assert left(store, IPAM_HOSTS) == left(store, IPAM_HANDLES) == []


def test_one_that_does_so_all_the_time_is_told_and_its_block_stays(store: MemoryStore) -> None:
    address = Allocator(store, N1).auto_assign(version=4, handle=HandleId("h")).one()
    turns = list(range(100))
    with pytest.raises(ReleaseRefused):
        Cleanup(Moving(store, _given_again(store, address, turns))).release_node(N1, [])
    assert len(turns) == 100 - TRIES
    assert Allocator(store, N1).attributes(address) is not None
    assert len(left(store, IPAM_HOSTS)) == 1


def test_it_may_be_repeated(store: MemoryStore) -> None:
    Allocator(store, N1).auto_assign(version=4, handle=new_handle())
    cleanup = Cleanup(store)
    cleanup.release_node(N1, [])
    cleanup.release_node(N1, [])
    assert left(store, blocks_prefix()) == []


def test_a_deleted_pool_gives_its_blocks_back(store: MemoryStore) -> None:
    address = Allocator(store, N1).auto_assign(version=4, handle=new_handle()).one()
    Cleanup(store).release_pool(POOL_CIDR)
    assert left(store, IPAM_HOSTS) == []
    assert Allocator(store, N1).attributes(address) is not None
