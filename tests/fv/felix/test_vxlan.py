"""The effector of VXLAN devices on the real kernel: what it makes, adopts, mends and removes."""

import ipaddress
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from bed import Namespace, wait_until
from felix.calc.vxlan import FarEnd, Tunnel
from felix.dataplane.routes import RouteEffector, owns
from felix.dataplane.vxlan import VxlanEffector
from kernel.links import NetlinkLinks
from kernel.monitor import KernelEvent, LinkChanged, Monitor, NeighbourChanged, ResyncNeeded
from kernel.route import LAST_RESORT_METRIC, PROTOCOL_BGPD, PROTOCOL_FELIX, Route, RouteKey
from kernel.routes import NetlinkRoutes
from kernel.vxlan import NetlinkVxlan
from resources.names import IfName, NodeName
from resources.runtime.loop import Loop

UPLINK = IfName("eth0")
TUNNELS = {
    version: Tunnel(
        version=version,
        vni=4096,
        port=4789,
        local=ipaddress.ip_address(local),
        address=ipaddress.ip_address(address),
        mac=f"66:00:00:00:00:0{version}",
        parent=UPLINK,
    )
    for version, local, address in ((4, "10.9.0.1", "10.65.0.1"), (6, "fd09::1", "fd65::1"))
}
ENDS = {
    version: {
        NodeName(f"n{number}"): FarEnd(
            host=ipaddress.ip_address(host.format(number)),
            tunnel=ipaddress.ip_address(tunnel.format(number)),
            mac=f"66:00:00:00:0{version}:{number:02x}",
        )
        for number in (2, 3)
    }
    for version, host, tunnel in ((4, "10.9.0.{}", "10.65.{}.1"), (6, "fd09::{}", "fd65::{}001"))
}
MTU = {4: 1450, 6: 1430}
Seen = tuple[dict[str, str], dict[str, str], set[str]]


@pytest.fixture
def host(netns: Namespace) -> Iterator[Namespace]:
    netns.ip(
        batch=f"link add {UPLINK} type veth peer name up1\nlink set {UPLINK} up\nlink set up1 up\n"
        f"addr add 10.9.0.1/24 dev {UPLINK}\naddr add fd09::1/64 dev {UPLINK} nodad\n"
    )
    with netns.entered():
        yield netns


def effector(version: int, *, tunnel: Tunnel | None = None) -> VxlanEffector:
    """A fresh one that wants everything of one family."""
    made = VxlanEffector(NetlinkVxlan(), links := NetlinkLinks())
    made.links_changed(links.links(), links.links())
    made.want(version, tunnel or TUNNELS[version])
    for node, end in ENDS[version].items():
        made.want_far_end(version, node, end)
    return made


def run(made: VxlanEffector, version: int) -> int:
    """Let it work; return how much it wrote."""
    before = made.written
    assert made.remove() == {}
    assert made.apply(version, MTU[version]) == {}
    return made.written - before


def seen(version: int) -> Seen:
    """Permanent neighbours, entries, addresses of the device."""
    name, links = TUNNELS[version].name, NetlinkLinks()
    neighbours = links.neighbours(name).values()
    return (
        {str(entry.address): entry.mac or "" for entry in neighbours if entry.permanent},
        {mac: str(remote) for mac, remote in NetlinkVxlan().entries(name).items()},
        {str(a.address) for a in links.addresses() if a.device == name and not a.address.ip.is_link_local},
    )


def wanted(version: int) -> Seen:
    ends = ENDS[version].values()
    address = TUNNELS[version].address
    return (
        {str(end.tunnel): end.mac for end in ends},
        {end.mac: str(end.host) for end in ends},
        {f"{address}/{address.max_prefixlen}"},
    )


@pytest.mark.parametrize("version", [4, 6])
class TestOneFamily:
    def test_all_is_made_and_adopted_by_the_next(self, host: Namespace, version: int) -> None:
        assert run(effector(version), version) > 0
        assert seen(version) == wanted(version)
        link = NetlinkLinks().links()[TUNNELS[version].name]
        assert (link.up, link.mtu) == (True, MTU[version])
        assert run(effector(version), version) == 0

    def test_what_nobody_wants_on_it_goes(self, host: Namespace, version: int) -> None:
        run(effector(version), version)
        name, stray = TUNNELS[version].name, ipaddress.ip_address("10.65.9.9" if version == 4 else "fd65::9")
        NetlinkLinks().set_neighbour(name, stray, "66:00:00:00:09:09")
        NetlinkVxlan().set_entry(name, "66:00:00:00:09:09", TUNNELS[version].local)
        NetlinkLinks().add_address(name, ipaddress.ip_interface(stray))
        assert run(effector(version), version) == 3
        assert seen(version) == wanted(version)

    def test_one_that_differs_is_made_anew(self, host: Namespace, version: int) -> None:
        other = replace(TUNNELS[version], vni=7, mac="66:00:00:00:00:77")
        run(effector(version, tunnel=other), version)
        index = NetlinkLinks().links()[other.name].index
        made = effector(version)
        run(made, version)
        assert NetlinkLinks().links()[other.name].index != index
        assert made.take_remade() == [other.name]
        assert seen(version) == wanted(version)

    def test_it_goes_with_the_last_that_wants_it(self, host: Namespace, version: int) -> None:
        made = effector(version)
        run(made, version)
        made.want(version, None)
        run(made, version)
        assert TUNNELS[version].name not in NetlinkLinks().links()
        assert run(made, version) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_routes_change_between_plain_and_tunnel_in_place(host: Namespace, version: int) -> None:
    """The gateway is an address of the very block; for IPv6 the kernel takes it when it has a route of its own."""
    run(effector(version), version)
    end = ENDS[version][NodeName("n2")]
    block = ipaddress.ip_network(f"{end.tunnel}/{26 if version == 4 else 122}", strict=False)
    near = ipaddress.ip_network(end.tunnel)
    device, kernel = TUNNELS[version].name, NetlinkRoutes()
    bgpds = Route.via(end.host, UPLINK, protocol=PROTOCOL_BGPD)
    plain = Route.via(end.host, UPLINK, protocol=PROTOCOL_FELIX)
    wrapped = Route.via(end.tunnel, device, protocol=PROTOCOL_FELIX, onlink=True)
    assert kernel.add({RouteKey(block): bgpds}) == {}
    routes = RouteEffector(
        kernel,
        owns=owns(("cali",), protocol=PROTOCOL_FELIX, remove_external=True),
        protocol=PROTOCOL_FELIX,
        flows_of=lambda address: pytest.fail(f"{address} was nobody's here"),
    )
    if version == 6:
        routes.want_remote(near, Route.on(device, protocol=PROTOCOL_FELIX))
    for wanted in (wrapped, plain, wrapped):
        routes.want_remote(block, wanted)
        routes.refresh()
        assert routes.remove() == routes.add(version) == {}
        assert kernel.read(lambda *_: True).ours[RouteKey(block)] == wanted
    routes.resync()
    routes.refresh()
    before = routes.written
    assert routes.remove() == routes.add(version) == {}
    assert routes.written == before
    nowhere = Route.unreachable(protocol=PROTOCOL_FELIX)
    routes.want_remote(block, nowhere)
    assert routes.remove() == routes.add(version) == {}
    assert kernel.read(lambda *_: True).ours[RouteKey(block, LAST_RESORT_METRIC)] == nowhere
    for prefix in (block, near):
        routes.want_remote(prefix, None)
    assert routes.remove() == routes.add(version) == {}
    left = kernel.read(lambda *_: True).ours
    assert not {RouteKey(block), RouteKey(block, LAST_RESORT_METRIC)} & left.keys()


def test_a_thousand_hosts(host: Namespace) -> None:
    """One that joins costs two writes, whoever is there already."""
    made = effector(4)
    for number in range(1000):
        at = ipaddress.ip_address("10.66.0.0") + number
        mac = f"66:00:00:01:{number >> 8:02x}:{number & 255:02x}"
        made.want_far_end(4, NodeName(f"m{number}"), FarEnd(host=at, tunnel=at, mac=mac))
    run(made, 4)
    assert len(NetlinkVxlan().entries(TUNNELS[4].name)) == 1002
    at = ipaddress.ip_address("10.67.0.1")
    made.want_far_end(4, NodeName("last"), FarEnd(host=at, tunnel=at, mac="66:00:00:02:00:01"))
    assert run(made, 4) == 2


class Repairing:
    """An effector that repairs what the kernel tells of, as felix has it: the kernel's thread tells, another acts."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.turns = 0
        self._loop: Loop[KernelEvent] = Loop(self._turn)
        self._monitor = Monitor(self._loop.post, neighbours_on=frozenset({TUNNELS[version].name}))
        self._made = effector(version)
        run(self._made, version)
        self._thread = threading.Thread(target=self._loop.run)  # in the namespace of the thread that makes it

    def __enter__(self) -> "Repairing":
        self._monitor.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.close()
        self._loop.stop()
        self._thread.join()

    def _turn(self, events: Sequence[KernelEvent]) -> float | None:
        self.turns += 1
        matters = False
        for event in events:
            match event:
                case NeighbourChanged(device, entry, gone):
                    matters |= self._made.neighbour_changed(device, entry, gone=gone)
                case LinkChanged(link):
                    self._made.links_changed(NetlinkLinks().links(), [link.name])
                    matters = True
                case ResyncNeeded():
                    self._made.resync()
                    matters = True
        if matters:
            run(self._made, self.version)
        return None


@pytest.mark.parametrize("version", [4, 6])
def test_what_somebody_does_to_an_entry_is_repaired_when_the_kernel_tells_of_it(host: Namespace, version: int) -> None:
    name, end = TUNNELS[version].name, ENDS[version][NodeName("n2")]
    stranger, far = ("10.65.9.9", "10.9.0.99") if version == 4 else ("fd65::9", "fd09::99")
    damages = {
        "the neighbour to be back": f"ip neigh del {end.tunnel} dev {name}",
        "its MAC to be back": f"ip neigh replace {end.tunnel} lladdr 66:00:00:00:09:09 dev {name} nud permanent",
        "it to be permanent": f"ip neigh replace {end.tunnel} lladdr 66:00:00:00:09:09 dev {name} nud noarp",
        "the stranger to go": f"ip neigh replace {stranger} lladdr 66:00:00:00:09:09 dev {name} nud permanent",
        "the entry to be back": f"bridge fdb del {end.mac} dev {name} self",
        "its host to be back": f"bridge fdb replace {end.mac} dev {name} dst {far} self permanent",
        "its port to be back": f"bridge fdb replace {end.mac} dev {name} dst {end.host} port 9999 self permanent",
        "the foreign entry to go": f"bridge fdb append 00:00:00:00:00:00 dev {name} dst {far} self permanent",
        "all to be back": f"ip neigh flush dev {name} nud permanent; bridge fdb del {end.mac} dev {name} self",
    }
    with Repairing(version):
        for what, damage in damages.items():
            host.run(damage)
            wait_until(what, lambda: seen(version) == wanted(version))


def test_neighbours_elsewhere_do_not_wake_it(host: Namespace) -> None:
    end = ENDS[4][NodeName("n2")]
    with Repairing(4) as repairing:
        host.run(f"bridge fdb del {end.mac} dev {TUNNELS[4].name} self")
        wait_until("the first repair", lambda: seen(4) == wanted(4))
        before = repairing.turns
        addresses = [f"10.9.{number >> 8}.{number & 255}" for number in range(2, 502)]
        for state in ("reachable", "stale"):
            lines = (f"neigh replace {a} lladdr 66:00:00:00:00:99 dev {UPLINK} nud {state}\n" for a in addresses)
            host.ip(batch="".join(lines))
        host.run(f"bridge fdb del {end.mac} dev {TUNNELS[4].name} self")
        wait_until("the second repair", lambda: seen(4) == wanted(4))
        # only what concerns the device: what was done to it, the repairs, and what these are told as
        assert repairing.turns - before <= 10
