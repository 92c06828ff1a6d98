"""ExaBGP's lines <-> frozen messages, and bgpd's commands as lines (reference bgp.md 2.2, 2.4, 2.7).

`parse` is total: what cannot be read becomes an `Unreadable`. Commands are made of parsed values only, so nothing that
came from the store or a peer can smuggle a word into one.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

import msgspec

from bgpd import carried
from bgpd.calc.offers import Offer
from bgpd.calc.paths import NO_PATH_ATTRIBUTES, Origin, PathAttributes, Segment
from resources.names import IPAddress, IPNetwork
from resources.networks import key_network

PREFIXES_PER_COMMAND = 100


# --- what comes in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The relay's greeting: ExaBGP's pid, the relay's life, events thrown away, commands not answered yet."""

    pid: int
    boot: str
    lost: int
    unanswered: int


@dataclass(frozen=True, slots=True)
class Answered:
    """ExaBGP did a command, or refused it. Which one it was is not said (reference bgp.md 2.5)."""

    done: bool


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """A session is ``connected`` (said of refused connections too), ``up`` or ``down``."""

    peer: IPAddress
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FsmChanged:
    """A step of the session's state machine, in RFC 4271's words, upper case."""

    peer: IPAddress
    state: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer's OPEN. `restart_seconds` is None unless it asks us to keep its routes of the family (RFC 4724)."""

    peer: IPAddress
    router_id: IPv4Address
    as_number: int
    hold_seconds: int
    restart_seconds: int | None = None
    has_restarted: bool = False
    """It has just started and knows nothing yet."""


@dataclass(frozen=True, slots=True)
class Updated:
    """Routes of one peer that came (with their next hops) and went."""

    peer: IPAddress
    announced: tuple[tuple[IPNetwork, IPAddress], ...] = ()
    attributes: PathAttributes = NO_PATH_ATTRIBUTES
    withdrawn: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The peer has sent everything it has of the family (4 or 6)."""

    peer: IPAddress
    version: int


@dataclass(frozen=True, slots=True)
class Notified:
    """A NOTIFICATION, sent by the peer or (not `received`) by us."""

    peer: IPAddress
    code: int
    subcode: int
    text: str = ""
    received: bool = True


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A step of a route refresh: ``query``, ``begin`` or ``end``."""

    peer: IPAddress
    step: str


@dataclass(frozen=True, slots=True)
class ShuttingDown:
    """ExaBGP was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One row of ``show neighbor json``. `router_id` is the peer's, None before its OPEN."""

    peer: IPAddress
    local: IPAddress | None
    is_up: bool
    fsm: str
    seconds: int
    """For how long it has been up, or down."""
    local_as: int
    peer_as: int
    hold_seconds: int
    router_id: IPv4Address | None = None
    restarts_gracefully: bool = False
    updates_sent: int | None = None
    """Of this session, End-of-RIB too."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The answer to ``show neighbor json``."""

    rows: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of ``show adj-rib in json`` or ``out json``."""

    peer: IPAddress
    prefix: IPNetwork
    next_hop: IPAddress
    attributes: PathAttributes


@dataclass(frozen=True, slots=True)
class Remark:
    """A line of text that answers a command."""

    text: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A line of a type that nobody needs."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is not as ExaBGP 5.0 writes it."""

    line: str
    reason: str


Message = (
    Hello | Answered | SessionChanged | FsmChanged | Opened | Updated | EndOfRib | Notified | Refreshed | ShuttingDown
    | Neighbours | Shown | Remark | Ignored | Unreadable
)


# --- the lines as they are -------------------------------------------------------------------------------------------


class _Pair(msgspec.Struct):
    peer: str


class _AsSegment(msgspec.Struct):
    element: str
    value: list[int]


class _ExtendedCommunity(msgspec.Struct):
    value: int


class _WireAttributes(msgspec.Struct, rename="kebab"):
    origin: str = "igp"
    as_path: dict[str, _AsSegment] = {}
    local_preference: int | None = None
    med: int = 0
    community: list[list[int] | str] = []
    large_community: list[list[int] | str] = []
    originator_id: str | None = None
    cluster_list: list[str] = []
    atomic_aggregate: bool = False
    aggregator: str | None = None
    extended_community: list[_ExtendedCommunity | str] = []


class _Nlri(msgspec.Struct):
    nlri: str


class _Update(msgspec.Struct):
    attribute: msgspec.Raw = msgspec.Raw(b"null")
    announce: dict[str, dict[str, list[_Nlri]]] = {}
    withdraw: dict[str, list[_Nlri]] = {}


class _Eor(msgspec.Struct):
    afi: str
    safi: str


class _UpdateMessage(msgspec.Struct):
    update: _Update | None = None
    eor: _Eor | None = None


class _Notification(msgspec.Struct):
    code: int
    subcode: int
    data: str = ""
    message: str = ""


class _Refresh(msgspec.Struct):
    subtype: str = ""


class _Capability(msgspec.Struct, rename="kebab"):
    time: int = 0
    address_family_flags: dict[str, list[str]] = {}
    restart_flags: list[str] = []


class _Open(msgspec.Struct):
    asn: int
    hold_time: int
    router_id: str
    capabilities: dict[str, msgspec.Raw] = {}


class _StateNeighbor(msgspec.Struct):
    address: _Pair
    state: str
    reason: str = ""


class _OpenNeighbor(msgspec.Struct):
    address: _Pair
    open: _Open
    direction: str = "receive"


class _UpdateNeighbor(msgspec.Struct):
    address: _Pair
    message: _UpdateMessage


class _NotificationNeighbor(msgspec.Struct):
    address: _Pair
    notification: _Notification
    direction: str = "receive"


class _RefreshNeighbor(msgspec.Struct, rename={"route_refresh": "route-refresh"}):
    address: _Pair
    route_refresh: _Refresh


class _Line(msgspec.Struct, tag_field="type"):
    """A line with a type; each subclass is one type."""


class _HelloLine(_Line, tag="hello"):
    pid: int
    boot: str
    lost: int
    unanswered: int


class _StateLine(_Line, tag="state"):
    neighbor: _StateNeighbor


class _FsmLine(_Line, tag="fsm"):
    neighbor: _StateNeighbor


class _OpenLine(_Line, tag="open"):
    neighbor: _OpenNeighbor


class _UpdateLine(_Line, tag="update"):
    neighbor: _UpdateNeighbor


class _NotificationLine(_Line, tag="notification"):
    neighbor: _NotificationNeighbor | None = None
    notification: str = ""


class _RefreshLine(_Line, tag="refresh"):
    neighbor: _RefreshNeighbor


class _Type(msgspec.Struct):
    type: str = ""


class _Prefix(msgspec.Struct):
    prefix: str
    nexthop: str


class _Route(msgspec.Struct):
    nlri: _Prefix
    attributes: msgspec.Raw


class _ShownPeer(msgspec.Struct):
    address: str


class _ShownLine(msgspec.Struct):
    peer: _ShownPeer
    route: _Route


class _Side(msgspec.Struct):
    address: str
    capabilities: dict[str, bool | None] = {}
    id: str | None = None
    hold: int | None = None
    asn: int | None = msgspec.field(default=None, name="as")


class _Counts(msgspec.Struct):
    update: int | None = None


class _Messages(msgspec.Struct):
    sent: _Counts = msgspec.field(default_factory=_Counts)


class _Row(msgspec.Struct):
    state: str
    fsm: str
    duration: int
    local: _Side
    peer: _Side
    messages: _Messages = msgspec.field(default_factory=_Messages)


_EVENT = msgspec.json.Decoder(
    _HelloLine | _StateLine | _FsmLine | _OpenLine | _UpdateLine | _NotificationLine | _RefreshLine
)
_TYPE = msgspec.json.Decoder(_Type)
_ATTRIBUTES = msgspec.json.Decoder(_WireAttributes | None)
_SHOWN = msgspec.json.Decoder(_ShownLine)
_ROWS = msgspec.json.Decoder(list[_Row])
_KNOWN_TYPES = frozenset(("hello", "state", "fsm", "open", "update", "notification", "refresh"))
_GRACEFUL_RESTART = "64"
# updates carry these as numbers, tables by name
_WELL_KNOWN = {
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "nopeer": "65535:65284",
    "no-peer": "65535:65284",
    "blackhole": "65535:666",
}
_ESTABLISHED = "ESTABLISHED"
_FAMILIES = {4: "ipv4 unicast", 6: "ipv6 unicast"}


def parse(line: bytes) -> Message:
    """Return what a line (without its newline) says. Never fails."""
    text = line.strip()
    if text == b"done":
        return Answered(True)
    if text == b"error":
        return Answered(False)
    try:
        if text.startswith(b"["):
            return Neighbours(tuple(_neighbour(row) for row in _ROWS.decode(text)))
        if text.startswith(b'{"peer"'):
            return _shown(_SHOWN.decode(text))
        if text.startswith(b"{"):
            return _event(text)
    except (ValueError, msgspec.MsgspecError) as error:
        return Unreadable(text[:500].decode("ascii", "replace"), str(error))
    return Remark(text.decode("ascii", "replace"))


def _event(text: bytes) -> Message:
    try:
        line = _EVENT.decode(text)
    except msgspec.ValidationError:
        if _TYPE.decode(text).type in _KNOWN_TYPES:
            raise
        return Ignored()
    match line:
        case _HelloLine():
            return Hello(line.pid, line.boot, line.lost, line.unanswered)
        case _UpdateLine():
            return _update(line.neighbor)
        case _StateLine():
            return SessionChanged(_address(line.neighbor.address.peer), line.neighbor.state, line.neighbor.reason)
        case _FsmLine():
            return FsmChanged(_address(line.neighbor.address.peer), line.neighbor.state)
        case _OpenLine():
            return _opened(line.neighbor)
        case _RefreshLine():
            return Refreshed(_address(line.neighbor.address.peer), line.neighbor.route_refresh.subtype)
        case _NotificationLine(neighbor=None):
            return ShuttingDown() if line.notification == "shutdown" else Ignored()
        case _NotificationLine(neighbor=neighbor):
            assert neighbor is not None
            told = neighbor.notification
            return Notified(
                _address(neighbor.address.peer), told.code, told.subcode, told.message, neighbor.direction == "receive"
            )
    return Ignored()


@lru_cache(maxsize=4096)
def _address(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def _opened(neighbor: _OpenNeighbor) -> Message:
    if neighbor.direction != "receive":
        return Ignored()
    peer = _address(neighbor.address.peer)
    restart: int | None = None
    has_restarted = False
    if (raw := neighbor.open.capabilities.get(_GRACEFUL_RESTART)) is not None:
        capability = msgspec.json.decode(raw, type=_Capability)
        if _FAMILIES[peer.version].replace(" ", "/") in capability.address_family_flags:
            restart = capability.time
        # so ExaBGP calls the R bit (reference bgp.md 2.2)
        has_restarted = "forwarding" in capability.restart_flags
    said = neighbor.open
    return Opened(peer, IPv4Address(said.router_id), said.asn, said.hold_time, restart, has_restarted)


def _update(neighbor: _UpdateNeighbor) -> Message:
    peer = _address(neighbor.address.peer)
    if (eor := neighbor.message.eor) is not None:
        return EndOfRib(peer, 6 if eor.afi == "ipv6" else 4) if eor.safi == "unicast" else Ignored()
    update = neighbor.message.update or _Update()
    announced = tuple(
        (key_network(entry.nlri), address)
        for family in _FAMILIES.values()
        for next_hop, entries in update.announce.get(family, {}).items()
        for address in (_address(next_hop),)
        for entry in entries
    )
    withdrawn = tuple(
        key_network(entry.nlri) for family in _FAMILIES.values() for entry in update.withdraw.get(family, ())
    )
    return Updated(peer, announced, _attributes_of(bytes(update.attribute)), withdrawn)


@lru_cache(maxsize=512)
def _attributes_of(text: bytes) -> PathAttributes:
    """Return what ExaBGP says of attributes: peers tell thousands of prefixes with few different ones.

    Those that were told once and never again stay, at some 2 kB each.
    """
    said = _ATTRIBUTES.decode(text)
    if said is None:
        return NO_PATH_ATTRIBUTES
    return PathAttributes(
        origin=Origin[said.origin.upper()] if said.origin in ("igp", "egp") else Origin.INCOMPLETE,
        as_path=tuple(
            Segment(tuple(segment.value), is_set=segment.element.endswith("set"))
            for _, segment in sorted(said.as_path.items(), key=lambda item: int(item[0]))
        ),
        local_preference=said.local_preference,
        med=said.med,
        communities=_communities(said.community),
        large_communities=_communities(said.large_community),
        originator=None if said.originator_id is None else IPv4Address(said.originator_id),
        clusters=tuple(IPv4Address(cluster) for cluster in said.cluster_list),
        carried=carried.carried(
            text,
            is_atomic=said.atomic_aggregate,
            aggregator=said.aggregator,
            extended=[one if isinstance(one, str) else one.value for one in said.extended_community],
        ),
    )


def _communities(said: Iterable[Sequence[int] | str]) -> tuple[str, ...]:
    return tuple(_WELL_KNOWN.get(one, one) if isinstance(one, str) else ":".join(map(str, one)) for one in said)


def _shown(line: _ShownLine) -> Shown:
    route = line.route
    return Shown(
        _address(line.peer.address),
        key_network(route.nlri.prefix),
        _address(route.nlri.nexthop),
        _attributes_of(bytes(route.attributes)),
    )


def _neighbour(row: _Row) -> Neighbour:
    return Neighbour(
        peer=_address(row.peer.address),
        local=None if row.local.address in ("", "None", "auto") else _address(row.local.address),
        # ExaBGP calls a session down while it is up for less than a second; its state machine knows better
        is_up=row.fsm == _ESTABLISHED,
        fsm=row.fsm,
        seconds=0 if row.fsm == _ESTABLISHED and row.state != "up" else row.duration,
        local_as=row.local.asn or 0,
        peer_as=row.peer.asn or 0,
        hold_seconds=row.local.hold or 0,
        router_id=None if row.peer.id is None else IPv4Address(row.peer.id),
        restarts_gracefully=row.peer.capabilities.get("graceful-restart") is True,
        updates_sent=row.messages.sent.update,
    )


# --- what goes out ---------------------------------------------------------------------------------------------------

SHOW_NEIGHBOURS = "show neighbor json"
SHOW_RECEIVED = "show adj-rib in json"
SHOW_SENT = "show adj-rib out json"


def show_sent(peer: IPAddress) -> str:
    """Return the question what is announced to one peer; others whose addresses begin alike are shown too."""
    return f"show adj-rib out {peer} json"


def announce(peer: IPAddress, routes: Mapping[IPNetwork, Offer]) -> list[str]:
    """Return the commands that announce `routes` to one peer: what has equal attributes goes together."""
    # most equal ones are the same object, and those that are not have the same words
    words_of: dict[int, str] = {}
    by_words: dict[str, list[IPNetwork]] = {}
    for prefix, found in routes.items():
        if (words := words_of.get(id(found))) is None:
            words = words_of[id(found)] = _words(found)
        by_words.setdefault(words, []).append(prefix)
    commands: list[str] = []
    for words in sorted(by_words):
        commands += _per_hundred(f"neighbor {peer} announce attributes {words} nlri", by_words[words])
    return commands


def _words(found: Offer) -> str:
    """Return next hop and attributes in ExaBGP's words (reference bgp.md 2.4)."""
    said = found.attributes
    words = [f"next-hop {found.next_hop or 'self'}"]
    if said.origin is not Origin.IGP:
        words.append(f"origin {said.origin.name.lower()}")
    if said.as_path:
        words.append(f"as-path {' '.join(map(_segment, said.as_path))}")
    if said.med:
        words.append(f"med {said.med}")
    if said.local_preference is not None:
        words.append(f"local-preference {said.local_preference}")
    if said.communities:
        words.append(f"community [{' '.join(said.communities)}]")
    if said.large_communities:
        words.append(f"large-community [{' '.join(said.large_communities)}]")
    if said.originator is not None:
        words.append(f"originator-id {said.originator}")
    if said.clusters:
        words.append(f"cluster-list [ {' '.join(map(str, said.clusters))} ]")
    return " ".join(words + carried.words(said.carried))


def _segment(segment: Segment) -> str:
    numbers = " ".join(map(str, segment.numbers))
    return f"( {numbers} )" if segment.is_set else f"[ {numbers} ]"


def withdraw(peer: IPAddress, prefixes: Iterable[IPNetwork]) -> list[str]:
    """Return the commands that withdraw `prefixes` from one peer."""
    return _per_hundred(f"neighbor {peer} withdraw attributes next-hop self nlri", prefixes)


def end_of_rib(peer: IPAddress) -> str:
    """Return the command that tells one peer that it has everything. It fails if the session is not up."""
    return f"neighbor {peer} announce eor {_FAMILIES[peer.version]}"


def resend(peer: IPAddress) -> str:
    """Return the command that has everything sent again that is announced to one peer. It fails if it is not up."""
    return f"neighbor {peer} flush adj-rib out"


def _per_hundred(start: str, prefixes: Iterable[IPNetwork]) -> list[str]:
    listed = sorted(prefixes, key=lambda one: (one.version, int(one.network_address), one.prefixlen))
    words = list(map(str, listed))
    return [
        f"{start} {' '.join(words[index : index + PREFIXES_PER_COMMAND])}"
        for index in range(0, len(words), PREFIXES_PER_COMMAND)
    ]
