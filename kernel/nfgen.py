"""The generation number of nftables: it grows by one with each change of rules by anybody in this namespace.

Source: Linux include/uapi/linux/netfilter/nf_tables.h (NFT_MSG_GETGEN), nfnetlink.h.
"""

import struct
from typing import Final

from kernel.errors import NotSupported
from kernel.netlink import Socket, attributes

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM_NFTABLES: Final = 10
_GETGEN: Final = (_SUBSYSTEM_NFTABLES << 8) | 16
_NFGENMSG = struct.Struct("=BBH")
_NFTA_GEN_ID: Final = 1


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
