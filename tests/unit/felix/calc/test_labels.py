"""The label index against its naive twin, and what its work costs."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.naive_labels import NaiveLabelIndex
from felix.calc.labels import NO_LABELS, LabelIndex
from resources.selector import parse


class Recorder:
    """An index whose calls are folded into the pairs that match, strictly: no match begins or ends twice."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self.index: LabelIndex[str, str] = LabelIndex(self._begin, self._end)

    def _begin(self, selector: str, item: str) -> None:
        assert (selector, item) not in self.pairs
        self.pairs.add((selector, item))

    def _end(self, selector: str, item: str) -> None:
        self.pairs.remove((selector, item))


LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)
PARENTS = st.lists(st.sampled_from(["p", "q"]), max_size=2, unique=True).map(tuple)
SELECTORS = st.sampled_from(
    [
        "all()", "has(a)", "!has(a)", "a == 'x'", "a != 'x'", "a in {'x', 'y'}", "a == 'x' && b == 'y'",
        "a == 'x' || b == 'y'", "has(a) && !has(b)", "!(a == 'x' || has(b))", "a in {}", "a starts with 'x'",
        "(a == 'x' || a == 'y') && has(b)",
    ]
)  # fmt: skip
ITEMS, NAMES = st.sampled_from("12345"), st.sampled_from("stu")
STEPS = st.one_of(
    st.tuples(st.just("item"), ITEMS, LABELS, PARENTS),
    st.tuples(st.just("no item"), ITEMS),
    st.tuples(st.just("parent"), st.sampled_from("pq"), LABELS),
    st.tuples(st.just("selector"), NAMES, SELECTORS),
    st.tuples(st.just("no selector"), NAMES),
)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=25))
def test_the_index_agrees_with_its_naive_twin_after_every_step(steps: list[tuple[object, ...]]) -> None:
    fast, naive = Recorder(), NaiveLabelIndex()
    for step in steps:
        match step:
            case ("item", str(item), dict(labels), tuple(parents)):
                fast.index.set_item(item, labels, parents)
                naive.items[item] = (labels, parents)
            case ("no item", str(item)):
                fast.index.remove_item(item)
                naive.items.pop(item, None)
            case ("parent", str(parent), dict(labels)):
                fast.index.set_parent(parent, labels)
                naive.parents[parent] = labels
            case ("selector", str(name), str(text)):
                fast.index.set_selector(name, parse(text))
                naive.selectors[name] = parse(text)
            case ("no selector", str(name)):
                fast.index.remove_selector(name)
                naive.selectors.pop(name, None)
        assert fast.pairs == naive.matches()
        for name in naive.selectors:
            assert fast.index.items_of(name) == {item for selector, item in fast.pairs if selector == name}
            assert fast.index.is_used(name) is any(selector == name for selector, _ in fast.pairs)
        for item in naive.items:
            assert fast.index.selectors_of(item) == {selector for selector, i in fast.pairs if i == item}


def test_own_label_wins_then_the_first_parent() -> None:
    recorder = Recorder()
    for name, text in (("own", "a == 'own'"), ("p", "a == 'p'"), ("q", "a == 'q'")):
        recorder.index.set_selector(name, parse(text))
    recorder.index.set_parent("p", {"a": "p"})
    recorder.index.set_parent("q", {"a": "q"})
    recorder.index.set_item("1", {"a": "own"}, ("p", "q"))
    assert recorder.pairs == {("own", "1")}
    recorder.index.set_item("1", {}, ("p", "q"))
    assert recorder.pairs == {("p", "1")}
    recorder.index.set_parent("p", NO_LABELS)
    assert recorder.pairs == {("q", "1")}


def crowded(items: int, selectors: int) -> Recorder:
    """Many items of many roles, a selector for each role; every one mentions a label that all items have."""
    recorder = Recorder()
    for number in range(selectors):
        recorder.index.set_selector(f"s{number}", parse(f"ns == 'all' && role == 'r{number}'"))
    for number in range(items):
        recorder.index.set_item(f"i{number}", {"ns": "all", "role": f"r{number % 100}"})
    return recorder


def cost(recorder: Recorder, change: Callable[[], None]) -> int:
    before = recorder.index.evaluations
    change()
    return recorder.index.evaluations - before


@pytest.mark.parametrize("size", [10, 1000])
def test_a_new_item_is_tried_only_where_it_may_match(size: int) -> None:
    recorder = crowded(size, size)
    tried = cost(recorder, lambda: recorder.index.set_item("new", {"ns": "all", "role": "r3"}))
    assert ("s3", "new") in recorder.pairs
    assert tried <= 2  # its own role's, and the first, which was filed under the common label


@pytest.mark.parametrize("size", [100, 3000])
def test_a_new_selector_is_tried_only_on_what_may_match(size: int) -> None:
    recorder = crowded(size, 1)
    tried = cost(recorder, lambda: recorder.index.set_selector("new", parse("ns == 'all' && role == 'r7'")))
    assert tried == size // 100
    assert len(recorder.index.items_of("new")) == tried


def test_nothing_is_tried_for_what_did_not_change() -> None:
    recorder = crowded(100, 100)
    assert cost(recorder, lambda: recorder.index.set_item("i3", {"ns": "all", "role": "r3"})) == 0
    assert cost(recorder, lambda: recorder.index.set_selector("s3", parse("ns == 'all' && role == 'r3'"))) == 0
    assert cost(recorder, lambda: recorder.index.set_parent("p", NO_LABELS)) == 0
