"""supervisord that hears its signals: a daemon that ends is started again at once, and an end is not waited for.

supervisord looks around when something is said or written to it, else once a second; a signal alone (a child ended, an
operator wants an end) does not wake it, and it takes two looks to start a daemon again. Everything else is its own.
"""

import os
import signal
from pathlib import Path

from supervisor.options import ServerOptions
from supervisor.poller import Poller
from supervisor.supervisord import Supervisor, asyncore

LOOKS = 3
"""After a signal: one collects who ended, one starts it again, one takes a second signal."""
_WAKE_BYTES = 512


class PromptPoller(Poller):  # type: ignore[misc]  # the library has no types
    """Waits for signals too."""

    def initialize(self) -> None:
        super().initialize()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._looks = 0
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self.register_readable(self._wake)

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        """Return who can be read and written, after `timeout` seconds at the latest."""
        self._looks = max(0, self._looks - 1)
        readable, writable = super().poll(0 if self._looks else timeout)
        if self._wake in readable:
            os.read(self._wake, _WAKE_BYTES)
            self._looks = LOOKS
        return [descriptor for descriptor in readable if descriptor != self._wake], writable


def supervise(configuration: Path) -> int:
    """Run supervisord in the foreground until it is told to end."""
    options = ServerOptions()
    options.realize(["--nodaemon", "--configuration", str(configuration)])
    options.first, options.test = True, False
    options.poller.close()
    options.poller = PromptPoller(options)
    try:
        Supervisor(options).main()
    except asyncore.ExitNow:
        pass
    return 0
