"""A command's connection to the store, and the options that many commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import click

from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import connect, etcd_config
from resources.datastore.store import Store
from resources.runtime import paths

F = TypeVar("F", bound=Callable[..., Any])

STORE: ContextVar[Callable[[EtcdConfig], Store]] = ContextVar("STORE", default=connect)
"""What opens the store of a command; tests put a store in memory here."""


def config_option(function: F) -> F:
    """Give a command ``-c/--config``."""
    option: Callable[[F], F] = click.option(
        "-c", "--config", default=None, metavar="FILE",
        help=f"Where the datastore is; default {paths.CALICOCTL_CFG}, else the environment.",
    )
    return option(function)


def file_options(*, required: bool = True) -> Callable[[F], F]:
    """Give a command ``-f/--filename``, ``-R/--recursive`` and ``-n/--namespace``."""

    def decorate(function: F) -> F:
        options: tuple[Callable[[F], F], ...] = (
            click.option("-n", "--namespace", default=None, help="Namespace of namespaced resources."),
            click.option("-R", "--recursive", is_flag=True, help="Take the folders in a folder too."),
            click.option(
                "-f", "--filename", "filenames", required=required, multiple=True, metavar="FILE",
                help="A file, a folder, or - for standard input; may be given several times.",
            ),
        )
        for option in options:
            function = option(function)
        return function

    return decorate


def v1_filters(function: F) -> F:
    """Give a command ``--scope``, ``--node``, ``--orchestrator`` and ``--workload``."""
    for name, what in (("workload", "workload"), ("orchestrator", "orchestrator"), ("node", "node")):
        option: Callable[[F], F] = click.option(
            f"--{name}", default="", metavar=name.upper(), help=f"Of this {what} only, with a kind as v1 spells it."
        )
        function = option(function)
    scope: Callable[[F], F] = click.option(
        "--scope", default="", metavar="SCOPE", help="global or node: bgpPeers of all nodes, or of one node each."
    )
    return scope(function)


def load_settings(config: str | None) -> EtcdConfig:
    """Return the datastore's settings.

    Raises:
        ConfigurationError: they cannot be used.
    """
    return etcd_config(file=Path(config) if config else None)


@contextmanager
def open_client(config: str | None, *, removing: bool = False) -> Iterator[ResourceClient]:
    """Open the store for a command. `removing`: pools and nodes may be deleted, with what is theirs."""
    store = STORE.get()(load_settings(config))
    try:
        client = ResourceClient(store)
        if removing:
            from ipam.cleanup import Cleanup

            client.ipam = Cleanup(store)
        yield client
    finally:
        store.close()
