"""Longest match, against going through all entries."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.prefixes import PrefixTable, Ranges
from resources.names import IPNetwork

# few different bits, so that prefixes meet
ADDRESSES = st.integers(0, 255).map(lambda number: number << 24 | (number & 15) << 8)
V4 = st.builds(lambda address, length: IPv4Network((address, length), strict=False), ADDRESSES, st.integers(0, 32))
V6 = st.builds(
    lambda address, length: IPv6Network((address << 96, length), strict=False), ADDRESSES, st.integers(0, 40)
)
NETWORKS = st.one_of(V4, V6)


def contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


@given(st.frozensets(NETWORKS, max_size=30), NETWORKS)
def test_it_answers_as_a_walk_through_all_entries(entries: frozenset[IPNetwork], asked: IPNetwork) -> None:
    table = PrefixTable({entry: str(entry) for entry in entries})
    around = sorted((entry for entry in entries if contains(entry, asked)), key=lambda entry: -entry.prefixlen)
    within = {entry for entry in entries if contains(asked, entry)}
    assert [entry for entry, _ in table.containing(asked)] == around
    assert table.match(asked) == ((around[0], str(around[0])) if around else None)
    assert {entry for entry, _ in table.inside(asked)} == within
    assert table.overlaps(asked) == bool(around or within)
    assert set(table.networks) == entries
    address = asked.network_address
    assert table.at(address) == table.match(ip_network(address))
    assert Ranges(entries).overlap(asked) == bool(around or within)


def test_an_empty_table_matches_nothing() -> None:
    table: PrefixTable[int] = PrefixTable({})
    assert table.match(ip_network("10.0.0.0/8")) is None
    assert not table.overlaps(ip_network("::/0"))
    assert table.at(ip_address("10.0.0.1")) is None
    assert not Ranges(()).overlap(ip_network("::/0"))
