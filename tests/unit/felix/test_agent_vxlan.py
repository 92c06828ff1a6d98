"""VXLAN through the whole of felix: records and blocks in, devices and routes of a fake kernel out."""

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes.felix_agent import FelixAgent
from fakes.felix_records import host, pool
from fakes.kernel import FakeKernel
from felix.agent import DATAPLANE
from felix.withheld import LASTING_SECONDS
from kernel.errors import NotSupported
from kernel.link import ForwardingEntry, Neighbour
from kernel.monitor import LinkChanged, LinkGone, NeighbourChanged
from resources.datastore.keys import block_key
from resources.datastore.sync import Change, Changes
from resources.names import IfName, NodeName
from resources.vxlan import tunnel_mac

DEVICE = IfName("vxlan.calico")
POOL = pool("10.65.0.0/16", vxlan="Always")
HERE = host("node1", "192.0.2.10/24", vxlan="10.65.0.1")
THERE = host("node2", "192.0.2.2/24", vxlan="10.65.1.1")
BLOCK = "10.65.1.0/26"
TO_THERE = {BLOCK: "via 10.65.1.1 dev vxlan.calico onlink proto 80"}
LAST_RESORT = f"{BLOCK} metric 4294967295"
NO_WAY = {LAST_RESORT: "unreachable proto 80"}


def put_block(felix: FelixAgent, cidr: str, owner: str | None) -> None:
    record = {"cidr": cidr, "affinity": f"host:{owner}", "allocations": [None] * 64, "attributes": []}
    put_raw_block(felix, cidr, json.dumps(record).encode() if owner else None)


def put_raw_block(felix: FelixAgent, cidr: str, value: bytes | None) -> None:
    felix.hear(Changes((Change(block_key(ipaddress.ip_network(cidr)), value, 7),)))


def routes(felix: FelixAgent) -> dict[str, str]:
    found = felix.host.kernel.routes.routes
    return {str(key): str(route) for key, route in found.items() if route.protocol == 80 and "lo" not in route.devices}


def state(felix: FelixAgent, what: str) -> Any:
    return felix.agent.state()[what]


@pytest.fixture
def felix() -> FelixAgent:
    made = FelixAgent()
    made.begin(POOL, HERE, THERE)
    put_block(made, BLOCK, "node2")
    return made


def test_blocks_nodes_and_pools_make_routes(felix: FelixAgent) -> None:
    assert routes(felix) == TO_THERE
    assert felix.host.kernel.vxlan.read(DEVICE) is not None
    put_block(felix, BLOCK, None)
    assert routes(felix) == {}
    put_block(felix, BLOCK, "node1")
    assert routes(felix) == {BLOCK: "blackhole proto 80"}
    felix.remove(POOL[0])
    assert routes(felix) == {}
    assert DEVICE not in felix.host.kernel.links.links()


def test_the_tunnel_is_shown(felix: FelixAgent) -> None:
    shown = {"ready": True, "address": "10.65.0.1", "from": "192.0.2.10", "mtu": 1450, "hosts": 1}
    assert state(felix, "tunnels")["vxlan"] == {DEVICE: shown}


def test_nothing_is_written_twice(felix: FelixAgent) -> None:
    kernel = felix.host.kernel
    kernel.vxlan.log.clear()
    kernel.routes.log.clear()
    felix.put(POOL, HERE, THERE)
    put_block(felix, BLOCK, "node2")
    felix.hear(LinkChanged(kernel.links.links()[DEVICE]))
    felix.later(200)
    assert (kernel.vxlan.log, kernel.routes.log) == ([], [])


def test_a_device_that_goes_is_made_again_with_its_routes(felix: FelixAgent) -> None:
    felix.host.kernel.links.delete(DEVICE)
    assert routes(felix) == {}
    felix.hear(LinkGone(DEVICE))
    felix.hear(LinkChanged(felix.host.kernel.links.links()[DEVICE]))
    assert routes(felix) == TO_THERE


@pytest.mark.parametrize("value", [b"not JSON", b'{"cidr":"10.65.9.0/26"}', b'{"cidr":"10.65.1.0/26"}'])
def test_a_block_that_cannot_be_read_is_told_and_has_no_route(felix: FelixAgent, value: bytes) -> None:
    put_raw_block(felix, BLOCK, value)
    key = block_key(ipaddress.ip_network(BLOCK))
    assert routes(felix) == {}
    assert [event["key"] for event in felix.events("record.unreadable")] == [key]
    assert BLOCK in state(felix, "problems")[key][0]
    put_block(felix, BLOCK, "node2")
    assert routes(felix) == TO_THERE
    assert state(felix, "problems") == {}
    assert [event["key"] for event in felix.events("record.mended")] == [key]


def test_a_host_that_cannot_be_reached_is_shown_at_once_and_told_of_when_it_lasts(felix: FelixAgent) -> None:
    felix.put(host("node2", "192.0.2.2/24"))
    assert routes(felix) == NO_WAY
    assert BLOCK in state(felix, "withheld")["node2"]
    felix.later(LASTING_SECONDS - 1)
    assert felix.events("routes.withheld") == []
    felix.later(2)
    [event] = felix.events("routes.withheld")
    assert (event["node"], event["log_level"]) == ("node2", "error")
    felix.put(THERE)
    assert routes(felix) == TO_THERE
    assert [event["node"] for event in felix.events("routes.no_longer_withheld")] == ["node2"]
    assert state(felix, "withheld") == {}


def test_there_is_no_moment_without_a_route_to_what_was_unreachable(felix: FelixAgent) -> None:
    log = felix.host.kernel.routes.log
    felix.put(host("node2", "192.0.2.2/24"))
    log.clear()
    felix.put(THERE)
    assert routes(felix) == TO_THERE
    assert [line for line in log if BLOCK in line] == [f"add {BLOCK}", f"delete {LAST_RESORT}"]


def test_what_a_device_that_went_led_to_is_unreachable_until_it_is_back(felix: FelixAgent) -> None:
    felix.host.kernel.vxlan.missing = NotSupported("cannot make the VXLAN device: no such type")
    felix.host.kernel.links.delete(DEVICE)
    felix.hear(LinkGone(DEVICE))
    assert routes(felix) == NO_WAY
    felix.host.kernel.vxlan.missing = None
    felix.later(20)
    assert routes(felix) == TO_THERE
    put_block(felix, BLOCK, None)
    assert routes(felix) == {}


def test_a_kernel_without_vxlan_is_told_of_and_nothing_goes_unwrapped() -> None:
    felix = FelixAgent()
    kernel = felix.host.kernel
    kernel.vxlan.missing = NotSupported("cannot make the VXLAN device: no such type", hint="load the kernel module")
    felix.begin(POOL, HERE, THERE)
    put_block(felix, BLOCK, "node2")
    assert routes(felix) == NO_WAY
    assert state(felix, "failing") == ["tunnel vxlan.calico"]
    told = "cannot make the VXLAN device: no such type; load the kernel module"
    assert state(felix, "errors") == {"tunnel vxlan.calico": told}
    [event] = felix.events("dataplane.failed")
    assert (event["what"], event["hint"]) == ("tunnel vxlan.calico", "load the kernel module")
    assert DATAPLANE not in felix.health.waiting_for()  # all else works
    kernel.vxlan.missing = None
    felix.later(20)
    assert routes(felix) == TO_THERE
    assert state(felix, "errors") == {}


def test_the_next_felix_adopts_what_it_finds(felix: FelixAgent) -> None:
    kernel = felix.host.kernel
    index = kernel.links.links()[DEVICE].index
    kernel.vxlan.log.clear()
    kernel.routes.log.clear()
    after = FelixAgent(host=felix.host)
    record = {"cidr": BLOCK, "affinity": "host:node2", "allocations": [None] * 64, "attributes": []}
    block = Change(block_key(ipaddress.ip_network(BLOCK)), json.dumps(record).encode(), 1)
    after.hear(Changes((block,)))
    after.begin(POOL, HERE, THERE)
    assert kernel.links.links()[DEVICE].index == index
    assert (kernel.vxlan.log, [line for line in kernel.routes.log if BLOCK in line]) == ([], [])


# ---- who is where on the device

NEAR, FAR = ipaddress.ip_address("10.65.1.1"), ipaddress.ip_address("192.0.2.2")
MAC, OTHER_MAC = tunnel_mac(NodeName("node2"), 4), "66:00:00:00:09:09"
ON_DEVICE = ({NEAR: Neighbour(address=NEAR, mac=MAC, permanent=True)}, {MAC: FAR})
DAMAGE: dict[str, tuple[Callable[[FakeKernel], object], str]] = {
    "neighbour gone": (lambda kernel: kernel.links.remove_neighbour(DEVICE, NEAR), "neighbours: 1 gone"),
    "neighbour changed": (lambda kernel: kernel.links.set_neighbour(DEVICE, NEAR, OTHER_MAC), "neighbours: 1 changed"),
    "neighbour foreign": (lambda kernel: kernel.links.set_neighbour(DEVICE, FAR, OTHER_MAC), "neighbours: 1 foreign"),
    "entry gone": (lambda kernel: kernel.vxlan.remove_entry(DEVICE, MAC), "forwarding entries: 1 gone"),
    "entry changed": (lambda kernel: kernel.vxlan.set_entry(DEVICE, MAC, NEAR), "forwarding entries: 1 changed"),
    "entry to no host": (lambda kernel: kernel.vxlan.lead_astray(DEVICE, MAC), "forwarding entries: 1 changed"),
    "entry foreign": (lambda kernel: kernel.vxlan.set_entry(DEVICE, OTHER_MAC, FAR), "forwarding entries: 1 foreign"),
}


def on_device(felix: FelixAgent) -> tuple[object, object]:
    kernel = felix.host.kernel
    return kernel.links.neighbours(DEVICE), kernel.vxlan.entries(DEVICE)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_somebody_does_to_an_entry_is_repaired_when_it_is_told(felix: FelixAgent, damage: str) -> None:
    act, found = DAMAGE[damage]
    felix.listen_to_neighbours()
    act(felix.host.kernel)
    assert on_device(felix) != ON_DEVICE
    assert felix.hear_neighbours() <= 3  # the damage, and the repair: felix does not answer itself
    assert on_device(felix) == ON_DEVICE
    [event] = felix.events("tunnel.repaired")
    assert (event["tunnel"], event["found"]) == (DEVICE, found)
    assert event["log_level"] == ("info" if "foreign" in damage else "warning")
    assert state(felix, "repaired") == {f"tunnel {DEVICE}": {"times": 1, "found": found}}
    felix.later(200)
    assert state(felix, "repaired")[f"tunnel {DEVICE}"]["times"] == 1


def test_what_felix_writes_itself_makes_it_read_and_write_nothing(felix: FelixAgent) -> None:
    kernel = felix.host.kernel
    felix.listen_to_neighbours()
    felix.put(host("node3", "192.0.2.3/24", vxlan="10.65.3.1"))
    felix.put(host("node2", "192.0.2.7/24", vxlan="10.65.1.1"))
    felix.remove(host("node3")[0])
    kernel.vxlan.log.clear()
    reads = kernel.links.neighbour_dumps
    assert felix.hear_neighbours() >= 5
    assert (kernel.vxlan.log, felix.events("tunnel.repaired")) == ([], [])
    # a host that came and went before its entries were told of costs a look, not one for each
    assert kernel.links.neighbour_dumps <= reads + 1


def test_news_that_are_known_or_concern_nobody_cost_no_look(felix: FelixAgent) -> None:
    kernel = felix.host.kernel
    kernel.vxlan.log.clear()
    applied, reads = len(felix.events("dataplane.applied")), kernel.links.neighbour_dumps
    unresolved = Neighbour(address=ipaddress.ip_address("10.65.9.9"), mac=None, permanent=False)
    for device, entry, gone in (
        (DEVICE, ON_DEVICE[0][NEAR], False),
        (DEVICE, ForwardingEntry(mac=MAC, remote=FAR), False),
        (DEVICE, ForwardingEntry(mac=OTHER_MAC, remote=FAR), True),
        (DEVICE, unresolved, False),
        (DEVICE, unresolved, True),
        (IfName("vxlan-v6.calico"), ForwardingEntry(mac=MAC, remote=NEAR), False),
        (IfName("eth0"), ON_DEVICE[0][NEAR], True),
    ):
        felix.hear(NeighbourChanged(device, entry, gone))
    assert kernel.vxlan.log == []
    assert (len(felix.events("dataplane.applied")), kernel.links.neighbour_dumps) == (applied, reads)


def test_a_device_that_somebody_deleted_is_told_of_as_repaired(felix: FelixAgent) -> None:
    felix.host.kernel.links.delete(DEVICE)
    felix.hear(LinkGone(DEVICE))
    assert [event["found"] for event in felix.events("tunnel.repaired")] == ["it was gone"]
    assert on_device(felix) == ON_DEVICE
