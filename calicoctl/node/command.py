"""calico-node on the command line: `node run --foreground` by another name, and what runs on each host by itself."""

import os

import click


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dryrun", is_flag=True, help="Show what would be started, and change nothing.")
@click.pass_context
def calico_node(context: click.Context, dryrun: bool) -> int:
    """Prepare this host by the environment and run its daemons in the foreground, under a supervisor.

    The environment is that of Calico's container: NODENAME, IP, IP6, AS, ETCD_ENDPOINTS,
    CALICO_NETWORKING_BACKEND, CALICO_LIBNETWORK_ENABLED, NO_DEFAULT_POOLS and others (see docs/reference).
    """
    from calicoctl.commands.node import need_root
    from calicoctl.node.run import run

    if context.invoked_subcommand is not None:
        return 0
    if not dryrun:
        need_root()
    return run(os.environ, config=None, foreground=True, dry_run=dryrun)


@calico_node.command(hidden=True)
def supervise() -> int:
    """Be the supervisor of the daemons that `node run` configured. `main` takes care of it, without click."""
    from calicoctl.node.supervise import supervise as be_supervisor
    from calicoctl.node.supervisor import CONFIGURATION

    return be_supervisor(CONFIGURATION)


@calico_node.command()
def agent() -> int:
    """Keep this host's tunnel addresses in the datastore; `node run` starts it with the others."""
    from calicoctl.node.agent.daemon import main as run_agent

    return run_agent()
