"""What both kinds of network set share (reference resources.md 2.10). Not a kind by itself."""

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from resources.kinds import fields
from resources.kinds.base import Column, Metadata, Problem, View, name_cell
from resources.kinds.workloadendpoint import NAMESPACE_LABEL

NETS_WIDTH = 80
"""Longer lists of nets are cut in tables."""


class NetworkSetSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    nets: list[str] = []
    """CIDRs, also with host bits, and bare addresses; stored as given."""


class AnyNetworkSet(Protocol):
    @property
    def metadata(self) -> Metadata: ...
    @property
    def spec(self) -> NetworkSetSpec: ...


def check(netset: AnyNetworkSet) -> Iterator[Problem]:
    """Find what is wrong with a set that is to be written. A reader skips nets that it cannot read."""
    for index, net in enumerate(netset.spec.nets):
        if not net:
            yield Problem(("spec", "nets", index), "", "must be an IP address/length")
        yield from fields.cidr(("spec", "nets", index), net)
    if NAMESPACE_LABEL in netset.metadata.labels:
        at = ("metadata", "labels", NAMESPACE_LABEL)
        reason = f"{NAMESPACE_LABEL} is not a valid label name"
        yield Problem(at, netset.metadata.labels[NAMESPACE_LABEL], reason, "a set has its namespace without a label")


def _nets_cell(netset: AnyNetworkSet, _: View) -> str:
    text = ",".join(netset.spec.nets)
    return text if len(text) <= NETS_WIDTH else text[: NETS_WIDTH - 3] + "..."


COLUMNS: tuple[Column[Any], ...] = (Column("NAME", name_cell),)
WIDE: tuple[Column[Any], ...] = (*COLUMNS, Column("NETS", _nets_cell))
