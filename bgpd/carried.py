"""Attributes that bgpd only passes on: how ExaBGP tells of them, and how it is told them.

Events and tables tell of them in different words. An event is exact. A table, which only a bgpd reads that starts
beside a living ExaBGP, has the commoner extended communities as text that does not say which type they are of: the
usual one is taken, and what is neither a target nor an origin is left out until the peer tells it again. ExaBGP has no
words for announcing IPv6 extended communities, PMSI tunnels and prefix SIDs: these are not passed on.
Source: exabgp 5.0.15, bgp/message/update/attribute/, configuration/static/parser.py.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from bgpd.calc.paths import NOTHING_CARRIED, Carried

_MARK: Final = b'"attribute-0x'
# a quote within a JSON string is escaped, so no text of a peer's can look like this
_UNKNOWN: Final = re.compile(rb'"attribute-0x([0-9A-F]{2})-0x([0-9A-F]{2})": "0x((?:[0-9a-f]{2})*)"')
_NAMED: Final = frozenset((*range(1, 11), 14, 15, 16, 17, 18, 22, 25, 26, 29, 32, 40))
"""Codes that ExaBGP has names for: never as unknown ones, however a peer came to send them so."""
_TRANSITIVE: Final = 0x40
_AGGREGATOR: Final = re.compile(r"(\d{1,10}):([0-9.]{7,15})")
_PARTS: Final = re.compile(r"(target|origin):([0-9.]{1,15}):(\d{1,10})")
_ORIGIN_OF_ADDRESS: Final = re.compile(r"origin:(\d{1,5}):((?:\d{1,3}\.){3}\d{1,3})")
_HEX: Final = re.compile(r"0x[0-9A-Fa-f]{16}")
_SUBTYPES: Final = {"target": 2, "origin": 3}


def carried(text: bytes, *, is_atomic: bool, aggregator: str | None, extended: Sequence[int | str]) -> Carried:
    """Return what ExaBGP says of these attributes.

    Args:
        text: all attributes of a route, as ExaBGP wrote them, for those without a name.
        extended: the extended communities, as the number or the text that stands there.
    """
    unknown = tuple(_unknown(text)) if _MARK in text else ()
    if not (is_atomic or aggregator or extended or unknown):
        return NOTHING_CARRIED
    known = (f"0x{one:016x}" if isinstance(one, int) else _community(one) for one in extended)
    return Carried(
        is_atomic=is_atomic,
        aggregator=None if aggregator is None else _aggregator(aggregator),
        extended_communities=tuple(one for one in known if one is not None),
        unknown=unknown,
    )


def words(said: Carried) -> list[str]:
    """Return the words of an announcement that has these attributes."""
    found = ["atomic-aggregate"] if said.is_atomic else []
    if said.aggregator is not None:
        number, router = said.aggregator
        found.append(f"aggregator ( {number}:{router} )")
    if said.extended_communities:
        found.append(f"extended-community [ {' '.join(said.extended_communities)} ]")
    return found + [f"attribute [ {one} ]" for one in said.unknown]


def _unknown(text: bytes) -> Iterable[str]:
    for found in _UNKNOWN.finditer(text):
        code, flags, value = (part.decode() for part in found.groups())
        if int(code, 16) not in _NAMED and int(flags, 16) & _TRANSITIVE:
            yield f"0x{code.lower()} 0x{flags.lower()} 0x{value}"


def _aggregator(text: str) -> tuple[int, IPv4Address] | None:
    found = _AGGREGATOR.fullmatch(text)
    try:
        return None if found is None else (int(found[1]), IPv4Address(found[2]))
    except ValueError:
        return None


def _community(text: str) -> str | None:
    """Return an extended community that a table names; None if the name does not say which it is."""
    if _HEX.fullmatch(text):
        return text.lower()
    try:
        if (found := _ORIGIN_OF_ADDRESS.fullmatch(text)) is not None:
            packed = struct.pack("!BBH4s", 0, _SUBTYPES["origin"], int(found[1]), IPv4Address(found[2]).packed)
        elif (found := _PARTS.fullmatch(text)) is not None:
            packed = _packed(found[1], found[2], int(found[3]))
        else:
            return None
    except (ValueError, struct.error):
        return None
    return f"0x{packed.hex()}"


def _packed(name: str, administrator: str, number: int) -> bytes:
    if "." in administrator:
        return struct.pack("!BB4sH", 1, _SUBTYPES[name], IPv4Address(administrator).packed, number)
    # an origin with the number of an AS in two bytes is written with an address behind it, a target is not
    if name == "origin" or int(administrator) > 0xFFFF:
        return struct.pack("!BBIH", 2, _SUBTYPES[name], int(administrator), number)
    return struct.pack("!BBHI", 0, _SUBTYPES[name], int(administrator), number)
