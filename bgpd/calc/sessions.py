"""Nodes, BGP settings and BGPPeers -> the sessions this node is to have (reference bgp.md 1.4).

One session an address. A BGPPeer for this node comes before one for all, that before what another node's BGPPeer asks
of this one, and that before the mesh: every node that has an address of the family and is no route reflector, with
every other. An address whose session is withheld stays withheld: nothing of a lower rank takes its place.
"""

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from bgpd.calc.filters import Filter
from bgpd.calc.peers import NextHopMode, Peering, restart_seconds
from bgpd.calc.secrets import Password, Secret, SecretName, Unread, secret_named
from resources.kinds.bgpconfiguration import DEFAULT_AS_NUMBER, BGPConfiguration, BGPConfigurationSpec
from resources.kinds.node import Node, peer_address_fault
from resources.names import AsNumber, IPAddress, IPInterface, NodeName

DEFAULT_AS = AsNumber(DEFAULT_AS_NUMBER)
DEFAULT_PORT = 179
DEFAULT_HOLD_SECONDS = 90
DEFAULT_RESTART_SECONDS = 120

_GLOBAL = "default"


class PeerKind(Enum):
    """Where a session comes from; the value is the first word of its name in `calicoctl node status`."""

    MESH = "Mesh"
    GLOBAL = "Global"
    NODE = "Node"


def session_name(kind: PeerKind, address: IPAddress) -> str:
    """Return a session's name on BIRD's control socket (reference bgp.md 5.3)."""
    return f"{kind.value}_{str(address).replace('.', '_').replace(':', '_')}"


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
    password: str | None = field(default=None, repr=False)
    origin: str = ""
    """The BGPPeer that it comes from, if not the mesh."""
    any_source: bool = False
    """True: `local_address` is only what it is called by, the kernel chooses."""
    hops: int | None = None
    """The peer is at most so many hops away, and packets from further away are dropped (RFC 5082); None: unchecked."""
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    own_as_allowed: int = 0
    gateway: IPAddress | None = None
    """A host route to the peer goes by this one."""
    filters: tuple[str, ...] = ()
    """BGPFilters, in the order in which they are asked."""
    is_client: bool = False
    """This node reflects routes to it (RFC 4456)."""

    @property
    def name(self) -> str:
        return session_name(self.kind, self.address)

    @property
    def is_external(self) -> bool:
        """True for eBGP."""
        return self.local_as != self.peer_as

    @property
    def version(self) -> int:
        return self.address.version

    @property
    def least_ttl(self) -> int | None:
        """What comes with less was sent from further away, or by somebody who pretends (RFC 5082); None: unchecked."""
        return None if self.hops is None else 256 - self.hops


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Something that was to become a session, or a setting of one, and why it is not used."""

    what: str
    reason: str
    address: IPAddress | None = None
    """Set if a session is withheld because of it."""
    kind: PeerKind = PeerKind.MESH
    """Of that session."""


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
    """It has a cluster ID, though maybe none that can be read: it is in no mesh."""
    cluster_id: ipaddress.IPv4Address | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
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
        return NodeView(name=node.name, labels=node.metadata.labels)
    faults: list[str] = []
    ipv4 = _interface("ipv4Address", lambda: node.ipv4, faults)
    ipv6 = _interface("ipv6Address", lambda: node.ipv6, faults)
    as_number = bgp.as_number or None
    if as_number is not None and not 0 < as_number < 1 << 32:
        faults.append(f"{as_number} is no AS number")
        as_number = None
    cluster_id = None
    if bgp.route_reflector_cluster_id:
        try:
            cluster_id = ipaddress.IPv4Address(bgp.route_reflector_cluster_id)
        except ValueError as error:
            faults.append(f"routeReflectorClusterID: {error}")
    return NodeView(
        name=node.name,
        ipv4=ipv4,
        ipv6=ipv6,
        as_number=None if as_number is None else AsNumber(as_number),
        is_reflector=bool(bgp.route_reflector_cluster_id),
        cluster_id=cluster_id,
        labels=node.metadata.labels,
        faults=tuple(faults),
    )


def _interface(member: str, read: Callable[[], IPInterface | None], faults: list[str]) -> IPInterface | None:
    try:
        found = read()
    except ValueError as error:
        faults.append(f"{member}: {error}")
        return None
    if found is None:
        return None
    if fault := peer_address_fault(found.ip):
        faults.append(f"{member}: {fault}")
        return None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The BGP settings in force on this node; `unusable` lists what the store says and cannot be used."""

    as_number: AsNumber = DEFAULT_AS
    mesh: bool = True
    listen_port: int = DEFAULT_PORT
    restart_seconds: int = DEFAULT_RESTART_SECONDS
    mesh_secret: SecretName | None = None
    """The password of the mesh."""
    mesh_fault: str = ""
    """Why the mesh cannot be: it is to have a password, and which cannot be told."""
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
    mesh_secret, mesh_fault = _mesh_secret(spec)
    return Globals(
        as_number=_as_number(spec, unusable),
        mesh=spec.node_to_node_mesh_enabled is not False,
        listen_port=_port(spec, _GLOBAL, unusable) or DEFAULT_PORT,
        restart_seconds=_restart_seconds(spec, unusable),
        mesh_secret=mesh_secret,
        mesh_fault=mesh_fault,
        ports=ports,
        unusable=tuple(unusable),
    )


def _what(name: str, member: str) -> str:
    return f"BGPConfiguration({name}) {member}"


_MESH_PASSWORD = _what(_GLOBAL, "nodeMeshPassword")


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


def _mesh_secret(spec: BGPConfigurationSpec) -> tuple[SecretName | None, str]:
    if spec.node_mesh_password is None:
        return None, ""
    try:
        return secret_named(spec.node_mesh_password), ""
    except ValueError as error:
        return None, str(error)


def _restart_seconds(spec: BGPConfigurationSpec, unusable: list[Unusable]) -> int:
    text = spec.node_mesh_max_restart_time
    if not text:
        return DEFAULT_RESTART_SECONDS
    try:
        return restart_seconds(text)
    except ValueError as error:
        unusable.append(Unusable(what=_what(_GLOBAL, "nodeMeshMaxRestartTime"), reason=str(error)))
        return DEFAULT_RESTART_SECONDS


def wanted_secrets(globals: Globals, peerings: Iterable[Peering] = ()) -> frozenset[SecretName]:
    """Return the passwords that `sessions` will ask for."""
    asked = {globals.mesh_secret, *(peering.secret for peering in peerings)}
    return frozenset(secret for secret in asked if secret is not None)


_NO_SECRETS: Mapping[SecretName, Secret] = MappingProxyType({})


def sessions(
    this: NodeName,
    nodes: Mapping[NodeName, NodeView],
    globals: Globals,
    peerings: Iterable[Peering] = (),
    *,
    filters: Mapping[str, Filter] = MappingProxyType({}),
    secrets: Mapping[SecretName, Secret] = _NO_SECRETS,
    hold_seconds: int = DEFAULT_HOLD_SECONDS,
) -> Sessions:
    """Return the sessions `this` node is to have, and what could not become one.

    Args:
        filters: the BGPFilters that there are, by name.
        secrets: what was read of `wanted_secrets`.
    """
    work = _Work(nodes, globals, filters, secrets, hold_seconds)
    own = nodes.get(this)
    if own is not None:
        named = sorted(peerings, key=lambda peering: peering.name)
        for peering in (*(p for p in named if not p.is_global), *(p for p in named if p.is_global)):
            if peering.is_on(own.name, own.labels):
                work.take(_direct(own, peering, work))
        for peering in named:
            if peering.is_mutual:
                work.take(_reverse(own, peering, work))
        if globals.mesh and not own.is_reflector:
            for version in (4, 6):
                work.take(_mesh(own, version, work))
        elif own.is_reflector and not work.claimed:
            reason = "a route reflector is in no mesh, and no BGPPeer gives it a peer"
            work.unusable.append(Unusable(what=f"Node({own.name}) routeReflectorClusterID", reason=reason))
    return Sessions(peers=work.peers, unusable=tuple(dict.fromkeys(work.unusable)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A session that something asks for. Without `spec` it cannot be, for `reason`."""

    what: str
    address: IPAddress
    spec: PeerSpec | None
    reason: str = ""
    kind: PeerKind = PeerKind.MESH
    secret: SecretName | None = None
    is_reverse: bool = False


class _Work:
    """What is known and what was decided so far, rank by rank."""

    def __init__(
        self,
        nodes: Mapping[NodeName, NodeView],
        globals: Globals,
        filters: Mapping[str, Filter],
        secrets: Mapping[SecretName, Secret],
        hold_seconds: int,
    ) -> None:
        self.globals, self.hold_seconds = globals, hold_seconds
        self.nodes = [nodes[name] for name in sorted(nodes)]
        self.peers: dict[IPAddress, PeerSpec] = {}
        self.claimed: dict[IPAddress, _Wanted] = {}
        self.unusable = list(globals.unusable)
        self._filters, self._secrets = filters, secrets
        self._holders: dict[IPAddress, NodeView] = {}
        for node in self.nodes:
            self.unusable += [Unusable(what=f"Node({node.name})", reason=fault) for fault in node.faults]
            for address in node.addresses:
                self._holders.setdefault(address, node)
        self._tell_twins()

    def _tell_twins(self) -> None:
        """Two speakers of one identifier cannot have a session, and those that are computed from names may meet."""
        known = {ipaddress.IPv4Address(node.ipv4.ip): node.name for node in self.nodes if node.ipv4 is not None}
        for node in self.nodes:
            if node.ipv4 is None and node.ipv6 is not None:
                identifier = router_id(None, node.name)
                if (other := known.setdefault(identifier, node.name)) != node.name:
                    reason = f"its BGP identifier {identifier} is also that of {other}: set CALICO_ROUTER_ID on one"
                    self.unusable.append(Unusable(what=f"Node({node.name})", reason=reason))

    def holder(self, address: IPAddress) -> NodeView | None:
        """Return the node that speaks BGP on `address`; of several the first by name."""
        return self._holders.get(address)

    def as_of(self, node: NodeView) -> AsNumber:
        return node.as_number or self.globals.as_number

    def take(self, wanted: Iterable[_Wanted]) -> None:
        """Take sessions for addresses that are not taken yet."""
        for one in wanted:
            first = self.claimed.setdefault(one.address, one)
            if first is not one:
                self._tell_second(first, one)
                continue
            spec, reason = self._with_password(one)
            if spec is None:
                self.unusable.append(Unusable(what=one.what, reason=reason, address=one.address, kind=one.kind))
                continue
            self.peers[one.address] = spec
            for name in spec.filters:
                if (found := self._filters.get(name)) is None:
                    reason = f"BGPFilter({name}) does not exist and is passed over"
                    self.unusable.append(Unusable(what=one.what, reason=reason))
                elif found.fault:
                    reason = f"BGPFilter({name}) rejects every route from what cannot be read on: {found.fault}"
                    self.unusable.append(Unusable(what=one.what, reason=reason))

    def _with_password(self, one: _Wanted) -> tuple[PeerSpec | None, str]:
        if one.spec is None or one.secret is None:
            return one.spec, one.reason
        match self._secrets.get(one.secret, Unread("the password was not read")):
            case Password(text):
                return replace(one.spec, password=text), ""
            case Unread(reason):
                return None, f"password: {reason}"

    def _tell_second(self, first: _Wanted, second: _Wanted) -> None:
        """Two of one rank that differ are a mistake; what comes of a lower rank was not meant."""
        one, other = first.spec, second.spec
        if one is None or other is None or one.kind is not other.kind or first.is_reverse != second.is_reverse:
            return
        if first.what == second.what:
            return
        if replace(one, origin="") != replace(other, origin="") or first.secret != second.secret:
            reason = f"{second.address} is peered with by {first.what}, with other options"
            self.unusable.append(Unusable(what=second.what, reason=reason))


def _direct(own: NodeView, peering: Peering, work: _Work) -> Iterator[_Wanted]:
    """Yield what a BGPPeer that is in force on this node asks for."""
    if peering.peers is not None:
        for other in work.nodes:
            if other.name != own.name and peering.peers.matches(other.labels):
                yield from _with_node(own, other, peering, work)
        return
    assert peering.address is not None
    if peering.address in own.addresses:
        return
    node = _node_at(peering.address, peering, work)
    peer_as = peering.as_number or (work.as_of(node) if node else None)
    kind = PeerKind.GLOBAL if peering.is_global else PeerKind.NODE
    if peer_as is None:
        reason = "asNumber is missing, and the peer is no node whose own could be taken"
        yield _Wanted(peering.what, peering.address, None, reason, kind)
    else:
        yield _session(own, peering, kind, peering.address, node, peer_as, peering.local_as or work.as_of(own), work)


def _node_at(address: IPAddress, peering: Peering, work: _Work) -> NodeView | None:
    """Return the node that a BGPPeer means by an address; None also for something else that runs on its host."""
    node = work.holder(address)
    if node is None or peering.port not in (None, work.globals.port_of(node.name)):
        return None
    return node if peering.as_number in (None, work.as_of(node)) else None


def _with_node(own: NodeView, node: NodeView, peering: Peering, work: _Work) -> Iterator[_Wanted]:
    kind = PeerKind.GLOBAL if peering.is_global else PeerKind.NODE
    for address in node.addresses:
        if own.interface(address.version) is not None and address not in own.addresses:
            local_as = peering.local_as or work.as_of(own)
            yield _session(own, peering, kind, address, node, work.as_of(node), local_as, work)


def _reverse(own: NodeView, peering: Peering, work: _Work) -> Iterator[_Wanted]:
    """Yield the other sides of what a BGPPeer that names this node asks of others."""
    if peering.peers is not None:
        if not peering.peers.matches(own.labels):
            return
        versions = [address.version for address in own.addresses]
        local_as = work.as_of(own)
    else:
        assert peering.address is not None
        local_as = peering.as_number or work.as_of(own)
        at_home = peering.port in (None, work.globals.port_of(own.name))
        if peering.address not in own.addresses or local_as != work.as_of(own) or not at_home:
            return
        versions = [peering.address.version]
    for node in work.nodes:
        if node.name == own.name or not peering.is_on(node.name, node.labels):
            continue
        peer_as = peering.local_as or work.as_of(node)
        for address in node.addresses:
            if address.version in versions and address not in own.addresses:
                found = _session(own, peering, PeerKind.NODE, address, node, peer_as, local_as, work)
                yield replace(found, is_reverse=True)


def _session(
    own: NodeView,
    peering: Peering,
    kind: PeerKind,
    address: IPAddress,
    node: NodeView | None,
    peer_as: AsNumber,
    local_as: AsNumber,
    work: _Work,
) -> _Wanted:
    local = own.interface(address.version)
    if local is None:
        return _Wanted(peering.what, address, None, f"this node has no IPv{address.version} address", kind)
    if peering.faults:
        return _Wanted(peering.what, address, None, "; ".join(peering.faults), kind)
    default_port = work.globals.port_of(node.name) if node else DEFAULT_PORT
    is_to_address = address == peering.address
    spec = PeerSpec(
        address=address,
        kind=kind,
        node=node.name if node else None,
        local_address=local.ip,
        local_as=local_as,
        peer_as=peer_as,
        port=(peering.port if is_to_address else None) or default_port,
        # a router has no such rule, and of two that wait neither ever connects
        passive=node is not None and waits(local.ip, address),
        hold_seconds=peering.hold_seconds or work.hold_seconds,
        restart_seconds=DEFAULT_RESTART_SECONDS if peering.restart_seconds is None else peering.restart_seconds,
        origin=peering.name,
        any_source=peering.any_source,
        hops=peering.hops,
        next_hop_mode=peering.next_hop_mode,
        own_as_allowed=peering.own_as_allowed,
        gateway=peering.gateway if is_to_address else None,
        filters=peering.filters,
        is_client=_is_client(own, node, local_as == peer_as),
    )
    return _Wanted(peering.what, address, spec, kind=kind, secret=peering.secret)


def _is_client(own: NodeView, node: NodeView | None, is_internal: bool) -> bool:
    """Return whether this node reflects to a peer: it is a reflector, and the peer is not one of the same cluster."""
    return is_internal and own.cluster_id is not None and (node is None or node.cluster_id != own.cluster_id)


def _mesh(own: NodeView, version: int, work: _Work) -> Iterator[_Wanted]:
    local = own.interface(version)
    if local is None:
        return
    globals = work.globals
    taken = {local.ip: own.name}
    for node in work.nodes:
        remote = node.interface(version)
        if node.name == own.name or remote is None or node.is_reflector:
            continue
        if (holder := taken.setdefault(remote.ip, node.name)) != node.name:
            reason = f"{remote.ip} is also the address of {holder}"
            work.unusable.append(Unusable(what=f"Node({node.name})", reason=reason))
            continue
        if globals.mesh_fault:
            yield _Wanted(_MESH_PASSWORD, remote.ip, None, globals.mesh_fault)
            continue
        spec = PeerSpec(
            address=remote.ip,
            kind=PeerKind.MESH,
            node=node.name,
            local_address=local.ip,
            local_as=work.as_of(own),
            peer_as=work.as_of(node),
            port=globals.port_of(node.name),
            passive=waits(local.ip, remote.ip),
            hold_seconds=work.hold_seconds,
            restart_seconds=globals.restart_seconds,
        )
        yield _Wanted(_MESH_PASSWORD, remote.ip, spec, secret=globals.mesh_secret)


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
