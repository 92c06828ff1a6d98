"""`calicoctl node stop`: end the daemons and leave the network as it is."""

import subprocess

import click

from calicoctl.node import supervisor
from resources.runtime import paths

SPEAKER_PID_FILE = paths.RUN / "exabgp.pid"
RESTART_SECONDS = 120
"""How long other hosts keep their routes to this one after its BGP speaker ended (RFC 4724; our GR time)."""


def stop() -> int:
    """Stop supervisor, daemons and the BGP speaker, and say what that means. Done already is said, not an error."""
    was_running, ended = supervisor.stop(), end_speaker()
    if not was_running and not ended:
        click.echo("Calico is not running on this host; nothing was changed.")
        return 0
    click.echo("Calico is stopped. Routes and rules of this host stay, running containers keep their network.")
    if ended:
        click.echo(f"Other hosts keep their routes to this one for {RESTART_SECONDS} s.")
    return 0


def end_speaker() -> bool:
    """End the BGP speaker, which outlives bgpd on purpose. Returns whether there was one."""
    if not SPEAKER_PID_FILE.exists():
        return False
    answer = subprocess.run(
        [supervisor.script("calico-bgpd"), "--end-speaker"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )
    if answer.returncode != 0:
        raise supervisor.DaemonFailed(f"the BGP speaker does not end: {(answer.stdout + answer.stderr).strip()}")
    return "has ended" in answer.stdout
