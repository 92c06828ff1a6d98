"""What `calicoctl node clean` does to VXLAN devices."""

from bed import Namespace
from calicoctl.node.clean import remove_vxlan
from kernel.links import NetlinkLinks


def test_vxlan_devices_go_and_what_only_has_their_name_stays(netns: Namespace) -> None:
    netns.ip(
        batch="link add vxlan.calico type vxlan id 4096 dstport 4789\n"
        "link add vxlan-v6.calico type bridge\nlink add vxlan9 type vxlan id 9 dstport 4789\n"
    )
    with netns.entered():
        assert remove_vxlan() == (1, {})
        assert remove_vxlan() == (0, {})
        assert set(NetlinkLinks().links()) == {"lo", "vxlan-v6.calico", "vxlan9"}
