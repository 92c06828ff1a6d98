"""`calicoctl version`: this program's version, and the cluster's from the store."""

import click

from calicoctl import build
from calicoctl.session import config_option, open_client
from resources.kinds import by_name


@click.command()
@click.option("--client", "only_client", is_flag=True, help="Show this program's version only; needs no etcd.")
@config_option
def command(only_client: bool, config: str | None) -> None:
    """Show the versions of this program and of the cluster."""
    click.echo(f"Client Version:    {build.version()}")
    click.echo(f"Git commit:        {build.build()}")
    if only_client:
        return
    with open_client(config) as client:
        found = {c.metadata.name: c.spec for c in client.list(by_name()["ClusterInformation"]).items}
    spec = found.get("default")
    click.echo(f"Cluster Version:   {spec.calico_version if spec and spec.calico_version else 'unknown'}")
    click.echo(f"Cluster Type:      {spec.cluster_type if spec and spec.cluster_type else 'unknown'}")
