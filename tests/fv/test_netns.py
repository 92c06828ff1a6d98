"""The namespace every test of this level gets."""

import socket

import pytest

from bed import Namespace


def test_a_thread_inside_sees_loopback_and_nothing_else(netns: Namespace) -> None:
    with netns.entered():
        assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.parametrize("again", ["first", "second"])
def test_nothing_stays_from_one_test_to_the_next(netns: Namespace, again: str) -> None:
    assert netns.ip("-o", "link").stdout.count("\n") == 1
    netns.ip("link", "add", "left", "type", "bridge")


def test_it_has_no_way_out(netns: Namespace) -> None:
    with netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker, pytest.raises(OSError):
        talker.connect(("192.0.2.1", 9))  # a datagram socket's connect only looks for a route
