"""Entry point calico-node: what the container and the service unit run, and the parts that run by themselves.

Each part imports only what it needs: they stay in memory for as long as the host is up.
"""

import sys


def main() -> int:
    """Run calico-node and return its exit code."""
    if sys.argv[1:] == ["supervise"]:
        from calicoctl.node.supervise import supervise
        from calicoctl.node.supervisor import CONFIGURATION

        return supervise(CONFIGURATION)
    if sys.argv[1:] == ["agent"]:
        from calicoctl.node.agent.daemon import main as agent

        return agent()
    return _command_line()


def _command_line() -> int:
    import click

    from calicoctl.main import report
    from calicoctl.node.command import calico_node
    from resources.errors import CalicoError

    try:
        answer = calico_node.main(prog_name="calico-node", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 1
    except CalicoError as error:
        report(error, prefix="calico-node: ")
        return 1
    return answer if isinstance(answer, int) else 0


if __name__ == "__main__":
    sys.exit(main())
