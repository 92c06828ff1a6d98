"""What one host makes of a packet, read straight from the records and reference felix.md 3.5 to 3.9. Slow and plain.

It shares no code with the calculation or the renderer. True: allowed, False: denied, None: left to the host's rules.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fakes.packets import Packet
from fakes.policy_model import World

FAILSAFE_IN = {(6, port) for port in (22, 179, 2379, 2380, 5473, 6443, 6666, 6667)} | {(17, 68)}
FAILSAFE_OUT = {(6, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667)} | {(17, 53), (17, 67)}
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 135, 136)
FLOW_KNOWN = ("ESTABLISHED", "RELATED")
Decision = bool | None


@dataclass
class HostModel:
    """A host whose settings are those built in but for DefaultEndpointToHostAction. `addresses`: of its interfaces."""

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
            if packet.state == "INVALID":
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
            given = [one.spec.default_endpoint_to_host_action for one in self._settings()]
            return {"Drop": False, "Return": None, "Accept": True}[given[0] if given else "Drop"]
        if decided:
            return True
        found = self.host_endpoint(packet.in_interface)
        return None if found is None else self._normal(found, "ingress", packet, FAILSAFE_IN)

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
        return None if found is None else self._normal(found, "egress", packet, FAILSAFE_OUT)

    def _after_nat(self, packet: Packet) -> Decision:
        """Return whether what NAT sent elsewhere is denied by the normal policy of where it leaves."""
        if packet.out_interface.startswith("cali"):
            return None
        found = self.host_endpoint(packet.out_interface)
        return None if found is None or self._normal(found, "egress", packet, FAILSAFE_OUT) else False

    def _settings(self) -> list[Any]:
        return list(self.world.of_kind("felixconfigurations").values())

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
            if packet.spoofed:
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
        if packet.state == "INVALID":
            return (False if speaks else None), packet
        if (packet.protocol, packet.destination_port) in FAILSAFE_IN:
            return None, packet
        return self.world.tiers_say(found, "ingress", packet, _before_nat, end="Pass"), packet

    def _untracked(self, packet: Packet, interface: str, direction: str) -> Decision:
        found = self.host_endpoint(interface, wild=False)
        if found is None:
            return None
        there, back = (FAILSAFE_IN, FAILSAFE_OUT) if direction == "ingress" else (FAILSAFE_OUT, FAILSAFE_IN)
        if (packet.protocol, packet.destination_port) in there or (packet.protocol, packet.source_port) in back:
            return None
        said: Decision = self.world.tiers_say(found, direction, packet, _before_tracking, end="Pass")
        return said

    def _normal(self, endpoint: Any, direction: str, packet: Packet, failsafe: set[tuple[int, int]]) -> bool:
        if packet.state in FLOW_KNOWN:
            return True
        if packet.state == "INVALID":
            return False
        if (packet.protocol, packet.destination_port) in failsafe:
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
