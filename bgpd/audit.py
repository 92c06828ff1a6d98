"""Does ExaBGP do what it was told? When to ask it, about whom, and what follows from its answer. No I/O (adr/0033).

What disagrees once may be on its way. Twice in a row it is told again, three times and ExaBGP is started anew.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from bgpd.messages import Neighbour
from bgpd.neighbor import Neighbor
from bgpd.plan import Plan, visible
from bgpd.speaker import Audited
from resources.names import IPAddress, IPNetwork

AUDIT_SECONDS = 90.0
AUDIT_AGAIN_SECONDS = 2.0
"""After an audit that found something, or could not be held."""
AUDIT_ROUTES = 2000
"""Announced routes that one audit asks for, not counting those of its last peer: each costs ExaBGP a line."""
SILENT_SPEAKER_SECONDS = 10.0
"""After that ExaBGP has sent what it was told when the session came up."""
REPAIR_AT, RESTART_AT = 2, 3
"""At which audit in a row that finds the same a repair is tried, and at which ExaBGP is restarted."""


class Remedy(Enum):
    """What a finding calls for."""

    TELL_AGAIN = "tell it again"
    RESTART = "start it anew"


@dataclass(frozen=True, slots=True)
class Finding:
    """What ExaBGP says otherwise than it was told, about a peer; None: about all."""

    peer: IPAddress | None
    what: str
    remedy: Remedy


class Audit:
    """The turns of the audits and what they found so far."""

    def __init__(self, seconds: float = AUDIT_SECONDS) -> None:
        self._seconds = seconds
        self.at: float | None = None
        """When the next one is due; None: nobody has waited for one yet."""
        self._asked: list[IPAddress] = []
        """Peers that were asked about, the longest ago first."""
        self._doubts: dict[IPAddress | None, int] = {}
        """How many audits in a row found something wrong about a peer; None: about ExaBGP as a whole."""

    def is_due(self, now: float) -> bool:
        """Return whether to hold one now; it is due again a little later, for the case that it cannot be held."""
        if self.at is None:
            self.at = now + self._seconds
        if now < self.at:
            return False
        self.at = now + AUDIT_AGAIN_SECONDS
        return True

    def next_peers(self, neighbors: Mapping[IPAddress, Neighbor], now: float) -> list[IPAddress]:
        """Return whose announcements to ask for: the doubtful, then those whose turn is longest ago."""
        ready = {peer for peer, neighbor in neighbors.items() if _is_offered(neighbor, now)}
        turns = {peer: turn for turn, peer in enumerate(self._asked)}
        chosen: list[IPAddress] = []
        budget = AUDIT_ROUTES
        for peer in sorted(ready, key=lambda peer: (peer not in self._doubts, turns.get(peer, -1))):
            chosen.append(peer)
            budget -= len(neighbors[peer].offered)
            if budget <= 0:
                break
        return chosen

    def note_asked(self, peers: Collection[IPAddress]) -> None:
        self._asked = [*(peer for peer in self._asked if peer not in peers), *peers]

    def judge(
        self, event: Audited, neighbors: Mapping[IPAddress, Neighbor], plan: Plan | None, now: float
    ) -> list[Finding]:
        """Compare what ExaBGP says with what it was told; return what is to be done. A restart is the only finding."""
        found = dict(_disagreements(event, neighbors, plan, now))
        self._doubts = {peer: self._doubts.get(peer, 0) + 1 for peer in found}
        self.at = now + (AUDIT_AGAIN_SECONDS if found else self._seconds)
        for peer, what in found.items():
            if self._doubts[peer] >= RESTART_AT:
                self._doubts = {}
                return [Finding(peer, what, Remedy.RESTART)]
        return [
            Finding(peer, what, Remedy.TELL_AGAIN) for peer, what in found.items() if self._doubts[peer] >= REPAIR_AT
        ]


def _disagreements(
    event: Audited, neighbors: Mapping[IPAddress, Neighbor], plan: Plan | None, now: float
) -> Iterator[tuple[IPAddress | None, str]]:
    """Yield one thing that is wrong for each peer, and for all of them (None)."""
    rows = {row.peer: row for row in event.neighbours}
    if event.is_current and plan is not None and {peer: visible(row) for peer, row in rows.items()} != plan.visible:
        yield None, "its sessions are not those of its configuration"
    for peer, row in rows.items():
        neighbor = neighbors.get(peer)
        if neighbor is None:
            continue
        if neighbor.is_up != row.is_up:
            yield peer, f"the session is {'up' if row.is_up else 'down'} by its own word"
        elif peer in event.sent and _is_offered(neighbor, now):
            what = _misannounced(neighbor, event.sent[peer], row)
            if what:
                yield peer, what


def _misannounced(neighbor: Neighbor, sent: frozenset[IPNetwork], row: Neighbour) -> str:
    if missing := neighbor.offered.keys() - sent:
        return f"it does not announce {_some(missing)}"
    if surplus := sent - neighbor.offered.keys():
        return f"it announces {_some(surplus)}, which it was told to withdraw"
    return "it has sent no update" if neighbor.offered and row.updates_sent == 0 else ""


def _is_offered(neighbor: Neighbor, now: float) -> bool:
    """Whether a peer has been told all it is to know, long enough ago for ExaBGP to have sent it."""
    up_for = 0.0 if neighbor.up_at is None else now - neighbor.up_at
    return neighbor.end_sent and not neighbor.needs_offer and up_for >= SILENT_SPEAKER_SECONDS


def _some(prefixes: Collection[IPNetwork]) -> str:
    """Return a few prefixes as text, and how many more there are."""
    first, *more = sorted(map(str, prefixes))
    return f"{first} and {len(more)} more" if more else first
