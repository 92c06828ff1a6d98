"""Members of the sets that rules refer to, kept up to date as endpoints and labels change.

Sets exist while somebody wants them. A member may come from several endpoints and goes with the last. Members are in
ipset's own text (reference felix.md 4.4), by address family.
"""

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from felix.calc.endpoints import Member
from felix.calc.labels import LabelIndex, Labels
from felix.calc.model import (
    EARLY,
    NO_GROWTH,
    NO_TURNOVER,
    Growth,
    MembersChange,
    Order,
    Rules,
    SetSpec,
    Turnover,
    members_order,
    unsafe_moves,
)
from resources.datastore.keys import ResourceKey
from resources.names import IPAddress, IPNetwork, ProfileName

VERSIONS = (4, 6)


def net_members(network: IPNetwork) -> tuple[str, ...]:
    """Return a network as members of a hash:net set, which takes no /0: that one is written as its halves."""
    halves = network.subnets() if network.prefixlen == 0 else (network,)
    return tuple(map(_net_text, halves))


def _net_text(network: IPNetwork) -> str:
    address = _address_text(network.network_address)
    return address if network.num_addresses == 1 else f"{address}/{network.prefixlen}"


def _address_text(address: IPAddress) -> str:
    """Return an address as the C library writes it, and ipset with it: ``::1.2.3.4``, not ``::102:304``."""
    if isinstance(address, ipaddress.IPv6Address):
        high, low = divmod(int(address), 1 << 32)
        if high == 0xFFFF or (high == 0 and low >> 16):
            return f"::{'ffff:' if high else ''}{ipaddress.IPv4Address(low)}"
    return str(address)


def nets_by_version(networks: Iterable[IPNetwork]) -> dict[int, frozenset[str]]:
    """Return the members of a hash:net set of each family."""
    members: dict[int, set[str]] = {version: set() for version in VERSIONS}
    for network in networks:
        members[network.version].update(net_members(network))
    return {version: frozenset(found) for version, found in members.items()}


@dataclass(slots=True)
class _Set:
    """`counts`: how many endpoints give each member. `touched`: whether a member was there at the last flush."""

    spec: SetSpec
    counts: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))
    touched: tuple[dict[str, bool], dict[str, bool]] = field(default_factory=lambda: ({}, {}))
    anew: bool = False
    """Dropped and wanted again since the last flush: must be announced whole."""
    doubts: int = 0
    """How many of what is in it have parts that cannot be read."""

    def contributes(self, member: Member, version: int) -> Iterable[str]:
        addresses = member.addresses(version)
        wanted = self.spec.port
        if wanted is None:
            return addresses
        return [
            f"{address},{port.protocol}:{port.number}"
            for address in addresses
            for port in dict.fromkeys(member.ports)
            if port.name == wanted.name and port.protocol == wanted.protocol
        ]

    def is_in_doubt_by(self, member: Member) -> bool:
        """Tell whether the member may lack something here."""
        wanted = self.spec.port
        if wanted is None:
            return member.doubtful
        return member.doubtful_ports or (
            member.doubtful
            and any((port.protocol, port.name) == (wanted.protocol, wanted.name) for port in member.ports)
        )

    def add(self, member: Member) -> None:
        for position, version in enumerate(VERSIONS):
            counts, touched = self.counts[position], self.touched[position]
            for text in self.contributes(member, version):
                count = counts.get(text, 0)
                if not count:
                    touched.setdefault(text, False)
                counts[text] = count + 1

    def discard(self, member: Member) -> None:
        for position, version in enumerate(VERSIONS):
            counts, touched = self.counts[position], self.touched[position]
            for text in self.contributes(member, version):
                counts[text] -= 1
                if not counts[text]:
                    del counts[text]
                    touched.setdefault(text, True)

    @property
    def size(self) -> int:
        """Members of the larger family."""
        return max(map(len, self.counts))

    def members(self) -> dict[int, frozenset[str]]:
        return {version: frozenset(self.counts[position]) for position, version in enumerate(VERSIONS)}

    def take_change(self) -> MembersChange | None:
        added: dict[int, frozenset[str]] = {}
        removed: dict[int, frozenset[str]] = {}
        for position, version in enumerate(VERSIONS):
            counts, touched = self.counts[position], self.touched[position]
            added[version] = frozenset(text for text, was in touched.items() if not was and text in counts)
            removed[version] = frozenset(text for text, was in touched.items() if was and text not in counts)
            touched.clear()
        if any(added.values()) or any(removed.values()):
            return MembersChange(added, removed)
        return None


class MemberSets:
    """Wanted sets, and the endpoints and network sets of the whole cluster."""

    def __init__(self) -> None:
        self._index: LabelIndex[ResourceKey, str] = LabelIndex(self._matched, self._unmatched)
        self._endpoints: dict[ResourceKey, Member] = {}
        self._sets: dict[str, _Set] = {}
        self._announced: set[str] = set()
        self._refused: set[str] = set()
        self._doubtful: set[str] = set()
        self._dirty: set[str] = set()
        self._size_max = 0

    @property
    def evaluations(self) -> int:
        return self._index.evaluations

    @property
    def refused(self) -> frozenset[str]:
        """Ids of wanted sets with more members than a set may have, as of the last flush."""
        return frozenset(self._refused)

    @property
    def doubtful(self) -> frozenset[str]:
        """Ids of wanted sets that may lack members, because a record could not be read in full."""
        return frozenset(self._doubtful)

    def __len__(self) -> int:
        return len(self._sets)

    def spec(self, set_id: str) -> SetSpec:
        return self._sets[set_id].spec

    def set_endpoint(self, key: ResourceKey, member: Member | None) -> None:
        """Add, change or (None) forget an endpoint or network set."""
        before = self._endpoints.get(key)
        if member is None:
            self._index.remove_item(key)
            self._endpoints.pop(key, None)
            return
        self._endpoints[key] = member
        if before is not None and before != member and (used := self._index.selectors_of(key)):
            come, gone = _difference(before, member)
            for set_id in used:
                self._sets[set_id].add(come)  # before the old goes, so that what stays is not touched
                self._sets[set_id].discard(gone)
                self._doubt(set_id, before, -1)
                self._doubt(set_id, member, 1)
                self._dirty.add(set_id)
        self._index.set_item(key, member.labels, member.profiles)

    def set_profile(self, profile: ProfileName, labels: Labels) -> None:
        """Set the labels that a profile hands to its endpoints; none if it is gone."""
        self._index.set_parent(profile, labels)

    def want(self, spec: SetSpec) -> None:
        """Keep the set up to date from now on."""
        if spec.id not in self._sets:
            self._sets[spec.id] = _Set(spec, anew=spec.id in self._announced)
            self._dirty.add(spec.id)
            self._index.set_selector(spec.id, spec.selector)

    def unwant(self, set_id: str) -> None:
        """Drop the set."""
        if set_id in self._sets:
            self._index.remove_selector(set_id)
            del self._sets[set_id]
            self._doubtful.discard(set_id)
            self._dirty.add(set_id)

    def members(self) -> dict[str, tuple[SetSpec, dict[int, frozenset[str]]]]:
        """Return all sets that are not refused, whole."""
        return {i: (s.spec, s.members()) for i, s in self._sets.items() if i not in self._refused}

    def flush(self, size_max: int) -> dict[str, MembersChange | None]:
        """Return what changed since the last flush, None for a set that is gone or refused for its size."""
        if size_max != self._size_max:
            self._size_max = size_max
            self._dirty.update(self._sets)
        changes: dict[str, MembersChange | None] = {}
        for set_id in self._dirty:
            known = self._sets.get(set_id)
            if known is None or known.size > size_max:
                if known is None:
                    self._refused.discard(set_id)
                else:
                    self._refused.add(set_id)
                if set_id in self._announced:
                    self._announced.discard(set_id)
                    changes[set_id] = None
                continue
            self._refused.discard(set_id)
            change = known.take_change()
            if known.anew or set_id not in self._announced:
                known.anew = False
                self._announced.add(set_id)
                changes[set_id] = MembersChange(known.members(), {}, whole=True)
            elif change is not None:
                changes[set_id] = change
        self._dirty.clear()
        return changes

    def _matched(self, set_id: str, key: ResourceKey) -> None:
        self._sets[set_id].add(self._endpoints[key])
        self._doubt(set_id, self._endpoints[key], 1)
        self._dirty.add(set_id)

    def _unmatched(self, set_id: str, key: ResourceKey) -> None:
        self._sets[set_id].discard(self._endpoints[key])
        self._doubt(set_id, self._endpoints[key], -1)
        self._dirty.add(set_id)

    def _doubt(self, set_id: str, member: Member, more: int) -> None:
        """Count what a set may lack because of a member."""
        found = self._sets[set_id]
        if found.is_in_doubt_by(member):
            found.doubts += more
            if found.doubts:
                self._doubtful.add(set_id)
            else:
                self._doubtful.discard(set_id)


def _difference(before: Member, now: Member) -> tuple[Member, Member]:
    """Return what came and what went, where that tells it all: a network set may be long and change by one entry."""
    if before.ports != now.ports:
        return now, before
    if (before.ipv4, before.ipv6) == (now.ipv4, now.ipv6):
        return _only(now, set()), _only(before, set())
    old, new = {*before.ipv4, *before.ipv6}, {*now.ipv4, *now.ipv6}
    return _only(now, new - old), _only(before, old - new)


def _only(member: Member, wanted: set[str]) -> Member:
    if not wanted:
        return dataclasses.replace(member, ipv4=(), ipv6=())
    return dataclasses.replace(
        member,
        ipv4=tuple(text for text in member.ipv4 if text in wanted),
        ipv6=tuple(text for text in member.ipv6 if text in wanted),
    )


class SetUse:
    """Which rules want which sets, so that a set exists while somebody wants it; and what its members do there."""

    def __init__(self) -> None:
        self._by_owner: dict[ResourceKey, tuple[Mapping[str, SetSpec], Mapping[str, Growth]]] = {}
        self._owners: dict[str, set[ResourceKey]] = {}
        self._touched: dict[str, SetSpec] = {}
        self._asking: dict[str, dict[Growth, int]] = {}  # how many owners open, and close, by members of a set
        self._growth_before: dict[str, Growth] = {}
        self._left: dict[str, set[ResourceKey]] = {}  # who has named a set until now

    def owners(self, set_id: str) -> Iterable[ResourceKey]:
        return self._owners.get(set_id, ())

    def replace(self, owner: ResourceKey, rules: Rules | None) -> None:
        """Note the rules that the owner has now."""
        specs, growth = (rules.all_sets, rules.set_growth) if rules else ({}, {})
        before, growth_before = self._by_owner.pop(owner, ({}, {}))
        for set_id in before.keys() - specs.keys():
            self._owners[set_id].discard(owner)
            if not self._owners[set_id]:
                del self._owners[set_id]
            self._touched[set_id] = before[set_id]
            self._left.setdefault(set_id, set()).add(owner)
        for set_id in specs.keys() - before.keys():
            self._owners.setdefault(set_id, set()).add(owner)
            self._touched[set_id] = specs[set_id]
        for set_id in before.keys() | specs.keys():
            old, new = growth_before.get(set_id, NO_GROWTH), growth.get(set_id, NO_GROWTH)
            if old != new:
                self._count(set_id, old, new)
        if specs:
            self._by_owner[owner] = specs, growth

    def _count(self, set_id: str, old: Growth, new: Growth) -> None:
        self._growth_before.setdefault(set_id, self._growth(set_id))
        counts = self._asking.setdefault(set_id, dict.fromkeys(Growth, 0))
        for way in Growth:
            counts[way] += (way in new) - (way in old)
        if not any(counts.values()):
            del self._asking[set_id]

    def _growth(self, set_id: str) -> Growth:
        growth = NO_GROWTH
        for way, count in self._asking.get(set_id, {}).items():
            growth |= way if count else NO_GROWTH
        return growth

    def settle(self, members: MemberSets) -> None:
        """Tell which sets are wanted."""
        for set_id, spec in self._touched.items():
            if set_id in self._owners:
                members.want(spec)
            else:
                members.unwant(set_id)
        self._touched.clear()

    def in_order(
        self, changes: Mapping[str, MembersChange | None], turnover: Turnover
    ) -> tuple[dict[str, MembersChange | None], dict[str, frozenset[ResourceKey]]]:
        """Say of the changes of a flush what is to be written before the rules, and what after them.

        Returns the changes and, for each set that has no safe order, whose rules are to let nothing pass meanwhile: of
        all that named it until now or do so from now on.

        Args:
            changes: of all sets.
            turnover: what becomes of the rules in the same flush.
        """
        growth = {set_id: self._growths(set_id) for set_id, change in changes.items() if change is not None}
        unsafe = {
            set_id: change
            for set_id, change in changes.items()
            if change is not None and _is_unsafe(change, *unsafe_moves(*growth[set_id]))
        }
        lone = bool(unsafe) and _is_lone(((each, unsafe_moves(*growth[i])) for i, each in unsafe.items()), turnover)
        ordered = dict(changes)
        closing: dict[str, frozenset[ResourceKey]] = {}
        for set_id, both in growth.items():
            order = EARLY
            if set_id in unsafe and not lone:
                closing[set_id] = frozenset(self._owners.get(set_id, set()) | self._left.get(set_id, set()))
            else:
                order = Order(*members_order(*both), alone=set_id in unsafe)
            change = changes[set_id]
            ordered[set_id] = change and dataclasses.replace(change, order=order)
        self._growth_before.clear()
        self._left.clear()
        return ordered, closing

    def _growths(self, set_id: str) -> tuple[Growth, Growth]:
        """Return what a new member does by the rules of the last flush, and by those of now."""
        now = self._growth(set_id)
        # rules of an earlier process may name a set that is new to this one: as these do, most likely
        return self._growth_before.get(set_id, now) or now, now


def _is_unsafe(change: MembersChange, adds: bool, removes: bool) -> bool:
    whole = change.whole and (adds or removes)  # what the kernel has of it is not known here
    return whole or (adds and any(change.added.values())) or (removes and any(change.removed.values()))


def _is_lone(unsafe: Iterable[tuple[MembersChange, tuple[bool, bool]]], turnover: Turnover) -> bool:
    """Tell whether no packet sees more than one of the unsafe moves, and no rule changes that it meets.

    Then the state with the move and the one without are the old state and the new one, but for what is safe. A member
    may come before the rules of a new workload and go after those of an old one, as nothing of it passes meanwhile.
    """
    moves: Counter[int] = Counter()
    against = Turnover.CHANGES
    for change, (adds, removes) in unsafe:
        if change.whole:
            return False
        for version in VERSIONS:
            came, went = len(change.added[version]) * adds, len(change.removed[version]) * removes
            moves[version] += came + went
            against |= (Turnover.GOES if came else NO_TURNOVER) | (Turnover.COMES if went else NO_TURNOVER)
    return max(moves.values()) == 1 and not turnover & against
