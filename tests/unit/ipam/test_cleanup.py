import ipaddress

import pytest

from ipam.allocator import Allocator
from ipam.cleanup import Cleanup
from ipam.handle import new_handle
from resources.datastore.client import ResourceClient
from resources.datastore.keys import IPAM_HANDLES, IPAM_HOSTS, blocks_prefix
from resources.datastore.memory import MemoryStore
from resources.kinds.base import Metadata
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.names import NodeName

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
