"""What the calculation hands to the effectors: keyed pieces of desired state, no I/O, no order inside.

`felix.calc` and `felix.render` produce an `Update` per flush; `felix.dataplane` folds it into its deltas. An update
names only what changed, so its cost follows the change; folding all updates gives the whole desired state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from felix.calc.model import EARLY, Order, Surroundings
from felix.calc.parameters import Resolved
from felix.calc.remote import RemoteChanges
from resources.datastore.keys import ResourceKey
from resources.names import IfName, IPNetwork

TABLES = ("raw", "mangle", "nat", "filter")


@dataclass(frozen=True, slots=True, order=True)
class ChainKey:
    """One chain of one table of one address family (4 or 6)."""

    version: int
    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours, rendered: `rules` are what follows ``-A <chain>``, hash comment included; `tags` the
    16-character hash of each rule, in order (reference felix.md 3.3)."""

    rules: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelChain:
    """Our rules in a chain of the kernel's (FORWARD ...): first in the chain, or last, as ``-I``/``-A`` bodies.

    Where the settings want our rules last (ChainInsertMode), they are all in `appends`.
    """

    inserts: Chain = Chain((), ())
    appends: Chain = Chain((), ())


@dataclass(frozen=True, slots=True)
class IPSet:
    """A set by its kernel name: type (``hash:net``, ``hash:ip,port``), version 4 or 6, and members in ipset's text.

    In an update: all members, whatever was known of the set before, and as in a `SetChange`.
    """

    type: str
    version: int
    members: frozenset[str]
    order: Order = field(default=EARLY, compare=False)
    closing: frozenset[ChainKey] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class SetChange:
    """Members that came and went of a set that stays.

    `order`: when they are to be written. `closing`: chains that are to let nothing pass meanwhile, where they exist,
    because no order is safe (felix.calc.model.members_order).
    """

    added: frozenset[str]
    removed: frozenset[str]
    order: Order = field(default=EARLY, compare=False)
    closing: frozenset[ChainKey] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class LocalInterface:
    """The host side of an active endpoint: addresses to route to it, and the container's MAC for static ARP.

    Two interfaces may claim one address: the route goes to the one that is up, of two to the one with the higher index.
    """

    addresses: frozenset[IPNetwork]
    mac: str | None
    spoofs: bool = False
    """It may send from other addresses too, so the kernel's own check of sources must let it; the rules check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What changed since the last update. None as a value means: no longer wanted."""

    sets: Mapping[str, IPSet | SetChange | None] = field(default_factory=lambda: MappingProxyType({}))
    chains: Mapping[ChainKey, Chain | None] = field(default_factory=lambda: MappingProxyType({}))
    kernel_chains: Mapping[ChainKey, KernelChain | None] = field(default_factory=lambda: MappingProxyType({}))
    interfaces: Mapping[IfName, LocalInterface | None] = field(default_factory=lambda: MappingProxyType({}))
    host_endpoints: Mapping[IfName, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """By which host endpoint an interface of the host is served; for people."""
    remote: RemoteChanges = field(default_factory=RemoteChanges)
    """The ways to other hosts: tunnels, who is at their far ends, routes."""
    surroundings: Surroundings | None = None
    """Which tunnels there are to be, with this host's own addresses, if any of it changed."""
    parameters: Resolved | None = None
    """The settings in effect, if they changed: limits, intervals, protocol numbers (felix.calc.parameters)."""
    problems: Mapping[ResourceKey, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """What is wrong with a record of the store and what is done about it, to be logged; empty: nothing any more."""

    @property
    def is_for_the_kernel(self) -> bool:
        """Whether an effector has something to do about it."""
        return bool(
            self.sets
            or self.chains
            or self.kernel_chains
            or self.interfaces
            or self.remote.is_written
            or self.surroundings is not None
            or self.parameters is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The whole desired state: what all updates amount to."""

    sets: Mapping[str, IPSet]
    chains: Mapping[ChainKey, Chain]
    kernel_chains: Mapping[ChainKey, KernelChain]
    interfaces: Mapping[IfName, LocalInterface]
    remote: RemoteChanges
