"""Which peers hear of which routes, and how (reference bgp.md 1.2, 4.7; RFC 4456 and 1997)."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest

from bgpd.calc.exports import Advertisement, Attributes
from bgpd.calc.filters import Filters, filter_of
from bgpd.calc.offers import Candidate, Offer, OfferRules, offer
from bgpd.calc.paths import Carried, Path, PathAttributes, Segment
from bgpd.calc.peers import NextHopMode
from bgpd.calc.pools import Pool, Pools
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.calc.surroundings import Surroundings
from kernel.route import PROTOCOL_KERNEL, PROTOCOL_STATIC, Route, RouteKey
from resources.kinds.bgpfilter import (
    AddCommunity,
    BGPFilter,
    BGPFilterSpec,
    FilterRule,
    Operation,
    PrependASPath,
    SetPriority,
)
from resources.names import AsNumber, IfName

ETH0, ETH1 = IfName("eth0"), IfName("eth1")
CLUSTER, OTHER_CLUSTER = IPv4Address("1.0.0.1"), IPv4Address("1.0.0.2")


def peer(number: int, *, asn: int = 64512, subnet: str = "10.0.0", **more: Any) -> PeerSpec:
    return PeerSpec(
        address=ip_address(f"{subnet}.{number}"),
        kind=PeerKind.GLOBAL,
        local_address=ip_address("10.0.0.1"),
        local_as=AsNumber(64512),
        peer_as=AsNumber(asn),
        **more,
    )


CLIENT, CLIENT_2, PLAIN, PLAIN_2 = peer(2, is_client=True), peer(3, is_client=True), peer(4), peer(5)
TOR, TOR_2, FAR = peer(200, asn=65001), peer(201, asn=65002), peer(9, asn=65003, subnet="192.0.2")
ALL = (CLIENT, CLIENT_2, PLAIN, PLAIN_2, TOR, TOR_2, FAR)
HERE = Surroundings(
    {
        RouteKey(ip_network("10.0.0.0/24")): (Route.on(ETH0, protocol=PROTOCOL_KERNEL),),
        RouteKey(ip_network("10.1.0.0/24")): (Route.on(ETH1, protocol=PROTOCOL_KERNEL),),
        RouteKey(ip_network("0.0.0.0/0")): (Route.via(ip_address("10.0.0.254"), ETH0, protocol=PROTOCOL_STATIC),),
    },
    [ip_address("10.0.0.1"), ip_address("10.1.0.1")],
    [ETH0, ETH1],
)
RULES = OfferRules(
    cluster_id=CLUSTER,
    peers={one.address: one for one in ALL},
    pools=Pools({
        "p": Pool(name="p", network=ip_network("10.65.0.0/16")),
        "home": Pool(name="home", network=ip_network("10.70.0.0/16"), is_exported=False),
    }),
    own_blocks=PrefixTable({ip_network("10.65.1.0/26"): None}),
    surroundings=HERE,
)  # fmt: skip
NO_REFLECTOR = replace(
    RULES, cluster_id=None, peers={one.address: replace(one, is_client=False) for one in ALL}
)  # fmt: skip
BLOCK = ip_network("10.65.9.0/26")


def seq(*numbers: int) -> tuple[Segment, ...]:
    return (Segment(numbers),)


def learned(sender: PeerSpec, *, next_hop: str | None = None, **attributes: Any) -> Candidate:
    path = Path(
        peer=sender.address,
        next_hop=ip_address(next_hop) if next_hop else sender.address,
        attributes=PathAttributes(**attributes),
        is_external=sender.is_external,
        identifier=IPv4Address(int(sender.address)),
    )
    return Candidate(path=path)


def told(peer: PeerSpec, candidate: Candidate, rules: OfferRules = RULES, prefix: str = str(BLOCK)) -> Offer | None:
    return offer(peer, IPv4Address(int(peer.address)), ip_network(prefix), candidate, rules)


# --- who hears --------------------------------------------------------------------------------------------------------

HEARS = {
    "own": (Candidate(attributes=Attributes()), {"client", "plain", "external"}),
    "external": (learned(TOR_2), {"client", "plain", "external"}),
    "client": (learned(CLIENT_2), {"client", "plain", "external"}),
    "plain": (learned(PLAIN_2), {"client", "external"}),
}


@pytest.mark.bgp_scenario(27)
@pytest.mark.parametrize("source", HEARS)
def test_who_hears_of_what_from_a_reflector(source: str) -> None:
    candidate, expected = HEARS[source]
    listeners = {"client": CLIENT, "plain": PLAIN, "external": TOR}
    assert {name for name, one in listeners.items() if told(one, candidate) is not None} == expected


@pytest.mark.parametrize("source", HEARS)
def test_who_hears_of_what_from_any_other_node(source: str) -> None:
    candidate, _ = HEARS[source]
    listeners = {"plain": PLAIN, "external": TOR}
    expected = {"plain", "external"} if source in ("own", "external") else {"external"}
    assert {name for name, one in listeners.items() if told(one, candidate, NO_REFLECTOR) is not None} == expected


def test_nobody_hears_what_he_said_himself() -> None:
    for one in ALL:
        assert told(one, learned(one)) is None
    # nor what began with him and came back another way
    assert told(CLIENT, learned(CLIENT_2, originator=IPv4Address("10.0.0.2"))) is None
    assert told(CLIENT, learned(CLIENT_2, originator=IPv4Address("10.0.0.7"))) is not None


def test_a_path_of_a_peer_that_is_gone_goes_to_nobody_inside() -> None:
    assert told(CLIENT, learned(peer(77, is_client=True))) is None


@pytest.mark.parametrize(
    ("community", "hear"),
    [
        ("65535:65281", {"client", "plain"}), ("65535:65283", {"client", "plain"}), ("65535:65282", set[str]()),
        ("64512:1", {"client", "plain", "external"}),
    ],
)  # fmt: skip
def test_communities_that_everybody_knows(community: str, hear: set[str]) -> None:
    listeners = {"client": CLIENT, "plain": PLAIN, "external": TOR}
    candidate = learned(CLIENT_2, communities=(community,))
    assert {name for name, one in listeners.items() if told(one, candidate) is not None} == hear


# --- how --------------------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(23)
def test_a_reflected_route_keeps_all_and_says_where_it_has_been() -> None:
    said: dict[str, Any] = {
        "next_hop": "10.0.0.77", "as_path": seq(65009), "local_preference": 200, "med": 5, "communities": ("1:2",),
        "large_communities": ("1:2:3",),
    }  # fmt: skip
    first = told(CLIENT, learned(CLIENT_2, **said))
    assert first is not None
    assert first == Offer(
        ip_address("10.0.0.77"),
        PathAttributes(
            as_path=seq(65009), local_preference=200, med=5, communities=("1:2",), large_communities=("1:2:3",),
            originator=IPv4Address("10.0.0.3"), clusters=(CLUSTER,),
        ),
    )  # fmt: skip
    again = told(
        CLIENT, learned(PLAIN, originator=IPv4Address("10.0.0.9"), clusters=(OTHER_CLUSTER,), next_hop="10.0.0.9")
    )
    assert again is not None
    assert (again.attributes.originator, again.attributes.clusters) == (
        IPv4Address("10.0.0.9"), (CLUSTER, OTHER_CLUSTER),
    )  # fmt: skip


CARRIED = Carried(
    is_atomic=True,
    aggregator=(65009, IPv4Address("10.9.0.1")),
    extended_communities=("0x0002fde800000064", "0x4004fde84cbebc20", "0xc30600000000002a"),
    unknown=("0x63 0xe0 0x0102",),
)


@pytest.mark.parametrize("sender", [CLIENT_2, TOR], ids=["inside", "outside"])
def test_what_means_nothing_to_us_goes_on_and_what_is_not_transitive_stays_in_the_as(sender: PeerSpec) -> None:
    candidate = learned(sender, as_path=seq(65009), carried=CARRIED)
    inside, outside = told(CLIENT, candidate), told(TOR_2, candidate)
    assert inside is not None
    assert outside is not None
    assert inside.attributes.carried == CARRIED
    assert outside.attributes.carried == replace(CARRIED, extended_communities=("0x0002fde800000064",))


def test_what_another_as_told_is_passed_on_inside_as_it_is() -> None:
    assert told(CLIENT, learned(TOR, as_path=seq(65001), med=7)) == Offer(
        TOR.address, PathAttributes(as_path=seq(65001), med=7)
    )


def test_what_leaves_the_as() -> None:
    inside = learned(
        CLIENT, local_preference=200, med=5, originator=IPv4Address("10.0.0.9"), clusters=(OTHER_CLUSTER,),
        communities=("1:2",),
    )  # fmt: skip
    assert told(FAR, inside) == Offer(None, PathAttributes(as_path=seq(64512), communities=("1:2",)))
    through = told(TOR_2, learned(TOR, as_path=(*seq(65001), Segment((7, 8), is_set=True)), med=3))
    assert through is not None
    assert through.attributes == PathAttributes(as_path=(Segment((64512, 65001)), Segment((7, 8), is_set=True)))
    renamed = replace(TOR_2, local_as=AsNumber(64700))
    named = told(renamed, learned(TOR, as_path=seq(65001)))
    assert named is not None
    assert named.attributes.as_path == seq(64700, 65001)
    # the path of an own route is ExaBGP's to write
    assert told(TOR, Candidate(attributes=Attributes(("1:2",)))) == Offer(None, PathAttributes(communities=("1:2",)))


NEXT_HOPS = {
    "inside, kept": (NextHopMode.AUTO, CLIENT, "10.0.0.3", "10.0.0.3"),
    "inside, self": (NextHopMode.SELF, CLIENT, "10.0.0.3", None),
    "outside, on the same network": (NextHopMode.AUTO, TOR, "10.0.0.3", "10.0.0.3"),
    "outside, on another network of ours": (NextHopMode.AUTO, TOR, "10.1.0.3", None),
    "outside, far away": (NextHopMode.AUTO, FAR, "10.0.0.3", None),
    "outside, both far away": (NextHopMode.AUTO, FAR, "192.0.2.7", None),
    "outside, self": (NextHopMode.SELF, TOR, "10.0.0.3", None),
    "outside, keep": (NextHopMode.KEEP, FAR, "10.0.0.3", "10.0.0.3"),
}


@pytest.mark.bgp_scenario(42)
@pytest.mark.parametrize("case", NEXT_HOPS)
def test_next_hops(case: str) -> None:
    mode, listener, next_hop, expected = NEXT_HOPS[case]
    found = told(replace(listener, next_hop_mode=mode), learned(CLIENT_2, next_hop=next_hop))
    assert found is not None
    assert found.next_hop == (None if expected is None else ip_address(expected))
    # our own routes are with us in any mode
    own = told(replace(listener, next_hop_mode=mode), Candidate(attributes=Attributes()))
    assert own is not None
    assert own.next_hop is None


def test_nobody_is_told_to_send_to_himself_and_nobody_to_us_what_we_do_not_send_on() -> None:
    assert told(TOR, learned(CLIENT, next_hop=str(TOR.address))) is None
    withheld = replace(learned(CLIENT_2), is_withheld=True)
    assert told(FAR, withheld) is None
    assert told(CLIENT, withheld) is not None


# --- what stays -------------------------------------------------------------------------------------------------------


def test_only_what_lies_in_a_pool_goes_on() -> None:
    for prefix, goes in (("10.65.9.0/26", True), ("10.66.9.0/26", False), ("10.70.9.0/26", False),
                         ("10.65.1.7/32", False), ("10.65.1.0/26", False)):  # fmt: skip
        for listener in (CLIENT, TOR):
            assert (told(listener, learned(CLIENT_2), prefix=prefix) is not None) is goes


def test_a_session_carries_its_own_family_only() -> None:
    assert told(CLIENT, Candidate(attributes=Attributes()), prefix="fd00::/122") is None


def test_what_passes_through_is_tagged_too() -> None:
    tagged = replace(RULES, advertisements=(Advertisement(ip_network("10.65.0.0/16"), ("64512:7", "1:2:3")),))
    found = told(CLIENT, learned(CLIENT_2, communities=("1:1", "64512:7")), tagged)
    assert found is not None
    assert found.attributes.communities == ("1:1", "64512:7")
    assert found.attributes.large_communities == ("1:2:3",)


# --- filters ----------------------------------------------------------------------------------------------------------


def filtered(*rules: FilterRule, **more: Any) -> tuple[PeerSpec, OfferRules]:
    known = Filters({"f": filter_of(BGPFilter(spec=BGPFilterSpec(export_v4=list(rules))))})
    return replace(TOR, filters=("f",), **more), replace(RULES, filters=known)


OWN = Candidate(attributes=Attributes(("64512:7",)))
WORKLOAD = Candidate(devices=("cali1",))
HOSTS = Candidate(devices=("eth0",), is_hosts=True)
EVERYTHING: Mapping[str, tuple[str, Candidate]] = {
    "block": ("10.65.1.0/26", OWN),
    "workload": ("10.65.1.5/32", WORKLOAD),
    "learned": ("10.65.9.0/26", learned(CLIENT)),
    "learned, no pool": ("10.99.0.0/16", learned(CLIENT)),
    "host's": ("192.168.7.0/24", HOSTS),
    "default": ("0.0.0.0/0", HOSTS),
}


def goes_out(*rules: FilterRule) -> set[str]:
    listener, known = filtered(*rules)
    return {name for name, (prefix, one) in EVERYTHING.items() if told(listener, one, known, prefix) is not None}


@pytest.mark.bgp_scenario(38, 39)
def test_what_filters_let_out_and_keep() -> None:
    assert goes_out() == {"block", "learned"}
    assert goes_out(FilterRule(action="Reject")) == set()
    in_the_block: dict[str, Any] = {"cidr": "10.65.1.0/26"}
    assert goes_out(FilterRule(action="Reject", match_operator="Equal", **in_the_block)) == {"learned"}
    assert goes_out(FilterRule(action="Accept", match_operator="In", **in_the_block)) == {
        "block", "workload", "learned",
    }  # fmt: skip
    assert goes_out(FilterRule(action="Accept", match_operator="Equal", cidr="10.99.0.0/16")) == {
        "block", "learned", "learned, no pool",
    }  # fmt: skip
    # of everything: what is Calico's, never what is merely the host's
    assert goes_out(FilterRule(action="Accept")) == {"block", "workload", "learned", "learned, no pool"}
    assert "host's" in goes_out(FilterRule(action="Accept", interface="eth*"))
    assert "default" not in goes_out(FilterRule(action="Accept", interface="eth*"))
    assert "default" in goes_out(FilterRule(action="Accept", match_operator="Equal", cidr="0.0.0.0/0"))
    assert goes_out(FilterRule(action="Accept", source="RemotePeers"), FilterRule(action="Reject")) == {
        "learned", "learned, no pool",
    }  # fmt: skip


def test_an_accept_ends_it_before_communities_are_put_on() -> None:
    listener, known = filtered(FilterRule(action="Accept", match_operator="In", cidr="10.65.1.0/26"))
    assert told(listener, OWN, known, "10.65.1.0/26") == Offer()
    assert told(listener, OWN, known, "10.65.2.0/26") == Offer(None, PathAttributes(communities=("64512:7",)))


def test_a_pool_that_stays_home_is_let_out_by_an_accept_only() -> None:
    listener, known = filtered(FilterRule(action="Accept", match_operator="In", cidr="10.70.0.0/16"))
    assert told(listener, learned(CLIENT), known, "10.70.1.0/26") is not None
    assert told(TOR, learned(CLIENT), known, "10.70.1.0/26") is None


def test_no_filter_opens_what_bgp_itself_closes() -> None:
    _, known = filtered(FilterRule(action="Accept"))
    assert told(replace(PLAIN, filters=("f",)), learned(PLAIN_2), known) is None
    assert told(replace(CLIENT, filters=("f",)), learned(CLIENT), known) is None
    assert told(replace(TOR, filters=("f",)), learned(CLIENT, communities=("65535:65281",)), known) is None


def test_operations_on_what_goes_out() -> None:
    rule = FilterRule(
        action="Accept",
        operations=[
            Operation(add_community=AddCommunity(value="65001:200")),
            Operation(prepend_as_path=PrependASPath(prefix=[65000])),
            Operation(set_priority=SetPriority(value=100)),
        ],
    )
    listener, known = filtered(rule)
    assert told(listener, OWN, known, "10.65.1.0/26") == Offer(
        None, PathAttributes(as_path=seq(64512, 65000), communities=("65001:200",))
    )
    inside = told(replace(CLIENT, filters=("f",)), OWN, known, "10.65.1.0/26")
    assert inside == Offer(
        None,
        PathAttributes(as_path=seq(65000), communities=("65001:200",), local_preference=2147483547),
    )
