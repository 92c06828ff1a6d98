"""Random changes of everything that BGP depends on, and what must hold whenever they stop.

Four nodes with bgpd, and BIRD as a peer of node1, whose daemons are never touched: they are the ones to be measured. On
the others bgpd and ExaBGP are killed, links are cut and records taken away. Blocks, filters, communities and what BIRD
announces change all the time. A second BIRD is told the same as node1, and never by way of a change: node1 must come to
have been told what it has.
"""

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from bed.bgp import EXABGP, Mesh, block, put
from bed.cluster import Cluster
from bed.command import wait_until
from bed.host import Host
from bed.routes import routes
from bed.speakers import Bird, Neighbor
from fakes.bgp_host import affinity_record, block_record, configuration_record, filter_record, node_record, peer_record

NODES, FAR, MIRROR = 4, "node5", "node6"
HOSTS = NODES + 2
WITNESS = "node1"
SPARE_BLOCKS, FAR_BLOCKS = 40, 30
CUT_SECONDS = (0.5, 12.0)
"""Shorter and longer than the hold time."""

_READ = r"""
import json, os, re
NAMES = {"bgpd": r"bin/calico-bgpd", "exabgp": r"bin/exabgp server", "relay": r"relay\.py --socket"}
found = {}
for entry in filter(str.isdigit, os.listdir("/proc")):
    if int(entry) == os.getpid():
        continue
    try:
        words = open(f"/proc/{entry}/cmdline", "rb").read().replace(b"\0", b" ").decode()
        pages = int(open(f"/proc/{entry}/statm").read().split()[1])
        files = len(os.listdir(f"/proc/{entry}/fd"))
    except OSError:
        continue
    for name, pattern in NAMES.items():
        if re.search(pattern, words):
            found[name] = (pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files)
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process uses: MB of memory, and open files."""

    memory: float
    files: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """How a prefix was told."""

    next_hop: str
    as_path: str
    local_preference: int
    med: int
    communities: frozenset[str]


def figures(host: Host) -> dict[str, Figures]:
    """Return what bgpd, ExaBGP and the relay of a host use, by these names."""
    found = json.loads(host.run(["python3", "-c", _READ]).stdout)
    return {name: Figures(*one) for name, one in found.items()}


class Churn:
    """A cluster of `HOSTS` hosts, what it should come to, and a random walk."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.mesh, self._random = Mesh(cluster), random.Random(seed)
        self._core = cluster.fabric.core
        self._hosts = {host.name: host for host in cluster.hosts}
        self._addresses = {host.name: host.address for host in cluster.hosts}
        self._nodes = [f"node{number}" for number in range(1, NODES + 1)]
        self._owned = {block(number): f"node{number}" for number in range(1, NODES + 1)}
        self._announced: list[str] = [_far_block(0)]
        self._rejected: set[str] = set()
        self._cut: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self.steps = 0
        for number, name in enumerate((FAR, MIRROR), NODES + 1):
            self.mesh.remove(*self.mesh.records(number, self._addresses[name]))
        self._put_filter()
        self.mesh.put(
            peer_record("far", node=WITNESS, peerIP=str(self._addresses[FAR]), asNumber=64512, filters=["churn"])
        )
        self.mesh.start(*self._nodes, wait=False)
        told = [Neighbor(address=str(self._addresses[name])) for name in (WITNESS, MIRROR)]
        self.bird = Bird(self._hosts[FAR], neighbors=told, announces=self._lines(), restart_seconds=20)
        self.mirror = Bird(self._hosts[MIRROR], neighbors=[Neighbor(address=str(self._addresses[FAR]))])
        self.bird.start()
        self.mirror.start()

    # --- the walk ----------------------------------------------------------------------------------------------------

    def walk(self, seconds: float) -> None:
        """Change one thing after the other for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()
            time.sleep(self._random.uniform(0.0, 0.2))

    def step(self) -> None:
        """Make one change, and undo what was only for some time."""
        self.steps += 1
        self._mend(time.monotonic())
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self._blocks_come), (6, self._blocks_go), (4, self._bird_says_other), (2, self._filter_changes),
            (2, self._communities_change), (1, self._bgpd_dies), (1, self._exabgp_dies), (1, self._link_is_cut),
            (1, self._node_goes),
        ]  # fmt: skip
        self._random.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()

    def _victim(self) -> str:
        return self._random.choice(self._nodes[1:])

    def _blocks_come(self) -> None:
        owner = self._random.choice(self._nodes)
        for number in self._random.sample(range(SPARE_BLOCKS), 3):
            prefix = _spare_block(owner, number)
            self._owned[prefix] = owner
            put(self.mesh.store, block_record(prefix, owner), affinity_record(prefix, owner))

    def _blocks_go(self) -> None:
        spare = [prefix for prefix in self._owned if int(prefix.split(".")[2]) > NODES]
        for prefix in self._random.sample(spare, min(3, len(spare))):
            owner = self._owned.pop(prefix)
            self.mesh.remove(block_record(prefix, owner), affinity_record(prefix, owner))

    def _bird_says_other(self) -> None:
        chosen = self._random.sample(range(FAR_BLOCKS), self._random.randint(1, FAR_BLOCKS))
        self._announced = [_far_block(number) for number in sorted(chosen)]
        self.bird.configure(*self._lines())
        self.bird.ask("configure")

    def _lines(self) -> list[str]:
        """Return what BIRD is to announce, each with a metric and some communities, for once."""
        lines = []
        for prefix in self._announced:
            numbers = self._random.sample(range(20), self._random.randint(0, 4))
            said = "".join(f" bgp_community.add((64512,{number}));" for number in numbers)
            lines.append(f"{prefix} blackhole {{ bgp_med = {self._random.randint(0, 9)};{said} }}")
        return lines

    def _filter_changes(self) -> None:
        chosen = self._random.sample(range(FAR_BLOCKS), self._random.randint(0, 5))
        self._rejected = {_far_block(number) for number in chosen}
        self._put_filter()

    def _put_filter(self) -> None:
        rules = [{"action": "Reject", "matchOperator": "Equal", "cidr": prefix} for prefix in sorted(self._rejected)]
        self.mesh.put(filter_record("churn", importV4=rules))

    def _communities_change(self) -> None:
        number = self._random.randint(0, 3)
        said = [{"cidr": "10.65.0.0/16", "communities": [f"64512:{number}"]}] if number else []
        self.mesh.put(configuration_record(prefixAdvertisements=said))

    def _bgpd_dies(self) -> None:
        victim = self._victim()
        self.mesh.daemons[victim].kill()
        if self._random.random() < 0.3:
            self._end_exabgp(victim)
        self.mesh.start(victim, wait=False)

    def _exabgp_dies(self) -> None:
        self._end_exabgp(self._victim())

    def _end_exabgp(self, victim: str) -> None:
        # there may be none at the moment
        self._hosts[victim].run(["python3", "-c", _KILL, EXABGP, str(int(signal.SIGKILL))], check=False)

    def _link_is_cut(self) -> None:
        if (victim := self._victim()) not in self._cut:
            self._cut[victim] = time.monotonic() + self._random.uniform(*CUT_SECONDS)
            self._core.ip("link", "set", self._hosts[victim].port, "down")

    def _node_goes(self) -> None:
        if (victim := self._victim()) not in self._gone:
            self._gone[victim] = time.monotonic() + self._random.uniform(0.1, 5.0)
            self.mesh.remove(node_record(victim, ""))

    def _mend(self, now: float) -> None:
        for victim in [name for name, until in self._cut.items() if until <= now]:
            del self._cut[victim]
            self._core.ip("link", "set", self._hosts[victim].port, "up")
        for victim in [name for name, until in self._gone.items() if until <= now]:
            del self._gone[victim]
            self.mesh.put(node_record(victim, f"{self._addresses[victim]}/24"))

    # --- what must hold ----------------------------------------------------------------------------------------------

    def settle(self, *, timeout: float = 90.0) -> float:
        """Stop, and wait until every kernel has what the records say; return how long that took, in seconds."""
        began = time.monotonic()
        self._mend(float("inf"))
        for name in self._nodes:
            wait_until(
                f"{name} to have what the records say, after {self.steps} steps",
                lambda: routes(self._hosts[name]) == self.expected(name),  # noqa: B023
                timeout=timeout,
                every=0.2,
            )
        own = {f"{prefix}" for prefix, owner in self._owned.items() if owner == WITNESS}
        wait_until("BIRD to have node1's blocks", lambda: set(self.bird.routes()) == own, timeout=30, every=0.2)
        wait_until(
            f"{WITNESS} to have been told what another BIRD was told, after {self.steps} steps",
            lambda: self.adj_in() == self.mirrored(),
            timeout=30,
            every=0.2,
        )
        return time.monotonic() - began

    def expected(self, name: str) -> dict[str, str]:
        """Return the routes of a node, computed from the records alone."""
        found = {
            prefix: "blackhole" if owner == name else f"via {self._addresses[owner]} dev eth0"
            for prefix, owner in self._owned.items()
        }
        if name == WITNESS:
            accepted = [prefix for prefix in self._announced if prefix not in self._rejected]
            found |= dict.fromkeys(accepted, f"via {self._addresses[FAR]} dev eth0")
        return found

    def adj_in(self) -> dict[str, Attributes]:
        """Return what BIRD told the witness, whether a filter lets it in or not, as the witness says."""
        return {
            route["prefix"]: Attributes(
                path["next_hop"], path["as_path"], path["local_preference"], path["med"],
                frozenset(path["communities"]),
            )
            for route in self.mesh.learned(WITNESS)
            for path in route["paths"]
            if path["peer"] == str(self._addresses[FAR]) and not path["stale"]
        }  # fmt: skip

    def mirrored(self) -> dict[str, Attributes]:
        """Return what BIRD told the other BIRD, as that says."""
        return {
            prefix: Attributes(
                told["BGP.next_hop"], told["BGP.as_path"], int(told["BGP.local_pref"]), int(told["BGP.med"]),
                frozenset(one.strip("()").replace(",", ":") for one in told.get("BGP.community", "").split()),
            )
            for prefix, told in self.mirror.told(4).items()
        }  # fmt: skip

    def start_afresh(self, name: str) -> None:
        """Have a node forget everything, kernel routes too, and start its daemons again."""
        self.mesh.daemons[name].kill()
        self._hosts[name].run("calico-bgpd --end-speaker; ip route flush proto 81", check=False)
        self.mesh.start(name, wait=False)

    def witness(self) -> dict[str, Figures]:
        return figures(self._hosts[WITNESS])

    def said(self, name: str) -> str:
        """Return what bgpd of a node logged."""
        return self.mesh.daemons[name].text


def _spare_block(owner: str, number: int) -> str:
    return f"10.65.{int(owner.removeprefix('node')) * 40 + number // 4}.{number % 4 * 64}/26"


def _far_block(number: int) -> str:
    return f"10.65.{220 + number}.0/26"


_KILL = """
import os, re, sys
for entry in os.listdir("/proc"):
    if entry.isdigit() and int(entry) != os.getpid():
        try:
            line = open(f"/proc/{entry}/cmdline", "rb").read().replace(b"\\0", b" ").decode()
            if re.search(sys.argv[1], line):
                os.kill(int(entry), int(sys.argv[2]))
        except OSError:
            continue
"""
