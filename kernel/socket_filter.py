"""Classic BPF programs for sockets.

For those of netlink: what nobody here needs is dropped before it wakes anybody. A program sees the bytes of one
datagram of notifications, numbers in network order; those of netlink are in the host's order. For those of TCP: what
comes from too far away is dropped before TCP sees it. Source: Linux include/uapi/linux/{filter,netlink,neighbour}.h.
"""

import ctypes
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from resources.names import IPAddress

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD: Final = 0x20
_LOAD_HALF: Final = 0x28
_LOAD_BYTE: Final = 0x30
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_ALL: Final = 0xFFFFFFFF
_TYPE_AT: Final = 4
"""Where the type is in a netlink message."""
_PORT_AT: Final = 12
"""Where the port is of who caused it."""
_NEIGHBOUR_INDEX_AT: Final = 16 + 4
"""Where the interface index is in a message about a neighbour: in the ndmsg, behind the header."""

_IP_HEADER: Final = 0xFFF00000
"""Offsets from here on are in the packet's IP header, which comes before what the program is given (SKF_NET_OFF)."""
_SOURCE_AT: Final = {4: 12, 6: 8}
_TTL_AT: Final = {4: 8, 6: 7}
_SO_ATTACH_FILTER: Final = 26
INSTRUCTIONS_MAX: Final = 4096

Instruction = tuple[int, int, int, int]
"""Code, how many instructions to pass over if true and if false, number."""
Section = Sequence[Instruction]
"""Part of a program: it drops a message, or goes on behind its own end."""


def only(kind: int) -> list[bytes]:
    """Return a program that lets messages of one type pass."""
    return _pack(
        (_LOAD_HALF, 0, 0, _TYPE_AT),
        (_JUMP_EQUAL, 0, 1, socket.htons(kind)),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, 0),
    )


def passing(*sections: Section) -> list[bytes]:
    """Return a program that lets pass what none of the sections drops."""
    return _pack(*(instruction for section in sections for instruction in section), (_RETURN, 0, 0, _ALL))


def neighbours_only_on(indices: Collection[int], kinds: Sequence[int]) -> Section:
    """Return what drops messages of these types, unless they are about neighbours on one of these interfaces."""
    numbers = len(indices)
    found = ((_JUMP_EQUAL, numbers - at, 0, socket.htonl(index)) for at, index in enumerate(sorted(indices)))
    return _about(kinds, [(_LOAD_WORD, 0, 0, _NEIGHBOUR_INDEX_AT), *found, (_RETURN, 0, 0, 0)])


def none_caused_by(ports: Collection[int], kinds: Sequence[int]) -> Section:
    """Return what drops messages of these types about what one of these netlink ports (at least one) has done."""
    last = len(ports) - 1
    found = ((_JUMP_EQUAL, last - at, int(at == last), socket.htonl(port)) for at, port in enumerate(sorted(ports)))
    return _about(kinds, [(_LOAD_WORD, 0, 0, _PORT_AT), *found, (_RETURN, 0, 0, 0)])


def _about(kinds: Sequence[int], body: Section) -> Section:
    """Return a section that runs `body` for messages of these types (at least one), and else nothing."""
    last = len(kinds) - 1
    asked = (
        (_JUMP_EQUAL, last - at, len(body) if at == last else 0, socket.htons(kind)) for at, kind in enumerate(kinds)
    )
    return [(_LOAD_HALF, 0, 0, _TYPE_AT), *asked, *body]


def _pack(*instructions: Instruction) -> list[bytes]:
    return [_INSTRUCTION.pack(*instruction) for instruction in instructions]


def from_near(least: Mapping[IPAddress, int], version: int) -> list[bytes]:
    """Return a program for TCP sockets of a family that drops what comes from an address with less than its TTL.

    A connection that a listener accepts has the listener's program (RFC 5082).

    Raises:
        ValueError: they are too many for one program (`INSTRUCTIONS_MAX`).
    """
    sections = [_from_near(address, ttl) for address, ttl in least.items() if address.version == version]
    if sum(map(len, sections)) >= INSTRUCTIONS_MAX:
        raise ValueError(f"{len(sections)} addresses are too many for one filter of a socket")
    return passing(*sections)


def _from_near(address: IPAddress, ttl: int) -> list[Instruction]:
    header, version = _IP_HEADER, address.version
    check = [
        (_LOAD_BYTE, 0, 0, header + _TTL_AT[version]),
        (_JUMP_AT_LEAST, 1, 0, ttl),
        (_RETURN, 0, 0, 0),
    ]

    def compared() -> Iterator[Instruction]:
        words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
        for at, word in enumerate(words):
            yield _LOAD_WORD, 0, 0, header + _SOURCE_AT[version] + 4 * at
            yield _JUMP_EQUAL, 0, 2 * (len(words) - 1 - at) + len(check), word

    return [*compared(), *check]


def attach(target: socket.socket, program: Sequence[bytes]) -> None:
    """Have the kernel drop what the program refuses of what comes to a socket, in place of an earlier program.

    Raises:
        OSError: it does not take it.
    """
    code = ctypes.create_string_buffer(b"".join(program))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
