"""Where there is what somebody looked for in another place: in another namespace, or as a kind that has none.

calicoctl looks in the namespace `default`, and Docker's endpoints are in another one; a policy was of no namespace when
`policy` was the word for it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from resources.datastore.client import ResourceClient
from resources.errors import DoesNotExist
from resources.kinds import by_name
from resources.kinds.base import Kind
from resources.names import DEFAULT_NAMESPACE

TWINS = {
    "NetworkPolicy": "GlobalNetworkPolicy",
    "GlobalNetworkPolicy": "NetworkPolicy",
    "NetworkSet": "GlobalNetworkSet",
    "GlobalNetworkSet": "NetworkSet",
}
"""Kinds of the same words, with namespaces and without."""


def others(client: ResourceClient, kind: Kind[Any]) -> Iterator[str]:
    """Return where there are some of a kind of which there are none in the default namespace."""
    if counts := Counter(resource.metadata.namespace for resource in client.readable(kind)):
        found = ", ".join(f"{count} in {namespace} (-n {namespace})" for namespace, count in sorted(counts.items()))
        yield f"None in namespace {DEFAULT_NAMESPACE}; there are {found}. All are shown by -A."
    if (twin := TWINS.get(kind.name)) and (count := len(client.readable(by_name()[twin]))):
        yield f"There are {count} of kind {twin}, which belong to no namespace: get {twin.lower()}"


def pointed(error: DoesNotExist, client: ResourceClient, kind: Kind[Any], name: str) -> DoesNotExist:
    """Return the error with the way to what has the name elsewhere, if anything has."""
    places = [
        f"{each.label(name, resource.metadata.namespace)}: write {each.name.lower()} {name}"
        + (f" -n {resource.metadata.namespace}" if each.namespaced else "")
        for each in (kind, *(by_name()[twin] for twin in [TWINS.get(kind.name)] if twin))
        if each.namespaced or each is not kind
        for resource in client.readable(each)
        if resource.metadata.name == name
    ]
    hint = f"there is {', and '.join(places[:2])}" if places else _alike(client, kind, name)
    return DoesNotExist(str(error), hint=hint) if hint else error


def _alike(client: ResourceClient, kind: Kind[Any], name: str) -> str | None:
    """Return the way to what a document of v1 with this name was stored as, or to what has nearly this name."""
    from resources.reader import closest  # only after a mistake

    for each in (kind, *(by_name()[twin] for twin in [TWINS.get(kind.name)] if twin)):
        names = sorted({resource.metadata.name for resource in client.readable(each)})
        if each.v1 is not None and (stored := each.v1.name_of(name)) != name and stored in names:
            return f"v1's {each.v1.name} {name} is {each.label(stored, '')} here: write {each.name.lower()} {stored}"
        if each is kind and (near := closest(name, names)):
            return f"did you mean '{near}'?"
    return None
