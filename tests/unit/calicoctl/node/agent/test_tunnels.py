"""Which address a tunnel is to have (reference ipam.md 3.10), by tables: pools, the record, and who holds what."""

import ipaddress

import pytest

from calicoctl.node.agent.tunnels import IPIP, VXLAN, VXLAN6, Plan, Sources, TunnelKind, decide, sources
from ipam.results import Allocation, Release
from resources.codec import with_metadata
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.names import HandleId, IPAddress, NodeName
from resources.vxlan import tunnel_mac

NODE = NodeName("node1")
HANDLE = HandleId("ipip-tunnel-addr-node1")


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def pool(cidr: str, **spec: object) -> IPPool:
    spec.setdefault("allowed_uses", ["Workload", "Tunnel"])
    made = IPPool(spec=IPPoolSpec(cidr=cidr, **spec))  # type: ignore[arg-type]
    return with_metadata(made, name=cidr.replace(".", "-").replace("/", "-").replace(":", "-"))


def names(found: Sources) -> tuple[list[str], list[str]]:
    return [str(network) for network in found.usable], [str(network) for network in found.closed]


@pytest.mark.parametrize(
    ("kind", "pools", "usable", "closed"),
    [
        (IPIP, [pool("10.0.0.0/24")], [], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Never")], [], []),
        (IPIP, [pool("10.2.0.0/24", ipip_mode="Always"), pool("10.1.0.0/24", ipip_mode="CrossSubnet")],
         ["10.1.0.0/24", "10.2.0.0/24"], []),
        (IPIP, [pool("10.0.0.0/24", vxlan_mode="Always")], [], []),
        (VXLAN, [pool("10.0.0.0/24", vxlan_mode="CrossSubnet"), pool("fd00::/64", vxlan_mode="Always")],
         ["10.0.0.0/24"], []),
        (VXLAN6, [pool("10.0.0.0/24", vxlan_mode="CrossSubnet"), pool("fd00::/64", vxlan_mode="Always")],
         ["fd00::/64"], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", disabled=True)], [], ["10.0.0.0/24"]),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", allowed_uses=["Workload"])], [], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", node_selector="rack == 'b'")], [], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", node_selector="rack == 'a'")], ["10.0.0.0/24"], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", node_selector="rack ==")], [], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", assignment_mode="Manual")], ["10.0.0.0/24"], []),
        (IPIP, [pool("10.0.0.0/24", ipip_mode="Always", assignment_mode="Manual"),
                pool("10.1.0.0/24", ipip_mode="Always")], ["10.1.0.0/24"], []),
    ],
)
def test_the_pools_of_a_kind_are_those_with_its_mode_that_select_the_node(
    kind: TunnelKind, pools: list[IPPool], usable: list[str], closed: list[str]
) -> None:
    assert names(sources(kind, pools, {"rack": "a"})) == (usable, closed)


def held(text: str, *, handle: str | None = HANDLE, sequence: int = 7, cooling: bool = False, **attributes: str
         ) -> Allocation:
    address = ip(text)
    return Allocation(
        address=address, block=ipaddress.ip_network((text, 26), strict=False), block_node=NODE,
        handle=None if handle is None else HandleId(handle), attributes=attributes, sequence=sequence, cooling=cooling,
    )


def ours(text: str) -> Allocation:
    return held(text, type="ipipTunnelAddress", node="node1")


def freed(text: str, handle: str | None = HANDLE) -> Release:
    return Release(ip(text), handle=None if handle is None else HandleId(handle), sequence=7)


POOLS = Sources(usable=(ipaddress.ip_network("10.0.0.0/24"),))
CLOSED = Sources(closed=(ipaddress.ip_network("10.0.0.0/24"),))
NONE = Sources()
A, B, ELSEWHERE = ours("10.0.0.1"), ours("10.0.0.2"), ours("10.9.0.1")
CONTAINER = held("10.0.0.1", handle="docker-1", node="node1", type="docker")
OTHER_TUNNEL = held("10.0.0.1", handle="ipip-tunnel-addr-node2", node="node2", type="ipipTunnelAddress")
NAMELESS = held("10.0.0.1", handle=None)
COOLING = held("10.0.0.1", handle=None, cooling=True)


@pytest.mark.parametrize(
    ("wanted", "recorded", "under_handle", "at_recorded", "plan"),
    [
        # nothing wanted: whatever is ours goes, and nothing else
        (NONE, "", [], None, Plan()),
        (NONE, "10.0.0.1", [A], A, Plan(after=(freed("10.0.0.1"),))),
        (NONE, "10.0.0.1", [], CONTAINER, Plan()),
        # as it should be
        (POOLS, "10.0.0.1", [A], A, Plan(address=A.address)),
        # taken by one that was killed before it recorded it; or that recorded another and did not release it
        (POOLS, "", [A], None, Plan(address=A.address)),
        (POOLS, "10.0.0.2", [A, B], B, Plan(address=B.address, after=(freed("10.0.0.1"),))),
        # ours by its attributes, with the handle lost
        (POOLS, "10.0.0.1", [], A, Plan(address=A.address)),
        # nothing yet, or a record that says nothing
        (POOLS, "", [], None, Plan(takes=True)),
        (POOLS, "tunnel", [], None, Plan(takes=True)),
        (POOLS, "fd00::1", [], None, Plan(takes=True)),
        # the allocation is gone: the same address, if it lies where it should
        (POOLS, "10.0.0.1", [], None, Plan(takes=True, exactly=A.address)),
        (POOLS, "10.9.0.1", [], None, Plan(takes=True)),
        # somebody else's: theirs stays
        (POOLS, "10.0.0.1", [], CONTAINER, Plan(takes=True)),
        (POOLS, "10.0.0.1", [], OTHER_TUNNEL, Plan(takes=True)),
        (POOLS, "10.0.0.1", [B], CONTAINER, Plan(address=B.address)),
        # of a Calico without handles for tunnels; a free address that is kept back looks alike and is none
        (POOLS, "10.0.0.1", [], NAMELESS,
         Plan(takes=True, exactly=A.address, before=(freed("10.0.0.1", None),))),
        (POOLS, "10.0.0.1", [], COOLING, Plan(takes=True)),
        # the pool has gone or lost the mode: a new one first, then the record, then the old one
        (POOLS, "10.9.0.1", [ELSEWHERE], ELSEWHERE, Plan(takes=True, after=(freed("10.9.0.1"),))),
        # a disabled pool's containers still use the tunnel
        (CLOSED, "10.0.0.1", [A], A, Plan(address=A.address)),
        (CLOSED, "10.9.0.1", [ELSEWHERE], ELSEWHERE,
         Plan(after=(freed("10.9.0.1"),), trouble="all pools that could give an address are disabled: 10.0.0.0/24")),
    ],
)
def test_decisions(
    wanted: Sources, recorded: str, under_handle: list[Allocation], at_recorded: Allocation | None, plan: Plan
) -> None:
    assert decide(IPIP, NODE, wanted, recorded, under_handle, at_recorded) == plan


@pytest.mark.parametrize("kind", [IPIP, VXLAN, VXLAN6], ids=lambda kind: kind.name)
def test_a_record_keeps_everything_else_of_the_node(kind: TunnelKind) -> None:
    spec = NodeSpec(
        bgp=NodeBGPSpec(ipv4_address="192.0.2.1/24", ipv4_ipip_tunnel_addr="10.0.0.1"),
        ipv4_vxlan_tunnel_addr="10.0.0.2", ipv6_vxlan_tunnel_addr="fd00::2", vxlan_tunnel_mac_addr="66:00:00:00:00:01",
        vxlan_tunnel_mac_addr_v6="66:00:00:00:00:02",
    )
    node = with_metadata(Node(spec=spec), name="node1")
    changed = kind.with_record(node, "")
    assert kind.recorded(changed) == ""
    assert kind.with_record(changed, kind.recorded(node)) == node


@pytest.mark.parametrize(("kind", "member"), [(VXLAN, "vxlan_tunnel_mac_addr"), (VXLAN6, "vxlan_tunnel_mac_addr_v6")])
def test_the_mac_that_follows_from_the_name_comes_and_goes_with_the_address(kind: TunnelKind, member: str) -> None:
    node = with_metadata(Node(), name="node1")
    version = kind.version
    with_address = kind.with_record(node, "10.0.0.2" if version == 4 else "fd00::2")
    assert getattr(with_address.spec, member) == tunnel_mac(NodeName("node1"), version)
    assert kind.with_record(with_address, "") == node


def test_a_node_without_any_bgp_setting_left_has_none() -> None:
    assert IPIP.with_record(Node(spec=NodeSpec(bgp=NodeBGPSpec(ipv4_ipip_tunnel_addr="10.0.0.1"))), "").spec.bgp is None
