"""StagedGlobalNetworkPolicy: a GlobalNetworkPolicy that somebody thinks of; stored and shown, never enforced."""

from collections.abc import Iterable

import msgspec

from resources.kinds.base import Kind, Metadata, Problem, wire
from resources.kinds.policy import (
    COLUMNS,
    WIDE,
    complete_staged,
    global_problems,
    name_fault,
    spec_problems,
    staged_problems,
    written_global_problems,
    written_problems,
)
from resources.kinds.rule import Rule


class StagedGlobalNetworkPolicySpec(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(pre_dnat="preDNAT")
):
    staged_action: str = ""
    """Set, Delete, Learn or Ignore: what shall become of the policy of the same name."""
    tier: str = ""
    order: float | None = None
    ingress: list[Rule] = []
    egress: list[Rule] = []
    selector: str = ""
    types: list[str] = []
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    namespace_selector: str = ""
    service_account_selector: str = ""
    performance_hints: list[str] = []


class StagedGlobalNetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: StagedGlobalNetworkPolicySpec = StagedGlobalNetworkPolicySpec()


def _check(policy: StagedGlobalNetworkPolicy) -> Iterable[Problem]:
    spec = policy.spec
    yield from staged_problems(spec)
    yield from spec_problems(spec)
    yield from global_problems(spec)
    yield from written_problems(spec)
    yield from written_global_problems(spec)


KIND: Kind[StagedGlobalNetworkPolicy] = Kind(
    name="StagedGlobalNetworkPolicy",
    plural="stagedglobalnetworkpolicies",
    type=StagedGlobalNetworkPolicy,
    aliases=("stagedglobalnetworkpolicy", "stagedglobalnetworkpolicies", "sgnp", "sgnps"),
    complete=complete_staged,
    check=_check,
    name_fault=name_fault,
    columns=COLUMNS,
    wide=WIDE,
)
