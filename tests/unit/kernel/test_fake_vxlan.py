"""The VXLAN devices in memory keep the contract of the kernel's."""

import pytest

from fakes.kernel import FakeKernel
from fakes.links import FakeLinks
from fakes.neighbour_contract import DEAF, NeighbourContract, ToldHost
from fakes.vxlan import FakeVxlan
from fakes.vxlan_contract import FAR, MAC, UPLINK, UPLINK4, UPLINK6, V4, V6, Host, VxlanContract
from kernel.errors import InvalidArgument, NotSupported
from kernel.link import ForwardingEntry, Neighbour
from kernel.monitor import NeighbourChanged
from resources.names import IfName


class FakeHost:
    def __init__(self) -> None:
        kernel = FakeKernel()
        kernel.links.add(UPLINK, UPLINK4, UPLINK6)
        self.links: FakeLinks = kernel.links
        self.vxlan: FakeVxlan = kernel.vxlan
        self.told: list[NeighbourChanged] = []

    def lead_astray(self, name: IfName, mac: str) -> None:
        self.vxlan.lead_astray(name, mac)

    def hear(self, device: IfName, entry: Neighbour | ForwardingEntry, gone: bool) -> None:
        if device in (V4.name, V6.name):
            self.told.append(NeighbourChanged(device, entry, gone))


class TestFakeVxlan(VxlanContract):
    @pytest.fixture
    def host(self) -> Host:
        return FakeHost()


class TestFakeNeighbours(NeighbourContract):
    @pytest.fixture
    def host(self) -> ToldHost:
        host = FakeHost()
        for device in (V4, V6, DEAF):
            host.vxlan.create(device, 1400)
        host.links.on_neighbour.append(host.hear)
        return host


def test_a_kernel_without_it() -> None:
    host = FakeHost()
    host.vxlan.missing = NotSupported("cannot make the VXLAN device")
    with pytest.raises(NotSupported):
        host.vxlan.create(V4, 1450)
    assert V4.name not in host.links.links()


def test_a_refused_device_cannot_be_made_changed_or_deleted() -> None:
    host = FakeHost()
    host.vxlan.create(V4, 1450)
    host.vxlan.refuse.add(V4.name)
    with pytest.raises(InvalidArgument):
        host.vxlan.set_entry(V4.name, MAC, FAR)
    with pytest.raises(InvalidArgument):
        host.vxlan.delete(V4.name)
