"""NetworkSet: networks under labels that belong to a namespace (reference resources.md 2.10)."""

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.kinds.netset import COLUMNS, WIDE, NetworkSetSpec, check, closed


class NetworkSet(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: NetworkSetSpec = NetworkSetSpec()


KIND: Kind[NetworkSet] = Kind(
    name="NetworkSet",
    plural="networksets",
    type=NetworkSet,
    namespaced=True,
    aliases=("networkset", "networksets", "netset", "netsets"),
    check=check,
    closed=lambda document: closed(document, NetworkSet),
    columns=COLUMNS,
    wide=WIDE,
)
