"""Addresses that a node holds in another node's block (reference ipam.md 1, 7.3)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipam.block import Block, decode
from ipam.errors import BlockUnreadable
from resources.datastore.keys import blocks_prefix, parse_block_key
from resources.datastore.store import Store
from resources.names import IPAddress, IPNetwork, NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowed:
    """One borrowed address. `owner` is the block's node, None if it is nobody's."""

    address: IPAddress
    node: NodeName
    block: IPNetwork
    owner: NodeName | None
    type: str
    """``pod``, or the attribute `type` (``docker``, ``ipipTunnelAddress`` ...)."""
    allocated_to: str
    """``namespace/pod`` where the attributes say so."""


def borrowed(blocks: Iterable[Block]) -> tuple[list[Borrowed], int]:
    """Return the borrowed addresses, and how many allocations do not say whose they are. Pure."""
    found: list[Borrowed] = []
    unknown = 0
    for block in blocks:
        for ordinal in range(block.capacity):
            owner = block.owner(ordinal)
            if owner is None or owner.released_at is not None:
                continue
            node = owner.attributes.get("node")
            if node is None:
                unknown += 1
            elif node != block.node:
                pod, namespace = owner.attributes.get("pod", ""), owner.attributes.get("namespace", "")
                found.append(
                    Borrowed(
                        address=block.address(ordinal), node=NodeName(node), block=block.cidr, owner=block.node,
                        type="pod" if pod else owner.attributes.get("type", ""),
                        allocated_to=f"{namespace}/{pod}" if pod else "",
                    )
                )
    return found, unknown


def stored_blocks(store: Store) -> Iterator[Block]:
    """Yield the blocks that can be read, in key order."""
    for item in store.list(blocks_prefix()).items:
        cidr = parse_block_key(item.key)
        if cidr is None:
            continue
        try:
            block = decode(cidr, item.value)
        except BlockUnreadable:
            continue  # nothing may be written there; `ipam check` reports it
        if not block.deleted and not block.is_virtual:
            yield block
