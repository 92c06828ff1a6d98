"""Hosts on which felix runs alone: endpoints are bare namespaces, their records written by hand, and plain static
routes stand where BGP would put its own.

Not imported by `bed` itself, which needs the standard library only: ``from bed.felix import FelixLab``.
"""

import functools
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

from bed.cluster import Cluster, HostPlan
from bed.command import Process, Timeout, wait_until
from bed.grid import matrix
from bed.host import Firewall, Host
from bed.probes import Address, Prober, Reply, TalkResult, ping
from bed.workload import Workload
from fakes.felix_records import host as node_record
from fakes.felix_records import network_profile, settings, workload
from kernel.nfgen import Generation
from kernel.xtables import KERNEL_CHAINS, BackEnd, TableKey
from kernel.xtables_info import TableInfo
from resources.codec import encode
from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.keys import ResourceKey, resource_key
from resources.datastore.settings import connect
from resources.datastore.store import Committed, Store, Transaction
from resources.kinds import by_plural
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.runtime import health

NETWORKS = {"net-a": "10.65.0.0/24", "net-b": "10.66.0.0/24"}
"""By profile. The first host has the first /26 of each, the second host the second one, and so on."""
RESOURCES = "/calico/resources/v3/projectcalico.org/"
SOCKET = "/run/calico/felix.sock"
BATCH = 60
"""Puts, and deletions, in one transaction; etcd takes 128 operations."""
REFERRING = ("workloadendpoints", "hostendpoints", "globalnetworkpolicies", "networkpolicies")
"""Kinds that name records of other kinds."""
_COUNTERS = re.compile(r" ?\[\d+:\d+\]")
Record = tuple[ResourceKey, Resource]
Pairs = set[str]
"""Who reaches whom: ``a0>a1``."""


class FelixLab:
    """A cluster of hosts with felix and nothing else; profiles net-a and net-b, and an etcd that holds the records.

    `put` and `remove` change the store and return when every felix has done what follows from it.
    """

    def __init__(
        self, hosts: int = 2, *, firewall: Firewall | None = None, back_end: BackEnd = BackEnd.NFT
    ) -> None:
        """`back_end`: which variant of iptables the hosts have, for everybody on them; felix finds that out."""
        names = [f"node{number}" for number in range(1, hosts + 1)]
        self.cluster = Cluster([HostPlan(name=name, firewall=firewall, iptables=back_end) for name in names])
        self.back_end = back_end
        self.felix: dict[str, Process] = {}
        self.workloads: dict[str, Workload] = {}
        self.keys: dict[str, ResourceKey] = {}
        self.store: Store
        self._tolerated: list[str] = []
        self._said_before: dict[Path, int] = {}
        self._forgotten: set[str] = set()

    def __enter__(self) -> "FelixLab":
        self.cluster.up()
        try:
            self.store = connect(EtcdConfig(endpoints=tuple(self.cluster.store.endpoint_list)))
            with self.cluster.fabric.entered():
                ResourceClient(self.store).ensure_defaults("docker")
            returns = FelixConfigurationSpec(default_endpoint_to_host_action="Return")
            self.write(
                *(network_profile(name) for name in NETWORKS),
                *(node_record(host.node, f"{host.address}/24") for host in self.hosts),
                *(settings(returns, name=f"node.{host.node}") for host in self.hosts),
            )
            self.cluster.on_each(self._route_blocks)
            self.cluster.on_each(self.start)
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.__exit__()

    @property
    def hosts(self) -> list[Host]:
        return self.cluster.hosts

    @property
    def node1(self) -> Host:
        return self.hosts[0]

    @property
    def node2(self) -> Host:
        return self.hosts[1]

    def _route_blocks(self, host: Host) -> None:
        lines = []
        for cidr in NETWORKS.values():
            for other, block in zip(self.hosts, ip_network(cidr).subnets(new_prefix=26), strict=False):
                lines.append(
                    f"route add blackhole {block} proto 81" if other is host else
                    f"route add {block} via {other.address} proto 81"
                )
        host.ip(batch="\n".join(lines) + "\n")

    # -- the daemon

    def start(self, host: Host, *, env: Mapping[str, str] | None = None, wait: bool = True) -> Process:
        """Start felix on a host and wait until it is ready."""
        process = self.felix[host.name] = host.popen(["calico-felix"], env=env)
        if wait:
            self.await_ready(host)
        return process

    def last_start(self, name: str) -> str:
        """Return what felix on a host has logged since it was started last."""
        _, marker, text = self.felix[name].text.rpartition("event=setting.effective name=node ")
        assert marker
        return text

    def await_ready(self, host: Host, *, timeout: float = 60.0) -> float:
        """In a guest that takes 12 s by itself."""
        process = self.felix[host.name]
        try:
            wait_until(
                f"felix on {host.name} to be ready (see {process.log})",
                lambda: self.ask(host, "/readiness")[0] == 204 or not process.alive,
                timeout=timeout,
            )
        except Timeout as error:  # the file is in the guest, or goes with the bed
            raise Timeout(f"{error}\n{process.text[-3000:]}") from None
        if not process.alive:
            raise Timeout(f"felix on {host.name} ended with {process.exit}:\n{process.text[-3000:]}")
        return 0.0

    def ask(self, host: Host, question: str) -> tuple[int, str]:
        """Ask felix's health socket; status 0 means that nobody answers."""
        return health.ask(host.path(SOCKET), question, timeout=5.0)

    def state(self, host: Host) -> Mapping[str, object]:
        """Return what felix says it is at; nothing if it does not answer."""
        status, body = self.ask(host, "/state")
        found = json.loads(body) if status == 200 else {}
        assert isinstance(found, dict)
        return found

    def repaired(self, host: Host, what: str = "filter (IPv4)") -> tuple[int, str]:
        """Return how often felix on a host has put a table or device right, and what it had found the last time."""
        repaired = self.state(host)["repaired"]
        assert isinstance(repaired, dict)
        found = repaired.get(what, {"times": 0, "found": ""})
        return found["times"], found["found"]

    def complaints(self) -> list[str]:
        """Return what any felix logged as a warning or worse, but for what was tolerated or forgotten."""
        words = ("level=warning", "level=error", "level=critical", "Traceback")
        lines = [f"{name}: {line}" for name, process in self.felix.items() for line in process.text.splitlines()]
        complaints = [line for line in lines if any(word in line for word in words) and line not in self._forgotten]
        return [line for line in complaints if not any(text in line for text in self._tolerated)]

    def tolerate(self, *texts: str) -> None:
        """Take log lines with these texts for no complaint from now on."""
        self._tolerated += texts

    def forget_complaints(self) -> None:
        """Begin anew with complaints, with tolerance, and with what `said` returns."""
        self._tolerated.clear()
        self._forgotten.update(self.complaints())
        self._said_before = {felix.log: len(felix.text) for felix in self.felix.values()}

    def said(self, host: Host, text: str) -> list[str]:
        """Return the lines with this text that felix on a host logged since complaints were last forgotten."""
        felix = self.felix[host.name]
        return [line for line in felix.text[self._said_before.get(felix.log, 0) :].splitlines() if text in line]

    # -- rules, whichever variant of iptables the hosts have

    def saved(self, host: Host, *tables: str, counters: bool = False) -> list[str]:
        """Return all rules and chains of a host, or of some of its tables, without comments and (mostly) counters.

        A plain ``host.run("iptables -S FORWARD")`` is fine in tests, too: it is the variant that the lab is of.
        """
        options = [f"{'-c' * counters} -t {table}" for table in tables] or ["-c" * counters]
        lines = host.run("; ".join(f"iptables-save {o}; ip6tables-save {o}" for o in options)).stdout.splitlines()
        return [line if counters else _COUNTERS.sub("", line) for line in lines if not line.startswith("#")]

    def ours(self, host: Host) -> list[str]:
        """Return the rules and chains of felix on a host, and its rules in chains of others."""
        return [line for line in self.saved(host) if "cali" in line]

    def foreign(self, host: Host) -> list[str]:
        return [line for line in self.saved(host) if "cali" not in line]

    def generation(self, host: Host) -> object:
        """Return something that differs once rules were changed by anybody. (Legacy: not if one was replaced by one of
        the same size.)"""
        with host.entered():
            if self.back_end is BackEnd.NFT:
                asked = Generation()
                try:
                    return asked.now()
                finally:
                    asked.close()
            info = TableInfo()
            try:
                return [info.of(TableKey(version, table)) for version in (4, 6) for table in KERNEL_CHAINS]
            finally:
                info.close()

    # -- the store

    def write(self, *records: Record, remove: Iterable[ResourceKey] = ()) -> int:
        """Change the store and return its revision, without waiting for anybody: one transaction for each kind.

        (What one transaction does to several kinds is heard kind by kind, so nobody could tell when all is heard.
        More records than etcd takes at once make several transactions.)
        """
        doomed = list(remove)
        revision = 0
        for plural in dict.fromkeys([key.plural for key, _ in records] + [key.plural for key in doomed]):
            revision = self._commit_all(
                [(resource_key(k), encode(by_plural()[plural], value)) for k, value in records if k.plural == plural],
                [resource_key(key) for key in doomed if key.plural == plural],
            )
        return revision

    def _commit_all(self, puts: list[tuple[str, bytes]], deletes: list[str]) -> int:
        revision = 0
        for at in range(0, max(len(puts), len(deletes)), BATCH):
            revision = self._commit(dict(puts[at : at + BATCH]), deletes[at : at + BATCH])
        return revision

    def write_raw(self, key: ResourceKey, value: bytes) -> int:
        """Put any bytes where a record belongs."""
        return self._commit({resource_key(key): value}, [])

    def _commit(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> int:
        with self.cluster.fabric.entered():
            outcome = self.store.commit(Transaction(puts=puts, deletes=frozenset(deletes)))
        assert isinstance(outcome, Committed)
        return outcome.revision

    def put(self, *records: Record, remove: Iterable[ResourceKey] = (), timeout: float = 10.0) -> float:
        """Change the store, wait until it is done on every host, and return the seconds that took."""
        began = time.monotonic()
        self.settle(self.write(*records, remove=remove), timeout=timeout)
        return time.monotonic() - began

    def remove(self, *keys: ResourceKey) -> float:
        return self.put(remove=keys)

    def settle(self, revision: int, *, timeout: float = 10.0) -> None:
        """Wait until every felix that runs has done what the store says at a revision."""
        for host in self.hosts:
            if self.felix[host.name].alive:
                wait_until(
                    f"felix on {host.name} to be at revision {revision}",
                    functools.partial(self._is_at, host, revision),
                    timeout=timeout,
                    every=0.005,
                )

    def _is_at(self, host: Host, revision: int) -> bool:
        at = self.state(host).get("revision", 0)
        return isinstance(at, int) and at >= revision

    def snapshot(self) -> dict[str, bytes]:
        """Return all records."""
        with self.cluster.fabric.entered():
            return {item.key: item.value for item in self.store.list(RESOURCES).items}

    def restore(self, before: Mapping[str, bytes]) -> None:
        """Make the store as it was, and wait until that is done."""
        now = self.snapshot()
        puts = {key: value for key, value in before.items() if now.get(key) != value}
        doomed = [key for key in now if key not in before]
        if puts or doomed:
            # felix hears kind by kind, and would complain of what refers to something that is not there
            plurals = sorted({_plural(key) for key in [*puts, *doomed]}, key=lambda plural: plural in REFERRING)
            revision = 0
            for plural in plurals:
                at = self._commit_all([item for item in puts.items() if _plural(item[0]) == plural], [])
                revision = max(revision, at)
            for plural in reversed(plurals):
                at = self._commit_all([], [key for key in doomed if _plural(key) == plural])
                revision = max(revision, at)
            self.settle(revision, timeout=60.0)

    # -- endpoints

    def attach(
        self,
        host: Host,
        name: str,
        address: str | Sequence[str],
        *,
        profiles: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        ports: Sequence[tuple[str, str, int]] = (),
        wait: bool = True,
        record: bool = True,
    ) -> Workload:
        """Put a workload on a host, and its record in the store. It has the label ``name``.

        Its network is that of its address, unless `profiles` says otherwise.
        """
        made = Workload(host, name, address)
        made.net.run(TELL_REFUSALS)
        self.workloads[name] = made
        if record:
            self.record(made, profiles=profiles, labels=labels, ports=ports, wait=wait)
        return made

    def record(
        self,
        made: Workload,
        *,
        profiles: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        ports: Sequence[tuple[str, str, int]] = (),
        wait: bool = True,
    ) -> int:
        """Write the record of a workload, or write it anew; return the revision."""
        revision = self.write(self.record_of(made, profiles=profiles, labels=labels, ports=ports))
        if wait:
            self.settle(revision)
        return revision

    def record_of(
        self,
        made: Workload,
        *,
        profiles: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        ports: Sequence[tuple[str, str, int]] = (),
    ) -> Record:
        """Return the record of a workload, to be written."""
        if profiles is None:
            profiles = [name for name, cidr in NETWORKS.items() if made.address in ip_network(cidr)]
        key, value = workload(
            made.name,
            *(f"{address}/{address.max_prefixlen}" for address in made.addresses),
            node=made.host.node,
            interface=made.interface,
            profiles=profiles,
            labels={"name": made.name, **(labels or {})},
            ports=ports,
            mac="",
        )
        self.keys[made.name] = key
        return key, value

    def unrecord(self, name: str) -> float:
        """Remove the record of a workload that stays; return the seconds until every felix has done it."""
        return self.remove(self.keys.pop(name))

    def detach(self, name: str) -> None:
        """Take a workload and its record away, as Docker does: the record first."""
        if key := self.keys.pop(name, None):
            self.remove(key)
        self.workloads.pop(name).close()

    def forget_flows(self) -> None:
        """Make every host forget the connections of workloads, so that what a test let in is not answered later."""
        addresses = [str(address) for made in self.workloads.values() for address in made.addresses]
        lines = [f"conntrack -D {way} {address}" for address in addresses for way in ("-s", "-d")]
        for host in self.hosts:
            host.run("; ".join(lines), check=False)

    # -- who reaches whom

    def open_pairs(
        self, among: Sequence[Prober] | None = None, probe: Callable[[Address], Reply] | None = None
    ) -> Pairs:
        """Return the pairs that reach each other, among all workloads if not told otherwise."""
        chosen = list(among or self.workloads.values())
        quick = functools.partial(ping, timeout=0.4)
        grid = matrix(chosen, chosen, probe or quick)  # type: ignore[arg-type]  # whoever is named here has an address
        answered = (pair for pair, reply in grid.replies.items() if reply.ok)
        return {f"{source}>{target}" for source, target in answered if source != target}

    def expect(self, wanted: Iterable[str], among: Sequence[Prober] | None = None) -> None:
        """Check that exactly the `wanted` pairs reach each other by ping.

        A pair that should be open has more patience: the machine may be busy.
        """
        wanted = set(wanted)
        found = self.open_pairs(among)
        assert found <= wanted, f"open and should not be: {sorted(found - wanted)}"
        by_name = {each.name: each for each in [*(among or ()), *self.workloads.values()]}
        for pair in sorted(wanted - found):
            source, target = (by_name[name] for name in pair.split(">"))
            reply = source.ping(target.address, timeout=3.0)  # type: ignore[attr-defined]
            assert reply.ok, f"{pair} should be open: {reply.error}"


def _plural(key: str) -> str:
    return key.removeprefix(RESOURCES).partition("/")[0]


TELL_REFUSALS = "cd /proc/sys/net && echo 0 >ipv4/icmp_ratelimit && echo 0 >ipv6/icmp/ratelimit"
"""A refusal tells a datagram's sender that it came through; by default a few are told, then one in a while."""


def tcp_passes(address: Address, port: int, *, timeout: float = 0.4) -> TalkResult:
    """Return whether a connection gets through to the other end, be there a listener or a refusal."""
    with socket.socket(_family(address), socket.SOCK_STREAM) as talker:
        talker.settimeout(timeout)
        try:
            talker.connect((str(address), port))
        except ConnectionRefusedError:
            pass
        except OSError as error:
            return TalkResult(ok=False, error=str(error))
    return TalkResult(ok=True)


def udp_passes(address: Address, port: int, *, timeout: float = 0.4) -> TalkResult:
    """Return whether a datagram gets through to a port where nobody listens: a refusal comes back."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as talker:
        talker.settimeout(timeout)
        try:
            talker.connect((str(address), port))
            talker.send(b"?")
            talker.recv(1)
        except ConnectionRefusedError:
            return TalkResult(ok=True)
        except OSError as error:
            return TalkResult(ok=False, error=str(error))
    return TalkResult(ok=True)


def raw_passes(
    source: Workload, target: Workload, protocol: int, *, payload: bytes = b"?" * 32, version: int = 4
) -> bool:
    """Return whether a bare IP packet of a protocol gets through, as seen at the other end."""
    here, there = source.address_of(version), target.address_of(version)
    with target.entered():
        receiver = socket.socket(_family(there), socket.SOCK_RAW, protocol)
    with receiver:
        with source.entered(), socket.socket(_family(here), socket.SOCK_RAW, protocol) as sender:
            sender.sendto(payload, (str(there), 0))
        until = time.monotonic() + 0.4
        while (left := until - time.monotonic()) > 0 and select.select([receiver], [], [], left)[0]:
            packet, peer = receiver.recvfrom(65535)
            if peer[0] == str(here) and packet.endswith(payload):
                return True
    return False


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(str(address)).version == 6 else socket.AF_INET


def ports_that_pass(source: Prober, address: Address, ports: Iterable[int], *, protocol: str = "tcp") -> set[int]:
    """Return those of the ports that get through, tried all at once."""
    probe = tcp_passes if protocol == "tcp" else udp_passes
    tried = sorted(ports)
    with source.entered(), ThreadPoolExecutor(len(tried)) as pool:
        replies = list(pool.map(lambda port: probe(address, port).ok, tried))
    return {port for port, passed in zip(tried, replies, strict=True) if passed}
