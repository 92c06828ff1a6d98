"""One host with felix and no BGP: workloads of a network reach each other, and nobody else does."""

from collections.abc import Iterator

import pytest

from bed import Cluster, Firewall, Host, HostPlan, complaints, matrix, node_run
from bed.network import Network

WITHOUT_BGP = {"CALICO_NETWORKING_BACKEND": "none", "CALICO_LIBNETWORK_ENABLED": "false"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    plan = HostPlan(name="node1", hostname="WEB-A.Example.ORG", firewall=Firewall())
    with Cluster([plan], start=node_run, env=WITHOUT_BGP) as cluster:
        yield cluster
        assert complaints(cluster["node1"]) == []


def test_two_networks_on_one_host(cluster: Cluster) -> None:
    host: Host = cluster["node1"]
    one, two = Network(cluster, "net1", "10.65.0.0/24"), Network(cluster, "net2", "10.66.0.0/24")
    workloads = [one.attach(host, "a"), one.attach(host, "b"), two.attach(host, "c")]
    a, b, _ = workloads
    for workload in workloads:
        workload.await_ping(host.address)
    grid = matrix([*workloads, host], [*workloads, host])
    grid.expect(lambda source, target: "c" not in (source, target) or source == target or "node1" in (source, target))
    assert grid["a", "b"].mark == "63"
    with b.tcp_listen(80):
        assert a.tcp_connect(b.address, 80).seen_as == str(a.address)
