"""After which changes everything is offered anew, and after which a part (docs/architecture.md, the way of a route)."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from bgpd.calc.exports import Advertisement
from bgpd.calc.offers import OfferRules
from bgpd.calc.paths import Path
from bgpd.calc.pools import Pool, Pools
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.calc.surroundings import Surroundings
from bgpd.offering import Book
from kernel.route import PROTOCOL_KERNEL, Route, RouteKey
from resources.names import AsNumber, IfName

BLOCK, FAR = ip_network("10.65.1.0/26"), ip_network("10.65.9.0/26")
INSIDE = ip_network("10.65.1.7/32")
POOL = Pool(name="p", network=ip_network("10.65.0.0/16"))
ETH0 = IfName("eth0")


def rules() -> OfferRules:
    """Made anew each time: what is compared is what they say."""
    return OfferRules(
        cluster_id=IPv4Address("1.0.0.1"),
        pools=Pools({"p": replace(POOL)}),
        own_blocks=PrefixTable({BLOCK: None}),
        surroundings=Surroundings({RouteKey(ip_network("10.0.0.0/24")): (Route.on(ETH0, protocol=PROTOCOL_KERNEL),)}),
    )


def settled() -> Book:
    book = Book()
    book.set_rules(rules())
    for prefix in (FAR, INSIDE):
        book.set_learned(prefix, Path(peer=ip_address("10.0.0.2"), next_hop=ip_address("10.0.0.2")))
    assert book.take_changes() is None
    return book


def test_the_same_rules_again_change_nothing() -> None:
    book = settled()
    book.set_rules(rules())
    assert book.take_changes() == set()


@pytest.mark.parametrize(
    "changed",
    [
        replace(rules(), pools=Pools({"p": replace(POOL, is_exported=False)})),
        replace(rules(), pools=Pools({"p": POOL, "q": Pool(name="q", network=ip_network("10.66.0.0/16"))})),
        replace(rules(), cluster_id=IPv4Address("1.0.0.2")),
        replace(rules(), advertisements=[Advertisement(ip_network("10.65.0.0/16"), ("64512:1",))]),
        replace(rules(), surroundings=Surroundings({}, [ip_address("10.0.0.1")])),
    ],
    ids=["a pool stays home", "another pool", "cluster", "advertisements", "surroundings"],
)  # fmt: skip
def test_rules_that_may_concern_any_prefix_change_all(changed: OfferRules) -> None:
    book = settled()
    book.set_rules(changed)
    assert book.take_changes() is None


def test_a_block_of_ours_changes_what_was_learned_in_it_and_no_more() -> None:
    book = settled()
    book.set_rules(replace(rules(), own_blocks=PrefixTable({})), [BLOCK])
    assert book.take_changes() == {INSIDE}


def test_a_path_that_is_withheld_from_now_on_is_a_change_and_the_same_again_is_none() -> None:
    book = settled()
    path = Path(peer=ip_address("10.0.0.2"), next_hop=ip_address("10.0.0.2"))
    book.set_learned(FAR, replace(path))
    assert book.take_changes() == set()
    book.set_learned(FAR, path, is_withheld=True)
    assert book.take_changes() == {FAR}
    book.set_learned(FAR, None)
    assert book.take_changes() == {FAR}


AS, OTHER_AS = AsNumber(64512), AsNumber(65001)
PEER = PeerSpec(
    address=ip_address("10.0.0.2"), kind=PeerKind.MESH, local_address=ip_address("10.0.0.1"), local_as=AS, peer_as=AS
)


def test_whoever_reflects_or_speaks_with_another_as_passes_on_what_it_learned() -> None:
    book = Book()
    book.set_peers({PEER.address: PEER})
    assert not book.is_transit
    book.set_peers({PEER.address: replace(PEER, peer_as=OTHER_AS)})
    assert book.is_transit
    book.set_peers({PEER.address: PEER})
    book.set_rules(rules())
    assert book.is_transit


@pytest.mark.parametrize(
    ("before", "after", "all_changes"),
    [
        (PEER, PEER, False),
        (PEER, replace(PEER, hold_seconds=30), False),
        (PEER, replace(PEER, is_client=True), True),
        (PEER, replace(PEER, peer_as=OTHER_AS), True),
        (PEER, replace(PEER, address=ip_address("10.0.0.3"), is_client=True), False),
    ],
    ids=["the same", "other times", "a client now", "of another AS now", "another one"],
)
def test_what_a_peer_is_to_us_decides_who_may_hear_of_its_routes(
    before: PeerSpec, after: PeerSpec, all_changes: bool
) -> None:
    book = settled()
    book.set_peers({before.address: before})
    book.take_changes()
    book.set_peers({after.address: after})
    assert book.take_changes() == (None if all_changes else set())


def test_the_first_peer_of_another_as_is_offered_everything() -> None:
    book = Book()
    book.take_changes()
    book.set_peers({PEER.address: replace(PEER, peer_as=OTHER_AS)})
    assert book.take_changes() is None
    assert book.take_changes() == set()
