"""NetworkPolicy: rules for the endpoints of one namespace (reference resources.md 2.9; names 1.6)."""

from collections.abc import Iterable, Mapping

import msgspec

from resources.gotext import JSON
from resources.kinds.base import Kind, Metadata, Problem
from resources.kinds.policy import (
    COLUMNS,
    GLOBAL_ONLY,
    STAGED_ONLY,
    WIDE,
    closed,
    complete,
    namespaced_name_fault,
    needed,
    spec_problems,
    written_problems,
)
from resources.kinds.rule import Rule


class NetworkPolicySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    tier: str = ""
    order: float | None = None
    """None is infinity: after all others."""
    ingress: list[Rule] = []
    egress: list[Rule] = []
    selector: str = ""
    types: list[str] = []
    """Ingress, Egress; computed when empty."""
    service_account_selector: str = ""
    performance_hints: list[str] = []


class NetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: NetworkPolicySpec = NetworkPolicySpec()


def _check(policy: NetworkPolicy) -> Iterable[Problem]:
    yield from spec_problems(policy.spec)
    yield from written_problems(policy.spec)


def _needs(policy: NetworkPolicy) -> Iterable[Problem]:
    return needed(spec_problems(policy.spec))


def _closed(document: Mapping[str, JSON]) -> NetworkPolicy | None:
    return closed(document, NetworkPolicy, NetworkPolicySpec)


KIND: Kind[NetworkPolicy] = Kind(
    name="NetworkPolicy",
    plural="networkpolicies",
    type=NetworkPolicy,
    namespaced=True,
    aliases=("networkpolicy", "networkpolicies", "policy", "policies", "np", "pol", "pols"),
    complete=complete,
    check=_check,
    needs=_needs,
    closed=_closed,
    name_fault=namespaced_name_fault,
    foreign=STAGED_ONLY | GLOBAL_ONLY,
    columns=COLUMNS,
    wide=WIDE,
)
