"""Verdicts without a kernel: what the rules of one host make of a packet, who decides, and who was asked on the way.

A reader of policy as data, as the renderer is another; the two must agree packet by packet. One host knows the policies
of its own endpoints only, so an answer is about one host. `felix.calc.reach` joins those of several.
Source: reference felix.md 3.5 to 3.9, 4.2.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from felix.calc.answers import Answer, Hook, HostVerdict, Outcome, Reason, Step, Way
from felix.calc.conclusions import Whole
from felix.calc.match import ICMP_NUMBER, IPIP_NUMBER, UDP_NUMBER, Members, Packet, State, matches, protocol_number
from felix.calc.model import (
    ANY_INTERFACE,
    Action,
    Direction,
    LocalEndpoint,
    LocalHostEndpoint,
    PolicyRule,
    TierPolicies,
)
from felix.calc.parameters import AllowAction, EndpointToHostAction, HostPort, NatExclusions, Parameters
from resources.names import IfName, IPAddress, NodeName, ProfileName

NEIGHBOUR_DISCOVERY = frozenset({130, 131, 132, 133, 135, 136})
"""ICMPv6 types that a workload may always send to its host."""
LINK_UPKEEP = NEIGHBOUR_DISCOVERY | {134, 143}
"""Those that a host may always send and get."""


class HostView:
    """What one host's felix concluded, to be asked about packets."""

    def __init__(self, node: NodeName, whole: Whole, parameters: Parameters) -> None:
        self.node = node
        self.whole = whole
        self.parameters = parameters
        self._members = Members(whole.sets)

    def forward(
        self, packet: Packet, in_interface: IfName, out_interface: IfName, *, spoofed: bool | None = None
    ) -> HostVerdict:
        """Answer about a packet that the host passes on. `spoofed`: as in `to_host`."""
        asked = _Asked(self.node, Way.FORWARDED)
        entered = self._enter(asked, packet, in_interface, spoofed)
        if entered is None:
            return asked.verdict()
        packet = entered.translated
        incoming, outgoing = self._host_endpoint(in_interface), self._host_endpoint(out_interface)
        if incoming is not None and not asked.is_accepted:
            answer = self._forwarded(packet, in_interface, incoming, Direction.INGRESS)
            if asked.has_decided(answer, final=self._ends_the_way(answer)):
                return asked.verdict()
        for interface, direction in ((in_interface, Direction.EGRESS), (out_interface, Direction.INGRESS)):
            if self.is_workload(interface):
                answer = self._workload(packet, interface, direction, Hook.FORWARD)
                if asked.has_decided(answer, final=self._ends_the_way(answer)):
                    return asked.verdict()
        if outgoing is not None:
            asked.has_decided(self._forwarded(packet, out_interface, outgoing, Direction.EGRESS))
        return asked.verdict()

    def to_host(self, packet: Packet, in_interface: IfName, *, spoofed: bool | None = None) -> HostVerdict:
        """Answer about a packet for the host itself.

        `spoofed`: whether the way back to the source is another; None: judged by the endpoint's own addresses.
        """
        asked = _Asked(self.node, Way.TO_HOST)
        entered = self._enter(asked, packet, in_interface, spoofed)
        if entered is None:
            return asked.verdict()
        packet = entered.translated
        if asked.has_decided(self._ipip(packet), final=True):
            return asked.verdict()
        if self.is_workload(in_interface):
            self._workload_to_host(asked, packet, in_interface)
            return asked.verdict()
        endpoint = self._host_endpoint(in_interface)
        if endpoint is not None and not asked.is_accepted:
            asked.has_decided(self._normal(packet, in_interface, endpoint, Direction.INGRESS, Hook.TO_HOST))
        return asked.verdict()

    def from_host(self, packet: Packet, out_interface: IfName) -> HostVerdict:
        """Answer about a packet of the host's own; it leaves by `out_interface` after NAT, if there is any."""
        asked = _Asked(self.node, Way.FROM_HOST)
        untracked = self._untracked(packet, out_interface, Direction.EGRESS)
        if asked.has_decided(untracked, early=True):
            return asked.verdict()
        if asked.is_accepted:
            return asked.verdict()
        sent, packet = packet, packet.translated
        if self.is_workload(out_interface):
            answer = Answer(
                outcome=Outcome.LEFT, reason=Reason.OWN_HOST, hook=Hook.FROM_HOST, interface=out_interface
            )
            asked.has_decided(answer)
            return asked.verdict()
        if self._is_host_ipip(packet, packet.destination):
            asked.has_decided(Answer(outcome=Outcome.ALLOWED, reason=Reason.IPIP, hook=Hook.FROM_HOST))
            return asked.verdict()
        if packet is not sent:
            self._after_nat(asked, packet, out_interface)
            return asked.verdict()
        endpoint = self._host_endpoint(out_interface)
        if endpoint is not None:
            asked.has_decided(self._normal(packet, out_interface, endpoint, Direction.EGRESS, Hook.FROM_HOST))
        return asked.verdict()

    def is_workload(self, interface: IfName) -> bool:
        """Tell whether the interface's name is that of a workload, known or not."""
        return interface.startswith(self.parameters.interface_prefixes)

    def endpoints_with(self, address: IPAddress) -> list[LocalEndpoint]:
        """Return the workloads of this host that claim an address, by name of interface."""
        network = ipaddress.ip_network(address)
        found = [endpoint for endpoint in self.whole.endpoints.values() if network in endpoint.addresses]
        return sorted(found, key=lambda endpoint: endpoint.interface)

    def masquerades(self, packet: Packet) -> bool:
        """Tell whether the host puts an address of its own in the place of the source when the packet leaves.

        That is decided once for each flow, so about the first packet only.
        """
        around = self.whole.surroundings
        if around is None or packet.state is not State.NEW:
            return False

        def inside(address: IPAddress, nets: Iterable[str]) -> bool:
            return any(address in ipaddress.ip_network(net) for net in nets)

        version = packet.version
        excepted = around.pools[version]
        if self.parameters.nat_exclusions is NatExclusions.POOLS_AND_HOSTS:
            excepted |= around.hosts[version]
        leaves = inside(packet.source, around.masqueraded_pools[version])
        return leaves and not inside(packet.destination, excepted)

    # The parts of a way, in order.

    def _enter(self, asked: "_Asked", packet: Packet, interface: IfName, spoofed: bool | None) -> Packet | None:
        """Ask what is asked of all that comes in; return the packet as it is afterwards, or None if it is denied."""
        if self.is_workload(interface):
            if asked.has_decided(self._source_check(packet, interface, spoofed)):
                return None
        else:
            untracked = self._untracked(packet, interface, Direction.INGRESS)
            if asked.has_decided(untracked, early=True):
                return None
            if asked.is_accepted:
                packet = replace(packet, state=State.UNTRACKED)
        if asked.is_accepted or packet.state.is_known_flow:
            return packet
        return None if asked.has_decided(self._before_nat(packet, interface), early=True) else packet

    def _after_nat(self, asked: "_Asked", packet: Packet, interface: IfName) -> None:
        """Ask about a packet of the host's own that NAT sent elsewhere: only now it is known by what it leaves.

        It may be denied; that nobody does so leaves it to others as before.
        """
        own = self.whole.host_endpoints.get(interface)
        endpoint = own if self.is_workload(interface) else own or self._host_endpoint(interface)
        if endpoint is not None:
            answer = self._normal(packet, interface, endpoint, Direction.EGRESS, Hook.AFTER_NAT)
            if answer.outcome is not Outcome.DENIED:
                answer = replace(answer, outcome=Outcome.LEFT)
            asked.has_decided(answer)

    def _source_check(self, packet: Packet, interface: IfName, spoofed: bool | None) -> Answer | None:
        endpoint = self.whole.endpoints.get(interface)
        excepted = endpoint.spoofed_sources if endpoint and self.parameters.source_spoofing else ()
        if any(net.version == packet.version and packet.source in net for net in excepted):
            return None
        if spoofed is None:
            own = endpoint.addresses if endpoint else frozenset()
            spoofed = ipaddress.ip_network(packet.source) not in own and not packet.source.is_link_local
        if not spoofed:
            return None
        return Answer(
            outcome=Outcome.DENIED, reason=Reason.SPOOFED, hook=Hook.SOURCE_CHECK, interface=interface,
            direction=Direction.EGRESS,
        )  # fmt: skip

    def _workload_to_host(self, asked: "_Asked", packet: Packet, interface: IfName) -> None:
        if _is_icmp6(packet, NEIGHBOUR_DISCOVERY):
            answer = Answer(outcome=Outcome.ALLOWED, reason=Reason.NEIGHBOUR_DISCOVERY, hook=Hook.TO_HOST)
            asked.has_decided(answer)
            return
        answer = self._workload(packet, interface, Direction.EGRESS, Hook.TO_HOST)
        if not asked.has_decided(answer, final=self._ends_the_way(answer)):
            action = {
                EndpointToHostAction.ACCEPT: Outcome.ALLOWED,
                EndpointToHostAction.RETURN: Outcome.LEFT,
            }.get(self.parameters.endpoint_to_host_action, Outcome.DENIED)
            asked.has_decided(Answer(outcome=action, reason=Reason.HOST_ACTION, hook=Hook.TO_HOST))

    def _ends_the_way(self, answer: Answer) -> bool:
        """Tell whether nobody later is asked: a known flow is accepted at once, unless that is returned to the host."""
        return answer.reason is Reason.KNOWN_FLOW and self.parameters.filter_allow_action is AllowAction.ACCEPT

    def _ipip(self, packet: Packet) -> Answer | None:
        around = self.whole.surroundings
        if packet.protocol != IPIP_NUMBER or packet.version != 4 or around is None or not around.ipip:
            return None
        known = self._is_host_ipip(packet, packet.source)
        return Answer(outcome=Outcome.ALLOWED if known else Outcome.DENIED, reason=Reason.IPIP, hook=Hook.TO_HOST)

    def _is_host_ipip(self, packet: Packet, peer: IPAddress) -> bool:
        around = self.whole.surroundings
        if packet.protocol != IPIP_NUMBER or packet.version != 4 or around is None or not around.ipip:
            return False
        return any(peer in ipaddress.ip_network(host) for host in around.hosts[4])

    # One end each.

    def _workload(self, packet: Packet, interface: IfName, direction: Direction, hook: Hook) -> Answer:
        """Ask a workload's policies and profiles."""
        endpoint = self.whole.endpoints.get(interface)
        answer = Answer(
            outcome=Outcome.DENIED, reason=Reason.UNKNOWN_ENDPOINT, hook=hook, interface=interface, direction=direction
        )
        if endpoint is None:
            return answer
        if known := self._by_flow(packet, answer):
            return known
        if direction is Direction.EGRESS and self._is_tunnel(packet):
            return replace(answer, reason=Reason.TUNNEL)
        return self._by_policy(packet, endpoint.tiers, endpoint.profiles, answer)

    def _host_endpoint(self, interface: IfName) -> LocalHostEndpoint | None:
        """Return the endpoint of an interface, or else that of all interfaces."""
        found = self.whole.host_endpoints.get(interface)
        return found or self.whole.host_endpoints.get(ANY_INTERFACE)

    def _normal(
        self, packet: Packet, interface: IfName, endpoint: LocalHostEndpoint, direction: Direction, hook: Hook
    ) -> Answer:
        """Ask a host endpoint about what the host's own processes get and send."""
        answer = _about(endpoint, interface, direction, hook)
        if known := self._by_flow(packet, answer):
            return known
        if reason := self._needs_no_policy(packet, direction):
            return replace(answer, outcome=Outcome.ALLOWED, reason=reason)
        return self._by_policy(packet, endpoint.normal, endpoint.profiles, answer)

    def _forwarded(
        self, packet: Packet, interface: IfName, endpoint: LocalHostEndpoint, direction: Direction
    ) -> Answer:
        """Ask a host endpoint about what is forwarded. Without a policy about it: allowed."""
        answer = _about(endpoint, interface, direction, Hook.FORWARD)
        if known := self._by_flow(packet, answer):
            return known
        if not any(tier.of(direction) for tier in endpoint.forward):
            return replace(answer, outcome=Outcome.ALLOWED)
        return self._by_tiers(packet, endpoint.forward, answer)

    def _before_nat(self, packet: Packet, interface: IfName) -> Answer | None:
        """Ask the policy before NAT of a host endpoint about a packet that comes in."""
        endpoint = self._host_endpoint(interface)
        wild = self.whole.host_endpoints.get(ANY_INTERFACE)
        if endpoint is None or not (endpoint.pre_dnat or (wild is not None and wild.pre_dnat)):
            return None
        answer = _about(endpoint, interface, Direction.INGRESS, Hook.PRE_DNAT)
        if known := self._by_flow(packet, answer):
            return known
        if reason := self._needs_no_policy(packet, Direction.INGRESS):
            return replace(answer, reason=reason)
        return self._by_tiers(packet, endpoint.pre_dnat, answer)

    def _untracked(self, packet: Packet, interface: IfName, direction: Direction) -> Answer | None:
        """Ask the policy before connection tracking, which is that of an interface's own endpoint only."""
        endpoint = self.whole.host_endpoints.get(interface)
        if endpoint is None or not endpoint.untracked:
            return None
        answer = _about(endpoint, interface, direction, Hook.UNTRACKED)
        if reason := self._needs_no_policy(packet, direction):
            return replace(answer, reason=reason)
        if self._is_failsafe_answer(packet, direction):
            return replace(answer, reason=Reason.FAILSAFE)
        return self._by_tiers(packet, endpoint.untracked, answer)

    def _by_flow(self, packet: Packet, answer: Answer) -> Answer | None:
        """Answer by what connection tracking knows, if that is enough."""
        if packet.state.is_known_flow:
            return replace(answer, outcome=Outcome.ALLOWED, reason=Reason.KNOWN_FLOW)
        if packet.state is State.INVALID and not self.parameters.skip_invalid_check:
            return replace(answer, outcome=Outcome.DENIED, reason=Reason.INVALID)
        return None

    def _is_tunnel(self, packet: Packet) -> bool:
        if packet.protocol == IPIP_NUMBER:
            return not self.parameters.ipip_from_workloads
        is_vxlan = packet.protocol == UDP_NUMBER and packet.destination_port == self.parameters.vxlan_port
        return is_vxlan and not self.parameters.vxlan_from_workloads

    def _needs_no_policy(self, packet: Packet, direction: Direction) -> Reason | None:
        """Return why a packet passes a host endpoint before its policy, if it does."""
        if self._is_failsafe(packet, direction):
            return Reason.FAILSAFE
        return Reason.LINK_UPKEEP if _is_icmp6(packet, LINK_UPKEEP) else None

    def _is_failsafe(self, packet: Packet, direction: Direction) -> bool:
        if direction is Direction.INGRESS:
            return _is_one_of(self.parameters.failsafe_inbound, packet, packet.destination_port, packet.source)
        return _is_one_of(self.parameters.failsafe_outbound, packet, packet.destination_port, packet.destination)

    def _is_failsafe_answer(self, packet: Packet, direction: Direction) -> bool:
        """Tell whether it could be the answer to a failsafe packet of the other direction."""
        if direction is Direction.INGRESS:
            return _is_one_of(self.parameters.failsafe_outbound, packet, packet.source_port, packet.source)
        return _is_one_of(self.parameters.failsafe_inbound, packet, packet.source_port, packet.destination)

    # Policies and profiles.

    def _by_policy(
        self, packet: Packet, tiers: Iterable[TierPolicies], profiles: Iterable[ProfileName], answer: Answer
    ) -> Answer:
        """Ask tiers, then profiles; what nobody allows is denied."""
        answer = self._by_tiers(packet, tiers, answer)
        if answer.outcome is not Outcome.LEFT:
            return answer
        walk = list(answer.walk)
        for profile in profiles:
            logged, rule, action = self._first(self.whole.profiles[profile].of(_direction(answer)) or (), packet)
            walk.append(Step(profile=profile, logged=logged, rule=rule, action=action))
            if action is not None:
                outcome = Outcome.ALLOWED if action is Action.ALLOW else Outcome.DENIED
                return replace(answer, outcome=outcome, reason=Reason.PROFILE_RULE, walk=tuple(walk))
        return replace(answer, outcome=Outcome.DENIED, reason=Reason.NO_PROFILE, walk=tuple(walk))

    def _by_tiers(self, packet: Packet, tiers: Iterable[TierPolicies], answer: Answer) -> Answer:
        """Ask the tiers in order; LEFT if each that counts passed the packet on."""
        walk: list[Step] = []
        direction = _direction(answer)
        for tier in tiers:
            policies = tier.of(direction)
            if not policies:
                continue
            action: Action | None = None
            for policy in policies:
                logged, rule, action = self._first(self.whole.policies[policy].of(direction) or (), packet)
                walk.append(Step(tier=tier.name, policy=policy, logged=logged, rule=rule, action=action))
                if action is not None:
                    break
            else:
                action = tier.default_action
                walk.append(Step(tier=tier.name, action=action))
            if action is not Action.PASS:
                reason = Reason.POLICY_RULE if walk[-1].policy is not None else Reason.END_OF_TIER
                outcome = Outcome.ALLOWED if action is Action.ALLOW else Outcome.DENIED
                return replace(answer, outcome=outcome, reason=reason, walk=tuple(walk))
        reason = Reason.PASSED if walk else Reason.NO_POLICY
        return replace(answer, outcome=Outcome.LEFT, reason=reason, walk=tuple(walk))

    def _first(
        self, rules: Sequence[PolicyRule], packet: Packet
    ) -> tuple[tuple[int, ...], int | None, Action | None]:
        """Return the Log rules that match before one decides, and that one, by number, and its action."""
        logged: list[int] = []
        for rule in rules:
            if matches(rule, packet, self._members):
                if rule.action is not Action.LOG:
                    return tuple(logged), rule.number, rule.action
                logged.append(rule.number)
        return tuple(logged), None, None


class _Asked:
    """The answers so far, and what they amount to."""

    def __init__(self, node: NodeName, way: Way) -> None:
        self._node = node
        self._way = way
        self._answers: list[Answer] = []
        self._outcome = Outcome.LEFT

    @property
    def is_accepted(self) -> bool:
        """Whether policy has allowed the packet and nobody has been asked about it since."""
        return self._outcome is Outcome.ALLOWED

    def has_decided(self, answer: Answer | None, *, final: bool = False, early: bool = False) -> bool:
        """Note an answer; tell whether nobody is to be asked any more.

        `final`: it is the last word, if it is any. `early`: if it leaves the packet to others, it changes nothing.
        """
        if answer is None:
            return False
        self._answers.append(answer)
        if not (early and answer.outcome is Outcome.LEFT):
            self._outcome = answer.outcome
        return final or answer.outcome is Outcome.DENIED

    def verdict(self) -> HostVerdict:
        return HostVerdict(node=self._node, way=self._way, outcome=self._outcome, answers=tuple(self._answers))


def _about(endpoint: LocalHostEndpoint, interface: IfName, direction: Direction, hook: Hook) -> Answer:
    """Return an answer of a host endpoint that has not decided anything yet."""
    return Answer(
        outcome=Outcome.LEFT, reason=Reason.NO_POLICY, hook=hook, interface=interface, direction=direction,
        host_endpoint=endpoint.name,
    )  # fmt: skip


def _direction(answer: Answer) -> Direction:
    assert answer.direction is not None
    return answer.direction


def _is_one_of(ports: Iterable[HostPort], packet: Packet, port: int, peer: IPAddress) -> bool:
    return any(
        protocol_number(one.protocol) == packet.protocol
        and one.port == port
        and (one.net is None or (one.net.version == packet.version and peer in one.net))
        for one in ports
    )


def _is_icmp6(packet: Packet, types: frozenset[int]) -> bool:
    is_icmp = packet.version == 6 and packet.protocol == ICMP_NUMBER[6] and packet.icmp is not None
    return is_icmp and packet.icmp is not None and packet.icmp.type in types
