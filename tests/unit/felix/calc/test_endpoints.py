"""What a workload's record says: its members of sets, and whether it can be served."""

import pytest

from fakes.felix_records import workload
from felix.calc.endpoints import DeclaredPort, EndpointUnusable, read_local, read_member


def test_addresses_and_named_ports_of_each_family_once() -> None:
    ports = [("web", "TCP", 65535), ("", "TCP", 81), ("dns", "17", 1), ("sig", "sctp", 7)]
    addresses = ("10.0.0.1/32", "fd00::1/128", "10.0.0.1/32", "10.0.0.2")
    _, endpoint = workload("a", *addresses, ports=ports, profiles=["p", "p"])
    member = read_member(endpoint)
    assert (member.ipv4, member.ipv6) == (("10.0.0.1", "10.0.0.2"), ("fd00::1",))
    assert member.ports == (
        DeclaredPort("tcp", "web", 65535), DeclaredPort("udp", "dns", 1), DeclaredPort("sctp", "sig", 7)
    )  # fmt: skip
    assert member.profiles == ("p",)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.0/31", "10.0.0.0/31 is more than one address"),
        ("fd00::/127", "fd00::/127 is more than one address"),
        ("::10.0.0.1", "is an IPv4 address in the form of an IPv6 one"),
        ("::ffff:10.0.0.1/128", "is an IPv4-mapped IPv6 address"),
    ],
)
def test_an_address_that_is_none_makes_the_endpoint_unusable(address: str, why: str) -> None:
    key, endpoint = workload("a", "10.0.0.1/32", address)
    with pytest.raises((EndpointUnusable, ValueError), match=why):
        read_member(endpoint)
    with pytest.raises((EndpointUnusable, ValueError), match=why):
        read_local(key, endpoint)


@pytest.mark.parametrize(("protocol", "number"), [("ICMP", 1), ("TCP", 0), ("TCP", 65536), ("1", 80)])
def test_a_port_that_is_none_makes_it_so_too(protocol: str, number: int) -> None:
    _, endpoint = workload("a", "10.0.0.1/32", ports=[("web", protocol, number)])
    with pytest.raises(EndpointUnusable, match="port 'web' with protocol"):
        read_member(endpoint)


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"interface": "eth 0"}, "interface name"), ({"interface": ""}, "interface name"), ({"mac": "ee:ee"}, "MAC")],
)
def test_one_that_has_no_interface_or_mac_cannot_be_served_here(fields: dict[str, str], why: str) -> None:
    key, endpoint = workload("a", "10.0.0.1/32", **fields)  # type: ignore[arg-type]
    with pytest.raises(EndpointUnusable, match=why):
        read_local(key, endpoint)
    assert read_member(endpoint).ipv4 == ("10.0.0.1",)


def test_a_mac_is_read_in_either_form_and_may_be_missing() -> None:
    found = [read_local(*workload("a", "10.0.0.1/32", mac=mac)).mac for mac in ("EE-EE-ee-ee-ee-01", "")]
    assert found == ["ee:ee:ee:ee:ee:01", None]
