"""Untyped trees -> types: what a text may stand for is decided by what is asked for (reference resources.md 9)."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.kinds.base import ASN, GoDuration, NotEmpty, Uint16, Uint32, wire
from resources.kinds.rule import Port, Protocol
from resources.reader import Reader, closest, integer, real
from resources.tree import Mapping, Sequence
from resources.yamldoc import documents


class Inner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    some_field: str = ""
    must: str


class Thing(msgspec.Struct, frozen=True, kw_only=True, rename=wire(as_number="asNumber", my_url="myURL")):
    text: str = ""
    words: NotEmpty = ""
    flag: bool = False
    maybe: bool | None = None
    count: int = 0
    small: Uint16 = 0
    mask: Uint32 | None = None
    order: float | None = None
    as_number: ASN | None = None
    wait: GoDuration = ""
    port: Port | None = None
    ports: list[Port] = []
    protocol: Protocol | None = None
    labels: dict[str, str] = {}
    inner: Inner | None = None
    inners: list[Inner] = []
    my_url: str = ""


def read(text: str, *, strict: bool = True) -> tuple[Thing, list[str]]:
    (node,) = documents(text.encode())
    assert isinstance(node, Mapping), node
    reader = Reader(strict=strict)
    thing = reader.read(Thing, node)
    assert thing is not None
    return thing, [str(problem) for problem in reader.problems]


def good(text: str) -> Thing:
    thing, problems = read(text)
    assert problems == []
    return thing


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("text: yes", "text", "yes"), ("text: 0123", "text", "0123"), ("text: 1.0", "text", "1.0"),
        ("text: 'x y'", "text", "x y"), ("text: ~", "text", ""), ("text: ''", "text", ""),
        ("text: 22:30", "text", "22:30"), ("text: |\n  a\n  b\n", "text", "a\nb\n"),
        ("flag: y", "flag", True), ("flag: on", "flag", True), ("flag: No", "flag", False), ("flag: ~", "flag", False),
        ("maybe: off", "maybe", False), ("maybe: null", "maybe", None),
        ("count: 026", "count", 22), ("count: 0o32", "count", 26), ("count: 0b11010", "count", 26),
        ("count: 0x1A", "count", 26), ("count: 1_000", "count", 1000), ("count: 26.0", "count", 26),
        ("count: 1e6", "count", 1000000), ("count: +5", "count", 5), ("count: -5", "count", -5),
        ("count: 08", "count", 8),
        ("mask: 0xffff0000", "mask", 0xFFFF0000),
        ("order: 5", "order", 5.0), ("order: -1.5", "order", -1.5), ("order: .5", "order", 0.5),
        ("order: 1e3", "order", 1000.0),
        ("asNumber: 64512", "as_number", 64512), ("asNumber: '64512'", "as_number", 64512),
        ("asNumber: '1.10'", "as_number", 65546), ("asNumber: 0", "as_number", 0),
        ("asNumber: '65535.65535'", "as_number", 4294967295),
        ("wait: 90s", "wait", "1m30s"), ("wait: '0'", "wait", "0s"), ("wait: 1.5h", "wait", "1h30m0s"),
        ("port: 80", "port", 80), ("port: '80'", "port", 80), ("port: '080'", "port", 80), ("port: 0x50", "port", 80),
        ("port: '0x50'", "port", "0x50"), ("port: http-alt", "port", "http-alt"), ("port: 443:443", "port", 443),
        ("port: 8080:8090", "port", "8080:8090"), ("port: '08080:8090'", "port", "8080:8090"),
        ("ports: [80, '81:82', x]", "ports", [80, "81:82", "x"]),
        ("protocol: TCP", "protocol", "TCP"), ("protocol: 6", "protocol", 6), ("protocol: '6'", "protocol", 6),
        ("protocol: '256'", "protocol", "256"), ("labels: {a: 1, b: yes, c: , d: '010', e: 010}", "labels",
         {"a": "1", "b": "yes", "c": "", "d": "010", "e": "010"}),
        ("inner: {must: x}", "inner", Inner(must="x")),
        ("inner: {someField: x}", "inner", Inner(some_field="x", must="")),
        ("inner: {}", "inner", Inner(must="")), ("inner: ~", "inner", None),
        ("inners: [{must: a}, {must: b}]", "inners", [Inner(must="a"), Inner(must="b")]), ("inners: ~", "inners", []),
        ("myURL: x", "my_url", "x"),
    ],
)  # fmt: skip
def test_what_is_accepted(text: str, field: str, value: Any) -> None:
    found = getattr(good(text), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flag: 'true'", ["flag = 'true'", "must be true or false", "write true without quotes"]),
        ("flag: 1", ["flag = '1'", "must be true or false"]),
        ("count: '26'", ["count = '26'", "write 26 without quotes"]),
        ("count: 2.5", ["count = '2.5'", "must be a whole number"]),
        ("count: 9223372036854775808", ["count", "must be between"]),
        ("count: x", ["count = 'x'"]), ("count: 0x", ["count"]), ("count: 1__", []), ("count: .inf", ["count"]),
        ("count: []", ["count = '[...]'", "must be a number"]),
        ("small: 65536", ["small = '65536'", "between 0 and 65535"]), ("small: -1", ["small"]),
        ("order: x", ["order = 'x'", "must be a number"]), ("order: '5'", ["write 5 without quotes"]),
        ("order: .nan", ["order"]), ("order: 1e999", ["order"]),
        ("asNumber: 4294967296", ["asNumber = '4294967296'", "1 to 4294967295"]), ("asNumber: -1", ["asNumber"]),
        ("asNumber: 1.10", ["asNumber = '1.10'", "quote it: '1.10'"]),
        ("asNumber: '65536.1'", ["asNumber = '65536.1'"]),
        ("asNumber: abc", ["asNumber"]), ("asNumber: 'abc'", ["asNumber"]), ("asNumber: ''", ["asNumber"]),
        ("wait: 5", ["wait = '5'", "with its unit", "did you mean 5s?"]), ("wait: 5 seconds", ["unknown unit"]),
        ("wait: [1s]", ["must be a duration"]),
        ("port: 70000", ["port = '70000'", "between 1 and 65535"]), ("port: '70000'", ["invalid port format (70000)"]),
        ("port: 20:10", ["minimum port number (20) is greater than maximum port number (10) in port range"]),
        ("port: 'a b'", ["invalid name for named port"]), ("port: -1", ["port"]),
        ("protocol: 256", ["protocol = '256'", "protocol number invalid"]), ("protocol: -1", ["protocol"]),
        ("text: !has(a)", ["text = '!has(a)'", "a tag where a text is expected", "quote it: '!has(a)'"]),
        ("text: [a]", ["must be a text"]), ("text: {a: b}", ["must be a text"]),
        ("text: {a}", ["must be a text", "quote it: '{a}'"]), ('text: "a\\u0001b"', ["no text"]),
        ("words: ''", ["words", "must not be empty"]),
        ("ports: 80", ["ports = '80'", "must be a list", "write [80]"]), ("ports: [80, ~]", ["ports[1]", "empty"]),
        ("ports: !x [80]", ["must be a list"]),
        ("labels: [a]", ["labels", "must be a mapping of texts"]), ("labels: {a: [b]}", ["labels.a"]),
        ("labels: {a: !x b}", ["labels.a = '!x b'"]),
        ("inner: x", ["inner = 'x'", "must be a mapping with someField, must"]),
        ("inners: [{must: a}, 5]", ["inners[1] = '5'"]),
        ("nosuch: 5", ["nosuch", "not recognized or is in the wrong location"]),
        ("Text: 5", ["did you mean 'text'?"]), ("as-number: 5", ["did you mean 'asNumber'?"]),
        ("labls: {}", ["did you mean 'labels'?"]), ("prot: 5", ["did you mean 'port"]),
        ("someField: 5", ["it belongs in inner"]), ("inner: {text: x}", ["inner.text"]),
        ("zzz: 5", ["known are text, words, flag"]),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_what_to_do(text: str, said: list[str]) -> None:
    _, problems = read(text)
    assert len(problems) == (1 if said else 0)
    for words in said:
        assert words in problems[0]


def test_everything_wrong_is_told_and_the_rest_is_read() -> None:
    thing, problems = read("flag: 'x'\ncount: y\nnosuch: 1\nlabels: {a: [1], b: c}\ntext: fine\n")
    assert len(problems) == 4
    assert thing == Thing(text="fine", labels={"b": "c"})


def test_a_bad_entry_of_a_list_keeps_its_place() -> None:
    thing, problems = read("ports: [70000, 80, ~, 81]\ninners: [5, {must: a}]\n")
    assert len(problems) == 3
    assert thing.ports == ["", 80, "", 81]
    assert thing.inners == [Inner(must=""), Inner(must="a")]


def test_unknown_fields_are_no_problem_of_a_reader_that_is_not_strict() -> None:
    assert read("nosuch: 1\ninner: {zzz: 2, must: x}", strict=False) == (Thing(inner=Inner(must="x")), [])


def test_dropped_fields_are_ignored_at_their_place_only() -> None:
    (node,) = documents(b"zzz: 1\ninner: {zzz: 1, must: x}")
    assert isinstance(node, Mapping)
    reader = Reader(strict=True, dropped=[("zzz",)])
    reader.read(Thing, node)
    assert [problem.path for problem in reader.problems] == [("inner", "zzz")]


def test_what_is_no_mapping_is_nothing() -> None:
    (node,) = documents(b"- 1")
    assert isinstance(node, Sequence)
    reader = Reader(strict=True)
    assert reader.read(Thing, node) is None
    assert len(reader.problems) == 1


@given(st.integers(-(2**64), 2**64))
def test_whole_numbers_in_all_bases(value: int) -> None:
    sign, size = ("-", -value) if value < 0 else ("", value)
    for text in (str(value), f"{sign}0x{size:x}", f"{sign}0b{size:b}", f"{sign}0o{size:o}", f"{sign}0{size:o}"):
        assert integer(text) == value


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_none(text: str) -> None:
    integer(text)
    real(text)


def test_numbers_without_end_are_none() -> None:
    assert integer("1" * 5000) is None
    assert integer("0x" + "f" * 5000) is None
    assert real("1" * 5000) is None
    assert integer("1e400") is None


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [("IPPOOL", ["IPPool", "Node"], "IPPool"), ("ippol", ["IPPool", "Node"], "IPPool"), ("x", ["IPPool"], None),
     ("", ["a"], None), ("ipip", ["ipipMode", "vxlanMode"], "ipipMode")],
)  # fmt: skip
def test_did_you_mean(name: str, known: list[str], expected: str | None) -> None:
    assert closest(name, known) == expected
