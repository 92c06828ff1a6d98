"""What is the matter with a next hop, the way out that is told, and when it is told."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from bgpd.calc.imports import ImportRules
from bgpd.calc.nexthops import trouble
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.surroundings import Surroundings
from fakes.bgp_host import ETH0, BgpHost, affinity_record, block_record, node_record, pool_record
from kernel.route import PROTOCOL_KERNEL, PROTOCOL_STATIC, Route, RouteKey
from resources.names import NodeName

OWN, ROUTER = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.254")
SURROUNDINGS = Surroundings(
    {
        RouteKey(ip_network("10.0.0.0/24")): [Route.on(ETH0, protocol=PROTOCOL_KERNEL, source=OWN)],
        RouteKey(ip_network("10.2.0.0/16")): [Route.via(ROUTER, ETH0, protocol=PROTOCOL_STATIC)],
    },
    [OWN],
    [ETH0],
)
NODES = {"10.0.0.2/32": "node2", "10.2.0.5/32": "node5", "10.3.0.6/32": "node6"}
RULES = ImportRules(
    router_id=OWN,
    node_addresses=PrefixTable({ip_network(address): NodeName(name) for address, name in NODES.items()}),
    surroundings=SURROUNDINGS,
)


@pytest.mark.parametrize("address", ["10.0.0.2", "10.0.0.77", "10.0.0.254"])
def test_one_on_a_network_of_ours_is_good(address: str) -> None:
    assert trouble(ip_address(address), (), RULES) is None


@pytest.mark.parametrize(
    ("address", "what", "way_out"),
    [
        ("10.0.0.1", "10.0.0.1 is an address of this host itself", "next-hop-self"),
        ("10.3.0.6", "10.3.0.6 (node node6): no route of this host leads to it", "it needs one"),
        ("10.3.0.7", "10.3.0.7: it is no node's, and no route of this host leads to it", "next-hop-self"),
        ("10.2.0.7", "10.2.0.7: it is no node's, and behind the router 10.0.0.254", "peer with that router"),
        ("10.2.0.5", "10.2.0.5 (node node5): it is behind the router 10.0.0.254", "CrossSubnet, or peer with"),
    ],
)
def test_others_are_named_with_the_way_out(address: str, what: str, way_out: str) -> None:
    said = trouble(ip_address(address), (), RULES)
    assert said is not None
    assert said.startswith(what)
    assert way_out in said


def test_a_router_that_we_peer_with_knows_our_blocks() -> None:
    assert trouble(ip_address("10.2.0.5"), [ROUTER], RULES) is None
    assert trouble(ip_address("10.2.0.7"), [ROUTER], RULES) is not None


FAR = "10.2.0.5"
GATEWAY = Route.via(ROUTER, ETH0, protocol=PROTOCOL_STATIC)


def two_subnets() -> BgpHost:
    """node1, and node5 in another subnet with a block, its session up."""
    host = BgpHost()
    host.put(
        pool_record("p", "10.65.0.0/16"),
        node_record("node1", "10.0.0.1/24"),
        node_record("node5", f"{FAR}/24"),
        block_record("10.65.1.0/26", "node1"),
        affinity_record("10.65.1.0/26", "node1"),
    )
    host.in_sync()
    host.run()
    host.exabgp.peer_up(FAR)
    host.exabgp.peer_sends(FAR, ["10.65.5.0/26", "10.65.5.64/26"])
    host.exabgp.peer_ends(FAR)
    host.run()
    return host


def told(host: BgpHost) -> dict[str, object]:
    found = host.engine.state()["next_hops"]
    assert isinstance(found, dict)
    return found


@pytest.mark.bgp_scenario(44)
def test_a_next_hop_is_named_until_it_is_good() -> None:
    host = two_subnets()
    assert host.routes == {"10.65.1.0/26": "blackhole"}
    assert told(host)[FAR] == {"routes": 2, "what": trouble(ip_address(FAR), (), host.routing.rules)}

    host.put_route("10.2.0.0/16", GATEWAY)
    host.run()
    # without a new UPDATE
    assert host.routes["10.65.5.0/26"] == "via 10.0.0.254 dev eth0"
    assert "behind the router 10.0.0.254" in str(told(host)[FAR])

    host.put(pool_record("p", "10.65.0.0/16", ipipMode="CrossSubnet"))
    host.run()
    # a tunnel that is missing is told in its own words
    assert told(host) == {}
    assert len(host.routing.withheld) == 2


def test_it_is_forgotten_with_the_last_route_by_it() -> None:
    host = two_subnets()
    host.exabgp.peer_withdraws(FAR, ["10.65.5.0/26"])
    host.run()
    assert told(host)[FAR] == {"routes": 1, "what": trouble(ip_address(FAR), (), host.routing.rules)}
    host.exabgp.peer_withdraws(FAR, ["10.65.5.64/26"])
    host.run()
    assert told(host) == {}
