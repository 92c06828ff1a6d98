"""Netlink by hand: framing, attributes, bulk requests, dumps. Standard library only.

Why beside pyroute2: its encoder costs 0.4 ms a route (38 times this one), its import 22 MB and a quarter of a second
(reference bgp.md 8.1), and the daemons read and write routes all the time. pyroute2 stays for what is rare.

Source: Linux include/uapi/linux/netlink.h; RFC 3549.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final

from kernel import socket_filter
from kernel.errors import DataplaneError, DumpInterrupted, KernelFailure, OutcomeUnknown, from_errno

NLM_F_REQUEST: Final = 0x1
NLM_F_MULTI: Final = 0x2
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLA_TYPE_MASK: Final = 0x3FFF

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_RCVBUFFORCE: Final = 33
_NLMSGERR_ATTR_MSG: Final = 1

HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")

_RECEIVE_BUFFER: Final = 4 << 20
"""Bytes. 512 refusals with the kernel's words fit several times over."""
_DATAGRAM: Final = 1 << 16
_MESSAGES_PER_SEND: Final = 512
_BYTES_PER_SEND: Final = 96 << 10
_DUMP_TRIES: Final = 5
_TIMEOUT_SECONDS: Final = 10.0
_SEQUENCE_MAX: Final = 1 << 31

Message = tuple[int, int, bytes]
"""Type, flags, body (without the 16 bytes of header)."""
Refusal = tuple[int, str | None]
"""errno and the kernel's own words. ENOBUFS means that the outcome is not known."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def attributes(data: bytes | memoryview, offset: int = 0) -> Iterator[tuple[int, memoryview]]:
    """Yield type (without its flag bits) and payload of each attribute from `offset` on."""
    view = memoryview(data)
    end = len(view)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(view, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & NLA_TYPE_MASK, view[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def text_of(payload: memoryview) -> str:
    """Return an attribute that is a string ended by NUL."""
    return bytes(payload).rstrip(b"\0").decode("utf-8", "surrogateescape")


class Socket:
    """One netlink socket, of the namespace of the thread that made it. For one thread at a time."""

    def __init__(
        self,
        protocol: int = socket.NETLINK_ROUTE,
        *,
        groups: Sequence[int] = (),
        receive_buffer: int = _RECEIVE_BUFFER,
    ) -> None:
        """Open and bind.

        Args:
            groups: multicast group numbers to hear (RTNLGRP_*, not the old bit mask).
            receive_buffer: bytes that may wait to be read.

        Raises:
            DataplaneError: no such protocol in this kernel, or no right to it.
        """
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as exc:
            raise from_errno(exc.errno or 0, f"cannot open a netlink socket (protocol {protocol})") from exc
        try:
            self._configure(groups, receive_buffer)
        except OSError as exc:
            self._socket.close()
            raise from_errno(exc.errno or 0, f"cannot set up a netlink socket (protocol {protocol})") from exc
        self._sequence = 0

    def _configure(self, groups: Sequence[int], receive_buffer: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def attach_filter(self, instructions: Sequence[bytes]) -> None:
        """Let the kernel drop what a classic BPF program (struct sock_filter, eight bytes each) refuses."""
        try:
            socket_filter.attach(self._socket, instructions)
        except OSError as exc:
            raise from_errno(exc.errno or 0, "cannot filter notifications") from exc

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def execute(self, messages: Sequence[Message]) -> dict[int, Refusal]:
        """Send requests in bulk and return the refused ones by their index.

        Only the last message of a datagram asks for an answer; a refusal is answered in any case, and the kernel works
        through a datagram in order.
        """
        refused: dict[int, Refusal] = {}
        start = 0
        while start < len(messages):
            end, size = start, 0
            while end < len(messages) and end - start < _MESSAGES_PER_SEND and size < _BYTES_PER_SEND:
                size += HEADER.size + len(messages[end][2])
                end += 1
            self._execute_datagram(list(messages[start:end]), start, refused)
            start = end
        return refused

    def request(self, kind: int, flags: int, body: bytes, what: str) -> None:
        """Send one request and wait until it is done.

        Raises:
            DataplaneError: refused; the text begins with `what`.
        """
        for refusal in self.execute([(kind, flags, body)]).values():
            raise error_of(refusal, what)

    def dump(self, kind: int, body: bytes, what: str) -> list[tuple[int, bytes]]:
        """Return type and body of every message of a dump; read again if the table changed meanwhile.

        Raises:
            DumpInterrupted: it changed during each of five reads.
            DataplaneError: refused.
        """
        for _ in range(_DUMP_TRIES):
            sequence = self._send([(kind, NLM_F_DUMP, body)])
            found: list[tuple[int, bytes]] = []
            try:
                if self._collect(sequence, found, what):
                    return found
            except OutcomeUnknown:
                self.drain()
        raise DumpInterrupted(f"{what}: the table kept changing while it was read", errno=errno.EINTR)

    def ask(self, kind: int, body: bytes, what: str) -> tuple[int, bytes]:
        """Send one request whose answer is one message; return its type and body.

        Raises:
            DataplaneError: refused.
        """
        found: list[tuple[int, bytes]] = []
        self._collect(self._send([(kind, NLM_F_ACK, body)]), found, what)
        if not found:
            raise KernelFailure(f"{what}: the kernel gave no answer")
        return found[0]

    @property
    def port(self) -> int:
        """The number by which the kernel tells this socket from others of the namespace."""
        port: int = self._socket.getsockname()[0]
        return port

    def receive(self) -> list[tuple[int, int, bytes]]:
        """Wait for one datagram of notifications; return type, port of the causer, and body of its messages.

        Raises:
            OSError: ENOBUFS when notifications were lost, a TimeoutError when there was none.
        """
        return [(kind, port, bytes(body)) for kind, _, _, port, body in _split(self._socket.recv(_DATAGRAM))]

    def drain(self) -> None:
        """Throw away all that waits.

        After an overrun this must come before the state is read again: the kernel drops all further notifications, and
        does not tell of it, until the queue was empty once (NETLINK_S_CONGESTED).
        """
        self._socket.setblocking(False)  # not MSG_DONTWAIT: Python waits for the timeout in spite of it
        try:
            while True:
                try:
                    self._socket.recv(_DATAGRAM)
                except BlockingIOError:
                    return
                except OSError as exc:
                    if exc.errno != errno.ENOBUFS:
                        raise from_errno(exc.errno or 0, "cannot read from the kernel") from exc
        finally:
            self._socket.settimeout(_TIMEOUT_SECONDS)

    # ---- inside

    def _send(self, messages: Sequence[Message]) -> int:
        """Send as one datagram; return the sequence number of the first message."""
        if self._sequence > _SEQUENCE_MAX:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += len(messages)
        parts: list[bytes] = []
        for sequence, (kind, flags, body) in enumerate(messages, first):
            parts.append(HEADER.pack(HEADER.size + len(body), kind, flags | NLM_F_REQUEST, sequence, 0))
            parts.append(body)
        try:
            self._socket.sendto(b"".join(parts), (0, 0))
        except OSError as exc:
            raise from_errno(exc.errno or 0, "cannot send to the kernel") from exc
        return first

    def _execute_datagram(self, batch: list[Message], start: int, refused: dict[int, Refusal]) -> None:
        kind, flags, body = batch[-1]
        batch[-1] = (kind, flags | NLM_F_ACK, body)
        first = self._send(batch)
        last = first + len(batch) - 1
        try:
            while True:
                for answer, answer_flags, sequence, _, payload in self._answers():
                    if answer != NLMSG_ERROR or not first <= sequence <= last:
                        continue
                    number, detail = _refusal(answer, answer_flags, payload)
                    if number:
                        refused[start + sequence - first] = (number, detail)
                    if sequence == last:
                        return
        except OutcomeUnknown:
            self.drain()
            for index in range(start, start + len(batch)):
                refused.setdefault(index, (errno.ENOBUFS, None))

    def _collect(self, sequence: int, found: list[tuple[int, bytes]], what: str) -> bool:
        """Read the answers to one request into `found`; return False if a dump was interrupted."""
        whole = True
        while True:
            for kind, flags, answered, _, payload in self._answers():
                if answered != sequence:
                    continue
                if flags & NLM_F_DUMP_INTR:
                    whole = False
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    found.append((kind, bytes(payload)))
                    continue
                number, detail = _refusal(kind, flags, payload)
                if number == errno.EINTR:
                    return False
                if number:
                    raise from_errno(number, what, detail=detail)
                return whole

    def _answers(self) -> Iterator[tuple[int, int, int, int, memoryview]]:
        """Wait for one datagram and split it.

        Raises:
            OutcomeUnknown: none came, or the kernel had to drop some.
        """
        try:
            data = self._socket.recv(_DATAGRAM)
        except TimeoutError as exc:
            text = f"the kernel did not answer within {_TIMEOUT_SECONDS:g} s"
            raise OutcomeUnknown(text, errno=errno.ETIMEDOUT) from exc
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                raise OutcomeUnknown("answers of the kernel were lost", errno=errno.ENOBUFS) from exc
            raise from_errno(exc.errno or 0, "cannot read from the kernel") from exc
        return _split(data)


def error_of(refusal: Refusal, what: str) -> DataplaneError:
    """Return the named error for one entry of what `Socket.execute` refused."""
    number, detail = refusal
    if number == errno.ENOBUFS:
        return OutcomeUnknown(f"{what}: the kernel's answer was lost", errno=number)
    return from_errno(number, what, detail=detail)


def _split(data: bytes) -> Iterator[tuple[int, int, int, int, memoryview]]:
    """Yield type, flags, sequence number, port and body of each message of a datagram."""
    view = memoryview(data)
    offset = 0
    while offset + HEADER.size <= len(view):
        length, kind, flags, sequence, port = HEADER.unpack_from(view, offset)
        if length < HEADER.size or offset + length > len(view):
            return
        yield kind, flags, sequence, port, view[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _refusal(kind: int, flags: int, payload: memoryview) -> Refusal:
    """Return errno (0 = done) and the kernel's words out of the body of an NLMSG_ERROR or NLMSG_DONE."""
    if len(payload) < _ERROR.size:
        return 0, None
    (negative,) = _ERROR.unpack_from(payload)
    detail: str | None = None
    if flags & NLM_F_ACK_TLVS:
        # an NLMSG_ERROR repeats the header of the request (capped: no more of it) before the attributes
        start = _ERROR.size + (HEADER.size if kind == NLMSG_ERROR else 0)
        for attribute_kind, value in attributes(payload, start):
            if attribute_kind == _NLMSGERR_ATTR_MSG:
                detail = text_of(value)
    return -negative, detail
