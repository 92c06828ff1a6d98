"""YAML and JSON -> trees: what is a document, where things stand, what is refused (reference resources.md 5.4, 9)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.gotext import JSON
from resources.tree import Mapping, Node, Position, Scalar, Sequence, from_json, locate
from resources.yamldoc import DOCUMENT_BYTES, Fault, NotYaml, documents, load


def read(text: str | bytes) -> list[Node | Fault]:
    return list(documents(text.encode() if isinstance(text, str) else text))


def one(text: str | bytes) -> Node:
    (node,) = read(text)
    assert not isinstance(node, Fault), node
    return node


def fault(text: str | bytes) -> Fault:
    found = [node for node in read(text) if isinstance(node, Fault)]
    assert len(found) == 1, read(text)
    return found[0]


def simple(node: Node | Fault) -> object:
    """The tree as plain values: texts as typed, quoted ones as repr."""
    match node:
        case Scalar():
            return f"{node.tag}|{node.text}" if node.tag else node.text if node.plain else repr(node.text)
        case Sequence():
            return [simple(item) for item in node.items]
        case Mapping():
            return {entry.key.text: simple(entry.value) for entry in node.entries}
        case Fault():
            return node


@pytest.mark.parametrize("text", ["yes", "22:30", "026", "0o32", "0b11", "1_000", "26.0", "1e6", "1.10", "2026-11-21"])
def test_plain_scalars_stay_as_they_were_typed(text: str) -> None:
    assert simple(one(f"a: {text}\nb: '{text}'")) == {"a": text, "b": repr(text)}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0), ("\n\n", 0), ("# nothing\n", 0), ("---\n", 0), ("---\n---\n", 0), ("---\n\n---\n# x\n---\n", 0),
        ("--- # x\n", 0), ("...\n", 0), ("null\n", 0), ("---\n~\n", 0), ("%YAML 1.2\n---\n", 0),
        ("a: 1\n", 1), ("---\na: 1\n---\n", 1), ("# x\n---\na: 1\n...\n", 1), ("---\n---\na: 1\n---\n---\nb: 1\n", 2),
        ("%YAML 1.2\n---\na: 1\n", 1), ("%YAML 1.1\n# x\n---\na: 1\n---\nb: 1", 2), ("--- {a: 1}\n--- {b: 1}\n", 2),
        ("a: 1\n--- \nb: 1\n---\t\nc: 1", 3), ("a: 1\n...\nb: 1\n", 2), ("a: |\n  x\n  ---\nb: 1\n", 1),
        ("a: ---b\n---c: 1\n", 1),
    ],
)  # fmt: skip
def test_empty_documents_are_skipped_wherever_they_stand(text: str, count: int) -> None:
    found = read(text)
    assert len(found) == count
    assert not any(isinstance(node, Fault) for node in found)


@pytest.mark.parametrize(
    "text",
    ['{"a":1}{"b":2}', '{"a":1}\n{"b":2}\n', ' {"a":1} \n\n {"b":2}', '---\n{"a":1}{"b":2}', '{"a":1}\n---\n{"b":2}'],
)
def test_concatenated_json_is_several_documents(text: str) -> None:
    assert [simple(node) for node in read(text)] == [{"a": "1"}, {"b": "2"}]


def test_json_may_be_indented_with_tabs_and_have_all_its_escapes() -> None:
    text = '{\n\t"a": "\\ud83d\\ude00 \\/ \\u00e9 \\\\ud83d",\n\t"b": [1,\t2]\n}'
    assert simple(one(text)) == {"a": repr("😀 / é \\ud83d"), "b": ["1", "2"]}


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_bom_and_crlf_change_nothing(prefix: bytes, newline: str) -> None:
    node = one(prefix + newline.join(["a: 1", "b:", "  - c", "  - d: x"]).encode())
    assert simple(node) == {"a": "1", "b": ["c", {"d": "x"}]}
    assert locate(node, ("b", 1, "d")) == Position(4, 8)


def test_utf_16_is_read() -> None:
    assert simple(one("a: é".encode("utf-16"))) == {"a": "é"}


def test_positions_count_from_the_start_of_the_file() -> None:
    first, second, third = read('a: 1\n---\n\nspec:\n  cidr: x\n---\n{"a": 1} {"b": {"c": 2}}\n')[:3]
    assert not isinstance(first, Fault)
    assert not isinstance(second, Fault)
    assert locate(first, ("a",)) == Position(1, 4)
    assert locate(second, ("spec", "cidr")) == Position(5, 9)
    assert locate(second, ("spec", "nosuch")) == Position(4, 1)
    assert not isinstance(third, Fault)
    assert locate(third, ("a",)) == Position(7, 7)


def test_position_in_the_second_of_two_json_objects_on_a_line() -> None:
    second = read('{"a": 1} {"b": {"c": 2}}')[1]
    assert not isinstance(second, Fault)
    assert locate(second, ("b", "c")) == Position(1, 22)


def test_a_tag_is_kept_to_be_refused_where_a_text_is_asked() -> None:
    assert simple(one("a: !has(b)\nc: ! 5\nd: !!str 5\ne: !!int '5'")) == {
        "a": "!has(b)|", "c": "'5'", "d": "'5'", "e": "5",
    }  # fmt: skip
    assert simple(one("a: !!python/object/apply:os.system ['x']")) == {"a": ["'x'"]}
    assert one("a: !!python/object:x {}").entries[0].value.tag == "!!python/object:x"  # type: ignore[union-attr]


def test_aliases_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nagain: *b\nmany: {<<: [*b, {z: 4}]}\n"
    assert simple(one(text)) == {
        "base": {"x": "1", "y": "2"}, "use": {"y": "3", "x": "1"}, "again": {"x": "1", "y": "2"},
        "many": {"x": "1", "y": "2", "z": "4"},
    }  # fmt: skip


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [\n", 2, "no YAML"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: 1\nb: 2\na: 3\n", 3, 'key "a" stands twice'),
        ("a: &x [*x]\n", 1, "refers to itself"),
        ("a: *nosuch\n", 1, "alias"),
        ("? [a]\n: b\n", 1, "a key must be a text"),
        ("!x a: b\n", 1, "a key must be a text"),
        ("a: {<<: 5}\n", 1, "'<<' takes a mapping"),
        ("a: 1\nb: \x07\n", 2, "control characters"),
        ('a: "\\ud83d"\n', 1, "Unicode"),
        (BOMB, 5, "aliases stand for more than"),
        ("[" * 5000, 1, "levels deep"),
        ("a: '" + "x" * DOCUMENT_BYTES + "'", 1, "10 MiB"),
        ("a: '" + "é" * (DOCUMENT_BYTES // 2) + "'", 1, "10 MiB"),
        ("a: 'x\n---\nb: 1\n", 1, "no YAML"),
    ],
)
def test_what_is_refused_says_where(text: str, line: int, words: str) -> None:
    found = fault(text)
    assert words in found.reason
    assert found.at.line == line


def test_a_document_of_nearly_ten_mib_is_read() -> None:
    assert one("a: '" + "x" * (DOCUMENT_BYTES - 100) + "'")


def test_text_that_is_not_utf_8_says_where() -> None:
    found = fault(b"a: 1\nb: x\xff\n")
    assert found.at == Position(2, 5)
    assert "UTF-8" in found.reason


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("selector: !has(a) && b == 'c'\n", "'!has(a)'"),
        ("a: 1\n\tb: 2\n", "tabs"),
        ("a: x: y\n", "quoted"),
        ("a: @x\n", "'@' must be quoted"),
    ],
)
def test_the_usual_slips_come_with_the_way_out(text: str, hint: str) -> None:
    assert hint in (fault(text).hint or "")


def test_a_bad_document_does_not_hide_the_others() -> None:
    first, second, third, fourth = read("a: 1\n---\nb: [\n---\nc: 3\n---\nd: *x\n")
    assert simple(first) == {"a": "1"}
    assert isinstance(second, Fault)
    assert simple(third) == {"c": "3"}
    assert isinstance(fourth, Fault)
    assert fourth.at == Position(7, 4)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=12), VALUES, min_size=1, max_size=4))
def test_any_json_object_reads_as_itself(value: dict[str, JSON]) -> None:
    assert simple(one(json.dumps(value))) == simple(from_json(value))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_documents_or_faults(text: str) -> None:
    for node in read(text.encode("utf-8", errors="surrogatepass")):
        assert isinstance(node, Scalar | Mapping | Sequence | Fault)


def test_a_plain_document_has_texts_only() -> None:
    assert load("a: 1\nb: {c: [yes, '']}\nd:\n") == {"a": "1", "b": {"c": ["yes", ""]}, "d": ""}
    assert load("# nothing\n") == ""


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "a: 1\na: 2\n", "a: [\n", "a: !x y\n"])
def test_a_plain_document_that_is_none(text: str) -> None:
    with pytest.raises(NotYaml, match=r"^line \d+, column \d+: "):
        load(text)
