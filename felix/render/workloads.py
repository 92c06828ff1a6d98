"""The two chains of a workload's interface: what may reach it, and what it may send (reference felix.md 3.5)."""

from collections.abc import Iterable

from felix.calc.model import Action, Direction, LocalEndpoint, TierPolicies
from felix.calc.parameters import Parameters
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
from felix.render.groups import group_of
from felix.render.names import policy_chain, profile_chain
from resources.names import ProfileName

IPIP_PROTOCOL = "4"
UDP_PROTOCOL = "17"


def endpoint_rules(endpoint: LocalEndpoint, direction: Direction, parameters: Parameters) -> list[Rule]:
    """Return the endpoint's chain for ingress (to it) or egress (from it). It ends in A set and a return, or a drop."""
    rules = connections(Verdict(parameters.filter_allow_action.value), parameters)
    rules.append(clean_start(parameters))
    if direction is Direction.EGRESS:
        rules += _no_tunnels(parameters)
    rules += tier_rules(endpoint.tiers, direction, denied(parameters), parameters, grouped=True)
    return rules + profile_rules(endpoint.profiles, direction, denied(parameters), parameters)


def denied(parameters: Parameters) -> Verdict:
    return Verdict(parameters.filter_deny_action.value)


def connections(allow: Verdict, parameters: Parameters) -> list[Rule]:
    """What connection tracking knows needs no policy: established flows pass, packets of no flow do not."""
    rules = []
    if allow is Verdict.RETURN:
        rules.append(rule(InState("RELATED,ESTABLISHED"), to=mark(parameters.marks.accept)))
    rules.append(rule(InState("RELATED,ESTABLISHED"), to=allow, stands_for=Part.ESTABLISHED))
    if not parameters.skip_invalid_check:
        rules.append(rule(InState("INVALID"), to=Verdict.DROP, stands_for=Part.INVALID))
    return rules


def clean_start(parameters: Parameters) -> Rule:
    """Nothing is decided yet."""
    return rule(to=clear(parameters.marks.accept | parameters.marks.passed))


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


def tier_rules(
    tiers: Iterable[TierPolicies],
    direction: Direction,
    deny: Verdict | None,
    parameters: Parameters,
    *,
    untracked: bool = False,
    grouped: bool = False,
) -> list[Rule]:
    """Ask the policies of the tiers in order.

    Args:
        deny: what a tier that denies by default does at its end; None: no tier is final here.
        untracked: connection tracking is to be kept from what is allowed.
        grouped: many policies are asked by a chain that others use too.
    """
    marks = parameters.marks
    accepted = rule(
        marked(marks.accept), to=Verdict.RETURN, comment="Return if policy accepted", stands_for=Part.ALLOWED
    )
    rules: list[Rule] = []
    for tier in tiers:
        if not tier.of(direction):
            continue
        rules.append(rule(to=clear(marks.passed), comment=f"Start of tier {tier.name}", stands_for=Part.TIER))
        group = group_of(tier, direction) if grouped else None
        if group is not None:
            rules += (rule(to=Jump(group.chain), stands_for=Part.GROUP), accepted)
        for policy in tier.of(direction) if group is None else ():
            rules.append(
                rule(unmarked(marks.passed), to=Jump(policy_chain(policy, direction)), stands_for=Part.POLICY)
            )
            if untracked:
                rules.append(rule(marked(marks.accept), to=Verdict.NOTRACK))
            rules.append(accepted)
        if deny is not None:
            rules += _end_of_tier(tier, direction, deny, parameters)
    return rules


def _end_of_tier(tier: TierPolicies, direction: Direction, deny: Verdict, parameters: Parameters) -> list[Rule]:
    undecided = unmarked(parameters.marks.passed)
    rules = []
    if parameters.flow_logs:
        log = end_of_tier_log(tier.name, tier.default_action, direction)
        rules.append(rule(undecided, to=log, stands_for=Part.END_OF_TIER))
    if tier.default_action is not Action.PASS:
        comment = f"End of tier {tier.name}. Drop if no policies passed packet"
        rules.append(rule(undecided, to=deny, comment=comment, stands_for=Part.END_OF_TIER))
    return rules


def profile_rules(
    profiles: Iterable[ProfileName], direction: Direction, deny: Verdict, parameters: Parameters
) -> list[Rule]:
    """Ask the profiles in order, and deny what none of them allows."""
    rules = []
    for profile in profiles:
        rules.append(rule(to=Jump(profile_chain(profile, direction)), stands_for=Part.PROFILE))
        accepted = marked(parameters.marks.accept)
        rules.append(
            rule(accepted, to=Verdict.RETURN, comment="Return if profile accepted", stands_for=Part.ALLOWED)
        )
    if parameters.flow_logs:
        rules.append(rule(to=no_profile_log(direction), stands_for=Part.NO_PROFILE))
    rules.append(rule(to=deny, comment="Drop if no profiles matched", stands_for=Part.NO_PROFILE))
    return rules
