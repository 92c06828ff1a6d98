"""What the original was recorded doing, done by us on the same store: the same keys, the same bytes.

Where we differ on purpose is said in the test: our allocations name the node, counts are what was taken, sequence
numbers of freed addresses go.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.ipam_world import World
from ipam.allocator import Allocator
from ipam.errors import AddressInUse, NotInPool, PoolUnusable, ReleaseRefused
from ipam.results import Release
from resources.datastore import keys
from resources.errors import DoesNotExist
from resources.names import HandleId, IPAddress, NodeName, PoolName

STEPS = Path(__file__).resolve().parents[2] / "fixtures" / "calico-v3" / "ipam-steps.jsonl"


@dataclass
class Step:
    """One recorded operation: its name and answer, what it wrote (None: deleted)."""

    name: str
    result: str
    written: dict[str, str | None]


def recorded() -> list[Step]:
    steps: list[Step] = []
    for line in STEPS.read_text().splitlines():
        record = json.loads(line)
        if not steps or steps[-1].name != record["step"]:
            steps.append(Step(record["step"], record["result"], {}))
        if record["key"] is not None:
            steps[-1].written[record["key"]] = record["value"]
    return steps


def before(name: str) -> World:
    """Return the store as it was before a step."""
    world = World()
    world.pool("10.10.0.0/16", "pool-default")
    world.pool("17.16.10.0/24", "pool-ipip-always", ipipMode="Always")
    world.pool("fd80:24e2:f998:72d6::/64", "pool-v6")
    world.reserve("10.10.0.0/24", name="gateway")
    world.node("node1", "node2", "node3")
    for step in recorded():
        if step.name.startswith(name):
            return world
        for key, value in step.written.items():
            if value is None:
                world.delete(key)
            else:
                world.put(key, value)
    raise AssertionError(f"no such step: {name}")


def step(name: str) -> Step:
    return next(step for step in recorded() if step.name.startswith(name))


def written(world: World, act: Callable[[], object]) -> dict[str, str | None]:
    """Do something and return what it wrote, as the recording says it."""
    old = {kv.key: kv.value.decode() for kv in world.store.list(keys.IPAM).items}
    act()
    new = {kv.key: kv.value.decode() for kv in world.store.list(keys.IPAM).items}
    changed: dict[str, str | None] = {key: value for key, value in new.items() if old.get(key) != value}
    changed.update(dict.fromkeys(old.keys() - new.keys()))
    return changed


def without_numbers_of_the_free(text: str | None) -> str | None:
    """Drop the sequence numbers that the original leaves behind for freed addresses."""
    if text is None or "allocations" not in text:
        return text
    block = json.loads(text)
    numbers = block["sequenceNumberForAllocation"]
    block["sequenceNumberForAllocation"] = {
        o: n for o, n in numbers.items() if block["allocations"][int(o)] is not None
    }
    return json.dumps(block, separators=(",", ":"))


def as_recorded(values: Mapping[str, str | None]) -> dict[str, str | None]:
    return {key: without_numbers_of_the_free(value) for key, value in values.items()}


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def node(world: World, name: str = "node1") -> Allocator:
    return world.allocator(name)


RELEASES: list[tuple[str, Callable[[Allocator], object]]] = [
    ("ReleaseIPs h1's first address by address only", lambda a: a.release([Release(ip("10.10.166.128"))])),
    ("ReleaseIPs 17.16.10.250", lambda a: a.release([Release(ip("17.16.10.250"))])),
    ("ReleaseByHandle h1", lambda a: a.release_by_handle(HandleId("h1"))),
    ("ReleaseByHandle h6 (two families)", lambda a: a.release_by_handle(HandleId("h6"))),
    ("ReleaseAffinity 10.10.8.0/25 node1 mustBeEmpty",
     lambda a: a.release_affinity(ipaddress.ip_network("10.10.8.0/25"), must_be_empty=True)),
    ("ReleaseHostAffinities node2 (with addresses in use)", lambda a: a.release_host_affinities(NodeName("node2"))),
    ("RemoveIPAMHost node3", lambda a: a.remove_host(NodeName("node3"))),
    ("delete pool pool-ipip-always while addresses are in use", lambda a: a.delete_pool(PoolName("pool-ipip-always"))),
]


@pytest.mark.parametrize(("name", "act"), RELEASES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_given_back_is_written_as_the_original_does(name: str, act: Callable[[Allocator], object]) -> None:
    world = before(name)
    assert written(world, lambda: act(node(world))) == as_recorded(step(name).written)


@pytest.mark.parametrize(("handle", "left_behind"), [("h15", "17.16.10"), ("h14", "17.16.10")])
def test_a_handle_the_original_overcounted_is_gone_after_our_release(handle: str, left_behind: str) -> None:
    name = f"ReleaseByHandle {handle}"
    world, expected = before(name), as_recorded(step(name).written)
    assert left_behind in (expected[keys.handle_key(HandleId(handle))] or "")
    expected[keys.handle_key(HandleId(handle))] = None
    assert written(world, lambda: node(world).release_by_handle(HandleId(handle))) == expected


def test_the_second_release_by_handle_is_told() -> None:
    world = before("ReleaseByHandle h1 again")
    with pytest.raises(DoesNotExist, match=r"resource does not exist: IPAMHandleKey\(id=h1\)"):
        node(world).release_by_handle(HandleId("h1"))
    assert "resource does not exist: IPAMHandleKey(id=h1)" in step("ReleaseByHandle h1 again").result


def test_refusals() -> None:
    world = before("ReleaseIPs with a wrong handle")
    address = ip("17.16.10.250")
    for bad in (Release(address, handle=HandleId("nope")), Release(address, sequence=1)):
        with pytest.raises(ReleaseRefused, match=r"update conflict: 17\.16\.10\.250"):
            node(world).release([bad])
    assert node(world).release([Release(ip("17.16.10.200"))]) == [ip("17.16.10.200")]
    with pytest.raises(AddressInUse, match="Address already assigned in block"):
        node(world).assign(address)
    with pytest.raises(NotInPool, match="The provided IP address is not in a configured pool"):
        node(world).assign(ip("203.0.113.1"))
    with pytest.raises(DoesNotExist, match=r"resource does not exist: Node\(nosuch\)"):
        node(world, "nosuch").auto_assign(version=4)
    with pytest.raises(PoolUnusable, match=r"the given pool \(10.200.0.0/16\) does not exist, or is not enabled"):
        node(world).auto_assign(version=4, pools=[ipaddress.ip_network("10.200.0.0/16")])


ASSIGNMENTS: list[tuple[str, str, str, Callable[[Allocator], object]]] = [
    ("AutoAssign node1 handle h1 one more IPv4", "node1", "h1",
     lambda a: a.auto_assign(version=4, handle=HandleId("h1"))),
    ("AutoAssign node1 handle h2 one IPv4 with attributes", "node1", "h2", lambda a: a.auto_assign(
        version=4, handle=HandleId("h2"), attributes={"network": "calico-net1", "type": "libnetwork"})),
    ("AssignIP 17.16.10.250 node1 handle h7", "node1", "h7",
     lambda a: a.assign(ip("17.16.10.250"), handle=HandleId("h7"))),
    ("AssignIP 17.16.10.251 node2 handle h9", "node2", "h9",
     lambda a: a.assign(ip("17.16.10.251"), handle=HandleId("h9"))),
    ("AutoAssign node1 handle h13 one IPv4 of 17.16.10.0/24 after the releases", "node1", "h13",
     lambda a: a.auto_assign(version=4, handle=HandleId("h13"), pools=[ipaddress.ip_network("17.16.10.0/24")])),
]


@pytest.mark.parametrize(("name", "host", "handle", "act"), ASSIGNMENTS,
                         ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_taken_is_written_as_the_original_does_but_names_the_node(
    name: str, host: str, handle: str, act: Callable[[Allocator], object]
) -> None:
    world, expected = before(name), as_recorded(step(name).written)
    changed = written(world, lambda: act(node(world, host)))
    assert changed.keys() == expected.keys()
    assert changed[keys.handle_key(HandleId(handle))] == expected[keys.handle_key(HandleId(handle))]
    block_key = next(key for key in expected if "/block/" in key)
    ours, theirs = json.loads(changed[block_key] or ""), json.loads(expected[block_key] or "")

    def shape(block: dict[str, object]) -> object:
        owners = block.pop("attributes")
        allocations = block.pop("allocations")
        assert isinstance(owners, list)
        assert isinstance(allocations, list)
        holders = [None if index is None else owners[index].get("handle_id") for index in allocations]
        return block, holders

    assert shape(ours) == shape(theirs)


def test_a_claimed_range_is_written_as_the_original_does() -> None:
    name = "ClaimAffinity 10.10.8.0/24 node1"
    world = before(name)
    changed = written(world, lambda: node(world).claim_affinity(ipaddress.ip_network("10.10.8.0/24")))

    def timeless(values: Mapping[str, str | None]) -> dict[str, str]:
        pattern = r'"affinity_claim_time":"[^"]*"|"sequenceNumber":\d+'
        return {key: re.sub(pattern, "", value or "") for key, value in values.items()}

    assert timeless(changed) == timeless(step(name).written)


def test_the_figures_are_those_that_the_original_shows() -> None:
    """The store after the last step, as ``ipam show --show-blocks`` printed it."""
    world = before("delete pool")
    node(world).delete_pool(PoolName("pool-ipip-always"))
    uses = node(world).utilization()
    text = (STEPS.parent / "ipam-cli.txt").read_text()
    table = text.split("$ calicoctl ipam show --show-blocks")[1].split("$")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]

    def shown(grouping: str) -> list[tuple[str, int]]:
        return [(row[1], int(row[3].split()[0])) for row in rows if row[0] == grouping]

    assert [(str(block.cidr), block.in_use) for use in uses for block in use.blocks] == shown("Block")
    assert [(str(use.cidr), use.in_use) for use in uses if use.cidr] == shown("IP Pool")
