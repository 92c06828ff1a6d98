"""`calicoctl node status`: are the daemons running, and how are the BGP sessions (reference resources.md 5.9)."""

import json
from pathlib import Path
from typing import TextIO

import click

from calicoctl.node import birdctl
from calicoctl.output import boxed_table
from resources.runtime import health, paths

HEADINGS = ("Peer address", "Peer type", "State", "Since", "Info")
FALLBACK = Path("/var/run/bird")


def status(out: TextIO) -> int:
    """Print the status; 0 if felix runs."""
    if health.ask(paths.health_socket("felix"), "/liveness")[0] != 204:
        click.echo("Calico process is not running.", err=True)
        click.echo("  start it with: calicoctl node run", err=True)
        return 1
    click.echo("Calico process is running.", file=out)
    for version, name in ((4, "bird.ctl"), (6, "bird6.ctl")):
        click.echo(f"\nIPv{version} BGP status", file=out)
        _sessions(version, name, out)
    click.echo("", file=out)
    for line in withheld():
        click.echo(f"Warning: {line}", err=True)
    return 0


def _sessions(version: int, name: str, out: TextIO) -> None:
    try:
        peers = birdctl.peers(_socket(name))
    except birdctl.BirdUnreachable as error:
        click.echo(f"The BGP backend process is not running: {error}", file=out)
        return
    if peers:
        click.echo(boxed_table(HEADINGS, [peer.row() for peer in peers]), file=out)
    else:
        click.echo(f"No IPv{version} peers found.", file=out)


def _socket(name: str) -> Path:
    ours = paths.RUN / name
    return ours if ours.exists() or not (FALLBACK / name).exists() else FALLBACK / name


def withheld() -> list[str]:
    """Return what bgpd does not do on purpose: routes that need a tunnel this kernel has not, conflicts."""
    code, text = health.ask(paths.health_socket("bgpd"), "/state")
    if code != 200:
        return []
    try:
        state = json.loads(text)
    except ValueError:
        return []
    found = state.get("warnings", []) if isinstance(state, dict) else []
    return [str(line) for line in found]
