"""Parameters: declared once, from many places, by precedence, with their origin (reference felix.md 5)."""

import msgspec
import pytest

from fakes.felix_records import HERE, settings
from felix.calc.parameters import (
    NAME_BY_FIELD,
    OPTIONS,
    DenyAction,
    EndpointToHostAction,
    HostPort,
    Marks,
    NatExclusions,
    Parameters,
    Resolved,
    effective,
    environment_texts,
    file_texts,
    marks_of,
    spec_texts,
)
from felix.pipeline import Pipeline
from resources.errors import ConfigurationError
from resources.kinds.felixconfiguration import FelixConfigurationSpec, ProtoPort
from resources.names import NodeName, parse_network
from resources.runtime.options import Source


def one(name: str, text: str) -> Parameters:
    return effective([Source("test", {name: text})]).parameters


def test_defaults_are_those_of_the_reference() -> None:
    made = effective([])
    assert made.parameters == Parameters()
    assert set(made.origins.values()) == {"default"}
    assert made.parameters.endpoint_to_host_action is EndpointToHostAction.DROP
    assert made.parameters.route_protocol == 80
    assert made.parameters.tables_refresh_seconds == 180
    assert HostPort("tcp", 22) in made.parameters.failsafe_inbound
    assert HostPort("tcp", 22) not in made.parameters.failsafe_outbound


@pytest.mark.parametrize("name", ["IpInIpMtu", "VXLANMTU", "VXLANMTUV6"])
def test_a_size_in_which_no_packet_fits_is_passed_over(name: str) -> None:
    attribute = {"IpInIpMtu": "ipip_mtu", "VXLANMTU": "vxlan_mtu", "VXLANMTUV6": "vxlan_mtu_v6"}[name]
    resolved = effective([Source("FelixConfiguration default", {name: "575"}, strict=False)])
    assert getattr(resolved.parameters, attribute) == 0
    assert [refused.option for refused in resolved.refused] == [name]
    for text in ("0", "576", "65535"):
        assert getattr(one(name, text), attribute) == int(text)


@pytest.mark.parametrize("number", ["3", "2", "4", "16", "81", "0", "256"])
def test_felix_does_not_take_the_routes_of_others_for_its_own(number: str) -> None:
    resolved = effective([Source("FelixConfiguration default", {"DeviceRouteProtocol": number}, strict=False)])
    assert resolved.parameters.route_protocol == 80
    assert [(one.option, one.value) for one in resolved.refused] == [("DeviceRouteProtocol", number)]
    assert one("DeviceRouteProtocol", "90").route_protocol == 90


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("InterfacePrefix", "cali, tap", "interface_prefixes", ("cali", "tap")),
        ("DefaultEndpointToHostAction", "return", "endpoint_to_host_action", EndpointToHostAction.RETURN),
        ("IptablesFilterDenyAction", "REJECT", "filter_deny_action", DenyAction.REJECT),
        ("IptablesMarkMask", "0xff000000", "mark_mask", 0xFF000000),
        ("IptablesRefreshInterval", "90", "tables_refresh_seconds", 90.0),
        ("IptablesRefreshInterval", "1m30s", "tables_refresh_seconds", 90.0),
        ("IptablesRefreshInterval", "none", "tables_refresh_seconds", 0.0),
        ("NATPortRange", "1000:2000", "nat_ports", (1000, 2000)),
        ("NATPortRange", "0", "nat_ports", None),
        ("NATOutgoingExclusions", "ippoolsandhostips", "nat_exclusions", NatExclusions.POOLS_AND_HOSTS),
        ("FailsafeInboundHostPorts", "none", "failsafe_inbound", ()),
        ("FailsafeInboundHostPorts", "tcp:22,udp:10.0.0.0/8:53,25", "failsafe_inbound",
         (HostPort("tcp", 22), HostPort("udp", 53, parse_network("10.0.0.0/8")), HostPort("tcp", 25))),
        ("FailsafeOutboundHostPorts", "tcp:fd00::/8:22", "failsafe_outbound",
         (HostPort("tcp", 22, parse_network("fd00::/8")),)),
        ("WorkloadSourceSpoofing", "Any", "source_spoofing", True),
        ("IPForwarding", "Disabled", "ip_forwarding", False),
        ("FeatureDetectOverride", "MASQFullyRandom=false,Other=", "masquerade_random", False),
        ("ExternalNodesCIDRList", "192.0.2.0/24", "external_nodes", (parse_network("192.0.2.0/24"),)),
    ],
)  # fmt: skip
def test_values(name: str, text: str, attribute: str, value: object) -> None:
    assert getattr(one(name, text), attribute) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("InterfacePrefix", "a b"), ("InterfacePrefix", "none"), ("DefaultEndpointToHostAction", "Maybe"),
        ("IptablesMarkMask", "0xf"), ("IptablesMarkMask", "x"), ("IptablesRefreshInterval", "-1"),
        ("MaxIpsetSize", "0"), ("NATPortRange", "5:1"), ("NATOutgoingAddress", "fd00::1"),
        ("FailsafeInboundHostPorts", "tcp:0"), ("FailsafeInboundHostPorts", "icmp:1"), ("LogPrefix", 'x" -j ACCEPT'),
        ("IptablesNATOutgoingInterfaceFilter", "eth0 -j"), ("DeviceRouteProtocol", "256"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        one(name, text)
    lenient = effective([Source("store", {name: text}, strict=False)])
    assert lenient.parameters == Parameters()
    assert [refused.option for refused in lenient.refused] == [name]


def test_environment_in_any_case_and_file_without_sections() -> None:
    environment = {"FELIX_LOGPREFIX": "a", "felix_maxipsetsize": "5", "FELIX_UNKNOWN": "x", "Felix_Ipv6Support": ""}
    assert environment_texts(environment) == {"LogPrefix": "a", "MaxIpsetSize": "5", "Ipv6Support": ""}
    content = "[global]\n# LogPrefix = no\n; x\nlogprefix= b \nMaxIpsetSize=7\nnonsense\nOther = 1\n"
    assert file_texts(content) == {"LogPrefix": "b", "MaxIpsetSize": "7"}


def test_fields_and_annotations_of_the_store() -> None:
    spec = FelixConfigurationSpec(
        ipv6_support=False, max_ipset_size=9, external_nodes_list=["192.0.2.0/24", "198.51.100.0/24"],
        failsafe_inbound_host_ports=[
            ProtoPort(protocol="TCP", port=22, net="10.0.0.0/8"), ProtoPort(protocol="UDP", port=53),
        ],
        failsafe_outbound_host_ports=[], reporting_interval="0s", log_prefix="from field",
    )  # fmt: skip
    annotations = {"config.projectcalico.org/LogPrefix": "from note", "other/LogPrefix": "no", "LogPrefix": "no"}
    assert spec_texts(spec, annotations) == {
        "Ipv6Support": "false", "MaxIpsetSize": "9", "ExternalNodesCIDRList": "192.0.2.0/24,198.51.100.0/24",
        "FailsafeInboundHostPorts": "tcp:10.0.0.0/8:22,udp:53", "FailsafeOutboundHostPorts": "none",
        "ReportingIntervalSecs": "0s", "LogPrefix": "from note",
    }  # fmt: skip


def test_every_parameter_has_a_field_in_the_store_that_exists() -> None:
    known = {field.encode_name for field in msgspec.structs.fields(FelixConfigurationSpec)}
    assert NAME_BY_FIELD.keys() <= known
    assert len(OPTIONS) == len(NAME_BY_FIELD)


def pipeline_with(*sources: Source) -> Pipeline:
    return Pipeline(NodeName(HERE), sources)


def resolved(pipeline: Pipeline) -> Resolved:
    found = pipeline.flush().parameters
    assert found is not None
    return found


def test_precedence() -> None:
    pipeline = pipeline_with(Source("environment", {"LogPrefix": "env"}), Source("file", {"MaxIpsetSize": "10"}))
    key, value = settings(FelixConfigurationSpec(log_prefix="x", max_ipset_size=11, iptables_refresh_interval="7s"))
    pipeline.update(key, value)
    pipeline.update(*settings(FelixConfigurationSpec(iptables_refresh_interval="8s"), name=f"node.{HERE}"))
    pipeline.update(*settings(FelixConfigurationSpec(iptables_refresh_interval="9s"), name="node.other"))
    made = resolved(pipeline)
    assert (made.parameters.log_prefix, made.origins["LogPrefix"]) == ("env", "environment")
    assert (made.parameters.set_size_max, made.origins["MaxIpsetSize"]) == (10, "file")
    assert made.parameters.tables_refresh_seconds == 8.0
    assert made.origins["IptablesRefreshInterval"] == f"FelixConfiguration node.{HERE}"
    pipeline.update(settings(FelixConfigurationSpec(), name=f"node.{HERE}")[0], None)
    assert resolved(pipeline).parameters.tables_refresh_seconds == 7.0
    pipeline.update(key, value)
    assert pipeline.flush().parameters is None


def test_a_bad_value_in_the_store_is_told_and_passed_over() -> None:
    pipeline = pipeline_with()
    annotations = {"config.projectcalico.org/MaxIpsetSize": "lots"}
    key, value = settings(FelixConfigurationSpec(), annotations=annotations)
    pipeline.update(key, value)
    update = pipeline.flush()
    assert update.problems == {key: ("MaxIpsetSize = 'lots' is passed over: it must be an integer",)}
    pipeline.update(*settings(FelixConfigurationSpec()))
    assert pipeline.flush().problems == {key: ()}


def test_marks_are_the_lowest_bits_of_the_mask() -> None:
    assert marks_of(0xFFFF0000) == Marks(0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000)
    assert marks_of(0xFFFF0000).lasting == 0x1B0000
    assert marks_of(0b1011101) == Marks(1, 4, 8, 16, 64)
