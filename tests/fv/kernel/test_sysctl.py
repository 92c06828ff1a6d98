"""The kernel's own settings keep the contract, in the namespace of the thread."""

from collections.abc import Iterator

import pytest

from bed import Namespace
from fakes.sysctl_contract import PROXY_ARP, SysctlContract
from kernel.sysctl import ProcSysctls, Sysctls


class TestProcSysctls(SysctlContract):
    @pytest.fixture
    def sysctls(self, netns: Namespace) -> Iterator[Sysctls]:
        netns.ip("link", "add", "cali1.x", "type", "veth", "peer", "name", "far")
        with netns.entered():
            yield ProcSysctls()


def test_the_namespace_is_that_of_the_thread(netns: Namespace) -> None:
    netns.ip("link", "add", "cali1.x", "type", "veth", "peer", "name", "far")
    with netns.entered():
        ProcSysctls().write(PROXY_ARP, "1")
    assert netns.run("cat /proc/sys/net/ipv4/conf/cali1.x/proxy_arp").stdout == "1\n"
