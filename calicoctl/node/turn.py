"""One command at a time changes what runs on a host: `node run`, `stop` and `clean` take turns."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.errors import Rejected
from resources.runtime import paths

FILE = paths.RUN / "node.lock"
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05


class Occupied(Rejected):
    """Another command is changing what runs on this host, and does not come to an end."""

    reference = "node-occupied"


def _nothing() -> None:
    return None


@contextmanager
def taken(
    *,
    unless: Callable[[], bool] = lambda: False,
    waiting: Callable[[], None] = _nothing,
    seconds: float = PATIENCE_SECONDS,
    file: Path = FILE,
) -> Iterator[int | None]:
    """Wait for this command's turn and keep it for the length of the block.

    Yields the descriptor that holds the turn: who inherits it keeps the turn until it ends. Yields None when another
    has the turn and `unless()` holds: what was to be done is then done already. `waiting` is called once before a wait.

    Raises:
        Occupied: another command had the turn for `seconds`; its pid is in the message.
    """
    deadline = time.monotonic() + seconds
    told = False
    while True:
        lock = _try(file)
        if lock is not None:
            try:
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                yield lock
            finally:
                os.close(lock)
            return
        if unless():
            yield None
            return
        if time.monotonic() > deadline:
            raise Occupied(
                f"another calico command is at work on this host (pid {holder(file)})",
                hint="wait for it to end, or end it, and try again",
            )
        if not told:
            told = True
            waiting()
        time.sleep(_POLL_SECONDS)


def holder(file: Path = FILE) -> str:
    """Return the pid of who had the turn last, as text."""
    try:
        return file.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _try(file: Path) -> int | None:
    """Return a descriptor that holds the lock, or None. A file that `clean` took away meanwhile locks nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == os.stat(file).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None
