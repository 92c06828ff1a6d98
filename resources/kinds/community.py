"""BGP communities as text: ``aa:nn`` or the large ``aa:nn:mm`` (reference resources.md 2.2). Not a kind by itself."""

import re

_COMMUNITY = r"([0-9]+):([0-9]+)(?::([0-9]+))?"
BAD_FORMAT = "invalid community value or format used."


def community_fault(value: str) -> str | None:
    """Return why `value` is no community, or None."""
    match = re.fullmatch(_COMMUNITY, value)
    if match is None:
        return BAD_FORMAT
    bits = 16 if match[3] is None else 32
    if any(len(part) > 10 or int(part) >> bits for part in match.groups() if part is not None):
        return f"invalid community value, expected {bits} bit value"
    return None
