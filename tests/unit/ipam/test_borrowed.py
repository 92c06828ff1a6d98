"""Which addresses are borrowed, and which blocks of the store are looked at for that."""

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime

from ipam import assign
from ipam.block import Block, Owner, encode, new_block
from ipam.borrowed import Borrowed, borrowed, stored_blocks
from resources.datastore.keys import blocks_prefix
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction
from resources.names import HandleId, NodeName

NOW = datetime(2026, 11, 21, 9, 33, 20, tzinfo=UTC)
N1, N2 = NodeName("node1"), NodeName("node2")
CIDR = ipaddress.ip_network("10.0.0.0/29")


def holding(*attributes: dict[str, str], node: NodeName = N1) -> Block:
    block = new_block(CIDR, node, NOW, 100)
    for ordinal, told in enumerate(attributes):
        block = assign.assign_ordinal(block, ordinal, Owner(HandleId(f"h{ordinal}"), told))
    return block


def test_what_another_node_than_the_blocks_holds_is_borrowed() -> None:
    block = holding(
        {"node": "node1"},
        {"node": "node2", "type": "ipipTunnelAddress"},
        {"node": "node2", "type": "x", "pod": "web", "namespace": "shop"},
        {"type": "docker"},
    )
    found, unknown = borrowed([block])
    one, two = (ipaddress.ip_address(f"10.0.0.{n}") for n in (1, 2))
    assert found == [
        Borrowed(address=one, node=N2, block=CIDR, owner=N1, type="ipipTunnelAddress", allocated_to=""),
        Borrowed(address=two, node=N2, block=CIDR, owner=N1, type="pod", allocated_to="shop/web"),
    ]
    assert unknown == 1


def test_in_a_block_of_nobody_all_are_borrowed() -> None:
    found, unknown = borrowed([assign.disowned(holding({"node": "node1"}))])
    assert [(one.node, one.owner) for one in found] == [(N1, None)]
    assert unknown == 0


def test_an_address_that_cools_down_is_nobodys() -> None:
    block = assign.release(holding({"node": "node2"}, {}), [0, 1], now=NOW, cooldown_seconds=60)
    assert block.owner(0) is not None
    assert borrowed([block]) == ([], 0)


def test_blocks_that_cannot_be_read_that_are_being_deleted_and_the_virtual_ones_are_passed_over() -> None:
    store = MemoryStore()
    good = holding({"node": "node1"})
    deleted = replace(new_block(ipaddress.ip_network("10.0.0.8/29"), N1, NOW, 1), deleted=True)
    virtual = replace(new_block(ipaddress.ip_network("10.0.0.16/29"), N1, NOW, 1), affinity="virtual:load-balancer")
    assert virtual.is_virtual
    ipv4 = blocks_prefix(4)
    store.commit(Transaction(puts={
        f"{ipv4}10.0.0.0-29": encode(good),
        f"{ipv4}10.0.0.8-29": encode(deleted),
        f"{ipv4}10.0.0.16-29": encode(virtual),
        f"{ipv4}10.0.0.24-29": b"no block",
        f"{ipv4}nonsense": encode(good),
    }))  # fmt: skip
    assert [block.cidr for block in stored_blocks(store)] == [CIDR]
