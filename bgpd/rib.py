"""What the peers told us: all paths by prefix and peer, which are refused, which are stale, which one counts.

Cost follows the change: only prefixes on which something changed are decided again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bgpd.calc.imports import ImportRules, PathVerdict, Refusal, accept_at
from bgpd.calc.paths import Choice, Cost, Path, best
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


@dataclass(slots=True, eq=False)
class PeerTable:
    """What one peer told."""

    peer: IPAddress
    entries: dict[IPNetwork, Entry] = field(default_factory=dict)
    stale: set[IPNetwork] = field(default_factory=set)
    """Told in an earlier session, or by an earlier life of the peer, and not again yet."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    """How many of `entries` are refused, by reason."""
    accepted: int = 0
    alone: tuple["PeerTable", ...] = ()
    """This table and no other: what most prefixes are in."""

    def __post_init__(self) -> None:
        self.alone = (self,)


class Rib:
    """Paths of all peers and the decision between them."""

    def __init__(self, max_prefixes: int = MAX_PREFIXES) -> None:
        self._max = max_prefixes
        self._tables: dict[IPAddress, PeerTable] = {}
        self._tables_of: dict[IPNetwork, tuple[PeerTable, ...]] = {}
        """Which tables have a prefix, by the peers' addresses."""
        self._dirty: set[IPNetwork] = set()
        self.decided = 0
        """How often a prefix was decided, so far."""
        self.refusals: Counter[tuple[IPAddress, Refusal]] = Counter()
        """How often a path of a peer was found to be refused, ever."""

    def table(self, peer: IPAddress) -> PeerTable:
        """Return what `peer` told; an empty table if it never told anything."""
        return self._tables.get(peer) or PeerTable(peer)

    @property
    def prefixes(self) -> Iterable[IPNetwork]:
        return self._tables_of.keys()

    def entries(self, prefix: IPNetwork) -> Mapping[IPAddress, Entry]:
        """Return the paths to one prefix, by peer."""
        return dict(self.told(prefix))

    def told(self, prefix: IPNetwork) -> Iterator[tuple[IPAddress, Entry]]:
        """Yield what `entries` has."""
        for table in self._tables_of.get(prefix, ()):
            yield table.peer, table.entries[prefix]

    # --- what happens ------------------------------------------------------------------------------------------------

    def learn(self, prefix: IPNetwork, path: Path, told_at: float = 0.0) -> None:
        """Take a path that its peer told just now, `told_at` by the wall clock."""
        table = self._tables.get(path.peer)
        if table is None:
            table = self._tables[path.peer] = PeerTable(path.peer)
        table.stale.discard(prefix)
        before = table.entries.get(prefix)
        if before is not None:
            if before.path == path:
                return
            self._uncount(table, before)
        else:
            others = self._tables_of.get(prefix)
            self._tables_of[prefix] = table.alone if others is None else tuple(sorted((*others, table), key=_order))
        table.entries[prefix] = Entry(path, told_at)
        self._dirty.add(prefix)

    def forget(self, peer: IPAddress, prefix: IPNetwork) -> None:
        """Take it that `peer` withdrew a prefix."""
        table = self._tables.get(peer)
        if table is None or (entry := table.entries.pop(prefix, None)) is None:
            return
        table.stale.discard(prefix)
        was_full = table.accepted >= self._max
        self._uncount(table, entry)
        tables = self._tables_of[prefix]
        if len(tables) == 1:
            del self._tables_of[prefix]
        else:
            self._tables_of[prefix] = tuple(other for other in tables if other is not table)
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

    def remove(self, peer: IPAddress) -> None:
        """Forget a peer that is configured no more, and how often its paths were refused."""
        self.drop(peer)
        for of in [of for of in self.refusals if of[0] == peer]:
            del self.refusals[of]

    def recheck(self, prefixes: Iterable[IPNetwork] | None = None) -> None:
        """Decide again about some prefixes, or about all, because what decides has changed."""
        if prefixes is None:
            self._dirty.update(self._tables_of)
        else:
            self._dirty.update(prefix for prefix in prefixes if prefix in self._tables_of)

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
        sitting = _Sitting(peers, rules)
        for prefix in dirty:
            accepted = [
                used
                for table in self._tables_of.get(prefix, ())
                if (used := self._check(table, prefix, sitting).used) is not None
            ]
            yield prefix, sitting.best(accepted)

    def _check(self, table: PeerTable, prefix: IPNetwork, sitting: "_Sitting") -> Entry:
        entry = table.entries[prefix]
        found = sitting.accept(prefix, entry.path)
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
                self.refusals[table.peer, found] += 1
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


class _Sitting:
    """Decides about many prefixes by the same rules. What follows from a path alone is worked out once.

    Paths are told apart by identity: equal ones that are different objects are only looked at again.
    """

    def __init__(self, peers: Mapping[IPAddress, PeerSpec], rules: ImportRules) -> None:
        self._peers, self._rules = peers, rules
        self._cost: Cost = rules.surroundings.cost
        # each path is kept with what is known of it, so that its identity is not another's meanwhile
        self._verdicts: dict[int, tuple[Path, PeerSpec | None, PathVerdict | None]] = {}
        self._alone: dict[int, tuple[Path, Choice | None]] = {}

    def accept(self, prefix: IPNetwork, path: Path) -> Path | Refusal:
        known = self._verdicts.get(id(path))
        if known is None:
            spec = self._peers.get(path.peer)
            verdict = None if spec is None else PathVerdict.of(spec, path, self._rules)
            known = self._verdicts[id(path)] = path, spec, verdict
        _, spec, verdict = known
        if spec is None or verdict is None:
            return Refusal.NOT_PEER
        return accept_at(spec, prefix, path, verdict, self._rules)

    def best(self, paths: list[Path]) -> Choice | None:
        if len(paths) != 1:
            return best(paths, self._cost)
        path = paths[0]
        known = self._alone.get(id(path))
        if known is None:
            known = self._alone[id(path)] = path, best(paths, self._cost)
        return known[1]


def _order(table: PeerTable) -> tuple[int, int]:
    return table.peer.version, int(table.peer)
