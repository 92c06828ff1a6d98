"""What the calculation hands on: all that is concluded, and what of it differs since the last time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from felix.calc.model import (
    LocalEndpoint,
    LocalHostEndpoint,
    MembersChange,
    PolicyId,
    Rules,
    SetSpec,
    Surroundings,
)
from felix.calc.parameters import Resolved
from felix.calc.remote import RemoteChanges
from resources.datastore.keys import ResourceKey
from resources.names import IfName, ProfileName

K = TypeVar("K")
V = TypeVar("V")


def nothing() -> Mapping[K, V]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """What differs since the last flush; None as a value: no longer there."""

    sets: Mapping[str, MembersChange | None] = field(default_factory=nothing)
    specs: Mapping[str, SetSpec] = field(default_factory=nothing)
    """The sets that `sets` mentions and that exist."""
    closing: Mapping[str, frozenset[PolicyId | ProfileName]] = field(default_factory=nothing)
    """Of sets that have no safe order: whose rules are to let nothing pass while the members change."""
    policies: Mapping[PolicyId, Rules | None] = field(default_factory=nothing)
    profiles: Mapping[ProfileName, Rules | None] = field(default_factory=nothing)
    endpoints: Mapping[IfName, LocalEndpoint | None] = field(default_factory=nothing)
    host_endpoints: Mapping[IfName, LocalHostEndpoint | None] = field(default_factory=nothing)
    surroundings: Surroundings | None = None
    parameters: Resolved | None = None
    remote: RemoteChanges = field(default_factory=RemoteChanges)
    problems: Mapping[ResourceKey, tuple[str, ...]] = field(default_factory=nothing)
    """What is wrong with a record and what is done about it; empty: nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Everything that is concluded, as of the last flush."""

    sets: Mapping[str, tuple[SetSpec, Mapping[int, frozenset[str]]]]
    policies: Mapping[PolicyId, Rules]
    profiles: Mapping[ProfileName, Rules]
    endpoints: Mapping[IfName, LocalEndpoint]
    host_endpoints: Mapping[IfName, LocalHostEndpoint]
    surroundings: Surroundings | None
    remote: RemoteChanges
    problems: Mapping[ResourceKey, tuple[str, ...]]
