"""GlobalNetworkPolicy: ordered rules for what a selector picks (reference resources.md 2.9; names 1.6)."""

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.kinds.rule import Rule


class GlobalNetworkPolicySpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "service_account_selector": "serviceAccountSelector", "performance_hints": "performanceHints",
        "do_not_track": "doNotTrack", "pre_dnat": "preDNAT", "apply_on_forward": "applyOnForward",
        "namespace_selector": "namespaceSelector",
    },
):
    tier: str = ""
    order: float | None = None
    """None is infinity: after all others."""
    ingress: list[Rule] = []
    egress: list[Rule] = []
    selector: str = ""
    types: list[str] = []
    """Ingress, Egress; computed when empty."""
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    namespace_selector: str = ""
    service_account_selector: str = ""
    performance_hints: list[str] = []


class GlobalNetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


KIND = Kind(name="GlobalNetworkPolicy", plural="globalnetworkpolicies", type=GlobalNetworkPolicy,
            aliases=("globalnetworkpolicy", "globalnetworkpolicies", "gnp", "gnps"))
