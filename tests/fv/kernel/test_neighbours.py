"""What the kernel tells of neighbours and forwarding entries, and what it does not wake anybody for."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed import Namespace
from fakes.link_contract import wait_until
from fakes.neighbour_contract import DEAF, NEAR, NeighbourContract, ToldHost
from fakes.vxlan_contract import FAR, FAR6, FURTHER, MAC, NO_HOST, OTHER_MAC, UPLINK, UPLINK4, UPLINK6, V4, V6
from kernel.link import ForwardingEntry, Neighbour
from kernel.links import NetlinkLinks
from kernel.monitor import KernelEvent, LinkChanged, Monitor, NeighbourChanged, ResyncNeeded
from kernel.vxlan import NetlinkVxlan, VxlanDevice
from resources.names import IfName, IPAddress


class RealHost:
    """With V4 and V6, which a monitor that is not started yet is to hear of, and a device of which it is not."""

    def __init__(self, netns: Namespace) -> None:
        self.netns = netns
        netns.ip(
            batch=f"link add {UPLINK} type veth peer name up1\nlink set {UPLINK} up\nlink set up1 up\n"
            f"addr add {UPLINK4} dev {UPLINK}\naddr add {UPLINK6} dev {UPLINK} nodad\n"
        )
        self.links, self.vxlan = NetlinkLinks(), NetlinkVxlan()
        self.heard: list[KernelEvent] = []
        for device in (V4, DEAF):
            self.make(device)
        self.monitor = Monitor(self.heard.append, neighbours_on=frozenset({V4.name, V6.name}))
        self.make(V6)  # it is heard of by the name, though it was not there

    def make(self, device: VxlanDevice) -> None:
        self.vxlan.create(device, 1400)
        self.links.set_up(device.name)

    def lead_astray(self, name: IfName, mac: str) -> None:
        far = FAR if name == V4.name else FAR6
        self.netns.run(f"bridge fdb replace {mac} dev {name} dst {far} {NO_HOST} self permanent")

    def hear_of(self, device: VxlanDevice) -> None:
        """Wait until the device has been told of, as it is now: only then its entries are."""
        wanted = LinkChanged(self.links.links()[device.name])
        wait_until(lambda: wanted in self.heard)

    @property
    def told(self) -> list[NeighbourChanged]:
        return [event for event in self.heard if isinstance(event, NeighbourChanged)]


@pytest.fixture
def real(netns: Namespace) -> Iterator[RealHost]:
    with netns.entered():
        host = RealHost(netns)
        yield host
        host.monitor.close()
        host.links.close()
        host.vxlan.close()


class TestMonitor(NeighbourContract):
    @pytest.fixture
    def host(self, real: RealHost) -> ToldHost:
        real.monitor.start()
        real.hear_of(V6)
        return real


def test_a_neighbour_that_is_no_longer_permanent_is_told(real: RealHost) -> None:
    """It may be gone a moment later; what the kernel itself makes of a question is told likewise."""
    near = NEAR[V4.name]
    real.monitor.start()
    real.links.set_neighbour(V4.name, near, MAC)
    real.netns.ip("neigh", "change", str(near), "lladdr", OTHER_MAC, "dev", V4.name, "nud", "noarp")
    stranger = Neighbour(address=near, mac=OTHER_MAC, permanent=False)
    wait_until(lambda: any(event.entry == stranger for event in real.told))


def test_neighbours_of_others_wake_nobody(real: RealHost) -> None:
    count = 500
    real.monitor.start()
    mark(real, FAR)
    before = wakes()
    addresses = [f"10.9.{number >> 8}.{number & 255}" for number in range(1, count + 1)]
    six = [f"fd09::{number:x}" for number in range(2, count + 2)]
    for mac in (MAC, OTHER_MAC):
        neighbours = (f"neigh replace {a} lladdr {mac} dev {UPLINK} nud reachable\n" for a in (*addresses, *six))
        real.netns.ip(batch="".join(neighbours))
    entries = (f"fdb replace {MAC} dev {DEAF.name} dst {address} self permanent\n" for address in addresses)
    real.netns.run("bridge -batch -", stdin="".join(entries))
    woken = wakes() - before
    mark(real, FURTHER)
    assert woken <= 5, f"5 x {count} entries of others woke the listener {woken} times"
    assert [event.entry for event in real.told] == [ForwardingEntry(mac=MAC, remote=far) for far in (FAR, FURTHER)]


def mark(real: RealHost, remote: IPAddress) -> None:
    """Write an entry that is told, so that all before it is told, too."""
    real.vxlan.set_entry(V4.name, MAC, remote)
    wait_until(lambda: bool(real.told) and real.told[-1].entry == ForwardingEntry(mac=MAC, remote=remote))


def wakes() -> int:
    """How often the listening thread began to sleep so far."""
    (thread,) = (one for one in threading.enumerate() if one.name == "kernel-monitor")
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_lost_news_ask_for_a_resync_and_then_it_goes_on(real: RealHost) -> None:
    # nobody reads yet: the buffer overflows
    for _ in range(2):
        lines = (f"fdb replace {MAC} dev {V4.name} dst 10.9.1.{n % 2 + 1} self permanent\n" for n in range(20000))
        real.netns.run("bridge -batch -", stdin="".join(lines))
    real.monitor.start()
    wait_until(lambda: any(isinstance(event, ResyncNeeded) for event in real.heard))
    mark(real, FAR)


def test_a_device_that_is_made_anew_is_heard_of(real: RealHost) -> None:
    real.monitor.start()
    mark(real, FAR)
    real.vxlan.delete(V4.name)
    real.make(V4)
    real.hear_of(V4)
    mark(real, FURTHER)
