"""What single fields may hold: checks that several kinds share. Each yields what is wrong, with the way out.

Reasons are the reference's own words where it has some (resources.md 6). An empty text is "not given" and passes;
whether a field may be missing is its kind's business.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from resources.durations import DurationError, parse_nanoseconds
from resources.kinds.base import Metadata, Path, Problem
from resources.names import (
    INTERFACE_REGEX,
    label_key_fault,
    label_value_fault,
    name_fault,
    parse_address,
    parse_interface,
    parse_network,
)

ANNOTATION_BYTES = 256 * 1024
LOG_LEVELS = ("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
RESTART_SECONDS_MAX = 4095
"""The restart time of BGP has twelve bits (RFC 4724, section 3)."""
RESERVED_AS_NUMBERS = (23456, 65535, 4294967295)
"""RFC 6793 and 7300."""
PORT_PROTOCOLS = ("TCP", "UDP", "SCTP")
PORT_PROTOCOL_NUMBERS = (6, 17, 132)
NUMBERED_PROTOCOLS = {
    "IGMP": 2, "IPENCAP": 4, "DCCP": 33, "IPv6": 41, "RSVP": 46, "GRE": 47, "ESP": 50, "AH": 51, "EIGRP": 88,
    "OSPF": 89, "ETHERIP": 97, "PIM": 103, "IPComp": 108, "VRRP": 112, "L2TP": 115, "MPLS-in-IP": 137, "HIP": 139,
}
"""Protocols that people write by name and that are stored by number, for readers of the store know no more than six
names. IANA's numbers; IPIP is left out, because IANA and Linux mean different ones by it."""

# Patterns are compiled at their first use: a program that only shows resources needs none of them.
_MAC = r"[0-9a-fA-F]{2}([:-])([0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}"
_PORT_NAME = r"[a-zA-Z0-9_.-]{1,128}"
_RANGE = r"([0-9]+):([0-9]+)"


def port_value(text: str) -> int | str:
    """Return the stored form of a port: a number, ``low:high``, or a name.

    Raises:
        ValueError: a number above 65535, a range that runs backwards, or no name either.
    """
    if text.isascii() and text.isdigit():
        if len(text.lstrip("0")) > 5 or int(text) > 0xFFFF:
            raise ValueError(f"invalid port format ({text}), a port is between 1 and 65535")
        return int(text)
    if ports := re.fullmatch(_RANGE, text):
        low, high = (port_value(part) for part in ports.groups())
        if not isinstance(low, int) or not isinstance(high, int):
            raise ValueError(f"invalid port format ({text})")
        if low > high:
            raise ValueError(
                f"minimum port number ({low}) is greater than maximum port number ({high}) in port range"
            )
        return low if low == high else f"{low}:{high}"
    if not re.fullmatch(_PORT_NAME, text):
        raise ValueError(f"invalid name for named port ({text}), or write a number or low:high")
    return text


def protocol_value(text: str) -> int | str:
    """Return the stored form of a protocol: the number of one that the store has no name for, else the text."""
    return next((number for name, number in NUMBERED_PROTOCOLS.items() if name.lower() == text.lower()), text)


def port_range(port: int | str) -> tuple[int, int] | None:
    """Return the numbers of a port in its stored form, or None for a named port. Raises ValueError."""
    value = port if isinstance(port, int) else port_value(port)
    if isinstance(value, int):
        return value, value
    low, colon, high = value.partition(":")
    return (int(low), int(high)) if colon else None


def port(path: Path, value: int | str) -> Iterator[Problem]:
    try:
        numbers = port_range(value)
    except ValueError as error:
        yield Problem(path, str(value), str(error))
        return
    if numbers and not 1 <= numbers[0] <= numbers[1] <= 0xFFFF:
        yield Problem(path, str(value), "port range invalid, port number must be between 1 and 65535")


def carries_ports(protocol: int | str | None) -> bool:
    return protocol in PORT_PROTOCOLS or protocol in PORT_PROTOCOL_NUMBERS


def one_of(path: Path, value: str, allowed: Sequence[str]) -> Iterator[Problem]:
    if value and value not in allowed:
        same = next((word for word in allowed if word.lower() == value.lower()), None)
        yield Problem(
            path, value, f"allowed are {', '.join(allowed)}", f"did you mean '{same}'?" if same else None
        )


def between(path: Path, value: int | None, low: int, high: int) -> Iterator[Problem]:
    if value is not None and not low <= value <= high:
        yield Problem(path, str(value), f"must be between {low} and {high}")


def pattern(path: Path, value: str, regex: str, what: str) -> Iterator[Problem]:
    if value and not re.fullmatch(regex, value):
        yield Problem(path, value, what)


def name(path: Path, value: str) -> Iterator[Problem]:
    """Check a reference to an object by its name."""
    if value and (fault := name_fault(value)):
        yield Problem(path, value, fault)


def interface(path: Path, value: str) -> Iterator[Problem]:
    if value and (not INTERFACE_REGEX.match(value) or value in (".", "..")):
        yield Problem(path, value, "an interface name has 1 to 15 letters, digits, '_', '.' or '-'")


def mac(path: Path, value: str) -> Iterator[Problem]:
    if value and not re.fullmatch(_MAC, value):
        yield Problem(path, value, "must be a MAC address such as ee:ee:ee:ee:ee:ee")


def address(path: Path, value: str, version: int | None = None) -> Iterator[Problem]:
    """Check a bare address."""
    if not value:
        return
    try:
        parsed = parse_address(value)
    except ValueError as error:
        yield Problem(path, value, f"must be an {_family(version)}address", _worth_saying(error))
        return
    if version not in (None, parsed.version):
        yield Problem(path, value, f"must be an {_family(version)}address")


def network(path: Path, value: str, version: int | None = None, *, bare: bool = True) -> Iterator[Problem]:
    """Check a strictly masked CIDR; with `bare` also an address without a length."""
    if not value:
        return
    what = f"must be an {_family(version)}CIDR without host bits"
    if not bare and "/" not in value:
        yield Problem(path, value, "invalid CIDR", f"write {value}/{128 if ':' in value else 32}")
        return
    try:
        parsed = parse_network(value)
    except ValueError as error:
        yield Problem(path, value, what, masked_hint(value) or _worth_saying(error))
        return
    if version not in (None, parsed.version):
        yield Problem(path, value, what)


def cidr(path: Path, value: str, version: int | None = None) -> Iterator[Problem]:
    """Check ``address/length`` whose host bits are kept, or a bare address."""
    if not value:
        return
    try:
        parsed = parse_interface(value)
    except ValueError as error:
        yield Problem(path, value, f"must be an {_family(version)}address/length", _worth_saying(error))
        return
    if version not in (None, parsed.version):
        yield Problem(path, value, f"must be an {_family(version)}address/length")


def masked_hint(value: str) -> str | None:
    """Return "did you mean" for a CIDR that only has host bits too many."""
    try:
        return f"did you mean {parse_interface(value).network}?"
    except ValueError:
        return None


def _family(version: int | None) -> str:
    return "IP " if version is None else f"IPv{version} "


def _worth_saying(error: ValueError) -> str | None:
    """Keep only an error that says more than that the text is none."""
    return str(error) if "IPv4-mapped" in str(error) else None


def selector(
    path: Path, value: str, *, global_alone: bool = False, global_anywhere: bool = False
) -> Iterator[Problem]:
    """Check a selector. ``global()`` is refused unless `global_alone` (and nothing else) or `global_anywhere`."""
    if not value:
        return
    from resources.selector import SelectorError, parse  # not needed by a reader of pools and nodes

    try:
        canonical = str(parse(value))
    except SelectorError as error:
        yield Problem(path, value, str(error), error.hint)
        return
    if global_anywhere or not has_global(canonical) or (global_alone and canonical == "global()"):
        return
    if global_alone:
        yield Problem(path, value, "global() cannot be combined with other selectors")
    else:
        yield Problem(path, value, "global() can only be used in an EntityRule namespaceSelector")


def has_global(canonical: str) -> bool:
    """Return whether a canonical selector has ``global()`` outside its strings."""
    return "global()" in re.sub(r'"[^"]*"|\'[^\']*\'', "", canonical)


def duration(path: Path, value: str) -> Iterator[Problem]:
    """Check a duration that may have fractions; negative ones are refused."""
    if not value:
        return
    try:
        nanoseconds = parse_nanoseconds(value)
    except DurationError as error:
        yield Problem(path, value, str(error))
        return
    if nanoseconds < 0:
        yield Problem(path, value, "must not be negative")


def restart_time(path: Path, value: str) -> Iterator[Problem]:
    """Check for how long a BGP peer is asked to keep routes."""
    found = list(duration(path, value))
    yield from found
    if value and not found and parse_nanoseconds(value) > RESTART_SECONDS_MAX * 10**9:
        reason = f"BGP cannot say more than {RESTART_SECONDS_MAX} s: that is what the peers are told"
        yield Problem(path, value, reason, warning=True)


def as_number(path: Path, value: int) -> Iterator[Problem]:
    """Refuse 0, with which no session can be (RFC 7607), and warn of other AS numbers that no peer takes."""
    if value == 0:
        reason = "0 is no AS number: no peer accepts it (RFC 7607)"
        yield Problem(path, "0", reason, "leave it out to have the default, or write one of 64512 to 65534")
    if value in RESERVED_AS_NUMBERS:
        reason = "this AS number is reserved, and peers refuse it"
        yield Problem(path, str(value), reason, "for use at home are 64512 to 65534 and 4200000000 to 4294967294", True)


def labels(path: Path, values: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in values.items():
        if fault := label_key_fault(key):
            yield Problem((*path, key), value, fault)
        if fault := label_value_fault(value):
            yield Problem((*path, key), value, fault)


def annotations(path: Path, values: Mapping[str, str]) -> Iterator[Problem]:
    for key in values:
        if fault := label_key_fault(key.lower()):
            yield Problem((*path, key), "", fault.replace("label key", "key of an annotation"))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in values.items())
    if size > ANNOTATION_BYTES:
        yield Problem(path, "", f"total size of annotations is too large by {size - ANNOTATION_BYTES} bytes")


def metadata(value: Metadata) -> Iterable[Problem]:
    """Check what the metadata of every kind must obey (resources.md 1.4, 7.4)."""
    path: Path = ("metadata",)
    if fault := name_fault(value.name):
        yield Problem((*path, "name"), value.name, fault)
    yield from labels((*path, "labels"), value.labels)
    yield from annotations((*path, "annotations"), value.annotations)


def is_key_part(text: str) -> bool:
    """Return whether a text can stand in a store key: the front door for names that nobody checked yet."""
    return bool(text) and "/" not in text and text.isprintable()
