"""`calicoctl delete`."""

from dataclasses import dataclass
from typing import Any

import click

from calicoctl.elsewhere import pointed
from calicoctl.files import read
from calicoctl.kinds import KINDS, Asked, Filters, asked, filtered
from calicoctl.session import config_option, file_options, open_client, v1_filters
from calicoctl.writing import carry_out, tell
from ipam.allocator import Allocator
from resources.datastore.client import ResourceClient
from resources.documents import Document
from resources.errors import DoesNotExist, Rejected
from resources.kinds.base import Kind, Metadata
from resources.kinds.bgpfilter import KIND as BGP_FILTER
from resources.kinds.bgppeer import KIND as BGP_PEER
from resources.kinds.node import KIND as NODE
from resources.kinds.pool import KIND as POOL
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.names import DEFAULT_NAMESPACE, NodeName

READER = NodeName("calicoctl")
"""Nothing is assigned in this name."""


class MissingIdentifier(Rejected):
    """What is to be deleted is not the only one of its name."""

    reference = "missing-identifier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One resource to delete. `label` is how messages name it; "" leaves that to its kind."""

    kind: Kind[Any]
    kind_name: str
    name: str
    namespace: str
    resource_version: str = ""
    label: str = ""


@click.command(epilog=KINDS)
@click.argument("kind", required=False)
@click.argument("names", nargs=-1)
@file_options(required=False)
@click.option("-s", "--skip-not-exists", is_flag=True, help="Count resources that do not exist as deleted.")
@v1_filters
@config_option
@click.pass_context
def command(
    ctx: click.Context, kind: str | None, names: tuple[str, ...], filenames: tuple[str, ...], recursive: bool,
    namespace: str | None, skip_not_exists: bool, node: str, scope: str, orchestrator: str, workload: str,
    config: str | None,
) -> int:
    """Delete resources, by file (-f) or by KIND and NAMES.

    Deleting a node gives back its addresses and blocks and removes its endpoints; deleting a pool gives back its
    blocks. A pool is named by its CIDR if it is asked for as ipPool.
    """
    if bool(filenames) == bool(kind) or (kind and not names):
        raise click.UsageError("give either -f FILE, or a KIND and at least one NAME")
    wanted = asked(kind, ctx.obj["api_version"]) if kind else None
    filters = Filters(node, scope, orchestrator, workload)
    filters.refuse(wanted)
    documents = read(filenames, recursive=recursive, namespace=namespace, warn=False) if filenames else []
    with open_client(config, removing=True) as client:
        targets = [_of_document(client, document) for document in documents]
        if wanted:
            by_more = wanted.v1 and wanted.kind.v1 is not None and wanted.kind.v1.filters
            targets += [
                _of_identifiers(client, wanted, name, filters) if by_more else _of_name(client, wanted, name, namespace)
                for name in names
            ]

        def delete(target: Target) -> None:
            if target.kind is POOL:
                _warn_in_use(client, target.name)
            if target.kind is BGP_FILTER:
                _warn_of_peers(client, target.name)
            if target.kind is NODE:
                _warn_of_endpoints(client, target.name)
            try:
                client.delete(
                    target.kind, target.name, target.namespace,
                    resource_version=target.resource_version, label=target.label,
                )
            except DoesNotExist as error:
                raise pointed(error, client, target.kind, target.name) from None

        account = carry_out(targets, delete, skip=DoesNotExist if skip_not_exists else None)
    return tell(account, "delete", "deleted")


def _warn_in_use(client: ResourceClient, name: str) -> None:
    """Say what becomes of containers that have an address of a pool that goes; a pool that is not there has none."""
    use = next((use for use in Allocator(client.store, READER).utilization() if use.name == name), None)
    if use is None or use.cidr is None:
        return
    own = (address for node in client.list(NODE).items for address in node.tunnel_addresses)
    in_use = use.in_use - sum(address in use.cidr for address in own)  # the hosts give these back by themselves
    if in_use > 0:
        click.echo(
            f"Warning: {in_use} address(es) of pool {use.cidr} are in use: their containers go on, but other hosts "
            "lose the way to them, and they cannot be started again before the pool is there again",
            err=True,
        )


def _warn_of_endpoints(client: ResourceClient, name: str) -> None:
    """Say what becomes of containers of a node that goes, if it should still be alive."""
    count = sum(endpoint.spec.node == name for endpoint in client.list(ENDPOINT).items)
    if count:
        click.echo(
            f"Warning: node {name} has {count} endpoint(s), removed with it. If that host still runs, its containers "
            "are without network until they are restarted after: calicoctl node stop; calicoctl node run",
            err=True,
        )


def _warn_of_peers(client: ResourceClient, name: str) -> None:
    """Say what becomes of peers that name a filter that goes."""
    peers = [peer.metadata.name for peer in client.list(BGP_PEER).items if name in peer.spec.filters]
    if peers:
        click.echo(
            f"Warning: BGPFilter {name} is named by {', '.join(map(BGP_PEER.label, peers))}: without it their routes "
            "are filtered by the others only",
            err=True,
        )


def _of_document(client: ResourceClient, document: Document) -> Target:
    metadata = document.resource.metadata
    v1 = document.kind.v1 if document.v1 else None
    return Target(
        kind=document.kind,
        kind_name=document.kind_name,
        name=client.name_of(document.kind, document.resource, v1=document.v1),
        namespace=metadata.namespace,
        resource_version=metadata.resource_version,
        label=v1.identifier(document.resource) if v1 else "",
    )


def _of_name(client: ResourceClient, wanted: Asked, name: str, namespace: str | None) -> Target:
    return Target(
        kind=wanted.kind,
        kind_name=wanted.name,
        name=client.name_of_v1(wanted.kind, name) if wanted.v1 else name,
        namespace=(namespace or DEFAULT_NAMESPACE) if wanted.kind.namespaced else (namespace or ""),
        label=f"{wanted.kind.name}(cidr={name})" if wanted.v1 and wanted.kind is POOL else "",
    )


def _of_identifiers(client: ResourceClient, wanted: Asked, name: str, filters: Filters) -> Target:
    """Return what v1 means by a name and more identifiers, which must leave only one.

    Raises:
        MissingIdentifier: they leave several.
    """
    assert wanted.kind.v1 is not None
    found = filtered(wanted, client.list(wanted.kind).items, name, filters)
    if len(found) > 1:
        missing = next((key for key in wanted.kind.v1.filters if key not in filters.given()), "name")
        several = ", ".join(map(wanted.kind.v1.identifier, found[:3])) + (", ..." if len(found) > 3 else "")
        raise MissingIdentifier(
            f"insufficient identifiers, missing '{missing}'", hint=f"it could be any of {several}: add --{missing}=..."
        )
    metadata = found[0].metadata if found else Metadata(name=name, namespace=wanted.kind.namespaced * DEFAULT_NAMESPACE)
    return Target(
        kind=wanted.kind,
        kind_name=wanted.name,
        name=metadata.name,
        namespace=metadata.namespace,
        label=wanted.label(found[0]) if found else f"{wanted.kind.name}({wanted.kind.v1.named_by}={name})",
    )
