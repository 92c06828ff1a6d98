"""Hosts made of namespaces, felix's effectors on each, and everything that sends and gets packets.

Workloads are veth pairs whose far ends all lie in one namespace without any addresses: nobody there answers, so every
packet stands for itself. Sending and receiving go by packet sockets at the far ends, and raw sockets on the hosts.
"""

import contextlib
import ipaddress
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from agreement.frames import Seen, seen, tag_in
from bed.claim import Claim, down
from bed.namespaces import Namespace
from fakes.felix_records import ELSEWHERE, HERE
from fakes.mtu_file import FakeMtuFile
from fakes.random_world import ADDRESSES, HOSTS
from felix.calc.parameters import Parameters
from felix.dataplane.driver import Dataplane
from felix.dataplane.forwarding import Forwarding
from felix.dataplane.interfaces import InterfaceEffector
from felix.dataplane.ipip import IpipEffector
from felix.dataplane.routes import RouteEffector, owns
from felix.dataplane.sets import SetEffector
from felix.dataplane.sizes import HostSizes
from felix.dataplane.tables import TableEffector
from felix.dataplane.tunnels import Tunnels
from felix.dataplane.vxlan import VxlanEffector
from felix.desired import TABLES, Update
from felix.pipeline import Pipeline
from kernel.arp import ArpAnnouncer
from kernel.links import NetlinkLinks
from kernel.routes import NetlinkRoutes
from kernel.sets import IpsetSets
from kernel.sets_netlink import NetlinkSets
from kernel.sysctl import ProcSysctls
from kernel.vxlan import NetlinkVxlan
from kernel.xtables import TableKernel, TableKey
from kernel.xtables_iptc import IptcWriter
from kernel.xtables_legacy import LegacyTables
from kernel.xtables_nft import NftTables
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, IPAddress, NodeName
from resources.runtime.options import Source

BACK_ENDS = ("nft", "legacy")
PROGRAMS = {4: "iptables", 6: "ip6tables"}
HOST_ADDRESSES = {node: frozenset(map(ipaddress.ip_address, texts)) for node, texts in HOSTS.items()}
PUBLISHED = {
    (version, protocol, port): (ipaddress.ip_address(ADDRESSES[HERE][number][version == 6]), to)
    for version in (4, 6)
    for number in range(len(ADDRESSES[HERE]))
    for protocol in (6, 17)
    for port, to in ((32000 + number, 80), (32010 + number, 1014))
}
"""Where a user's own rules on the first host send what comes for these ports of its: by family, protocol and port."""
NEXT_HOP = {4: "172.16.0.254", 6: "fd99::fe"}
UPLINK = IfName("eth0")
FAR_MAC = "ee:ee:ee:ee:ee:ee"
"""What every endpoint's record says."""
PROTOCOLS = (6, 17, 132, 47, 50, 94, 4)
OUTSIDE_PORT = "out"
_PACKET_OUTGOING, _IPV6_HDRINCL, _SO_RCVBUFFORCE = 4, 36, 33
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}


def host_mac(node: str, interface: str) -> str:
    """Return the address of a host's side of a link."""
    return f"02:00:00:00:{'01' if node == HERE else '02'}:{sum(interface.encode()) % 256:02x}"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that came out somewhere: at the far end of a link, or (empty) in the host itself."""

    node: str
    interface: str
    seen: Seen


@dataclass
class Machine:
    """One host: namespace, pipeline, dataplane."""

    node: str
    net: Namespace
    tables: TableKernel
    workloads: tuple[str, ...]
    pipeline: Pipeline
    dataplane: Dataplane | None = None
    to_clean: list[IPAddress] = field(default_factory=list)
    raw: dict[int, list[socket.socket]] = field(default_factory=dict)
    sender: dict[int, socket.socket] = field(default_factory=dict)

    def take(self, changes: Iterable[tuple[ResourceKey, Resource | None]]) -> None:
        """Feed changes of the store in, and write what follows from them."""
        for key, value in changes:
            self.pipeline.update(key, value)
        update = self.pipeline.flush()
        with self.net.entered():
            if self.dataplane is None:
                self.dataplane = self._built(self.pipeline.parameters)
                self.dataplane.links_changed(NetlinkLinks().links())
            self._write(self.dataplane, update)

    def _write(self, dataplane: Dataplane, update: Update) -> None:
        dataplane.want(update)
        for _ in range(20):
            report = dataplane.apply()
            cleaned = list(self.to_clean)
            self.to_clean.clear()
            for address in cleaned:
                dataplane.flows_deleted(address)  # all flows go before each volley
            if report.is_clean and not cleaned:
                return
            if report.failed:
                raise AssertionError(f"{self.node}: {report.failed}")
        raise AssertionError(f"{self.node}: the dataplane does not settle")

    def _built(self, parameters: Parameters) -> Dataplane:
        sysctls, routes = ProcSysctls(), NetlinkRoutes()
        forwarding = Forwarding(sysctls, routes, versions=(4, 6), workloads=("cali",))
        return Dataplane(
            sets=SetEffector(NetlinkSets(IpsetSets()), maxelem=parameters.set_size_max),
            tables=[TableEffector(self.tables, TableKey(version, table)) for version in (4, 6) for table in TABLES],
            table_kernel=self.tables,
            interfaces=InterfaceEffector(sysctls, NetlinkLinks(), ArpAnnouncer(), forwarding),
            routes=RouteEffector(
                routes, owns=owns(("cali",), protocol=80, remove_external=True), protocol=80,
                flows_of=self.to_clean.append,
            ),
            route_kernel=routes,
            forwarding=forwarding,
            tunnels=Tunnels(
                sizes=HostSizes(NetlinkLinks()),
                mtu=FakeMtuFile(),
                ipip=IpipEffector(NetlinkLinks(), time.monotonic),
                vxlan=VxlanEffector(NetlinkVxlan(), NetlinkLinks()),
            ),
        )  # fmt: skip

    def set_policy(self, variant: str, policies: Mapping[str, str]) -> None:
        """Set the policies of the kernel's own filter chains."""
        lines = ["*filter", *(f"-P {chain} {policy}" for chain, policy in policies.items()), "COMMIT", ""]
        for program in PROGRAMS.values():
            self.net.run([f"{program}-{variant}-restore", "--noflush"], stdin="\n".join(lines))

    def forget_flows(self) -> None:
        for family in ("ipv4", "ipv6"):
            self.net.run(["conntrack", "--flush", "--family", family], check=False)


class Field:
    """One host, or two with a router between them and the outside beyond it."""

    def __init__(self, *, back_end: str = "nft", two_hosts: bool = False) -> None:
        self.variant = back_end
        self.nodes = [HERE, ELSEWHERE] if two_hosts else [HERE]
        down()
        self._claim = Claim.new()
        self._spaces: list[Namespace] = []
        self.machines: dict[str, Machine] = {}
        try:
            self._far = self._space("far")
            self._far.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
            for node in self.nodes:
                self._make_host(node)
            self._join()
            for node, machine in self.machines.items():
                machine.pipeline.set_interface(UPLINK, HOST_ADDRESSES[node])
            with self._far.entered():
                self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
                self._wire.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
                self._wire.setblocking(False)
                self._indexes = {name: socket.if_nametoindex(name) for _, name in socket.if_nameindex()}
            for machine in self.machines.values():
                self._open_raw(machine)
        except BaseException:
            self.close()
            raise

    def _tables(self) -> TableKernel:
        if self.variant == "nft":
            return NftTables()
        # the library that makes small changes in process knows one namespace only
        return LegacyTables(small=IptcWriter() if len(self.nodes) == 1 else None)

    def _space(self, name: str) -> Namespace:
        made = Namespace(self._claim.prefix + name)
        self._spaces.append(made)
        return made

    def _make_host(self, node: str) -> None:
        net = self._space(node)
        net.run(
            "cd /proc/sys/net && echo 0 >ipv4/conf/all/rp_filter && echo 0 >ipv4/conf/default/rp_filter && "
            "echo 0 >ipv4/conf/all/send_redirects && echo 0 >ipv4/conf/default/send_redirects && "
            "echo 0 >ipv6/conf/default/accept_dad && echo 0 >ipv6/conf/default/accept_ra && "
            "echo 0 >ipv4/icmp_ratelimit && echo 0 >ipv6/icmp/ratelimit && echo 1 >netfilter/nf_conntrack_checksum"
        )
        workloads = tuple(f"cali{'h' if node == HERE else 'e'}{number}" for number in range(len(ADDRESSES[node])))
        lines = []
        for name in workloads:
            far = name.removeprefix("cali")
            lines += [
                f"link add {name} address {host_mac(node, name)} type veth peer name {far} netns {self._far.netns}",
                f"link set {name} up",
            ]
        net.ip(batch="\n".join([*lines, ""]))
        self._far.ip(batch="\n".join(f"link set {name.removeprefix('cali')} up" for name in workloads) + "\n")
        with net.entered():
            tables = self._tables()
        if node == HERE:
            self._publish(net)
        self.machines[node] = Machine(
            node, net, tables, workloads, Pipeline(NodeName(node), [Source("the test", {"DeviceRouteProtocol": "80"})])
        )
        # who knows the workloads' addresses of IPv6 need not ask for them; felix itself tells those of IPv4
        net.ip(
            batch="\n".join(
                f"neigh replace {v6} lladdr {FAR_MAC} dev {name} nud permanent"
                for name in workloads
                for _, v6 in ADDRESSES[node]
            )
            + "\n"
        )

    def _publish(self, net: Namespace) -> None:
        for version, program in PROGRAMS.items():
            (own,) = (address for address in HOST_ADDRESSES[HERE] if address.version == version)
            lines = [
                f"-A PREROUTING -d {own} -p {protocol} --dport {port} -j DNAT --to-destination "
                + (f"{address}:{to}" if version == 4 else f"[{address}]:{to}")
                for (family, protocol, port), (address, to) in PUBLISHED.items()
                if family == version
            ]
            text = "\n".join(["*nat", *lines, "COMMIT", ""])
            net.run([f"{program}-{self.variant}-restore", "--noflush"], stdin=text)

    def _join(self) -> None:
        """Give every host its uplink: to the outside itself, or by a router."""
        if len(self.nodes) == 1:
            self._uplink(HERE, self._far, OUTSIDE_PORT)
            self._far.ip("link", "set", OUTSIDE_PORT, "up")
            return
        router = self._space("router")
        router.run(
            "cd /proc/sys/net && echo 1 >ipv4/ip_forward && echo 1 >ipv6/conf/all/forwarding && "
            "echo 0 >ipv4/conf/all/rp_filter && echo 0 >ipv4/conf/default/rp_filter && "
            "echo 0 >ipv4/conf/all/send_redirects && echo 0 >ipv4/conf/default/send_redirects && "
            "echo 0 >ipv6/conf/default/accept_dad"
        )
        lines = [
            f"link add wide address {host_mac(HERE, 'wide')} type veth peer name {OUTSIDE_PORT} "
            f"netns {self._far.netns}",
            "link set wide up",
            "addr add 192.0.2.1/24 dev wide",
            "addr add 2001:db8::1/64 dev wide nodad",
            "route add default via 192.0.2.254",
            "route add default via 2001:db8::fe",
        ]
        outside = ("192.0.2.254", "192.0.2.9", "192.0.2.130", "2001:db8::fe", "2001:db8::9", "2001:db8::ff")
        lines += [_neighbour(address, FAR_MAC, "wide") for address in outside]
        router.ip(batch="\n".join([*lines, ""]))
        self._far.ip("link", "set", OUTSIDE_PORT, "up")
        for number, node in enumerate(self.nodes):
            self._uplink(node, router, f"to{number}")
            block = {HERE: ("10.0.0.0/16", "fd00::/64"), ELSEWHERE: ("10.1.0.0/16", "fd01::/16")}[node]
            v4, v6 = sorted(map(str, HOST_ADDRESSES[node]))
            lines = [f"link set to{number} up", "addr add 172.16.0.254/32 dev " + f"to{number}"]
            lines += [f"route add {v4}/32 dev to{number}", f"route add {v6}/128 dev to{number}"]
            lines += [_neighbour(address, host_mac(node, UPLINK), f"to{number}") for address in (v4, v6)]
            lines.append(f"route add {block[0]} via {v4} dev to{number}")
            lines.append(f"route add {block[1]} via {v6} dev to{number}")
            router.ip(batch="\n".join([*lines, ""]))

    def _uplink(self, node: str, other: Namespace, port: str) -> None:
        v4, v6 = sorted(map(str, HOST_ADDRESSES[node]))
        mac = host_mac("", port)
        self.machines[node].net.ip(
            batch="\n".join(
                [
                    f"link add {UPLINK} address {host_mac(node, UPLINK)} type veth "
                    f"peer name {port} address {mac} netns {other.netns}",
                    f"link set {UPLINK} up",
                    f"addr add {v4}/24 dev {UPLINK}",
                    f"addr add {v6}/64 dev {UPLINK} nodad",
                    *(_neighbour(address, mac, UPLINK) for address in NEXT_HOP.values()),
                    *(
                        _neighbour(str(address), mac, UPLINK)
                        for node_, addresses in HOST_ADDRESSES.items() if node_ != node for address in addresses
                    ),
                    f"route add default via {NEXT_HOP[4]}",
                    f"route add default via {NEXT_HOP[6]}",
                    "",
                ]
            )
        )  # fmt: skip

    def _open_raw(self, machine: Machine) -> None:
        with machine.net.entered():
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                machine.raw[version] = []
                for protocol in (*PROTOCOLS, 1 if version == 4 else 58):
                    made = socket.socket(family, socket.SOCK_RAW, protocol)
                    made.setblocking(False)
                    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
                    machine.raw[version].append(made)
                sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                if version == 6:
                    sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
                machine.sender[version] = sender

    # What is done with it.

    def take(self, changes: Sequence[tuple[ResourceKey, Resource | None]]) -> None:
        """Let every host's felix know changes of the store, and do what follows."""
        for machine in self.machines.values():
            machine.take(changes)

    def send(self, data: bytes, node: str | None, interface: str | None) -> None:
        """Send a packet: from the far end of a workload's interface, by the host itself, or (None) from outside."""
        version = data[0] >> 4
        if node is not None and interface is None:
            destination = str(ipaddress.ip_address(data[16:20] if version == 4 else data[24:40]))
            with contextlib.suppress(PermissionError):  # dropped on its way out
                self.machines[node].sender[version].sendto(data, (destination, 0))
            return
        if node is None or interface is None:
            port, target = OUTSIDE_PORT, host_mac(HERE, UPLINK if len(self.nodes) == 1 else "wide")
        else:
            port, target = interface.removeprefix("cali"), host_mac(node, interface)
        self._wire.sendto(data, (port, _ETHERTYPE[version], 0, 0, bytes.fromhex(target.replace(":", ""))))

    def forget_flows(self) -> None:
        for machine in self.machines.values():
            machine.forget_flows()

    def arrivals(self) -> Iterator[tuple[bytes, Arrival]]:
        """Yield what has arrived since the last call, with its tag."""
        while True:
            try:
                data, address = self._wire.recvfrom(65535)
            except BlockingIOError:
                break
            if address[2] == _PACKET_OUTGOING or address[1] not in _ETHERTYPE.values():
                continue
            found, head = tag_in(data), seen(data)
            if found and head:
                yield found, self._arrival(address[0], head)
        for machine in self.machines.values():
            for version, sockets in machine.raw.items():
                for each in sockets:
                    yield from self._local(machine, version, each)

    def _arrival(self, port: str, head: Seen) -> Arrival:
        if port == OUTSIDE_PORT:
            return Arrival("", OUTSIDE_PORT, head)
        return Arrival(HERE if port.startswith("h") else ELSEWHERE, f"cali{port}", head)

    def _local(self, machine: Machine, version: int, each: socket.socket) -> Iterator[tuple[bytes, Arrival]]:
        while True:
            try:
                data, peer = each.recvfrom(65535)
            except BlockingIOError:
                return
            found = tag_in(data)
            if found is None:
                continue
            if version == 4:
                head = seen(data)
            else:  # without its header, and so without its destination
                (own,) = (address for address in HOST_ADDRESSES[machine.node] if address.version == 6)
                source = ipaddress.ip_address(peer[0].partition("%")[0])
                icmp = each.proto == socket.IPPROTO_ICMPV6
                head = Seen(source, own, each.proto, data[0] if icmp else None)
            if head is not None:
                yield found, Arrival(machine.node, "", head)

    def wait(self, seconds: float) -> None:
        """Wait until something arrives, so long at most."""
        sockets = [self._wire, *(s for m in self.machines.values() for each in m.raw.values() for s in each)]
        select.select(sockets, [], [], seconds)

    def close(self) -> None:
        for machine in self.machines.values():
            for each in (*machine.sender.values(), *(s for made in machine.raw.values() for s in made)):
                each.close()
        with contextlib.suppress(AttributeError):
            self._wire.close()
        for space in self._spaces:
            space.close()
        self._claim.sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _neighbour(address: str, mac: str, device: str) -> str:
    return f"neigh replace {address} lladdr {mac} dev {device} nud permanent"


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep the calling thread on one processor: then packets are done in the order in which they were sent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settled(field: Field, wanted: set[bytes], *, quiet_seconds: float = 0.02, patience_seconds: float = 3.0) -> dict[
    bytes, list[Arrival]
]:
    """Return what arrives, by tag: until all that is wanted is there and nothing more comes, or patience ends."""
    found: dict[bytes, list[Arrival]] = {}
    began = last = time.monotonic()
    while True:
        for tag, arrival in field.arrivals():
            found.setdefault(tag, []).append(arrival)
            last = time.monotonic()
        now = time.monotonic()
        if now - last > quiet_seconds and (wanted <= found.keys() or now - began > patience_seconds):
            return found
        field.wait(quiet_seconds)
