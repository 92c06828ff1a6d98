"""GlobalNetworkSet: networks under labels, for the selectors of rules (reference resources.md 2.10)."""

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.kinds.netset import COLUMNS, WIDE, NetworkSetSpec, check, closed


class GlobalNetworkSet(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: NetworkSetSpec = NetworkSetSpec()


KIND: Kind[GlobalNetworkSet] = Kind(
    name="GlobalNetworkSet",
    plural="globalnetworksets",
    type=GlobalNetworkSet,
    aliases=("globalnetworkset", "globalnetworksets", "gnetset", "gnetsets"),
    check=check,
    closed=lambda document: closed(document, GlobalNetworkSet),
    columns=COLUMNS,
    wide=WIDE,
)
