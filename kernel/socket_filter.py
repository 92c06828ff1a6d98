"""Classic BPF programs for netlink sockets: what nobody here needs is dropped before it wakes anybody.

A program sees the bytes of one datagram of notifications, numbers in network order; those of netlink are in the host's
order. For `kernel.netlink.Socket.attach_filter`. Source: Linux include/uapi/linux/{filter,netlink,neighbour}.h.
"""

import socket
import struct
from collections.abc import Collection, Sequence
from typing import Final

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD: Final = 0x20
_LOAD_HALF: Final = 0x28
_JUMP_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALL: Final = 0xFFFFFFFF
_TYPE_AT: Final = 4
"""Where the type is in a netlink message."""
_PORT_AT: Final = 12
"""Where the port is of who caused it."""
_NEIGHBOUR_INDEX_AT: Final = 16 + 4
"""Where the interface index is in a message about a neighbour: in the ndmsg, behind the header."""

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
