"""`calicoctl policy`: what policy does on this host."""

import time

import click
import msgspec

from calicoctl import policy_counters
from calicoctl.commands.node import need_root
from calicoctl.output import BadOutput, as_json
from resources.yamltext import dump


@click.group()
def command() -> None:
    """Show what policy does on this host."""


@command.command(short_help="Show how many packets each rule matched, and what was dropped where.")
@click.argument("name", required=False)
@click.option("--endpoint", metavar="ENDPOINT", help="Only what concerns a container, an interface or an address.")
@click.option("--tier", metavar="TIER", help="Only the policies of a tier.")
@click.option("--nonzero", is_flag=True, help="Only what counted something.")
@click.option(
    "--during", type=click.FloatRange(min=0.1), metavar="SECONDS",
    help="Wait, and show only what was counted meanwhile.",
)
@click.option("-o", "--output", default="ps", metavar="FORMAT", help="ps, wide, yaml or json.")
def counters(
    name: str | None, endpoint: str | None, tier: str | None, nonzero: bool, during: float | None, output: str
) -> int:
    """Show how many packets each rule of the policies on this host matched, or of the policy NAME (or NAMESPACE/NAME),
    what went through each endpoint, and what was dropped there by what.

    Rules are asked about the first packet of a connection only: what belongs to one that is open is let through before
    any policy, and shows as established; between two endpoints of this host it is counted at the one that sends. A rule
    counts for all endpoints of this host together. Directions are as seen from the endpoint.

    What an endpoint lost in a tier is counted of each endpoint. Which policy of the tier it was is said where the
    counters leave one answer: endpoints with the same three or more policies share a chain of the kernel, and where
    several of these policies denied packets, and to several endpoints, all of them are named ("a rule of policy a or
    policy b"). Then send, and see with --during which rule counts.

    The kernel counts, whether felix runs or not, from when a chain was last written. Felix writes a chain only when it
    must be another: when a policy's rules of a direction change, its counters of that direction begin at zero, and an
    endpoint's do when other policies apply to it. A restart of felix changes no counter; one of the host, all.
    """
    if output not in ("ps", "wide", "yaml", "json"):
        raise BadOutput(f"unrecognized output format '{output}'", hint="use ps, wide, yaml or json")
    try:
        found = policy_counters.ask()
    except policy_counters.FelixSilent:
        need_root()
        raise
    choice = {"policy": name, "tier": tier, "endpoint": endpoint}
    shown = policy_counters.chosen(found, **choice, nonzero=nonzero)
    if during is not None:
        time.sleep(during)
        meanwhile = policy_counters.during(found, policy_counters.ask(), during)
        shown = policy_counters.chosen(meanwhile, **choice, nonzero=True)
    if output in ("ps", "wide"):
        click.echo(policy_counters.tables(shown, wide=output == "wide"), nl=False)
    else:
        plain = msgspec.to_builtins(shown)
        click.echo(as_json(plain) if output == "json" else dump(plain), nl=False)
    for chain in shown.missing:
        click.echo(f"Warning: {chain} is not in the kernel as felix wants it, so it is not counted here", err=True)
    return 0
