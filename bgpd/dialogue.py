"""Commands to ExaBGP and the count of its answers: a window, and questions one at a time (reference bgp.md 2.5).

ExaBGP answers each command by ``done`` or ``error``, not in order, and puts the lines of an answer between events. So
commands are only counted, and a question is asked when nothing else is on its way: then all untyped lines up to the
next ``done`` are its answer. No I/O.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from bgpd.messages import Answered, Hello, Message, Neighbours, Remark, Shown

WINDOW = 200
"""Commands sent and not answered at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """All that a question brought. `failed`: ExaBGP refused it."""

    question: str
    lines: tuple[Neighbours | Shown | Remark, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """ExaBGP refused a command, which must be one of these."""

    commands: tuple[str, ...]


class Dialogue:
    """One connection's commands: `say` and `ask` queue them, `take` gives what may be written now, `hear` counts."""

    def __init__(self) -> None:
        self._queue: deque[tuple[str, bool]] = deque()
        self._sent: list[str] = []
        self._in_flight = 0
        self._foreign = 0
        self._question: str | None = None
        self._lines: list[Neighbours | Shown | Remark] = []
        self.waiting_since: float | None = None
        """Since when an answer is awaited without any having come; None: none is awaited."""

    def greet(self, hello: Hello, now: float) -> None:
        """Begin on a new connection; answers to commands of an earlier one may still come."""
        self.__init__()  # type: ignore[misc]  # everything of the earlier connection is void
        self._foreign = hello.unanswered
        self.waiting_since = now if self._foreign else None

    def say(self, commands: Iterable[str]) -> None:
        self._queue.extend((command, False) for command in commands)

    def ask(self, question: str) -> None:
        self._queue.append((question, True))

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is queued and every command was answered."""
        return not self._queue and not self._in_flight and not self._foreign and self._question is None

    def take(self, now: float) -> bytes:
        """Return the lines to write now, at most a window's worth."""
        lines: list[str] = []
        while self._queue and self._may_send(is_question=self._queue[0][1]):
            command, is_question = self._queue.popleft()
            if is_question:
                self._question, self._lines = command, []
            else:
                self._in_flight += 1
                self._sent.append(command)
            lines.append(command)
        if lines and self.waiting_since is None:
            self.waiting_since = now
        return "".join(f"{line}\n" for line in lines).encode()

    def _may_send(self, *, is_question: bool) -> bool:
        if self._foreign or self._question is not None:
            return False
        return self._in_flight == 0 if is_question else self._in_flight < WINDOW

    def hear(self, message: Message, now: float) -> Reply | Doubt | None:
        """Take a message that answers a command; other messages are none of its business."""
        match message:
            case Answered(done=done):
                return self._answered(done, now)
            case Neighbours() | Shown() | Remark():
                if self._question is not None and not self._foreign:
                    self._lines.append(message)
                    self.waiting_since = now
            case _:
                pass
        return None

    def _answered(self, done: bool, now: float) -> Reply | Doubt | None:
        result: Reply | Doubt | None = None
        if self._foreign:
            self._foreign -= 1
        elif self._question is not None:
            result = Reply(self._question, tuple(self._lines), failed=not done)
            self._question, self._lines = None, []
        else:
            self._in_flight = max(0, self._in_flight - 1)
            result = None if done else Doubt(tuple(self._sent))
            if not self._in_flight:
                self._sent.clear()
        waits = self._foreign or self._in_flight or self._question is not None
        self.waiting_since = now if waits else None
        return result
