"""The owner's mind: store, ExaBGP and kernel messages in; sessions, offers and routes out (reference bgp.md 4.1).

Everything outside is behind a port, and time is an argument, so the whole of it runs in a test without a process, a
kernel or a clock.
"""

import ipaddress
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import structlog

from bgpd import metrics, report
from bgpd.calc.secrets import Secret, SecretName, Unread
from bgpd.calc.sessions import Globals, Sessions, router_id, sessions, settings, wanted_secrets
from bgpd.calc.surroundings import IPIP_DEVICE
from bgpd.calc.untold import untold
from bgpd.calc.ways import placed, ways
from bgpd.inventory import Inventory
from bgpd.neighbor import SILENT_PEER_SECONDS
from bgpd.peering import Identity, Peering
from bgpd.probe import PeerAnswers
from bgpd.routing import Routing
from bgpd.speaker import ChildEnded, ChildMessage, Lines, RelayClosed, Speaker, Validated
from bgpd.status import Snapshot, rows
from kernel.errors import DataplaneError
from kernel.monitor import (
    AddressAdded,
    AddressGone,
    KernelEvent,
    LinkChanged,
    LinkGone,
    ResyncNeeded,
    RouteGone,
    RouteWritten,
)
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, Route
from resources.datastore.sync import Changes, InSync, OutOfSync, SyncMessage
from resources.names import IfName, IPAddress, IPNetwork, NodeName

STORE = "the datastore"
NODE = "this node's record in the datastore"
SPEAKER = "the BGP speaker"
KERNEL = "the kernel's routes"
WAITS_FOR = (STORE, NODE, SPEAKER, KERNEL)

READ_PAUSE_SECONDS = 0.1
"""After something changed on the host: what belongs together comes together."""
READ_RETRY_SECONDS = 1.0
SECRET_RETRY_SECONDS = 5.0
"""While a password is missing: somebody is about to put it in its file, and waits for the session."""
WORKLOAD_INTERFACES = "cali"


class Page(Enum):
    """What can be asked for."""

    STATE = "/state"
    ROUTES = "/routes"
    METRICS = "/metrics"


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants to see a page; the owner puts it into `reply`."""

    reply: "queue.SimpleQueue[object]"
    page: Page = Page.STATE


Message = SyncMessage | ChildMessage | KernelEvent | PeerAnswers | Ask


class Readiness(Protocol):
    """What this needs of resources.runtime.health."""

    def wait_for(self, thing: str) -> None: ...
    def done(self, thing: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of this daemon, not of the store."""

    hold_seconds: int
    router_id: str = ""
    refresh_seconds: float = 90.0


class Engine:
    """Everything bgpd knows and decides. `handle` is the owner's turn."""

    def __init__(
        self,
        this: NodeName,
        settings: Settings,
        *,
        inventory: Inventory,
        routing: Routing,
        peering: Peering,
        speaker: Speaker,
        secrets: Callable[[Iterable[SecretName]], Mapping[SecretName, Secret]],
        readiness: Readiness,
        publish: Callable[[Snapshot], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        on_log_level: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._this, self._settings = this, settings
        self.inventory, self.routing, self.peering, self.speaker = inventory, routing, peering, speaker
        self._readiness, self._publish, self._clock, self._wall = readiness, publish, clock, wall
        self._on_log_level = on_log_level
        self._read_secrets = secrets
        self._secrets_at: float | None = None
        self._waiting: frozenset[IPAddress] = frozenset()
        """Peers whose session waits for the route to them."""
        self._peer_ways: dict[IPNetwork, Route] = {}
        self._sources: set[IPAddress] = set()
        """The addresses that the kernel chose for such sessions."""
        self._follows_routes = False
        """Some sessions depend on the host's routes."""
        self.globals = Globals()
        self._booted = wall()
        self._started = clock()
        self._is_synced = False
        self._store_trouble: str | None = None
        self._swept_inherited = False
        self._read_at: float | None = None
        self._read_failed = False
        self._has_read = False
        self._links: dict[IfName, tuple[bool, bool]] = {}
        self._ways: set[IfName] = {IPIP_DEVICE}
        self._log_level = ""
        self._told_untold: frozenset[NodeName] = frozenset()
        self._told_twins: frozenset[tuple[ipaddress.IPv4Address, str]] = frozenset()
        self._told_settings: dict[str, tuple[object, str]] = {}
        self._log = structlog.get_logger()

    # --- the turn ----------------------------------------------------------------------------------------------------

    def handle(self, batch: Sequence[Message]) -> float | None:
        """Take messages, do what follows from them, and return the seconds until the next turn is due."""
        now = self._clock()
        asked: list[Ask] = []
        for message in batch:
            if isinstance(message, Ask):
                asked.append(message)
            else:
                self._take(message, now)
        if self._is_synced:
            self._work(now)
        self._show()
        for ask in asked:
            ask.reply.put(self.answer(ask.page))
        return self._due(self._clock())

    def _take(self, message: SyncMessage | ChildMessage | KernelEvent | PeerAnswers, now: float) -> None:
        match message:
            case Changes() | InSync() | OutOfSync():
                self._take_sync(message, now)
            case Lines() | RelayClosed() | ChildEnded() | Validated():
                self.peering.handle(self.speaker.handle(message, now), now)
            case PeerAnswers():
                self.peering.on_answers(message.addresses, now)
            case _:
                self._take_kernel(message, now)

    def _take_sync(self, message: SyncMessage, now: float) -> None:
        match message:
            case Changes():
                for key, fault in self.inventory.take(message.changes):
                    self._log.warning("record.unusable", key=key, error=fault)
            case InSync():
                if self._store_trouble is not None or not self._is_synced:
                    self._log.info("store.in_sync", nodes=len(self.inventory.nodes), pools=len(self.inventory.pools))
                self._store_trouble = None
                if not self._is_synced:
                    self._is_synced, self._started, self._read_at = True, now, now
                self._readiness.done(STORE)
            case OutOfSync():
                self._store_trouble = message.reason
                self._log.warning("store.out_of_sync", reason=message.reason, kept="everything as it is")

    def _take_kernel(self, event: KernelEvent, now: float) -> None:
        match event:
            case RouteGone(key=key, route=route) if route.protocol == PROTOCOL_BGPD:
                self.routing.fib.lost(key, now)
            case RouteWritten(key=key, route=route) if route.protocol == PROTOCOL_BGPD:
                self.routing.fib.saw(key, route)
            case RouteWritten(key=key, route=route) if route.protocol == PROTOCOL_FELIX:
                self.routing.fib.felix_wrote(key, route)
            case RouteGone(key=key, route=route) if route.protocol == PROTOCOL_FELIX:
                self.routing.fib.felix_left(key)
            case RouteGone(route=route) | RouteWritten(route=route):
                if self._concerns_us(route):
                    self._read_soon(now)
            case LinkChanged(link=link):
                state = (link.up, link.running)
                if self._is_way(link.name) and self._links.get(link.name) != state:
                    self._links[link.name] = state
                    self._read_soon(now)
                    if link.running:
                        self.peering.probe_soon(now)
            case LinkGone(name=name):
                if self._links.pop(name, None) is not None:
                    self._read_soon(now)
            case AddressAdded(address=address) | AddressGone(address=address):
                if not _is_workload(address.device) and not address.address.is_link_local:
                    self._read_soon(now)
                    self.peering.probe_soon(now)
            case ResyncNeeded(reason=reason):
                self._log.warning("kernel.notifications_lost", reason=reason)
                self._read_at = now

    def _is_way(self, name: IfName) -> bool:
        """Whether packets to a next hop may leave by an interface (or did, before it went down)."""
        self._ways |= self.routing.surroundings.ways
        return name in self._ways

    @staticmethod
    def _concerns_us(route: Route) -> bool:
        """Felix's routes to workloads come and go with every container and change nothing here."""
        return route.protocol != PROTOCOL_FELIX and not (route.devices and all(map(_is_workload, route.devices)))

    def _read_soon(self, now: float) -> None:
        at = now + READ_PAUSE_SECONDS
        self._read_at = at if self._read_at is None else min(self._read_at, at)

    # --- what follows ------------------------------------------------------------------------------------------------

    def _work(self, now: float) -> None:
        """Nothing here runs before the store has been read completely once."""
        self._follow_store(now)
        if self._secrets_at is not None and now >= self._secrets_at:
            # nobody tells when the operator puts another password in its file
            self._follow_sessions(now)
        if self._read_at is not None and now >= self._read_at:
            self._read_host(now)
        self.peering.tick(now)
        self.peering.handle(self.speaker.tick(now), now)
        # what ExaBGP just said may call for something at once
        self.peering.tick(now)
        if self._has_read:
            self.routing.decide(self.peering.specs, now)
        if self._has_read or not self.routing.book.is_transit:
            # what was learned is passed on when it was decided, never before
            self.peering.offer(self.routing.book, now)
        self.peering.handle(self.speaker.tick(now), now)
        if not self._has_read:
            return
        self._sweep_inherited(now)
        if self.peering.is_settled and self.routing.set_ways(self._peer_ways):
            self._follow_rules()
        self.routing.apply(now)
        self.routing.tell_lasting(now)
        if any(ipaddress.ip_network(address) in self.routing.ways_there for address in self._waiting):
            self._follow_sessions(now)
            self._follow_rules()
        if self.routing.fib.needs_read():
            self._read_soon(now)

    def _follow_store(self, now: float) -> None:
        dirt = self.inventory.take_dirt()
        if dirt.sessions:
            self._follow_settings()
        if dirt.own:
            # a workload that comes or goes decides about no learned route but its own
            dirt.prefixes |= self.routing.refresh_own(self.inventory)
        if dirt.sessions:
            self._follow_sessions(now)
        if dirt.imports:
            self._follow_rules()
        elif dirt.prefixes:
            self.routing.rib.recheck(dirt.prefixes)
        if dirt.filters:
            concerned = self.routing.refresh_filters(self.inventory, dirt.filters, self.peering.specs.values())
            self.peering.reconsider(concerned)

    def _follow_settings(self) -> None:
        self.globals = settings(self.inventory.configurations)
        own = self.inventory.nodes.get(self._this)
        from_store = {
            "as_number": own.as_number if own and own.as_number else self.globals.as_number,
            "mesh": self.globals.mesh,
            "listen_port": self.globals.port_of(self._this),
            "restart_seconds": self.globals.restart_seconds,
            "router_id": str(router_id(own, self._this, self._settings.router_id)),
        }
        default = Globals()
        defaults = {
            "as_number": default.as_number,
            "mesh": default.mesh,
            "listen_port": default.listen_port,
            "restart_seconds": default.restart_seconds,
        }
        for name, value in from_store.items():
            origin = "default" if defaults.get(name) == value else "store"
            if name == "router_id" and self._settings.router_id:
                origin = "environment"
            if self._told_settings.get(name) != (value, origin):
                self._told_settings[name] = value, origin
                self._log.info("setting.effective", name=name, value=str(value), origin=origin)
        levels = [
            self.inventory.configurations[name].spec.log_severity_screen
            for name in (f"node.{self._this}", "default")
            if name in self.inventory.configurations
        ]
        level = next(filter(None, levels), "")
        if level != self._log_level:
            self._log_level = level
            self._on_log_level(level)

    def _follow_sessions(self, now: float) -> None:
        peerings = self.inventory.peerings.values()
        wanted = wanted_secrets(self.globals, peerings)
        secrets = self._read_secrets(wanted)
        is_missing = any(isinstance(secret, Unread) for secret in secrets.values())
        again = SECRET_RETRY_SECONDS if is_missing else self._settings.refresh_seconds
        self._secrets_at = now + again if wanted else None
        asked = sessions(
            self._this,
            self.inventory.nodes,
            self.globals,
            peerings,
            filters=self.inventory.filters,
            secrets=secrets,
            hold_seconds=self._settings.hold_seconds,
        )
        found = self._place(asked)
        sources = self._listening({spec.local_address for spec in found.peers.values() if spec.any_source})
        own = self.inventory.nodes.get(self._this)
        identity: Identity | None = None
        if own is not None and own.addresses:
            identity = Identity(
                router_id=router_id(own, self._this, self._settings.router_id),
                listen_on=tuple(dict.fromkeys((*own.addresses, *sources))),
                port=self.globals.port_of(self._this),
            )
            self._readiness.done(NODE)
        else:
            self._readiness.wait_for(NODE)
            self._log.warning("node.unknown", node=self._this, reason="the datastore has no address of this node")
        self.peering.configure(found, identity, now)
        self.routing.book.set_peers(self.peering.specs)

    def _listening(self, sources: set[IPAddress]) -> list[IPAddress]:
        """Return what to listen on for sessions whose address the kernel chooses, `sources` being its choice now.

        What it chose before stays while this host has it: each change takes another ExaBGP, and with two ways out the
        choice may go to and fro.
        """
        here = self.routing.surroundings.addresses
        self._sources = sources | (self._sources & here if sources else set())
        return sorted(self._sources, key=lambda address: (address.version, int(address)))

    def _place(self, wanted: Sessions) -> Sessions:
        """Return the sessions that can be now, and have the routes that some of them need."""
        peers = wanted.peers.values()
        self._follows_routes = any(peer.any_source or peer.gateway for peer in peers)
        surroundings = None
        if self._has_read:
            # a route to a peer that goes stays until ExaBGP has let it go
            self._peer_ways = ways(peers, self.routing.surroundings)
            self.routing.set_ways({**self.routing.ways, **self._peer_ways})
            surroundings = self.routing.surroundings.also(self.routing.ways)
        found = placed(wanted, surroundings, self.routing.ways_there, self.peering.specs)
        told = {one.address for one in found.unusable}
        self._waiting = frozenset(wanted.peers.keys() - found.peers.keys() - told)
        return found

    def _follow_rules(self) -> None:
        own = self.inventory.nodes.get(self._this)
        self.routing.refresh_rules(self.inventory, router_id(own, self._this, self._settings.router_id))
        if self._has_read:
            self.routing.drop_forbidden()

    def _read_host(self, now: float) -> None:
        self._read_at = now + self._settings.refresh_seconds
        try:
            surroundings = self.routing.read_host()
        except DataplaneError as error:
            if not self._read_failed:
                self._log.error("kernel.unreadable", error=str(error), retry_seconds=READ_RETRY_SECONDS)
            self._read_failed, self._read_at = True, now + READ_RETRY_SECONDS
            return
        self._read_failed = False
        if surroundings is not None:
            own = self.inventory.nodes.get(self._this)
            identifier = router_id(own, self._this, self._settings.router_id)
            self.routing.refresh_rules(self.inventory, identifier, surroundings)
        is_first, self._has_read = not self._has_read, True
        if is_first:
            self._log.info("routes.inherited", routes=len(self.routing.fib.inherited))
        if self._follows_routes and (is_first or surroundings is not None):
            self._follow_sessions(now)
            self._follow_rules()
        self.routing.drop_forbidden()
        self._tell_untold(now)

    def _untold(self, now: float) -> dict[NodeName, list[IPNetwork]]:
        """Return which nodes do not announce blocks of theirs, though their sessions are well."""
        told: dict[tuple[NodeName, int], Mapping[IPNetwork, object]] = {}
        for neighbor in self.peering.neighbors.values():
            spec, up_at = neighbor.spec, neighbor.up_at
            if spec.node is None or spec.filters or up_at is None or now - up_at < SILENT_PEER_SECONDS:
                continue
            if neighbor.has_told_all:
                told[spec.node, spec.version] = self.routing.rib.table(spec.address).entries
        return untold(told, self.inventory.owners, self.routing.rules.pools)

    def _tell_untold(self, now: float) -> None:
        found = self._untold(now)
        for node in found.keys() - self._told_untold:
            self._log.warning("peer.withholds_blocks", node=node, blocks=[str(block) for block in found[node][:5]],
                              count=len(found[node]))
        self._told_untold = frozenset(found)

    def _sweep_inherited(self, now: float) -> None:
        """Give up what an earlier bgpd wrote and nobody told again, once all peers had their say or time is over."""
        if self._swept_inherited:
            return
        deadline = self._started + max(self.globals.restart_seconds, 1)
        if not (self.peering.have_told_all or now >= deadline):
            return
        self._swept_inherited = True
        swept = self.routing.fib.sweep()
        self._log.info("routes.swept", routes=swept, early=now < deadline)

    # --- seen from outside -------------------------------------------------------------------------------------------

    def _show(self) -> None:
        if self.speaker.is_settled:
            self._readiness.done(SPEAKER)
        elif not self.speaker.is_ready:
            self._readiness.wait_for(SPEAKER)
        if self._has_read and self.routing.fib.is_settled:
            self._readiness.done(KERNEL)
        self._tell_twins()
        identity = self.peering.identity
        self._publish(
            Snapshot(
                rows=rows(self.peering.neighbors.values(), self.peering.unusable_since),
                router_id=str(identity.router_id) if identity else "0.0.0.0",
                booted=self._booted,
                reconfigured=self.peering.reconfigured or self._booted,
            )
        )

    def _tell_twins(self) -> None:
        """Say who has this node's BGP identifier, once each."""
        identity = self.peering.identity
        if identity is None:
            return
        now = frozenset(
            (identity.router_id, neighbor.spec.node or str(address))
            for address, neighbor in self.peering.neighbors.items()
            if neighbor.is_twin
        )
        for own, name in sorted(now - self._told_twins):
            self._log.error("identifier.taken", what=report.twin(name, own))
        self._told_twins = now

    def _due(self, now: float) -> float | None:
        if not self._is_synced:
            return None
        times = [self.peering.due(now), self.speaker.due(now), self.routing.due(now)]
        if self._read_at is not None:
            times.append(max(0.0, self._read_at - now))
        if self._secrets_at is not None:
            times.append(max(0.0, self._secrets_at - now))
        if not self._swept_inherited:
            times.append(max(0.05, self._started + max(self.globals.restart_seconds, 1) - now))
        found = [time for time in times if time is not None]
        return min(found) if found else None

    def answer(self, page: Page) -> object:
        """Return what a page shows, as plain data."""
        match page:
            case Page.STATE:
                return self.state()
            case Page.ROUTES:
                return self.routes()
            case Page.METRICS:
                neighbors = self.peering.neighbors.values()
                return metrics.families(neighbors, self.routing, self.speaker, self._wall())

    def routes(self) -> dict[str, object]:
        """Return every learned route, as plain data (for ``/routes``)."""
        return {
            "routes": report.learned(self.routing, self.peering.neighbors),
            "meaning": {refusal.value: text for refusal, text in report.MEANING.items()},
        }

    def state(self) -> dict[str, object]:
        """Return everything but the learned routes, as plain data (for ``/state`` and ``show calico json``)."""
        routing, peering = self.routing, self.peering
        return {
            "node": self._this,
            "in_sync": self._is_synced and self._store_trouble is None,
            "store_trouble": self._store_trouble,
            "speaker": {
                "stage": self.speaker.stage.value,
                "pid": self.speaker.pid,
                "restarts": self.speaker.restarts,
                "trouble": self.speaker.trouble,
                "lost_events": self.speaker.lost_events,
                "settled": self.speaker.is_settled,
            },
            "settings": {name: {"value": value, "origin": origin} for name, (value, origin) in
                         self._told_settings.items()},
            "sessions": [report.session(neighbor, routing) for neighbor in peering.neighbors.values()],
            "unusable": [
                {"what": one.what, "reason": one.reason, "peer": None if one.address is None else str(one.address)}
                for one in peering.sessions.unusable
            ],
            "untold": {
                node: [str(block) for block in blocks] for node, blocks in self._untold(self._clock()).items()
            },
            "twins": [report.twin(name, own) for own, name in sorted(self._told_twins)],
            "records": dict(self.inventory.faults),
            "blocks": sorted(map(str, routing.blocks)),
            "exports": {
                str(prefix): {"communities": list(found.communities + found.large_communities)}
                for prefix, found in sorted(routing.exports.items(), key=lambda item: str(item[0]))
            },
            "withheld": {
                str(prefix): {"pool": one.pool, "reason": one.reason} for prefix, one in routing.withheld.items()
            },
            "next_hops": {
                str(address): {"what": what, "routes": count}
                for address, (what, count) in routing.next_hops.troubles.items()
            },
            "kernel": {
                "routes": len(routing.fib.actual),
                "inherited": sorted(map(str, routing.fib.inherited)),
                "conflicts": {str(key): str(theirs[0]) for key, theirs in routing.fib.conflicts.items()},
                "failed": {str(key): str(error) for key, error in routing.fib.failed.items()},
                "repairs": routing.fib.repairs,
            },
        }


def _is_workload(name: IfName) -> bool:
    return name.startswith(WORKLOAD_INTERFACES)
