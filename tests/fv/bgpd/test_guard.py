"""TTL security on connections that the peer opens: by a real ExaBGP, which checks those that it opens itself."""

import ipaddress
import queue
import socket
import struct
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from bed import Namespace, wait_until
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.child import ExabgpChild
from bgpd.render import configuration, environment
from bgpd.speaker import ChildMessage
from resources.names import AsNumber

PORT = 1790
OWN, NEAR, ANY = ("fd00::1", "10.0.0.1"), ("fd00::2", "10.0.0.2"), ("fd00::3", "10.0.0.3")
SIOCOUTQ = 0x5411
"""How much of what was sent the other end has not taken (tcp(7))."""


@pytest.fixture
def child(netns: Namespace, tmp_path: Path) -> Iterator[ExabgpChild]:
    """An ExaBGP that listens on OWN and waits for NEAR and ANY; all of these addresses are this namespace's."""
    netns.run("ip link set lo up")
    for address in (*OWN, *NEAR, *ANY):
        netns.run(f"ip addr add {address} dev lo" + (" nodad" if ":" in address else ""))
    peers = [
        PeerSpec(
            address=ipaddress.ip_address(address), kind=PeerKind.GLOBAL, local_address=ipaddress.ip_address(own),
            local_as=AsNumber(64512), peer_as=AsNumber(64512), passive=True,
        )
        for addresses in (NEAR, ANY)
        for own, address in zip(OWN, addresses, strict=True)
    ]  # fmt: skip
    messages: queue.SimpleQueue[ChildMessage] = queue.SimpleQueue()
    made = ExabgpChild(run=tmp_path, log=tmp_path / "log", post=messages.put, say=lambda _: None)
    listen_on = [ipaddress.ip_address(address) for address in OWN]
    with netns.entered():
        made.start(configuration(peers, ipaddress.IPv4Address("10.0.0.1"), made.relay_command),
                   environment(listen_on, PORT))
    try:
        for own in OWN:
            wait_until(f"ExaBGP to listen on {own}", lambda: f"{own}:{PORT}" in _listeners(netns), timeout=20)  # noqa: B023
        yield made
    finally:
        made.end(hard=True)
        made.close()


def _listeners(netns: Namespace) -> str:
    return netns.run("ss -Hltn").stdout.replace("[", "").replace("]", "")


def opened(netns: Namespace, own: str, source: str, ttl: int) -> socket.socket | None:
    """Return a connection from an address whose packets have this TTL, or None if nobody answers."""
    with netns.entered():
        one = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET)
    set_ttl(one, ttl)
    one.bind((source, 0))
    one.settimeout(0.5)
    try:
        one.connect((own, PORT))
    except TimeoutError:
        one.close()
        return None
    return one


def set_ttl(one: socket.socket, ttl: int) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
    else:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)


def is_heard(one: socket.socket, ttl: int) -> bool:
    """Return whether the other end takes the beginning of a message with this TTL."""
    set_ttl(one, ttl)
    one.send(b"\xff")
    until = time.monotonic() + 1.0
    while (unheard := struct.unpack("i", ioctl(one, SIOCOUTQ, b"\0" * 4))[0]) and time.monotonic() < until:
        time.sleep(0.01)
    return not unheard


@pytest.mark.parametrize("family", [0, 1])
def test_what_comes_from_too_far_away_is_dropped(netns: Namespace, child: ExabgpChild, family: int) -> None:
    own, near, any_ = OWN[family], NEAR[family], ANY[family]

    def answered(source: str, ttl: int) -> bool:
        found = opened(netns, own, source, ttl)
        if found is not None:
            found.close()
        return found is not None

    early = opened(netns, own, near, 64)
    assert early is not None
    assert early.recv(1) == b"\xff"  # it was taken: one that waits for that has no limit yet
    least = {ipaddress.ip_address(address): 254 for address in NEAR}
    assert child.guard(least) is None
    # one that was open before, new ones, and those of a peer without a limit
    assert not is_heard(early, 64)
    early.close()
    assert [answered(near, ttl) for ttl in (255, 254, 253, 64)] == [True, True, False, False]
    assert answered(any_, 1)
    later = opened(netns, own, near, 255)
    assert later is not None
    with later:
        assert is_heard(later, 254)
        assert not is_heard(later, 253)
    assert child.guard({}) is None
    assert answered(near, 1)


def test_who_is_not_there_is_told(netns: Namespace, child: ExabgpChild) -> None:
    child.end(hard=True)
    wait_until("ExaBGP to be gone", lambda: _listeners(netns) == "")
    assert child.guard({ipaddress.ip_address(NEAR[1]): 255}) != ""
