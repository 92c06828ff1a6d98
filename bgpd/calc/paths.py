"""A route as a peer told it, and which of several to believe (RFC 4271 9.1.2.2, RFC 4456 9; reference bgp.md 4.6)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Address

from resources.names import IPAddress

DEFAULT_LOCAL_PREFERENCE = 100
ECMP_MAX = 16
NORMAL_PRIORITY = 1024
"""Of every route that nobody gave another. Lower is better: Calico's priorities are metrics of kernel routes."""
_LOCAL_PREFERENCE_MAX = 2147483647
_PRIORITIES_FROM = 1 << 30
"""A LOCAL_PREF from here on says a priority, as Calico 3.32 sends it; nobody else's numbers are as large."""
UNKNOWN_IDENTIFIER = IPv4Address(0)
_NOT_TRANSITIVE = 0x40
"""In the first byte of an extended community."""


class Origin(IntEnum):
    """Lower is better."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of an AS path: a sequence, or a set whose order means nothing."""

    numbers: tuple[int, ...]
    is_set: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What means nothing to us and is passed on as it came (RFC 4271 5.1.6, 5.1.7 and 9, RFC 4360)."""

    is_atomic: bool = False
    """ATOMIC_AGGREGATE."""
    aggregator: tuple[int, IPv4Address] | None = None
    """AS number and router that made one route of several."""
    extended_communities: tuple[str, ...] = ()
    """Eight bytes each, as ``0x0002fde800000064``."""
    unknown: tuple[str, ...] = ()
    """Optional transitive attributes without a name: code, flags and value, as ``0x63 0xe0 0x0102``."""

    def to_outside(self) -> "Carried":
        """Return what of it may leave the AS: no extended communities that are not transitive (RFC 4360, 6)."""
        kept = tuple(one for one in self.extended_communities if not int(one[2:4], 16) & _NOT_TRANSITIVE)
        return self if kept == self.extended_communities else replace(self, extended_communities=kept)


NOTHING_CARRIED = Carried()


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAttributes:
    """What one UPDATE says of all its prefixes."""

    origin: Origin = Origin.IGP
    as_path: tuple[Segment, ...] = ()
    local_preference: int | None = None
    med: int = 0
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    originator: IPv4Address | None = None
    clusters: tuple[IPv4Address, ...] = ()
    carried: Carried = NOTHING_CARRIED

    @property
    def length(self) -> int:
        """Of the AS path; a set counts one."""
        return sum(1 if segment.is_set else len(segment.numbers) for segment in self.as_path)

    @property
    def first_as(self) -> int | None:
        """The neighbouring AS: who told it to whoever told us. None for an empty path or one that begins with a set."""
        if not self.as_path or self.as_path[0].is_set:
            return None
        return next(iter(self.as_path[0].numbers), None)

    def occurrences(self, number: int) -> int:
        return sum(segment.numbers.count(number) for segment in self.as_path)

    @property
    def priority(self) -> int:
        """What LOCAL_PREF says in Calico's terms: 2147483647 less the priority (reference bgp.md 1.2)."""
        stated = self.local_preference
        return NORMAL_PRIORITY if stated is None or stated < _PRIORITIES_FROM else _LOCAL_PREFERENCE_MAX - stated

    def with_priority(self, priority: int) -> "PathAttributes":
        return replace(self, local_preference=_LOCAL_PREFERENCE_MAX - priority)

    @property
    def preference(self) -> int:
        """What paths are compared by first, higher is better: LOCAL_PREF, where a normal priority is worth its default.

        So a path of a Calico that sends priorities and one of a speaker that does not are equals.
        """
        stated = self.local_preference
        if stated is None:
            return DEFAULT_LOCAL_PREFERENCE
        if stated < _PRIORITIES_FROM or self.priority < NORMAL_PRIORITY:
            return stated
        return DEFAULT_LOCAL_PREFERENCE - (self.priority - NORMAL_PRIORITY)

    def from_outside(self) -> "PathAttributes":
        """Return what of the attributes means anything if another AS says it (RFC 4271 5.1.5, RFC 7606 7.9, 7.10)."""
        if self.local_preference is None and self.originator is None and not self.clusters:
            return self
        return replace(self, local_preference=None, originator=None, clusters=())


NO_PATH_ATTRIBUTES = PathAttributes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to a prefix, as one peer offers it."""

    peer: IPAddress
    next_hop: IPAddress
    attributes: PathAttributes = NO_PATH_ATTRIBUTES
    is_external: bool = False
    identifier: IPv4Address = UNKNOWN_IDENTIFIER
    """The peer's router id."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`best` is what counts; `group` has it and its equals, to share the traffic: distinct next hops, sorted."""

    best: Path
    group: tuple[Path, ...]


Cost = Callable[[IPAddress], int | None]
"""IGP metric to a next hop: 0 on a network of ours, 1 behind a router, None out of reach."""


def best(paths: Iterable[Path], cost: Cost) -> Choice | None:
    """Return which of the accepted `paths` of one prefix to use, or None if no next hop can be reached.

    The answer depends on the set of paths only, not on their order.
    """
    costs = {path: known for path in paths if (known := cost(path.next_hop)) is not None}
    if not costs:
        return None
    equals = list(costs)
    if len(equals) == 1:
        return Choice(equals[0], (equals[0],))
    for _, keep in _steps(costs):
        equals = keep(equals)
    equals.sort(key=_tie_break)
    return Choice(equals[0], _group(equals))


def lost_by(path: Path, paths: Iterable[Path], cost: Cost) -> str | None:
    """Return by what `path` lost against the other accepted `paths`, for people; None if it is best or among equals."""
    costs = {one: known for one in paths if (known := cost(one.next_hop)) is not None}
    if path not in costs:
        return "next hop out of reach"
    equals = list(costs)
    for step, keep in _steps(costs):
        equals = keep(equals)
        if path not in equals:
            return step
    equals.sort(key=_tie_break)
    group = _group(equals)
    if path in group:
        return None
    twin = next((one for one in group if one.next_hop == path.next_hop), None)
    return f"more than {ECMP_MAX} equal next hops" if twin is None else f"same next hop from {twin.peer}"


_Step = Callable[[Sequence[Path]], list[Path]]


def _steps(costs: Mapping[Path, int]) -> tuple[tuple[str, _Step], ...]:
    """Return what is asked in order, by what a path then lost: each step keeps those that are equal and best in it."""
    return (
        ("lower local preference", lambda paths: _least(paths, lambda path: -path.attributes.preference)),
        ("longer AS path", lambda paths: _least(paths, lambda path: path.attributes.length)),
        ("worse origin", lambda paths: _least(paths, lambda path: path.attributes.origin)),
        ("higher MED", _without_worse_med),
        ("iBGP", lambda paths: _least(paths, lambda path: not path.is_external)),
        ("farther next hop", lambda paths: _least(paths, costs.__getitem__)),
    )


def _least(paths: Sequence[Path], measure: Callable[[Path], int]) -> list[Path]:
    if len(paths) == 1:
        return list(paths)
    least = min(map(measure, paths))
    return [path for path in paths if measure(path) == least]


def _without_worse_med(paths: Sequence[Path]) -> list[Path]:
    """MED compares within one neighbouring AS only, so it strikes out rather than orders."""
    least: dict[int | None, int] = {}
    for path in paths:
        neighbour = path.attributes.first_as
        least[neighbour] = min(path.attributes.med, least.get(neighbour, path.attributes.med))
    return [path for path in paths if path.attributes.med == least[path.attributes.first_as]]


def _tie_break(path: Path) -> tuple[int, int, int, int]:
    origin = path.attributes.originator or path.identifier
    return int(origin), len(path.attributes.clusters), int(path.peer), int(path.next_hop)


def _group(equals: Sequence[Path]) -> tuple[Path, ...]:
    by_next_hop: dict[IPAddress, Path] = {}
    for path in equals:
        by_next_hop.setdefault(path.next_hop, path)
    kept = list(by_next_hop.values())[:ECMP_MAX]
    return tuple(sorted(kept, key=lambda path: int(path.next_hop)))
