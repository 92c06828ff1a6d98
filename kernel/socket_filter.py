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
_NEIGHBOUR_INDEX_AT: Final = 16 + 4
"""Where the interface index is in a message about a neighbour: in the ndmsg, behind the header."""


def only(kind: int) -> list[bytes]:
    """Return a program that lets messages of one type pass."""
    return _pack(
        (_LOAD_HALF, 0, 0, _TYPE_AT),
        (_JUMP_EQUAL, 0, 1, socket.htons(kind)),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, 0),
    )


def neighbours_only_on(indices: Collection[int], kinds: Sequence[int]) -> list[bytes]:
    """Return a program that drops neighbours of other interfaces than these; what is of none of `kinds` passes."""
    accept = len(kinds) + len(indices) + 3
    program = [(_LOAD_HALF, 0, 0, _TYPE_AT)]
    for at, kind in enumerate(kinds, 1):
        is_last = at == len(kinds)
        program.append((_JUMP_EQUAL, len(kinds) - at, accept - at - 1 if is_last else 0, socket.htons(kind)))
    program.append((_LOAD_WORD, 0, 0, _NEIGHBOUR_INDEX_AT))
    for at, index in enumerate(sorted(indices), len(program)):
        program.append((_JUMP_EQUAL, accept - at - 1, 0, socket.htonl(index)))
    return _pack(*program, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL))


def _pack(*instructions: tuple[int, int, int, int]) -> list[bytes]:
    return [_INSTRUCTION.pack(*instruction) for instruction in instructions]
