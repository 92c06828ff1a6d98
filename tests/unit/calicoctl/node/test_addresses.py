import ipaddress

import pytest

from calicoctl.node.addresses import HostInterface, NoAddress, choose
from resources.errors import ConfigurationError
from resources.names import IPAddress

HOST = (
    HostInterface("lo", (ipaddress.ip_interface("127.0.0.1/8"),)),
    HostInterface("docker0", (ipaddress.ip_interface("172.17.0.1/16"),)),
    HostInterface("eth0", (ipaddress.ip_interface("192.0.2.10/24"), ipaddress.ip_interface("fe80::1/64"))),
    HostInterface("eth1", (ipaddress.ip_interface("198.51.100.7/26"), ipaddress.ip_interface("2001:db8::7/64"))),
)


def towards(destination: IPAddress) -> IPAddress:
    return ipaddress.ip_address("198.51.100.7")


@pytest.mark.parametrize(
    ("setting", "method", "version", "expected"),
    [
        ("", "first-found", 4, "192.0.2.10/24"),
        ("autodetect", "", 4, "192.0.2.10/24"),
        ("", "interface=eth1", 4, "198.51.100.7/26"),
        ("", "interface=wlan.*,eth.*", 4, "192.0.2.10/24"),
        ("", "skip-interface=eth0", 4, "198.51.100.7/26"),
        ("", "can-reach=203.0.113.1", 4, "198.51.100.7/26"),
        ("", "first-found", 6, "2001:db8::7/64"),
        ("192.0.2.10", "", 4, "192.0.2.10/24"),
        ("192.0.2.10/30", "", 4, "192.0.2.10/30"),
        ("203.0.113.9", "", 4, "203.0.113.9/32"),
    ],
)
def test_the_address_is_found(setting: str, method: str, version: int, expected: str) -> None:
    assert str(choose(setting, method, version, HOST, towards)) == expected


@pytest.mark.parametrize(
    ("setting", "method", "message"),
    [
        ("10.0.0.256", "", "invalid IP address specified: 10.0.0.256"),
        ("2001:db8::7", "", "--ip is wrong IP version"),
        ("", "nearest", "unknown autodetection method 'nearest'"),
        ("", "can-reach=example", "can-reach=example: not an address"),
        ("", "interface=(", "no regular expression"),
    ],
)
def test_a_setting_that_cannot_be_understood_is_refused(setting: str, method: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(setting, method, 4, HOST, towards)


def test_an_address_that_will_go_is_found_by_no_method_but_may_be_given() -> None:
    privacy, own = ipaddress.ip_interface("2001:db8::bad/64"), ipaddress.ip_interface("2001:db8::7/64")
    host = (HostInterface("eth0", (privacy, own), frozenset({privacy})),)
    for method in ("first-found", "interface=eth0", "skip-interface=eth1", "can-reach=2001:db8:1::1"):
        assert choose("autodetect", method, 6, host, lambda _: privacy.ip) == own
    assert choose("2001:db8::bad", "", 6, host, lambda _: privacy.ip) == privacy
    with pytest.raises(NoAddress):
        choose("autodetect", "", 6, (HostInterface("eth0", (privacy,), frozenset({privacy})),), lambda _: privacy.ip)


def test_a_host_without_an_address_is_told_what_to_set() -> None:
    with pytest.raises(NoAddress) as caught:
        choose("", "first-found", 4, HOST[:2], towards)
    assert "IP=" in (caught.value.hint or "")
