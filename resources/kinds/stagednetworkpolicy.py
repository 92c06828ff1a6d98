"""StagedNetworkPolicy: a NetworkPolicy that somebody thinks of; stored and shown, never enforced."""

from collections.abc import Iterable

import msgspec

from resources.kinds.base import Kind, Metadata, Problem
from resources.kinds.policy import (
    COLUMNS,
    GLOBAL_ONLY,
    WIDE,
    complete_staged,
    namespaced_name_fault,
    spec_problems,
    staged_problems,
    written_problems,
)
from resources.kinds.rule import Rule


class StagedNetworkPolicySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    staged_action: str = ""
    """Set, Delete, Learn or Ignore: what shall become of the policy of the same name."""
    tier: str = ""
    order: float | None = None
    ingress: list[Rule] = []
    egress: list[Rule] = []
    selector: str = ""
    types: list[str] = []
    service_account_selector: str = ""
    performance_hints: list[str] = []


class StagedNetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: StagedNetworkPolicySpec = StagedNetworkPolicySpec()


def _check(policy: StagedNetworkPolicy) -> Iterable[Problem]:
    yield from staged_problems(policy.spec)
    yield from spec_problems(policy.spec)
    yield from written_problems(policy.spec)


KIND: Kind[StagedNetworkPolicy] = Kind(
    name="StagedNetworkPolicy",
    plural="stagednetworkpolicies",
    type=StagedNetworkPolicy,
    namespaced=True,
    aliases=("stagednetworkpolicy", "stagednetworkpolicies", "snp", "snps"),
    complete=complete_staged,
    check=_check,
    name_fault=namespaced_name_fault,
    foreign=GLOBAL_ONLY,
    columns=COLUMNS,
    wide=WIDE,
)
