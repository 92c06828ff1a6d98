"""One session as it goes: its phase, what is awaited of the peer, how long its old routes are kept (reference bgp.md
4.3). Time is an argument: `now` is monotonic seconds, `wall` seconds since the epoch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from bgpd.calc.offers import Offer
from bgpd.calc.sessions import PeerSpec
from bgpd.messages import FsmChanged, Neighbour, Notified, Opened, SessionChanged
from resources.names import IPNetwork

SILENT_PEER_SECONDS = 30.0
"""How long to wait for all routes of a peer that does not say when it has sent them."""

RESTARTS = 2
"""For so many of its restart times routes are kept in all that the peer does not tell again (adr 31)."""

_EVENT_DELAY_SECONDS = 5.0
"""By so much an event may come after ExaBGP's table that shows it; later it tells of another session."""

_REFUSED_WITHIN_SECONDS = 0.05
HANDSHAKE_SECONDS = 15.0
"""A connection that has led to no session for so long, without a step ahead, leads to none."""


class Phase(Enum):
    """As BIRD calls them (reference bgp.md 5.3)."""

    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    PASSIVE = "Passive"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


_PHASES = {"CONNECT": Phase.CONNECT, "OPENSENT": Phase.OPEN_SENT, "OPENCONFIRM": Phase.OPEN_CONFIRM}

_HANDSHAKE = (Phase.CONNECT, Phase.OPEN_SENT, Phase.OPEN_CONFIRM)

_NOTIFICATIONS = {
    (2, 2): "Bad peer AS",
    (2, 3): "Bad BGP identifier",
    (3, 1): "Malformed attribute list",
    (3, 3): "Missing mandatory attribute",
    (3, 4): "Invalid attribute flags",
    (3, 5): "Invalid attribute length",
    (3, 6): "Invalid ORIGIN attribute",
    (3, 8): "Invalid NEXT_HOP attribute",
    (3, 10): "Invalid network field",
    (3, 11): "Malformed AS_PATH",
    (4, 0): "Hold timer expired",
    (6, 1): "Maximum number of prefixes reached",
    (6, 2): "Administrative shutdown",
    (6, 3): "Peer de-configured",
    (6, 4): "Administrative reset",
    (6, 5): "Connection rejected",
    (6, 6): "Other configuration change",
    (6, 7): "Connection collision resolution",
}


_SENT = re.compile(r"notification sent \((\d+),(\d+)\)")
"""What ExaBGP gives as the reason of a session that it ended itself."""


def _named(code: int, subcode: int) -> str:
    """Return a NOTIFICATION in BIRD's words."""
    return _NOTIFICATIONS.get((code, subcode), f"{code}/{subcode}")


class Change(Enum):
    """What an event means for the peer's routes."""

    NONE = "none"
    UP = "up"
    UP_AGAIN = "up, as was known from ExaBGP's table before the event came"
    DOWN_KEEP = "down, its routes are kept for a while"
    DOWN_DROP = "down, its routes go"


@dataclass(slots=True)
class Neighbor:
    """A configured peer. `spec` may be replaced while the session lives."""

    spec: PeerSpec
    phase: Phase = Phase.IDLE
    phase_at: float = 0.0
    """When ExaBGP last told of a phase."""
    since: float = 0.0
    """Wall time of the last change between up and not up."""
    up_at: float | None = None
    """When the session came up; None while it is not."""
    down_at: float = 0.0
    router_id: IPv4Address | None = None
    restart_seconds: int | None = None
    """For how long the peer wants its routes kept when it goes away; None: not at all."""
    end_received: bool = False
    end_is_unknown: bool = False
    """The session is older than we are: the peer may have said its end to an earlier bgpd."""
    end_sent: bool = False
    end_sent_at: float = 0.0
    keep_until: float | None = None
    """When stale routes of the peer go, whatever it says."""
    kept_since: float | None = None
    """Since when it has stale routes: it went then, and has not told all since."""
    is_twin: bool = False
    """It said that it has our own BGP identifier, and is of our AS: no session comes up."""
    error: str = ""
    """The last trouble, in BIRD's words: ``Socket: ...``, ``Received: ...``, ``BGP Error: ...``."""
    transitions: int = 0
    offered: dict[IPNetwork, Offer | None] = field(default_factory=dict)
    """What ExaBGP was told to announce to this peer; None: something, its attributes are not known."""
    pending: set[IPNetwork] | None = None
    """The prefixes of which what is offered has to be compared with what should be; None: all."""
    has_restarted: bool = False
    """The peer had just started when the session came up, and knew nothing yet."""
    is_renamed: bool = False
    """ExaBGP takes it for another peer, to whom nothing was announced, from a configuration on that it has not yet."""
    offer_after: float = 0.0
    """No new offer before: ExaBGP mixes up an announcement and a withdrawal of one prefix that it still queues."""
    _doubts: int = 0
    """How often ExaBGP refused a command about it, each soon after it was offered everything again."""
    _doubted_at: float = 0.0
    _connected_at: float | None = None
    _notified: bool = False

    @property
    def is_up(self) -> bool:
        return self.up_at is not None

    @property
    def announced(self) -> int:
        """How many routes the peer is told in this session."""
        return len(self.offered) if self.is_up else 0

    @property
    def has_fed(self) -> bool:
        """Whether the peer was told our End-of-RIB in this session. It may be due again, if ExaBGP may have lost it."""
        return self.end_sent or (self.up_at is not None and self.end_sent_at >= self.up_at)

    @property
    def needs_offer(self) -> bool:
        """Whether what is offered may differ from what should be."""
        return self.pending is None or bool(self.pending)

    def reconsider(self, prefixes: Iterable[IPNetwork] | None = None) -> None:
        """Have what is offered compared again, for some prefixes or for all."""
        if prefixes is None:
            self.pending = None
        elif self.pending is not None:
            self.pending.update(prefixes)

    def offer_again(self) -> None:
        """Have everything announced anew: ExaBGP has forgotten it, or may have."""
        self.offered = dict.fromkeys(self.offered)
        self.pending = None

    def doubt(self, now: float, pauses: Sequence[float]) -> float:
        """Take it that ExaBGP refused a command about this peer; return for how long to leave it alone."""
        pause = pauses[min(self._doubts, len(pauses)) - 1] if self._doubts else 0.0
        if now - self._doubted_at < pause:
            return pause  # it was said together with the last one
        self._doubts = self._doubts + 1 if self._doubts and now - self._doubted_at < 2 * pause + pauses[0] else 1
        self._doubted_at = now
        return pauses[min(self._doubts, len(pauses)) - 1]

    @property
    def has_told_all(self) -> bool:
        """Whether we have all routes of the peer."""
        return self.is_up and self.end_received

    @property
    def shown_phase(self) -> Phase:
        if self.phase in (Phase.IDLE, Phase.ACTIVE):
            if self.spec.passive:
                return Phase.PASSIVE
            return Phase.IDLE if self.error.startswith("Received") else Phase.ACTIVE
        return self.phase

    # --- events ------------------------------------------------------------------------------------------------------

    def on_fsm(self, event: FsmChanged, now: float) -> None:
        if self.is_up:
            return
        self.phase, self.phase_at = _PHASES.get(event.state, Phase.ACTIVE), now

    def is_connecting(self, now: float) -> bool:
        """Whether there is a connection that may become a session yet."""
        return self.phase in _HANDSHAKE and now - self.phase_at < HANDSHAKE_SECONDS

    def on_open(self, event: Opened) -> None:
        self.router_id = event.router_id
        self.restart_seconds, self.has_restarted = event.restart_seconds, event.has_restarted

    def on_notification(self, event: Notified) -> None:
        self._notified = True
        text = _named(event.code, event.subcode)
        self.error = f"Received: {text}" if event.received else f"BGP Error: {text}"

    def on_session(self, event: SessionChanged, now: float, wall: float) -> Change:
        match event.state:
            case "connected":
                self._connected_at = now
                return Change.NONE
            case "up":
                is_known = self.is_up and self.end_is_unknown and now - (self.up_at or 0.0) < _EVENT_DELAY_SECONDS
                self.come_up(now, wall)
                return Change.UP_AGAIN if is_known else Change.UP
            case "down":
                return self._go_down(event.reason, now, wall)
        return Change.NONE

    def on_end_of_rib(self) -> None:
        self.end_received = True
        self.keep_until = self.kept_since = None

    def come_up(self, now: float, wall: float, *, for_seconds: float | None = None) -> None:
        """Take it that the session is up. `for_seconds`: for how long, where we may have missed what came meanwhile."""
        self.phase, self.error, self._notified, self.is_twin = Phase.ESTABLISHED, "", False, False
        self.transitions += not self.is_up
        self.up_at, self.since = now - (for_seconds or 0.0), wall - (for_seconds or 0.0)
        self.end_received = self.end_sent = False
        self.end_is_unknown = for_seconds is not None
        self.reconsider()
        if for_seconds is not None and for_seconds >= SILENT_PEER_SECONDS:
            self.end_received, self.keep_until, self.kept_since = True, None, None
        elif for_seconds is not None or self.restart_seconds is None:
            self.keep_until = self.up_at + SILENT_PEER_SECONDS
        else:
            limit = self._limit(now, self.restart_seconds)
            self.keep_until = max(min(now + self.restart_seconds, limit), now + SILENT_PEER_SECONDS)

    def show(self, row: Neighbour, now: float, wall: float) -> Change:
        """Take over what ExaBGP says of a session that we may have missed the events of."""
        self.router_id = row.router_id or self.router_id
        if row.is_up:
            if not self.is_up or now - row.seconds > (self.up_at or 0.0) + 1.0:
                if row.restarts_gracefully and self.restart_seconds is None:
                    self.restart_seconds = self.spec.restart_seconds
                self.come_up(now, wall, for_seconds=row.seconds)
                return Change.UP
            return Change.NONE
        self.on_fsm(FsmChanged(row.peer, row.fsm), now)
        return self._go_down("", now, wall) if self.is_up else Change.NONE

    def lose_speaker(self, now: float, wall: float) -> Change:
        """Take it that our own speaker died: the peer is not at fault and its routes stay for now."""
        if not self.is_up:
            return Change.NONE
        self._leave_up(now, wall)
        self._keep(now, self.spec.restart_seconds)
        return Change.DOWN_KEEP

    def is_overdue(self, now: float) -> bool:
        """Whether stale routes have been kept long enough."""
        return self.keep_until is not None and now >= self.keep_until

    def stop_waiting(self) -> None:
        """Take what the peer told so far for all it has."""
        self.keep_until = self.kept_since = None
        self.end_received = self.is_up

    def _go_down(self, reason: str, now: float, wall: float) -> Change:
        quick = self._connected_at is not None and now - self._connected_at < _REFUSED_WITHIN_SECONDS
        self._connected_at = None
        notified, self._notified = self._notified or reason.startswith("notification"), False
        if sent := _SENT.match(reason):
            self.error = f"BGP Error: {_named(int(sent[1]), int(sent[2]))}"
        elif self.is_twin:
            self.error = f"BGP Error: {_named(2, 3)}"  # who was quicker to refuse the other does not matter
        elif not notified and reason == "closing connection":
            self.error = "Socket: Connection refused" if quick and not self.is_up else "Socket: Connection closed"
        if not self.is_up:
            self.phase = Phase.ACTIVE
            return Change.NONE
        self._leave_up(now, wall)
        if notified or not self.restart_seconds:
            # RFC 4724, section 4.2: a session that was ended on purpose is not a restart
            self.keep_until = self.kept_since = None
            return Change.DOWN_DROP
        self._keep(now, self.restart_seconds)
        return Change.DOWN_KEEP

    def _keep(self, now: float, seconds: int) -> None:
        """Keep its routes for `seconds`, though not for ever if it falls again and again without having told all."""
        limit = self._limit(now, seconds)
        if self.kept_since is None:
            self.kept_since = now
        self.keep_until = min(now + seconds, limit)

    def _limit(self, now: float, seconds: int) -> float:
        return (now if self.kept_since is None else self.kept_since) + RESTARTS * seconds

    def _leave_up(self, now: float, wall: float) -> None:
        self.phase = Phase.ACTIVE
        self.up_at, self.down_at, self.since = None, now, wall
        self.transitions += 1
        self.end_received = self.end_sent = False
