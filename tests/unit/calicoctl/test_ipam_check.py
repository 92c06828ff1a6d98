"""`calicoctl ipam check` and `release`: Calico's words, every kind of leak named with its way out, nothing changed."""

import ipaddress

import pytest

from calicoctl.ipam_check import lines
from fakes.command_line import Calicoctl
from fakes.ipam_world import World
from ipam import audit
from resources.datastore import keys
from resources.datastore.memory import MemoryStore
from resources.names import HandleId, IPAddress

ENDPOINTS = keys.kind_prefix("workloadendpoints")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def endpoint(world: World, address: str, name: str) -> None:
    spec = {"orchestrator": "libnetwork", "workload": "libnetwork", "node": "n1", "endpoint": name,
            "interfaceName": "cali1", "ipNetworks": [f"{address}/32"], "profiles": ["net1"]}
    document = {"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "libnetwork"}, "spec": spec}
    world.put(f"{ENDPOINTS}libnetwork/{name}", document)


@pytest.fixture
def world(store: MemoryStore) -> World:
    """Two nodes, two blocks of four addresses, three addresses of which two are used."""
    world = World(store)
    world.node("n1", "n2")
    world.pool("10.8.0.0/29", "pool", blockSize=30)
    world.allocator("n1").assign(ip("10.8.0.1"), handle=HandleId("a"), attributes={"node": "n1"})
    world.allocator("n1").assign(ip("10.8.0.2"), handle=HandleId("b"), attributes={"node": "n1"})
    world.allocator("n2").assign(ip("10.8.0.5"), attributes={"node": "n2"})
    endpoint(world, "10.8.0.1", "e1")
    endpoint(world, "10.8.0.5", "e2")
    return world


def told(world: World, **options: bool) -> list[str]:
    return lines(audit.check(world.store, world.clock.moment), **options)


def test_a_leaked_address_is_counted_in_calicos_words(world: World) -> None:
    assert told(world) == [
        "Checking IPAM for inconsistencies...",
        "",
        "Loading all IPAM blocks...",
        "Found 2 IPAM blocks.",
        " IPAM block 10.8.0.0/30 affinity=host:n1:",
        " IPAM block 10.8.0.4/30 affinity=host:n2:",
        "IPAM blocks record 3 allocations.",
        "",
        "Loading all IPAM pools...",
        "  10.8.0.0/29",
        "Found 1 active IP pools.",
        "",
        "Loading all nodes.",
        "Found 0 node tunnel IPs.",
        "",
        "Loading all workload endpoints.",
        "Found 2 workload IPs.",
        "Workloads and nodes are using 2 IPs.",
        "",
        "Loading all handles",
        "",
        "Looking for top (up to 20) nodes by allocations...",
        "  n1 has 2 allocations",
        "  n2 has 1 allocations",
        "Node with most allocations has 2; median is 1",
        "",
        "Scanning for IPs that are allocated but not actually in use...",
        "Found 1 IPs that are allocated in IPAM but not actually in use.",
        "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...",
        "Found 0 in-use IPs that are not in active IP pools.",
        "Found 0 in-use IPs that are in active IP pools but have no corresponding IPAM allocation.",
        "",
        "Scanning for IPAM handles with no matching IPs...",
        "Found 0 handles with no matching IPs (and 3 handles with matches).",
        "Scanning for IPs with missing handle...",
        "Found 0 handles mentioned in blocks with no matching handle resource.",
        "Validating IPAMBlock structures...",
        "Found 0 invalid IPAMBlocks.",
        "Check complete; found 1 problems.",
    ]


def test_each_finding_is_named_with_what_to_do(world: World) -> None:
    endpoint(world, "10.8.0.6", "e3")
    endpoint(world, "10.9.0.1", "e4")
    world.put(keys.handle_key(HandleId("old")), {"handleID": "old", "block": {"10.8.0.0/30": 1}, "deleted": False})
    found = told(world, names_problems=True)
    at = found.index("  10.8.0.2 leaked; attrs Main:b Extra:node=n1")
    assert found[at + 1] == "    if nothing uses it: calicoctl ipam release --ip=10.8.0.2"
    who = "Workload(libnetwork/e3)"
    assert f"  10.8.0.6 in use by {who} and in active IPAM pool but has no IPAM allocation." in found
    assert "  10.9.0.1 in use by Workload(libnetwork/e4) is not in any active IP pool." in found
    assert "  old doesn't have any active IPs." in found
    assert found[-1] == "Check complete; found 4 problems."


def test_all_addresses_are_named_on_demand(world: World) -> None:
    found = told(world, names_all=True)
    assert "  10.8.0.1 allocated; attrs Main:a Extra:node=n1" in found
    assert "  10.8.0.5 belongs to Workload(libnetwork/e2)" in found
    assert "  10.8.0.1 allocated; attrs Main:a Extra:node=n1" not in told(world)


def test_what_calico_does_not_count_comes_behind_and_does_not_count(world: World) -> None:
    world.delete(f"{keys.kind_prefix('nodes')}n2")
    found = told(world, names_problems=True)
    at = found.index("Also, not counted as a problem: block of a node that does not exist: 1")
    assert found[at + 1 : at + 3] == [
        "  10.8.0.4/30 belongs to node n2, which does not exist",
        "    if that host is gone for good: calicoctl delete node n2",
    ]
    assert found[-1] == "Check complete; found 1 problems."


# --- the commands


def everything(store: MemoryStore) -> dict[str, bytes]:
    return {item.key: item.value for item in store.list("/").items}


@pytest.mark.usefixtures("world")
def test_the_command_changes_nothing_and_names_its_option(calicoctl: Calicoctl, store: MemoryStore) -> None:
    before = everything(store)
    done = calicoctl("ipam", "check")
    assert (done.exit, done.out.splitlines()[-1]) == (0, "Check complete; found 1 problems.")
    assert done.err == "calicoctl ipam check --show-problem-ips names what was found, and what to do about each\n"
    named = calicoctl("ipam", "check", "--show-problem-ips")
    assert "calicoctl ipam release --ip=10.8.0.2" in named.out
    assert named.err == ""
    assert everything(store) == before


@pytest.mark.usefixtures("world")
def test_a_leaked_address_is_released_and_the_check_is_content(calicoctl: Calicoctl, store: MemoryStore) -> None:
    done = calicoctl("ipam", "release", "--ip=10.8.0.2")
    assert (done.exit, done.out) == (0, "Successfully released IP address 10.8.0.2\n")
    assert calicoctl("ipam", "check").out.splitlines()[-1] == "Check complete; found 0 problems."
    assert keys.handle_key(HandleId("b")) not in everything(store)
    again = calicoctl("ipam", "release", "--ip=10.8.0.2")
    assert (again.exit, again.err) == (1, "IP address 10.8.0.2 is not assigned\n")
    assert calicoctl("ipam", "release", "--ip=10.99.0.2").err == "IP address 10.99.0.2 is not assigned\n"
    assert "invalid IP address specified: x" in calicoctl("ipam", "release", "--ip=x").err


@pytest.mark.usefixtures("world")
def test_an_address_in_use_is_released_by_force_only(calicoctl: Calicoctl, store: MemoryStore) -> None:
    before = everything(store)
    done = calicoctl("ipam", "release", "--ip=10.8.0.1")
    assert done.exit == 1
    assert "10.8.0.1 is in use by Workload(libnetwork/e1); nothing was changed" in done.err
    assert "--force" in done.err
    assert everything(store) == before
    assert calicoctl("ipam", "release", "--ip=10.8.0.1", "--force").exit == 0
    assert calicoctl("ipam", "show", "--ip=10.8.0.1").out == "10.8.0.1 is not assigned\n"


def test_handles_that_another_program_left_are_removed_and_no_others(
    calicoctl: Calicoctl, store: MemoryStore, world: World
) -> None:
    before = everything(store)
    for name, counts in (("old", {"10.8.0.0/30": 1}), ("older", {"10.99.0.0/26": 2}), ("empty", {})):
        world.put(keys.handle_key(HandleId(name)), {"handleID": name, "block": counts, "deleted": False})
    done = calicoctl("ipam", "release", "--stale-handles")
    assert (done.exit, done.out) == (0, "Deleting 3 handles...\nReleased 3 handles; 0 skipped.\n")
    assert everything(store) == before
    for both_or_none in ((), ("--ip=10.8.0.2", "--stale-handles")):
        assert calicoctl("ipam", "release", *both_or_none).exit == 1


def test_an_empty_store_has_no_problems(calicoctl: Calicoctl) -> None:
    done = calicoctl("ipam", "check")
    assert (done.exit, done.out.splitlines()[-1], done.err) == (0, "Check complete; found 0 problems.", "")
