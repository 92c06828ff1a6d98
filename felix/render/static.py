"""Chains that are there whatever the endpoints are: the ways in and out of each table (reference felix.md 3.4 to 3.7).

Chains for floating addresses are empty but declared, because others jump to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from felix.calc.model import LocalEndpoint, Surroundings
from felix.calc.parameters import EndpointToHostAction, InsertMode, NatExclusions, Parameters
from felix.render import dispatch
from felix.render.chains import (
    Condition,
    End,
    Goto,
    HasIcmpType,
    HasProtocol,
    InInterface,
    InNet,
    InPorts,
    InSet,
    InState,
    IsLocal,
    Jump,
    Masquerade,
    OutInterface,
    Part,
    Rule,
    SourceNat,
    SourceNotRoutedBack,
    Target,
    Verdict,
    clear,
    mark,
    marked,
    rule,
    unmarked,
)
from felix.render.names import ALL_HOSTS, ALL_POOLS, ALL_VXLAN_HOSTS, MASQUERADED_POOLS, set_name
from felix.render.workloads import IPIP_PROTOCOL, UDP_PROTOCOL
from resources.vxlan import DEVICES

IPIP_DEVICE = "tunl0"
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 135, 136)
"""ICMPv6 types that a workload must be able to send to its host before any policy."""

_HOST_POLICY = "Host endpoint policy accepted packet."
_NOT_ASKED = "cali-not-asked"
TableChains = dict[tuple[str, str], list[Rule]]
"""Rules by table and chain."""


@dataclass(frozen=True, slots=True)
class KernelRules:
    """What we put into a kernel chain, first and last."""

    first: tuple[Rule, ...] = ()
    last: tuple[Rule, ...] = ()


def kernel_chains(parameters: Parameters) -> dict[tuple[str, str], KernelRules]:
    """Return our rules in the kernel's chains, by table and chain."""
    accept = Verdict(parameters.filter_allow_action.value)
    accepted = parameters.marks.accept
    forward_last = (
        rule(marked(accepted), to=accept, comment="Policy explicitly accepted packet."),
        rule(to=mark(accepted)),
    )
    first = {
        key: KernelRules(first=(rule(to=Jump(f"cali-{key[1]}")),))
        for key in (
            ("raw", "PREROUTING"), ("raw", "OUTPUT"), ("mangle", "PREROUTING"), ("mangle", "POSTROUTING"),
            ("nat", "PREROUTING"), ("nat", "OUTPUT"), ("filter", "INPUT"), ("filter", "OUTPUT"),
        )
    }
    chains = first | {
        ("nat", "POSTROUTING"): KernelRules(last=(rule(to=Jump("cali-POSTROUTING")),)),
        ("filter", "FORWARD"): KernelRules(first=(rule(to=Jump("cali-FORWARD")),), last=forward_last),
    }
    if parameters.insert_mode is InsertMode.APPEND:  # rules of others are to be asked before ours
        return {key: KernelRules(last=rules.first + rules.last) for key, rules in chains.items()}
    if unasked := parameters.marks.unasked:
        chains["mangle", "FORWARD"] = KernelRules(first=(rule(to=Jump("cali-FORWARD")),))
        # what the host itself sends may carry anybody's mark
        chains["mangle", "OUTPUT"] = KernelRules(first=(rule(marked(unasked), to=clear(unasked)),))
        after = chains["mangle", "POSTROUTING"].first
        chains["mangle", "POSTROUTING"] = KernelRules(first=(*after, rule(marked(unasked), to=Jump(_NOT_ASKED))))
    return chains


def static_chains(version: int, parameters: Parameters, surroundings: Surroundings) -> TableChains:
    """Return all static chains of one family, by table and chain.

    Raw's cali-rpf-skip is made by `spoofing_chain`, those of host endpoints by `felix.render.hosts`.
    """
    return (
        _raw(version, parameters, surroundings)
        | _mangle(parameters)
        | _nat(version, parameters, surroundings)
        | _filter(version, parameters, surroundings)
    )


def spoofing_chain(endpoints: Iterable[LocalEndpoint], version: int, parameters: Parameters) -> list[Rule]:
    """Return the exceptions from the check of source addresses, if the host's settings allow any."""
    if not parameters.source_spoofing:
        return []
    return [
        rule(InInterface(endpoint.interface), InNet(End.SOURCE, net), to=Verdict.ACCEPT)
        for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.interface)
        for net in endpoint.spoofed_sources
        if net.version == version
    ]


def fixed_sets(version: int, parameters: Parameters, surroundings: Surroundings) -> dict[str, frozenset[str]]:
    """Return the sets of hosts and pools that the static chains refer to, by kernel name."""
    sets: dict[str, frozenset[str]] = {}
    masquerade = bool(surroundings.masqueraded_pools[version])
    if masquerade:
        sets[set_name(version, ALL_POOLS)] = surroundings.pools[version]
        sets[set_name(version, MASQUERADED_POOLS)] = surroundings.masqueraded_pools[version]
    exclude_hosts = masquerade and parameters.nat_exclusions is NatExclusions.POOLS_AND_HOSTS
    if exclude_hosts or (version == 4 and surroundings.ipip):
        sets[set_name(version, ALL_HOSTS)] = surroundings.hosts[version]
    if version in surroundings.vxlan:
        sets[set_name(version, ALL_VXLAN_HOSTS)] = surroundings.vxlan[version].sources
    return sets


def _workload_interfaces(parameters: Parameters) -> list[str]:
    return [f"{prefix}+" for prefix in parameters.interface_prefixes]


def _wrapped(parameters: Parameters) -> tuple[Condition, Condition]:
    """Packets to the port of VXLAN."""
    return HasProtocol(UDP_PROTOCOL), InPorts(End.DESTINATION, ((parameters.vxlan_port, parameters.vxlan_port),))


def _raw(version: int, parameters: Parameters, surroundings: Surroundings) -> TableChains:
    marks = parameters.marks
    vxlan = version in surroundings.vxlan
    prerouting = [rule(to=clear(marks.lasting))]
    prerouting += [rule(InInterface(name), to=mark(marks.scratch0)) for name in _workload_interfaces(parameters)]
    if vxlan:
        # each flow inside has a port of its own outside: tracking them would fill the table with what nobody asks for
        prerouting.append(rule(unmarked(marks.scratch0), *_wrapped(parameters), to=Verdict.NOTRACK))
    prerouting += [
        rule(marked(marks.scratch0), to=Jump("cali-rpf-skip")),
        rule(marked(marks.scratch0), SourceNotRoutedBack(), to=Verdict.DROP, stands_for=Part.SPOOFED),
        rule(unmarked(marks.scratch0), to=Jump(dispatch.HOST_FROM.root)),
        rule(marked(marks.accept), to=Verdict.ACCEPT),
    ]
    output = [
        rule(to=clear(marks.lasting)),
        rule(to=Jump(dispatch.HOST_TO.root)),
        *([rule(*_wrapped(parameters), to=Verdict.NOTRACK)] if vxlan else []),
        rule(marked(marks.accept), to=Verdict.ACCEPT),
    ]
    return {
        ("raw", "cali-PREROUTING"): prerouting,
        ("raw", "cali-OUTPUT"): output,
    }


def _mangle(parameters: Parameters) -> TableChains:
    marks = parameters.marks
    allow = Verdict(parameters.mangle_allow_action.value)
    prerouting = [
        rule(InState("RELATED,ESTABLISHED"), to=allow),
        rule(marked(marks.accept), to=allow),
        rule(to=Jump(dispatch.HOST_FROM.root)),
        rule(marked(marks.accept), to=allow, comment=_HOST_POLICY),
    ]
    postrouting = [
        rule(marked(marks.accept), to=Verdict.RETURN),
        rule(to=clear(marks.lasting)),
        rule(InState("DNAT"), to=Jump(dispatch.HOST_TO.root)),
        rule(marked(marks.accept), to=Verdict.RETURN, comment=_HOST_POLICY),
    ]
    return {
        ("mangle", "cali-PREROUTING"): prerouting,
        ("mangle", "cali-FORWARD"): _unasked_marks(parameters),
        ("mangle", "cali-POSTROUTING"): postrouting,
        ("mangle", _NOT_ASKED): [rule(to=Verdict.DROP, stands_for=Part.NOT_ASKED)] if marks.unasked else [],
    }


def _unasked_marks(parameters: Parameters) -> list[Rule]:
    """Mark each new flow from or to a workload, until the filter table's cali-FORWARD takes the mark away.

    Who still has it behind FORWARD was accepted by rules that somebody put before ours, and is dropped.
    """
    unasked = parameters.marks.unasked
    if not unasked:
        return []
    ends = [interface(name) for name in _workload_interfaces(parameters) for interface in (InInterface, OutInterface)]
    return [rule(to=clear(unasked)), *(rule(end, InState("NEW"), to=mark(unasked)) for end in ends)]


def _nat(version: int, parameters: Parameters, surroundings: Surroundings) -> TableChains:
    postrouting = [rule(to=Jump("cali-fip-snat")), rule(to=Jump("cali-nat-outgoing"))]
    devices = [IPIP_DEVICE] if version == 4 and surroundings.ipip and surroundings.tunnel_address else []
    if version in surroundings.vxlan and surroundings.vxlan[version].has_tunnel:
        devices.append(DEVICES[version])
    # A host's own packet to a remote workload must come from the tunnel's address, or the answer takes another way.
    postrouting += [
        rule(
            OutInterface(device),
            IsLocal(End.SOURCE, negated=True, outgoing=True),
            IsLocal(End.SOURCE),
            to=Masquerade(random=parameters.masquerade_random),
        )
        for device in devices
    ]
    return {
        ("nat", "cali-PREROUTING"): [rule(to=Jump("cali-fip-dnat"))],
        ("nat", "cali-OUTPUT"): [rule(to=Jump("cali-fip-dnat"))],
        ("nat", "cali-POSTROUTING"): postrouting,
        ("nat", "cali-fip-dnat"): [],
        ("nat", "cali-fip-snat"): [],
        ("nat", "cali-nat-outgoing"): _nat_outgoing(version, parameters, surroundings),
    }


def _nat_outgoing(version: int, parameters: Parameters, surroundings: Surroundings) -> list[Rule]:
    if not surroundings.masqueraded_pools[version]:
        return []
    leaving: list[Condition] = [OutInterface(parameters.nat_interface)] if parameters.nat_interface else []
    leaving.append(InSet(End.SOURCE, set_name(version, MASQUERADED_POOLS)))
    leaving.append(InSet(End.DESTINATION, set_name(version, ALL_POOLS), negated=True))
    if parameters.nat_exclusions is NatExclusions.POOLS_AND_HOSTS:
        leaving.append(InSet(End.DESTINATION, set_name(version, ALL_HOSTS), negated=True))
    address = parameters.nat_address

    def translate(*, with_ports: bool) -> Target:
        ports = parameters.nat_ports if with_ports else None
        if address is not None and address.version == version:
            return SourceNat(str(address), ports, parameters.snat_random)
        return Masquerade(ports, parameters.masquerade_random)

    rules: list[Rule] = []
    if parameters.nat_ports:
        for protocol in ("tcp", "udp"):
            rules.append(rule(HasProtocol(protocol), *leaving, to=translate(with_ports=True)))
            rules.append(rule(HasProtocol(protocol), *leaving, to=Verdict.RETURN))
    rules.append(rule(*leaving, to=translate(with_ports=False)))
    return rules


def _filter(version: int, parameters: Parameters, surroundings: Surroundings) -> TableChains:
    return {
        ("filter", "cali-cidr-block"): [],
        ("filter", "cali-INPUT"): _input(version, parameters, surroundings),
        ("filter", "cali-wl-to-host"): _workload_to_host(version, parameters),
        ("filter", "cali-FORWARD"): _forward(parameters),
        ("filter", "cali-OUTPUT"): _output(version, parameters, surroundings),
    }


def _input(version: int, parameters: Parameters, surroundings: Surroundings) -> list[Rule]:
    marks = parameters.marks
    allow = Verdict(parameters.filter_allow_action.value)
    rules: list[Rule] = []
    if version == 4 and surroundings.ipip:
        hosts = InSet(End.SOURCE, set_name(4, ALL_HOSTS))
        encapsulated = HasProtocol(IPIP_PROTOCOL)
        rules += [
            rule(
                encapsulated, hosts, IsLocal(End.DESTINATION), to=allow, comment="Allow IPIP packets from Calico hosts"
            ),
            rule(
                encapsulated,
                to=Verdict.DROP,
                comment="Drop IPIP packets from non-Calico hosts",
                stands_for=Part.TUNNEL_IN,
            ),
        ]
    if version in surroundings.vxlan:
        hosts = InSet(End.SOURCE, set_name(version, ALL_VXLAN_HOSTS))
        wrapped = _wrapped(parameters)
        rules += [
            rule(
                *wrapped,
                hosts,
                IsLocal(End.DESTINATION),
                to=allow,
                comment=f"Allow IPv{version} VXLAN packets from allowed hosts",
            ),
            rule(
                *wrapped,
                IsLocal(End.DESTINATION),
                to=Verdict.DROP,
                comment=f"Drop IPv{version} VXLAN packets from non-allowed hosts",
                stands_for=Part.VXLAN_IN,
            ),
        ]
    rules += [rule(InInterface(name), to=Goto("cali-wl-to-host")) for name in _workload_interfaces(parameters)]
    return [
        *rules,
        rule(marked(marks.accept), to=allow),
        rule(to=clear(marks.lasting)),
        rule(to=Jump(dispatch.HOST_FROM.root)),
        rule(marked(marks.accept), to=allow, comment=_HOST_POLICY),
    ]


def _workload_to_host(version: int, parameters: Parameters) -> list[Rule]:
    rules = []
    if version == 6:
        rules = [
            rule(HasProtocol("58"), HasIcmpType(6, kind, None), to=Verdict.ACCEPT) for kind in NEIGHBOUR_DISCOVERY
        ]
    action = parameters.endpoint_to_host_action
    target = Verdict.RETURN if action is EndpointToHostAction.RETURN else Verdict(action.value)
    return [
        *rules,
        rule(to=Jump(dispatch.FROM.root)),
        rule(to=target, comment="Configured DefaultEndpointToHostAction", stands_for=Part.TO_HOST),
    ]


def _forward(parameters: Parameters) -> list[Rule]:
    marks = parameters.marks
    names = _workload_interfaces(parameters)
    return [
        rule(to=clear(marks.lasting & ~marks.accept)),
        rule(unmarked(marks.accept), to=Jump(dispatch.FORWARD_FROM.root)),
        *(rule(InInterface(name), to=Jump(dispatch.FROM.root)) for name in names),
        *(rule(OutInterface(name), to=Jump(dispatch.TO.root)) for name in names),
        rule(to=Jump(dispatch.FORWARD_TO.root)),
        rule(to=Jump("cali-cidr-block")),
        *([rule(to=clear(marks.unasked))] if marks.unasked else []),
    ]


def _output(version: int, parameters: Parameters, surroundings: Surroundings) -> list[Rule]:
    marks = parameters.marks
    allow = Verdict(parameters.filter_allow_action.value)
    rules = [rule(marked(marks.accept), to=allow)]
    rules += [rule(OutInterface(name), to=Verdict.RETURN) for name in _workload_interfaces(parameters)]
    if version == 4 and surroundings.ipip:
        rules.append(
            rule(
                HasProtocol(IPIP_PROTOCOL),
                InSet(End.DESTINATION, set_name(4, ALL_HOSTS)),
                IsLocal(End.SOURCE),
                to=allow,
                comment="Allow IPIP packets to other Calico hosts",
            )
        )
    if version in surroundings.vxlan:
        rules.append(
            rule(
                *_wrapped(parameters),
                InSet(End.DESTINATION, set_name(version, ALL_VXLAN_HOSTS)),
                IsLocal(End.SOURCE),
                to=allow,
                comment=f"Allow IPv{version} VXLAN packets to other allowed hosts",
            )
        )
    return [
        *rules,
        rule(to=clear(marks.lasting)),
        rule(InState("DNAT", negated=True), to=Jump(dispatch.HOST_TO.root)),
        rule(marked(marks.accept), to=allow, comment=_HOST_POLICY),
    ]
