"""Durations as Go writes and reads them: ``1m30s``, ``500ms``, ``0s`` (reference resources.md 1.2, 9).

Inside the program a duration is a number of seconds; nanoseconds exist only here, because Go's text has them.
"""

import re

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TERM = r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]+)"
_LIMIT = 1 << 63
_CONFIG_PATTERN = r"([0-9]+(ms|s|m|h))*"


class DurationError(ValueError):
    """A text that is no duration. `str(error)` says why."""


def parse_nanoseconds(text: str) -> int:
    """Parse what Go's ParseDuration takes, and nothing else.

    Raises:
        DurationError: no unit, an unknown unit, no number, or more than 292 years.
    """
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise DurationError(f"{text!r} is no duration: write for example 90s, 1m30s or 500ms")
    total, at = 0, 0
    while at < len(rest):
        term = re.match(_TERM, rest[at:])
        if term is None:
            raise DurationError(f"a unit is missing in {text!r}: write for example 90s, 1m30s or 500ms")
        whole, _, fraction, unit = term.groups()
        if not whole and not fraction:
            raise DurationError(f"{text!r} is no duration: write for example 90s, 1m30s or 500ms")
        if unit not in _UNITS:
            raise DurationError(f"unknown unit {unit!r} in {text!r}: units are h, m, s, ms")
        total += int(whole or 0) * _UNITS[unit]
        total += int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction or "")
        at += term.end()
    if total >= _LIMIT:
        raise DurationError(f"{text!r} is too long: Go's durations end at 292 years")
    return -total if text.startswith("-") else total


def print_nanoseconds(value: int) -> str:
    """Return the text that Go's Duration.String gives: ``1h0m0s``, ``1.5s``, ``500ms``, ``0s``."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    if value == 0:
        return "0s"
    if value < 10**9:
        unit = "ns" if value < 10**3 else "µs" if value < 10**6 else "ms"
        return f"{sign}{_decimal(value, _UNITS[unit])}{unit}"
    minutes, rest = divmod(value, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 10**9)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}" if rest else str(whole)


def parse(text: str) -> float:
    """Return the seconds of a duration; raises DurationError."""
    return parse_nanoseconds(text) / 10**9


def canonical(text: str) -> str:
    """Return the form that is stored: ``90s`` becomes ``1m30s``; raises DurationError."""
    return print_nanoseconds(parse_nanoseconds(text))


def canonical_or_same(text: str) -> str:
    """Return the stored form, or the text itself if it is no duration."""
    try:
        return canonical(text) if text else text
    except DurationError:
        return text


def fits_configuration(text: str) -> bool:
    """Return whether a duration in its stored form is one that FelixConfiguration takes.

    Its pattern is meant to allow fractions and never does: ``1.5s`` fails, ``1.5h`` passes because it is stored as
    ``1h30m0s`` (reference resources.md 9). Negative times and units below milliseconds fail too.
    """
    return re.fullmatch(_CONFIG_PATTERN, text) is not None
