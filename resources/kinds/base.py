"""What every resource is made of, and how a kind declares itself.

A resource is a frozen struct with `metadata` and `spec`, in the wire's own words (camelCase in JSON) and with addresses
as the text that the wire carries, because some fields are stored as written (reference resources.md 2). Properties give
the parsed forms; they cannot fail on a resource that passed its kind's `check`.

Each module in this package declares one kind as a module-level `KIND`; `resources.kinds` finds them by itself, so that
adding a kind touches one file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

API_VERSION = "projectcalico.org/v3"

Path = tuple[str | int, ...]
"""Where in a document, e.g. ``("spec", "ingress", 0, "action")``, in the document's own spelling."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """`creation_timestamp` is RFC 3339 UTC in whole seconds; `resource_version` is never stored (resources.md 1.2)."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Resource(Protocol):
    """The shape that all kinds share."""

    @property
    def metadata(self) -> Metadata: ...
    @property
    def spec(self) -> msgspec.Struct: ...


R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document.

    `reason` says what is wrong or what is allowed, `hint` the way out. `value` is the user's own value as text.
    A `warning` does not stop the document.
    """

    path: Path
    value: str
    reason: str
    hint: str | None = None
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column of `calicoctl get`: heading and cell text. Headings are fixed by reference resources.md 5.8."""

    heading: str
    cell: Callable[[R], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class V1(Generic[R]):
    """The v1 spelling of a kind (resources.md 4): its document type, the way to and from v3, its own tables.

    `check` finds what is wrong by the v1 rules; paths of problems that the v3 check finds are brought back to the v1
    spelling by `paths` (v3 path prefix -> v1 path prefix).
    """

    name: str
    type: type[msgspec.Struct]
    check: Callable[[msgspec.Struct], Iterable[Problem]]
    to_v3: Callable[[msgspec.Struct], R]
    from_v3: Callable[[R], object]
    paths: tuple[tuple[Path, Path], ...] = ()
    identifier: Callable[[R], str]
    """How v1 messages name the object, e.g. ``IPPool(cidr=10.0.0.0/24)``."""
    columns: tuple[Column[R], ...] = ()
    wide: tuple[Column[R], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[R]):
    """One kind of resource, declared once."""

    name: str
    plural: str
    """As it stands in store keys."""
    type: type[R]
    namespaced: bool = False
    aliases: tuple[str, ...] = ()
    """What the command line takes for it, lower case."""
    complete: Callable[[R], R] = lambda resource: resource
    """Fill in the defaults that are written (resources.md 1.5)."""
    check: Callable[[R], Iterable[Problem]] = lambda _: ()
    """Find what is wrong with a complete resource; needs no store."""
    always: tuple[Path, ...] = ()
    """Fields that are written even when zero; ``"*"`` stands for every element of a list."""
    columns: tuple[Column[R], ...] = ()
    wide: tuple[Column[R], ...] = ()
    v1: V1[R] | None = None
    read_only: bool = False
    names: Callable[[str], str | None] = field(default=lambda _: None)
    """Name rules beyond the general one: why a name is refused, or None."""
