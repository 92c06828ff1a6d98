"""BGPPeers that are written and pick no node: stored as they are, they make no session, and nobody would say so."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from resources.datastore.client import ResourceClient
from resources.documents import Document
from resources.errors import CalicoError, StoreUnavailable
from resources.kinds.bgppeer import BGPPeer
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.selector import parse

NAMES_MAX = 5


def warnings(client: ResourceClient, documents: Sequence[Document]) -> list[str]:
    """Return one line for each field that picks no node. A record that cannot be read counts not.

    Raises:
        StoreUnavailable: the store is away; a write would only wait as long once more to say so.
    """
    written = [document.resource for document in documents]
    peers = [one for one in written if isinstance(one, BGPPeer) and _picks(one)]
    if not peers:
        return []
    try:
        nodes = [*client.readable(NODE), *(one for one in written if isinstance(one, Node))]
    except StoreUnavailable:
        raise
    except CalicoError:
        return []
    return list(told(peers, {node.metadata.name: node.metadata.labels for node in nodes}))


def _picks(peer: BGPPeer) -> bool:
    return bool(peer.spec.node or peer.spec.node_selector or peer.spec.peer_selector)


def told(peers: Iterable[BGPPeer], nodes: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Return what to say of peers, among the labels of nodes by name. Pure; before the first node there is nothing."""
    if not nodes:
        return
    names = sorted(nodes)
    known = f"nodes are {', '.join(names[:NAMES_MAX])}{', ...' if len(names) > NAMES_MAX else ''}"
    for peer in peers:
        name, spec = peer.metadata.name, peer.spec
        if spec.node and spec.node not in nodes:
            yield f"BGPPeer {name} is for node {spec.node}, which does not exist: it makes no session; {known}"
        for field, text in (("nodeSelector", spec.node_selector), ("peerSelector", spec.peer_selector)):
            if text and not any(map(parse(text).matches, nodes.values())):
                yield f"{field} of BGPPeer {name}, {text}, selects no node: it makes no session until it does"
