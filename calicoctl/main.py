"""Entry point of calicoctl: arguments, dispatch, exception -> message and exit code.

Commands live in `calicoctl.commands`, one file and one job each, and are imported only when they are asked for: a
`get` that starts quickly is a feature.
"""

import importlib
import sys

import click

from calicoctl import build
from resources.errors import CalicoError

COMMANDS = {
    "apply": "Create resources, or update those that exist, from files or standard input.",
    "create": "Create resources from files or standard input.",
    "delete": "Delete resources by file or by name.",
    "get": "Show resources.",
    "ipam": "Show how addresses are used, and find leaks.",
    "node": "Run, stop, look at and clean the daemons of this host.",
    "policy": "Show what policy does on this host.",
    "replace": "Update resources that exist from files or standard input.",
    "version": "Show the versions of this program and of the cluster.",
}
LOG_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug")


class Commands(click.Group):
    """Commands that are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"calicoctl.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


class UnknownLogLevel(click.UsageError):
    """``-l`` with a word that is no level."""


def _log_level(_: click.Context, __: click.Parameter, value: str) -> str:
    if value not in LOG_LEVELS:
        raise UnknownLogLevel(f"Unknown log level: {value}, expected one of: \n{', '.join(LOG_LEVELS)}.")
    return value


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"calicoctl version {build.version()}, build {build.build()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-l", "--log-level", default="panic", callback=_log_level, help="One of: " + ", ".join(LOG_LEVELS) + ".")
@click.option(
    "--api-version", envvar="CALICO_API_VERSION", type=click.Choice(["v1", "v3"]), default=None,
    help="Show resources in the tables and YAML of this version of the API.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and end."
)
@click.option("--context", default=None, hidden=True, help="Accepted and ignored: there is no kubeconfig.")
@click.option("--allow-version-mismatch", is_flag=True, hidden=True, help="Accepted: versions are not compared.")
@click.pass_context
def calicoctl(
    ctx: click.Context, log_level: str, api_version: str | None, context: str | None, allow_version_mismatch: bool
) -> None:
    """The command line of a layer-3 network for Docker hosts.

    Resources are read and written in etcd, which is found by /etc/calico/calicoctl.cfg or by ETCD_ENDPOINTS.
    """
    del context, allow_version_mismatch
    ctx.obj = {"debug": log_level in ("info", "debug"), "api_version": api_version}


def main(arguments: list[str] | None = None) -> int:
    """Run calicoctl and return its exit code: 0 on success, 1 on any failure."""
    try:
        answer = calicoctl.main(args=arguments, prog_name="calicoctl", standalone_mode=False)
    except UnknownLogLevel as error:
        click.echo(error.message, err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 1
    except CalicoError as error:
        report(error)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return answer if isinstance(answer, int) else 0


def report(error: CalicoError, prefix: str = "Error executing command: ") -> None:
    """Print an error and the way out of it, on stderr."""
    if "\n" in str(error):  # all that is wrong in a file
        prefix = "Failed to execute command: nothing was changed:\n"
    click.echo(f"{prefix}{error}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


if __name__ == "__main__":
    sys.exit(main())
