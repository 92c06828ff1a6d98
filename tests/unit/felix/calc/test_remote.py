"""Ways to other hosts: by example, against the slow calculation in random histories, and what a change costs."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fakes.felix_records import host, pool
from fakes.slow_remote import SlowRemote, folded_remote, neutral
from felix.calc.parameters import Parameters
from felix.calc.remote import RemoteBlocks, RemoteChanges
from resources.blocks import BlockView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, IPNetwork, NodeName
from resources.vxlan import tunnel_mac

HERE, THERE, THIRD = (NodeName(f"node{number}") for number in (1, 2, 3))
POOL = "10.65.0.0/16"
ETH0 = IfName("eth0")


class Rig:
    """RemoteBlocks of node1, with what was put into it."""

    def __init__(self, parameters: Parameters) -> None:
        self.remote = RemoteBlocks(HERE)
        self.parameters = parameters
        self.last = self.folded = RemoteChanges()
        self.records: dict[ResourceKey, Resource] = {}
        self.blocks: dict[IPNetwork, BlockView] = {}
        self.interfaces: dict[IfName, frozenset[Any]] = {}

    def put(self, *records: tuple[ResourceKey, Resource | None]) -> "Rig":
        for key, value in records:
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
            self.remote.readers[key.plural](key, value)
        return self

    def block(self, cidr: str, owner: str | None, borrowed: Mapping[str, str] | None = None) -> "Rig":
        held = {ip_address(address): NodeName(node) for address, node in (borrowed or {}).items()}
        return self.put_block(ip_network(cidr), BlockView(NodeName(owner) if owner else None, held))

    def put_block(self, cidr: IPNetwork, block: BlockView | None) -> "Rig":
        if block is None:
            self.blocks.pop(cidr, None)
        else:
            self.blocks[cidr] = block
        self.remote.set_block(cidr, block)
        return self

    def interface(self, name: str, *addresses: str | None) -> "Rig":
        found = None if addresses == (None,) else frozenset(ip_address(text) for text in addresses if text)
        if found is None:
            self.interfaces.pop(IfName(name), None)
        else:
            self.interfaces[IfName(name)] = found
        self.remote.set_interface(IfName(name), found)
        return self

    def settle(self) -> "Rig":
        self.last = self.remote.conclude(self.parameters)
        self.folded = folded_remote(self.folded, self.last)
        return self

    @property
    def routes(self) -> dict[str, str]:
        self.settle()
        return {str(prefix): str(route) for prefix, route in self.folded.routes.items()}

    @property
    def withheld(self) -> list[str]:
        self.settle()
        return sorted(text for text in self.folded.withheld.values() if text)


def rig(mode: str = "Always", **parameters: Any) -> Rig:
    """Two hosts of one subnet and one of another, each with a block and a tunnel address from it."""
    made = Rig(replace(Parameters(), **parameters)).interface("eth0", "172.16.0.1").interface("lo", "127.0.0.1")
    made.put(pool(POOL, vxlan=mode))
    made.put(host(HERE, "172.16.0.1/24", vxlan="10.65.0.1"), host(THERE, "172.16.0.2/24", vxlan="10.65.1.1"))
    made.put(host(THIRD, "172.17.0.3/24", vxlan="10.65.2.1"))
    return made.block("10.65.0.0/26", HERE).block("10.65.1.0/26", THERE).block("10.65.2.0/26", THIRD)


OWN = {"10.65.0.0/26": "blackhole proto 80"}
TO_THERE = {"10.65.1.0/26": "via 10.65.1.1 dev vxlan.calico onlink proto 80"}
TO_THIRD = {"10.65.2.0/26": "via 10.65.2.1 dev vxlan.calico onlink proto 80"}
NO_WAY_THERE = {"10.65.1.0/26": "unreachable proto 80"}
NO_WAY_TO_THIRD = {"10.65.2.0/26": "unreachable proto 80"}
PLAIN_TO_THERE = {"10.65.1.0/26": "via 172.16.0.2 dev eth0 proto 80"}


def test_every_block_of_another_host_goes_through_the_tunnel() -> None:
    assert rig().routes == OWN | TO_THERE | TO_THIRD


def test_hosts_of_the_same_subnet_are_reached_plainly_across_subnets() -> None:
    assert rig("CrossSubnet").routes == OWN | PLAIN_TO_THERE | TO_THIRD


def test_a_pool_without_vxlan_is_not_ours() -> None:
    made = rig("Never")
    assert (made.routes, made.withheld, made.folded.tunnels) == ({}, [], {})


def test_the_mode_of_the_smallest_pool_around_a_block_counts() -> None:
    made = rig("CrossSubnet").put(pool("10.65.1.0/24", vxlan="Always"))
    assert made.routes == OWN | TO_THERE | TO_THIRD
    made.put((pool("10.65.1.0/24")[0], None))
    assert made.routes == OWN | PLAIN_TO_THERE | TO_THIRD


def test_the_device() -> None:
    made = rig(vxlan_vni=7, vxlan_port=8472).settle()
    tunnel = made.folded.tunnels[4]
    assert tunnel is not None
    assert (tunnel.name, tunnel.vni, tunnel.port) == ("vxlan.calico", 7, 8472)
    assert (str(tunnel.local), str(tunnel.address), tunnel.parent) == ("172.16.0.1", "10.65.0.1", "eth0")
    assert tunnel.mac == tunnel_mac(HERE, 4)
    assert set(made.folded.tunnels) == {4}


def test_the_mac_is_the_one_that_the_original_derives() -> None:
    # the first five bytes of the SHA-1 of the name, after the letter f
    assert (tunnel_mac(NodeName("node1"), 4), tunnel_mac(NodeName("node1"), 6)[:2]) == ("66:f9:37:c3:7e:94", "66")
    assert tunnel_mac(NodeName("node1"), 6) == tunnel_mac(NodeName("node1-v6"), 4)


def test_a_mac_that_the_node_names_counts() -> None:
    made = rig().put(host(THERE, "172.16.0.2/24", vxlan="10.65.1.1", vxlan_mac="02-00-00-00-00-0A")).settle()
    end = made.folded.far_ends[4, THERE]
    assert end is not None
    assert end.mac == "02:00:00:00:00:0a"


@pytest.mark.parametrize("mac", ["01:00:00:00:00:01", "nonsense", "66:00:00:00:00", "00:00:00:00:00:00"])
def test_a_mac_that_is_none_of_a_host(mac: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        rig().put(host(THERE, "172.16.0.2/24", vxlan="10.65.1.1", vxlan_mac=mac))


def test_borrowed_addresses_go_to_who_holds_them() -> None:
    made = rig()
    made.block("10.65.0.0/26", HERE, {"10.65.0.9": THERE})
    made.block("10.65.1.0/26", THERE, {"10.65.1.9": THIRD, "10.65.1.10": HERE})
    made.block("10.65.3.0/26", None, {"10.65.3.9": THERE})
    borrowed = {
        "10.65.0.9/32": "via 10.65.1.1 dev vxlan.calico onlink proto 80",
        "10.65.1.9/32": "via 10.65.2.1 dev vxlan.calico onlink proto 80",
        "10.65.3.9/32": "via 10.65.1.1 dev vxlan.calico onlink proto 80",
    }
    assert made.routes == OWN | TO_THERE | TO_THIRD | borrowed
    made.block("10.65.1.0/26", THERE).block("10.65.0.0/26", HERE).put_block(ip_network("10.65.3.0/26"), None)
    assert made.routes == OWN | TO_THERE | TO_THIRD


def test_a_block_of_one_address() -> None:
    made = (
        rig().block("10.65.9.1/32", THERE).block("10.65.9.2/32", HERE).block("10.65.9.3/32", HERE, {"10.65.9.3": THIRD})
    )
    assert made.routes == OWN | TO_THERE | TO_THIRD | {
        "10.65.9.1/32": "via 10.65.1.1 dev vxlan.calico onlink proto 80",
        "10.65.9.3/32": "via 10.65.2.1 dev vxlan.calico onlink proto 80",
    }


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (host(THERE, "172.16.0.2/24"), "it has no IPv4 VXLAN tunnel address (does calico-node run there?)"),
        (host(THERE, vxlan="10.65.1.1"), "it has no IPv4 address in the store"),
        (host(THERE, "172.16.0.1/24", vxlan="10.65.1.1"), "its address 172.16.0.1 is this host's own"),
        (host(THERE, "172.16.0.2/24", vxlan="10.65.0.1"), "its tunnel address 10.65.0.1 is node node1's, too"),
        ((ResourceKey("nodes", THERE), None), "there is no such node in the store"),
        (
            host(THERE, "172.16.0.2/24", vxlan="10.65.1.1", vxlan_mac=tunnel_mac(HERE, 4)),
            f"its tunnel MAC {tunnel_mac(HERE, 4)} is node node1's, too",
        ),
    ],
)  # fmt: skip
def test_what_a_host_has_that_cannot_be_reached_is_unreachable_and_named(change: Any, missing: str) -> None:
    made = rig().put(change)
    assert made.routes == OWN | TO_THIRD | NO_WAY_THERE
    assert made.withheld == [f"no route to 10.65.1.0/26 on node node2: {missing}"]
    made.put(host(THERE, "172.16.0.2/24", vxlan="10.65.1.1"))
    assert (made.routes, made.withheld) == (OWN | TO_THERE | TO_THIRD, [])


def test_of_two_with_one_tunnel_address_the_first_by_name_has_it() -> None:
    made = rig().put(host(THIRD, "172.17.0.3/24", vxlan="10.65.1.1"))
    assert made.routes == OWN | TO_THERE | NO_WAY_TO_THIRD
    assert made.withheld == [
        "no route to 10.65.2.0/26 on node node3: its tunnel address 10.65.1.1 is node node2's, too"
    ]
    made.put((ResourceKey("nodes", THERE), None))
    assert made.routes == OWN | NO_WAY_THERE | {"10.65.2.0/26": "via 10.65.1.1 dev vxlan.calico onlink proto 80"}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda made: made.put(host(HERE, "172.16.0.1/24")),
         "this node has no IPv4 VXLAN tunnel address yet (calico-node agent gives it one)"),
        (lambda made: made.put((ResourceKey("nodes", HERE), None)), "this node has no IPv4 address in the store"),
        (lambda made: made.interface("eth0", None), "no interface of this host has its address 172.16.0.1"),
        (lambda made: made.interface("eth0"), "no interface of this host has its address 172.16.0.1"),
    ],
)  # fmt: skip
def test_without_an_own_end_nothing_is_reached(change: Callable[[Rig], Rig], missing: str) -> None:
    made = rig().settle()
    change(made)
    assert made.routes == OWN | NO_WAY_THERE | NO_WAY_TO_THIRD
    assert (made.folded.tunnels, made.folded.far_ends) == ({}, {})
    assert made.withheld[0] == f"no route to 10.65.1.0/26 on node node2: {missing}"


def test_switched_off_by_a_setting() -> None:
    made = rig(vxlan=False)
    assert made.routes == OWN | NO_WAY_THERE | NO_WAY_TO_THIRD
    assert "VXLANEnabled" in made.withheld[0]


def test_switched_on_by_a_setting_without_a_pool() -> None:
    assert set(rig("Never", vxlan=True).settle().folded.tunnels) == {4}


def test_plain_ways_need_no_tunnel() -> None:
    made = rig("CrossSubnet").put(host(HERE, "172.16.0.1/24"))
    assert made.routes == OWN | PLAIN_TO_THERE | NO_WAY_TO_THIRD


def test_a_block_with_a_host_in_it_gets_no_route() -> None:
    made = rig().put(pool("172.16.0.0/16", vxlan="Always")).block("172.16.0.0/26", THERE)
    assert made.routes == OWN | TO_THERE | TO_THIRD
    assert made.withheld == ["no route to 172.16.0.0/26 on node node2: it contains the address of a host itself"]


def test_an_address_on_the_loopback_interface_has_no_parent() -> None:
    made = rig().interface("eth0", "192.0.2.1").interface("lo", "127.0.0.1", "172.16.0.1").settle()
    tunnel = made.folded.tunnels[4]
    assert tunnel is not None
    assert tunnel.parent is None


def test_both_families() -> None:
    made = rig().put(pool("fd65::/64", vxlan="Always")).interface("eth0", "172.16.0.1", "fd16::1")
    made.put(host(HERE, "172.16.0.1/24", vxlan="10.65.0.1", ipv6="fd16::1/64", vxlan_v6="fd65::1"))
    made.put(host(THERE, "172.16.0.2/24", vxlan="10.65.1.1", ipv6="fd16::2/64", vxlan_v6="fd65::1001"))
    made.block("fd65::1000/122", THERE).block("fd65::/122", HERE)
    six = {"fd65::1000/122": "via fd65::1001 dev vxlan-v6.calico onlink proto 80", "fd65::/122": "blackhole proto 80"}
    six["fd65::1001/128"] = "dev vxlan-v6.calico proto 80"
    assert made.routes == OWN | TO_THERE | TO_THIRD | six
    assert {version: guard.sources for version, guard in made.remote.guards.items()} == {
        4: {"172.16.0.2", "172.17.0.3"}, 6: {"fd16::2"},
    }  # fmt: skip
    made.parameters = replace(made.parameters, ipv6=False)
    assert made.routes == OWN | TO_THERE | TO_THIRD
    assert set(made.remote.guards) == {4}


def test_nothing_is_left_of_what_is_gone() -> None:
    made = rig().settle()
    for key in list(made.records):
        made.put((key, None))
    for cidr in list(made.blocks):
        made.put_block(cidr, None)
    made.settle()
    assert made.folded == made.remote.whole() == RemoteChanges(tunnels={}, far_ends={}, routes={}, withheld={})
    assert made.remote.guards == {}


# ---- random histories

NODES = [HERE, THERE, THIRD, "node0"]
HOSTS = ["172.16.0.1/24", "172.16.0.2/24", "172.17.0.3/24", "172.16.0.1/16", ""]
HOSTS6 = ["fd16::1/64", "fd16::2/64", "fd17::3/64", ""]
TUNNELS, TUNNELS6 = ["10.65.0.1", "10.65.1.1", "10.65.2.1", ""], ["fd65::1", "fd65::41", ""]
MACS = ["", "", "66:00:00:00:00:01", "66:f9:37:c3:7e:94"]
POOLS = ["10.65.0.0/16", "10.65.1.0/24", "172.16.0.0/16", "fd65::/64"]
BLOCKS = ["10.65.0.0/26", "10.65.1.0/26", "10.65.1.0/28", "10.65.9.1/32", "172.16.0.0/26", "fd65::/122", "fd65::40/122"]
ADDRESSES = ["172.16.0.1", "172.16.0.2", "fd16::1", "192.0.2.1"]
nodes = st.builds(
    lambda name, v4, v6, t4, t6, mac: host(name, v4, ipv6=v6, vxlan=t4, vxlan_v6=t6, vxlan_mac=mac),
    *map(st.sampled_from, (NODES, HOSTS, HOSTS6, TUNNELS, TUNNELS6, MACS)),
)  # fmt: skip
pools = st.builds(
    lambda cidr, mode, disabled: pool(cidr, vxlan=mode, disabled=disabled),
    st.sampled_from(POOLS), st.sampled_from(["Always", "CrossSubnet", "Never", "Always"]), st.booleans(),
)  # fmt: skip
gone = st.sampled_from([ResourceKey("nodes", name) for name in NODES] + [pool(cidr)[0] for cidr in POOLS])


@st.composite
def blocks(draw: st.DrawFn) -> tuple[IPNetwork, BlockView | None]:
    cidr = ip_network(draw(st.sampled_from(BLOCKS)))
    if draw(st.integers(0, 4)) == 0:
        return cidr, None
    owner = draw(st.sampled_from([*NODES, None]))
    ordinals = draw(st.lists(st.integers(0, min(2, cidr.num_addresses - 1)), max_size=2))
    held = {cidr[at]: NodeName(draw(st.sampled_from(NODES))) for at in ordinals}
    return cidr, BlockView(NodeName(owner) if owner else None, {at: node for at, node in held.items() if node != owner})


steps = st.one_of(
    st.tuples(st.just("put"), nodes),
    st.tuples(st.just("put"), pools),
    st.tuples(st.just("gone"), gone),
    st.tuples(st.just("block"), blocks()),
    st.tuples(
        st.just("interface"),
        st.tuples(st.sampled_from(["eth0", "lo", "cali1", "a0"]), st.lists(st.sampled_from(ADDRESSES), max_size=2)),
    ),
    st.tuples(st.just("enabled"), st.sampled_from([None, None, True, False])),
    st.tuples(st.just("ipv6"), st.booleans()),
    st.tuples(st.just("settle"), st.none()),
)


def step(made: Rig, kind: str, value: Any) -> None:
    match kind:
        case "put":
            made.put(value)
        case "gone":
            made.put((value, None))
        case "block":
            made.put_block(*value)
        case "interface":
            made.interface(value[0], *value[1])
        case "enabled":
            made.parameters = replace(made.parameters, vxlan=value)
        case "ipv6":
            made.parameters = replace(made.parameters, ipv6=value)
        case "settle":
            made.settle()


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=25))
def test_what_changed_amounts_to_what_the_slow_calculation_says(history: list[tuple[str, Any]]) -> None:
    made = rig("CrossSubnet").settle()
    for kind, value in history:
        step(made, kind, value)
    made.settle()
    parameters = made.parameters
    slow = SlowRemote(
        HERE, made.records, made.blocks, made.interfaces, enabled=parameters.vxlan, versions=parameters.versions
    )
    assert neutral(made.folded) == neutral(made.remote.whole()) == slow.concluded()
    assert made.folded == made.remote.whole()
    guards = made.remote.guards.items()
    assert {version: (set(guard.sources), guard.has_tunnel) for version, guard in guards} == slow.guards()
    assert made.settle().last == RemoteChanges(tunnels={}, far_ends={}, routes={}, withheld={})


# ---- what a change costs


def instructions(act: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    return count


def crowded(size: int) -> Rig:
    made = rig()
    for number in range(size):
        near, far = divmod(number, 200)
        name = f"far{number}"
        made.put(host(name, f"172.20.{near}.{far + 1}/24", vxlan=f"10.65.{64 + near}.{far}"))
        made.block(f"10.65.{128 + number // 4}.{number % 4 * 64}/26", name)
    return made.settle()


CHANGES: dict[str, Callable[[Rig], Rig]] = {
    "block": lambda made: made.block("10.65.1.64/26", THERE),
    "borrowed": lambda made: made.block("10.65.1.0/26", THERE, {"10.65.1.9": THIRD}),
    "interface": lambda made: made.interface("cali7", "192.0.2.7"),
    "nothing": lambda made: made,
}


def cost(size: int, change: Callable[[Rig], Rig]) -> int:
    made = crowded(size)
    return instructions(lambda: change(made).remote.conclude(made.parameters))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_block_costs_what_it_costs_alone(change: Callable[[Rig], Rig]) -> None:
    assert cost(400, change) < 1.2 * cost(4, change) + 200


def test_a_node_costs_its_own_blocks_and_the_list_of_hosts() -> None:
    """What rules know of a cluster is one set, made anew when a host's address changes."""

    def change(made: Rig) -> Rig:
        return made.put(host(THERE, "172.16.0.9/24", vxlan="10.65.1.1"))

    assert cost(400, change) < cost(4, change) + 400 * 120
