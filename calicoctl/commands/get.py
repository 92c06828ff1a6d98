"""`calicoctl get`: tables, YAML and JSON of resources (reference resources.md 5.8)."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from calicoctl import elsewhere
from calicoctl.kinds import KINDS, Asked, Filters, asked, filtered
from calicoctl.output import BadOutput, as_json, plain_table
from calicoctl.session import config_option, file_options, open_client, v1_filters
from resources.codec import BadRecord, shown_document, shown_v1_document
from resources.datastore.client import ResourceClient
from resources.errors import DoesNotExist
from resources.gotext import JSON
from resources.kinds.base import API_VERSION, Column, Resource, View
from resources.names import DEFAULT_NAMESPACE

_EXPORT_DROPS = ("namespace", "uid", "resourceVersion", "creationTimestamp")


@click.command(epilog=KINDS)
@click.argument("kind", required=False)
@click.argument("names", nargs=-1)
@file_options(required=False)
@click.option("-A", "--all-namespaces", "-a", is_flag=True, help="Resources of all namespaces.")
@click.option("-o", "--output", default="ps", metavar="FORMAT", help="ps, wide, yaml, json or custom-columns=A,B.")
@click.option("--export", is_flag=True, help="With NAMES: leave out what belongs to this store.")
@v1_filters
@config_option
@click.pass_context
def command(
    ctx: click.Context, kind: str | None, names: tuple[str, ...], filenames: tuple[str, ...], recursive: bool,
    namespace: str | None, all_namespaces: bool, output: str, export: bool, node: str, scope: str, orchestrator: str,
    workload: str, config: str | None,
) -> int:
    """Show resources of a KIND, all of them or those of NAMES, or those that a file names (-f).

    A kind spelled as in v1 (ipPool) is shown in v1's tables and YAML.
    """
    if bool(filenames) == bool(kind):
        raise click.UsageError("give either a KIND or -f FILE")
    _check_format(output)
    if namespace and all_namespaces:
        raise click.UsageError("cannot use both --namespace and --all-namespaces flags at the same time")
    wanted = asked(kind, ctx.obj["api_version"]) if kind else None
    filters = Filters(node, scope, orchestrator, workload)
    filters.refuse(wanted)
    with open_client(config) as client:
        if wanted is None:
            return _show_files(client, filenames, recursive, namespace, output)
        if not wanted.kind.namespaced and namespace:
            raise click.UsageError(f"{wanted.kind.name} is not namespaced")
        if all_namespaces and names and wanted.kind.namespaced and not wanted.v1:
            raise click.UsageError("cannot use --all-namespace flag for getting a single resource")
        shown_namespace = bool(namespace or all_namespaces) and wanted.kind.namespaced
        if wanted.v1 and wanted.kind.v1 and wanted.kind.v1.filters:
            return _show_filtered(client, wanted, names, filters, namespace, output, shown_namespace)
        if names:
            return _show_names(client, wanted, names, namespace, output, export, shown_namespace)
        return _show_list(client, wanted, None if all_namespaces else namespace, output, shown_namespace)


def _show_list(client: ResourceClient, wanted: Asked, namespace: str | None, output: str, shown_namespace: bool) -> int:
    unasked = wanted.kind.namespaced and namespace is None and not shown_namespace
    listing = client.list(wanted.kind, DEFAULT_NAMESPACE if unasked else namespace)
    for bad in listing.bad:
        click.echo(f"Warning: {bad}", err=True)
    if output in ("yaml", "json"):
        documents = [_document(wanted, resource) for resource in listing.items]
        whole: JSON = documents if wanted.v1 else {
            "kind": f"{wanted.kind.name}List", "apiVersion": API_VERSION,
            "metadata": {"resourceVersion": listing.revision}, "items": documents,
        }
        _print_documents(whole, output)
    else:
        items = sorted(listing.items, key=wanted.kind.v1.order) if wanted.v1 and wanted.kind.v1 else listing.items
        click.echo(_table(client, wanted, items, output, shown_namespace), nl=False)
    if unasked and not listing.items:
        for line in elsewhere.others(client, wanted.kind):
            click.echo(line, err=True)
    return 0


def _show_filtered(
    client: ResourceClient, wanted: Asked, names: Sequence[str], filters: Filters, namespace: str | None, output: str,
    shown_namespace: bool,
) -> int:
    """Show what v1 identifies by more than a name: whatever is not asked for is any."""
    listing = client.list(wanted.kind, namespace)
    for bad in listing.bad:
        click.echo(f"Warning: {bad}", err=True)
    found = [r for name in names or ("",) for r in filtered(wanted, listing.items, name, filters)]
    if output in ("yaml", "json"):
        _print_documents([_document(wanted, resource) for resource in found], output)
    else:
        assert wanted.kind.v1 is not None
        click.echo(_table(client, wanted, sorted(found, key=wanted.kind.v1.order), output, shown_namespace), nl=False)
    return 0


def _show_names(
    client: ResourceClient, wanted: Asked, names: Sequence[str], namespace: str | None, output: str, export: bool,
    shown_namespace: bool,
) -> int:
    found: list[Resource] = []
    failed = 0
    home = (namespace or DEFAULT_NAMESPACE) if wanted.kind.namespaced else ""
    for name in names:
        try:
            stored_name = client.name_of_v1(wanted.kind, name) if wanted.v1 else name
            found.append(client.get(wanted.kind, stored_name, home))
        except (DoesNotExist, BadRecord) as error:
            if not wanted.v1:
                told = elsewhere.pointed(error, client, wanted.kind, name) if isinstance(error, DoesNotExist) else error
                click.echo(str(told), err=True)
                if isinstance(told, DoesNotExist) and told.hint:
                    click.echo(f"  {told.hint}", err=True)
                failed = 1
    if output in ("yaml", "json"):
        documents = [_document(wanted, resource, export=export) for resource in found]
        single = len(names) == 1 and not wanted.v1
        _print_documents((documents[0] if documents else None) if single else documents, output)
    elif wanted.v1 or found:
        parts = [found] if wanted.v1 else [[resource] for resource in found]
        for part in parts:
            click.echo(_table(client, wanted, part, output, shown_namespace), nl=False)
    return failed


def _show_files(
    client: ResourceClient, filenames: tuple[str, ...], recursive: bool, namespace: str | None, output: str
) -> int:
    from calicoctl.files import read

    documents: list[JSON] = []
    failed = 0
    for document in read(filenames, recursive=recursive, namespace=namespace, warn=False):
        wanted = Asked(document.kind, document.v1)
        name = client.name_of(document.kind, document.resource, v1=document.v1)
        try:
            resource = client.get(document.kind, name, document.resource.metadata.namespace)
        except (DoesNotExist, BadRecord) as error:
            click.echo(str(error), err=True)
            failed = 1
            continue
        if output in ("yaml", "json"):
            documents.append(_document(wanted, resource))
        else:
            click.echo(_table(client, wanted, [resource], output, document.kind.namespaced), nl=False)
    if output in ("yaml", "json"):
        _print_documents(documents, output)
    return failed


def _check_format(output: str) -> None:
    if output in ("ps", "wide", "yaml", "json"):
        return
    name, equals, columns = output.partition("=")
    if name != "custom-columns" or not equals:
        raise BadOutput(f"unrecognized output format '{output}'", hint="use ps, wide, yaml, json or custom-columns=A,B")
    if not columns.strip(","):
        raise BadOutput("need to specify at least one column")


def _columns(wanted: Asked, output: str) -> tuple[Column[Any], ...]:
    tables = wanted.kind.v1 if wanted.v1 and wanted.kind.v1 else wanted.kind
    if output == "wide":
        return tables.wide or tables.columns
    if not output.startswith("custom-columns="):
        return tables.columns
    known = {column.heading: column for column in (*tables.columns, *tables.wide, *tables.custom)}
    asked_for = [heading for heading in output.partition("=")[2].split(",") if heading]
    for heading in asked_for:
        if heading not in known:
            hint = f"headings are in capitals: {heading.upper()}" if heading.upper() in known else None
            raise BadOutput(f"unknown heading {heading}, valid values are: {', '.join(known)}", hint=hint)
    return tuple(known[heading] for heading in asked_for)


def _table(
    client: ResourceClient, wanted: Asked, resources: Sequence[Resource], output: str, shown_namespace: bool
) -> str:
    columns = _columns(wanted, output)
    view = View(as_number=_as_number(client)) if any(column.heading == "ASN" for column in columns) else View()
    headings = [column.heading for column in columns]
    rows = [[column.cell(resource, view) for column in columns] for resource in resources]
    if shown_namespace and not output.startswith("custom-columns"):
        headings.insert(0, "NAMESPACE")
        rows = [[r.metadata.namespace, *row] for r, row in zip(resources, rows, strict=True)]
    return plain_table(headings, rows)


def _as_number(client: ResourceClient) -> int:
    from resources.kinds.bgpconfiguration import DEFAULT_AS_NUMBER
    from resources.kinds.bgpconfiguration import KIND as BGP_CONFIGURATION

    try:
        number = client.get(BGP_CONFIGURATION, "default").spec.as_number
    except (DoesNotExist, BadRecord):
        number = None
    return DEFAULT_AS_NUMBER if number is None else number


def _document(wanted: Asked, resource: Resource, *, export: bool = False) -> JSON:
    if wanted.v1:
        return shown_v1_document(wanted.kind, resource)
    document = shown_document(wanted.kind, resource)
    if export and isinstance(metadata := document["metadata"], dict):
        for name in _EXPORT_DROPS:
            metadata.pop(name, None)
    return document


def _print_documents(value: JSON, output: str) -> None:
    if output == "json":
        sys.stdout.write(as_json(value))
        return
    from resources.yamltext import dump

    sys.stdout.write(dump(value))
