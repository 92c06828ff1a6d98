"""bgpd on several hosts, with real ExaBGP, etcd and kernels, and BIRD on the far side where that matters.

There is no felix here: nothing but bgpd writes routes. The address of a "workload" is put on its host's loopback.
"""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from bed import Cluster, Fabric, Host, HostPlan, Process, Timeout, wait_until
from bed.etcd import Etcd
from calicoctl.node import birdctl
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    node_record,
    peer_record,
    pool_record,
)
from resources.runtime import health

POOL = pool_record("p", "10.65.0.0/16")
HOLD_SECONDS = 9
ENV = {"BGPD_HOLD_SECONDS": str(HOLD_SECONDS)}


def block(node: int) -> str:
    return f"10.65.{node}.0/26"


class Mesh:
    """Hosts node1, node2, ... of a cluster with bgpd on each; each has one block, 10.65.N.0/26."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.store = cluster, cluster.store
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
            self.daemons[name] = self[name].popen(["calico-bgpd"], env=ENV)
        if wait:
            self.await_mesh()

    def state(self, name: str) -> Any:
        status, body = health.ask(self[name].path("/run/calico/bgpd.sock"), "/state", timeout=5)
        return json.loads(body) if status == 200 else {}

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


def pid_of(host: Host, pattern: str) -> int:
    """Return the pid, on the host, of its one process whose command line matches; 0 if there is none."""
    found = json.loads(host.run(["python3", "-c", _FIND, pattern]).stdout)
    return int(found[0]) if len(found) == 1 else 0


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


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        yield mesh


@pytest.fixture
def pair() -> Iterator[Mesh]:
    with Cluster(2) as cluster:
        yield Mesh(cluster)


# --- the mesh ---------------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(1)
def test_three_nodes_are_meshed_within_three_seconds_of_their_start(mesh: Mesh) -> None:
    began = time.monotonic()
    mesh.start()
    for name in ("node1", "node2", "node3"):
        mesh.await_routes(name, mesh.expected(name))
    assert time.monotonic() - began < 8
    for host in mesh.cluster.hosts:
        established = host.run("ss -Htn state established '( sport = :179 or dport = :179 )'").stdout.splitlines()
        assert len(established) == 2
        listening = host.run("ss -Hltn 'sport = :179'").stdout.split()
        assert f"{host.address}:179" in listening
        assert not any(word.startswith(("0.0.0.0:179", "*:179")) for word in listening)
        assert {session["transitions"] for session in mesh.sessions(host.name).values()} == {1}
        status, body = health.ask(host.path("/run/calico/bgpd.sock"), "/readiness")
        assert (status, body) == (204, "")
        assert host.run("stat -c %a /run/calico/exabgp.conf /run/calico/bgp-relay.sock").stdout.split() == ["600"] * 2
    shown = birdctl.peers(mesh["node1"].path("/run/calico/bird.ctl"))
    assert [(peer.address, peer.type, peer.state, peer.info) for peer in shown] == [
        (str(mesh[name].address), "node-to-node mesh", "up", "Established") for name in ("node2", "node3")
    ]
    assert birdctl.peers(mesh["node1"].path("/run/calico/bird6.ctl")) == []
    assert "advice" not in mesh.daemons["node1"].text


@pytest.mark.bgp_scenario(3)
def test_the_smaller_address_waits_and_connections_never_collide() -> None:
    """10.77.0.9 and .10: as text the other one would be smaller."""
    plans = [HostPlan(name=f"node{number}") for number in range(1, 11)]
    with Fabric() as fabric:
        addresses = [fabric.next_address() for _ in plans]
        nine, ten = (
            Host(fabric, f"node{number}", address=addresses[number - 1], env={"IP": str(addresses[number - 1])})
            for number in (9, 10)
        )
        etcd = Etcd(fabric)
        put(etcd, POOL, node_record("node9", f"{nine.address}/24"), node_record("node10", f"{ten.address}/24"))
        for _ in range(3):
            daemons = [
                host.popen(["calico-bgpd"], env={**ENV, "ETCD_ENDPOINTS": etcd.endpoints}) for host in (ten, nine)
            ]
            for host, other, passive in ((nine, ten, True), (ten, nine, False)):
                def ready(host: Host = host) -> bool:
                    status, _ = health.ask(host.path("/run/calico/bgpd.sock"), "/readiness")
                    return status == 204

                wait_until(f"{host.name} to be ready", ready, timeout=20)

                def session(host: Host = host, other: Host = other) -> Any:
                    _, body = health.ask(host.path("/run/calico/bgpd.sock"), "/state", timeout=5)
                    [found] = [one for one in json.loads(body)["sessions"] if one["peer"] == str(other.address)]
                    return found

                wait_until(f"{host.name} to be up", lambda: session()["up"], timeout=20)
                assert session()["passive"] is passive
                assert session()["transitions"] == 1
            for daemon in daemons:
                daemon.terminate()
            for host in (nine, ten):
                assert host.run(["calico-bgpd", "--end-speaker"]).stdout == "The BGP speaker has ended.\n"


@pytest.mark.bgp_scenario(2, 4)
def test_nodes_come_go_and_move_without_touching_the_others(mesh: Mesh) -> None:
    mesh.start("node1", "node2")
    one, two, three = (mesh[f"node{number}"] for number in (1, 2, 3))
    before = mesh.sessions("node1")[str(two.address)]["since"]
    mesh.start("node3")
    mesh.await_routes("node1", mesh.expected("node1"))

    mesh.remove(*mesh.records(3, three.address))
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    mesh.await_routes("node2", mesh.expected("node2", "node1"))
    assert set(mesh.sessions("node1")) == {str(two.address)}

    moved = IPv4Address("10.77.0.33")
    three.ip("addr", "replace", f"{moved}/24", "dev", "eth0")
    mesh.put(*mesh.records(3, moved))
    expected = mesh.expected("node1", "node2") | {block(3): f"via {moved} dev eth0"}
    mesh.await_routes("node1", expected, timeout=30)
    assert set(mesh.sessions("node1")) == {str(two.address), str(moved)}
    assert mesh.sessions("node1")[str(two.address)]["since"] == before
    assert one.run("ss -Htn state established 'sport = :179 or dport = :179'").stdout.count("\n") == 2


def test_a_bad_record_harms_nobody(mesh: Mesh) -> None:
    mesh.start()
    mesh.put(node_record("node9", "10.77.0.300/24"), pool_record("bad", "10.66.0.0/99"))
    mesh.put(node_record("node8", "10.77.0.88/24; } process evil { run /bin/sh; }"))
    mesh.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    mesh.await_routes("node2", mesh.expected("node2") | {"10.65.1.64/26": f"via {mesh['node1'].address} dev eth0"})
    assert mesh.is_up("node1")
    assert "evil" not in mesh["node1"].read_file("/run/calico/exabgp.conf")
    assert any("node9" in str(one) for one in (mesh.state("node1")["unusable"], mesh.state("node1")["records"]))


@pytest.mark.bgp_scenario(32, 33, 34, 35)
def test_blocks_and_borrowed_addresses(mesh: Mesh) -> None:
    mesh.start()
    own = [block_record("10.65.1.128/26", "node1"), affinity_record("10.65.1.128/26", "node1", "pending")]
    mesh.put(*own, endpoint_record("node1", "b", "10.65.2.7/32"))
    borrowed = {"10.65.2.7/32": f"via {mesh['node1'].address} dev eth0"}
    for name in ("node2", "node3"):
        mesh.await_routes(name, mesh.expected(name) | borrowed)
    # the owner of the block prefers the holder of the address over its own blackhole
    way = mesh["node2"].ip("route", "get", "10.65.2.7").stdout
    assert str(mesh["node1"].address) in way

    mesh.put(affinity_record("10.65.1.128/26", "node1"))
    grown = {"10.65.1.128/26": f"via {mesh['node1'].address} dev eth0"}
    mesh.await_routes("node3", mesh.expected("node3") | borrowed | grown)
    mesh.put(affinity_record("10.65.1.128/26", "node1", "pendingDeletion"))
    mesh.remove(endpoint_record("node1", "b"))
    for name in ("node2", "node3"):
        mesh.await_routes(name, mesh.expected(name))
    mesh.await_routes("node1", mesh.expected("node1"))

    mesh.put(pool_record("p", "10.65.0.0/16", disableBGPExport=True))
    mesh.await_routes("node2", {block(2): "blackhole"})
    mesh.put(POOL)
    mesh.await_routes("node2", mesh.expected("node2"))


@pytest.mark.bgp_scenario(39)
def test_host_routes_stay_at_home(mesh: Mesh) -> None:
    mesh.start("node1", "node2")
    one = mesh["node1"]
    one.ip("link", "add", "docker0", "type", "bridge")
    one.ip("addr", "add", "172.17.0.1/16", "dev", "docker0")
    one.ip("link", "set", "docker0", "up")
    one.ip("route", "add", "10.65.200.0/24", "via", str(mesh["node3"].address))
    mesh.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    mesh.await_routes(
        "node2", mesh.expected("node2", "node1") | {"10.65.1.64/26": f"via {one.address} dev eth0"}
    )


@pytest.mark.bgp_scenario(41)
def test_ipv6_has_sessions_of_its_own(pair: Mesh) -> None:
    for number, host in enumerate(pair.cluster.hosts, 1):
        host.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        host.ip("addr", "add", f"fd99::{number}/64", "dev", "eth0", "nodad")
        name = f"node{number}"
        pair.put(
            node_record(name, f"{host.address}/24", ipv6=f"fd99::{number}/64"),
            pool_record("p6", "fd80::/48"),
            block_record(f"fd80::{number}:0/122", name),
            affinity_record(f"fd80::{number}:0/122", name),
        )
    pair.start()
    one = pair["node1"]

    def six() -> str:
        return one.ip("-6", "-N", "route", "show", "proto", "81").stdout

    wait_until("the other's IPv6 block", lambda: "fd80::2:0/122 via fd99::2 dev eth0" in six())
    assert "6 fd80::1:0/122 dev lo" in six()  # 6: blackhole
    assert set(pair.sessions("node1")) == {str(pair["node2"].address), "fd99::2"}


# --- kernel -----------------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(52)
def test_drift_is_repaired_and_foreign_routes_are_respected(pair: Mesh) -> None:
    pair.start()
    one, two = pair["node1"], pair["node2"]
    expected = pair.expected("node1")
    one.ip("route", "del", block(2))
    pair.await_routes("node1", expected, timeout=1)
    one.ip("route", "flush", "proto", "81")
    pair.await_routes("node1", expected, timeout=1)

    one.ip("route", "add", "10.65.2.64/26", "via", "10.77.0.200")
    pair.put(block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2"))
    wait_until("the conflict", lambda: list(pair.state("node1")["kernel"]["conflicts"]) == ["10.65.2.64/26"])
    assert "via 10.77.0.200" in one.ip("route", "show", "10.65.2.64/26").stdout
    assert pair.routes("node1") == expected
    one.ip("route", "del", "10.65.2.64/26")
    more = {"10.65.2.64/26": f"via {two.address} dev eth0"}
    pair.await_routes("node1", expected | more, timeout=2)
    assert "level=error" in pair.daemons["node1"].text
    assert "event=route.conflict" in pair.daemons["node1"].text


@pytest.mark.bgp_scenario(53)
def test_an_interface_goes_down_and_up(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    one.ip("link", "set", "eth0", "down")
    pair.await_routes("node1", {block(1): "blackhole"}, timeout=2)
    one.ip("link", "set", "eth0", "up")
    pair.await_routes("node1", pair.expected("node1"), timeout=2)


@pytest.mark.bgp_scenario(50)
def test_pools_with_tunnels_that_the_host_lacks_are_withheld(pair: Mesh) -> None:
    pair.start()
    for mode in ({"ipipMode": "Always"}, {"vxlanMode": "Always"}):
        pair.put(pool_record("p", "10.65.0.0/16", **mode))
        pair.await_routes("node1", {block(1): "blackhole"})
        assert list(pair.state("node1")["withheld"]) == [block(2)]
        # nothing for these addresses leaves the host in the clear by way of the default route either
        assert pair["node2"].ip("route", "show", block(2)).stdout.startswith("blackhole")
    assert "event=routes.withheld" in pair.daemons["node1"].text
    pair.put(POOL)
    pair.await_routes("node1", pair.expected("node1"))


# --- restarts ---------------------------------------------------------------------------------------------------------


def reach(pair: Mesh) -> str:
    """Put an address of node2's block on node2 and return it: answered only over the BGP route."""
    pair["node2"].ip("addr", "add", "10.65.2.1/32", "dev", "lo")
    return "10.65.2.1"


@pytest.mark.bgp_scenario(58)
def test_bgpd_is_killed_and_started_again_and_nobody_notices(pair: Mesh) -> None:
    pair.start()
    address = reach(pair)
    one, two = pair["node1"], pair["node2"]
    since = {peer: session["since"] for peer, session in pair.sessions("node2").items()}
    speaker = pid_of(one, EXABGP)
    with monitored(one) as here, monitored(two) as there, pinging(one, address) as answers:
        assert pair.daemons["node1"].kill() != 0
        time.sleep(1)
        pair.start("node1")
        time.sleep(1)
    assert all(answers)
    assert len(answers) > 15
    assert here == there == []
    assert pid_of(one, EXABGP) == speaker
    assert {peer: session["since"] for peer, session in pair.sessions("node2").items()} == since
    assert pair.is_up("node1")
    # what changes now goes out and comes in as before
    pair.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    pair.put(block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2"))
    pair.await_routes(
        "node1",
        pair.expected("node1") | {"10.65.1.64/26": "blackhole", "10.65.2.64/26": f"via {two.address} dev eth0"},
    )
    pair.await_routes(
        "node2",
        pair.expected("node2") | {"10.65.2.64/26": "blackhole", "10.65.1.64/26": f"via {one.address} dev eth0"},
    )


def test_a_stopped_bgpd_leaves_routes_and_sessions_until_the_speaker_is_ended(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    assert pair.daemons["node1"].terminate() == 0
    assert "event=daemon.stopped" in pair.daemons["node1"].text
    time.sleep(0.5)
    assert pair.routes("node1") == pair.expected("node1")
    assert pair.is_up("node2")
    assert one.run(["calico-bgpd", "--end-speaker"]).stdout == "The BGP speaker has ended.\n"
    assert one.run(["calico-bgpd", "--end-speaker"]).stdout == "No BGP speaker is running.\n"
    assert one.run(["python3", "-c", _FIND, f"{EXABGP}|{RELAY}"]).stdout == "[]\n"
    assert pair.routes("node1") == pair.expected("node1")
    wait_until("the session to be down", lambda: not pair.is_up("node2"))
    # the other side keeps its routes for the restart time
    assert pair.routes("node2") == pair.expected("node2")


@pytest.mark.bgp_scenario(59)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_exabgp_dies_and_no_packet_is_lost(pair: Mesh, number: signal.Signals) -> None:
    pair.start()
    address = reach(pair)
    one, two = pair["node1"], pair["node2"]
    with monitored(one) as here, monitored(two) as there, pinging(one, address) as answers:
        send(one, EXABGP, number)
        wait_until("the session to fall", lambda: not pair.is_up("node1"), every=0.01)
        pair.await_mesh(timeout=30)
        time.sleep(1)
    assert all(answers)
    assert here == there == []
    assert pair.state("node1")["speaker"]["restarts"] == 1


@pytest.mark.bgp_scenario(67)
def test_the_relay_is_stopped_and_the_watchdog_finds_out(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    send(one, RELAY, signal.SIGSTOP)
    for number in range(4):
        cidr = f"10.65.2.{64 * number}/26"
        pair.put(block_record(cidr, "node2"), affinity_record(cidr, "node2"))
    wait_until("the speaker to be replaced", lambda: pair.state("node1")["speaker"]["restarts"] == 1, timeout=45)
    pair.await_mesh(timeout=40)
    extra = {f"10.65.2.{64 * n}/26": f"via {pair['node2'].address} dev eth0" for n in range(4)}
    pair.await_routes("node1", pair.expected("node1") | extra)
    assert len(json.loads(one.run(["python3", "-c", _FIND, RELAY]).stdout)) == 1


@pytest.mark.bgp_scenario(69)
def test_a_bad_file_that_poisons_exabgp_is_overcome(pair: Mesh) -> None:
    pair.start()
    address = reach(pair)
    one = pair["node1"]
    good = one.read_file("/run/calico/exabgp.conf")
    one.write_file("/run/calico/exabgp.conf", good.replace("hold-time 9", "hold-time soon"), mode=0o600)
    send(one, EXABGP, signal.SIGUSR1)
    time.sleep(1)
    assert pair.is_up("node1")
    assert pair.state("node1")["speaker"]["restarts"] == 0
    before = pid_of(one, EXABGP)
    with monitored(one) as here, pinging(one, address) as answers:
        pair.put(node_record("node7", "10.77.0.77/24"))
        # the reload fails, and fails again, until ExaBGP is started anew
        wait_until("a new speaker", lambda: pid_of(one, EXABGP) != before, timeout=20, every=0.2)
        wait_until("the plan to be applied", lambda: pair.state("node1")["speaker"]["settled"], timeout=30)
        pair.await_mesh(timeout=30)
    assert all(answers)
    assert here == []
    assert "neighbor 10.77.0.77" in one.read_file("/run/calico/exabgp.conf")


@pytest.mark.bgp_scenario(70)
def test_etcd_goes_away_and_comes_back(pair: Mesh) -> None:
    pair.start()
    since = pair.sessions("node1")
    with monitored(pair["node1"]) as events:
        pair.store.stop()
        wait_until("bgpd to notice", lambda: pair.state("node1")["in_sync"] is False, timeout=40)
        assert pair.is_up("node1")
        pair.store.start()
        wait_until("bgpd to be in sync", lambda: pair.state("node1")["in_sync"] is True, timeout=40)
    assert events == []
    assert pair.sessions("node1") == since
    pair.put(block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2"))
    pair.await_routes(
        "node1", pair.expected("node1") | {"10.65.2.64/26": f"via {pair['node2'].address} dev eth0"}
    )


@pytest.mark.bgp_scenario(60)
def test_all_is_dead_and_the_store_does_not_answer(pair: Mesh) -> None:
    pair.start()
    one = pair["node1"]
    pair.daemons["node1"].kill()
    send(one, EXABGP, signal.SIGKILL)
    pair.store.stop()
    with monitored(one) as events:
        pair.start("node1", wait=False)
        time.sleep(6)
        assert pair.routes("node1") == pair.expected("node1")
        status, body = health.ask(one.path("/run/calico/bgpd.sock"), "/readiness")
        assert status == 503
        assert "the datastore" in body
    assert events == []
    pair.store.start()
    pair.await_mesh(timeout=40)
    assert pair.routes("node1") == pair.expected("node1")


@pytest.mark.bgp_scenario(61)
def test_what_disappeared_during_an_outage_goes_when_the_peer_has_told_all(pair: Mesh) -> None:
    more = [block_record("10.65.2.64/26", "node2"), affinity_record("10.65.2.64/26", "node2")]
    pair.put(*more)
    pair.start()
    wide = pair.expected("node1") | {"10.65.2.64/26": f"via {pair['node2'].address} dev eth0"}
    pair.await_routes("node1", wide)
    pair.daemons["node1"].kill()
    send(pair["node1"], EXABGP, signal.SIGKILL)
    pair.daemons["node2"].kill()
    send(pair["node2"], EXABGP, signal.SIGKILL)
    pair.remove(*more)
    pair.start("node1", wait=False)
    wait_until("bgpd to have read the store", lambda: pair.state("node1").get("in_sync") is True)
    time.sleep(1)
    assert pair.routes("node1") == wide
    pair.start("node2")
    pair.await_routes("node1", pair.expected("node1"), timeout=20)


@pytest.mark.bgp_scenario(66)
def test_a_cable_is_cut_for_longer_than_the_hold_time(pair: Mesh) -> None:
    pair.start()
    fabric, two = pair.cluster.fabric, pair["node2"]
    fabric.link(two.port, up=False)
    time.sleep(HOLD_SECONDS / 3)
    fabric.link(two.port, up=True)
    time.sleep(1)
    assert pair.is_up("node1")

    fabric.link(two.port, up=False)
    wait_until("the hold timer", lambda: not pair.is_up("node1"), timeout=2 * HOLD_SECONDS)
    pair.await_routes("node1", {block(1): "blackhole"})
    # long enough for ExaBGP to try seldom only
    time.sleep(15)
    fabric.link(two.port, up=True)
    began = time.monotonic()
    pair.await_mesh(timeout=20)
    assert time.monotonic() - began < 10
    pair.await_routes("node1", pair.expected("node1"))


# --- BIRD on the far side ---------------------------------------------------------------------------------------------

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
def with_bird(*static: str, **settings: Any) -> Iterator[tuple[Mesh, Bird]]:
    """node1 has bgpd; node2 is a node of the mesh on which BIRD runs."""
    with Cluster(2) as cluster:
        mesh = Mesh(cluster)
        # node2's address is the greater one: bgpd waits, BIRD connects
        mesh.start("node1", wait=False)
        bird = Bird(mesh["node2"], mesh["node1"].address, *(static or (block(2),)), **settings)
        wait_until("the session with BIRD", lambda: mesh.is_up("node1", "node2"), timeout=20)
        yield mesh, bird


@pytest.mark.bgp_scenario(43)
def test_routes_that_bird_sends_and_must_not() -> None:
    sent = {
        block(2): None,
        "0.0.0.0/0": "default",
        block(1): "own-block",
        "10.65.1.0/24": "own-block",
        "10.65.1.5/32": "own-block",
        "10.77.0.1/32": "node-address",
        "172.17.0.0/16": "not-in-pool",
        "10.66.0.0/26": "not-in-pool",
        "10.65.9.0/26 via 10.77.0.99": None,
    }
    with with_bird(*sent) as (mesh, _):
        expected = {prefix.split()[0]: reason for prefix, reason in sent.items()}

        def refused() -> dict[str, str | None]:
            return {route["prefix"]: route["paths"][0]["refused"] for route in mesh.state("node1")["routes"]}

        wait_until("all routes", lambda: len(refused()) == len(expected))
        assert refused() == expected
        here = mesh.expected("node1") | {"10.65.9.0/26": f"via {mesh['node2'].address} dev eth0"}
        mesh.await_routes("node1", here)
        counts = mesh.sessions("node1")[str(mesh["node2"].address)]
        assert counts["routes_refused"] == {"default": 1, "own-block": 3, "node-address": 1, "not-in-pool": 2}
        assert (counts["routes_received"], counts["routes_accepted"]) == (9, 2)

        # a bridge of Docker's makes one of them a network of our own
        one = mesh["node1"]
        one.ip("link", "add", "docker0", "type", "bridge")
        one.ip("addr", "add", "172.17.0.1/16", "dev", "docker0")
        one.ip("link", "set", "docker0", "up")
        wait_until("the bridge to count", lambda: refused()["172.17.0.0/16"] == "node-address")


@pytest.mark.bgp_scenario(59)
def test_exabgp_dies_and_bird_keeps_our_routes() -> None:
    more = [block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1")]
    with with_bird() as (mesh, bird):
        mesh.put(*more)
        ours = dict.fromkeys((block(1), "10.65.1.64/26"), f"via {mesh['node1'].address} dev eth0")
        wait_until("BIRD to have our blocks", lambda: routes(bird.host, "12") == ours)
        with monitored(bird.host) as events:
            send(mesh["node1"], EXABGP, signal.SIGKILL)
            wait_until("the session to fall", lambda: "Established" not in bird.ask("show protocols mesh"), every=0.01)
            wait_until("the session to be back", lambda: mesh.is_up("node1", "node2"), timeout=30)
            time.sleep(1)
        assert events == []
        assert routes(bird.host, "12") == ours
        assert "stale" not in bird.ask("show route all").lower()

        # and one that was given up meanwhile goes, and only that one
        mesh.daemons["node1"].kill()
        send(mesh["node1"], EXABGP, signal.SIGKILL)
        mesh.remove(*more)
        with monitored(bird.host) as events:
            mesh.start("node1", wait=False)
            wait_until("BIRD to have one block", lambda: len(routes(bird.host, "12")) == 1, timeout=30)
            time.sleep(1)
        assert [line.split()[:2] for line in events] == [["Deleted", "10.65.1.64/26"]]


@pytest.mark.bgp_scenario(62)
def test_a_bird_that_does_not_restart_gracefully() -> None:
    with with_bird(graceful="off") as (mesh, bird):
        mesh.await_routes("node1", mesh.expected("node1"))
        bird.process.kill()
        mesh.await_routes("node1", {block(1): "blackhole"}, timeout=2)
        bird.start()
        mesh.await_routes("node1", mesh.expected("node1"), timeout=15)


@pytest.mark.bgp_scenario(63)
def test_a_bird_that_restarts_gracefully() -> None:
    with with_bird(block(2), "10.65.2.64/26", seconds=6) as (mesh, bird):
        full = mesh.expected("node1") | {"10.65.2.64/26": f"via {mesh['node2'].address} dev eth0"}
        mesh.await_routes("node1", full)
        with monitored(mesh["node1"]) as events:
            bird.process.kill()
            wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), every=0.01)
            bird.configure(block(2))
            bird.start()
            wait_until("the session to be back", lambda: mesh.is_up("node1", "node2"), timeout=20)
        assert [line.split()[:2] for line in events] == [["Deleted", "10.65.2.64/26"]]

        # it never returns: kept for its restart time, then gone
        bird.process.kill()
        time.sleep(3)
        assert mesh.routes("node1") == mesh.expected("node1")
        mesh.await_routes("node1", {block(1): "blackhole"}, timeout=6)


@pytest.mark.bgp_scenario(55)
def test_ten_thousand_routes_come_and_go() -> None:
    many = [f"10.{128 + n // 1024}.{n // 4 % 256}.{n % 4 * 64}/26" for n in range(10_000)]
    with with_bird(*many) as (mesh, bird):
        mesh.put(pool_record("wide", "10.128.0.0/9"))
        wait_until("all routes", lambda: len(mesh.routes("node1")) == 10_001, timeout=30)
        # everything in the kernel is decided again and nothing is written
        with monitored(mesh["node1"]) as events:
            mesh.daemons["node1"].kill()
            mesh.start("node1", wait=False)
            wait_until("bgpd to be back", lambda: mesh.is_up("node1", "node2"), timeout=30)
            time.sleep(1)
        assert events == []
        bird.ask("disable mesh")
        began = time.monotonic()
        mesh.await_routes("node1", {block(1): "blackhole"}, timeout=10)
        assert time.monotonic() - began < 3


SECRET = {"secretKeyRef": {"name": "bgp", "key": "mesh"}}
QUICK = ENV | {"BGPD_ROUTE_REFRESH_SECONDS": "1"}


def put_secret(host: Host, password: str, mode: int = 0o600) -> None:
    host.write_file("/etc/calico/secrets/bgp/mesh", password, mode=mode)


def withheld(mesh: Mesh, name: str) -> list[str]:
    return [one["reason"] for one in mesh.state(name).get("unusable", ())]


@pytest.mark.bgp_scenario(16)
def test_the_mesh_has_a_password_from_a_file(pair: Mesh) -> None:
    pair.put(configuration_record(nodeMeshPassword=SECRET))
    put_secret(pair["node1"], "s3cret-1\n")
    for name in ("node1", "node2"):
        pair.daemons[name] = pair[name].popen(["calico-bgpd"], env=QUICK)

    wait_until("node2 to tell the file", lambda: withheld(pair, "node2") != [], timeout=20)
    (reason,) = withheld(pair, "node2")
    assert reason.startswith("password: /etc/calico/secrets/bgp/mesh is not there: put the password into it")
    assert pair.sessions("node2") == {}
    put_secret(pair["node2"], "s3cret-1", mode=0o644)
    wait_until("the open file to be refused", lambda: withheld(pair, "node2")[0].endswith("(mode 0644): chmod 0600"))

    put_secret(pair["node2"], "s3cret-2")
    wait_until("node2 to try", lambda: pair.sessions("node2") != {}, timeout=20)
    time.sleep(5)
    assert not pair.is_up("node1", "node2")
    put_secret(pair["node2"], "s3cret-1")
    pair.await_mesh()
    pair.await_routes("node1", pair.expected("node1"))
    for name in ("node1", "node2"):
        assert withheld(pair, name) == []
        assert "s3cret" not in pair.daemons[name].text + json.dumps(pair.state(name))


@pytest.mark.bgp_scenario(16)
def test_bird_and_we_mean_the_same_password() -> None:
    password = "s3;cr{et} '\\ x"
    with Cluster(2) as cluster:
        mesh = Mesh(cluster)
        mesh.put(configuration_record(nodeMeshPassword=SECRET))
        put_secret(mesh["node1"], password)
        mesh.daemons["node1"] = mesh["node1"].popen(["calico-bgpd"], env=QUICK)
        bird = Bird(mesh["node2"], mesh["node1"].address, block(2), more=f'password "{password}";')
        wait_until("the session with BIRD", lambda: mesh.is_up("node1", "node2"), timeout=20)
        mesh.await_routes("node1", mesh.expected("node1"))
        put_secret(mesh["node1"], "another")
        wait_until("the session to fall", lambda: not mesh.is_up("node1", "node2"), timeout=20)
        time.sleep(3)
        assert "Established" not in bird.ask("show protocols mesh")
        put_secret(mesh["node1"], password)
        wait_until("the session to be back", lambda: mesh.is_up("node1", "node2"), timeout=40)


@pytest.fixture
def router() -> Iterator[tuple[Mesh, Host]]:
    """node1 and node2 with bgpd, and a host that is no node."""
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        mesh.remove(*mesh.records(3, cluster["node3"].address))
        yield mesh, cluster["node3"]


@pytest.mark.bgp_scenario(17)
def test_a_router_of_another_as_with_distance_and_password(router: tuple[Mesh, Host]) -> None:
    mesh, tor = router
    mesh.start("node1", "node2")
    since = mesh.sessions("node1")[str(mesh["node2"].address)]["since"]
    put_secret(mesh["node1"], "rack 1")
    peer = {"node": "node1", "peerIP": str(tor.address), "asNumber": 65001, "ttlSecurity": 1, "password": SECRET}
    mesh.put(peer_record("tor", **peer))
    bird = Bird(tor, mesh["node1"].address, "10.65.9.0/26", "10.65.9.7/32", "0.0.0.0/0", number=65001,
                more='password "rack 1"; ttl security on; default bgp_local_pref 50;')
    wait_until("the session with the router", lambda: str(tor.address) in up(mesh, "node1"), timeout=30)
    here = mesh.expected("node1", "node2") | {"10.65.9.0/26": f"via {tor.address} dev eth0"}
    mesh.await_routes("node1", here)
    # and of the other node's block the way that has no detour
    ours = {block(number): f"via {mesh[f'node{number}'].address} dev eth0" for number in (1, 2)}
    wait_until("the router to have the blocks", lambda: routes(tor, "12") == ours, timeout=10)
    for number in (1, 2):
        assert "BGP.as_path: 64512" in bird.ask(f"show route all {block(number)}")
    assert mesh.sessions("node1")[str(tor.address)]["routes_refused"] == {"default": 1, "too-long": 1}
    assert up(mesh, "node2") == {str(mesh["node1"].address)}

    # changed while it runs: that session only
    put_secret(mesh["node1"], "another")
    mesh.put(peer_record("tor", **peer | {"maxRestartTime": "60s"}))
    wait_until("the session to fall", lambda: str(tor.address) not in up(mesh, "node1"), timeout=20)
    put_secret(mesh["node1"], "rack 1")
    mesh.put(peer_record("tor", **peer))
    wait_until("the session to be back", lambda: str(tor.address) in up(mesh, "node1"), timeout=40)
    mesh.await_routes("node1", here)
    mesh.remove(peer_record("tor"))
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    assert mesh.sessions("node1")[str(mesh["node2"].address)]["since"] == since


REFLECTOR = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
template bgp node {{
  local {address} as 64512;
  rr client; rr cluster id 7.7.7.7;
  connect delay time 1; connect retry time 2;
  ipv4 {{ import all; export where source = RTS_BGP; }};
}}
protocol bgp one from node {{ neighbor {one} as 64512; }}
protocol bgp two from node {{ neighbor {two} as 64512; }}
"""


@pytest.mark.bgp_scenario(6, 22)
def test_a_reflector_in_place_of_the_mesh(router: tuple[Mesh, Host]) -> None:
    mesh, reflector = router
    one, two = (mesh[name].address for name in ("node1", "node2"))
    reflector.write_file("/run/bird.conf", REFLECTOR.format(address=reflector.address, one=one, two=two))
    reflector.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
    mesh.start("node1", "node2")
    mesh.await_routes("node1", mesh.expected("node1", "node2"))
    mesh.put(peer_record("rr", peerIP=str(reflector.address), asNumber=64512))
    for name in ("node1", "node2"):
        wait_until("the session with the reflector", partial(up_with, mesh, name, reflector), timeout=30)
    with monitored(mesh["node1"]) as events:
        mesh.put(configuration_record(nodeToNodeMeshEnabled=False))
        for name in ("node1", "node2"):
            wait_until("the mesh to end", partial(has_only, mesh, name, reflector))
        # a borrowed address comes by the reflector too
        mesh["node2"].ip("addr", "add", "10.65.1.7/32", "dev", "lo")
        mesh.put(endpoint_record("node2", "borrower", "10.65.1.7/32"))
        borrowed = {"10.65.1.7/32": f"via {two} dev eth0"}
        mesh.await_routes("node1", mesh.expected("node1", "node2") | borrowed)
    # the block of the other was never without its route
    assert not [line for line in events if block(2) in line]
    assert mesh["node1"].ping(ip_address("10.65.1.7"), timeout=2.0).ok


CLIENT = """
router id {address};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; }}
protocol static st {{ ipv4; route {prefix} blackhole; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
template bgp reflector {{
  local {address} as 64512;
  connect delay time 1; connect retry time 1;
  graceful restart on;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
protocol bgp one from reflector {{ neighbor {one} as 64512; }}
protocol bgp two from reflector {{ neighbor {two} as 64512; }}
"""
FAR_BLOCK = "10.65.40.0/26"


@pytest.mark.bgp_scenario(22, 23, 24, 28, 30)
def test_two_nodes_reflect_for_a_bird_and_a_node_and_one_of_them_dies() -> None:
    """node1 and node2 reflect, node3 is a node and node4 a BIRD; nobody has a session with another client."""
    with Cluster(4) as cluster:
        mesh = Mesh(cluster)
        bird = mesh["node4"]
        addresses = {name: mesh[name].address for name in ("node1", "node2", "node3", "node4")}
        one, two, three, four = addresses.values()
        mesh.remove(*mesh.records(4, four))

        def reflects(name: str, cluster_id: str) -> tuple[str, bytes]:
            key, value = node_record(name, f"{addresses[name]}/24", routeReflectorClusterID=cluster_id)
            document = json.loads(value)
            document["metadata"]["labels"] = {"rr": "yes"}
            return key, json.dumps(document).encode()

        mesh.put(
            configuration_record(nodeToNodeMeshEnabled=False),
            reflects("node1", "1.0.0.1"), reflects("node2", "1.0.0.1"),
            peer_record("rr", nodeSelector="all()", peerSelector="has(rr)"),
            peer_record("bird", nodeSelector="has(rr)", peerIP=str(four), asNumber=64512),
        )
        bird.write_file("/run/bird.conf", CLIENT.format(address=four, prefix=FAR_BLOCK, one=one, two=two))
        bird.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
        mesh.start("node1", "node2", "node3", wait=False)

        def ask(prefix: str) -> str:
            return bird.run(["birdc", "-s", "/run/bird.ctl", "show", "route", "all", prefix], check=False).stdout

        ways = {block(1): one, block(2): two, block(3): three}
        seen = {prefix: f"via {way} dev eth0" for prefix, way in ways.items()}
        wait_until("BIRD to have all blocks", lambda: routes(bird, "12") == seen, timeout=30)
        here = {block(3): "blackhole", block(1): seen[block(1)], block(2): seen[block(2)]}
        here[FAR_BLOCK] = f"via {four} dev eth0"
        mesh.await_routes("node3", here)
        wait_until("both reflectors to tell of node3", lambda: ask(block(3)).count("BGP.originator_id") == 2)
        told = ask(block(3))
        assert told.count(f"BGP.originator_id: {three}") == 2
        assert told.count("BGP.cluster_list: 1.0.0.1\n") == 2
        assert told.count(f"BGP.next_hop: {three}") == 2

        # one of them is gone, with all that it had said: the other said the same
        mesh["node3"].ip("addr", "add", "10.65.3.1/32", "dev", "lo")
        with pinging(bird, "10.65.3.1") as answers, monitored(mesh["node3"]) as events:
            mesh.daemons["node1"].kill()
            send(mesh["node1"], EXABGP, signal.SIGTERM)
            wait_until("node3 to notice", lambda: str(one) not in up(mesh, "node3"), timeout=20)
            time.sleep(1)
        assert all(answers)
        assert not [line for line in events if block(2) in line or FAR_BLOCK in line]

        # a block that goes is withdrawn once everywhere
        more = [block_record("10.65.3.64/26", "node3"), affinity_record("10.65.3.64/26", "node3")]
        mesh.put(*more)
        wait_until("the new block", lambda: "10.65.3.64/26" in routes(bird, "12"))
        mesh.remove(*more)
        wait_until("the new block to go", lambda: "10.65.3.64/26" not in routes(bird, "12"))

        # two clusters: what the one reflects the other reflects again
        mesh.start("node1", wait=False)
        mesh.put(reflects("node2", "1.0.0.2"))
        wait_until("the reflectors to meet", lambda: str(two) in up(mesh, "node1"), timeout=40)
        own = f"via {two} dev eth0"
        wait_until("both ways to node2", lambda: ask(block(2)).count("BGP.next_hop") == 2, timeout=20)
        assert "BGP.cluster_list: 1.0.0.1\n" in ask(block(2))
        assert routes(bird, "12")[block(2)] == own

        # and a reflector that is one no more: a client of the other
        with monitored(mesh["node3"]) as events:
            mesh.put(node_record("node1", f"{one}/24"))
            wait_until("node1 to be a client", lambda: set(mesh.sessions("node1")) == {str(two)}, timeout=20)
            mesh.await_routes("node3", here)
        assert not [line for line in events if line.startswith("Deleted") and block(2) in line]


def up(mesh: Mesh, name: str) -> set[str]:
    return {peer for peer, session in mesh.sessions(name).items() if session["state"] == "up"}


def has_only(mesh: Mesh, name: str, other: Host) -> bool:
    return list(mesh.sessions(name)) == [str(other.address)]


def up_with(mesh: Mesh, name: str, other: Host) -> bool:
    return str(other.address) in up(mesh, name)


def test_settings_of_the_store_reach_exabgp() -> None:
    with with_bird() as (mesh, bird):
        mesh.put(configuration_record(nodeMeshMaxRestartTime="33s", listenPort=1790))
        wait_until(
            "the new port", lambda: ":1790" in mesh["node1"].run("ss -Hltn 'sport = :1790'").stdout, timeout=20
        )
        assert "graceful-restart 33" in mesh["node1"].read_file("/run/calico/exabgp.conf")
        assert bird.process.alive
