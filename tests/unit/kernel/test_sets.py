"""The text that ipset prints."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.sets import KernelSet, SetSpec, net_member, parse_save, port_member
from resources.names import IPNetwork

SAVED = """\
create cali40a hash:net family inet hashsize 1024 maxelem 100 bucketsize 12 initval 0x4066eb16
add cali40a 10.0.0.1
add cali40a 10.1.0.0/16 nomatch
create theirs hash:net family inet hashsize 1024 maxelem 100
add theirs 10.0.0.1
create ports bitmap:port range 0-1023
create cali60a hash:net family inet6 hashsize 1024 maxelem 1048576
add cali60a ::1.2.3.4
create cali40n:x hash:ip,port family inet hashsize 1024 maxelem 7
add cali40n:x 10.0.0.1,tcp:80
create cali40empty hash:net family inet hashsize 1024 maxelem 1048576
"""


def test_sets_with_our_prefixes_are_read() -> None:
    assert parse_save(SAVED, ("cali40", "cali60")) == {
        "cali40a": KernelSet(
            spec=SetSpec(name="cali40a", type="hash:net", version=4, maxelem=100),
            members=frozenset({"10.0.0.1", "10.1.0.0/16 nomatch"}),
        ),
        "cali60a": KernelSet(
            spec=SetSpec(name="cali60a", type="hash:net", version=6), members=frozenset({"::1.2.3.4"})
        ),
        "cali40n:x": KernelSet(
            spec=SetSpec(name="cali40n:x", type="hash:ip,port", version=4, maxelem=7),
            members=frozenset({"10.0.0.1,tcp:80"}),
        ),
        "cali40empty": KernelSet(spec=SetSpec(name="cali40empty", type="hash:net", version=4), members=frozenset()),
    }


def test_nothing_is_no_set() -> None:
    assert parse_save("", ("cali40",)) == {}


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.0/31", "10.0.0.0/31"),
        ("fd00::1/128", "fd00::1"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1.2.3.4/128", "::1.2.3.4"),
    ],
)
def test_a_member_is_written_as_ipset_prints_it(network: str, text: str) -> None:
    assert net_member(ipaddress.ip_network(network)) == text


def test_a_port_is_written_as_ipset_prints_it() -> None:
    assert port_member(ipaddress.ip_address("10.0.0.1"), "tcp", 80) == "10.0.0.1,tcp:80"


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_member_means_the_same_network(address: ipaddress.IPv4Address, length: int) -> None:
    network: IPNetwork = ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False)
    assert ipaddress.ip_network(net_member(network)) == network
