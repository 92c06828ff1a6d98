"""The generation number of nftables: it grows by one with each change of rules by anybody in this namespace.

Source: Linux include/uapi/linux/netfilter/nf_tables.h (NFT_MSG_GETGEN), nfnetlink.h.
"""

import struct
from typing import Final

from kernel import socket_filter
from kernel.errors import NotSupported
from kernel.netlink import Socket, attributes, text_of

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM_NFTABLES: Final = 10
_NEWGEN: Final = (_SUBSYSTEM_NFTABLES << 8) | 15
_GETGEN: Final = (_SUBSYSTEM_NFTABLES << 8) | 16
_NFNLGRP_NFTABLES: Final = 7
_NFGENMSG = struct.Struct("=BBH")
_NFTA_GEN_ID: Final = 1
_NFTA_GEN_PROC_NAME: Final = 3


class Generation:
    """A socket that asks for the number; one question takes some 20 microseconds."""

    def __init__(self) -> None:
        self._socket = Socket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._socket.close()

    def now(self) -> int:
        """Return the number.

        Raises:
            NotSupported: a kernel without nftables.
        """
        what = "cannot read the generation of nftables"
        _, body = self._socket.ask(_GETGEN, _NFGENMSG.pack(0, 0, 0), what)
        for kind, payload in attributes(body, _NFGENMSG.size):
            if kind == _NFTA_GEN_ID:
                return int.from_bytes(payload, "big")
        raise NotSupported(f"{what}: the kernel's answer has none")


def generation_events() -> Socket:
    """Return a socket that hears of each new generation, and of nothing else.

    A transaction tells each of its rules; a filter in the kernel lets only its last message pass, so that writing
    20,000 rules wakes nobody 20,000 times.

    Raises:
        NotSupported: a kernel without nftables.
    """
    heard = Socket(_NETLINK_NETFILTER, groups=[_NFNLGRP_NFTABLES])
    heard.attach_filter(socket_filter.only(_NEWGEN))
    return heard


def changed_by(kind: int, body: bytes) -> str | None:
    """Return the name of the program (15 characters at most) that made a new generation; None for other messages."""
    if kind != _NEWGEN:
        return None
    found = dict(attributes(body, _NFGENMSG.size))
    return text_of(found[_NFTA_GEN_PROC_NAME]) if _NFTA_GEN_PROC_NAME in found else ""
