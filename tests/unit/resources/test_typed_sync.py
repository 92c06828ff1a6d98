"""Changes of keys -> changes of typed resources; bad records are told apart and do no harm."""

import json
import math

import pytest

from resources.datastore.keys import ResourceKey, resource_key
from resources.datastore.sync import Change
from resources.kinds.globalnetworkpolicy import KIND as POLICY
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.globalnetworkset import KIND as GLOBAL_SET
from resources.kinds.globalnetworkset import GlobalNetworkSet
from resources.kinds.hostendpoint import KIND as HOST
from resources.kinds.hostendpoint import HostEndpoint
from resources.kinds.networkpolicy import KIND as NETWORK_POLICY
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.networkset import KIND as SET
from resources.kinds.networkset import NetworkSet
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.kinds.workloadendpoint import EndpointPort
from resources.typed_sync import TypedChange, TypedReader

READER = TypedReader([POOL, POLICY, ENDPOINT])
FELIX_READER = TypedReader([HOST, GLOBAL_SET, SET])


def policy(spec: object) -> TypedChange:
    key = ResourceKey("globalnetworkpolicies", "p")
    document = {"metadata": {"name": "p"}, "spec": spec}
    change = READER.read(Change(resource_key(key), json.dumps(document).encode(), 9))
    assert change is not None
    return change


def test_a_value_becomes_a_complete_resource() -> None:
    key = ResourceKey("ippools", "a")
    change = READER.read(Change(resource_key(key), b'{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/24"}}', 5))
    assert change is not None
    assert change.key == key
    assert change.bad is None
    assert isinstance(change.value, IPPool)
    assert change.value.spec.block_size == 26
    assert change.value.metadata.resource_version == "5"


def test_a_deletion_has_no_value() -> None:
    key = ResourceKey("workloadendpoints", "n-x", "libnetwork")
    assert READER.read(Change(resource_key(key), None, 5)) == TypedChange(key, None)


@pytest.mark.parametrize(
    "key",
    [
        "/calico/resources/v3/projectcalico.org/nodes/n1",
        "/calico/resources/v3/projectcalico.org/ippools/a/b",
        "/calico/resources/v3/projectcalico.org/workloadendpoints/x",
        "/calico/ipam/v2/config",
        "/other",
    ],
)
def test_other_keys_are_ignored(key: str) -> None:
    assert READER.read(Change(key, b"{}", 5)) is None
    assert list(READER.read_all([Change(key, b"{}", 5)])) == []


def test_prefixes_are_those_of_the_kinds() -> None:
    root = "/calico/resources/v3/projectcalico.org/"
    assert READER.prefixes == (f"{root}globalnetworkpolicies/", f"{root}ippools/", f"{root}workloadendpoints/")


def test_a_bad_record_is_reported_and_counts_as_gone() -> None:
    change = READER.read(Change(resource_key(ResourceKey("ippools", "a")), b"{not json", 5))
    assert change is not None
    assert change.value is None
    assert change.bad is not None
    assert "IPPool(a)" in str(change.bad)


def test_a_bad_policy_becomes_a_deny_for_what_it_selects() -> None:
    change = policy(
        {
            "selector": "role == 'db'", "order": 5, "tier": "t", "types": ["Egress", "Ingress"],
            "namespaceSelector": "has(x)", "ingress": [{"action": "Permit"}], "applyOnForward": True,
        }
    )  # fmt: skip
    assert change.bad is not None
    assert isinstance(change.value, GlobalNetworkPolicy)
    spec = change.value.spec
    assert (spec.selector, spec.namespace_selector, spec.order, spec.tier) == ("role == 'db'", "has(x)", 5.0, "t")
    assert spec.types == ["Ingress", "Egress"]
    assert spec.apply_on_forward
    assert [rule.action for rule in spec.ingress] == [rule.action for rule in spec.egress] == ["Deny"]
    assert change.value.metadata.name == "p"
    assert list(POLICY.needs(change.value)) == []


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({"ingress": [{"action": "x"}]}, ["Ingress"]),
        ({"egress": [{"action": "x"}]}, ["Egress"]),
        ({"egress": [{"action": "x"}], "ingress": [{"action": "Allow"}]}, ["Ingress", "Egress"]),
        ({"types": ["Egress"], "ingress": [{"action": "x"}]}, ["Egress"]),
        ({"types": ["Egress"], "order": "x"}, ["Egress"]),
    ],
)
def test_the_deny_works_in_the_policy_s_directions(spec: dict[str, object], types: list[str]) -> None:
    change = policy(spec)
    assert isinstance(change.value, GlobalNetworkPolicy)
    assert change.value.spec.types == types
    assert bool(change.value.spec.ingress) is ("Ingress" in types)
    assert bool(change.value.spec.egress) is ("Egress" in types)


def test_a_bad_policy_of_a_namespace_becomes_a_deny_in_its_place() -> None:
    key = ResourceKey("networkpolicies", "p", "libnetwork")
    spec = {"selector": "role == 'db'", "order": 5, "tier": "t", "egress": [{"action": "Permit"}],
            "serviceAccountSelector": "has(x)", "namespaceSelector": "no field of this kind"}  # fmt: skip
    document = {"metadata": {"name": "p", "namespace": "libnetwork"}, "spec": spec}
    change = TypedReader([NETWORK_POLICY]).read(Change(resource_key(key), json.dumps(document).encode(), 9))
    assert change is not None
    assert change.bad is not None
    assert "NetworkPolicy(libnetwork/p)" in str(change.bad)
    assert isinstance(change.value, NetworkPolicy)
    assert change.value.metadata.namespace == "libnetwork"
    found = change.value.spec
    assert (found.selector, found.service_account_selector, found.order, found.tier) == (
        "role == 'db'", "has(x)", 5.0, "t",
    )  # fmt: skip
    assert ([rule.action for rule in found.egress], found.ingress, found.types) == (["Deny"], [], ["Egress"])


def test_without_a_readable_order_the_deny_comes_first() -> None:
    change = policy({"order": "first"})
    assert isinstance(change.value, GlobalNetworkPolicy)
    assert change.value.spec.order == -math.inf


@pytest.mark.parametrize(
    "spec",
    [
        {"selector": "role = 'x'"}, {"selector": 5}, {"namespaceSelector": "(", "ingress": [{"action": "x"}]},
        {"types": ["Both"]}, {"types": "Ingress"}, {"tier": 5, "order": "x"}, [], None, 7,
    ],
)  # fmt: skip
def test_a_policy_of_which_nothing_is_known_has_no_value(spec: object) -> None:
    change = policy(spec)
    if spec is None:  # Go reads a null as an empty spec
        assert change.bad is None
        return
    assert change.bad is not None
    assert change.value is None


def read(key: ResourceKey, document: object) -> TypedChange:
    change = FELIX_READER.read(Change(resource_key(key), json.dumps(document).encode(), 9))
    assert change is not None
    assert change.bad is not None
    return change


@pytest.mark.parametrize("levels", [400, 900, 100_000])
def test_a_record_of_too_many_levels_harms_nobody_else(levels: int) -> None:
    for value in (b"[" * levels, b"[" * levels + b"]" * levels, b'{"spec":' + b'{"a":' * levels):
        for kind in (POLICY, POOL):
            change = TypedReader([kind]).read(Change(resource_key(ResourceKey(kind.plural, "x")), value, 1))
            assert change is not None
            assert change.value is None
            assert change.bad is not None


class TestHostEndpointsThatCannotBeRead:
    """Without its endpoint an interface is open, so it stands in what can be read, without profiles."""

    KEY = ResourceKey("hostendpoints", "h")

    def read(self, spec: object, labels: object = None) -> HostEndpoint | None:
        value = read(self.KEY, {"metadata": {"name": "h", "labels": labels}, "spec": spec}).value
        assert value is None or isinstance(value, HostEndpoint)
        return value

    @pytest.mark.parametrize(
        "wrong",
        [
            {"ports": [{"name": "x", "protocol": "ICMP", "port": 1}]},
            {"ports": "all"},
            {"expectedIPs": ["192.0.2.1", "nonsense", 7]},
            {"profiles": 5},
        ],
    )
    def test_the_interface_stays_closed(self, wrong: dict[str, object]) -> None:
        found = self.read({"node": "n", "interfaceName": "eth0", "profiles": ["open"], **wrong}, {"role": "host"})
        assert found is not None
        assert (found.spec.node, found.spec.interface_name, found.spec.profiles) == ("n", "eth0", [])
        assert found.metadata.labels == {"role": "host"}
        assert found.metadata.name == "h"
        assert found.spec.expected_ips == (["192.0.2.1", "nonsense", "7"] if "expectedIPs" in wrong else [])

    @pytest.mark.parametrize("ports", [[{"name": "http", "protocol": "TCP", "port": 80}, {"port": 1}], "all"])
    def test_a_port_that_cannot_be_read_is_none_but_is_there(self, ports: object) -> None:
        found = self.read({"node": "n", "interfaceName": "eth0", "ports": ports})
        assert found is not None
        assert [(port.name, port.port) for port in found.spec.ports if port.name] == [("http", 80)] * (ports != "all")
        assert [port for port in found.spec.ports if not port.name] == [EndpointPort(protocol="", port=0)]

    def test_labels_that_cannot_be_read_are_none(self) -> None:
        found = self.read({"node": "n", "interfaceName": "eth0"}, {"role": [5]})
        assert found is not None
        assert found.metadata.labels == {}

    @pytest.mark.parametrize("spec", [[], {"node": [5], "interfaceName": "eth0"}, {"node": "n", "expectedIPs": [{}]}])
    def test_nobody_knows_which_interface(self, spec: object) -> None:
        assert self.read(spec) is None


class TestNetworkSetsThatCannotBeRead:
    @pytest.mark.parametrize(
        ("spec", "nets"),
        [
            ({"nets": ["10.0.0.0/8", 7, None]}, ["10.0.0.0/8", "7", "null"]),
            ({"nets": "10.0.0.0/8"}, ["10.0.0.0/8"]),
            ({"nets": {"a": 1}}, ['{"a":1}']),
            (5, ["5"]),
        ],
    )
    def test_its_labels_stand_with_all_it_holds_as_text(self, spec: object, nets: list[str]) -> None:
        document = {"metadata": {"name": "s", "labels": {"zone": "office"}}, "spec": spec}
        for key in (ResourceKey("globalnetworksets", "s"), ResourceKey("networksets", "s", "x")):
            value = read(key, document).value
            assert isinstance(value, NetworkSet if key.namespace else GlobalNetworkSet)
            assert value.spec.nets == nets
            assert value.metadata.labels == {"zone": "office"}

    def test_without_labels_nobody_knows_who_uses_it(self) -> None:
        document = {"metadata": {"name": "s", "labels": {"zone": [5]}}, "spec": {"nets": [5]}}
        assert read(ResourceKey("globalnetworksets", "s"), document).value is None
