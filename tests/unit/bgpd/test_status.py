"""BIRD's control socket: the bytes that calicoctl reads (reference bgp.md 5)."""

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from bgpd.calc.sessions import PeerKind, PeerSpec, Unusable
from bgpd.messages import FsmChanged, Notified, Opened, SessionChanged
from bgpd.neighbor import Neighbor
from bgpd.status import Row, Snapshot, StatusServer, answer, greeting, row, rows
from resources.names import AsNumber


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    import calendar

    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


NOW = at("2026-11-21 15:50:00")
BOOT = at("2026-11-21 15:46:40")
ROWS = (
    Row(4, "Mesh_172_16_60_216", "up", at("2026-11-21 15:46:49"), "Established"),
    Row(4, "Global_172_16_60_1", "start", at("2026-11-21 15:46:51"), "Connect"),
    Row(4, "Node_172_16_60_9", "start", at("2026-11-21 15:46:51"), "Active", "Socket: Connection refused"),
    Row(4, "Mesh_172_16_60_217", "start", at("2026-11-21 15:46:41"), "Passive"),
    Row(4, "Mesh_172_16_60_218", "start", at("2026-11-21 15:46:41"), "Idle", "Received: Connection rejected"),
    Row(6, "Mesh_fd99__2", "wait", at("2026-11-21 15:46:49"), "Established"),
    Row(4, "Node_172_16_60_10", "down", at("2026-11-20 12:00:00"), "Down", "Error: withheld"),
)
SNAPSHOT = Snapshot(rows=ROWS, router_id="172.16.60.215", booted=BOOT, reconfigured=BOOT)

PROTOCOLS = """\
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     15:46:40    
 kernel1  Kernel   master   up     15:46:40    
 Mesh_172_16_60_216 BGP      master   up     15:46:49    Established   
 Global_172_16_60_1 BGP      master   start  15:46:51    Connect       
 Node_172_16_60_9 BGP      master   start  15:46:51    Active        Socket: Connection refused
 Mesh_172_16_60_217 BGP      master   start  15:46:41    Passive       
 Mesh_172_16_60_218 BGP      master   start  15:46:41    Idle          Received: Connection rejected
 Node_172_16_60_10 BGP      master   down   2026-11-20  Down          Error: withheld
0000 
"""  # noqa: W291 (BIRD's rows end in blanks)

STATUS = """\
1000-BIRD v0.3.3+birdv1.6.8
1011-Router ID is 172.16.60.215
 Current server time is 2026-11-21 15:50:00
 Last reboot on 2026-11-21 15:46:40
 Last reconfiguration on 2026-11-21 15:46:40
0013 Daemon is up and running
"""


def ask(command: str, version: int = 4) -> str:
    return answer(command, SNAPSHOT, version, NOW, lambda: {"a": [1]}).decode()


def test_the_exchange_is_birds() -> None:
    assert greeting() == b"0001 BIRD v0.3.3+birdv1.6.8 ready.\n"
    assert ask("show protocols") == PROTOCOLS
    assert ask("  show   status ") == STATUS


def test_each_family_has_its_own_rows() -> None:
    lines = ask("show protocols", 6).splitlines()
    assert lines[3:] == [" Mesh_fd99__2 BGP      master   wait   15:46:49    Established   ", "0000 "]


def test_the_whole_state_is_one_line() -> None:
    assert ask("show calico json") == '1900-{"a":[1]}\n0000 \n'


@pytest.mark.bgp_scenario(74)
@pytest.mark.parametrize("command", ["", "quit now", "show", "show protocols all", "show route", "down", "\x00\x1b"])
def test_other_commands_are_syntax_errors(command: str) -> None:
    reply = ask(command)
    assert reply.startswith("9001 syntax error, unexpected ")
    assert reply.count("\n") == 1
    assert "\x1b" not in reply


def test_every_session_has_at_least_six_fields() -> None:
    """The Go client leaves out a row with fewer."""
    for line in ask("show protocols").splitlines():
        if " BGP " in line:
            assert len(line.split()) >= 6


# --- from sessions to rows --------------------------------------------------------------------------------------------


def neighbor(*, passive: bool = False) -> Neighbor:
    spec = PeerSpec(
        address=ip_address("10.0.0.2"),
        kind=PeerKind.MESH,
        local_address=ip_address("10.0.0.1"),
        local_as=AsNumber(64512),
        peer_as=AsNumber(64512),
        passive=passive,
    )
    return Neighbor(spec, since=5.0)


PEER = ip_address("10.0.0.2")


def shown(found: Neighbor) -> tuple[str, str, str]:
    line = row(found)
    return line.state, line.phase, line.text


def test_the_life_of_a_session() -> None:
    found = neighbor()
    assert shown(found) == ("start", "Active", "")
    for state, phase in (("CONNECT", "Connect"), ("OPENSENT", "OpenSent"), ("OPENCONFIRM", "OpenConfirm")):
        found.on_fsm(FsmChanged(PEER, state), 0.0)
        assert shown(found) == ("start", phase, "")
    found.on_open(Opened(PEER, ip_address("10.0.0.2"), 64512, 90, 120))  # type: ignore[arg-type]
    found.on_session(SessionChanged(PEER, "up"), 10.0, 1000.0)
    assert shown(found) == ("feed", "Established", "")
    assert row(found).since == 1000.0
    found.end_sent = True
    assert shown(found) == ("wait", "Established", "")
    found.on_end_of_rib()
    assert shown(found) == ("up", "Established", "")
    found.on_session(SessionChanged(PEER, "down", "closing connection"), 50.0, 1040.0)
    assert shown(found) == ("start", "Active", "Socket: Connection closed")
    assert row(found).since == 1040.0


def test_one_that_never_says_its_end_is_up_all_the_same() -> None:
    found = neighbor()
    found.on_session(SessionChanged(PEER, "up"), 10.0, 1000.0)
    found.end_sent = True
    assert shown(found) == ("up", "Established", "")


def test_one_that_waits_is_passive() -> None:
    found = neighbor(passive=True)
    found.on_fsm(FsmChanged(PEER, "IDLE"), 0.0)
    assert shown(found) == ("start", "Passive", "")


@pytest.mark.parametrize(
    ("code", "subcode", "text"),
    [
        (6, 2, "Administrative shutdown"),
        (6, 3, "Peer de-configured"),
        (6, 5, "Connection rejected"),
        (2, 2, "Bad peer AS"),
        (4, 0, "Hold timer expired"),
        (9, 9, "9/9"),
    ],
)
def test_what_the_peer_said_is_shown(code: int, subcode: int, text: str) -> None:
    found = neighbor()
    found.on_notification(Notified(PEER, code, subcode))
    found.on_session(SessionChanged(PEER, "down", f"notification received ({code},{subcode})"), 1.0, 1.0)
    assert shown(found) == ("start", "Idle", f"Received: {text}")


def test_a_withheld_session_is_down() -> None:
    found = rows([neighbor()], {Unusable(what="x", reason="no", address=ip_address("10.0.0.1")): 7.0})
    assert [(one.name, one.state, one.phase) for one in found] == [
        ("Mesh_10_0_0_1", "down", "Down"),
        ("Mesh_10_0_0_2", "start", "Active"),
    ]


# --- the sockets ------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r", newline="\n")

    def ask(self, command: str) -> str:
        self.socket.sendall(command.encode() + b"\n")
        return self.reply()

    def reply(self) -> str:
        text = ""
        for line in self.lines:
            text += line
            if line[4:5] == " " and line[:4].isdigit():
                return text
        raise AssertionError(f"the reply ended early: {text}")

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[StatusServer, dict[int, Path]]]:
    sockets = {4: tmp_path / "bird.ctl", 6: tmp_path / "bird6.ctl"}
    served = StatusServer(sockets, lambda: {"big": "x" * 3_000_000})
    served.publish(SNAPSHOT)
    served.start()
    yield served, sockets
    served.close()


Served = tuple[StatusServer, dict[int, Path]]


def test_both_sockets_answer(server: Served) -> None:
    _, sockets = server
    for version, path in sockets.items():
        client = Client(path)
        assert client.reply().encode() == greeting()
        assert "Mesh_fd99__2" in client.ask("show protocols") if version == 6 else True
        assert "Router ID is 172.16.60.215" in client.ask("show status")
        assert client.ask("nonsense") == "9001 syntax error, unexpected nonsense\n"
        client.close()


def test_the_sockets_are_for_root_and_its_group(server: Served) -> None:
    for path in server[1].values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_ISSOCK(os.stat(path).st_mode)


@pytest.mark.bgp_scenario(74)
def test_a_client_that_does_not_read_holds_up_nobody(server: Served) -> None:
    slow = [Client(server[1][4]) for _ in range(5)]
    for client in slow:
        client.socket.sendall(b"show calico json\n" * 3)
    quick = Client(server[1][4])
    quick.reply()
    assert quick.ask("show protocols").startswith("2002-")
    assert len(slow[0].reply()) < 100
    assert len(slow[0].reply()) > 3_000_000
    for client in (*slow, quick):
        client.close()


@pytest.mark.bgp_scenario(74)
def test_a_hundred_readers_at_once(server: Served) -> None:
    found: list[str] = []

    def read() -> None:
        client = Client(server[1][4])
        client.reply()
        found.append(client.ask("show protocols"))
        client.close()

    threads = [threading.Thread(target=read) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 100
    assert len(set(found)) == 1


def test_a_line_without_an_end_is_cut_off(server: Served) -> None:
    client = Client(server[1][4])
    client.reply()
    try:
        for _ in range(100):
            client.socket.sendall(b"x" * 1000)
        rest = client.socket.recv(1)
    except (BrokenPipeError, ConnectionResetError):
        rest = b""
    assert rest == b""
    client.close()


def test_a_new_server_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "bird.ctl"
    path.write_text("")
    first = StatusServer({4: path}, dict)
    first.close()
    second = StatusServer({4: path}, dict)
    second.start()
    client = Client(path)
    assert client.reply().encode() == greeting()
    client.close()
    second.close()
