"""Records of the store in one line each, for tests of felix's calculation."""

from collections.abc import Mapping, Sequence

from resources.datastore.keys import ResourceKey
from resources.kinds.base import Metadata
from resources.kinds.felixconfiguration import FelixConfiguration, FelixConfigurationSpec
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy, GlobalNetworkPolicySpec
from resources.kinds.globalnetworkset import GlobalNetworkSet
from resources.kinds.hostendpoint import HostEndpoint, HostEndpointSpec
from resources.kinds.netset import NetworkSetSpec
from resources.kinds.networkpolicy import NetworkPolicy, NetworkPolicySpec
from resources.kinds.networkset import NetworkSet
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.kinds.profile import Profile, ProfileSpec
from resources.kinds.rule import EntityRule, Protocol, Rule
from resources.kinds.tier import Tier, TierSpec
from resources.kinds.workloadendpoint import (
    DOCKER_NAMESPACE,
    EndpointPort,
    WorkloadEndpoint,
    WorkloadEndpointPort,
    WorkloadEndpointSpec,
    endpoint_name,
)

HERE, ELSEWHERE = "node1", "node2"
ANY = EntityRule()

Record = tuple[ResourceKey, object]


def workload(
    endpoint: str,
    *addresses: str,
    node: str = HERE,
    interface: str | None = None,
    profiles: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    ports: Sequence[tuple[str, str, int]] = (),
    mac: str = "ee:ee:ee:ee:ee:ee",
    spoofed: Sequence[str] = (),
) -> tuple[ResourceKey, WorkloadEndpoint]:
    """A Docker endpoint; `ports`: name, protocol, number."""
    spec = WorkloadEndpointSpec(
        orchestrator="libnetwork",
        workload="libnetwork",
        node=node,
        endpoint=endpoint,
        ip_networks=list(addresses),
        profiles=list(profiles),
        interface_name=f"cali{endpoint[:11]}" if interface is None else interface,
        mac=mac,
        ports=[WorkloadEndpointPort(name=name, protocol=protocol, port=port) for name, protocol, port in ports],
        allow_spoofed_source_prefixes=list(spoofed),
    )
    forced = {"projectcalico.org/namespace": DOCKER_NAMESPACE, "projectcalico.org/orchestrator": "libnetwork"}
    name = endpoint_name(spec)
    metadata = Metadata(name=name, namespace=DOCKER_NAMESPACE, labels={**(labels or {}), **forced})
    return ResourceKey("workloadendpoints", name, DOCKER_NAMESPACE), WorkloadEndpoint(metadata=metadata, spec=spec)


def profile(
    name: str,
    ingress: Sequence[Rule] = (),
    egress: Sequence[Rule] = (),
    labels: Mapping[str, str] | None = None,
) -> tuple[ResourceKey, Profile]:
    spec = ProfileSpec(ingress=list(ingress), egress=list(egress), labels_to_apply=dict(labels or {}))
    return ResourceKey("profiles", name), Profile(metadata=Metadata(name=name), spec=spec)


def network_profile(name: str) -> tuple[ResourceKey, Profile]:
    """The profile of a Docker network: its members may reach each other, and anything."""
    return profile(
        name, [Rule(action="Allow", source=EntityRule(selector=f"has({name})"))], [Rule(action="Allow")], {name: ""}
    )


def policy(
    name: str,
    selector: str,
    ingress: Sequence[Rule] = (),
    egress: Sequence[Rule] = (),
    *,
    types: Sequence[str] = (),
    order: float | None = None,
    tier: str = "default",
    pre_dnat: bool = False,
    do_not_track: bool = False,
    apply_on_forward: bool = False,
    namespace_selector: str = "",
    hints: Sequence[str] = (),
) -> tuple[ResourceKey, GlobalNetworkPolicy]:
    spec = GlobalNetworkPolicySpec(
        selector=selector,
        ingress=list(ingress),
        egress=list(egress),
        types=list(types),
        order=order,
        tier=tier,
        pre_dnat=pre_dnat,
        do_not_track=do_not_track,
        apply_on_forward=apply_on_forward or pre_dnat or do_not_track,
        namespace_selector=namespace_selector,
        performance_hints=list(hints),
    )
    return ResourceKey("globalnetworkpolicies", name), GlobalNetworkPolicy(metadata=Metadata(name=name), spec=spec)


def network_policy(
    name: str,
    selector: str,
    ingress: Sequence[Rule] = (),
    egress: Sequence[Rule] = (),
    *,
    namespace: str = DOCKER_NAMESPACE,
    types: Sequence[str] = (),
    order: float | None = None,
    tier: str = "default",
) -> tuple[ResourceKey, NetworkPolicy]:
    spec = NetworkPolicySpec(
        selector=selector, ingress=list(ingress), egress=list(egress), types=list(types), order=order, tier=tier
    )
    metadata = Metadata(name=name, namespace=namespace)
    return ResourceKey("networkpolicies", name, namespace), NetworkPolicy(metadata=metadata, spec=spec)


def network_set(
    name: str, *nets: str, labels: Mapping[str, str] | None = None, namespace: str = ""
) -> tuple[ResourceKey, GlobalNetworkSet | NetworkSet]:
    """A GlobalNetworkSet, or with a namespace a NetworkSet."""
    metadata = Metadata(name=name, namespace=namespace, labels=dict(labels or {}))
    spec = NetworkSetSpec(nets=list(nets))
    if namespace:
        return ResourceKey("networksets", name, namespace), NetworkSet(metadata=metadata, spec=spec)
    return ResourceKey("globalnetworksets", name), GlobalNetworkSet(metadata=metadata, spec=spec)


def host_endpoint(
    name: str,
    interface: str = "",
    *addresses: str,
    node: str = HERE,
    profiles: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    ports: Sequence[tuple[str, str, int]] = (),
) -> tuple[ResourceKey, HostEndpoint]:
    """`addresses`: expectedIPs; `ports`: name, protocol, number."""
    spec = HostEndpointSpec(
        node=node,
        interface_name=interface,
        expected_ips=list(addresses),
        profiles=list(profiles),
        ports=[EndpointPort(name=name, protocol=protocol, port=port) for name, protocol, port in ports],
    )
    metadata = Metadata(name=name, labels=dict(labels or {}))
    return ResourceKey("hostendpoints", name), HostEndpoint(metadata=metadata, spec=spec)


def tier(name: str, order: float | None, default_action: str = "Deny") -> tuple[ResourceKey, Tier]:
    spec = TierSpec(order=order, default_action=default_action)
    return ResourceKey("tiers", name), Tier(metadata=Metadata(name=name), spec=spec)


def pool(
    cidr: str, *, nat: bool = False, ipip: str = "Never", vxlan: str = "Never", disabled: bool = False
) -> tuple[ResourceKey, IPPool]:
    name = cidr.replace(".", "-").replace("/", "-").replace(":", "-")
    spec = IPPoolSpec(cidr=cidr, nat_outgoing=nat, ipip_mode=ipip, vxlan_mode=vxlan, disabled=disabled)
    return ResourceKey("ippools", name), IPPool(metadata=Metadata(name=name), spec=spec)


def host(
    name: str,
    ipv4: str = "",
    *,
    ipv6: str = "",
    tunnel: str = "",
    vxlan: str = "",
    vxlan_v6: str = "",
    vxlan_mac: str = "",
) -> tuple[ResourceKey, Node]:
    """`tunnel`: of IPIP; `vxlan`, `vxlan_v6`: its VXLAN tunnel addresses."""
    bgp = NodeBGPSpec(ipv4_address=ipv4, ipv6_address=ipv6, ipv4_ipip_tunnel_addr=tunnel)
    spec = NodeSpec(
        bgp=bgp, ipv4_vxlan_tunnel_addr=vxlan, ipv6_vxlan_tunnel_addr=vxlan_v6, vxlan_tunnel_mac_addr=vxlan_mac
    )
    return ResourceKey("nodes", name), Node(metadata=Metadata(name=name), spec=spec)


def settings(
    spec: FelixConfigurationSpec, *, name: str = "default", annotations: Mapping[str, str] | None = None
) -> tuple[ResourceKey, FelixConfiguration]:
    metadata = Metadata(name=name, annotations=dict(annotations or {}))
    return ResourceKey("felixconfigurations", name), FelixConfiguration(metadata=metadata, spec=spec)


def rule(
    action: str, protocol: Protocol | None = None, *, source: EntityRule = ANY, destination: EntityRule = ANY
) -> Rule:
    return Rule(action=action, protocol=protocol, source=source, destination=destination)
