"""calicoctl node run on bad days: no datastore, a daemon that cannot start, hosts that claim the same; calico-node."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from bed import Cluster, Done, Host, wait_until
from bed.network import Network
from bed.node import daemons, has_sessions, is_ready, records, sessions

WITHOUT_DRIVER = {"CALICO_LIBNETWORK_ENABLED": "false"}
FELIX_ONLY = {**WITHOUT_DRIVER, "CALICO_NETWORKING_BACKEND": "none"}
HASTY = {**WITHOUT_DRIVER, "CALICO_START_SECONDS": "4"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def hosts(pair: Cluster) -> Iterator[list[Host]]:
    """Two hosts on which nothing of the product is or ever was, and an etcd without a record of it."""
    yield pair.hosts
    if not pair.store.is_running("etcd"):
        pair.store.start()
    for host in pair.hosts:
        if daemons(host):
            host.run("calicoctl node stop")
        host.run("rm -rf /run/calico /var/lib/calico /var/log/calico")
    pair.store.etcdctl("del", "--prefix", "/calico")


def node_run(host: Host, env: Mapping[str, str] = WITHOUT_DRIVER, *, check: bool = True) -> Done:
    return host.run(["calicoctl", "node", "run"], env=env, timeout=60.0, check=check)


def sessions_are_up(*hosts: Host) -> None:
    wait_until("the sessions", lambda: all(has_sessions(host, len(hosts) - 1) for host in hosts), timeout=30)


# --- what keeps it from starting -------------------------------------------------------------------------------------


def test_without_a_datastore_nothing_is_started_and_the_endpoint_is_named(pair: Cluster, hosts: list[Host]) -> None:
    pair.store.stop()
    done = node_run(hosts[0], check=False)
    assert (done.exit, done.seconds < 20) == (1, True)
    assert f"no answer from etcd at {pair.store.endpoints}: connection refused" in done.stderr
    assert daemons(hosts[0]) == {}
    pair.store.start()
    assert node_run(hosts[0], FELIX_ONLY).ok


def test_a_datastore_that_swallows_what_it_is_sent_is_given_up(hosts: list[Host]) -> None:
    silent = {**WITHOUT_DRIVER, "ETCD_ENDPOINTS": "http://10.77.0.199:2379"}
    done = node_run(hosts[0], silent, check=False)
    assert (done.exit, done.seconds < 20) == (1, True), done.seconds
    assert "http://10.77.0.199:2379" in done.stderr


@contextmanager
def unusable(host: Host, program: str) -> Iterator[None]:
    host.run(f"mount --bind /dev/null {program}")
    try:
        yield
    finally:
        host.run(f"umount {program}")


Trouble = Callable[[Host], AbstractContextManager[object]]


@pytest.mark.parametrize(
    ("trouble", "env", "daemon", "line"),
    [
        (nullcontext, {"FELIX_IPTABLESREFRESHINTERVAL": "often"}, "felix", "IptablesRefreshInterval = 'often' cannot"),
        (lambda host: host.tcp_listen(179), {"CALICO_START_SECONDS": "8"}, "bgpd", "could not listen on 10.77.0.1:179"),
        (
            lambda host: unusable(host, "/usr/sbin/xtables-nft-multi"), {"FELIX_IPTABLESBACKEND": "NFT"}, "felix",
            "not installed: iptables-nft-save, iptables-nft-restore",
        ),
    ],
    ids=["setting", "port-179", "iptables"],
)
def test_a_daemon_that_cannot_start_is_named_with_its_last_lines_and_a_later_run_works(
    hosts: list[Host], trouble: Trouble, env: Mapping[str, str], daemon: str, line: str
) -> None:
    host = hosts[0]
    with trouble(host):
        done = node_run(host, {**HASTY, **env}, check=False)
    assert done.exit == 1
    assert f"Error executing command: calico-{daemon} " in done.stderr
    assert f"the last lines of /var/log/calico/{daemon}/current:\n" in done.stderr
    assert line in done.stderr
    assert "setting.effective" not in done.stderr
    assert daemons(host) == {}
    assert "Calico is running on node node1." in node_run(host).stdout
    assert daemons(host).keys() == {"supervise", "calico-felix", "calico-bgpd", "agent", "exabgp"}


def test_bad_settings_are_refused_before_anything_is_started(pair: Cluster, hosts: list[Host]) -> None:
    for env, words in (
        ({"AS": "x"}, "AS = 'x' cannot be used"),
        ({"IP": "10.0.0.300"}, "invalid IP address specified: 10.0.0.300"),
        ({"IP": "", "IP_AUTODETECTION_METHOD": "interface=wlan.*"}, "no IPv4 address found by interface=wlan.*"),
        ({"CALICO_NETWORKING_BACKEND": "quagga"}, "it must be one of exabgp, bird, gobgp, none"),
        ({"NODENAME": "Node_1"}, "the node name 'Node_1' (from environment) cannot be used"),
        ({"ETCD_ENDPOINTS": "10.77.0.201:2379"}, "ETCD_ENDPOINTS = '10.77.0.201:2379' cannot be used"),
    ):
        done = node_run(hosts[0], {**WITHOUT_DRIVER, **env}, check=False)
        assert (done.exit, words in done.stderr) == (1, True), done.text
    assert daemons(hosts[0]) == {}
    assert records(pair) == {} or not any("nodes" in key for key in records(pair))


# --- who is who ------------------------------------------------------------------------------------------------------


def test_a_name_that_another_host_has_is_refused_until_it_is_freed(pair: Cluster, hosts: list[Host]) -> None:
    first, second = hosts
    node_run(first, FELIX_ONLY)
    before = records(pair)
    done = node_run(second, {**FELIX_ONLY, "NODENAME": "node1"}, check=False)
    assert done.exit == 1
    assert f"the node name node1 belongs to another host, with the address {first.address}/24" in done.stderr
    assert "calicoctl delete node node1" in done.stderr
    assert daemons(second) == {}
    assert records(pair) == before
    clean = second.run("NODENAME=node1 calicoctl node clean --yes")
    assert f"the records of node node1 belong to another host ({first.address}/24) and stay" in clean.stdout
    assert records(pair) == before
    first.run("calicoctl node stop")
    assert "Successfully deleted 1 'Node' resource(s)" in first.run("calicoctl delete node node1").stdout
    assert node_run(second, {**FELIX_ONLY, "NODENAME": "node1"}).ok
    refused = node_run(first, FELIX_ONLY, check=False)
    assert f"belongs to another host, with the address {second.address}/24" in refused.stderr


def test_an_address_that_another_node_has_is_refused(pair: Cluster, hosts: list[Host]) -> None:
    first, second = hosts
    node_run(first, FELIX_ONLY)
    before = records(pair)
    done = node_run(second, {**FELIX_ONLY, "IP": str(first.address)}, check=False)
    assert done.exit == 1
    assert f"the address {first.address} of this host is registered by node node1" in done.stderr
    assert daemons(second) == {}
    assert records(pair) == before


def readdress(host: Host, before: str, after: str) -> None:
    host.ip(batch=f"addr del {before}/24 dev eth0\naddr add {after}/24 dev eth0\nroute add default via 10.77.0.254\n")


def test_a_host_whose_address_changed_is_found_at_the_new_one(pair: Cluster, hosts: list[Host]) -> None:
    first, second = hosts
    pair.on_each(node_run)
    network = Network(pair, "moving", "10.68.0.0/24")
    one, two = network.attach(first, "one"), network.attach(second, "two")
    sessions_are_up(first, second)
    two.await_ping(one.address)
    first.run("calicoctl node stop")
    readdress(first, "10.77.0.1", "10.77.0.99")
    moved = {**WITHOUT_DRIVER, "IP": "autodetect"}
    try:
        done = node_run(first, moved)
        assert "updated node node1: its address is 10.77.0.99/24 (was 10.77.0.1/24)" in done.stdout
        sessions_are_up(first, second)
        assert [peer.address for peer in sessions(second)] == ["10.77.0.99"]
        two.await_ping(one.address)
        wait_until("node2 to route by the new address", lambda: "via 10.77.0.1 " not in second.ip("route").stdout)
        assert "via 10.77.0.99 dev eth0 proto 81" in second.ip("route").stdout
        assert one.ping(two.address).ttl == 62
        assert "ipv4Address: 10.77.0.99/24" in second.run("calicoctl get node node1 -o yaml").stdout
    finally:
        first.run("calicoctl node stop")
        readdress(first, "10.77.0.99", "10.77.0.1")
        one.close()
        two.close()


# --- settings --------------------------------------------------------------------------------------------------------


def test_bird_is_served_by_exabgp_and_said_in_one_line(hosts: list[Host]) -> None:
    done = node_run(hosts[0], {**WITHOUT_DRIVER, "CALICO_NETWORKING_BACKEND": "bird"})
    lines = [line for line in done.stdout.splitlines() if "bird" in line]
    assert lines == [
        "setting networking_backend = bird (from environment)", "networking backend bird is served by exabgp"
    ]
    assert "calico-bgpd" in daemons(hosts[0])


def test_what_is_switched_off_does_not_run_and_what_is_set_is_registered(pair: Cluster, hosts: list[Host]) -> None:
    host = hosts[0]
    host.ip("-6", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")
    try:
        done = node_run(
            host,
            {
                **FELIX_ONLY, "NO_DEFAULT_POOLS": "true", "AS": "1.10", "IP": "autodetect", "IP6": "autodetect",
                "IP_AUTODETECTION_METHOD": "can-reach=10.77.0.254", "IP6_AUTODETECTION_METHOD": "interface=eth.*",
            },
        )
    finally:
        host.ip("-6", "addr", "del", "fd77::1/64", "dev", "eth0")
    assert daemons(host).keys() == {"supervise", "calico-felix", "agent"}
    assert "setting as = 65546 (from environment)" in done.stdout
    assert not any("/ippools/" in key for key in records(pair))
    node = host.run("calicoctl get node node1 -o yaml").stdout
    for line in ("asNumber: 65546", "ipv4Address: 10.77.0.1/24", "ipv6Address: fd77::1/64"):
        assert line in node
    stopped = host.run("calicoctl node stop").stdout
    assert "Other hosts keep" not in stopped  # no BGP, nobody keeps anything


def test_the_command_line_is_stronger_than_the_environment(hosts: list[Host]) -> None:
    said = hosts[0].run("calicoctl node run --dryrun --ip 10.77.0.77 --as 64999 --name other --backend none").stdout
    for line in ("node_name = other", "ip = 10.77.0.77", "as = 64999", "networking_backend = none"):
        assert f"setting {line} (from environment)" in said
    assert "Would start: " in said
    assert "calico-bgpd" not in said
    assert daemons(hosts[0]) == {}


# --- calico-node, as in the container --------------------------------------------------------------------------------


def test_calico_node_waits_for_the_datastore_and_ends_as_a_container_does(pair: Cluster, hosts: list[Host]) -> None:
    host = hosts[0]
    pair.store.stop()
    waiting = host.popen(["calico-node"], env=WITHOUT_DRIVER)
    wait_until("it to say that it waits", lambda: "waiting for the datastore: no answer from etcd" in waiting.text)
    assert waiting.terminate() == 128 + signal.SIGTERM
    again = host.popen(["calico-node"], env=WITHOUT_DRIVER)
    wait_until("it to wait again", lambda: "waiting for the datastore" in again.text)
    pair.store.start()
    wait_until("felix to be ready", lambda: is_ready(host, "felix") and is_ready(host, "bgpd"), timeout=30)
    running = daemons(host)
    second = host.run(["calico-node"], env=WITHOUT_DRIVER, check=False)
    assert (second.exit, "Calico is already running on this host" in second.stderr) == (1, True)
    assert "nothing was changed" in host.run("calicoctl node run", env=WITHOUT_DRIVER).stdout
    assert daemons(host) == running
    assert "Calico process is running." in host.run("calicoctl node status").stdout
    network = Network(pair, "held", "10.69.0.0/24")
    one, two = network.attach(host, "one"), network.attach(host, "two")
    one.await_ping(two.address)
    assert again.terminate() == 0
    assert daemons(host).keys() <= {"exabgp"}
    assert one.ping(two.address).ok
    assert str(one.address) in host.ip("route", "show", "proto", "80").stdout
    one.close()
    two.close()


def test_stop_ends_what_runs_in_the_foreground_too(hosts: list[Host]) -> None:
    host = hosts[0]
    node = host.popen("calicoctl node run --foreground", env=FELIX_ONLY)
    wait_until("felix to be ready", lambda: is_ready(host, "felix"), timeout=30)
    assert "Calico is stopped." in host.run("calicoctl node stop").stdout
    assert node.wait(5) == 0
    assert daemons(host) == {}


def test_a_daemon_that_fails_in_the_foreground_is_tried_again_and_again(hosts: list[Host]) -> None:
    """A service unit and a container bring a host up as far as it goes."""
    host = hosts[0]
    with host.tcp_listen(179):
        node = host.popen(["calico-node"], env=WITHOUT_DRIVER)
        wait_until("felix to be ready", lambda: is_ready(host, "felix"), timeout=30)
        log = "/var/log/calico/bgpd/current"
        wait_until("bgpd to complain", lambda: "could not listen on 10.77.0.1:179" in host.read_file(log))
        assert not is_ready(host, "bgpd")
    wait_until("bgpd to be ready", lambda: is_ready(host, "bgpd"), timeout=30)
    node.terminate()
