"""BGPConfiguration: the mesh, the AS number, the listening port (reference resources.md 2.2)."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from resources.durations import canonical_or_same
from resources.kinds import fields
from resources.kinds.base import ASN, Column, GoDuration, Kind, Metadata, PortNumber, Problem, name_cell, wire, yes_no
from resources.kinds.community import BAD_FORMAT, community_fault
from resources.kinds.secret import BGPPassword, password_problems

DEFAULT_AS_NUMBER = 64512
NODE_PREFIX = "node."
"""The name of one node's object is this and the node's name."""

_INTERFACE = r"[a-zA-Z0-9_.*-]{1,15}"


class CidrEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cidr: str = ""


class Community(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    value: str = ""


class PrefixAdvertisement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cidr: str = ""
    communities: list[str] = []


class BGPConfigurationSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        service_load_balancer_ips="serviceLoadBalancerIPs", service_external_ips="serviceExternalIPs",
        service_cluster_ips="serviceClusterIPs", local_workload_peering_ipv4="localWorkloadPeeringIPV4",
        local_workload_peering_ipv6="localWorkloadPeeringIPV6",
    ),
):
    log_severity_screen: str = ""
    node_to_node_mesh_enabled: bool | None = None
    """None means true."""
    as_number: ASN | None = None
    """None means 64512."""
    service_load_balancer_ips: list[CidrEntry] = []
    service_external_ips: list[CidrEntry] = []
    service_cluster_ips: list[CidrEntry] = []
    service_load_balancer_aggregation: str = ""
    communities: list[Community] = []
    prefix_advertisements: list[PrefixAdvertisement] = []
    listen_port: PortNumber | None = None
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: GoDuration = ""
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


_ADVERTISE = "there are no Kubernetes services; prefixAdvertisements are for IPPools"


def _complete(config: BGPConfiguration) -> BGPConfiguration:
    spec = config.spec
    return BGPConfiguration(
        metadata=config.metadata,
        spec=msgspec.structs.replace(
            spec,
            log_severity_screen=spec.log_severity_screen or "Info",
            service_load_balancer_aggregation=spec.service_load_balancer_aggregation or "Enabled",
            node_mesh_max_restart_time=canonical_or_same(spec.node_mesh_max_restart_time),
        ),
    )


def _check(config: BGPConfiguration) -> Iterable[Problem]:
    spec = config.spec
    yield from _without_effect(spec)
    if config.metadata.name != "default":
        yield from _not_default_problems(config)
    yield from fields.one_of(("spec", "logSeverityScreen"), spec.log_severity_screen, fields.LOG_LEVELS)
    for name, value, allowed in (
        ("bindMode", spec.bind_mode, ("None", "NodeIP")),
        ("serviceLoadBalancerAggregation", spec.service_load_balancer_aggregation, ("Enabled", "Disabled")),
        ("programClusterRoutes", spec.program_cluster_routes, ("Enabled", "Disabled")),
    ):
        yield from fields.one_of(("spec", name), value, allowed)
    for name, entries in (
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips),
        ("serviceExternalIPs", spec.service_external_ips),
        ("serviceClusterIPs", spec.service_cluster_ips),
    ):
        for index, entry in enumerate(entries):
            yield from fields.network(
                ("spec", name, index, "cidr"), entry.cidr, bare=name == "serviceExternalIPs"
            )
    yield from _community_problems(spec)
    yield from fields.between(("spec", "listenPort"), spec.listen_port, 1, 65535)
    if spec.as_number is not None:
        yield from fields.as_number(("spec", "asNumber"), spec.as_number)
    yield from password_problems(("spec", "nodeMeshPassword"), spec.node_mesh_password)
    yield from fields.restart_time(("spec", "nodeMeshMaxRestartTime"), spec.node_mesh_max_restart_time)
    if spec.node_to_node_mesh_enabled is False:
        for name, given in (
            ("NodeMeshPassword", spec.node_mesh_password is not None),
            ("NodeMeshMaxRestartTime", bool(spec.node_mesh_max_restart_time)),
        ):
            if given:
                reason = f"spec.{name} cannot be set if spec.NodeToNodeMesh is disabled"
                yield Problem(("spec", name[0].lower() + name[1:]), "", reason)
    for index, interface in enumerate(spec.ignored_interfaces):
        if interface == "*" or not re.fullmatch(_INTERFACE, interface):
            reason = "an interface name, with * for any text, but not only *"
            yield Problem(("spec", "ignoredInterfaces", index), interface, reason)
    yield from fields.address(("spec", "localWorkloadPeeringIPV4"), spec.local_workload_peering_ipv4, 4)
    yield from fields.address(("spec", "localWorkloadPeeringIPV6"), spec.local_workload_peering_ipv6, 6)
    yield from fields.between(("spec", "ipv4NormalRoutePriority"), spec.ipv4_normal_route_priority, 1, 2147483646)
    yield from fields.between(("spec", "ipv6NormalRoutePriority"), spec.ipv6_normal_route_priority, 1, 2147483646)


NO_EFFECT = {
    "service_load_balancer_ips": ("serviceLoadBalancerIPs", _ADVERTISE),
    "service_external_ips": ("serviceExternalIPs", _ADVERTISE),
    "service_cluster_ips": ("serviceClusterIPs", _ADVERTISE),
    "ignored_interfaces": ("ignoredInterfaces", "what peers hear of the host's own networks is a matter of BGPFilters"),
    "local_workload_peering_ipv4": ("localWorkloadPeeringIPV4", "nothing here peers with workloads"),
    "local_workload_peering_ipv6": ("localWorkloadPeeringIPV6", "nothing here peers with workloads"),
    "program_cluster_routes": ("programClusterRoutes", "bgpd writes the routes to other hosts, felix those of VXLAN"),
    "ipv4_normal_route_priority": ("ipv4NormalRoutePriority", "routes have no metric here"),
    "ipv6_normal_route_priority": ("ipv6NormalRoutePriority", "routes have no metric here"),
}
"""Fields of the original's that nobody here acts on and somebody may count on, with what there is instead."""


def _without_effect(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    for name, (field, instead) in NO_EFFECT.items():
        if (value := getattr(spec, name)) not in (None, "", []):
            text = "" if isinstance(value, list) else str(value)
            yield Problem(("spec", field), text, "stored, and nothing here acts on it", instead, warning=True)
    if spec.bind_mode == "None":
        reason, instead = "stored, and nothing here acts on it", "bgpd listens on the addresses of the node only"
        yield Problem(("spec", "bindMode"), spec.bind_mode, reason, instead, warning=True)


def _not_default_problems(config: BGPConfiguration) -> Iterator[Problem]:
    spec = config.spec
    if not config.metadata.name.startswith(NODE_PREFIX):
        reason = f"nothing reads this object: the names are 'default' and '{NODE_PREFIX}<node>'"
        yield Problem(("metadata", "name"), config.metadata.name, reason, warning=True)
    for field, name, given in (
        ("nodeToNodeMeshEnabled", "nodeToNodeMeshEnabled", spec.node_to_node_mesh_enabled is not None),
        ("asNumber", "ASNumber", spec.as_number is not None),
        ("serviceLoadBalancerIPs", "serviceLoadBalancerIPs", bool(spec.service_load_balancer_ips)),
        ("serviceExternalIPs", "serviceExternalIPs", bool(spec.service_external_ips)),
        ("serviceClusterIPs", "serviceClusterIPs", bool(spec.service_cluster_ips)),
        ("nodeMeshPassword", "nodeMeshPassword", spec.node_mesh_password is not None),
        ("nodeMeshMaxRestartTime", "nodeMeshMaxRestartTime", bool(spec.node_mesh_max_restart_time)),
    ):
        if given:
            yield Problem(("spec", field), "", f"Cannot set {name} on a non default BGP Configuration.")


def _community_problems(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    for index, community in enumerate(spec.communities):
        at = ("spec", "communities", index)
        if not community.name:
            yield Problem((*at, "name"), "", "must be set")
        fault = community_fault(community.value)
        if fault:
            yield Problem((*at, "value"), community.value, fault)
    if spec.communities and not spec.prefix_advertisements:
        reason = "communities are defined but not used in Spec.PrefixAdvertisement[]."
        yield Problem(("spec", "communities"), "", reason)
    defined = {community.name for community in spec.communities}
    for index, advertisement in enumerate(spec.prefix_advertisements):
        place = ("spec", "prefixAdvertisements", index)
        if not advertisement.cidr:
            yield Problem((*place, "cidr"), "", "invalid CIDR value.")
        yield from fields.network((*place, "cidr"), advertisement.cidr, bare=False)
        if not advertisement.communities:
            yield Problem((*place, "communities"), "", "at least one community is needed")
        for number, value in enumerate(advertisement.communities):
            fault = community_fault(value)
            if fault and value not in defined:
                if fault == BAD_FORMAT:
                    fault = "community used is invalid or not defined."
                yield Problem((*place, "communities", number), value, fault)


_COLUMNS: tuple[Column[BGPConfiguration], ...] = (
    Column("NAME", name_cell),
    Column("LOGSEVERITY", lambda config, _: config.spec.log_severity_screen or "-"),
    Column(
        "MESHENABLED",
        lambda config, _: "-"
        if config.spec.node_to_node_mesh_enabled is None
        else yes_no(config.spec.node_to_node_mesh_enabled),
    ),
    Column("ASNUMBER", lambda config, _: "-" if config.spec.as_number is None else str(config.spec.as_number)),
)

KIND: Kind[BGPConfiguration] = Kind(
    name="BGPConfiguration",
    plural="bgpconfigurations",
    type=BGPConfiguration,
    aliases=("bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"),
    complete=_complete,
    check=_check,
    always=(("spec", "nodeMeshPassword", "secretKeyRef", "key"),),
    columns=_COLUMNS,
    wide=_COLUMNS,
)
