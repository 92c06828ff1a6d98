"""A host with bgpd's whole mind on it and nothing real: store changes in, fake ExaBGP and kernel, time by hand."""

import json
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_interface, ip_network

from bgpd.calc.secrets import Secret, SecretName, Unread
from bgpd.engine import WAITS_FOR, Engine, Message, Settings
from bgpd.fib import Fib
from bgpd.inventory import Inventory
from bgpd.peering import Peering
from bgpd.probe import PeerAnswers, Target
from bgpd.routing import Routing
from bgpd.speaker import Speaker
from bgpd.status import Snapshot
from fakes.clock import ManualClock
from fakes.exabgp import FakeExabgp
from fakes.kernel import FakeKernel
from kernel.monitor import KernelEvent, LinkChanged, RouteGone, RouteWritten
from kernel.route import PROTOCOL_BGPD, Route, RouteKey
from resources.datastore.keys import ResourceKey, affinity_key, block_key, resource_key
from resources.datastore.sync import Change, Changes, InSync, OutOfSync
from resources.names import IfName, IPAddress, NodeName

ETH0 = IfName("eth0")
RELAY = ("/usr/bin/python3", "/opt/relay.py", "--socket", "/run/relay.sock")


def node_record(name: str, address: str = "", *, ipv6: str = "", **bgp: object) -> tuple[str, bytes]:
    """Return key and value of a Node."""
    members = {**({"ipv4Address": address} if address else {}), **({"ipv6Address": ipv6} if ipv6 else {}), **bgp}
    spec = {"bgp": members} if members else {}
    return record("nodes", "Node", name, spec)


def pool_record(name: str, cidr: str, **spec: object) -> tuple[str, bytes]:
    return record("ippools", "IPPool", name, {"cidr": cidr, **spec})


def peer_record(name: str, **spec: object) -> tuple[str, bytes]:
    return record("bgppeers", "BGPPeer", name, spec)


def filter_record(name: str, **spec: object) -> tuple[str, bytes]:
    return record("bgpfilters", "BGPFilter", name, spec)


def configuration_record(name: str = "default", **spec: object) -> tuple[str, bytes]:
    return record("bgpconfigurations", "BGPConfiguration", name, spec)


def record(plural: str, kind: str, name: str, spec: object, namespace: str = "") -> tuple[str, bytes]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    document = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}
    return resource_key(ResourceKey(plural, name, namespace)), json.dumps(document).encode()


def endpoint_record(node: str, name: str, *addresses: str) -> tuple[str, bytes]:
    """Return key and value of a Docker workload's endpoint."""
    spec = {
        "orchestrator": "libnetwork",
        "workload": "libnetwork",
        "node": node,
        "endpoint": name,
        "interfaceName": f"cali{name}",
        "ipNetworks": list(addresses),
        "profiles": ["net"],
    }
    return record("workloadendpoints", "WorkloadEndpoint", f"{node}-libnetwork-libnetwork-{name}", spec, "libnetwork")


def block_record(cidr: str, node: str | None) -> tuple[str, bytes]:
    """Return key and value of a block that belongs to `node`."""
    affinity = None if node is None else f"host:{node}"
    value: dict[str, object] = {"cidr": cidr, "affinity": affinity, "allocations": [], "unallocated": []}
    return block_key(ip_network(cidr)), json.dumps(value).encode()


def affinity_record(cidr: str, node: str, state: str = "confirmed") -> tuple[str, bytes]:
    return affinity_key(NodeName(node), ip_network(cidr)), json.dumps({"state": state, "deleted": False}).encode()


class Waits:
    """Readiness that can be looked at."""

    def __init__(self) -> None:
        self.waiting = set(WAITS_FOR)

    def wait_for(self, thing: str) -> None:
        self.waiting.add(thing)

    def done(self, thing: str) -> None:
        self.waiting.discard(thing)


class BgpHost:
    """bgpd on host `name`; the kernel and ExaBGP may be those of an earlier one, to see a restart.

    Args:
        address: of eth0, with its prefix length.
    """

    def __init__(
        self,
        name: str = "node1",
        address: str = "10.0.0.1/24",
        *,
        kernel: FakeKernel | None = None,
        exabgp: FakeExabgp | None = None,
        clock: ManualClock | None = None,
        max_prefixes: int = 20_000,
        is_strict: bool = False,
        router_id: str = "",
    ) -> None:
        self.name, self.address = name, address
        self.clock = clock or ManualClock()
        if kernel is None:
            kernel = FakeKernel()
            kernel.links.add(ETH0)
            kernel.links.set_up(ETH0)
            kernel.links.add_address(ETH0, ip_interface(address))
        self.kernel = kernel
        self.exabgp = exabgp or FakeExabgp()
        self.waits = Waits()
        self.snapshot = Snapshot()
        self.probed: list[Target] = []
        self.answering: set[IPAddress] = set()
        self.levels: list[str] = []
        self.secrets: dict[SecretName, Secret] = {}
        speaker = Speaker(self.exabgp)
        inventory = Inventory(NodeName(name))
        routing = Routing(
            NodeName(name), Fib(self.kernel.routes), self.kernel.links, max_prefixes=max_prefixes, is_strict=is_strict
        )
        self.peering = Peering(
            speaker, routing.rib, relay_command=RELAY, probe=self._probe, wall=lambda: self.clock.now + 1e9
        )
        self.speaker, self.routing, self.inventory = speaker, routing, inventory
        self.engine = Engine(
            NodeName(name),
            Settings(hold_seconds=90, router_id=router_id),
            inventory=inventory,
            routing=routing,
            peering=self.peering,
            speaker=speaker,
            secrets=lambda wanted: {one: self.secrets.get(one, Unread("it is not there")) for one in wanted},
            readiness=self.waits,
            publish=self._publish,
            clock=self.clock.monotonic,
            wall=lambda: self.clock.now + 1e9,
            on_log_level=self.levels.append,
        )
        self._inbox: list[Message] = []
        self._due: float | None = None
        self._revision = 1

    # --- the world acts ----------------------------------------------------------------------------------------------

    def put(self, *records: tuple[str, bytes]) -> None:
        """Write records to the store."""
        self._revision += 1
        self._inbox.append(Changes(tuple(Change(key, value, self._revision) for key, value in records)))

    def remove(self, *records: tuple[str, bytes]) -> None:
        self._revision += 1
        self._inbox.append(Changes(tuple(Change(key, None, self._revision) for key, _ in records)))

    def in_sync(self) -> None:
        self._inbox.append(InSync())

    def out_of_sync(self) -> None:
        self._inbox.append(OutOfSync("no answer"))

    def kernel_says(self, *events: KernelEvent) -> None:
        self._inbox += events

    def lose_route(self, prefix: str) -> None:
        """Somebody deletes a route of the kernel."""
        key = RouteKey(ip_network(prefix))
        route = self.kernel.routes.routes[key]
        self.kernel.routes.lose(key)
        self.kernel_says(RouteGone(key, route))

    def put_route(self, prefix: str, route: Route) -> None:
        """Somebody writes a route."""
        key = RouteKey(ip_network(prefix))
        self.kernel.routes.put(key, route)
        self.kernel_says(RouteWritten(key, route))

    def set_link(self, name: IfName, *, up: bool) -> None:
        (self.kernel.links.set_up if up else self.kernel.links.set_down)(name)
        self.kernel_says(LinkChanged(self.kernel.links.links()[name]))

    def _probe(self, targets: Iterable[Target]) -> None:
        listed = list(targets)
        self.probed += listed
        if found := tuple(target.address for target in listed if target.address in self.answering):
            self._inbox.append(PeerAnswers(found))

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    # --- time passes -------------------------------------------------------------------------------------------------

    def run(self, seconds: float = 1.0) -> None:
        """Let bgpd work through everything, and then so much time pass."""
        end = self.clock.now + seconds
        for _ in range(10_000):
            if not self._turn(end):
                return
        raise AssertionError("bgpd never comes to rest")

    def run_until(self, is_so: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let bgpd work turn by turn, and stop as soon as something holds."""
        end = self.clock.now + seconds
        while not is_so():
            assert self._turn(end), f"not so within {seconds} s"

    def _turn(self, end: float) -> bool:
        self.exabgp.now = self.clock.now
        batch: Sequence[Message] = [*self._inbox, *self.exabgp.outbox]
        self._inbox.clear()
        self.exabgp.outbox.clear()
        if not batch:
            if self._due is None or self._due > end:
                self.clock.now = max(self.clock.now, end)
                return False
            self.clock.now = max(self.clock.now, self._due)
        wait = self.engine.handle(batch)
        # a little beyond, so that a sum of floating point numbers cannot fall short for ever
        self._due = None if wait is None else self.clock.now + wait + 1e-6
        return True

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def routes(self) -> dict[str, str]:
        """bgpd's routes in the kernel, as text: ``via 10.0.0.2 dev eth0`` or ``blackhole``."""
        return {
            str(key): str(route).removesuffix(f" proto {PROTOCOL_BGPD}")
            for key, route in self.kernel.routes.routes.items()
            if route.protocol == PROTOCOL_BGPD
        }

    @property
    def phases(self) -> dict[str, str]:
        return {row.name: f"{row.state} {row.phase}" for row in self.snapshot.rows}

    def offered(self, peer: str) -> set[str]:
        return set(self.exabgp.peers[peer].offered)

    def refused(self, prefix: str) -> list[str | None]:
        """Why each path to a prefix is refused, by peer."""
        entries = self.routing.rib.entries(ip_network(prefix))
        return [entry.refusal.value if entry.refusal else None for _, entry in sorted(entries.items(), key=str)]
