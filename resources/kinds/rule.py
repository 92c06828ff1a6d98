"""Rules, as policies and profiles carry them (reference resources.md 2.9). Not a kind by itself."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from resources.kinds import fields
from resources.kinds.base import Path, Problem, wire
from resources.names import IPNetwork, parse_network

if TYPE_CHECKING:
    from resources.selector import Selector

PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
ACTIONS = ("Allow", "Deny", "Log", "Pass")

Protocol = Annotated[int | str, msgspec.Meta(extra={"form": "protocol"})]
"""A number 1 to 255, or one of PROTOCOLS."""
Port = Annotated[int | str, msgspec.Meta(extra={"form": "port"})]
"""A number, a range ``"8080:8090"``, or the name of a port."""


class ICMP(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: int | None = None
    code: int | None = None


class Services(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    namespace: str = ""


class ServiceAccounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    names: list[str] = []
    selector: str = ""


class EntityRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One side of a rule: all conditions must hold; an empty one matches everything."""

    nets: list[str] = []
    selector: str = ""
    namespace_selector: str = ""
    services: Services | None = None
    ports: list[Port] = []
    not_nets: list[str] = []
    not_selector: str = ""
    not_ports: list[Port] = []
    service_accounts: ServiceAccounts | None = None


class HTTPPath(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    exact: str = ""
    prefix: str = ""


class HTTPMatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    methods: list[str] = []
    paths: list[HTTPPath] = []


class RuleMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    annotations: dict[str, str] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(not_icmp="notICMP")):
    action: str
    ip_version: int | None = None
    protocol: Protocol | None = None
    icmp: ICMP | None = None
    not_protocol: Protocol | None = None
    not_icmp: ICMP | None = None
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: HTTPMatch | None = None
    metadata: RuleMetadata | None = None


def rules_problems(path: Path, rules: Sequence[Rule]) -> Iterator[Problem]:
    """Check a list of rules wherever it stands; which way the traffic goes is `direction_problems`."""
    for index, rule in enumerate(rules):
        yield from _rule_problems((*path, index), rule)


def direction_problems(path: Path, rules: Sequence[Rule], *, ingress: bool) -> Iterator[Problem]:
    """Check what a policy's rules may have only one way: services and HTTP matches."""
    near = "destination" if ingress else "source"
    for index, rule in enumerate(rules):
        at = (*path, index)
        if (rule.destination if ingress else rule.source).services is not None:
            way = "ingress" if ingress else "egress"
            yield Problem((*at, near, "services"), "", f"not allowed in {way} rule {near}")
        if rule.http is not None and not ingress:
            yield Problem((*at, "http"), "", "not allowed in egress rules")


def service_namespace_problems(path: Path, rules: Sequence[Rule]) -> Iterator[Problem]:
    """Check that services have a namespace where the policy has none that could be meant."""
    for index, rule in enumerate(rules):
        for name, side in (("source", rule.source), ("destination", rule.destination)):
            if side.services is not None and not side.services.namespace:
                yield Problem((*path, index, name, "services", "namespace"), "", "must specify a namespace")


def _rule_problems(path: Path, rule: Rule) -> Iterator[Problem]:
    if not rule.action:
        yield Problem((*path, "action"), "", f"an action is needed: {', '.join(ACTIONS)}")
    yield from fields.one_of((*path, "action"), rule.action, ACTIONS)
    if rule.ip_version not in (None, 4, 6):
        yield Problem((*path, "ipVersion"), str(rule.ip_version), "must be 4 or 6")
    yield from _protocol((*path, "protocol"), rule.protocol)
    yield from _protocol((*path, "notProtocol"), rule.not_protocol)
    yield from _icmp_problems(path, rule)
    yield from _ports_problems(path, rule)
    yield from _nets_problems(path, rule)
    for name, side in (("source", rule.source), ("destination", rule.destination)):
        yield from _side_problems((*path, name), side)
    yield from _http_problems(path, rule)
    if rule.metadata is not None:
        yield from fields.annotations((*path, "metadata", "annotations"), rule.metadata.annotations)


def _protocol(path: Path, protocol: Protocol | None) -> Iterator[Problem]:
    if isinstance(protocol, int):
        if not 1 <= protocol <= 255:
            yield Problem(path, str(protocol), "protocol number invalid: it is 1 to 255")
    elif protocol is not None and protocol not in PROTOCOLS:
        yield Problem(path, protocol, *protocol_fault(protocol, PROTOCOLS))


def protocol_fault(name: str, names: Sequence[str]) -> tuple[str, str | None]:
    """Return what to say of a name that is none, and the way out; `names` as the document's era spells them."""
    reason = f"protocol name invalid: names are {', '.join((*names, *fields.NUMBERED_PROTOCOLS))}"
    if same := next((known for known in names if known.lower() == name.lower()), None):
        return reason, f"did you mean '{same}'?"
    if name.lower() in ("ipip", "ip-in-ip", "ip"):
        return reason, "IP in IP is 4"
    from difflib import get_close_matches  # only after a mistake

    known = {one.lower(): one for one in (*names, *fields.NUMBERED_PROTOCOLS)}
    if near := get_close_matches(name.lower(), known, n=1):
        return reason, f"did you mean '{known[near[0]]}'?"
    return reason, "any other is written as its number, 1 to 255"


NO_NAMESPACE_LABELS = "selects nothing: namespaces have labels only in Kubernetes"
NAMESPACE_HINT = "write projectcalico.org/namespace == 'libnetwork' into selector, say"


def written_rule_problems(path: Path, rules: Sequence[Rule]) -> Iterator[Problem]:
    """Find what is refused or warned of when rules are written, and is no reason not to read stored ones.

    Refused is what the original takes and nobody can enforce on a plain Docker host; a stored rule of that sort is
    closed by whoever enforces it.
    """
    for index, rule in enumerate(rules):
        yield from _unsupported((*path, index), rule)
        yield from _never((*path, index), rule)


def _unsupported(path: Path, rule: Rule) -> Iterator[Problem]:
    if rule.http is not None:
        reason = "nothing here can enforce it: requests of HTTP cannot be told apart by addresses and ports"
        yield Problem((*path, "http"), "", reason, "leave http out and allow the port, or let a proxy decide")
    for name, side in (("source", rule.source), ("destination", rule.destination)):
        if side.services is not None:
            reason, hint = "services exist only in Kubernetes", "name endpoints by selector, or addresses by nets"
            yield Problem((*path, name, "services"), side.services.name, reason, hint)
        accounts = side.service_accounts
        if accounts is not None and (accounts.names or accounts.selector):
            shown = ", ".join(accounts.names) or accounts.selector
            reason, hint = "service accounts exist only in Kubernetes", "give the endpoints a label and select by that"
            yield Problem((*path, name, "serviceAccounts"), shown, reason, hint)


def _never(path: Path, rule: Rule) -> Iterator[Problem]:
    """Warn of a rule that cannot match."""
    if rule.protocol is not None and rule.protocol == rule.not_protocol:
        reason = "never matches: protocol and notProtocol are the same"
        yield Problem((*path, "notProtocol"), str(rule.not_protocol), reason, warning=True)
    for name, side in (("source", rule.source), ("destination", rule.destination)):
        text = side.namespace_selector
        if picks_no_namespace(text):
            at = (*path, name, "namespaceSelector")
            yield Problem(at, text, NO_NAMESPACE_LABELS, NAMESPACE_HINT, warning=True)


def picks_no_namespace(text: str) -> bool:
    """Return whether a selector over namespaces picks nothing where namespaces have no labels."""
    if not text:
        return False
    from resources.selection import namespace_selector  # not needed by a reader of pools and nodes

    return _picks_nothing(text, namespace_selector)


def picks_no_service_account(text: str) -> bool:
    """Return whether a selector over service accounts picks nothing where there are none."""
    if not text:
        return False
    from resources.selection import service_account_selector

    return _picks_nothing(text, service_account_selector)


def _picks_nothing(text: str, meaning: "Callable[[str], Selector]") -> bool:
    from resources.selection import NAMESPACE_LABEL
    from resources.selector import SelectorError

    try:
        selector = meaning(text)
    except SelectorError:
        return False
    return not any(selector.matches(labels) for labels in ({}, {NAMESPACE_LABEL: "any"}))


def _icmp_problems(path: Path, rule: Rule) -> Iterator[Problem]:
    for name, icmp in (("icmp", rule.icmp), ("notICMP", rule.not_icmp)):
        if icmp is None:
            continue
        yield from fields.between((*path, name, "type"), icmp.type, 0, 254)
        yield from fields.between((*path, name, "code"), icmp.code, 0, 255)
        if icmp.code is not None and icmp.type is None:
            yield Problem((*path, name, "code"), str(icmp.code), "ICMP code specified without an ICMP type")
    if rule.icmp is not None and rule.protocol not in ("ICMP", "ICMPv6"):
        shown = "" if rule.protocol is None else str(rule.protocol)
        reason = "rules that specify ICMP fields must set protocol to ICMP"
        yield Problem((*path, "protocol"), shown, reason, "or to ICMPv6")
    for name, version in (("ICMP", 4), ("ICMPv6", 6)):
        if name in (rule.protocol, rule.not_protocol) and rule.ip_version not in (None, version):
            reason = f"must set ipversion to '{version}' with protocol {name.lower()}"
            yield Problem((*path, "ipVersion"), str(rule.ip_version), reason)


def _ports_problems(path: Path, rule: Rule) -> Iterator[Problem]:
    for side_name, side in (("source", rule.source), ("destination", rule.destination)):
        for name, ports in (("ports", side.ports), ("notPorts", side.not_ports)):
            at = (*path, side_name, name)
            for index, port in enumerate(ports):
                yield from fields.port((*at, index), port)
            if not ports or fields.carries_ports(rule.protocol):
                continue
            shown = ", ".join(map(str, ports))
            if rule.protocol is not None:
                yield Problem(at, shown, "rules that specify ports must set protocol to TCP or UDP or SCTP")
            elif any(_is_numeric(port) for port in ports):
                yield Problem(
                    at, shown, "rules with numeric port or port range must set protocol to TCP or UDP or SCTP"
                )


def _is_numeric(port: Port) -> bool:
    try:
        return fields.port_range(port) is not None
    except ValueError:
        return False


def _nets_problems(path: Path, rule: Rule) -> Iterator[Problem]:
    versions: set[int] = set()
    for side_name, side in (("source", rule.source), ("destination", rule.destination)):
        for name, nets in (("nets", side.nets), ("notNets", side.not_nets)):
            at = (*path, side_name, name)
            found = set()
            for index, text in enumerate(nets):
                if not text:
                    yield Problem((*at, index), "", "invalid CIDR")
                yield from fields.network((*at, index), text, bare=False)
                network = _parsed(text)
                if network is None:
                    continue
                found.add(network.version)
                if name == "notNets" and network.prefixlen == 0:
                    reason = "catch-all CIDR in negation creates logical contradiction (matches no traffic)"
                    yield Problem((*at, index), text, reason)
            if rule.ip_version is not None and found - {rule.ip_version}:
                yield Problem(at, ", ".join(nets), "rule IP version doesn't match CIDR version")
            if len(versions | found) > 1 and found:
                yield Problem(at, ", ".join(nets), "rule contains both IPv4 and IPv6 CIDRs")
            versions |= found
    for protocol, version in (("ICMP", 6), ("ICMPv6", 4)):
        if rule.protocol == protocol and versions == {version}:
            reason = f"never matches: {protocol} with IPv{version} nets"
            yield Problem((*path, "protocol"), protocol, reason, warning=True)


def _parsed(text: str) -> IPNetwork | None:
    try:
        return parse_network(text) if "/" in text else None
    except ValueError:
        return None


def _side_problems(path: Path, side: EntityRule) -> Iterator[Problem]:
    yield from fields.selector((*path, "selector"), side.selector)
    # The original looks for global() in some fields only; elsewhere it matches everything (resources.md 7.2).
    yield from fields.selector((*path, "notSelector"), side.not_selector, global_anywhere=True)
    yield from fields.selector((*path, "namespaceSelector"), side.namespace_selector, global_alone=True)
    if side.service_accounts is not None:
        at: Path = (*path, "serviceAccounts", "selector")
        yield from fields.selector(at, side.service_accounts.selector, global_anywhere=True)
    if side.services is None:
        return
    at = (*path, "services")
    if not side.services.name:
        yield Problem((*at, "name"), "", "must specify a service name")
    excluded = (
        ("NamespaceSelector", side.namespace_selector),
        ("Selector/NotSelector", side.selector or side.not_selector),
        ("ServiceAccounts", side.service_accounts),
        ("Nets/NotNets", side.nets or side.not_nets),
    )
    for what, given in excluded:
        if given:
            yield Problem(at, side.services.name, f"cannot specify {what} and Services on the same rule")
    if path[-1] == "destination" and (side.ports or side.not_ports):
        field = "ports" if side.ports else "notPorts"
        yield Problem((*path, field), "", f"cannot specify {field.lower()} with a service selector")


def _http_problems(path: Path, rule: Rule) -> Iterator[Problem]:
    http = rule.http
    if http is None:
        return
    if rule.protocol not in (None, "TCP"):
        reason = "rules that specify HTTP fields must set protocol to TCP or empty"
        yield Problem((*path, "protocol"), str(rule.protocol), reason)
    if rule.action != "Allow":
        yield Problem((*path, "http"), "", "only valid for Allow rules")
    if len(set(http.methods)) < len(http.methods):
        yield Problem((*path, "http", "methods"), ", ".join(http.methods), "a method occurs more than once")
    for index, match in enumerate(http.paths):
        at = (*path, "http", "paths", index)
        text = match.exact or match.prefix
        if bool(match.exact) == bool(match.prefix):
            yield Problem(at, text, "exactly one of 'exact' and 'prefix' must be set")
        elif not text.startswith("/") or any(character in text for character in "? #"):
            yield Problem(at, text, "must start with '/' and not contain '?', '#' or a blank")
