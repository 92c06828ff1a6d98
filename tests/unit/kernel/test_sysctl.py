"""The settings in memory keep the contract of the kernel's; errors of the proc file system get their names."""

from pathlib import Path

import pytest

from fakes.kernel import FakeKernel
from fakes.sysctl_contract import PROXY_ARP, SysctlContract
from fakes.sysctls import FakeSysctls
from kernel.errors import InvalidArgument, NoSuchEntry, ReadOnly
from kernel.sysctl import ProcSysctls, Sysctls
from resources.names import IfName


@pytest.fixture
def fake() -> FakeSysctls:
    kernel = FakeKernel()
    kernel.links.add(IfName("cali1.x"))
    return kernel.sysctls


class TestFakeSysctls(SysctlContract):
    @pytest.fixture
    def sysctls(self, fake: FakeSysctls) -> Sysctls:
        return fake


def test_a_write_can_be_refused(fake: FakeSysctls) -> None:
    fake.refuse[PROXY_ARP] = ReadOnly("mounted read-only")
    with pytest.raises(ReadOnly):
        fake.write(PROXY_ARP, "1")
    assert fake.writes == []


def test_an_operator_changes_a_setting(fake: FakeSysctls) -> None:
    fake.put(PROXY_ARP, "1")
    assert fake.read(PROXY_ARP) == "1"
    assert fake.writes == []


def test_a_file_is_never_made_by_a_write(tmp_path: Path) -> None:
    with pytest.raises(NoSuchEntry):
        ProcSysctls(tmp_path).write("net/nosuch", "1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    with pytest.raises((NoSuchEntry, InvalidArgument)):
        ProcSysctls(tmp_path).read("net/..")
