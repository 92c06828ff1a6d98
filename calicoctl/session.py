"""A command's connection to the store: opened late, closed always, with the settings that ``-c`` names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from resources.datastore.client import ResourceClient
from resources.datastore.settings import EtcdConfig, connect, etcd_config
from resources.runtime import paths

F = TypeVar("F", bound=Callable[..., object])


def config_option(function: F) -> F:
    """Give a command ``-c/--config``."""
    option: Callable[[F], F] = click.option(
        "-c", "--config", default=None, metavar="FILE",
        help=f"Where the datastore is; default {paths.CALICOCTL_CFG}, else the environment.",
    )
    return option(function)


def load_settings(config: str | None) -> EtcdConfig:
    """Return the datastore's settings.

    Raises:
        ConfigurationError: they cannot be used.
    """
    return etcd_config(file=Path(config) if config else None)


@contextmanager
def open_client(config: str | None) -> Iterator[ResourceClient]:
    """Open the store for a command; without what deleting pools and nodes needs."""
    store = connect(load_settings(config))
    try:
        yield ResourceClient(store)
    finally:
        store.close()
