"""What one host makes of a packet, read straight from the records and reference felix.md 3.5 to 3.9. Slow and plain.

It shares no code with the calculation or the renderer. True: allowed, False: denied, None: left to the host's rules.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fakes.packets import PROTOCOLS, Packet
from fakes.policy_model import World

FAILSAFE_IN = {(6, port) for port in (22, 179, 2379, 2380, 5473, 6443, 6666, 6667)} | {(17, 68)}
FAILSAFE_OUT = {(6, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667)} | {(17, 53), (17, 67)}
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 135, 136)
FLOW_KNOWN = ("ESTABLISHED", "RELATED")
Decision = bool | None


@dataclass
class HostModel:
    """A host. `addresses`: of its interfaces."""

    world: World
    node: str
    addresses: Mapping[str, tuple[str, ...]]

    def forward(self, packet: Packet) -> Decision:
        decided, packet = self._enter(packet)
        if decided is False:
            return False
        packet = _sent_elsewhere(packet)
        incoming, outgoing = self.host_endpoint(packet.in_interface), self.host_endpoint(packet.out_interface)
        asked: list[tuple[Any, str]] = []
        if incoming is not None and not decided:
            asked.append((incoming, "ingress"))
        if packet.in_interface.startswith("cali"):
            asked.append((self.workload(packet.in_interface), "egress"))
        if packet.out_interface.startswith("cali"):
            asked.append((self.workload(packet.out_interface), "ingress"))
        if outgoing is not None:
            asked.append((outgoing, "egress"))
        for endpoint, direction in asked:
            if endpoint is None:
                return False  # nobody's interface
            if packet.state in FLOW_KNOWN:
                return True
            if self._is_invalid(packet):
                return False
            if hasattr(endpoint.spec, "expected_ips"):
                decided = self._forward_policy(endpoint, direction, packet)
            else:
                decided = self.world.allows(endpoint, direction, packet)
            if decided is False:
                return False
        return decided

    def to_host(self, packet: Packet) -> Decision:
        decided, packet = self._enter(packet)
        if decided is False:
            return False
        packet = _sent_elsewhere(packet)
        if packet.in_interface.startswith("cali"):
            if packet.version == 6 and packet.protocol == 58 and packet.icmp[0] in NEIGHBOUR_DISCOVERY:
                return True
            endpoint = self.workload(packet.in_interface)
            if endpoint is None:
                return False
            if packet.state in FLOW_KNOWN:
                return True
            if not self.world.allows(endpoint, "egress", packet):
                return False
            action = self.world.setting("default_endpoint_to_host_action") or "Drop"
            return {"Drop": False, "Return": None, "Accept": True}[action]
        if decided:
            return True
        found = self.host_endpoint(packet.in_interface)
        return None if found is None else self._normal(found, "ingress", packet)

    def from_host(self, packet: Packet) -> Decision:
        decided = self._untracked(packet, packet.out_interface, "egress")
        if decided is not None:
            return decided
        packet = _sent_elsewhere(packet)
        if packet.translated:
            return self._after_nat(packet)
        if packet.out_interface.startswith("cali"):
            return None
        found = self.host_endpoint(packet.out_interface)
        return None if found is None else self._normal(found, "egress", packet)

    def _after_nat(self, packet: Packet) -> Decision:
        """Return whether what NAT sent elsewhere is denied by the normal policy of where it leaves."""
        if packet.out_interface.startswith("cali"):
            return None
        found = self.host_endpoint(packet.out_interface)
        return None if found is None or self._normal(found, "egress", packet) else False

    def _is_failsafe(self, packet: Packet, direction: str, *, answer: bool = False) -> bool:
        """Tell whether the packet is for a failsafe port, or (`answer`) could answer one of the other direction."""
        incoming = (direction == "ingress") is not answer
        given = self.world.setting(f"failsafe_{'inbound' if incoming else 'outbound'}_host_ports")
        port = packet.source_port if answer else packet.destination_port
        if given is None:
            return (packet.protocol, port) in (FAILSAFE_IN if incoming else FAILSAFE_OUT)
        peer = ipaddress.ip_address(packet.source if direction == "ingress" else packet.destination)
        return any(
            (PROTOCOLS[one.protocol], one.port) == (packet.protocol, port)
            and (not one.net or peer in ipaddress.ip_network(one.net))
            for one in given
        )

    def _may_spoof(self, packet: Packet) -> bool:
        endpoint = self.workload(packet.in_interface)
        prefixes = endpoint.spec.allow_spoofed_source_prefixes if endpoint is not None else []
        source = ipaddress.ip_address(packet.source)
        return self.world.setting("workload_source_spoofing") == "Any" and any(
            source in ipaddress.ip_network(prefix) for prefix in prefixes
        )

    def _is_invalid(self, packet: Packet) -> bool:
        return packet.state == "INVALID" and not self.world.setting("disable_conntrack_invalid_check")

    def workload(self, interface: str) -> Any:
        for endpoint in self.world.endpoints:
            if endpoint.spec.node == self.node and endpoint.spec.interface_name == interface:
                return endpoint
        return None

    def host_endpoint(self, interface: str, *, wild: bool = True) -> Any:
        """Return the host endpoint that an interface belongs to: its own with the lowest name, else the one for all."""
        ours = {
            key.name: value
            for key, value in self.world.of_kind("hostendpoints").items()
            if value.spec.node == self.node
        }
        own = [
            name
            for name, value in ours.items()
            if value.spec.interface_name == interface
            or (
                not value.spec.interface_name
                and {ipaddress.ip_address(a) for a in value.spec.expected_ips}
                & {ipaddress.ip_address(a) for a in self.addresses.get(interface, ())}
            )
        ]
        if own and not interface.startswith("cali"):
            return ours[min(own)]
        everywhere = [name for name, value in ours.items() if value.spec.interface_name == "*"]
        return ours[min(everywhere)] if everywhere and wild else None

    def _enter(self, packet: Packet) -> tuple[Decision, Packet]:
        """Return what is decided before the routes are asked, and the packet as it is then."""
        if packet.in_interface.startswith("cali"):
            if packet.spoofed and not self._may_spoof(packet):
                return False, packet
        else:
            decided = self._untracked(packet, packet.in_interface, "ingress")
            if decided is False:
                return False, packet
            if decided:
                return True, replace(packet, state="UNTRACKED")
        if packet.state in FLOW_KNOWN:
            return None, packet
        found = self.host_endpoint(packet.in_interface)
        if found is None:
            return None, packet
        everywhere = self.host_endpoint("any other interface")
        speaks = self._has_policy(found, _before_nat) or (
            everywhere is not None and self._has_policy(everywhere, _before_nat)
        )
        if speaks and self._is_invalid(packet):
            return False, packet
        if self._is_failsafe(packet, "ingress"):
            return None, packet
        return self.world.tiers_say(found, "ingress", packet, _before_nat, end="Pass"), packet

    def _untracked(self, packet: Packet, interface: str, direction: str) -> Decision:
        found = self.host_endpoint(interface, wild=False)
        if found is None:
            return None
        if self._is_failsafe(packet, direction) or self._is_failsafe(packet, direction, answer=True):
            return None
        said: Decision = self.world.tiers_say(found, direction, packet, _before_tracking, end="Pass")
        return said

    def _normal(self, endpoint: Any, direction: str, packet: Packet) -> bool:
        if packet.state in FLOW_KNOWN:
            return True
        if self._is_invalid(packet):
            return False
        if self._is_failsafe(packet, direction):
            return True
        said: Decision = self.world.tiers_say(endpoint, direction, packet, _is_normal)
        return self.world.profiles_say(endpoint, direction, packet) if said is None else said

    def _forward_policy(self, endpoint: Any, direction: str, packet: Packet) -> Decision:
        def counts(spec: Any) -> bool:
            return _is_normal(spec) and getattr(spec, "apply_on_forward", False)

        if not self._has_policy(endpoint, counts, direction):
            return True
        said: Decision = self.world.tiers_say(endpoint, direction, packet, counts)
        return said

    def _has_policy(self, endpoint: Any, counts: Any, direction: str = "ingress") -> bool:
        labels = self.world.labels(endpoint)
        return any(self.world.policies_of(tier, labels, direction, counts) for tier in self.world.tier_order())


def _sent_elsewhere(packet: Packet) -> Packet:
    if packet.sent_to is None or packet.state in ("INVALID", "UNTRACKED"):
        return packet
    address, port = packet.sent_to
    return replace(packet, destination=address, destination_port=port, translated=True)


def _is_normal(spec: Any) -> bool:
    return not (getattr(spec, "pre_dnat", False) or getattr(spec, "do_not_track", False))


def _before_nat(spec: Any) -> bool:
    return getattr(spec, "pre_dnat", False)


def _before_tracking(spec: Any) -> bool:
    return getattr(spec, "do_not_track", False)
