"""Tables as the reference prints them (resources.md 5.8, 5.9), and values as YAML and JSON.

The only module that imports prettytable, and that only for the boxed tables.
"""

import json
from collections.abc import Sequence

from resources.errors import Rejected


class BadOutput(Rejected):
    """``-o`` with something that is no format."""

    reference = "bad-output-format"


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a `get` table with a blank line at its end.

    Columns are as wide as their longest cell plus three blanks, five at least; the last one is padded too.
    """
    table = [list(headings), *(list(row) for row in rows)]
    widths = [max(5, *(len(row[column]) + 3 for row in table)) for column in range(len(headings))]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(lines) + "\n\n"


def boxed_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in a ``+---+`` box: headings centred and upper-case, numbers to the right, other cells left."""
    from prettytable import PrettyTable

    table = PrettyTable([heading.upper() for heading in headings])
    table.align = "l"
    widths = [max(len(text) for text in column) for column in zip(headings, *rows, strict=True)]
    for row in rows:
        table.add_row([cell.rjust(w) if _is_number(cell) else cell for cell, w in zip(row, widths, strict=True)])
    return _centre_headings(table.get_string())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _centre_headings(text: str) -> str:
    lines = text.split("\n")
    cells = lines[1].strip("|").split("|")
    lines[1] = "|" + "|".join(_centre(cell.strip(), len(cell)) for cell in cells) + "|"
    return "\n".join(lines)


def _centre(text: str, width: int) -> str:
    left = (width - len(text)) // 2
    return " " * left + text + " " * (width - len(text) - left)


def as_json(value: object) -> str:
    """Return indented JSON, two blanks a level."""
    return json.dumps(_whole(value), indent=2, ensure_ascii=False) + "\n"


def _whole(value: object) -> object:
    """Return `value` with floats that are whole as integers: 100, not 100.0."""
    match value:
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
    return value
