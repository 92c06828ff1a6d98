"""A peer that sends UPDATEs which no speaker should send harms its own routes and its own session only."""

import pytest

from bed import wait_until
from bed.bgp import Mesh, block

_PEER = """
import ipaddress, socket, struct, sys
near, own = sys.argv[1:]

def message(kind, body=b""):
    return b"\\xff" * 16 + struct.pack("!HB", 19 + len(body), kind) + body

def attribute(code, value):
    return struct.pack("!BBB", 0x40, code, len(value)) + value

def update(prefix, next_hop, more=0):
    said = attribute(1, b"\\0") + attribute(2, b"") + attribute(3, next_hop) + attribute(5, struct.pack("!I", 100))
    network = ipaddress.ip_network(prefix)
    nlri = bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]
    return message(2, struct.pack("!HH", 0, len(said) + more) + said + nlri)

hop = ipaddress.ip_address(own).packed
capabilities = bytes([2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 65, 4]) + struct.pack("!I", 64512)
connection = socket.create_connection((near, 179))
connection.sendall(
    message(1, struct.pack("!BHH4sB", 4, 64512, 90, hop, len(capabilities)) + capabilities) + message(4)
)
steps = {
    "good": update("10.65.2.0/26", hop) + update("10.65.2.64/26", hop),
    "short next hop": update("10.65.2.64/26", hop[:3]),
    "attributes longer than the message": update("10.65.2.64/26", hop, 1000),
}
for step in sys.stdin:
    connection.sendall(steps[step.strip()])
"""
"""Says what it is told to on its standard input; it has no graceful restart."""


@pytest.mark.bgp_scenario(57)
def test_a_malformed_update_is_a_withdrawal_and_a_worse_one_the_end_of_its_session_alone(mesh: Mesh) -> None:
    one, two, three = (mesh[f"node{number}"] for number in (1, 2, 3))
    mesh.start("node1", "node3")
    others = mesh.expected("node1", "node3")
    since = mesh.sessions("node1")[str(three.address)]["since"]
    two.run("mkfifo /run/steps")
    peer = two.popen(
        ["sh", "-c", 'exec python3 -c "$0" "$@" <>/run/steps', _PEER, str(one.address), str(two.address)]
    )

    def say(step: str) -> None:
        two.run("cat >/run/steps", stdin=f"{step}\n")

    way = f"via {two.address} dev eth0"
    say("good")
    mesh.await_routes("node1", others | {block(2): way, "10.65.2.64/26": way}, timeout=20)
    say("short next hop")
    mesh.await_routes("node1", others | {block(2): way})
    assert mesh.is_up("node1", "node3")
    session = mesh.sessions("node1")[str(two.address)]
    assert (session["up"], session["transitions"]) == (True, 1)
    say("attributes longer than the message")
    wait_until("the session to fall", lambda: not mesh.sessions("node1")[str(two.address)]["up"])
    mesh.await_routes("node1", others)
    assert mesh.sessions("node1")[str(two.address)]["error"] == "BGP Error: Malformed attribute list"
    assert mesh.sessions("node1")[str(three.address)]["since"] == since
    assert mesh.state("node1")["speaker"]["restarts"] == 0
    peer.kill()
