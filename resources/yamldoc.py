"""YAML and JSON text -> trees with positions. The only module that imports yaml.

Only the library's events are used: which plain text is a number, a boolean or nothing is decided where the type is
known (`resources.reader`), so that nothing is resolved behind the user's back (reference resources.md 9). A text holds
any number of documents, and one that is bad does not hide what is wrong with the others.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from resources.tree import Entry, Mapping, Node, Position, Scalar, Sequence, is_null

DOCUMENT_BYTES = 10 * 1024 * 1024
DEPTH = 100
ALIASED_NODES = 100_000
"""How many nodes all aliases of a document may stand for together."""

_LOADER = getattr(yaml, "CLoader", yaml.Loader)
_STANDARD_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_STANDARD_TAG + name for name in ("int", "float", "bool", "null", "timestamp"))
_TEXT_TAGS = frozenset(("!", _STANDARD_TAG + "str"))
_COLLECTION_TAGS = frozenset(("!", _STANDARD_TAG + "map", _STANDARD_TAG + "seq"))
_NOTHING = re.compile(r"(---)?[ \t]*(#.*|%.*)?\Z")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_EXCLAMATION = re.compile(r":[ \t]+!")
_MARKERS = ("---", "...")


Plain = str | list["Plain"] | dict[str, "Plain"]
"""A document with every scalar as the text that was typed; nothing (``key:``) is the empty text."""


class NotYaml(ValueError):
    """The text cannot be read; the message has line and column."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a document could not be read at all."""

    at: Position
    reason: str
    hint: str | None = None


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def documents(data: bytes) -> Iterator[Node | Fault]:
    """Yield the documents of a file in order; empty ones are skipped wherever they stand."""
    try:
        text = _decoded(data)
    except _Refused as refused:
        yield refused.fault
        return
    for part in _parts(text):
        try:
            node = _Builder(part).build()
        except _Refused as refused:
            yield refused.fault
            continue
        if node is not None and not is_null(node):
            yield node


def _decoded(data: bytes) -> str:
    codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(codec).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(codec, errors="replace")
        at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise _Refused(Fault(at, "the file is no UTF-8 text")) from error


def load(text: str) -> Plain:
    """Return the one document of a text without giving its scalars types.

    Raises:
        NotYaml: a syntax error, more than one document, a repeated key, a tag.
    """
    found = list(documents(text.encode()))
    for node in found:
        if isinstance(node, Fault):
            raise NotYaml(f"{_where(node.at)}{node.reason}" + (f"; {node.hint}" if node.hint else ""))
    if len(found) > 1:
        raise NotYaml(f"{_where(found[1].at)}there is more than one document")
    return _plain(found[0]) if found and not isinstance(found[0], Fault) else ""


def _plain(node: Node) -> Plain:
    if node.tag:
        raise NotYaml(f"{_where(node.at)}a tag ({node.tag}) has no place here; quote a text that begins with '!'")
    match node:
        case Scalar():
            return "" if is_null(node) else node.text
        case Sequence():
            return [_plain(item) for item in node.items]
        case Mapping():
            return {entry.key.text: _plain(entry.value) for entry in node.entries}


def _where(at: Position) -> str:
    return f"line {at.line}, column {at.column}: "


@dataclass(frozen=True, slots=True)
class _Part:
    """The text of one document, and where it begins in the file (lines and columns from 0)."""

    text: str
    line: int
    column: int = 0

    def position(self, line: int, column: int) -> Position:
        return Position(self.line + line + 1, column + 1 + (self.column if line == 0 else 0))


def _parts(text: str) -> Iterator[_Part]:
    """Split a file at its document markers, and concatenated JSON at its ends."""
    lines: list[str] = []
    start = 0
    for number, line in enumerate(text.split("\n")):
        if line.startswith(_MARKERS) and (len(line) == 3 or line[3] in " \t"):
            yield from _json_parts(_Part("\n".join(lines), start))
            lines, start = [], number
            if line.startswith("..."):
                line = ""
        lines.append(line)
    yield from _json_parts(_Part("\n".join(lines), start))


def _json_parts(part: _Part) -> Iterator[_Part]:
    """Yield the values of concatenated JSON one by one, or the part itself if it is anything else."""
    text = part.text
    if all(_NOTHING.match(line) for line in text.split("\n")):
        return
    at = len(text) - len(text.removeprefix("---").lstrip())
    if text[at : at + 1] not in ("{", "["):
        yield part
        return
    decoder = json.JSONDecoder(strict=False)
    ends: list[tuple[int, int]] = []
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield part
            return
        ends.append((at, end))
        at = end + len(text[end:]) - len(text[end:].lstrip())
    if len(ends) == 1:
        yield part
        return
    for begin, end in ends:
        line = text.count("\n", 0, begin)
        column = begin - (text.rfind("\n", 0, begin) + 1)
        yield _Part(text[begin:end], part.line + line, column + (part.column if line == 0 else 0))


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end is still to come."""

    is_mapping: bool
    at: Position
    tag: str
    anchor: str | None
    size: int = 1
    nodes: list[Node] = field(default_factory=list)


class _Builder:
    """Builds the tree of one document from the library's events, with a stack of its own."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._open: list[_Open] = []
        self._root: Node | None = None
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._aliased = 0

    def build(self) -> Node | None:
        text = self._part.text
        if len(text) > DOCUMENT_BYTES // 4 and len(text.encode()) > DOCUMENT_BYTES:
            raise _Refused(Fault(self._part.position(0, 0), "a document may have at most 10 MiB"))
        try:
            for event in yaml.parse(_joined_surrogates(text), Loader=_LOADER):
                self._take(event)
        except yaml.YAMLError as error:
            raise _Refused(self._fault(error)) from error
        return self._root

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._add(self._scalar(event), 1, event.anchor)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(self._open) >= DEPTH:
                    raise _Refused(Fault(self._at(event), f"nested more than {DEPTH} levels deep"))
                tag = "" if event.tag is None or event.tag in _COLLECTION_TAGS else _shown_tag(event.tag)
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self._open.append(_Open(is_mapping, self._at(event), tag, event.anchor))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self._open.pop()
                node = _mapping(done) if done.is_mapping else Sequence(tuple(done.nodes), done.at, done.tag)
                self._add(node, done.size, done.anchor)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        plain, tag = not event.style, ""
        if event.tag is not None:
            if event.tag in _TEXT_TAGS:
                plain = False
            elif event.tag in _PLAIN_TAGS:
                plain = True
            else:
                tag = _shown_tag(event.tag)
        return Scalar(event.value, plain, self._at(event), tag)

    def _alias(self, event: yaml.AliasEvent) -> None:
        found = self._anchors.get(event.anchor or "")
        if found is None:
            opened = any(frame.anchor == event.anchor for frame in self._open)
            reason = "refers to itself" if opened else "there is no such anchor before it"
            raise _Refused(Fault(self._at(event), f"alias *{event.anchor}: {reason}"))
        node, size = found
        self._aliased += size
        if self._aliased > ALIASED_NODES:
            reason = f"aliases stand for more than {ALIASED_NODES} values: this document is refused"
            raise _Refused(Fault(self._at(event), reason))
        self._add(node, size, None)

    def _add(self, node: Node, size: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if self._open:
            self._open[-1].nodes.append(node)
            self._open[-1].size += size
        else:
            self._root = node

    def _at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        assert mark is not None, "the parser puts a mark on every event"
        return self._part.position(mark.line, mark.column)

    def _fault(self, error: yaml.YAMLError) -> Fault:
        if isinstance(error, yaml.reader.ReaderError):
            text = self._part.text[: error.position]
            at = self._part.position(text.count("\n"), len(text) - text.rfind("\n") - 1)
            return Fault(at, f"no YAML: {error.reason}")
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        context = getattr(error, "context", None)
        if mark is None:
            return Fault(self._part.position(0, 0), f"no YAML: {reason}")
        line = (self._part.text.split("\n") + [""] * (mark.line + 1))[mark.line]
        return Fault(
            self._part.position(mark.line, mark.column),
            f"no YAML: {f'{context}, ' if context else ''}{reason}",
            _syntax_hint(line, mark.column, reason),
        )


def _mapping(done: _Open) -> Mapping:
    """Pair keys and values, merge what ``<<`` names, refuse a key that is given twice."""
    entries: dict[str, Entry] = {}
    merged: list[Entry] = []
    for key, value in zip(done.nodes[::2], done.nodes[1::2], strict=True):
        if not isinstance(key, Scalar) or key.tag:
            raise _Refused(Fault(key.at, "a key must be a text", "quote it"))
        if key.text == "<<" and key.plain:
            merged.extend(_merged(value))
            continue
        if (first := entries.get(key.text)) is not None:
            reason = f'key "{key.text}" stands twice, it is already set in map'
            raise _Refused(Fault(key.at, reason, f"the first is in line {first.key.at.line}"))
        entries[key.text] = Entry(key, value)
    for entry in merged:
        entries.setdefault(entry.key.text, entry)
    return Mapping(tuple(entries.values()), done.at, done.tag)


def _merged(value: Node) -> Iterator[Entry]:
    for node in value.items if isinstance(value, Sequence) else (value,):
        if not isinstance(node, Mapping):
            raise _Refused(Fault(node.at, "'<<' takes a mapping or a list of mappings"))
        yield from node.entries


def _shown_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_STANDARD_TAG) if tag.startswith(_STANDARD_TAG) else tag


def _joined_surrogates(text: str) -> str:
    """Write JSON's pairs of escapes (``\\ud83d\\ude00``) as the one escape that YAML knows."""
    if "\\u" not in text:
        return text

    def joined(match: "re.Match[str]") -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"

    return _SURROGATES.sub(joined, text)


def _syntax_hint(line: str, column: int, reason: str) -> str | None:
    if line[column : column + 1] == "\t" or line[:column].strip(" ").startswith("\t"):
        return "indent with blanks, not with tabs"
    if _EXCLAMATION.search(line):
        return "a text that begins with '!' must be quoted: '!has(a)'"
    if "mapping values are not allowed" in reason:
        return "a text with ': ' in it must be quoted; or the indentation is wrong"
    if line[column : column + 1] in ("&", "*", "%", "@", "`"):
        return f"a text that begins with '{line[column]}' must be quoted"
    return None
