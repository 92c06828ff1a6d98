"""Which peers answer when they are tried as ExaBGP would try them: with real sockets, signed and with their TTL."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from bed import Namespace
from bgpd.probe import TCP_MD5SIG, Target, answering, signature
from resources.names import IPAddress

IP_MINTTL = 21
IPV6_MINHOPCOUNT = 73
LOOPBACK = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


@pytest.fixture
def inside(netns: Namespace) -> Iterator[None]:
    with netns.entered():
        yield


def listener(version: int, password: str | None = None, *, hops: int | None = None) -> socket.socket:
    """Return a socket that listens as a peer's would."""
    server = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    if password is not None:
        server.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, signature(LOOPBACK[version], password.encode()))
    if hops is not None and version == 4:
        server.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 256 - hops)
    elif hops is not None:
        server.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, 256 - hops)
    server.bind((str(LOOPBACK[version]), 0))
    server.listen()
    return server


def target(server: socket.socket, password: str | None = None, *, local: bool = True) -> Target:
    address = ip_address(server.getsockname()[0])
    return Target(address=address, port=server.getsockname()[1], local=address if local else None, password=password)


def tried(*targets: Target) -> list[IPAddress]:
    return answering(targets, timeout=0.5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("theirs", "ours", "answers"),
    [(None, None, True), ("s3;cr{et}", "s3;cr{et}", True), ("one", "two", False), ("one", None, False)],
)
def test_a_peer_answers_who_shares_its_password(
    inside: None, version: int, theirs: str | None, ours: str | None, answers: bool
) -> None:
    with listener(version, theirs) as server:
        assert tried(target(server, ours)) == ([LOOPBACK[version]] if answers else [])


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_answers_that_wants_us_next_door(inside: None, version: int) -> None:
    with listener(version, hops=1) as server:
        assert tried(target(server)) == [LOOPBACK[version]]


def test_those_that_answer_are_found_among_those_that_do_not(inside: None) -> None:
    with listener(4) as server, listener(6) as other, listener(4) as gone:
        closed = target(gone)
        gone.close()
        assert set(tried(closed, target(server), target(other, local=False))) == set(LOOPBACK.values())


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_peer_to_which_no_route_leads_does_not_answer(inside: None, address: str) -> None:
    assert tried(Target(address=ip_address(address), port=179, local=None)) == []


def test_an_own_address_that_is_not_there_harms_no_other(inside: None) -> None:
    with listener(4) as server:
        lost = Target(address=LOOPBACK[4], port=server.getsockname()[1], local=ip_address("192.0.2.1"))
        assert tried(lost) == []
        assert tried(lost, target(server)) == [LOOPBACK[4]]
