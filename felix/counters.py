"""What the kernel counted, by policy rule and by endpoint: its counters joined with what each rule stands for. Pure.

A rule of a policy counts the packets that it matched, of all endpoints together: its chain is shared. What an endpoint
allowed and dropped is counted in its own chains, and what a policy's rules denied there follows from what went into the
policy's chain and what came out. Endpoints with the same policies share a chain of jumps (felix.render.groups): of each
it is counted what the policies of the tier denied, all together, and of the group what each few of them denied. Which
of them it was that dropped an endpoint's packets is said where the numbers leave one answer. A rule that is not in the
kernel (yet) as it was rendered is not guessed: its chain is named in `missing`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from felix.calc.conclusions import Conclusions
from felix.calc.model import Action, Direction, PolicyId, PolicyRule
from felix.desired import ChainKey
from felix.render.chains import Jump, PacketLog, Part, Rule, Verdict
from felix.render.dispatch import FROM
from felix.render.explained import Explained, grouped
from felix.render.flowlog import Owner, chain_owners
from felix.render.names import (
    FORWARD_FROM_HOST,
    FORWARD_TO_HOST,
    FROM_HOST,
    FROM_WORKLOAD,
    TO_HOST,
    TO_WORKLOAD,
    endpoint_chain,
)
from kernel.xtables_counters import Counted, RuleCount
from resources.names import ProfileName


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes. A difference is never below nothing: the counters are not read at one instant."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: "Count") -> "Count":
        return Count(max(0, self.packets - other.packets), max(0, self.bytes - other.bytes))


NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Where:
    """Where a packet was dropped.

    `reason`: a `Part` by name, "rule", or REFUSED. `rules`: numbers of rules, one of which it was; 0 stands for the
    whole policy. `owners`: policies or profiles, in one of which it was.
    """

    reason: str
    tier: str = ""
    owners: tuple[PolicyId | ProfileName, ...] = ()
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Whose chain: of an interface in one direction; the host itself has no interface.

    `kind`: WORKLOAD, HOST_ENDPOINT or HOST. `note`: which traffic of a host endpoint.
    """

    kind: str
    direction: Direction | None
    interface: str = ""
    note: str = ""


WORKLOAD, HOST_ENDPOINT, HOST = "workload", "host endpoint", "host"
NORMAL, FORWARDED, BEFORE_DNAT, AFTER_NAT, UNTRACKED = "", "forwarded", "before DNAT", "after NAT", "untracked"
"""Notes of host endpoints: whose policies a chain asks (felix.render.hosts)."""
REFUSED = "refused"
"""Reason: the kernel refused the chain, and a DROP stands in its place."""


@dataclass(slots=True)
class Passage:
    """What went through the chains of one place."""

    established: Count = NOTHING
    allowed: Count = NOTHING
    drops: dict[Where, Count] = field(default_factory=dict)

    def drop(self, where: Where, count: Count) -> None:
        self.drops[where] = self.drops.get(where, NOTHING) + count

    @property
    def dropped(self) -> Count:
        return sum(self.drops.values(), NOTHING)


RuleKey = tuple[PolicyId | ProfileName, Direction, int]


@dataclass(slots=True)
class Tally:
    """All counters of a host."""

    rules: dict[RuleKey, Count] = field(default_factory=dict)
    """By policy or profile, direction and number of the rule; a rule that is in no chain is not here."""
    places: dict[Place, Passage] = field(default_factory=dict)
    missing: list[ChainKey] = field(default_factory=list)
    """Chains that are not in the kernel as they were rendered."""


def tally(
    conclusions: Conclusions, chains: Mapping[ChainKey, Explained], counted: Mapping[int, Counted], condemned: str
) -> Tally:
    """Join the counters (by address family) with the chains that whole conclusions make.

    `condemned`: the tag of the rule that stands in for a refused chain.
    """
    return _Tallying(conclusions, chains, counted, condemned).result


@dataclass(slots=True)
class _Asked:
    """A policy, group or profile that an endpoint's chain asks: how many came, and how many it allowed."""

    chain: str
    came: Count
    allowed: Count = NOTHING
    went_on: Count | None = None
    """Undecided, where that is counted."""


@dataclass(slots=True)
class _Section:
    """A tier, or one profile, as part of an endpoint's chain."""

    came: Count
    asked: list[_Asked] = field(default_factory=list)
    ended: Count | None = None
    """Dropped because nobody decided, where that is counted."""
    is_profile: bool = False


@dataclass(slots=True)
class _Lost:
    """What came from one place to the policies of a group, and what they denied."""

    passage: Passage
    came: Count
    denied: Count
    went_on: Count | None
    """Undecided, where that is counted."""


_Shares = list[tuple[tuple[str, ...], Count]]
"""What policies, by their chains, denied; several: one or more of them."""


class _Tallying:
    def __init__(
        self,
        conclusions: Conclusions,
        chains: Mapping[ChainKey, Explained],
        counted: Mapping[int, Counted],
        condemned: str,
    ) -> None:
        self.result = Tally()
        self._chains = chains
        self._counted = counted
        self._condemned = condemned
        self._owners = chain_owners(conclusions.policies, conclusions.profiles)
        self._endpoints = {
            ("filter", endpoint_chain(prefix, name)): Place(WORKLOAD, direction, name)
            for name in conclusions.endpoints
            for prefix, direction in ((TO_WORKLOAD, Direction.INGRESS), (FROM_WORKLOAD, Direction.EGRESS))
        }
        self._hosts = {
            (table, endpoint_chain(prefix, name)): Place(HOST_ENDPOINT, direction, name, note)
            for name in conclusions.host_endpoints
            for table, prefix, direction, note in _HOST_ENDPOINT_CHAINS
        }
        self._groups = grouped(chains)
        self._lost: dict[ChainKey, list[_Lost]] = {}
        self._users: dict[ChainKey, int] = {}
        for key, explained in chains.items():
            for rule in explained.rules:
                if rule.stands_for in (Part.POLICY, Part.GROUP, Part.PROFILE) and isinstance(rule.target, Jump):
                    asked = ChainKey(key.version, key.table, rule.target.chain)
                    self._users[asked] = self._users.get(asked, 0) + 1
        for place in self._endpoints.values():
            self.result.places[place] = Passage()
        for key, explained in chains.items():
            self._take(key, explained)
        for group, lost in self._lost.items():
            self._share_out(group, lost)

    def _take(self, key: ChainKey, explained: Explained) -> None:
        parts = [rule.stands_for for rule in explained.rules]
        owner = self._owners.get(key.chain)
        if owner is None and not any(parts):
            return
        passage, counts = None, self._counts(key, explained)
        if owner is None and key not in self._groups:
            passage = self.result.places.setdefault(self._place(key), Passage())
        if counts is None:
            self.result.missing.append(key)
            if passage is not None and self._is_refused(key):
                (stand_in,) = self._seen(key)
                passage.drop(Where(REFUSED), Count(stand_in.packets, stand_in.bytes))
        elif passage is not None:
            self._take_passage(key, explained.rules, counts, passage)
        elif owner is not None:
            self._take_rules(owner, explained.rules, counts)

    def _is_refused(self, key: ChainKey) -> bool:
        return [one.tag for one in self._seen(key)] == [self._condemned]

    def _seen(self, key: ChainKey) -> Sequence[RuleCount]:
        return self._counted.get(key.version, {}).get(key.table, {}).get(key.chain, ())

    def _counts(self, key: ChainKey, explained: Explained) -> list[Count] | None:
        """Return the counts of a chain's rules, None if the chain is not in the kernel as it was rendered."""
        seen = self._seen(key)
        if tuple(one.tag for one in seen) != explained.tags:
            return None
        return [Count(one.packets, one.bytes) for one in seen]

    def _place(self, key: ChainKey) -> Place:
        chain = key.table, key.chain
        known = self._endpoints.get(chain) or self._hosts.get(chain)
        if known is not None:
            return known
        if "-wl-dispatch" in key.chain or key.chain.startswith((FROM_WORKLOAD, TO_WORKLOAD)):
            outward = key.chain.startswith((FROM.root, FROM_WORKLOAD))
            return Place(HOST, Direction.EGRESS if outward else Direction.INGRESS)
        return Place(HOST, None)

    def _take_rules(self, owner: Owner, rules: Sequence[Rule], counts: Sequence[Count]) -> None:
        for rule, count in zip(rules, counts, strict=True):
            if isinstance(rule.stands_for, PolicyRule) and not isinstance(rule.target, PacketLog):
                key = owner.who, owner.direction, rule.stands_for.number
                self.result.rules[key] = self.result.rules.get(key, NOTHING) + count

    def _take_passage(self, key: ChainKey, rules: Sequence[Rule], counts: Sequence[Count], passage: Passage) -> None:
        section: _Section | None = None
        for rule, count in zip(rules, counts, strict=True):
            if isinstance(rule.target, PacketLog):
                continue
            match rule.stands_for:
                case Part.ESTABLISHED:
                    passage.established += count
                case Part.TIER | Part.PROFILE | Part.NO_PROFILE as part:
                    self._close(key, section, count, passage)
                    section = _Section(count, is_profile=part is Part.PROFILE)
                    if part is Part.NO_PROFILE:
                        passage.drop(Where(part.name), count)
                        section = None
                    elif part is Part.PROFILE and isinstance(rule.target, Jump):
                        section.asked.append(_Asked(rule.target.chain, count))
                case Part.POLICY | Part.GROUP if section is not None and isinstance(rule.target, Jump):
                    section.asked.append(_Asked(rule.target.chain, count))
                case Part.ALLOWED:
                    passage.allowed += count
                    if section is not None and section.asked:
                        section.asked[-1].allowed = count
                case Part.END_OF_TIER if section is not None:
                    section.ended = count
                    passage.drop(Where(Part.END_OF_TIER.name, self._tier(key, section)), count)
                case Part.TO_HOST if rule.target not in (Verdict.DROP, Verdict.REJECT):
                    pass
                case Part() as part:
                    passage.drop(Where(part.name), count)
                case _:
                    pass
        self._close(key, section, None, passage)

    def _tier(self, key: ChainKey, section: _Section) -> str:
        for asked in section.asked:
            for chain in self._groups.get(ChainKey(key.version, key.table, asked.chain), (asked.chain,)):
                if (owner := self._owners.get(chain)) is not None:
                    return owner.tier
        return ""

    def _close(self, key: ChainKey, section: _Section | None, went_on: Count | None, passage: Passage) -> None:
        """Find out what the rules of a section denied; `went_on`: what came to the next one, if that is counted.

        Where it is not (a tier of a host endpoint that is the last), and a policy both denies and passes, only its own
        counters tell, and only if nobody else asks it.
        """
        if section is None:
            return
        denied: list[tuple[_Asked, Count]] = []
        by_its_rules: set[str] = set()
        unclear: list[_Asked] = []
        for asked, behind in zip(section.asked, [*section.asked[1:], None], strict=True):
            actions = self._actions(key, asked.chain)
            asked.went_on = unmatched = behind.came if behind is not None else section.ended
            if Action.DENY not in actions:
                continue
            if Action.PASS not in actions and unmatched is not None:
                denied.append((asked, asked.came - asked.allowed - unmatched))
            else:
                unclear.append(asked)
        if unclear and went_on is not None:
            kept = sum((asked.allowed for asked in section.asked), (section.ended or NOTHING) + went_on)
            left = section.came - kept - sum((count for _, count in denied), NOTHING)
            if section.is_profile:
                unclear[0].went_on = went_on
            if len(unclear) == 1:
                denied.append((unclear[0], left))
            elif left.packets:
                owners = [self._owners[asked.chain] for asked in unclear]
                passage.drop(Where("rule", owners[0].tier, tuple(owner.who for owner in owners)), left)
        elif unclear:
            own = [asked for asked in unclear if self._is_own(key, asked.chain)]
            denied += ((asked, self._denied_by(key, asked.chain)) for asked in own)
            by_its_rules |= {asked.chain for asked in own}
        for asked, count in denied:
            group = ChainKey(key.version, key.table, asked.chain)
            if group in self._groups:
                self._lost.setdefault(group, []).append(_Lost(passage, asked.came, count, asked.went_on))
            else:
                is_own = asked.chain in by_its_rules or self._is_told_by(key, asked)
                self._blame(key, asked.chain, count, passage, is_own=is_own)

    def _blame(self, key: ChainKey, chain: str, count: Count, passage: Passage, *, is_own: bool) -> None:
        """Name the rules of a policy or profile that denied; the one rule, if that can be told.

        `is_own`: what its own rules counted are the packets in question, and no others.
        """
        owner = self._owners[chain]
        if self._is_refused(ChainKey(key.version, key.table, chain)):
            passage.drop(Where(REFUSED, owner.tier, (owner.who,)), count)
            return
        of_rule = self._denies(key, chain)
        if len(of_rule) > 1 and is_own and sum(of_rule.values(), NOTHING) == count:
            for number, one in of_rule.items():
                passage.drop(Where("rule", owner.tier, (owner.who,), (number,)), one)
        else:
            passage.drop(Where("rule", owner.tier, (owner.who,), tuple(of_rule)), count)

    def _share_out(self, group: ChainKey, lost: Sequence[_Lost]) -> None:
        """Find out which policies of a group denied what its users lost, as far as that can be told."""
        deniers = tuple(chain for chain in self._groups[group] if Action.DENY in self._actions(group, chain))
        shares, clear = self._shares(group, lost)
        total = sum((count for _, count in shares), NOTHING)
        for one in lost:
            if not one.denied.packets:
                continue
            if self._is_refused(group):
                self._blame_some(REFUSED, self._groups[group], one.denied, one.passage)
                continue
            if total == one.denied:  # nobody else lost anything
                found = shares
            elif not shares or total.packets < one.denied.packets:
                found = [(deniers, one.denied)]
            else:
                found = [(tuple(chain for chains, _ in shares for chain in chains), one.denied)]
            for chains, count in found:
                if len(chains) > 1:
                    self._blame_some("rule", chains, count, one.passage)
                else:
                    is_own = total == one.denied and chains[0] in clear
                    self._blame(group, chains[0], count, one.passage, is_own=is_own)

    def _blame_some(self, reason: str, chains: Sequence[str], count: Count, passage: Passage) -> None:
        owners = [self._owners[chain] for chain in chains if chain in self._owners]
        tier = owners[0].tier if owners else ""
        passage.drop(Where(reason, tier, tuple(owner.who for owner in owners)), count)

    def _shares(self, group: ChainKey, lost: Sequence[_Lost]) -> tuple[_Shares, set[str]]:
        """Return what the policies of a group denied to all who ever used it, and of which their own rules tell.

        What went in and what came back is counted of each few policies; of the last ones only if all that came to the
        group is of those who use it now. Sums are never below what was denied. Nothing, if the chain is not in the
        kernel as it was rendered.
        """
        explained = self._chains[group]
        counts = self._counts(group, explained)
        if counts is None:
            return [], set()
        blocks: list[list[_Asked]] = [[]]
        back: list[Count] = []
        for rule, count in zip(explained.rules, counts, strict=True):
            if rule.stands_for is Part.DECIDED:
                back.append(count)
                blocks.append([])
            elif isinstance(rule.target, Jump):
                blocks[-1].append(_Asked(rule.target.chain, count))
        for asked, behind in itertools.pairwise(asked for block in blocks for asked in block):
            asked.went_on = behind.came
        whole = sum((one.came for one in lost), NOTHING) == blocks[0][0].came
        undecided = [one.went_on for one in lost if one.went_on is not None]
        if whole and len(undecided) == len(lost):
            blocks[-1][-1].went_on = sum(undecided, NOTHING)
        shares: _Shares = []
        clear: set[str] = set()
        known = NOTHING
        for block, following, returned in zip(blocks, blocks[1:], back, strict=False):
            denied = block[0].came - returned - following[0].came
            known += denied
            shares += self._shares_of(group, block, denied, clear)
        left = sum((one.denied for one in lost), NOTHING) - known if whole else blocks[-1][0].came
        return shares + self._shares_of(group, blocks[-1], left, clear), clear

    def _shares_of(self, group: ChainKey, block: Sequence[_Asked], denied: Count, clear: set[str]) -> _Shares:
        """Divide what some policies denied among them; `clear` gets those whose own rules tell."""
        found: _Shares = []
        others: list[str] = []
        for asked in block:
            if Action.DENY not in self._actions(group, asked.chain) or asked.went_on == asked.came:
                continue
            if self._is_told_by(group, asked):
                clear.add(asked.chain)
                found.append(((asked.chain,), self._denied_by(group, asked.chain)))
                denied -= found[-1][1]
            else:
                others.append(asked.chain)
        if others:
            found.append((tuple(others), denied))
        return [(chains, count) for chains, count in found if count.packets]

    def _denies(self, key: ChainKey, chain: str) -> dict[int, Count]:
        """Return what each Deny of a policy or profile counted, by its number."""
        asked = ChainKey(key.version, key.table, chain)
        explained = self._chains[asked]
        counts = self._counts(asked, explained) or [NOTHING] * len(explained.rules)
        return {
            rule.stands_for.number: count
            for rule, count in zip(explained.rules, counts, strict=True)
            if isinstance(rule.stands_for, PolicyRule)
            and rule.stands_for.action is Action.DENY
            and not isinstance(rule.target, PacketLog)
        }

    def _denied_by(self, key: ChainKey, chain: str) -> Count:
        return sum(self._denies(key, chain).values(), NOTHING)

    def _is_told_by(self, key: ChainKey, asked: _Asked) -> bool:
        """Whether a policy's own rules have counted exactly the packets that it decided about for this chain.

        Its chain may be older than the one that asks it, or have been written anew since.
        """
        if asked.went_on is None or not self._is_own(key, asked.chain):
            return False
        there = ChainKey(key.version, key.table, asked.chain)
        explained = self._chains[there]
        counts = self._counts(there, explained) or [NOTHING] * len(explained.rules)
        decided = sum(
            (
                count
                for rule, count in zip(explained.rules, counts, strict=True)
                if isinstance(rule.stands_for, PolicyRule)
                and rule.stands_for.action is not Action.LOG
                and not isinstance(rule.target, PacketLog)
            ),
            NOTHING,
        )
        return decided == asked.came - asked.went_on

    def _is_own(self, key: ChainKey, chain: str) -> bool:
        """Whether no other chain asks this policy or profile."""
        return self._users.get(ChainKey(key.version, key.table, chain)) == 1

    def _actions(self, key: ChainKey, chain: str) -> set[Action]:
        asked = ChainKey(key.version, key.table, chain)
        explained = self._chains.get(asked)
        if asked in self._groups and not self._is_refused(asked):
            return set().union(*(self._actions(key, policy) for policy in self._groups[asked]))
        if explained is None or (chain not in self._owners and asked not in self._groups):
            return set()
        if self._is_refused(asked):
            return {Action.DENY}
        return {rule.stands_for.action for rule in explained.rules if isinstance(rule.stands_for, PolicyRule)}


_HOST_ENDPOINT_CHAINS = (
    ("filter", FROM_HOST, Direction.INGRESS, NORMAL),
    ("filter", TO_HOST, Direction.EGRESS, NORMAL),
    ("filter", FORWARD_FROM_HOST, Direction.INGRESS, FORWARDED),
    ("filter", FORWARD_TO_HOST, Direction.EGRESS, FORWARDED),
    ("mangle", FROM_HOST, Direction.INGRESS, BEFORE_DNAT),
    ("mangle", TO_HOST, Direction.EGRESS, AFTER_NAT),
    ("raw", FROM_HOST, Direction.INGRESS, UNTRACKED),
    ("raw", TO_HOST, Direction.EGRESS, UNTRACKED),
)
