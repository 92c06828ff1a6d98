"""What is told of neighbours and forwarding entries. A test module for one kernel derives from `NeighbourContract` and
gives the fixture `host`: that of `fakes.vxlan_contract` with V4, V6 and a third device, all up; two are listened to.
"""

import dataclasses
import ipaddress
from typing import Protocol

import pytest

from fakes.link_contract import wait_until
from fakes.vxlan_contract import FAR, FAR6, FURTHER, MAC, OTHER_MAC, UPLINK, V4, V6, Host
from kernel.link import ForwardingEntry, Neighbour
from kernel.monitor import NeighbourChanged
from kernel.vxlan import VxlanDevice
from resources.names import IfName

DEAF = dataclasses.replace(V4, name=IfName("vxlan9"), mac="66:00:00:00:00:03", vni=9)
"""One that nobody listens to."""
NEAR = {V4.name: ipaddress.ip_address("10.65.1.1"), V6.name: ipaddress.ip_address("fd65::1")}
REMOTES = {V4.name: (FAR, FURTHER), V6.name: (FAR6, ipaddress.ip_address("fd08::9"))}


class ToldHost(Host, Protocol):
    """A host on which somebody listens to V4 and V6."""

    @property
    def told(self) -> list[NeighbourChanged]:
        """All that was told so far, in the kernel's order."""


@pytest.mark.parametrize("device", [V4, V6], ids=["v4", "v6"])
class NeighbourContract:
    @pytest.fixture
    def host(self) -> ToldHost:
        raise AssertionError("a test module gives this fixture")

    def test_a_neighbour_that_comes_changes_and_goes_is_told(self, host: ToldHost, device: VxlanDevice) -> None:
        near = NEAR[device.name]
        for mac in (MAC, OTHER_MAC):
            host.links.set_neighbour(device.name, near, mac)
            entry = Neighbour(address=near, mac=mac, permanent=True)
            is_last(host, NeighbourChanged(device.name, entry, gone=False))
        host.links.remove_neighbour(device.name, near)
        wait_until(lambda: host.told[-1].gone)
        assert isinstance(host.told[-1].entry, Neighbour)
        assert host.told[-1].entry.address == near

    def test_an_entry_that_comes_changes_and_goes_is_told(self, host: ToldHost, device: VxlanDevice) -> None:
        for remote in REMOTES[device.name]:
            host.vxlan.set_entry(device.name, MAC, remote)
            entry = ForwardingEntry(mac=MAC, remote=remote)
            is_last(host, NeighbourChanged(device.name, entry, gone=False))
        host.lead_astray(device.name, MAC)
        entry = ForwardingEntry(mac=MAC, remote=None)
        is_last(host, NeighbourChanged(device.name, entry, gone=False))
        host.vxlan.remove_entry(device.name, MAC)
        is_last(host, NeighbourChanged(device.name, entry, gone=True))

    def test_what_is_there_already_may_be_told_and_is_not_told_otherwise(
        self, host: ToldHost, device: VxlanDevice
    ) -> None:
        for _ in range(3):
            host.vxlan.set_entry(device.name, MAC, REMOTES[device.name][0])
            host.links.set_neighbour(device.name, NEAR[device.name], MAC)
        told = {NeighbourChanged(device.name, ForwardingEntry(mac=MAC, remote=REMOTES[device.name][0]), gone=False)}
        told.add(NeighbourChanged(device.name, Neighbour(address=NEAR[device.name], mac=MAC, permanent=True), False))
        wait_until(lambda: set(host.told) == told)

    def test_other_interfaces_are_not_told_of(self, host: ToldHost, device: VxlanDevice) -> None:
        for name in (UPLINK, DEAF.name):
            host.links.set_neighbour(name, NEAR[device.name], MAC)
            host.links.remove_neighbour(name, NEAR[device.name])
        host.vxlan.set_entry(DEAF.name, MAC, FAR)
        host.vxlan.set_entry(device.name, OTHER_MAC, REMOTES[device.name][0])
        entry = ForwardingEntry(mac=OTHER_MAC, remote=REMOTES[device.name][0])
        is_last(host, NeighbourChanged(device.name, entry, gone=False))
        assert len(host.told) == 1


def is_last(host: ToldHost, event: NeighbourChanged) -> None:
    wait_until(lambda: host.told[-1:] == [event])
