"""WorkloadEndpoint: one container interface, on whichever node it lives (reference resources.md 2.6)."""

import ipaddress
from collections.abc import Iterable, Iterator

import msgspec

from resources.kinds import fields, rule_v1
from resources.kinds.base import V1, Column, Kind, Metadata, Path, PortNumber, Problem, Uint16, View, name_cell, wire
from resources.kinds.naming import node_name, profile_name, segment_name
from resources.kinds.rule import Protocol
from resources.names import CONTAINER_ID_PATTERN, IfName, IPAddress, IPNetwork, NodeName, parse_address, parse_network

DOCKER_NAMESPACE = "libnetwork"
NAMESPACE_LABEL = "projectcalico.org/namespace"
ORCHESTRATOR_LABEL = "projectcalico.org/orchestrator"

_PORT_NAME = r"(?!-)(?!.*--)(?=.*[a-z])[a-z0-9-]{1,15}(?<!-)"
_CONTAINER_ID = "a container ID has letters, digits and '-', and no '-' at its ends"
_DSCP_NAMES = frozenset(
    ("DF", "EF", "LE", "VA", *(f"CS{n}" for n in range(8)), *(f"AF{c}{d}" for c in range(1, 5) for d in range(1, 4)))
)


class IPNAT(msgspec.Struct, frozen=True, kw_only=True, rename=wire(internal_ip="internalIP", external_ip="externalIP")):
    internal_ip: str
    external_ip: str


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port that rules call by its name."""

    name: str = ""
    protocol: Protocol
    port: PortNumber


class WorkloadEndpointPort(EndpointPort, frozen=True, kw_only=True, rename=wire(host_ip="hostIP")):
    host_port: Uint16 = 0
    host_ip: str = ""


class QoSControls(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    ingress_bandwidth: int = 0
    egress_bandwidth: int = 0
    ingress_burst: int = 0
    egress_burst: int = 0
    ingress_peakrate: int = 0
    egress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    egress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: int | str | None = None


class WorkloadEndpointSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(container_id="containerID", ip_nats="ipNATs"),
):
    orchestrator: str = ""
    workload: str = ""
    node: str = ""
    container_id: str = ""
    pod: str = ""
    endpoint: str = ""
    service_account_name: str = ""
    ip_networks: list[str] = []
    """Each one address: /32, /128 or bare."""
    ip_nats: list[IPNAT] = []
    ipv4_gateway: str = ""
    ipv6_gateway: str = ""
    profiles: list[str] = []
    interface_name: str = ""
    """Host side of the veth pair."""
    mac: str = ""
    ports: list[WorkloadEndpointPort] = []
    allow_spoofed_source_prefixes: list[str] = []
    qos_controls: QoSControls | None = None


class WorkloadEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: WorkloadEndpointSpec = WorkloadEndpointSpec()

    @property
    def node(self) -> NodeName:
        return NodeName(self.spec.node)

    @property
    def interface(self) -> IfName:
        return IfName(self.spec.interface_name)

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """The endpoint's addresses as /32 and /128 networks."""
        return tuple(ipaddress.ip_network(text) for text in self.spec.ip_networks)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(network.network_address for network in self.networks)


def identifiers(spec: WorkloadEndpointSpec) -> tuple[tuple[str, str], ...]:
    """Return the four segments of the endpoint's name, each with the field it comes from."""
    match spec.orchestrator:
        case "k8s":
            middle = (("orchestrator", "k8s"), ("pod", spec.pod))
        case "cni":
            middle = (("orchestrator", "cni"), ("containerID", spec.container_id))
        case "libnetwork":
            middle = (("orchestrator", "libnetwork"), ("orchestrator", "libnetwork"))
        case _:
            middle = (("orchestrator", spec.orchestrator), ("workload", spec.workload))
    return (("node", spec.node), *middle, ("endpoint", spec.endpoint))


def endpoint_name(spec: WorkloadEndpointSpec) -> str:
    """Return the name that the endpoint's identifiers make: four segments, each dash in them doubled."""
    return "-".join(segment.replace("-", "--") for _, segment in identifiers(spec))


def node_prefix(node: str) -> str:
    """Return what the names of a node's endpoints begin with. Others' may too: check `node` (resources.md 2.6)."""
    return node.replace("-", "--") + "-"


def parse_endpoint_name(name: str) -> tuple[str, ...]:
    """Return the segments of an endpoint's name."""
    segments, at, start = [], 1, 0
    while at < len(name):
        if name[at] != "-":
            at += 1
        elif name[at : at + 2] == "--":
            at += 2
        else:
            segments.append(name[start:at].replace("--", "-"))
            start = at + 1
            at = start + 1
    segments.append(name[start:].replace("--", "-"))
    return tuple(segments)


def _segment_fault(segment: str) -> str | None:
    if not segment:
        return "field should be assigned"
    if segment.startswith("-"):
        return "field must not begin with a '-'"
    return "field must not end with a '-'" if segment.endswith("-") else None


def _complete(endpoint: WorkloadEndpoint) -> WorkloadEndpoint:
    metadata, spec = endpoint.metadata, endpoint.spec
    forced = {}
    if metadata.namespace:
        forced[NAMESPACE_LABEL] = metadata.namespace
    if spec.orchestrator:
        forced[ORCHESTRATOR_LABEL] = spec.orchestrator
    name = metadata.name
    if not name and not any(_segment_fault(segment) for _, segment in identifiers(spec)):
        name = endpoint_name(spec)
    if name == metadata.name and forced.items() <= metadata.labels.items():
        return endpoint
    return WorkloadEndpoint(
        metadata=msgspec.structs.replace(metadata, name=name, labels=metadata.labels | forced), spec=spec
    )


def _check(endpoint: WorkloadEndpoint) -> Iterable[Problem]:
    spec = endpoint.spec
    yield from _name_problems(endpoint)
    for field, name in (
        ("orchestrator", spec.orchestrator), ("workload", spec.workload), ("node", spec.node), ("pod", spec.pod),
        ("endpoint", spec.endpoint), ("serviceAccountName", spec.service_account_name),
    ):
        yield from fields.name(("spec", field), name)
    yield from fields.pattern(("spec", "containerID"), spec.container_id, CONTAINER_ID_PATTERN, _CONTAINER_ID)
    if not spec.interface_name:
        yield Problem(("spec", "interfaceName"), "", "must be set: the host side of the veth pair")
    yield from fields.interface(("spec", "interfaceName"), spec.interface_name)
    yield from fields.mac(("spec", "mac"), spec.mac)
    yield from _address_problems(spec)
    for index, profile in enumerate(spec.profiles):
        if not profile:
            yield Problem(("spec", "profiles", index), "", "must be the name of a profile")
        yield from fields.name(("spec", "profiles", index), profile)
    for index, prefix in enumerate(spec.allow_spoofed_source_prefixes):
        yield from fields.cidr(("spec", "allowSpoofedSourcePrefixes", index), prefix)
    yield from _port_problems(spec.ports)
    if spec.qos_controls is not None:
        yield from _qos_problems(("spec", "qosControls"), spec.qos_controls)


def _name_problems(endpoint: WorkloadEndpoint) -> Iterator[Problem]:
    faulty = {}
    for field, segment in identifiers(endpoint.spec):
        if (fault := _segment_fault(segment)) and field not in faulty:
            faulty[field] = Problem(("spec", field), segment, fault)
    yield from faulty.values()
    expected = endpoint_name(endpoint.spec)
    if not faulty and endpoint.metadata.name != expected:
        yield Problem(
            ("metadata", "name"),
            endpoint.metadata.name,
            "the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: "
            f"expected name {expected}",
        )


def _networks_problems(networks: Iterable[str]) -> Iterator[Problem]:
    for index, text in enumerate(networks):
        at = ("spec", "ipNetworks", index)
        try:
            network = parse_network(text)
        except ValueError:
            many = bool(text and fields.masked_hint(text))
        else:
            many = network.prefixlen < network.max_prefixlen
            if not many:
                continue
        reason = "IP network contains multiple addresses" if many else "must be an IP address"
        yield Problem(at, text, reason, "write one address: /32, /128 or bare")


def _address_problems(spec: WorkloadEndpointSpec) -> Iterator[Problem]:
    yield from _networks_problems(spec.ip_networks)
    for name, gateway, version in (("ipv4Gateway", spec.ipv4_gateway, 4), ("ipv6Gateway", spec.ipv6_gateway, 6)):
        if gateway and any(True for _ in fields.address((), gateway, version)):
            yield Problem(("spec", name), gateway, f"invalid IPv{version} gateway address specified")
    if not spec.ip_nats:
        return
    own = {network.network_address for network in map(_network, spec.ip_networks) if network is not None}
    for index, nat in enumerate(spec.ip_nats):
        at: Path = ("spec", "ipNATs", index)
        inside, outside = _address(nat.internal_ip), _address(nat.external_ip)
        for field, text, parsed in (
            ("internalIP", nat.internal_ip, inside),
            ("externalIP", nat.external_ip, outside),
        ):
            if parsed is None:
                yield Problem((*at, field), text, "invalid IP address")
        if inside is not None and outside is not None and inside.version != outside.version:
            yield Problem((*at, "externalIP"), nat.external_ip, "mismatched IP versions")
        if inside is not None and inside not in own:
            yield Problem((*at, "internalIP"), nat.internal_ip, "NAT is not in the endpoint networks")


def _network(text: str) -> IPNetwork | None:
    try:
        return parse_network(text)
    except ValueError:
        return None


def _address(text: str) -> IPAddress | None:
    try:
        return parse_address(text.removesuffix("/32").removesuffix("/128"))
    except ValueError:
        return None


def port_name_problems(path: Path, name: str) -> Iterator[Problem]:
    """Check the name of a port of an endpoint."""
    what = "a port name has at most 15 of a-z, 0-9 and '-', a letter, and no '-' at its ends or twice"
    yield from fields.pattern(path, name, _PORT_NAME, what)


def _port_problems(ports: Iterable[WorkloadEndpointPort]) -> Iterator[Problem]:
    seen: set[tuple[str, int | str, int]] = set()
    for index, port in enumerate(ports):
        at: Path = ("spec", "ports", index)
        if not fields.carries_ports(port.protocol):
            reason = "WorkloadEndpointPort protocol does not support ports."
            yield Problem((*at, "protocol"), str(port.protocol), reason, "allowed are TCP, UDP, SCTP")
        if port.port == 0:
            yield Problem((*at, "port"), "0", "must be between 1 and 65535")
        if not port.name and not port.host_port:
            reason = "WorkloadEndpointPort name must not be empty if no HostPort is specified"
            yield Problem((*at, "name"), "", reason)
        yield from port_name_problems((*at, "name"), port.name)
        yield from fields.address((*at, "hostIP"), port.host_ip)
        same = (port.name, port.protocol, port.port)
        if same in seen:
            yield Problem(at, port.name or str(port.port), "this port is listed twice")
        seen.add(same)


def _qos_problems(path: Path, qos: QoSControls) -> Iterator[Problem]:
    for field, name in zip(qos.__struct_fields__, qos.__struct_encode_fields__, strict=True):
        value = getattr(qos, field)
        if isinstance(value, int) and value < 0:
            yield Problem((*path, name), str(value), "must not be negative")
    if isinstance(qos.dscp, int):
        yield from fields.between((*path, "dscp"), qos.dscp, 0, 63)
    elif qos.dscp is not None and qos.dscp not in _DSCP_NAMES:
        yield Problem((*path, "dscp"), qos.dscp, "must be 0 to 63 or a name such as EF, AF11 or CS1")


def _needs(endpoint: WorkloadEndpoint) -> Iterable[Problem]:
    spec = endpoint.spec
    yield from _networks_problems(spec.ip_networks)
    if not spec.interface_name:
        yield Problem(("spec", "interfaceName"), "", "must be set")
    yield from fields.interface(("spec", "interfaceName"), spec.interface_name)
    if not spec.node:
        yield Problem(("spec", "node"), "", "must be set")


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)


def _nats_cell(endpoint: WorkloadEndpoint, _: View) -> str:
    return _joined(f"{nat.internal_ip}/{nat.external_ip}" for nat in endpoint.spec.ip_nats)


class WorkloadEndpointMetadataV1(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(active_instance_id="activeInstanceID"),
):
    name: str = ""
    workload: str = ""
    orchestrator: str = ""
    node: str = ""
    active_instance_id: str = ""
    labels: dict[str, str] = {}


class WorkloadEndpointSpecV1(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(ip_nats="ipNATs")
):
    ip_networks: list[str] = []
    ip_nats: list[IPNAT] = []
    ipv4_gateway: str = ""
    ipv6_gateway: str = ""
    profiles: list[str] = []
    interface_name: str = ""
    mac: str = ""


class WorkloadEndpointV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: WorkloadEndpointMetadataV1 = WorkloadEndpointMetadataV1()
    spec: WorkloadEndpointSpecV1 = WorkloadEndpointSpecV1()


def _check_v1(endpoint: WorkloadEndpointV1) -> Iterable[Problem]:
    metadata = endpoint.metadata
    yield from rule_v1.name_problems(("metadata", "node"), metadata.node)
    yield from rule_v1.name_problems(("metadata", "orchestrator"), metadata.orchestrator)
    yield from rule_v1.name_problems(("metadata", "workload"), metadata.workload, slash=True)
    yield from rule_v1.name_problems(("metadata", "name"), metadata.name, slash=True)
    yield from fields.labels(("metadata", "labels"), metadata.labels)
    if metadata.orchestrator == "k8s" and "." not in metadata.workload:
        yield Problem(("metadata", "workload"), metadata.workload, "must be namespace.pod with orchestrator k8s")
    if metadata.orchestrator == "cni":
        yield from fields.pattern(("metadata", "workload"), metadata.workload, CONTAINER_ID_PATTERN, _CONTAINER_ID)


def _to_v3(endpoint: WorkloadEndpointV1) -> WorkloadEndpoint:
    """Return the endpoint in the namespace in which the driver puts those of Docker."""
    metadata, spec = endpoint.metadata, endpoint.spec
    orchestrator = segment_name(metadata.orchestrator)
    namespace, workload, pod, container_id = "default", "", "", ""
    match orchestrator:
        case "k8s":
            namespace, _, pod = metadata.workload.partition(".")
            container_id = metadata.active_instance_id
        case "cni":
            container_id = metadata.workload
        case "libnetwork":
            namespace, workload = DOCKER_NAMESPACE, "libnetwork"
        case _:
            workload = segment_name(metadata.workload)
    labels = {NAMESPACE_LABEL if key == "calico/k8s_ns" else key: text for key, text in metadata.labels.items()}
    return WorkloadEndpoint(
        metadata=Metadata(namespace=namespace, labels=labels),
        spec=WorkloadEndpointSpec(
            orchestrator=orchestrator,
            workload=workload,
            node=node_name(metadata.node),
            container_id=container_id,
            pod=pod,
            endpoint=segment_name(metadata.name),
            ip_networks=sorted(map(_masked, spec.ip_networks), key=_is_ipv6),
            ip_nats=sorted(spec.ip_nats, key=lambda nat: _is_ipv6(nat.internal_ip)),
            ipv4_gateway=spec.ipv4_gateway,
            ipv6_gateway=spec.ipv6_gateway,
            profiles=[profile_name(name) for name in spec.profiles],
            interface_name=spec.interface_name,
            mac=spec.mac,
        ),
    )


def _masked(text: str) -> str:
    network = _network(text)
    return text if network is None else str(network)


def _is_ipv6(text: str) -> bool:
    return ":" in text


def _workload_v1(endpoint: WorkloadEndpoint) -> str:
    spec = endpoint.spec
    match spec.orchestrator:
        case "k8s":
            return f"{endpoint.metadata.namespace}.{spec.pod}"
        case "cni":
            return spec.container_id
    return spec.workload


def _from_v3(endpoint: WorkloadEndpoint) -> WorkloadEndpointV1:
    metadata, spec = endpoint.metadata, endpoint.spec
    forced = (NAMESPACE_LABEL, ORCHESTRATOR_LABEL)
    return WorkloadEndpointV1(
        metadata=WorkloadEndpointMetadataV1(
            name=spec.endpoint,
            workload=_workload_v1(endpoint),
            orchestrator=spec.orchestrator,
            node=spec.node,
            active_instance_id=spec.container_id if spec.orchestrator == "k8s" else "",
            labels={key: text for key, text in metadata.labels.items() if key not in forced},
        ),
        spec=WorkloadEndpointSpecV1(
            ip_networks=spec.ip_networks,
            ip_nats=spec.ip_nats,
            ipv4_gateway=spec.ipv4_gateway,
            ipv6_gateway=spec.ipv6_gateway,
            profiles=spec.profiles,
            interface_name=spec.interface_name,
            mac=spec.mac,
        ),
    )


def _keep(stored: WorkloadEndpoint, new: WorkloadEndpoint) -> WorkloadEndpoint:
    """Take what v1 can say from the new endpoint, and the rest (ports, limits, annotations) from the stored one."""
    kept = stored.spec
    return WorkloadEndpoint(
        metadata=msgspec.structs.replace(stored.metadata, labels=new.metadata.labels),
        spec=msgspec.structs.replace(
            new.spec,
            container_id=new.spec.container_id or kept.container_id,
            service_account_name=kept.service_account_name,
            ports=kept.ports,
            allow_spoofed_source_prefixes=kept.allow_spoofed_source_prefixes,
            qos_controls=kept.qos_controls,
        ),
    )


def _identifier_v1(endpoint: WorkloadEndpoint) -> str:
    spec = endpoint.spec
    return (
        f"WorkloadEndpoint(node={spec.node}, orchestrator={spec.orchestrator}, workload={_workload_v1(endpoint)}, "
        f"name={spec.endpoint})"
    )


_NAME: Column[WorkloadEndpoint] = Column("NAME", name_cell)
_NODE: Column[WorkloadEndpoint] = Column("NODE", lambda endpoint, _: endpoint.spec.node)
_NETWORKS: Column[WorkloadEndpoint] = Column("NETWORKS", lambda endpoint, _: _joined(endpoint.spec.ip_networks))
_INTERFACE: Column[WorkloadEndpoint] = Column("INTERFACE", lambda endpoint, _: endpoint.spec.interface_name)
_PROFILES: Column[WorkloadEndpoint] = Column("PROFILES", lambda endpoint, _: _joined(endpoint.spec.profiles))
_NATS: Column[WorkloadEndpoint] = Column("NATS", _nats_cell)
_ORCHESTRATOR: Column[WorkloadEndpoint] = Column("ORCHESTRATOR", lambda endpoint, _: endpoint.spec.orchestrator)
_COMMON: tuple[Column[WorkloadEndpoint], ...] = (
    Column("WORKLOAD", lambda endpoint, _: endpoint.spec.workload or endpoint.spec.pod),
    _NODE,
    _NETWORKS,
    _INTERFACE,
)
_IN_V1: tuple[Column[WorkloadEndpoint], ...] = (
    _NODE,
    _ORCHESTRATOR,
    Column("WORKLOAD", lambda endpoint, _: _workload_v1(endpoint)),
    Column("NAME", lambda endpoint, _: endpoint.spec.endpoint),
)

_V1: V1[WorkloadEndpoint] = V1(
    name="workloadEndpoint",
    type=WorkloadEndpointV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=_identifier_v1,
    name_of=segment_name,
    keep=_keep,
    paths=(
        (("spec", "node"), ("metadata", "node")),
        (("spec", "orchestrator"), ("metadata", "orchestrator")),
        (("spec", "workload"), ("metadata", "workload")),
        (("spec", "pod"), ("metadata", "workload")),
        (("spec", "containerID"), ("metadata", "workload")),
        (("spec", "endpoint"), ("metadata", "name")),
    ),
    filters=("node", "orchestrator", "workload"),
    order=lambda endpoint: (
        endpoint.spec.node, endpoint.spec.orchestrator, _workload_v1(endpoint), endpoint.spec.endpoint,
    ),
    columns=_IN_V1,
    wide=(*_IN_V1, _NETWORKS, _NATS, _INTERFACE, _PROFILES),
    custom=(
        Column("IPV4GATEWAY", lambda endpoint, _: endpoint.spec.ipv4_gateway),
        Column("IPV6GATEWAY", lambda endpoint, _: endpoint.spec.ipv6_gateway),
        Column("MAC", lambda endpoint, _: endpoint.spec.mac),
    ),
)  # fmt: skip

KIND: Kind[WorkloadEndpoint] = Kind(
    name="WorkloadEndpoint",
    plural="workloadendpoints",
    type=WorkloadEndpoint,
    namespaced=True,
    aliases=("workloadendpoint", "workloadendpoints", "wep", "weps"),
    complete=_complete,
    check=_check,
    needs=_needs,
    columns=_COMMON,
    wide=(_NAME, *_COMMON, _PROFILES, _NATS),
    custom=(_ORCHESTRATOR,),
    v1=_V1,
)
