"""Running the programs that have no better door than their command line: ipset, iptables, conntrack."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel.errors import DataplaneError, ToolFailed, ToolMissing, ToolTimedOut

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"ipset": "ipset", "conntrack": "conntrack", "unshare": "util-linux", "ip": "iproute2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    command: tuple[str, ...]
    status: int
    output: str
    complaint: str
    """What it wrote to its standard error."""

    def failure(self, what: str) -> ToolFailed:
        """Return the error for this outcome; its text is `what`, the program, and the first line of its complaint."""
        lines = [line.strip() for line in self.complaint.splitlines() if line.strip()]
        reason = lines[0] if lines else f"exit status {self.status}"
        return ToolFailed(f"{what}: {reason}", command=" ".join(self.command), status=self.status)


def search_path() -> str:
    """Return where programs are looked for: as the environment says, then where Linux has them."""
    return f"{os.environ.get('PATH', '')}:{_PATH}".lstrip(":")


def is_installed(program: str) -> bool:
    return shutil.which(program, path=search_path()) is not None


def run(
    command: Sequence[str], *, feed: str = "", timeout: float = 60.0, env: Mapping[str, str] | None = None
) -> Outcome:
    """Run a program to its end, with `feed` on its standard input, in English; `env` is added to our environment.

    Raises:
        ToolMissing: it is not installed.
        ToolTimedOut: it was killed after `timeout` seconds.
    """
    name = command[0]
    try:
        done = subprocess.run(
            list(command),
            input=feed,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env={**_environment(), **(env or {})},
            check=False,
        )
    except OSError as exc:
        raise _not_started(name, exc) from exc
    except subprocess.TimeoutExpired as exc:
        raise ToolTimedOut(f"{name} did not end within {timeout:g} s", command=" ".join(command)) from exc
    return Outcome(command=tuple(command), status=done.returncode, output=done.stdout, complaint=done.stderr)


def started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program with pipes for all it reads and writes, unbuffered, in English.

    Raises:
        ToolMissing, ToolFailed: it cannot be started.
    """
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(list(command), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=_environment())
    except OSError as exc:
        raise _not_started(command[0], exc) from exc


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PATH": search_path()}


def _not_started(name: str, reason: OSError) -> DataplaneError:
    if isinstance(reason, FileNotFoundError):
        package = _PACKAGES.get(name, "iptables" if "tables" in name else name)
        text = f"the program {name} is not installed"
        return ToolMissing(text, errno=reason.errno, hint=f"apt-get install {package}")
    return ToolFailed(f"cannot run {name}: {reason.strerror}", errno=reason.errno)
