"""Entry point calico-node: what the container and the service unit run; `node run --foreground` by another name."""

import os
import sys

import click

from calicoctl.main import report
from resources.errors import CalicoError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dryrun", is_flag=True, help="Show what would be started, and change nothing.")
def calico_node(dryrun: bool) -> int:
    """Prepare this host by the environment and run its daemons in the foreground, under a supervisor.

    The environment is that of Calico's container: NODENAME, IP, IP6, AS, ETCD_ENDPOINTS,
    CALICO_NETWORKING_BACKEND, CALICO_LIBNETWORK_ENABLED, NO_DEFAULT_POOLS and others (see docs/reference).
    """
    from calicoctl.commands.node import need_root
    from calicoctl.node.run import run

    if not dryrun:
        need_root()
    return run(os.environ, config=None, foreground=True, dry_run=dryrun)


def main() -> int:
    """Run calico-node and return its exit code."""
    try:
        answer = calico_node.main(prog_name="calico-node", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 1
    except CalicoError as error:
        report(error, prefix="calico-node: ")
        return 1
    return answer if isinstance(answer, int) else 0


if __name__ == "__main__":
    sys.exit(main())
