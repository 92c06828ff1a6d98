"""The VXLAN devices in memory keep the contract of the kernel's."""

import pytest

from fakes.kernel import FakeKernel
from fakes.vxlan_contract import FAR, MAC, UPLINK, UPLINK4, UPLINK6, V4, Host, VxlanContract
from kernel.errors import InvalidArgument, NotSupported


def fake_host() -> FakeKernel:
    kernel = FakeKernel()
    kernel.links.add(UPLINK, UPLINK4, UPLINK6)
    return kernel


class TestFakeVxlan(VxlanContract):
    @pytest.fixture
    def host(self) -> Host:
        return fake_host()


def test_a_kernel_without_it() -> None:
    host = fake_host()
    host.vxlan.missing = NotSupported("cannot make the VXLAN device")
    with pytest.raises(NotSupported):
        host.vxlan.create(V4, 1450)
    assert V4.name not in host.links.links()


def test_a_refused_device_cannot_be_made_changed_or_deleted() -> None:
    host = fake_host()
    host.vxlan.create(V4, 1450)
    host.vxlan.refuse.add(V4.name)
    with pytest.raises(InvalidArgument):
        host.vxlan.set_entry(V4.name, MAC, FAR)
    with pytest.raises(InvalidArgument):
        host.vxlan.delete(V4.name)
