"""BGPConfiguration: the mesh, the AS number, the listening port (reference resources.md 2.2)."""

import msgspec

from resources.kinds.base import Kind, Metadata

DEFAULT_AS_NUMBER = 64512


class CidrEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cidr: str = ""


class Community(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    value: str = ""


class PrefixAdvertisement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cidr: str = ""
    communities: list[str] = []


class SecretKeyRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    key: str = ""


class BGPPassword(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    secret_key_ref: SecretKeyRef | None = None


class BGPConfigurationSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "log_severity_screen": "logSeverityScreen", "node_to_node_mesh_enabled": "nodeToNodeMeshEnabled",
        "as_number": "asNumber", "service_load_balancer_ips": "serviceLoadBalancerIPs",
        "service_external_ips": "serviceExternalIPs", "service_cluster_ips": "serviceClusterIPs",
        "service_load_balancer_aggregation": "serviceLoadBalancerAggregation",
        "prefix_advertisements": "prefixAdvertisements", "listen_port": "listenPort",
        "node_mesh_password": "nodeMeshPassword", "node_mesh_max_restart_time": "nodeMeshMaxRestartTime",
        "bind_mode": "bindMode", "ignored_interfaces": "ignoredInterfaces",
        "local_workload_peering_ipv4": "localWorkloadPeeringIPV4",
        "local_workload_peering_ipv6": "localWorkloadPeeringIPV6", "program_cluster_routes": "programClusterRoutes",
        "ipv4_normal_route_priority": "ipv4NormalRoutePriority",
        "ipv6_normal_route_priority": "ipv6NormalRoutePriority",
    },
):
    log_severity_screen: str = ""
    node_to_node_mesh_enabled: bool | None = None
    """None means true."""
    as_number: int | None = None
    """None means 64512."""
    service_load_balancer_ips: list[CidrEntry] = []
    service_external_ips: list[CidrEntry] = []
    service_cluster_ips: list[CidrEntry] = []
    service_load_balancer_aggregation: str = ""
    communities: list[Community] = []
    prefix_advertisements: list[PrefixAdvertisement] = []
    listen_port: int | None = None
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: str = ""
    """A Go duration; empty means 120 s."""
    bind_mode: str = ""
    ignored_interfaces: list[str] = []
    local_workload_peering_ipv4: str = ""
    local_workload_peering_ipv6: str = ""
    program_cluster_routes: str = ""
    ipv4_normal_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None


class BGPConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: BGPConfigurationSpec = BGPConfigurationSpec()


KIND = Kind(name="BGPConfiguration", plural="bgpconfigurations", type=BGPConfiguration,
            aliases=("bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"))
