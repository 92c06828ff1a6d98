"""Numbers and JSON the way Go writes them, which is how the store and the tables have them."""

import math

import msgspec

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
"""A parsed JSON value."""

# What Go's encoder escapes inside strings beyond what JSON asks for. These occur nowhere else in compact JSON.
_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def json_bytes(document: JSON) -> bytes:
    """Return compact JSON as Go's encoder writes it: no blanks, members in the given order, ``<>&`` escaped.

    Raises:
        ValueError: a float that is not finite, or a text that is not Unicode (a lone surrogate).
    """
    return escaped(msgspec.json.encode(_go_numbers(document)))


def escaped(text: bytes) -> bytes:
    """Escape in compact JSON what Go's encoder does; for documents without floats this is all there is to do."""
    for plain, escape in _ESCAPES:
        if plain in text:
            text = text.replace(plain, escape)
    return text


def _go_numbers(value: JSON) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e21 else msgspec.Raw(json_float(value).encode())
    if isinstance(value, dict):
        return {name: _go_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_go_numbers(item) for item in value]
    return value


def json_float(value: float) -> str:
    """Return a float as Go's JSON encoder writes it: shortest digits, an exponent only below 1e-6 and from 1e21."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no form in JSON")
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return _positional(value)
    return _scientific(value).replace("e-0", "e-")


def shown_float(value: float) -> str:
    """Return a float as Go prints it (``%v``): ``100``, ``-1.5``, ``1e+06``."""
    if value != 0 and not -4 <= _parts(value)[2] < 6:
        return _scientific(value)
    return _positional(value)


def _parts(value: float) -> tuple[str, str, int]:
    """Return the sign, the shortest digits, and the decimal exponent of the first digit."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    first = len(whole) - 1 - (len(whole + fraction) - len(digits)) + int(exponent or 0)
    return "-" if math.copysign(1, value) < 0 else "", digits.rstrip("0") or "0", first if digits else 0


def _scientific(value: float) -> str:
    sign, digits, exponent = _parts(value)
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _positional(value: float) -> str:
    sign, digits, exponent = _parts(value)
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
