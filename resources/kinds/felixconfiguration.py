"""FelixConfiguration: felix's settings for all nodes, one node, or nodes that a selector picks.

Reference resources.md 2.11. Every name that the original knows is here, so that nothing is refused or lost; which of
them do anything is felix's matter. Who may count on one that does nothing here is warned.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from resources.durations import canonical_or_same, fits_configuration
from resources.gotext import JSON
from resources.kinds import fields
from resources.kinds.base import Column, GoDuration, Kind, Metadata, Path, PortNumber, Problem, Uint32, name_cell, wire
from resources.kinds.rule import Port
from resources.names import DNS_LABEL_REGEX

NODE_PREFIX = "node."
CONFIG_ANNOTATION = "config.projectcalico.org/"
"""An annotation ``config.projectcalico.org/<Parameter>`` overrides a field, and gives parameters that have none."""


class RouteTableRange(msgspec.Struct, frozen=True, kw_only=True):
    min: int
    max: int


class ProtoPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    protocol: str = ""
    port: PortNumber
    net: str = ""


class HealthTimeoutOverride(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    timeout: GoDuration


class BPFConntrackTimeouts(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        tcp_syn_sent="tcpSynSent", tcp_established="tcpEstablished", tcp_fins_seen="tcpFinsSeen",
        tcp_reset_seen="tcpResetSeen", udp_timeout="udpTimeout", icmp_timeout="icmpTimeout",
    ),
):
    creation_grace_period: str | None = None
    tcp_syn_sent: str | None = None
    tcp_established: str | None = None
    tcp_fins_seen: str | None = None
    tcp_reset_seen: str | None = None
    udp_timeout: str | None = None
    generic_timeout: str | None = None
    icmp_timeout: str | None = None


class FelixConfigurationSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(
        iptables_nat_outgoing_interface_filter="iptablesNATOutgoingInterfaceFilter", ipip_mtu="ipipMTU",
        vxlan_mtu="vxlanMTU", vxlan_mtu_v6="vxlanMTUV6", vxlan_vni="vxlanVNI",
        allow_vxlan_packets_from_workloads="allowVXLANPacketsFromWorkloads",
        allow_ipip_packets_from_workloads="allowIPIPPacketsFromWorkloads", reporting_ttl="reportingTTL",
        prometheus_wireguard_metrics_enabled="prometheusWireGuardMetricsEnabled",
        prometheus_metrics_ca_file="prometheusMetricsCAFile",
        device_route_source_address_ipv6="deviceRouteSourceAddressIPv6",
        generic_xdp_enabled="genericXDPEnabled", bpf_connect_time_load_balancing="bpfConnectTimeLoadBalancing",
        bpf_ctlb_log_filter="bpfCTLBLogFilter",
        bpf_host_networked_nat_without_ctlb="bpfHostNetworkedNATWithoutCTLB", bpf_dsr_optout_cidrs="bpfDSROptoutCIDRs",
        bpf_psnat_ports="bpfPSNATPorts", bpf_map_size_nat_frontend="bpfMapSizeNATFrontend",
        bpf_map_size_nat_backend="bpfMapSizeNATBackend", bpf_map_size_nat_affinity="bpfMapSizeNATAffinity",
        bpf_map_size_ip_sets="bpfMapSizeIPSets", bpf_enforce_rpf="bpfEnforceRPF",
        bpf_disable_gro_for_ifaces="bpfDisableGROForIfaces", bpf_exclude_cidrs_from_nat="bpfExcludeCIDRsFromNAT",
        bpf_export_buffer_size_mb="bpfExportBufferSizeMB", bpf_jit_hardening="bpfJITHardening",
        wireguard_mtu="wireguardMTU", wireguard_mtu_v6="wireguardMTUV6", floating_ips="floatingIPs",
        go_gc_threshold="goGCThreshold", go_memory_limit_mb="goMemoryLimitMB", require_mtu_file="requireMTUFile",
        istio_dscp_mark="istioDSCPMark",
    ),
):
    """None and "" mean that the field is not given; defaults are felix's."""

    node_selector: str = ""
    use_internal_dataplane_driver: bool | None = None
    dataplane_driver: str = ""
    dataplane_watchdog_timeout: GoDuration = ""
    ipv6_support: bool | None = None
    route_refresh_interval: GoDuration = ""
    interface_refresh_interval: GoDuration = ""
    iptables_refresh_interval: GoDuration = ""
    iptables_post_write_check_interval: GoDuration = ""
    iptables_lock_file_path: str = ""
    iptables_lock_timeout: GoDuration = ""
    iptables_lock_probe_interval: GoDuration = ""
    feature_detect_override: str = ""
    feature_gates: str = ""
    ipsets_refresh_interval: GoDuration = ""
    max_ipset_size: int | None = None
    iptables_backend: str = ""
    xdp_refresh_interval: GoDuration = ""
    netlink_timeout: GoDuration = ""
    metadata_addr: str = ""
    metadata_port: int | None = None
    openstack_region: str = ""
    interface_prefix: str = ""
    interface_exclude: str = ""
    chain_insert_mode: str = ""
    default_endpoint_to_host_action: str = ""
    iptables_filter_allow_action: str = ""
    iptables_mangle_allow_action: str = ""
    iptables_filter_deny_action: str = ""
    log_prefix: str = ""
    log_action_rate_limit: str = ""
    log_action_rate_limit_burst: int | None = None
    log_file_path: str = ""
    log_severity_file: str = ""
    log_severity_screen: str = ""
    log_severity_sys: str = ""
    log_debug_filename_regex: str = ""
    ipip_enabled: bool | None = None
    """None: enabled when an active pool uses it."""
    ipip_mtu: int | None = None
    vxlan_enabled: bool | None = None
    vxlan_mtu: int | None = None
    vxlan_mtu_v6: int | None = None
    vxlan_port: int | None = None
    vxlan_vni: int | None = None
    allow_vxlan_packets_from_workloads: bool | None = None
    allow_ipip_packets_from_workloads: bool | None = None
    reporting_interval: GoDuration = ""
    reporting_ttl: GoDuration = ""
    endpoint_reporting_enabled: bool | None = None
    endpoint_reporting_delay: GoDuration = ""
    endpoint_status_path_prefix: str | None = None
    iptables_mark_mask: Uint32 | None = None
    disable_conntrack_invalid_check: bool | None = None
    health_enabled: bool | None = None
    health_host: str | None = None
    health_port: int | None = None
    health_timeout_overrides: list[HealthTimeoutOverride] = []
    prometheus_metrics_enabled: bool | None = None
    prometheus_metrics_host: str = ""
    prometheus_metrics_port: int | None = None
    prometheus_go_metrics_enabled: bool | None = None
    prometheus_process_metrics_enabled: bool | None = None
    prometheus_wireguard_metrics_enabled: bool | None = None
    prometheus_metrics_ca_file: str | None = None
    prometheus_metrics_cert_file: str | None = None
    prometheus_metrics_key_file: str | None = None
    prometheus_metrics_client_auth: str | None = None
    failsafe_inbound_host_ports: list[ProtoPort] | None = None
    """None: the defaults; an empty list: none."""
    failsafe_outbound_host_ports: list[ProtoPort] | None = None
    kube_node_port_ranges: list[Port] | None = None
    policy_sync_path_prefix: str = ""
    usage_reporting_enabled: bool | None = None
    usage_reporting_initial_delay: GoDuration = ""
    usage_reporting_interval: GoDuration = ""
    nat_port_range: Port | None = None
    nat_outgoing_address: str = ""
    nat_outgoing_exclusions: str | None = None
    device_route_source_address: str = ""
    device_route_source_address_ipv6: str = ""
    device_route_protocol: int | None = None
    remove_external_routes: bool | None = None
    program_cluster_routes: str | None = None
    ipv4_normal_route_priority: int | None = None
    ipv4_elevated_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None
    ipv6_elevated_route_priority: int | None = None
    ip_forwarding: str = ""
    external_nodes_list: list[str] | None = None
    debug_memory_profile_path: str = ""
    debug_disable_log_dropping: bool | None = None
    debug_simulate_calc_graph_hang_after: GoDuration = ""
    debug_simulate_dataplane_hang_after: GoDuration = ""
    debug_simulate_dataplane_apply_delay: GoDuration = ""
    debug_host: str | None = None
    debug_port: int | None = None
    iptables_nat_outgoing_interface_filter: str = ""
    sidecar_acceleration_enabled: bool | None = None
    xdp_enabled: bool | None = None
    generic_xdp_enabled: bool | None = None
    nftables_mode: str | None = None
    nftables_refresh_interval: GoDuration = ""
    nftables_filter_allow_action: str = ""
    nftables_mangle_allow_action: str = ""
    nftables_filter_deny_action: str = ""
    nftables_mark_mask: Uint32 | None = None
    bpf_enabled: bool | None = None
    bpf_attach_type: str | None = None
    bpf_disable_unprivileged: bool | None = None
    bpf_jit_hardening: str | None = None
    bpf_log_level: str = ""
    bpf_conntrack_log_level: str = ""
    bpf_conntrack_mode: str | None = None
    bpf_conntrack_timeouts: BPFConntrackTimeouts | None = None
    bpf_log_filters: dict[str, str] | None = None
    bpf_ctlb_log_filter: str = ""
    bpf_data_iface_pattern: str = ""
    bpf_l3_iface_pattern: str = ""
    bpf_connect_time_load_balancing_enabled: bool | None = None
    bpf_connect_time_load_balancing: str | None = None
    bpf_host_networked_nat_without_ctlb: str | None = None
    bpf_external_service_mode: str = ""
    bpf_dsr_optout_cidrs: list[str] | None = None
    bpf_ext_to_service_connmark: int | None = None
    bpf_kube_proxy_iptables_cleanup_enabled: bool | None = None
    bpf_kube_proxy_min_sync_period: GoDuration = ""
    bpf_kube_proxy_healthz_port: int | None = None
    bpf_kube_proxy_endpoint_slices_enabled: bool | None = None
    bpf_psnat_ports: Port | None = None
    bpf_map_size_nat_frontend: int | None = None
    bpf_map_size_nat_backend: int | None = None
    bpf_map_size_nat_affinity: int | None = None
    bpf_map_size_route: int | None = None
    bpf_map_size_conntrack: int | None = None
    bpf_map_size_per_cpu_conntrack: int | None = None
    bpf_map_size_conntrack_scaling: str = ""
    bpf_map_size_conntrack_cleanup_queue: int | None = None
    bpf_map_size_ip_sets: int | None = None
    bpf_map_size_if_state: int | None = None
    bpf_maglev_max_endpoints_per_service: int | None = None
    bpf_maglev_max_services: int | None = None
    bpf_host_conntrack_bypass: bool | None = None
    bpf_enforce_rpf: str = ""
    bpf_policy_debug_enabled: bool | None = None
    bpf_force_track_packets_from_ifaces: list[str] | None = None
    bpf_disable_gro_for_ifaces: str = ""
    bpf_exclude_cidrs_from_nat: list[str] | None = None
    bpf_export_buffer_size_mb: int | None = None
    flow_logs_enabled: bool | None = None
    """Not of the original's: what its NFLOG rules hang on."""
    flow_logs_policy_evaluation_mode: str | None = None
    bpf_redirect_to_peer: str = ""
    flow_logs_flush_interval: GoDuration = ""
    flow_logs_collector_debug_trace: bool | None = None
    flow_logs_goldmane_server: str | None = None
    flow_logs_local_reporter: str | None = None
    bpf_profiling: str = ""
    route_source: str = ""
    route_table_ranges: list[RouteTableRange] | None = None
    route_table_range: RouteTableRange | None = None
    route_sync_disabled: bool | None = None
    wireguard_enabled: bool | None = None
    wireguard_enabled_v6: bool | None = None
    wireguard_threading_enabled: bool | None = None
    wireguard_listening_port: int | None = None
    wireguard_listening_port_v6: int | None = None
    wireguard_routing_rule_priority: int | None = None
    wireguard_interface_name: str = ""
    wireguard_interface_name_v6: str = ""
    wireguard_mtu: int | None = None
    wireguard_mtu_v6: int | None = None
    wireguard_host_encryption_enabled: bool | None = None
    wireguard_keep_alive: GoDuration = ""
    aws_src_dst_check: str | None = None
    service_loop_prevention: str = ""
    workload_source_spoofing: str = ""
    mtu_iface_pattern: str = ""
    floating_ips: str | None = None
    windows_manage_firewall_rules: str | None = None
    go_gc_threshold: int | None = None
    go_memory_limit_mb: int | None = None
    go_max_procs: int | None = None
    require_mtu_file: bool | None = None
    cgroup_v2_path: str = ""
    istio_ambient_mode: str | None = None
    istio_dscp_mark: int | str | None = None
    live_migration_route_convergence_time: GoDuration = ""


class FelixConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: FelixConfigurationSpec = FelixConfigurationSpec()


_WIRE_NAMES = dict(
    zip(FelixConfigurationSpec.__struct_fields__, FelixConfigurationSpec.__struct_encode_fields__, strict=True)
)
_DURATIONS = tuple(
    name for name, type_ in FelixConfigurationSpec.__annotations__.items() if type_ is GoDuration
)
_ANY_DURATION = ("dataplane_watchdog_timeout", "nftables_refresh_interval")
"""Durations that the original holds to no pattern: fractions pass."""

_ON_OFF = ("Enabled", "Disabled")
_ACCEPT_RETURN = ("Accept", "Return")
_DROP_REJECT = ("Drop", "Reject")

_WORDS: dict[str, tuple[str, ...]] = {
    "iptables_backend": ("Legacy", "NFT", "Auto"),
    "default_endpoint_to_host_action": ("Drop", "Accept", "Return"),
    "iptables_filter_allow_action": _ACCEPT_RETURN,
    "iptables_mangle_allow_action": _ACCEPT_RETURN,
    "iptables_filter_deny_action": _DROP_REJECT,
    "nftables_filter_allow_action": _ACCEPT_RETURN,
    "nftables_mangle_allow_action": _ACCEPT_RETURN,
    "nftables_filter_deny_action": _DROP_REJECT,
    "nftables_mode": ("Disabled", "Enabled", "Auto"),
    "log_severity_file": fields.LOG_LEVELS,
    "log_severity_screen": fields.LOG_LEVELS,
    "log_severity_sys": fields.LOG_LEVELS,
    "nat_outgoing_exclusions": ("IPPoolsOnly", "IPPoolsAndHostIPs"),
    "program_cluster_routes": _ON_OFF,
    "ip_forwarding": _ON_OFF,
    "prometheus_metrics_client_auth": (
        "RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert",
    ),
    "workload_source_spoofing": ("Disabled", "Any"),
    "service_loop_prevention": ("Drop", "Reject", "Disabled"),
    "floating_ips": _ON_OFF,
    "windows_manage_firewall_rules": _ON_OFF,
    "aws_src_dst_check": ("DoNothing", "Enable", "Disable"),
    "bpf_log_level": ("Debug", "Info", "Off"),
    "bpf_conntrack_log_level": ("Off", "Debug"),
    "bpf_conntrack_mode": ("Auto", "Userspace", "BPFProgram"),
    "bpf_connect_time_load_balancing": ("TCP", "Enabled", "Disabled"),
    "bpf_host_networked_nat_without_ctlb": _ON_OFF,
    "bpf_external_service_mode": ("Tunnel", "DSR"),
    "bpf_redirect_to_peer": ("Enabled", "Disabled", "L2Only"),
    "bpf_profiling": _ON_OFF,
    "flow_logs_local_reporter": _ON_OFF,
}

_WORDS_ANY_CASE: dict[str, tuple[str, ...]] = {
    "chain_insert_mode": ("Insert", "Append"),
    "route_source": ("WorkloadIPs", "CalicoIPAM"),
    "bpf_enforce_rpf": ("Disabled", "Strict", "Loose"),
    "bpf_map_size_conntrack_scaling": ("Disabled", "DoubleIfFull"),
}
"""The original takes these in any case and stores them as written (reference resources.md 2.11)."""

_MTU_MAX = 65535
_PRIORITY_MAX = 2147483646

_BOUNDS: dict[str, tuple[int, int]] = {
    "max_ipset_size": (1, 0xFFFFFFFF),
    "metadata_port": (0, 0xFFFF),
    "health_port": (0, 0xFFFF),
    "prometheus_metrics_port": (0, 0xFFFF),
    "debug_port": (0, 0xFFFF),
    "ipip_mtu": (0, _MTU_MAX),
    "vxlan_mtu": (0, _MTU_MAX),
    "vxlan_mtu_v6": (0, _MTU_MAX),
    "vxlan_port": (1, 0xFFFF),
    "vxlan_vni": (1, 0xFFFFFF),
    "device_route_protocol": (0, 255),
    "log_action_rate_limit_burst": (0, 9999),
    "ipv4_normal_route_priority": (1, _PRIORITY_MAX),
    "ipv4_elevated_route_priority": (1, _PRIORITY_MAX),
    "ipv6_normal_route_priority": (1, _PRIORITY_MAX),
    "ipv6_elevated_route_priority": (1, _PRIORITY_MAX),
    "wireguard_listening_port": (1, 0xFFFF),
    "wireguard_listening_port_v6": (1, 0xFFFF),
    "wireguard_routing_rule_priority": (1, 32765),
    "wireguard_mtu": (0, _MTU_MAX),
    "wireguard_mtu_v6": (0, _MTU_MAX),
    "bpf_ext_to_service_connmark": (0, 0xFFFFFFFF),
    "bpf_map_size_conntrack_cleanup_queue": (1, 0xFFFFFFFF),
    "go_gc_threshold": (-1, 0x7FFFFFFF),
    "go_memory_limit_mb": (-1, 0x7FFFFFFF),
    "go_max_procs": (-1, 0x7FFFFFFF),
}

ROUTES_OF_OTHERS: Mapping[int, str] = MappingProxyType({
    1: "ICMP redirects", 2: "the kernel", 3: "ip route by itself", 4: "an administrator", 8: "gated",
    9: "router advertisements", 10: "MRT", 11: "zebra", 12: "BIRD", 13: "DECnet", 14: "XORP", 15: "Netsukuku",
    16: "DHCP", 17: "mrouted", 18: "keepalived", 42: "Babel", 81: "calico-bgpd", 99: "Open/R", 186: "BGP of FRR",
    187: "IS-IS of FRR", 188: "OSPF of FRR", 189: "RIP of FRR", 192: "EIGRP of FRR",
})  # fmt: skip
"""Who marks routes with which protocol number. Felix takes for its own, and deletes where it does not want it, what has
its number: with one of these the host's own default route would go. Source: Linux include/uapi/linux/rtnetlink.h."""

_INTERFACE_FILTER = (r"[a-zA-Z0-9:._+-]{1,15}", "an interface name of 15 characters, + for any ending")
_KEY_VALUES = (r"(\s*\w+=[^,]*)?(,(\s*\w+=[^,]*)?)*", "a comma-separated list of name=value")

_PATTERNS: dict[str, tuple[str, str]] = {
    "iptables_nat_outgoing_interface_filter": _INTERFACE_FILTER,
    "log_prefix": (r"[a-zA-Z0-9%: /_-]*", "letters, digits, blanks and % : / _ - only"),
    "log_action_rate_limit": (
        r"[1-9][0-9]{0,3}/(second|minute|hour|day)",
        "1 to 9999 per second, minute, hour or day, such as 10/minute",
    ),
    "prometheus_metrics_host": (r"[a-zA-Z0-9:._+-]{1,64}", "a host name or address"),
    "feature_detect_override": _KEY_VALUES,
    "feature_gates": _KEY_VALUES,
    "wireguard_interface_name": (r"[a-zA-Z0-9_.-]{1,15}", "an interface name of 15 characters"),
    "wireguard_interface_name_v6": (r"[a-zA-Z0-9_.-]{1,15}", "an interface name of 15 characters"),
}

_REGEXES = (
    "log_debug_filename_regex", "mtu_iface_pattern", "bpf_data_iface_pattern", "bpf_l3_iface_pattern",
    "bpf_disable_gro_for_ifaces",
)
_INTERFACE_PREFIX = r"[a-zA-Z0-9_.-]{1,14}"
_HEALTH_NAME = r"[a-zA-Z0-9_ -]+"
_REGION_MAX = 63 - len("openstack-region-")
_TABLE_MAX = 0xFFFFFFFF
_TABLES_MAX = 65535


def _complete(config: FelixConfiguration) -> FelixConfiguration:
    spec = config.spec
    changes: dict[str, str] = {}
    for name in _DURATIONS:
        text = getattr(spec, name)
        if text and (stored := canonical_or_same(text)) != text:
            changes[name] = stored
    for name, default in (
        ("nftables_mode", "Auto"),
        ("bpf_connect_time_load_balancing", "TCP"),
        ("bpf_host_networked_nat_without_ctlb", "Enabled"),
        ("floating_ips", "Disabled"),
    ):
        if getattr(spec, name) is None:
            changes[name] = default
    if not changes:
        return config
    return FelixConfiguration(metadata=config.metadata, spec=msgspec.structs.replace(spec, **changes))


def _at(name: str) -> Path:
    return ("spec", _WIRE_NAMES[name])


def _check(config: FelixConfiguration) -> Iterable[Problem]:
    spec = config.spec
    yield from _scope_problems(config)
    yield from _without_effect(spec)
    yield from _protocol_problems(spec)
    for name, words in _WORDS.items():
        value = getattr(spec, name)
        if value is not None:
            yield from fields.one_of(_at(name), value, words)
    for name, words in _WORDS_ANY_CASE.items():
        value = getattr(spec, name)
        if value.lower() not in {"", *(word.lower() for word in words)}:
            yield from fields.one_of(_at(name), value, words)
    for name, (low, high) in _BOUNDS.items():
        yield from fields.between(_at(name), getattr(spec, name), low, high)
    for name, (regex, what) in _PATTERNS.items():
        yield from fields.pattern(_at(name), getattr(spec, name), regex, what)
    yield from _duration_problems(spec)
    for name in _REGEXES:
        yield from _regex(_at(name), getattr(spec, name))
    yield from _interface_problems(spec)
    yield from _address_problems(spec)
    yield from _port_problems(spec)
    yield from _table_problems(spec)
    for index, override in enumerate(spec.health_timeout_overrides):
        at = (*_at("health_timeout_overrides"), index)
        if not re.fullmatch(_HEALTH_NAME, override.name):
            yield Problem((*at, "name"), override.name, f"name should match regex ^{_HEALTH_NAME}$")
        if not override.timeout:
            yield Problem((*at, "timeout"), "", "must be set")
        yield from fields.duration((*at, "timeout"), override.timeout)
    if spec.openstack_region and (
        len(spec.openstack_region) > _REGION_MAX or not DNS_LABEL_REGEX.match(spec.openstack_region)
    ):
        reason = f"must be a DNS label of at most {_REGION_MAX} characters"
        yield Problem(_at("openstack_region"), spec.openstack_region, reason)


_SCOPED = "write an object node.<nodename> for each of them"
_TRACE = "what felix knows is at its socket, /run/calico/felix.sock"
NO_EFFECT = {
    "node_selector": _SCOPED,
    "log_action_rate_limit": "each packet that a rule with action Log matches writes a line",
    "log_file_path": "felix logs to /var/log/calico/felix/current, by logSeverityScreen",
    "nftables_mode": "rules are written by iptablesBackend: Legacy, NFT or Auto",
    "interface_exclude": "",
    "iptables_post_write_check_interval": "rules that others change are read back as soon as that is heard of",
    "endpoint_reporting_enabled": _TRACE + ": /state says of each endpoint whether it is programmed",
    "endpoint_status_path_prefix": _TRACE + ": /state says of each endpoint whether it is programmed",
    "health_enabled": _TRACE + ": /liveness and /readiness",
    "prometheus_metrics_enabled": _TRACE + ": /state and /counters",
    "flow_logs_goldmane_server": "flowLogsEnabled hands packets to NFLOG",
    "device_route_source_address_ipv6": "",
    "ipv4_normal_route_priority": "routes have no metric here",
    "ipv6_normal_route_priority": "routes have no metric here",
    "program_cluster_routes": "bgpd writes the routes to other hosts",
    "floating_ips": "",
    "bpf_enabled": "rules are written by iptablesBackend: Legacy, NFT or Auto",
    "wireguard_enabled": "nothing is encrypted between the hosts",
    "wireguard_enabled_v6": "nothing is encrypted between the hosts",
}
"""Fields of the original's that nobody here acts on and somebody may count on, with what there is instead."""
_AS_WITHOUT = (None, "", False, "Disabled", "Auto", "none", "None")
"""Values by which nobody asks for anything; the original writes some of them by itself."""


def _without_effect(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    for name, instead in NO_EFFECT.items():
        if (value := getattr(spec, name)) not in _AS_WITHOUT:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield Problem(_at(name), text, "stored, and nothing here acts on it", instead or None, warning=True)


def _protocol_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    number = spec.device_route_protocol
    whose = ROUTES_OF_OTHERS.get(number or 0)
    if whose is not None:
        reason = f"stored, and passed over: {whose} marks its routes so, and felix would delete them"
        hint = "leave it out (80 is taken then), or give a number that nobody uses"
        yield Problem(_at("device_route_protocol"), str(number), reason, hint, warning=True)


def _scope_problems(config: FelixConfiguration) -> Iterator[Problem]:
    name, chosen = config.metadata.name, config.spec.node_selector
    if name == "default" or name.startswith(NODE_PREFIX):
        if chosen:
            reason = f"cannot be set on 'default' nor on '{NODE_PREFIX}<node>'"
            yield Problem(_at("node_selector"), chosen, reason, "give the object another name")
    elif not chosen:
        reason = f"nothing reads this object: it is neither 'default' nor '{NODE_PREFIX}<node>' and has no nodeSelector"
        yield Problem(("metadata", "name"), name, reason, warning=True)
    if len(chosen) > 1024:
        yield Problem(_at("node_selector"), chosen[:40] + "...", "must have at most 1024 characters")
    yield from fields.selector(_at("node_selector"), chosen)


def _duration_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    for name in _DURATIONS:
        text = getattr(spec, name)
        if not text:
            continue
        found = list(fields.duration(_at(name), text))
        yield from found
        if not found and name not in _ANY_DURATION and not fits_configuration(text):
            reason = "must be whole hours, minutes, seconds or milliseconds, such as 1m30s or 1s500ms"
            yield Problem(_at(name), text, reason)


def _regex(path: Path, text: str) -> Iterator[Problem]:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem(path, text, f"must be a regular expression: {error}")


def _interface_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    if spec.interface_prefix:
        for prefix in spec.interface_prefix.split(","):
            if not re.fullmatch(_INTERFACE_PREFIX, prefix):
                reason = "must be interface name prefixes of at most 14 characters, separated by commas"
                yield Problem(_at("interface_prefix"), spec.interface_prefix, reason)
                break
    for item in spec.interface_exclude.split(","):
        if len(item) > 1 and item.startswith("/") and item.endswith("/"):
            yield from _regex(_at("interface_exclude"), item[1:-1])
    for index, text in enumerate(spec.bpf_force_track_packets_from_ifaces or ()):
        yield from fields.pattern((*_at("bpf_force_track_packets_from_ifaces"), index), text, *_INTERFACE_FILTER)


def _address_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    yield from fields.address(_at("nat_outgoing_address"), spec.nat_outgoing_address, 4)
    yield from fields.address(_at("device_route_source_address"), spec.device_route_source_address, 4)
    yield from fields.address(_at("device_route_source_address_ipv6"), spec.device_route_source_address_ipv6, 6)
    for name, texts, version in (
        ("external_nodes_list", spec.external_nodes_list, 4),
        ("bpf_dsr_optout_cidrs", spec.bpf_dsr_optout_cidrs, None),
        ("bpf_exclude_cidrs_from_nat", spec.bpf_exclude_cidrs_from_nat, None),
    ):
        for index, text in enumerate(texts or ()):
            if not text:
                yield Problem((*_at(name), index), "", "must be an IP address/length")
            yield from fields.cidr((*_at(name), index), text, version)


def _port_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    for name, ports in (
        ("failsafe_inbound_host_ports", spec.failsafe_inbound_host_ports),
        ("failsafe_outbound_host_ports", spec.failsafe_outbound_host_ports),
    ):
        for index, port in enumerate(ports or ()):
            at = (*_at(name), index)
            # Lower case is what the original stores and felix reads (reference resources.md 6, row 64).
            if port.protocol.upper() not in fields.PORT_PROTOCOLS:
                yield Problem((*at, "protocol"), port.protocol, "protocol must be 'TCP' or 'UDP' or 'SCTP'.")
            if port.port == 0:
                yield Problem((*at, "port"), "0", "must be between 1 and 65535")
            yield from fields.cidr((*at, "net"), port.net)
    ranges = spec.kube_node_port_ranges or []
    at_ranges = _at("kube_node_port_ranges")
    if len(ranges) > 7:
        yield Problem(at_ranges, ", ".join(map(str, ranges)), "node port ranges list is too long (max 7)")
    for index, value in enumerate(ranges):
        yield from _numbers_only((*at_ranges, index), value, "node port ranges should not contain named ports")
    for name, chosen in (("nat_port_range", spec.nat_port_range), ("bpf_psnat_ports", spec.bpf_psnat_ports)):
        if chosen is not None:
            yield from _numbers_only(_at(name), chosen, "must be a port or low:high, not a name")


def _numbers_only(path: Path, value: Port, reason: str) -> Iterator[Problem]:
    found = list(fields.port(path, value))
    yield from found
    if not found and fields.port_range(value) is None:
        yield Problem(path, str(value), reason)


def _table_problems(spec: FelixConfigurationSpec) -> Iterator[Problem]:
    one, several = spec.route_table_range, spec.route_table_ranges
    if one is not None and several is not None:
        reason = "cannot be set when `RouteTableRanges` is also set"
        yield Problem(_at("route_table_range"), f"{one.min}-{one.max}", reason)
    if one is not None and not 1 <= one.min <= one.max <= 250:
        reason = "must be a range of route table indices within 1..250"
        yield Problem(_at("route_table_range"), f"{one.min}-{one.max}", reason)
    for index, tables in enumerate(several or ()):
        if not 1 <= tables.min <= tables.max <= _TABLE_MAX:
            reason = f"must be a range of route table indices within 1..{_TABLE_MAX}"
            yield Problem((*_at("route_table_ranges"), index), f"{tables.min}-{tables.max}", reason)
    if sum(max(0, tables.max - tables.min + 1) for tables in several or ()) > _TABLES_MAX:
        yield Problem(_at("route_table_ranges"), "", f"targets too many tables (max {_TABLES_MAX})")


def _closed(document: Mapping[str, JSON]) -> FelixConfiguration | None:
    """Keep the settings that can be read: one that cannot must not take others with it, by which interfaces are
    guarded (interfacePrefix), or the host's ports are."""
    spec, metadata = document.get("spec"), document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    kept = _readable(spec)
    texts = {key: text for key, text in _members(annotations) if isinstance(text, str)}
    found = FelixConfiguration(
        metadata=Metadata(annotations=texts), spec=msgspec.convert(kept, FelixConfigurationSpec)
    )
    return _complete(found)


def _members(value: JSON) -> Iterable[tuple[str, JSON]]:
    return value.items() if isinstance(value, dict) else ()


def _readable(value: JSON) -> dict[str, JSON]:
    """Return the members that have the types of their fields."""
    kept: dict[str, JSON] = {}
    for name, member in _members(value):
        try:
            msgspec.convert({name: member}, FelixConfigurationSpec)
        except msgspec.ValidationError:
            continue
        kept[name] = member
    return kept


_COLUMNS: tuple[Column[FelixConfiguration], ...] = (Column("NAME", name_cell),)

KIND: Kind[FelixConfiguration] = Kind(
    name="FelixConfiguration",
    plural="felixconfigurations",
    type=FelixConfiguration,
    aliases=("felixconfiguration", "felixconfigurations", "felixconfig", "felixconfigs"),
    complete=_complete,
    check=_check,
    closed=_closed,
    always=(("spec", "bpfLogLevel"),),
    columns=_COLUMNS,
    wide=_COLUMNS,
)
