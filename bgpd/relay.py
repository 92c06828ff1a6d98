"""ExaBGP's API process: carries lines between ExaBGP (stdin, stdout) and bgpd (a unix socket), and never stops reading.

    relay.py --socket PATH

ExaBGP writes its events with a blocking write, so a reader that stops halts every BGP session of the process. This one
always reads. While bgpd is away it throws events away and counts them; bgpd asks ExaBGP for everything again when it is
back (reference bgp.md 3.6). What is said before the first client comes is kept for it: sessions come up in that moment,
and what a peer has told before then is not told again.

A client is greeted with ``{"type":"hello","pid":P,"boot":"B","lost":L,"unanswered":U}``: the pid of ExaBGP, a word that
is new for each life of the relay, how many events were thrown away since the last client, and how many commands of
earlier clients ExaBGP has still to answer. There is one client; a new one takes the place of the old.

It is a program of its own, run by ExaBGP's interpreter, so it imports nothing but a little of the standard library.
"""

import os
import select
import socket
import sys

BACKLOG_BYTES = 64 << 20
"""What may wait for a client that reads slowly; beyond it the client is dropped and has to begin anew."""
EARLY_BYTES = 1 << 20
"""What is kept for the first client; beyond it all of it is thrown away."""
COMMAND_BYTES = 1 << 16
"""What may wait for ExaBGP; beyond it the client's commands are left in its socket."""
CHUNK = 1 << 16


class Relay:
    """The two directions and what waits in them. `step` does whatever is possible, without blocking."""

    def __init__(self, listener: socket.socket, events: int, commands: int) -> None:
        self._listener, self._events, self._commands = listener, events, commands
        self._speaker = os.getppid()
        self._boot = os.urandom(8).hex()
        self._client: socket.socket | None = None
        self._early: bytearray | None = bytearray()
        self._lost = 0
        self._unanswered = 0
        self._event_tail = b""
        self._command_tail = b""
        self._to_client = bytearray()
        self._to_speaker = bytearray()
        for descriptor in (events, commands):
            os.set_blocking(descriptor, False)
        listener.setblocking(False)

    def step(self, seconds: float | None = None) -> bool:
        """Wait up to `seconds` (None: for ever) for work and do it. False means that ExaBGP is gone."""
        readers: list[int | socket.socket] = [self._events, self._listener]
        writers: list[int | socket.socket] = []
        if self._client is not None:
            if len(self._to_speaker) < COMMAND_BYTES:
                readers.append(self._client)
            if self._to_client:
                writers.append(self._client)
        if self._to_speaker:
            writers.append(self._commands)
        readable, _, _ = select.select(readers, writers, [], seconds)
        client = self._client
        if self._events in readable and not self._read_events():
            return False
        if self._listener in readable:
            self._accept()
        if client is not None and client is self._client and client in readable:
            self._read_commands(client)
        if self._to_speaker and not self._write_commands():
            return False
        if self._client is not None and self._to_client:
            self._write_events(self._client)
        return True

    def _read_events(self) -> bool:
        try:
            data = os.read(self._events, CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        whole, newline, self._event_tail = (self._event_tail + data).rpartition(b"\n")
        if newline:
            self._pass_events(whole + newline)
        return True

    def _pass_events(self, lines: bytes) -> None:
        answers = sum(line in (b"done", b"error") for line in lines.split(b"\n"))
        self._unanswered = max(0, self._unanswered - answers)
        if self._client is not None and len(self._to_client) + len(lines) > BACKLOG_BYTES:
            self._drop_client()
        if self._client is not None:
            self._to_client += lines
        elif self._early is not None and len(self._early) + len(lines) <= EARLY_BYTES:
            self._early += lines
        else:
            self._lost += self._forget_early() + lines.count(b"\n") - answers

    def _forget_early(self) -> int:
        count = 0 if self._early is None else self._early.count(b"\n")
        self._early = None
        return count

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self._drop_client()
        client.setblocking(False)
        self._client = client
        hello = (
            f'{{"type":"hello","pid":{self._speaker},"boot":"{self._boot}",'
            f'"lost":{self._lost},"unanswered":{self._unanswered}}}\n'
        )
        self._to_client += hello.encode() + (self._early or b"")
        self._early = None
        self._lost = 0

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        # what it has not read is lost to it, and half a command is none
        self._lost += self._to_client.count(b"\n")
        self._to_client.clear()
        self._command_tail = b""

    def _read_commands(self, client: socket.socket) -> None:
        try:
            data = client.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop_client()
            return
        whole, newline, self._command_tail = (self._command_tail + data).rpartition(b"\n")
        if newline:
            self._unanswered += whole.count(b"\n") + 1
            self._to_speaker += whole + newline

    def _write_commands(self) -> bool:
        try:
            del self._to_speaker[: os.write(self._commands, self._to_speaker[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _write_events(self, client: socket.socket) -> None:
        try:
            del self._to_client[: client.send(self._to_client[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self._drop_client()


def listen(path: str) -> socket.socket:
    """Return a socket that listens at `path`, for its owner only; what is at the path is replaced."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(4)
    return listener


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[1] != "--socket":
        sys.stderr.write(f"usage: {arguments[0]} --socket PATH\n")
        return 2
    relay = Relay(listen(arguments[2]), 0, 1)
    while relay.step():
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
