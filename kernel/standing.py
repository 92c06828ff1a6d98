"""A program that reads commands from its standard input, started before it is needed and not waited for at its end.

Made for ``iptables-nft-restore``: starting it takes 2 to 4 ms, and at its end it waits some 16 ms for the kernel to
free what it replaced, long after its rules are in effect (docs/adr/0010). So a process stands ready, and behind the
commands comes a comment, which the program repeats on its output (``--verbose``) when it has come so far. Each process
serves once: nothing it knows can be out of date.
"""

import os
import select
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from kernel.errors import ToolTimedOut
from kernel.programs import Outcome, run, started

FEED_MAX: Final = 32 << 10
"""Bytes that a pipe takes without a reader, with room to spare; a larger feed is bulk, and given in the plain way."""
_ENDING_MAX: Final = 4
_MARK: Final = b"# calico: all of the above is done"
# what is written to a pipe leaves the program when its buffer (4 KiB) is full; a line may have 10 KiB
_COMMENT: Final = b"\n" + _MARK + b"." * 8000 + b"\n"


class Standing:
    """Runs one command again and again, in the network namespace of the calling thread."""

    def __init__(self, command: Sequence[str], *, patience: float = 2.0, end_seconds: float = 60.0) -> None:
        """`command` must end at the end of its input, with a status that tells whether it did all of it.

        If it has not repeated the comment after `patience` seconds, its end is waited for. One that has done all and
        does not end is killed after `end_seconds`, once there are some of them.
        """
        self._command = tuple(command)
        self._patience, self._end_seconds = patience, end_seconds
        self._ready: subprocess.Popen[bytes] | None = None
        self._ending: list[subprocess.Popen[bytes]] = []
        self._echoes = True

    def run(self, feed: str, *, timeout: float = 60.0) -> Outcome:
        """Give the program `feed` and return how it ended, or status 0 as soon as it has done all of it.

        Raises:
            ToolMissing, ToolFailed: it cannot be started.
            ToolTimedOut: it was killed after `timeout` seconds.
        """
        data = feed.encode("utf-8", "surrogateescape")
        if len(data) > FEED_MAX or not self._echoes:
            return run(self._command, feed=feed, timeout=timeout)
        process = self._take()
        assert process.stdin is not None
        try:
            process.stdin.write(data + _COMMENT)
        except BrokenPipeError:
            pass  # it has ended: its status and its words say why
        return self._result(process, timeout)

    def prepare(self) -> None:
        """Have a process ready for the next time, and bury those that have ended."""
        self._bury()
        if self._echoes and self._ready is None:
            self._ready = started(self._command)

    def close(self) -> None:
        """End what stands ready."""
        if self._ready is not None:
            self._finish(self._ready)
            self._ready = None
        while self._ending:
            self._bury(wait=True)

    def _take(self) -> subprocess.Popen[bytes]:
        process, self._ready = self._ready, None
        if process is not None and process.poll() is None:
            return process
        if process is not None:  # somebody ended it while it stood there
            self._finish(process)
        return started(self._command)

    def _result(self, process: subprocess.Popen[bytes], timeout: float) -> Outcome:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        output, complaint = process.stdout.fileno(), process.stderr.fileno()
        texts = {output: b"", complaint: b""}
        open_ends = set(texts)
        poller = select.poll()
        for descriptor in open_ends:
            poller.register(descriptor, select.POLLIN)
        began = time.monotonic()
        patience = min(timeout, self._patience)
        while open_ends:
            now = time.monotonic() - began
            if now >= timeout:
                process.kill()
                self._finish(process)
                text = f"{self._command[0]} did not end within {timeout:g} s"
                raise ToolTimedOut(text, command=" ".join(self._command))
            if now >= patience:
                process.stdin.close()
                patience = timeout
            for descriptor, _ in poller.poll(max(1.0, (patience - now) * 1000)):
                piece = os.read(descriptor, 1 << 16)
                texts[descriptor] += piece
                if not piece:
                    poller.unregister(descriptor)
                    open_ends.discard(descriptor)
            if _MARK in texts[output]:
                outcome = self._outcome(0, texts[output], texts[complaint])
                self._finish(process)
                return outcome
        process.stdin.close()
        status = process.wait()
        self._echoes = status != 0  # it did everything without a word: not the kind that repeats comments
        outcome = self._outcome(status, texts[output], texts[complaint])
        self._finish(process)
        return outcome

    def _outcome(self, status: int, output: bytes, complaint: bytes) -> Outcome:
        return Outcome(
            command=self._command,
            status=status,
            output=output.decode("utf-8", "surrogateescape"),
            complaint=complaint.decode("utf-8", "surrogateescape"),
        )

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        """Let the process come to its end by itself."""
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        self._ending.append(process)
        if len(self._ending) > _ENDING_MAX:
            self._bury(wait=True)

    def _bury(self, *, wait: bool = False) -> None:
        """Collect those that have ended; with `wait` the eldest in any case."""
        if wait and self._ending:
            eldest = self._ending[0]
            try:
                eldest.wait(self._end_seconds)
            except subprocess.TimeoutExpired:
                eldest.kill()  # what it was given it has done and said so
                eldest.wait()
        for process in [one for one in self._ending if one.poll() is not None]:
            self._ending.remove(process)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
