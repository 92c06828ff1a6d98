"""All kinds of resources. A module of this package that has a `KIND` is a kind."""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from resources.kinds import fields
from resources.kinds.base import Kind, Problem, R


@cache
def all_kinds() -> tuple[Kind[Any], ...]:
    """Return every kind, sorted by name."""
    found = [
        module.KIND
        for info in pkgutil.iter_modules(__path__)
        if hasattr(module := importlib.import_module(f"{__name__}.{info.name}"), "KIND")
    ]
    return tuple(sorted(found, key=lambda kind: kind.name))


@cache
def by_plural() -> dict[str, Kind[Any]]:
    return {kind.plural: kind for kind in all_kinds()}


@cache
def by_name() -> dict[str, Kind[Any]]:
    """Kinds by their v3 name, exact case."""
    return {kind.name: kind for kind in all_kinds()}


@cache
def namespaced_plurals() -> frozenset[str]:
    return frozenset(kind.plural for kind in all_kinds() if kind.namespaced)


def problems_of(kind: Kind[R], resource: R) -> Iterable[Problem]:
    """Find everything wrong with a complete resource that is to be written, and what it should be warned of."""
    found = list(fields.metadata(resource.metadata))
    yield from found
    if not any(problem.path == ("metadata", "name") for problem in found):
        name = resource.metadata.name
        if fault := kind.name_fault(name):
            yield Problem(("metadata", "name"), name, fault)
    yield from kind.check(resource)
