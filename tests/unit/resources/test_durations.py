"""Durations in Go's form (reference resources.md 1.2, 9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.durations import (
    DurationError,
    canonical,
    canonical_or_same,
    fits_configuration,
    parse,
    parse_nanoseconds,
    print_nanoseconds,
)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("90s", "1m30s"), ("0", "0s"), ("0s", "0s"), ("5m", "5m0s"), ("1h", "1h0m0s"), ("1.5h", "1h30m0s"),
        (".5s", "500ms"), ("2.5s", "2.5s"), ("1500ms", "1.5s"), ("100us", "100µs"), ("100µs", "100µs"), ("7ns", "7ns"),
        ("1m30s", "1m30s"), ("-1s", "-1s"), ("+1s", "1s"), ("-.5m", "-30s"), ("1s1s", "2s"), ("1h0.25s", "1h0m0.25s"),
        ("10m", "10m0s"), ("1.000000001s", "1.000000001s"), ("1.0000000019s", "1.000000001s"),
    ],
)  # fmt: skip
def test_the_stored_form(text: str, stored: str) -> None:
    assert canonical(text) == stored
    assert canonical(stored) == stored


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no duration"), ("+", "is no duration"), ("s", "is no duration"), (".s", "is no duration"),
        ("1.5", "unit is missing"), ("5", "unit is missing"), ("5 seconds", "unknown unit ' seconds'"),
        ("1d", "unknown unit 'd'"), ("1e3s", "unknown unit"), ("1,5s", "unknown unit"), ("x", "is no duration"),
        ("9223372037s", "too long"), ("١s", "is no duration"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(DurationError, match=words):
        parse_nanoseconds(text)
    assert canonical_or_same(text) == text


@given(st.integers(-(1 << 63) + 1, (1 << 63) - 1))
def test_printing_and_parsing_are_inverse(nanoseconds: int) -> None:
    assert parse_nanoseconds(print_nanoseconds(nanoseconds)) == nanoseconds


def test_any_text_is_parsed_or_refused() -> None:
    read = 0

    near_ones = st.from_regex(r"[-+]?([0-9]{1,4}(\.[0-9]{0,3})?(h|m|s|ms|us|µs|ns|x)){1,2}", fullmatch=True)

    @given(st.text(max_size=12) | near_ones)
    def check(text: str) -> None:
        nonlocal read
        try:
            value = parse_nanoseconds(text)
        except DurationError:
            return
        read += 1
        assert parse_nanoseconds(print_nanoseconds(value)) == value

    check()
    assert read > 5


def test_seconds() -> None:
    assert parse("1m30.5s") == 90.5


@pytest.mark.parametrize(
    ("text", "fits"),
    [("1500ms", False), ("2.5s", False), ("1.5h", True), (".5s", True), ("90s", True), ("0", True), ("-1s", False),
     ("5us", False), ("1h1m1s1ms", False), ("1h1m1s", True)],
)  # fmt: skip
def test_what_a_felix_configuration_takes(text: str, fits: bool) -> None:
    """Reference resources.md 9: the pattern is tried on the re-written text, and its fraction never matches."""
    assert fits_configuration(canonical(text)) is fits
