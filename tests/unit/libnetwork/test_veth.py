"""Veth pairs of endpoints, on interfaces in memory."""

import errno
import ipaddress

import pytest

from fakes.clock import ManualClock
from fakes.links import FakeLinks
from kernel.errors import InvalidArgument, NotPermitted
from kernel.link import LinkAddress, link_local_of
from libnetwork.deadline import Deadline, OutOfTime
from libnetwork.veth import NoLinkLocal, VethPairs, container_interface, host_interface
from resources.names import IfName, IPInterface

ENDPOINT = "218b43d95c8e0f11" * 4
MAC = "ee:01:02:03:04:05"
HOST, CONTAINER = IfName("cali218b43d95c8"), IfName("temp218b43d95c8")


@pytest.fixture
def links() -> FakeLinks:
    return FakeLinks()


@pytest.fixture
def pairs(links: FakeLinks) -> VethPairs:
    return VethPairs(links)


def test_names_fill_the_kernels_fifteen_bytes() -> None:
    assert (host_interface(ENDPOINT), container_interface(ENDPOINT)) == (HOST, CONTAINER)
    assert len(HOST) == len(CONTAINER) == 15


def test_both_ends_are_up_and_the_containers_has_the_mac(links: FakeLinks, pairs: VethPairs) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    found = links.links()
    assert found[HOST].running
    assert found[CONTAINER].running
    assert found[CONTAINER].mac == MAC
    assert found[HOST].mac != MAC


def test_the_mtu_is_that_of_both_ends(links: FakeLinks) -> None:
    VethPairs(links, mtu=lambda: 1480).create(ENDPOINT, mac=MAC)
    assert {links.links()[end].mtu for end in (HOST, CONTAINER)} == {1480}


@pytest.mark.parametrize("left", [HOST, CONTAINER])
def test_what_is_left_over_is_replaced(links: FakeLinks, pairs: VethPairs, left: IfName) -> None:
    links.create_veth(left, IfName("other"))
    pairs.create(ENDPOINT, mac=MAC)
    assert links.links().keys() == {"lo", HOST, CONTAINER}
    assert links.links()[CONTAINER].mac == MAC


def test_a_pair_of_before_is_replaced_by_a_new_one(links: FakeLinks, pairs: VethPairs) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    before = links.links()[HOST].index
    pairs.create(ENDPOINT, mac=MAC)
    assert links.links()[HOST].index != before
    assert links.links()[HOST].running


def test_removal_takes_both_ends_and_may_be_repeated(links: FakeLinks, pairs: VethPairs) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    for _ in range(2):
        pairs.remove(ENDPOINT)
        assert links.links().keys() == {"lo"}


def test_what_the_kernel_refuses_is_told(links: FakeLinks, pairs: VethPairs) -> None:
    links.refuse.add(HOST)
    with pytest.raises(InvalidArgument, match=f"cannot make the veth pair {HOST}"):
        pairs.create(ENDPOINT, mac=MAC)


def test_the_gateway_is_the_link_local_address_of_the_hosts_end(links: FakeLinks, pairs: VethPairs) -> None:
    gateway = pairs.create(ENDPOINT, mac=MAC, ipv6=True)
    mac = links.links()[HOST].mac
    assert mac is not None
    assert gateway == link_local_of(mac)
    assert links.addresses() == [LinkAddress(device=HOST, address=ipaddress.ip_interface(f"{gateway}/64"))]


def test_without_ipv6_nothing_is_given(links: FakeLinks, pairs: VethPairs) -> None:
    assert pairs.create(ENDPOINT, mac=MAC) is None
    assert links.addresses() == []


def test_without_ipv6_on_the_host_the_error_says_how_to_switch_it_on(links: FakeLinks, pairs: VethPairs) -> None:
    def refuse(_: IfName, __: IPInterface) -> None:
        raise NotPermitted("IPv6 is disabled on this device", errno=errno.EACCES)

    links.on_address.append(refuse)
    with pytest.raises(NoLinkLocal, match=f"{HOST} takes no IPv6 link-local .*: IPv6 is disabled") as refused:
        pairs.create(ENDPOINT, mac=MAC, ipv6=True)
    assert "disable_ipv6" in (refused.value.hint or "")


def test_a_deadline_counts_down() -> None:
    clock = ManualClock()
    deadline = Deadline(8, clock)
    assert deadline.left() == 8
    clock.sleep(5)
    assert deadline.left() == 3
    assert deadline.left(at_most=2) == 2
    clock.sleep(3)
    with pytest.raises(OutOfTime, match="not done after 8 s"):
        deadline.left()
