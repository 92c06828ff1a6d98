"""Networks that keep their hash: as ipaddress's own in every table."""

import copy
import pickle
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.names import IPNetwork
from resources.networks import key_network, key_network_at

V4 = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
V6 = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


@given(st.one_of(V4, V6))
def test_they_are_the_plain_ones_to_every_table(plain: IPNetwork) -> None:
    kept = key_network(str(plain))
    assert hash(kept) == hash(plain)
    assert {plain: 1}[kept] == {kept: 1}[plain] == {kept: 1}[key_network(str(plain))] == 1
    assert key_network_at(plain.version, int(plain.network_address), plain.prefixlen) == plain
    assert str(kept) == str(plain)


@given(st.one_of(V4, V6), st.one_of(V4, V6))
def test_they_are_equal_and_sorted_where_the_plain_ones_are(one: IPNetwork, other: IPNetwork) -> None:
    kept, beside = key_network(str(one)), key_network(str(other))
    assert (kept == beside) == (kept == other) == (one == other)
    if one.version == other.version:
        assert (kept < beside) == (one < other)  # type: ignore[operator]


def test_they_can_be_copied() -> None:
    kept = key_network("10.65.0.0/26")
    for again in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert again == kept == ip_network("10.65.0.0/26")
        assert hash(again) == hash(kept)


@pytest.mark.parametrize(
    "text",
    ["", "10.65.0.1/26", "10.65.0.0/33", "fd00::1/64", "10.65.0/24", "all", "10.0.0.0/8/8", "10.0.0.0/-1"],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        key_network(text)
