"""Networks as keys of large tables: what they are looked up by is worked out once.

``ipaddress`` works out the hash of a network, in Python, each time that a table is asked; a route passes some twenty
tables on its way from its peer to the kernel. These are ``ipaddress`` networks in all respects, equal to the plain ones
and with the same hash, so both kinds may meet in one table.
"""

import ipaddress
import socket
from functools import lru_cache

from resources.names import IPNetwork


class KeyNetwork4(ipaddress.IPv4Network):
    """An IPv4Network that keeps its hash."""

    def __init__(self, address: str | tuple[int, int]) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        # nearly all that meet in a table are the same object, or differ in their hashes already
        return self is other or super().__eq__(other)


class KeyNetwork6(ipaddress.IPv6Network):
    """An IPv6Network that keeps its hash."""

    def __init__(self, address: str | tuple[int, int]) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


@lru_cache(maxsize=1 << 14)
def key_network(text: str) -> IPNetwork:
    """Return the network that ``address/length`` says. A peer that comes back tells the same ones again.

    Raises:
        ValueError: it says none, or host bits are set.
    """
    address, slash, length = text.partition("/")
    if slash and length.isascii() and length.isdigit() and (start := _start4(address)) is not None:
        return KeyNetwork4((start, int(length)))
    return KeyNetwork6(text) if ":" in text else KeyNetwork4(text)


def _start4(text: str) -> int | None:
    """Return the number of an IPv4 address, or None. The C library is quicker at it than ipaddress."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except OSError:
        return None


def key_network_at(version: int, start: int, length: int) -> IPNetwork:
    """Return the network of a family (4, 6) with this first address and length.

    Raises:
        ValueError: there is none, or host bits are set.
    """
    return KeyNetwork4((start, length)) if version == 4 else KeyNetwork6((start, length))
