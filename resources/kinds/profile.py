"""Profile: rules that an endpoint names, and labels that it hands to its endpoints (reference resources.md 2.8)."""

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.kinds.rule import Rule


class ProfileSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    ingress: list[Rule] = []
    egress: list[Rule] = []
    labels_to_apply: dict[str, str] = {}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: ProfileSpec = ProfileSpec()


KIND = Kind(name="Profile", plural="profiles", type=Profile, aliases=("profile", "profiles", "pro", "pros"))
