"""ExaBGP's configuration, byte for byte."""

import base64
from ipaddress import IPv4Address, ip_address
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.render import configuration, environment
from resources.names import AsNumber

RELAY = ["/opt/calico/bin/python3", "-I", "-S", "/opt/calico/bgpd/relay.py", "--socket", "/run/calico/bgp-relay.sock"]
ROUTER_ID = IPv4Address("10.99.0.1")


def peer(address: str, local: str = "10.99.0.1", **members: object) -> PeerSpec:
    return PeerSpec(
        address=ip_address(address),
        kind=PeerKind.MESH,
        local_address=ip_address(local),
        local_as=AsNumber(64512),
        peer_as=AsNumber(64512),
        **members,  # type: ignore[arg-type]
    )


PEERS = [
    peer("fd99::3", "fd99::1", hold_seconds=30, restart_seconds=60, port=1790),
    peer("10.99.0.10", passive=True),
    peer("10.99.0.9", passive=True, password="it's; a {secret} \\"),
]

GOLDEN = """\
# Written by calico-bgpd; a change made here is lost.
process relay { run /opt/calico/bin/python3 -I -S /opt/calico/bgpd/relay.py --socket /run/calico/bgp-relay.sock; \
encoder json; }
neighbor 10.99.0.9 {
  router-id 10.99.0.1;
  local-address 10.99.0.1;
  local-as 64512;
  peer-as 64512;
  hold-time 90;
  passive true;
  connect 179;
  md5-password "aXQnczsgYSB7c2VjcmV0fSBc";
  md5-base64 true;
  outgoing-ttl 255;
  adj-rib-in true;
  manual-eor true;
  family { ipv4 unicast; }
  capability { route-refresh enable; graceful-restart 120; }
  api {
    processes [ relay ];
    neighbor-changes;
    fsm;
    receive { parsed; update; open; notification; refresh; }
  }
}
neighbor 10.99.0.10 {
  router-id 10.99.0.1;
  local-address 10.99.0.1;
  local-as 64512;
  peer-as 64512;
  hold-time 90;
  passive true;
  connect 179;
  outgoing-ttl 255;
  adj-rib-in true;
  manual-eor true;
  family { ipv4 unicast; }
  capability { route-refresh enable; graceful-restart 120; }
  api {
    processes [ relay ];
    neighbor-changes;
    fsm;
    receive { parsed; update; open; notification; refresh; }
  }
}
neighbor fd99::3 {
  router-id 10.99.0.1;
  local-address fd99::1;
  local-as 64512;
  peer-as 64512;
  hold-time 30;
  connect 1790;
  outgoing-ttl 255;
  adj-rib-in true;
  manual-eor true;
  family { ipv6 unicast; }
  capability { route-refresh enable; graceful-restart 60; }
  api {
    processes [ relay ];
    neighbor-changes;
    fsm;
    receive { parsed; update; open; notification; refresh; }
  }
}
"""


def test_the_file_is_this_whatever_the_order_of_peers() -> None:
    for order in permutations(PEERS):
        assert configuration(order, ROUTER_ID, RELAY) == GOLDEN


def test_no_restart_time_is_no_graceful_restart() -> None:
    """0 would have ExaBGP say the hold time."""
    text = configuration([peer("10.99.0.9", restart_seconds=0)], ROUTER_ID, RELAY)
    assert "graceful-restart disable;" in text


def test_without_peers_the_relay_remains() -> None:
    assert configuration([], ROUTER_ID, RELAY) == "".join(GOLDEN.splitlines(keepends=True)[:2])


@given(st.text(min_size=1, max_size=20))
def test_a_password_never_gets_out_of_its_quotes(password: str) -> None:
    data = password.encode(errors="surrogatepass")
    if len(data) > 80 or any(0xD800 <= ord(character) < 0xE000 for character in password):
        return
    text = configuration([peer("10.99.0.3", password=password)], ROUTER_ID, RELAY)
    line = next(line for line in text.splitlines() if "md5-password" in line)
    quoted = line.strip().removeprefix('md5-password "').removesuffix('";')
    assert base64.b64decode(quoted, validate=True) == data
    assert set(text) <= set(GOLDEN) | set(quoted)


@pytest.mark.parametrize(("hops", "ttl"), [(1, 255), (2, 254), (255, 1)])
def test_a_peer_may_be_so_far_away(hops: int, ttl: int) -> None:
    lines = configuration([peer("10.99.0.3", hops=hops)], ROUTER_ID, RELAY).splitlines()
    assert lines[lines.index("  outgoing-ttl 255;") + 1] == f"  incoming-ttl {ttl};"


@pytest.mark.parametrize("password", ["", "x" * 81])
def test_a_password_of_impossible_length_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="1 to 80 bytes"):
        configuration([peer("10.99.0.3", password=password)], ROUTER_ID, RELAY)


@pytest.mark.parametrize("word", ["/opt/my python", "a;b", "a{b", "", 'a"b', "a\nb", "é"])
def test_a_path_that_would_break_the_file_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="cannot be a word"):
        configuration([], ROUTER_ID, [word])


def test_the_environment() -> None:
    found = environment([ip_address("fd99::1"), ip_address("10.99.0.1")], 1790)
    assert found == {
        "RES_OPTIONS": "timeout:1 attempts:1",
        "exabgp.api.ack": "true",
        "exabgp.api.chunk": "500",
        "exabgp.api.cli": "false",
        "exabgp.api.respawn": "false",
        "exabgp.api.show-routes-format": "v2",
        "exabgp.api.terminate": "true",
        "exabgp.daemon.drop": "false",
        "exabgp.daemon.user": "root",
        "exabgp.log.destination": "stderr",
        "exabgp.log.level": "WARNING",
        "exabgp.log.short": "false",
        "exabgp.reactor.speed": "5.0",
        "exabgp.tcp.attempts": "0",
        "exabgp.tcp.bind": "10.99.0.1 fd99::1",
        "exabgp.tcp.port": "1790",
    }
