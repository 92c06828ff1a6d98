"""What every LinkKernel must do. A test module for one implementation derives from `LinkContract` and gives the fixture
`host`: a host with `lo` alone and a namespace beside it.
"""

import contextlib
import ipaddress
import time
from collections.abc import Callable
from typing import Protocol

import pytest

from kernel.errors import AlreadyThere, InvalidArgument, NoSuchDevice, NoSuchEntry
from kernel.link import LinkAddress, Neighbour
from kernel.links import LinkKernel
from resources.names import IfName

CALI, TEMP, NONE = IfName("cali0123456789a"), IfName("temp0123456789a"), IfName("nope0")
MAC, OTHER_MAC = "ee:ee:ee:ee:ee:ee", "02:00:00:00:00:07"
V4, V6 = ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("fd00::1/64")
NEAR4, NEAR6 = ipaddress.ip_address("10.0.0.9"), ipaddress.ip_address("fd00::9")


class Host(Protocol):
    """A host and what is beside it."""

    @property
    def links(self) -> LinkKernel: ...
    @property
    def beside(self) -> str:
        """Name of another network namespace."""

    def links_beside(self) -> set[str]:
        """Return the names of the interfaces in it, lo left out."""


NAMED: dict[str, Callable[[LinkKernel, IfName], object]] = {
    "set_up": lambda links, name: links.set_up(name),
    "set_down": lambda links, name: links.set_down(name),
    "set_mtu": lambda links, name: links.set_mtu(name, 1400),
    "add_address": lambda links, name: links.add_address(name, V4),
    "remove_address": lambda links, name: links.remove_address(name, V4),
    "neighbours": lambda links, name: links.neighbours(name),
    "set_neighbour": lambda links, name: links.set_neighbour(name, NEAR4, MAC),
    "remove_neighbour": lambda links, name: links.remove_neighbour(name, NEAR4),
    "move": lambda links, name: links.move(name, "nowhere"),
}


def given(links: LinkKernel) -> list[LinkAddress]:
    """Return the addresses that somebody gave, not those the kernel makes by itself."""
    return [found for found in links.addresses() if found.device != "lo" and not found.address.ip.is_link_local]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for the kernel, which tells of a carrier up to a second late."""
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class LinkContract:
    @pytest.fixture
    def host(self) -> Host:
        raise AssertionError("a test module gives this fixture")

    @pytest.fixture
    def links(self, host: Host) -> LinkKernel:
        return host.links

    @pytest.fixture
    def pair(self, links: LinkKernel) -> LinkKernel:
        """The links with a veth pair CALI and TEMP, both up."""
        links.create_veth(CALI, TEMP)
        links.set_up(CALI)
        links.set_up(TEMP)
        return links

    def test_there_is_loopback(self, links: LinkKernel) -> None:
        assert set(links.links()) == {"lo"}

    def test_a_pair_is_made_as_asked_and_down(self, links: LinkKernel) -> None:
        links.create_veth(CALI, TEMP, mac=MAC, peer_mac=OTHER_MAC, mtu=1410)
        found = links.links()
        assert set(found) == {"lo", CALI, TEMP}
        assert {(found[end].mac, found[end].mtu, found[end].kind) for end in (CALI, TEMP)} == {
            (MAC, 1410, "veth"),
            (OTHER_MAC, 1410, "veth"),
        }
        assert found[CALI].mac == MAC
        assert not any(found[end].up or found[end].running for end in (CALI, TEMP))
        assert found[CALI].index != found[TEMP].index

    def test_the_ends_get_addresses_of_their_own_if_none_is_asked_for(self, links: LinkKernel) -> None:
        links.create_veth(CALI, TEMP)
        found = links.links()
        assert found[CALI].mac is not None
        assert found[CALI].mac != found[TEMP].mac

    @pytest.mark.parametrize("ends", [(CALI, IfName("new0")), (IfName("new0"), CALI)], ids=["name", "peer"])
    def test_a_name_that_is_taken(self, links: LinkKernel, ends: tuple[IfName, IfName]) -> None:
        links.create_veth(CALI, TEMP)
        with pytest.raises(AlreadyThere):
            links.create_veth(*ends)
        assert set(links.links()) == {"lo", CALI, TEMP}

    def test_a_name_of_sixteen_characters(self, links: LinkKernel) -> None:
        with pytest.raises(InvalidArgument):
            links.create_veth(IfName("c" * 16), TEMP)
        assert set(links.links()) == {"lo"}

    def test_an_end_runs_when_both_are_up(self, links: LinkKernel) -> None:
        links.create_veth(CALI, TEMP)
        for _ in range(2):  # done already is done
            links.set_up(CALI)
        wait_until(lambda: not links.links()[CALI].running)
        assert links.links()[CALI].up
        links.set_up(TEMP)
        wait_until(lambda: links.links()[CALI].running)
        for _ in range(2):
            links.set_down(TEMP)
        wait_until(lambda: not links.links()[CALI].running)
        assert links.links()[CALI].up
        assert (links.links()[TEMP].up, links.links()[TEMP].running) == (False, False)

    def test_the_mtu_is_set(self, pair: LinkKernel) -> None:
        pair.set_mtu(CALI, 1300)
        assert pair.links()[CALI].mtu == 1300
        with pytest.raises(InvalidArgument):
            pair.set_mtu(CALI, 7)
        assert pair.links()[CALI].mtu == 1300

    def test_addresses_come_and_go(self, pair: LinkKernel) -> None:
        for _ in range(2):
            pair.add_address(CALI, V4)
            pair.add_address(CALI, V6)
        wanted = [LinkAddress(device=CALI, address=address) for address in (V4, V6)]
        assert given(pair) == wanted
        for _ in range(2):
            pair.remove_address(CALI, V4)
        assert given(pair) == wanted[1:]

    def test_neighbours_come_and_go(self, pair: LinkKernel) -> None:
        for mac in (OTHER_MAC, MAC):
            pair.set_neighbour(CALI, NEAR4, mac)
            pair.set_neighbour(CALI, NEAR6, mac)
        permanent = [Neighbour(address=address, mac=MAC, permanent=True) for address in (NEAR4, NEAR6)]
        assert [entry for entry in pair.neighbours(CALI).values() if entry.permanent] == permanent
        assert not [entry for entry in pair.neighbours(TEMP).values() if entry.permanent]
        for _ in range(2):
            pair.remove_neighbour(CALI, NEAR4)
        assert NEAR4 not in pair.neighbours(CALI)
        assert NEAR6 in pair.neighbours(CALI)

    def test_deleting_one_end_deletes_both(self, pair: LinkKernel) -> None:
        pair.add_address(CALI, V4)
        pair.delete(TEMP)
        assert set(pair.links()) == {"lo"}
        assert given(pair) == []
        pair.delete(TEMP)

    def test_a_device_moves_into_a_namespace(self, host: Host, pair: LinkKernel) -> None:
        pair.move(TEMP, host.beside)
        assert set(pair.links()) == {"lo", CALI}
        assert host.links_beside() == {TEMP}
        pair.delete(CALI)
        assert host.links_beside() == set()

    def test_a_namespace_that_is_not_there(self, pair: LinkKernel) -> None:
        with pytest.raises(NoSuchEntry):
            pair.move(TEMP, "nosuch-namespace")
        assert TEMP in pair.links()

    @pytest.mark.parametrize("call", NAMED)
    def test_an_interface_that_is_not_there(self, links: LinkKernel, call: str) -> None:
        with pytest.raises(NoSuchDevice, match=NONE):
            NAMED[call](links, NONE)


TUNL0 = IfName("tunl0")


class IpipContract:
    """For kernels that have IPIP; the fixtures are those of `LinkContract`."""

    @pytest.fixture
    def host(self) -> Host:
        raise AssertionError("a test module gives this fixture")

    def test_the_device_is_made_once_and_is_as_others(self, host: Host) -> None:
        links = host.links
        with contextlib.suppress(AlreadyThere):  # loading the module makes it
            links.create_ipip(TUNL0)
        with pytest.raises(AlreadyThere):
            links.create_ipip(TUNL0)
        found = links.links()[TUNL0]
        assert (found.kind, found.up) == ("ipip", False)
        links.set_mtu(TUNL0, 1380)
        links.set_up(TUNL0)
        own = ipaddress.ip_interface("10.65.0.64/32")
        links.add_address(TUNL0, own)
        found = links.links()[TUNL0]
        assert (found.mtu, found.up) == (1380, True)
        assert LinkAddress(device=TUNL0, address=own) in links.addresses()
