"""Three hosts with all daemons and no Docker: the data path of the product from store to ping."""

import time
from collections.abc import Iterator

import pytest

from bed import Cluster, Firewall, Host, HostPlan, complaints, matrix, node_run, wait_until
from bed.network import Network

WITHOUT_DRIVER = {"CALICO_LIBNETWORK_ENABLED": "false"}
BGP = Firewall(open=["-p tcp --dport 179"])
PLANS = [
    HostPlan(name="node1", hostname="web-a", firewall=BGP),
    HostPlan(name="node2", hostname="DB-2.Example.ORG", firewall=BGP),
    HostPlan(name="node3", firewall=BGP),
]


def is_meshed(host: Host, others: int) -> bool:
    return host.run("calicoctl node status", check=False).stdout.count("Established") == others


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three hosts up and meshed; no daemon may have logged an error at the end."""
    with Cluster(PLANS, start=node_run, env=WITHOUT_DRIVER) as cluster:
        for host in cluster.hosts:
            wait_until(f"{host.name} to be meshed", lambda host=host: is_meshed(host, 2), every=0.1)  # type: ignore[misc]
        yield cluster
        assert [line for host in cluster.hosts for line in complaints(host)] == []


def test_three_hosts_are_up_meshed_and_pinging_in_ten_seconds() -> None:
    began = time.monotonic()
    with Cluster(PLANS, start=node_run, env=WITHOUT_DRIVER) as cluster:
        network = Network(cluster)
        workloads = cluster.on_each(lambda host: network.attach(host, f"on-{host.name}"))
        for workload in workloads[1:]:
            workload.await_ping(workloads[0].address)
        took = time.monotonic() - began
        for host in cluster.hosts:
            wait_until(f"{host.name} to be meshed", lambda host=host: is_meshed(host, 2))  # type: ignore[misc]
        grid = matrix(workloads, workloads).expect(lambda source, target: True)
        assert grid["on-node1", "on-node2"].mark == "62", grid
        print(f"up, meshed and pinging after {took:.1f} s; {cluster.took}")
    assert took < 90  # ten on an idle machine of two cores; others may be at work on this one


def test_networks_are_apart_and_no_address_is_translated(cluster: Cluster) -> None:
    one, two = Network(cluster, "net1", "10.65.0.0/24"), Network(cluster, "net2", "10.66.0.0/24", nat_outgoing=True)
    first = cluster.on_each(lambda host: one.attach(host, f"one-{host.name}"))
    second = cluster.on_each(lambda host: two.attach(host, f"two-{host.name}"))
    for network in (first, second):
        for source in network:
            for target in network:
                source.await_ping(target.address)
    everyone = [*first, *second]
    home = {workload.name: workload.host.name for workload in everyone}
    matrix(everyone, everyone).expect(lambda source, target: source[:3] == target[:3])
    matrix(everyone, cluster.hosts).expect(lambda source, target: True)
    matrix(cluster.hosts, everyone).expect(lambda source, target: home[target] == source)
    with first[0].tcp_listen(80):
        seen = [workload.tcp_connect(first[0].address, 80).seen_as for workload in first[1:]]
    assert seen == [str(workload.address) for workload in first[1:]]
    with cluster.fabric.tcp_listen(80):
        assert second[0].tcp_connect(cluster.fabric.address, 80).seen_as == str(second[0].host.address)
        assert not first[0].tcp_connect(cluster.fabric.address, 80).ok  # its pool is not translated: no way back


def test_a_workload_that_goes_leaves_nothing(cluster: Cluster) -> None:
    network = Network(cluster)
    here, there = (network.attach(host, f"on-{host.name}") for host in cluster.hosts[:2])
    there.await_ping(here.address)
    here.close()
    host = cluster["node1"]
    wait_until("its route to go", lambda: here.interface not in host.ip("route").stdout)
    wait_until("its chains to go", lambda: here.interface not in host.run("iptables-save").stdout)
    assert not there.ping(here.address).ok
    assert [key for key in cluster.store.contents("/calico/ipam/v2/handle/") if here.name in key] == []
