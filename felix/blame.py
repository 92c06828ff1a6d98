"""Which policies denied what an endpoint lost. Pure.

What went into a policy's chain and what came out says what was denied there. Endpoints with the same policies share a
chain of jumps (felix.render.groups): of each endpoint it is counted what the policies of the tier denied, all together,
and of the group what each few of them denied. Which of them it was is said where the numbers leave one answer.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from felix.calc.model import Action
from felix.counted import Asked, Chains
from felix.desired import ChainKey
from felix.render.chains import Jump, Part
from felix.tally import NOTHING, REFUSED, Count, Passage, Where


@dataclass(slots=True)
class Section:
    """A tier, or one profile, as part of an endpoint's chain."""

    came: Count
    asked: list[Asked] = field(default_factory=list)
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


class Blame:
    """Takes the sections of all endpoints' chains, and then divides what the users of each group lost."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._lost: dict[ChainKey, list[_Lost]] = {}

    def close(self, key: ChainKey, section: Section | None, went_on: Count | None, passage: Passage) -> None:
        """Find out what the rules of a section denied; `went_on`: what came to the next one, if that is counted.

        Where it is not (a tier of a host endpoint that is the last), and a policy both denies and passes, only its own
        counters tell, and only if nobody else asks it.
        """
        if section is None:
            return
        denied: list[tuple[Asked, Count]] = []
        by_its_rules: set[str] = set()
        unclear: list[Asked] = []
        for asked, behind in zip(section.asked, [*section.asked[1:], None], strict=True):
            actions = self._chains.actions(key, asked.chain)
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
                owners = [self._chains.owners[asked.chain] for asked in unclear]
                passage.drop(Where("rule", owners[0].tier, tuple(owner.who for owner in owners)), left)
        elif unclear:
            own = [asked for asked in unclear if self._chains.is_own(key, asked.chain)]
            denied += ((asked, self._chains.denied_by(key, asked.chain)) for asked in own)
            by_its_rules |= {asked.chain for asked in own}
        for asked, count in denied:
            group = ChainKey(key.version, key.table, asked.chain)
            if group in self._chains.groups:
                self._lost.setdefault(group, []).append(_Lost(passage, asked.came, count, asked.went_on))
            else:
                is_own = asked.chain in by_its_rules or self._chains.is_told_by(key, asked)
                self._blame(key, asked.chain, count, passage, is_own=is_own)

    def share_out(self) -> None:
        """Find out which policies of the groups denied what their users lost."""
        for group, lost in self._lost.items():
            self._share_out(group, lost)

    def _blame(self, key: ChainKey, chain: str, count: Count, passage: Passage, *, is_own: bool) -> None:
        """Name the rules of a policy or profile that denied; the one rule, if that can be told.

        `is_own`: what its own rules counted are the packets in question, and no others.
        """
        owner = self._chains.owners[chain]
        if self._chains.is_refused(ChainKey(key.version, key.table, chain)):
            passage.drop(Where(REFUSED, owner.tier, (owner.who,)), count)
            return
        of_rule = self._chains.denies(key, chain)
        if len(of_rule) > 1 and is_own and sum(of_rule.values(), NOTHING) == count:
            for number, one in of_rule.items():
                passage.drop(Where("rule", owner.tier, (owner.who,), (number,)), one)
        else:
            passage.drop(Where("rule", owner.tier, (owner.who,), tuple(of_rule)), count)

    def _share_out(self, group: ChainKey, lost: Sequence[_Lost]) -> None:
        """Find out which policies of a group denied what its users lost, as far as that can be told."""
        policies = self._chains.groups[group]
        deniers = tuple(chain for chain in policies if Action.DENY in self._chains.actions(group, chain))
        shares, clear = self._shares(group, lost)
        total = sum((count for _, count in shares), NOTHING)
        for one in lost:
            if not one.denied.packets:
                continue
            if self._chains.is_refused(group):
                self._blame_some(REFUSED, self._chains.groups[group], one.denied, one.passage)
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
        owners = [self._chains.owners[chain] for chain in chains if chain in self._chains.owners]
        tier = owners[0].tier if owners else ""
        passage.drop(Where(reason, tier, tuple(owner.who for owner in owners)), count)

    def _shares(self, group: ChainKey, lost: Sequence[_Lost]) -> tuple[_Shares, set[str]]:
        """Return what the policies of a group denied to all who ever used it, and of which their own rules tell.

        What went in and what came back is counted of each few policies; of the last ones only if all that came to the
        group is of those who use it now. Sums are never below what was denied. Nothing, if the chain is not in the
        kernel as it was rendered.
        """
        explained = self._chains.rendered[group]
        counts = self._chains.counts(group, explained)
        if counts is None:
            return [], set()
        blocks: list[list[Asked]] = [[]]
        back: list[Count] = []
        for rule, count in zip(explained.rules, counts, strict=True):
            if rule.stands_for is Part.DECIDED:
                back.append(count)
                blocks.append([])
            elif isinstance(rule.target, Jump):
                blocks[-1].append(Asked(rule.target.chain, count))
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

    def _shares_of(self, group: ChainKey, block: Sequence[Asked], denied: Count, clear: set[str]) -> _Shares:
        """Divide what some policies denied among them; `clear` gets those whose own rules tell."""
        found: _Shares = []
        others: list[str] = []
        for asked in block:
            if Action.DENY not in self._chains.actions(group, asked.chain) or asked.went_on == asked.came:
                continue
            if self._chains.is_told_by(group, asked):
                clear.add(asked.chain)
                found.append(((asked.chain,), self._chains.denied_by(group, asked.chain)))
                denied -= found[-1][1]
            else:
                others.append(asked.chain)
        if others:
            found.append((tuple(others), denied))
        return [(chains, count) for chains, count in found if count.packets]
