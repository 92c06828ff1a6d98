"""What create, apply, replace and delete share: a list of things, one action each, one account of what happened.

The whole file is checked before the first write. What fails only at the store is reported beside what was written
(reference resources.md 5.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import click

from calicoctl import effects, overlaps, peerings
from calicoctl.files import read
from calicoctl.session import open_client
from resources.datastore.client import ResourceClient
from resources.documents import Document
from resources.errors import CalicoError, StoreUnavailable


class Named(Protocol):
    """A thing that knows its kind as its own era spells it."""

    @property
    def kind_name(self) -> str: ...


T = TypeVar("T", bound=Named)


@dataclass(slots=True)
class Account(Generic[T]):
    """What was done and what was not."""

    done: list[T] = field(default_factory=list)
    failed: list[tuple[T, CalicoError]] = field(default_factory=list)


def carry_out(
    things: Sequence[T], action: Callable[[T], object], *, skip: type[CalicoError] | None = None
) -> Account[T]:
    """Do `action` to each thing; go on after a refusal, stop when the store is away.

    Errors of type `skip` count as successes (``--skip-exists``, ``--skip-not-exists``).
    """
    account: Account[T] = Account()
    for thing in things:
        try:
            action(thing)
        except StoreUnavailable as error:
            account.failed.append((thing, error))
            break
        except CalicoError as error:
            if skip is None or not isinstance(error, skip):
                account.failed.append((thing, error))
                continue
        account.done.append(thing)
    return account


def tell(account: Account[T], verb: str, past: str) -> int:
    """Print the account (``create``, ``created``); return the exit code."""
    if account.done:
        kinds = {thing.kind_name for thing in account.done}
        count = f"{len(account.done)} '{kinds.pop()}'" if len(kinds) == 1 else f"{len(account.done)}"
        click.echo(f"Successfully {past} {count} resource(s)")
    for thing, error in account.failed:
        click.echo(f"Failed to {verb} '{thing.kind_name}' resource: {error}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
    return 1 if account.failed else 0


Action = Callable[[ResourceClient, Document], object]


def write_files(
    names: Sequence[str], action: Action, *, verb: str, past: str, recursive: bool, namespace: str | None,
    config: str | None, skip: type[CalicoError] | None = None,
) -> int:
    """Check whole files, do `action` to each of their resources, print the account; return the exit code."""
    documents = read(names, recursive=recursive, namespace=namespace)
    with open_client(config) as client:
        for look in (overlaps.warnings, effects.warnings, peerings.warnings):
            for line in look(client, documents):
                click.echo(f"Warning: {line}", err=True)
        account = carry_out(documents, lambda document: action(client, document), skip=skip)
    return tell(account, verb, past)
