"""Pools as IPAM sees them, and which of them a request may take from (reference ipam.md 3.1 step 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ipam.errors import PoolUnusable
from resources.datastore import keys
from resources.datastore.store import KeyValue
from resources.kinds import pool as pool_kind
from resources.names import IPAddress, IPNetwork, NodeName, PoolName, parse_network
from resources.selector import Selector, SelectorError, parse

PREFIX = keys.kind_prefix(pool_kind.KIND.plural)
DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
BLOCK_SIZES = {4: range(20, 33), 6: range(116, 129)}
"""Outside of them blocks cost too much per write or cannot be numbered (reference ipam.md 7.2)."""
DEFAULT_USES = ("Workload", "Tunnel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """An IPPool at the revision it was read at."""

    name: PoolName
    revision: int
    network: IPNetwork
    block_size: int
    disabled: bool
    node_selector: Selector
    namespace_selector: Selector
    uses: tuple[str, ...]
    is_manual: bool
    """Used only when asked for."""

    @property
    def key(self) -> str:
        return key_of(self.name)

    @property
    def block_count(self) -> int:
        """How many blocks it has; 2**74 is a number like any other."""
        return 1 << (self.block_size - self.network.prefixlen)

    def block_at(self, index: int) -> IPNetwork:
        size = 1 << (self.network.max_prefixlen - self.block_size)
        return type(self.network)((int(self.network.network_address) + index * size, self.block_size))

    def block_of(self, address: IPAddress) -> IPNetwork:
        """Return the block in which an address of the pool lies."""
        shift = self.network.max_prefixlen - self.block_size
        return type(self.network)((int(address) >> shift << shift, self.block_size))

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels takes from the pool by itself. There are no namespaces here."""
        return self.node_selector.matches(labels) and self.namespace_selector.matches({})

    def has_block(self, cidr: IPNetwork) -> bool:
        """Whether `cidr` is one of its blocks, of its present block size."""
        return cidr.prefixlen == self.block_size and is_within(cidr, self.network)


class PoolUnreadable(ValueError):
    """The record is no pool that can be allocated from; the text says why."""


def key_of(name: PoolName) -> str:
    return PREFIX + name


def decode(record: KeyValue) -> Pool:
    """Read a pool's record.

    Raises:
        PoolUnreadable: it makes no sense, or its block size is out of range.
    """
    try:
        spec = msgspec.json.decode(record.value, type=pool_kind.IPPool).spec
        network = parse_network(spec.cidr)
        selectors = parse(spec.node_selector), parse(spec.namespace_selector)
    except (msgspec.MsgspecError, ValueError, SelectorError) as error:
        raise PoolUnreadable(str(error)) from error
    block_size = spec.block_size or DEFAULT_BLOCK_SIZE[network.version]
    sizes = BLOCK_SIZES[network.version]
    if block_size not in sizes:
        raise PoolUnreadable(f"blockSize {block_size} is not from {sizes[0]} to {sizes[-1]}")
    if network.prefixlen > block_size and not spec.disabled:
        raise PoolUnreadable(f"{network} is smaller than one block (/{block_size})")
    return Pool(
        name=PoolName(record.key.removeprefix(PREFIX)),
        revision=record.revision,
        network=network,
        block_size=max(block_size, network.prefixlen),
        disabled=spec.disabled,
        node_selector=selectors[0],
        namespace_selector=selectors[1],
        uses=tuple(spec.allowed_uses) or DEFAULT_USES,
        is_manual=spec.assignment_mode == "Manual",
    )


def is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def containing(pools: Sequence[Pool], address: IPAddress) -> Pool | None:
    """Return the pool in which an address lies; pools do not overlap."""
    return next((pool for pool in pools if address in pool.network), None)


def choose(
    pools: Sequence[Pool], *, version: int, requested: Sequence[IPNetwork] | None, node: NodeName,
    labels: Mapping[str, str], use: str,
) -> tuple[Pool, ...]:
    """Return the pools to take from, in order: those requested, else those that select the node, by name.

    Requested pools are taken whatever nodes they select.

    Raises:
        PoolUnusable: there is none.
    """
    enabled = sorted((pool for pool in pools if not pool.disabled), key=lambda pool: pool.name)
    if requested is not None:
        chosen = [_requested(enabled, cidr, version) for cidr in requested]
    else:
        enabled = [pool for pool in enabled if pool.network.version == version]
        if not enabled:
            raise PoolUnusable(
                "cannot find a qualified ippool",
                hint=f"no enabled IPv{version} pool exists; create one with 'calicoctl create -f pool.yaml'",
                version=version,
            )
        chosen = [pool for pool in enabled if not pool.is_manual and pool.selects(labels)]
        if not chosen:
            raise PoolUnusable(
                f"no configured Calico pools for node {node}",
                hint="the nodeSelector of every enabled pool leaves this node out, or its assignmentMode is Manual",
                node=node,
            )
    usable = tuple(pool for pool in chosen if use in pool.uses)
    if not usable:
        raise PoolUnusable(
            f"cannot find a qualified ippool, no pools match the required use ({use})",
            hint=f"add {use} to the allowedUses of a pool",
            use=use,
        )
    return usable


def _requested(enabled: Sequence[Pool], cidr: IPNetwork, version: int) -> Pool:
    if cidr.version != version:
        raise PoolUnusable(
            f"the given pool ({cidr}) is not an IPv{version} pool", hint=f"give an IPv{version} pool", pool=str(cidr)
        )
    for pool in enabled:
        if pool.network == cidr:
            return pool
    raise PoolUnusable(
        f"the given pool ({cidr}) does not exist, or is not enabled",
        hint="'calicoctl get ippool -o wide' lists the pools; part of a pool cannot be asked for",
        pool=str(cidr),
    )
