"""Which blocks are missing from what a node announces."""

from ipaddress import ip_network

import pytest

from bgpd.calc.pools import Encapsulation, Pool, Pools
from bgpd.calc.untold import untold
from resources.names import IPNetwork, NodeName

A, B = NodeName("a"), NodeName("b")
PLAIN = Pool(name="plain", network=ip_network("10.65.0.0/16"))
POOLS = Pools({
    "plain": PLAIN,
    "ipip": Pool(name="ipip", network=ip_network("10.66.0.0/16"), ipip=Encapsulation.ALWAYS),
    "six": Pool(name="six", network=ip_network("fd80:65::/48")),
    "home": Pool(name="home", network=ip_network("10.70.0.0/16"), is_exported=False),
    "vxlan": Pool(name="vxlan", network=ip_network("10.71.0.0/16"), vxlan=Encapsulation.CROSS_SUBNET),
})  # fmt: skip
NOTHING: frozenset[IPNetwork] = frozenset()


def test_blocks_that_their_nodes_do_not_announce_are_told_by_node_in_order() -> None:
    blocks = ["fd80:65::/122", "10.65.2.0/26", "10.65.1.0/26", "10.66.1.0/26"]
    owners = {**dict.fromkeys(map(ip_network, blocks), B), ip_network("10.65.3.0/26"): A}
    told = {(B, 4): {ip_network("10.66.1.0/26")}, (B, 6): NOTHING, (A, 4): NOTHING}
    found = untold(told, owners, POOLS)
    assert list(found.items()) == [
        (A, [ip_network("10.65.3.0/26")]),
        (B, [ip_network(text) for text in ("10.65.1.0/26", "10.65.2.0/26", "fd80:65::/122")]),
    ]


def test_a_family_of_which_a_node_says_nothing_yet_is_not_missed() -> None:
    owners = {ip_network("10.65.1.0/26"): A, ip_network("fd80:65::/122"): A}
    assert untold({(A, 6): NOTHING}, owners, POOLS) == {A: [ip_network("fd80:65::/122")]}
    assert untold({(B, 4): NOTHING}, owners, POOLS) == {}


@pytest.mark.parametrize("block", ["10.70.1.0/26", "10.71.1.0/26", "10.99.1.0/26"])
def test_nobody_is_to_announce_what_stays_home_what_goes_by_vxlan_and_what_lies_in_no_pool(block: str) -> None:
    assert untold({(A, 4): NOTHING}, {ip_network(block): A}, POOLS) == {}
