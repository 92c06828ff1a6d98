"""BGPPeer: sessions beside the mesh (reference resources.md 2.3, bgp.md 1.4)."""

import re
from collections.abc import Generator, Iterable, Iterator

import msgspec

from resources.durations import canonical_or_same
from resources.kinds import fields, rule_v1
from resources.kinds.base import (
    ASN,
    V1,
    Column,
    GoDuration,
    Kind,
    Metadata,
    Path,
    Problem,
    Uint8,
    View,
    name_cell,
    wire,
)
from resources.kinds.naming import node_name, peer_name
from resources.kinds.secret import BGPPassword, password_problems
from resources.names import IPAddress, parse_address

BGP_PORT = 179
SOURCES = ("UseNodeIP", "None")
NEXT_HOP_MODES = ("Auto", "Self", "Keep")
REVERSE = ("Auto", "Manual")
SCOPES = ("global", "node")

_INT32_MAX = 0x7FFFFFFF
_PEER: Path = ("spec", "peerIP")


class BGPPeerSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        peer_ip="peerIP",
        local_as_number="localASNumber",
        num_allowed_local_as_numbers="numAllowedLocalASNumbers",
    ),
):
    """Without `node` and `node_selector` it is for all nodes."""

    node: str = ""
    node_selector: str = ""
    peer_ip: str = ""
    """``address``, ``ipv4:port`` or ``[ipv6]:port``."""
    as_number: ASN = 0
    """0: not given."""
    local_as_number: ASN | None = None
    peer_selector: str = ""
    """Over the labels of nodes, each of which becomes a peer."""
    keep_original_next_hop: bool = False
    next_hop_mode: str = ""
    """Auto, Self or Keep; empty means Auto."""
    password: BGPPassword | None = None
    source_address: str = ""
    """UseNodeIP or None; empty means UseNodeIP."""
    max_restart_time: GoDuration = ""
    """Empty means 120 s."""
    keepalive_time: GoDuration = ""
    """Empty means a third of the hold time."""
    num_allowed_local_as_numbers: int | None = None
    """How often the own AS number may stand in a received path."""
    ttl_security: Uint8 | None = None
    """How many hops away the peer may be; None: any, unchecked."""
    reachable_by: str = ""
    """The gateway of a route to the peer."""
    filters: list[str] = []
    """Names of BGPFilters, asked in this order."""
    local_workload_selector: str = ""
    reverse_peering: str = ""
    """Auto or Manual; empty means Auto: the peer, if it is a node, peers back by itself."""


class BGPPeer(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: BGPPeerSpec = BGPPeerSpec()


def peer_address(text: str) -> tuple[IPAddress, int | None]:
    """Return the address of a peerIP, and its port where it has one.

    Raises:
        ValueError: it is none of the three forms.
    """
    match = re.fullmatch(r"\[([^\[\]]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", text)
    if match is None:
        return parse_address(text), None
    address = parse_address(match[1] or match[3])
    if (match[1] is not None) != (address.version == 6):
        raise ValueError(f"{text!r}: only an IPv6 address stands in brackets")
    port = int(match[2] or match[4])
    if not 1 <= port <= 0xFFFF:
        raise ValueError(f"{text!r}: a port is between 1 and 65535")
    return address, port


def _complete(peer: BGPPeer) -> BGPPeer:
    spec = peer.spec
    if not spec.max_restart_time and not spec.keepalive_time:
        return peer
    return msgspec.structs.replace(
        peer,
        spec=msgspec.structs.replace(
            spec,
            max_restart_time=canonical_or_same(spec.max_restart_time),
            keepalive_time=canonical_or_same(spec.keepalive_time),
        ),
    )


def _check(peer: BGPPeer) -> Iterable[Problem]:
    spec = peer.spec
    yield from _who_problems(spec)
    yield from _whom_problems(spec)
    for name, value, allowed in (
        ("nextHopMode", spec.next_hop_mode, NEXT_HOP_MODES),
        ("sourceAddress", spec.source_address, SOURCES),
        ("reversePeering", spec.reverse_peering, REVERSE),
    ):
        yield from fields.one_of(("spec", name), value, allowed)
    if spec.keep_original_next_hop and spec.next_hop_mode:
        reason = (
            "The KeepOriginalNextHop field is deprecated. It must not be set to true when NextHopMode is configured."
        )
        yield Problem(("spec", "keepOriginalNextHop"), "true", reason, "leave it out: nextHopMode: Keep says the same")
    yield from password_problems(("spec", "password"), spec.password)
    yield from fields.restart_time(("spec", "maxRestartTime"), spec.max_restart_time)
    yield from fields.duration(("spec", "keepaliveTime"), spec.keepalive_time)
    yield from fields.between(
        ("spec", "numAllowedLocalASNumbers"), spec.num_allowed_local_as_numbers, 0, _INT32_MAX
    )
    if spec.ttl_security == 0:
        reason = "must be between 1 and 255: a peer on the same network is one hop away"
        yield Problem(("spec", "ttlSecurity"), "0", reason, "leave it out to check nothing")
    if spec.local_as_number is not None:
        yield from fields.as_number(("spec", "localASNumber"), spec.local_as_number)
    for index, name in enumerate(spec.filters):
        if not name:
            yield Problem(("spec", "filters", index), "", "must be the name of a BGPFilter")
        yield from fields.name(("spec", "filters", index), name)


def _who_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    """Check on which nodes it is in force."""
    yield from fields.name(("spec", "node"), spec.node)
    yield from fields.selector(("spec", "nodeSelector"), spec.node_selector)
    if spec.node and spec.node_selector:
        reason = "Node field must be empty when NodeSelector is specified"
        yield Problem(("spec", "node"), spec.node, reason, "keep one of them")


def _whom_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    """Check whom it is a peering with."""
    yield from fields.selector(("spec", "peerSelector"), spec.peer_selector)
    yield from fields.selector(("spec", "localWorkloadSelector"), spec.local_workload_selector)
    address = yield from _address_problems(spec.peer_ip)
    if not (spec.peer_ip or spec.peer_selector or spec.local_workload_selector):
        hint = "write peerIP and asNumber, or peerSelector for nodes of this cluster"
        yield Problem(_PEER, "", "the BGPPeer names no peer", hint)
    if spec.peer_selector and spec.peer_ip:
        yield Problem(_PEER, spec.peer_ip, "PeerIP field must be empty when PeerSelector is specified")
    if spec.peer_selector and spec.as_number:
        reason = "ASNumber field must be empty when PeerSelector is specified"
        yield Problem(("spec", "asNumber"), str(spec.as_number), reason, "the AS number is that of the node")
    if spec.local_workload_selector:
        yield from _workload_problems(spec)
    elif spec.peer_ip and not spec.as_number:
        reason = "no AS number is given: a session is made only if the address is that of a node"
        yield Problem(("spec", "asNumber"), "", reason, "write asNumber", warning=True)
    yield from fields.address(("spec", "reachableBy"), spec.reachable_by)
    if spec.reachable_by and not spec.peer_ip:
        reason = "ReachableBy field must be empty when PeerIP is empty"
        yield Problem(("spec", "reachableBy"), spec.reachable_by, reason)
    elif address is not None and _version(spec.reachable_by) not in (None, address.version):
        reason = "ReachableBy and PeerIP address family mismatched"
        yield Problem(("spec", "reachableBy"), spec.reachable_by, reason)


def _workload_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    for name, value in (("PeerIP", spec.peer_ip), ("PeerSelector", spec.peer_selector)):
        if value:
            reason = f"{name} field must be empty when LocalWorkloadSelector is specified"
            yield Problem(("spec", name[0].lower() + name[1:]), value, reason)
    if not spec.as_number:
        reason = "ASNumber field is required when LocalWorkloadSelector is specified"
        yield Problem(("spec", "asNumber"), "", reason)
    reason = "nothing here peers with workloads: the BGPPeer is stored and makes no session"
    yield Problem(("spec", "localWorkloadSelector"), spec.local_workload_selector, reason, warning=True)


def _address_problems(text: str) -> Generator[Problem, None, IPAddress | None]:
    if not text:
        return None
    try:
        address, port = peer_address(text)
    except ValueError as error:
        hint = str(error) if "IPv4-mapped" in str(error) else _address_hint(text)
        yield Problem(_PEER, text, "must be an IP address, or one with a port: 10.0.0.1:179, [fd00::1]:179", hint)
        return None
    if address.is_unspecified or address.is_multicast:
        yield Problem(_PEER, text, "is the address of no host")
    elif port is None and address.version == 6 and text.endswith(f":{BGP_PORT}"):
        base = text.removesuffix(f":{BGP_PORT}")
        hint = f"for the port write [{base}]:{BGP_PORT}" if _version(base) == 6 else None
        yield Problem(_PEER, text, f"the address ends with {BGP_PORT}, which is no port here", hint, warning=True)
    return address


def _address_hint(text: str) -> str | None:
    base, colon, port = text.rpartition(":")
    bare = base.strip("[]") if colon else ""
    if bare and port.isdecimal() and _version(bare) == 6 and base == bare:
        return f"did you mean [{bare}]:{port}?"
    inner = text.strip("[]")
    return f"did you mean {inner}?" if inner != text and _version(inner) is not None else None


def _version(text: str) -> int | None:
    try:
        return parse_address(text).version
    except ValueError:
        return None


def _node_cell(peer: BGPPeer, _: View) -> str:
    return peer.spec.node or peer.spec.node_selector or "(global)"


def _peer_cell(peer: BGPPeer, _: View) -> str:
    return peer.spec.peer_ip


def _as_number_cell(peer: BGPPeer, _: View) -> str:
    return str(peer.spec.as_number)


class BGPPeerMetadataV1(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(peer_ip="peerIP")
):
    scope: str = ""
    """global or node."""
    node: str = ""
    peer_ip: str = ""


class BGPPeerSpecV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    as_number: ASN = 0


class BGPPeerV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: BGPPeerMetadataV1 = BGPPeerMetadataV1()
    spec: BGPPeerSpecV1 = BGPPeerSpecV1()


def _check_v1(peer: BGPPeerV1) -> Iterable[Problem]:
    metadata = peer.metadata
    yield from fields.one_of(("metadata", "scope"), metadata.scope, SCOPES)
    if metadata.scope == "global":
        if metadata.node:
            reason = "no BGP Peer node name should be specified when scope is global"
            yield Problem(("metadata", "node"), metadata.node, reason, "leave it out, or write scope: node")
    elif metadata.scope == "node" or metadata.node:
        yield from rule_v1.name_problems(("metadata", "node"), metadata.node)
    elif not metadata.scope:
        hint = "write scope: global, or scope: node and the node"
        yield Problem(("metadata", "node"), "", "insufficient identifiers, missing 'node'", hint)
    if not metadata.peer_ip:
        yield Problem(("metadata", "peerIP"), "", "insufficient identifiers, missing 'peerIP'")
    yield from fields.address(("metadata", "peerIP"), metadata.peer_ip)


def _to_v3(peer: BGPPeerV1) -> BGPPeer:
    metadata = peer.metadata
    address = parse_address(metadata.peer_ip)
    return BGPPeer(
        metadata=Metadata(name=peer_name(metadata.node, address)),
        spec=BGPPeerSpec(
            node=node_name(metadata.node), peer_ip=str(address), as_number=peer.spec.as_number
        ),
    )


def _from_v3(peer: BGPPeer) -> BGPPeerV1:
    """Return the nearest v1 document; what v1 has no word for (a selector, a port) stands in it as it is."""
    spec = peer.spec
    node = spec.node or spec.node_selector
    return BGPPeerV1(
        metadata=BGPPeerMetadataV1(scope="node" if node else "global", node=node, peer_ip=spec.peer_ip),
        spec=BGPPeerSpecV1(as_number=spec.as_number),
    )


def _keep(stored: BGPPeer, new: BGPPeer) -> BGPPeer:
    """Take the AS number, which is all that v1 can change, from the new peer, and the rest from the stored one."""
    return msgspec.structs.replace(
        stored, spec=msgspec.structs.replace(stored.spec, as_number=new.spec.as_number)
    )


def _identifier_v1(peer: BGPPeer) -> str:
    node = peer.spec.node or peer.spec.node_selector
    return f"BGPPeer({f'node={node}' if node else 'global'}, ip={peer.spec.peer_ip})"


def _name_of_v1(identifier: str) -> str:
    try:
        return peer_name("", parse_address(identifier))
    except ValueError:
        return identifier


_COLUMNS: tuple[Column[BGPPeer], ...] = (
    Column("NAME", name_cell),
    Column("PEERIP", _peer_cell),
    Column("NODE", _node_cell),
    Column("ASN", _as_number_cell),
)
_IN_V1: tuple[Column[BGPPeer], ...] = (
    Column("SCOPE", lambda peer, _: _from_v3(peer).metadata.scope),
    Column("PEERIP", _peer_cell),
    Column("NODE", lambda peer, _: _from_v3(peer).metadata.node),
    Column("ASN", _as_number_cell),
)


def _order_v1(peer: BGPPeer) -> tuple[str, ...]:
    spec = peer.spec
    try:
        address, port = peer_address(spec.peer_ip)
    except ValueError:
        return spec.node or spec.node_selector, "", spec.peer_ip
    return spec.node or spec.node_selector, str(address.version), address.packed.hex(), str(port or 0)


_V1: V1[BGPPeer] = V1(
    name="bgpPeer",
    type=BGPPeerV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=_identifier_v1,
    name_of=_name_of_v1,
    keep=_keep,
    paths=(
        (("metadata", "name"), ("metadata", "node")),
        (_PEER, ("metadata", "peerIP")),
        (("spec", "node"), ("metadata", "node")),
    ),
    named_by="peerIP",
    filters=("node", "scope"),
    order=_order_v1,
    columns=_IN_V1,
    wide=_IN_V1,
)

KIND: Kind[BGPPeer] = Kind(
    name="BGPPeer",
    plural="bgppeers",
    type=BGPPeer,
    aliases=("bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"),
    complete=_complete,
    check=_check,
    always=(("spec", "password", "secretKeyRef", "key"),),
    columns=_COLUMNS,
    wide=_COLUMNS,
    v1=_V1,
)
