"""`calicoctl node`: what runs on this host. Each sub-command is one module of `calicoctl.node`."""

import os
import sys
import time
from collections.abc import Sequence

import click

from calicoctl.output import BadOutput
from calicoctl.session import config_option
from resources.errors import Rejected


class NeedsRoot(Rejected):
    """The command changes the host."""

    reference = "needs-root"


def need_root() -> None:
    """Raise unless this process is root's."""
    if os.geteuid() != 0:
        raise NeedsRoot("Need super user privileges: Operation not permitted", hint="run it as root, or with sudo")


@click.group()
def command() -> None:
    """Run, stop, look at and clean the daemons of this host."""


@command.command(short_help="Prepare this host and start its daemons.")
@click.option("--ip", envvar="IP", default="", help="This node's IPv4 address, autodetect, or none.")
@click.option("--ip6", envvar="IP6", default="", help="This node's IPv6 address, autodetect, or none.")
@click.option("--as", "as_number", envvar="AS", default="", help="Its own AS number.")
@click.option("--name", envvar="NODENAME", default="", help="This node's name; default: the host name, lower-cased.")
@click.option(
    "--ip-autodetection-method", envvar="IP_AUTODETECTION_METHOD", default="", help="How autodetect finds the address."
)
@click.option(
    "--ip6-autodetection-method", envvar="IP6_AUTODETECTION_METHOD", default="", help="The same for IPv6."
)
@click.option("--backend", envvar="CALICO_NETWORKING_BACKEND", default="", help="exabgp (or bird) or none.")
@click.option("--no-default-ippools", is_flag=True, help="Create no default pools in an empty store.")
@click.option("--disable-docker-networking", is_flag=True, help="Do not run Docker's driver.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground (for systemd and the container).")
@click.option("--dryrun", is_flag=True, help="Show what would be started, and change nothing.")
@config_option
def run(
    ip: str, ip6: str, as_number: str, name: str, ip_autodetection_method: str, ip6_autodetection_method: str,
    backend: str, no_default_ippools: bool, disable_docker_networking: bool, foreground: bool, dryrun: bool,
    config: str | None,
) -> int:
    """Prepare this host and start its daemons, in the background unless told otherwise.

    Returns when every daemon says that it is ready. On a host where they run already nothing is changed.
    """
    from calicoctl.node.run import run as start

    asked = {
        "IP": ip, "IP6": ip6, "AS": as_number, "NODENAME": name, "IP_AUTODETECTION_METHOD": ip_autodetection_method,
        "IP6_AUTODETECTION_METHOD": ip6_autodetection_method, "CALICO_NETWORKING_BACKEND": backend,
    }
    environment = {**os.environ, **{key: value for key, value in asked.items() if value}}
    if no_default_ippools:
        environment["NO_DEFAULT_POOLS"] = "true"
    if disable_docker_networking:
        environment["CALICO_LIBNETWORK_ENABLED"] = "false"
    if not dryrun:
        need_root()
    return start(environment, config=config, foreground=foreground, dry_run=dryrun)


@command.command(short_help="End the daemons; traffic goes on.")
def stop() -> int:
    """End the daemons; routes, rules and traffic of running containers stay as they are."""
    from calicoctl.node.stop import stop as end

    need_root()
    return end()


@command.command(short_help="Stop, and remove everything of ours from this host.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def clean(yes: bool, config: str | None) -> int:
    """Stop, and remove everything of ours from this host and this host's records from the store."""
    from calicoctl.node.clean import clean as remove

    need_root()
    return remove(config=config, confirmed=yes, ask=lambda text: click.confirm(text, err=True))


@command.command()
@click.option("-o", "--output", default="ps", metavar="FORMAT", help="ps, yaml or json.")
def status(output: str) -> int:
    """Show whether the daemons run, and the BGP sessions."""
    from calicoctl.node import status as node_status

    _check_output(output, ("ps", "yaml", "json"))
    need_root()
    return node_status.status(sys.stdout) if output == "ps" else node_status.as_data(sys.stdout, output)


@command.command(short_help="Show the routes that this host learned by BGP, and what became of each.")
@click.argument("destination", required=False)
@click.option("--peer", metavar="ADDRESS", help="Only what this peer told.")
@click.option("--missing", is_flag=True, help="Only destinations that are not in the kernel.")
@click.option("-o", "--output", default="ps", metavar="FORMAT", help="ps, wide, yaml or json.")
def routes(destination: str | None, peer: str | None, missing: bool, output: str) -> int:
    """Show every route that this host learned by BGP: from whom, when, by which path, and whether it is in the kernel.

    One line a path; where a path is not used, the reason stands there. DESTINATION is an address (the routes that cover
    it) or a prefix (those that cover it or lie in it). This host's own blocks and containers are not learned: see
    ip route.
    """
    import msgspec

    from calicoctl.node import routes as learned
    from calicoctl.output import as_json
    from resources.yamltext import dump

    _check_output(output, ("ps", "wide", "yaml", "json"))
    need_root()
    every = learned.ask()
    found = learned.chosen(every, destination=destination, peer=peer, missing=missing)
    if output in ("ps", "wide"):
        click.echo(learned.tables(found, now=time.time(), wide=output == "wide", of=len(every.routes)), nl=False)
    else:
        plain = msgspec.to_builtins(found)
        click.echo(as_json(plain) if output == "json" else dump(plain), nl=False)
    return 0


def _check_output(output: str, known: Sequence[str]) -> None:
    if output not in known:
        raise BadOutput(f"unrecognized output format '{output}'", hint=f"use {', '.join(known[:-1])} or {known[-1]}")


@command.command(short_help="Check this host, and list the ports to open.")
@click.option("-f", "--kernel-config", default=None, hidden=True, help="Accepted: features are tried, not looked up.")
@config_option
def checksystem(kernel_config: str | None, config: str | None) -> int:
    """Check that this host can do what is needed, and list the ports to open."""
    from calicoctl.node.checks import checksystem as check

    need_root()
    return check(config)
