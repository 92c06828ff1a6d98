"""The selector language against reference resources.md 7, and against a slow obvious evaluator."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.errors import Rejected
from resources.selector import (
    And,
    Constant,
    Expression,
    LabelTest,
    Not,
    Operator,
    Or,
    Requirement,
    Selector,
    SelectorError,
    compiled,
    conjunction,
    negation,
    parse,
    rewritten,
)

WEB = {"role": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", "all()"),
        (" \t ", "all()"),
        ("all( )", "all()"),
        ("global()", "global()"),
        ("has(a)", "has(a)"),
        ("has( a.b/c_d-e )", "has(a.b/c_d-e)"),
        ("a=='b'", 'a == "b"'),
        ("""a == 'b"c'""", """a == 'b"c'"""),
        ("""a == "b'c" """, '''a == "b'c"'''),
        ("a!='b'", 'a != "b"'),
        ("a in {}", "a in {}"),
        ("a in{'b','a','b',}", 'a in {"a", "b"}'),
        ("a notin {'b'}", 'a not in {"b"}'),
        ("a not \t in {'b'}", 'a not in {"b"}'),
        ("a contains'b'", 'a contains "b"'),
        ("a startswith 'b'", 'a starts with "b"'),
        ("a ends   with 'b'", 'a ends with "b"'),
        ("!!!has(a)", "!has(a)"),
        ("! ! has(a)", "has(a)"),
        ("!(!has(a))", "has(a)"),
        ("((has(a)))", "has(a)"),
        ("has(a)||has(b)&&has(c)", "(has(a) || (has(b) && has(c)))"),
        ("(has(a)&&has(b))&&has(c)", "((has(a) && has(b)) && has(c))"),
        ("has(a)&&has(b)&&has(c)", "(has(a) && has(b) && has(c))"),
        ("!has(a)&&!(has(b)||has(c))", "(!has(a) && !(has(b) || has(c)))"),
        ("in in {'a'}", 'in in {"a"}'),
        ("not not in {'a'}", 'not not in {"a"}'),
        ("has == 'x' && all != 'y'", '(has == "x" && all != "y")'),
        ('! (a == "b"&&! c != "d")', '!(a == "b" && !c != "d")'),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert str(parse(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "unique_id"),
    [
        ('! (a == "b"&&! c != "d")', "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
        ("role == 'web'", "s:MR9Dy5iWW0UxNKyRkM6UiRI3iZzQ2k0xiUotow"),
    ],
)
def test_unique_id_is_the_one_of_the_reference(text: str, unique_id: str) -> None:
    assert parse(text).unique_id == unique_id


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("a == 'b", "unterminated string", 6),
        ("'b' == a", "expected identifier", 1),
        ("'b", "unterminated string", 1),
        ("role = 'x'", "expected ==", 6),
        ("a == 'b' & c == 'd'", "expected &&", 10),
        ("a == 'b' | c == 'd'", "expected ||", 10),
        ("has(", "expected identifier", 5),
        ("a == 'b' &&", "expected identifier", 12),
        ("()", "expected identifier", 2),
        ("a", 'expected operator after label "a"', 2),
        ("a inside {'b'}", 'expected operator after label "a"', 3),
        ("a\n== 'b'", 'expected operator after label "a"', 2),
        ("has (a)", 'expected operator after label "has"', 5),
        ("a ==", "expected string", 5),
        ("a in {'b', c}", "expected string", 12),
        ("a in 'b'", "expected set literal", 6),
        ("a in {'b' 'c'}", "expected }", 11),
        ("(a == 'b'", "expected )", 10),
        ("all(a)", "expected )", 5),
        ("has(a", "no closing ')' after has(", 6),
        ("a == 'b' c", "unexpected content at end of selector 'c'", 10),
        ("a == 'b')", "unexpected content at end of selector ')'", 9),
        ("has(a) HAS(b)", "unexpected content at end of selector 'HAS(b)'", 8),
        ("x" * 513 + " == 'a'", f"label too long: {'x' * 40}…", 1),
    ],
)
def test_errors_name_reason_and_column(text: str, reason: str, column: int) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert (caught.value.reason, caught.value.column) == (reason, column)
    assert str(caught.value) == f"{reason} at column {column}"
    assert isinstance(caught.value, Rejected)


def test_a_label_of_512_characters_is_the_longest() -> None:
    label = "x" * 512
    assert parse(f"has({label})").matches({label: ""})


@pytest.mark.parametrize(
    ("text", "absent", "present"),
    [
        ("role == 'web'", False, True),
        ("role == 'we'", False, False),
        ("role != 'web'", True, False),
        ("role != 'db'", True, True),
        ("role in {'db', 'web'}", False, True),
        ("role in {}", False, False),
        ("role not in {'db', 'web'}", True, False),
        ("role not in {}", True, True),
        ("role contains 'e'", False, True),
        ("role contains ''", False, True),
        ("role starts with 'we'", False, True),
        ("role starts with 'eb'", False, False),
        ("role ends with 'eb'", False, True),
        ("role ends with 'WEB'", False, False),
        ("has(role)", False, True),
        ("!has(role)", True, False),
        ("all()", True, True),
        ("!all()", False, False),
        ("global()", True, True),
        ("has(role) && tier == 'front'", False, True),
        ("!has(role) || tier == 'back'", True, False),
    ],
)
def test_meaning(text: str, absent: bool, present: bool) -> None:
    assert parse(text).matches({}) is absent
    assert parse(text).matches(WEB) is present


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000 + "has(a)" + ")" * 50_000,
        "!(" * 50_001 + "has(b)" + ")" * 50_001,
        "!" * 100_000 + "has(a)",
        "has(a) && (" * 5_000 + "has(a)" + ")" * 5_000,
        "has(b) || (" * 5_000 + "has(a)" + ")" * 5_000,
        " && ".join(["has(a)"] * 20_000),
    ],
    ids=["parentheses", "negations", "exclamations", "nested-and", "nested-or", "long"],
)
def test_depth_and_length_overflow_nothing(text: str) -> None:
    selector = parse(text)
    assert selector.matches({"a": ""})
    assert selector == parse(str(selector))
    assert len(selector.conditions()) <= 16


@pytest.mark.parametrize("text", ["(" * 50_000, "(" * 50_000 + "has(a)", "!" * 50_000, "a in {" + "'x'," * 50_000])
def test_unfinished_depth_is_an_ordinary_error(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("all()", ()),
        ("!has(a)", ()),
        ("a != 'b'", ()),
        ("a == 'b'", [{Requirement("a", frozenset("b"))}]),
        ("!(a != 'b')", [{Requirement("a", frozenset("b"))}]),
        ("a in {'b', 'c'}", [{Requirement("a", frozenset("bc"))}]),
        ("a in {}", [set()]),
        ("!all()", [set()]),
        ("a starts with 'b'", [{Requirement("a")}]),
        ("has(a) && b == 'c'", [{Requirement("b", frozenset("c"))}, {Requirement("a")}]),
        ("has(a) || b == 'c'", [{Requirement("a"), Requirement("b", frozenset("c"))}]),
        ("has(a) || !has(b)", ()),
        ("!(!has(a) || b == 'c')", [{Requirement("a")}]),
        ("has(a) || !all()", [{Requirement("a")}]),
    ],
)
def test_necessary_conditions(text: str, conditions: list[set[Requirement]]) -> None:
    assert parse(text).conditions() == tuple(frozenset(condition) for condition in conditions)


def test_arithmetic_of_selectors() -> None:
    web, old = parse("role == 'web'"), parse("has(old) || has(older)")
    assert str(conjunction(web, negation(old))) == '(role == "web" && !(has(old) || has(older)))'
    assert conjunction(web) is web
    assert negation(negation(web)) == web
    assert conjunction(web, old) == parse("(role == 'web') && (has(old) || has(older))")


def test_rewriting_replaces_tests_in_place() -> None:
    def prefix(leaf: LabelTest | Constant) -> Expression:
        if isinstance(leaf, Constant):
            return LabelTest("namespace", Operator.HAS)
        return LabelTest(f"pcns.{leaf.label}", leaf.operator, leaf.values)

    root = rewritten(parse("!(a == 'b' && !all()) || c in {'d'}").root, prefix)
    assert str(compiled(root)) == '(!(pcns.a == "b" && !has(namespace)) || pcns.c in {"d"})'


# Random selectors: a small world of labels and values, so that tests hit.

LABELS = st.sampled_from(["a", "b", "in", "has", "x/y.z"])
VALUES = st.sampled_from(["", "u", "v", "uv", "it's", 'sa"id'])
BLANKS = st.sampled_from(["", " ", "\t", "  "])
LABELLED = st.dictionaries(LABELS, VALUES)


def model_matches(node: Expression, labels: Mapping[str, str]) -> bool:
    """Read resources.md 7.2 directly."""
    match node:
        case Constant():
            return True
        case Not(operand):
            return not model_matches(operand, labels)
        case And(operands):
            return all(model_matches(operand, labels) for operand in operands)
        case Or(operands):
            return any(model_matches(operand, labels) for operand in operands)
        case LabelTest(label, operator, values):
            present = label in labels
            value = labels.get(label, "")
            return {
                Operator.HAS: lambda: present,
                Operator.EQUALS: lambda: present and value == values[0],
                Operator.NOT_EQUALS: lambda: not (present and value == values[0]),
                Operator.IN: lambda: present and value in values,
                Operator.NOT_IN: lambda: not (present and value in values),
                Operator.CONTAINS: lambda: present and values[0] in value,
                Operator.STARTS_WITH: lambda: present and value.startswith(values[0]),
                Operator.ENDS_WITH: lambda: present and value.endswith(values[0]),
            }[operator]()


def label_tests() -> st.SearchStrategy[LabelTest]:
    sets = st.frozensets(VALUES, max_size=3).map(lambda values: tuple(sorted(values)))
    return st.one_of(
        st.builds(LabelTest, LABELS, st.just(Operator.HAS)),
        st.builds(LabelTest, LABELS, st.sampled_from([Operator.IN, Operator.NOT_IN]), sets),
        st.builds(
            LabelTest,
            LABELS,
            st.sampled_from(
                [Operator.EQUALS, Operator.NOT_EQUALS, Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH]
            ),
            VALUES.map(lambda value: (value,)),
        ),
    )


def expressions() -> st.SearchStrategy[Expression]:
    leaves: st.SearchStrategy[Expression] = st.one_of(label_tests(), st.sampled_from(Constant))

    def grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(
            st.builds(Not, inner.filter(lambda node: not isinstance(node, Not))),
            st.builds(And, several),
            st.builds(Or, several),
        )

    return st.recursive(leaves, grown, max_leaves=8)


@st.composite
def spellings(draw: st.DrawFn, node: Expression) -> str:
    """Write the expression down in one of the ways the grammar allows."""

    def blank() -> str:
        return draw(BLANKS)

    def string(value: str) -> str:
        quotes = [quote for quote in "'\"" if quote not in value]
        quote = draw(st.sampled_from(quotes))
        return f"{quote}{value}{quote}"

    def write(node: Expression, inside: bool) -> str:
        match node:
            case Constant():
                return node.value.replace("()", f"({blank()})")
            case Not(operand):
                extra = draw(st.sampled_from(["", "!!"]))
                return f"!{blank()}{extra}{write(operand, True)}"
            case And(operands):
                text = f"{blank()}&&{blank()}".join(write(operand, True) for operand in operands)
                return f"({text})" if inside else text
            case Or(operands):
                text = f"{blank()}||{blank()}".join(
                    write(operand, draw(st.booleans()) or not isinstance(operand, And)) for operand in operands
                )
                return f"({text})" if inside else text
            case LabelTest(label, Operator.HAS, _):
                return f"has({blank()}{label}{blank()})"
            case LabelTest(label, (Operator.IN | Operator.NOT_IN) as operator, values):
                word = operator.value.replace(" ", blank())
                shuffled: list[str] = draw(st.permutations(values))
                members = f"{blank()},".join(string(value) for value in shuffled)
                comma = draw(st.sampled_from(["", ","])) if values else ""
                return f"{label} {word}{blank()}{{{blank()}{members}{comma}{blank()}}}"
            case LabelTest(label, operator, values):
                return f"{label} {operator.value.replace(' ', blank())}{blank()}{string(values[0])}"

    return f"{blank()}{write(node, False)}{blank()}"


@settings(max_examples=100)
@given(st.data())
def test_parse_reads_what_was_written(data: st.DataObject) -> None:
    expression = data.draw(expressions())
    selector = parse(data.draw(spellings(expression)))
    assert selector == compiled(expression)
    assert parse(str(selector)).root == selector.root


@settings(max_examples=300)
@given(expressions(), LABELLED)
def test_matching_agrees_with_the_plain_reading(expression: Expression, labels: dict[str, str]) -> None:
    selector = compiled(expression)
    assert selector.matches(labels) is model_matches(expression, labels)


def satisfied(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    if requirement.label not in labels:
        return False
    return requirement.values is None or labels[requirement.label] in requirement.values


@settings(max_examples=300)
@given(expressions(), LABELLED)
def test_conditions_are_necessary(expression: Expression, labels: dict[str, str]) -> None:
    selector = compiled(expression)
    if selector.matches(labels):
        for condition in selector.conditions():
            assert any(satisfied(requirement, labels) for requirement in condition)


@given(st.text(alphabet="ahs()!&|={}'\" ,\tin", max_size=40))
def test_any_text_is_a_selector_or_a_selector_error(text: str) -> None:
    outcome = parsed_or_error(text)
    if isinstance(outcome, SelectorError):
        assert 1 <= outcome.column <= len(text) + 1
    else:
        assert parse(str(outcome)) == outcome


def parsed_or_error(text: str) -> Selector | SelectorError:
    try:
        return parse(text)
    except SelectorError as error:
        return error
