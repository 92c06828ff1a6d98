"""Addresses per second against the bare transactions needed, through the same client on the same etcd, in turn.

    .venv/bin/python benchmarks/ipam_addresses.py

A bare transaction compares one key, puts a block of 64 addresses and a handle. Figures are medians of rounds that
alternate within seconds, because machines vary from minute to minute; what counts is the ratio (reference ipam.md 6.4).
"""

import ipaddress
import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from results import Row, tell  # noqa: E402

from fakes.etcdserver import EtcdServer  # noqa: E402
from fakes.ipam_world import World  # noqa: E402
from ipam import assign, block  # noqa: E402
from ipam.allocator import Allocator  # noqa: E402
from ipam.block import Owner, new_block  # noqa: E402
from ipam.cache import WatchedCache  # noqa: E402
from ipam.results import Release  # noqa: E402
from resources.datastore.etcd import EtcdStore  # noqa: E402
from resources.datastore.etcdconfig import EtcdConfig  # noqa: E402
from resources.datastore.store import Committed, Outcome, Transaction  # noqa: E402
from resources.datastore.sync import InSync, SyncMessage  # noqa: E402
from resources.datastore.syncer import Syncer  # noqa: E402
from resources.names import HandleId, IPAddress, NodeName  # noqa: E402

ROUNDS, PER_ROUND, HOSTS, AT_ONCE = 7, 40, 8, 32
TIMEOUT_SECONDS = 120


class CountingStore(EtcdStore):
    """Counts transactions."""

    transactions = 0

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:
        self.transactions += 1
        return super().commit(transaction, timeout=timeout)


def bare(store: EtcdStore, name: str) -> Callable[[int], None]:
    """Return a function that makes some bare transactions on a block of its own."""
    cidr, attributes = ipaddress.ip_network("192.0.2.0/26"), {"node": name, "type": "docker"}
    full = new_block(cidr, NodeName(name), datetime.now(UTC), time.time_ns())
    for n in range(32):
        full, _ = assign.assign(full, 1, Owner(HandleId(f"docker-{n:032}"), attributes), lambda _: False)
    value, key, serial = block.encode(full), f"/bench/{name}/block", itertools.count()
    handle = b'{"block":{"192.0.2.0/26":1},"deleted":false}'

    def run(count: int) -> None:
        found = store.get(key)
        revision = found.revision if found else 0
        for _ in range(count):
            puts = {key: value, f"/bench/{name}/handle/{next(serial)}": handle}
            outcome = store.commit(Transaction(expect={key: revision}, puts=puts))
            assert isinstance(outcome, Committed)
            revision = outcome.revision

    return run


def watched(store: EtcdStore, node: str) -> tuple[Allocator, Callable[[], None]]:
    """Return an allocator that a watch keeps up to date, as the daemons have it, and how to end it."""
    cache = WatchedCache(store, NodeName(node))
    in_sync = threading.Event()

    def take(message: SyncMessage) -> None:
        cache.take(message)
        if isinstance(message, InSync):
            in_sync.set()

    syncer = Syncer(store, cache.prefixes, take)
    syncer.start()
    assert in_sync.wait(TIMEOUT_SECONDS)

    def end() -> None:
        syncer.stop()
        store.close()

    return Allocator(store, NodeName(node), deadline_seconds=60, source=cache.source), end


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def worker(endpoint: str, node: str, kind: str, count: int) -> None:
    """Wait for a line on standard input, work, print the seconds it took."""
    store = EtcdStore(EtcdConfig(endpoints=(endpoint,)))
    run = bare(store, node)
    allocator, end = watched(store, node)
    print("ready", flush=True)
    for _ in sys.stdin:
        if kind == "bare":
            took = seconds(lambda: run(count))
        else:
            took = seconds(lambda: [allocator.auto_assign(version=4).one() for _ in range(count)])
        print(took, flush=True)
    end()


class Crowd:
    """Processes that work at the same time."""

    def __init__(self, endpoint: str, kind: str, count: int) -> None:
        command = [sys.executable, __file__, "worker", endpoint]
        self._all = [
            subprocess.Popen([*command, f"node{n}", kind, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
            for n in range(HOSTS)
        ]
        for process in self._all:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def round(self) -> float:
        """Let all work once; return the seconds until the last had done."""
        began = time.perf_counter()
        for process in self._all:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in self._all:
            assert process.stdout is not None
            float(process.stdout.readline())
        return time.perf_counter() - began

    def end(self) -> None:
        for process in self._all:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(TIMEOUT_SECONDS)


def one_by_one(server: EtcdServer) -> list[tuple[str, float, float]]:
    """Return per kind: name, addresses per second, bare transactions per second."""
    store = EtcdStore(EtcdConfig(endpoints=server.endpoints))
    world, run = World(store), bare(store, "node1")
    world.node("node1")
    world.pool("10.8.0.0/16")
    allocator, end = watched(store, "node1")
    floors, assigned, released = [], [], []
    held: list[IPAddress] = []

    def assign_some() -> None:
        held.extend(allocator.auto_assign(version=4).one() for _ in range(PER_ROUND))

    def release_them() -> None:
        while held:
            allocator.release([Release(held.pop())])

    for _ in range(ROUNDS):
        floors.append(PER_ROUND / seconds(lambda: run(PER_ROUND)))
        assigned.append(PER_ROUND / seconds(assign_some))
        released.append(PER_ROUND / seconds(release_them))
    end()
    floor = statistics.median(floors)
    return [("assign, one host, one by one", statistics.median(assigned), floor),
            ("release, one host, one by one", statistics.median(released), floor)]


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def at_once(server: EtcdServer) -> tuple[float, float]:
    """Return addresses per second and per transaction when many are asked for at once on one host."""
    store = CountingStore(EtcdConfig(endpoints=server.endpoints))
    world = World(store)
    world.node("node1")
    world.pool("10.9.0.0/16")
    world.config(strict_affinity=True, maxBlocksPerHost=100)
    allocator, end = watched(store, "node1")
    allocator.auto_assign(version=4)
    store.transactions, rates = 0, []
    for _ in range(ROUNDS):
        start = threading.Barrier(AT_ONCE + 1)

        def assign_one(start: threading.Barrier = start) -> None:
            start.wait()
            allocator.auto_assign(version=4).one()

        threads = [threading.Thread(target=assign_one) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        start.wait()
        rates.append(AT_ONCE / seconds(partial(join, threads)))
    end()
    return statistics.median(rates), ROUNDS * AT_ONCE / store.transactions


def contention(server: EtcdServer) -> tuple[float, float]:
    """Return addresses and bare transactions per second of eight hosts together."""
    store = EtcdStore(EtcdConfig(endpoints=server.endpoints))
    world = World(store)
    world.node(*(f"node{n}" for n in range(HOSTS)))
    world.pool("10.8.0.0/16")
    count = 24
    ours, floor = Crowd(server.endpoint, "ours", count), Crowd(server.endpoint, "bare", count)
    rates, floors = [], []
    for _ in range(ROUNDS):
        floors.append(HOSTS * count / floor.round())
        rates.append(HOSTS * count / ours.round())
    ours.end()
    floor.end()
    store.close()
    return statistics.median(rates), statistics.median(floors)


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    with EtcdServer() as server:
        rates = one_by_one(server)
    with EtcdServer() as server:
        rate, per_transaction = at_once(server)
    with EtcdServer() as server:
        crowded = contention(server)
    aimed = [(name, ours, floor, 0.6) for name, ours, floor in rates]
    tell([
        *(Row(name=name, samples=[ours], unit="/s", reference=[floor], reference_name="bare transactions", aim=aim,
              more_is_better=True)
          for name, ours, floor, aim in (*aimed, (f"assign, {HOSTS} hosts at the same time", *crowded, None))),
        Row(name=f"assign, {AT_ONCE} asked for at once", samples=[rate], unit="/s", more_is_better=True),
        Row(name=f"addresses per transaction, {AT_ONCE} asked for at once", samples=[per_transaction], unit="", aim=5,
            more_is_better=True, absolute=True),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
