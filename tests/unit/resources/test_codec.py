"""Stored JSON <-> typed: byte for byte what the original stored, and nothing lost on the way."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import codec
from resources.codec import BadRecord, decode, encode
from resources.datastore.keys import ResourceKey, parse_resource_key
from resources.gotext import JSON, json_bytes, json_float, shown_float
from resources.kinds import all_kinds, by_name, by_plural, namespaced_plurals
from resources.kinds.base import Kind, Metadata
from resources.kinds.felixconfiguration import KIND as FELIX
from resources.kinds.globalnetworkpolicy import KIND as POLICY
from resources.kinds.node import KIND as NODE
from resources.kinds.node import NodeBGPSpec, OrchRef
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import KIND as ENDPOINT

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "calico-v3"
STORED = [json.loads(line) for line in (FIXTURES / "etcd.jsonl").read_text().splitlines()]


def kind_of(key: str) -> tuple[Kind[IPPool], ResourceKey]:
    parsed = parse_resource_key(key, namespaced_plurals())
    assert parsed is not None
    return by_plural()[parsed.plural], parsed


@pytest.mark.parametrize("record", STORED, ids=lambda record: "/".join(record["key"].split("/")[5:]))
def test_what_the_original_stored_comes_out_with_the_same_bytes(record: dict[str, str]) -> None:
    kind, key = kind_of(record["key"])
    stored = decode(kind, record["value"].encode(), 7, key)
    assert encode(kind, stored.resource).decode() == record["value"]
    assert encode(kind, stored.resource, stored.document).decode() == record["value"]
    assert stored.resource.metadata.resource_version == "7"
    assert (stored.resource.metadata.name, stored.resource.metadata.namespace) == (key.name, key.namespace)


def test_every_kind_is_in_the_recorded_store() -> None:
    seen = {record["key"].split("/")[5] for record in STORED}
    assert seen == set(by_plural()) - {"stagednetworkpolicies"}  # none was recorded


@pytest.mark.parametrize("record", STORED, ids=lambda record: "/".join(record["key"].split("/")[5:]))
def test_what_the_original_stored_passes_the_checks(record: dict[str, str]) -> None:
    kind, key = kind_of(record["key"])
    resource = decode(kind, record["value"].encode(), 7, key).resource
    found = [p for p in kind.check(resource) if not p.warning]
    assert ["http" in p.path for p in found] == [True] * ("/tiered" in record["key"])  # nothing here can enforce that


@pytest.mark.parametrize("plural", ["stagedglobalnetworkpolicies", "stagednetworkpolicies"])
@pytest.mark.parametrize("action", ["", "Set", "Delete", "Learn", "Ignore"])
def test_a_staged_policy_says_what_is_to_be_done(plural: str, action: str) -> None:
    kind = by_plural()[plural]
    stored = msgspec.json.encode({"metadata": {"name": "p"}, "spec": {"stagedAction": action, "types": ["Egress"]}})
    resource = decode(kind, stored, 7).resource
    assert kind.complete(resource) == resource
    assert list(kind.check(resource)) == []
    spec = msgspec.json.decode(encode(kind, resource))["spec"]
    types = {} if action == "Delete" else {"types": ["Egress"]}
    assert spec == {"stagedAction": action or "Set", "tier": "default", **types}


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_complete_changes_nothing_the_second_time(kind: Kind[IPPool]) -> None:
    for record in STORED:
        found, key = kind_of(record["key"])
        if found is kind:
            resource = decode(kind, record["value"].encode(), 7, key).resource
            assert kind.complete(resource) == resource


def test_unknown_fields_are_kept_at_every_level() -> None:
    value = (
        b'{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","generation":3},'
        b'"spec":{"ingress":[{"action":"Allow","source":{"nets":["10.0.0.0/8"],"zone":{"deep":[1.5,null]}},'
        b'"destination":{},"quota":7}],"newer":true},"status":{"seen":1}}'
    )
    stored = decode(PROFILE, value, 3)
    assert encode(PROFILE, stored.resource, stored.document) == value


def test_an_update_keeps_what_it_does_not_know() -> None:
    value = b'{"metadata":{"name":"a","finalizers":[1]},"spec":{"cidr":"10.0.0.0/24","colour":"red"},"status":{"x":1}}'
    stored = decode(POOL, value, 3)
    changed = msgspec.structs.replace(
        stored.resource, spec=msgspec.structs.replace(stored.resource.spec, nat_outgoing=True)
    )
    written = json.loads(encode(POOL, changed, stored.document))
    assert written["spec"]["natOutgoing"] is True
    assert written["spec"]["colour"] == "red"
    assert written["status"] == {"x": 1}
    assert written["metadata"] == {"name": "a", "finalizers": [1]}


def rules(*entries: dict[str, object]) -> dict[str, JSON]:
    document = {"metadata": {"name": "p"}, "spec": {"ingress": list(entries)}}
    return msgspec.json.decode(msgspec.json.encode(document))  # type: ignore[no-any-return]


def allow(net: str, **extra: object) -> dict[str, object]:
    return {"action": "Allow", "source": {"nets": [net]}, "destination": {}} | extra


@pytest.mark.parametrize(
    ("nets", "colours"),
    [
        (["10.0.0.0/8", "11.0.0.0/8"], ["red", "blue"]),
        (["12.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8"], [None, "red", "blue"]),
        (["11.0.0.0/8", "10.0.0.0/8"], ["blue", "red"]),
        (["11.0.0.0/8"], ["blue"]),
        (["12.0.0.0/8", "11.0.0.0/8"], ["red", "blue"]),
        (["12.0.0.0/8"], [None]),
    ],
    ids=["same", "one before", "swapped", "first gone", "first changed", "all new"],
)
def test_unknown_fields_stay_with_their_list_entry(nets: list[str], colours: list[str | None]) -> None:
    before = rules(allow("10.0.0.0/8", colour="red"), allow("11.0.0.0/8", colour="blue"))
    resource = decode(PROFILE, json_bytes(before), 1).resource
    changed = msgspec.structs.replace(
        resource,
        spec=msgspec.structs.replace(
            resource.spec, ingress=[Rule(action="Allow", source=EntityRule(nets=[net])) for net in nets]
        ),
    )
    written = json.loads(encode(PROFILE, changed, before))
    assert [rule.get("colour") for rule in written["spec"]["ingress"]] == colours


def test_resource_version_and_self_link_are_never_stored() -> None:
    pool = IPPool(metadata=Metadata(name="a", resource_version="5"), spec=IPPoolSpec(cidr="10.0.0.0/24"))
    written = json.loads(encode(POOL, pool, {"metadata": {"selfLink": "/x", "resourceVersion": "4"}}))
    assert written["metadata"] == {"name": "a"}


def test_rules_of_omission() -> None:
    node = NODE.type(spec=msgspec.structs.replace(NODE.type().spec, bgp=NodeBGPSpec(as_number=0)))
    assert json.loads(encode(NODE, node))["spec"] == {"bgp": {"asNumber": 0}}
    assert json.loads(encode(NODE, node))["status"] == {}
    ref = msgspec.structs.replace(node.spec, bgp=None, orch_refs=[OrchRef(orchestrator="")])
    assert json.loads(encode(NODE, NODE.type(spec=ref)))["spec"] == {"orchRefs": [{"orchestrator": ""}]}
    felix = FELIX.type(spec=msgspec.structs.replace(FELIX.type().spec, failsafe_inbound_host_ports=[]))
    assert json.loads(encode(FELIX, felix))["spec"] == {"bpfLogLevel": "", "failsafeInboundHostPorts": []}


def test_go_escapes_in_texts() -> None:
    pool = IPPool(metadata=Metadata(name="a", annotations={"note": "a<b&c>\u2028é"}), spec=IPPoolSpec(cidr="x"))
    assert b'"note":"a\\u003cb\\u0026c\\u003e\\u2028\xc3\xa9"' in encode(POOL, pool)


@pytest.mark.parametrize(
    ("value", "stored", "shown"),
    [
        (100.0, "100", "100"), (-1.5, "-1.5", "-1.5"), (1000.25, "1000.25", "1000.25"), (1e6, "1000000", "1e+06"),
        (1e7, "10000000", "1e+07"), (1234567.0, "1234567", "1.234567e+06"), (999999.0, "999999", "999999"),
        (1e20, "100000000000000000000", "1e+20"), (1e21, "1e+21", "1e+21"), (1e-6, "0.000001", "1e-06"),
        (1.5e-7, "1.5e-7", "1.5e-07"), (0.0, "0", "0"), (0.0001, "0.0001", "0.0001"), (1.5e-10, "1.5e-10", "1.5e-10"),
    ],
)  # fmt: skip
def test_numbers_as_go_writes_them(value: float, stored: str, shown: str) -> None:
    assert json_float(value) == stored
    assert json_bytes({"x": value}) == f'{{"x":{stored}}}'.encode()
    assert shown_float(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives(value: float) -> None:
    assert float(json_float(value)) == value
    assert float(shown_float(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError):
        json_float(value)


def test_a_null_means_not_given() -> None:
    value = b'{"metadata":{"name":"a","uid":null,"labels":null},"spec":{"cidr":"10.0.0.0/24","disabled":null}}'
    resource = decode(POOL, value, 1).resource
    assert resource.metadata == Metadata(name="a", resource_version="1")
    assert resource.spec.disabled is False


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (POOL, b"{not json", "no JSON"),
        (POOL, b"\xff\xfe", "no JSON"),
        pytest.param(POOL, b"[" * 100_000, "nested too deeply", id="deep list"),
        pytest.param(POOL, b'{"spec":' + b'{"a":' * 100_000, "nested too deeply", id="deep mapping"),
        (POOL, b"[1]", "must be a mapping"),
        (POOL, b'"x"', "must be a mapping"),
        (POOL, b"null", "IPPool CIDR must be specified"),
        (POOL, b'{"metadata":{"name":"a"},"spec":{}}', "IPPool CIDR must be specified"),
        (POOL, b'{"spec":{"cidr":"10.0.0.1/24"}}', "not strictly masked"),
        (POOL, b'{"spec":{"cidr":"10.0.0.0/24","natOutgoing":"true"}}', "spec.natOutgoing = 'true'"),
        (POOL, b'{"spec":{"cidr":"10.0.0.0/24","blockSize":"26"}}', "spec.blockSize = '26'"),
        (POOL, b'{"spec":{"cidr":"10.0.0.0/24","blockSize":99}}', "must be between 20 and 32"),
        (NODE, b'{"spec":{"bgp":{"ipv4Address":"x"}}}', "spec.bgp.ipv4Address = 'x'"),
        (NODE, b'{"spec":{"bgp":{"asNumber":4294967296}}}', "AS Number"),
        (ENDPOINT, b'{"spec":{"node":"n","interfaceName":"cali1","ipNetworks":["10.0.0.0/24"]}}', "multiple addresses"),
        (ENDPOINT, b'{"spec":{"node":"n","ipNetworks":["10.0.0.1"]}}', "interfaceName"),
        (POLICY, b'{"spec":{"selector":"role = 1"}}', "spec.selector"),
        (POLICY, b'{"spec":{"ingress":[{"action":"Permit"}]}}', "spec.ingress[0].action = 'Permit'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(kind: Kind[IPPool], value: bytes, words: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decode(kind, value, 1, ResourceKey(kind.plural, "broken"))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{kind.name}(broken) cannot be read: ")
    assert caught.value.problems


def test_all_problems_of_a_record_are_told() -> None:
    value = b'{"spec":{"cidr":5,"disabled":"no","blockSize":true}}'
    with pytest.raises(BadRecord) as caught:
        decode(POOL, value, 1)
    assert {p.path[-1] for p in caught.value.problems} == {"disabled", "blockSize"}


@pytest.mark.parametrize(
    "value",
    [
        b'{"spec":{"bgp":{"ipv4Address":"::ffff:10.0.0.1/120"},"addresses":[{"address":"x"}]}}',
        b'{"spec":{"bgp":{"ipv4Address":"10.0.0.1/024"},"vxlanTunnelMACAddr":"00:00:00:00:00:00:00:01"}}',
    ],
)
def test_what_the_original_let_pass_can_be_read(value: bytes) -> None:
    """Reference resources.md 9: checked when we write, tolerated when read."""
    node = decode(NODE, value, 1).resource
    assert str(node.ipv4) == "10.0.0.1/24"
    assert list(NODE.check(node))


def test_a_name_comes_from_the_key_where_the_value_has_none() -> None:
    key = ResourceKey("workloadendpoints", "n-x", "libnetwork")
    value = b'{"spec":{"node":"n","interfaceName":"cali1","orchestrator":"docker"}}'
    endpoint = decode(ENDPOINT, value, 1, key).resource
    assert (endpoint.metadata.name, endpoint.metadata.namespace) == ("n-x", "libnetwork")
    assert endpoint.metadata.labels["projectcalico.org/namespace"] == "libnetwork"


def test_output_leaves_empty_sides_of_rules_out_and_keeps_empty_status() -> None:
    profile = by_name()["Profile"].type(spec=PROFILE.type().spec.__class__(ingress=[Rule(action="Allow")]))
    assert codec.shown_document(PROFILE, profile)["spec"] == {"ingress": [{"action": "Allow"}]}
    assert codec.document_of(PROFILE, profile)["spec"] == {
        "ingress": [{"action": "Allow", "source": {}, "destination": {}}]
    }
    assert codec.shown_document(NODE, NODE.type())["status"] == {}
