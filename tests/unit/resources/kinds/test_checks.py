"""Bad inputs, row by row of reference resources.md 6 and 9, and what must stay allowed.

Rows about the store (5, 8, 60 to 63, 66, 67) are in datastore/test_client.py, rows about files in test_documents.py.
"""

import json

import pytest

from resources.codec import BadRecord, decode, encode
from resources.documents import InvalidFile, Loaded, load
from resources.kinds import by_plural

V3 = "projectcalico.org/v3"


def v3(kind: str, spec: object, name: str = "x", **metadata: object) -> str:
    return json.dumps({"apiVersion": V3, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec})


def read(text: str) -> Loaded:
    return load(text.encode(), "f")


def told(text: str) -> list[tuple[str, str]]:
    """Return (field, reason) of everything found."""
    with pytest.raises(InvalidFile) as caught:
        read(text)
    found = []
    for finding in caught.value.findings:
        assert finding.at.line == 1
        place, _, _ = str(finding.problem).partition(":")
        found.append((place.partition(" = ")[0], finding.problem.reason))
    return found


def pool(**spec: object) -> str:
    return v3("IPPool", {"cidr": "10.0.0.0/16"} | spec)


def policy(**spec: object) -> str:
    return v3("GlobalNetworkPolicy", spec)


def rule(**fields: object) -> str:
    return policy(ingress=[{"action": "Allow"} | fields])


def bgp(name: str = "default", **spec: object) -> str:
    return v3("BGPConfiguration", spec, name)


def felix(name: str = "default", **spec: object) -> str:
    return v3("FelixConfiguration", spec, name)


def node(**spec: object) -> str:
    return v3("Node", spec)


def endpoint(**spec: object) -> str:
    given = {"orchestrator": "libnetwork", "workload": "libnetwork", "node": "node1", "endpoint": "ep",
             "interfaceName": "calix"} | spec  # fmt: skip
    metadata = {"namespace": "libnetwork"}
    return json.dumps({"apiVersion": V3, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": given})


def profile(**spec: object) -> str:
    return v3("Profile", spec)


def namespaced(kind: str, spec: object, name: str = "x", labels: object = None) -> str:
    return v3(kind, spec, name, namespace="libnetwork", labels=labels)


def staged(**spec: object) -> str:
    return v3("StagedGlobalNetworkPolicy", spec)


def netset(*nets: str, labels: object = None) -> str:
    return v3("GlobalNetworkSet", {"nets": list(nets)}, labels=labels)


def hep(**spec: object) -> str:
    return v3("HostEndpoint", {"node": "node1", "interfaceName": "eth0"} | spec)


ADVERTISED = [{"cidr": "10.0.0.0/8", "communities": ["a"]}]

BAD = [
    # IPPool
    (1, v3("IPPool", {}), "spec.cidr", "IPPool CIDR must be specified"),
    *((2, pool(cidr=text), "spec.cidr", "IPPool CIDR must be a valid subnet")
      for text in ("10.0.0.0", "10.0.0.0/33", "10.0.256.0/24", "x", "10.0.0.0/255.255.0.0", "::ffff:10.0.0.0/120",
                   "fe80::%eth0/64", " 10.0.0.0/16", "10.0.0.0/16/", "10.0.0/16")),
    (3, pool(cidr="10.0.0.1/24"), "spec.cidr", "IPPool CIDR is not strictly masked"),
    (4, pool(cidr="169.254.1.0/24"), "spec.cidr", "overlaps with IPv4 Link Local range 169.254.0.0/16"),
    (4, pool(cidr="169.0.0.0/8"), "spec.cidr", "overlaps with IPv4 Link Local range 169.254.0.0/16"),
    (4, pool(cidr="fe80::/64"), "spec.cidr", "overlaps with IPv6 Link Local range fe80::/10"),
    (6, pool(cidr="10.0.0.0/27"), "spec.cidr", "IP pool size is too small for use with Calico IPAM."),
    (6, pool(cidr="10.0.0.0/27", blockSize=26), "spec.cidr", "equal to or greater than the block size"),
    (7, pool(blockSize=19), "spec.blockSize", "IPv4 block size must be between 20 and 32"),
    (7, pool(blockSize=33), "spec.blockSize", "IPv4 block size must be between 20 and 32"),
    (7, pool(cidr="fd00::/64", blockSize=115), "spec.blockSize", "IPv6 block size must be between 116 and 128"),
    (7, pool(cidr="fd00::/64", blockSize=129), "spec.blockSize", "IPv6 block size must be between 116 and 128"),
    (9, pool(cidr="fd00::/64", ipipMode="Always"), "spec.ipipMode", "IPIP is not supported on an IPv6 IP pool"),
    (10, pool(ipipMode="Always", vxlanMode="CrossSubnet"), "spec.vxlanMode", "Cannot enable both VXLAN and IPIP"),
    (11, pool(ipipMode="always"), "spec.ipipMode", "allowed are Never, Always, CrossSubnet"),
    (11, pool(vxlanMode="Sometimes"), "spec.vxlanMode", "allowed are Never, Always, CrossSubnet"),
    (12, pool(allowedUses=["Foo"]), "spec.allowedUses[0]", "unknown use: Foo"),
    (12, pool(allowedUses=["LoadBalancer", "Workload"]), "spec.allowedUses", "LoadBalancer cannot be used"),
    (12, pool(allowedUses=["LoadBalancer"], ipipMode="Always"), "spec.ipipMode", "must be Never"),
    (12, pool(allowedUses=["LoadBalancer"], disableBGPExport=True), "spec.disableBGPExport", "cannot be set"),
    (12, pool(allowedUses=["LoadBalancer"], nodeSelector="has(x)"), "spec.nodeSelector", "must be all()"),
    (13, pool(ipip={"enabled": True}), "spec.ipip", "not recognized or is in the wrong location"),
    (13, pool(**{"nat-outgoing": True}), "spec.nat-outgoing", "not recognized"),
    (14, pool(foo=1), "spec.foo", "field in document is not recognized or is in the wrong location"),
    (9.1, pool(assignmentMode=""), "spec.assignmentMode", "must not be empty"),
    (9.1, pool(assignmentMode="manual"), "spec.assignmentMode", "allowed are Automatic, Manual"),
    (9.1, pool(namespaceSelector="has(x)"), "spec.namespaceSelector", "cannot be combined with the use Tunnel"),
    (58, pool(nodeSelector="role = 'x'"), "spec.nodeSelector", "expected =="),
    (59, pool(nodeSelector="global()"), "spec.nodeSelector", "global() can only be used"),
    # names, labels, annotations
    *((16, v3("IPPool", {"cidr": "10.0.0.0/16"}, name), "metadata.name", "name must consist of lower case alphanumeric")
      for name in ("UPPER", "a_b", "-a", "a..b", "", "a/b", "..", "a\nb", "ä")),
    (17, v3("IPPool", {"cidr": "10.0.0.0/16"}, "a" * 254), "metadata.name", "name is too long by 1 bytes"),
    *((21, v3("IPPool", {"cidr": "10.0.0.0/16"}, labels={key: "v"}), f"metadata.labels.{key}", "label key")
      for key in ("a b", "-x", "A_B/x", "k" * 64, "x/", "/x", "x.")),
    (22, v3("IPPool", {"cidr": "10.0.0.0/16"}, labels={"k": "v" * 64}), "metadata.labels.k", "63"),
    (22, v3("IPPool", {"cidr": "10.0.0.0/16"}, labels={"k": "x!"}), "metadata.labels.k", "a label value has"),
    (23, v3("IPPool", {"cidr": "10.0.0.0/16"}, annotations={"k": "x" * 262144}), "metadata.annotations",
     "total size of annotations is too large by 1 bytes"),
    (23, v3("IPPool", {"cidr": "10.0.0.0/16"}, annotations={"a b": "x"}), "metadata.annotations.a b", "key"),
    # BGPConfiguration
    (25, bgp("node.x", nodeToNodeMeshEnabled=False), "spec.nodeToNodeMeshEnabled",
     "Cannot set nodeToNodeMeshEnabled on a non default BGP Configuration."),
    (25, bgp("node.x", asNumber=5), "spec.asNumber", "Cannot set ASNumber on a non default BGP Configuration."),
    (25, bgp("node.x", nodeMeshMaxRestartTime="1s"), "spec.nodeMeshMaxRestartTime", "non default"),
    (26, bgp(communities=[{"name": "a", "value": "1:1"}]), "spec.communities",
     "communities are defined but not used in Spec.PrefixAdvertisement[]."),
    (27, bgp(communities=[{"name": "a", "value": "abc"}], prefixAdvertisements=ADVERTISED),
     "spec.communities[0].value", "invalid community value or format used."),
    (27, bgp(communities=[{"name": "a", "value": "70000:1"}], prefixAdvertisements=ADVERTISED),
     "spec.communities[0].value", "invalid community value, expected 16 bit value"),
    (27, bgp(communities=[{"name": "a", "value": "1:1:4294967296"}], prefixAdvertisements=ADVERTISED),
     "spec.communities[0].value", "expected 32 bit value"),
    (27, bgp(prefixAdvertisements=ADVERTISED), "spec.prefixAdvertisements[0].communities[0]",
     "community used is invalid or not defined."),
    (9.2, bgp(prefixAdvertisements=[{"cidr": "10.0.0.1", "communities": ["1:1"]}]),
     "spec.prefixAdvertisements[0].cidr", "invalid CIDR"),
    (9.2, bgp(serviceClusterIPs=[{"cidr": "10.0.0.1"}]), "spec.serviceClusterIPs[0].cidr", "invalid CIDR"),
    (9.2, bgp(serviceLoadBalancerIPs=[{"cidr": "10.0.0.1/8"}]), "spec.serviceLoadBalancerIPs[0].cidr", "host bits"),
    (28, bgp(nodeToNodeMeshEnabled=False, nodeMeshPassword={"secretKeyRef": {"name": "a", "key": "b"}}),
     "spec.nodeMeshPassword", "spec.NodeMeshPassword cannot be set if spec.NodeToNodeMesh is disabled"),
    (28, bgp(nodeToNodeMeshEnabled=False, nodeMeshMaxRestartTime="9s"), "spec.nodeMeshMaxRestartTime", "cannot be"),
    (34, bgp(asNumber=0), "spec.asNumber", "0 is no AS number: no peer accepts it (RFC 7607)"),
    *((34, bgp(asNumber=value), "spec.asNumber", "AS ") for value in (4294967296, -1, "65536.1", "abc", 1.1)),
    (9.2, bgp(nodeMeshMaxRestartTime="-1s"), "spec.nodeMeshMaxRestartTime", "must not be negative"),
    (0, bgp(listenPort=0), "spec.listenPort", "between 1 and 65535"),
    (0, bgp(listenPort=70000), "spec.listenPort", "between 1 and 65535"),
    (0, bgp(logSeverityScreen="info"), "spec.logSeverityScreen", "allowed are Trace, Debug, Info"),
    (0, bgp(bindMode="x"), "spec.bindMode", "allowed are None, NodeIP"),
    (0, bgp(ignoredInterfaces=["*"]), "spec.ignoredInterfaces[0]", "not only *"),
    (0, bgp(localWorkloadPeeringIPV4="fd00::1"), "spec.localWorkloadPeeringIPV4", "must be an IPv4 address"),
    (0, bgp(ipv4NormalRoutePriority=0), "spec.ipv4NormalRoutePriority", "between 1 and 2147483646"),
    # Node
    (36, node(bgp={}), "spec.bgp", "Spec.BGP should not be empty"),
    (36, node(bgp={"ipv4Address": "fd00::1/64"}), "spec.bgp.ipv4Address", "must be an IPv4 address/length"),
    (36, node(bgp={"ipv6Address": "10.0.0.1/24"}), "spec.bgp.ipv6Address", "must be an IPv6 address/length"),
    (36, node(bgp={"ipv4Address": "10.0.0.1/24", "routeReflectorClusterID": "x"}),
     "spec.bgp.routeReflectorClusterID", "must be an IPv4 address"),
    (34, node(bgp={"ipv4Address": "10.0.0.1/24", "asNumber": 0}), "spec.bgp.asNumber", "0 is no AS number"),
    (34, node(bgp={"asNumber": "x"}), "spec.bgp.asNumber", "invalid AS Number"),
    (9.3, node(bgp={"ipv4Address": "::ffff:10.0.0.0/120"}), "spec.bgp.ipv4Address", "IPv4 address/length"),
    (9.3, node(addresses=[{"address": "x"}]), "spec.addresses[0].address", "must be an IP address/length"),
    (9.3, node(addresses=[{"address": "10.0.0.1/33"}]), "spec.addresses[0].address", "address/length"),
    (9.3, node(addresses=[{"address": "10.0.0.1", "type": "X"}]), "spec.addresses[0].type", "allowed are CalicoNodeIP"),
    (9.3, node(interfaces=[{"name": "eth0", "addresses": ["x"]}]), "spec.interfaces[0].addresses[0]", "address/length"),
    (9.3, node(vxlanTunnelMACAddr="00:00:00:00:00:00:00:01"), "spec.vxlanTunnelMACAddr", "must be a MAC address"),
    (0, node(orchRefs=[{"nodeName": "a"}]), "spec.orchRefs[0].orchestrator", "must be set"),
    # WorkloadEndpoint
    (38, endpoint(interfaceName="a" * 16), "spec.interfaceName", "1 to 15"),
    (38, endpoint(interfaceName="a/b"), "spec.interfaceName", "an interface name has"),
    (38, endpoint(interfaceName="a b"), "spec.interfaceName", "an interface name has"),
    (38, endpoint(interfaceName=".."), "spec.interfaceName", "an interface name has"),
    (38, endpoint(interfaceName=""), "spec.interfaceName", "must be set"),
    (40, endpoint(ipNetworks=["10.0.0.0/24"]), "spec.ipNetworks[0]", "IP network contains multiple addresses"),
    (9.4, endpoint(ipNetworks=["x"]), "spec.ipNetworks[0]", "must be an IP address"),
    (9.4, endpoint(ipNetworks=["10.0.0.1/33"]), "spec.ipNetworks[0]", "must be an IP address"),
    (41, endpoint(ipNetworks=["10.0.0.1"], ipNATs=[{"internalIP": "10.0.0.2", "externalIP": "1.2.3.4"}]),
     "spec.ipNATs[0].internalIP", "NAT is not in the endpoint networks"),
    (41, endpoint(ipNetworks=["10.0.0.1"], ipNATs=[{"internalIP": "10.0.0.1", "externalIP": "fd00::1"}]),
     "spec.ipNATs[0].externalIP", "mismatched IP versions"),
    (42, endpoint(ipv4Gateway="fe80::1"), "spec.ipv4Gateway", "invalid IPv4 gateway address specified"),
    (42, endpoint(ipv6Gateway="x"), "spec.ipv6Gateway", "invalid IPv6 gateway address specified"),
    (43, endpoint(node=""), "spec.node", "field should be assigned"),
    (43, endpoint(orchestrator=""), "spec.orchestrator", "field should be assigned"),
    (43, endpoint(endpoint="-x"), "spec.endpoint", "field must not begin with a '-'"),
    (43, endpoint(endpoint="x-"), "spec.endpoint", "field must not end with a '-'"),
    (43, endpoint(orchestrator="cni"), "spec.containerID", "field should be assigned"),
    (43, endpoint(orchestrator="cni", containerID="a_b"), "spec.containerID", "a container ID has"),
    (0, endpoint(mac="zz"), "spec.mac", "must be a MAC address"),
    (0, endpoint(profiles=["Bad Name"]), "spec.profiles[0]", "name must consist of"),
    (39, endpoint(ports=[{"name": "a", "protocol": "ICMP", "port": 1}]), "spec.ports[0].protocol", "not support ports"),
    (39, endpoint(ports=[{"name": "a", "protocol": "TCP", "port": 0}]), "spec.ports[0].port", "between 1 and 65535"),
    (39, endpoint(ports=[{"protocol": "TCP", "port": 1}]), "spec.ports[0].name", "name must not be empty"),
    (39, endpoint(ports=[{"name": "1", "protocol": "TCP", "port": 1}]), "spec.ports[0].name", "a port name has"),
    (9.4, endpoint(ports=[{"name": "a", "protocol": "TCP", "port": 1}] * 2), "spec.ports[1]", "listed twice"),
    (9.4, endpoint(qosControls={"ingressBandwidth": -1}), "spec.qosControls.ingressBandwidth", "must not be negative"),
    (0, endpoint(qosControls={"dscp": 64}), "spec.qosControls.dscp", "between 0 and 63"),
    (0, endpoint(allowSpoofedSourcePrefixes=["x"]), "spec.allowSpoofedSourcePrefixes[0]", "address/length"),
    # rules
    (44, rule(action=""), "spec.ingress[0].action", "an action is needed"),
    (44, rule(action="allow"), "spec.ingress[0].action", "allowed are Allow, Deny, Log, Pass"),
    (44, rule(action="drop"), "spec.ingress[0].action", "allowed are Allow, Deny, Log, Pass"),
    (44, profile(egress=[{"action": "next-tier"}]), "spec.egress[0].action", "allowed are"),
    (45, rule(protocol="foo"), "spec.ingress[0].protocol", "protocol name invalid"),
    (45, rule(protocol="tcp"), "spec.ingress[0].protocol", "protocol name invalid"),
    (45, rule(protocol=0), "spec.ingress[0].protocol", "protocol number invalid"),
    (45, rule(protocol=256), "spec.ingress[0].protocol", "protocol number invalid"),
    (45, rule(notProtocol="256"), "spec.ingress[0].notProtocol", "protocol name invalid"),
    (46, rule(protocol="ICMP", destination={"ports": [80]}), "spec.ingress[0].destination.ports",
     "rules that specify ports must set protocol to TCP or UDP or SCTP"),
    (46, rule(protocol=1, source={"notPorts": [80]}), "spec.ingress[0].source.notPorts", "rules that specify ports"),
    (47, rule(destination={"ports": [80]}), "spec.ingress[0].destination.ports",
     "rules with numeric port or port range must set protocol to TCP or UDP or SCTP"),
    (48, rule(protocol="TCP", destination={"ports": [0]}), "spec.ingress[0].destination.ports[0]",
     "port range invalid, port number must be between 1 and 65535"),
    (48, rule(protocol="TCP", destination={"ports": ["0:5"]}), "spec.ingress[0].destination.ports[0]", "port range"),
    (48, rule(protocol="TCP", destination={"ports": [65536]}), "spec.ingress[0].destination.ports[0]", "65535"),
    (48, rule(protocol="TCP", destination={"ports": ["70000"]}), "spec.ingress[0].destination.ports[0]",
     "invalid port format (70000)"),
    (49, rule(protocol="TCP", destination={"ports": [80, "20:10"]}), "spec.ingress[0].destination.ports[1]",
     "minimum port number (20) is greater than maximum port number (10) in port range"),
    (50, rule(protocol="TCP", icmp={"type": 8}), "spec.ingress[0].protocol",
     "rules that specify ICMP fields must set protocol to ICMP"),
    (50, rule(protocol=1, icmp={"type": 8}), "spec.ingress[0].protocol", "must set protocol to ICMP"),
    (50, rule(icmp={"type": 8}), "spec.ingress[0].protocol", "must set protocol to ICMP"),
    (50, rule(protocol="ICMP", icmp={"code": 1}), "spec.ingress[0].icmp.code",
     "ICMP code specified without an ICMP type"),
    (50, rule(protocol="ICMP", icmp={"type": 255}), "spec.ingress[0].icmp.type", "between 0 and 254"),
    (50, rule(protocol="ICMP", icmp={"type": 8, "code": 256}), "spec.ingress[0].icmp.code", "between 0 and 255"),
    (50, rule(notICMP={"type": 255}), "spec.ingress[0].notICMP.type", "between 0 and 254"),
    (51, rule(protocol="ICMP", ipVersion=6), "spec.ingress[0].ipVersion",
     "must set ipversion to '4' with protocol icmp"),
    (51, rule(notProtocol="ICMPv6", ipVersion=4), "spec.ingress[0].ipVersion", "'6' with protocol icmpv6"),
    (51, rule(ipVersion=5), "spec.ingress[0].ipVersion", "must be 4 or 6"),
    (52, rule(source={"nets": ["10.0.0.0/8", "fd00::/8"]}), "spec.ingress[0].source.nets",
     "rule contains both IPv4 and IPv6 CIDRs"),
    (52, rule(source={"nets": ["10.0.0.0/8"]}, destination={"notNets": ["fd00::/8"]}),
     "spec.ingress[0].destination.notNets", "rule contains both IPv4 and IPv6 CIDRs"),
    (52, rule(ipVersion=6, source={"nets": ["10.0.0.0/8"]}), "spec.ingress[0].source.nets",
     "rule IP version doesn't match CIDR version"),
    (53, rule(source={"nets": ["10.0.0.0/33"]}), "spec.ingress[0].source.nets[0]", "CIDR"),
    (53, rule(source={"nets": ["10.0.0.1/8"]}), "spec.ingress[0].source.nets[0]", "without host bits"),
    (53, rule(source={"nets": ["10.0.0.1"]}), "spec.ingress[0].source.nets[0]", "invalid CIDR"),
    (53, rule(source={"nets": [""]}), "spec.ingress[0].source.nets[0]", "invalid CIDR"),
    (53, rule(source={"notNets": ["0.0.0.0/0"]}), "spec.ingress[0].source.notNets[0]", "catch-all CIDR in negation"),
    (53, rule(source={"notNets": ["::/0"]}), "spec.ingress[0].source.notNets[0]", "catch-all CIDR in negation"),
    (58, rule(source={"selector": "role = 'x'"}), "spec.ingress[0].source.selector", "expected =="),
    (58, rule(source={"notSelector": "has("}), "spec.ingress[0].source.notSelector", "expected identifier"),
    (59, rule(source={"selector": "global()"}), "spec.ingress[0].source.selector", "global() can only be used"),
    (59, rule(source={"namespaceSelector": "global() && has(x)"}), "spec.ingress[0].source.namespaceSelector",
     "global() cannot be combined with other selectors"),
    (0, rule(http={"methods": ["GET", "GET"]}), "spec.ingress[0].http.methods", "more than once"),
    (0, rule(http={"paths": [{"exact": "x"}]}), "spec.ingress[0].http.paths[0]", "must start with '/'"),
    (0, rule(http={"paths": [{}]}), "spec.ingress[0].http.paths[0]", "exactly one of"),
    (0, rule(http={}, protocol="UDP"), "spec.ingress[0].protocol", "must set protocol to TCP or empty"),
    (0, rule(http={}, action="Deny"), "spec.ingress[0].http", "only valid for Allow rules"),
    (0, policy(egress=[{"action": "Allow", "http": {}}]), "spec.egress[0].http", "not allowed in egress rules"),
    (0, rule(source={"services": {"name": "a"}}), "spec.ingress[0].source.services.namespace",
     "must specify a namespace"),
    (0, rule(destination={"services": {"name": "a", "namespace": "b"}}), "spec.ingress[0].destination.services",
     "not allowed in ingress rule destination"),
    (0, rule(source={"services": {"name": "a", "namespace": "b"}, "selector": "all()"}),
     "spec.ingress[0].source.services", "cannot specify Selector/NotSelector and Services on the same rule"),
    (0, rule(metadata={"annotations": {"a b": "c"}}), "spec.ingress[0].metadata.annotations.a b", "key"),
    # policies
    (54, policy(doNotTrack=True, preDNAT=True, applyOnForward=True), "spec.preDNAT", "cannot both be true"),
    (55, policy(preDNAT=True, applyOnForward=True, egress=[{"action": "Allow"}], types=["Ingress"]), "spec.egress",
     "PreDNAT PolicySpec cannot have any Egress rules"),
    (55, policy(preDNAT=True, applyOnForward=True, types=["Egress"]), "spec.types", "cannot have 'egress' Type"),
    (56, policy(doNotTrack=True), "spec.applyOnForward", "ApplyOnForward must be true if either"),
    (57, policy(types=["Ingress", "Ingress"]), "spec.types[1]", "'Ingress' type specified more than once"),
    (57, policy(types=["ingress"]), "spec.types[0]", "allowed are Ingress, Egress"),
    *((58, policy(selector=text), "spec.selector", "") for text in ("role = 'x'", "has(", "a ==", "a in {", "'unterm")),
    (59, policy(selector="global()"), "spec.selector", "global() can only be used in an EntityRule namespaceSelector"),
    (59, policy(namespaceSelector="global()"), "spec.namespaceSelector", "global() can only be used"),
    (60, v3("GlobalNetworkPolicy", {}, "a.b.c"), "metadata.name", "alphanumeric characters or '-'"),
    (0, policy(performanceHints=["x"]), "spec.performanceHints[0]", "AssumeNeededOnEveryNode"),
    (0, policy(tier="A"), "spec.tier", "name must consist of"),
    (0, policy(order="x"), "spec.order", "must be a number"),
    (0, profile(labelsToApply={"a b": ""}), "spec.labelsToApply.a b", "label key"),
    # what is stored by the original and enforced by nobody here
    (0, rule(http={"methods": ["GET"]}), "spec.ingress[0].http", "nothing here can enforce it"),
    (0, rule(source={"services": {"name": "a", "namespace": "b"}}), "spec.ingress[0].source.services",
     "services exist only in Kubernetes"),
    (0, rule(source={"serviceAccounts": {"names": ["a"]}}), "spec.ingress[0].source.serviceAccounts",
     "service accounts exist only in Kubernetes"),
    (0, profile(egress=[{"action": "Allow", "destination": {"serviceAccounts": {"selector": "has(a)"}}}]),
     "spec.egress[0].destination.serviceAccounts", "service accounts exist only in Kubernetes"),
    (0, policy(serviceAccountSelector="role == 'x'"), "spec.serviceAccountSelector", "selects nothing: service"),
    (0, policy(serviceAccountSelector="all()"), "spec.serviceAccountSelector", "selects nothing: service"),
    (0, staged(ingress=[{"action": "Allow", "http": {}}]), "spec.ingress[0].http", "nothing here can enforce it"),
    # NetworkPolicy and staged policies
    (60, namespaced("NetworkPolicy", {}, "a.b.c"), "metadata.name", "alphanumeric characters or '-'"),
    (0, namespaced("NetworkPolicy", {"preDNAT": True}), "spec.preDNAT", "not recognized"),
    (0, namespaced("NetworkPolicy", {"namespaceSelector": "all()"}), "spec.namespaceSelector", "not recognized"),
    (59, namespaced("NetworkPolicy", {"selector": "global()"}), "spec.selector", "global() can only be used"),
    (44, namespaced("NetworkPolicy", {"egress": [{"action": "allow"}]}), "spec.egress[0].action", "allowed are Allow"),
    (0, staged(stagedAction="set"), "spec.stagedAction", "allowed are Set, Delete, Learn, Ignore"),
    (0, staged(stagedAction="Delete", selector="all()"), "spec.stagedAction", "Spec fields, except Tier, should all"),
    (56, staged(doNotTrack=True), "spec.applyOnForward", "ApplyOnForward must be true"),
    (0, namespaced("StagedNetworkPolicy", {"stagedAction": "x"}), "spec.stagedAction", "allowed are"),
    (45, namespaced("StagedNetworkPolicy", {"ingress": [{"action": "Allow", "protocol": "x"}]}),
     "spec.ingress[0].protocol", "protocol name invalid"),
    # network sets
    *((9.6, netset(text), "spec.nets[0]", "must be an IP address/length") for text in ("x", "10.0.0.0/33", "")),
    (24, netset(labels={"projectcalico.org/namespace": "a"}), "metadata.labels.projectcalico.org/namespace",
     "projectcalico.org/namespace is not a valid label name"),
    (24, namespaced("NetworkSet", {}, labels={"projectcalico.org/namespace": "a"}),
     "metadata.labels.projectcalico.org/namespace", "is not a valid label name"),
    # HostEndpoint
    (37, hep(interfaceName=""), "spec.interfaceName", "no interface or expected IPs have been specified"),
    (37, hep(node=""), "spec.node", "no node has been specified"),
    (37, hep(node="A"), "spec.node", "name must consist of"),
    *((38, hep(interfaceName=text), "spec.interfaceName", "an interface name has")
      for text in ("a" * 16, "a/b", "a b")),
    (39, hep(ports=[{"name": "a", "protocol": "ICMP", "port": 1}]), "spec.ports[0].protocol",
     "EndpointPort protocol does not support ports."),
    (39, hep(ports=[{"name": "a", "protocol": "TCP", "port": 0}]), "spec.ports[0].port", "between 1 and 65535"),
    (39, hep(ports=[{"name": "", "protocol": "TCP", "port": 1}]), "spec.ports[0].name", "must be set"),
    (39, hep(ports=[{"name": "A", "protocol": "TCP", "port": 1}]), "spec.ports[0].name", "a port name has"),
    (39, hep(ports=[{"name": "a", "protocol": "TCP", "port": 1, "hostPort": 2}]), "spec.ports[0].hostPort", "not rec"),
    (9.4, hep(ports=[{"name": "a", "protocol": "TCP", "port": 1}] * 2), "spec.ports[1]", "listed twice"),
    *((0, hep(expectedIPs=[text]), "spec.expectedIPs[0]", "must be an IP address")
      for text in ("x", "", "10.0.0.1/32", "::ffff:10.0.0.1")),
    (0, hep(profiles=[""]), "spec.profiles[0]", "must be the name of a profile"),
    # others
    (61, v3("ClusterInformation", {}, "x"), "metadata.name", "the only name is 'default'"),
    (63, v3("Tier", {"order": 5}, "default"), "spec.order", "default tier order must be 1e+06"),
    (63, v3("Tier", {"defaultAction": "Pass"}, "default"), "spec.defaultAction", "must have default action 'Deny'"),
    (63, v3("Tier", {"defaultAction": "Allow"}), "spec.defaultAction", "allowed are Deny, Pass"),
    (63, v3("Tier", {}, "a.b"), "metadata.name", "alphanumeric characters or '-'"),
    (63, v3("Tier", {}, "a" * 64), "metadata.name", "name is too long by 1 bytes"),
    # FelixConfiguration
    (64, felix(kubeNodePortRanges=[1, 2, 3, 4, 5, 6, 7, 8]), "spec.kubeNodePortRanges", "too long (max 7)"),
    (64, felix(kubeNodePortRanges=["http"]), "spec.kubeNodePortRanges[0]", "should not contain named ports"),
    (64, felix(failsafeInboundHostPorts=[{"protocol": "icmp", "port": 1}]),
     "spec.failsafeInboundHostPorts[0].protocol", "protocol must be 'TCP' or 'UDP' or 'SCTP'."),
    (64, felix(logSeverityScreen="info"), "spec.logSeverityScreen", "allowed are"),
    (9.5, felix(failsafeOutboundHostPorts=[{"protocol": "TCP", "port": 0}]),
     "spec.failsafeOutboundHostPorts[0].port", "between 1 and 65535"),
    (9.5, felix(failsafeOutboundHostPorts=[{"protocol": "TCP", "port": 1, "net": "x"}]),
     "spec.failsafeOutboundHostPorts[0].net", "address/length"),
    (9.5, felix(failsafeOutboundHostPorts=[{"protocol": "", "port": 1}]),
     "spec.failsafeOutboundHostPorts[0].protocol", "protocol must be"),
    (9.5, felix(vxlanPort=0), "spec.vxlanPort", "between 1 and 65535"),
    (9.5, felix(vxlanVNI=16777216), "spec.vxlanVNI", "between 1 and 16777215"),
    (65, felix(routeTableRange={"min": 1, "max": 2}, routeTableRanges=[{"min": 1, "max": 2}]), "spec.routeTableRange",
     "cannot be set when `RouteTableRanges` is also set"),
    (65, felix(routeTableRange={"min": 0, "max": 2}), "spec.routeTableRange", "within 1..250"),
    (65, felix(routeTableRanges=[{"min": 1, "max": 65536}]), "spec.routeTableRanges", "targets too many tables"),
    (65, felix(routeTableRanges=[{"min": 2, "max": 1}]), "spec.routeTableRanges[0]", "route table indices"),
    (65, felix(iptablesRefreshInterval="-1s"), "spec.iptablesRefreshInterval", "must not be negative"),
    (65, felix(iptablesRefreshInterval="5 seconds"), "spec.iptablesRefreshInterval", "unknown unit ' seconds'"),
    (65, felix(iptablesRefreshInterval=5), "spec.iptablesRefreshInterval", "must be a duration with its unit"),
    (9.5, felix(reportingInterval="1500ms"), "spec.reportingInterval", "must be whole hours"),
    (9.5, felix(reportingInterval="2.5s"), "spec.reportingInterval", "must be whole hours"),
    (9.5, felix(reportingInterval="5us"), "spec.reportingInterval", "must be whole hours"),
    (9.5, felix(dataplaneWatchdogTimeout="-1s"), "spec.dataplaneWatchdogTimeout", "must not be negative"),
    (0, felix(ipipMTU="x"), "spec.ipipMTU", "must be a whole number"),
    (0, felix(defaultEndpointToHostAction="DROP"), "spec.defaultEndpointToHostAction", "allowed are Drop, Accept,"),
    (0, felix(chainInsertMode="prepend"), "spec.chainInsertMode", "allowed are Insert, Append"),
    (0, felix(natPortRange="http"), "spec.natPortRange", "must be a port or low:high"),
    (0, felix(natOutgoingAddress="fd00::1"), "spec.natOutgoingAddress", "must be an IPv4 address"),
    (0, felix(mtuIfacePattern="("), "spec.mtuIfacePattern", "must be a regular expression"),
    (0, felix(interfacePrefix="cali,a b"), "spec.interfacePrefix", "interface name prefixes"),
    (0, felix(interfaceExclude="/(/"), "spec.interfaceExclude", "must be a regular expression"),
    (0, felix(iptablesMarkMask=4294967296), "spec.iptablesMarkMask", "between 0 and 4294967295"),
    (0, felix(healthTimeoutOverrides=[{"name": "", "timeout": "1s"}]), "spec.healthTimeoutOverrides[0].name", "regex"),
    (0, felix(openstackRegion="a.b"), "spec.openstackRegion", "DNS label"),
    (0, felix(nodeSelector="all()"), "spec.nodeSelector", "cannot be set on 'default'"),
    (0, felix("rack", nodeSelector="a = b"), "spec.nodeSelector", "expected =="),
    (0, felix(externalNodesList=["fd00::/8"]), "spec.externalNodesList[0]", "IPv4"),
    (0, felix(logActionRateLimit="0/second"), "spec.logActionRateLimit", "1 to 9999 per second"),
    (0, felix(nosuch=1), "spec.nosuch", "not recognized"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "text", "field", "reason"), BAD, ids=[f"{b[0]}-{b[2]}-{n}" for n, b in enumerate(BAD)])
def test_bad_input_is_refused_at_its_field(row: float, text: str, field: str, reason: str) -> None:
    found = told(text)
    assert any(place == field and reason in why for place, why in found), found


ALLOWED = [
    pool(cidr="10.0.0.0/28", disabled=True),
    pool(cidr="10.0.0.0/016"),
    pool(ipipMode="", vxlanMode="", allowedUses=[]),
    pool(allowedUses=["Workload", "Workload"]),
    pool(allowedUses=["Workload"], namespaceSelector="has(x)"),
    pool(allowedUses=["LoadBalancer"]),
    v3("IPPool", {"cidr": "10.0.0.0/16"}, "a" * 253),
    v3("IPPool", {"cidr": "10.0.0.0/16"}, labels={"a.b/" + "k" * 63: "v" * 63, "n": 1}, annotations={"A/b": "x y!"}),
    bgp(prefixAdvertisements=[{"cidr": "10.0.0.0/8", "communities": ["1:1", "1:2:4294967295"]}]),
    bgp(nodeMeshPassword={"secretKeyRef": {}}, serviceExternalIPs=[{"cidr": "10.0.0.1"}]),
    bgp(nodeMeshMaxRestartTime="2.5s", asNumber="1.10", ignoredInterfaces=["docker*"]),
    bgp("node.x", listenPort=179, logSeverityScreen="Debug"),
    node(),
    node(bgp={"ipv4Address": "172.16.60.217", "asNumber": "64512"}),
    node(bgp={"ipv4Address": "10.0.0.1/024"}, addresses=[{"address": "10.0.0.1/24", "type": "InternalIP"}]),
    endpoint(mac="EE-EE-EE-00-00-01"),
    endpoint(mac="eeee.ee00.0001", ipNetworks=["10.0.0.1", "fd00::1/128"], ipv4Gateway="169.254.1.1"),
    endpoint(orchestrator="docker", workload="web-1"),
    endpoint(ports=[{"name": "http-alt", "protocol": 6, "port": 8080}], qosControls={"dscp": "EF"}),
    rule(protocol="TCP", destination={"ports": list(range(1, 22))}),
    rule(protocol="UDPLite", source={"ports": []}),
    rule(destination={"ports": ["http"]}),
    rule(notICMP={"type": 3}, notProtocol="SCTP"),
    rule(protocol="TCP", destination={"ports": ["080", "0x50"]}),
    rule(source={"namespaceSelector": "global()"}),
    rule(source={"selector": "a == 'global()'", "notSelector": "global()"}),
    rule(source={"serviceAccounts": {}}),
    policy(serviceAccountSelector="!has(x)"),
    *(namespaced("NetworkPolicy", {}, name) for name in ("a.b", "ossg.default.a.b.c")),
    namespaced("NetworkPolicy", {"selector": "all()", "types": ["Egress"], "order": 1, "tier": "t",
                                 "performanceHints": ["AssumeNeededOnEveryNode"]}),
    staged(stagedAction="Learn", preDNAT=True, applyOnForward=True),
    staged(stagedAction="Delete", tier="t", types=["Ingress"]),
    namespaced("StagedNetworkPolicy", {"stagedAction": "Ignore"}),
    netset("10.1.2.3/8", "203.0.113.7", "2001:db8::1"),
    namespaced("NetworkSet", {}),
    hep(interfaceName="*"),
    hep(interfaceName="", expectedIPs=["10.0.0.1", "fd00::1"], profiles=["a.b"]),
    hep(ports=[{"name": "web", "protocol": 132, "port": 8080}, {"name": "web", "protocol": "TCP", "port": 1}]),
    policy(order=-1.5, types=["Egress", "Ingress"], performanceHints=["AssumeNeededOnEveryNode"]),
    policy(preDNAT=True, applyOnForward=True, ingress=[{"action": "Deny"}]),
    v3("Profile", {}, "UPPER".lower() + ".a.b.c"),
    v3("Tier", {"order": -5}),
    felix(chainInsertMode="insert", routeSource="calicoipam"),
    felix(failsafeInboundHostPorts=[{"protocol": "tcp", "port": 22, "net": "10.0.0.1/8"}]),
    felix(reportingInterval="1.5h", xdpRefreshInterval=".5s", dataplaneWatchdogTimeout="1.5s"),
    felix(routeTableRanges=[{"min": 1, "max": 65535}], natPortRange="32768:61000", iptablesMarkMask=4294901760),
    felix(featureDetectOverride="A=true,B=,", interfaceExclude="/^kube/,veth1", ipipMTU=0, goGCThreshold=-1),
    felix("rack", nodeSelector="rack == 'r1'"),
]


@pytest.mark.parametrize("text", ALLOWED)
def test_what_must_stay_allowed(text: str) -> None:
    assert len(read(text).documents) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pool(cidr="17.16.10.0/24"), "is public address space"),
        (pool(cidr="172.0.0.0/8"), "is public address space"),
        (pool(cidr="2001:4860::/32"), "is public address space"),
        (rule(protocol="ICMP", source={"nets": ["fd00::/8"]}), "never matches: ICMP with IPv6 nets"),
        (rule(protocol="ICMPv6", source={"nets": ["10.0.0.0/8"]}), "never matches: ICMPv6 with IPv4 nets"),
        (rule(protocol="TCP", notProtocol="TCP"), "never matches: protocol and notProtocol are the same"),
        (rule(source={"namespaceSelector": "has(team)"}), "source.namespaceSelector = 'has(team)': selects nothing"),
        (profile(egress=[{"action": "Allow"}, {"action": "Pass"}]), "spec.egress[1].action = 'Pass': denies: nothing"),
        (policy(namespaceSelector="team == 'a'"), "selects nothing: namespaces have labels only in Kubernetes"),
        (policy(types=["Ingress"], egress=[{"action": "Allow"}]), "spec.egress: these rules are never used: types has"),
        (policy(doNotTrack=True, applyOnForward=True, ingress=[{"action": "Allow"}]), "by rules of type Egress"),
        (policy(doNotTrack=True, applyOnForward=True, types=["Ingress", "Egress"], egress=[{"action": "Allow"}]),
         "allow the answers by rules of type Ingress"),
        (bgp("other"), "nothing reads this object"),
        (felix("other"), "nothing reads this object"),
    ],
)
def test_what_is_allowed_with_a_warning(text: str, words: str) -> None:
    loaded = read(text)
    assert len(loaded.documents) == 1
    assert [words in str(warning) for warning in loaded.warnings] == [True]


@pytest.mark.parametrize(
    "text",
    [
        *(rule(source={"namespaceSelector": text}) for text in ("all()", "global()", "!has(team)")),
        policy(namespaceSelector="all()"),
        policy(doNotTrack=True, applyOnForward=True, ingress=[{"action": "Allow"}], egress=[{"action": "Allow"}]),
        policy(doNotTrack=True, applyOnForward=True, ingress=[{"action": "Deny"}]),
        policy(types=["Ingress", "Egress"], egress=[{"action": "Allow"}]),
    ],
)
def test_what_needs_no_warning(text: str) -> None:
    assert read(text).warnings == ()


@pytest.mark.parametrize(
    ("written", "stored"),
    [("GRE", 47), ("gre", 47), ("Esp", 50), ("ah", 51), ("ospf", 89), ("ipv6", 41), ("TCP", "TCP"), ("47", 47), (1, 1)],
)
def test_protocols_without_a_name_in_the_store_are_stored_by_number(written: object, stored: object) -> None:
    """So that the original's tools, which know six names, can read them."""
    rules = [{"action": "Allow", "protocol": written}, {"action": "Deny", "notProtocol": written}]
    (document,) = read(policy(ingress=rules)).documents
    rules = json.loads(encode(document.kind, document.resource))["spec"]["ingress"]
    assert [rules[0]["protocol"], rules[1]["notProtocol"]] == [stored, stored]


@pytest.mark.parametrize(
    ("written", "way_out"),
    [("tcp", "did you mean 'TCP'?"), ("tpc", "did you mean 'TCP'?"), ("icmp6", "did you mean 'ICMPv6'?"),
     ("grep", "did you mean 'GRE'?"), ("IPIP", "IP in IP is 4"), ("foo", "its number, 1 to 255")],
)  # fmt: skip
def test_an_unknown_protocol_is_told_with_all_names(written: str, way_out: str) -> None:
    with pytest.raises(InvalidFile, match=r"names are TCP, UDP, .*, UDPLite, .*GRE, ESP, AH") as caught:
        read(rule(protocol=written))
    assert str(caught.value).endswith(way_out)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        *((namespaced(kind, {field: "x"}), "a policy of a namespace has none: take the global kind")
          for kind in ("NetworkPolicy", "StagedNetworkPolicy")
          for field in ("doNotTrack", "preDNAT", "applyOnForward", "namespaceSelector")),
        (policy(stagedAction="Set"), "only StagedGlobalNetworkPolicy and StagedNetworkPolicy have it"),
        (namespaced("NetworkPolicy", {"stagedAction": "Set"}), "only StagedGlobalNetworkPolicy and Staged"),
        (policy(ingress=[{"action": "Allow", "doNotTrack": True}]), "known are action"),
    ],
)  # fmt: skip
def test_a_field_of_another_kind_of_policy_is_told_whose_it_is(text: str, hint: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(text)
    (finding,) = caught.value.findings
    assert hint in (finding.problem.hint or "")


@pytest.mark.parametrize("kind", ["globalnetworkpolicies", "networkpolicies"])
@pytest.mark.parametrize(
    "rule",
    [
        {"action": "Allow", "http": {"methods": ["GET"]}},
        {"action": "Allow", "source": {"services": {"name": "a", "namespace": "b"}}},
        {"action": "Deny", "source": {"serviceAccounts": {"names": ["a"]}}},
    ],
)
def test_what_is_refused_when_written_is_read_where_it_is_stored(kind: str, rule: object) -> None:
    """Felix closes the rule; a reader that refused the policy as a whole would also lose its other rules."""
    spec = {"ingress": [rule], "serviceAccountSelector": "has(x)"}
    value = json.dumps({"metadata": {"name": "p"}, "spec": spec}).encode()
    found = decode(by_plural()[kind], value, 5).resource
    assert found.spec.ingress[0].action == rule["action"]  # type: ignore[index]
    assert any(not problem.warning for problem in by_plural()[kind].check(found))


def test_a_service_without_a_namespace_is_read_in_a_policy_of_a_namespace_only() -> None:
    spec = {"egress": [{"action": "Allow", "destination": {"services": {"name": "a"}}}]}
    value = json.dumps({"metadata": {"name": "p"}, "spec": spec}).encode()
    assert decode(by_plural()["networkpolicies"], value, 5).resource
    with pytest.raises(BadRecord, match="must specify a namespace"):
        decode(by_plural()["globalnetworkpolicies"], value, 5)


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "192.168.5.0/24", "172.31.0.0/16", "100.64.0.0/10", "fd00::/8"])
def test_private_space_needs_no_warning(cidr: str) -> None:
    assert read(pool(cidr=cidr)).warnings == ()


def test_an_endpoint_has_the_name_that_its_identifiers_make() -> None:
    text = endpoint().replace('"namespace"', '"name": "wrong", "namespace"')
    assert told(text) == [
        (
            "metadata.name",
            "the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: "
            "expected name node1-libnetwork-libnetwork-ep",
        )
    ]
