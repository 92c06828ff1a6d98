"""Hosts with bgpd and nothing else, and other BGP speakers beside them: real ExaBGP, etcd and kernels.

There is no felix here: nothing but bgpd writes routes. The address of a "workload" is put on its host's loopback.

Not imported by `bed` itself, which needs the standard library only: ``from bed.bgp import Mesh``.
"""

import json
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, ip_address
from types import MappingProxyType
from typing import Any

from bed.cluster import Cluster
from bed.command import Process, Timeout, wait_until
from bed.etcd import Etcd
from bed.host import Host
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


def put(store: Etcd, *records: tuple[str, bytes]) -> None:
    operations = [f"put {key} {json.dumps(value.decode())}" for key, value in records]
    store.etcdctl("txn", stdin="\n" + "\n".join(operations) + "\n\n\n")


def routes(host: Host, protocol: str = "81") -> dict[str, str]:
    """Return the routes of a protocol, as ``via A dev D`` or ``blackhole``."""
    found = {}
    for route in json.loads(host.ip("-j", "-N", "route", "show", "table", "main").stdout or "[]"):
        if str(route.get("protocol")) == protocol:
            blackhole = route.get("type") == "6"
            destination = route["dst"] if "/" in route["dst"] else f"{route['dst']}/32"
            found[destination] = "blackhole" if blackhole else f"via {route.get('gateway')} dev {route.get('dev')}"
    return found


@contextmanager
def monitored(host: Host) -> Iterator[list[str]]:
    """Collect what happens to routes on a host while the block runs."""
    process = host.popen(["ip", "-4", "monitor", "route"])
    time.sleep(0.2)
    events: list[str] = []
    yield events
    time.sleep(0.2)
    process.kill()
    events += [line for line in process.text.splitlines() if line.strip()]


@contextmanager
def pinging(host: Host, address: str) -> Iterator[list[bool]]:
    """Ping ten times a second while the block runs; the list gets what was answered."""
    answers: list[bool] = []
    ending = False

    def flood() -> None:
        while not ending:
            answers.append(host.ping(ip_address(address), timeout=1.0).ok)
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flood)
        try:
            yield answers
        finally:
            ending = True
            running.result()


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


# --- other speakers --------------------------------------------------------------------------------------------------

BIRD = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; persist; }}
protocol static st {{ ipv4; {routes} }}
protocol bgp mesh {{
  local {address} as {number};
  neighbor {peer} as 64512;
  {more}
  connect delay time 1; connect retry time 2;
  graceful restart {graceful}; graceful restart time {seconds};
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"""


class Bird:
    """A host with BIRD 2 that peers with one address; `graceful` is BIRD's word: on, off or aware."""

    def __init__(
        self, host: Host, peer: IPv4Address, *static: str, graceful: str = "on", seconds: int = 120,
        number: int = 64512, more: str = "",
    ) -> None:
        self.host, self._peer, self._graceful, self._seconds = host, peer, graceful, seconds
        self._number, self._more = number, more
        self.configure(*static)
        self.start()

    def configure(self, *static: str) -> None:
        """Announce these prefixes (``10.0.0.0/8`` or ``10.0.0.0/8 via A``)."""
        lines = "".join(f"route {one if ' ' in one else one + ' blackhole'}; " for one in static)
        self.host.write_file(
            "/run/bird.conf",
            BIRD.format(
                address=self.host.address, peer=self._peer, routes=lines, graceful=self._graceful,
                seconds=self._seconds, number=self._number, more=self._more,
            ),
        )

    def start(self) -> None:
        self.process = self.host.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])

    def ask(self, command: str) -> str:
        return self.host.run(["birdc", "-s", "/run/bird.ctl", *command.split()], check=False).stdout


@contextmanager
def with_bird(*static: str, env: Mapping[str, str] = NO_ENV, **settings: Any) -> Iterator[tuple[Mesh, Bird]]:
    """node1 has bgpd; node2 is a node of the mesh on which BIRD runs."""
    with Cluster(2) as cluster:
        mesh = Mesh(cluster, **env)
        # node2's address is the greater one: bgpd waits, BIRD connects
        mesh.start("node1", wait=False)
        bird = Bird(mesh["node2"], mesh["node1"].address, *(static or (block(2),)), **settings)
        wait_until("the session with BIRD", lambda: mesh.is_up("node1", "node2"), timeout=20)
        yield mesh, bird
