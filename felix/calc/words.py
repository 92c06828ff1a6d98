"""A rule in a few words for people: what it matches."""

from collections.abc import Iterable

from felix.calc.model import IcmpType, PolicyRule, PortRange, SetSpec, Side

ANYTHING = "anything"
NEVER = "nothing: no packet can be all of it"
_ALL = "all()"


def matches(rule: PolicyRule) -> str:
    """Return what a rule matches: ``tcp from role == "web" to ports 80,443``."""
    if not rule.versions:
        return NEVER
    words = [_protocol(rule), _side("from", rule.source), _side("to", rule.destination)]
    return " ".join(filter(None, (_family(rule), *words))) or ANYTHING


def _family(rule: PolicyRule) -> str:
    """Return the family where nothing else in the rule tells it."""
    told = rule.protocol in ("icmp", "icmpv6") or any(
        side.nets or side.not_nets for side in (rule.source, rule.destination)
    )
    return "" if len(rule.versions) > 1 or told else f"IPv{rule.versions[0]}"


def _protocol(rule: PolicyRule) -> str:
    parts = []
    if rule.protocol is not None:
        parts.append(_named(rule.protocol))
    if rule.not_protocol is not None:
        parts.append(f"not {_named(rule.not_protocol)}")
    if rule.icmp is not None:
        parts.append(_icmp(rule.icmp))
    if rule.not_icmp is not None:
        parts.append(f"not {_icmp(rule.not_icmp)}")
    return " ".join(parts)


def _named(protocol: str) -> str:
    return f"protocol {protocol}" if protocol.isdigit() else protocol


def _icmp(icmp: IcmpType) -> str:
    return f"type {icmp.type}" + ("" if icmp.code is None else f" code {icmp.code}")


def _side(preposition: str, side: Side) -> str:
    parts = [",".join(map(str, side.nets))] if side.nets else []
    parts += _selectors(side.sets)
    ports = [_port(port) for port in side.ports] + _port_names(side.port_sets)
    if side.port_sets and not side.sets:
        parts += _selectors(side.port_sets)
    if ports:
        parts.append(_ports(ports))
    if side.not_nets:
        parts.append("not " + ",".join(map(str, side.not_nets)))
    parts += [f"not ({text})" for text in _selectors(side.not_sets)]
    if side.not_ports or side.not_port_sets:
        parts.append("not " + _ports([_port(port) for port in side.not_ports] + _port_names(side.not_port_sets)))
    return " ".join([preposition, *parts]) if parts else ""


def _selectors(specs: Iterable[SetSpec]) -> list[str]:
    return list(dict.fromkeys(str(spec.selector) for spec in specs if str(spec.selector) != _ALL))


def _port_names(specs: Iterable[SetSpec]) -> list[str]:
    return list(dict.fromkeys(spec.port.name for spec in specs if spec.port is not None))


def _ports(ports: list[str]) -> str:
    return ("port " if len(ports) == 1 else "ports ") + ",".join(ports)


def _port(port: PortRange) -> str:
    return str(port[0]) if port[0] == port[1] else f"{port[0]}:{port[1]}"
