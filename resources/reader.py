"""From a document without types to a typed one, with every problem and not only the first.

Types are strict where the text is quoted and lenient where it is plain, as the reference found the original to be
(resources.md 9): a plain ``yes`` is a boolean where one is asked and the text ``yes`` where a text is asked; a quoted
text never becomes a number. What is stored (durations, ports, AS numbers) is brought into its stored form.
"""

import enum
import re
from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar, assert_never

import msgspec
import msgspec.inspect as shapes

from resources.durations import DurationError, canonical
from resources.kinds.base import Path, Problem
from resources.kinds.fields import port_value, protocol_value
from resources.tree import Entry, Mapping, Node, Scalar, Sequence, is_null

S = TypeVar("S", bound=msgspec.Struct)
Hints = abc.Mapping[str, str]

_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_HI_LO = re.compile(r"([0-9]+)\.([0-9]+)\Z")
_BAD_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_INTEGER_MAX = 1 << 64
_INT64 = (-(1 << 63), (1 << 63) - 1)


class Missing(enum.Enum):
    """Why there is no value: nothing was written, or what was written is wrong and reported."""

    ABSENT = enum.auto()
    BAD = enum.auto()


# What a field takes.


@dataclass(frozen=True, slots=True)
class Text:
    form: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    pass


@dataclass(frozen=True, slots=True)
class Whole:
    low: int
    high: int
    form: str = ""


@dataclass(frozen=True, slots=True)
class Real:
    pass


@dataclass(frozen=True, slots=True)
class NumberOrText:
    form: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """A map of texts, such as labels."""


@dataclass(frozen=True, slots=True)
class Several:
    item: "Shape"


@dataclass(frozen=True, slots=True)
class Field:
    attribute: str
    shape: "Shape"
    required: bool


@dataclass(frozen=True, slots=True, eq=False)
class Record(Generic[S]):
    type: type[S]
    fields: dict[str, Field]
    """By their names in documents."""


Shape = Text | Flag | Whole | Real | NumberOrText | Texts | Several | Record[msgspec.Struct]


@cache
def record_of(cls: type[S]) -> Record[S]:
    """Return what a struct type takes."""
    info = shapes.type_info(cls)
    assert isinstance(info, shapes.StructType)
    return Record(
        cls, {field.encode_name: Field(field.name, _shape(field.type), field.required) for field in info.fields}
    )


def _shape(info: shapes.Type, form: str = "") -> Shape:
    match info:
        case shapes.Metadata(type=inner, extra=extra):
            return _shape(inner, str((extra or {}).get("form", "")) or form)
        case shapes.UnionType(types=types):
            present = [t for t in types if not isinstance(t, shapes.NoneType)]
            return _shape(present[0], form) if len(present) == 1 else NumberOrText(form)
        case shapes.StrType():
            return Text(form)
        case shapes.BoolType():
            return Flag()
        case shapes.IntType(ge=low, le=high):
            return Whole(_INT64[0] if low is None else low, _INT64[1] if high is None else high, form)
        case shapes.FloatType():
            return Real()
        case shapes.DictType():
            return Texts()
        case shapes.ListType(item_type=item):
            return Several(_shape(item))
        case shapes.StructType(cls=cls):
            return record_of(cls)
        case _:
            raise TypeError(f"no shape for {info}")


def integer(text: str) -> int | None:
    """Return the whole number that a plain text stands for, or None: ``0x1f``, ``0o17``, ``1_000``, ``26.0``, ``1e6``.

    A leading zero means octal where the digits are octal, as in YAML 1.1.
    """
    digits = text.replace("_", "")
    if len(digits) > 400:
        return None
    if _INTEGER.match(digits):
        sign = -1 if digits.startswith("-") else 1
        body = digits.lstrip("+-")
        octal = len(body) > 1 and body[0] == "0" and body[1].isdigit()
        return sign * (int(body, 8) if octal else int(body, 0))
    number = real(text)
    return int(number) if number is not None and number.is_integer() and abs(number) < _INTEGER_MAX else None


def real(text: str) -> float | None:
    """Return the number that a plain text stands for, or None; infinities and NaN are none."""
    digits = text.replace("_", "")
    if len(digits) > 400 or not _FLOAT.match(digits):
        return None
    value = float(digits)
    return value if value not in (float("inf"), float("-inf")) else None


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return what `name` was probably meant to be."""
    words = sorted(known)
    bare = _bare(name)
    for word in words:
        if _bare(word) == bare:
            return word
    from difflib import get_close_matches  # only after a mistake

    by_bare = {_bare(word): word for word in words}
    found = get_close_matches(bare, by_bare, n=1, cutoff=0.7)
    return by_bare[found[0]] if found else next((w for w in words if len(bare) > 2 and _bare(w).startswith(bare)), None)


def _bare(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def shown(node: Node | None) -> str:
    """Return a value as error messages quote it."""
    if isinstance(node, Scalar):
        text = f"{node.tag} {node.text}".strip()
        return text if len(text) <= 100 else text[:97] + "..."
    return "" if node is None else "{...}" if isinstance(node, Mapping) else "[...]"


class Reader:
    """Reads one document; `problems` fills as it goes.

    With `strict`, fields that the type does not have are problems, unless their path is in `dropped`; `foreign` has
    hints for some that stand in spec.
    """

    def __init__(
        self, *, strict: bool, dropped: Iterable[Path] = (), foreign: Hints | None = None
    ) -> None:
        self.problems: list[Problem] = []
        self._foreign = foreign or {}
        self._strict = strict
        self._dropped = frozenset(dropped)

    def read(self, cls: type[S], node: Node, path: Path = ()) -> S | None:
        """Return the typed document; fields with problems have their zero value. None if it is no mapping at all."""
        record: Record[S] = record_of(cls)
        value: S | Missing = self._record(record, node, path)
        if value is Missing.ABSENT:
            return self._built(record, {})
        return None if isinstance(value, Missing) else value

    def _bad(self, path: Path, node: Node | None, reason: str, hint: str | None = None) -> Missing:
        self.problems.append(Problem(path, shown(node), reason, hint))
        return Missing.BAD

    def _record(self, record: Record[S], node: Node, path: Path) -> S | Missing:
        if is_null(node):
            return Missing.ABSENT
        if not isinstance(node, Mapping) or node.tag:
            return self._bad(path, node, f"must be a mapping with {_some(record.fields)}")
        values: dict[str, object] = {}
        for entry in node.entries:
            field = record.fields.get(entry.key.text)
            at = (*path, entry.key.text)
            if field is None:
                self._unknown(record, entry, at)
                continue
            value = self._value(field.shape, entry.value, at)
            if not isinstance(value, Missing):
                values[field.attribute] = value
        return self._built(record, values)

    @staticmethod
    def _built(record: Record[S], values: dict[str, object]) -> S:
        for field in record.fields.values():
            if field.required and field.attribute not in values:
                values[field.attribute] = _zero(field.shape)
        return record.type(**values)

    def _unknown(self, record: Record[S], entry: Entry, path: Path) -> None:
        if not self._strict or path in self._dropped:
            return
        name = entry.key.text
        hint = None
        if path[:-1] == ("spec",) and name in self._foreign:
            hint = self._foreign[name]
        elif near := closest(name, record.fields):
            hint = f"did you mean '{near}'?"
        elif elsewhere := _elsewhere(record, name):
            hint = f"it belongs in {elsewhere}"
        elif record.fields:
            hint = f"known are {_some(record.fields)}"
        self.problems.append(
            Problem(path, "", "field in document is not recognized or is in the wrong location", hint)
        )

    def _value(self, shape: Shape, node: Node, path: Path) -> object:
        if is_null(node):
            return Missing.ABSENT
        match shape:
            case Record():
                return self._record(shape, node, path)
            case Several():
                return self._several(shape, node, path)
            case Texts():
                return self._texts(node, path)
            case Text() | Flag() | Whole() | Real() | NumberOrText():
                return self._scalar(shape, node, path)
            case _:
                assert_never(shape)

    def _several(self, shape: Several, node: Node, path: Path) -> object:
        if not isinstance(node, Sequence) or node.tag:
            return self._bad(path, node, "must be a list", _as_list(node))
        values: list[object] = []
        for index, item in enumerate(node.items):
            at = (*path, index)
            value = self._value(shape.item, item, at)
            if value is Missing.ABSENT:
                self._bad(at, item, "an entry of the list is empty")
            # What is bad keeps its place, so that later findings in the list have the right index.
            values.append(_zero(shape.item) if isinstance(value, Missing) else value)
        return values

    def _texts(self, node: Node, path: Path) -> object:
        if not isinstance(node, Mapping) or node.tag:
            return self._bad(path, node, "must be a mapping of texts")
        values: dict[str, str] = {}
        for entry in node.entries:
            value = "" if is_null(entry.value) else self._scalar(Text(), entry.value, (*path, entry.key.text))
            if isinstance(value, str):
                values[entry.key.text] = value
        return values

    def _scalar(self, shape: Text | Flag | Whole | Real | NumberOrText, node: Node, path: Path) -> object:
        if not isinstance(node, Scalar):
            hint = f"quote it: '{_flow(node)}'" if _flow(node) and isinstance(shape, Text) else None
            return self._bad(path, node, f"must be {_article(shape)}", hint)
        if node.tag:
            return self._bad(
                path, node, f"a tag where {_article(shape)} is expected", f"quote it: '{shown(node)}'"
            )
        match shape:
            case Text():
                return self._text(shape, node, path)
            case Flag():
                return self._flag(node, path)
            case Whole():
                return self._whole(shape, node, path)
            case Real():
                return self._real(node, path)
            case NumberOrText():
                return self._number_or_text(shape, node, path)
            case _:
                assert_never(shape)

    def _text(self, shape: Text, node: Scalar, path: Path) -> str | Missing:
        if _BAD_CHARACTERS.search(node.text):
            return self._bad(path, Scalar(repr(node.text)[1:-1], plain=False), "has characters that are no text")
        if not node.text and shape.form == "not-empty":
            return self._bad(path, node, "must not be empty", "leave it out")
        if shape.form != "duration" or not node.text:
            return node.text
        if node.plain and integer(node.text) is not None:
            return self._bad(path, node, "must be a duration with its unit", f"did you mean {node.text}s?")
        try:
            return canonical(node.text)
        except DurationError as error:
            return self._bad(path, node, str(error))

    def _flag(self, node: Scalar, path: Path) -> bool | Missing:
        if node.plain and node.text in _TRUE | _FALSE:
            return node.text in _TRUE
        quoted = not node.plain and node.text in _TRUE | _FALSE
        hint = f"write {'true' if node.text in _TRUE else 'false'} without quotes" if quoted else None
        return self._bad(path, node, "must be true or false" + (", is a text" if not node.plain else ""), hint)

    def _whole(self, shape: Whole, node: Scalar, path: Path) -> int | Missing:
        if shape.form == "as-number":
            return self._as_number(node, path)
        value = integer(node.text)
        if value is None or not node.plain:
            hint = f"write {node.text} without quotes" if value is not None else None
            return self._bad(path, node, "must be a whole number" + (", is a text" if not node.plain else ""), hint)
        if not shape.low <= value <= shape.high:
            low = 1 if shape.form == "port-number" else shape.low
            return self._bad(path, node, f"must be between {low} and {shape.high}")
        return value

    def _as_number(self, node: Scalar, path: Path) -> int | Missing:
        value: int | None = None
        if node.plain:
            value = integer(node.text)
            if value is None or "." in node.text:
                hint = f"quote it: '{node.text}'" if _HI_LO.match(node.text) else None
                return self._bad(path, node, "must be an AS number: 1 to 4294967295, or a quoted 'hi.lo'", hint)
        elif node.text.isascii() and node.text.isdigit():
            value = int(node.text[-20:]) if len(node.text) <= 20 else _INTEGER_MAX
        elif parts := _HI_LO.match(node.text):
            high, low = (int(part) if len(part) <= 5 else _INTEGER_MAX for part in parts.groups())
            value = high << 16 | low if max(high, low) <= 0xFFFF else _INTEGER_MAX
        if value is None or not 0 <= value <= 0xFFFFFFFF:
            return self._bad(
                path, node, "invalid AS Number: it is 1 to 4294967295, or 'hi.lo' with both below 65536"
            )
        return value

    def _real(self, node: Scalar, path: Path) -> float | Missing:
        number = integer(node.text)
        value = real(node.text) if number is None else float(number)
        if value is None or not node.plain:
            hint = f"write {node.text} without quotes" if value is not None else None
            return self._bad(path, node, "must be a number" + (", is a text" if not node.plain else ""), hint)
        return value

    def _number_or_text(self, shape: NumberOrText, node: Scalar, path: Path) -> int | str | Missing:
        number = integer(node.text) if node.plain else None
        if shape.form == "port":
            if number is not None:
                if not 0 <= number <= 0xFFFF:
                    return self._bad(path, node, "must be a port number between 1 and 65535")
                return number
            try:
                return port_value(node.text)
            except ValueError as error:
                return self._bad(path, node, str(error))
        if shape.form == "protocol":
            if number is None and node.text.isascii() and node.text.isdigit() and len(node.text) <= 3:
                number = int(node.text) if int(node.text) <= 0xFF else None
            elif number is not None and not 0 <= number <= 0xFF:
                return self._bad(path, node, "protocol number invalid: it is 1 to 255")
            return protocol_value(node.text) if number is None else number
        return node.text if number is None else number


def _zero(shape: Shape) -> object:
    match shape:
        case Text():
            return ""
        case Flag():
            return False
        case Whole() | NumberOrText():
            return 0 if isinstance(shape, Whole) else ""
        case Real():
            return 0.0
        case Texts():
            return {}
        case Several():
            return []
        case Record():
            return Reader._built(shape, {})
        case _:
            assert_never(shape)


def _article(shape: Text | Flag | Whole | Real | NumberOrText) -> str:
    match shape:
        case Text():
            return "a duration" if shape.form == "duration" else "a text"
        case Flag():
            return "true or false"
        case Whole() | Real():
            return "a number"
        case NumberOrText():
            return "a number or a text"
        case _:
            assert_never(shape)


def _some(names: Iterable[str]) -> str:
    words = list(names)
    return ", ".join(words) if len(words) <= 12 else ", ".join(words[:12]) + ", ..."


def _elsewhere(record: Record[S], name: str) -> str | None:
    """Return where below this record a field of that name exists."""
    for outer, field in record.fields.items():
        if isinstance(field.shape, Record) and name in field.shape.fields:
            return outer
    return None


def _flow(node: Node) -> str | None:
    """Return what a one-entry flow mapping was probably meant to be, such as ``{a}`` for an unquoted set."""
    if isinstance(node, Mapping) and len(node.entries) == 1 and is_null(node.entries[0].value):
        return f"{{{node.entries[0].key.text}}}"
    return None


def _as_list(node: Node) -> str | None:
    return f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
