"""Packets as bytes, so that connection tracking finds nothing wrong with them; each carries a tag of its own."""

import ipaddress
import re
import struct
from dataclasses import dataclass

from bed.probes import checksum
from felix.calc.match import Packet, State
from resources.names import IPAddress

TAG_LENGTH = 12
_MARK = b"\xc5TaG"
_TAG = re.compile(re.escape(_MARK) + rb"[0-9a-f]{8}", re.DOTALL)
_SYN, _SYN_ACK = 0x02, 0x12
_OPENING_ICMP = {4: (8, 13, 15, 17), 6: (128, 139)}
"""Types that begin a flow; of the others those in use here belong to none."""


def tag(number: int) -> bytes:
    return _MARK + f"{number:08x}".encode()


def tag_in(data: bytes) -> bytes | None:
    found = _TAG.search(data)
    return found[0] if found else None


def state_of(packet: Packet) -> State:
    """Return what connection tracking will think of a packet of no flow."""
    if packet.icmp is not None:
        return State.NEW if packet.icmp.type in _OPENING_ICMP[packet.version] else State.INVALID
    return packet.state


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells a packet that arrived from another that only quotes it."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    icmp_type: int | None


def built(packet: Packet, tag: bytes) -> bytes:
    """Return the packet from its IP header on. A TCP packet is a SYN, or (if not NEW) the answer to one like it."""
    payload = _payload(packet, tag)
    if packet.version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, packet.protocol, 0,
            packet.source.packed, packet.destination.packed,
        )  # fmt: skip
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload
    head = struct.pack("!IHBB", 6 << 28, len(payload), packet.protocol, 64)
    return head + packet.source.packed + packet.destination.packed + payload


def _payload(packet: Packet, tag: bytes) -> bytes:
    ports = struct.pack("!HH", packet.source_port, packet.destination_port)
    match packet.protocol:
        case 6:
            flags, acknowledged = (_SYN, 0) if packet.state is State.NEW else (_SYN_ACK, 2 + len(tag))
            head = struct.pack("!IIBBHHH", 1, acknowledged, 5 << 4, flags, 1024, 0, 0)
            return _summed(packet, ports + head + tag, 16)
        case 17:
            return _summed(packet, ports + struct.pack("!HH", 8 + len(tag), 0) + tag, 6)
        case 132:
            # INIT, its tag an unknown parameter that may be skipped
            parameter = struct.pack("!HH", 0xC000, 4 + len(tag)) + tag
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20 + len(parameter), 1, 65535, 1, 1, 1) + parameter
            head = ports + struct.pack("!I", 0)
            return head + struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk)) + chunk
        case 1 | 58 if packet.icmp is not None:
            identifier = int(tag[-4:], 16)
            body = struct.pack("!BBHHH", packet.icmp.type, packet.icmp.code or 0, 0, identifier, 1) + tag
            return _summed(packet, body, 2) if packet.version == 6 else _inserted(body, 2, checksum(body))
        case 47:
            return struct.pack("!HH", 0, 0x0800) + tag
        case _:
            return struct.pack("!II", 1, 1) + tag


def _summed(packet: Packet, body: bytes, at: int) -> bytes:
    pseudo = packet.source.packed + packet.destination.packed + struct.pack("!II", len(body), packet.protocol)
    return _inserted(body, at, checksum(pseudo + body) or 0xFFFF)


def _inserted(body: bytes, at: int, value: int) -> bytes:
    return body[:at] + struct.pack("!H", value) + body[at + 2 :]


def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc32c_table()


def crc32c(data: bytes) -> int:
    """Return the checksum of SCTP. Source: RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def seen(data: bytes) -> Seen | None:
    """Return the head of a packet from its IP header on; None if it is none."""
    if len(data) < 20:
        return None
    if data[0] >> 4 == 4:
        protocol, at = data[9], (data[0] & 0xF) * 4
        source, destination = ipaddress.ip_address(data[12:16]), ipaddress.ip_address(data[16:20])
    elif data[0] >> 4 == 6 and len(data) >= 40:
        protocol, at = data[6], 40
        source, destination = ipaddress.ip_address(data[8:24]), ipaddress.ip_address(data[24:40])
    else:
        return None
    icmp = protocol == (1 if source.version == 4 else 58) and len(data) > at
    return Seen(source, destination, protocol, data[at] if icmp else None)


def expected(packet: Packet) -> Seen:
    """Return what to look for at the end of the packet's way."""
    packet = packet.translated
    return Seen(packet.source, packet.destination, packet.protocol, packet.icmp.type if packet.icmp else None)
