"""v1 documents: to v3 and back, their own checks, and their place in errors (reference resources.md 4, 6)."""

import json

import msgspec
import pytest

from resources.codec import encode, shown_v1_document
from resources.documents import Document, InvalidFile, load
from resources.kinds import by_name
from resources.kinds.base import Kind, View
from resources.kinds.globalnetworkpolicy import KIND as POLICY
from resources.kinds.hostendpoint import KIND as HOST_ENDPOINT
from resources.kinds.hostendpoint import HostEndpoint
from resources.kinds.naming import segment_name
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, host_overlaps
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.workloadendpoint import EndpointPort
from resources.names import parse_network


def v1(kind: str, metadata: object, spec: object | None = None) -> str:
    document = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
    return json.dumps(document if spec is None else document | {"spec": spec})


def allow(**fields: object) -> str:
    return v1("policy", {"name": "a"}, {"ingress": [{"action": "allow"} | fields]})


def one(text: str) -> Document:
    (document,) = load(text.encode(), "f").documents
    assert document.v1
    return document


def spec_of(text: str) -> dict[str, object]:
    document = one(text)
    spec = json.loads(encode(document.kind, document.resource))["spec"]
    assert isinstance(spec, dict)
    return spec


def told(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(text.encode(), "f")
    return [str(finding.problem) for finding in caught.value.findings]


# --- pools


RECORD = """apiVersion: v1
kind: ipPool
metadata:
  cidr: 17.16.10.0/24
spec:
  ipip:
    enabled: true
  nat-outgoing: true
  disabled: false
"""


def test_the_pool_of_the_deployment_record() -> None:
    document = one(RECORD)
    assert document.kind is POOL
    assert document.kind_name == "ipPool"
    assert json.loads(encode(document.kind, document.resource)) == {
        "kind": "IPPool",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "17-16-10-0-24"},
        "spec": {
            "cidr": "17.16.10.0/24", "vxlanMode": "Never", "ipipMode": "Always", "natOutgoing": True, "blockSize": 26,
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ipip", "mode"),
    [
        (None, "Never"), ({}, "Never"), ({"enabled": False, "mode": "always"}, "Never"), ({"enabled": True}, "Always"),
        ({"enabled": True, "mode": "always"}, "Always"), ({"enabled": True, "mode": "cross-subnet"}, "CrossSubnet"),
        ({"mode": "cross-subnet"}, "Never"),
    ],
)  # fmt: skip
def test_ipip_of_v1(ipip: object, mode: str) -> None:
    assert spec_of(v1("ipPool", {"cidr": "10.0.0.0/24"}, {"ipip": ipip}))["ipipMode"] == mode


@pytest.mark.parametrize(
    ("cidr", "name"),
    [("17.16.10.0/24", "17-16-10-0-24"), ("FD80:24E2:f998:72d6:0::/064", "fd80-24e2-f998-72d6---64")],
)
def test_a_pool_is_named_after_its_canonical_cidr(cidr: str, name: str) -> None:
    assert one(v1("ipPool", {"cidr": cidr})).resource.metadata.name == name
    assert POOL.v1 is not None
    assert POOL.v1.name_of(cidr) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (v1("ipPool", {}), "metadata.cidr: insufficient identifiers, missing 'cidr'"),
        (v1("ipPool", {"cidr": "10.0.0.1/24"}), "metadata.cidr = '10.0.0.1/24': IPPool CIDR is not strictly masked"),
        (v1("ipPool", {"cidr": "10.0.0.0"}), "metadata.cidr = '10.0.0.0': IPPool CIDR must be a valid subnet"),
        (v1("ipPool", {"cidr": "192.168.0.0/27"}), "IP pool size is too small (min /26) for use with Calico IPAM"),
        (v1("ipPool", {"cidr": "::/128"}), "IP pool size is too small (min /122) for use with Calico IPAM"),
        (v1("ipPool", {"cidr": "169.254.0.0/24"}), "metadata.cidr = '169.254.0.0/24': IPPool CIDR overlaps with IPv4"),
        (v1("ipPool", {"cidr": "fd00::/64"}, {"ipip": {"enabled": True}}),
         "spec.ipip.mode = 'Always': IPIP is not supported on an IPv6 IP pool"),
        (v1("ipPool", {"cidr": "10.0.0.0/24"}, {"ipip": {"enabled": True, "mode": "CrossSubnet"}}),
         "spec.ipip.mode = 'CrossSubnet': allowed are always, cross-subnet"),
        (v1("ipPool", {"cidr": "10.0.0.0/24"}, {"ipip": {"enabled": "True"}}), "spec.ipip.enabled = 'True': must be"),
        (v1("ipPool", {"cidr": "10.0.0.0/24"}, {"natOutgoing": True}), "did you mean 'nat-outgoing'?"),
        (v1("ipPool", {"cidr": "10.0.0.0/24", "name": "x"}), "metadata.name: field in document is not recognized"),
        (v1("bgppeer", {}), "unknown resource type (bgppeer) and/or version (v1)"),
        (v1("IPPool", {"cidr": "10.0.0.0/24"}), "did you mean 'ipPool'?"),
    ],
)  # fmt: skip
def test_bad_pools_of_v1_are_told_in_words_of_v1(text: str, said: str) -> None:
    found = told(text)
    assert len(found) == 1
    assert said in found[0]


def test_a_small_pool_may_be_disabled() -> None:
    assert one(v1("ipPool", {"cidr": "10.0.0.0/28"}, {"disabled": True}))


def test_errors_of_the_converted_pool_stand_at_their_v1_place() -> None:
    text = RECORD.replace("17.16.10.0/24", "fd00::/64").replace("true\n  nat", "true\n    mode: always\n  nat")
    with pytest.raises(InvalidFile) as caught:
        load(text.encode(), "f")
    assert str(caught.value).startswith("f:8:11: spec.ipip.mode = 'Always'")


@pytest.mark.parametrize("mode", ["", "always", "cross-subnet"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_pool_comes_back_as_it_went(mode: str, enabled: bool) -> None:
    spec = {"ipip": {"enabled": enabled, "mode": mode}, "nat-outgoing": True, "disabled": True}
    document = one(v1("ipPool", {"cidr": "10.0.0.0/24"}, spec))
    shown = shown_v1_document(document.kind, document.resource)
    assert list(shown) == ["apiVersion", "kind", "metadata", "spec"]
    again = one(json.dumps(shown))
    assert again.resource == document.resource
    assert ("ipip" in shown["spec"]) is enabled  # type: ignore[operator]


def test_an_update_by_v1_keeps_what_v1_cannot_say() -> None:
    stored = load(
        json.dumps(
            {
                "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
                "metadata": {"name": "mine", "labels": {"a": "b"}},
                "spec": {"cidr": "10.0.0.0/24", "blockSize": 28, "nodeSelector": "has(x)", "vxlanMode": "Always",
                         "disableBGPExport": True, "assignmentMode": "Manual", "allowedUses": ["Workload"]},
            }
        ).encode(),
        "f",
    ).documents[0].resource  # fmt: skip
    new = one(v1("ipPool", {"cidr": "10.0.0.0/24"}, {"nat-outgoing": True})).resource
    assert isinstance(stored, IPPool)
    assert isinstance(new, IPPool)
    assert POOL.v1 is not None
    kept = POOL.v1.keep(stored, new)
    assert kept == msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, nat_outgoing=True))
    tunnelled = one(v1("ipPool", {"cidr": "10.0.0.0/24"}, {"ipip": {"enabled": True}})).resource
    assert isinstance(tunnelled, IPPool)
    assert list(POOL.check(POOL.v1.keep(stored, tunnelled))) == []


def test_tables_of_v1_pools() -> None:
    pool = one(RECORD).resource
    assert POOL.v1 is not None
    assert [(c.heading, c.cell(pool, View())) for c in POOL.v1.wide] == [  # type: ignore[arg-type]
        ("CIDR", "17.16.10.0/24"), ("NAT", "true"), ("IPIP", "true"),
    ]  # fmt: skip
    assert [c.heading for c in POOL.v1.columns] == ["CIDR"]
    assert POOL.v1.identifier(pool) == "IPPool(cidr=17.16.10.0/24)"  # type: ignore[arg-type]


def test_a_pool_over_networks_of_the_host_is_warned_of() -> None:
    pool = one(RECORD).resource
    assert isinstance(pool, IPPool)
    present = {
        "docker0": parse_network("17.16.10.128/25"), "eth0": parse_network("10.0.0.0/8"), "eth1": parse_network("::/0"),
    }  # fmt: skip
    (problem,) = host_overlaps(pool, present)
    assert problem.warning
    assert problem.reason == "overlaps 17.16.10.128/25 of docker0 on this host"


# --- profiles, policies, nodes


def test_a_profile_of_v1() -> None:
    metadata = {"name": "Calico/Net_1", "tags": ["web", "db"], "labels": {"role": "x"}}
    spec = {
        "ingress": [
            {"action": "allow", "protocol": "tcp", "source": {"tag": "web"}, "destination": {"ports": [80, "81:82"]}},
            {"action": "deny", "source": {"tag": "web", "selector": "role == 'x'", "notTag": "db",
                                          "notSelector": "has(y)", "notNets": ["10.1.2.3/8", "10.0.0.1"]}},
        ],
        "egress": [{"action": "pass", "protocol": 17, "destination": {"net": "10.0.0.1/8"}}, {"action": "log"}],
    }  # fmt: skip
    document = one(v1("profile", metadata, spec))
    assert document.resource.metadata.name == "calico.net-1-" + document.resource.metadata.name[-8:]
    assert json.loads(encode(document.kind, document.resource))["spec"] == {
        "ingress": [
            {"action": "Allow", "protocol": "TCP", "source": {"selector": "web == ''"},
             "destination": {"ports": [80, "81:82"]}},
            {"action": "Deny", "source": {"selector": "(role == 'x') && web == ''",
                                          "notSelector": "(has(y)) || db == ''",
                                          "notNets": ["10.0.0.0/8", "10.0.0.1/32"]}, "destination": {}},
        ],
        "egress": [
            {"action": "Pass", "protocol": 17, "source": {}, "destination": {"nets": ["10.0.0.0/8"]}},
            {"action": "Log", "source": {}, "destination": {}},
        ],
        "labelsToApply": {"db": "", "role": "x", "web": ""},
    }  # fmt: skip


def test_a_policy_of_v1_is_a_global_one() -> None:
    spec = {
        "order": 5, "selector": "calico/k8s_ns == 'a'", "types": ["ingress", "egress"], "doNotTrack": True,
        "ingress": [{"action": "allow", "protocol": "icmpv6", "icmp": {"type": 8}, "ipVersion": 6}],
        "egress": [{"action": "allow", "notProtocol": "udplite"}],
    }  # fmt: skip
    document = one(v1("policy", {"name": "My.Policy", "annotations": {"a": "b"}}, spec))
    assert document.kind is POLICY
    assert document.resource.metadata.name.startswith("my-policy-")
    assert document.resource.metadata.annotations == {"a": "b"}
    assert json.loads(encode(document.kind, document.resource))["spec"] == {
        "tier": "default", "order": 5,
        "ingress": [{"action": "Allow", "ipVersion": 6, "protocol": "ICMPv6", "icmp": {"type": 8}, "source": {},
                     "destination": {}}],
        "egress": [{"action": "Allow", "notProtocol": "UDPLite", "source": {}, "destination": {}}],
        "selector": "projectcalico.org/namespace == 'a'", "types": ["Ingress", "Egress"], "doNotTrack": True,
        "applyOnForward": True,
    }  # fmt: skip


def test_types_of_a_v1_policy_are_computed_where_it_names_none() -> None:
    assert spec_of(v1("policy", {"name": "a"}, {"egress": [{"action": "allow"}]}))["types"] == ["Egress"]


def test_a_node_of_v1() -> None:
    spec = {"bgp": {"asNumber": "1.10", "ipv4Address": "10.0.0.1", "ipv6Address": "FD00::1/64"},
            "orchRefs": [{"nodeName": "a", "orchestrator": "docker"}]}  # fmt: skip
    document = one(v1("node", {"name": "Web_A"}, spec))
    assert document.resource.metadata.name == "web-a"
    assert json.loads(encode(document.kind, document.resource))["spec"] == {
        "bgp": {"asNumber": 65546, "ipv4Address": "10.0.0.1/32", "ipv6Address": "fd00::1/64"},
        "orchRefs": [{"nodeName": "a", "orchestrator": "docker"}],
    }


def test_an_update_of_a_node_by_v1_keeps_its_tunnel_and_its_mark() -> None:
    stored = load(
        json.dumps(
            {
                "apiVersion": "projectcalico.org/v3", "kind": "Node",
                "metadata": {"name": "n", "labels": {"rack": "r"}, "annotations": {"id": "1"}},
                "spec": {"bgp": {"asNumber": 5, "ipv4Address": "10.0.0.1/24", "ipv4IPIPTunnelAddr": "10.9.0.1"},
                         "ipv4VXLANTunnelAddr": "10.9.0.2"},
            }
        ).encode(),
        "f",
    ).documents[0].resource  # fmt: skip
    new = one(v1("node", {"name": "n"}, {"bgp": {"ipv4Address": "10.0.0.2/24"}})).resource
    assert isinstance(stored, Node)
    assert isinstance(new, Node)
    assert NODE.v1 is not None
    kept = NODE.v1.keep(stored, new)
    assert kept.metadata == stored.metadata
    assert json.loads(encode(NODE, kept))["spec"] == {
        "bgp": {"ipv4Address": "10.0.0.2/24", "ipv4IPIPTunnelAddr": "10.9.0.1"}, "ipv4VXLANTunnelAddr": "10.9.0.2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (v1("node", {"name": "a b"}), "metadata.name = 'a b': a name has 1 to 128 letters"),
        (v1("node", {"name": "a" * 129}), "a name has 1 to 128 letters"),
        (v1("node", {}), "metadata.name: insufficient identifiers, missing 'name'"),
        (v1("node", {"name": "_"}), "metadata.name"),
        (v1("node", {"name": "a"}, {"bgp": {}}), "spec.bgp: no BGP IP address and subnet specified"),
        (v1("node", {"name": "a"}, {"bgp": {"asNumber": 5}}), "no BGP IP address and subnet specified"),
        (v1("node", {"name": "a"}, {"bgp": {"ipv4Address": "fd00::1"}}), "spec.bgp.ipv4Address = 'fd00::1'"),
        (v1("profile", {"name": "a", "tags": ["a b"]}), "metadata.tags[0] = 'a b': a tag becomes a label"),
        (v1("profile", {"name": "a", "tags": ["x" * 64]}), "metadata.tags[0]"),
        (v1("profile", {"name": "a", "tags": ["x"], "labels": {"x": "1"}}), "metadata.tags[0] = 'x': a label has"),
        (v1("profile", {"name": "a", "labels": {"x": "a b"}}), "metadata.labels.x = 'a b': a label value has"),
        (v1("profile", {"name": "a"}, {"ingress": [{}]}), "spec.ingress[0].action: an action is needed: allow, deny"),
        (v1("profile", {"name": "a"}, {"ingress": [{"action": "Allow"}]}), "did you mean 'allow'?"),
        (allow(protocol="TCP"), "did you mean 'tcp'?"),
        (allow(source={"net": "10.0.0.0/8", "nets": ["11.0.0.0/8"]}),
         "spec.ingress[0].source.net = '10.0.0.0/8': only one of Net and Nets fields allowed"),
        (allow(icmp={"type": 255}, protocol="icmp"),
         "spec.ingress[0].icmp.type = '255': must be between 0 and 254"),
        (allow(icmp={"type": 8, "code": 256}, protocol="icmp"), "spec.ingress[0].icmp.code = '256'"),
        (allow(icmp={"type": 8}, protocol="tcp"), "rules that specify ICMP fields must set protocol to ICMP"),
        (allow(source={"tag": "a b"}), "spec.ingress[0].source.tag"),
        (v1("policy", {"name": "a"}, {"selector": "a = b"}), "spec.selector = 'a = b': expected =="),
        (v1("policy", {"name": "a"}, {"types": ["Ingress"]}), "did you mean 'ingress'?"),
        (v1("policy", {"name": "a"}, {"applyOnForward": True}), "spec.applyOnForward: field in document is not"),
    ],
)  # fmt: skip
def test_bad_documents_of_v1(text: str, said: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert said in found[0]


HOST = v1(
    "hostEndpoint",
    {"name": "Eth0/1", "node": "Node1", "labels": {"role": "host"}},
    {"interfaceName": "eth0", "expectedIPs": ["FD00::1", "10.0.0.1"], "profiles": ["Calico/Net_1", "b"]},
)


def test_a_host_endpoint_of_v1() -> None:
    document = one(HOST)
    assert document.kind is HOST_ENDPOINT
    written = json.loads(encode(document.kind, document.resource))
    assert written["metadata"] == {"name": "node1.eth0.1-0ca5d1c0", "labels": {"role": "host"}}
    assert written["spec"]["profiles"][0].startswith("calico.net-1-")
    assert written["spec"] == {
        "node": "node1", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1", "fd00::1"],
        "profiles": [written["spec"]["profiles"][0], "b"],
    }  # fmt: skip


WORKLOADS: dict[str, tuple[dict[str, object], str, str, dict[str, str]]] = {
    "docker": (
        {"node": "Node1", "orchestrator": "docker", "workload": "web/1", "name": "eth0", "labels": {"a": "b"}},
        "default", "node1-docker-web.1--", {"workload": segment_name("web/1")},
    ),
    "libnetwork": (
        {"node": "node1", "orchestrator": "libnetwork", "workload": "libnetwork", "name": "ab-c"},
        "libnetwork", "node1-libnetwork-libnetwork-ab--c", {"workload": "libnetwork"},
    ),
    "cni": (
        {"node": "node1", "orchestrator": "cni", "workload": "0123ab", "name": "eth0"},
        "default", "node1-cni-0123ab-eth0", {"containerID": "0123ab"},
    ),
    "k8s": (
        {"node": "node1", "orchestrator": "k8s", "workload": "ns.pod-1", "name": "eth0", "activeInstanceID": "0123",
         "labels": {"calico/k8s_ns": "ns"}},
        "ns", "node1-k8s-pod--1-eth0", {"pod": "pod-1", "containerID": "0123"},
    ),
}  # fmt: skip
INTERFACE: dict[str, object] = {
    "ipNetworks": ["fd00::5", "10.0.0.5/32"], "interfaceName": "calix", "mac": "ee:ee:ee:ee:ee:ee", "profiles": ["a"],
    "ipNATs": [{"internalIP": "10.0.0.5", "externalIP": "1.2.3.4"}], "ipv4Gateway": "169.254.1.1",
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_endpoint_of_v1(name: str) -> None:
    metadata, namespace, stored_name, identity = WORKLOADS[name]
    document = one(v1("workloadEndpoint", metadata, INTERFACE))
    written = json.loads(encode(document.kind, document.resource))
    assert (written["metadata"]["namespace"], written["metadata"]["name"].startswith(stored_name)) == (namespace, True)
    assert written["metadata"]["labels"]["projectcalico.org/orchestrator"] == metadata["orchestrator"]
    spec = written["spec"]
    assert {key: spec[key] for key in identity} == identity
    assert spec["ipNetworks"] == ["10.0.0.5/32", "fd00::5/128"]
    assert (spec["ipNATs"], spec["mac"], spec["profiles"]) == (INTERFACE["ipNATs"], "ee:ee:ee:ee:ee:ee", ["a"])
    shown = shown_v1_document(document.kind, document.resource)
    assert one(json.dumps(shown)).resource == document.resource


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (v1("hostEndpoint", {"name": "a"}, {"interfaceName": "e"}), "metadata.node: insufficient identifiers, missing"),
        (v1("hostEndpoint", {"node": "a"}, {"interfaceName": "e"}), "metadata.name: insufficient identifiers, missing"),
        (v1("hostEndpoint", {"name": "a", "node": "n"}), "no interface or expected IPs have been specified"),
        (v1("hostEndpoint", {"name": "a", "node": "n"}, {"expectedIPs": ["x"]}), "spec.expectedIPs[0] = 'x': must be"),
        (v1("hostEndpoint", {"name": "a", "node": "n"}, {"interfaceName": "a" * 16}), "an interface name has 1 to 15"),
        (v1("hostEndpoint", {"name": "a", "node": "n", "labels": {"a b": ""}}, {"interfaceName": "e"}), "a label key"),
        (v1("hostEndpoint", {"name": "a", "node": "n"}, {"interfaceName": "e", "ports": []}), "spec.ports: field in"),
        (v1("workloadEndpoint", {"node": "n", "orchestrator": "o", "name": "e"}, INTERFACE), "missing 'workload'"),
        (v1("workloadEndpoint", {"node": "n", "workload": "o", "name": "e"}, INTERFACE), "missing 'orchestrator'"),
        (v1("workloadEndpoint", {"node": "n", "orchestrator": "k8s", "workload": "w", "name": "e"}, INTERFACE),
         "metadata.workload = 'w': must be namespace.pod"),
        (v1("workloadEndpoint", {"node": "n", "orchestrator": "cni", "workload": "w_", "name": "e"}, INTERFACE),
         "metadata.workload = 'w_'"),
        (v1("workloadEndpoint", WORKLOADS["cni"][0], {"ipNetworks": ["10.0.0.0/24"], "interfaceName": "c"}),
         "spec.ipNetworks[0] = '10.0.0.0/24': IP network contains multiple addresses"),
        (v1("workloadEndpoint", WORKLOADS["cni"][0], {}), "spec.interfaceName: must be set"),
    ],
)  # fmt: skip
def test_bad_endpoints_of_v1_are_told_in_words_of_v1(text: str, said: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert said in found[0]


def test_an_update_of_endpoints_by_v1_keeps_what_v1_cannot_say() -> None:
    old = one(HOST).resource
    assert isinstance(old, HostEndpoint)
    ports = [EndpointPort(name="ssh", protocol="TCP", port=22)]
    stored = msgspec.structs.replace(
        old,
        metadata=msgspec.structs.replace(old.metadata, name="other", annotations={"a": "b"}),
        spec=msgspec.structs.replace(old.spec, ports=ports),
    )
    new = one(HOST.replace("role", "rule")).resource
    assert isinstance(new, HostEndpoint)
    assert HOST_ENDPOINT.v1 is not None
    kept = HOST_ENDPOINT.v1.keep(stored, new)
    assert (kept.metadata.name, kept.metadata.labels) == ("other", {"rule": "host"})
    assert kept.metadata.annotations == {"a": "b"}
    assert kept.spec == msgspec.structs.replace(new.spec, ports=ports)


@pytest.mark.parametrize("kind", [PROFILE, POLICY, NODE, HOST_ENDPOINT], ids=lambda kind: kind.name)
def test_what_v1_shows_it_also_takes(kind: Kind[Node]) -> None:
    texts = {
        "Profile": v1("profile", {"name": "a", "tags": ["t"], "labels": {"x": "y"}},
                      {"ingress": [{"action": "allow", "source": {"nets": ["10.0.0.0/8"]}}]}),
        "GlobalNetworkPolicy": v1("policy", {"name": "a"}, {"order": 1.5, "selector": "all()", "preDNAT": True,
                                  "ingress": [{"action": "deny", "protocol": "tcp", "source": {"notPorts": [1]}}]}),
        "HostEndpoint": HOST,
        "Node": v1("node", {"name": "a"}, {"bgp": {"ipv4Address": "10.0.0.1/24"}}),
    }  # fmt: skip
    document = one(texts[kind.name])
    shown = shown_v1_document(by_name()[kind.name], document.resource)
    assert shown["apiVersion"] == "v1"
    assert one(json.dumps(shown)).resource == document.resource


def test_v1_and_v3_in_one_file() -> None:
    v3 = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: b}\nspec: {cidr: 10.0.1.0/24}\n"
    listed = "apiVersion: v1\nkind: ipPoolList\nitems:\n- {metadata: {cidr: 10.0.2.0/24}}\n"
    found = load(f"{RECORD}---\n{v3}---\n{listed}".encode(), "f").documents
    assert [(d.kind_name, d.resource.metadata.name) for d in found] == [
        ("ipPool", "17-16-10-0-24"), ("IPPool", "b"), ("ipPool", "10-0-2-0-24"),
    ]  # fmt: skip
