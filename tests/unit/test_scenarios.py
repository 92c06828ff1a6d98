"""Every row of a list of scenarios has a test that says so by its marker, or a reason here why there is none.

    @pytest.mark.scenario(16, 17)         rows of felix's list (reference felix.md 8)
    @pytest.mark.bgp_scenario(32, 33)     rows of bgpd's list (reference bgp.md 6)

A row of felix's stands on a test below tests/fv or tests/st, with real packets. So does a row of bgpd's, except those
that are a matter of calculation or of order and of nothing outside: these may stand on a unit test.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A list of scenarios; `without` are the rows that no test shows, with the reason."""

    marker: str
    rows: range
    without: Mapping[int, str]
    by_calculation: frozenset[int] = frozenset()
    """Rows that a unit test may show."""


FELIX = Listing(
    marker="scenario",
    rows=range(1, 114),
    without={
        31: "a WorkloadEndpoint of v3 has no state; an interface that is down is row 99",
    },
)

_SCALE = "a matter of benchmarks"
BGPD = Listing(
    marker="bgp_scenario",
    rows=range(1, 81),
    without={
        **dict.fromkeys((31, 76, 77), _SCALE),
    },
    by_calculation=frozenset({*range(7, 12), 14, 15, 20, 21, *range(25, 30), *range(36, 39), 40, *range(42, 48)})
    | {49, 51, 54, 56, 64, 68, 74, 75, 79},
)
LISTINGS = [FELIX, BGPD]


def marked(path: Path, marker: str) -> Iterator[tuple[str, int]]:
    """Yield the name of each test of a file with each row that it is marked with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{marker}":
                    for argument in decorator.args:
                        assert isinstance(argument, ast.Constant), f"{path}: {node.name}: rows are plain numbers"
                        assert isinstance(argument.value, int), f"{path}: {node.name}: rows are plain numbers"
                        yield node.name, argument.value


def shown(listing: Listing, *levels: str) -> Mapping[int, list[str]]:
    """Return the tests of some levels that show each row."""
    found: dict[int, list[str]] = {}
    for level in levels:
        for path in sorted((ROOT / "tests" / level).rglob("test_*.py")):
            for name, row in marked(path, listing.marker):
                found.setdefault(row, []).append(f"{path.relative_to(ROOT)}::{name}")
    return found


@pytest.fixture(params=LISTINGS, ids=[listing.marker for listing in LISTINGS])
def listing(request: pytest.FixtureRequest) -> Listing:
    found = request.param
    assert isinstance(found, Listing)
    return found


def test_every_row_of_the_list_is_shown_or_has_a_reason(listing: Listing) -> None:
    found = shown(listing, "unit", "fv", "st")
    missing = [row for row in listing.rows if row not in found and row not in listing.without]
    assert missing == [], f"rows without a test: {missing}"


def test_rows_about_packets_and_processes_are_shown_with_them(listing: Listing) -> None:
    found = shown(listing, "unit")
    real = shown(listing, "fv", "st")
    pure = [row for row in found if row not in real and row not in listing.by_calculation]
    assert pure == [], f"rows that only a unit test shows: {pure}"


def test_a_row_with_a_reason_has_no_test(listing: Listing) -> None:
    assert sorted(listing.without.keys() & shown(listing, "unit", "fv", "st").keys()) == []


def test_no_test_names_a_row_that_the_list_does_not_have(listing: Listing) -> None:
    assert [row for row in shown(listing, "unit", "fv", "st") if row not in listing.rows] == []
