"""The kernel's own VXLAN devices keep the contract."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bed import Namespace
from fakes.vxlan_contract import FAR, FAR6, MAC, NO_HOST, UPLINK, UPLINK4, UPLINK6, V4, Host, VxlanContract
from kernel.errors import InvalidArgument
from kernel.links import NetlinkLinks
from kernel.vxlan import NetlinkVxlan
from resources.names import IfName


@dataclass
class RealHost:
    links: NetlinkLinks
    vxlan: NetlinkVxlan
    netns: Namespace

    def lead_astray(self, name: IfName, mac: str) -> None:
        far = FAR if name == V4.name else FAR6
        self.netns.run(f"bridge fdb replace {mac} dev {name} dst {far} {NO_HOST} self permanent")


@pytest.fixture
def real(netns: Namespace) -> Iterator[RealHost]:
    netns.ip(
        batch=f"link add {UPLINK} type veth peer name up1\nlink set {UPLINK} up\nlink set up1 up\n"
        f"addr add {UPLINK4} dev {UPLINK}\naddr add {UPLINK6} dev {UPLINK} nodad\n"
    )
    with netns.entered():
        host = RealHost(NetlinkLinks(), NetlinkVxlan(), netns)
        yield host
        host.links.close()
        host.vxlan.close()


class TestNetlinkVxlan(VxlanContract):
    @pytest.fixture
    def host(self, real: RealHost) -> Host:
        return real


def test_iproute2_shows_what_was_made(netns: Namespace, real: RealHost) -> None:
    real.vxlan.create(V4, 1450)
    real.vxlan.set_entry(V4.name, MAC, FAR)
    (link,) = json.loads(netns.ip("-j", "-d", "link", "show", "dev", V4.name).stdout)
    data = link["linkinfo"]["info_data"]
    assert (link["linkinfo"]["info_kind"], link["address"], link["mtu"]) == ("vxlan", V4.mac, 1450)
    assert (data["id"], data["port"], data["local"], data["link"]) == (V4.vni, V4.port, str(V4.local), UPLINK)
    assert data["learning"] is False
    shown = netns.run(f"bridge -j fdb show dev {V4.name}").stdout
    (entry,) = json.loads(shown)
    assert (entry["mac"], entry["dst"], entry["state"]) == (MAC, str(FAR), "permanent")


def test_one_made_by_hand_is_read_as_another(netns: Namespace, real: RealHost) -> None:
    netns.ip("link", "add", V4.name, "type", "vxlan", "id", "7", "dstport", "8472")
    found = real.vxlan.read(V4.name)
    assert found is not None
    assert (found.vni, found.port, found.local, found.parent, found.learns) == (7, 8472, None, None, True)


def test_a_packet_may_not_be_larger_than_its_wrapped_form_allows(real: RealHost) -> None:
    real.vxlan.create(V4, 1450)
    with pytest.raises(InvalidArgument):
        real.links.set_mtu(V4.name, 1451)


def test_thousands_of_entries_come_in_one_list(real: RealHost) -> None:
    real.vxlan.create(V4, 1450)
    macs = [f"66:00:00:01:{number >> 8:02x}:{number & 255:02x}" for number in range(2000)]
    for mac in macs:
        real.vxlan.set_entry(V4.name, mac, FAR)
    assert real.vxlan.entries(V4.name) == dict.fromkeys(macs, FAR)
