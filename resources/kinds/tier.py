"""Tier: an ordered group of policies (reference resources.md 2.10)."""

from collections.abc import Iterable

import msgspec

from resources.gotext import shown_float
from resources.kinds import fields
from resources.kinds.base import Column, Kind, Metadata, Problem, View, name_cell
from resources.names import DNS_LABEL_MAX, DNS_LABEL_PATTERN, DNS_LABEL_REGEX

DEFAULT_TIER = "default"
DEFAULT_ORDER = 1_000_000.0
BUILT_IN = ("default", "kube-admin", "kube-baseline", "adminnetworkpolicy", "baselineadminnetworkpolicy")
"""Tiers that some release makes by itself; they cannot be deleted."""


class TierSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    order: float | None = None
    default_action: str = ""
    """Deny or Pass; empty means Deny."""


class TierStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Written as ``{}``."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: TierSpec = TierSpec()
    status: TierStatus = TierStatus()


def _complete(tier: Tier) -> Tier:
    spec = tier.spec
    if spec.order is not None and spec.default_action:
        return tier
    order = DEFAULT_ORDER if spec.order is None else spec.order
    return msgspec.structs.replace(
        tier, spec=msgspec.structs.replace(spec, order=order, default_action=spec.default_action or "Deny")
    )


def _check(tier: Tier) -> Iterable[Problem]:
    spec = tier.spec
    yield from fields.one_of(("spec", "defaultAction"), spec.default_action, ("Deny", "Pass"))
    if tier.metadata.name != DEFAULT_TIER:
        return
    if spec.order != DEFAULT_ORDER:
        reason = f"default tier order must be {shown_float(DEFAULT_ORDER)}"
        yield Problem(("spec", "order"), _order_cell(tier, View()), reason)
    if spec.default_action != "Deny":
        reason = "The 'default' tier must have default action 'Deny'"
        yield Problem(("spec", "defaultAction"), spec.default_action, reason)


def _needs(tier: Tier) -> Iterable[Problem]:
    return fields.one_of(("spec", "defaultAction"), tier.spec.default_action, ("Deny", "Pass"))


def _name_fault(name: str) -> str | None:
    if len(name) > DNS_LABEL_MAX:
        return f"name is too long by {len(name) - DNS_LABEL_MAX} bytes"
    if not DNS_LABEL_REGEX.match(name):
        return f"name must consist of lower case alphanumeric characters or '-' (regex: {DNS_LABEL_PATTERN})"
    return None


def _order_cell(tier: Tier, _: View) -> str:
    return "<nil>" if tier.spec.order is None else shown_float(tier.spec.order)


_COLUMNS: tuple[Column[Tier], ...] = (Column("NAME", name_cell), Column("ORDER", _order_cell))

KIND: Kind[Tier] = Kind(
    name="Tier",
    plural="tiers",
    type=Tier,
    aliases=("tier", "tiers"),
    complete=_complete,
    check=_check,
    needs=_needs,
    name_fault=_name_fault,
    columns=_COLUMNS,
    wide=_COLUMNS,
    order=lambda tier: (tier.spec.order or 0.0, "", tier.metadata.name),
)
