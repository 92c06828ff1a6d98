"""`calicoctl node stop`: end the daemons and leave the network as it is."""

import click

from calicoctl.node import speaker, supervisor, turn

RESTART_SECONDS = 120
"""How long other hosts keep their routes to this one after its BGP speaker ended (RFC 4724; our GR time)."""
PATIENCE_SECONDS = 15.0


def stop() -> int:
    """Stop supervisor, daemons and the BGP speaker, and say what that means. Done already is said, not an error."""
    was_running = supervisor.stop()  # also while a `node run` waits for the daemons: it sees that and gives up
    with turn.taken(seconds=PATIENCE_SECONDS):
        was_running |= supervisor.stop()
        ended = speaker.end()
    if not was_running and not ended:
        click.echo("Calico is not running on this host; nothing was changed.")
        return 0
    click.echo("Calico is stopped. Routes and rules of this host stay, running containers keep their network.")
    if ended:
        click.echo(f"Other hosts keep their routes to this one for {RESTART_SECONDS} s.")
    return 0
