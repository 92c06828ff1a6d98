"""Protocols beyond TCP, UDP and ICMP, by name and by number, with packets of their own (reference felix.md 8.3)."""

import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bed.felix import FelixLab, raw_passes
from fakes.felix_records import policy, rule
from resources.kinds.rule import EntityRule, Protocol, Rule

GRE, ESP, SCTP = 47, 50, 132


def gre() -> bytes:
    """A frame of Ethernet in GRE. Source: RFC 2784."""
    return struct.pack("!HH", 0, 0x6558) + random.randbytes(60)


def esp() -> bytes:
    """Index, sequence number, and what nobody can read. Source: RFC 4303."""
    return struct.pack("!II", random.getrandbits(32) | 0x100, 1) + random.randbytes(64)


def sctp(port: int = 80) -> bytes:
    """The first packet of an association. Source: RFC 9260, 3 and appendix A."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, random.getrandbits(32) | 1, 65536, 1, 1, random.getrandbits(32))
    head = struct.pack("!HHI", random.randrange(20000, 60000), port, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """Return the checksum of Castagnoli. Source: RFC 9260, appendix A."""
    total = 0xFFFFFFFF
    for byte in data:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
    return total ^ 0xFFFFFFFF


PACKETS: dict[int, Callable[[], bytes]] = {GRE: gre, ESP: esp, SCTP: sctp}


@pytest.fixture(autouse=True)
def no_flows(lab: FelixLab) -> None:
    """Forget flows of other tests: GRE and ESP have no ports, so what a test lets in may be answered in the next."""
    lab.forget_flows()


def guard(lab: FelixLab, *rules: Rule) -> None:
    lab.put(policy("p", "name == 'a0'", list(rules), types=["Ingress"]))


def passing(lab: FelixLab, source: str = "a1", target: str = "a0") -> set[int]:
    """Return the protocols that get from one container to another."""
    sender, receiver = lab.workloads[source], lab.workloads[target]
    with ThreadPoolExecutor() as pool:
        passed = {n: pool.submit(raw_passes, sender, receiver, n, payload=made()) for n, made in PACKETS.items()}
        return {number for number, result in passed.items() if result.result()}


@pytest.mark.scenario(51)
@pytest.mark.parametrize(("protocol", "number"), [("SCTP", SCTP), (SCTP, SCTP), (GRE, GRE), (ESP, ESP)])
def test_one_protocol_and_no_other(lab: FelixLab, protocol: Protocol, number: int) -> None:
    guard(lab, rule("Allow", protocol))
    for source in ("a1", "a2"):  # on the same host, and on the other
        assert passing(lab, source) == {number}


@pytest.mark.scenario(51)
@pytest.mark.parametrize(
    ("protocol", "number"), [("SCTP", SCTP), (GRE, GRE), (ESP, ESP), ("UDP", 17)]
)
def test_every_protocol_but_one(lab: FelixLab, protocol: Protocol, number: int) -> None:
    guard(lab, Rule(action="Allow", not_protocol=protocol))
    assert passing(lab) == PACKETS.keys() - {number}
    assert lab.workloads["a1"].ping(lab.workloads["a0"].address).ok
    guard(lab, Rule(action="Deny", not_protocol=protocol), rule("Allow"))
    assert passing(lab) == PACKETS.keys() & {number}


def test_denied_by_a_profile_allowed_by_a_policy(lab: FelixLab) -> None:
    assert passing(lab, "b1") == set()
    guard(lab, rule("Allow", "SCTP"), rule("Allow", GRE))
    assert passing(lab, "b1") == {SCTP, GRE}


@pytest.mark.parametrize("protocol", ["SCTP", SCTP])
def test_ports_of_sctp(lab: FelixLab, protocol: Protocol) -> None:
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]

    def ports() -> set[int]:
        with ThreadPoolExecutor() as pool:
            passed = {n: pool.submit(raw_passes, a1, a0, SCTP, payload=sctp(n)) for n in (80, 81, 8055)}
            return {port for port, result in passed.items() if result.result()}

    guard(lab, rule("Allow", protocol, destination=EntityRule(ports=[80, *range(1000, 1015)])))
    assert ports() == {80}
    guard(lab, rule("Allow", protocol, destination=EntityRule(not_ports=[80])))
    assert ports() == {81, 8055}
    lab.record(a0, ports=[("http", "SCTP", 8055), ("http", "TCP", 81)])
    guard(lab, rule("Allow", protocol, destination=EntityRule(ports=["http"])))
    assert ports() == {8055}


def test_what_goes_out_goes_by_egress_rules(lab: FelixLab) -> None:
    lab.put(policy("p", "name == 'a0'", [], [rule("Allow", ESP)], types=["Egress"]))
    for target in ("a1", "a2"):
        assert passing(lab, "a0", target) == {ESP}
