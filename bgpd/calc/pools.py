"""What routing needs of the IP pools: where addresses may come from, how packets to them travel, what is announced."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bgpd.calc.prefixes import PrefixTable
from resources.kinds.pool import IPPool
from resources.names import IPNetwork, parse_network


class Encapsulation(Enum):
    """When packets between hosts are wrapped (reference resources.md 2.1)."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool. `disabled` pools count like others: only new addresses are not given out of them."""

    name: str
    network: IPNetwork
    ipip: Encapsulation = Encapsulation.NEVER
    vxlan: Encapsulation = Encapsulation.NEVER
    is_exported: bool = True


def pool_of(name: str, pool: IPPool) -> Pool:
    """Return the parsed form of a pool.

    Raises:
        ValueError: its CIDR or one of its modes cannot be read.
    """
    spec = pool.spec
    return Pool(
        name=name,
        network=parse_network(spec.cidr),
        ipip=_mode("ipipMode", spec.ipip_mode),
        vxlan=_mode("vxlanMode", spec.vxlan_mode),
        is_exported=not spec.disable_bgp_export,
    )


def _mode(member: str, text: str) -> Encapsulation:
    try:
        return Encapsulation(text) if text else Encapsulation.NEVER
    except ValueError:
        raise ValueError(f"{member} is {text!r}: it is Never, Always or CrossSubnet") from None


class Pools:
    """All pools, asked by prefix. Pools do not overlap in a sound store; if they do the smaller one counts."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        # of two pools with one CIDR the last by name stands
        self._by_network = {pools[name].network: pools[name] for name in sorted(pools)}
        self._table = PrefixTable(self._by_network)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pools) and self._by_network == other._by_network

    def __hash__(self) -> int:
        return hash(frozenset(self._by_network))

    def of(self, prefix: IPNetwork) -> Pool | None:
        """Return the pool that `prefix` lies in, or None."""
        found = self._table.match(prefix)
        return None if found is None else found[1]

    def is_felixs(self, prefix: IPNetwork) -> bool:
        """Return whether felix makes the routes of the pool that `prefix` lies in: those with VXLAN need no BGP."""
        pool = self.of(prefix)
        return pool is not None and pool.vxlan is not Encapsulation.NEVER

    def has_inside(self, prefix: IPNetwork) -> bool:
        """Return whether a whole pool lies in `prefix`."""
        return next(self._table.inside(prefix), None) is not None

    def is_kept_home(self, prefix: IPNetwork) -> bool:
        """Return whether `prefix` lies in a pool whose addresses are not announced."""
        return any(not pool.is_exported for _, pool in self._table.containing(prefix))
