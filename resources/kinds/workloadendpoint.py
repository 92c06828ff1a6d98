"""WorkloadEndpoint: one container interface, on whichever node it lives (reference resources.md 2.6)."""

import ipaddress

import msgspec

from resources.kinds.base import Kind, Metadata
from resources.names import IfName, IPNetwork, NodeName

DOCKER_NAMESPACE = "libnetwork"


class IPNAT(msgspec.Struct, frozen=True, kw_only=True,
            rename={"internal_ip": "internalIP", "external_ip": "externalIP"}):
    internal_ip: str
    external_ip: str


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True, rename={"host_port": "hostPort", "host_ip": "hostIP"}):
    name: str = ""
    protocol: int | str
    port: int
    host_port: int = 0
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
    rename={
        "container_id": "containerID", "ip_networks": "ipNetworks", "ip_nats": "ipNATs",
        "ipv4_gateway": "ipv4Gateway", "ipv6_gateway": "ipv6Gateway", "interface_name": "interfaceName",
        "allow_spoofed_source_prefixes": "allowSpoofedSourcePrefixes", "service_account_name": "serviceAccountName",
        "qos_controls": "qosControls",
    },
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
    ports: list[EndpointPort] = []
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


def endpoint_name(spec: WorkloadEndpointSpec) -> str:
    """Return the name that the endpoint's identifiers make: four segments, each dash in them doubled."""
    match spec.orchestrator:
        case "k8s":
            segments = (spec.node, "k8s", spec.pod, spec.endpoint)
        case "cni":
            segments = (spec.node, "cni", spec.container_id, spec.endpoint)
        case "libnetwork":
            segments = (spec.node, "libnetwork", "libnetwork", spec.endpoint)
        case _:
            segments = (spec.node, spec.orchestrator, spec.workload, spec.endpoint)
    return "-".join(segment.replace("-", "--") for segment in segments)


KIND = Kind(name="WorkloadEndpoint", plural="workloadendpoints", type=WorkloadEndpoint, namespaced=True,
            aliases=("workloadendpoint", "workloadendpoints", "wep", "weps"))
