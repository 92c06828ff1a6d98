"""What people type, and what they read."""

import ipaddress
import json
import re
from pathlib import Path

import pytest

from fakes.command_line import Calicoctl
from ipam.allocator import Allocator
from resources.datastore.memory import MemoryStore
from resources.names import NodeName

V1_POOL = """\
apiVersion: v1
kind: ipPool
metadata:
  cidr: 17.16.10.0/24
spec:
  ipip:
    enabled: true
  nat-outgoing: true
  disabled: false
"""
V3_POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: pool1
spec:
  cidr: 10.1.0.0/16
"""
NODE = """\
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: node1
spec:
  bgp:
    ipv4Address: 172.16.60.215/24
"""


def keys(store: MemoryStore) -> list[str]:
    return [item.key.rpartition("v3/projectcalico.org/")[2] for item in store.list("/calico/").items]


# --- create, twice, apply, replace, delete


def test_the_deployment_records_pool_is_created_and_shown_as_v1_did(calicoctl: Calicoctl) -> None:
    done = calicoctl("create", "-f", "-", stdin=V1_POOL)
    assert (done.exit, done.out) == (0, "Successfully created 1 'ipPool' resource(s)\n")
    assert calicoctl("get", "ipPool").out == "CIDR            \n17.16.10.0/24   \n\n"
    assert calicoctl("get", "ipPool", "-o", "wide").out == (
        "CIDR            NAT    IPIP   \n17.16.10.0/24   true   true   \n\n"
    )


def test_the_same_pool_again_exists_and_nothing_changes(calicoctl: Calicoctl, store: MemoryStore) -> None:
    calicoctl("create", "-f", "-", stdin=V1_POOL)
    before = store.list("/").items
    again = calicoctl("create", "-f", "-", stdin=V1_POOL)
    assert again.exit == 1
    assert "Failed to create 'ipPool' resource: resource already exists: IPPool(cidr=17.16.10.0/24)" in again.err
    assert store.list("/").items == before
    assert calicoctl("create", "--skip-exists", "-f", "-", stdin=V1_POOL).exit == 0


def test_delete_by_the_same_file_and_once_more(calicoctl: Calicoctl, store: MemoryStore) -> None:
    calicoctl("create", "-f", "-", stdin=V1_POOL)
    gone = calicoctl("delete", "-f", "-", stdin=V1_POOL)
    assert (gone.exit, gone.out) == (0, "Successfully deleted 1 'ipPool' resource(s)\n")
    assert not [key for key in keys(store) if key.startswith("ippools/")]
    again = calicoctl("delete", "-f", "-", stdin=V1_POOL)
    assert again.exit == 1
    assert "resource does not exist: IPPool(cidr=17.16.10.0/24)" in again.err
    assert calicoctl("delete", "-s", "-f", "-", stdin=V1_POOL).exit == 0


def test_a_v1_pool_is_deleted_by_its_cidr_whatever_its_name_is(calicoctl: Calicoctl, store: MemoryStore) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    assert calicoctl("delete", "ipPool", "10.1.0.0/16").exit == 0
    assert not [key for key in keys(store) if key.startswith("ippools/")]


def test_apply_creates_and_updates(calicoctl: Calicoctl) -> None:
    assert calicoctl("apply", "-f", "-", stdin=V3_POOL).out == "Successfully applied 1 'IPPool' resource(s)\n"
    changed = V3_POOL + "  natOutgoing: true\n"
    assert calicoctl("apply", "-f", "-", stdin=changed).exit == 0
    assert json.loads(calicoctl("get", "ippool", "pool1", "-o", "json").out)["spec"]["natOutgoing"] is True


def test_replace_needs_the_resource(calicoctl: Calicoctl) -> None:
    missing = calicoctl("replace", "-f", "-", stdin=V3_POOL)
    assert missing.exit == 1
    assert "resource does not exist: IPPool(pool1)" in missing.err


def test_an_edited_copy_conflicts_if_somebody_wrote_in_between(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    copy = calicoctl("get", "ippool", "pool1", "-o", "yaml").out
    calicoctl("apply", "-f", "-", stdin=V3_POOL + "  natOutgoing: true\n")
    conflict = calicoctl("replace", "-f", "-", stdin=copy)
    assert conflict.exit == 1
    assert "update conflict: IPPool(pool1)" in conflict.err


def test_what_is_shown_can_be_applied_again(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL + "---\n" + NODE)
    for kind in ("ippool", "node"):
        for form in ("yaml", "json"):
            shown = calicoctl("get", kind, "-o", form).out
            assert calicoctl("apply", "-f", "-", stdin=shown).exit == 0, shown


# --- bad files


def test_every_error_of_a_file_is_told_and_nothing_is_written(calicoctl: Calicoctl, store: MemoryStore) -> None:
    bad = V3_POOL + "---\n" + V1_POOL.replace("17.16.10.0/24", "17.16.10.5/24") + "---\nkind: IPPool\n"
    done = calicoctl("create", "-f", "-", stdin=bad)
    assert done.exit == 1
    assert "<stdin>:11:9: metadata.cidr = '17.16.10.5/24'" in done.err
    assert "17.16.10.0/24" in done.err.replace("17.16.10.5/24", "")
    assert "<stdin>:18:7: " in done.err
    assert keys(store) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: [", "<stdin>:"),
        ("just words", "a document must be a mapping"),
        (V3_POOL.replace("cidr", "cdir"), "did you mean 'cidr'?"),
        (V3_POOL.replace("IPPool", "ippool"), "did you mean 'IPPool'?"),
        (V3_POOL.replace("10.1.0.0/16", "10.1.0.0/28"), "too small"),
        (V3_POOL.replace("10.1.0.0/16", "fd00::/64") + "  ipipMode: Always\n", "IPIP is not supported on an IPv6"),
        (V1_POOL.replace("enabled: true", "enabled: 'True'"), "ipip.enabled = 'True'"),
        ("", "no resources specified in file -"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(
    calicoctl: Calicoctl, store: MemoryStore, text: str, message: str
) -> None:
    done = calicoctl("create", "-f", "-", stdin=text)
    assert done.exit == 1
    assert message in done.err
    assert keys(store) == []


def test_what_fails_at_the_store_is_told_beside_what_was_written(calicoctl: Calicoctl, store: MemoryStore) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    overlapping = V3_POOL.replace("pool1", "pool2").replace("10.1.0.0/16", "10.1.128.0/17")
    done = calicoctl("create", "-f", "-", stdin=overlapping + "---\n" + NODE)
    assert done.exit == 1
    assert done.out == "Successfully created 1 'Node' resource(s)\n"
    assert "IPPool(pool2) CIDR overlaps with IPPool(pool1) CIDR 10.1.0.0/16" in done.err
    assert "nodes/node1" in keys(store)


def test_a_file_that_is_not_there_is_named(calicoctl: Calicoctl) -> None:
    done = calicoctl("create", "-f", "nosuch.yaml")
    assert done.exit == 1
    assert "nosuch.yaml: No such file or directory" in done.err


def test_a_folder_is_taken_in_name_order(calicoctl: Calicoctl) -> None:
    Path("pools").mkdir()
    Path("pools/b.yaml").write_text(V3_POOL)
    Path("pools/a.yml").write_text(NODE)
    Path("pools/notes.txt").write_text("not ours")
    assert calicoctl("create", "-f", "pools").out == "Successfully created 2 resource(s)\n"


# --- warnings


def test_a_pool_in_public_space_is_warned_of_and_created(calicoctl: Calicoctl) -> None:
    done = calicoctl("create", "-f", "-", stdin=V1_POOL)
    assert done.exit == 0
    assert len([line for line in done.err.splitlines() if line.startswith("Warning:")]) == 1
    assert "17.16.10.0/24" in done.err


def test_a_pool_over_a_nodes_subnet_is_warned_of_and_created(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=NODE)
    done = calicoctl("create", "-f", "-", stdin=V3_POOL.replace("10.1.0.0/16", "172.16.0.0/16"))
    assert done.exit == 0
    assert "Warning: pool 172.16.0.0/16 overlaps 172.16.60.0/24, the subnet of node node1" in done.err


# --- get


def test_an_empty_list_is_its_heading(calicoctl: Calicoctl) -> None:
    assert calicoctl("get", "ippool").out == "NAME   CIDR   SELECTOR   \n\n"
    assert calicoctl("get", "ipPool").out == "CIDR   \n\n"


def test_one_that_is_not_there(calicoctl: Calicoctl) -> None:
    done = calicoctl("get", "ippool", "nosuch", "-o", "yaml")
    assert (done.exit, done.out) == (1, "null\n")
    assert "resource does not exist: IPPool(nosuch)" in done.err


def test_lists_and_single_resources_as_yaml(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    listed = calicoctl("get", "ippool", "-o", "yaml").out
    assert listed.startswith("apiVersion: projectcalico.org/v3\nitems:\n- apiVersion: projectcalico.org/v3\n")
    assert re.search(r"^kind: IPPoolList\nmetadata:\n  resourceVersion: \"\d+\"$", listed, re.MULTILINE)
    one = calicoctl("get", "ippool", "pool1", "-o", "yaml").out
    assert re.search(r'^  creationTimestamp: "\d{4}-', one, re.MULTILINE)
    exported = calicoctl("get", "ippool", "pool1", "-o", "yaml", "--export").out
    assert "uid" not in exported


def test_v1_yaml_is_a_list_of_v1_documents(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V1_POOL)
    shown = calicoctl("get", "ipPool", "-o", "yaml").out
    assert shown.startswith("- apiVersion: v1\n  kind: ipPool\n  metadata:\n    cidr: 17.16.10.0/24\n")
    assert calicoctl("delete", "-f", "-", stdin=shown).exit == 0


def test_a_nodes_inherited_as_number_is_in_parentheses(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=NODE)
    assert "node1   (64512)   172.16.60.215/24" in calicoctl("get", "node", "-o", "wide").out


def test_custom_columns(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    assert calicoctl("get", "ippool", "-o", "custom-columns=CIDR,NAME").out == (
        "CIDR          NAME    \n10.1.0.0/16   pool1   \n\n"
    )
    unknown = calicoctl("get", "ippool", "-o", "custom-columns=FOO")
    assert unknown.exit == 1
    assert "unknown heading FOO, valid values are: NAME, CIDR" in unknown.err
    lower = calicoctl("get", "ippool", "-o", "custom-columns=cidr")
    assert lower.err.endswith("  headings are in capitals: CIDR\n")


def test_a_kind_that_is_nearly_one_is_guessed(calicoctl: Calicoctl) -> None:
    assert "did you mean 'gnps'? supported: " in calicoctl("get", "gnps2").err
    assert "  supported: " in calicoctl("get", "zzz").err


def test_an_unreadable_record_is_warned_of_and_the_others_are_shown(calicoctl: Calicoctl, store: MemoryStore) -> None:
    from resources.datastore.store import Transaction

    calicoctl("create", "-f", "-", stdin=V3_POOL)
    key = "/calico/resources/v3/projectcalico.org/ippools/broken"
    store.commit(Transaction(puts={key: b"not json"}))
    done = calicoctl("get", "ippool")
    assert done.exit == 0
    assert "pool1" in done.out
    assert "IPPool(broken) cannot be read" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "nosuch"), "resource type 'nosuch' is not supported"),
        (("get", "ippool", "-o", "xml"), "unrecognized output format 'xml'"),
        (("get",), "give either a KIND or -f FILE"),
        (("get", "node", "-n", "x"), "Node is not namespaced"),
        (("delete", "node"), "at least one NAME"),
        (("nosuch",), "nosuch"),
        (("-l", "loud", "get", "node"), "Unknown log level: loud, expected one of: \npanic, fatal, error"),
        (("ipam", "show", "--ip=x"), "Error executing command: invalid IP address specified: x"),
        (("create",), "--filename"),
    ],
)
def test_wrong_words_end_with_1_and_say_why(calicoctl: Calicoctl, arguments: tuple[str, ...], message: str) -> None:
    done = calicoctl(*arguments)
    assert done.exit == 1
    assert message in done.err


# --- the rest


def test_the_version_needs_no_store() -> None:
    from calicoctl.main import main

    assert main(["--version"]) == 0


def test_ipam_of_a_store_without_pools(calicoctl: Calicoctl) -> None:
    assert calicoctl("ipam", "show").out == (
        "+----------+------+-----------+------------+----------+\n"
        "| GROUPING | CIDR | IPS TOTAL | IPS IN USE | IPS FREE |\n"
        "+----------+------+-----------+------------+----------+\n"
        "+----------+------+-----------+------------+----------+\n"
    )
    assert calicoctl("ipam", "show", "--ip=10.0.0.1").out == "10.0.0.1 is not assigned\n"


def test_ipam_show_counts(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    assert "| IP Pool  | 10.1.0.0/16 |     65536 | 0 (0%)     | 65536 (100%) |" in calicoctl("ipam", "show").out


ENDPOINT = """\
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: node1-libnetwork-libnetwork-0123
  namespace: libnetwork
  annotations:
    docker.projectcalico.org/container: docker-test1
    docker.projectcalico.org/network: calico-net1
spec:
  node: node1
  orchestrator: libnetwork
  workload: libnetwork
  endpoint: "0123"
  interfaceName: cali0123456789a
  ipNetworks: [10.1.0.7/32]
"""


def hold(store: MemoryStore, calicoctl: Calicoctl) -> None:
    """Make the pool, the node and one address in use."""
    assert calicoctl("create", "-f", "-", stdin=V3_POOL + "---\n" + NODE).exit == 0
    Allocator(store, NodeName("node1")).assign(ipaddress.IPv4Address("10.1.0.7"))


def test_ipam_show_names_the_container(calicoctl: Calicoctl, store: MemoryStore) -> None:
    hold(store, calicoctl)
    assert "Endpoint:" not in calicoctl("ipam", "show", "--ip=10.1.0.7").out
    calicoctl("create", "-f", "-", stdin=ENDPOINT)
    lines = calicoctl("ipam", "show", "--ip=10.1.0.7").out.splitlines()
    assert lines[0] == "IP 10.1.0.7 is in use"
    assert "  node: node1" in lines
    assert lines[-1] == (
        "Endpoint: container docker-test1 of network calico-net1 on node1, interface cali0123456789a"
    )


def test_a_pool_in_use_is_deleted_with_a_warning_of_what_that_does(calicoctl: Calicoctl, store: MemoryStore) -> None:
    hold(store, calicoctl)
    done = calicoctl("delete", "ipPool", "10.1.0.0/16")
    assert (done.exit, done.out) == (0, "Successfully deleted 1 'ipPool' resource(s)\n")
    assert done.err.startswith("Warning: 1 address(es) of pool 10.1.0.0/16 are in use: ")


def test_a_hosts_own_tunnel_address_is_no_use_of_a_pool(calicoctl: Calicoctl, store: MemoryStore) -> None:
    hold(store, calicoctl)
    node = NODE + "  ipv4VXLANTunnelAddr: 10.1.0.7\n"
    assert calicoctl("apply", "-f", "-", stdin=node).exit == 0
    assert calicoctl("delete", "ipPool", "10.1.0.0/16").err == ""


def test_a_pool_that_nobody_uses_is_deleted_without_one(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=V3_POOL)
    assert calicoctl("delete", "ippool", "pool1").err == ""


def test_a_node_with_endpoints_is_deleted_with_a_warning(calicoctl: Calicoctl) -> None:
    calicoctl("create", "-f", "-", stdin=NODE + "---\n" + ENDPOINT + "---\n" + NODE.replace("node1", "node2"))
    assert calicoctl("delete", "node", "node2").err == ""
    done = calicoctl("delete", "node", "node1")
    assert (done.exit, done.out) == (0, "Successfully deleted 1 'Node' resource(s)\n")
    assert done.err.startswith("Warning: node node1 has 1 endpoint(s), removed with it.")


def test_a_v1_pool_that_is_not_there_is_named_as_it_was_typed(calicoctl: Calicoctl) -> None:
    assert "resource does not exist: IPPool(cidr=10.9.0.0/24)" in calicoctl("delete", "ipPool", "10.9.0.0/24").err


def test_endpoints_of_docker_are_pointed_at_when_none_are_in_the_default_namespace(calicoctl: Calicoctl) -> None:
    assert calicoctl("get", "wep").err == ""
    calicoctl("create", "-f", "-", stdin=NODE + "---\n" + ENDPOINT)
    done = calicoctl("get", "wep")
    assert (done.exit, done.out) == (0, "WORKLOAD   NODE   NETWORKS   INTERFACE   \n\n")
    assert done.err == "None in namespace default; there are 1 in libnetwork (-n libnetwork). All are shown by -A.\n"
    assert calicoctl("get", "wep", "-A").err == ""


def test_everything_wrong_with_a_v1_document_is_told_at_once(calicoctl: Calicoctl) -> None:
    wrong = V1_POOL.replace("17.16.10.0/24", "17.16.10.300/24").replace("disabled: false", "disabled: 3")
    done = calicoctl("create", "-f", "-", stdin=wrong)
    assert "<stdin>:4:9: metadata.cidr = '17.16.10.300/24'" in done.err
    assert "<stdin>:9:13: spec.disabled = '3': must be true or false" in done.err


def test_the_help_of_get_names_the_kinds(calicoctl: Calicoctl) -> None:
    text = " ".join(calicoctl("get", "--help").out.split())
    assert "GlobalNetworkPolicy (gnp)" in text
    assert "ipPool, node, policy, profile" in text
