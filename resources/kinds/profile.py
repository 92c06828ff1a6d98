"""Profile: rules that an endpoint names, and labels that it hands to its endpoints (reference resources.md 2.8)."""

from collections.abc import Iterable

import msgspec

from resources.kinds import fields
from resources.kinds.base import Column, Kind, Metadata, Problem, View, name_cell
from resources.kinds.rule import Rule, rules_problems

DEFAULT_ALLOW = "projectcalico-default-allow"
"""The profile that is always there and never stored."""


class ProfileSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    ingress: list[Rule] = []
    egress: list[Rule] = []
    labels_to_apply: dict[str, str] = {}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: ProfileSpec = ProfileSpec()


def default_allow() -> Profile:
    return Profile(
        metadata=Metadata(name=DEFAULT_ALLOW, resource_version="1"),
        spec=ProfileSpec(ingress=[Rule(action="Allow")], egress=[Rule(action="Allow")]),
    )


def _check(profile: Profile) -> Iterable[Problem]:
    yield from rules_problems(("spec", "ingress"), profile.spec.ingress)
    yield from rules_problems(("spec", "egress"), profile.spec.egress)
    yield from fields.labels(("spec", "labelsToApply"), profile.spec.labels_to_apply)


def _needs(profile: Profile) -> Iterable[Problem]:
    for direction, rules in (("ingress", profile.spec.ingress), ("egress", profile.spec.egress)):
        yield from (p for p in rules_problems(("spec", direction), rules) if not p.warning)


def _labels_cell(profile: Profile, _: View) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(profile.spec.labels_to_apply.items()))


KIND: Kind[Profile] = Kind(
    name="Profile",
    plural="profiles",
    type=Profile,
    aliases=("profile", "profiles", "pro", "pros"),
    check=_check,
    needs=_needs,
    columns=(Column("NAME", name_cell),),
    wide=(Column("NAME", name_cell), Column("LABELS", _labels_cell)),
)
