"""From received routes and our own blocks to the kernel's table: holds the tables, decides again what changed.

`Routing` owns the Rib and the Fib. The decisions themselves are pure (bgpd.calc); here is what they are made of, and
what a person should hear about.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from bgpd.calc.exports import Advertisement, Attributes, advertisements, aggregates, exports, own_blocks
from bgpd.calc.filters import Filters
from bgpd.calc.imports import ImportRules, Refusal, Withheld, forward_in, is_forbidden, other_owner
from bgpd.calc.offers import OfferRules
from bgpd.calc.paths import Choice
from bgpd.calc.pools import Pool, Pools
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerSpec
from bgpd.calc.surroundings import Surroundings
from bgpd.fib import Fib, is_felixs
from bgpd.inventory import Inventory
from bgpd.nexthops import NextHops
from bgpd.offering import Book, naming
from bgpd.rib import Entry, Rib
from kernel.link import Link, LinkAddress
from kernel.route import LAST_RESORT_METRIC, PROTOCOL_BGPD, Route, RouteKey, RouteKind
from resources.names import IfName, IPAddress, IPNetwork, NodeName

LASTING_SECONDS = 5.0
"""A pool that begins to ask for tunnels, and a host that starts, are without theirs for a moment: nobody's trouble."""
REPEAT_SECONDS = 60.0
"""The same thing about the same peer is logged once in this time."""


class HostInterfaces(Protocol):
    """What this needs of kernel.links."""

    def links(self) -> dict[IfName, Link]: ...
    def addresses(self) -> list[LinkAddress]: ...


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a learned prefix: the route that stands for it, or why none does."""

    in_kernel: bool
    route: Route | None = None
    why_not: str = ""


class Routing:
    """The routes of one node."""

    def __init__(
        self, this: NodeName, fib: Fib, interfaces: HostInterfaces, *, max_prefixes: int, is_strict: bool
    ) -> None:
        self._this, self._interfaces, self._is_strict = this, interfaces, is_strict
        self.fib = fib
        self.rib = Rib(max_prefixes)
        self.book = Book()
        self.blocks: frozenset[IPNetwork] = frozenset()
        self.exports: dict[IPNetwork, Attributes] = {}
        self.withheld: dict[IPNetwork, Withheld] = {}
        self.surroundings = Surroundings()
        self.rules = ImportRules(router_id=ipaddress.IPv4Address(0))
        self._pools = Pools({})
        self._blackholes: frozenset[IPNetwork] = frozenset()
        self._local: Mapping[IPNetwork, str] = {}
        self._advertisements: tuple[Advertisement, ...] = ()
        self.ways: Mapping[IPNetwork, Route] = {}
        """The routes to peers that are reached by a gateway of their own."""
        self._learned: dict[IPNetwork, Route] = {}
        self.next_hops = NextHops()
        self._told: dict[tuple[object, ...], float] = {}
        self._withheld_counts: dict[tuple[str, str], int] = {}
        """Routes that are withheld, by pool and reason."""
        self._tell_withheld_at: dict[tuple[str, str], float] = {}
        self._told_conflicts: frozenset[RouteKey] = frozenset()
        self._told_faults: tuple[str, ...] = ()
        self._log = structlog.get_logger().bind(part="routes")

    # --- what decides ------------------------------------------------------------------------------------------------

    def refresh_own(self, inventory: Inventory) -> set[IPNetwork]:
        """Work out this node's own routes again; return the learned prefixes that are to be decided again for it."""
        blocks_before, self.blocks = self.blocks, own_blocks(self._this, inventory.affinities, inventory.owners)
        before, self._local = self._local, inventory.workloads
        tags_before = self._advertisements
        self._advertisements, faults = advertisements(self._this, inventory.configurations)
        if faults != self._told_faults:
            self._told_faults = faults
            for fault in faults:
                self._log.warning("setting.passed_over", what="BGPConfiguration", reason=fault)
        self.exports = exports(self.blocks, self._local, Pools(inventory.pools), self._advertisements)
        self.book.set_own(self.exports, self._local)
        self._pools = Pools(inventory.pools)
        blackholes = frozenset(block for block in aggregates(self.blocks) if not self._pools.is_felixs(block))
        moved, self._blackholes = blackholes ^ self._blackholes, blackholes
        for prefix in moved | (before.keys() ^ self._local.keys()):
            self._want(prefix)
        changed = self.blocks ^ blocks_before
        if changed or self._advertisements != tags_before:
            self.rules = replace(self.rules, own_blocks=PrefixTable(dict.fromkeys(self.blocks)))
            self._refresh_offers(changed)
        around = PrefixTable(dict.fromkeys(changed))
        return {prefix for prefix in self.rib.prefixes if around.overlaps(prefix)} if changed else set()

    def refresh_rules(
        self, inventory: Inventory, router_id: ipaddress.IPv4Address, surroundings: Surroundings | None = None
    ) -> None:
        """Take what decides about received routes anew, and have all of them decided again."""
        if surroundings is not None:
            self.surroundings = surroundings
        here = self.surroundings.also(self.ways)
        own = inventory.nodes.get(self._this)
        addresses: dict[IPNetwork, NodeName] = {}
        for name in sorted(inventory.nodes):
            for address in inventory.nodes[name].addresses:
                addresses.setdefault(ipaddress.ip_network(address), name)
        self.rules = ImportRules(
            router_id=router_id,
            cluster_id=own.cluster_id if own else None,
            own_blocks=PrefixTable(dict.fromkeys(self.blocks)),
            node_addresses=PrefixTable(addresses),
            own_subnets=tuple(found for found in (own.ipv4, own.ipv6) if found is not None) if own else (),
            pools=Pools(inventory.pools),
            surroundings=here,
            filters=Filters(dict(inventory.filters)),
            holder=inventory.holder,
            owners=inventory.owners,
            is_strict=self._is_strict,
        )
        self.rib.recheck()
        self.book.set_filters(self.rules.filters)
        self._refresh_offers()

    def _refresh_offers(self, blocks: Iterable[IPNetwork] = ()) -> None:
        """Take what decides about offers anew.

        Args:
            blocks: those of this node that changed since the last time.
        """
        self.book.set_rules(
            OfferRules(
                cluster_id=self.rules.cluster_id,
                pools=self.rules.pools,
                own_blocks=PrefixTable(dict.fromkeys(aggregates(self.blocks))),
                advertisements=self._advertisements,
                surroundings=self.rules.surroundings,
            ),
            blocks,
        )

    def set_ways(self, ways: Mapping[IPNetwork, Route]) -> bool:
        """Have these routes to peers; return whether they are others than before."""
        before, self.ways = self.ways, dict(ways)
        for prefix in before.keys() | self.ways.keys():
            self.fib.want(prefix, self._wanted(prefix))
        return before != self.ways

    @property
    def ways_there(self) -> set[IPNetwork]:
        """The routes to peers that the kernel has, ours or somebody else's."""
        return {
            prefix for prefix in self.ways if (key := RouteKey(prefix)) in self.fib.actual or key in self.fib.foreign
        }

    def refresh_filters(
        self, inventory: Inventory, changed: Iterable[str], peers: Iterable[PeerSpec]
    ) -> list[IPAddress]:
        """Take the BGPFilters anew; return the peers that name one that changed, whose routes are decided again."""
        filters = Filters(dict(inventory.filters))
        self.rules = replace(self.rules, filters=filters)
        self.book.set_filters(filters)
        concerned = naming(peers, changed)
        self.rib.recheck_peers(concerned)
        return concerned

    def read_host(self) -> Surroundings | None:
        """Read routes, interfaces and addresses; return what changed in them for next hops, or None if nothing did.

        Raises:
            DataplaneError: the kernel does not let itself be read.
        """
        self.fib.read()
        found = Surroundings(
            self.fib.foreign,
            (entry.address.ip for entry in self._interfaces.addresses()),
            (link.name for link in self._interfaces.links().values() if link.up),
        )
        return found if found != self.surroundings else None

    # --- decide and write --------------------------------------------------------------------------------------------

    def decide(self, peers: Mapping[IPAddress, PeerSpec], now: float) -> None:
        """Decide about every prefix on which something changed."""
        if not self.rib.is_dirty:
            return
        forwarding = _Forwarding(self.rules)
        for prefix, choice in self.rib.decide(peers, self.rules):
            was_withheld, is_withheld = self.withheld.pop(prefix, None) is not None, False
            found = None if choice is None else forwarding.route(prefix, choice)
            if isinstance(found, Route):
                self._learned[prefix] = found
            else:
                self._learned.pop(prefix, None)
                if found is not None:
                    self.withheld[prefix], is_withheld = found, True
            self.book.set_learned(prefix, choice.best if choice else None, is_withheld=is_withheld)
            self._want(prefix)
            if is_withheld or was_withheld or self.fib.inherited:
                self.fib.want(prefix, self._last_resort(prefix), metric=LAST_RESORT_METRIC)
            doubtful: list[IPAddress] = []
            for peer, entry in self.rib.told(prefix):
                if entry.refusal is not None:
                    self._tell_refusal(peer, prefix, entry.refusal, now)
                if _is_doubtful(entry, found):
                    doubtful.append(entry.path.next_hop)
            self.next_hops.note(prefix, doubtful)
            self._tell_owner(prefix, choice, now)
        self._count_withheld(now)
        self.next_hops.tell(peers.keys(), self.rules)

    def _last_resort(self, prefix: IPNetwork) -> Route | None:
        """Without it, packets that their tunnel is missing for would follow the default route in the clear."""
        return Route.unreachable(protocol=PROTOCOL_BGPD) if prefix in self.withheld else None

    def _want(self, prefix: IPNetwork) -> None:
        route = self._wanted(prefix)
        if route is None and self._pools.is_felixs(prefix):
            self.fib.hand_over(prefix)
        else:
            self.fib.want(prefix, route)

    def _wanted(self, prefix: IPNetwork) -> Route | None:
        """Our own routes come before learned ones: a block's blackhole, and felix's route to a workload here."""
        if prefix in self.ways:
            return self.ways[prefix]
        if prefix in self._blackholes:
            return Route.blackhole(protocol=PROTOCOL_BGPD)
        return None if prefix in self._local else self._learned.get(prefix)

    def fate(self, prefix: IPNetwork) -> Fate:
        """Return what became of a prefix that a peer told of, as of the last write."""
        key = RouteKey(prefix)
        if prefix in self._blackholes or prefix in self._local:
            return Fate(False, None, "this node has it itself")
        if self._pools.is_felixs(prefix):
            return Fate(False, None, "felix makes the routes of its pool, from the store: it asks for VXLAN")
        if (withheld := self.withheld.get(prefix)) is not None:
            return Fate(False, None, withheld.reason)
        route = self._learned.get(prefix)
        if route is None:
            return Fate(False, None, "no path is accepted")
        if (theirs := self.fib.conflicting(key)) is not None:
            return Fate(False, route, f"somebody else's route is there and stays: {theirs}")
        if (error := self.fib.failed.get(key)) is not None:
            return Fate(False, route, f"it could not be written: {error}")
        if self.fib.actual.get(key) != route:
            return Fate(False, route, "it is not written yet")
        return Fate(True, route)

    def drop_forbidden(self) -> None:
        """Give up inherited routes that cannot be right, without waiting for a peer to say so.

        These are drops for blocks that are not ours any more, and routes past the tunnel that their pool asks for.
        """
        for key in sorted(self.fib.inherited, key=str):
            route = self.fib.actual[key]
            if route.kind is RouteKind.BLACKHOLE or is_forbidden(key.destination, route, self.rules):
                self._want(key.destination)

    def apply(self, now: float) -> None:
        """Write what is to be written."""
        done = self.fib.apply(now)
        failed = done.failed or {}
        for key, error in failed.items():
            if self._may_tell(("failed", key, type(error)), now):
                self._log.warning("route.rejected", destination=str(key), error=str(error), retry="soon")
        if done.writes:
            self._log.info(
                "routes.applied",
                added=done.added,
                replaced=done.replaced,
                removed=done.removed,
                failed=len(failed),
                total=len(self.fib.actual),
            )
        self._tell_conflicts()

    # --- what a person should hear -----------------------------------------------------------------------------------

    def _may_tell(self, what: tuple[object, ...], now: float) -> bool:
        """Return whether `what` was not said lately, and note that it is said now."""
        if now - self._told.get(what, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        if len(self._told) > 10_000:
            self._told = {key: at for key, at in self._told.items() if now - at < REPEAT_SECONDS}
        self._told[what] = now
        return True

    def _tell_refusal(self, peer: IPAddress, prefix: IPNetwork, refusal: Refusal, now: float) -> None:
        if self._may_tell(("refused", peer, refusal), now):
            count = self.rib.table(peer).refused[refusal]
            # what a filter rejects was meant so
            tell = self._log.info if refusal is Refusal.FILTER_REJECT else self._log.warning
            tell("route.refused", peer=str(peer), reason=refusal.value, prefix=str(prefix), so_far=count)

    def _tell_owner(self, prefix: IPNetwork, choice: Choice | None, now: float) -> None:
        if choice is None:
            return
        owner = other_owner(prefix, choice.best, self.rules)
        if owner is not None and self._may_tell(("owner", prefix), now):
            self._log.warning(
                "route.from_another_node", prefix=str(prefix), next_hop=str(choice.best.next_hop), owner=owner
            )

    def _count_withheld(self, now: float) -> None:
        counts: dict[tuple[str, str], int] = {}
        for one in self.withheld.values():
            counts[one.pool, one.reason] = counts.get((one.pool, one.reason), 0) + 1
        for cause in counts.keys() - self._withheld_counts.keys():
            self._tell_withheld_at[cause] = now + LASTING_SECONDS
        for cause in self._withheld_counts.keys() - counts.keys():
            if self._tell_withheld_at.pop(cause, None) is None:
                self._log.info("routes.no_longer_withheld", pool=cause[0], reason=cause[1])
        self._withheld_counts = counts

    def tell_lasting(self, now: float) -> None:
        """Log what has been withheld for so long that somebody has to do something about it."""
        for cause in [cause for cause, at in self._tell_withheld_at.items() if now >= at]:
            del self._tell_withheld_at[cause]
            pool, reason = cause
            self._log.error("routes.withheld", pool=pool, reason=reason, routes=self._withheld_counts[cause])

    def due(self, now: float) -> float | None:
        """Return the seconds until there may be something to write or tell although nothing changed, or None."""
        told = (max(0.0, at - now) for at in self._tell_withheld_at.values())
        return min((due for due in (self.fib.due(now), *told) if due is not None), default=None)

    def _tell_conflicts(self) -> None:
        conflicts = {key: theirs for key, theirs in self.fib.conflicts.items() if not is_felixs(theirs)}
        for key in sorted(conflicts.keys() - self._told_conflicts, key=str):
            self._log.error("route.conflict", destination=str(key), theirs=str(conflicts[key][0]))
        for key in sorted(self._told_conflicts - conflicts.keys(), key=str):
            self._log.info("route.conflict_gone", destination=str(key))
        self._told_conflicts = frozenset(conflicts)


def _is_doubtful(entry: Entry, route: Route | Withheld | None) -> bool:
    """Whether a prefix was refused for the next hop of a path, or is sent there by way of a router."""
    if entry.refusal is not None:
        return entry.refusal is Refusal.NEXT_HOP
    return isinstance(route, Route) and entry.path.next_hop not in [hop.gateway for hop in route.next_hops]


class _Forwarding:
    """Kernel routes of many prefixes by the same rules: prefixes of one choice and pool share one route."""

    def __init__(self, rules: ImportRules) -> None:
        self._rules = rules
        # choice and pool are kept with their route, so that their identities are not others' meanwhile
        self._known: dict[tuple[int, int], tuple[Choice, Pool | None, Route | Withheld | None]] = {}

    def route(self, prefix: IPNetwork, choice: Choice) -> Route | Withheld | None:
        pool = self._rules.pools.of(prefix)
        known = self._known.get((id(choice), id(pool)))
        if known is None:
            found = forward_in(pool, prefix.version, choice, self._rules)
            known = self._known[id(choice), id(pool)] = choice, pool, found
        return known[2]
