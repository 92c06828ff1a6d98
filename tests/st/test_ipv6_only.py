"""Hosts that have no IPv4 address at all: etcd, sessions, routes and workloads by IPv6 alone."""

from collections.abc import Iterator

import pytest

from bed import Cluster, Firewall, Host, HostPlan, complaints, node_run, wait_until
from bed.network import Network
from bed.node import has_sessions, is_meshed, sessions
from calicoctl.node.checks import openings


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """node1 and node2, open for what checksystem lists; somebody set the same BGP identifier on both."""
    env = {"NO_DEFAULT_POOLS": "true", "IP": "none", "IP6": "autodetect", "CALICO_ROUTER_ID": "1.2.3.4"}
    listed = [each.rule for each in openings(docker=False) if 6 in each.families]
    plans = [HostPlan(name=name, firewall=Firewall(open6=listed)) for name in ("node1", "node2")]
    with Cluster(plans, ipv6=True, env=env) as cluster:
        for host in cluster.hosts:
            host.ip("-4", "addr", "flush", "dev", "eth0")
            host.env["ETCD_ENDPOINTS"] = cluster.store.endpoints6
        yield cluster
        found = [line for host in cluster.hosts for line in complaints(host)]
        assert [line for line in found if "event=identifier.taken" not in line] == []


@pytest.mark.bgp_scenario(5)
def test_two_hosts_without_ipv4(cluster: Cluster) -> None:
    one, two = cluster.hosts
    said = cluster.on_each(lambda host: node_run(cluster, host).stdout)
    assert "registered node node1 with fd00:77::1/64" in said[0]
    for host, other in ((one, two), (two, one)):
        wait_until("the reason", lambda: "BGP identifier" in status_of(host))  # noqa: B023
        text = status_of(host)
        assert f"Warning: {other.node} has this node's BGP identifier, 1.2.3.4: they get no session" in text
        assert "BGP Error: Bad BGP identifier" in text
        host.run("calicoctl node stop")
        del host.env["CALICO_ROUTER_ID"]  # each has one of its name then
    cluster.on_each(lambda host: node_run(cluster, host))
    wait_until("the mesh", lambda: all(is_meshed(host, 1, 6) for host in cluster.hosts), timeout=60)
    for host in cluster.hosts:
        assert has_sessions(host, 0)
        assert "Warning" not in status_of(host)
        assert [peer.info for peer in sessions(host, 6)] == ["Established"]

    network = Network(cluster, "net1", "", "fd00:65::/64")
    here, there = network.attach(one, "here"), network.attach(two, "there")
    here.await_ping(there.address)
    assert here.ping(there.address).ttl == 62
    with there.tcp_listen(80, address="::"):
        assert here.tcp_connect(there.address, 80).seen_as == str(here.address)
    assert one.run("calicoctl get node -o wide").stdout.split()[4:8] == ["node1", "(64512)", "fd00:77::1/64", "node2"]


def status_of(host: Host) -> str:
    return host.run("calicoctl node status", check=False).text
