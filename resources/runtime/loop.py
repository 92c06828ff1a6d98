"""The owner thread of a daemon: watchers post frozen messages, the owner drains the queue and applies once.

Bursts coalesce by themselves, the core needs no locks, and history never matters: only the state that the messages
lead to.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

M = TypeVar("M")


class Loop(Generic[M]):
    """A queue with one reader.

    `handle` gets all messages that wait (possibly none, when its timer fired) and returns the seconds until it wants to
    run again without a message, or None for "only on a message".

    Args:
        batch: messages for one turn at most.
        rest: seconds after a turn with messages in which more are left to gather: what is told in a stream then costs a
            hundred turns and not thousands. What comes after a quiet moment is handled at once.
    """

    def __init__(self, handle: Callable[[Sequence[M]], float | None], *, batch: int = 4000, rest: float = 0.0) -> None:
        self._handle = handle
        self._batch, self._rest = batch, rest
        self._queue: queue.SimpleQueue[M | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.turned_at = time.monotonic()
        """When the loop last turned, for liveness."""

    def post(self, message: M) -> None:
        """Hand a message to the owner; callable from any thread."""
        self._queue.put(message)

    def stop(self) -> None:
        """Make `run` return after the batch under way; callable from any thread and from a signal handler."""
        self._stopping.set()
        self._queue.put(None)

    def run(self, *, heartbeat: float = 5.0) -> None:
        """Turn until `stop`. An exception of `handle` ends the loop: the process is to die and be restarted.

        The loop wakes at least every `heartbeat` seconds so that liveness can be told, but calls `handle` only for
        messages and for its own timer.
        """
        due: float | None = time.monotonic()
        while not self._stopping.is_set():
            batch = self._drain(due, heartbeat)
            self.turned_at = now = time.monotonic()
            if batch or (due is not None and now >= due):
                wait = self._handle(batch)
                due = None if wait is None else time.monotonic() + wait
                self.turned_at = time.monotonic()
                if batch and self._rest:
                    self._stopping.wait(self._rest)

    def _drain(self, due: float | None, heartbeat: float) -> list[M]:
        wait = heartbeat if due is None else min(heartbeat, max(0.0, due - time.monotonic()))
        batch: list[M] = []
        try:
            message = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            while True:
                if message is not None:
                    batch.append(message)
                if len(batch) >= self._batch:
                    break
                message = self._queue.get_nowait()
        except queue.Empty:
            pass
        return batch
