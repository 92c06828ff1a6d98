"""The BGP speaker, which outlives calico-bgpd on purpose: whether it runs, and its end (reference bgp.md 3.6)."""

import subprocess

from calicoctl.node.supervisor import DaemonFailed, script
from resources.runtime import paths

PID_FILE = paths.RUN / "exabgp.pid"
_SECONDS = 30


def is_running() -> bool:
    """Return whether there may be a speaker: its pid file is there."""
    return PID_FILE.exists()


def end() -> bool:
    """End the speaker, so that the peers keep its routes for the restart time. Returns whether there was one.

    Raises:
        DaemonFailed: it does not end.
    """
    if not is_running():
        return False
    try:
        answer = subprocess.run(
            [script("calico-bgpd"), "--end-speaker"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False,
        )
    except subprocess.TimeoutExpired:
        raise DaemonFailed(f"the BGP speaker does not end within {_SECONDS} s") from None
    if answer.returncode != 0:
        raise DaemonFailed(f"the BGP speaker does not end: {(answer.stdout + answer.stderr).strip()}")
    return "has ended" in answer.stdout
