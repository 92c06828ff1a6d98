"""BGPPeers -> what each asks for, parsed: on which nodes, with whom, how (reference bgp.md 1.4, 1.5). Pure.

A BGPPeer comes from the store, so nothing in it is taken on trust. One of which it cannot be told for whom it is, or
with whom, stands for nothing; what is wrong with an option withholds its sessions, for none must come up without the
password or the check of distance that it was to have.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from bgpd.calc.secrets import SecretName, secret_named
from resources.durations import DurationError, parse
from resources.kinds.bgppeer import BGPPeer, BGPPeerSpec, peer_address
from resources.kinds.fields import RESTART_SECONDS_MAX
from resources.names import AsNumber, IPAddress, NodeName, parse_address
from resources.selector import Selector, SelectorError
from resources.selector import parse as parse_selector

HOLD_SECONDS_MIN = 3
HOLD_SECONDS_MAX = 65535
HOPS_MAX = 255


class NextHopMode(Enum):
    """Which next hop a route gets on its way to an external peer."""

    AUTO = "Auto"
    SELF = "Self"
    KEEP = "Keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peering:
    """One BGPPeer. It is with the node or router at `address`, or with each node that `peers` selects."""

    name: str
    node: NodeName | None = None
    nodes: Selector | None = None
    """Without `node` and `nodes` it is in force on every node."""
    address: IPAddress | None = None
    port: int | None = None
    """None: where the peer listens if it is a node of ours, else 179."""
    peers: Selector | None = None
    as_number: AsNumber | None = None
    local_as: AsNumber | None = None
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    secret: SecretName | None = None
    any_source: bool = False
    """The kernel chooses the address that it is spoken from."""
    restart_seconds: int | None = None
    hold_seconds: int | None = None
    own_as_allowed: int = 0
    """How often our own AS number may stand in a received path."""
    hops: int | None = None
    """How far away the peer is at most, checked by TTL; None: not checked."""
    gateway: IPAddress | None = None
    filters: tuple[str, ...] = ()
    is_mutual: bool = True
    """A node that is named as the peer makes its side of the session by itself."""
    faults: tuple[str, ...] = field(default=())
    """What is wrong with its options."""

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"BGPPeer({self.name})"

    @property
    def is_global(self) -> bool:
        return self.node is None and self.nodes is None

    def is_on(self, node: NodeName, labels: Mapping[str, str]) -> bool:
        """Return whether it is in force on a node."""
        if self.nodes is not None:
            return self.nodes.matches(labels)
        return self.node in (None, node)


def peering_of(name: str, peer: BGPPeer) -> Peering:
    """Return the parsed form of a BGPPeer.

    Raises:
        ValueError: it cannot be told on which nodes it is in force, or with whom.
    """
    spec = peer.spec
    if spec.local_workload_selector:
        raise ValueError("localWorkloadSelector: nothing here peers with workloads")
    if spec.node and spec.node_selector:
        raise ValueError("node and nodeSelector are both given")
    if spec.peer_ip and spec.peer_selector:
        raise ValueError("peerIP and peerSelector are both given")
    if not spec.peer_ip and not spec.peer_selector:
        raise ValueError("it names no peer: neither peerIP nor peerSelector is given")
    address, port = peer_address(spec.peer_ip) if spec.peer_ip else (None, None)
    if address is not None and (address.is_unspecified or address.is_multicast):
        raise ValueError(f"peerIP: {address} is the address of no host")
    faults: list[str] = []
    return Peering(
        name=name,
        node=NodeName(spec.node) if spec.node else None,
        nodes=_selector("nodeSelector", spec.node_selector),
        address=address,
        port=port,
        peers=_selector("peerSelector", spec.peer_selector),
        as_number=AsNumber(spec.as_number) if spec.as_number and spec.peer_ip else None,
        local_as=_local_as(spec, faults),
        next_hop_mode=_next_hop_mode(spec, faults),
        secret=_secret(spec, faults),
        any_source=_word("sourceAddress", spec.source_address or "UseNodeIP", ("UseNodeIP", "None"), faults) == "None",
        restart_seconds=_restart_seconds(spec, faults),
        hold_seconds=_hold_seconds(spec, faults),
        own_as_allowed=max(spec.num_allowed_local_as_numbers or 0, 0),
        hops=_hops(spec, faults),
        gateway=_gateway(spec, address, faults),
        filters=tuple(spec.filters),
        is_mutual=_word("reversePeering", spec.reverse_peering or "Auto", ("Auto", "Manual"), faults) == "Auto",
        faults=tuple(faults),
    )


def restart_seconds(text: str) -> int:
    """Return a restart time as BGP can say it: whole seconds in twelve bits.

    Raises:
        ValueError: no duration, or a negative one.
    """
    return int(min(_seconds(text), RESTART_SECONDS_MAX))


def _seconds(text: str) -> float:
    seconds = parse(text)
    if seconds < 0:
        raise DurationError(f"{text!r} is negative")
    return seconds


def _selector(member: str, text: str) -> Selector | None:
    if not text:
        return None
    try:
        return parse_selector(text)
    except SelectorError as error:
        raise ValueError(f"{member}: {error}") from None


def _word(member: str, word: str, known: tuple[str, ...], faults: list[str]) -> str:
    if word not in known:
        faults.append(f"{member} is {word[:64]!r}: it is {' or '.join(known)}")
    return word


def _next_hop_mode(spec: BGPPeerSpec, faults: list[str]) -> NextHopMode:
    if spec.keep_original_next_hop and spec.next_hop_mode:
        faults.append("keepOriginalNextHop and nextHopMode are both given")
    if spec.keep_original_next_hop:
        return NextHopMode.KEEP
    known = tuple(mode.value for mode in NextHopMode)
    word = _word("nextHopMode", spec.next_hop_mode or NextHopMode.AUTO.value, known, faults)
    return NextHopMode(word) if word in known else NextHopMode.AUTO


def _local_as(spec: BGPPeerSpec, faults: list[str]) -> AsNumber | None:
    if spec.local_as_number == 0:
        faults.append("localASNumber: 0 is no AS number")
    return None if spec.local_as_number is None else AsNumber(spec.local_as_number)


def _secret(spec: BGPPeerSpec, faults: list[str]) -> SecretName | None:
    if spec.password is None:
        return None
    try:
        return secret_named(spec.password)
    except ValueError as error:
        faults.append(str(error))
        return None


def _restart_seconds(spec: BGPPeerSpec, faults: list[str]) -> int | None:
    if not spec.max_restart_time:
        return None
    try:
        return restart_seconds(spec.max_restart_time)
    except ValueError as error:
        faults.append(f"maxRestartTime: {error}")
        return None


def _hold_seconds(spec: BGPPeerSpec, faults: list[str]) -> int | None:
    """Return the hold time that makes ExaBGP say keepalives as often as asked: it does so three times in it."""
    if not spec.keepalive_time:
        return None
    try:
        return min(max(math.ceil(3 * _seconds(spec.keepalive_time)), HOLD_SECONDS_MIN), HOLD_SECONDS_MAX)
    except ValueError as error:
        faults.append(f"keepaliveTime: {error}")
        return None


def _hops(spec: BGPPeerSpec, faults: list[str]) -> int | None:
    if spec.ttl_security is not None and not 1 <= spec.ttl_security <= HOPS_MAX:
        faults.append(f"ttlSecurity is {spec.ttl_security}: it is 1 to {HOPS_MAX}")
    return spec.ttl_security


def _gateway(spec: BGPPeerSpec, peer: IPAddress | None, faults: list[str]) -> IPAddress | None:
    if not spec.reachable_by:
        return None
    try:
        gateway = parse_address(spec.reachable_by)
    except ValueError as error:
        faults.append(f"reachableBy: {error}")
        return None
    if peer is None or gateway.version != peer.version:
        faults.append(f"reachableBy: {gateway} is of another family than peerIP")
        return None
    return gateway
