"""What the kernel counted, by policy rule and by endpoint: its counters joined with what each rule stands for. Pure.

A rule of a policy counts the packets that it matched, of all endpoints together: its chain is shared. What an endpoint
allowed and dropped is counted in its own chains; which policy's rules denied it is felix.blame's question. A rule that
is not in the kernel (yet) as it was rendered is not guessed: its chain is named in `missing`.
"""

from collections.abc import Mapping, Sequence

from felix.blame import Blame, Section
from felix.calc.conclusions import Conclusions
from felix.calc.model import Direction, PolicyRule
from felix.counted import Asked, Chains
from felix.desired import ChainKey
from felix.render.chains import Jump, PacketLog, Part, Rule, Verdict
from felix.render.dispatch import FROM
from felix.render.explained import Explained
from felix.render.flowlog import Owner
from felix.render.names import (
    FORWARD_FROM_HOST,
    FORWARD_TO_HOST,
    FROM_HOST,
    FROM_WORKLOAD,
    TO_HOST,
    TO_WORKLOAD,
    endpoint_chain,
)
from felix.tally import (
    AFTER_NAT,
    BEFORE_DNAT,
    FORWARDED,
    HOST,
    HOST_ENDPOINT,
    NORMAL,
    NOTHING,
    REFUSED,
    UNTRACKED,
    WORKLOAD,
    Count,
    Passage,
    Place,
    Tally,
    Where,
)
from kernel.xtables_counters import Counted


def tally(
    conclusions: Conclusions, chains: Mapping[ChainKey, Explained], counted: Mapping[int, Counted], condemned: str
) -> Tally:
    """Join the counters (by address family) with the chains that whole conclusions make.

    `condemned`: the tag of the rule that stands in for a refused chain.
    """
    return _Tallying(conclusions, Chains(conclusions, chains, counted, condemned)).result


class _Tallying:
    def __init__(self, conclusions: Conclusions, chains: Chains) -> None:
        self.result = Tally()
        self._chains = chains
        self._blame = Blame(chains)
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
        for place in self._endpoints.values():
            self.result.places[place] = Passage()
        for key, explained in chains.rendered.items():
            self._take(key, explained)
        self._blame.share_out()

    def _take(self, key: ChainKey, explained: Explained) -> None:
        parts = [rule.stands_for for rule in explained.rules]
        owner = self._chains.owners.get(key.chain)
        if owner is None and not any(parts):
            return
        passage, counts = None, self._chains.counts(key, explained)
        if owner is None and key not in self._chains.groups:
            passage = self.result.places.setdefault(self._place(key), Passage())
        if counts is None:
            self.result.missing.append(key)
            if passage is not None and self._chains.is_refused(key):
                (stand_in,) = self._chains.seen(key)
                passage.drop(Where(REFUSED), Count(stand_in.packets, stand_in.bytes))
        elif passage is not None:
            self._take_passage(key, explained.rules, counts, passage)
        elif owner is not None:
            self._take_rules(owner, explained.rules, counts)

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
        section: Section | None = None
        for rule, count in zip(rules, counts, strict=True):
            if isinstance(rule.target, PacketLog):
                continue
            match rule.stands_for:
                case Part.ESTABLISHED:
                    passage.established += count
                case Part.TIER | Part.PROFILE | Part.NO_PROFILE as part:
                    self._blame.close(key, section, count, passage)
                    section = Section(count, is_profile=part is Part.PROFILE)
                    if part is Part.NO_PROFILE:
                        passage.drop(Where(part.name), count)
                        section = None
                    elif part is Part.PROFILE and isinstance(rule.target, Jump):
                        section.asked.append(Asked(rule.target.chain, count))
                case Part.POLICY | Part.GROUP if section is not None and isinstance(rule.target, Jump):
                    section.asked.append(Asked(rule.target.chain, count))
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
        self._blame.close(key, section, None, passage)

    def _tier(self, key: ChainKey, section: Section) -> str:
        for asked in section.asked:
            for chain in self._chains.groups.get(ChainKey(key.version, key.table, asked.chain), (asked.chain,)):
                if (owner := self._chains.owners.get(chain)) is not None:
                    return owner.tier
        return ""


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
