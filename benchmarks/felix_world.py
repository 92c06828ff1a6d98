"""Two hosts for felix's benchmarks: on one felix runs, on the other the same state was written by standard tools.

Everything is in network namespaces, with a real etcd in one. `grow` brings the store to a size, `mirror` copies what
felix made of it to the reference host. The endpoints that are measured are namespaces of their own; those that only
have to be there are bare interfaces, or records of another host.
"""

import hashlib
import json
import os
import re
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from bed.cluster import Cluster, HostPlan
from bed.command import Process, wait_until
from bed.host import Host
from bed.workload import Workload
from fakes.felix_records import host as node_record
from fakes.felix_records import network_profile, policy, rule, settings, workload
from resources.codec import encode
from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.keys import ResourceKey, resource_key
from resources.datastore.settings import connect
from resources.datastore.store import Committed, Store, Transaction
from resources.kinds import by_plural
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import WorkloadEndpointSpec
from resources.runtime import health

SOCKET = "/run/calico/felix.sock"
TIMEOUT_SECONDS = 60.0
PER_TRANSACTION = 100
PROBE_SECONDS = 0.0005
"""How often an answer is asked for: what a time is exact to."""
TABLES = ("raw", "mangle", "nat", "filter")
Record = tuple[ResourceKey, Resource]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is there beside what is measured. Each endpoint has ten policies at either size."""

    name: str
    local: int
    policies: int
    remote: int

    @property
    def apps(self) -> int:
        """Different values of the label by which policies select."""
        return max(1, self.policies // 10)


SMALL = Size("small", local=10, policies=10, remote=0)
LARGE = Size("large", local=200, policies=1000, remote=10_000)
ROLES = 20


def background_policy(number: int, size: Size, *, app: str = "", name: str = "p") -> Record:
    """A policy with three ingress rules and one, two or no egress rules: 7.3 rules of iptables on average."""
    rules = [
        rule("Allow", "TCP", source=EntityRule(selector=f"role == 'r{number % ROLES}'"),
             destination=EntityRule(ports=[8000 + number % 100])),
        rule("Allow", "TCP", source=EntityRule(nets=[f"10.{number % 200}.0.0/16"]),
             destination=EntityRule(ports=["9000:9100"])),
        rule("Deny", "UDP", destination=EntityRule(ports=[53])),
    ]
    out = [rule("Allow", "TCP", destination=EntityRule(ports=[443]))] if number % 3 else []
    if number % 3 == 1:
        out.append(rule("Allow", "UDP", destination=EntityRule(ports=[123])))
    types = ["Ingress", "Egress"] if out else ["Ingress"]
    selector = f"app == '{app or f'a{number % size.apps}'}'"
    return policy(f"{name}{number:04}", selector, rules, out, types=types, order=number)


def grant(source: str) -> Record:
    """The policy by which the client's echo requests are answered: whoever has the role."""
    rules = [rule("Allow", "ICMP", source=EntityRule(selector=f"role == '{source}'"))]
    return policy("grant", "has(app)", rules, [Rule(action="Allow")], types=["Ingress", "Egress"], order=5000)


def background(size: Size) -> list[Record]:
    """All records that are there beside what is measured."""
    records: list[Record] = [grant("client")]
    records += [background_policy(number, size) for number in range(size.policies)]
    records += [
        workload(endpoint_id("local", number), f"10.65.{number // 250}.{number % 250 + 1}/32", profiles=["net-a"],
                 labels={"app": f"a{number % size.apps}", "role": f"r{number % ROLES}"})
        for number in range(size.local)
    ]
    records += [
        workload(endpoint_id("remote", number), f"{IPv4Address('10.70.0.0') + number}/32", profiles=["net-a"],
                 labels={"app": f"a{number % size.apps}", "role": f"r{number % ROLES}"}, node="node2")
        for number in range(size.remote)
    ]
    return records


def endpoint_id(kind: str, number: int) -> str:
    """An endpoint's id: as random as Docker's, and always the same."""
    return hashlib.sha256(f"{kind}{number}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelText:
    """What iptables-save (IPv4) and ipset save print of a host, counters off."""

    chains: Mapping[tuple[str, str], Sequence[str]]
    sets: frozenset[str] = frozenset()
    """Lines that make sets and add members."""


class Pinger:
    """Sends echo requests from a workload, each a connection of its own, and waits for an answer."""

    def __init__(self, source: Workload) -> None:
        with source.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._id = os.getpid() & 0x3FF

    def until_answered(self, target: IPv4Address, timeout: float = TIMEOUT_SECONDS) -> float:
        """Return the time (monotonic) of the first answer."""
        self._drain()
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self._send(target)
            if self._heard(target, PROBE_SECONDS):
                return time.monotonic()
        raise TimeoutError(f"{target} did not answer within {timeout:g} s")

    def is_answered(self, target: IPv4Address, seconds: float = 0.05) -> bool:
        """Return whether one request is answered within so long."""
        self._drain()
        self._send(target)
        return self._heard(target, seconds)

    def _send(self, target: IPv4Address) -> None:
        self._id = (self._id + 1) & 0xFFFF
        body = struct.pack("!HH", self._id, 1) + b"benchmark."
        words = struct.unpack(f"!{(len(body) + 4) // 2}H", struct.pack("!BBH", 8, 0, 0) + body)
        total = sum(words)
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        try:
            self._socket.sendto(struct.pack("!BBH", 8, 0, checksum) + body, (str(target), 0))
        except OSError:
            pass

    def _heard(self, target: IPv4Address, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
            packet, (peer, _) = self._socket.recvfrom(2048)
            if peer == str(target) and packet[20] == 0:
                return True
        return False

    def _drain(self) -> None:
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(2048)

    def close(self) -> None:
        self._socket.close()


class World:
    """The two hosts, the store, and what runs on them."""

    def __init__(self, back_end: str) -> None:
        """`back_end`: NFT or Legacy."""
        self.back_end = back_end
        self.variant = back_end.lower()
        self.cluster = Cluster([HostPlan(name="node1"), HostPlan(name="node2")])
        self.felix: Process | None = None
        self.store: Store
        self._sized: list[ResourceKey] = []
        self._dummies: set[str] = set()

    def __enter__(self) -> "World":
        self.cluster.up()
        try:
            self.store = connect(EtcdConfig(endpoints=tuple(self.cluster.store.endpoint_list)))
            with self.cluster.fabric.entered():
                ResourceClient(self.store).ensure_defaults("docker")
            chosen = FelixConfigurationSpec(default_endpoint_to_host_action="Return", iptables_backend=self.back_end)
            self.put(
                network_profile("net-a"),
                *(node_record(host.node, f"{host.address}/24") for host in self.cluster.hosts),
                settings(chosen),
            )
            self._quiet(self.reference)
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.__exit__()

    @property
    def host(self) -> Host:
        """The host that felix runs on."""
        return self.cluster.hosts[0]

    @property
    def reference(self) -> Host:
        """The host on which scripts do what felix does on the other."""
        return self.cluster.hosts[1]

    def _quiet(self, host: Host) -> None:
        host.sysctl("net.ipv4.ip_forward", 1)

    # -- the store

    def put(self, *records: Record, remove: Iterable[ResourceKey] = ()) -> int:
        """Change the store and return its revision."""
        revision = 0
        puts = [(resource_key(key), encode(by_plural()[key.plural], value)) for key, value in records]
        doomed = [resource_key(key) for key in remove]
        for start in range(0, len(puts), PER_TRANSACTION):
            revision = self.commit(dict(puts[start : start + PER_TRANSACTION]))
        for start in range(0, len(doomed), PER_TRANSACTION):
            revision = self.commit({}, doomed[start : start + PER_TRANSACTION])
        return revision

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> int:
        with self.cluster.fabric.entered():
            outcome = self.store.commit(Transaction(puts=puts, deletes=frozenset(deletes)))
        assert isinstance(outcome, Committed)
        return outcome.revision

    def grow(self, size: Size) -> int:
        """Bring the store and the local interfaces to a size; return the revision."""
        wanted = dict(background(size))
        interfaces = {
            value.spec.interface_name
            for value in wanted.values()
            if isinstance(value.spec, WorkloadEndpointSpec) and value.spec.node == "node1"
        }
        for host in self.cluster.hosts:
            batch = [f"link del {name}" for name in self._dummies - interfaces]
            for name in sorted(interfaces - self._dummies):
                batch += [f"link add {name} type veth peer name far{name[4:]}", f"link set {name} up"]
            if batch:
                host.ip(batch="\n".join(batch) + "\n")
        self._dummies = interfaces
        revision = self.put(*wanted.items(), remove=[key for key in self._sized if key not in wanted])
        self._sized = list(wanted)
        return revision

    # -- felix

    def start(self) -> Process:
        self.felix = self.host.popen(["calico-felix"])
        return self.felix

    def stop(self) -> None:
        if self.felix is not None:
            self.felix.terminate()
            self.felix = None

    def ask(self, question: str) -> tuple[int, str]:
        return health.ask(self.host.path(SOCKET), question, timeout=5.0)

    def settle(self, revision: int) -> None:
        """Wait until felix has done what the store says at a revision."""
        assert self.felix is not None
        what = f"felix at {revision} (see {self.felix.log})"
        wait_until(what, lambda: self._is_at(revision), timeout=TIMEOUT_SECONDS, every=0.02)

    def _is_at(self, revision: int) -> bool:
        status, body = self.ask("/state")
        return status == 200 and int(json.loads(body)["revision"]) >= revision

    # -- what is in the kernel

    def kernel_text(self) -> KernelText:
        """Read what felix wrote."""
        saved = self.host.run([f"iptables-{self.variant}-save"]).stdout
        lines = self.host.run(["ipset", "save"]).stdout.splitlines()
        sets = frozenset(line.partition(" hashsize")[0] for line in lines if line.split()[1].startswith("cali4"))
        return KernelText(chains=parse_chains(saved), sets=sets)

    def mirror(self) -> None:
        """Give the reference host what felix wrote on the other: rules, sets, routes."""
        for command, text in self.state_files().items():
            self.reference.run(command, stdin=text, timeout=120)

    def state_files(self) -> dict[str, str]:
        """Return what loads all that felix wrote: commands and what they read."""
        files = {"ipset -exist restore": self.host.run(["ipset", "save"]).stdout}
        routes = self.host.ip("route", "show", "proto", "80").stdout.splitlines()
        lines = [f"route replace {line.replace(' linkdown', '')} proto 80" for line in routes]
        for family in ("iptables", "ip6tables"):
            files[f"{family}-{self.variant}-restore"] = self.host.run([f"{family}-{self.variant}-save"]).stdout
        files["ip -batch -"] = "\n".join(line for line in lines if line) + "\n"
        return files

    def wipe(self, host: Host) -> None:
        """Take away rules, sets and routes, as on a host that was just booted."""
        empty = "".join(f"*{table}\nCOMMIT\n" for table in TABLES)
        for family in ("iptables", "ip6tables"):
            host.run([f"{family}-{self.variant}-restore"], stdin=empty)
        host.run(["ipset", "destroy"])
        host.run("ip route flush proto 80; true")


def parse_chains(saved: str) -> dict[tuple[str, str], list[str]]:
    """Return the lines of our chains by table and chain of what iptables-save printed."""
    table = ""
    chains: dict[tuple[str, str], list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif found := re.match(r"(?::|-A )(cali-\S+)", line):
            chain = chains.setdefault((table, found[1]), [])
            if line.startswith("-A"):
                chain.append(line)
    return chains


def script(
    before: KernelText, after: KernelText, *, restore: str, extra: Sequence[str] = (), first: Sequence[str] = ()
) -> str:
    """Return a shell script that makes `after` of `before` as one would write it by hand; IPv4 only.

    `first` and `extra` are commands before and after it.
    """
    lines = ["set -e", *first]
    new, gone = after.sets - before.sets, before.sets - after.sets
    doomed = [f"destroy {line.split()[1]}" for line in gone if line.startswith("create")]
    set_lines = sorted(new, key=lambda line: not line.startswith("create"))
    set_lines += [f"del{line[3:]}" for line in gone if line.startswith("add")]
    if set_lines:
        lines += ["ipset -exist restore <<EOF", *set_lines, "EOF"]
    tables: dict[str, list[str]] = {}
    for (table, chain), rules in after.chains.items():
        if before.chains.get((table, chain)) != rules:
            tables.setdefault(table, []).append(f":{chain} - -")
    for (table, chain), rules in after.chains.items():
        if before.chains.get((table, chain)) != rules:
            tables[table] += rules
    for table, chain in before.chains.keys() - after.chains.keys():
        tables.setdefault(table, []).extend([f"-F {chain}", f"-X {chain}"])
    if tables:
        lines.append(f"{restore} --noflush <<EOF")
        for table, commands in tables.items():
            lines += [f"*{table}", *commands, "COMMIT"]
        lines.append("EOF")
    if doomed:
        lines += ["sleep 0.05", "ipset restore <<EOF", *doomed, "EOF"]  # the kernel lets go of rules later
    return "\n".join([*lines, *extra]) + "\n"
