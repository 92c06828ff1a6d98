"""`calicoctl create`."""

import click

from calicoctl.files import read
from calicoctl.session import config_option, file_options, open_client
from calicoctl.writing import carry_out, tell, warn_of_overlaps
from resources.documents import Document
from resources.errors import AlreadyExists


@click.command()
@file_options()
@click.option("--skip-exists", is_flag=True, help="Count resources that exist as created.")
@config_option
def command(filename: str, recursive: bool, namespace: str | None, skip_exists: bool, config: str | None) -> int:
    """Create resources from files or standard input.

    Every document is checked before anything is written.
    """
    documents = read(filename, recursive=recursive, namespace=namespace)
    with open_client(config) as client:
        warn_of_overlaps(client, documents)

        def create(document: Document) -> None:
            client.create(document.kind, document.resource, v1=document.v1)

        account = carry_out(documents, create, skip=AlreadyExists if skip_exists else None)
    return tell(account, "create", "created")
