"""What the records of the store mean for a packet, read straight from reference felix.md 4.1 to 4.3. Slow and plain.

It shares no code with the calculation: it evaluates selectors on every endpoint for every rule of every packet.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fakes.packets import PROTOCOLS, Packet
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.profile import Profile
from resources.kinds.rule import EntityRule, Port, Rule
from resources.kinds.tier import Tier
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import IPNetwork
from resources.selector import parse

INFINITY = float("inf")
NAMESPACE = "projectcalico.org/namespace"
POLICIES = ("globalnetworkpolicies", "networkpolicies")
SETS = ("globalnetworksets", "networksets")


@dataclass(frozen=True)
class Owner:
    """Something that rules can pick: an endpoint or a network set."""

    labels: Mapping[str, str]
    networks: tuple[IPNetwork, ...]
    ports: tuple[tuple[str, int, int], ...] = ()
    """Name, protocol, number."""


@dataclass
class World:
    """All records. Not to be changed after the first question."""

    records: Mapping[ResourceKey, Resource]
    _parsed: dict[str, Any] = field(default_factory=dict)

    def of_kind(self, *plurals: str) -> dict[ResourceKey, Any]:
        return {key: value for key, value in self.records.items() if key.plural in plurals}

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        return {key.name: value for key, value in self.of_kind("profiles").items()}

    @cached_property
    def tiers(self) -> dict[str, Tier]:
        return {key.name: value for key, value in self.of_kind("tiers").items()}

    @cached_property
    def endpoints(self) -> list[WorkloadEndpoint]:
        return list(self.of_kind("workloadendpoints").values())

    @cached_property
    def owners(self) -> list[Owner]:
        found = []
        for endpoint in self.endpoints:
            ports = tuple((port.name, _number(port.protocol), port.port) for port in endpoint.spec.ports)
            found.append(Owner(self.labels(endpoint), _networks(endpoint.spec.ip_networks), ports))
        for endpoint in self.of_kind("hostendpoints").values():
            ports = tuple((port.name, _number(port.protocol), port.port) for port in endpoint.spec.ports)
            found.append(Owner(self.labels(endpoint), _networks(endpoint.spec.expected_ips), ports))
        for key, made in self.of_kind(*SETS).items():
            labels = dict(made.metadata.labels)
            if key.plural == "networksets":
                labels[NAMESPACE] = key.namespace
            found.append(Owner(labels, _networks(made.spec.nets)))
        return found

    def setting(self, field: str) -> Any:
        """Return a field of the FelixConfiguration, None if it is not given."""
        (*_, found) = [None, *(getattr(one.spec, field) for one in self.of_kind("felixconfigurations").values())]
        return found

    def labels(self, endpoint: Any) -> dict[str, str]:
        """Return the effective labels of a workload or host endpoint."""
        labels: dict[str, str] = {}
        for name in reversed(endpoint.spec.profiles):
            if name in self.profiles:
                labels |= self.profiles[name].spec.labels_to_apply
        return {**labels, **endpoint.metadata.labels}

    def with_address(self, address: str) -> list[Owner]:
        parsed = ipaddress.ip_address(address)
        return [owner for owner in self.owners if any(parsed in net for net in owner.networks)]

    def allows(self, endpoint: Any, direction: str, packet: Packet) -> bool:
        """Tell whether the workload may send ("egress") or get ("ingress") the packet."""
        if packet.state in ("ESTABLISHED", "RELATED"):
            return True
        if packet.state == "INVALID" and not self.setting("disable_conntrack_invalid_check"):
            return False
        if direction == "egress" and packet.protocol == 4 and not self.setting("allow_ipip_packets_from_workloads"):
            return False
        is_vxlan = (packet.protocol, packet.destination_port) == (17, 4789)
        if direction == "egress" and is_vxlan and not self.setting("allow_vxlan_packets_from_workloads"):
            return False
        verdict = self.tiers_say(endpoint, direction, packet, _is_of_workloads)
        return self.profiles_say(endpoint, direction, packet) if verdict is None else verdict

    def tiers_say(self, endpoint: Any, direction: str, packet: Packet, counts: Any, end: str | None = None) -> Any:
        """Return what the tiers decide; None: nothing. `counts`: which policies; `end`: the end of every tier."""
        labels = self.labels(endpoint)
        for name in self.tier_order():
            policies = self.policies_of(name, labels, direction, counts)
            if not policies:
                continue
            if name not in self.tiers and name != "default":
                return False
            verdict = self._first(policies, direction, packet)
            if verdict is None:
                default = self.tiers[name].spec.default_action if name in self.tiers else None
                verdict = end or default or "Deny"
            if verdict != "Pass":
                return verdict == "Allow"
        return None

    def profiles_say(self, endpoint: Any, direction: str, packet: Packet) -> bool:
        for profile in endpoint.spec.profiles:
            if profile == "projectcalico-default-allow":
                return True
            if profile not in self.profiles:
                return False
            verdict = self._first_of(getattr(self.profiles[profile].spec, direction), packet, "")
            if verdict is not None:
                return verdict == "Allow"
        return False

    def tier_order(self) -> list[str]:
        def order(name: str) -> tuple[float, str]:
            if name not in self.tiers:
                return 1_000_000.0 if name == "default" else -INFINITY, name
            given = self.tiers[name].spec.order
            return INFINITY if given is None else given, name

        return sorted({policy.spec.tier or "default" for policy in self.of_kind(*POLICIES).values()}, key=order)

    def policies_of(
        self, tier: str, labels: Mapping[str, str], direction: str, counts: Any
    ) -> list[tuple[ResourceKey, Any]]:
        """Return the policies of a tier that apply to what has these labels, in the order in which they are asked."""
        found = []
        for key, policy in self.of_kind(*POLICIES).items():
            spec = policy.spec
            types = spec.types or (["Ingress"] if not spec.egress else ["Egress"])
            if not spec.types and spec.ingress and spec.egress:
                types = ["Ingress", "Egress"]
            if (
                (spec.tier or "default") == tier
                and direction.capitalize() in types
                and counts(spec)
                and self._picks(key, spec, labels)
            ):
                order = INFINITY if spec.order is None else spec.order
                found.append(((order, key.name, key.namespace or "", key.plural), key, policy))
        return [(key, policy) for _, key, policy in sorted(found, key=lambda one: one[0])]

    def _picks(self, key: ResourceKey, spec: Any, labels: Mapping[str, str]) -> bool:
        if key.plural == "networkpolicies" and labels.get(NAMESPACE) != key.namespace:
            return False
        namespaces = getattr(spec, "namespace_selector", "")
        if namespaces and not self._of_namespaces(namespaces, labels):
            return False
        accounts = spec.service_account_selector
        return self._matches(spec.selector, labels) and not accounts

    def _matches(self, selector: str, labels: Mapping[str, str]) -> bool:
        if selector not in self._parsed:
            self._parsed[selector] = parse(selector)
        return bool(self._parsed[selector].matches(labels))

    def _of_namespaces(self, selector: str, labels: Mapping[str, str]) -> bool:
        """Ask a selector about the namespace that something is in: its labels stand on what is in it, marked pcns."""
        if selector == "all()":
            return NAMESPACE in labels
        if selector == "global()":
            return NAMESPACE not in labels
        return self._matches(selector, {k.removeprefix("pcns."): v for k, v in labels.items() if k.startswith("pcns.")})

    def _first(self, policies: Iterable[tuple[ResourceKey, Any]], direction: str, packet: Packet) -> str | None:
        for key, policy in policies:
            namespace = key.namespace or "" if key.plural == "networkpolicies" else ""
            verdict = self._first_of(getattr(policy.spec, direction), packet, namespace)
            if verdict is not None:
                return verdict
        return None

    def _first_of(self, rules: Sequence[Rule], packet: Packet, namespace: str) -> str | None:
        for rule in rules:
            if rule.action != "Log" and self.matches(rule, packet, namespace):
                return rule.action
        return None

    def matches(self, rule: Rule, packet: Packet, namespace: str = "") -> bool:
        if rule.ip_version is not None and rule.ip_version != packet.version:
            return False
        if rule.protocol is not None and packet.protocol not in _numbers(rule.protocol, packet.version):
            return False
        if rule.not_protocol is not None and packet.protocol == _number(rule.not_protocol):
            return False
        if rule.icmp is not None and not _icmp(rule.icmp.type, rule.icmp.code, packet):
            return False
        if rule.not_icmp is not None and _icmp(rule.not_icmp.type, rule.not_icmp.code, packet):
            return False
        return self._side(rule.source, packet.source, packet.source_port, packet, namespace) and self._side(
            rule.destination, packet.destination, packet.destination_port, packet, namespace
        )

    def _side(self, side: EntityRule, address: str, port: int, packet: Packet, namespace: str) -> bool:
        if not _nets(side, address):
            return False
        owners = self.with_address(address)
        confined = bool(namespace and (side.selector or side.not_selector) and not side.namespace_selector)
        wanted = bool(side.selector or side.namespace_selector or confined)
        selected = [
            owner
            for owner in owners
            if (not side.selector or self._matches(side.selector, owner.labels))
            and (not side.namespace_selector or self._of_namespaces(side.namespace_selector, owner.labels))
            and (not confined or owner.labels.get(NAMESPACE) == namespace)
            and not (wanted and side.not_selector and self._matches(side.not_selector, owner.labels))
        ]
        if wanted and not selected:
            return False
        if side.not_selector and not wanted and any(self._matches(side.not_selector, o.labels) for o in owners):
            return False
        if side.ports and not any(_port(one, port, packet, selected) for one in side.ports):
            return False
        return not any(_port(refused, port, packet, selected) for refused in side.not_ports)


def _is_of_workloads(spec: Any) -> bool:
    return not (getattr(spec, "pre_dnat", False) or getattr(spec, "do_not_track", False))


def _networks(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _number(protocol: int | str) -> int:
    return protocol if isinstance(protocol, int) else PROTOCOLS[protocol.lower()]


def _numbers(protocol: int | str, version: int) -> set[int]:
    """ICMP by name is that of one family."""
    if (protocol == "ICMP" and version == 6) or (protocol == "ICMPv6" and version == 4):
        return set()
    return {_number(protocol)}


def _icmp(kind: int | None, code: int | None, packet: Packet) -> bool:
    if packet.protocol != (1 if packet.version == 4 else 58):
        return False
    return packet.icmp[0] == kind and code in (None, packet.icmp[1])


def _nets(side: EntityRule, address: str) -> bool:
    """A list speaks of the families in it; a rule with a list that does not speak of the packet's does not match."""
    parsed = ipaddress.ip_address(address)
    for texts, wanted in ((side.nets, True), (side.not_nets, False)):
        nets = [net for text in texts if (net := ipaddress.ip_network(text)).version == parsed.version]
        if texts and not nets:
            return False
        if texts and any(parsed in net for net in nets) is not wanted:
            return False
    return True


def _port(wanted: Port, port: int, packet: Packet, owners: Sequence[Owner]) -> bool:
    text = str(wanted)
    if text.replace(":", "").isdigit():
        low, _, high = text.partition(":")
        return int(low) <= port <= int(high or low)
    return any((text, packet.protocol, port) in owner.ports for owner in owners)
