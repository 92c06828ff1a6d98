"""`calicoctl policy counters`: what felix tells of its counters, chosen and laid out for people.

The kernel counts, felix says what each counter stands for, and this asks felix (never imports it) at its socket.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from calicoctl.output import plain_table
from resources.errors import CalicoError, Rejected
from resources.runtime import health, paths

PAGE = "/counters"
TIMEOUT_SECONDS = 60.0
"""Felix reads all rules of the host for an answer."""
MATCHES_MAX = 60
"""Characters of what a rule matches that a table shows."""
END_OF_TIER = "end-of-tier"
"""The reason of a drop that no policy of a tier decided."""
NAMES_MAX = 20
"""So many names an error lists."""


class FelixSilent(CalicoError):
    """Felix of this host does not answer, or has no answer yet."""

    reference = "felix-silent"


class NoSuchPolicy(Rejected):
    """No policy of that name on this host."""

    reference = "no-such-policy-here"


class NoSuchEndpoint(Rejected):
    """No endpoint of that name, interface or address on this host."""

    reference = "no-such-endpoint-here"


class NoSuchTier(Rejected):
    """No tier of that name has a policy on this host."""

    reference = "no-such-tier-here"


class Count(msgspec.Struct, frozen=True):
    packets: int = 0
    bytes: int = 0


class Who(msgspec.Struct, frozen=True):
    """A policy or a profile."""

    kind: str
    name: str
    namespace: str = ""

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class RuleLine(msgspec.Struct, frozen=True):
    """One rule; `rule` 0 stands for a whole policy that cannot be used and is closed."""

    direction: str
    rule: int
    action: str
    matches: str
    packets: int
    bytes: int


class Policy(Who, frozen=True, kw_only=True):
    tier: str = ""
    rules: list[RuleLine] = []


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What went through an interface in one direction, as seen from its workload."""

    kind: str
    name: str
    interface: str
    direction: str
    note: str = ""
    addresses: list[str] = []
    policies: list[Who] = []
    profiles: list[str] = []
    established: Count
    allowed: Count
    dropped: Count


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """What was dropped at one place of an interface's chain; of the host itself, if there is no interface."""

    kind: str
    name: str
    interface: str
    direction: str
    note: str = ""
    reason: str
    where: str
    tier: str = ""
    by: list[Who] = []
    rules: list[int] = []
    packets: int
    bytes: int


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Policies are in the order in which packets meet them."""

    node: str
    read_at: str
    seconds: float = 0.0
    """Counted within so many seconds before; 0: since each chain was last written."""
    policies: list[Policy] = []
    profiles: list[Policy] = []
    endpoints: list[Endpoint] = []
    drops: list[Drop] = []
    missing: list[str] = []


def ask(timeout: float = TIMEOUT_SECONDS) -> Counters:
    """Return the counters of this host.

    Raises:
        FelixSilent: felix does not answer or cannot.
    """
    status, text = health.ask(paths.health_socket("felix"), PAGE, timeout=timeout)
    if status == 0:
        raise FelixSilent(
            f"calico-felix does not answer: {text}",
            hint="the kernel goes on counting; felix, which knows what its rules stand for, is started by "
            "'calicoctl node run'",
        )
    if status == 404:
        raise FelixSilent(
            "the calico-felix that runs here is older than this command",
            hint="start the new one: calicoctl node stop, then calicoctl node run; the counters are kept",
        )
    if status != 200:
        raise FelixSilent(f"calico-felix cannot tell its counters: {' '.join(text.split())}")
    try:
        return msgspec.json.decode(text, type=Counters)
    except msgspec.DecodeError as error:
        raise FelixSilent(f"what calico-felix says of its counters cannot be read: {error}") from error


def chosen(
    counters: Counters, *, policy: str | None, tier: str | None, endpoint: str | None, nonzero: bool
) -> Counters:
    """Return the part that was asked for. Pure.

    Raises:
        NoSuchPolicy, NoSuchTier, NoSuchEndpoint: there is none here; the hint says what there is.
    """
    if policy is not None:
        counters = _of_policy(counters, policy)
    if tier is not None:
        counters = _of_tier(counters, tier, of=f" that is policy {policy!r}" if policy is not None else "")
    if endpoint is not None:
        counters = _of_endpoint(counters, endpoint)
    return _nonzero(counters) if nonzero else counters


def _with(
    counters: Counters,
    *,
    policies: Callable[[Policy], bool],
    profiles: Callable[[Policy], bool],
    endpoints: Callable[[Endpoint], bool],
    drops: Callable[[Drop], bool],
) -> Counters:
    return msgspec.structs.replace(
        counters,
        policies=list(filter(policies, counters.policies)),
        profiles=list(filter(profiles, counters.profiles)),
        endpoints=list(filter(endpoints, counters.endpoints)),
        drops=list(filter(drops, counters.drops)),
    )


def _of_policy(counters: Counters, name: str) -> Counters:
    found = {(one.kind, one.path) for one in counters.policies if name in (one.name, one.path)}
    if not found:
        there = _listed((one.path for one in counters.policies), name)
        raise NoSuchPolicy(
            f"no policy {name!r} is in force on {counters.node}; these are: {there}",
            hint="a policy is on a host while it selects something there: see 'calicoctl get globalnetworkpolicy "
            f"{name} -o yaml'",
        )

    def is_one(who: Iterable[Who]) -> bool:
        return any((one.kind, one.path) in found for one in who)

    tiers = {one.tier for one in counters.policies if is_one([one])}
    lines = {_line(one) for one in counters.endpoints if is_one(one.policies)}

    def is_past(drop: Drop) -> bool:
        """Whether it fell where the policy had been asked, too, and did not match."""
        return drop.reason == END_OF_TIER and drop.tier in tiers and _line(drop) in lines

    return _with(
        counters,
        policies=lambda one: is_one([one]),
        profiles=lambda _: False,
        endpoints=lambda one: is_one(one.policies),
        drops=lambda one: is_one(one.by) or is_past(one),
    )


def _of_tier(counters: Counters, tier: str, *, of: str) -> Counters:
    names = {one.path: one.tier for one in counters.policies}
    if tier not in names.values():
        there = _listed((one.tier for one in counters.policies), tier)
        raise NoSuchTier(f"no policy of a tier {tier!r}{of} is in force on {counters.node}; these tiers are: {there}")
    return _with(
        counters,
        policies=lambda one: one.tier == tier,
        profiles=lambda _: False,
        endpoints=lambda one: any(names.get(who.path) == tier for who in one.policies),
        drops=lambda one: one.tier == tier,
    )


def _of_endpoint(counters: Counters, name: str) -> Counters:
    def is_it(one: Endpoint) -> bool:
        return name in (one.name, one.interface, *one.addresses)

    found = [one for one in counters.endpoints if is_it(one)]
    if not found:
        there = _listed((one.name or one.interface for one in counters.endpoints), name)
        raise NoSuchEndpoint(
            f"no endpoint {name!r} is on {counters.node}; these are: {there}",
            hint="name a container, its interface on the host, or its address",
        )
    policies = {(who.kind, who.path) for one in found for who in one.policies}
    profiles = {profile for one in found for profile in one.profiles}
    interfaces = {one.interface for one in found}
    return _with(
        counters,
        policies=lambda one: (one.kind, one.path) in policies,
        profiles=lambda one: one.name in profiles,
        endpoints=is_it,
        drops=lambda one: one.interface in interfaces,
    )


def during(before: Counters, after: Counters, seconds: float) -> Counters:
    """Return what was counted between two answers; a counter that began anew between them counts from there. Pure."""
    rules = {key: (rule.packets, rule.bytes) for key, rule in _rules_of(before)}
    passages = {_line(one): one for one in before.endpoints}

    def of_policies(policies: Sequence[Policy]) -> list[Policy]:
        return [
            msgspec.structs.replace(
                policy,
                rules=[_less(rule, rules.get((policy.kind, policy.path, rule.direction, rule.rule)))
                       for rule in policy.rules],
            )
            for policy in policies
        ]  # fmt: skip

    def of_endpoint(one: Endpoint) -> Endpoint:
        past = passages.get(_line(one))
        if past is None:
            return one
        counts = {
            name: _less(getattr(one, name), (getattr(past, name).packets, getattr(past, name).bytes))
            for name in ("established", "allowed", "dropped")
        }
        return msgspec.structs.replace(one, **counts)

    return msgspec.structs.replace(
        after,
        seconds=seconds,
        policies=of_policies(after.policies),
        profiles=of_policies(after.profiles),
        endpoints=[of_endpoint(one) for one in after.endpoints],
        drops=_drops_between(before.drops, after.drops),
    )


def _drops_between(before: Sequence[Drop], after: Sequence[Drop]) -> list[Drop]:
    """Subtract what was dropped before. Pure.

    What policies of a shared chain dropped is told apart as far as the numbers leave one answer (docs/adr/0021), so of
    the same packets the second answer may name others than the first. Then only their sum can be subtracted.
    """
    past, now = _by_step(before), _by_step(after)
    found: list[Drop] = []
    for step, drops in now.items():
        old = {one.where: one for one in past.get(step, ())}
        new = {one.where: one for one in drops}
        packets, octets = (sum(getattr(one, what) for one in old.values()) for what in ("packets", "bytes"))
        keeps = all(where in new and new[where].packets >= one.packets for where, one in old.items())
        if sum(one.packets for one in drops) < packets:
            found += drops  # the chain was written anew
        elif keeps:
            found += (_less(one, (old[where].packets, old[where].bytes) if where in old else None)
                      for where, one in new.items())  # fmt: skip
        else:
            found.append(_less(_one_of(drops), (packets, octets)))
    return found


def _by_step(drops: Iterable[Drop]) -> dict[tuple[str, ...], list[Drop]]:
    """Return drops by place and step of its chain: a tier's policies are one."""
    steps: dict[tuple[str, ...], list[Drop]] = {}
    for one in drops:
        steps.setdefault((*_line(one), one.reason, one.tier), []).append(one)
    return steps


def _one_of(drops: Sequence[Drop]) -> Drop:
    """Return one line for all of them."""
    if len(drops) == 1:
        return drops[0]
    return msgspec.structs.replace(
        drops[0],
        where="one of these: " + "; ".join(one.where for one in drops),
        by=list(dict.fromkeys(who for one in drops for who in one.by)),
        rules=[],
        packets=sum(one.packets for one in drops),
        bytes=sum(one.bytes for one in drops),
    )


_Counting = TypeVar("_Counting", RuleLine, Count, Drop)


def _less(now: _Counting, before: tuple[int, int] | None) -> _Counting:
    packets, octets = before or (0, 0)
    if now.packets < packets:
        return now
    return msgspec.structs.replace(now, packets=now.packets - packets, bytes=max(0, now.bytes - octets))


def _line(one: Endpoint | Drop) -> tuple[str, ...]:
    return one.kind, one.name, one.interface, one.direction, one.note


def _rules_of(counters: Counters) -> Iterator[tuple[tuple[str, str, str, int], RuleLine]]:
    for policy in (*counters.policies, *counters.profiles):
        for rule in policy.rules:
            yield (policy.kind, policy.path, rule.direction, rule.rule), rule


def _nonzero(counters: Counters) -> Counters:
    def counted(of: Sequence[Policy]) -> list[Policy]:
        kept = (msgspec.structs.replace(one, rules=[rule for rule in one.rules if rule.packets]) for one in of)
        return [one for one in kept if one.rules]

    return msgspec.structs.replace(
        counters,
        policies=counted(counters.policies),
        profiles=counted(counters.profiles),
        endpoints=[
            one
            for one in counters.endpoints
            if one.established.packets or one.allowed.packets or one.dropped.packets
        ],
        drops=[one for one in counters.drops if one.packets],
    )


def _listed(names: Iterable[str], asked: str) -> str:
    """Return the names, those like the one that was asked for first, and not more than anybody reads."""
    known = sorted({_plain(name) for name in names})
    alike = difflib.get_close_matches(asked, known)
    ordered = [*alike, *(name for name in known if name not in alike)]
    rest = f" and {len(ordered) - NAMES_MAX} more" if len(ordered) > NAMES_MAX else ""
    return (", ".join(ordered[:NAMES_MAX]) or "none") + rest


def tables(counters: Counters, *, wide: bool = False) -> str:
    """Return the counters as people read them; `wide`: what a rule matches in full. Pure."""
    when = f"in {counters.seconds:g} s until" if counters.seconds else "at"
    parts = [f"Counters of {counters.node} {when} {counters.read_at}, IPv4 and IPv6 together.\n\n"]
    parts.append("Packets by rule, of all endpoints here together:\n" + _rules_table(counters, wide=wide))
    if counters.endpoints:
        parts.append("Packets by endpoint; the first of a connection is new, the others are established:\n")
        parts.append(_endpoints_table(counters.endpoints))
    parts.append(_drops_table(counters.drops))
    return "".join(parts)


_RULE_HEADINGS = ("TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "MATCHES", "PACKETS", "BYTES")


def _rules_table(counters: Counters, *, wide: bool) -> str:
    rows: list[tuple[str, ...]] = []
    for number, policy in enumerate(counters.policies):
        rows += (_rule_row(policy.tier, policy.path, rule, wide=wide) for rule in policy.rules)
        behind = counters.policies[number + 1].tier if number + 1 < len(counters.policies) else None
        if policy.tier != behind:
            rows += _end_rows(counters.drops, END_OF_TIER, policy.tier, "(no policy matched)")
    for profile in counters.profiles:
        rows += (_rule_row("", f"profile {profile.name}", rule, wide=wide) for rule in profile.rules)
    rows += _end_rows(counters.drops, "no-profile", "", "(no profile matched)")
    if not rows:
        return "none\n\n"
    return _table(_RULE_HEADINGS, rows, numbers=(3, 6, 7))


def _rule_row(tier: str, name: str, rule: RuleLine, *, wide: bool) -> tuple[str, ...]:
    matches = rule.matches if wide or len(rule.matches) <= MATCHES_MAX else rule.matches[: MATCHES_MAX - 3] + "..."
    number = str(rule.rule) if rule.rule else "all"
    return tier, name, rule.direction, number, rule.action, matches, str(rule.packets), str(rule.bytes)


def _end_rows(drops: Iterable[Drop], reason: str, tier: str, name: str) -> list[tuple[str, ...]]:
    """Return a row for each direction in which packets came to the end of a tier, or of all profiles, and fell."""
    sums: dict[str, list[int]] = {}
    for drop in drops:
        if drop.reason == reason and drop.tier == tier:
            total = sums.setdefault(drop.direction, [0, 0])
            total[0] += drop.packets
            total[1] += drop.bytes
    return [
        (tier, name, direction, "", "Deny", "anything", *map(str, sums[direction])) for direction in sorted(sums)[::-1]
    ]


_ENDPOINT_HEADINGS = ("ENDPOINT", "ADDRESS", "INTERFACE", "DIRECTION", "NEW", "ESTABLISHED", "DROPPED")


def _endpoints_table(endpoints: Iterable[Endpoint]) -> str:
    rows = [
        (
            _called(one), ",".join(one.addresses), one.interface, one.direction,
            str(one.allowed.packets), str(one.established.packets), str(one.dropped.packets),
        )
        for one in endpoints
    ]  # fmt: skip
    return _table(_ENDPOINT_HEADINGS, rows, numbers=(4, 5, 6))


_DROP_HEADINGS = ("ENDPOINT", "INTERFACE", "DIRECTION", "PACKETS", "BYTES", "DROPPED BY")


def _drops_table(drops: Sequence[Drop]) -> str:
    """Most packets first; where nothing was dropped there is no row."""
    rows = [
        (_called(one), one.interface, one.direction, str(one.packets), str(one.bytes), one.where)
        for one in sorted(drops, key=lambda one: -one.packets)
        if one.packets
    ]
    if not rows:
        return "Nothing was dropped.\n\n"
    return "Dropped:\n" + _table(_DROP_HEADINGS, rows, numbers=(3, 4))


def _called(one: Endpoint | Drop) -> str:
    if one.kind == "host":
        return "(any)"
    name = one.name or one.kind
    return f"{name} ({one.note})" if one.note else name


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """Return a table with the columns `numbers` to the right."""
    cells = [[_plain(cell) for cell in row] for row in (headings, *rows)]
    for column in numbers:
        width = max(len(row[column]) for row in cells)
        for row in cells:
            row[column] = row[column].rjust(width)
    return "\n".join(line.rstrip() for line in plain_table(cells[0], cells[1:]).split("\n"))


def _plain(text: str) -> str:
    """Return the text without what a terminal could take for a command."""
    return "".join(character if character.isprintable() else "?" for character in text)
