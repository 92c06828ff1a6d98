"""The two chains of a workload's interface: what may reach it, and what it may send (reference felix.md 3.5)."""

from felix.calc.model import Action, Direction, LocalEndpoint
from felix.calc.parameters import AllowAction, Parameters
from felix.render.chains import (
    End,
    HasProtocol,
    InPorts,
    InState,
    Jump,
    Rule,
    Verdict,
    clear,
    mark,
    marked,
    rule,
    unmarked,
)
from felix.render.names import policy_chain, profile_chain

IPIP_PROTOCOL = "4"
UDP_PROTOCOL = "17"


def endpoint_rules(endpoint: LocalEndpoint, direction: Direction, parameters: Parameters) -> list[Rule]:
    """Return the endpoint's chain for ingress (to it) or egress (from it). It ends in A set and a return, or a drop."""
    marks = parameters.marks
    rules = _connections(parameters)
    rules.append(rule(to=clear(marks.accept | marks.passed)))
    if direction is Direction.EGRESS:
        rules += _no_tunnels(parameters)
    for tier in endpoint.tiers:
        if policies := tier.of(direction):
            rules += _tier(
                tier.name, [policy_chain(policy, direction) for policy in policies], tier.default_action, parameters
            )
    for profile in endpoint.profiles:
        rules.append(rule(to=Jump(profile_chain(profile, direction))))
        rules.append(rule(marked(marks.accept), to=Verdict.RETURN, comment="Return if profile accepted"))
    rules.append(rule(to=denied(parameters), comment="Drop if no profiles matched"))
    return rules


def denied(parameters: Parameters) -> Verdict:
    return Verdict(parameters.filter_deny_action.value)


def _connections(parameters: Parameters) -> list[Rule]:
    """What connection tracking knows needs no policy: established flows pass, packets of no flow do not."""
    rules = []
    if parameters.filter_allow_action is AllowAction.RETURN:
        rules.append(rule(InState("RELATED,ESTABLISHED"), to=mark(parameters.marks.accept)))
    rules.append(rule(InState("RELATED,ESTABLISHED"), to=Verdict(parameters.filter_allow_action.value)))
    if not parameters.skip_invalid_check:
        rules.append(rule(InState("INVALID"), to=Verdict.DROP))
    return rules


def _no_tunnels(parameters: Parameters) -> list[Rule]:
    """A workload's own tunnel would carry packets past its egress policy."""
    rules = []
    if not parameters.vxlan_from_workloads:
        rules.append(
            rule(
                HasProtocol(UDP_PROTOCOL),
                InPorts(End.DESTINATION, ((parameters.vxlan_port, parameters.vxlan_port),)),
                to=denied(parameters),
                comment="Drop VXLAN encapped packets originating in workloads",
            )
        )
    if not parameters.ipip_from_workloads:
        rules.append(
            rule(
                HasProtocol(IPIP_PROTOCOL),
                to=denied(parameters),
                comment="Drop IPinIP encapped packets originating in workloads",
            )
        )
    return rules


def _tier(name: str, chains: list[str], default_action: Action, parameters: Parameters) -> list[Rule]:
    marks = parameters.marks
    rules = [rule(to=clear(marks.passed), comment=f"Start of tier {name}")]
    for chain in chains:
        rules.append(rule(unmarked(marks.passed), to=Jump(chain)))
        rules.append(rule(marked(marks.accept), to=Verdict.RETURN, comment="Return if policy accepted"))
    if default_action is not Action.PASS:
        rules.append(
            rule(
                unmarked(marks.passed),
                to=denied(parameters),
                comment=f"End of tier {name}. Drop if no policies passed packet",
            )
        )
    return rules
