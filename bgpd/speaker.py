"""ExaBGP's life: adopt or start it, read everything from it, reload it safely, end and restart it (reference bgp.md
3.6, 4.2).

`Speaker` decides; a `Child` (bgpd.child) does. Everything comes in through `handle` and `tick` and goes out as events,
so that the whole of it runs in a test without a process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from bgpd.dialogue import Dialogue, Doubt, Reply
from bgpd.messages import (
    SHOW_NEIGHBOURS,
    SHOW_RECEIVED,
    SHOW_SENT,
    Answered,
    Hello,
    Ignored,
    Message,
    Neighbour,
    Neighbours,
    Remark,
    Shown,
    ShuttingDown,
    Unreadable,
    Updated,
    parse,
    show_sent,
)
from bgpd.plan import Found, Plan
from bgpd.reload import Applied, Refused, Reload, Unchecked, Untaken
from resources.names import IPAddress, IPNetwork

PING = "version"
PINGS_PER_PATIENCE = 3
PATIENCE_SECONDS = 15.0
"""Without a word for so long, though an answer is due, ExaBGP or its relay is taken for stuck."""
DEAF_FACTOR = 4
"""While it goes on telling what peers say, its answers may take so many times longer."""
ADOPT_SECONDS = 5.0
START_SECONDS = 20.0
END_SECONDS = 3.0
BACKOFF_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 60.0
REATTACH_SECONDS = 2.0
"""In which a relay that cut the line, and lives, has to greet again."""
REATTACH_PAUSE_SECONDS = 30.0
"""Cut again within this, the pair is restarted: somebody else may want the relay's only place."""


# --- the port --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines from the relay, of the connection with this number."""

    connection: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RelayClosed:
    """The connection to the relay could not be made, or ended."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """ExaBGP is no more. `last` are its last lines on standard error."""

    pid: int
    status: int | None
    last: str = ""


@dataclass(frozen=True, slots=True)
class Validated:
    """Whether ExaBGP takes a configuration; `fault` is None or what it says."""

    digest: str
    fault: str | None
    is_verdict: bool = True
    """False: it could not be asked, and `fault` is why."""


ChildMessage = Lines | RelayClosed | ChildEnded | Validated


class Child(Protocol):
    """ExaBGP with its relay, as a process. No call blocks; answers come as `ChildMessage`s."""

    def find(self) -> Found | None:
        """Return the ExaBGP that an earlier bgpd started, if it still runs."""

    def start(self, configuration: str, environment: Mapping[str, str]) -> int:
        """Start ExaBGP and return its pid, also where it ends at once (ChildEnded follows)."""

    def validate(self, configuration: str, environment: Mapping[str, str]) -> None:
        """Have ExaBGP check a configuration; Validated follows."""

    def install(self, configuration: str) -> None:
        """Put a configuration where the running ExaBGP reads it."""

    def reload(self) -> None:
        """Tell ExaBGP to read its configuration again."""

    def note(self, found: Found) -> None:
        """Remember, for the next bgpd, what ExaBGP runs with."""

    def connect(self, seconds: float) -> int:
        """Connect to the relay, trying for `seconds`, and return the connection's number; Lines or RelayClosed follow.

        An earlier connection is closed without a message.
        """

    def write(self, data: bytes) -> None:
        """Send to the relay; what cannot be sent is lost, and RelayClosed follows."""

    def guard(self, least_ttl: Mapping[IPAddress, int]) -> str | None:
        """Have what ExaBGP gets from these addresses with less TTL dropped, no more; return why that cannot be.

        It holds for the connections that there are and for those that its listeners take later (RFC 5082).
        """

    def end(self, *, hard: bool) -> None:
        """End ExaBGP: ask it, or kill it and its relay."""


# --- what the speaker is to be, and what it says ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """The sessions as they are now, after a connection was made.

    It stands between the events that it knows of and those that are newer, so it must be taken in its place.
    """

    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """All routes that ExaBGP knows, after a connection was made. Those that changed since are not in `received`."""

    received: tuple[Shown, ...]
    sent: tuple[Shown, ...]
    touched: frozenset[tuple[IPAddress, IPNetwork]] = frozenset()
    """Peers and prefixes that changed since `received` was asked for."""
    was_adopted: bool
    lost: int = 0
    """So many events came while nobody listened."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The relay cut the line and is asked to be heard again; ExaBGP and its sessions go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Audited:
    """What ExaBGP says by itself of its sessions, and of what it announces to some peers, while nothing is queued."""

    neighbours: tuple[Neighbour, ...]
    sent: Mapping[IPAddress, frozenset[IPNetwork]]
    is_current: bool
    """It runs with the last plan; it has not refused it."""


@dataclass(frozen=True, slots=True)
class Gone:
    """ExaBGP ended or got stuck; all sessions are down."""

    reason: str
    retry_seconds: float


Event = Message | Seen | Synced | Detached | Audited | Gone | Applied | Refused | Unchecked | Doubt


class Stage(Enum):
    """Where ExaBGP is in its life."""

    ABSENT = "absent"
    STARTING = "starting"
    SYNCING = "syncing"
    READY = "ready"
    ENDING = "ending"


class _Audit:
    """Questions whether ExaBGP does what it was told, and what was answered so far."""

    def __init__(self, peers: tuple[IPAddress, ...], said: int) -> None:
        self.peers, self.said = peers, said
        self.answers = 0
        self.rows: tuple[Neighbour, ...] = ()
        self.sent: dict[IPAddress, set[IPNetwork]] = {peer: set() for peer in peers}


class Speaker:
    """Keeps one ExaBGP running with what `want` said last."""

    def __init__(self, child: Child, *, patience: float = PATIENCE_SECONDS) -> None:
        self._child, self._patience = child, patience
        self._dialogue = Dialogue()
        self.stage = Stage.ABSENT
        self.restarts = 0
        self.lost_events = 0
        self.trouble = ""
        """Why there is none at the moment, if it is not by our own will."""
        self.pid: int | None = None
        self._is_first = True
        self._adopting = False
        self._connection = -1
        self._deadline = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._ready_at = 0.0
        self._ping_at = 0.0
        self._heard_at = 0.0
        self._reattached_at: float | None = None
        self._detached_for = ""
        self._lost = 0
        # the audit under way
        self._audit: _Audit | None = None
        self._said = 0
        self._syncing: list[Reply] = []
        self._touched: set[tuple[IPAddress, IPNetwork]] = set()
        self._must_resync = False
        self._reload = Reload(child)

    # --- what the owner wants ----------------------------------------------------------------------------------------

    def want(self, plan: Plan) -> None:
        """Run with `plan` from now on; takes effect with the next `tick`."""
        self._reload.wanted = plan

    def meet(self, peer: IPAddress) -> None:
        """Take it that a session is wanted that was not; ExaBGP may have it still, and say nothing new of it.

        Then everything is asked for again once the last plan is in place.
        """
        self._must_resync |= self._reload.has_shown(peer)

    def say(self, commands: Iterable[str]) -> None:
        """Queue commands for ExaBGP. They are lost unless it is ready."""
        if self.stage is Stage.READY:
            listed = list(commands)
            self._said += len(listed)
            self._dialogue.say(listed)

    @property
    def is_ready(self) -> bool:
        return self.stage is Stage.READY

    @property
    def is_quiet(self) -> bool:
        """Whether ExaBGP has answered everything it was told."""
        return self.stage is Stage.READY and self._dialogue.is_quiet

    @property
    def is_settled(self) -> bool:
        """Whether ExaBGP runs with the last plan, or has refused it."""
        return self.stage is Stage.READY and self._reload.is_settled

    @property
    def has_signalled(self) -> bool:
        """Whether ExaBGP has been told to take another configuration, so that it cannot be called back."""
        return self._reload.has_signalled

    @property
    def reloads(self) -> int:
        """How often ExaBGP took a configuration over while it ran."""
        return self._reload.count

    # --- what happens ------------------------------------------------------------------------------------------------

    def handle(self, message: ChildMessage, now: float) -> list[Event]:
        match message:
            case Lines(connection=number, lines=lines):
                return self._take_lines(lines, now) if number == self._connection else []
            case RelayClosed(connection=number, reason=reason):
                return self._on_relay_closed(reason, now) if number == self._connection else []
            case ChildEnded():
                return self._on_ended(message, now) if message.pid == self.pid else []
            case Validated(digest=checked, fault=fault) if fault is not None and not message.is_verdict:
                unchecked = self._reload.on_unchecked(checked, fault, now)
                return [] if unchecked is None else [unchecked]
            case Validated(digest=checked, fault=fault):
                refused = self._reload.on_validated(checked, fault, now, is_quiet=self._dialogue.is_quiet)
                return [] if refused is None else [refused]

    def tick(self, now: float) -> list[Event]:
        """Do what is due, and write what may be written."""
        events: list[Event] = []
        match self.stage:
            case Stage.ABSENT:
                if (plan := self._reload.to_start_with()) is not None and now >= self._retry_at:
                    self._begin(plan, now)
            case Stage.STARTING:
                if now >= self._deadline:
                    events += self._give_up("it did not answer", now)
            case Stage.SYNCING:
                events += self._watch(now)
            case Stage.READY:
                events += self._watch(now)
                if self.stage is Stage.READY:
                    events += self._advance(now)
            case Stage.ENDING:
                if now >= self._deadline:
                    self._child.end(hard=True)
                    self._deadline = now + END_SECONDS
        if self.stage in (Stage.SYNCING, Stage.READY) and (data := self._dialogue.take(now)):
            self._child.write(data)
        return events

    def due(self, now: float) -> float | None:
        """Return the seconds until `tick` wants to be called again, or None."""
        times: list[float] = []
        match self.stage:
            case Stage.ABSENT:
                if self._reload.wanted is None:
                    return None
                times.append(self._retry_at)
            case Stage.STARTING | Stage.ENDING:
                times.append(self._deadline)
            case Stage.SYNCING | Stage.READY:
                times.append(self._ping_at)
                if self._dialogue.waiting_since is not None:
                    times.append(self._stuck_at(self._dialogue.waiting_since))
                if (at := self._reload.due(now)) is not None:
                    times.append(at)
        return max(0.0, min(times) - now)

    # --- start and end -----------------------------------------------------------------------------------------------

    def _begin(self, plan: Plan, now: float) -> None:
        found = self._child.find() if self._is_first else None
        self._is_first = False
        self._adopting = found is not None
        if found is not None:
            self.pid, self._reload.running, patience = found.pid, found, ADOPT_SECONDS
        else:
            self.pid = self._child.start(plan.configuration, plan.environment)
            self._reload.note_started(self.pid, plan)
            patience = START_SECONDS
        self.stage, self._deadline = Stage.STARTING, now + patience
        self._connection = self._child.connect(patience)

    def _on_relay_closed(self, reason: str, now: float) -> list[Event]:
        match self.stage:
            case Stage.ABSENT | Stage.ENDING:
                return []
            case Stage.READY | Stage.SYNCING if self._may_reattach(now):
                # a relay that is gone refuses at once, and then the pair is ended
                self._reattached_at, self._detached_for = now, reason
                self._forget_connection()
                self._adopting, self.stage, self._deadline = True, Stage.STARTING, now + REATTACH_SECONDS
                self._connection = self._child.connect(0.0)
                return [Detached(reason)]
            case Stage.STARTING if self._detached_for:
                return self._give_up(self._detached_for, now)
        return self._give_up(reason, now)

    def _may_reattach(self, now: float) -> bool:
        return self._reattached_at is None or now - self._reattached_at >= REATTACH_PAUSE_SECONDS

    def _on_ended(self, ended: ChildEnded, now: float) -> list[Event]:
        events: list[Event] = []
        last = f": {_in_our_words(ended.last)}" if ended.last else ""
        reason = f"it ended with status {ended.status}{last}"
        if self.stage not in (Stage.ENDING, Stage.ABSENT):
            events = self._give_up(reason, now)
        elif ended.status and self.trouble:
            # its relay ended before it
            self.trouble = reason
        self.stage, self.pid, self._reload.running = Stage.ABSENT, None, None
        return events

    def _give_up(self, reason: str, now: float) -> list[Event]:
        """End ExaBGP, to start another one after a pause that grows with each failure."""
        if self._ready_at and self.stage is Stage.READY and now - self._ready_at >= STEADY_SECONDS:
            self._failures = 0
        wait = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self.restarts += 1
        self.trouble = reason
        self._retry_at = now + wait
        self._finish(now)
        return [Gone(reason, wait)]

    def guard(self, least_ttl: Mapping[IPAddress, int]) -> str | None:
        """Have what comes to ExaBGP from these addresses with less TTL dropped; return why that cannot be."""
        return self._child.guard(least_ttl)

    def _restart(self, reason: str, now: float) -> list[Event]:
        """End ExaBGP to start it again at once: that is wanted, no failure."""
        self._retry_at = now
        self._finish(now)
        return [Gone(reason, 0.0)]

    def _forget_connection(self) -> None:
        self._reload.interrupt()
        self._syncing, self._touched, self._audit = [], set(), None
        self._connection = -1
        self._dialogue = Dialogue()

    def _finish(self, now: float) -> None:
        self._forget_connection()
        self._detached_for = ""
        self._child.end(hard=False)
        self.stage, self._deadline = Stage.ENDING, now + END_SECONDS

    def _watch(self, now: float) -> list[Event]:
        waiting = self._dialogue.waiting_since
        if waiting is not None and now >= self._stuck_at(waiting):
            return self._give_up(f"it has not answered for {now - waiting:.0f} s", now)
        if now >= self._ping_at:
            self._ping_at = now + self._patience / PINGS_PER_PATIENCE
            if self._dialogue.is_quiet:
                self._dialogue.ask(PING)
        return []

    def _stuck_at(self, waiting: float) -> float:
        """Return when one that owes an answer since `waiting` is taken for stuck."""
        return min(max(waiting, self._heard_at) + self._patience, waiting + DEAF_FACTOR * self._patience)

    # --- lines -------------------------------------------------------------------------------------------------------

    def _take_lines(self, lines: Iterable[bytes], now: float) -> list[Event]:
        events: list[Event] = []
        self._heard_at = now
        for line in lines:
            message = parse(line)
            match message:
                case Hello():
                    self._on_hello(message, now)
                case Answered() | Neighbours() | Shown() | Remark():
                    heard = self._dialogue.hear(message, now)
                    if isinstance(heard, Reply):
                        events += self._on_reply(heard, now)
                    elif heard is not None:
                        events.append(heard)
                case Updated():
                    if self.stage is Stage.SYNCING:
                        self._touched.update((message.peer, prefix) for prefix, _ in message.announced)
                        self._touched.update((message.peer, prefix) for prefix in message.withdrawn)
                    events.append(message)
                case Ignored() | ShuttingDown():
                    pass
                case Unreadable():
                    events.append(message)
                case _:
                    events.append(message)
        return events

    def _on_hello(self, hello: Hello, now: float) -> None:
        if hello.pid != self.pid:
            # the relay of an ExaBGP that just died; ours will come
            self._connection = self._child.connect(max(0.0, self._deadline - now))
            return
        self.lost_events += hello.lost
        self._lost, self._detached_for = hello.lost, ""
        self._dialogue.greet(hello, now)
        self._ask_everything(now)

    def _ask_everything(self, now: float) -> None:
        self.stage, self._syncing, self._touched = Stage.SYNCING, [], set()
        self._must_resync = False
        self._ping_at = now + self._patience / PINGS_PER_PATIENCE
        for question in (SHOW_NEIGHBOURS, SHOW_RECEIVED, SHOW_SENT):
            self._dialogue.ask(question)

    def _on_reply(self, reply: Reply, now: float) -> list[Event]:
        if self.stage is Stage.SYNCING:
            if reply.question == SHOW_NEIGHBOURS:
                # the table that is asked for next is newer than all updates so far
                self._touched.clear()
                rows = _rows(reply)
                self._reload.show(rows)
                return [Seen(rows)]
            self._syncing.append(reply)
            return self._synced(now) if reply.question == SHOW_SENT else []
        if self._audit is not None and reply.question != PING:
            return self._on_audit(self._audit, reply)
        if reply.question == SHOW_NEIGHBOURS and self._reload.has_signalled:
            match self._reload.on_rows(_rows(reply), now):
                case Applied() as applied:
                    return [applied]
                case Untaken():
                    return self._restart("it does not take a new configuration", now)
        return []

    def _synced(self, now: float) -> list[Event]:
        received, sent = self._syncing
        touched = self._touched
        self.stage, self._ready_at, self.trouble = Stage.READY, now, ""
        self._reload.note_synced()
        self._syncing, self._touched = [], set()
        return [
            Synced(
                received=tuple(
                    line
                    for line in received.lines
                    if isinstance(line, Shown) and (line.peer, line.prefix) not in touched
                ),
                sent=tuple(line for line in sent.lines if isinstance(line, Shown)),
                touched=frozenset(touched),
                was_adopted=self._adopting,
                lost=self._lost,
            )
        ]

    # --- does it do what it was told ---------------------------------------------------------------------------------

    def audit(self, peers: Iterable[IPAddress]) -> bool:
        """Ask how its sessions are and what it announces to some peers, if this is a good moment; return whether.

        Audited follows, unless something is said meanwhile.
        """
        if not self.is_settled or not self._dialogue.is_quiet or self._audit is not None:
            return False
        self._audit = _Audit(tuple(peers), self._said)
        self._dialogue.ask(SHOW_NEIGHBOURS)
        for peer in self._audit.peers:
            self._dialogue.ask(show_sent(peer))
        return True

    def _on_audit(self, audit: "_Audit", reply: Reply) -> list[Event]:
        audit.answers += 1
        if reply.question == SHOW_NEIGHBOURS:
            audit.rows = _rows(reply)
        for line in reply.lines:
            # asked for 10.0.0.2, it shows 10.0.0.20 too
            if isinstance(line, Shown) and line.peer in audit.sent:
                audit.sent[line.peer].add(line.prefix)
        if audit.answers <= len(audit.peers):
            return []
        self._audit = None
        if reply.failed or self._said != audit.said:
            return []
        sent = {peer: frozenset(prefixes) for peer, prefixes in audit.sent.items()}
        return [Audited(audit.rows, sent, is_current=self._reload.is_current)]

    def restart(self, reason: str, now: float) -> list[Event]:
        """End ExaBGP and start it again, because it does not do what it was told."""
        return self._give_up(reason, now) if self.stage is Stage.READY else []

    def _advance(self, now: float) -> list[Event]:
        if self._reload.needs_restart:
            return self._restart("its environment is to change", now)
        if self._must_resync and self._reload.is_settled and self._dialogue.is_quiet:
            self._adopting, self._lost = True, 0
            self._ask_everything(now)
        elif self._reload.advance(now, is_quiet=self._dialogue.is_quiet):
            self._dialogue.ask(SHOW_NEIGHBOURS)
        return []


def _in_our_words(last: str) -> str:
    """Return the last line of ExaBGP's log, with the way out where its own leads nowhere."""
    if "this is an invalid address" in last:
        return (
            "an address that this node's record names is on no interface of this host (ip address show; the log says "
            "which); give the host that address, or correct the record: calicoctl node run finds its addresses anew"
        )
    if "may already be in use" in last:
        return (
            "another program listens on the BGP port of this host (ss -ltnp shows it); end that one, or set another "
            "listenPort in the BGPConfiguration"
        )
    return last


def _rows(reply: Reply) -> tuple[Neighbour, ...]:
    return tuple(row for line in reply.lines if isinstance(line, Neighbours) for row in line.rows)
