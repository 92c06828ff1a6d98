"""What every VxlanKernel must do. A test module for one implementation derives from `VxlanContract` and gives the
fixture `host`: a host with `lo`, and an uplink `up0` that is up and has UPLINK4 and UPLINK6.
"""

import dataclasses
import ipaddress
from collections.abc import Callable
from typing import Protocol

import pytest

from kernel.errors import AlreadyThere, NoSuchDevice
from kernel.links import LinkKernel
from kernel.vxlan import VxlanDevice, VxlanKernel
from resources.names import IfName

UPLINK = IfName("up0")
UPLINK4, UPLINK6 = ipaddress.ip_interface("10.9.0.1/24"), ipaddress.ip_interface("fd09::1/64")
V4, V6 = (
    VxlanDevice(
        name=IfName(name), mac=mac, vni=4096, port=4789, local=ipaddress.ip_address(local), parent=UPLINK
    )
    for name, mac, local in (
        ("vxlan.calico", "66:00:00:00:00:01", "10.9.0.1"),
        ("vxlan-v6.calico", "66:00:00:00:00:02", "fd09::1"),
    )
)  # fmt: skip
MAC, OTHER_MAC = "66:00:00:00:00:09", "66:00:00:00:00:0a"
FAR, FURTHER, FAR6 = (ipaddress.ip_address(text) for text in ("10.9.0.9", "10.8.0.9", "fd09::9"))
NONE = IfName("nope0")
NO_HOST = "port 9999 vni 77"
"""What makes a forwarding entry, as bridge(8) writes it, lead to no host."""
NAMED: dict[str, Callable[[VxlanKernel], object]] = {
    "entries": lambda vxlan: vxlan.entries(NONE),
    "set_entry": lambda vxlan: vxlan.set_entry(NONE, MAC, FAR),
    "remove_entry": lambda vxlan: vxlan.remove_entry(NONE, MAC),
    "create": lambda vxlan: vxlan.create(dataclasses.replace(V4, parent=NONE), 1450),
}


class Host(Protocol):
    """A host and the two ports."""

    @property
    def links(self) -> LinkKernel: ...
    @property
    def vxlan(self) -> VxlanKernel: ...
    def lead_astray(self, name: IfName, mac: str) -> None:
        """Write a forwarding entry by hand that leads to no host."""


class VxlanContract:
    @pytest.fixture
    def host(self) -> Host:
        raise AssertionError("a test module gives this fixture")

    @pytest.fixture
    def vxlan(self, host: Host) -> VxlanKernel:
        return host.vxlan

    @pytest.mark.parametrize("device", [V4, V6], ids=["v4", "v6"])
    def test_a_device_is_made_as_asked_and_down(self, host: Host, device: VxlanDevice) -> None:
        assert host.vxlan.read(device.name) is None
        host.vxlan.create(device, 1400)
        assert host.vxlan.read(device.name) == device
        link = host.links.links()[device.name]
        assert (link.kind, link.mtu, link.mac, link.up) == ("vxlan", 1400, device.mac, False)

    def test_a_device_without_a_parent(self, vxlan: VxlanKernel) -> None:
        alone = dataclasses.replace(V4, parent=None)
        vxlan.create(alone, 1450)
        assert vxlan.read(V4.name) == alone

    def test_both_families_have_a_device_of_the_same_number(self, vxlan: VxlanKernel) -> None:
        for device in (V4, V6):
            vxlan.create(device, 1400)
        assert [vxlan.read(device.name) for device in (V4, V6)] == [V4, V6]

    def test_a_device_goes(self, host: Host) -> None:
        host.vxlan.create(V4, 1450)
        for _ in range(2):
            host.vxlan.delete(V4.name)
        assert host.vxlan.read(V4.name) is None
        assert V4.name not in host.links.links()

    def test_a_device_goes_with_its_parent(self, host: Host) -> None:
        host.vxlan.create(V4, 1450)
        host.links.delete(UPLINK)
        assert host.vxlan.read(V4.name) is None
        assert set(host.links.links()) == {"lo"}

    def test_a_name_and_a_number_that_are_taken(self, host: Host) -> None:
        host.vxlan.create(V4, 1450)
        for taken in (V4, dataclasses.replace(V4, name=IfName("other0"))):
            with pytest.raises(AlreadyThere):
                host.vxlan.create(taken, 1450)
        assert set(host.links.links()) >= {"lo", UPLINK, V4.name}
        assert "other0" not in host.links.links()

    def test_an_interface_of_another_kind_is_told_and_stays(self, host: Host) -> None:
        for act in (host.vxlan.read, host.vxlan.delete):
            with pytest.raises(AlreadyThere, match=UPLINK):
                act(UPLINK)
        assert UPLINK in host.links.links()

    def test_entries_come_change_and_go(self, vxlan: VxlanKernel) -> None:
        vxlan.create(V4, 1450)
        assert vxlan.entries(V4.name) == {}
        for remote in (FAR, FURTHER, FURTHER):
            vxlan.set_entry(V4.name, MAC, remote)
        vxlan.set_entry(V4.name, OTHER_MAC, FAR)
        assert vxlan.entries(V4.name) == {MAC: FURTHER, OTHER_MAC: FAR}
        for _ in range(2):
            vxlan.remove_entry(V4.name, MAC)
        assert vxlan.entries(V4.name) == {OTHER_MAC: FAR}

    def test_entries_are_of_their_own_device(self, vxlan: VxlanKernel) -> None:
        for device in (V4, V6):
            vxlan.create(device, 1400)
        vxlan.set_entry(V4.name, MAC, FAR)
        vxlan.set_entry(V6.name, MAC, FAR6)
        assert (vxlan.entries(V4.name), vxlan.entries(V6.name)) == ({MAC: FAR}, {MAC: FAR6})

    def test_entries_go_with_the_device(self, vxlan: VxlanKernel) -> None:
        vxlan.create(V4, 1450)
        vxlan.set_entry(V4.name, MAC, FAR)
        vxlan.delete(V4.name)
        vxlan.create(V4, 1450)
        assert vxlan.entries(V4.name) == {}

    @pytest.mark.parametrize("device", [V4, V6], ids=["v4", "v6"])
    def test_an_entry_that_leads_to_no_host_is_seen_removed_and_written_anew(
        self, host: Host, vxlan: VxlanKernel, device: VxlanDevice
    ) -> None:
        vxlan.create(device, 1400)
        host.lead_astray(device.name, MAC)
        assert vxlan.entries(device.name) == {MAC: None}
        vxlan.remove_entry(device.name, MAC)
        assert vxlan.entries(device.name) == {}
        vxlan.set_entry(device.name, MAC, FAR if device == V4 else FAR6)
        assert vxlan.entries(device.name) == {MAC: FAR if device == V4 else FAR6}

    @pytest.mark.parametrize("call", NAMED)
    def test_an_interface_that_is_not_there(self, vxlan: VxlanKernel, call: str) -> None:
        with pytest.raises(NoSuchDevice, match=NONE):
            NAMED[call](vxlan)
