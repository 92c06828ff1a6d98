"""What the records of the store mean for a packet, read straight from reference felix.md 4.1 to 4.3. Slow and plain.

It shares no code with the calculation: it evaluates selectors on every endpoint for every rule of every packet.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fakes.packets import PROTOCOLS, Packet
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.profile import Profile
from resources.kinds.rule import EntityRule, Port, Rule
from resources.kinds.tier import Tier
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.selector import parse

INFINITY = float("inf")


@dataclass
class World:
    """All records, by name; endpoints in a list."""

    endpoints: Sequence[WorkloadEndpoint]
    profiles: Mapping[str, Profile]
    tiers: Mapping[str, Tier]
    policies: Mapping[str, GlobalNetworkPolicy]

    def labels(self, endpoint: WorkloadEndpoint) -> dict[str, str]:
        labels: dict[str, str] = {}
        for name in reversed(endpoint.spec.profiles):
            if name in self.profiles:
                labels |= self.profiles[name].spec.labels_to_apply
        return labels | endpoint.metadata.labels

    def with_address(self, address: str) -> list[WorkloadEndpoint]:
        network = ipaddress.ip_network(address)
        return [e for e in self.endpoints if any(ipaddress.ip_network(text) == network for text in e.spec.ip_networks)]

    def allows(self, endpoint: WorkloadEndpoint, direction: str, packet: Packet) -> bool:
        """Tell whether the endpoint may send ("egress") or get ("ingress") the packet."""
        if packet.state in ("ESTABLISHED", "RELATED"):
            return True
        if packet.state == "INVALID":
            return False
        if direction == "egress" and (packet.protocol == 4 or (packet.protocol, packet.destination_port) == (17, 4789)):
            return False
        for name in self._tier_order():
            policies = self._policies(name, endpoint, direction)
            if not policies:
                continue
            if name not in self.tiers:
                return False
            verdict = self._first(
                [rule for policy in policies for rule in getattr(policy.spec, direction)], packet
            )
            if verdict is None:
                verdict = self.tiers[name].spec.default_action or "Deny"
            if verdict != "Pass":
                return verdict == "Allow"
        for profile in endpoint.spec.profiles:
            if profile not in self.profiles:
                return False
            verdict = self._first(getattr(self.profiles[profile].spec, direction), packet)
            if verdict is not None:
                return verdict == "Allow"
        return False

    def _tier_order(self) -> list[str]:
        def order(name: str) -> tuple[float, str]:
            if name not in self.tiers:
                return -INFINITY, name
            given = self.tiers[name].spec.order
            return INFINITY if given is None else given, name

        return sorted({policy.spec.tier or "default" for policy in self.policies.values()}, key=order)

    def _policies(self, tier: str, endpoint: WorkloadEndpoint, direction: str) -> list[GlobalNetworkPolicy]:
        labels = self.labels(endpoint)
        found = []
        for name, policy in self.policies.items():
            spec = policy.spec
            types = spec.types or (["Ingress"] if not spec.egress else ["Egress"])
            if not spec.types and spec.ingress and spec.egress:
                types = ["Ingress", "Egress"]
            if (
                (spec.tier or "default") == tier
                and direction.capitalize() in types
                and not spec.pre_dnat
                and parse(spec.selector).matches(labels)
            ):
                found.append((INFINITY if spec.order is None else spec.order, name, policy))
        return [policy for _, _, policy in sorted(found, key=lambda one: one[:2])]

    def _first(self, rules: Sequence[Rule], packet: Packet) -> str | None:
        for rule in rules:
            if self.matches(rule, packet) and rule.action != "Log":
                return rule.action
        return None

    def matches(self, rule: Rule, packet: Packet) -> bool:
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
        return self._side(rule, rule.source, packet.source, packet.source_port, packet) and self._side(
            rule, rule.destination, packet.destination, packet.destination_port, packet
        )

    def _side(self, rule: Rule, side: EntityRule, address: str, port: int, packet: Packet) -> bool:
        if not _nets(side, address):
            return False
        owners = self.with_address(address)
        selected = [e for e in owners if parse(side.selector).matches(self.labels(e))] if side.selector else owners
        if side.not_selector:
            refused = parse(side.not_selector)
            if side.selector:
                selected = [e for e in selected if not refused.matches(self.labels(e))]
            elif any(refused.matches(self.labels(e)) for e in owners):
                return False
        if side.selector and not selected:
            return False
        if side.ports and not any(_port(wanted, port, packet, selected) for wanted in side.ports):
            return False
        return not any(_port(refused, port, packet, selected) for refused in side.not_ports)


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


def _port(wanted: Port, port: int, packet: Packet, owners: Sequence[WorkloadEndpoint]) -> bool:
    text = str(wanted)
    if text.replace(":", "").isdigit():
        low, _, high = text.partition(":")
        return int(low) <= port <= int(high or low)
    return any(
        declared.name == text and _number(declared.protocol) == packet.protocol and declared.port == port
        for owner in owners
        for declared in owner.spec.ports
    )
