"""Files -> resources or all findings with their places; agreement with the original on what is accepted."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clock import ManualClock
from resources.codec import encode, shown_document
from resources.datastore.client import ResourceClient
from resources.datastore.keys import ResourceKey, resource_key
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction
from resources.documents import Document, Finding, InvalidFile, Loaded, load
from resources.errors import CalicoError
from resources.gotext import json_bytes
from resources.kinds import by_plural
from resources.names import IPAddress, IPNetwork, NodeName

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "calico-v3"
CLI = [json.loads(line) for line in (FIXTURES / "cli.jsonl").read_text().splitlines()]
STORED = {
    record["key"]: record["value"]
    for record in map(json.loads, (FIXTURES / "etcd.jsonl").read_text().splitlines())
}
PARTS = (FIXTURES / "input.yaml").read_text().split("---")
(WITH_HTTP,) = [part for part in PARTS if "http:" in part]
"""A policy that the original stores and that nothing here can enforce."""
INPUT = "---".join(part for part in PARTS if part != WITH_HTTP).encode()

POOL = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/24}\n"
BAD_POOL = POOL.replace("10.0.0.0", "10.0.0.1")


def read(text: str, namespace: str | None = None) -> Loaded:
    return load(text.encode(), "f.yaml", namespace=namespace)


def one(text: str) -> Document:
    (document,) = read(text).documents
    return document


def findings(text: str, namespace: str | None = None) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        read(text, namespace)
    assert str(caught.value).splitlines() == [str(finding) for finding in caught.value.findings]
    return str(caught.value).splitlines()


class NoIpam:
    def release_pool(self, pool: IPNetwork) -> None:
        pass

    def release_node(self, node: NodeName, addresses: Sequence[IPAddress]) -> None:
        pass


# --- what the original's own input becomes


def test_the_recorded_input_is_stored_as_the_original_stored_it() -> None:
    """All but uid and creation time, byte for byte."""
    store = MemoryStore()
    client = ResourceClient(store, clock=ManualClock())
    client.ensure_defaults()
    for document in load(INPUT, "input.yaml").documents:
        client.apply(document.kind, document.resource)
    marks = re.compile(r'"uid":"[^"]*","creationTimestamp":"[^"]*"')
    for item in store.list("/calico/resources/").items:
        if "clusterinformations" in item.key:
            continue
        assert marks.sub("", item.value.decode()) == marks.sub("", STORED[item.key])
    made = {item.key for item in store.list("/calico/resources/").items}
    missing = {key.rpartition("/")[2] for key in STORED.keys() - made}
    assert missing == {"kube-admin", "kube-baseline", "tiered"}  # tiers of Kubernetes, which we do not make; WITH_HTTP


def test_what_nothing_can_enforce_is_refused_when_written_and_shown_when_stored() -> None:
    (told,) = findings(WITH_HTTP)
    assert "spec.ingress[0].http: nothing here can enforce it" in told
    assert "leave http out and allow the port" in told
    (key,) = [key for key in STORED if key.endswith("/tiered")]
    client = ResourceClient(MemoryStore(), clock=ManualClock())
    client.ensure_defaults()
    client.store.commit(_put(key))
    kind = by_plural()["networkpolicies"]
    shown = client.get(kind, "tiered", "libnetwork")
    assert b'"http":' in json_bytes(shown_document(kind, shown))
    with pytest.raises(CalicoError, match="nothing here can enforce it"):
        client.update(kind, shown)
    client.delete(kind, "tiered", "libnetwork")


def test_public_space_is_warned_of_at_its_place() -> None:
    warning, *_ = load(INPUT, "input.yaml").warnings
    assert str(warning).startswith("input.yaml:16:9: spec.cidr = '17.16.10.0/24': is public address space")


# --- agreement with the original

OURS_IS_STRICTER = {
    '"failsafeInboundHostPorts": [{"protocol": "icmp"': "reference resources.md 6, row 64",
    '"kind": "BGPPeer", "metadata": {"name": "x"}, "spec": {}': "reference resources.md 9",
    '"kind": "BGPPeer", "metadata": {"name": "x"}, "spec": {"asNumber": 5}': "names no peer either",
}
OURS_HAS_V1 = "apiVersion: v1\nkind: ipPool"


def try_it(client: ResourceClient, case: dict[str, str]) -> str | None:
    """Do what a recorded command did; return why it failed, or None."""
    verb = case["cmd"].split()[1]
    namespace = re.search(r"-n (\S+)", case["cmd"])
    try:
        documents = read(case["stdin"], namespace and namespace[1]).documents
        assert documents
        for document in documents:
            write = {"create": client.create, "apply": client.apply, "replace": client.update}[verb]
            write(document.kind, document.resource, v1=document.v1)
    except CalicoError as error:
        return str(error)
    return None


@pytest.mark.parametrize("number", range(len(CLI)), ids=lambda n: f"{n}-{CLI[n].get('note', CLI[n]['cmd'])}")
def test_what_is_accepted_agrees_with_the_original(number: int) -> None:
    case = CLI[number]
    client = ResourceClient(MemoryStore(), ipam=NoIpam(), clock=ManualClock())
    client.ensure_defaults()
    before = (
        POOL.replace("name: a", "name: pool1").replace("10.0.0.0/24", "17.16.10.0/24"),
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t1}",
    )
    for text in before:
        if case["cmd"].startswith("calicoctl create") and "kind: Tier" in text and '"Tier"' in case["stdin"]:
            continue
        client.create(one(text).kind, one(text).resource)
    failed = try_it(client, case)
    if any(text in case["stdin"] for text in OURS_IS_STRICTER):
        assert failed
    elif not case["stdin"].startswith(OURS_HAS_V1):
        assert (failed is None) == (case["exit"] == 0), failed


def test_the_reasons_are_those_of_the_original() -> None:
    """Where the original says more than the name of a tag, we say it in the same words."""
    client = ResourceClient(MemoryStore(), ipam=NoIpam(), clock=ManualClock())
    client.ensure_defaults()
    client.create(one(POOL).kind, one(POOL.replace("10.0.0.0/24", "17.16.10.0/24")).resource)
    differ = {
        "protocol number invalid": "protocol number invalid: it is",
        "name must consist of lower case alphanumeric characters, '-' or '.'": "name must consist",
    }
    told = 0
    for case in CLI:
        reasons = re.findall(r"\(((?!Reason:|supported|spec\.)[^()\n]{12,})\)", case["stderr"])
        failed = try_it(client, case)
        if failed is None or not reasons:
            continue
        for reason in reasons[:1]:
            if any(words in failed for words in (reason, differ.get(reason, reason))):
                told += 1
    assert told >= 52


# --- documents


def test_v3_documents_in_all_their_containers() -> None:
    second = POOL.replace("name: a", "name: b").replace("10.0.0.0", "10.0.1.0")
    as_json = json.dumps(
        {"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "c"},
         "spec": {"cidr": "10.0.2.0/24"}}
    )  # fmt: skip
    listed = (
        "apiVersion: projectcalico.org/v3\nkind: IPPoolList\nmetadata: {resourceVersion: '5'}\nitems:\n"
        "- {metadata: {name: d}, spec: {cidr: 10.0.3.0/24}}\n"
        "- {kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: e}, spec: {cidr: 10.0.4.0/24}}\n"
    )
    sequence = "- " + POOL.replace("\n", "\n  ").replace("name: a", "name: f").replace("10.0.0.0", "10.0.5.0")
    documents = read("\n---\n".join([POOL, second, as_json, listed, sequence])).documents
    assert [d.resource.metadata.name for d in documents] == ["a", "b", "c", "d", "e", "f"]
    assert {d.kind_name for d in documents} == {"IPPool"}


def test_an_empty_file_has_no_documents() -> None:
    assert read("") == read("# nothing\n---\n") == Loaded(())


def test_a_document_is_complete() -> None:
    pool = one(POOL)
    assert b'"blockSize":26' in encode(pool.kind, pool.resource)
    assert (pool.at.line, pool.v1) == (1, False)


def test_fields_that_the_server_fills_are_taken_and_dropped() -> None:
    text = POOL.replace(
        "{name: a}",
        "{name: a, generation: 3, selfLink: /x, generateName: y, finalizers: [z], managedFields: [], uid: u,"
        " ownerReferences: [], deletionTimestamp: null, creationTimestamp: null, deletionGracePeriodSeconds: 0}",
    ) + "status: {conditions: [x]}\n"  # fmt: skip
    assert one(text).resource.metadata.uid == "u"
    assert "metadata.clusterName" in findings(POOL.replace("name: a", "name: a, clusterName: x"))[0]


def test_one_bad_document_spoils_the_file() -> None:
    assert len(findings(POOL + "---\n" + BAD_POOL.replace("name: a", "name: b"))) == 1


def test_all_findings_of_a_file_come_together_in_its_order() -> None:
    text = (
        BAD_POOL + "---\na: [\n---\nkind: ippool\napiVersion: projectcalico.org/v3\n---\njust text\n---\n"
        + POOL.replace("{cidr:", "{natOutgoing: 'true', cidr:").replace("name: a", "name: A")
    )  # fmt: skip
    found = findings(text)
    assert [re.match(r"f\.yaml:(\d+):(\d+): ", line).groups() for line in found] == [  # type: ignore[union-attr]
        ("4", "14"), ("7", "1"), ("8", "7"), ("11", "1"), ("15", "18"), ("16", "21"),
    ]  # fmt: skip
    assert found[0] == (
        "f.yaml:4:14: spec.cidr = '10.0.0.1/24': IPPool CIDR is not strictly masked; did you mean 10.0.0.0/24?"
    )


V1_POLICY = """
apiVersion: v1
kind: policy
metadata: {name: a}
spec:
  selector: has(a
  types: [Ingress]
  ingress:
  - {action: allow, protocol: icmp, icmp: {type: 256}}
  - {action: allow, destination: {ports: [80]}}
  - {action: allow, source: {selector: a = 'b', tag: ok, notNet: 1.2.3.4/33}}
  - {action: allow, source: {selector: has(b), tag: not ok}}
"""


def test_a_v1_document_with_faults_of_both_checks_tells_all_of_them_once() -> None:
    found = findings(V1_POLICY)
    assert [re.sub("^f.yaml:([0-9]+):.*?: (.*?) = .*", r"\1 \2", line) for line in found] == [
        "6 spec.selector",
        "7 spec.types[0]",
        "9 spec.ingress[0].icmp.type",
        "10 spec.ingress[1].destination.ports",
        "11 spec.ingress[2].source.selector",
        "11 spec.ingress[2].source.notNet",
        "12 spec.ingress[3].source.tag",
    ]
    assert "source.selector = 'a = 'b''" in found[4]


def test_a_v1_document_whose_identifiers_are_missing_is_not_blamed_for_the_name_made_of_them() -> None:
    endpoint = "apiVersion: v1\nkind: workloadEndpoint\nmetadata: {name: e, node: n, orchestrator: o}\n"
    (line,) = findings(endpoint + "spec: {interfaceName: cali1, ipNetworks: [10.0.0.1]}\n")
    assert line.endswith("metadata.workload: insufficient identifiers, missing 'workload'")


def test_findings_of_several_files_stay_together() -> None:
    found: list[Finding] = []
    for name in ("b.yaml", "a.yaml"):
        with pytest.raises(InvalidFile) as caught:
            load(f"{BAD_POOL}---\n{BAD_POOL}".encode(), name)
        found += caught.value.findings
    lines = str(InvalidFile(found)).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["b.yaml", "b.yaml", "a.yaml", "a.yaml"]


def test_a_field_that_cannot_be_read_is_told_once() -> None:
    assert findings(POOL.replace("10.0.0.0/24", "[10.0.0.0/24]")) == [
        "f.yaml:4:8: spec.cidr = '[...]': must be a text"
    ]
    assert len(findings(POOL.replace("spec: {cidr: 10.0.0.0/24}", "spec: 5"))) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: IPPool\n", ["1:7", "unknown resource type (IPPool) and/or version ()", "apiVersion is"]),
        ("a: 1\n", ["1:1", "unknown resource type () and/or version ()", "a resource begins with apiVersion"]),
        (POOL.replace("IPPool", "ippool"), ["2:7", "did you mean 'IPPool'?"]),
        (POOL.replace("org/v3", "org/v7"), ["(projectcalico.org/v7)", "projectcalico.org/v3 or v1"]),
        (POOL.replace("IPPool", "Nothing"), ["(Nothing)", "kinds of projectcalico.org/v3 are"]),
        (POOL.replace("kind: IPPool", "kind: [IPPool]"), ["unknown resource type ()"]),
        (POOL.replace("IPPool", "IPPoolList"), ["items", "must be a list of resources"]),
        ("- a\n- b\n", ["1:3", "'a'", "must be a mapping with apiVersion"]),
        ("5\n", ["1:1", "'5'", "must be a mapping"]),
        (POOL.replace("metadata: {name: a}", "metadata: {}"), ["metadata.name: name must consist of"]),
        (POOL.replace("name: a", "name: a, namespace: x"), ["4:", "IPPool is not a namespaced resource"]),
        (POOL.replace("spec: {", "Spec: {"), ["Spec", "did you mean 'spec'?"]),
        (POOL.replace("name: a", "cidr: x, name: a"), ["metadata.cidr", "not recognized"]),
    ],
)
def test_documents_that_are_none(text: str, said: list[str]) -> None:
    found = findings(text)
    assert all(any(words in line for line in found) for words in said if not words.endswith(":")), found


ENDPOINT = (
    "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {NAMESPACE}\n"
    "spec: {orchestrator: docker, workload: w, node: n, endpoint: e, interfaceName: cali1}\n"
)


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [("", None, "default"), ("", "libnetwork", "libnetwork"), ("x", None, "x"), ("x", "x", "x")],
)
def test_the_namespace_of_a_document(own: str, asked: str | None, expected: str) -> None:
    text = ENDPOINT.replace("NAMESPACE", f"namespace: {own}" if own else "")
    (document,) = read(text, asked).documents
    assert document.resource.metadata.namespace == expected
    assert document.resource.metadata.labels["projectcalico.org/namespace"] == expected


def test_namespaces_that_contradict() -> None:
    assert findings(ENDPOINT.replace("NAMESPACE", "namespace: x"), "y") == [
        "f.yaml:3:23: metadata.namespace = 'x': resource namespace does not match client namespace. x != y"
    ]
    assert "IPPool is not namespaced" in findings(POOL, "y")[0]


def test_a_policy_that_would_select_everything_is_refused() -> None:
    text = (
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n"
        "  selector: !has(a)\n"
    )
    assert findings(text) == [
        "f.yaml:5:13: spec.selector = '!has(a)': a tag where a text is expected; quote it: '!has(a)'"
    ]


@pytest.mark.parametrize(
    "key", sorted(key for key in STORED if not key.endswith("/tiered")), ids=lambda key: "/".join(key.split("/")[5:])
)
def test_what_is_shown_can_be_read_again(key: str) -> None:
    """`get -o json` is valid input."""
    client = ResourceClient(MemoryStore(), clock=ManualClock())
    client.store.commit(_put(key))
    plural, *_, name = key.split("/")[5:]
    kind = by_plural()[plural]
    namespace = key.split("/")[6] if kind.namespaced else ""
    shown = client.get(kind, name, namespace)
    document = one(json_bytes(shown_document(kind, shown)).decode())
    assert document.resource == shown
    assert resource_key(ResourceKey(plural, name, namespace)) == key


def _put(key: str) -> Transaction:
    return Transaction(puts={key: STORED[key].encode()})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_mutilated_file_gives_findings_and_nothing_worse(data: st.DataObject) -> None:
    text = "---".join(data.draw(st.sampled_from(PARTS)) for _ in range(2))
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 60))
    filling = data.draw(st.text(alphabet="{}[]:,-!&*'\"\n\t ax1.", max_size=12))
    try:
        loaded = read(text[:start] + filling + text[start + length :])
    except InvalidFile as error:
        found = error.findings
    else:
        found = loaded.warnings
    assert all(finding.at.line >= 1 and finding.at.column >= 1 for finding in found)
