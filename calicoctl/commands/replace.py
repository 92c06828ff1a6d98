"""`calicoctl replace`."""

import click

from calicoctl.session import config_option, file_options
from calicoctl.writing import write_files


@click.command()
@file_options()
@config_option
def command(filenames: tuple[str, ...], recursive: bool, namespace: str | None, config: str | None) -> int:
    """Update resources that exist from files or standard input.

    Every document is checked before anything is written.
    """
    return write_files(
        filenames, lambda client, d: client.update(d.kind, d.resource, v1=d.v1), verb="replace", past="replaced",
        recursive=recursive, namespace=namespace, config=config,
    )
