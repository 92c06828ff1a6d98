"""The relay on real pipes and a unix socket: it always reads, passes whole lines only, and knows what it lost."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bgpd import relay
from bgpd.relay import Relay, listen


@dataclass
class Bench:
    """A relay with ExaBGP's ends of its pipes."""

    relay: Relay
    path: Path
    events: int
    commands: int

    def turn(self, times: int = 20) -> None:
        for _ in range(times):
            self.relay.step(0)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(self.path))
        client.settimeout(1)
        self.turn()
        return client

    def say(self, text: str) -> None:
        os.write(self.events, text.encode())
        self.turn()

    def said(self) -> str:
        os.set_blocking(self.commands, False)
        try:
            return os.read(self.commands, 1 << 20).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    event_reader, event_writer = os.pipe()
    command_reader, command_writer = os.pipe()
    path = tmp_path / "relay.sock"
    listener = listen(str(path))
    yield Bench(Relay(listener, event_reader, command_writer), path, event_writer, command_reader)
    listener.close()
    for descriptor in (event_reader, event_writer, command_reader, command_writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


def read(client: socket.socket) -> list[str]:
    """Return the lines that wait; the last may be unfinished."""
    client.setblocking(False)
    data = b""
    try:
        while piece := client.recv(1 << 16):
            data += piece
    except BlockingIOError:
        pass
    return data.decode().splitlines()


def hello(client: socket.socket) -> dict[str, object]:
    first, *rest = read(client)
    assert rest == []
    greeting = json.loads(first)
    assert isinstance(greeting, dict)
    return greeting


def test_a_client_is_greeted(bench: Bench) -> None:
    greeting = hello(bench.connect())
    assert greeting["type"] == "hello"
    assert greeting["pid"] == os.getppid()
    assert (greeting["lost"], greeting["unanswered"]) == (0, 0)


def test_lines_go_both_ways(bench: Bench) -> None:
    client = bench.connect()
    hello(client)
    bench.say('{"type": "state"}\n{"ty')
    assert read(client) == ['{"type": "state"}']
    bench.say('pe": "fsm"}\n')
    assert read(client) == ['{"type": "fsm"}']
    client.setblocking(True)
    client.sendall(b"version\nshow nei")
    bench.turn()
    assert bench.said() == "version\n"
    client.sendall(b"ghbor json\n")
    bench.turn()
    assert bench.said() == "show neighbor json\n"


def test_what_comes_before_the_first_client_is_kept_for_it(bench: Bench) -> None:
    bench.say("a\nb\nc")
    client = bench.connect()
    greeting, *events = read(client)
    assert json.loads(greeting)["lost"] == 0
    assert events == ["a", "b"]
    bench.say("c\n")
    assert read(client) == ["cc"]
    client.close()
    bench.turn()
    bench.say("d\n")
    assert hello(bench.connect())["lost"] == 1


def test_without_a_client_events_are_counted_and_gone(bench: Bench) -> None:
    bench.connect().close()
    bench.turn()
    bench.say("a\nb\nc\nd")
    client = bench.connect()
    assert hello(client)["lost"] == 3
    bench.say("d\ne\n")
    assert read(client) == ["dd", "e"]
    assert hello(bench.connect())["lost"] == 0


@pytest.mark.bgp_scenario(68)
def test_it_reads_a_million_events_for_nobody(bench: Bench) -> None:
    os.set_blocking(bench.events, False)
    line = b"x" * 99 + b"\n"
    written = 0
    while written < 3_000_000:
        try:
            written += os.write(bench.events, line * 600)
        except BlockingIOError:
            pass
        bench.relay.step(0)
    bench.turn()
    assert hello(bench.connect())["lost"] == written // 100


def test_a_client_that_reads_too_slowly_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BACKLOG_BYTES", 300_000)
    slow = bench.connect()
    for _ in range(20):
        bench.say("y" * 49_999 + "\n")
    lines = read(slow)
    assert len(lines) < 20
    slow.setblocking(True)
    assert slow.recv(1) == b""
    lost = hello(bench.connect())["lost"]
    assert isinstance(lost, int)
    assert lost >= 20 - len(lines)


def test_a_new_client_takes_the_place_of_the_old(bench: Bench) -> None:
    old = bench.connect()
    new = bench.connect()
    bench.say("event\n")
    assert read(new)[-1] == "event"
    hello(old)
    old.setblocking(True)
    assert old.recv(1) == b""


def test_half_a_command_of_a_client_that_goes_is_forgotten(bench: Bench) -> None:
    client = bench.connect()
    client.sendall(b"announce this\nannounce th")
    client.close()
    bench.turn()
    assert bench.said() == "announce this\n"
    again = bench.connect()
    again.sendall(b"version\n")
    bench.turn()
    assert bench.said() == "version\n"


def test_answers_that_are_still_to_come_are_told_to_the_next_client(bench: Bench) -> None:
    first = bench.connect()
    first.sendall(b"one\ntwo\nthree\n")
    bench.turn()
    bench.say("done\n")
    first.close()
    bench.turn()
    bench.say("error\nevent\n")
    greeting = hello(bench.connect())
    assert greeting["unanswered"] == 1
    # an answer is no event, so only one line was lost
    assert greeting["lost"] == 1


def test_a_speaker_that_does_not_read_leaves_commands_with_the_client(bench: Bench) -> None:
    client = bench.connect()
    client.setblocking(False)
    sent = 0
    for _ in range(200):
        try:
            sent += client.send(b"z" * 9_999 + b"\n")
        except BlockingIOError:
            break
        bench.turn(3)
    else:
        raise AssertionError("everything was taken")
    received = ""
    while piece := bench.said():
        received += piece
        bench.turn()
    assert len(received) > relay.COMMAND_BYTES


def test_it_ends_with_the_speaker(bench: Bench) -> None:
    os.close(bench.events)
    assert bench.relay.step(0) is False


def test_the_socket_is_for_its_owner_only(bench: Bench) -> None:
    assert bench.path.stat().st_mode & 0o777 == 0o600


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen(str(path)).close()
    listener = listen(str(path))
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    client.close()
    listener.close()


def test_it_refuses_other_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert relay.main(["relay.py"]) == 2
    assert "usage" in capsys.readouterr().err
