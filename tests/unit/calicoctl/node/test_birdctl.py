import socket
import threading
from pathlib import Path

import pytest

from calicoctl.node import birdctl

ROWS = """\
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     15:46:40    
 kernel1  Kernel   master   up     15:46:40    
 Mesh_172_16_60_216 BGP      master   up     15:46:49    Established   
 Node_172_16_60_9 BGP      master   start  15:46:51    Active        Socket: Connection refused
 Global_172_16_60_10 BGP      master   start  15:46:51    Passive       
0000 
"""  # noqa: W291


class Bird:
    """Answers one command on a control socket with a fixed reply."""

    def __init__(self, path: Path, reply: str) -> None:
        self.asked = ""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._reply = reply
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.sendall(b"0001 BIRD v0.3.3+birdv1.6.8 ready.\n")
            self.asked = connection.recv(1000).decode()
            connection.sendall(self._reply.encode())

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def test_peers_are_read_and_sorted_by_address(tmp_path: Path) -> None:
    bird = Bird(tmp_path / "bird.ctl", ROWS)
    found = birdctl.peers(tmp_path / "bird.ctl")
    bird.close()
    assert bird.asked == "show protocols\n"
    assert [peer.row() for peer in found] == [
        ("172.16.60.9", "node specific", "start", "15:46:51", "Active Socket: Connection refused"),
        ("172.16.60.10", "global", "start", "15:46:51", "Passive"),
        ("172.16.60.216", "node-to-node mesh", "up", "15:46:49", "Established"),
    ]


def test_an_ipv6_peer_gets_its_colons_back(tmp_path: Path) -> None:
    row = "Mesh_fd80_24e2_f998_72d7__2 BGP      master   up     2026-11-20  Established   "
    assert birdctl.parse_row(row, ipv6=True) == birdctl.Peer(
        "fd80:24e2:f998:72d7::2", "node-to-node mesh", "up", "2026-11-20", "Established"
    )


@pytest.mark.parametrize("row", ["static1  Static   master   up     15:46:40    ", "x BGP master up 1 E", ""])
def test_other_rows_are_no_peers(row: str) -> None:
    assert birdctl.parse_row(row, ipv6=False) is None


@pytest.mark.parametrize("reply", ["9001 syntax error, unexpected CF_SYM\n", "nonsense\n", ""])
def test_a_bad_reply_is_an_error_that_names_the_socket(tmp_path: Path, reply: str) -> None:
    bird = Bird(tmp_path / "bird.ctl", reply)
    with pytest.raises(birdctl.BirdUnreachable, match=r"bird\.ctl"):
        birdctl.peers(tmp_path / "bird.ctl")
    bird.close()


def test_no_socket_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(birdctl.BirdUnreachable, match=r"nosuch\.ctl"):
        birdctl.peers(tmp_path / "nosuch.ctl")
