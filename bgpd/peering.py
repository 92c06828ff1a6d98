"""The sessions of this node: what ExaBGP is to run with, what it tells, what each peer is offered.

Session events change the Rib; everything else about routes is bgpd.routing's.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

import structlog

from bgpd import messages
from bgpd.audit import AUDIT_SECONDS, Audit, Remedy
from bgpd.calc.offers import Offer
from bgpd.calc.paths import UNKNOWN_IDENTIFIER, Path, PathAttributes
from bgpd.calc.sessions import DEFAULT_PORT, PeerSpec, Sessions, Unusable
from bgpd.dialogue import Doubt
from bgpd.messages import (
    EndOfRib,
    FsmChanged,
    Neighbour,
    Notified,
    Opened,
    SessionChanged,
    Unreadable,
    Updated,
)
from bgpd.neighbor import SILENT_PEER_SECONDS, Change, Neighbor
from bgpd.offering import Book
from bgpd.plan import Plan
from bgpd.probe import Target
from bgpd.reload import Applied, Refused, Unchecked
from bgpd.render import configuration, environment
from bgpd.retries import Retries
from bgpd.rib import Rib
from bgpd.speaker import Audited, Detached, Event, Gone, Seen, Speaker, Synced
from resources.names import IPAddress, IPNetwork

DEBOUNCE_SECONDS = 0.1
"""Changes of the store that come close together make one reload."""
OFFER_PAUSE_SECONDS = 0.2
DOUBT_PAUSES_SECONDS = (1.0, 1.0, 2.0, 5.0, 15.0, 60.0)
"""Before a peer is offered everything again because ExaBGP refused a command about it, by how often it did of late."""
END_DOUBT_SECONDS = 30.0
"""ExaBGP says that it has an End-of-RIB when it has queued it, and forgets it with a reload that comes before it is
sent."""

@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What this node is to its peers."""

    router_id: ipaddress.IPv4Address
    listen_on: tuple[IPAddress, ...]
    port: int = DEFAULT_PORT


class Peering:
    """All sessions. `probe` has peers tried, and `on_answer` is called for those that are there."""

    def __init__(
        self,
        speaker: Speaker,
        rib: Rib,
        *,
        relay_command: Iterable[str],
        probe: Callable[[Iterable[Target]], None],
        wall: Callable[[], float],
        audit_seconds: float = AUDIT_SECONDS,
    ) -> None:
        self.speaker, self._rib, self._wall = speaker, rib, wall
        self._relay_command = tuple(relay_command)
        self._probe = probe
        self.neighbors: dict[IPAddress, Neighbor] = {}
        self.sessions = Sessions()
        self.unusable_since: dict[Unusable, float] = {}
        """What of `sessions` is not used, since when (seconds of the epoch)."""
        self.identity: Identity | None = None
        self.reconfigured = 0.0
        self._plan: Plan | None = None
        self._plan_at: float | None = None
        self._retries = Retries()
        self._is_complete_at: float | None = None
        self._guards = False
        """Some sessions ask for a least TTL, or did when ExaBGP's sockets were last seen to."""
        self._guard_fault: str | None = None
        self._audit = Audit(audit_seconds)
        self._log = structlog.get_logger().bind(part="sessions")

    @property
    def specs(self) -> dict[IPAddress, PeerSpec]:
        """The sessions that are configured, by the peer's address."""
        return {address: neighbor.spec for address, neighbor in self.neighbors.items()}

    @property
    def is_settled(self) -> bool:
        """Whether ExaBGP runs with the sessions that are configured, and no others."""
        return self._plan_at is None and self.speaker.is_settled

    @property
    def have_told_all(self) -> bool:
        """Whether every configured peer is up and has sent all its routes."""
        return (
            self.is_settled
            and all(neighbor.has_told_all for neighbor in self.neighbors.values())
        )

    # --- configuration -----------------------------------------------------------------------------------------------

    def configure(self, sessions: Sessions, identity: Identity | None, now: float) -> bool:
        """Take the sessions that are to be; return whether any came, went or changed.

        Without an identity (this node's record is not there) nothing listens yet, or sessions end and ExaBGP stays.
        """
        if sessions.unusable != self.sessions.unusable:
            for unusable in sessions.unusable:
                if unusable not in self.sessions.unusable:
                    self._log.error("session.withheld" if unusable.address else "setting.passed_over",
                                    what=unusable.what, reason=unusable.reason, peer=str(unusable.address or ""))
            wall = self._wall()
            self.unusable_since = {one: self.unusable_since.get(one, wall) for one in sessions.unusable}
        same = sessions.peers == self.sessions.peers and identity in (None, self.identity)
        before = self.identity
        all_renamed = identity is not None and before is not None and identity.router_id != before.router_id
        self.sessions = sessions
        self.identity = identity or self.identity
        if same and self._plan is not None:
            return False
        for address in self.neighbors.keys() - sessions.peers.keys():
            self._remove(address)
        for address, spec in sessions.peers.items():
            if (neighbor := self.neighbors.get(address)) is None:
                self.neighbors[address] = Neighbor(spec, since=self._wall(), down_at=now)
                self.speaker.meet(address)
                self._log.info("session.added", peer=str(address), name=spec.name, passive=spec.passive)
            elif neighbor.spec != spec:
                neighbor.is_renamed |= _name(spec) != _name(neighbor.spec)
                neighbor.spec = spec
                neighbor.reconsider()
                self._rib.recheck_peers([address])
                self._log.info("session.changed", peer=str(address), name=spec.name)
            if all_renamed:
                self.neighbors[address].is_renamed = True
        if self._plan_at is None and self.identity is not None:
            # the first plan waits for nothing
            self._plan_at = now + (DEBOUNCE_SECONDS if self._plan is not None else 0.0)
        return True

    def _remove(self, address: IPAddress) -> None:
        neighbor = self.neighbors.pop(address)
        # taken out of the file it would be gone without a word, and its routes from us would live on as stale
        self.speaker.say(messages.withdraw(address, neighbor.offered))
        self._rib.remove(address)
        self._retries.forget(address)
        self._log.info("session.removed", peer=str(address), name=neighbor.spec.name)

    def _make_plan(self) -> None:
        assert self.identity is not None
        specs = {address: spec for address, spec in self.specs.items() if address not in self._retries.under_way}
        self._plan = Plan(
            configuration=configuration(specs.values(), self.identity.router_id, self._relay_command),
            environment=environment(self.identity.listen_on, self.identity.port),
            visible={
                address: (spec.local_address, int(spec.local_as), int(spec.peer_as), spec.hold_seconds)
                for address, spec in specs.items()
            },
        )
        self.speaker.want(self._plan)

    # --- what ExaBGP tells -------------------------------------------------------------------------------------------

    def handle(self, events: Iterable[Event], now: float) -> None:
        for event in events:
            self._handle(event, now)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Updated():
                self._on_update(event)
            case SessionChanged():
                if (neighbor := self.neighbors.get(event.peer)) is not None:
                    self._on_change(neighbor, neighbor.on_session(event, now, self._wall()), now, event.reason)
            case FsmChanged():
                if (neighbor := self.neighbors.get(event.peer)) is not None:
                    neighbor.on_fsm(event, now)
                    if neighbor.is_connecting(now):
                        self._spare(event.peer, now)
            case Opened():
                if (neighbor := self.neighbors.get(event.peer)) is not None:
                    neighbor.on_open(event)
                    own = self.identity.router_id if self.identity else None
                    neighbor.is_twin = event.router_id == own and not neighbor.spec.is_external
            case EndOfRib():
                if (neighbor := self.neighbors.get(event.peer)) is not None and neighbor.spec.version == event.version:
                    neighbor.on_end_of_rib()
                    self._swept(neighbor)
            case Notified():
                if (neighbor := self.neighbors.get(event.peer)) is not None:
                    neighbor.on_notification(event)
                    self._log.warning("session.notified", peer=str(event.peer), what=neighbor.error)
            case Seen():
                for row in event.neighbours:
                    self._show(row, now)
            case Synced():
                self._guard()
                self._on_synced(event, now)
            case Detached():
                self._log.warning("speaker.detached", reason=event.reason, then="it is asked for everything again")
            case Audited():
                self._on_audited(event, now)
                self._guard()
            case Gone():
                self._on_gone(event, now)
            case Applied():
                self._guard()
                self._on_applied(now)
            case Refused():
                self._log.error("configuration.refused", reason=event.reason)
            case Unchecked():
                self._log.error(
                    "configuration.unchecked", reason=event.reason, retry_seconds=event.retry_seconds,
                    kept="the sessions as they are",
                )
            case Doubt():
                self._on_doubt(event, now)
            case Unreadable():
                self._log.warning("line.unreadable", line=event.line, reason=event.reason)
            case _:
                pass  # a peer's refreshed table comes as updates

    def _on_update(self, event: Updated) -> None:
        neighbor = self.neighbors.get(event.peer)
        if neighbor is None:
            return
        for prefix in event.withdrawn:
            self._rib.forget(event.peer, prefix)
        external, told_at = neighbor.spec.is_external, self._wall()
        attributes = event.attributes.from_outside() if external else event.attributes
        identifier = neighbor.router_id or UNKNOWN_IDENTIFIER
        path: Path | None = None
        told: IPAddress | None = None
        for prefix, next_hop in event.announced:
            if path is None or next_hop is not told:
                told = next_hop
                # a link-local one says no interface, and is told on a link with the peer only (RFC 2545, 3): it is
                # the peer itself or a router beside it, so packets may as well go to the peer
                usable = event.peer if next_hop.is_link_local else next_hop
                path = _shared(event.peer, usable, attributes, external, identifier)
            self._rib.learn(prefix, path, told_at)

    def _on_change(self, neighbor: Neighbor, change: Change, now: float, reason: str = "") -> None:
        peer = neighbor.spec.address
        match change:
            case Change.NONE:
                return
            case Change.UP | Change.UP_AGAIN:
                self._retries.note_up(peer, now)
                self._spare(peer, now)
                self._rib.mark_stale(peer)
                if neighbor.is_renamed:
                    neighbor.offer_again()
                if neighbor.spec.least_ttl is not None:
                    self._guard()  # it may have waited for ExaBGP to take it when that was done last
                if change is Change.UP:
                    self._log.info("session.up", peer=str(peer), name=neighbor.spec.name)
            case Change.DOWN_KEEP:
                self._rib.mark_stale(peer)
                kept = len(self._rib.table(peer).entries)
                self._log.warning("session.down", peer=str(peer), reason=neighbor.error or reason, routes_kept=kept)
            case Change.DOWN_DROP:
                dropped = len(self._rib.table(peer).entries)
                self._rib.drop(peer)
                self._log.warning("session.down", peer=str(peer), reason=neighbor.error or reason, dropped=dropped)

    def _swept(self, neighbor: Neighbor) -> None:
        swept = self._rib.sweep(neighbor.spec.address)
        if swept:
            self._log.info("session.stale_removed", peer=str(neighbor.spec.address), routes=swept)

    def _on_synced(self, event: Synced, now: float) -> None:
        self._log.info(
            "speaker.ready",
            pid=self.speaker.pid,
            adopted=event.was_adopted,
            sessions_up=sum(neighbor.is_up for neighbor in self.neighbors.values()),
            routes=len(event.received),
            events_lost=event.lost,
        )
        if self._is_complete_at is None:
            # an ExaBGP that was adopted has what the peers told; otherwise they are about to tell it
            self._is_complete_at = now if event.was_adopted else now + SILENT_PEER_SECONDS
        told: dict[IPAddress, set[IPNetwork]] = {}
        for peer, prefix in event.touched:
            told.setdefault(peer, set()).add(prefix)
        for shown in event.received:
            # the table of a peer that is down is an old one
            if (known := self.neighbors.get(shown.peer)) is not None and known.is_up:
                told.setdefault(shown.peer, set()).add(shown.prefix)
                self._on_update(Updated(shown.peer, ((shown.prefix, shown.next_hop),), shown.attributes))
        for peer, neighbor in self.neighbors.items():
            if neighbor.is_up:
                self._forget_untold(peer, told.get(peer, set()))
                if neighbor.has_told_all:
                    # it came up so long ago that no end is awaited, which would remove what it has not told again
                    self._swept(neighbor)
        for neighbor in self.neighbors.values():
            neighbor.offered = {}
            neighbor.pending, neighbor.end_sent, neighbor.offer_after = None, False, now
            # what an ExaBGP that was found runs with may have had other names for them
            neighbor.is_renamed = event.was_adopted and not self.is_settled
        strangers: dict[IPAddress, list[IPNetwork]] = {}
        for shown in event.sent:
            if (owner := self.neighbors.get(shown.peer)) is not None:
                owner.offered[shown.prefix] = None
            else:
                strangers.setdefault(shown.peer, []).append(shown.prefix)
        for peer, prefixes in strangers.items():
            self.speaker.say(messages.withdraw(peer, prefixes))

    def _forget_untold(self, peer: IPAddress, told: Collection[IPNetwork]) -> None:
        """Forget what a peer withdrew while nobody listened; what is stale has its own end."""
        table = self._rib.table(peer)
        for prefix in [prefix for prefix in table.entries if prefix not in told and prefix not in table.stale]:
            self._rib.forget(peer, prefix)

    def _show(self, neighbour: Neighbour, now: float) -> None:
        if (neighbor := self.neighbors.get(neighbour.peer)) is not None:
            self._on_change(neighbor, neighbor.show(neighbour, now, self._wall()), now)

    def _on_gone(self, event: Gone, now: float) -> None:
        self._log.error("speaker.lost", reason=event.reason, retry_seconds=event.retry_seconds)
        self._retries.abandon()
        for neighbor in self.neighbors.values():
            self._on_change(neighbor, neighbor.lose_speaker(now, self._wall()), now, "the BGP speaker ended")
            neighbor.offered = {}
        if self._plan is not None:
            self._make_plan()

    def _on_applied(self, now: float) -> None:
        self.reconfigured = self._wall()
        self._log.info("configuration.applied", sessions=len(self.neighbors) - len(self._retries.under_way))
        if dropped := self._retries.dropped():
            for address in dropped:
                if (neighbor := self.neighbors.get(address)) is not None:
                    neighbor.offered = {}
            self._make_plan()
        for neighbor in self.neighbors.values():
            if now - neighbor.end_sent_at < END_DOUBT_SECONDS:
                neighbor.end_sent = False
        if self.is_settled:
            self._retries.finish(now)
            for neighbor in self.neighbors.values():
                if neighbor.is_renamed:
                    # what was said since its session came up may have gone to its predecessor
                    neighbor.is_renamed = False
                    neighbor.offer_again()

    def _on_doubt(self, event: Doubt, now: float) -> None:
        """ExaBGP refused one of some commands: the peers that they were about are offered everything again."""
        addresses = {word for command in event.commands for word in command.split()[1:2]}
        for neighbor in self.neighbors.values():
            if str(neighbor.spec.address) in addresses:
                neighbor.offer_again()
                neighbor.end_sent = False
                neighbor.offer_after = now + neighbor.doubt(now, DOUBT_PAUSES_SECONDS)
        self._log.warning("command.refused", peers=sorted(addresses))

    def _guard(self) -> None:
        """Have dropped what comes from further away than a peer is. ExaBGP does so where it opened the connection."""
        least = {peer.address: peer.least_ttl for peer in self.specs.values() if peer.least_ttl is not None}
        if not least and not self._guards:
            return
        fault = self.speaker.guard(least)
        self._guards = bool(least) or fault is not None
        if fault is not None and fault != self._guard_fault:
            self._log.error("ttl.unchecked", peers=sorted(map(str, least)), reason=fault)
        self._guard_fault = fault

    # --- does ExaBGP do what it was told -----------------------------------------------------------------------------

    def _hold_audit(self, now: float) -> None:
        if not self._audit.is_due(now) or self._plan_at is not None or self._retries.under_way:
            return
        chosen = self._audit.next_peers(self.neighbors, now)
        if self.speaker.audit(chosen):
            self._audit.note_asked(chosen)

    def _on_audited(self, event: Audited, now: float) -> None:
        for found in self._audit.judge(event, self.neighbors, self._plan, now):
            if found.remedy is Remedy.RESTART:
                self.handle(self.speaker.restart(f"{found.peer or 'ExaBGP'}: {found.what}", now), now)
            else:
                self._log.error(
                    "speaker.disagrees", peer=str(found.peer or "all"), what=found.what, then="it is told again"
                )
                self._repair(found.peer, event, now)

    def _repair(self, peer: IPAddress | None, event: Audited, now: float) -> None:
        neighbor = None if peer is None else self.neighbors.get(peer)
        if peer is None or neighbor is None:
            return
        row = next((row for row in event.neighbours if row.peer == peer), None)
        if row is not None and row.is_up != neighbor.is_up:
            self._show(row, now)
        else:
            # announced again it sends nothing that it believes to have sent
            self.speaker.say([messages.resend(peer)])
            neighbor.offered = {prefix: neighbor.offered.get(prefix) for prefix in event.sent.get(peer, ())}
            neighbor.reconsider()

    # --- what is due -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due: a new plan, ends of waiting, probes."""
        if self._plan_at is not None and now >= self._plan_at:
            self._plan_at = None
            self._make_plan()
        for neighbor in self.neighbors.values():
            if neighbor.is_overdue(now):
                neighbor.stop_waiting()
                self._swept(neighbor)
        if self.speaker.is_ready:
            self._probe_silent(now)
            self._hold_audit(now)

    def reconsider(self, peers: Iterable[IPAddress], prefixes: Iterable[IPNetwork] | None = None) -> None:
        """Have what some peers are offered compared again, for some prefixes or for all."""
        for address in peers:
            if (neighbor := self.neighbors.get(address)) is not None:
                neighbor.reconsider(prefixes)

    def offer(self, book: Book, now: float) -> None:
        """Tell ExaBGP the difference between what each peer is offered and what it should be.

        A peer that is not up is told nothing: ExaBGP would forget reloads while it holds routes for it. It is offered
        the difference when it comes up.
        """
        if (changed := book.take_changes()) is None or changed:
            self.reconsider(self.neighbors, changed)
        if not self.speaker.is_ready:
            return
        was_quiet, waits_for_routes = self.speaker.is_quiet, self._waits_for_routes(book, now)
        for neighbor in self.neighbors.values():
            if not neighbor.is_up or now < neighbor.offer_after or (neighbor.end_sent and not was_quiet):
                continue
            if neighbor.needs_offer:
                self.speaker.say(self._difference(neighbor, book))
                neighbor.pending, neighbor.offer_after = set(), now + OFFER_PAUSE_SECONDS
            if not neighbor.end_sent and not waits_for_routes:
                self.speaker.say([messages.end_of_rib(neighbor.spec.address)])
                neighbor.end_sent, neighbor.end_sent_at = True, now

    def _difference(self, neighbor: Neighbor, book: Book) -> list[str]:
        """Return the commands that make what a peer is offered what it should be, and note that they were said."""
        peer, offered = neighbor.spec, neighbor.offered
        pending = neighbor.pending
        prefixes = {*offered, *book.prefixes(peer)} if pending is None else pending
        missing: dict[IPNetwork, Offer] = {}
        surplus: list[IPNetwork] = []
        for prefix in prefixes:
            wanted = book.offer(peer, neighbor.router_id, prefix)
            if wanted is not None:
                if offered.get(prefix) != wanted:
                    missing[prefix] = wanted
            elif prefix in offered:
                surplus.append(prefix)
        offered.update(missing)
        for prefix in surplus:
            del offered[prefix]
        return messages.withdraw(peer.address, surplus) + messages.announce(peer.address, missing)

    def _waits_for_routes(self, book: Book, now: float) -> bool:
        """Return whether peers must not be told yet that they have everything (RFC 4724 4.1).

        Who passes on what it learned and has just started waits for its peers to tell it, for some time; not for those
        that have just started as well, they might wait for us.
        """
        return (
            book.is_transit
            and self._is_complete_at is not None
            and now < self._is_complete_at
            and not all(neighbor.has_told_all or neighbor.has_restarted for neighbor in self.neighbors.values())
        )

    # --- peers that are down -----------------------------------------------------------------------------------------

    def _probe_silent(self, now: float) -> None:
        if self.speaker.is_settled and (silent := self._retries.to_probe(self.neighbors, now)):
            self._probe(
                Target(
                    address=neighbor.spec.address,
                    port=neighbor.spec.port,
                    local=None if neighbor.spec.any_source else neighbor.spec.local_address,
                    password=neighbor.spec.password,
                )
                for neighbor in silent
            )

    def probe_soon(self, now: float) -> None:
        """Try the peers that are down now: an interface or address came."""
        self._retries.probe_soon(now)

    def on_answers(self, addresses: Iterable[IPAddress], now: float) -> None:
        """Have ExaBGP begin anew with peers that answer."""
        if not self.speaker.is_settled or self._plan_at is not None:
            return
        if retried := self._retries.begin(addresses, self.neighbors, now):
            self._log.info("session.retried", peers=sorted(map(str, retried)))
            self._make_plan()

    def _spare(self, peer: IPAddress, now: float) -> None:
        """Do not have ExaBGP begin anew with a peer that has come by itself, if it is not too late."""
        if not self.speaker.has_signalled and self._retries.spare(peer, now):
            self._make_plan()

    def due(self, now: float) -> float | None:
        """Return the seconds until `tick` has something to do, or None."""
        times = [] if self._plan_at is None else [self._plan_at]
        for neighbor in self.neighbors.values():
            if neighbor.keep_until is not None:
                times.append(neighbor.keep_until)
            if neighbor.is_up and neighbor.needs_offer:
                times.append(max(neighbor.offer_after, now + 0.02))
            elif neighbor.is_up and not neighbor.end_sent:
                times.append(max(self._is_complete_at or now, neighbor.offer_after, now + 0.02))
        if self.speaker.is_ready and (at := self._retries.due(self.neighbors, now)) is not None:
            times.append(at)
        if self.speaker.is_ready and self._audit.at is not None:
            times.append(self._audit.at)
        return max(0.0, min(times) - now) if times else None


@lru_cache(maxsize=512)
def _shared(
    peer: IPAddress, next_hop: IPAddress, attributes: PathAttributes, external: bool, identifier: ipaddress.IPv4Address
) -> Path:
    """Return one path for all prefixes that are told with it, in however many messages."""
    return Path(peer=peer, next_hop=next_hop, attributes=attributes, is_external=external, identifier=identifier)


def _name(peer: PeerSpec) -> tuple[object, ...]:
    """Return what a session is known by in ExaBGP, beside the peer's address and our identifier.

    When any of it changes, a reload removes the session with all that was announced to it, and makes another.
    """
    return peer.local_address, peer.local_as, peer.peer_as
