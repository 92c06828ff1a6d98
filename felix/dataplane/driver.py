"""The order of an apply, and what is left pending after it (reference felix.md 1.5; design: sets, tables, then routes).

Additions go sets, tables, interfaces, tunnels, routes; removals the other way round. So a packet meets an endpoint's
chains before it can reach the endpoint, and a rule never names a set that is not there. Before the tables only those
members of sets come and go that close something; those that open something follow the tables. Where no order of sets
and tables is safe, the chains in question let nothing pass meanwhile. The address families follow one another: one
whose tables cannot be written stays closed and does not hold up the other.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from felix.dataplane.forwarding import Forwarding
from felix.dataplane.interfaces import InterfaceEffector
from felix.dataplane.left_over import LeftOver
from felix.dataplane.routes import RouteEffector
from felix.dataplane.sets import SetEffector
from felix.dataplane.tables import Drift, TableEffector
from felix.dataplane.tunnels import Tunnels
from felix.desired import TABLES, Update
from kernel.errors import DataplaneError, TableRefused
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from kernel.route import Route, RouteKey
from kernel.routes import RouteKernel
from kernel.xtables import TableKernel, TableKey
from resources.names import GATEWAY, IfName, IPAddress

K = TypeVar("K")
GATEWAY_NETWORK = ipaddress.IPv4Network(f"{GATEWAY}/32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an apply did not manage, by what it is about. Empty: the kernel is as wanted."""

    failed: Mapping[str, DataplaneError] = field(default_factory=dict)
    unswept: int = 0
    """Sets that wait to be destroyed in a later round."""
    tables_written: bool = True
    """False: some rule table could not be brought up to date, so no route of its address family was written."""
    written: Mapping[str, int] = field(default_factory=dict)
    """How many things of each kind were written or removed."""
    repaired: Mapping[str, Drift] = field(default_factory=dict)
    """What others had done to our rules, by table, and is mended."""
    repaired_sets: Mapping[str, Drift] = field(default_factory=dict)
    """The same of sets, by name."""
    repaired_tunnels: Mapping[str, Drift] = field(default_factory=dict)
    """The same of VXLAN devices and who is behind them, by device."""

    @property
    def is_clean(self) -> bool:
        return not self.failed and not self.unswept


class Dataplane:
    """All effectors of one host."""

    def __init__(
        self,
        *,
        sets: SetEffector,
        tables: Iterable[TableEffector],
        table_kernel: TableKernel,
        interfaces: InterfaceEffector,
        routes: RouteEffector,
        route_kernel: RouteKernel,
        forwarding: Forwarding,
        tunnels: Tunnels,
        left_over: LeftOver | None = None,
    ) -> None:
        """Take the parts; `left_over` is what an earlier felix wrote with another back end."""
        self._sets = sets
        self._tables = {table.key: table for table in tables}
        self._table_kernel = table_kernel
        self._interfaces = interfaces
        self._routes = routes
        self._route_kernel = route_kernel
        self._forwarding = forwarding
        self._tunnels = tunnels
        self._left_over = left_over
        self._versions = sorted({key.version for key in self._tables})
        self._unsure = set(self._versions)
        """Address families in whose tables there may be rules of which nothing is known but that they are not wanted:
        of an earlier process, or left by an apply that failed."""
        self._links: dict[IfName, Link] = {}
        self._went: Link | None = None

    def want(self, update: Update) -> None:
        """Take what the calculation changed. No kernel I/O."""
        self._sets.want(update.sets)
        for chain_key, chain in update.chains.items():
            self._tables[TableKey(chain_key.version, chain_key.table)].want(chain_key.chain, chain)
        for chain_key, rules in update.kernel_chains.items():
            self._tables[TableKey(chain_key.version, chain_key.table)].want_in_kernel_chain(chain_key.chain, rules)
        for name, interface in update.interfaces.items():
            self._interfaces.want(name, interface)
            self._routes.want(name, interface)
        for prefix, route in update.remote.routes.items():
            self._routes.want_remote(prefix, route)
        self._tunnels.want(update)

    def links_changed(self, links: Mapping[IfName, Link]) -> None:
        """Take the interfaces as a whole; only those that differ from before cost anything."""
        changed = [n for n in links.keys() | self._links.keys() if links.get(n) != self._links.get(n)]
        self._links = dict(links)
        self._links_changed(changed)

    def _links_changed(self, changed: Collection[IfName]) -> None:
        for part in (self._interfaces, self._routes, self._tunnels):
            part.links_changed(self._links, changed)

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether that matters here."""
        return self._tunnels.address_changed(entry)

    def neighbour_changed(self, device: IfName, entry: Neighbour | ForwardingEntry, *, gone: bool) -> bool:
        """Take note of an entry about who is where on an interface; tell whether that matters here."""
        return self._tunnels.neighbour_changed(device, entry, gone=gone)

    def link_changed(self, name: IfName, link: Link | None) -> None:
        """Take one interface as it is now; None: it is gone."""
        if link is None:
            self._went = self._links.pop(name, None)
        else:
            if self._went is not None and self._went.index == link.index:
                self._routes.resync()  # it has another name now, and its routes are still there
            self._went = None
            self._links[name] = link
        self._links_changed((name,))

    def flows_deleted(self, address: IPAddress, failure: DataplaneError | None = None) -> None:
        """Take note that the flows of an address are gone, or could not be deleted."""
        self._routes.flows_deleted(address, failure)

    def route_changed(self, key: RouteKey, route: Route, *, gone: bool) -> None:
        """Take note of a route that somebody else wrote or deleted."""
        self._routes.changed_by_others(key, route, gone=gone)

    def resync_sets(self) -> None:
        self._sets.resync()

    def resync_tables(self) -> None:
        for table in self._tables.values():
            table.resync()

    def resync_routes(self) -> None:
        self._routes.resync()
        self._interfaces.resync()
        self._tunnels.resync()

    @property
    def due_in(self) -> float | None:
        """Seconds after which there is something to apply although nothing was heard, or None."""
        return self._tunnels.due_in

    def tunnels(self) -> dict[str, object]:
        """Return how large packets may be and how each tunnel stands, for people; callable from any thread."""
        return self._tunnels.state()

    def troubles(self) -> dict[str, str]:
        """Return what is asked for and cannot be had on this host, by what it is about."""
        return self._tunnels.troubles()

    @property
    def poll_seconds(self) -> float | None:
        """Seconds after which `notice_foreign_changes` is to be asked again; None: an event says when."""
        return self._table_kernel.poll_seconds

    def notice_foreign_changes(self) -> bool:
        """Read the tables back before the next apply if somebody else changed rules; cheap. Returns whether so.

        Where the kernel does not tell, somebody may have; what the reading says then is in the next report.
        """
        try:
            if not self._table_kernel.changed_elsewhere():
                return False
        except DataplaneError:
            pass
        self.resync_tables()
        return True

    def is_programmed(self, interface: IfName) -> bool:
        """Return whether everything for the endpoint behind `interface` is in the kernel."""
        return self._routes.is_written(interface)

    def apply(self) -> Report:
        """Make the kernel as wanted. What fails stays pending and is in the report; the rest goes on."""
        before = self._counts()
        failed: dict[str, DataplaneError] = {}
        routes_known = self._step(failed, "route", self._routes.refresh)
        if routes_known:
            self._step(failed, "route", self._answer_for_the_gateway)
            self._step(failed, "route", self._routes.remove)
        self._step(failed, "tunnel", self._tunnels.remove)  # before the rules that guard it
        self._steps(failed, self._tunnels.size_steps())
        self._step(failed, "set", self._sets.refresh)
        held = {version for version in self._versions if not self._close(version, failed)}
        self._step(failed, "set", lambda: self._sets.apply(held))
        written = [
            version not in held and self._apply_family(version, failed, with_routes=routes_known)
            for version in self._versions
        ]
        self._unsure = {version for version, done in zip(self._versions, written, strict=True) if not done}
        if all(written):
            self._steps(failed, self._tunnels.device_steps())
            if self._left_over is not None:
                self._step(failed, "left over", self._left_over.sweep)
            self._step(failed, "set", self._sets.sweep)
        if any(isinstance(error, TableRefused) for error in failed.values()):
            # what the rules name may not be there: look at everything before the next try
            self.resync_sets()
            self.resync_tables()
        if any(table.written for table in self._tables.values()):
            self._step(failed, "rules program", self._prepare)
        return Report(
            failed=failed,
            unswept=self._sets.unswept,
            tables_written=all(written),
            repaired=self._repaired(failed),
            repaired_sets=self._sets.take_drift(),
            repaired_tunnels=self._tunnels.take_drift(),
            written={kind: count - before[kind] for kind, count in self._counts().items() if count > before[kind]},
        )

    def _prepare(self) -> Mapping[str, DataplaneError]:
        self._table_kernel.prepare()
        return {}

    def _close(self, version: int, failed: dict[str, DataplaneError]) -> bool:
        """Close chains for a moment, if sets that they name change in no safe order; return whether that is done.

        It costs a transaction, so it is done where it must: by what the calculation says of such sets, and where rules
        that nobody knows may name a set that changes.
        """
        asked: dict[TableKey, list[str]] = {}
        for chain_key in self._sets.closing(version):
            asked.setdefault(TableKey(chain_key.version, chain_key.table), []).append(chain_key.chain)
        unsure = version in self._unsure and self._sets.is_changing(version)

        def close(key: TableKey) -> bool:
            return self._step(
                failed, f"table {key}", lambda: self._tables[key].close(asked.get(key, ()), unknown_too=unsure)
            )

        return all(close(key) for key in self._tables if key.version == version and (unsure or key in asked))

    def _apply_family(self, version: int, failed: dict[str, DataplaneError], *, with_routes: bool) -> bool:
        """Write tables, and only when they are as wanted what makes addresses reachable; return whether they are."""
        keys = [key for table in TABLES if (key := TableKey(version, table)) in self._tables]
        written = [self._step(failed, f"table {key}", self._tables[key].apply) for key in keys]
        if not all(written):
            return False
        self._step(failed, "set", lambda: self._sets.finish(version))
        self._step(failed, "setting", lambda: self._forwarding.switch_on(version))
        if version == self._versions[0]:
            self._step(failed, "interface", self._interfaces.apply)
        self._step(failed, "tunnel", lambda: self._tunnels.apply_vxlan(version))
        for device in self._tunnels.take_remade():
            self._routes.interface_lost(device)
        if with_routes:
            self._step(failed, "route", lambda: self._routes.add(version, barred=self._tunnels.unready))
        if version == 4:
            self._step(failed, "interface", lambda: self._interfaces.announce(self._routes.is_written))
        return True

    def _repaired(self, failed: Mapping[str, DataplaneError]) -> Mapping[str, Drift]:
        mended = (table for key, table in self._tables.items() if f"table {key}" not in failed)
        return {str(table.key): drift for table in mended if (drift := table.take_drift()) is not None}

    def _counts(self) -> dict[str, int]:
        return {
            "sets": self._sets.written,
            "chains": sum(table.written for table in self._tables.values()),
            "closed": sum(table.closed for table in self._tables.values()),
            "settings": self._interfaces.written,
            "routes": self._routes.written,
            "tunnels": self._tunnels.written,
        }

    def _step(
        self, failed: dict[str, DataplaneError], kind: str, action: Callable[[], Mapping[K, DataplaneError]]
    ) -> bool:
        """Run one effector; return False if it could do nothing at all."""
        try:
            failed.update((f"{kind} {key}", error) for key, error in action().items())
        except DataplaneError as error:
            failed[kind] = error
            return False
        return True

    def _steps(
        self, failed: dict[str, DataplaneError], actions: Mapping[str, Callable[[], Mapping[str, DataplaneError]]]
    ) -> None:
        for kind, action in actions.items():
            self._step(failed, kind, action)

    def _answer_for_the_gateway(self) -> Mapping[str, DataplaneError]:
        """Proxy ARP answers only if the host has a unicast route for 169.254.1.1 elsewhere (felix.md 2.2).

        A route of ours that makes it answer stays: whether it is still needed shows only when it is gone.
        """
        if self._routes.is_there(GATEWAY_NETWORK) or self._route_kernel.lookup(GATEWAY) is None:
            self._routes.want_on(GATEWAY_NETWORK, IfName("lo"))
        return {}
