"""What the peers told us: all paths by prefix and peer, which are refused, which are stale, which one counts.

Cost follows the change: only prefixes on which something changed are decided again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bgpd.calc.imports import ImportRules, Refusal, accept
from bgpd.calc.paths import Choice, Path, best
from bgpd.calc.sessions import PeerSpec
from resources.names import IPAddress, IPNetwork

MAX_PREFIXES = 20_000
"""Accepted from one peer at most; the rest is refused."""


@dataclass(slots=True)
class Entry:
    """A path and what was decided about it, which counts only once it was decided."""

    path: Path
    """As the peer told it."""
    told_at: float = 0.0
    """Wall time at which the peer told it; of what an earlier bgpd heard, when this one learned of it."""
    used: Path | None = None
    """As filters made it; None if it is refused."""
    refusal: Refusal | None = None
    is_decided: bool = False


@dataclass(slots=True)
class PeerTable:
    """What one peer told."""

    entries: dict[IPNetwork, Entry] = field(default_factory=dict)
    stale: set[IPNetwork] = field(default_factory=set)
    """Told in an earlier session, or by an earlier life of the peer, and not again yet."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    """How many of `entries` are refused, by reason."""
    accepted: int = 0


class Rib:
    """Paths of all peers and the decision between them."""

    def __init__(self, max_prefixes: int = MAX_PREFIXES) -> None:
        self._max = max_prefixes
        self._tables: dict[IPAddress, PeerTable] = {}
        self._peers_of: dict[IPNetwork, set[IPAddress]] = {}
        self._dirty: set[IPNetwork] = set()
        self.decided = 0
        """How often a prefix was decided, so far."""
        self.refusals: Counter[tuple[IPAddress, Refusal]] = Counter()
        """How often a path of a peer was found to be refused, ever."""

    def table(self, peer: IPAddress) -> PeerTable:
        """Return what `peer` told; an empty table if it never told anything."""
        return self._tables.get(peer) or PeerTable()

    @property
    def prefixes(self) -> Iterable[IPNetwork]:
        return self._peers_of.keys()

    def entries(self, prefix: IPNetwork) -> Mapping[IPAddress, Entry]:
        """Return the paths to one prefix, by peer."""
        return {peer: self._tables[peer].entries[prefix] for peer in self._peers_of.get(prefix, ())}

    # --- what happens ------------------------------------------------------------------------------------------------

    def learn(self, prefix: IPNetwork, path: Path, told_at: float = 0.0) -> None:
        """Take a path that its peer told just now, `told_at` by the wall clock."""
        table = self._tables.get(path.peer)
        if table is None:
            table = self._tables[path.peer] = PeerTable()
        table.stale.discard(prefix)
        before = table.entries.get(prefix)
        if before is not None:
            if before.path == path:
                return
            self._uncount(table, before)
        table.entries[prefix] = Entry(path, told_at)
        self._peers_of.setdefault(prefix, set()).add(path.peer)
        self._dirty.add(prefix)

    def forget(self, peer: IPAddress, prefix: IPNetwork) -> None:
        """Take it that `peer` withdrew a prefix."""
        table = self._tables.get(peer)
        if table is None or (entry := table.entries.pop(prefix, None)) is None:
            return
        table.stale.discard(prefix)
        was_full = table.accepted >= self._max
        self._uncount(table, entry)
        peers = self._peers_of[prefix]
        peers.discard(peer)
        if not peers:
            del self._peers_of[prefix]
        self._dirty.add(prefix)
        if was_full and table.accepted < self._max:
            self._dirty |= {p for p, other in table.entries.items() if other.refusal is Refusal.MAX_PREFIX}

    def mark_stale(self, peer: IPAddress) -> None:
        """Doubt everything that `peer` told: what it does not tell again goes with `sweep`."""
        if (table := self._tables.get(peer)) is not None:
            table.stale = set(table.entries)

    def sweep(self, peer: IPAddress) -> int:
        """Forget what is still stale of `peer`; return how much that was."""
        stale = sorted(self.table(peer).stale, key=str)
        for prefix in stale:
            self.forget(peer, prefix)
        return len(stale)

    def drop(self, peer: IPAddress) -> None:
        """Forget everything that `peer` told."""
        for prefix in list(self.table(peer).entries):
            self.forget(peer, prefix)
        self._tables.pop(peer, None)

    def recheck(self, prefixes: Iterable[IPNetwork] | None = None) -> None:
        """Decide again about some prefixes, or about all, because what decides has changed."""
        if prefixes is None:
            self._dirty.update(self._peers_of)
        else:
            self._dirty.update(prefix for prefix in prefixes if prefix in self._peers_of)

    def recheck_peers(self, peers: Iterable[IPAddress]) -> None:
        """Decide again about everything that some peers told."""
        for peer in peers:
            self._dirty.update(self.table(peer).entries)

    # --- the decision ------------------------------------------------------------------------------------------------

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty)

    def decide(
        self, peers: Mapping[IPAddress, PeerSpec], rules: ImportRules
    ) -> Iterator[tuple[IPNetwork, Choice | None]]:
        """Yield every prefix on which something changed since the last call, with what to use for it now."""
        dirty, self._dirty = self._dirty, set()
        self.decided += len(dirty)
        for prefix in dirty:
            accepted = [
                used
                for peer in sorted(self._peers_of.get(prefix, ()), key=_order)
                if (used := self._check(peer, prefix, peers.get(peer), rules).used) is not None
            ]
            yield prefix, best(accepted, rules.surroundings.cost)

    def _check(self, peer: IPAddress, prefix: IPNetwork, spec: PeerSpec | None, rules: ImportRules) -> Entry:
        table = self._tables[peer]
        entry = table.entries[prefix]
        found = Refusal.NOT_PEER if spec is None else accept(spec, prefix, entry.path, rules)
        before = entry.refusal if entry.is_decided else None
        self._uncount(table, entry)
        if isinstance(found, Path) and table.accepted >= self._max:
            found = Refusal.MAX_PREFIX
        entry.is_decided = True
        if isinstance(found, Path):
            entry.refusal, entry.used = None, found
            table.accepted += 1
        else:
            if found is not before:
                self.refusals[peer, found] += 1
            entry.refusal, entry.used = found, None
            table.refused[found] += 1
        return entry

    @staticmethod
    def _uncount(table: PeerTable, entry: Entry) -> None:
        if not entry.is_decided:
            return
        entry.is_decided = False
        if entry.refusal is None:
            table.accepted -= 1
        else:
            table.refused[entry.refusal] -= 1
            if not table.refused[entry.refusal]:
                del table.refused[entry.refusal]


def _order(peer: IPAddress) -> tuple[int, int]:
    return peer.version, int(peer)
