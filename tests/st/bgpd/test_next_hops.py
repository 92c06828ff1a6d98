"""A next hop that packets do not reach: refused, named with the way out, and taken when it is good."""

import pytest

from bed import Cluster, wait_until
from bed.bgp import Mesh, bird_beside, block

FAR = "10.88.0.3"


@pytest.mark.bgp_scenario(44)
def test_a_next_hop_behind_a_router_is_named_and_taken_without_a_new_update_when_it_is_near() -> None:
    with Cluster(2) as cluster:
        mesh = Mesh(cluster)
        one, two = mesh["node1"], mesh["node2"]
        two.ip("link", "add", "far0", "type", "bridge")
        two.ip("addr", "add", "10.88.0.2/24", "dev", "far0")
        two.ip("link", "set", "far0", "up")
        mesh.start("node1", wait=False)
        bird = bird_beside(two, one.address, f"10.65.9.0/26 via {FAR}", block(2))
        bird.start()
        mesh.await_routes("node1", mesh.expected("node1"), timeout=20)
        router = cluster.fabric.address
        told = f"{FAR}: it is no node's, and behind the router {router}; peer with that router (BGPPeer)"
        wait_until("the trouble to be told", lambda: mesh.state("node1")["next_hops"] != {})
        [(address, found)] = mesh.state("node1")["next_hops"].items()
        assert (address, found["routes"]) == (FAR, 1)
        assert found["what"].startswith(told)
        assert "event=next_hop.trouble" in mesh.daemons["node1"].text
        one.ip("addr", "add", "10.88.0.1/24", "dev", "eth0")
        mesh.await_routes("node1", mesh.expected("node1") | {"10.65.9.0/26": f"via {FAR} dev eth0"})
        wait_until("the trouble to be over", lambda: mesh.state("node1")["next_hops"] == {})
        assert "Established" in bird.ask("show protocols peer0")
