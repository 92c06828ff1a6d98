"""`calicoctl apply`."""

import click

from calicoctl.files import read
from calicoctl.session import config_option, file_options, open_client
from calicoctl.writing import carry_out, tell, warn_of_overlaps
from resources.documents import Document


@click.command()
@file_options()
@config_option
def command(filename: str, recursive: bool, namespace: str | None, config: str | None) -> int:
    """Create resources, or update those that exist, from files or standard input.

    Every document is checked before anything is written.
    """
    documents = read(filename, recursive=recursive, namespace=namespace)
    with open_client(config) as client:
        warn_of_overlaps(client, documents)

        def apply(document: Document) -> None:
            client.apply(document.kind, document.resource, v1=document.v1)

        account = carry_out(documents, apply)
    return tell(account, "apply", "applied")
