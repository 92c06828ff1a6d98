"""What both kinds of network set share (reference resources.md 2.10). Not a kind by itself."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from resources.gotext import JSON
from resources.kinds import fields
from resources.kinds.base import Column, Metadata, Problem, View, name_cell, readable_labels
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


N = TypeVar("N", bound=AnyNetworkSet)


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


def closed(document: Mapping[str, JSON], kind: type[N]) -> N | None:
    """Keep the set under its labels, with what it holds as text, readable or not; None if the labels cannot be read.

    Whoever uses it then knows that something is missing (felix: rules that this would open deny instead).
    """
    labels = readable_labels(document)
    if labels is None:
        return None
    spec = document.get("spec")
    nets = spec.get("nets") if isinstance(spec, dict) else spec
    entries = nets if isinstance(nets, list) else [nets]
    texts = [entry if isinstance(entry, str) else msgspec.json.encode(entry).decode() for entry in entries]
    assert issubclass(kind, msgspec.Struct)
    return kind(metadata=Metadata(labels=labels), spec=NetworkSetSpec(nets=texts))


def _nets_cell(netset: AnyNetworkSet, _: View) -> str:
    text = ",".join(netset.spec.nets)
    return text if len(text) <= NETS_WIDTH else text[: NETS_WIDTH - 3] + "..."


COLUMNS: tuple[Column[Any], ...] = (Column("NAME", name_cell),)
WIDE: tuple[Column[Any], ...] = (*COLUMNS, Column("NETS", _nets_cell))
