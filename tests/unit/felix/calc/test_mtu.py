"""How large packets may be, by the host's links and settings (reference felix.md 2.7, acceptance S-65)."""

import re

import pytest

from felix.calc.mtu import DEFAULT_PATTERN, Mtus, host_mtu, mtus, workload_mtu
from kernel.link import Link
from resources.names import IfName


def links(**found: int) -> dict[IfName, Link]:
    return {
        IfName(name): Link(index=index, name=IfName(name), up=True, running=True, mtu=mtu)
        for index, (name, mtu) in enumerate(found.items(), 1)
    }


@pytest.mark.parametrize(
    ("found", "carriers", "mtu"),
    [
        (links(lo=65536, eth0=1500), (), 1500),
        (links(eth0=9000, eth1=1450), (), 1450),
        (links(enp3s0=9000, docker0=1500, cali123=1480, tunl0=1480), (), 9000),
        (links(bond0=9000, docker0=1500), ("bond0",), 9000),
        (links(bond0=1450, eth0=1500), ("bond0",), 1450),
        (links(lo=65536, docker0=1500), (), None),
        (links(eth0=0, eth1=1500), (), 1500),
        ({}, ("eth0",), None),
    ],
)
def test_the_least_link_that_leads_to_other_hosts_counts(
    found: dict[IfName, Link], carriers: tuple[str, ...], mtu: int | None
) -> None:
    assert host_mtu(found, DEFAULT_PATTERN, tuple(map(IfName, carriers))) == mtu


def test_a_link_that_is_off_does_not_count() -> None:
    found = links(eth0=1500, eth1=1400)
    off = Link(index=9, name=IfName("eth1"), up=False, running=False, mtu=1400)
    assert host_mtu(found | {off.name: off}, DEFAULT_PATTERN) == 1500


def test_the_pattern_is_the_operators() -> None:
    assert host_mtu(links(eth0=1500, vlan7=1400), re.compile("vlan.*")) == 1400


@pytest.mark.parametrize(
    ("link", "ipip", "vxlan", "vxlan_v6"),
    [(1450, 1430, 1400, 1380), (1500, 1480, 1450, 1430), (9000, 8980, 8950, 8930)],
)
def test_a_tunnel_takes_its_headers_off(link: int, ipip: int, vxlan: int, vxlan_v6: int) -> None:
    assert mtus(link) == Mtus(host=link, ipip=ipip, vxlan=vxlan, vxlan_v6=vxlan_v6)


def test_settings_are_stronger_and_an_unknown_link_is_taken_for_ethernet() -> None:
    assert mtus(9000, ipip=1380, vxlan=1300, vxlan_v6=1290) == Mtus(host=9000, ipip=1380, vxlan=1300, vxlan_v6=1290)
    assert mtus(None) == Mtus() == mtus(1500)


@pytest.mark.parametrize(
    ("ipip", "vxlan", "vxlan_v6", "mtu"),
    [(False, False, False, 1500), (True, False, False, 1480), (True, True, False, 1450), (True, True, True, 1430)],
)
def test_workloads_have_room_for_every_tunnel_in_use(ipip: bool, vxlan: bool, vxlan_v6: bool, mtu: int) -> None:
    assert workload_mtu(mtus(1500), ipip=ipip, vxlan=vxlan, vxlan_v6=vxlan_v6) == mtu
