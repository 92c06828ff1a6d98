"""The selector language: parse, print in one form, evaluate, and say what a match needs (reference resources.md 7).

A selector picks labelled things: ``role == "web" && !has(test)``. Nothing here recurses, so that neither depth nor
length of what somebody wrote can overflow a stack: the parser keeps its own, printing walks a worklist, and evaluation
runs a flat program in which every test knows where to go on true and on false.
"""

import base64
import enum
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from resources.errors import Rejected

LABEL_MAX = 512

_BLANKS = re.compile(r"[ \t]*")
_LABEL = re.compile(r"[A-Za-z0-9_./-]+")
_WORD_OPERATOR = re.compile(r"(contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in)(?![A-Za-z0-9_])")
_SHOWN_REST = 40


class SelectorError(Rejected):
    """A selector that does not parse. `reason` says why, `column` (from 1, in characters) where."""

    reference = "selector"

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(
            f"{reason} at column {column}",
            hint="a selector looks like: role == 'web' && !has(test)",
            column=column,
        )
        self.reason = reason
        self.column = column


class Operator(enum.Enum):
    """The tests of one label; the value is the canonical spelling."""

    EQUALS = "=="
    NOT_EQUALS = "!="
    IN = "in"
    NOT_IN = "not in"
    CONTAINS = "contains"
    STARTS_WITH = "starts with"
    ENDS_WITH = "ends with"
    HAS = "has"


class Constant(enum.Enum):
    """What matches everything. ``global()`` has its own meaning only in a rule's namespaceSelector."""

    ALL = "all()"
    GLOBAL = "global()"


@dataclass(frozen=True, slots=True)
class LabelTest:
    """A test of one label. `values` is empty for has, one value for comparisons, sorted and unique for sets."""

    label: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    operand: "LabelTest | Constant | And | Or"


@dataclass(frozen=True, slots=True)
class And:
    operands: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    operands: "tuple[Expression, ...]"


Expression = LabelTest | Constant | Not | And | Or

_WORD_OPERATORS = {
    op.value.replace(" ", ""): op
    for op in (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.NOT_IN, Operator.IN)
}
_SYMBOL_OPERATORS = {"==": Operator.EQUALS, "!=": Operator.NOT_EQUALS}
_CONSTANTS = {"all": Constant.ALL, "global": Constant.GLOBAL}


@dataclass(frozen=True, slots=True)
class Requirement:
    """The label must be there, and if `values` is not None have one of them."""

    label: str
    values: frozenset[str] | None = None


Condition = frozenset[Requirement]
"""At least one requirement must hold, else the selector cannot match. An empty condition never holds."""

_Step = tuple[Callable[[Mapping[str, str]], bool], int, int]
_TRUE, _FALSE = -1, -2


@dataclass(frozen=True, slots=True, repr=False)
class Selector:
    """A parsed selector. Equal if the canonical texts are."""

    root: Expression = field(compare=False)
    text: str
    """Canonical form (resources.md 7.3)."""
    _program: tuple[_Step, ...] = field(compare=False)
    _entry: int = field(compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Selector({self.text!r})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether something with these effective labels is selected (resources.md 7.2)."""
        at, program = self._entry, self._program
        while at >= 0:
            test, if_true, if_false = program[at]
            at = if_true if test(labels) else if_false
        return at == _TRUE

    @property
    def unique_id(self) -> str:
        """Id of the set of what it selects: the same for selectors of the same canonical form (resources.md 7.3)."""
        text = f"s:{self.text}".encode("utf-8", "surrogatepass")
        return "s:" + base64.urlsafe_b64encode(hashlib.sha224(text).digest()).decode().rstrip("=")

    def conditions(self) -> tuple[Condition, ...]:
        """Return necessary conditions, each alone necessary; none if the selector may match without any label."""
        return _conditions(self.root)


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """Parse a selector; blank text selects everything. Equal texts give one object: thousands of rules share a few.

    Raises:
        SelectorError: it is no selector.
    """
    return compiled(_Parser(text).parse())


def compiled(root: Expression) -> Selector:
    """Make a selector of an expression, as `parse` would of its text."""
    program, entry = _compile(root)
    return Selector(root, _print(root), program, entry)


def conjunction(*selectors: Selector) -> Selector:
    """Return ``(A) && (B) ...``, or the one selector as it is."""
    roots = tuple(selector.root for selector in selectors)
    return selectors[0] if len(roots) == 1 else compiled(And(roots))


def negation(selector: Selector) -> Selector:
    """Return ``!(A)``."""
    return compiled(negated(selector.root))


def negated(expression: Expression) -> Expression:
    """Return the opposite; two negations cancel."""
    return expression.operand if isinstance(expression, Not) else Not(expression)


def rewritten(root: Expression, leaf: Callable[[LabelTest | Constant], Expression]) -> Expression:
    """Return `root` with each test and constant replaced by what `leaf` makes of it."""
    done: list[Expression] = []
    work: list[tuple[Expression, bool]] = [(root, False)]
    while work:
        node, descended = work.pop()
        match node:
            case LabelTest() | Constant():
                done.append(leaf(node))
            case Not(operand):
                if descended:
                    done.append(negated(done.pop()))
                else:
                    work += [(node, True), (operand, False)]
            case And(operands) | Or(operands):
                if descended:
                    count = len(operands)
                    replaced = tuple(done[-count:])
                    del done[-count:]
                    done.append(And(replaced) if isinstance(node, And) else Or(replaced))
                else:
                    work.append((node, True))
                    work += [(operand, False) for operand in reversed(operands)]
    return done[0]


@dataclass(slots=True)
class _Group:
    """An open parenthesis: finished alternatives, terms of the current one, and whether ``!`` stood before it."""

    negate: bool
    alternatives: list[Expression] = field(default_factory=list)
    terms: list[Expression] = field(default_factory=list)

    def add(self, term: Expression, negate: bool) -> None:
        self.terms.append(negated(term) if negate else term)

    def end_alternative(self) -> None:
        self.alternatives.append(self.terms[0] if len(self.terms) == 1 else And(tuple(self.terms)))
        self.terms = []

    def close(self) -> Expression:
        self.end_alternative()
        return self.alternatives[0] if len(self.alternatives) == 1 else Or(tuple(self.alternatives))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Expression:
        if self._skip_blanks() == len(self._text):
            return Constant.ALL
        groups = [_Group(negate=False)]
        while True:
            negate = self._negations()
            if self._take("("):
                groups.append(_Group(negate))
                continue
            groups[-1].add(self._primary(), negate)
            while len(groups) > 1 and self._take(")"):
                group = groups.pop()
                groups[-1].add(group.close(), group.negate)
            if not self._connective(groups):
                return groups[0].close()

    def _connective(self, groups: list[_Group]) -> bool:
        """Read ``&&`` or ``||``; tell False at the end of the text."""
        if self._take("&&"):
            return True
        if self._take("||"):
            groups[-1].end_alternative()
            return True
        at_end = self._skip_blanks() == len(self._text)
        if not at_end and self._text[self._at] in "&|":
            raise self._error(f"expected {self._text[self._at] * 2}")
        if len(groups) > 1:
            raise self._error("expected )")
        if not at_end:
            rest = self._text[self._at :]
            shown = rest if len(rest) <= _SHOWN_REST else rest[:_SHOWN_REST] + "…"
            raise self._error(f"unexpected content at end of selector {shown!r}")
        return False

    def _negations(self) -> bool:
        odd = False
        while self._take("!"):
            odd = not odd
        return odd

    def _primary(self) -> Expression:
        label = self._label()
        if label in ("has", *_CONSTANTS) and self._text.startswith("(", self._at):
            self._at += 1
            if label == "has":
                tested = self._label()
                if not self._take(")"):
                    raise self._error("no closing ')' after has(")
                return LabelTest(tested, Operator.HAS)
            if not self._take(")"):
                raise self._error("expected )")
            return _CONSTANTS[label]
        operator = self._operator(label)
        if operator in (Operator.IN, Operator.NOT_IN):
            return LabelTest(label, operator, self._set())
        return LabelTest(label, operator, (self._string(),))

    def _label(self) -> str:
        self._skip_blanks()
        found = _LABEL.match(self._text, self._at)
        if not found:
            rest = self._text[self._at : self._at + 1]
            if rest and rest in "'\"" and rest not in self._text[self._at + 1 :]:
                raise self._error("unterminated string")
            raise self._error("expected identifier")
        label = found.group()
        if len(label) > LABEL_MAX:
            raise self._error(f"label too long: {label[:_SHOWN_REST]}…")
        self._at = found.end()
        return label

    def _operator(self, label: str) -> Operator:
        self._skip_blanks()
        for symbol, operator in _SYMBOL_OPERATORS.items():
            if self._take(symbol):
                return operator
        word = _WORD_OPERATOR.match(self._text, self._at)
        if word:
            self._at = word.end()
            return _WORD_OPERATORS[word.group().replace(" ", "").replace("\t", "")]
        if self._text.startswith("=", self._at):
            raise self._error("expected ==")
        raise self._error(f'expected operator after label "{label}"')

    def _string(self) -> str:
        self._skip_blanks()
        quote = self._text[self._at : self._at + 1]
        if quote not in ("'", '"'):
            raise self._error("expected string")
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise self._error("unterminated string")
        value = self._text[self._at + 1 : end]
        self._at = end + 1
        return value

    def _set(self) -> tuple[str, ...]:
        if not self._take("{"):
            raise self._error("expected set literal")
        values = set()
        while not self._take("}"):
            values.add(self._string())
            if not self._take(","):
                if not self._take("}"):
                    raise self._error("expected }")
                break
        return tuple(sorted(values))

    def _skip_blanks(self) -> int:
        blanks = _BLANKS.match(self._text, self._at)
        if blanks:
            self._at = blanks.end()
        return self._at

    def _take(self, token: str) -> bool:
        self._skip_blanks()
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _error(self, reason: str) -> SelectorError:
        return SelectorError(reason, self._at + 1)


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def _print_test(test: LabelTest) -> str:
    match test.operator:
        case Operator.HAS:
            return f"has({test.label})"
        case Operator.IN | Operator.NOT_IN:
            return f"{test.label} {test.operator.value} {{{', '.join(map(_quoted, test.values))}}}"
        case _:
            return f"{test.label} {test.operator.value} {_quoted(test.values[0])}"


def _print(root: Expression) -> str:
    pieces: list[str] = []
    work: list[Expression | str] = [root]
    while work:
        item = work.pop()
        match item:
            case str():
                pieces.append(item)
            case LabelTest():
                pieces.append(_print_test(item))
            case Constant():
                pieces.append(item.value)
            case Not(operand):
                pieces.append("!")
                work.append(operand)
            case And(operands) | Or(operands):
                between = " && " if isinstance(item, And) else " || "
                work.append(")")
                for position, member in enumerate(reversed(operands)):
                    work += [between, member] if position else [member]
                work.append("(")
    return "".join(pieces)


def _test_function(test: LabelTest) -> Callable[[Mapping[str, str]], bool]:
    label, values = test.label, frozenset(test.values)
    first = test.values[0] if test.values else ""
    match test.operator:
        case Operator.EQUALS:
            return lambda labels: labels.get(label) == first
        case Operator.NOT_EQUALS:
            return lambda labels: labels.get(label) != first
        case Operator.IN:
            return lambda labels: labels.get(label) in values
        case Operator.NOT_IN:
            return lambda labels: labels.get(label) not in values
        case Operator.CONTAINS:
            return lambda labels: label in labels and first in labels[label]
        case Operator.STARTS_WITH:
            return lambda labels: label in labels and labels[label].startswith(first)
        case Operator.ENDS_WITH:
            return lambda labels: label in labels and labels[label].endswith(first)
        case Operator.HAS:
            return lambda labels: label in labels


def _compile(root: Expression) -> tuple[tuple[_Step, ...], int]:
    """Return the steps, and where to start. Later operands are laid out first, so that each jump's aim is known."""
    program: list[_Step] = []
    entry = _TRUE
    work: list[tuple[Expression, int, int, int]] = [(root, 0, _TRUE, _FALSE)]
    while work:
        node, placed, if_true, if_false = work.pop()
        match node:
            case LabelTest():
                program.append((_test_function(node), if_true, if_false))
                entry = len(program) - 1
            case Constant():
                entry = if_true
            case Not(operand):
                work.append((operand, 0, if_false, if_true))
            case And(operands) | Or(operands):
                if placed == len(operands):
                    continue
                work.append((node, placed + 1, if_true, if_false))
                next_operand = operands[-1 - placed]
                if placed == 0:
                    work.append((next_operand, 0, if_true, if_false))
                elif isinstance(node, And):
                    work.append((next_operand, 0, entry, if_false))
                else:
                    work.append((next_operand, 0, if_true, entry))
    return tuple(program), entry


_NEVER: tuple[Condition, ...] = (frozenset(),)
_CONDITIONS_MAX = 16
_REQUIREMENTS_MAX = 256


def _test_conditions(test: LabelTest, positive: bool) -> tuple[Condition, ...]:
    match test.operator:
        case Operator.EQUALS | Operator.IN if positive:
            pass
        case Operator.NOT_EQUALS | Operator.NOT_IN if not positive:
            pass
        case Operator.CONTAINS | Operator.STARTS_WITH | Operator.ENDS_WITH | Operator.HAS if positive:
            return (frozenset({Requirement(test.label)}),)
        case _:
            return ()
    return (frozenset({Requirement(test.label, frozenset(test.values))}),) if test.values else _NEVER


def _rank(condition: Condition) -> tuple[bool, int]:
    """Order conditions before anything is known about the labelled things: named values first, fewest first."""
    return any(r.values is None for r in condition), sum(len(r.values or ()) for r in condition)


def _conditions(root: Expression) -> tuple[Condition, ...]:
    done: list[tuple[Condition, ...]] = []
    work: list[tuple[Expression, bool, bool]] = [(root, True, False)]
    while work:
        node, positive, descended = work.pop()
        match node:
            case LabelTest():
                done.append(_test_conditions(node, positive))
            case Constant():
                done.append(() if positive else _NEVER)
            case Not(operand):
                work.append((operand, not positive, False))
            case And(operands) | Or(operands) if not descended:
                work.append((node, positive, True))
                work += [(part, positive, False) for part in operands]
            case And(operands) | Or(operands):
                parts = done[-len(operands) :]
                del done[-len(operands) :]
                done.append(_all_of(parts) if isinstance(node, And) == positive else _any_of(parts))
    return done[0]


def _all_of(parts: list[tuple[Condition, ...]]) -> tuple[Condition, ...]:
    conditions = dict.fromkeys(condition for part in parts for condition in part)
    return tuple(sorted(conditions, key=_rank)[:_CONDITIONS_MAX])


def _any_of(parts: list[tuple[Condition, ...]]) -> tuple[Condition, ...]:
    if not all(parts):
        return ()
    requirements: Condition = frozenset().union(*(min(part, key=_rank) for part in parts))
    return (requirements,) if len(requirements) <= _REQUIREMENTS_MAX else ()
