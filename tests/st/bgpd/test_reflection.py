"""Nodes that pass routes on and filter them, with real ExaBGP, etcd and kernels, and BIRD to see what was said."""

import json
import re
import signal
import time

import pytest

from bed import Cluster, wait_until
from bed.bgp import EXABGP, Mesh, block, flooding, monitored, send
from bed.routes import routes
from bed.speakers import Bird, Frr, Neighbor
from bed.verbatim import Verbatim, attribute, update
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    node_record,
    peer_record,
    pool_record,
)

FAR_BLOCK, OTHER_BLOCK = "10.65.40.0/26", "10.65.41.0/26"


@pytest.mark.bgp_scenario(22, 23, 24, 28, 30)
def test_two_nodes_reflect_for_a_bird_and_a_node_and_one_of_them_dies() -> None:
    """node1 and node2 reflect, node3 is a node and node4 a BIRD; nobody has a session with another client."""
    with Cluster(4) as cluster:
        mesh = Mesh(cluster)
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
        reflectors = [Neighbor(address=str(address)) for address in (one, two)]
        bird = Bird(mesh["node4"], neighbors=reflectors, announces=[FAR_BLOCK])
        bird.start()
        mesh.start("node1", "node2", "node3", wait=False)

        def ask(prefix: str) -> str:
            return bird.ask(f"show route all {prefix}")

        ways = {block(1): one, block(2): two, block(3): three}
        seen = {prefix: f"via {way} dev eth0" for prefix, way in ways.items()}
        wait_until("BIRD to have all blocks", lambda: bird.routes() == seen, timeout=30)
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
        with flooding(bird.host, "10.65.3.1") as flood, monitored(mesh["node3"]) as events:
            mesh.daemons["node1"].kill()
            send(mesh["node1"], EXABGP, signal.SIGTERM)
            wait_until("node3 to notice", lambda: str(one) not in up(mesh, "node3"), timeout=20)
            time.sleep(1)
        assert flood.lost == 0
        assert not [line for line in events if block(2) in line or FAR_BLOCK in line]

        # a block that goes is withdrawn once everywhere
        more = [block_record("10.65.3.64/26", "node3"), affinity_record("10.65.3.64/26", "node3")]
        mesh.put(*more)
        wait_until("the new block", lambda: "10.65.3.64/26" in bird.routes())
        mesh.remove(*more)
        wait_until("the new block to go", lambda: "10.65.3.64/26" not in bird.routes())

        # two clusters: what the one reflects the other reflects again
        mesh.start("node1", wait=False)
        mesh.put(reflects("node2", "1.0.0.2"))
        wait_until("the reflectors to meet", lambda: str(two) in up(mesh, "node1"), timeout=40)
        own = f"via {two} dev eth0"
        wait_until("both ways to node2", lambda: ask(block(2)).count("BGP.next_hop") == 2, timeout=20)
        assert "BGP.cluster_list: 1.0.0.1\n" in ask(block(2))
        assert bird.routes()[block(2)] == own

        # and a reflector that is one no more: a client of the other
        with monitored(mesh["node3"]) as events:
            mesh.put(node_record("node1", f"{one}/24"))
            wait_until("node1 to be a client", lambda: set(mesh.sessions("node1")) == {str(two)}, timeout=20)
            mesh.await_routes("node3", here)
        assert not [line for line in events if line.startswith("Deleted") and block(2) in line]


def up(mesh: Mesh, name: str) -> set[str]:
    return {peer for peer, session in mesh.sessions(name).items() if session["state"] == "up"}


def test_the_only_reflector_forgets_all_it_knew_and_nobody_loses_a_route() -> None:
    """It must not say that it has told all before its clients have told it."""
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        one, two, three = (mesh[name].address for name in ("node1", "node2", "node3"))
        mesh.remove(*mesh.records(3, three))
        mesh.put(
            configuration_record(nodeToNodeMeshEnabled=False),
            node_record("node1", f"{one}/24", routeReflectorClusterID="1.0.0.1"),
            peer_record("rr", nodeSelector="all()", peerIP=str(one)),
            peer_record("bird", node="node1", peerIP=str(three), asNumber=64512),
        )
        bird = Bird(mesh["node3"], neighbors=[Neighbor(address=str(one))], announces=[FAR_BLOCK])
        bird.start()
        mesh.start("node1", "node2", wait=False)
        here = {block(2): "blackhole", block(1): f"via {one} dev eth0", FAR_BLOCK: f"via {three} dev eth0"}
        there = {block(number): f"via {way} dev eth0" for number, way in ((1, one), (2, two))}
        mesh.await_routes("node2", here, timeout=30)
        wait_until("BIRD to have all blocks", lambda: bird.routes() == there, timeout=20)

        with monitored(mesh["node2"]) as at_node, monitored(bird.host) as at_bird:
            mesh.daemons["node1"].kill()
            send(mesh["node1"], EXABGP, signal.SIGKILL)
            wait_until("node2 to notice", lambda: str(one) not in up(mesh, "node2"), timeout=20)
            mesh.start("node1", wait=False)
            wait_until("node2 to have been told all", lambda: str(one) in up(mesh, "node2"), timeout=60)
            wait_until("node1 to have been told all", lambda: len(up(mesh, "node1")) == 2, timeout=60)
            time.sleep(0.5)
        assert at_node == at_bird == []
        assert mesh.routes("node2") == here
        assert bird.routes() == there


def block_6(node: int) -> str:
    return f"fd80:65:{node}::/122"


@pytest.mark.bgp_scenario(23, 25, 28, 41)
def test_ipv6_routes_pass_two_reflectors_and_keep_their_next_hop() -> None:
    """node3 is a client of node1, a BIRD on node4 one of node2; both reflect, each with a cluster of its own."""
    with Cluster(4, ipv6=True) as cluster:
        mesh = Mesh(cluster)
        sixes = {host.name: cluster.fabric.beside(host.address) for host in cluster.hosts}
        mesh.remove(*mesh.records(4, mesh["node4"].address))

        def node(name: str, **bgp: object) -> tuple[str, bytes]:
            key, value = node_record(name, f"{mesh[name].address}/24", ipv6=f"{sixes[name]}/64", **bgp)
            document = json.loads(value)
            document["metadata"]["labels"] = {"name": name}
            return key, json.dumps(document).encode()

        mesh.put(
            pool_record("six", "fd80:65::/32"),
            configuration_record(nodeToNodeMeshEnabled=False),
            node("node1", routeReflectorClusterID="1.0.0.1"),
            node("node2", routeReflectorClusterID="1.0.0.2"),
            node("node3"),
            *(block_record(block_6(number), f"node{number}") for number in (1, 2, 3)),
            *(affinity_record(block_6(number), f"node{number}") for number in (1, 2, 3)),
            peer_record("rrs", node="node1", peerSelector="name == 'node2'"),
            peer_record("client", node="node3", peerSelector="name == 'node1'"),
            peer_record("bird", node="node2", peerIP=str(sixes["node4"]), asNumber=64512),
        )
        far = "fd80:65:4::/122"
        bird = Bird(mesh["node4"], neighbors=[Neighbor(address=str(sixes["node2"]))], announces=[far])
        bird.start()
        mesh.start("node1", "node2", "node3", wait=False)

        ways = {block_6(number): f"via {sixes[f'node{number}']} dev eth0" for number in (1, 2, 3)}
        wait_until("BIRD to have all blocks", lambda: bird.routes(6) == ways, timeout=40)
        here = {**ways, block_6(3): "blackhole", far: f"via {sixes['node4']} dev eth0"}
        wait_until("node3 to have BIRD's", lambda: routes(mesh["node3"], version=6) == here, timeout=20)
        told = bird.ask(f"show route all {block_6(3)}")
        assert f"BGP.originator_id: {mesh['node3'].address}" in told
        assert "BGP.cluster_list: 1.0.0.2 1.0.0.1\n" in told
        assert f"BGP.next_hop: {sixes['node3']}" in told
        # a block of one family is told over the session of that family only
        assert set(routes(mesh["node3"])) == {block(1), block(2), block(3)}

        # a packet takes that way, past both reflectors
        mesh["node3"].ip("-6", "addr", "add", "fd80:65:3::1/128", "dev", "lo")
        assert bird.host.run("ping -6 -c 1 -w 5 fd80:65:3::1").exit == 0

        # a block that goes is withdrawn behind both
        more = [block_record("fd80:65:3::40/122", "node3"), affinity_record("fd80:65:3::40/122", "node3")]
        mesh.put(*more)
        wait_until("the new block", lambda: "fd80:65:3::40/122" in bird.routes(6))
        mesh.remove(*more)
        wait_until("the new block to go", lambda: "fd80:65:3::40/122" not in bird.routes(6))

        # one that knows nothing any more takes nothing from anybody
        with monitored(mesh["node3"], version=6) as at_node, monitored(bird.host, version=6) as at_bird:
            mesh.daemons["node1"].kill()
            send(mesh["node1"], EXABGP, signal.SIGKILL)
            wait_until("node3 to notice", lambda: str(sixes["node1"]) not in up(mesh, "node3"), timeout=20)
            mesh.start("node1", wait=False)
            wait_until("node3 to have been told all", lambda: str(sixes["node1"]) in up(mesh, "node3"), timeout=60)
            wait_until("node1 to have been told all", lambda: len(up(mesh, "node1")) == 4, timeout=60)
            time.sleep(0.5)
        assert not [line for line in at_node + at_bird if "fd80:65:" in line]
        assert bird.routes(6) == ways


class Tagging(Frr):
    """It gives what it announces all kinds of attributes that a reflector has no use for."""

    def _configuration(self) -> str:
        plain = super()._configuration()
        (network,) = (line for line in plain.splitlines() if line.startswith("  network "))
        return plain.replace(network, f"{network} route-map tags") + (
            "route-map tags permit 10\n"
            " set aggregator as 65009 10.9.0.1\n"
            " set atomic-aggregate\n"
            " set extcommunity rt 65000:100\n"
            " set extcommunity soo 10.9.0.1:7\n"
            " set large-community 65000:1:2\n"
        )


def test_what_means_nothing_to_a_reflector_comes_out_of_it_as_it_went_in() -> None:
    """Told by FRR and, what FRR has no word for, byte for byte; seen by BIRD; and again by a bgpd that starts anew."""
    with Cluster(4) as cluster:
        mesh = Mesh(cluster)
        one, two, three, four = (mesh[f"node{number}"] for number in (1, 2, 3, 4))
        for number, far in ((2, two), (3, three), (4, four)):
            mesh.remove(*mesh.records(number, far.address))
        mesh.put(
            configuration_record(nodeToNodeMeshEnabled=False),
            node_record("node1", f"{one.address}/24", routeReflectorClusterID="1.0.0.1"),
            *(
                peer_record(far.name, node="node1", peerIP=str(far.address), asNumber=64512)
                for far in (two, three, four)
            ),
        )
        mesh.start("node1", wait=False)
        reflector = [Neighbor(address=str(one.address))]
        bird = Bird(two, neighbors=reflector)
        bird.start()
        Tagging(three, neighbors=reflector, announces=[FAR_BLOCK]).start()
        wait_until("BIRD to hear of FRR's", lambda: "10.9.0.1" in bird.ask(f"show route all {FAR_BLOCK}"), timeout=30)
        seen = bird.ask(f"show route all {FAR_BLOCK}")
        assert "BGP.originator_id: " + str(three.address) in seen
        assert "BGP.aggregator: 10.9.0.1 AS65009" in seen
        assert "BGP.atomic_aggr:" in seen
        assert "BGP.large_community: (65000, 1, 2)" in seen
        assert "BGP.ext_community: (rt, 65000, 100) (ro, 10.9.0.1, 7)" in seen

        peer = Verbatim(four, one.address)
        strange, not_transitive = (0x63, 0xE0, b"\1\2"), (0x64, 0x80, b"\3")
        bandwidth = attribute(16, bytes.fromhex("4004fde84cbebc20"), flags=0xC0)
        told = [attribute(code, value, flags=flags) for code, flags, value in (strange, not_transitive)]
        peer.say(update(OTHER_BLOCK, four.address.packed, bandwidth, *told))
        wait_until("BIRD to hear of the other", lambda: OTHER_BLOCK in bird.ask("show route"), timeout=30)
        seen = bird.ask(f"show route all {OTHER_BLOCK}")
        assert "BGP.ext_community: (unknown 0x4004, 65000, 1287568416)" in seen
        assert re.search(r"BGP\.63 \[.*\]: 01 02$", seen, re.MULTILINE)
        assert "BGP.64" not in seen

        shown = bird.ask("show route all")
        mesh.daemons["node1"].kill()
        mesh.start("node1", wait=False)
        wait_until("bgpd to know all again", lambda: len(up(mesh, "node1")) == 3, timeout=30)
        wait_until("it to know both routes", lambda: {FAR_BLOCK, OTHER_BLOCK} <= told_prefixes(mesh, "node1"))
        assert bird.ask("show route all") == shown  # with the times at which it was told


def told_prefixes(mesh: Mesh, name: str) -> set[str]:
    return {str(route["prefix"]) for route in mesh.learned(name)}
