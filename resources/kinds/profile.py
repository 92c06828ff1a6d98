"""Profile: rules that an endpoint names, and labels that it hands to its endpoints (reference resources.md 2.8)."""

from collections.abc import Iterable

import msgspec

from resources.kinds import fields, rule_v1
from resources.kinds.base import V1, Column, Kind, Metadata, Problem, View, name_cell
from resources.kinds.naming import profile_name
from resources.kinds.rule import Rule, rules_problems, written_rule_problems
from resources.kinds.rule_v1 import RuleV1

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
    for direction, rules in (("ingress", profile.spec.ingress), ("egress", profile.spec.egress)):
        yield from rules_problems(("spec", direction), rules)
        yield from written_rule_problems(("spec", direction), rules)
        for index, rule in enumerate(rules):
            if rule.action == "Pass":
                reason = "denies: nothing comes after the profiles to which it could pass"
                yield Problem(("spec", direction, index, "action"), "Pass", reason, "write Deny or Allow", warning=True)
    yield from fields.labels(("spec", "labelsToApply"), profile.spec.labels_to_apply)


def _needs(profile: Profile) -> Iterable[Problem]:
    for direction, rules in (("ingress", profile.spec.ingress), ("egress", profile.spec.egress)):
        yield from (p for p in rules_problems(("spec", direction), rules) if not p.warning)


def _labels_cell(profile: Profile, _: View) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(profile.spec.labels_to_apply.items()))


class ProfileMetadataV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    tags: list[str] = []
    labels: dict[str, str] = {}


class ProfileSpecV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ingress: list[RuleV1] = []
    egress: list[RuleV1] = []


class ProfileV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: ProfileMetadataV1 = ProfileMetadataV1()
    spec: ProfileSpecV1 = ProfileSpecV1()


def _check_v1(profile: ProfileV1) -> Iterable[Problem]:
    metadata = profile.metadata
    yield from rule_v1.name_problems(("metadata", "name"), metadata.name, slash=True)
    for index, tag in enumerate(metadata.tags):
        at = ("metadata", "tags", index)
        if not tag:
            yield Problem(at, "", "a tag is a name")
        yield from rule_v1.tag_problems(at, tag)
        if tag in metadata.labels:
            yield Problem(at, tag, "a label has the same name: tags become labels with an empty value")
    yield from fields.labels(("metadata", "labels"), metadata.labels)
    yield from rule_v1.rules_problems(("spec", "ingress"), profile.spec.ingress)
    yield from rule_v1.rules_problems(("spec", "egress"), profile.spec.egress)


def _to_v3(profile: ProfileV1) -> Profile:
    metadata = profile.metadata
    return Profile(
        metadata=Metadata(name=profile_name(metadata.name)),
        spec=ProfileSpec(
            ingress=rule_v1.rules_to_v3(profile.spec.ingress),
            egress=rule_v1.rules_to_v3(profile.spec.egress),
            labels_to_apply=metadata.labels | dict.fromkeys(metadata.tags, ""),
        ),
    )


def _tags(profile: Profile) -> list[str]:
    return sorted(key for key, value in profile.spec.labels_to_apply.items() if not value)


def _from_v3(profile: Profile) -> ProfileV1:
    labels = {key: value for key, value in profile.spec.labels_to_apply.items() if value}
    return ProfileV1(
        metadata=ProfileMetadataV1(name=profile.metadata.name, tags=_tags(profile), labels=labels),
        spec=ProfileSpecV1(
            ingress=rule_v1.rules_from_v3(profile.spec.ingress), egress=rule_v1.rules_from_v3(profile.spec.egress)
        ),
    )


_V1: V1[Profile] = V1(
    name="profile",
    type=ProfileV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=lambda profile: f"Profile(name={profile.metadata.name})",
    name_of=profile_name,
    keep=lambda stored, new: msgspec.structs.replace(stored, spec=new.spec),
    paths=((("spec", "labelsToApply"), ("metadata", "labels")),),
    columns=(Column("NAME", name_cell),),
    wide=(Column("NAME", name_cell), Column("TAGS", lambda profile, _: ",".join(_tags(profile)))),
)

KIND: Kind[Profile] = Kind(
    name="Profile",
    plural="profiles",
    type=Profile,
    aliases=("profile", "profiles", "pro", "pros"),
    check=_check,
    needs=_needs,
    columns=(Column("NAME", name_cell),),
    wide=(Column("NAME", name_cell), Column("LABELS", _labels_cell)),
    v1=_V1,
)
