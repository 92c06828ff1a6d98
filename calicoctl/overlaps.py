"""Pools that lie over networks that exist already: over a node's own subnet, Docker's bridge, a route of this host."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from resources.datastore.client import ResourceClient
from resources.documents import Document
from resources.errors import CalicoError, StoreUnavailable
from resources.kinds.node import KIND as NODE
from resources.kinds.pool import IPPool
from resources.names import IPNetwork

ROUTES_V4 = Path("/proc/net/route")
OURS = ("cali", "tunl", "*")
"""Interfaces whose routes are our own; a blackhole, such as that of an own block, has none and is shown with a star."""
NAMED = 2
"""How many of the networks under a pool are named; the nodes of a cluster mostly share one."""


def warnings(client: ResourceClient, documents: Sequence[Document]) -> list[str]:
    """Return one line per pool that overlaps networks. Nodes that cannot be read give none.

    Raises:
        StoreUnavailable: the store is away; a write would only wait as long once more to say so.
    """
    pools = [document.resource for document in documents if isinstance(document.resource, IPPool)]
    if not pools:
        return []
    known = list(host_networks(_read(ROUTES_V4)))
    try:
        for node in client.list(NODE).items:
            known += [(a.network, f"the subnet of node {node.name}") for a in (node.ipv4, node.ipv6) if a is not None]
    except StoreUnavailable:
        raise
    except CalicoError:
        pass
    return list(overlaps(pools, known))


def overlaps(pools: Iterable[IPPool], known: Iterable[tuple[IPNetwork, str]]) -> Iterator[str]:
    """Return what to say of each pool that overlaps known networks: one line, however many they are. Pure."""
    known = list(dict.fromkeys(known))
    for pool in pools:
        cidr = pool.network
        found = [
            f"{network}, {what}"
            for network, what in known
            if network.version == cidr.version and network.prefixlen < network.max_prefixlen and cidr.overlaps(network)
        ]
        if found:
            named = "; ".join(found[:NAMED]) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
            yield f"pool {cidr} overlaps {named}: addresses in both cannot be reached"


def host_networks(table: str) -> Iterator[tuple[IPNetwork, str]]:
    """Return the networks that this host has on a link, from the text of /proc/net/route. Pure.

    Routes through a gateway are left out: they are other hosts' blocks, or the way to everywhere.
    """
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[0].startswith(OURS) or fields[2] != "00000000":
            continue
        address = ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[1]), "little"))
        mask = ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(fields[7]), "little"))
        network = ipaddress.IPv4Network((address, str(mask)), strict=False)
        if network.prefixlen > 0:
            yield network, f"which is on {fields[0]} of this host"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
