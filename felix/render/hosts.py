"""The chains of host endpoints: which there are in which table, how packets get there, and the failsafe ports.

Source: reference felix.md 3.5, 3.7 to 3.9. An endpoint has

    filter  cali-fh-  cali-th-        normal policy, about what the host's own processes get and send
            cali-fhfw- cali-thfw-     policy about what is forwarded
    mangle  cali-th-                  normal policy again, about what the host sends and NAT sent elsewhere: only after
                                      filter's OUTPUT does the kernel know by which interface that leaves
            cali-fh-                  policy before destinations are translated, if there is some
    raw     cali-fh-  cali-th-        policy before connection tracking, if there is some

Unlike in the original Calico an interface with an endpoint of its own never falls to the endpoint for all interfaces,
in no table: before NAT too the named one is asked, even if it has nothing to say there.
"""

from collections.abc import Iterable, Mapping

from felix.calc.model import ANY_INTERFACE, Direction, LocalHostEndpoint, PolicyId
from felix.calc.parameters import HostPort, Parameters
from felix.render.chains import (
    Condition,
    End,
    Goto,
    HasIcmpType,
    HasProtocol,
    InNet,
    InPorts,
    Jump,
    OutInterface,
    Part,
    Rule,
    Verdict,
    mark,
    rule,
)
from felix.render.dispatch import FORWARD_FROM, FORWARD_TO, HOST_FROM, HOST_TO, Dispatch, Side
from felix.render.names import (
    FAILSAFE,
    FORWARD_FROM_HOST,
    FORWARD_TO_HOST,
    FROM_HOST,
    TO_HOST,
    endpoint_chain,
)
from felix.render.workloads import clean_start, connections, denied, profile_rules, tier_rules
from resources.names import IfName, ProfileName

TableChains = dict[tuple[str, str], list[Rule]]
"""Rules by table and chain."""
ChangedChains = dict[tuple[str, str], list[Rule] | None]
"""The same; None: the chain is gone."""
_PREFIX = {Direction.INGRESS: FROM_HOST, Direction.EGRESS: TO_HOST}
LINK_UPKEEP = (130, 131, 132, 133, 134, 135, 136, 143)
"""ICMPv6 types without which a host loses its neighbours, its routers and its place in multicast groups (RFC 4890,
section 4.4.1). They are to IPv6 what ARP is to IPv4, which no policy sees either."""
_FORWARD_PREFIX = {Direction.INGRESS: FORWARD_FROM_HOST, Direction.EGRESS: FORWARD_TO_HOST}


def endpoint_chains(endpoint: LocalHostEndpoint, parameters: Parameters, *, pre_dnat: bool) -> TableChains:
    """Return the chains of a host endpoint, the same in both families.

    `pre_dnat`: make the chain before NAT too, whatever stands in it.
    """
    name = endpoint.interface
    chains: TableChains = {}
    for direction in Direction:
        chains["filter", endpoint_chain(_PREFIX[direction], name)] = _normal(
            endpoint, direction, Verdict(parameters.filter_allow_action.value), denied(parameters), parameters
        )
        chains["filter", endpoint_chain(_FORWARD_PREFIX[direction], name)] = _forward(endpoint, direction, parameters)
    # others use mangle to change packets: what is allowed is to reach their rules
    chains["mangle", endpoint_chain(TO_HOST, name)] = _normal(
        endpoint, Direction.EGRESS, Verdict.RETURN, Verdict.DROP, parameters
    )
    if pre_dnat:
        chains["mangle", endpoint_chain(FROM_HOST, name)] = _before_nat(endpoint, parameters)
    if endpoint.untracked:
        for direction in Direction:
            chains["raw", endpoint_chain(_PREFIX[direction], name)] = [
                rule(to=Jump(FAILSAFE[direction])),
                clean_start(parameters),
                *tier_rules(endpoint.untracked, direction, None, parameters, untracked=True),
            ]
    return chains


def _normal(
    endpoint: LocalHostEndpoint, direction: Direction, allow: Verdict, deny: Verdict, parameters: Parameters
) -> list[Rule]:
    return [
        *connections(allow, parameters),
        rule(to=Jump(FAILSAFE[direction])),
        clean_start(parameters),
        *tier_rules(endpoint.normal, direction, deny, parameters),
        *profile_rules(endpoint.profiles, direction, deny, parameters),
    ]


def _forward(endpoint: LocalHostEndpoint, direction: Direction, parameters: Parameters) -> list[Rule]:
    rules = connections(Verdict(parameters.filter_allow_action.value), parameters)
    rules.append(clean_start(parameters))
    rules += tier_rules(endpoint.forward, direction, denied(parameters), parameters)
    if not any(tier.of(direction) for tier in endpoint.forward):
        rules.append(rule(to=mark(parameters.marks.accept), comment="Allow forwarded traffic by default"))
        accepted = "Return for accepted forward traffic"
        rules.append(rule(to=Verdict.RETURN, comment=accepted, stands_for=Part.ALLOWED))
    return rules


def _before_nat(endpoint: LocalHostEndpoint, parameters: Parameters) -> list[Rule]:
    return [
        *connections(Verdict(parameters.mangle_allow_action.value), parameters),
        rule(to=Jump(FAILSAFE[Direction.INGRESS])),
        clean_start(parameters),
        *tier_rules(endpoint.pre_dnat, Direction.INGRESS, None, parameters),
    ]


def failsafe_rules(direction: Direction, table: str, version: int, parameters: Parameters) -> list[Rule]:
    """Return the chain that lets the failsafe ports in, or out, and with IPv6 what keeps the link alive.

    In the raw table the answers of what the other chain lets through must pass too: nothing is tracked there yet, and
    policy could keep half of the connection from being tracked.
    """
    incoming = direction is Direction.INGRESS
    there = End.SOURCE if incoming else End.DESTINATION
    ways = [(parameters.failsafe_inbound if incoming else parameters.failsafe_outbound, End.DESTINATION)]
    if table == "raw":
        ways.append((parameters.failsafe_outbound if incoming else parameters.failsafe_inbound, End.SOURCE))
    rules = [
        rule(*_failsafe(port, end, there), to=Verdict.ACCEPT)
        for ports, end in ways
        for port in ports
        if port.net is None or port.net.version == version
    ]
    if version == 6:
        rules += [rule(HasProtocol("58"), HasIcmpType(6, kind, None), to=Verdict.ACCEPT) for kind in LINK_UPKEEP]
    return rules


def _failsafe(port: HostPort, end: End, there: End) -> Iterable[Condition]:
    yield HasProtocol(port.protocol)
    yield InPorts(end, ((port.port, port.port),))
    if port.net is not None:
        yield InNet(there, port.net)


class HostChains:
    """All chains of the host endpoints, as far as they were rendered. Its cost follows what changed."""

    def __init__(self) -> None:
        self._endpoints: dict[IfName, LocalHostEndpoint] = {}
        self._of_endpoint: dict[IfName, frozenset[tuple[str, str]]] = {}
        self._filter, self._nat_sent, self._before_nat, self._raw = (Dispatch() for _ in range(4))
        self._egress_users: dict[PolicyId | ProfileName, set[IfName]] = {}

    @property
    def failsafe(self) -> frozenset[tuple[str, Direction]]:
        """The tables and directions in which some chain jumps to the failsafe ports."""
        found: set[tuple[str, Direction]] = set()
        if self._endpoints:
            found |= {("filter", Direction.INGRESS), ("filter", Direction.EGRESS), ("mangle", Direction.EGRESS)}
        if len(self._before_nat) or self._is_wild_before_nat:
            found.add(("mangle", Direction.INGRESS))
        if len(self._raw):
            found |= {("raw", Direction.INGRESS), ("raw", Direction.EGRESS)}
        return frozenset(found)

    def is_asked_after_nat(self, who: PolicyId | ProfileName) -> bool:
        """Tell whether the egress rules of a policy or profile are needed in the mangle table."""
        return who in self._egress_users

    def take(self, changes: Mapping[IfName, LocalHostEndpoint | None]) -> set[PolicyId | ProfileName]:
        """Take what changed, and return for whom `is_asked_after_nat` has another answer now."""
        was_wild = self._is_wild_before_nat
        flipped: set[PolicyId | ProfileName] = set()
        for name, endpoint in changes.items():
            flipped ^= self._count_users(name, self._endpoints.get(name), endpoint)
            if endpoint is None:
                self._endpoints.pop(name, None)
            else:
                self._endpoints[name] = endpoint
            if name == ANY_INTERFACE:
                for dispatch in (self._filter, self._nat_sent, self._before_nat):
                    dispatch.touch_all()
        named = changes if was_wild is self._is_wild_before_nat else {**changes, **self._endpoints}
        for name in named:
            if name != ANY_INTERFACE:
                found = self._endpoints.get(name)
                for dispatch, there in (
                    (self._filter, found is not None),
                    (self._nat_sent, found is not None),
                    (self._before_nat, found is not None and self._has_before_nat(found)),
                    (self._raw, found is not None and bool(found.untracked)),
                ):
                    (dispatch.add if there else dispatch.remove)(name)
        return flipped

    def touched(self, changes: Mapping[IfName, LocalHostEndpoint | None]) -> set[IfName]:
        """Return the interfaces whose chains such changes may change."""
        return {*changes, *(self._endpoints if ANY_INTERFACE in changes else ())}

    def render(self, names: Iterable[IfName], parameters: Parameters) -> ChangedChains:
        """Return the chains of endpoints as they are now."""
        changed: ChangedChains = {}
        for name in names:
            endpoint = self._endpoints.get(name)
            chains: TableChains = {}
            if endpoint is not None:
                chains = endpoint_chains(endpoint, parameters, pre_dnat=self._has_before_nat(endpoint))
            changed |= dict.fromkeys(self._of_endpoint.pop(name, frozenset()) - chains.keys())
            changed |= chains
            if chains:
                self._of_endpoint[name] = frozenset(chains)
        return changed

    def render_dispatch(self, parameters: Parameters) -> ChangedChains:
        """Return the dispatch chains that changed."""
        wild = ANY_INTERFACE in self._endpoints
        own_workloads = [
            rule(
                OutInterface(f"{prefix}+"),
                to=Verdict.RETURN,
                comment="Skip egress WHEP policy for traffic to local workload",
            )
            for prefix in parameters.interface_prefixes
        ]
        sides = (HOST_FROM, HOST_TO, FORWARD_FROM, FORWARD_TO)
        to_wild = _end(HOST_TO, wild)
        return (
            _in_table("filter", self._filter.take_changes({side: _end(side, wild) for side in sides}))
            | _in_table("mangle", self._nat_sent.take_changes({HOST_TO: [*own_workloads, *to_wild] if wild else []}))
            | _in_table("mangle", self._before_nat.take_changes({HOST_FROM: _end(HOST_FROM, self._is_wild_before_nat)}))
            | _in_table("raw", self._raw.take_changes({HOST_FROM: (), HOST_TO: ()}))
        )

    def touch_all(self) -> None:
        """Give every dispatch chain again at the next turn."""
        for dispatch in (self._filter, self._nat_sent, self._before_nat, self._raw):
            dispatch.touch_all()

    @property
    def endpoints(self) -> Mapping[IfName, LocalHostEndpoint]:
        return self._endpoints

    @property
    def names(self) -> Iterable[IfName]:
        return self._endpoints

    @property
    def _is_wild_before_nat(self) -> bool:
        wild = self._endpoints.get(ANY_INTERFACE)
        return wild is not None and bool(wild.pre_dnat)

    def _has_before_nat(self, endpoint: LocalHostEndpoint) -> bool:
        """Tell whether the endpoint needs a chain before NAT: for its policy, or to keep it from the wild one's."""
        return bool(endpoint.pre_dnat) or self._is_wild_before_nat

    def _count_users(
        self, name: IfName, before: LocalHostEndpoint | None, now: LocalHostEndpoint | None
    ) -> set[PolicyId | ProfileName]:
        old, new = _asked_after_nat(before), _asked_after_nat(now)
        flipped = {who for who in new - old if who not in self._egress_users}
        for who in new - old:
            self._egress_users.setdefault(who, set()).add(name)
        for who in old - new:
            self._egress_users[who].discard(name)
            if not self._egress_users[who]:
                del self._egress_users[who]
                flipped.add(who)
        return flipped


def _asked_after_nat(endpoint: LocalHostEndpoint | None) -> frozenset[PolicyId | ProfileName]:
    if endpoint is None:
        return frozenset()
    return frozenset((*endpoint.profiles, *(policy for tier in endpoint.normal for policy in tier.egress)))


def _end(side: Side, wild: bool) -> list[Rule]:
    return [rule(to=Goto(endpoint_chain(side.prefix, ANY_INTERFACE)))] if wild else []


def _in_table(table: str, chains: Mapping[str, list[Rule] | None]) -> ChangedChains:
    return {(table, chain): rules for chain, rules in chains.items()}
