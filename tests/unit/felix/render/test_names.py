"""Names and hashes against the check values of reference felix.md 3.2, 3.3, 4.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.calc.model import Direction, NamedPort, PolicyId, named_port_set, selector_set
from felix.render.names import (
    FROM_WORKLOAD,
    bounded_name,
    endpoint_chain,
    policy_chain,
    profile_chain,
    rule_tags,
    set_name,
)
from resources.names import IfName, ProfileName
from resources.selector import parse


@pytest.mark.parametrize(
    ("suffix", "limit", "name"),
    [
        ("1234", 10, "felix1234"),
        ("123456", 11, "felix123456"),
        ("_2345", 10, "felix_kMQI"),
        ("12345678910", 13, "felix_Y2QCZIS"),
        ("", 10, "felix_"),
    ],
)
def test_bounded_names(suffix: str, limit: int, name: str) -> None:
    assert bounded_name("felix", suffix, limit) == name


@given(st.text(max_size=60))
def test_a_name_from_the_store_cannot_write_rules(suffix: str) -> None:
    name = bounded_name("cali-pri-", suffix)
    assert len(name) <= 28
    assert name.isascii()
    assert not set(name) & set(" \t\r\n\"'\\;#{}")


def test_chain_names() -> None:
    assert endpoint_chain(FROM_WORKLOAD, IfName("cali61dbcdeb9d0")) == "cali-fw-cali61dbcdeb9d0"
    redis = PolicyId("GlobalNetworkPolicy", "redis-in")
    assert policy_chain(redis, Direction.INGRESS) == "cali-pi-gnp/redis-in"
    assert policy_chain(PolicyId("NetworkPolicy", "p", "ns"), Direction.EGRESS) == "cali-po-np/ns/p"
    assert profile_chain(ProfileName("calico-net1"), Direction.EGRESS) == "cali-pro-calico-net1"
    assert len(policy_chain(PolicyId("GlobalNetworkPolicy", "a" * 253), Direction.INGRESS)) == 28


def test_hashes_cover_place_and_predecessors() -> None:
    rules = ["--jump DROP", "--jump ACCEPT", "--jump DROP", "--jump ACCEPT"]
    assert rule_tags("FORWARD", rules) == (
        "hecdSCslEjdBPBPo", "plvr29-ZiKUwbzDV", "BMJ7gfua-eMLZ8Gu", "rmnR1gc8haxMy_0W",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "tag"),
    [
        ("FORWARD", "wUHhoiAYhphO9Mso"), ("INPUT", "Cz_u1IQiXIMmKD4c"), ("OUTPUT", "tVnHkvAo15HuiPy0"),
        ("PREROUTING", "6gwbT8clXdHdC1b1"), ("POSTROUTING", "O3lYWMrLQYEMJtB5"),
    ],
)  # fmt: skip
def test_hashes_of_the_jumps_into_our_chains(chain: str, tag: str) -> None:
    assert rule_tags(chain, [f"--jump cali-{chain}"]) == (tag,)


def test_set_ids_and_names() -> None:
    web = parse("role == 'web'")
    assert selector_set(web).id == "s:MR9Dy5iWW0UxNKyRkM6UiRI3iZzQ2k0xiUotow"
    assert set_name(4, selector_set(web).id) == "cali40s:MR9Dy5iWW0UxNKyRkM6UiRI"
    assert set_name(6, "all-hosts-net") == "cali60all-hosts-net"
    assert named_port_set(web, NamedPort("tcp", "http")).id == "n:5uaY0Ezzsf7zBGaRkOjZeTWB0tFSp-mHE89A5g"
