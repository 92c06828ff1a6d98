"""What the kernel tells of interfaces and addresses, in the order in which it tells it."""

import ipaddress

import pytest

from felix.host_interfaces import GONE_AFTER_SECONDS, Addresses, HostInterfaces
from kernel.link import Link, LinkAddress
from resources.names import IfName


def link(name: str, index: int) -> Link:
    return Link(index=index, name=IfName(name), up=True, running=True, mtu=1500)


def entry(name: str, address: str) -> LinkAddress:
    return LinkAddress(device=IfName(name), address=ipaddress.ip_interface(address))


def addresses(*texts: str) -> Addresses:
    return frozenset(map(ipaddress.ip_address, texts))


@pytest.fixture
def known() -> HostInterfaces:
    """eth0 with an address, eth1 without."""
    made = HostInterfaces()
    made.read({IfName("eth0"): link("eth0", 2), IfName("eth1"): link("eth1", 3)}, [entry("eth0", "192.0.2.1/24")])
    assert made.take_changes(0) == {"eth0": addresses("192.0.2.1"), "eth1": addresses()}
    return made


def test_what_comes_counts_at_once(known: HostInterfaces) -> None:
    known.address_added(entry("eth0", "fd00::1/64"))
    known.link_changed(link("eth2", 4))
    known.address_added(entry("eth2", "198.51.100.1/32"))
    assert known.take_changes(0) == {
        "eth0": addresses("192.0.2.1", "fd00::1"), "eth2": addresses("198.51.100.1"),
    }  # fmt: skip
    assert known.take_changes(0) == {}


def test_an_address_that_goes_counts_a_moment_longer(known: HostInterfaces) -> None:
    known.address_gone(entry("eth0", "192.0.2.1/24"), 10.0)
    assert known.take_changes(10.0) == {}
    assert known.due == 10.0 + GONE_AFTER_SECONDS
    assert known.take_changes(10.0 + GONE_AFTER_SECONDS) == {"eth0": addresses()}
    assert known.due is None


def test_a_flap_is_not_told(known: HostInterfaces) -> None:
    known.address_gone(entry("eth0", "192.0.2.1/24"), 10.0)
    known.read({IfName("eth0"): link("eth0", 2), IfName("eth1"): link("eth1", 3)}, [])  # in the middle of it
    known.address_added(entry("eth0", "192.0.2.1/24"))
    assert known.take_changes(20.0) == {}
    assert known.due is None


def test_one_address_with_two_lengths_goes_with_the_last(known: HostInterfaces) -> None:
    known.address_added(entry("eth0", "192.0.2.1/32"))
    known.address_gone(entry("eth0", "192.0.2.1/24"), 10.0)
    assert known.take_changes(20.0) == {}
    known.address_gone(entry("eth0", "192.0.2.1/32"), 20.0)
    assert known.take_changes(30.0) == {"eth0": addresses()}


def test_a_rename_takes_the_addresses_along(known: HostInterfaces) -> None:
    known.link_gone(IfName("eth0"))
    known.link_changed(link("wan", 2))
    assert known.take_changes(0) == {"eth0": None, "wan": addresses("192.0.2.1")}


def test_another_interface_of_the_same_name_begins_without(known: HostInterfaces) -> None:
    known.link_gone(IfName("eth0"))
    known.link_changed(link("eth0", 9))
    assert known.take_changes(0) == {"eth0": addresses()}
    known.address_added(entry("eth0", "192.0.2.9/24"))
    known.link_changed(link("eth0", 10))  # its end was not heard
    assert known.take_changes(0) == {}
    assert not known.has_changes


def test_a_change_that_is_none_is_not_told(known: HostInterfaces) -> None:
    known.link_changed(link("eth0", 2))
    known.address_added(entry("eth0", "192.0.2.1/24"))
    known.address_gone(entry("eth1", "192.0.2.1/24"), 0)
    known.address_added(entry("gone", "192.0.2.1/24"))
    known.link_gone(IfName("never"))
    assert known.take_changes(10.0) == {}


def test_a_read_corrects_what_was_not_heard(known: HostInterfaces) -> None:
    known.read({IfName("eth1"): link("eth1", 3)}, [entry("eth1", "192.0.2.1/24"), entry("eth9", "192.0.2.2/24")])
    assert known.has_changes
    assert known.take_changes(0) == {"eth0": None, "eth1": addresses("192.0.2.1")}
