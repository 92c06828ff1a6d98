"""What felix tells of its counters and of the prefixes of its flow log, as data for its socket.

All of it is made when somebody asks, on the thread that asks: a copy of what the rules were rendered from, the rules
rendered once more, and one read of the kernel's counters for each address family.
"""

import datetime
import graphlib
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from felix.calc.conclusions import Conclusions
from felix.calc.model import ANY_INTERFACE, Direction, PolicyId, PolicyRule, Rules, TierPolicies
from felix.calc.words import matches
from felix.counters import tally
from felix.dataplane.tables import CONDEMNED
from felix.desired import ChainKey
from felix.render.chains import PacketLog, Part
from felix.render.explained import Explained, explain, grouped
from felix.render.flowlog import Owner, chain_owners
from felix.tally import (
    BEFORE_DNAT,
    FORWARDED,
    HOST,
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
from resources.errors import Transient
from resources.names import IfName, NodeName, ProfileName

T = TypeVar("T", bound=Hashable)
Data = dict[str, object]

NAMES_MAX = 6
"""So many policies are named where it was one of them; the data names all."""

_REASONS = {
    REFUSED: "the kernel refused its chain: all is closed",
    Part.INVALID.name: "invalid: of no connection that is known",
    Part.TUNNEL.name: "a tunnel (VXLAN or IPIP) from within",
    Part.NO_PROFILE.name: "no profile matched",
    Part.UNKNOWN_INTERFACE.name: "unknown interface: no endpoint of the store has it",
    Part.SPOOFED.name: "spoofed source: no address of the interface that it came from",
    Part.TO_HOST.name: "to this host: DefaultEndpointToHostAction",
    Part.NOT_ASKED.name: "another program's rules stood before ours and accepted it: policy was not asked",
    Part.TUNNEL_IN.name: "IPIP from who is no host of the cluster",
    Part.VXLAN_IN.name: "VXLAN from who is no host of the cluster with a tunnel address",
}
_REFUSED_GROUP = "the kernel refused the chain that asks them: all is closed"


class NoRulesYet(Transient):
    """Felix has not read the store yet, so it does not know what the rules in the kernel stand for."""

    reference = "no-rules-yet"


class Accounts:
    """Answers for ``/counters`` and ``/flowlog-prefixes``. Thread-safe; one question at a time."""

    def __init__(
        self,
        node: NodeName,
        conclusions: Callable[[], Conclusions | None],
        read: Callable[[int], Counted],
        now: Callable[[], datetime.datetime],
    ) -> None:
        """Take the parts.

        Args:
            conclusions: returns a whole copy of what the rules are rendered from; None before there are any.
            read: reads the counters of the kernel for one address family.
            now: the time, with its zone.
        """
        self._node = node
        self._conclusions = conclusions
        self._read = read
        self._now = now
        self._lock = threading.Lock()

    def counters(self) -> Data:
        """Return all counters.

        Raises:
            NoRulesYet: felix knows of no rules yet.
            DataplaneError: the kernel's counters cannot be read.
        """
        with self._lock:
            conclusions, chains = self._explained()
            counted = {version: self._read(version) for version in sorted({key.version for key in chains})}
            found = tally(conclusions, chains, counted, CONDEMNED.tags[0])
            return {
                "node": self._node,
                "read_at": self._now().isoformat(timespec="seconds"),
                "policies": _policies(conclusions, found),
                "profiles": _profiles(conclusions, found),
                "endpoints": _endpoints(conclusions, found),
                "drops": _drops(conclusions, found),
                "missing": sorted({f"{key.table} {key.chain} (IPv{key.version})" for key in found.missing}),
            }

    def prefixes(self) -> Data:
        """Return what each prefix of the flow log stands for; none, if it is off.

        Raises:
            NoRulesYet: felix knows of no rules yet.
        """
        with self._lock:
            conclusions, chains = self._explained()
            owners = chain_owners(conclusions.policies, conclusions.profiles)
            tiers = {chain: owner.tier for chain, owner in owners.items()}
            tiers |= {key.chain: tiers[policies[0]] for key, policies in grouped(chains).items()}
            found: dict[str, Data] = {}
            for key, explained in chains.items():
                found |= _prefixes_of(key, explained, owners, tiers)
            return {"node": self._node, "prefixes": dict(sorted(found.items()))}

    def _explained(self) -> tuple[Conclusions, dict[ChainKey, Explained]]:
        conclusions = self._conclusions()
        if conclusions is None:
            raise NoRulesYet("felix has not read the datastore yet, so it does not know what the rules stand for")
        return conclusions, explain(conclusions)


def _count(count: Count) -> Data:
    return {"packets": count.packets, "bytes": count.bytes}


def _who(who: PolicyId | ProfileName) -> Data:
    if isinstance(who, PolicyId):
        return {"kind": who.kind, "namespace": who.namespace, "name": who.name}
    return {"kind": "Profile", "namespace": "", "name": who}


def _rule_lines(rules: Rules, counts: Mapping[tuple[Direction, int], Count]) -> list[Data]:
    return [
        {
            "direction": direction.value,
            "rule": rule.number,
            "action": rule.action.value,
            "matches": matches(rule),
            **_count(counts.get((direction, rule.number), NOTHING)),
        }
        for direction in Direction
        for rule in rules.of(direction) or ()
    ]


def _by_owner(found: Tally) -> dict[PolicyId | ProfileName, dict[tuple[Direction, int], Count]]:
    by_owner: dict[PolicyId | ProfileName, dict[tuple[Direction, int], Count]] = {}
    for (who, direction, number), count in found.rules.items():
        by_owner.setdefault(who, {})[direction, number] = count
    return by_owner


def _policies(conclusions: Conclusions, found: Tally) -> list[Data]:
    """Policies in the order in which packets meet them."""
    counts = _by_owner(found)
    return [
        {"tier": rules.tier, **_who(policy), "rules": _rule_lines(rules, counts.get(policy, {}))}
        for policy, rules in in_order(conclusions)
    ]


def _profiles(conclusions: Conclusions, found: Tally) -> list[Data]:
    counts = _by_owner(found)
    return [
        {**_who(profile), "rules": _rule_lines(rules, counts.get(profile, {}))}
        for profile, rules in sorted(conclusions.profiles.items())
        if rules is not None
    ]


def _place(conclusions: Conclusions, place: Place) -> Data:
    name = IfName(place.interface)
    endpoint = (conclusions.endpoints if place.kind == WORKLOAD else conclusions.host_endpoints).get(name)
    return {
        "kind": place.kind,
        "name": endpoint.name if endpoint else "",
        "interface": "*" if name == ANY_INTERFACE else name,
        "direction": place.direction.value if place.direction else "",
        "note": place.note,
    }


def _endpoints(conclusions: Conclusions, found: Tally) -> list[Data]:
    lines = []
    for place, passage in sorted(found.places.items(), key=lambda item: _place_order(conclusions, item[0])):
        if place.kind == HOST:
            continue
        tiers, profiles = _asked(conclusions, place)
        endpoint = conclusions.endpoints.get(IfName(place.interface)) if place.kind == WORKLOAD else None
        applying: Data = {
            "addresses": sorted(str(net.network_address) for net in endpoint.addresses) if endpoint else [],
            "policies": [_who(policy) for tier in tiers for policy in tier.of(place.direction or Direction.INGRESS)],
            "profiles": list(profiles),
        }
        lines.append(_place(conclusions, place) | applying | _passage(passage))
    return lines


def _asked(conclusions: Conclusions, place: Place) -> tuple[tuple[TierPolicies, ...], tuple[ProfileName, ...]]:
    """Return the policies, by tier, and the profiles that the chain of a place asks."""
    name = IfName(place.interface)
    workload, host = conclusions.endpoints.get(name), conclusions.host_endpoints.get(name)
    if place.kind == WORKLOAD:
        return (workload.tiers, workload.profiles) if workload else ((), ())
    if host is None:
        return (), ()
    by_note = {FORWARDED: host.forward, BEFORE_DNAT: host.pre_dnat, UNTRACKED: host.untracked}
    return by_note.get(place.note, host.normal), () if place.note in by_note else host.profiles


def _passage(passage: Passage) -> Data:
    return {
        "established": _count(passage.established),
        "allowed": _count(passage.allowed),
        "dropped": _count(passage.dropped),
    }


def _drops(conclusions: Conclusions, found: Tally) -> list[Data]:
    """What was dropped somewhere; the places of the host itself are all here."""
    return [
        {**_place(conclusions, place), **_where(where), **_count(count)}
        for place, passage in sorted(found.places.items(), key=lambda item: _place_order(conclusions, item[0]))
        for where, count in passage.drops.items()
        if count.packets or place.kind == HOST
    ]


def _place_order(conclusions: Conclusions, place: Place) -> tuple[str, ...]:
    line = _place(conclusions, place)
    outward = "1" if place.direction is Direction.EGRESS else "0"
    whose = "z" if place.kind == HOST else "a"
    return whose, *(str(line[key]) for key in ("name", "interface", "note")), outward


def _where(where: Where) -> Data:
    return {
        "reason": where.reason.lower().replace("_", "-"),
        "where": _where_text(where),
        "tier": where.tier,
        "by": [_who(owner) for owner in where.owners],
        "rules": list(where.rules),
    }


def _where_text(where: Where) -> str:
    if where.reason == Part.END_OF_TIER.name:
        return f"end of tier {where.tier}: no policy matched"
    names = _one_of([_named(owner) for owner in where.owners])
    tier = f" (tier {where.tier})" if where.tier else ""
    if where.reason != "rule":
        said = _REFUSED_GROUP if where.reason == REFUSED and len(where.owners) > 1 else _REASONS.get(where.reason)
        return (f"{names}{tier}: " if names else "") + (said or where.reason)
    if where.rules == (0,):
        return f"{names}{tier}: closed, as it or its tier cannot be used"
    numbers = f"rule {' or '.join(map(str, where.rules))}" if where.rules else "a rule"
    return f"{numbers} of {names}{tier}"


def _one_of(names: Sequence[str]) -> str:
    if len(names) <= NAMES_MAX:
        return " or ".join(names)
    return f"{', '.join(names[:NAMES_MAX])} or one of {len(names) - NAMES_MAX} more"


def _named(who: PolicyId | ProfileName) -> str:
    if isinstance(who, PolicyId):
        return "policy " + "/".join(filter(None, (who.namespace, who.name)))
    return f"profile {who}"


def _prefixes_of(
    key: ChainKey, explained: Explained, owners: Mapping[str, Owner], tiers: Mapping[str, str]
) -> dict[str, Data]:
    """Return what the prefixes in one chain stand for; `tiers`: of the chains of policies and groups."""
    found: dict[str, Data] = {}
    tier = ""
    for rule in explained.rules:
        tier = tiers.get(getattr(rule.target, "chain", ""), tier)
        if not isinstance(rule.target, PacketLog):
            continue
        meant: Data = {"group": rule.target.group}
        if isinstance(rule.stands_for, PolicyRule):
            owner = owners[key.chain]
            meant |= {"tier": owner.tier, **_who(owner.who), "rule": rule.stands_for.number,
                      "action": rule.stands_for.action.value}
        elif rule.stands_for is Part.END_OF_TIER:
            meant |= {"tier": tier, "end_of_tier": True, "action": _ACTION_WORDS[rule.target.prefix[0]]}
        else:
            meant |= {"no_profile": True, "action": "Deny"}
        found[rule.target.prefix] = meant | {"direction": _DIRECTION_WORDS[rule.target.group]}
    return found


_ACTION_WORDS = {"D": "Deny", "P": "Pass"}
_DIRECTION_WORDS = {1: "ingress", 2: "egress"}


def in_order(conclusions: Conclusions) -> list[tuple[PolicyId, Rules]]:
    """Return the policies in the order in which packets meet them: by tier, then within it; ties by name."""
    tiers: list[Sequence[str]] = []
    within: list[Sequence[PolicyId]] = []
    asked = [endpoint.tiers for endpoint in conclusions.endpoints.values() if endpoint is not None]
    for host in conclusions.host_endpoints.values():
        if host is not None:
            asked += [host.untracked, host.pre_dnat, host.normal, host.forward]
    for each in asked:
        tiers.append([tier.name for tier in each])
        within += [tier.of(direction) for tier in each for direction in Direction]
    rules = {policy: of for policy, of in conclusions.policies.items() if of is not None}
    place = {tier: number for number, tier in enumerate(merged(tiers, sorted({of.tier for of in rules.values()})))}
    policies = [policy for policy in merged(within, sorted(rules)) if policy in rules]
    return sorted(((policy, rules[policy]) for policy in policies), key=lambda one: place[one[1].tier])


def merged(sequences: Iterable[Sequence[T]], others: Iterable[T]) -> list[T]:
    """Return one order of all, in which each sequence keeps its own as far as they agree."""
    before: dict[T, set[T]] = {each: set() for each in others}
    for sequence in set(map(tuple, sequences)):
        for each in sequence:
            before.setdefault(each, set())
        for first, second in itertools.pairwise(sequence):
            before[second].add(first)
    try:
        return list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError:  # a policy may have moved between two looks at it
        return list(before)
