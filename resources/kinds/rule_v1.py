"""Rules as v1 spells them, and the way to and from v3 (reference resources.md 4.1, 4.3).

Defects of the original's converter are not copied: negated tags are joined with "or", and what v3 does not allow is
refused instead of stored.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence

import msgspec

from resources.kinds import fields
from resources.kinds.base import Path, Problem, wire
from resources.kinds.rule import ICMP, PROTOCOLS, EntityRule, Port, Protocol, Rule, protocol_fault
from resources.names import label_key_fault, parse_interface

ACTIONS = ("allow", "deny", "log", "pass")
_PROTOCOLS = tuple(name.lower() for name in PROTOCOLS)
_NAME = r"[a-zA-Z0-9_.-]{1,128}"
_NAME_WITH_SLASH = r"[a-zA-Z0-9_./-]{1,128}"


class EntityRuleV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    tag: str = ""
    net: str = ""
    nets: list[str] = []
    selector: str = ""
    ports: list[Port] = []
    not_tag: str = ""
    not_net: str = ""
    not_nets: list[str] = []
    not_selector: str = ""
    not_ports: list[Port] = []


class RuleV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(not_icmp="notICMP")):
    action: str
    ip_version: int | None = None
    protocol: Protocol | None = None
    icmp: ICMP | None = None
    not_protocol: Protocol | None = None
    not_icmp: ICMP | None = None
    source: EntityRuleV1 = EntityRuleV1()
    destination: EntityRuleV1 = EntityRuleV1()


def name_problems(path: Path, name: str, *, slash: bool = False) -> Iterator[Problem]:
    """Check a v1 name; policies and profiles may have ``/`` in it."""
    if not name:
        yield Problem(path, "", f"insufficient identifiers, missing '{path[-1]}'")
    elif not re.fullmatch(_NAME_WITH_SLASH if slash else _NAME, name):
        allowed = "letters, digits and _ . -" + (" /" if slash else "")
        yield Problem(path, name, f"a name has 1 to 128 {allowed}")


def rules_problems(path: Path, rules: Sequence[RuleV1]) -> Iterator[Problem]:
    """Check what the v3 check of the converted rules cannot find, or would tell in words that v1 does not have."""
    for index, rule in enumerate(rules):
        at = (*path, index)
        if not rule.action:
            yield Problem((*at, "action"), "", f"an action is needed: {', '.join(ACTIONS)}")
        yield from fields.one_of((*at, "action"), rule.action, ACTIONS)
        for name, protocol in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
            if isinstance(protocol, str) and protocol not in _PROTOCOLS:
                yield Problem((*at, name), protocol, *protocol_fault(protocol, _PROTOCOLS))
        for name, side in (("source", rule.source), ("destination", rule.destination)):
            yield from _side_problems((*at, name), side)


def _side_problems(path: Path, side: EntityRuleV1) -> Iterator[Problem]:
    for one, several, net, nets, words in (
        ("net", "nets", side.net, side.nets, "Net and Nets"),
        ("notNet", "notNets", side.not_net, side.not_nets, "NotNet and NotNets"),
    ):
        if net and nets:
            yield Problem((*path, one), net, f"only one of {words} fields allowed")
        yield from fields.cidr((*path, one), net)
        for index, text in enumerate(nets):
            if not text:
                yield Problem((*path, several, index), "", "must be an IP address/length")
            yield from fields.cidr((*path, several, index), text)
    for name, tag, beside, selector in (
        ("tag", side.tag, "selector", side.selector),
        ("notTag", side.not_tag, "notSelector", side.not_selector),
    ):
        yield from tag_problems((*path, name), tag)
        if tag:  # the two become one selector, which nobody wrote
            yield from fields.selector((*path, beside), selector)


def tag_problems(path: Path, tag: str) -> Iterator[Problem]:
    """Check a tag, which becomes the key of a label."""
    if tag and (fault := label_key_fault(tag)):
        yield Problem(path, tag, f"a tag becomes a label: {fault}")


def rules_to_v3(rules: Sequence[RuleV1]) -> list[Rule]:
    return [_to_v3(rule) for rule in rules]


def _to_v3(rule: RuleV1) -> Rule:
    return Rule(
        action=rule.action.title(),
        ip_version=rule.ip_version,
        protocol=_protocol_to_v3(rule.protocol),
        icmp=rule.icmp,
        not_protocol=_protocol_to_v3(rule.not_protocol),
        not_icmp=rule.not_icmp,
        source=_side_to_v3(rule.source),
        destination=_side_to_v3(rule.destination),
    )


def _protocol_to_v3(protocol: Protocol | None) -> Protocol | None:
    if not isinstance(protocol, str):
        return protocol
    return next((name for name in PROTOCOLS if name.lower() == protocol), protocol)


def _side_to_v3(side: EntityRuleV1) -> EntityRule:
    return EntityRule(
        nets=_nets_to_v3(side.net, side.nets),
        selector=_with_tag(selector_to_v3(side.selector), side.tag, "&&"),
        ports=side.ports,
        not_nets=_nets_to_v3(side.not_net, side.not_nets),
        not_selector=_with_tag(selector_to_v3(side.not_selector), side.not_tag, "||"),
        not_ports=side.not_ports,
    )


def _nets_to_v3(net: str, nets: Sequence[str]) -> list[str]:
    """Return masked networks; what is none stays as it is: `rules_problems` tells of it."""
    return [_masked(text) for text in (*nets, *((net,) if net else ()))]


def _masked(text: str) -> str:
    try:
        return str(parse_interface(text).network)
    except ValueError:
        return text


def _with_tag(selector: str, tag: str, operator: str) -> str:
    """Join a tag to a selector: both must match (``&&``), or, where they are negated, neither may (``||``)."""
    if not tag or label_key_fault(tag):  # which `rules_problems` tells
        return selector
    return f"({selector}) {operator} {tag} == ''" if selector else f"{tag} == ''"


def selector_to_v3(selector: str) -> str:
    return selector.replace("calico/k8s_ns", "projectcalico.org/namespace")


def full_length(text: str) -> str:
    """Return ``address/length`` in canonical text; a bare address gets /32 or /128, as v1 reads it."""
    interface = ipaddress.ip_interface(text)
    return f"{interface.ip}/{interface.network.prefixlen}"


def rules_from_v3(rules: Sequence[Rule]) -> list[RuleV1]:
    return [
        RuleV1(
            action=rule.action.lower(),
            ip_version=rule.ip_version,
            protocol=_lower(rule.protocol),
            icmp=rule.icmp,
            not_protocol=_lower(rule.not_protocol),
            not_icmp=rule.not_icmp,
            source=_side_from_v3(rule.source),
            destination=_side_from_v3(rule.destination),
        )
        for rule in rules
    ]


def _lower(protocol: Protocol | None) -> Protocol | None:
    return protocol.lower() if isinstance(protocol, str) else protocol


def _side_from_v3(side: EntityRule) -> EntityRuleV1:
    return EntityRuleV1(
        nets=side.nets,
        selector=side.selector,
        ports=side.ports,
        not_nets=side.not_nets,
        not_selector=side.not_selector,
        not_ports=side.not_ports,
    )
