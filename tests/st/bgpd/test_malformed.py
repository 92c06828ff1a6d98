"""A peer that sends UPDATEs which no speaker should send harms its own routes and its own session only."""

import pytest

from bed import wait_until
from bed.bgp import Mesh, block
from bed.verbatim import Verbatim, update


@pytest.mark.bgp_scenario(57)
def test_a_malformed_update_is_a_withdrawal_and_a_worse_one_the_end_of_its_session_alone(mesh: Mesh) -> None:
    one, two, three = (mesh[f"node{number}"] for number in (1, 2, 3))
    mesh.start("node1", "node3")
    others = mesh.expected("node1", "node3")
    since = mesh.sessions("node1")[str(three.address)]["since"]
    hop = two.address.packed
    peer = Verbatim(two, one.address)
    way = f"via {two.address} dev eth0"
    peer.say(update(block(2), hop) + update("10.65.2.64/26", hop))
    mesh.await_routes("node1", others | {block(2): way, "10.65.2.64/26": way}, timeout=20)
    peer.say(update("10.65.2.64/26", hop[:3]))
    mesh.await_routes("node1", others | {block(2): way})
    assert mesh.is_up("node1", "node3")
    session = mesh.sessions("node1")[str(two.address)]
    assert (session["up"], session["transitions"]) == (True, 1)
    peer.say(update("10.65.2.64/26", hop, longer=1000))
    wait_until("the session to fall", lambda: not mesh.sessions("node1")[str(two.address)]["up"])
    mesh.await_routes("node1", others)
    assert mesh.sessions("node1")[str(two.address)]["error"] == "BGP Error: Malformed attribute list"
    assert mesh.sessions("node1")[str(three.address)]["since"] == since
    assert mesh.state("node1")["speaker"]["restarts"] == 0
    peer.process.kill()
