"""Verdicts without a kernel: what the rules of one host make of a packet, who decides, and who was asked on the way.

A reader of policy as data, as the renderer is another; the two must agree packet by packet. One host knows the policies
of its own endpoints only, so an answer is about one host. `felix.calc.reach` joins those of several.
Source: reference felix.md 3.5 to 3.9, 4.2.
"""

import enum
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from felix.calc.graph import Whole
from felix.calc.match import ICMP_NUMBER, IPIP_NUMBER, UDP_NUMBER, Members, Packet, State, matches
from felix.calc.model import Action, Direction, LocalEndpoint, PolicyId, PolicyRule, TierPolicies
from felix.calc.parameters import AllowAction, EndpointToHostAction, NatExclusions, Parameters
from resources.names import IfName, IPAddress, NodeName, ProfileName

NEIGHBOUR_DISCOVERY = frozenset({130, 131, 132, 133, 135, 136})
"""ICMPv6 types that a workload may always send to its host."""


class Outcome(enum.Enum):
    """What becomes of a packet. LEFT: policy has no say, so what comes next decides, at last the host's own rules."""

    ALLOWED = "allowed"
    DENIED = "denied"
    LEFT = "left to others"


class Reason(enum.Enum):
    """Why."""

    POLICY_RULE = "a rule of a policy"
    PROFILE_RULE = "a rule of a profile"
    END_OF_TIER = "the end of a tier"
    NO_PROFILE = "no profile matched"
    NO_POLICY = "no policy of that kind"
    KNOWN_FLOW = "the flow is established"
    INVALID = "no flow, by connection tracking"
    TUNNEL = "a tunnel from inside a workload"
    UNKNOWN_ENDPOINT = "nobody's interface"
    SPOOFED = "a source address that is not the endpoint's"
    NEIGHBOUR_DISCOVERY = "neighbour discovery with the own host"
    HOST_ACTION = "DefaultEndpointToHostAction"
    OWN_HOST = "from the workload's own host"
    IPIP = "IPIP between hosts"


class Hook(enum.Enum):
    """At which point of a packet's way a question is asked."""

    SOURCE_CHECK = "check of source addresses"
    FORWARD = "forwarded"
    TO_HOST = "to the host"
    FROM_HOST = "from the host"


class Way(enum.Enum):
    """Which way a packet takes through a host."""

    FORWARDED = "forwarded"
    TO_HOST = "to the host"
    FROM_HOST = "from the host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A policy or profile that was asked, or, where neither is named, the end of a tier.

    `logged`: the Log rules that the packet matched. `rule` and `action`: which one decided; None if none did. At the
    end of a tier `action` is the tier's. Rules go by their place in the record, from 1; 0 stands for what is put in
    the place of a record that is missing or cannot be used.
    """

    tier: str | None = None
    policy: PolicyId | None = None
    profile: ProfileName | None = None
    logged: tuple[int, ...] = ()
    rule: int | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one question came to: at one end (`direction` as seen from the endpoint behind `interface`), at one hook."""

    outcome: Outcome
    reason: Reason
    hook: Hook
    interface: IfName | None = None
    direction: Direction | None = None
    walk: tuple[Step, ...] = ()
    """All that was asked, in order; the last one decided, if the reason is a rule or the end of a tier."""

    @property
    def decided_by(self) -> Step | None:
        """The policy, profile or end of tier that decided, if any did."""
        return self.walk[-1] if self.reason in _BY_STEP else None


_BY_STEP = (Reason.POLICY_RULE, Reason.PROFILE_RULE, Reason.END_OF_TIER)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVerdict:
    """What one host makes of a packet. `answers`: to all that was asked, in order; the last one decided."""

    node: NodeName
    way: Way
    outcome: Outcome
    answers: tuple[Answer, ...]

    @property
    def reason(self) -> Reason | None:
        """Why; None if nobody was asked."""
        return self.answers[-1].reason if self.answers else None


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
        if asked.has_decided(self._source_check(packet, in_interface, spoofed)):
            return asked.verdict()
        for interface, direction in ((in_interface, Direction.EGRESS), (out_interface, Direction.INGRESS)):
            if self.is_workload(interface):
                answer = self._workload(packet, interface, direction, Hook.FORWARD)
                accepts = self.parameters.filter_allow_action is AllowAction.ACCEPT
                if asked.has_decided(answer, final=answer.reason is Reason.KNOWN_FLOW and accepts):
                    return asked.verdict()
        return asked.verdict()

    def to_host(self, packet: Packet, in_interface: IfName, *, spoofed: bool | None = None) -> HostVerdict:
        """Answer about a packet for the host itself.

        `spoofed`: whether the way back to the source is another; None: judged by the endpoint's own addresses.
        """
        asked = _Asked(self.node, Way.TO_HOST)
        if asked.has_decided(self._source_check(packet, in_interface, spoofed)):
            return asked.verdict()
        if asked.has_decided(self._ipip(packet), final=True):
            return asked.verdict()
        if self.is_workload(in_interface):
            if _is_neighbour_discovery(packet):
                asked.has_decided(
                    Answer(outcome=Outcome.ALLOWED, reason=Reason.NEIGHBOUR_DISCOVERY, hook=Hook.TO_HOST)
                )
                return asked.verdict()
            answer = self._workload(packet, in_interface, Direction.EGRESS, Hook.TO_HOST)
            accepts = self.parameters.filter_allow_action is AllowAction.ACCEPT
            if asked.has_decided(answer, final=answer.reason is Reason.KNOWN_FLOW and accepts):
                return asked.verdict()
            asked.has_decided(
                Answer(outcome=self._host_action(), reason=Reason.HOST_ACTION, hook=Hook.TO_HOST), final=True
            )
        return asked.verdict()

    def from_host(self, packet: Packet, out_interface: IfName) -> HostVerdict:
        """Answer about a packet of the host's own."""
        asked = _Asked(self.node, Way.FROM_HOST)
        if self.is_workload(out_interface):
            asked.has_decided(
                Answer(outcome=Outcome.LEFT, reason=Reason.OWN_HOST, hook=Hook.FROM_HOST, interface=out_interface),
                final=True,
            )
            return asked.verdict()
        if self._is_host_ipip(packet, packet.destination):
            asked.has_decided(Answer(outcome=Outcome.ALLOWED, reason=Reason.IPIP, hook=Hook.FROM_HOST), final=True)
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
        """Tell whether the host puts an address of its own in the place of the source when the packet leaves."""
        around = self.whole.surroundings
        if around is None:
            return False

        def inside(address: IPAddress, nets: Iterable[str]) -> bool:
            return any(address in ipaddress.ip_network(net) for net in nets)

        version = packet.version
        excepted = around.pools[version]
        if self.parameters.nat_exclusions is NatExclusions.POOLS_AND_HOSTS:
            excepted |= around.hosts[version]
        leaves = inside(packet.source, around.masqueraded_pools[version])
        return leaves and not inside(packet.destination, excepted)

    # What is asked on the way.

    def _source_check(self, packet: Packet, interface: IfName, spoofed: bool | None) -> Answer | None:
        if not self.is_workload(interface):
            return None
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

    def _host_action(self) -> Outcome:
        match self.parameters.endpoint_to_host_action:
            case EndpointToHostAction.ACCEPT:
                return Outcome.ALLOWED
            case EndpointToHostAction.RETURN:
                return Outcome.LEFT
        return Outcome.DENIED

    def _workload(self, packet: Packet, interface: IfName, direction: Direction, hook: Hook) -> Answer:
        """Ask a workload's policies and profiles."""

        def answer(outcome: Outcome, reason: Reason, walk: Iterable[Step] = ()) -> Answer:
            return Answer(
                outcome=outcome, reason=reason, hook=hook, interface=interface, direction=direction, walk=tuple(walk)
            )

        endpoint = self.whole.endpoints.get(interface)
        if endpoint is None:
            return answer(Outcome.DENIED, Reason.UNKNOWN_ENDPOINT)
        if packet.state.is_known_flow:
            return answer(Outcome.ALLOWED, Reason.KNOWN_FLOW)
        if packet.state is State.INVALID and not self.parameters.skip_invalid_check:
            return answer(Outcome.DENIED, Reason.INVALID)
        if direction is Direction.EGRESS and self._is_tunnel(packet):
            return answer(Outcome.DENIED, Reason.TUNNEL)
        walk: list[Step] = []
        outcome = self._tiers(endpoint.tiers, direction, packet, walk)
        if outcome is not Outcome.LEFT:
            by_rule = walk[-1].policy is not None
            return answer(outcome, Reason.POLICY_RULE if by_rule else Reason.END_OF_TIER, walk)
        outcome = self._profiles(endpoint.profiles, direction, packet, walk)
        if outcome is not Outcome.LEFT:
            return answer(outcome, Reason.PROFILE_RULE, walk)
        return answer(Outcome.DENIED, Reason.NO_PROFILE, walk)

    def _is_tunnel(self, packet: Packet) -> bool:
        if packet.protocol == IPIP_NUMBER:
            return not self.parameters.ipip_from_workloads
        is_vxlan = packet.protocol == UDP_NUMBER and packet.destination_port == self.parameters.vxlan_port
        return is_vxlan and not self.parameters.vxlan_from_workloads

    def _tiers(
        self, tiers: Iterable[TierPolicies], direction: Direction, packet: Packet, walk: list[Step]
    ) -> Outcome:
        """Ask the tiers in order; LEFT if each that counts passed the packet on."""
        for tier in tiers:
            policies = tier.of(direction)
            if not policies:
                continue
            action: Action | None = None
            for policy in policies:
                rules = self.whole.policies[policy].of(direction) or ()
                logged, rule, action = self._first(rules, packet)
                walk.append(Step(tier=tier.name, policy=policy, logged=logged, rule=rule, action=action))
                if action is not None:
                    break
            else:
                action = tier.default_action
                walk.append(Step(tier=tier.name, action=action))
            if action is not Action.PASS:
                return Outcome.ALLOWED if action is Action.ALLOW else Outcome.DENIED
        return Outcome.LEFT

    def _profiles(
        self, profiles: Iterable[ProfileName], direction: Direction, packet: Packet, walk: list[Step]
    ) -> Outcome:
        """Ask the profiles in order; LEFT if none had a rule that matched."""
        for profile in profiles:
            rules = self.whole.profiles[profile].of(direction) or ()
            logged, rule, action = self._first(rules, packet)
            walk.append(Step(profile=profile, logged=logged, rule=rule, action=action))
            if action is not None:
                return Outcome.ALLOWED if action is Action.ALLOW else Outcome.DENIED
        return Outcome.LEFT

    def _first(
        self, rules: Iterable[PolicyRule], packet: Packet
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

    def has_decided(self, answer: Answer | None, *, final: bool = False) -> bool:
        """Note an answer; tell whether nobody is to be asked any more. `final`: it is the last word if it is any."""
        if answer is None:
            return False
        self._answers.append(answer)
        self._outcome = answer.outcome
        return final or answer.outcome is Outcome.DENIED

    def verdict(self) -> HostVerdict:
        return HostVerdict(node=self._node, way=self._way, outcome=self._outcome, answers=tuple(self._answers))


def _is_neighbour_discovery(packet: Packet) -> bool:
    is_icmp = packet.version == 6 and packet.protocol == ICMP_NUMBER[6] and packet.icmp is not None
    return is_icmp and packet.icmp is not None and packet.icmp.type in NEIGHBOUR_DISCOVERY

