"""The calculation without any memory: recomputes everything from all records, by the definitions. The graph's oracle.

It shares no code with felix.calc beyond the selector language. Both sides are brought into one neutral form: plain
tuples, with the members of a set in the place of its id, so that what a rule means is compared and not how it is kept.
Source: reference felix.md 3.9, 4.1 to 4.4; resources.md 7.2.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from felix.calc.conclusions import Whole
from felix.calc.model import PolicyRule, Rules, SetSpec, Side, TierPolicies
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.rule import EntityRule, Port, Rule
from resources.selector import Constant, SelectorError, parse

INFINITY = float("inf")
NAMESPACE = "projectcalico.org/namespace"
KINDS = {"globalnetworkpolicies": "GlobalNetworkPolicy", "networkpolicies": "NetworkPolicy"}
DEFAULT_ALLOW = "projectcalico-default-allow"
ANYWHERE = "any-interface-at-all"
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
PORT_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
Test = Callable[[Mapping[str, str]], bool]
Members = frozenset[str]
Value = tuple[Any, ...]
DENY = ("Deny", 0, (4, 6), None, None, None, None, ((),) * 8, ((),) * 8)
ALLOW = ("Allow", *DENY[1:])


@dataclass(frozen=True)
class Concluded:
    """What follows for one host, in the neutral form."""

    endpoints: Mapping[str, Value]
    host_endpoints: Mapping[str, Value]
    policies: Mapping[str, Value]
    profiles: Mapping[str, Value]
    sets: frozenset[Members]
    """The members of all sets there are, whoever asks for them."""
    surroundings: Value
    """Pools, masqueraded pools and hosts as members of sets of both families, IPIP, this host's tunnel address."""


@dataclass
class _Item:
    labels: Mapping[str, str]
    networks: list[Any]
    ports: list[tuple[str, str, int]]


class _Unusable(Exception):
    pass


@dataclass
class SlowCalculation:
    """One host and all records. `interfaces`: addresses of the host's own interfaces."""

    node: str
    records: Mapping[ResourceKey, Resource]
    interfaces: Mapping[str, frozenset[str]]
    size_max: int = 1048576
    used: set[Members] = field(default_factory=set)

    def of_kind(self, *plurals: str) -> dict[ResourceKey, Any]:
        return {key: value for key, value in sorted(self.records.items()) if key.plural in plurals}

    def concluded(self) -> Concluded:
        endpoints, hosts = self._endpoints(), self._hosts()
        asked = {
            name
            for value in endpoints.values()
            for _, _, ingress, egress in value[2]
            for name in ingress + egress
        }  # fmt: skip
        asked |= {
            name
            for value in hosts.values()
            for tiers in value[2:]
            for _, _, ingress, egress in tiers
            for name in ingress + egress
        }
        picked = {name for name in self._policies if any(self._picks(name, e) for e in self._served.values())}
        profiles = {name for value in (*endpoints.values(), *hosts.values()) for name in value[1]}
        policies = {name: self._rules_of_policy(name) for name in asked | picked}
        return Concluded(
            endpoints=endpoints,
            host_endpoints=hosts,
            policies=policies,
            profiles={name: self._rules_of_profile(name) for name in profiles},
            sets=frozenset(self.used),
            surroundings=self._surroundings(),
        )

    def _surroundings(self) -> Value:
        pools = [
            (ipaddress.ip_network(pool.spec.cidr), pool.spec)
            for pool in self.of_kind("ippools").values()
            if pool.spec.allowed_uses != ["LoadBalancer"]
        ]
        nodes = {key.name: node.spec.bgp for key, node in self.of_kind("nodes").items() if node.spec.bgp}
        hosts = [text for bgp in nodes.values() for text in (bgp.ipv4_address, bgp.ipv6_address) if text]
        own = nodes.get(self.node)
        return (
            frozenset(_texts(cidr for cidr, _ in pools)),
            frozenset(_texts(cidr for cidr, spec in pools if spec.nat_outgoing)),
            frozenset(text.partition("/")[0] for text in hosts),
            any(spec.ipip_mode in ("Always", "CrossSubnet") for _, spec in pools),
            (own.ipv4_ipip_tunnel_addr or None) if own else None,
        )

    # What is there.

    @cached_property
    def _profiles(self) -> dict[str, Any]:
        return {key.name: value for key, value in self.of_kind("profiles").items() if key.name != DEFAULT_ALLOW}

    @cached_property
    def _tiers(self) -> dict[str, tuple[float, str]]:
        found = {"default": (1_000_000.0, "Deny")}
        for key, tier in self.of_kind("tiers").items():
            order = INFINITY if tier.spec.order is None else tier.spec.order
            found[key.name] = order, "Pass" if tier.spec.default_action == "Pass" else "Deny"
        return found

    @cached_property
    def _policies(self) -> dict[str, tuple[ResourceKey, Any, Test]]:
        """Policies whose selectors can be read, by kind, namespace and name."""
        found = {}
        for key, policy in self.of_kind(*KINDS).items():
            try:
                tests = [_test(policy.spec.selector)]
                if namespaces := getattr(policy.spec, "namespace_selector", ""):
                    tests.append(_namespace_test(namespaces))
            except SelectorError:
                continue
            if key.plural == "networkpolicies":
                tests.append(_is_in(key.namespace or ""))
            found[f"{KINDS[key.plural]}/{key.namespace or ''}/{key.name}"] = key, policy, _every(tests)
        return found

    def _labels(self, thing: Any) -> dict[str, str]:
        labels: dict[str, str] = {}
        for name in reversed(getattr(thing.spec, "profiles", [])):
            if name in self._profiles:
                labels.update(self._profiles[name].spec.labels_to_apply)
        labels.update(thing.metadata.labels)
        return labels

    @cached_property
    def _items(self) -> list[_Item]:
        items = []
        for endpoint in self.of_kind("workloadendpoints").values():
            items.append(_item(self._labels(endpoint), endpoint.spec.ip_networks, endpoint.spec.ports))
        for endpoint in self.of_kind("hostendpoints").values():
            items.append(_item(self._labels(endpoint), endpoint.spec.expected_ips, endpoint.spec.ports))
        for key, made in self.of_kind("globalnetworksets", "networksets").items():
            labels = dict(made.metadata.labels)
            if key.namespace:
                labels[NAMESPACE] = key.namespace
            items.append(_item(labels, made.spec.nets, []))
        return items

    # Endpoints.

    @cached_property
    def _served(self) -> dict[str, Any]:
        """The workload that has each interface: of several the lowest by what makes its name."""
        found: dict[str, tuple[Value, Any]] = {}
        for key, endpoint in self.of_kind("workloadendpoints").items():
            spec = endpoint.spec
            if spec.node != self.node or not spec.interface_name.startswith("cali"):
                continue
            rank = (spec.orchestrator, f"{endpoint.metadata.namespace}/{spec.workload}", spec.endpoint, key)
            held = found.get(spec.interface_name)
            if held is None or rank < held[0]:
                found[spec.interface_name] = rank, endpoint
        return {name: endpoint for name, (_, endpoint) in found.items()}

    def _endpoints(self) -> dict[str, Value]:
        return {
            name: (
                frozenset(endpoint.spec.ip_networks),
                tuple(dict.fromkeys(endpoint.spec.profiles)),
                self._tiers_of(endpoint, _is_normal),
                tuple(map(str, map(ipaddress.ip_network, endpoint.spec.allow_spoofed_source_prefixes))),
                endpoint.spec.mac or None,
            )
            for name, endpoint in self._served.items()
        }

    def _hosts(self) -> dict[str, Value]:
        claims: dict[str, dict[str, Any]] = {}
        for key, endpoint in self.of_kind("hostendpoints").items():
            spec = endpoint.spec
            if spec.node != self.node:
                continue
            if spec.interface_name:
                names = [ANYWHERE if spec.interface_name == "*" else spec.interface_name]
            else:
                names = [name for name, held in self.interfaces.items() if held & set(spec.expected_ips)]
            for name in names:
                if not name.startswith("cali"):
                    claims.setdefault(name, {})[key.name] = endpoint
        found = {}
        for name, by_record in claims.items():
            record = min(by_record)
            endpoint = by_record[record]
            untracked = self._tiers_of(endpoint, lambda spec: getattr(spec, "do_not_track", False), end="Pass")
            before = self._tiers_of(endpoint, lambda spec: getattr(spec, "pre_dnat", False), end="Pass")
            found[name] = (
                record,
                tuple(dict.fromkeys(endpoint.spec.profiles)),
                () if name == ANYWHERE else untracked,
                tuple((tier, action, ingress, ()) for tier, action, ingress, _ in before if ingress),
                self._tiers_of(endpoint, _is_normal),
                self._tiers_of(
                    endpoint, lambda spec: _is_normal(spec) and getattr(spec, "apply_on_forward", False)
                ),
            )
        return found

    def _picks(self, name: str, endpoint: Any) -> bool:
        _, policy, test = self._policies[name]
        return _is_normal(policy.spec) and test(self._labels(endpoint))

    def _tiers_of(self, endpoint: Any, counts: Callable[[Any], bool], end: str | None = None) -> Value:
        labels = self._labels(endpoint)
        by_tier: dict[str, list[tuple[Value, str, list[str]]]] = {}
        for name, (key, policy, test) in self._policies.items():
            if counts(policy.spec) and test(labels):
                order = INFINITY if policy.spec.order is None else policy.spec.order
                place = (order, key.name, key.namespace or "", KINDS[key.plural])
                by_tier.setdefault(policy.spec.tier or "default", []).append((place, name, _types(policy.spec)))
        tiers = []
        for tier in sorted(by_tier, key=lambda name: (self._tiers.get(name, (-INFINITY, ""))[0], name)):
            chosen = sorted(by_tier[tier])
            ingress = tuple(name for _, name, types in chosen if "Ingress" in types)
            egress = tuple(name for _, name, types in chosen if "Egress" in types)
            tiers.append((tier, end or self._tiers.get(tier, (0, "Deny"))[1], ingress, egress))
        return tuple(tiers)

    # Rules.

    def _rules_of_policy(self, name: str) -> Value:
        key, policy, _ = self._policies[name]
        types = _types(policy.spec)
        namespace = key.namespace or ""
        is_closed = (policy.spec.tier or "default") not in self._tiers
        ways: list[Value | None] = []
        for way, rules in (("Ingress", policy.spec.ingress), ("Egress", policy.spec.egress)):
            if way not in types:
                ways.append(None)
            else:
                ways.append((DENY,) if is_closed else self._read(rules, namespace))
        return tuple(ways)

    def _rules_of_profile(self, name: str) -> Value:
        if name == DEFAULT_ALLOW:
            return (ALLOW,), (ALLOW,)
        if name not in self._profiles:
            return (DENY,), (DENY,)
        spec = self._profiles[name].spec
        return tuple(
            tuple(("Deny", *rule[1:]) if rule[0] == "Pass" else rule for rule in self._read(rules, ""))
            for rules in (spec.ingress, spec.egress)
        )

    def _read(self, rules: Sequence[Rule], namespace: str) -> Value:
        """Return rules in the neutral form: what cannot be enforced denies if it did not allow, else it is left out."""
        read: list[Value] = []
        for number, rule in enumerate(rules, 1):
            try:
                made, sets = self._rule(rule, number, namespace)
            except (_Unusable, SelectorError):
                if rule.action not in ("Allow", "Log"):
                    read.append(("Deny", number, *DENY[2:]))
                continue
            self.used |= {members for members in sets if self._fits(members)}
            if all(self._fits(members) for members in sets):
                read.append(made)
            elif rule.action not in ("Allow", "Log"):
                read.append(("Deny", number, *DENY[2:]))
        return tuple(read)

    def _fits(self, members: Members) -> bool:
        v6 = sum(1 for member in members if ":" in member.partition(",")[0])
        return max(v6, len(members) - v6) <= self.size_max

    def _rule(self, rule: Rule, number: int, namespace: str) -> tuple[Value, set[Members]]:
        protocol, refused = _protocol(rule.protocol), _protocol(rule.not_protocol)
        source, of_source = self._side(rule.source, protocol, namespace)
        destination, of_destination = self._side(rule.destination, protocol, namespace)
        icmp = _icmp(rule.icmp)
        if icmp is not None and (protocol is None or _number(protocol) not in (1, 58)):
            raise _Unusable
        versions = {4, 6}
        if rule.ip_version is not None:
            versions &= {rule.ip_version}
        if protocol is not None and _number(protocol) in (1, 58) and (icmp or not protocol.isdigit()):
            versions &= {4 if _number(protocol) == 1 else 6}
        for side in (rule.source, rule.destination):
            for nets in (side.nets, side.not_nets):
                if nets:
                    versions &= {ipaddress.ip_network(net).version for net in nets}
            versions -= {ipaddress.ip_network(net).version for net in side.not_nets if net.endswith("/0")}
        if protocol is not None and refused is not None:
            if _number(protocol) == _number(refused):
                versions = set()
            refused = None
        made = (
            rule.action, number, tuple(sorted(versions)), protocol, refused, icmp, _icmp(rule.not_icmp), source,
            destination,
        )  # fmt: skip
        return made, of_source | of_destination

    def _side(self, side: EntityRule, protocol: str | None, namespace: str) -> tuple[Value, set[Members]]:
        tests = []
        if side.namespace_selector:
            tests.append(_namespace_test(side.namespace_selector))
        elif namespace and (side.selector or side.not_selector):
            tests.append(_is_in(namespace))
        if side.selector:
            tests.append(_test(side.selector))
        refused = _test(side.not_selector) if side.not_selector else None
        if tests and refused is not None:
            unwanted, refused = refused, None
            tests.append(lambda labels: not unwanted(labels))
        wanted = _every(tests) if tests else None
        numbers, names = _ports(side.ports)
        not_numbers, not_names = _ports(side.not_ports)
        if (numbers or not_numbers) and (protocol is None or _number(protocol) not in PORT_NAMES):
            raise _Unusable
        if protocol is None:
            protocols = ["tcp", "udp", "sctp"]
        else:
            protocols = [PORT_NAMES.get(_number(protocol), protocol)]

        def named(asked: Iterable[str]) -> tuple[Members, ...]:
            return tuple(self._ports_of(wanted, name, known) for name in asked for known in protocols)

        by_name_only = bool(names) and not numbers
        sets = () if wanted is None or by_name_only else (self._addresses_of(wanted),)
        not_sets = () if refused is None else (self._addresses_of(refused),)
        named_sets, not_named_sets = named(names), named(not_names)
        made = (
            tuple(map(str, map(ipaddress.ip_network, side.nets))), sets, numbers, named_sets,
            tuple(map(str, map(ipaddress.ip_network, side.not_nets))), not_sets, not_numbers, not_named_sets,
        )  # fmt: skip
        return made, {*sets, *not_sets, *named_sets, *not_named_sets}

    def _addresses_of(self, test: Test) -> Members:
        return frozenset(text for item in self._items if test(item.labels) for text in _texts(item.networks))

    def _ports_of(self, test: Test | None, name: str, protocol: str) -> Members:
        return frozenset(
            f"{text},{known}:{number}"
            for item in self._items
            if test is None or test(item.labels)
            for declared, known, number in item.ports
            if (declared, known) == (name, protocol)
            for text in _texts(item.networks)
        )


def _item(labels: Mapping[str, str], networks: Iterable[str], ports: Iterable[Any]) -> _Item:
    declared = [(port.name, PORT_NAMES[_number(_protocol(port.protocol) or "")], port.port) for port in ports]
    return _Item(labels, [ipaddress.ip_network(text, strict=False) for text in networks], declared)


def _texts(networks: Iterable[Any]) -> Iterable[str]:
    for network in networks:
        for part in network.subnets() if network.prefixlen == 0 else [network]:
            yield str(part.network_address) if part.num_addresses == 1 else str(part)


def _types(spec: Any) -> list[str]:
    if spec.types:
        return list(spec.types)
    if not spec.egress:
        return ["Ingress"]
    return ["Ingress", "Egress"] if spec.ingress else ["Egress"]


def _is_normal(spec: Any) -> bool:
    return not (getattr(spec, "do_not_track", False) or getattr(spec, "pre_dnat", False))


def _test(selector: str) -> Test:
    return parse(selector).matches


def _every(tests: Sequence[Test]) -> Test:
    return lambda labels: all(test(labels) for test in tests)


def _is_in(namespace: str) -> Test:
    return lambda labels: labels.get(NAMESPACE) == namespace


def _namespace_test(text: str) -> Test:
    """A test of the labels of something's namespace, which stand beside its own with a prefix. Constants only alone."""
    root = parse(text).root
    if root is Constant.ALL:
        return lambda labels: NAMESPACE in labels
    if root is Constant.GLOBAL:
        return lambda labels: NAMESPACE not in labels
    test = _test(text)
    return lambda labels: test({k.removeprefix("pcns."): v for k, v in labels.items() if k.startswith("pcns.")})


def _protocol(protocol: int | str | None) -> str | None:
    if protocol is None:
        return None
    text = str(protocol).lower()
    if text not in NUMBERS and not text.isdigit():
        raise _Unusable
    return text


def _number(protocol: str) -> int:
    return NUMBERS.get(protocol) or int(protocol)


def _icmp(icmp: Any) -> Value | None:
    return None if icmp is None or icmp.type is None else (icmp.type, icmp.code)


def _ports(ports: Iterable[Port]) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    numbers, names = [], []
    for port in map(str, ports):
        low, colon, high = port.partition(":")
        if low.isdigit():
            numbers.append((int(low), int(high if colon else low)))
        else:
            names.append(port)
    return tuple(numbers), tuple(names)


# The graph's conclusions in the same form.


def neutral(whole: Whole) -> Concluded:
    """Return what a graph concluded in the form of the slow one."""
    around = whole.surroundings
    members = {i: frozenset().union(*by_version.values()) for i, (_, by_version) in whole.sets.items()}
    return Concluded(
        endpoints={
            name: (
                frozenset(map(str, each.addresses)), each.profiles, _tiers(each.tiers),
                tuple(map(str, each.spoofed_sources)), each.mac,
            )
            for name, each in whole.endpoints.items()
        },
        host_endpoints={
            name: (
                each.name, each.profiles, _tiers(each.untracked), _tiers(each.pre_dnat), _tiers(each.normal),
                _tiers(each.forward),
            )
            for name, each in whole.host_endpoints.items()
        },
        policies={
            f"{each.kind}/{each.namespace}/{each.name}": _rules(rules, members)
            for each, rules in whole.policies.items()
        },
        profiles={name: _rules(rules, members) for name, rules in whole.profiles.items()},
        sets=frozenset(members.values()),
        surroundings=() if around is None else (
            frozenset().union(*around.pools.values()), frozenset().union(*around.masqueraded_pools.values()),
            frozenset().union(*around.hosts.values()), around.ipip, around.tunnel_address,
        ),
    )  # fmt: skip


def _tiers(tiers: Iterable[TierPolicies]) -> Value:
    return tuple(
        (
            tier.name,
            tier.default_action.value,
            *(tuple(f"{p.kind}/{p.namespace}/{p.name}" for p in way) for way in (tier.ingress, tier.egress)),
        )
        for tier in tiers
    )


def _rules(rules: Rules, members: Mapping[str, Members]) -> Value:
    return tuple(
        None if way is None else tuple(_neutral_rule(rule, members) for rule in way)
        for way in (rules.ingress, rules.egress)
    )


def _neutral_rule(rule: PolicyRule, members: Mapping[str, Members]) -> Value:
    icmp, not_icmp = ((each.type, each.code) if each else None for each in (rule.icmp, rule.not_icmp))
    return (
        rule.action.value, rule.number, rule.versions, rule.protocol, rule.not_protocol, icmp, not_icmp,
        _neutral_side(rule.source, members), _neutral_side(rule.destination, members),
    )  # fmt: skip


def _neutral_side(side: Side, members: Mapping[str, Members]) -> Value:
    def of(specs: Iterable[SetSpec]) -> tuple[Members, ...]:
        return tuple(members[spec.id] for spec in specs)

    return (
        tuple(map(str, side.nets)), of(side.sets), side.ports, of(side.port_sets), tuple(map(str, side.not_nets)),
        of(side.not_sets), side.not_ports, of(side.not_port_sets),
    )  # fmt: skip
