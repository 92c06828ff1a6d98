"""Who is told to be cut off by a policy or a host endpoint, and who is not."""

import json
from collections.abc import Mapping

import pytest

from calicoctl.effects import closed_ways
from fakes.command_line import Calicoctl
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction
from resources.documents import load
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy

V3 = "projectcalico.org/v3"


def document(kind: str, name: str, spec: object, namespace: str = "", labels: Mapping[str, str] | None = None) -> str:
    metadata = {"name": name, "labels": labels or {}} | ({"namespace": namespace} if namespace else {})
    return json.dumps({"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": spec}) + "\n---\n"


def workload(name: str, profiles: tuple[str, ...] = (), **labels: str) -> str:
    spec = {
        "orchestrator": "libnetwork", "workload": "libnetwork", "node": "node1", "endpoint": name,
        "interfaceName": f"cali{name}", "profiles": list(profiles),
    }  # fmt: skip
    return document("WorkloadEndpoint", f"node1-libnetwork-libnetwork-{name}", spec, "libnetwork", labels)


def host(name: str, **labels: str) -> str:
    spec = {"node": "node1", "interfaceName": name, "profiles": ["projectcalico-default-allow"]}
    return document("HostEndpoint", name, spec, labels=labels)


def gnp(**spec: object) -> str:
    return document("GlobalNetworkPolicy", "p", spec)


def np(namespace: str, **spec: object) -> str:
    return document("NetworkPolicy", "p", spec, namespace)


ALLOW, DENY = {"action": "Allow"}, {"action": "Deny"}
NODE = document("Node", "node1", {})
WORLD = (
    NODE
    + document("Profile", "net1", {"labelsToApply": {"net": "one"}})
    + document("Tier", "open", {"defaultAction": "Pass"})
    + "".join(workload(name, ("net1",), role="web") for name in ("a", "b", "c"))
    + workload("d", role="db")
    + host("h1", role="db")
    + host("h2", role="gate")
)


@pytest.fixture
def world(calicoctl: Calicoctl) -> Calicoctl:
    done = calicoctl("create", "-f", "-", stdin=WORLD)
    assert (done.exit, done.err) == (0, "")
    return calicoctl


SELECTING = [
    (gnp(selector="all()", types=["Ingress", "Egress"]), "6 endpoints (4 workload, 2 host)", "to or from them"),
    (gnp(), "6 endpoints (4 workload, 2 host)", "to them"),
    (gnp(selector="role == 'web'", egress=[DENY]), "3 endpoints (3 workload)", "from them"),
    (gnp(selector="net == 'one'"), "3 endpoints (3 workload)", "to them"),
    (gnp(selector="role == 'gate'"), "1 endpoint (1 host)", "to them"),
    (gnp(selector="role == 'db'", types=["Ingress", "Egress"], egress=[ALLOW]), "2 endpoints", "to them"),
    (gnp(selector="role == 'db'", ingress=[{"action": "Log"}, {**DENY, "protocol": "TCP"}]), "2 endpoints", "to them"),
    (gnp(selector="role == 'db'", ingress=[DENY, ALLOW]), "2 endpoints (1 workload, 1 host)", "to them"),
    (gnp(selector="role == 'db'", tier="open", ingress=[DENY]), "2 endpoints (1 workload, 1 host)", "to them"),
    (gnp(namespaceSelector="all()"), "4 endpoints (4 workload)", "to them"),
    (gnp(preDNAT=True, applyOnForward=True, ingress=[DENY]), "2 endpoints (2 host)", "to them"),
    (np("libnetwork", selector="role == 'db'"), "policy libnetwork/p selects 1 endpoint (1 workload)", "to them"),
    (document("GlobalNetworkPolicy", "p", {"types": ["Ingress"]}), "policy p selects 6", "than all()"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "count", "way"), SELECTING)
@pytest.mark.parametrize("verb", ["create", "apply"])
def test_a_policy_that_allows_nothing_is_told_with_the_number_of_its_endpoints(
    world: Calicoctl, verb: str, text: str, count: str, way: str
) -> None:
    ran = world(verb, "-f", "-", stdin=text)
    assert ran.exit == 0
    (line,) = ran.err.splitlines()
    assert line.startswith("Warning: policy ")
    assert f" selects {count}" in line or count in line
    assert "and allows nothing " in line
    assert way in line
    assert ("failsafe" in line) is ("host)" in line)


def test_replacing_warns_too(world: Calicoctl) -> None:
    world("create", "-f", "-", stdin=gnp(ingress=[ALLOW]))
    assert "allows nothing to them" in world("replace", "-f", "-", stdin=gnp()).err


@pytest.mark.parametrize(
    "text",
    [
        gnp(ingress=[ALLOW]),
        gnp(ingress=[{"action": "Pass"}, DENY]),
        gnp(selector="role == 'nobody'"),
        gnp(tier="open"),
        gnp(tier="open", ingress=[{**DENY, "protocol": "TCP"}]),
        gnp(doNotTrack=True, applyOnForward=True, ingress=[{**DENY, "source": {"nets": ["10.0.0.0/8"]}}]),
        np("libnetwork", selector="role == 'gate'"),
        document("StagedGlobalNetworkPolicy", "p", {"selector": "all()"}),
        document("StagedNetworkPolicy", "p", {}, "libnetwork"),
    ],
)
def test_who_cuts_nobody_off_is_not_warned(world: Calicoctl, text: str) -> None:
    ran = world("create", "-f", "-", stdin=text)
    assert (ran.exit, ran.err) == (0, "")


UNTRACKED = {"doNotTrack": True, "applyOnForward": True, "ingress": [ALLOW], "egress": [ALLOW]}


def test_a_policy_for_hosts_that_selects_workloads_only_is_told_so(world: Calicoctl) -> None:
    ran = world("create", "-f", "-", stdin=gnp(selector="role == 'web'", **UNTRACKED))
    assert ran.err == (
        "Warning: policy p has doNotTrack, which only host endpoints take, and it selects none of them: "
        "the 3 workload endpoint(s) that it selects stay as they are\n"
    )
    assert world("apply", "-f", "-", stdin=gnp(selector="role == 'db'", **UNTRACKED)).err == ""


def test_an_untracked_policy_of_all_interfaces_is_told_to_be_of_none(world: Calicoctl) -> None:
    spec = {"node": "node1", "interfaceName": "*", "profiles": ["projectcalico-default-allow"]}
    world("create", "-f", "-", stdin=document("HostEndpoint", "wild", spec, labels={"role": "wild"}))
    ran = world("create", "-f", "-", stdin=gnp(selector="has(role)", **UNTRACKED))
    assert "it is not applied to wild; name the interfaces one by one" in ran.err
    deny = {"doNotTrack": True, "applyOnForward": True, "ingress": [DENY], "selector": "role == 'wild'"}
    assert "allows nothing" not in world("apply", "-f", "-", stdin=gnp(**deny)).err


def test_host_endpoints_that_are_not_served_are_told(world: Calicoctl) -> None:
    allow = {"node": "node1", "profiles": ["projectcalico-default-allow"]}
    again = world("create", "-f", "-", stdin=document("HostEndpoint", "a", {**allow, "interfaceName": "h1"}))
    assert again.err == (
        "Warning: host endpoints a, h1 are for the same interface h1 of node node1: only a is served, not h1\n"
    )
    inner = world("create", "-f", "-", stdin=document("HostEndpoint", "b", {**allow, "interfaceName": "cali12"}))
    assert inner.err == "Warning: host endpoint b is for cali12, a container's interface: it is not served\n"
    by_address = {**allow, "expectedIPs": ["10.0.0.1"]}
    both = document("HostEndpoint", "c", by_address) + document("HostEndpoint", "d", by_address)
    assert world("create", "-f", "-", stdin=both).err == ""


def test_endpoints_of_the_same_file_count(calicoctl: Calicoctl) -> None:
    ran = calicoctl("create", "-f", "-", stdin=gnp() + workload("a") + WORLD.replace("---", "---\n"))
    assert "selects 6 endpoints (4 workload, 2 host)" in ran.err


def test_a_v1_policy_is_warned_of_too(world: Calicoctl) -> None:
    text = '{"apiVersion": "v1", "kind": "policy", "metadata": {"name": "p"}, "spec": {"selector": "role == \'web\'"}}'
    ran = world("apply", "-f", "-", stdin=text)
    assert "policy p selects 3 endpoints (3 workload) and allows nothing to them" in ran.err


def test_a_policy_of_a_namespace_without_endpoints_is_told_where_they_are(world: Calicoctl) -> None:
    """The namespace that calicoctl takes by itself is not that of Docker's endpoints."""
    ran = world("create", "-f", "-", stdin=np("", selector="role == 'web'", ingress=[ALLOW]))
    assert ran.err == (
        "Warning: policy default/p is for the endpoints of namespace default, and there are none: "
        "endpoints are in libnetwork (-n libnetwork)\n"
    )


def bare_host(**spec: object) -> str:
    return document("HostEndpoint", "h", {"node": "node1", "interfaceName": "eth0"} | spec, labels={"role": "bare"})


@pytest.mark.parametrize(
    ("before", "spec", "told"),
    [
        ("", {}, "no policy of type Ingress or Egress selects host endpoint h, and no profile allows anything: "
                 "nothing to or from node node1 on eth0 but the failsafe ports gets through"),
        ("", {"interfaceName": "*"}, "on any interface but the failsafe ports"),
        ("", {"interfaceName": "", "expectedIPs": ["10.0.0.1"]}, "on the interface with 10.0.0.1 but"),
        (gnp(ingress=[ALLOW], selector="role == 'bare'"), {},
         "no policy of type Egress selects host endpoint h, and no profile allows anything: nothing from node node1"),
        (gnp(ingress=[ALLOW], egress=[ALLOW], doNotTrack=True, applyOnForward=True), {},
         "no policy of type Ingress or Egress"),
        ("", {"node": "node9"}, "host endpoint h is on node node9, which does not exist: nodes are node1"),
        ("", {"profiles": ["nosuch"]}, "host endpoint h has the profile nosuch, which does not exist: it allows"),
    ],
)  # fmt: skip
def test_a_host_endpoint_that_cuts_its_host_off_is_told(
    world: Calicoctl, before: str, spec: dict[str, object], told: str
) -> None:
    if before:
        world("create", "-f", "-", stdin=before)
    ran = world("create", "-f", "-", stdin=bare_host(**spec))
    assert ran.exit == 0
    assert told in ran.err


def test_a_host_endpoint_with_its_policy_in_the_same_file_is_not_warned_of(world: Calicoctl) -> None:
    policy = gnp(selector="role == 'bare'", ingress=[ALLOW], egress=[ALLOW])
    assert world("apply", "-f", "-", stdin=bare_host() + policy).err == ""


def test_records_that_cannot_be_read_do_not_stop_a_write(world: Calicoctl, store: MemoryStore) -> None:
    root = "/calico/resources/v3/projectcalico.org/"
    for key in ("hostendpoints/bad", "workloadendpoints/libnetwork/bad", "profiles/bad", "tiers/bad"):
        store.commit(Transaction(puts={root + key: b"{"}))
    ran = world("create", "-f", "-", stdin=gnp())
    assert ran.exit == 0
    assert "selects 6 endpoints (4 workload, 2 host)" in ran.err


@pytest.mark.parametrize(
    ("rules", "passes", "ways"),
    [([], False, ("Ingress",)), ([], True, ()), ([DENY], True, ("Ingress",)), ([ALLOW, DENY], True, ())],
)
def test_ways_that_a_policy_closes(rules: list[object], passes: bool, ways: tuple[str, ...]) -> None:
    (made,) = load(gnp(types=["Ingress"], ingress=rules).encode(), "f").documents
    assert isinstance(made.resource, GlobalNetworkPolicy)
    assert closed_ways(made.resource, passes=passes) == ways
