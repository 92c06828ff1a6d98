"""VXLAN through the whole product: a live pool goes from BGP's routes to tunnels and back while packets flow."""

import json
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from bed import Cluster, Host, Workload, complaints, node_run, wait_until
from bed.network import Network
from bed.pulse import Pulse
from resources.names import NodeName
from resources.vxlan import tunnel_mac

CIDR, CIDR6 = "10.65.0.0/24", "fd00:65::/64"
POOLS = """
- {{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: net1-pool}}, spec: {{cidr: 10.65.0.0/24,
    vxlanMode: {mode}}}}}
- {{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: net1-pool6}}, spec: {{cidr: 'fd00:65::/64',
    vxlanMode: {mode}}}}}
"""


class World:
    """node1 and node2 with all daemons, a workload with both addresses on each."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.one, self.two = cluster.hosts
        self.network = Network(cluster, "net1", CIDR, CIDR6)
        self.near, self.far = (
            self.network.attach(host, name) for host, name in ((self.one, "near"), (self.two, "far"))
        )

    def set_mode(self, mode: str) -> None:
        self.one.run("calicoctl apply -f -", stdin=POOLS.format(mode=mode))

    def way(self, host: Host, other: Workload, version: int) -> str:
        """The host's route to another's block."""
        block = ip_network(f"{other.address_of(version)}/{26 if version == 4 else 122}", strict=False)
        return host.ip(f"-{version}", "route", "show", str(block)).stdout.strip()

    def await_way(self, *, device: str, protocol: int) -> None:
        """Wait until both hosts reach each other so, in both families."""

        def is_there() -> bool:
            ways = [
                (self.way(host, other, version), device.replace("vxlan", "vxlan-v6") if version == 6 else device)
                for host, other in ((self.one, self.far), (self.two, self.near))
                for version in (4, 6)
            ]
            return all(f"dev {name} " in f"{way} " and f"proto {protocol} " in f"{way} " for way, name in ways)

        wait_until(f"routes by {device} of protocol {protocol}", is_there, timeout=20)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Cluster(2, ipv6=True, start=node_run, env={"NO_DEFAULT_POOLS": "true"}) as cluster:
        made = World(cluster)
        made.near.await_ping(made.far.address, timeout=30)
        made.near.await_ping(made.far.address_of(6), timeout=30)
        yield made
        assert [line for host in cluster.hosts for line in complaints(host)] == []


@pytest.mark.bgp_scenario(50)
def test_a_live_pool_goes_to_vxlan_and_back(world: World) -> None:
    gaps = {}
    with Pulse(world.near, world.far.address) as pulse:
        wait_until("answers to come", lambda: len(pulse.answers) > 20)
        for mode, device, protocol in (
            ("Always", "vxlan.calico", 80),
            ("CrossSubnet", "eth0", 80),
            ("Never", "eth0", 81),
            ("Always", "vxlan.calico", 80),
            ("Never", "eth0", 81),
        ):
            world.set_mode(mode)
            world.await_way(device=device, protocol=protocol)
            seen = len(pulse.answers)
            wait_until("answers to come", lambda: len(pulse.answers) > seen + 20)  # noqa: B023
            gaps[mode, protocol] = pulse.longest_gap
            if mode == "Always":
                assert world.near.ping(world.far.address_of(6)).ok
    assert pulse.longest_gap < 1.0, gaps
    for host in world.cluster.hosts:
        wait_until("the devices to be gone", lambda: "vxlan" not in host.ip("-o", "link").stdout)  # noqa: B023


def test_a_node_tells_its_tunnels(world: World) -> None:
    world.set_mode("Always")
    world.await_way(device="vxlan.calico", protocol=80)
    node = json.loads(world.one.run("calicoctl get node node1 -o json").stdout)["spec"]
    link = json.loads(world.one.ip("-j", "link", "show", "dev", "vxlan.calico").stdout)[0]
    assert node["vxlanTunnelMACAddr"] == link["address"] == tunnel_mac(NodeName("node1"), 4)
    assert node["vxlanTunnelMACAddrV6"] == tunnel_mac(NodeName("node1"), 6)
    addresses = world.one.ip("-o", "addr", "show", "dev", "vxlan.calico").stdout
    assert f"inet {node['ipv4VXLANTunnelAddr']}/32" in addresses
    done = world.one.run("calicoctl node status")
    assert "Warning" not in done.stderr
