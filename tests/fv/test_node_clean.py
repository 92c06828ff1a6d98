"""What `calicoctl node clean` does to the IPIP device, which is the kernel's and may have another user."""

import ipaddress
from contextlib import suppress

import pytest

from bed import Namespace
from calicoctl.node.clean import TUNNEL, leave_tunnel
from kernel.errors import AlreadyThere
from kernel.links import NetlinkLinks

pytestmark = pytest.mark.ipip
OURS, THEIRS = ipaddress.ip_interface("10.65.0.64/32"), ipaddress.ip_interface("203.0.113.9/30")


@pytest.mark.parametrize(("there", "left", "is_up"), [([OURS], [], False), ([OURS, THEIRS], [THEIRS], True)])
def test_our_address_goes_and_the_device_is_off_if_it_was_ours_alone(
    netns: Namespace,
    there: list[ipaddress.IPv4Interface],
    left: list[ipaddress.IPv4Interface],
    is_up: bool,
) -> None:
    with netns.entered():
        assert leave_tunnel() == (0, {}), "nothing of ours is there"
        links = NetlinkLinks()
        with suppress(AlreadyThere):
            links.create_ipip(TUNNEL)
        links.set_up(TUNNEL)
        for address in there:
            links.add_address(TUNNEL, address)
        assert leave_tunnel() == (1, {})
        assert [found.address for found in links.addresses() if found.device == TUNNEL] == left
        assert links.links()[TUNNEL].up is is_up
        links.close()
