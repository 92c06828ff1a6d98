"""Sessions -> ExaBGP's configuration file and environment (reference bgp.md 2.1). Same input, same bytes.

ExaBGP refuses every later reload once a file had an error in it (2.3), so nothing gets in here but numbers, parsed
addresses and base64; names and passwords never appear as they are.
"""

import base64
import ipaddress
from collections.abc import Iterable, Mapping

from bgpd.calc.secrets import PASSWORD_MAX
from bgpd.calc.sessions import PeerSpec
from resources.names import IPAddress


def configuration(
    peers: Iterable[PeerSpec], router_id: ipaddress.IPv4Address, relay: Iterable[str]
) -> str:
    """Return ExaBGP's configuration file.

    Args:
        relay: the command line of the relay; its words must have no blanks or ExaBGP's special characters in them.

    Raises:
        ValueError: a word of `relay` or a password cannot be written.
    """
    lines = [
        "# Written by calico-bgpd; a change made here is lost.",
        f"process relay {{ run {' '.join(map(_word, relay))}; encoder json; }}",
    ]
    for peer in sorted(peers, key=lambda spec: (spec.version, int(spec.address))):
        lines += _neighbor(peer, router_id)
    return "\n".join(lines) + "\n"


def _neighbor(peer: PeerSpec, router_id: ipaddress.IPv4Address) -> list[str]:
    lines = [
        f"neighbor {peer.address} {{",
        f"  router-id {router_id};",
        f"  local-address {peer.local_address};",
        f"  local-as {int(peer.local_as)};",
        f"  peer-as {int(peer.peer_as)};",
        f"  hold-time {int(peer.hold_seconds)};",
    ]
    if peer.passive:
        lines.append("  passive true;")
    lines.append(f"  connect {int(peer.port)};")
    if peer.password is not None:
        lines.append(f'  md5-password "{_base64(peer.password)}";')
        lines.append("  md5-base64 true;")
    lines.append("  outgoing-ttl 255;")
    if peer.least_ttl is not None:
        lines.append(f"  incoming-ttl {int(peer.least_ttl)};")
    lines += [
        "  adj-rib-in true;",
        "  manual-eor true;",
        f"  family {{ ipv{peer.version} unicast; }}",
        # 0 would mean the hold time there
        f"  capability {{ route-refresh enable; graceful-restart {int(peer.restart_seconds) or 'disable'}; }}",
        "  api {",
        "    processes [ relay ];",
        "    neighbor-changes;",
        "    fsm;",
        "    receive { parsed; update; open; notification; refresh; }",
        "  }",
        "}",
    ]
    return lines


def _word(text: str) -> str:
    if not text or not all((c.isalnum() and c.isascii()) or c in "/._-+=:@,~%" for c in text):
        raise ValueError(f"{text!r} cannot be a word of ExaBGP's configuration")
    return text


def _base64(password: str) -> str:
    data = password.encode()
    if not 0 < len(data) <= PASSWORD_MAX:
        raise ValueError(f"a BGP password has 1 to {PASSWORD_MAX} bytes, this one has {len(data)}")
    return base64.b64encode(data).decode()


def environment(listen_on: Iterable[IPAddress], port: int) -> Mapping[str, str]:
    """Return ExaBGP's environment variables. A change takes effect with a restart of ExaBGP only."""
    addresses = sorted(listen_on, key=lambda address: (address.version, int(address)))
    return {
        "exabgp.api.ack": "true",
        "exabgp.api.chunk": "500",
        # without this it looks for named pipes in /run/exabgp and complains
        "exabgp.api.cli": "false",
        "exabgp.api.respawn": "false",
        "exabgp.api.show-routes-format": "v2",
        "exabgp.api.terminate": "true",
        "exabgp.daemon.drop": "false",
        "exabgp.daemon.user": "root",
        "exabgp.log.destination": "stderr",
        "exabgp.log.level": "WARNING",
        "exabgp.log.short": "false",
        # how long it sleeps when idle, in hundredths of a second: a quarter of the CPU time, routes as fast
        "exabgp.reactor.speed": "5.0",
        "exabgp.tcp.attempts": "0",
        "exabgp.tcp.bind": " ".join(map(str, addresses)),
        "exabgp.tcp.port": str(int(port)),
        # it asks for its own full host name at start, and a dead name server would hold it up for ten seconds
        "RES_OPTIONS": "timeout:1 attempts:1",
    }
