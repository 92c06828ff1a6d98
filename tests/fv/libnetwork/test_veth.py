"""Veth pairs of endpoints on the real kernel."""

import json
from collections.abc import Iterator

import pytest

from bed import Namespace
from kernel.links import NetlinkLinks
from libnetwork.veth import NoLinkLocal, VethPairs

ENDPOINT = "218b43d95c8e0f11" * 4
MAC = "ee:01:02:03:04:05"
HOST, CONTAINER = "cali218b43d95c8", "temp218b43d95c8"


@pytest.fixture
def pairs(netns: Namespace) -> Iterator[VethPairs]:
    """The test's thread is inside the namespace."""
    with netns.entered():
        links = NetlinkLinks()
        yield VethPairs(links, mtu=lambda: 1480)
        links.close()


def links_of(netns: Namespace) -> dict[str, dict[str, object]]:
    return {link["ifname"]: link for link in json.loads(netns.ip("-j", "link").stdout)}


def test_both_ends_are_up_with_mac_and_mtu(pairs: VethPairs, netns: Namespace) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    found = links_of(netns)
    assert found[HOST]["operstate"] == found[CONTAINER]["operstate"] == "UP"
    assert found[HOST]["mtu"] == found[CONTAINER]["mtu"] == 1480
    assert found[CONTAINER]["address"] == MAC
    assert found[HOST]["address"] != MAC


def test_the_containers_end_may_have_gone_and_come_back(pairs: VethPairs, netns: Namespace) -> None:
    """As after a stop without a plugin: Docker gives the container's end back under its old name, down."""
    pairs.create(ENDPOINT, mac=MAC)
    netns.ip("link", "set", CONTAINER, "down")
    pairs.create(ENDPOINT, mac="ee:0a:0a:0a:0a:0a")
    found = links_of(netns)
    assert found.keys() == {"lo", HOST, CONTAINER}
    assert found[CONTAINER]["address"] == "ee:0a:0a:0a:0a:0a"
    assert found[CONTAINER]["operstate"] == "UP"


def test_a_pair_whose_other_end_is_in_a_container_is_replaced(pairs: VethPairs, netns: Namespace) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    with Namespace(f"{netns.netns}c") as container:
        netns.ip("link", "set", CONTAINER, "netns", container.netns)
        pairs.create(ENDPOINT, mac=MAC)
        assert links_of(netns).keys() == {"lo", HOST, CONTAINER}
        assert links_of(container).keys() == {"lo"}


def test_removal_reaches_into_the_container(pairs: VethPairs, netns: Namespace) -> None:
    pairs.create(ENDPOINT, mac=MAC)
    with Namespace(f"{netns.netns}c") as container:
        netns.ip("link", "set", CONTAINER, "netns", container.netns)
        for _ in range(2):
            pairs.remove(ENDPOINT)
            assert links_of(netns).keys() == links_of(container).keys() == {"lo"}


def test_the_hosts_end_has_its_link_local_address_at_once_and_no_other(pairs: VethPairs, netns: Namespace) -> None:
    """Also where the kernel is told to look first whether somebody else has it."""
    netns.run("cd /proc/sys/net/ipv6/conf; echo 0 >default/disable_ipv6; echo 1 >all/accept_dad")
    gateway = pairs.create(ENDPOINT, mac=MAC, ipv6=True)
    (address,) = json.loads(netns.ip("-6", "-j", "addr", "show", "dev", HOST).stdout)[0]["addr_info"]
    assert address["local"] == str(gateway)
    assert "tentative" not in address
    assert str(gateway) not in netns.ip("-6", "addr", "show", "dev", CONTAINER).stdout


def test_without_ipv6_there_is_none(pairs: VethPairs, netns: Namespace) -> None:
    netns.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    with pytest.raises(NoLinkLocal, match="IPv6 is disabled"):
        pairs.create(ENDPOINT, mac=MAC, ipv6=True)
