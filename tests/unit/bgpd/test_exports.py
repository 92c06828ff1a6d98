"""What a node announces: the worked example of reference bgp.md 1.2 and its neighbourhood."""

from ipaddress import ip_network

import pytest

from bgpd.calc.exports import Advertisement, Attributes, advertisements, aggregates, exports, own_blocks
from bgpd.calc.pools import Pool, Pools
from resources.blocks import AffinityState
from resources.kinds.base import Metadata
from resources.kinds.bgpconfiguration import BGPConfiguration, BGPConfigurationSpec, Community, PrefixAdvertisement
from resources.names import IPNetwork, NodeName

A, B = NodeName("a"), NodeName("b")


def nets(*texts: str) -> frozenset[IPNetwork]:
    return frozenset(map(ip_network, texts))


def pools(**cidrs: str) -> Pools:
    return Pools({name: Pool(name=name, network=ip_network(cidr)) for name, cidr in cidrs.items()})


def test_the_worked_example() -> None:
    blocks = own_blocks(
        A,
        {
            ip_network("17.16.10.0/26"): AffinityState.CONFIRMED,
            ip_network("17.16.11.64/26"): AffinityState.PENDING,
        },
        {ip_network("17.16.10.0/26"): A, ip_network("17.16.11.64/26"): A, ip_network("17.16.20.0/26"): B},
    )
    announced = exports(
        blocks,
        nets("17.16.10.5/32", "17.16.10.9/32", "17.16.20.7/32", "17.16.11.70/32"),
        pools(p="17.16.0.0/16"),
        [Advertisement(ip_network("17.16.0.0/16"), ("64512:7",))],
    )
    seven = Attributes(("64512:7",))
    assert announced == {
        ip_network("17.16.10.0/26"): seven,
        ip_network("17.16.20.7/32"): seven,
        ip_network("17.16.11.70/32"): seven,
    }


def test_a_claim_counts_only_if_both_sides_agree() -> None:
    block = ip_network("10.0.0.0/26")
    confirmed = {block: AffinityState.CONFIRMED}
    assert own_blocks(A, confirmed, {block: A}) == {block}
    assert own_blocks(A, confirmed, {block: B}) == own_blocks(A, confirmed, {}) == set()
    assert own_blocks(A, {}, {block: A}) == set()
    for state in (AffinityState.PENDING, AffinityState.PENDING_DELETION):
        assert own_blocks(A, {block: state}, {block: A}) == set()


def test_what_is_in_no_pool_stays_at_home() -> None:
    assert exports(frozenset(), nets("192.168.5.5/32"), pools(p="17.16.0.0/16")) == {}


def test_a_block_goes_out_even_where_its_pool_is_gone() -> None:
    block = ip_network("10.1.0.0/26")
    assert exports(frozenset({block}), nets("10.1.0.1/32"), pools()) == {block: Attributes()}


def test_a_pool_kept_home_lets_nothing_out() -> None:
    kept = Pools({"p": Pool(name="p", network=ip_network("17.16.0.0/16"), is_exported=False)})
    assert exports(nets("17.16.10.0/26"), nets("17.16.20.7/32"), kept) == {}


@pytest.mark.bgp_scenario(40)
def test_a_block_of_one_address_is_its_workload() -> None:
    """It is neither blackholed nor announced while nobody is there to answer."""
    single = nets("17.16.10.5/32")
    assert aggregates(single) == set()
    assert exports(single, frozenset(), pools(p="17.16.0.0/16")) == {}
    assert set(exports(single, single, pools(p="17.16.0.0/16"))) == single


def test_both_families() -> None:
    announced = exports(
        nets("10.1.0.0/26", "fd80::40/122"),
        nets("fd80::1/128", "fd80::41/128"),
        pools(p4="10.1.0.0/16", p6="fd80::/64"),
    )
    assert set(announced) == nets("10.1.0.0/26", "fd80::40/122", "fd80::1/128")


def configuration(name: str, **spec: object) -> BGPConfiguration:
    return BGPConfiguration(metadata=Metadata(name=name), spec=BGPConfigurationSpec(**spec))  # type: ignore[arg-type]


def test_advertisements_resolve_names_and_tell_what_is_wrong() -> None:
    found, faults = advertisements(
        A,
        {
            "default": configuration(
                "default",
                communities=[Community(name="ours", value="64512:7"), Community(name="large", value="64512:1:2")],
                prefix_advertisements=[
                    PrefixAdvertisement(
                        cidr="17.16.0.0/16", communities=["ours", "64512:9", "large", "nope", "7:70000"]
                    ),
                    PrefixAdvertisement(cidr="17.16.0.1/16", communities=["ours"]),
                ],
            )
        },
    )
    assert found == (Advertisement(ip_network("17.16.0.0/16"), ("64512:7", "64512:9", "64512:1:2")),)
    assert len(faults) == 3


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("65535:65535", True), ("65536:1", False), ("1:65536", False), ("0:0000000001", True), ("0:00000000001", False),
        ("4294967295:0:4294967295", True), ("4294967296:0:0", False), ("0:0:4294967296", False), ("1", False),
        ("1:2:3:4", False), ("1:", False), ("1:-2", False), ("1:٣", False),
    ],
)  # fmt: skip
def test_a_community_is_two_numbers_of_16_bits_and_a_large_one_three_of_32(word: str, is_one: bool) -> None:
    advertisement = PrefixAdvertisement(cidr="17.16.0.0/16", communities=[word])
    found, faults = advertisements(A, {"default": configuration("default", prefix_advertisements=[advertisement])})
    assert [one.communities for one in found] == [(word,) if is_one else ()]
    assert len(faults) == (0 if is_one else 1)


@pytest.mark.bgp_scenario(36)
def test_a_nodes_own_advertisements_replace_the_global_ones() -> None:
    default = configuration(
        "default",
        communities=[Community(name="ours", value="64512:7")],
        prefix_advertisements=[PrefixAdvertisement(cidr="17.16.0.0/16", communities=["64512:1"])],
    )
    own = configuration(
        "node.a", prefix_advertisements=[PrefixAdvertisement(cidr="17.16.10.0/24", communities=["ours"])]
    )
    both = {"default": default, "node.a": own}
    assert advertisements(A, both)[0] == (Advertisement(ip_network("17.16.10.0/24"), ("64512:7",)),)
    assert advertisements(B, both)[0] == (Advertisement(ip_network("17.16.0.0/16"), ("64512:1",)),)


@pytest.mark.bgp_scenario(36)
def test_communities_of_all_matching_advertisements_are_joined_and_sorted() -> None:
    announced = exports(
        nets("17.16.10.0/26"),
        frozenset(),
        pools(),
        [
            Advertisement(ip_network("17.16.0.0/16"), ("64512:100", "64512:7", "64512:1:2")),
            Advertisement(ip_network("17.16.10.0/24"), ("64512:20", "64512:7")),
            Advertisement(ip_network("17.17.0.0/16"), ("64512:9",)),
            Advertisement(ip_network("fd80::/16"), ("64512:9",)),
        ],
    )
    assert announced == {
        ip_network("17.16.10.0/26"): Attributes(("64512:7", "64512:20", "64512:100"), ("64512:1:2",))
    }
