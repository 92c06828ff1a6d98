"""Pools as IPAM sees them, and which of them a request may take from (reference ipam.md 3.1 step 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ipam.errors import PoolUnusable
from resources import codec
from resources.datastore import keys
from resources.datastore.store import KeyValue
from resources.kinds import pool as pool_kind
from resources.kinds.base import Problem
from resources.names import IPAddress, IPNetwork, NodeName, PoolName
from resources.selector import Selector, SelectorError, parse

PREFIX = keys.kind_prefix(pool_kind.KIND.plural)


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


def key_of(name: PoolName) -> str:
    return PREFIX + name


@lru_cache(maxsize=256)
def decode(record: KeyValue) -> Pool:
    """Read a pool's record; the same record is read once.

    Raises:
        BadRecord: it makes no sense, its block size is out of range, or a block is larger than the pool.
    """
    name = record.key.removeprefix(PREFIX)
    pool = codec.decode(pool_kind.KIND, record.value, record.revision, keys.ResourceKey("ippools", name)).resource
    spec, network = pool.spec, pool.network
    if network.prefixlen > spec.block_size and not spec.disabled:
        problem = Problem(("spec", "cidr"), spec.cidr, f"smaller than a block (/{spec.block_size})")
        raise codec.BadRecord(name, [problem])
    try:
        namespace_selector = parse(spec.namespace_selector)
    except SelectorError as error:
        problem = Problem(("spec", "namespaceSelector"), spec.namespace_selector, str(error))
        raise codec.BadRecord(name, [problem]) from error
    return Pool(
        name=PoolName(name),
        revision=record.revision,
        network=network,
        block_size=max(spec.block_size, network.prefixlen),
        disabled=spec.disabled,
        node_selector=parse(spec.node_selector),
        namespace_selector=namespace_selector,
        uses=tuple(spec.allowed_uses),
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
