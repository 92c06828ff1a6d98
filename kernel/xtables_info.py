"""What the kernel says of a legacy table in one short question: how many rules, how many bytes, where each hook begins.

There is no generation number. Whatever adds or removes a rule changes these figures; a rule replaced by one of the same
size does not (it is found when the table is read back).

Source: Linux include/uapi/linux/netfilter_ipv4/ip_tables.h (IPT_SO_GET_INFO, struct ipt_getinfo), ip6_tables.h.
"""

import ctypes
import errno
import socket
from typing import Final

from kernel.errors import from_errno
from kernel.xtables import TableKey

_GET_INFO: Final = 64
_NAME: Final = 32
_INFO: Final = _NAME + 4 * (1 + 5 + 5 + 2)
_FAMILIES: Final = {4: (socket.AF_INET, socket.IPPROTO_IP), 6: (socket.AF_INET6, socket.IPPROTO_IPV6)}


class TableInfo:
    """Two sockets that ask; one question takes a few microseconds."""

    def __init__(self) -> None:
        """Of the network namespace of the calling thread."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._sockets: dict[int, socket.socket] = {}
        for version, (family, _) in _FAMILIES.items():
            try:
                self._sockets[version] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            except OSError as exc:
                if version == 4:
                    raise from_errno(exc.errno or 0, "cannot open a raw socket for the legacy tables") from exc

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()

    def of(self, key: TableKey) -> bytes:
        """Return the figures of a table, nothing if it does not exist (asking makes it, if the kernel can).

        Raises:
            DataplaneError: the kernel refuses.
        """
        asked = self._sockets.get(key.version)
        if asked is None:
            return b""
        buffer = ctypes.create_string_buffer(key.table.encode(), _INFO)
        length = ctypes.c_uint32(_INFO)
        level = _FAMILIES[key.version][1]
        if self._libc.getsockopt(asked.fileno(), level, _GET_INFO, buffer, ctypes.byref(length)) == 0:
            return buffer.raw[_NAME:]
        number = ctypes.get_errno()
        if number in (errno.ENOENT, errno.ENOPROTOOPT):
            return b""
        raise from_errno(number, f"cannot ask for the size of table {key}")
