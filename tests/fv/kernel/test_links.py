"""The kernel's own interfaces keep the contract."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bed import Namespace
from bed.guest import run_in_guest
from fakes.link_contract import CALI, MAC, TEMP, Host, IpipContract, LinkContract, wait_until
from kernel.link import link_local_of
from kernel.links import NetlinkLinks, supports
from resources.names import IfName


@dataclass
class RealHost:
    links: NetlinkLinks
    other: Namespace

    @property
    def beside(self) -> str:
        return self.other.netns

    def links_beside(self) -> set[str]:
        found = json.loads(self.other.ip("-j", "link").stdout)
        return {link["ifname"] for link in found} - {"lo"}


@pytest.fixture
def real(netns: Namespace) -> Iterator[RealHost]:
    with Namespace(f"{netns.netns}2") as other, netns.entered():
        links = NetlinkLinks()
        yield RealHost(links, other)
        links.close()


class TestNetlinkLinks(LinkContract):
    @pytest.fixture
    def host(self, real: RealHost) -> Host:
        return real


@pytest.mark.ipip
class TestNetlinkIpip(IpipContract):
    @pytest.fixture
    def host(self, real: RealHost) -> Host:
        return real


WITHOUT_IPIP = """
import pathlib, time
from felix.dataplane.ipip import IpipEffector
from kernel.errors import NotSupported
from kernel.links import NetlinkLinks
pathlib.Path("/proc/sys/kernel/modprobe").write_text("/bin/false")  # from here on the kernel has what it has
links = NetlinkLinks()
try:
    links.create_ipip("tunl0")
except NotSupported as error:
    print("NotSupported", "tunl0" in links.links())
felix = IpipEffector(links, time.monotonic)
felix.want(True, None)
felix.apply(1480)
print(felix.trouble)
"""


def test_a_kernel_without_ipip_says_so() -> None:
    """In a guest that may not load the module, so whatever this machine has."""
    done = run_in_guest([sys.executable, "/run/guest/job.py"], files={"job.py": WITHOUT_IPIP})
    first, trouble = done.stdout.splitlines()
    assert first == "NotSupported False"
    assert trouble.startswith("this kernel has no IPIP (cannot make the IPIP device tunl0: ")
    assert "modprobe ipip" in trouble


def test_iproute2_shows_what_was_made(netns: Namespace, real: RealHost) -> None:
    real.links.create_veth(CALI, TEMP, mac=MAC, mtu=1410)
    (link,) = json.loads(netns.ip("-j", "-d", "link", "show", "dev", CALI).stdout)
    seen = (link["address"], link["mtu"], link["linkinfo"]["info_kind"], link["ifindex"])
    assert seen == (MAC, 1410, "veth", real.links.links()[CALI].index)


def test_a_namespace_may_be_given_by_its_file(real: RealHost) -> None:
    real.links.create_veth(CALI, TEMP)
    real.links.move(TEMP, str(real.other.path))
    assert real.links_beside() == {TEMP}


def test_the_link_local_address_of_a_mac_is_the_one_that_the_kernel_makes(netns: Namespace, real: RealHost) -> None:
    netns.run("busybox sysctl -w net.ipv6.conf.default.accept_dad=0")
    real.links.create_veth(CALI, TEMP, mac=MAC)
    real.links.set_up(CALI)
    real.links.set_up(TEMP)

    def made() -> list[str]:
        return [str(found.address) for found in real.links.addresses() if found.device == CALI]

    wait_until(lambda: made() == [f"{link_local_of(MAC)}/64"])


def test_addresses_that_will_go_are_told_apart(netns: Namespace, real: RealHost) -> None:
    real.links.create_veth(CALI, TEMP)
    for text, *how in (
        ("2001:db8::1/64",),
        ("2001:db8::2/64", "preferred_lft", "0"),
        ("2001:db8::3/64", "valid_lft", "1000", "preferred_lft", "1000"),
        ("192.0.2.1/24",),
        ("192.0.2.2/24",),  # a second one of a net has the bit that means privacy in IPv6
    ):
        netns.ip("addr", "add", text, "dev", CALI, *how)
    assert [str(found.address) for found in real.links.fleeting_addresses()] == ["2001:db8::2/64"]


def test_devices_of_other_kinds_are_listed(netns: Namespace, real: RealHost) -> None:
    netns.ip("link", "add", "br0", "type", "bridge")
    netns.ip("link", "add", "vx0", "type", "vxlan", "id", "1", "dstport", "4789")
    netns.ip("link", "add", "port0", "type", "veth", "peer", "name", "port1")
    netns.ip("link", "set", "port0", "master", "br0")
    assert {name: link.kind for name, link in real.links.links().items()} == {
        "lo": None,
        "br0": "bridge",
        "vx0": "vxlan",
        "port0": "veth",
        "port1": "veth",
    }


def test_hundreds_of_interfaces_come_in_one_list(netns: Namespace, real: RealHost) -> None:
    netns.ip(batch="\n".join(f"link add a{i} type veth peer name b{i}" for i in range(150)))
    assert len(real.links.links()) == 301
    assert IfName("b149") in real.links.links()


@pytest.mark.parametrize("kind", ["veth", "vxlan"])
def test_a_kind_this_kernel_has(kind: str) -> None:
    assert supports(kind)
