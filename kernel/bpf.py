"""Classic BPF programs that a socket is filtered with: which of its messages the kernel hands on.

Source: Linux include/uapi/linux/filter.h. A filter sees numbers in network order, while those of netlink are in the
host's; `half` and `word` turn a host's number into what it sees.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Final

LOAD_WORD: Final = 0x20
LOAD_HALF: Final = 0x28
JUMP_EQUAL: Final = 0x15
"""Passes over so many instructions if the value loaded last is equal, over so many if not."""
RETURN: Final = 0x06
"""Ends: with 0 the message is dropped."""

PASS: Final = (RETURN, 0, 0, 0xFFFFFFFF)
DROP: Final = (RETURN, 0, 0, 0)

Instruction = tuple[int, int, int, int]
"""Code, how far to jump if true and if false, number."""

_INSTRUCTION = struct.Struct("=HBBI")

half = socket.htons
word = socket.htonl


def packed(program: Sequence[Instruction]) -> bytes:
    """Return a program as the kernel takes it (struct sock_filter)."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
