"""`calicoctl create`."""

import click

from calicoctl.session import config_option, file_options
from calicoctl.writing import write_files
from resources.errors import AlreadyExists


@click.command()
@file_options()
@click.option("--skip-exists", is_flag=True, help="Count resources that exist as created.")
@config_option
def command(
    filenames: tuple[str, ...], recursive: bool, namespace: str | None, skip_exists: bool, config: str | None
) -> int:
    """Create resources from files or standard input.

    Every document is checked before anything is written.
    """
    return write_files(
        filenames, lambda client, d: client.create(d.kind, d.resource, v1=d.v1), verb="create", past="created",
        recursive=recursive, namespace=namespace, config=config, skip=AlreadyExists if skip_exists else None,
    )
