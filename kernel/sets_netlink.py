"""Members of IP sets by netlink messages of our own: a tenth of a millisecond where a process takes one and a half.

Only members come and go this way, in sets whose form is known to be as wanted. Sets are made, rewritten, listed and
destroyed by the program, which knows the revisions of set types that this kernel has; so are large changes.

Source: Linux include/uapi/linux/netfilter/ipset/ip_set.h; its own error numbers begin at 4096.
"""

import errno
import ipaddress
import socket
from collections.abc import Collection, Sequence
from typing import Final

from kernel.errors import AlreadyThere, Busy, DataplaneError, InvalidArgument, NoRoom
from kernel.netlink import Message, Refusal, Socket, attribute, error_of
from kernel.sets import KernelSet, SetDelta, SetKernel, SetSpec

BULK: Final = 200
"""A change of more members is given to the program: it packs many into one message."""

_NETLINK_NETFILTER: Final = 12
_ADD: Final = (6 << 8) | 9
_DELETE: Final = (6 << 8) | 10
_PROTOCOL: Final = attribute(1, b"\x07")
_NAME: Final = 2
_NESTED: Final = 0x8000
_NETWORK_ORDER: Final = 0x4000
_DATA: Final = 7 | _NESTED
_IP: Final = 1 | _NESTED
_CIDR: Final = 3
_PORT: Final = 4 | _NETWORK_ORDER
_PROTO: Final = 7
_TYPES: Final = ("hash:net", "hash:ip,port")
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}

_OWN_ERRORS: Final[dict[int, tuple[type[DataplaneError], int, str]]] = {
    4100: (Busy, errno.EBUSY, "it is being used"),
    4103: (AlreadyThere, errno.EEXIST, "the member is there"),
    4104: (InvalidArgument, errno.EINVAL, "a prefix length that this type of set does not take"),
    4352: (NoRoom, errno.ENOSPC, "it is full"),
}


class NetlinkSets:
    """SetKernel: members by netlink, in the namespace of the thread that made it; the rest by another SetKernel."""

    def __init__(self, program: SetKernel) -> None:
        self._program = program
        self._socket = Socket(_NETLINK_NETFILTER)
        self._known: dict[str, SetSpec] = {}

    def close(self) -> None:
        self._socket.close()

    def read(self, prefixes: tuple[str, ...]) -> dict[str, KernelSet]:
        found = self._program.read(prefixes)
        self._known |= {name: held.spec for name, held in found.items()}
        return found

    def apply(self, deltas: Sequence[SetDelta]) -> dict[str, DataplaneError]:
        slow: list[SetDelta] = []
        quick: list[SetDelta] = []
        for delta in deltas:
            known = self._known.get(delta.spec.name) == delta.spec and delta.spec.type in _TYPES
            (quick if known and len(delta.add) + len(delta.remove) <= BULK else slow).append(delta)
        failed, missing = self._apply_quick(quick) if quick else ({}, [])
        slow += missing
        if slow:
            refused = self._program.apply(slow)
            self._note([delta.spec for delta in slow], refused)
            failed |= refused
        return failed

    def rewrite(self, sets: Sequence[KernelSet]) -> dict[str, DataplaneError]:
        failed = self._program.rewrite(sets)
        self._note([wanted.spec for wanted in sets], failed)
        return failed

    def destroy(self, names: Collection[str]) -> dict[str, DataplaneError]:
        for name in names:
            self._known.pop(name, None)
        return self._program.destroy(names)

    def _note(self, written: Sequence[SetSpec], failed: Collection[str]) -> None:
        for spec in written:
            if spec.name in failed:
                self._known.pop(spec.name, None)
            else:
                self._known[spec.name] = spec

    def _apply_quick(self, deltas: Sequence[SetDelta]) -> tuple[dict[str, DataplaneError], list[SetDelta]]:
        """Change members; return what failed, by set, and the changes of sets that are not there."""
        failed: dict[str, DataplaneError] = {}
        messages: list[Message] = []
        owners: list[SetDelta] = []
        for delta in deltas:
            try:
                found = _messages(delta)
            except ValueError as exc:
                failed[delta.spec.name] = InvalidArgument(
                    f"cannot change set {delta.spec.name}: {exc}", errno=errno.EINVAL
                )
                continue
            messages += found
            owners += [delta] * len(found)
        missing: dict[str, SetDelta] = {}
        for index, refusal in sorted(self._socket.execute(messages).items()):
            delta = owners[index]
            name = delta.spec.name
            if refusal[0] == errno.ENOENT:
                missing[name] = delta
            else:
                failed.setdefault(name, _error(refusal, f"cannot change set {name}"))
        for name in failed.keys() | missing.keys():
            self._known.pop(name, None)
        return failed, [delta for name, delta in missing.items() if name not in failed]


def _messages(delta: SetDelta) -> list[Message]:
    """Return the requests: members come before others go. Without NLM_F_EXCL what is done already is no failure.

    Raises:
        ValueError: a member that is none.
    """
    family = socket.AF_INET6 if delta.spec.version == 6 else socket.AF_INET
    head = bytes((family, 0, 0, 0)) + _PROTOCOL + attribute(_NAME, delta.spec.name.encode() + b"\0")
    # a member that was added by hand may carry an option, as in IpsetSets
    surplus = {member.split(" ")[0] for member in delta.remove} - delta.add
    requests: list[Message] = [(_ADD, 0, head + _member(delta.spec, text)) for text in sorted(delta.add)]
    return requests + [(_DELETE, 0, head + _member(delta.spec, text)) for text in sorted(surplus)]


def _member(spec: SetSpec, text: str) -> bytes:
    address, _, port = text.partition(",")
    network = ipaddress.ip_network(address, strict=False)
    if network.version != spec.version:
        raise ValueError(f"{text} is of another address family")
    packed = network.network_address.packed
    data = attribute(_IP, attribute((1 if network.version == 4 else 2) | _NETWORK_ORDER, packed))
    if (spec.type == "hash:ip,port") is not bool(port):
        raise ValueError(f"{text} is no member of a {spec.type} set")
    if not port:
        return attribute(_DATA, data + attribute(_CIDR, bytes((network.prefixlen,))))
    protocol, _, number = port.partition(":")
    if protocol not in _PROTOCOLS or not number.isdigit() or int(number) > 0xFFFF:
        raise ValueError(f"{text} has no port of TCP, UDP or SCTP")
    data += attribute(_PORT, int(number).to_bytes(2, "big")) + attribute(_PROTO, bytes((_PROTOCOLS[protocol],)))
    return attribute(_DATA, data)


def _error(refusal: Refusal, what: str) -> DataplaneError:
    known = _OWN_ERRORS.get(refusal[0])
    if known is None:
        return error_of(refusal, what)
    family, number, reason = known
    return family(f"{what}: {reason}", errno=number)
