"""What Linux says no with, as named errors: errno and exit statuses are translated here, once.

Every error keeps the number it came from in ``errno`` (None if it came from a program), says in its text what failed on
what, and belongs to one of the two families of resources.errors: Transient ones are worth another try by themselves.
"""

import errno as e
import os
from typing import ClassVar

from resources.errors import CalicoError, Rejected, Transient


class DataplaneError(CalicoError):
    """The kernel, or a program that speaks to it, did not do what was asked."""

    reference: ClassVar[str] = "dataplane"

    def __init__(self, message: str, *, errno: int | None = None, hint: str | None = None, **context: object) -> None:
        super().__init__(message, hint=hint, **context)
        self.errno = errno


class KernelFailure(DataplaneError, Transient):
    """The kernel refused with an error that has no name of its own here."""

    reference = "kernel-failure"


class NoSuchDevice(DataplaneError, Transient):
    """The network interface is not there (yet, or any more)."""

    reference = "no-such-device"


class DeviceDown(DataplaneError, Transient):
    """The network interface is down, so the kernel takes no route on it."""

    reference = "device-down"


class GatewayUnreachable(DataplaneError, Transient):
    """The gateway of a route is on no network of this host."""

    reference = "gateway-unreachable"


class NoSuchEntry(DataplaneError, Transient):
    """The object to change is not there."""

    reference = "no-such-entry"


class AlreadyThere(DataplaneError, Rejected):
    """An object under the same key exists, ours or somebody else's."""

    reference = "already-there"


class Busy(DataplaneError, Transient):
    """In use by something else, or locked by another program."""

    reference = "busy"


class NoRoom(DataplaneError, Transient):
    """A kernel table, a set or a buffer is full."""

    reference = "no-room"


class OutcomeUnknown(DataplaneError, Transient):
    """The kernel's answers were lost: what was asked may or may not be done. Read back before going on."""

    reference = "outcome-unknown"


class DumpInterrupted(DataplaneError, Transient):
    """A table changed all the time while it was read, so the answer is not whole."""

    reference = "dump-interrupted"


class InvalidArgument(DataplaneError, Rejected):
    """The kernel does not accept the value."""

    reference = "invalid-argument"


class NotPermitted(DataplaneError, Rejected):
    """The process lacks a capability."""

    reference = "not-permitted"


class NotSupported(DataplaneError, Rejected):
    """This kernel was built without the feature, or its module is missing."""

    reference = "not-supported-by-kernel"


class ReadOnly(DataplaneError, Rejected):
    """The file system is mounted read-only (a container without access to /proc/sys)."""

    reference = "read-only"


class ToolMissing(DataplaneError, Rejected):
    """A program we need is not installed."""

    reference = "tool-missing"


class ToolFailed(DataplaneError, Transient):
    """A program ended with an error that has no name of its own here. The text holds what it printed."""

    reference = "tool-failed"


class ToolTimedOut(DataplaneError, Transient):
    """A program did not come to its end in time and was ended."""

    reference = "tool-timed-out"


class TableRefused(DataplaneError, Transient):
    """A transaction of rules was refused; nothing of it was applied."""

    reference = "table-refused"

    def __init__(self, message: str, *, chain: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, chain=chain)
        self.chain = chain
        """The chain of the rule that was refused, if the program told."""


class TableIncompatible(DataplaneError, Rejected):
    """The rule table holds native nftables objects, so that iptables cannot read it."""

    reference = "table-incompatible"


_BY_ERRNO: dict[int, type[DataplaneError]] = {
    e.ENODEV: NoSuchDevice,
    e.ENXIO: NoSuchDevice,
    e.ENETDOWN: DeviceDown,
    e.ENETUNREACH: GatewayUnreachable,
    e.EHOSTUNREACH: GatewayUnreachable,
    e.ENOENT: NoSuchEntry,
    e.ESRCH: NoSuchEntry,
    e.EADDRNOTAVAIL: NoSuchEntry,
    e.EEXIST: AlreadyThere,
    e.EBUSY: Busy,
    e.EAGAIN: Busy,
    e.ENOSPC: NoRoom,
    e.ENOMEM: NoRoom,
    e.ENFILE: NoRoom,
    e.EMFILE: NoRoom,
    e.ENOBUFS: NoRoom,
    e.EMSGSIZE: NoRoom,
    e.EINVAL: InvalidArgument,
    e.ERANGE: InvalidArgument,
    e.EPERM: NotPermitted,
    e.EACCES: NotPermitted,
    e.EOPNOTSUPP: NotSupported,
    e.EPROTONOSUPPORT: NotSupported,
    e.EAFNOSUPPORT: NotSupported,
    e.ENOSYS: NotSupported,
    e.EROFS: ReadOnly,
}

_HINTS: dict[type[DataplaneError], str] = {
    NotPermitted: "run it as root, or with the capabilities NET_ADMIN, NET_RAW and SYS_ADMIN",
    NotSupported: "load the kernel module, or use a kernel that was built with it",
    ReadOnly: "mount /proc/sys writable (docker run --privileged)",
}


def from_errno(number: int, what: str, *, detail: str | None = None) -> DataplaneError:
    """Return the error for `number`; its text is ``what: detail`` or, without a detail, the name of the errno.

    Args:
        what: what was tried on what, without a full stop ("cannot add route 10.0.0.0/26").
        detail: the kernel's own words (extended ack).
    """
    family = _BY_ERRNO.get(number, KernelFailure)
    reason = f"{detail} ({os.strerror(number)})" if detail else os.strerror(number)
    return family(f"{what}: {reason}", errno=number, hint=_HINTS.get(family))
