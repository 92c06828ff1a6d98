"""What every resource is made of, and how a kind declares itself.

A resource is a frozen struct with `metadata` and `spec`, in the wire's own words (camelCase in JSON) and with addresses
as the text that the wire carries, because some fields are stored as written (reference resources.md 2). Properties give
the parsed forms; they cannot fail on a resource that passed its kind's `needs`, as everything read from the store did.

Each module in this package declares one kind as a module-level `KIND`; `resources.kinds` finds them by itself, so that
adding a kind touches one file.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec

from resources.gotext import JSON

API_VERSION = "projectcalico.org/v3"
API_VERSION_V1 = "v1"

Path = tuple[str | int, ...]
"""Where in a document, e.g. ``("spec", "ingress", 0, "action")``, in the document's own spelling."""

# Field types whose text has more than one form in a document; resources.reader brings them into the stored form.
Uint8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
Uint16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF, extra={"form": "port-number"})]
"""A port. The original's type lets 0 through, so what is stored may have it; the checks of the kinds do not."""
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
ASN = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF, extra={"form": "as-number"})]
"""An AS number; a document may also write ``"64512"`` or ``"hi.lo"``."""
GoDuration = Annotated[str, msgspec.Meta(extra={"form": "duration"})]
"""A duration as Go prints it: ``1m30s``; a document may write any form that Go parses."""
NotEmpty = Annotated[str, msgspec.Meta(extra={"form": "not-empty"})]
"""A text that may be left out, but not be written as ``""``."""


def wire(**irregular: str) -> Callable[[str], str]:
    """Return how a struct's fields are spelled on the wire: camelCase, but for the `irregular` ones."""

    def name(field: str) -> str:
        head, *tail = field.split("_")
        return irregular.get(field) or head + "".join(part.title() for part in tail)

    return name


def dotted(path: Path) -> str:
    """Return a path as people write it: ``spec.ingress[0].action``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


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


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a document.

    `reason` says what is wrong or what is allowed, `hint` the way out. `value` is the user's own value as text.
    A `warning` does not stop the document.
    """

    path: Path
    value: str
    reason: str
    hint: str | None = None
    warning: bool = False

    def __str__(self) -> str:
        """Return ``field = 'value': reason; hint`` (without the value where there is none)."""
        field = dotted(self.path)
        shown = f"{field} = '{self.value}'" if self.value and field else f"'{self.value}'" if self.value else field
        text = f"{shown}: {self.reason}" if shown else self.reason
        return f"{text}; {self.hint}" if self.hint else text


class View(msgspec.Struct, frozen=True):
    """What a table cell may need beside the resource itself."""

    as_number: int = 64512
    """The cluster's AS number, which nodes inherit."""


class Column(msgspec.Struct, Generic[R], frozen=True):
    """One column of `calicoctl get`: heading and cell text. Headings are fixed by reference resources.md 5.8."""

    heading: str
    cell: Callable[[R, View], str]


class V1(msgspec.Struct, Generic[R], frozen=True, kw_only=True, eq=False):
    """The v1 spelling of a kind (resources.md 4): its document type, the way to and from v3, its own tables.

    What `to_v3` makes of a document that `check` found fault with is only looked at for more faults; it may raise
    ValueError or LookupError then. Paths of problems that the v3 check then finds are brought back to the v1 spelling
    by `paths` (v3 path prefix -> v1 path prefix).
    """

    name: str
    """As `kind:` spells it, e.g. ``ipPool``."""
    type: type[msgspec.Struct]
    check: Callable[[Any], Iterable[Problem]]
    to_v3: Callable[[Any], R]
    from_v3: Callable[[R], msgspec.Struct]
    identifier: Callable[[R], str]
    """How v1 messages name the object, e.g. ``IPPool(cidr=10.0.0.0/24)``."""
    name_of: Callable[[str], str]
    """The v3 name for what v1 calls the object on the command line (its name, or a pool's CIDR)."""
    is_called: Callable[[R, str], bool] = lambda *_: False
    """Whether a v1 document with this name was stored as the resource, where its identifiers make the name, too."""
    keep: Callable[[R, R], R]
    """What an update by a v1 document writes: of (stored, new) the new, with what v1 cannot say from the stored."""
    paths: tuple[tuple[Path, Path], ...] = ()
    named_by: str = "name"
    """The member of v1's metadata that the command line takes for NAME."""
    filters: tuple[str, ...] = ()
    """What identifies an object beside its name, as v1's metadata calls it: the command line may ask by it."""
    order: Callable[[R], tuple[str, ...]] = lambda resource: (resource.metadata.name,)
    """Sort key of a v1 list."""
    columns: tuple[Column[R], ...] = ()
    wide: tuple[Column[R], ...] = ()
    custom: tuple[Column[R], ...] = ()
    """Columns that only ``custom-columns`` shows."""


class Kind(msgspec.Struct, Generic[R], frozen=True, kw_only=True, eq=False):
    """One kind of resource, declared once."""

    name: str
    plural: str
    """As it stands in store keys."""
    type: type[R]
    namespaced: bool = False
    aliases: tuple[str, ...] = ()
    """What the command line takes for it, lower case."""
    complete: Callable[[R], R] = lambda resource: resource
    """Fill in the defaults that are written, and bring texts into the form that is stored (resources.md 1.5).

    Also done on reading. Never fails: what it cannot make sense of stays as it is.
    """
    check: Callable[[R], Iterable[Problem]] = lambda _: ()
    """Find what is wrong with a complete resource that is to be written; needs no store."""
    needs: Callable[[R], Iterable[Problem]] = lambda _: ()
    """Find what makes a stored resource unusable for readers: less than `check` (resources.md 9)."""
    closed: Callable[[Mapping[str, JSON]], R | None] = lambda _: None
    """Return what stands in the place of a record that cannot be read so that nothing is opened by it, or None.

    It gets the stored document, of which any part may be wrong (design section 5, point 5).
    """
    always: tuple[Path, ...] = ()
    """Fields that are written even when zero."""
    dropped: tuple[Path, ...] = ()
    """Fields that a document may have and that are ignored."""
    foreign: Mapping[str, str] = {}
    """Fields of spec that only another kind has, and what to say of them."""
    columns: tuple[Column[R], ...] = ()
    wide: tuple[Column[R], ...] = ()
    custom: tuple[Column[R], ...] = ()
    """Columns that only ``custom-columns`` shows."""
    order: Callable[[R], tuple[float, str, str]] = lambda resource: (
        0.0,
        resource.metadata.namespace,
        resource.metadata.name,
    )
    """Sort key of a list."""
    v1: V1[R] | None = None
    read_only: bool = False
    """The command line may not write it."""
    name_fault: Callable[[str], str | None] = lambda _: None
    """Name rules beyond the general one: why a name is refused, or None."""

    def label(self, name: str, namespace: str = "") -> str:
        """Return how messages name an object: ``Kind(name)`` or ``Kind(namespace/name)``."""
        return f"{self.name}({namespace}/{name})" if namespace else f"{self.name}({name})"


def readable_labels(document: Mapping[str, JSON]) -> dict[str, str] | None:
    """Return the labels of a stored document of which any part may be wrong; None if they are."""
    metadata = document.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else metadata
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        return None
    texts = {key: value for key, value in labels.items() if isinstance(value, str)}
    return texts if len(texts) == len(labels) else None


def name_cell(resource: Resource, _: View) -> str:
    return resource.metadata.name


def yes_no(value: bool) -> str:
    """Return a bool as tables show it."""
    return "true" if value else "false"
