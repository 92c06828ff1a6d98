"""IPAM on a real etcd: processes in contention, answers that are cut off, a server that goes away."""

import ipaddress
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.etcdserver import EtcdServer
from fakes.ipam_world import World
from fakes.tcpproxy import TcpProxy
from ipam.allocator import Allocator
from ipam.errors import OutcomeUnknown
from ipam.results import Release
from resources.datastore import keys
from resources.datastore.etcd import EtcdStore
from resources.datastore.etcdconfig import EtcdConfig
from resources.errors import StoreUnavailable, Transient
from resources.names import HandleId, IPAddress, NodeName

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60

WORKER = """
import json, sys, time
from ipam.allocator import Allocator
from ipam.results import Release
from resources.datastore.etcd import EtcdStore
from resources.datastore.etcdconfig import EtcdConfig

endpoint, node, count, at_once, released = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
store = EtcdStore(EtcdConfig(endpoints=(endpoint,)))
allocator = Allocator(store, node, deadline_seconds=30)
held, slowest = [], 0.0
for turn in range(count // at_once):
    began = time.monotonic()
    got = allocator.auto_assign(version=4, count=at_once)
    slowest = max(slowest, time.monotonic() - began)
    held += [(str(address), got.handle) for address in got.addresses]
    if turn < released:
        address, handle = held.pop(0)
        assert allocator.release([Release(got.addresses[0].__class__(address), handle=handle)]) == []
print(json.dumps({"held": held, "slowest": slowest}))
store.close()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


def connect(endpoint: str) -> EtcdStore:
    return EtcdStore(EtcdConfig(endpoints=(endpoint,)))


@pytest.fixture
def world(server: EtcdServer) -> Iterator[World]:
    store = connect(server.endpoint)
    world = World(store)
    for kv in store.list("/calico/").items:
        world.delete(kv.key)
    world.node(*(f"node{n}" for n in range(8)))
    yield world
    store.close()


def real(store: EtcdStore, node: str = "node1", seconds: float = 8.0) -> Allocator:
    return Allocator(store, NodeName(node), deadline_seconds=seconds)


class Worker:
    """A process that assigns `count` addresses, `at_once` per call, and gives some back."""

    def __init__(self, endpoint: str, node: str, count: int, *, at_once: int = 1, released: int = 0) -> None:
        arguments = [endpoint, node, str(count), str(at_once), str(released)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.slowest = 0.0

    def held(self) -> dict[IPAddress, HandleId]:
        try:
            out, err = self._process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        assert self._process.returncode == 0, err.decode()
        result = json.loads(out)
        self.slowest = result["slowest"]
        return {ipaddress.ip_address(address): HandleId(handle) for address, handle in result["held"]}


def all_held(workers: list[Worker]) -> dict[IPAddress, HandleId]:
    together: dict[IPAddress, HandleId] = {}
    for worker in workers:
        held = worker.held()
        assert not held.keys() & together.keys(), "an address was given twice"
        together.update(held)
    return together


def test_what_is_in_etcd(world: World) -> None:
    world.pool("17.16.10.0/24")
    world.pool("fd00::/64")
    assert isinstance(world.store, EtcdStore)
    allocator = real(world.store)
    four = allocator.auto_assign(version=4, handle=HandleId("h"))
    six = allocator.auto_assign(version=6, handle=HandleId("h"))
    block4, block6 = f"{four.one()}-26", f"{six.one()}-122"
    assert set(world.ipam()) == {
        f"assignment/ipv4/block/{block4}", f"assignment/ipv6/block/{block6}", "handle/h",
        f"host/node1/ipv4/block/{block4}", f"host/node1/ipv6/block/{block6}",
    }
    world.assert_sound({four.one(): HandleId("h"), six.one(): HandleId("h")})
    assert allocator.release([Release(four.one()), Release(four.one() + 1)]) == [four.one() + 1]
    assert allocator.release_by_handle(HandleId("h")) == 1
    assert allocator.remove_host(NodeName("node1")) == 2
    assert world.ipam() == {}


def test_a_block_with_a_handle_for_each_of_its_addresses_goes_in_a_few_transactions(world: World) -> None:
    world.pool("10.8.0.0/24", blockSize=24)
    assert isinstance(world.store, EtcdStore)
    allocator = real(world.store)
    hold = threading.Barrier(32)
    got: list[IPAddress] = []

    def assign() -> None:
        hold.wait(PATIENCE_SECONDS)
        for _ in range(8):
            got.append(allocator.auto_assign(version=4, timeout=60).one())

    threads = [threading.Thread(target=assign, daemon=True) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert sorted(map(int, got)) == [int(address) for address in ipaddress.ip_network("10.8.0.0/24")]
    before = world.store.list(keys.IPAM).revision
    assert allocator.release([Release(address) for address in got]) == []
    assert world.store.list(keys.IPAM).revision - before == 3
    world.assert_sound({})


def test_hosts_empty_a_pool_to_the_last_address(world: World, server: EtcdServer) -> None:
    pool = world.pool("10.8.0.0/25", blockSize=29)
    workers = [Worker(server.endpoint, f"node{n}", 32, at_once=2**n) for n in range(4)]
    held = all_held(workers)
    assert held.keys() == set(pool)
    world.assert_sound(held)


def test_processes_of_one_host_share_one_block_and_none_starves(world: World, server: EtcdServer) -> None:
    world.pool("10.8.0.0/26")
    workers = [Worker(server.endpoint, "node1", 16) for _ in range(4)]
    held = all_held(workers)
    assert len(held) == 64
    assert len(world.blocks()) == 1
    world.assert_sound(held)
    assert max(worker.slowest for worker in workers) < 5


def test_hosts_that_come_and_go_end_with_what_they_hold(world: World, server: EtcdServer) -> None:
    world.pool("10.8.0.0/26", blockSize=29)
    workers = [Worker(server.endpoint, f"node{n}", 20, released=14) for n in range(4)]
    held = all_held(workers)
    assert len(held) == 24
    world.assert_sound(held)


def test_an_answer_that_is_cut_off_is_found_again(world: World, server: EtcdServer) -> None:
    world.pool("10.8.0.0/24")
    with TcpProxy(server.members[0].client_port) as proxy:
        store = connect(proxy.endpoint)

        def lose_answers_of_transactions(request: bytes) -> None:
            proxy.lose_answers = b"kv/txn" in request

        allocator = real(store)
        held: dict[IPAddress, HandleId] = {}
        for _ in range(3):
            proxy.on_request = lose_answers_of_transactions
            got = allocator.auto_assign(version=4)
            held[got.one()] = got.handle
            proxy.on_request = lambda _: None
            proxy.lose_answers = False
        proxy.on_request = lose_answers_of_transactions
        address, _ = held.popitem()
        assert allocator.release([Release(address)]) == []
        store.close()
    world.assert_sound(held)


def test_a_server_that_goes_away_and_comes_back(world: World) -> None:
    """Callers get an address, or an error in time; what is held without a caller bears the handle of one that failed
    or was told that nobody knows."""
    with EtcdServer() as mortal:
        store = connect(mortal.endpoint)
        world = World(store)
        world.node("node1", "node2")
        world.pool("10.8.0.0/22")
        told: dict[IPAddress, HandleId] = {}
        failed: set[HandleId] = set()
        slowest = 0.0
        lock, done = threading.Lock(), threading.Event()

        def work(node: str) -> None:
            nonlocal slowest
            own = connect(mortal.endpoint)
            allocator, serial = real(own, node, seconds=2), 0
            while not done.is_set():
                serial += 1
                handle = HandleId(f"{node}-{serial}")
                began = time.monotonic()
                try:
                    address = allocator.auto_assign(version=4, handle=handle).one()
                except (StoreUnavailable, OutcomeUnknown, Transient):
                    with lock:
                        failed.add(handle)
                else:
                    with lock:
                        assert address not in told
                        told[address] = handle
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.01)
            own.close()

        threads = [threading.Thread(target=work, args=(node,), daemon=True) for node in ("node1", "node2")]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(0.5)
            mortal.kill()
            time.sleep(2.5)
            mortal.start()
        time.sleep(2)
        done.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        held = {address: HandleId(h.handle or "") for address, h in world.held().items()}
        assert told.items() <= held.items()
        assert set(held.values()) - set(told.values()) <= failed
        assert failed
        assert slowest < 8
        for handle in failed & world.handles().keys():
            world.allocator("node1").release_by_handle(handle)
        world.assert_sound(told)
        store.close()
