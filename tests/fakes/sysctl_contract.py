"""What every Sysctls must do. A test module for one implementation derives from `SysctlContract` and gives the fixture
`sysctls` of a host with an interface `cali1.x`.
"""

import pytest

from kernel.errors import InvalidArgument, NoSuchEntry
from kernel.sysctl import Sysctls

PROXY_ARP = "net/ipv4/conf/cali1.x/proxy_arp"


class SysctlContract:
    @pytest.fixture
    def sysctls(self) -> Sysctls:
        raise AssertionError("a test module gives this fixture")

    @pytest.mark.parametrize("path", [PROXY_ARP, "net/ipv4/ip_forward", "net/ipv6/conf/cali1.x/proxy_ndp"])
    def test_a_setting_is_read_as_it_was_written(self, sysctls: Sysctls, path: str) -> None:
        for value in ("1", "0", "1"):
            sysctls.write(path, value)
            assert sysctls.read(path) == value

    def test_a_setting_of_neighbours(self, sysctls: Sysctls) -> None:
        sysctls.write("net/ipv4/neigh/cali1.x/proxy_delay", "0")
        assert sysctls.read("net/ipv4/neigh/cali1.x/proxy_delay") == "0"

    def test_one_interface_is_not_another(self, sysctls: Sysctls) -> None:
        sysctls.write(PROXY_ARP, "1")
        assert sysctls.read("net/ipv4/conf/lo/proxy_arp") == "0"

    @pytest.mark.parametrize("path", ["net/ipv4/conf/nope0/proxy_arp", "net/ipv4/conf/cali1.x/nosuch", "nosuch"])
    def test_a_setting_that_is_not_there(self, sysctls: Sysctls, path: str) -> None:
        with pytest.raises(NoSuchEntry, match=path):
            sysctls.read(path)
        with pytest.raises(NoSuchEntry, match=path):
            sysctls.write(path, "1")

    def test_a_value_the_kernel_does_not_take(self, sysctls: Sysctls) -> None:
        with pytest.raises(InvalidArgument):
            sysctls.write(PROXY_ARP, "many")
        assert sysctls.read(PROXY_ARP) == "0"

    @pytest.mark.parametrize("path", ["/etc/passwd", "net/../../etc/passwd", "net//ipv4", ""])
    def test_a_path_that_leads_elsewhere(self, sysctls: Sysctls, path: str) -> None:
        with pytest.raises(InvalidArgument):
            sysctls.read(path)
        with pytest.raises(InvalidArgument):
            sysctls.write(path, "1")
