"""A cluster: several hosts and an etcd on one fabric, and whatever is to run on each host."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from bed.etcd import Etcd
from bed.fabric import BRIDGE, Fabric
from bed.host import Firewall, Host

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What one host of a cluster is to be; see Host."""

    name: str
    hostname: str | None = None
    node: str | None = None
    firewall: Firewall | None = None
    iptables: str = "nft"


Start = Callable[["Cluster", Host], object]
"""Starts something on a host and waits until it is ready."""


class Cluster:
    """Hosts node1, node2, ... with an etcd; ``cluster["node1"]`` is a Host.

    `start` is called for each host, for all at once, when hosts and etcd are up: the daemons are its business. Every
    command on a host has ETCD_ENDPOINTS, NODENAME and IP in its environment.

    With `ipv6` they have an address of that family too, and IP6 in the environment.

    Args:
        hosts: how many, or plans for each.
        etcd: members of etcd; 0 leaves it out.
        id: of the fabric; drawn by default.
    """

    def __init__(
        self,
        hosts: int | Sequence[HostPlan] = 3,
        *,
        etcd: int = 1,
        start: Start | None = None,
        id: str | None = None,
        env: Mapping[str, str] | None = None,
        ipv6: bool = False,
    ) -> None:
        self.plans = (
            [HostPlan(name=f"node{number}") for number in range(1, hosts + 1)] if isinstance(hosts, int) else hosts
        )
        self._members, self._start, self._env, self._ipv6 = etcd, start, dict(env or {}), ipv6
        self.fabric = Fabric(id)
        self.hosts: list[Host] = []
        self.etcd: Etcd | None = None
        self.took: dict[str, float] = {}
        """Seconds by step of `up()`."""

    def up(self) -> "Cluster":
        """Make everything, in parallel where nothing waits; on failure nothing is left."""
        try:
            began = time.monotonic()
            addresses = [self.fabric.next_address() for _ in self.plans]
            with ThreadPoolExecutor(len(self.plans) + 1) as pool:
                members, ipv6 = self._members, self._ipv6
                etcd = pool.submit(Etcd, self.fabric, members=members, ipv6=ipv6) if members else None
                made = [
                    pool.submit(
                        Host,
                        self.fabric,
                        plan.name,
                        hostname=plan.hostname,
                        node=plan.node,
                        address=address,
                        firewall=plan.firewall,
                        ipv6=ipv6,
                        iptables=plan.iptables,
                        env={**self._addresses(address), **self._env},
                    )
                    for plan, address in zip(self.plans, addresses, strict=True)
                ]
                self.hosts = [future.result() for future in made]
                self.took["hosts"] = time.monotonic() - began
                self.etcd = etcd.result() if etcd else None
            self.took["etcd"] = time.monotonic() - began
            for host in self.hosts:
                if self.etcd:
                    host.env["ETCD_ENDPOINTS"] = self.etcd.endpoints
                    host.save_env()
            if start := self._start:
                self.on_each(lambda host: start(self, host))
            self.took["started"] = time.monotonic() - began
        except BaseException:
            self.close()
            raise
        return self

    def _addresses(self, address: IPv4Address) -> dict[str, str]:
        """The addresses of a host as calico-node takes them."""
        return {"IP": str(address)} | ({"IP6": str(self.fabric.beside(address))} if self._ipv6 else {})

    def on_each(self, work: Callable[[Host], T]) -> list[T]:
        """Call `work` for every host at once and return the results in the order of the hosts.

        Every call ends before the first error is raised.
        """
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            started = [pool.submit(work, host) for host in self.hosts]
        return [future.result() for future in started]

    def introduce(self) -> None:
        """Write the hosts' link addresses into each other's tables of neighbours, to stay.

        The kernel counts the entries that it learns over all namespaces together, and takes 1,024
        (net.ipv4.neigh.default.gc_thresh3): too few for 33 hosts that all speak with each other.
        """
        links = self.on_each(lambda host: json.loads(host.ip("-j", "link", "show", "eth0").stdout)[0]["address"])
        entries = [
            f"neigh replace {host.address} lladdr {link} dev eth0 nud permanent"
            for host, link in zip(self.hosts, links, strict=True)
        ]
        for number, host in enumerate(self.hosts):
            host.ip(batch="\n".join(entries[:number] + entries[number + 1 :]) + "\n")

    def resize_links(self, mtu: int) -> None:
        """Give the links between the hosts, and the bridge, another MTU."""
        ports = [f"link set {host.port} mtu {mtu}" for host in self.hosts]
        self.fabric.core.ip(batch="\n".join([*ports, f"link set {BRIDGE} mtu {mtu}"]) + "\n")
        self.on_each(lambda host: host.ip("link", "set", "eth0", "mtu", str(mtu)))

    @property
    def store(self) -> Etcd:
        """The etcd, for callers that know there is one."""
        if self.etcd is None:
            raise LookupError("this cluster was made without etcd")
        return self.etcd

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def keep(self) -> None:
        """Leave the cluster up when this process ends."""
        self.fabric.keep()

    def close(self) -> None:
        self.fabric.close()

    def __enter__(self) -> "Cluster":
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.fabric.__exit__()
