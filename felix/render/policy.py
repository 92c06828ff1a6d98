"""Rules of policies and profiles -> rules of chains (reference felix.md 3.5, 3.11, 4.3).

One policy rule becomes one match and its action where the kernel can say it in one match. Where it cannot (several
nets, more ports than fit), blocks of helper rules come first: each block tries alternatives, and two scratch bits of
the mark carry the result.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from felix.calc.model import Action, PolicyRule, PortRange, Side
from felix.calc.parameters import Marks, Parameters
from felix.render.chains import (
    Condition,
    End,
    HasIcmpType,
    HasProtocol,
    InNet,
    InPorts,
    InSet,
    Log,
    Rule,
    SetMark,
    Verdict,
    clear,
    mark,
    marked,
    rule,
    unmarked,
)
from felix.render.flowlog import Owner, rule_log
from felix.render.iptables import PORT_SLOTS
from felix.render.names import set_name
from resources.names import IPNetwork

ANNOTATIONS_MAX = 8
"""So many annotations of a rule become comments; a rule has a largest size in the kernel."""

Alternative = tuple[Condition, ...]
_ICMP_PROTOCOL = {4: ("icmp", "1"), 6: ("icmpv6", "58")}


@dataclass(frozen=True, slots=True)
class _Block:
    """Alternatives, one of which must hold, or (negated) none of which may."""

    alternatives: tuple[Alternative, ...]
    negated: bool


def chain_rules(
    rules: Iterable[PolicyRule], title: str, version: int, parameters: Parameters, owner: Owner | None = None
) -> list[Rule]:
    """Return the chain of a policy or profile in one direction; its first rule carries the title.

    What ends a packet's way is logged in the name of the owner, if the settings say so.
    """
    rendered: list[Rule] = []
    logged = owner if parameters.flow_logs else None
    for policy_rule in rules:
        if version in policy_rule.versions:
            rendered += rule_rules(policy_rule, version, parameters, logged)
    while rendered and rendered[-1].target is Verdict.RETURN:
        rendered.pop()  # the end of the chain returns by itself
    if rendered:
        rendered[0] = replace(rendered[0], comments=(title, *rendered[0].comments))
    return rendered


def rule_rules(
    policy_rule: PolicyRule, version: int, parameters: Parameters, logged: Owner | None = None
) -> list[Rule]:
    """Return what one policy rule becomes in one family. One of them counts what it matched: it stands for the rule."""
    marks = parameters.marks
    conditions, blocks = _conditions(policy_rule, version)
    helpers = _block_rules(blocks, marks)
    if blocks:
        conditions.append(marked(marks.scratch0))
    comments = tuple(f"{key}={value}" for key, value in policy_rule.annotations[:ANNOTATIONS_MAX])
    match_ = tuple(conditions)
    match policy_rule.action:
        case Action.ALLOW:
            bit, target = marks.accept, Verdict.RETURN
        case Action.PASS:
            bit, target = marks.passed, Verdict.RETURN
        case Action.DENY:
            bit, target = marks.drop, Verdict(parameters.filter_deny_action.value)
        case Action.LOG:
            return [*helpers, Rule(match_, Log(parameters.log_prefix), comments, policy_rule)]
        case _:
            assert_never(policy_rule.action)
    acted = [Rule(match_, mark(bit), comments, policy_rule)]
    if logged is not None:
        log = rule_log(logged, policy_rule.action, policy_rule.number)
        acted.append(rule(marked(bit), to=log, stands_for=policy_rule))
    return [*helpers, *acted, rule(marked(bit), to=target)]


def _conditions(policy_rule: PolicyRule, version: int) -> tuple[list[Condition], list[_Block]]:
    """Return what fits into one rule, in the order of reference felix.md 4.3, and the blocks for what does not."""
    positive: list[Condition] = []
    negative: list[Condition] = []
    blocks: list[_Block] = []
    if policy_rule.protocol is not None:
        positive.append(HasProtocol(policy_rule.protocol))
    if policy_rule.not_protocol is not None:
        negative.append(HasProtocol(policy_rule.not_protocol, negated=True))
    protocol = tuple(positive)
    ends = ((End.SOURCE, policy_rule.source), (End.DESTINATION, policy_rule.destination))
    for end, side in ends:
        blocks += _port_block(end, side, protocol, version)
    for end, side in ends:
        blocks += _net_block(end, _of_version(side.nets, version))
    for end, side in ends:
        blocks += _not_net_block(end, side, version)
    for end, side in ends:
        positive += _positive(end, side, version)
        negative += _negative(end, side, version)
    if policy_rule.icmp is not None:
        positive.append(HasIcmpType(version, policy_rule.icmp.type, policy_rule.icmp.code))
    if policy_rule.not_icmp is not None:
        kind = HasIcmpType(version, policy_rule.not_icmp.type, policy_rule.not_icmp.code)
        if policy_rule.protocol in _ICMP_PROTOCOL[version]:
            negative.append(replace(kind, negated=True))
        else:  # the kernel takes an ICMP type only beside the protocol, and a packet of another one matches
            blocks.append(_Block(((HasProtocol(_ICMP_PROTOCOL[version][0]), kind),), negated=True))
    return positive + negative, blocks


def _positive(end: End, side: Side, version: int) -> list[Condition]:
    nets = _of_version(side.nets, version)
    ports = _port_alternatives(end, side, version)
    conditions: list[Condition] = []
    if len(nets) == 1:
        conditions.append(InNet(end, nets[0]))
    conditions += [InSet(end, set_name(version, spec.id)) for spec in side.sets]
    if len(ports) == 1:
        conditions.append(ports[0])
    return conditions


def _negative(end: End, side: Side, version: int) -> list[Condition]:
    not_nets = _of_version(side.not_nets, version)
    conditions: list[Condition] = []
    if len(not_nets) == 1 and not _needs_not_net_block(side, version):
        conditions.append(InNet(end, not_nets[0], negated=True))
    conditions += [InSet(end, set_name(version, spec.id), negated=True) for spec in side.not_sets]
    conditions += [InPorts(end, ports, negated=True) for ports in port_splits(side.not_ports)]
    conditions += [InSet(end, set_name(version, spec.id), negated=True, port=True) for spec in side.not_port_sets]
    return conditions


def _port_alternatives(end: End, side: Side, version: int) -> list[Condition]:
    numeric: list[Condition] = [InPorts(end, ports) for ports in port_splits(side.ports)]
    return numeric + [InSet(end, set_name(version, spec.id), port=True) for spec in side.port_sets]


def _port_block(end: End, side: Side, protocol: tuple[Condition, ...], version: int) -> list[_Block]:
    alternatives = _port_alternatives(end, side, version)
    if len(alternatives) < 2:
        return []
    return [_Block(tuple((*protocol, alternative) for alternative in alternatives), negated=False)]


def _net_block(end: End, nets: Sequence[IPNetwork]) -> list[_Block]:
    return [_Block(tuple((InNet(end, net),) for net in nets), negated=False)] if len(nets) > 1 else []


def _not_net_block(end: End, side: Side, version: int) -> list[_Block]:
    if not _needs_not_net_block(side, version):
        return []
    return [_Block(tuple((InNet(end, net),) for net in _of_version(side.not_nets, version)), negated=True)]


def _needs_not_net_block(side: Side, version: int) -> bool:
    """A rule has room for one net on each side, be it wanted or not."""
    not_nets = len(_of_version(side.not_nets, version))
    return not_nets > 1 or (not_nets == 1 and len(_of_version(side.nets, version)) == 1)


def _of_version(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [net for net in nets if net.version == version]


def port_splits(ports: Iterable[PortRange]) -> list[tuple[PortRange, ...]]:
    """Divide ports into parts that fit one match: 15 slots, a range takes two."""
    splits: list[tuple[PortRange, ...]] = []
    part: list[PortRange] = []
    used = 0
    for port in ports:
        slots = 1 if port[0] == port[1] else 2
        if used + slots > PORT_SLOTS:
            splits.append(tuple(part))
            part, used = [], 0
        part.append(port)
        used += slots
    if part:
        splits.append(tuple(part))
    return splits


def _block_rules(blocks: Sequence[_Block], marks: Marks) -> list[Rule]:
    """Return rules after which the first scratch bit is set exactly if every block holds.

    The first block that wants something sets that bit itself; each later one uses the second bit, which starts off,
    and takes the first away if the second stayed off. A negated block takes the first bit away at any hit.
    """
    if not blocks:
        return []
    both = marks.scratch0 | marks.scratch1
    any_positive = any(not block.negated for block in blocks)
    rules = [rule(to=SetMark(0 if any_positive else marks.scratch0, both))]
    wanting = 0
    for block in sorted(blocks, key=lambda block: block.negated):
        if block.negated:
            rules += [Rule(alternative, clear(marks.scratch0)) for alternative in block.alternatives]
            continue
        wanting += 1
        if wanting > 2:
            rules.append(rule(to=clear(marks.scratch1)))
        bit = marks.scratch0 if wanting == 1 else marks.scratch1
        rules += [Rule(alternative, mark(bit)) for alternative in block.alternatives]
        if wanting > 1:
            rules.append(rule(unmarked(marks.scratch1), to=clear(marks.scratch0)))
    return rules


