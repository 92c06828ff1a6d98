"""Every row of the list of scenarios (reference felix.md 8) has a test with real packets that says so by its marker.

    @pytest.mark.scenario(16, 17)

stands on a test below tests/fv or tests/st that shows these rows. Rows without one are listed here with their reason.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = range(1, 114)

_TUNNELS = "tunnels: felix does not make the IPIP device yet"
WITHOUT = {
    31: "a WorkloadEndpoint of v3 has no state; an interface that is down is row 99",
    **dict.fromkeys(range(87, 91), _TUNNELS),
}
"""Rows that no test shows, with the reason."""


def marked(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name of each test of a file with each row that it is marked with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.scenario":
                    for argument in decorator.args:
                        assert isinstance(argument, ast.Constant), f"{path}: {node.name}: rows are plain numbers"
                        assert isinstance(argument.value, int), f"{path}: {node.name}: rows are plain numbers"
                        yield node.name, argument.value


def shown() -> Mapping[int, list[str]]:
    """Return the tests that show each row."""
    found: dict[int, list[str]] = {}
    for level in ("fv", "st"):
        for path in sorted((ROOT / "tests" / level).rglob("test_*.py")):
            for name, row in marked(path):
                found.setdefault(row, []).append(f"{path.relative_to(ROOT)}::{name}")
    return found


def test_every_row_of_the_list_is_shown_by_packets_or_has_a_reason() -> None:
    found = shown()
    missing = [row for row in ROWS if row not in found and row not in WITHOUT]
    assert missing == [], f"rows without a test: {missing}"


def test_a_row_with_a_reason_has_no_test() -> None:
    assert sorted(WITHOUT.keys() & shown().keys()) == []


def test_no_test_names_a_row_that_the_list_does_not_have() -> None:
    assert [row for row in shown() if row not in ROWS] == []
