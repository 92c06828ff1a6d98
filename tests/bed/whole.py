"""Hosts with everything of the product but Docker's driver, and no supervisor: felix, bgpd and the agent on each.

What `node run` writes into the store the test's own process writes, and the daemons are started one by one: in a guest
with one slow processor that is a quarter of the time. Not imported by `bed` itself.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from bed.cluster import Cluster, HostPlan
from bed.command import Process, Timeout, wait_until
from bed.host import Host
from bed.network import Network
from bed.workload import Workload
from resources.datastore.client import ResourceClient
from resources.kinds.base import Metadata
from resources.kinds.felixconfiguration import KIND as FELIX_CONFIGURATION
from resources.kinds.felixconfiguration import FelixConfiguration, FelixConfigurationSpec
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool
from resources.runtime import health

DAEMONS: Mapping[str, list[str]] = {
    "felix": ["calico-felix"], "bgpd": ["calico-bgpd"], "agent": ["calico-node", "agent"],
}


class Whole:
    """A cluster of such hosts, with one network (a pool) whose `mode` is set by `encapsulate`."""

    def __init__(self, hosts: int = 3, *, iptables: str = "nft", subnet_length: int = 24, cidr: str = "10.65.0.0/24"
                 ) -> None:
        """`subnet_length`: of the nodes' addresses in their records; CrossSubnet goes by it."""
        names = [f"node{number}" for number in range(1, hosts + 1)]
        self.cluster = Cluster([HostPlan(name=name, iptables=iptables) for name in names])
        self.daemons: dict[tuple[str, str], Process] = {}
        self._length, self._cidr = subnet_length, cidr
        self.network: Network
        self.workloads: list[Workload] = []

    def __enter__(self) -> "Whole":
        self.cluster.up()
        try:
            self.network = Network(self.cluster, "net1", self._cidr)
            with self.cluster.fabric.entered():
                self.client.ensure_defaults("docker")
                for host in self.hosts:
                    self._register(host)
            self.cluster.on_each(self._start)
            self.await_ready()
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.__exit__()

    @property
    def client(self) -> ResourceClient:
        return self.network.client

    @property
    def hosts(self) -> list[Host]:
        return self.cluster.hosts

    def __getitem__(self, name: str) -> Host:
        return self.cluster[name]

    def _register(self, host: Host) -> None:
        bgp = NodeBGPSpec(ipv4_address=f"{host.address}/{self._length}")
        self.client.create(NODE, Node(metadata=Metadata(name=host.node), spec=NodeSpec(bgp=bgp)))
        returns = FelixConfigurationSpec(default_endpoint_to_host_action="Return")
        self.client.create(
            FELIX_CONFIGURATION, FelixConfiguration(metadata=Metadata(name=f"node.{host.node}"), spec=returns)
        )

    def _start(self, host: Host) -> None:
        for name, command in DAEMONS.items():
            self.daemons[host.name, name] = host.popen(command)

    def await_ready(self, *, timeout: float = 120.0) -> None:
        try:
            for host, name in self.daemons:
                wait_until(
                    f"{name} on {host} to be ready", functools.partial(self._is_ready, host, name), timeout=timeout
                )
        except Timeout as error:
            raise Timeout(f"{error}\n{self.logs()}") from None

    def _is_ready(self, host: str, name: str) -> bool:
        return self.ask(host, name, "/readiness")[0] == 204

    def logs(self) -> str:
        """Return the last lines of all daemons."""
        return "\n".join(f"--- {host} {name}\n{daemon.text[-1500:]}" for (host, name), daemon in self.daemons.items())

    def ask(self, host: str, daemon: str, question: str) -> tuple[int, str]:
        return health.ask(self[host].path(f"/run/calico/{daemon}.sock"), question, timeout=5.0)

    def state(self, host: str, daemon: str) -> Any:
        """Return what a daemon says of itself; nothing if it does not answer."""
        status, body = self.ask(host, daemon, "/state")
        return json.loads(body) if status == 200 else {}

    # -- what operators do

    def encapsulate(self, *, ipip: str = "Never", vxlan: str = "Never") -> None:
        """Give the pool another mode; returns at once."""

        def changed(pool: IPPool) -> IPPool:
            return replace(pool, spec=replace(pool.spec, ipip_mode=ipip, vxlan_mode=vxlan))

        with self.cluster.fabric.entered():
            self.client.modify(POOL, f"{self.network.name}-pool", changed)

    def configure_felix(self, **members: object) -> None:
        """Change the FelixConfiguration of all hosts."""

        def changed(found: FelixConfiguration) -> FelixConfiguration:
            return replace(found, spec=replace(found.spec, **members))

        with self.cluster.fabric.entered():
            for host in self.hosts:
                self.client.modify(FELIX_CONFIGURATION, f"node.{host.node}", changed)

    def node(self, name: str) -> Node:
        with self.cluster.fabric.entered():
            return self.client.get(NODE, name)

    # -- what is there

    def routes(self, host: str) -> dict[str, str]:
        """Return how a host sends to the others' blocks: ``tunl0``, ``eth0`` ... by the other's name."""
        found = {}
        addresses = {str(other.address): other.name for other in self.hosts}
        for route in json.loads(self[host].ip("-j", "-N", "route", "show", "proto", "81").stdout or "[]"):
            if route.get("gateway") in addresses:
                found[addresses[route["gateway"]]] = route["dev"]
        return found

    def device(self, host: str, name: str) -> Any:
        """Return a device as iproute2 shows it, its addresses included; None if there is none."""
        found = json.loads(self[host].ip("-j", "-d", "addr", "show").stdout)
        return next((link for link in found if link["ifname"] == name), None)
