"""The kinds around policy on the command line: every verb, every form of output, in both eras."""

import json

import pytest

from fakes.command_line import Calicoctl
from resources.datastore.memory import MemoryStore

V3 = "projectcalico.org/v3"
DEFAULT_ALLOW = "projectcalico-default-allow"
KINDS: dict[str, tuple[str, str, dict[str, object], str, object]] = {
    "gnp": ("GlobalNetworkPolicy", "", {"ingress": [{"action": "Allow"}], "selector": "role == 'web'"}, "order", 5),
    "np": ("NetworkPolicy", "libnetwork", {"ingress": [{"action": "Allow", "protocol": "GRE"}]}, "order", 5),
    "gnetset": ("GlobalNetworkSet", "", {"nets": ["203.0.113.7", "10.1.2.3/8"]}, "nets", ["10.0.0.0/8"]),
    "netset": ("NetworkSet", "libnetwork", {"nets": ["192.0.2.0/24"]}, "nets", []),
    "hep": ("HostEndpoint", "", {"node": "node1", "interfaceName": "eth0", "profiles": [DEFAULT_ALLOW]},
            "interfaceName", "*"),
    "sgnp": ("StagedGlobalNetworkPolicy", "", {"selector": "all()"}, "stagedAction", "Learn"),
    "snp": ("StagedNetworkPolicy", "libnetwork", {"stagedAction": "Ignore"}, "order", 5),
}  # fmt: skip


def document(kind: str, name: str, spec: object, namespace: str = "") -> str:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return json.dumps({"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": spec})


NODE = document("Node", "node1", {})


@pytest.mark.parametrize("alias", KINDS)
def test_every_verb_and_form(calicoctl: Calicoctl, store: MemoryStore, alias: str) -> None:
    kind, namespace, spec, field, value = KINDS[alias]
    calicoctl("create", "-f", "-", stdin=NODE)
    where = ("-n", namespace) if namespace else ()
    text = document(kind, "x", spec, namespace)
    done = calicoctl("create", "-f", "-", stdin=text)
    assert (done.exit, done.out, done.err) == (0, f"Successfully created 1 '{kind}' resource(s)\n", "")
    assert "resource already exists" in calicoctl("create", "-f", "-", stdin=text).err

    shown = calicoctl("get", alias, "x", *where, "-o", "json").out
    assert json.loads(shown)["kind"] == kind
    yaml = calicoctl("get", alias, "x", *where, "-o", "yaml").out
    before = store.list("/calico/resources/v3/").items
    assert calicoctl("replace", "-f", "-", stdin=yaml).exit == 0
    assert store.list("/calico/resources/v3/").items == before
    listed = calicoctl("get", alias, *where, "-o", "yaml").out
    assert calicoctl("apply", "-f", "-", stdin=listed).exit == 0

    changed = document(kind, "x", {**spec, field: value}, namespace)
    assert calicoctl("apply", "-f", "-", stdin=changed).out == f"Successfully applied 1 '{kind}' resource(s)\n"
    found = json.loads(calicoctl("get", alias, "x", *where, "-o", "json").out)["spec"]
    assert found.get(field, []) == value
    conflict = calicoctl("replace", "-f", "-", stdin=yaml)
    assert f"update conflict: {kind}(" in conflict.err
    assert "get it again and edit that, or leave resourceVersion out" in conflict.err

    for form in ("ps", "wide"):
        assert " x " in " " + calicoctl("get", alias, "x", *where, "-o", form).out.splitlines()[1]
    gone = calicoctl("delete", alias, "x", *where)
    assert (gone.exit, gone.out) == (0, f"Successfully deleted 1 '{kind}' resource(s)\n")
    missing = calicoctl("delete", alias, "x", *where)
    label = f"{kind}({namespace}/x)" if namespace else f"{kind}(x)"
    assert f"resource does not exist: {label}" in missing.err
    assert calicoctl("get", alias, *where, "-o", "yaml").out.startswith(f"apiVersion: {V3}\nitems: []\n")


def test_a_long_list_of_nets_is_cut_in_the_table(calicoctl: Calicoctl) -> None:
    nets = [f"10.0.{n}.0/24" for n in range(20)]
    calicoctl("create", "-f", "-", stdin=document("GlobalNetworkSet", "x", {"nets": nets}))
    cell = calicoctl("get", "gnetset", "-o", "wide").out.splitlines()[1].split()[1]
    assert len(cell) == 80
    assert cell.endswith("...")
    assert ",".join(nets).startswith(cell.removesuffix("..."))


def test_policies_elsewhere_are_pointed_at(calicoctl: Calicoctl) -> None:
    """In v1 the word meant what is a GlobalNetworkPolicy now."""
    allow = {"ingress": [{"action": "Allow"}]}
    both = document("NetworkPolicy", "a", allow, "libnetwork") + "\n---\n" + document("GlobalNetworkPolicy", "b", allow)
    calicoctl("create", "-f", "-", stdin=both)
    ran = calicoctl("get", "policy")
    assert (ran.exit, ran.out) == (0, "NAME   TIER   \n\n")
    assert ran.err == (
        "None in namespace default; there are 1 in libnetwork (-n libnetwork). All are shown by -A.\n"
        "There are 1 of kind GlobalNetworkPolicy, which belong to no namespace: get globalnetworkpolicy\n"
    )
    assert calicoctl("get", "policy", "-A").out == "NAMESPACE    NAME   TIER      \nlibnetwork   a      default   \n\n"


def test_one_of_all_namespaces_cannot_be_asked_for_by_name(calicoctl: Calicoctl) -> None:
    ran = calicoctl("get", "np", "a", "-A")
    assert ran.exit == 1
    assert "cannot use --all-namespace flag for getting a single resource" in ran.err


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_what_has_the_name_elsewhere_is_pointed_at(calicoctl: Calicoctl, verb: str) -> None:
    allow = {"ingress": [{"action": "Allow"}]}
    both = document("NetworkPolicy", "a", allow, "libnetwork") + "\n---\n" + document("GlobalNetworkPolicy", "a", allow)
    calicoctl("create", "-f", "-", stdin=both + "\n---\n" + document("GlobalNetworkPolicy", "b", allow))
    ran = calicoctl(verb, "policy", "a")
    assert ran.exit == 1
    assert "resource does not exist: NetworkPolicy(default/a)\n" in ran.err
    assert ran.err.endswith(
        "  there is NetworkPolicy(libnetwork/a): write networkpolicy a -n libnetwork, and GlobalNetworkPolicy(a): "
        "write globalnetworkpolicy a\n"
    )
    assert "there is GlobalNetworkPolicy(b): write globalnetworkpolicy b" in calicoctl(verb, "policy", "b").err
    assert "there is" not in calicoctl(verb, "policy", "c").err
    assert "there is" not in calicoctl(verb, "gnp", "c").err


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_what_v1_called_otherwise_or_nearly_has_the_name_is_pointed_at(calicoctl: Calicoctl, verb: str) -> None:
    v1 = "apiVersion: v1\nkind: policy\nmetadata: {name: Web_Tier}\nspec: {ingress: [{action: allow}]}\n"
    profile = "---\napiVersion: v1\nkind: profile\nmetadata: {name: Prof.V1}\n"
    calicoctl("create", "-f", "-", stdin=v1 + profile + "---\n" + document("GlobalNetworkSet", "office", {}))
    stored = "web-tier-38278387"
    for alias in ("policy", "gnp"):
        assert calicoctl(verb, alias, "Web_Tier").err.endswith(
            f"\n  v1's policy Web_Tier is GlobalNetworkPolicy({stored}) here: write globalnetworkpolicy {stored}\n"
        )
    assert "v1's profile Prof.V1 is Profile(prof.v1-" in calicoctl(verb, "profile", "Prof.V1").err
    assert calicoctl(verb, "gnetset", "ofice").err.endswith("\n  did you mean 'office'?\n")
    assert "did you mean" not in calicoctl(verb, "gnetset", "zzz").err


def test_a_resource_that_is_twice_in_a_file_is_told(calicoctl: Calicoctl) -> None:
    deny, allow = ({"types": ["Ingress"], "ingress": [{"action": action}]} for action in ("Deny", "Allow"))
    twice = document("GlobalNetworkPolicy", "a", deny) + "\n---\n" + document("GlobalNetworkPolicy", "a", allow)
    again = twice + "\n---\n" + document("GlobalNetworkPolicy", "b", allow)
    ran = calicoctl("apply", "-f", "-", stdin=again)
    told = [line for line in ran.err.splitlines() if "already" in line]
    assert (ran.exit, len(told)) == (0, 1)
    assert "GlobalNetworkPolicy(a) is at <stdin>:1 already: create refuses the second, apply and replace" in told[0]
    assert "already:" not in calicoctl("delete", "-f", "-", stdin=again).err


# --- v1

V1_HOST = """\
apiVersion: v1
kind: hostEndpoint
metadata:
  name: eth0
  node: {node}
  labels: {{role: host}}
spec:
  interfaceName: eth0
  expectedIPs: [172.16.60.{number}]
  profiles: [projectcalico-default-allow]
"""
HOSTS = "---\n".join(V1_HOST.format(node=node, number=number) for number, node in ((1, "node1"), (2, "Node2")))


@pytest.fixture
def hosts(calicoctl: Calicoctl) -> Calicoctl:
    calicoctl("create", "-f", "-", stdin=NODE + "\n---\n" + NODE.replace("node1", "node2"))
    done = calicoctl("create", "-f", "-", stdin=HOSTS)
    assert (done.out, done.err) == ("Successfully created 2 'hostEndpoint' resource(s)\n", "")
    return calicoctl


def test_host_endpoints_in_the_tables_of_v1(hosts: Calicoctl) -> None:
    assert hosts("get", "hostEndpoint").out == "NODE    NAME   \nnode1   eth0   \nnode2   eth0   \n\n"
    assert hosts("get", "hostEndpoint", "-o", "wide", "--node=node2").out == (
        "NODE    NAME   INTERFACE   IPS           PROFILES                      \n"
        "node2   eth0   eth0        172.16.60.2   projectcalico-default-allow   \n\n"
    )
    assert hosts("get", "hostEndpoint", "eth0", "--node", "Node2").out == "NODE    NAME   \nnode2   eth0   \n\n"
    assert hosts("get", "hostEndpoint", "eth0").out.count("eth0") == 2
    assert hosts("get", "hostEndpoint", "eth9").out == "NODE   NAME   \n\n"
    assert hosts("get", "hep").out == "NAME         NODE    \nnode1.eth0   node1   \nnode2.eth0   node2   \n\n"


def test_host_endpoints_of_v1_come_back_as_they_went(hosts: Calicoctl, store: MemoryStore) -> None:
    before = store.list("/calico/").items
    shown = hosts("get", "hostEndpoint", "-o", "yaml").out
    assert hosts("apply", "-f", "-", stdin=shown).out == "Successfully applied 2 'hostEndpoint' resource(s)\n"
    assert store.list("/calico/").items == before
    exists = hosts("create", "-f", "-", stdin=HOSTS)
    assert "resource already exists: HostEndpoint(node=node1, name=eth0)" in exists.err
    assert hosts("get", "-f", "-", stdin=HOSTS).out.count("NODE    NAME") == 2
    assert hosts("delete", "-f", "-", stdin=HOSTS).exit == 0
    assert hosts("get", "hostEndpoint").out == "NODE   NAME   \n\n"


def test_a_host_endpoint_of_v3_is_the_same_in_v1_whatever_its_name(hosts: Calicoctl, store: MemoryStore) -> None:
    spec = {"node": "node2", "interfaceName": "*", "profiles": [DEFAULT_ALLOW]}
    hosts("create", "-f", "-", stdin=document("HostEndpoint", "node2-all", spec))
    before = store.list("/calico/").items
    shown = hosts("get", "hostEndpoint", "node2-all", "-o", "yaml").out
    assert hosts("replace", "-f", "-", stdin=shown).exit == 0
    assert store.list("/calico/").items == before
    assert hosts("delete", "hostEndpoint", "node2-all").exit == 0


def test_a_host_endpoint_of_v1_is_deleted_by_all_that_it_takes_to_tell_it(hosts: Calicoctl) -> None:
    several = hosts("delete", "hostEndpoint", "eth0")
    assert several.exit == 1
    assert "insufficient identifiers, missing 'node'" in several.err
    assert "HostEndpoint(node=node1, name=eth0), HostEndpoint(node=node2, name=eth0): add --node=" in several.err
    assert hosts("delete", "hostEndpoint", "eth0", "--node=node2").exit == 0
    assert hosts("get", "hostEndpoint").out == "NODE    NAME   \nnode1   eth0   \n\n"
    missing = hosts("delete", "hostEndpoint", "eth0", "--node=node2")
    assert "resource does not exist: HostEndpoint(name=eth0)" in missing.err
    assert hosts("delete", "-s", "hostEndpoint", "eth0", "--node=node2").exit == 0


@pytest.mark.parametrize(
    ("kind", "identifiers", "metadata", "spec"),
    [
        ("hostEndpoint", ["Eth0/1", "--node=Node2"], "{name: Eth0/1, node: Node2}", "{interfaceName: eth0}"),
        (
            "workloadEndpoint", ["Eth0", "--node=Node2", "--orchestrator=Docker", "--workload=W_1"],
            "{name: Eth0, node: Node2, orchestrator: Docker, workload: W_1}", "{interfaceName: cali1}",
        ),
    ],
)  # fmt: skip
def test_what_v1_wrote_is_found_by_the_identifiers_that_it_was_written_with(
    calicoctl: Calicoctl, kind: str, identifiers: list[str], metadata: str, spec: str
) -> None:
    one = f"apiVersion: v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"
    made = calicoctl("create", "-f", "-", stdin=one)
    assert made.exit == 0, made.err
    assert len(calicoctl("get", kind, *identifiers).out.splitlines()) == 3
    wrong = [identifiers[0].replace("0", "5"), *identifiers[1:]]
    assert len(calicoctl("get", kind, *wrong).out.splitlines()) == 2
    assert calicoctl("delete", kind, *wrong).exit == 1
    assert calicoctl("delete", kind, *identifiers).out == f"Successfully deleted 1 '{kind}' resource(s)\n"


def test_identifiers_of_v1_are_refused_elsewhere(calicoctl: Calicoctl) -> None:
    for words in (("get", "hep", "--node=a"), ("delete", "pool", "x", "--node=a")):
        ran = calicoctl(*words)
        assert ran.exit == 1
        assert "--node is an identifier of v1's bgpPeer, hostEndpoint and workloadEndpoint only" in ran.err
        assert f"such as: {'hostEndpoint' if 'hep' in words else 'bgpPeer'} --node=..." in ran.err


V1_WORKLOAD = """\
apiVersion: v1
kind: workloadEndpoint
metadata:
  name: ab-c
  node: node1
  orchestrator: libnetwork
  workload: libnetwork
spec:
  ipNetworks: [10.0.0.5/32]
  interfaceName: calix
  profiles: [net1]
"""


def test_workload_endpoints_in_the_tables_of_v1(calicoctl: Calicoctl, store: MemoryStore) -> None:
    calicoctl("create", "-f", "-", stdin=V1_WORKLOAD)
    assert calicoctl("get", "workloadEndpoint").out == (
        "NODE    ORCHESTRATOR   WORKLOAD     NAME   \nnode1   libnetwork     libnetwork   ab-c   \n\n"
    )
    assert calicoctl("get", "workloadEndpoint", "-o", "wide", "--orchestrator=libnetwork").out == (
        "NODE    ORCHESTRATOR   WORKLOAD     NAME   NETWORKS      NATS   INTERFACE   PROFILES   \n"
        "node1   libnetwork     libnetwork   ab-c   10.0.0.5/32          calix       net1       \n\n"
    )
    chosen = calicoctl("get", "workloadEndpoint", "-o", "custom-columns=NAME,MAC")
    assert chosen.out == "NAME   MAC   \nab-c         \n\n"
    assert calicoctl("get", "workloadEndpoint", "--workload=other").out.count("\n") == 2
    before = store.list("/calico/").items
    shown = calicoctl("get", "workloadEndpoint", "-o", "yaml").out
    assert calicoctl("apply", "-f", "-", stdin=shown).exit == 0
    assert store.list("/calico/").items == before
    gone = calicoctl("delete", "workloadEndpoint", "ab-c")
    assert gone.out == "Successfully deleted 1 'workloadEndpoint' resource(s)\n"


def test_policies_in_the_tables_of_v1(calicoctl: Calicoctl, store: MemoryStore) -> None:
    allow = {"ingress": [{"action": "Allow"}], "selector": "a == 'b'", "order": 10}
    both = document("Tier", "t1", {}) + "\n---\n" + document("GlobalNetworkPolicy", "t1.x", {**allow, "tier": "t1"})
    calicoctl("create", "-f", "-", stdin=both)
    v1 = ("--api-version", "v1", "get", "policy")
    assert calicoctl(*v1).out == "NAME   \nt1.x   \n\n"
    assert calicoctl(*v1, "-o", "wide").out == "NAME   ORDER   SELECTOR   \nt1.x   10      a == 'b'   \n\n"
    assert calicoctl(*v1, "t1.x").out == "NAME   \nt1.x   \n\n"
    assert calicoctl(*v1, "nosuch").out == "NAME   \n\n"
    shown = calicoctl(*v1, "-o", "json").out
    assert json.loads(shown)[0]["spec"]["order"] == 10
    before = store.list("/calico/").items
    assert calicoctl("apply", "-f", "-", stdin=shown).exit == 0
    assert store.list("/calico/").items == before
    assert "resource already exists" in calicoctl("create", "-f", "-", stdin=shown).err
    assert calicoctl("delete", "-f", "-", stdin=shown).exit == 0
    assert calicoctl(*v1).out == "NAME   \n\n"
