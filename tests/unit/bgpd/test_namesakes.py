"""Children under BIRD's names serve BIRD's sockets, and none outlives bgpd."""

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bed.command import wait_until
from bgpd.namesake import Namesake, listen
from bgpd.namesakes import Namesakes, behind
from bgpd.status import StatusServer
from calicoctl.node import birdctl


def children(name: str) -> list[int]:
    """The children of this process whose command line's first word is `name`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if words[0] == name.encode() and parent == os.getpid():
            found.append(int(entry.name))
    return found


def answers(path: Path) -> bool:
    try:
        return birdctl.peers(path) == []
    except birdctl.BirdUnreachable:
        return False


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[int, Path]]:
    sockets = {4: tmp_path / "bird.ctl", 6: tmp_path / "bird6.ctl"}
    status = StatusServer({version: behind(path) for version, path in sockets.items()}, dict)
    namesakes = Namesakes(sockets)
    status.start()
    namesakes.start()
    yield sockets
    namesakes.close()
    status.close()
    assert children("bird") == children("bird6") == []


def test_both_sockets_answer_from_processes_of_birds_names(served: dict[int, Path]) -> None:
    for path in served.values():
        wait_until(f"{path} to answer", partial(answers, path), timeout=30)
    assert [len(children(name)) for name in ("bird", "bird6")] == [1, 1]
    assert stat.S_IMODE(served[4].stat().st_mode) == 0o660


def test_one_that_dies_comes_back(served: dict[int, Path]) -> None:
    wait_until("an answer", lambda: answers(served[4]), timeout=30)
    [first] = children("bird")
    os.kill(first, signal.SIGKILL)
    wait_until("another child", lambda: children("bird") not in ([], [first]), timeout=30)
    wait_until("an answer again", lambda: answers(served[4]), timeout=30)


def test_a_namesake_carries_and_ends_with_its_parent(tmp_path: Path) -> None:
    status = StatusServer({4: tmp_path / "behind"}, dict)
    status.start()
    ours, theirs = os.pipe()
    listener = listen(tmp_path / "bird.ctl")
    running = threading.Thread(target=Namesake(listener, tmp_path / "behind").run, args=(ours,))
    running.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as idle:
        idle.connect(str(tmp_path / "bird.ctl"))  # says nothing and holds up nobody
        assert answers(tmp_path / "bird.ctl")
        status.close()
        assert not answers(tmp_path / "bird.ctl")
    os.close(theirs)
    running.join(timeout=10)
    assert not running.is_alive()
    listener.close()
    os.close(ours)
