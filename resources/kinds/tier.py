"""Tier: an ordered group of policies (reference resources.md 2.10)."""

import msgspec

from resources.kinds.base import Kind, Metadata

DEFAULT_ORDER = 1_000_000.0


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


KIND = Kind(name="Tier", plural="tiers", type=Tier, aliases=("tier", "tiers"))
