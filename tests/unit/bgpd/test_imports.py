"""Which received routes are accepted, why others are not, and by which way packets go (reference bgp.md 4.5, 4.8)."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

import pytest

from bgpd.calc.filters import Filters, filter_of
from bgpd.calc.imports import ImportRules, Refusal, Withheld, accept, forward, is_forbidden, other_owner
from bgpd.calc.paths import Path, PathAttributes, Segment, best
from bgpd.calc.pools import Encapsulation, Pool, Pools
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.calc.surroundings import Surroundings
from kernel.route import (
    PROTOCOL_BGPD,
    PROTOCOL_FELIX,
    PROTOCOL_KERNEL,
    PROTOCOL_STATIC,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
)
from resources.kinds.bgpfilter import BGPFilter, BGPFilterSpec, FilterRule, Operation, SetPriority
from resources.names import AsNumber, IfName, IPNetwork, NodeName

ETH0, TUNL0, DOCKER0 = IfName("eth0"), IfName("tunl0"), IfName("docker0")
PEER = PeerSpec(
    address=ip_address("10.0.0.2"),
    kind=PeerKind.MESH,
    node=NodeName("n2"),
    local_address=ip_address("10.0.0.1"),
    local_as=AsNumber(64512),
    peer_as=AsNumber(64512),
)
EXTERNAL = replace(PEER, peer_as=AsNumber(65001))
LENIENT = replace(EXTERNAL, own_as_allowed=1)
TOR = replace(PEER, kind=PeerKind.GLOBAL, node=None, address=ip_address("10.0.0.200"))
FOREIGN = replace(TOR, peer_as=AsNumber(65001))


def key(text: str, metric: int = 0) -> RouteKey:
    return RouteKey(ip_network(text), metric)


CONNECTED = {
    key("10.0.0.0/24"): (Route.on(ETH0, protocol=PROTOCOL_KERNEL),),
    key("172.17.0.0/16"): (Route.on(DOCKER0, protocol=PROTOCOL_KERNEL),),
}
HERE = Surroundings(CONNECTED, [ip_address("10.0.0.1"), ip_address("172.17.0.1")], [ETH0, DOCKER0])
POOL = Pool(name="p", network=ip_network("10.65.0.0/16"))
HOLDERS = {ip_network("10.65.1.7/32"): NodeName("n2"), ip_network("10.65.1.8/32"): NodeName("n3")}
RULES = ImportRules(
    router_id=IPv4Address("10.0.0.1"),
    cluster_id=IPv4Address("7.7.7.7"),
    own_blocks=PrefixTable({ip_network("10.65.1.0/26"): None}),
    node_addresses=PrefixTable(
        {ip_network(f"10.0.0.{n}/32"): NodeName(f"n{n}") for n in (1, 2, 3)}
        | {ip_network("10.9.0.4/32"): NodeName("n4")}
    ),
    own_subnets=(ip_interface("10.0.0.1/24"),),
    pools=Pools({"p": POOL, "off": Pool(name="off", network=ip_network("10.70.0.0/24"))}),
    surroundings=HERE,
    holder=HOLDERS.get,
    owners={ip_network("10.65.2.0/26"): NodeName("n2"), ip_network("10.65.3.0/26"): NodeName("n3")},
)


def via(next_hop: str = "10.0.0.2", peer: PeerSpec = PEER, **attributes: object) -> Path:
    return Path(
        peer=peer.address,
        next_hop=ip_address(next_hop),
        attributes=PathAttributes(**attributes),  # type: ignore[arg-type]
        is_external=peer.is_external,
    )


def seq(*numbers: int) -> tuple[Segment, ...]:
    return (Segment(numbers),)


def refused(peer: PeerSpec, prefix: str, path: Path, rules: ImportRules) -> Refusal | None:
    found = accept(peer, ip_network(prefix), path, rules)
    return found if isinstance(found, Refusal) else None


CASES: dict[str, tuple[str, Path, PeerSpec, Refusal | None]] = {
    "a block": ("10.65.2.0/26", via(), PEER, None),
    "a block of a disabled pool": ("10.70.0.0/26", via(), PEER, None),
    "a whole pool": ("10.65.0.0/16", via(), replace(PEER), Refusal.OWN_BLOCK),
    "a borrowed address": ("10.65.2.7/32", via(), PEER, None),
    "through another node": ("10.65.2.0/26", via("10.0.0.3"), PEER, None),
    "through a router here": ("10.65.2.0/26", via("10.0.0.254"), PEER, None),
    "from somebody else": ("10.65.2.0/26", via(peer=TOR), PEER, Refusal.NOT_PEER),
    "of another family": ("fd00::/64", via(), PEER, Refusal.NOT_PEER),
    "own AS": ("10.65.2.0/26", via(peer=EXTERNAL, as_path=seq(65001, 64512)), EXTERNAL, Refusal.AS_LOOP),
    "own AS in a set": (
        "10.65.2.0/26",
        via(peer=EXTERNAL, as_path=(Segment((65001,)), Segment((1, 64512), is_set=True))),
        EXTERNAL,
        Refusal.AS_LOOP,
    ),
    "own router id": ("10.65.2.0/26", via(originator=IPv4Address("10.0.0.1")), PEER, Refusal.ORIGINATOR_LOOP),
    "own cluster": ("10.65.2.0/26", via(clusters=(IPv4Address("7.7.7.7"),)), PEER, Refusal.CLUSTER_LOOP),
    "another cluster": ("10.65.2.0/26", via(clusters=(IPv4Address("7.7.7.8"),)), PEER, None),
    "first AS": ("10.65.2.0/26", via(peer=EXTERNAL, as_path=seq(65002)), EXTERNAL, Refusal.FIRST_AS),
    "no first AS": ("10.65.2.0/26", via(peer=EXTERNAL), EXTERNAL, Refusal.FIRST_AS),
    "external and right": ("10.65.2.0/26", via(peer=EXTERNAL, as_path=seq(65001)), EXTERNAL, None),
    "default": ("0.0.0.0/0", via(), PEER, Refusal.DEFAULT),
    "own block": ("10.65.1.0/26", via(), PEER, Refusal.OWN_BLOCK),
    "around an own block": ("10.65.1.0/25", via(), PEER, Refusal.OWN_BLOCK),
    "half an own block": ("10.65.1.32/27", via(), PEER, Refusal.OWN_BLOCK),
    "address in an own block, held there": ("10.65.1.7/32", via(), PEER, None),
    "address in an own block, held elsewhere": ("10.65.1.8/32", via(), PEER, Refusal.OWN_BLOCK),
    "address in an own block, held by nobody": ("10.65.1.9/32", via(), PEER, Refusal.OWN_BLOCK),
    "a node's address": ("10.9.0.4/32", via(), PEER, Refusal.NODE_ADDRESS),
    "around a node's address": ("10.9.0.0/16", via(), PEER, Refusal.NODE_ADDRESS),
    "a network of ours": ("172.17.0.0/16", via(), PEER, Refusal.NODE_ADDRESS),
    "half a network of ours": ("172.17.128.0/17", via(), PEER, Refusal.NODE_ADDRESS),
    "around a network of ours": ("172.16.0.0/12", via(), PEER, Refusal.NODE_ADDRESS),
    "loopback": ("127.1.0.0/16", via(), PEER, Refusal.NODE_ADDRESS),
    "link-local": ("169.254.1.1/32", via(), PEER, Refusal.NODE_ADDRESS),
    "around link-local": ("169.0.0.0/8", via(), PEER, Refusal.NODE_ADDRESS),
    "multicast": ("239.0.0.0/8", via(), PEER, Refusal.NODE_ADDRESS),
    "in no pool": ("10.66.0.0/26", via(), PEER, Refusal.NOT_IN_POOL),
    "around a pool": ("10.70.0.0/20", via(), PEER, Refusal.TOO_SHORT),
    "an address from another AS": (
        "10.65.2.7/32", via(peer=FOREIGN, as_path=seq(65001)), FOREIGN, Refusal.TOO_LONG,
    ),
    "an address by a reflector": ("10.65.2.7/32", via(peer=TOR), TOR, None),
    "an address by a reflector, of no node": ("10.65.2.7/32", via("10.0.0.200", peer=TOR), TOR, Refusal.TOO_LONG),
    "an address from a node in another AS": ("10.65.2.7/32", via(peer=EXTERNAL, as_path=seq(65001)), EXTERNAL, None),
    "own AS where it may be": (
        "10.65.2.0/26", via(peer=LENIENT, as_path=seq(65001, 64512)), LENIENT, None,
    ),
    "own AS too often": (
        "10.65.2.0/26", via(peer=LENIENT, as_path=seq(65001, 64512, 64512)), LENIENT, Refusal.AS_LOOP,
    ),
    "a block from outside the mesh": ("10.65.2.0/26", via(peer=TOR), TOR, None),
    "through us": ("10.65.2.0/26", via("10.0.0.1"), PEER, Refusal.NEXT_HOP),
    "through a stranger far away": ("10.65.2.0/26", via("192.0.2.1"), PEER, Refusal.NEXT_HOP),
    "through a node out of reach": ("10.65.2.0/26", via("10.9.0.4"), PEER, Refusal.NEXT_HOP),
    "another's block": ("10.65.3.0/26", via(), PEER, None),
}


@pytest.mark.bgp_scenario(43, 45)
@pytest.mark.parametrize("case", CASES)
def test_each_reason(case: str) -> None:
    prefix, path, peer, expected = CASES[case]
    assert refused(peer, prefix, path, RULES) == expected


def test_the_first_reason_counts() -> None:
    wrong = via("192.0.2.1", peer=EXTERNAL, as_path=seq(65009, 64512), originator=RULES.router_id)
    assert refused(EXTERNAL, "0.0.0.0/0", wrong, RULES) is Refusal.AS_LOOP
    assert refused(PEER, "10.0.0.0/8", via("192.0.2.1"), RULES) is Refusal.OWN_BLOCK


def test_strict_refuses_another_owner() -> None:
    strict = replace(RULES, is_strict=True)
    assert refused(PEER, "10.65.3.0/26", via(), strict) is Refusal.SPOOFED_OWNER
    assert refused(PEER, "10.65.2.0/26", via(), strict) is None
    assert refused(PEER, "10.65.4.0/26", via(), strict) is None
    assert other_owner(ip_network("10.65.3.0/26"), via(), RULES) == "n3"


def test_without_own_blocks_or_cluster_nothing_loops() -> None:
    plain = replace(RULES, own_blocks=PrefixTable({}), cluster_id=None)
    assert refused(PEER, "10.65.1.0/26", via(clusters=(IPv4Address("7.7.7.7"),)), plain) is None


# --- filters ----------------------------------------------------------------------------------------------------------


def filtered(*rules: FilterRule) -> tuple[PeerSpec, ImportRules]:
    known = Filters({"f": filter_of(BGPFilter(spec=BGPFilterSpec(import_v4=list(rules))))})
    return replace(TOR, filters=("f",)), replace(RULES, filters=known)


LET_IN = FilterRule(action="Accept")
FILTERED = {
    "no pool": ("10.66.0.0/26", LET_IN, None),
    "an address": ("10.65.2.7/32", LET_IN, None),
    "around a pool": ("10.70.0.0/20", LET_IN, None),
    "rejected": (
        "10.65.2.0/26", FilterRule(action="Reject", cidr="10.65.2.0/24", match_operator="In"), "filter-reject",
    ),
    "default, by the way": ("0.0.0.0/0", LET_IN, "default"),
    "default, by name": ("0.0.0.0/0", FilterRule(action="Accept", cidr="0.0.0.0/0", match_operator="Equal"), None),
    "own block": ("10.65.1.0/26", LET_IN, "own-block"),
    "address in an own block": ("10.65.1.9/32", LET_IN, "own-block"),
    "around an own block": ("10.64.0.0/10", LET_IN, "own-block"),
    "a node's address": ("10.9.0.4/32", LET_IN, "node-address"),
    "a network of ours": ("172.17.0.0/16", LET_IN, "node-address"),
    "loopback": ("127.0.0.0/8", LET_IN, "node-address"),
    "of another prefix": (
        "10.66.0.0/26", FilterRule(action="Accept", cidr="10.67.0.0/16", match_operator="In"), "not-in-pool",
    ),
    "by the interface of its next hop": ("10.66.0.0/26", FilterRule(action="Accept", interface="eth*"), None),
    "by another interface": ("10.66.0.0/26", FilterRule(action="Accept", interface="cali*"), "not-in-pool"),
    "from peers": ("10.66.0.0/26", FilterRule(action="Accept", source="RemotePeers"), None),
    "from inside": ("10.66.0.0/26", FilterRule(action="Accept", peer_type="iBGP"), None),
    "from outside": ("10.66.0.0/26", FilterRule(action="Accept", peer_type="eBGP"), "not-in-pool"),
}


@pytest.mark.bgp_scenario(38, 43)
@pytest.mark.parametrize("case", FILTERED)
def test_what_filters_let_in_and_what_they_cannot(case: str) -> None:
    prefix, rule, expected = FILTERED[case]
    peer, rules = filtered(rule)
    found = refused(peer, prefix, via(peer=TOR), rules)
    assert (found and found.value) == expected


def test_no_filter_makes_a_loop_or_a_next_hop_of_its_own() -> None:
    peer, rules = filtered(LET_IN)
    assert refused(peer, "10.66.0.0/26", via("192.0.2.1", peer=TOR), rules) is Refusal.NEXT_HOP
    assert refused(peer, "10.66.0.0/26", via(peer=TOR, originator=RULES.router_id), rules) is Refusal.ORIGINATOR_LOOP


def test_a_filter_changes_what_it_accepts() -> None:
    rule = FilterRule(action="Accept", operations=[Operation(set_priority=SetPriority(value=100))])
    peer, rules = filtered(rule)
    found = accept(peer, ip_network("10.65.2.0/26"), via(peer=TOR), rules)
    assert isinstance(found, Path)
    assert found == via(peer=TOR, local_preference=2147483547)


# --- surroundings -----------------------------------------------------------------------------------------------------

ROUTER = ip_address("10.0.0.254")
WITH_DEFAULT = Surroundings(
    CONNECTED
    | {
        key("0.0.0.0/0", 100): (Route.via(ROUTER, ETH0, protocol=PROTOCOL_STATIC),),
        key("10.8.0.0/16"): (Route(protocol=PROTOCOL_STATIC, kind=RouteKind.BLACKHOLE),),
        key("10.7.0.0/16"): (Route.via(ROUTER, ETH0, protocol=PROTOCOL_BGPD),),
        key("10.6.0.9/32"): (Route.on(IfName("cali1"), protocol=PROTOCOL_FELIX),),
    },
    HERE.addresses,
    HERE.devices,
)


def test_a_next_hop_on_a_network_of_ours_is_its_own_gateway() -> None:
    reach = HERE.reach(ip_address("10.0.0.77"))
    assert reach is not None
    assert (reach.hops, reach.cost) == ((NextHop(gateway=ip_address("10.0.0.77"), device=ETH0),), 0)


def test_a_next_hop_behind_a_router_is_reached_through_it() -> None:
    reach = WITH_DEFAULT.reach(ip_address("10.9.0.4"))
    assert reach is not None
    assert (reach.hops, reach.cost) == ((NextHop(gateway=ROUTER, device=ETH0),), 1)


def test_what_cannot_be_a_way() -> None:
    assert HERE.reach(ip_address("10.9.0.4")) is None
    assert WITH_DEFAULT.reach(ip_address("10.0.0.1")) is None
    assert WITH_DEFAULT.reach(ip_address("10.8.0.4")) is None


def test_our_own_routes_and_felixs_are_no_way() -> None:
    for address in ("10.7.0.4", "10.6.0.9"):
        reach = WITH_DEFAULT.reach(ip_address(address))
        assert reach is not None
        assert reach.hops == (NextHop(gateway=ROUTER, device=ETH0),)
    assert IfName("cali1") not in WITH_DEFAULT.ways


def test_the_lower_metric_counts() -> None:
    other = ip_address("10.0.0.253")
    both = {
        key("0.0.0.0/0", 200): (Route.via(other, ETH0, protocol=PROTOCOL_STATIC),),
        key("0.0.0.0/0", 100): (Route.via(ROUTER, ETH0, protocol=PROTOCOL_STATIC),),
    }
    reach = Surroundings(CONNECTED | both).reach(ip_address("192.0.2.1"))
    assert reach is not None
    assert reach.hops[0].gateway == ROUTER


def test_surroundings_that_say_the_same_are_equal() -> None:
    again = Surroundings(CONNECTED, HERE.addresses, HERE.devices)
    assert again == HERE
    assert WITH_DEFAULT != HERE
    assert Surroundings(CONNECTED, HERE.addresses, [ETH0]) != HERE


def test_a_node_behind_a_router_is_a_next_hop_and_a_stranger_is_not() -> None:
    rules = replace(RULES, surroundings=WITH_DEFAULT)
    assert refused(PEER, "10.65.2.0/26", via("10.9.0.4"), rules) is None
    assert refused(PEER, "10.65.2.0/26", via("192.0.2.1"), rules) is Refusal.NEXT_HOP


# --- the kernel route -------------------------------------------------------------------------------------------------


def forwarded(
    prefix: str, *next_hops: str, pool: Pool = POOL, tunnel: bool = False, default: bool = True
) -> str:
    """Return the route for equal paths through `next_hops`, or why there is none."""
    base = WITH_DEFAULT if default else HERE
    here = Surroundings(
        {**CONNECTED, **({key("0.0.0.0/0"): (Route.via(ROUTER, ETH0, protocol=PROTOCOL_STATIC),)} if default else {})},
        base.addresses,
        {*base.devices, *([TUNL0] if tunnel else [])},
    )
    rules = replace(RULES, surroundings=here, pools=Pools({"p": pool}))
    peers = [replace(PEER, address=ip_address(hop)) for hop in next_hops]
    choice = best([via(hop, peer) for hop, peer in zip(next_hops, peers, strict=True)], here.cost)
    assert choice is not None
    found = forward(ip_network(prefix), choice, rules)
    if found is None:
        return "felix's"
    return f"withheld {found.pool}" if isinstance(found, Withheld) else str(found).removesuffix(" proto 81")


BLOCK = "10.65.2.0/26"
ALWAYS = replace(POOL, ipip=Encapsulation.ALWAYS)
CROSS = replace(POOL, ipip=Encapsulation.CROSS_SUBNET)


@pytest.mark.parametrize(
    ("hops", "pool", "tunnel", "expected"),
    [
        (["10.0.0.2"], POOL, False, "via 10.0.0.2 dev eth0"),
        (["10.9.0.4"], POOL, False, "via 10.0.0.254 dev eth0"),
        (["10.0.0.2", "10.0.0.3"], POOL, False, "nexthop via 10.0.0.2 dev eth0 nexthop via 10.0.0.3 dev eth0"),
        (["10.0.0.2"], ALWAYS, False, "withheld p"),
        (["10.0.0.2"], ALWAYS, True, "via 10.0.0.2 dev tunl0 onlink"),
        (["10.0.0.2"], CROSS, False, "via 10.0.0.2 dev eth0"),
        (["10.9.0.4"], CROSS, False, "withheld p"),
        (["10.9.0.4"], CROSS, True, "via 10.9.0.4 dev tunl0 onlink"),
        (["10.0.0.2"], replace(POOL, vxlan=Encapsulation.ALWAYS), True, "felix's"),
        (["10.0.0.2"], replace(POOL, vxlan=Encapsulation.CROSS_SUBNET), False, "felix's"),
    ],
)
def test_the_way_follows_the_pool(hops: list[str], pool: Pool, tunnel: bool, expected: str) -> None:
    assert forwarded(BLOCK, *hops, pool=pool, tunnel=tunnel) == expected


def test_ipip_carries_no_ipv6() -> None:
    six = Surroundings(
        {key("fd99::/64", 256): (Route.on(ETH0, protocol=PROTOCOL_KERNEL),)}, [ip_address("fd99::1")], [ETH0, TUNL0]
    )
    pool = Pool(name="p6", network=ip_network("fd80::/48"), ipip=Encapsulation.ALWAYS)
    rules = replace(RULES, surroundings=six, pools=Pools({"p6": pool}))
    peer = replace(PEER, address=ip_address("fd99::2"))
    choice = best([via("fd99::2", peer)], six.cost)
    assert choice is not None
    assert isinstance(forward(ip_network("fd80::/122"), choice, rules), Withheld)


def plain(gateway: str) -> Route:
    return Route.via(ip_address(gateway), ETH0, protocol=PROTOCOL_BGPD)


def wrapped(gateway: str) -> Route:
    return Route.via(ip_address(gateway), TUNL0, protocol=PROTOCOL_BGPD, onlink=True)


@pytest.mark.parametrize(
    ("pool", "route", "forbidden"),
    [
        (POOL, plain("10.0.0.2"), False),
        (POOL, wrapped("10.0.0.2"), True),
        (ALWAYS, plain("10.0.0.2"), True),
        (ALWAYS, wrapped("10.0.0.2"), False),
        (CROSS, plain("10.0.0.2"), False),
        (CROSS, plain("10.9.0.4"), True),
        (CROSS, wrapped("10.9.0.4"), False),
        (replace(POOL, vxlan=Encapsulation.ALWAYS), plain("10.0.0.2"), True),
        (ALWAYS, Route.blackhole(protocol=PROTOCOL_BGPD), False),
    ],
)
def test_what_an_earlier_bgpd_left_may_be_forbidden_by_now(pool: Pool, route: Route, forbidden: bool) -> None:
    rules = replace(RULES, pools=Pools({"p": pool}))
    assert is_forbidden(ip_network(BLOCK), route, rules) == forbidden


def test_outside_of_pools_nothing_is_forbidden() -> None:
    prefix: IPNetwork = ip_network("192.168.0.0/24")
    assert not is_forbidden(prefix, plain("10.0.0.2"), RULES)
