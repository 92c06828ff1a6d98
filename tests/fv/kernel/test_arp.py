"""An answer that nobody waits for any more still ends the question."""

from ipaddress import IPv4Address

import pytest

from bed import Namespace, wait_until
from kernel.arp import ArpAnnouncer
from kernel.errors import DeviceDown, NoSuchDevice
from kernel.link import Link
from kernel.links import NetlinkLinks
from resources.names import GATEWAY, IfName

HERE = IPv4Address("10.0.0.9")
NEAR = IfName("near")


@pytest.fixture
def link(netns: Namespace) -> Link:
    """Our end; the other one, `far` with the address 10.0.0.9, is in the same namespace and asks for itself."""
    netns.ip(
        batch="link add near type veth peer name far\nlink set near up\nlink set far up\n"
        f"addr add {HERE}/32 dev far\nroute add {GATEWAY}/32 dev far\n"
    )
    # a question without an answer takes three seconds to be given up, and as long the packet that asks waits
    netns.run("echo 60000 >/proc/sys/net/ipv4/neigh/far/retrans_time_ms")
    with netns.entered():
        return NetlinkLinks().links()[NEAR]


def state_of(netns: Namespace) -> str:
    words = netns.ip("neigh", "show", str(GATEWAY), "dev", "far").stdout.split()
    return words[-1] if words else ""


def test_a_neighbour_that_asked_in_vain_knows_now(netns: Namespace, link: Link) -> None:
    netns.run(f"timeout 1 busybox ping -c1 -W1 {GATEWAY}", check=False)
    assert state_of(netns) == "INCOMPLETE"
    with netns.entered():
        ArpAnnouncer().announce(link, GATEWAY, HERE)
    wait_until("the neighbour to know", lambda: state_of(netns) in ("STALE", "REACHABLE", "DELAY"), timeout=2)
    assert link.mac is not None
    assert link.mac in netns.ip("neigh", "show", str(GATEWAY), "dev", "far").stdout


def test_an_interface_that_is_down_or_gone_is_told(netns: Namespace, link: Link) -> None:
    netns.ip("link", "set", "near", "down")
    with netns.entered():
        with pytest.raises(DeviceDown):
            ArpAnnouncer().announce(link, GATEWAY, HERE)
        NetlinkLinks().delete(NEAR)
        with pytest.raises(NoSuchDevice):
            ArpAnnouncer().announce(link, GATEWAY, HERE)
