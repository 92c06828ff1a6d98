"""Hosts with bgpd and nothing else, and other BGP speakers beside them: real ExaBGP, etcd and kernels.

There is no felix here: nothing but bgpd writes routes. The address of a "workload" is put on its host's loopback.

Not imported by `bed` itself, which needs the standard library only: ``from bed.bgp import Mesh``.
"""

import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, Protocol

from bed.cluster import Cluster
from bed.command import Process, Timeout, wait_until
from bed.echoes import Echoes
from bed.etcd import Etcd
from bed.host import Host
from bed.routes import routes
from bed.speakers import Bird, Neighbor
from fakes.bgp_host import affinity_record, block_record, node_record, pool_record
from resources.runtime import health

POOL = pool_record("p", "10.65.0.0/16")
HOLD_SECONDS = 9
ENV = {"BGPD_HOLD_SECONDS": str(HOLD_SECONDS)}
NO_ENV: Mapping[str, str] = MappingProxyType({})


def block(node: int) -> str:
    return f"10.65.{node}.0/26"


class Mesh:
    """Hosts node1, node2, ... of a cluster with bgpd on each; each has one block, 10.65.N.0/26."""

    def __init__(self, cluster: Cluster, **env: str) -> None:
        self.cluster, self.store = cluster, cluster.store
        self.env = ENV | env
        """Of every bgpd that is started from now on."""
        self.daemons: dict[str, Process] = {}
        records = [POOL]
        for number, host in enumerate(cluster.hosts, 1):
            records += self.records(number, host.address)
        self.put(*records)

    def __getitem__(self, name: str) -> Host:
        return self.cluster[name]

    @staticmethod
    def records(number: int, address: IPv4Address) -> list[tuple[str, bytes]]:
        name = f"node{number}"
        return [
            node_record(name, f"{address}/24"),
            block_record(block(number), name),
            affinity_record(block(number), name),
        ]

    def put(self, *records: tuple[str, bytes]) -> None:
        put(self.store, *records)

    def remove(self, *records: tuple[str, bytes]) -> None:
        for key, _ in records:
            self.store.etcdctl("del", key)

    def start(self, *names: str, wait: bool = True) -> None:
        """Start bgpd on these hosts, or on all, and wait for the whole mesh."""
        for name in names or [host.name for host in self.cluster.hosts]:
            self.daemons[name] = self[name].popen(["calico-bgpd"], env=self.env)
        if wait:
            self.await_mesh()

    def state(self, name: str) -> Any:
        status, body = health.ask(self[name].path("/run/calico/bgpd.sock"), "/state", timeout=5)
        return json.loads(body) if status == 200 else {}

    def learned(self, name: str) -> list[Any]:
        """Every route that a node was told of."""
        status, body = health.ask(self[name].path("/run/calico/bgpd.sock"), "/routes", timeout=5)
        found = json.loads(body)["routes"] if status == 200 else []
        assert isinstance(found, list)
        return found

    def sessions(self, name: str) -> dict[str, Any]:
        """The sessions of a node, by the peer's address."""
        return {session["peer"]: session for session in self.state(name).get("sessions", [])}

    def is_up(self, name: str, *peers: str) -> bool:
        """Whether sessions are up and everything was exchanged: to these nodes, or to all."""
        sessions = self.sessions(name)
        wanted = [str(self[peer].address) for peer in peers] or list(sessions)
        return bool(wanted) and all(
            peer in sessions and sessions[peer]["state"] == "up" for peer in wanted
        )

    def await_mesh(self, *, timeout: float = 20.0) -> None:
        try:
            for name in self.daemons:
                others = [other for other in self.daemons if other != name]
                wait_until(f"{name} to mesh with {others}", partial(self.is_up, name, *others), timeout=timeout)
        except Timeout as error:
            logs = "\n".join(f"--- {name}\n{daemon.text[-3000:]}" for name, daemon in self.daemons.items())
            raise Timeout(f"{error}\n{logs}") from None

    def await_routes(self, name: str, expected: dict[str, str], timeout: float = 10.0) -> None:
        wait_until(
            f"{name} to have {expected}; it has {self.routes(name)}",
            lambda: self.routes(name) == expected,
            timeout=timeout,
        )

    def routes(self, name: str) -> dict[str, str]:
        return routes(self[name])

    def expected(self, name: str, *others: str) -> dict[str, str]:
        """The routes of a node: its own blackhole, and the blocks of the others."""
        everybody = others or tuple(host.name for host in self.cluster.hosts if host.name != name)
        own = {block(int(name.removeprefix("node"))): "blackhole"}
        return own | {
            block(int(other.removeprefix("node"))): f"via {self[other].address} dev eth0" for other in everybody
        }


TRANSACTION_MAX = 128
"""Operations that etcd takes in one transaction, as it comes."""


def put(store: Etcd, *records: tuple[str, bytes]) -> None:
    for first in range(0, len(records), TRANSACTION_MAX):
        some = records[first : first + TRANSACTION_MAX]
        operations = [f"put {key} {json.dumps(value.decode())}" for key, value in some]
        store.etcdctl("txn", stdin="\n" + "\n".join(operations) + "\n\n\n")


@contextmanager
def monitored(host: Host, *, version: int = 4) -> Iterator[list[str]]:
    """Collect what happens to routes on a host while the block runs."""
    process = host.popen(["ip", f"-{version}", "monitor", "route"])
    time.sleep(0.2)
    events: list[str] = []
    yield events
    time.sleep(0.2)
    process.kill()
    events += [line for line in process.text.splitlines() if line.strip()]


@contextmanager
def flooding(host: Host, address: str) -> Iterator[Echoes]:
    """Ping two hundred times a second while the block runs; what was lost is known behind it."""
    with host.entered():
        echoes = Echoes(address)
    with echoes:
        yield echoes


@contextmanager
def burning(host: Host) -> Iterator[None]:
    """Keep both processors at work, by processes of the host, while the block runs."""
    processes = [host.popen(["python3", "-c", "while True: pass"], name=f"burner{n}") for n in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def pids_of(host: Host, pattern: str) -> list[int]:
    """Return the pids, on the host, of its processes whose command lines match."""
    found = json.loads(host.run(["python3", "-c", _FIND, pattern]).stdout)
    return [int(pid) for pid in found]


def pid_of(host: Host, pattern: str) -> int:
    """Return the pid, on the host, of its one process whose command line matches; 0 if there is none."""
    found = pids_of(host, pattern)
    return found[0] if len(found) == 1 else 0


_FIND = """
import json, os, re, sys
found = []
for entry in os.listdir("/proc"):
    if entry.isdigit() and int(entry) != os.getpid():
        try:
            line = open(f"/proc/{entry}/cmdline", "rb").read().replace(b"\\0", b" ").decode()
        except OSError:
            continue
        if re.search(sys.argv[1], line):
            found.append(int(entry))
print(json.dumps(found))
"""


def send(host: Host, pattern: str, number: signal.Signals) -> None:
    """Send a signal to the host's one process whose command line matches."""
    host.run(["python3", "-c", "import os,sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))",
              str(pid_of(host, pattern)), str(int(number))])


EXABGP, RELAY, BGPD = r"bin/exabgp server", r"relay\.py --socket", r"bin/calico-bgpd"


# --- far sides -------------------------------------------------------------------------------------------------------


class FarSide(Protocol):
    """node2's BGP speaker, of whatever make, that has a session with node1 and announces 10.65.2.0/26."""

    def start(self) -> None:
        """Start it, for the first time or again."""

    def kill(self) -> None:
        """Kill it with all that belongs to it; its kernel routes stay."""

    def is_up(self) -> bool:
        """Whether it takes the session with node1 for established."""

    def since(self) -> str:
        """Return something that changes when the session falls and comes back."""

    def routes(self) -> dict[str, str]:
        """Return what it learned and has in its kernel."""


class OurFarSide:
    """bgpd, as on node1."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._host = mesh, mesh["node2"]

    def start(self) -> None:
        self._mesh.start("node2", wait=False)

    def kill(self) -> None:
        self._mesh.daemons["node2"].kill()
        send(self._host, EXABGP, signal.SIGKILL)

    def is_up(self) -> bool:
        return self._mesh.is_up("node2", "node1")

    def since(self) -> str:
        return str(self._mesh.sessions("node2")[str(self._mesh["node1"].address)]["since"])

    def routes(self) -> dict[str, str]:
        return {prefix: way for prefix, way in routes(self._host).items() if way != "blackhole"}


class BirdFarSide:
    """BIRD, with graceful restart."""

    def __init__(self, mesh: Mesh, *, restart_seconds: int = 120) -> None:
        near = mesh["node1"].address
        self._bird = bird_beside(mesh["node2"], near, block(2), restart_seconds=restart_seconds)

    def start(self) -> None:
        self._bird.start(recover=bool(self._bird.processes))

    def kill(self) -> None:
        self._bird.process.kill()

    def is_up(self) -> bool:
        return "Established" in self.since()

    def since(self) -> str:
        return self._bird.ask("show protocols peer0")

    def routes(self) -> dict[str, str]:
        return self._bird.routes()


def bird_beside(host: Host, near: IPv4Address, *announces: str, password: str = "", **settings: Any) -> Bird:
    """Return a BIRD, not started yet, that peers with one node; `settings` are its own."""
    return Bird(host, neighbors=[Neighbor(address=str(near), password=password)], announces=announces, **settings)


@contextmanager
def with_bird(*static: str, env: Mapping[str, str] = NO_ENV, **settings: Any) -> Iterator[tuple[Mesh, Bird]]:
    """node1 has bgpd; node2 is a node of the mesh on which BIRD runs."""
    with Cluster(2) as cluster:
        mesh = Mesh(cluster, **env)
        # node2's address is the greater one: bgpd waits, BIRD connects
        mesh.start("node1", wait=False)
        bird = bird_beside(mesh["node2"], mesh["node1"].address, *(static or (block(2),)), **settings)
        bird.start()
        wait_until("the session with BIRD", lambda: mesh.is_up("node1", "node2"), timeout=20)
        yield mesh, bird
