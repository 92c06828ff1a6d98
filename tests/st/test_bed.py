"""The bed itself: what it promises to the tests built on it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bed import (
    Cluster,
    CommandFailed,
    Dockerd,
    Etcd,
    Fabric,
    Firewall,
    Host,
    HostPlan,
    Workload,
    complaints,
    down,
    matrix,
    wait_until,
)
from bed.claim import CGROUPS, FOLDER, claims
from bed.namespaces import names, processes

OUTSIDE = "192.0.2.77"  # a documentation address: nobody in the bed has it


def test_hosts_see_each_other_and_the_fabric(fabric: Fabric) -> None:
    hosts = [Host(fabric, f"node{number}") for number in (1, 2, 3)]
    matrix(hosts, [*hosts, fabric]).expect(lambda source, target: True)


def test_a_host_has_no_interface_but_the_fabrics_and_no_way_out(fabric: Fabric) -> None:
    host = Host(fabric, "node1")
    assert {link["ifname"] for link in json.loads(host.ip("-j", "link").stdout)} == {"lo", "eth0"}
    ports = {link["ifname"] for link in json.loads(fabric.core.ip("-j", "link").stdout)}
    assert ports == {"lo", "br0", "to-node1"}
    assert fabric.core.ip("route", "get", OUTSIDE, check=False).exit != 0
    assert host.ping(fabric.address).ok
    assert not host.ping(OUTSIDE).ok
    dropped = json.loads(fabric.core.ip("-j", "-s", "link", "show", "br0").stdout)
    assert dropped[0]["stats64"]["rx"]["packets"] > 0  # it came as far as the fabric


def test_what_is_private_to_a_host(fabric: Fabric) -> None:
    one = Host(fabric, "node1", hostname="web-a")
    two = Host(fabric, "node2", hostname="NODE2.Example.ORG")
    assert one.run("hostname").stdout == "web-a\n"
    assert two.run("hostname; echo $NODENAME").stdout == "NODE2.Example.ORG\nnode2\n"
    for folder in ("/run", "/etc/calico", "/var/lib/calico", "/var/log/calico", "/etc/docker"):
        one.run(f"echo one >{folder}/whose")
        assert two.run(["test", "-e", f"{folder}/whose"], check=False).exit == 1
        assert not Path(folder, "whose").exists()
    assert one.run("wc -c </etc/resolv.conf").stdout == "0\n"
    assert one.run("ls /sys/class/net").stdout.split() == ["eth0", "lo"]
    assert one.sysctl("net.ipv4.ip_forward") == "0"
    assert one.run("echo x >>/etc/passwd", check=False).exit != 0  # the machine's own is out of reach


def test_its_own_name_resolves_without_waiting_for_a_name_server(fabric: Fabric) -> None:
    host = Host(fabric, "node1", hostname="NODE1.Example.ORG")
    done = host.run([sys.executable, "-c", "import socket; print(socket.getfqdn('nowhere.invalid'), socket.getfqdn())"])
    assert done.stdout.split() == ["nowhere.invalid", "NODE1.Example.ORG"]
    assert done.seconds < 10  # a name server that does not answer is asked for 20


def test_a_failed_command_says_where_what_and_why(fabric: Fabric) -> None:
    host = Host(fabric, "node1")
    with pytest.raises(CommandFailed, match=r"node1: `echo no; exit 3` ended with 3\nno"):
        host.run("echo no; exit 3")
    with pytest.raises(CommandFailed, match=r"not done after 0\.2 s"):
        host.run("sleep 60; true", timeout=0.2)
    wait_until("the sleep to be gone", lambda: "sleep 60" not in host.run(["ps", "ax"]).stdout)


def test_a_process_is_ended_gently_or_not(fabric: Fabric) -> None:
    host = Host(fabric, "node1")
    polite = host.popen("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done", name="polite")
    wait_until("the trap", lambda: "up" in polite.text)
    assert polite.terminate() == 7
    assert polite.text == "up\nbye\n"
    deaf = host.popen("trap '' TERM; while :; do sleep 0.05; done", name="deaf")
    assert deaf.alive
    assert deaf.kill() == 128 + signal.SIGKILL or deaf.exit == -signal.SIGKILL
    assert host.run("ps ax").stdout.count("sleep 0.05") <= 1  # the one that was just running


def test_a_firewall_lets_in_what_it_says(fabric: Fabric) -> None:
    walled = Host(fabric, "node1", firewall=Firewall(open=["-p tcp --dport 179"]))
    other = Host(fabric, "node2")
    with walled.tcp_listen(179), walled.tcp_listen(80), other.tcp_listen(80):
        assert other.ping(walled.address).ok
        assert other.tcp_connect(walled.address, 179).ok
        assert not other.tcp_connect(walled.address, 80, timeout=0.3).ok
        assert walled.tcp_connect(other.address, 80).ok
        walled.open_port("-p tcp --dport 80")
        assert other.tcp_connect(walled.address, 80).ok
    assert "-P FORWARD DROP" in walled.run("iptables -S").stdout


def attach(workload: Workload, *others: Workload) -> None:
    """Do what felix and bgpd do, by hand."""
    host = workload.host
    host.sysctl("net.ipv4.ip_forward", 1)
    host.sysctl(f"net.ipv4.conf.{workload.interface}.proxy_arp", 1)
    host.sysctl(f"net.ipv4.neigh.{workload.interface}.proxy_delay", 0)
    host.ip("route", "add", str(workload.address), "dev", workload.interface)
    for other in others:
        host.ip("route", "add", str(other.address), "via", str(other.host.address))


def test_workloads_talk_through_two_routers_with_their_own_addresses(fabric: Fabric) -> None:
    near, far = Host(fabric, "node1"), Host(fabric, "node2")
    said: list[str] = []
    one = Workload(near, "one", "10.65.0.2", record=lambda w: said.append(f"{w.name} {w.interface}"))
    two = Workload(far, "two", "10.65.1.2")
    assert said == [f"one {one.interface}"]
    assert len(one.interface) == 15
    assert not one.ping(two.address, timeout=0.3).ok  # the bed itself routes nothing
    attach(one, two)
    attach(two, one)
    assert one.ping(two.address).ttl == 62
    assert one.ping(far.address).ttl == 63
    assert one.ping(near.address).ttl == 64
    with two.tcp_listen(80) as web, two.udp_listen(53) as names_server:
        assert one.tcp_connect(two.address, 80).seen_as == "10.65.0.2"
        assert one.udp_exchange(two.address, 53).seen_as == "10.65.0.2"
        assert web.seen == names_server.seen == ["10.65.0.2"]
        assert one.tcp_connect(two.address, 81).error == "Connection refused"
    assert one.run("ip -br addr show cali0").stdout.split()[2] == "10.65.0.2/32"
    one.close()
    assert near.ip("link", "show", one.interface, check=False).exit != 0


def test_a_grid_shows_what_is_wrong(fabric: Fabric) -> None:
    one, two = Host(fabric, "node1"), Host(fabric, "node2")
    grid = matrix([one, two], {"node1": str(one.address), "outside": OUTSIDE})
    grid.expect(lambda source, target: target != "outside")
    with pytest.raises(AssertionError, match=r"2 of 4 pairs are wrong") as caught:
        grid.expect(lambda source, target: source == "node1")
    lines = str(caught.value).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["from", "\\", "to", "node1", "outside"],
        ["node1", "64", "[-]"],
        ["node2", "[64]", "-"],
    ]
    assert "node1 -> outside: closed, should be open" in lines


def test_etcd_answers_forgets_its_history_and_comes_back(fabric: Fabric) -> None:
    etcd = Etcd(fabric)
    etcd.etcdctl("put", "/calico/a", "one line")
    etcd.etcdctl("put", "/calico/a", "two\nlines")
    assert etcd.contents("/calico/") == {"/calico/a": "two\nlines"}
    revision = etcd.compact()
    assert revision == 3
    assert "compacted" in etcd.etcdctl("get", "/calico/a", "--rev=2", check=False).stderr
    etcd.stop()
    assert not etcd.is_healthy("etcd")
    etcd.start()
    assert etcd.contents("/calico/") == {"/calico/a": "two\nlines"}


def test_an_etcd_of_three_works_with_two(fabric: Fabric) -> None:
    etcd = Etcd(fabric, members=3)
    assert len(etcd.endpoint_list) == 3
    etcd.stop("etcd1", kill=True)
    wait_until("a leader among the two", lambda: etcd.is_healthy("etcd2") and etcd.is_healthy("etcd3"))
    etcd.etcdctl("put", "/calico/a", "1")
    etcd.start("etcd1")
    assert etcd.contents() == {"/calico/a": "1"}


def test_a_cluster_starts_what_it_is_told_on_each_host() -> None:
    def start(cluster: Cluster, host: Host) -> None:
        host.popen("echo $NODENAME $IP $ETCD_ENDPOINTS; exec sleep 100", name="daemon")

    plans = [HostPlan(name="node1", hostname="web-a"), HostPlan(name="node2", node="other")]
    with Cluster(plans, start=start) as cluster:
        said = [f"{host.folder}/daemon.out" for host in cluster.hosts]
        wait_until("both to speak", lambda: all(Path(file).read_text().count("\n") for file in said))
        endpoints = cluster.store.endpoints
        assert [Path(file).read_text() for file in said] == [
            f"node1 10.77.0.1 {endpoints}\n",
            f"other 10.77.0.2 {endpoints}\n",
        ]


def test_a_cluster_that_fails_to_start_leaves_nothing() -> None:
    def start(cluster: Cluster, host: Host) -> None:
        host.popen(["sleep", "1000"])
        if host.name == "node2":
            raise RuntimeError("node2 is broken")

    cluster = Cluster(2, start=start)
    with pytest.raises(RuntimeError, match="node2 is broken"):
        cluster.up()
    assert_nothing_is_left(cluster.fabric)


def test_a_reboot_kills_everything_and_keeps_the_disk(fabric: Fabric) -> None:
    one, two = Host(fabric, "node1"), Host(fabric, "node2")
    daemon = one.popen(["sleep", "1000"])
    one.write_file("/var/lib/calico/nodename", "node1\n")
    one.write_file("/run/calico/felix.sock", "")
    one.reboot()
    assert not daemon.alive
    assert one.read_file("/var/lib/calico/nodename") == "node1\n"
    assert not one.path("/run/calico").exists()
    assert two.ping(one.address).ok
    one.power_off()
    assert not two.ping(one.address, timeout=0.3).ok
    one.reboot()
    assert two.ping(one.address).ok


def assert_nothing_is_left(fabric: Fabric) -> None:
    assert names(fabric.claim.prefix) == []
    assert not fabric.folder.exists()
    assert fabric.id not in Path("/proc/self/mounts").read_text()
    assert not [*CGROUPS.glob(f"{fabric.claim.prefix}*"), *CGROUPS.glob(f"*/{fabric.claim.prefix}*")]
    marked = [entry for entry in Path("/proc").glob("[0-9]*") if fabric.id in command_line(entry)]
    assert [command_line(entry) for entry in marked] == []


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_end_of_a_bed_leaves_nothing() -> None:
    with Fabric() as fabric:
        Etcd(fabric)
        host = Host(fabric, "node1")
        workload = Workload(host, "web", "10.65.0.2")
        host.popen(["sleep", "1000"])
        workload.popen(["sleep", "1000"])
        inside = processes(*names(fabric.claim.prefix))
        assert len(inside) > 6
    assert_nothing_is_left(fabric)
    assert not [pid for pid in inside if command_line(Path(f"/proc/{pid}"))]  # a zombie has no command line


ABANDONED = """
import os, sys, time
from bed import Etcd, Fabric, Host, Workload
fabric = Fabric()
host = Host(fabric, "node1")
Workload(host, "web", "10.65.0.2").popen(["sleep", "1000"])
print(fabric.id, flush=True)
time.sleep(1000)
"""


def test_what_a_killed_run_left_is_removed_by_down() -> None:
    tests = Path(__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", ABANDONED],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    assert child.stdout is not None
    with child.stdout as stdout:
        id = stdout.readline().strip()
    wait_until("its processes", lambda: len(processes(*names(f"bed-{id}-"))) == 5)  # unshare, tini, two sleeps, nsenter
    inside = processes(*names(f"bed-{id}-"))
    assert id not in down()  # its owner lives
    child.kill()
    child.wait()
    assert (FOLDER / id).exists()
    assert id in down()
    assert names(f"bed-{id}-") == []
    assert not (FOLDER / id).exists()
    assert not [pid for pid in inside if command_line(Path(f"/proc/{pid}"))]  # a zombie has no command line


def test_a_kept_bed_stays_until_it_is_taken_down_by_name() -> None:
    with Fabric() as fabric:
        Host(fabric, "node1")
        fabric.keep()
    assert fabric.id not in down()
    assert fabric.id in [claim.id for claim in claims()]
    assert down(fabric.id) == [fabric.id]
    assert_nothing_is_left(fabric)


def test_an_id_is_given_once() -> None:
    with Fabric() as fabric, pytest.raises(FileExistsError, match="is up already"):
        Fabric(fabric.id)


def test_docker_runs_containers_on_two_hosts_that_share_a_network() -> None:
    with Cluster(2) as cluster:
        one, two = cluster.on_each(lambda host: Dockerd(host, cluster.store))
        one.docker("network", "create", "--driver", "overlay", "--subnet", "10.99.0.0/24", "shared")
        wait_until("the network on node2", lambda: "shared" in two.docker("network", "ls").stdout)
        left, right = one.run("left", "--net", "shared"), two.run("right", "--net", "shared")
        grid = matrix([left, right], [left, right])
        assert grid["left", "right"].ok, grid
        assert left.run("ping -c 1 -W 2 right").ok
        with right.tcp_listen(80):
            assert left.tcp_connect(right.address, 80).seen_as == str(left.address)
        one.kill()
        assert not one.answers()
        assert left.host.run(["pgrep", "-f", "sleep 100000"]).ok  # the container goes on
        one.start()  # ends the containers it finds running, as Docker does without live restore
        one.docker("start", "left")
        wait_until("the overlay to know it again", lambda: left.ping(right.address).ok)
        one.stop()
        assert not left.host.run(["pgrep", "containerd"], check=False).ok
    assert_nothing_is_left(cluster.fabric)


def test_a_container_tells_its_client_apart(fabric: Fabric) -> None:
    docker = Dockerd(Host(fabric, "node1"))
    server = docker.run("server", command=["httpd", "-f", "-p", "0.0.0.0:80", "-h", "/www"])
    client = docker.run("client")
    seen = client.run(f"timeout 2 wget -qO- http://{server.address}/cgi-bin/client").stdout.strip()
    assert seen == str(client.address)


INTERRUPTED = """
import signal
import time
from bed import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
with Cluster(2) as cluster:
    cluster["node1"].popen(["sleep", "1000"])
    print(cluster.fabric.id, flush=True)
    cluster["node2"].run("sleep 1000", timeout=1000)
"""


def test_an_interrupt_removes_everything() -> None:
    tests = Path(__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    assert child.stdout is not None
    id = child.stdout.readline().strip()
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert "KeyboardInterrupt" in said
    assert names(f"bed-{id}-") == []
    assert not (FOLDER / id).exists()


def test_what_the_daemons_complained_about_is_found(fabric: Fabric) -> None:
    host = Host(fabric, "node1")
    assert complaints(host) == []
    lines = ("timestamp=1 level=info event=a", "timestamp=2 level=error event=b", 'level=info text="no error here"')
    host.write_file("/var/log/calico/felix/current", "\n".join(lines))
    assert complaints(host) == ["node1 felix: timestamp=2 level=error event=b"]
