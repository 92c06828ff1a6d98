"""The two chains of a workload's interface: what may reach it, and what it may send (reference felix.md 3.5)."""

from felix.calc.model import Action, Direction, LocalEndpoint
from felix.calc.parameters import AllowAction, Parameters
from felix.render.chains import (
    End,
    HasProtocol,
    InPorts,
    InState,
    Jump,
    Part,
    Rule,
    Verdict,
    clear,
    mark,
    marked,
    rule,
    unmarked,
)
from felix.render.flowlog import end_of_tier_log, no_profile_log
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
                tier.name,
                [policy_chain(policy, direction) for policy in policies],
                tier.default_action,
                direction,
                parameters,
            )
    for profile in endpoint.profiles:
        rules.append(rule(to=Jump(profile_chain(profile, direction)), stands_for=Part.PROFILE))
        rules.append(
            rule(
                marked(marks.accept),
                to=Verdict.RETURN,
                comment="Return if profile accepted",
                stands_for=Part.ALLOWED,
            )
        )
    if parameters.flow_logs:
        rules.append(rule(to=no_profile_log(direction), stands_for=Part.NO_PROFILE))
    rules.append(rule(to=denied(parameters), comment="Drop if no profiles matched", stands_for=Part.NO_PROFILE))
    return rules


def denied(parameters: Parameters) -> Verdict:
    return Verdict(parameters.filter_deny_action.value)


def _connections(parameters: Parameters) -> list[Rule]:
    """What connection tracking knows needs no policy: established flows pass, packets of no flow do not."""
    rules = []
    if parameters.filter_allow_action is AllowAction.RETURN:
        rules.append(rule(InState("RELATED,ESTABLISHED"), to=mark(parameters.marks.accept)))
    allow = Verdict(parameters.filter_allow_action.value)
    rules.append(rule(InState("RELATED,ESTABLISHED"), to=allow, stands_for=Part.ESTABLISHED))
    if not parameters.skip_invalid_check:
        rules.append(rule(InState("INVALID"), to=Verdict.DROP, stands_for=Part.INVALID))
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
                stands_for=Part.TUNNEL,
            )
        )
    if not parameters.ipip_from_workloads:
        rules.append(
            rule(
                HasProtocol(IPIP_PROTOCOL),
                to=denied(parameters),
                comment="Drop IPinIP encapped packets originating in workloads",
                stands_for=Part.TUNNEL,
            )
        )
    return rules


def _tier(
    name: str, chains: list[str], default_action: Action, direction: Direction, parameters: Parameters
) -> list[Rule]:
    marks = parameters.marks
    rules = [rule(to=clear(marks.passed), comment=f"Start of tier {name}", stands_for=Part.TIER)]
    for chain in chains:
        rules.append(rule(unmarked(marks.passed), to=Jump(chain), stands_for=Part.POLICY))
        rules.append(
            rule(
                marked(marks.accept),
                to=Verdict.RETURN,
                comment="Return if policy accepted",
                stands_for=Part.ALLOWED,
            )
        )
    if parameters.flow_logs:
        log = end_of_tier_log(name, default_action, direction)
        rules.append(rule(unmarked(marks.passed), to=log, stands_for=Part.END_OF_TIER))
    if default_action is not Action.PASS:
        rules.append(
            rule(
                unmarked(marks.passed),
                to=denied(parameters),
                comment=f"End of tier {name}. Drop if no policies passed packet",
                stands_for=Part.END_OF_TIER,
            )
        )
    return rules
