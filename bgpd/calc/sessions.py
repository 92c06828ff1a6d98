"""Nodes and BGP settings -> the sessions this node is to have (reference bgp.md 1.4).

The mesh for now: every node that has an address of the family and is no route reflector, with every other. Explicit
peers and reflection add more ways to come to a `PeerSpec`, not another shape of it.
"""

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from resources.kinds.bgpconfiguration import DEFAULT_AS_NUMBER, BGPConfiguration, BGPConfigurationSpec
from resources.kinds.node import Node
from resources.names import AsNumber, IPAddress, IPInterface, NodeName
from resources.runtime.options import seconds as parse_seconds

DEFAULT_AS = AsNumber(DEFAULT_AS_NUMBER)
DEFAULT_PORT = 179
DEFAULT_HOLD_SECONDS = 90
DEFAULT_RESTART_SECONDS = 120
RESTART_SECONDS_MAX = 4095
"""The restart time has twelve bits (RFC 4724, section 3)."""

_GLOBAL = "default"


class PeerKind(Enum):
    """Where a session comes from; the value is the first word of its name in `calicoctl node status`."""

    MESH = "Mesh"
    GLOBAL = "Global"
    NODE = "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSpec:
    """One session as it is wanted: address, AS number and options of both sides."""

    address: IPAddress
    kind: PeerKind
    node: NodeName | None = None
    """Set if the peer is a node of ours."""
    local_address: IPAddress
    local_as: AsNumber
    peer_as: AsNumber
    port: int = DEFAULT_PORT
    """Where the peer listens."""
    passive: bool = False
    """True: wait for the peer to connect."""
    hold_seconds: int = DEFAULT_HOLD_SECONDS
    restart_seconds: int = DEFAULT_RESTART_SECONDS
    """For how long the peer is asked to keep our routes when we are gone (RFC 4724)."""
    password: str | None = None

    @property
    def name(self) -> str:
        """The session's name on BIRD's control socket (reference bgp.md 5.3)."""
        return f"{self.kind.value}_{str(self.address).replace('.', '_').replace(':', '_')}"

    @property
    def is_external(self) -> bool:
        """True for eBGP."""
        return self.local_as != self.peer_as

    @property
    def version(self) -> int:
        return self.address.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Something that was to become a session, or a setting of one, and why it is not used."""

    what: str
    reason: str
    address: IPAddress | None = None
    """Set if a session is withheld because of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """All sessions of this node, by the peer's address."""

    peers: Mapping[IPAddress, PeerSpec] = field(default_factory=lambda: MappingProxyType({}))
    unusable: tuple[Unusable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What routing needs of a Node, parsed. An address that cannot be read counts as absent and is a fault."""

    name: NodeName
    ipv4: IPInterface | None = None
    ipv6: IPInterface | None = None
    as_number: AsNumber | None = None
    is_reflector: bool = False
    faults: tuple[str, ...] = ()

    def interface(self, version: int) -> IPInterface | None:
        return self.ipv4 if version == 4 else self.ipv6

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The addresses it speaks BGP on."""
        return tuple(interface.ip for interface in (self.ipv4, self.ipv6) if interface is not None)


def node_view(node: Node) -> NodeView:
    """Return the parsed form of a Node; never fails."""
    bgp = node.spec.bgp
    if bgp is None:
        return NodeView(name=node.name)
    faults: list[str] = []
    ipv4 = _interface(bgp.ipv4_address, ipaddress.IPv4Interface, faults)
    ipv6 = _interface(bgp.ipv6_address, ipaddress.IPv6Interface, faults)
    as_number = bgp.as_number or None
    if as_number is not None and not 0 < as_number < 1 << 32:
        faults.append(f"{as_number} is no AS number")
        as_number = None
    return NodeView(
        name=node.name,
        ipv4=ipv4,
        ipv6=ipv6,
        as_number=None if as_number is None else AsNumber(as_number),
        is_reflector=bool(bgp.route_reflector_cluster_id),
        faults=tuple(faults),
    )


def _interface(text: str, parse: Callable[[str], IPInterface], faults: list[str]) -> IPInterface | None:
    if not text:
        return None
    try:
        found = parse(text)
    except ValueError as error:
        faults.append(str(error))
        return None
    address = found.ip
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        faults.append(f"{address} cannot be a node's address")
        return None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The BGP settings in force on this node; `unusable` lists what the store says and cannot be used."""

    as_number: AsNumber = DEFAULT_AS
    mesh: bool = True
    listen_port: int = DEFAULT_PORT
    restart_seconds: int = DEFAULT_RESTART_SECONDS
    mesh_password_asked: bool = False
    ports: Mapping[NodeName, int] = field(default_factory=lambda: MappingProxyType({}))
    """Listening ports of nodes that have one of their own."""
    unusable: tuple[Unusable, ...] = ()

    def port_of(self, node: NodeName) -> int:
        return self.ports.get(node, self.listen_port)


def settings(configurations: Mapping[str, BGPConfiguration]) -> Globals:
    """Return the settings out of all BGPConfigurations (``default`` and ``node.<name>``), by their names."""
    unusable: list[Unusable] = []
    spec = configurations[_GLOBAL].spec if _GLOBAL in configurations else BGPConfigurationSpec()
    ports = {
        NodeName(name.removeprefix("node.")): port
        for name, configuration in sorted(configurations.items())
        if name.startswith("node.") and (port := _port(configuration.spec, name, unusable)) is not None
    }
    password = spec.node_mesh_password
    return Globals(
        as_number=_as_number(spec, unusable),
        mesh=spec.node_to_node_mesh_enabled is not False,
        listen_port=_port(spec, _GLOBAL, unusable) or DEFAULT_PORT,
        restart_seconds=_restart_seconds(spec, unusable),
        mesh_password_asked=password is not None and password.secret_key_ref is not None,
        ports=ports,
        unusable=tuple(unusable),
    )


def _what(name: str, member: str) -> str:
    return f"BGPConfiguration({name}) {member}"


def _port(spec: BGPConfigurationSpec, name: str, unusable: list[Unusable]) -> int | None:
    port = spec.listen_port
    if port is None or 0 < port < 65536:
        return port
    unusable.append(Unusable(what=_what(name, "listenPort"), reason=f"{port} is no port"))
    return None


def _as_number(spec: BGPConfigurationSpec, unusable: list[Unusable]) -> AsNumber:
    number = spec.as_number
    if number is None:
        return DEFAULT_AS
    if 0 < number < 1 << 32:
        return AsNumber(number)
    unusable.append(Unusable(what=_what(_GLOBAL, "asNumber"), reason=f"{number} is no AS number"))
    return DEFAULT_AS


def _restart_seconds(spec: BGPConfigurationSpec, unusable: list[Unusable]) -> int:
    text = spec.node_mesh_max_restart_time
    if not text:
        return DEFAULT_RESTART_SECONDS
    try:
        seconds = parse_seconds()(text)
    except ValueError as error:
        unusable.append(Unusable(what=_what(_GLOBAL, "nodeMeshMaxRestartTime"), reason=str(error)))
        return DEFAULT_RESTART_SECONDS
    return min(max(int(seconds), 0), RESTART_SECONDS_MAX)


def sessions(
    this: NodeName, nodes: Mapping[NodeName, NodeView], globals: Globals, *, hold_seconds: int = DEFAULT_HOLD_SECONDS
) -> Sessions:
    """Return the sessions `this` node is to have, and what could not become one."""
    unusable = list(globals.unusable)
    unusable += [
        Unusable(what=f"Node({node.name})", reason=fault) for node in _by_name(nodes) for fault in node.faults
    ]
    peers: dict[IPAddress, PeerSpec] = {}
    own = nodes.get(this)
    if own is not None and globals.mesh and not own.is_reflector:
        for version in (4, 6):
            for spec in _mesh(own, _by_name(nodes), globals, version, hold_seconds, unusable):
                if globals.mesh_password_asked:
                    reason = "the password is in a Kubernetes secret, which cannot be read here"
                    unusable.append(Unusable(what="nodeMeshPassword", reason=reason, address=spec.address))
                else:
                    peers[spec.address] = spec
    return Sessions(peers=peers, unusable=tuple(unusable))


def _by_name(nodes: Mapping[NodeName, NodeView]) -> list[NodeView]:
    return [nodes[name] for name in sorted(nodes)]


def _mesh(
    own: NodeView,
    nodes: Iterable[NodeView],
    globals: Globals,
    version: int,
    hold_seconds: int,
    unusable: list[Unusable],
) -> Iterable[PeerSpec]:
    local = own.interface(version)
    if local is None:
        return
    taken = {local.ip: own.name}
    for node in nodes:
        remote = node.interface(version)
        if node.name == own.name or remote is None or node.is_reflector:
            continue
        if (holder := taken.setdefault(remote.ip, node.name)) != node.name:
            unusable.append(Unusable(what=f"Node({node.name})", reason=f"{remote.ip} is also the address of {holder}"))
            continue
        yield PeerSpec(
            address=remote.ip,
            kind=PeerKind.MESH,
            node=node.name,
            local_address=local.ip,
            local_as=own.as_number or globals.as_number,
            peer_as=node.as_number or globals.as_number,
            port=globals.port_of(node.name),
            passive=waits(local.ip, remote.ip),
            hold_seconds=hold_seconds,
            restart_seconds=globals.restart_seconds,
        )


def waits(local: IPAddress, remote: IPAddress) -> bool:
    """Return whether the side with address `local` waits for the other to connect: the numerically smaller one does.

    (Calico compares the texts, which two of ours need not follow: reference bgp.md 1.4.)
    """
    return int(local) < int(remote)


def router_id(own: NodeView | None, name: NodeName, setting: str = "") -> ipaddress.IPv4Address:
    """Return this node's BGP identifier.

    Args:
        setting: an IPv4 form taken as it is, or ``hash`` for one computed from the name; by default the node's IPv4
            address, and the hash where it has none.

    Raises:
        ValueError: the setting is neither.
    """
    if setting and setting != "hash":
        return ipaddress.IPv4Address(setting)
    if setting != "hash" and own is not None and own.ipv4 is not None:
        return ipaddress.IPv4Address(own.ipv4.ip)
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    # 1.0.0.0 to 223.255.255.255: the form of a unicast address, so that no implementation refuses it
    return ipaddress.IPv4Address((1 << 24) + number % (223 << 24))
