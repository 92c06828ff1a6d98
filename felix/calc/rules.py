"""From rules as they are stored to rules as they are meant: sides, sets and families (reference felix.md 4.3).

A rule that cannot be understood never widens what is allowed: an Allow or Log of that sort is left out, a Deny or Pass
becomes a Deny of everything that reaches it.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from felix.calc.model import (
    ANYWHERE,
    DENY_ALL,
    Action,
    IcmpType,
    NamedPort,
    PolicyRule,
    PortRange,
    Rules,
    SetSpec,
    Side,
    named_port_set,
    selector_set,
)
from resources.errors import Rejected
from resources.kinds.rule import ICMP, EntityRule, Port, Protocol, Rule, ServiceAccounts
from resources.names import IPNetwork
from resources.selection import SERVICE_ACCOUNT_LABEL, in_namespace, namespace_selector, service_account_selector
from resources.selector import LabelTest, Operator, Selector, compiled, conjunction, negation, parse

_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
_PORT_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "sctp": "sctp", "132": "sctp"}
_EVERYTHING = parse("all()")
_PORT_MAX = 65535
_ICMP_TYPE_MAX = 254
_ICMP_VERSIONS = {"icmp": 4, "1": 4, "icmpv6": 6, "58": 6}


class RuleUnusable(Rejected):
    """A rule that cannot be turned into matches on packets."""

    reference = "rule-unusable"


def read_rules(
    ingress: Iterable[Rule] | None, egress: Iterable[Rule] | None, namespace: str = ""
) -> tuple[Rules, tuple[str, ...]]:
    """Return the rules of a policy or profile, and what was wrong with some; None: nothing said about a direction.

    `namespace`: that of the policy, which confines its selectors.
    """
    problems: list[str] = []
    rules = Rules(
        ingress=_read_list("ingress", ingress, namespace, problems),
        egress=_read_list("egress", egress, namespace, problems),
    )
    return rules, tuple(problems)


def read_profile_rules(
    ingress: Iterable[Rule] | None, egress: Iterable[Rule] | None
) -> tuple[Rules, tuple[str, ...]]:
    """Return the rules of a profile, as `read_rules` does.

    A Pass there denies: the first match decides, and no tier follows that it could lead to.
    """
    rules, problems = read_rules(ingress, egress)
    return Rules(ingress=_without_pass(rules.ingress), egress=_without_pass(rules.egress)), problems


def _without_pass(rules: tuple[PolicyRule, ...] | None) -> tuple[PolicyRule, ...] | None:
    if rules is None:
        return None
    return tuple(replace(rule, action=Action.DENY) if rule.action is Action.PASS else rule for rule in rules)


def _read_list(
    direction: str, rules: Iterable[Rule] | None, namespace: str, problems: list[str]
) -> tuple[PolicyRule, ...] | None:
    if rules is None:
        return None
    read = []
    for number, rule in enumerate(rules, 1):
        try:
            read.append(read_rule(rule, namespace, number=number))
        except (ValueError, Rejected) as error:
            closed = _closed(rule, number)
            read += closed
            done = "everything that reaches it is denied" if closed else "it is left out"
            problems.append(f"{direction} rule {number} ({rule.action}) cannot be used, {done}: {error}")
    return tuple(read)


def _closed(rule: Rule, number: int) -> tuple[PolicyRule, ...]:
    return () if rule.action in (Action.ALLOW.value, Action.LOG.value) else (replace(DENY_ALL, number=number),)


def without_sets(rules: Rules, refused: frozenset[str]) -> Rules:
    """Return the rules with those that mention a refused set (by id) closed, as if they could not be read."""
    return replace(rules, ingress=_without(rules.ingress, refused), egress=_without(rules.egress, refused))


def _without(rules: tuple[PolicyRule, ...] | None, refused: frozenset[str]) -> tuple[PolicyRule, ...] | None:
    if rules is None:
        return None
    kept: list[PolicyRule] = []
    for rule in rules:
        if all(spec.id not in refused for spec in rule.all_sets):
            kept.append(rule)
        elif rule.action in (Action.DENY, Action.PASS):
            kept.append(replace(DENY_ALL, number=rule.number))
    return tuple(kept)


def without_doubt(rules: Rules, doubtful: frozenset[str]) -> Rules:
    """Return the rules so that a member that a doubtful set (by id) may lack opens nothing.

    An Allow may ask for such a set and a Deny may refuse it: with one member less that closes. Anything else with it is
    treated as if it could not be read.
    """
    return replace(rules, ingress=_undoubted(rules.ingress, doubtful), egress=_undoubted(rules.egress, doubtful))


def _undoubted(rules: tuple[PolicyRule, ...] | None, doubtful: frozenset[str]) -> tuple[PolicyRule, ...] | None:
    if rules is None:
        return None
    kept: list[PolicyRule] = []
    for rule in rules:
        asked = any(spec.id in doubtful for side in rule.sides for spec in side.sets + side.port_sets)
        refused = any(spec.id in doubtful for side in rule.sides for spec in side.not_sets + side.not_port_sets)
        if rule.action is Action.LOG or not (asked or refused):
            kept.append(rule)
        elif rule.action is Action.ALLOW:
            kept += () if refused else (rule,)
        else:
            kept.append(replace(DENY_ALL, number=rule.number) if asked or rule.action is Action.PASS else rule)
    return tuple(kept)


def read_rule(rule: Rule, namespace: str = "", *, number: int = 0) -> PolicyRule:
    """Return the meaning of one rule; `number`: its place in the record, from 1.

    Raises:
        RuleUnusable, SelectorError: it cannot be enforced as written.
        ValueError: an action, net or port that is none.
    """
    if rule.http is not None:
        raise RuleUnusable("requests of HTTP cannot be told apart on layer 3")
    protocol, not_protocol = _protocol(rule.protocol), _protocol(rule.not_protocol)
    source = _read_side(rule.source, protocol, namespace)
    destination = _read_side(rule.destination, protocol, namespace)
    icmp = _icmp(rule.icmp)
    if icmp and protocol not in _ICMP_VERSIONS:
        raise RuleUnusable("an icmp type without protocol ICMP or ICMPv6")
    versions = _versions(rule.ip_version, protocol, icmp, source, destination)
    if protocol is not None and not_protocol is not None:  # the kernel takes one of them, and one is enough
        versions = versions if _number(protocol) != _number(not_protocol) else ()
        not_protocol = None
    return PolicyRule(
        action=Action(rule.action),
        number=number,
        versions=versions,
        protocol=protocol,
        not_protocol=not_protocol,
        icmp=icmp,
        not_icmp=_icmp(rule.not_icmp),
        source=source,
        destination=destination,
        annotations=tuple(sorted(rule.metadata.annotations.items())) if rule.metadata else (),
    )


def _protocol(protocol: Protocol | None) -> str | None:
    if protocol is None:
        return None
    text = str(protocol).lower()
    if text in _NUMBERS:
        return text
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 255:
        raise RuleUnusable(f"unknown protocol {protocol!r}")
    return str(int(text))


def _number(protocol: str) -> int:
    return _NUMBERS.get(protocol) or int(protocol)


def _icmp(icmp: ICMP | None) -> IcmpType | None:
    if icmp is None or icmp.type is None:
        if icmp is not None and icmp.code is not None:
            raise RuleUnusable("an icmp code without a type")
        return None
    if not 0 <= icmp.type <= _ICMP_TYPE_MAX or not 0 <= (icmp.code or 0) <= 255:
        raise RuleUnusable("an icmp type beyond 254 or code beyond 255")
    return IcmpType(icmp.type, icmp.code)


def _versions(
    ip_version: int | None, protocol: str | None, icmp: IcmpType | None, source: Side, destination: Side
) -> tuple[int, ...]:
    """Return the families in which the rule can match: a list of nets speaks of the families that are in it."""
    versions = {4, 6}
    if ip_version is not None:
        versions &= {ip_version}
    if protocol in _ICMP_VERSIONS and (icmp or not protocol.isdigit()):
        versions &= {_ICMP_VERSIONS[protocol]}
    for side in (source, destination):
        for nets in (side.nets, side.not_nets):
            if nets:
                versions &= {net.version for net in nets}
        versions -= {net.version for net in side.not_nets if net.prefixlen == 0}
    return tuple(sorted(versions))


def _read_side(entity: EntityRule, protocol: str | None, namespace: str) -> Side:
    if entity == EntityRule():
        return ANYWHERE
    if entity.services is not None:
        raise RuleUnusable("services exist only in Kubernetes")
    positive = _positive_selector(entity, namespace)
    negative = parse(entity.not_selector) if entity.not_selector else None
    if positive and negative:
        positive, negative = conjunction(positive, negation(negative)), None
    ports, names = _split_ports(entity.ports)
    not_ports, not_names = _split_ports(entity.not_ports)
    if (ports or not_ports) and protocol not in _PORT_PROTOCOLS:
        raise RuleUnusable("ports need the protocol TCP, UDP or SCTP")
    by_name_only = bool(names) and not ports
    return Side(
        nets=_nets(entity.nets),
        not_nets=_nets(entity.not_nets),
        sets=() if positive is None or by_name_only else (selector_set(positive),),
        not_sets=() if negative is None else (selector_set(negative),),
        ports=ports,
        port_sets=_port_sets(positive, protocol, names),
        not_ports=not_ports,
        not_port_sets=_port_sets(positive, protocol, not_names),
    )


def _positive_selector(entity: EntityRule, namespace: str) -> Selector | None:
    """Fold the selectors of a side that must hold into one (reference resources.md 7.2)."""
    parts: list[Selector] = []
    if entity.namespace_selector:
        parts.append(namespace_selector(entity.namespace_selector))
    elif namespace and (entity.selector or entity.not_selector or entity.service_accounts):
        parts.append(in_namespace(namespace))
    if entity.service_accounts is not None:
        parts += _service_accounts(entity.service_accounts)
    if entity.selector:
        parts.append(parse(entity.selector))
    return conjunction(*parts) if parts else None


def _service_accounts(accounts: ServiceAccounts) -> list[Selector]:
    parts = []
    if accounts.selector:
        parts.append(service_account_selector(accounts.selector))
    if accounts.names:
        names = tuple(sorted(set(accounts.names)))
        parts.append(compiled(LabelTest(SERVICE_ACCOUNT_LABEL, Operator.IN, names)))
    return parts


def _nets(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _split_ports(ports: Iterable[Port]) -> tuple[tuple[PortRange, ...], tuple[str, ...]]:
    """Return numeric ports and ranges, and names."""
    numeric: list[PortRange] = []
    names: list[str] = []
    for port in ports:
        parts = str(port).split(":")
        if all(part.isascii() and part.isdigit() for part in parts) and len(parts) <= 2:
            low, high = int(parts[0]), int(parts[-1])
            if not 0 <= low <= high <= _PORT_MAX:
                raise RuleUnusable(f"port {port} is out of range")
            numeric.append((low, high))
        else:
            names.append(str(port))
    return tuple(numeric), tuple(names)


def _port_sets(selector: Selector | None, protocol: str | None, names: Iterable[str]) -> tuple[SetSpec, ...]:
    """Return the sets of the named ports; without a protocol an endpoint's port counts whatever its protocol is."""
    if protocol is None:
        protocols: tuple[str, ...] = ("tcp", "udp", "sctp")
    else:
        protocols = (_PORT_PROTOCOLS.get(protocol, protocol),)
    return tuple(
        named_port_set(selector or _EVERYTHING, NamedPort(known, name)) for name in names for known in protocols
    )
