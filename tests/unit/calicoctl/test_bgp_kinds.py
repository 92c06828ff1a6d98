"""BGPPeer and BGPFilter on the command line, in both eras."""

import json
from pathlib import Path

import pytest

from fakes.command_line import Calicoctl
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction

V3 = "projectcalico.org/v3"
RULES = {"importV4": [{"action": "Accept"}], "exportV6": [{"action": "Reject"}, {"action": "Accept"}]}
PEERS = "/calico/resources/v3/projectcalico.org/bgppeers/"


def document(kind: str, name: str, spec: object) -> str:
    return json.dumps({"apiVersion": V3, "kind": kind, "metadata": {"name": name}, "spec": spec})


def peer(name: str = "tor", **spec: object) -> str:
    return document("BGPPeer", name, {"peerIP": "172.16.60.1", "asNumber": 64600} | spec)


@pytest.mark.parametrize(
    ("alias", "kind", "spec", "changed"),
    [
        ("bgpp", "BGPPeer", {"peerIP": "172.16.60.1", "asNumber": 64600}, {"peerSelector": "has(rr)"}),
        ("bf", "BGPFilter", RULES, {"importV6": [{"action": "Accept"}]}),
    ],
)
def test_every_verb(
    calicoctl: Calicoctl, store: MemoryStore, alias: str, kind: str, spec: object, changed: object
) -> None:
    done = calicoctl("create", "-f", "-", stdin=document(kind, "x", spec))
    assert (done.exit, done.out, done.err) == (0, f"Successfully created 1 '{kind}' resource(s)\n", "")
    yaml = calicoctl("get", alias, "x", "-o", "yaml").out
    before = store.list("/calico/resources/v3/").items
    assert calicoctl("replace", "-f", "-", stdin=yaml).exit == 0
    assert store.list("/calico/resources/v3/").items == before
    assert calicoctl("apply", "-f", "-", stdin=document(kind, "x", changed)).exit == 0
    assert json.loads(calicoctl("get", alias, "x", "-o", "json").out)["spec"] == changed
    assert "update conflict" in calicoctl("replace", "-f", "-", stdin=yaml).err
    assert calicoctl("delete", alias, "x").out == f"Successfully deleted 1 '{kind}' resource(s)\n"
    assert f"resource does not exist: {kind}(x)" in calicoctl("get", alias, "x").err


def test_filters_in_a_table(calicoctl: Calicoctl) -> None:
    """Where the original ends with a panic."""
    calicoctl("create", "-f", "-", stdin=document("BGPFilter", "f", RULES))
    table = (
        "NAME   NUMEXPORTV4   NUMIMPORTV4   NUMEXPORTV6   NUMIMPORTV6   \n"
        "f      0             1             2             0             \n\n"
    )
    assert calicoctl("get", "bgpf").out == calicoctl("get", "bgpfilters", "-o", "wide").out == table


def test_filters_of_a_peer_must_be_there_when_it_is_written(calicoctl: Calicoctl) -> None:
    refused = calicoctl("create", "-f", "-", stdin=peer(filters=["a", "b"]))
    assert refused.exit == 1
    assert "-  spec.filters[0] = 'a' (BGPFilter(s) not found; create it before the peer)" in refused.err
    assert "-  spec.filters[1] = 'b'" in refused.err
    filters = document("BGPFilter", "a", RULES) + "\n---\n" + document("BGPFilter", "b", {})
    assert calicoctl("create", "-f", "-", stdin=filters + "\n---\n" + peer(filters=["a", "b"])).exit == 0
    changed = calicoctl("apply", "-f", "-", stdin=peer(filters=["a", "c"]))
    assert "error with field spec.filters[1] = 'c' (BGPFilter(s) not found" in changed.err
    gone = calicoctl("delete", "bgpfilter", "b")
    assert gone.exit == 0
    assert "Warning: BGPFilter b is named by BGPPeer(tor): without it their routes are filtered by" in gone.err
    assert calicoctl("replace", "-f", "-", stdin=peer()).exit == 0
    assert calicoctl("delete", "bgpfilter", "a").err == ""


def test_a_peer_that_is_wrong_in_the_store_is_shown_and_mended(calicoctl: Calicoctl, store: MemoryStore) -> None:
    bad = {"a": {"peerIP": "nonsense", "nodeSelector": "((", "asNumber": 5}, "b": {"asNumber": "abc"}}
    for name, spec in bad.items():
        value = json.dumps({"metadata": {"name": name, "uid": "u"}, "spec": spec}).encode()
        store.commit(Transaction(puts={PEERS + name: value}))
    shown = calicoctl("get", "bgppeer")
    assert shown.out == "NAME   PEERIP     NODE   ASN   \na      nonsense   ((     5     \n\n"
    assert "Warning: BGPPeer(b) cannot be read: spec.asNumber = 'abc': invalid AS Number" in shown.err
    assert calicoctl("replace", "-f", "-", stdin=peer("a") + "\n---\n" + peer("b", peerIP="172.16.60.2")).exit == 0
    assert calicoctl("get", "bgppeer").out.count("(global)") == 2


# --- v1

V1 = """\
apiVersion: v1
kind: bgpPeer
metadata:
  scope: {scope}
  peerIP: {address}
{more}spec:
  asNumber: {number}
"""


def v1(address: str, node: str = "", number: object = 64513) -> str:
    more = f"  node: {node}\n" if node else ""
    return V1.format(scope="node" if node else "global", address=address, more=more, number=number)


THREE = "---\n".join([v1("172.16.60.1"), v1("172.16.60.1", "node1", 5), v1("FD80::1", "Rack_2", "'1.1'")])
TABLE = (
    "SCOPE    PEERIP        NODE     ASN     \n"
    "global   172.16.60.1            64513   \n"
    "node     172.16.60.1   node1    5       \n"
    "node     fd80::1       rack-2   65537   \n\n"
)


@pytest.fixture
def peers(calicoctl: Calicoctl) -> Calicoctl:
    done = calicoctl("create", "-f", "-", stdin=THREE)
    assert (done.out, done.err) == ("Successfully created 3 'bgpPeer' resource(s)\n", "")
    return calicoctl


def test_tables_of_v1(peers: Calicoctl) -> None:
    assert peers("get", "bgpPeer").out == peers("get", "bgpPeer", "-o", "wide").out == TABLE
    assert peers("get", "bgpPeer", "--scope=global").out.splitlines()[1].split() == ["global", "172.16.60.1", "64513"]
    of_nodes = peers("get", "bgpPeer", "--scope=node").out.splitlines()
    assert [line.split()[2:] for line in of_nodes[1:3]] == [["node1", "5"], ["rack-2", "65537"]]
    assert peers("get", "bgpPeer", "--node=Rack_2").out.count("\n") == 3
    assert peers("get", "bgpPeer", "172.16.60.1").out.count("172.16.60.1") == 2
    assert peers("get", "bgpPeer", "fd80:0::0001").out.count("fd80::1") == 1
    assert peers("get", "bgpPeer", "node1.172-16-60-1").out.count("172.16.60.1") == 1
    assert peers("get", "bgpPeer", "10.0.0.9").out == "SCOPE   PEERIP   NODE   ASN   \n\n"
    assert peers("--api-version", "v1", "get", "bgppeer").out == TABLE
    assert peers("get", "bgppeer").out.startswith("NAME ")


def test_documents_of_v1_come_back_as_they_went(peers: Calicoctl, store: MemoryStore) -> None:
    before = store.list("/calico/").items
    shown = peers("get", "bgpPeer", "-o", "yaml").out
    assert peers("apply", "-f", "-", stdin=shown).out == "Successfully applied 3 'bgpPeer' resource(s)\n"
    assert store.list("/calico/").items == before
    exists = peers("create", "-f", "-", stdin=THREE).err
    assert "resource already exists: BGPPeer(global, ip=172.16.60.1)" in exists
    assert "resource already exists: BGPPeer(node=node1, ip=172.16.60.1)" in exists
    assert peers("delete", "-f", "-", stdin=THREE).exit == 0
    assert peers("get", "bgpPeer").out == "SCOPE   PEERIP   NODE   ASN   \n\n"


def test_a_peer_of_v3_is_the_same_in_v1_whatever_its_name(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=peer("mine", peerIP="[fd80::1]:179", ttlSecurity=1, node="node1"))
    assert "already exists" in calicoctl("create", "-f", "-", stdin=v1("fd80::1", "node1")).err
    assert calicoctl("apply", "-f", "-", stdin=v1("fd80::1", "node1", 7)).exit == 0
    shown = json.loads(calicoctl("get", "bgpp", "-o", "json").out)["items"]
    assert [one["spec"] for one in shown] == [
        {"node": "node1", "peerIP": "[fd80::1]:179", "asNumber": 7, "ttlSecurity": 1}
    ]
    assert calicoctl("create", "-f", "-", stdin=v1("fd80::1")).exit == 0
    assert calicoctl("create", "-f", "-", stdin=peer("other", peerIP="[fd80::1]:180")).exit == 0
    assert calicoctl("delete", "-f", "-", stdin=v1("fd80::1", "node1")).exit == 0
    assert "mine" not in calicoctl("get", "bgpp").out


def test_peers_that_v1_has_no_word_for_are_shown_as_they_are(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=document("BGPPeer", "rr", {"nodeSelector": "all()", "peerSelector": "has(r)"}))
    assert calicoctl("get", "bgpPeer").out == "SCOPE   PEERIP   NODE    ASN   \nnode             all()   0     \n\n"


def test_delete_by_all_that_it_takes_to_tell_a_peer(peers: Calicoctl) -> None:
    several = peers("delete", "bgpPeer", "172.16.60.1")
    assert several.exit == 1
    assert "insufficient identifiers, missing 'node'" in several.err
    assert "BGPPeer(global, ip=172.16.60.1), BGPPeer(node=node1, ip=172.16.60.1): add --node=" in several.err
    gone = peers("delete", "bgpPeer", "172.16.60.1", "--scope=global")
    assert gone.out == "Successfully deleted 1 'bgpPeer' resource(s)\n"
    missing = peers("delete", "bgpPeer", "172.16.60.1", "--scope=global")
    assert "resource does not exist: BGPPeer(peerIP=172.16.60.1)" in missing.err
    assert peers("delete", "bgpPeer", "172.16.60.1", "--node=node1").exit == 0
    assert peers("delete", "bgpPeer", "fd80::1").exit == 0


def test_a_scope_that_is_none_or_of_another_kind(calicoctl: Calicoctl) -> None:
    ran = calicoctl("get", "bgpPeer", "--scope=rack")
    assert (ran.exit, ran.out) == (1, "")
    assert "Unrecognized scope 'rack', must be one of: global, node" in ran.err
    elsewhere = calicoctl("get", "hostEndpoint", "--scope=global")
    assert "--scope is an identifier of v1's bgpPeer only" in elsewhere.err


def test_a_peer_that_picks_no_node_is_stored_and_told(calicoctl: Calicoctl) -> None:
    among = {"nodeSelector": "rack == 'r1'", "peerSelector": "has(rr)"}
    assert calicoctl("apply", "-f", "-", stdin=document("BGPPeer", "tor", among)).err == ""  # before the first node
    calicoctl("create", "-f", "-", stdin=document("Node", "node1", {}) + "\n---\n" + document("Node", "node2", {}))
    nowhere = calicoctl("apply", "-f", "-", stdin=peer(node="nodel"))
    assert nowhere.exit == 0
    assert nowhere.err == (
        "Warning: BGPPeer tor is for node nodel, which does not exist: it makes no session; nodes are node1, node2\n"
    )
    nobody = calicoctl("apply", "-f", "-", stdin=document("BGPPeer", "tor", among))
    assert nobody.exit == 0
    assert [line.split(" of ")[0] for line in nobody.err.splitlines()] == [
        "Warning: nodeSelector", "Warning: peerSelector",
    ]  # fmt: skip
    assert calicoctl("apply", "-f", "-", stdin=peer(node="node1")).err == ""
    assert calicoctl("apply", "-f", "-", stdin=peer(nodeSelector="all()")).err == ""


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "asNumber": 64512}, ["serviceClusterIPs"]),
        ({"ignoredInterfaces": ["docker0"], "bindMode": "None"}, ["ignoredInterfaces", "bindMode"]),
        ({"bindMode": "NodeIP", "listenPort": 1179, "serviceLoadBalancerAggregation": "Enabled"}, []),
    ],
)
def test_a_configuration_on_which_nothing_acts_is_told(
    calicoctl: Calicoctl, spec: dict[str, object], fields: list[str]
) -> None:
    done = calicoctl("apply", "-f", "-", stdin=document("BGPConfiguration", "default", spec))
    assert done.exit == 0
    found = [line for line in done.err.splitlines() if "nothing here acts on it; " in line]
    assert [line.split("spec.")[1].split(" ")[0].rstrip(":") for line in found] == fields


def test_several_files_are_one(calicoctl: Calicoctl, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(document("BGPFilter", name, RULES))
    both = ["-f", str(tmp_path / "a"), "-f", str(tmp_path / "b")]
    assert calicoctl("create", *both).out == "Successfully created 2 'BGPFilter' resource(s)\n"
    assert [line.split()[0] for line in calicoctl("get", *both).out.splitlines() if line][1::2] == ["a", "b"]
    (tmp_path / "b").write_text("")
    assert calicoctl("delete", *both).out == "Successfully deleted 1 'BGPFilter' resource(s)\n"
    assert f"no resources specified in file {tmp_path / 'b'}" in calicoctl("apply", "-f", str(tmp_path / "b")).err
