"""The client side of BIRD's control socket, which bgpd serves (reference bgp.md 5)."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resources.errors import Transient

BGP_STATES = ("Idle", "Connect", "Active", "Passive", "OpenSent", "OpenConfirm", "Established", "Close", "Down")
PEER_TYPES = {"Mesh": "node-to-node mesh", "Node": "node specific", "Global": "global"}


class BirdUnreachable(Transient):
    """Nobody answers on the control socket, or not in BIRD's way."""

    reference = "bird-unreachable"


class BirdSilent(BirdUnreachable):
    """Somebody has the control socket open and does not answer: stopped, stuck or without processor time."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of `node status`."""

    address: str
    type: str
    state: str
    since: str
    info: str

    def row(self) -> tuple[str, str, str, str, str]:
        return self.address, self.type, self.state, self.since, self.info


def ask(path: Path, command: str, *, timeout: float = 2.0) -> list[str]:
    """Send a command and return the reply's lines without their codes.

    Raises:
        BirdUnreachable: no socket, no answer within `timeout` seconds a line, or an error reply.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            with connection.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines:
                lines.readline()
                connection.sendall(command.encode() + b"\n")
                return _reply(lines, path)
    except TimeoutError as error:
        raise BirdSilent(f"{path}: no answer within {timeout:g} s") from error
    except OSError as error:
        hint = "is calico-bgpd running? see /var/log/calico/bgpd/current"
        raise BirdUnreachable(f"{path}: {error}", hint=hint) from error


def _reply(lines: Iterable[str], path: Path) -> list[str]:
    found: list[str] = []
    for line in lines:
        text = line.rstrip("\n")
        if text.startswith(" "):
            found.append(text[1:])
            continue
        code, separator, rest = text[:4], text[4:5], text[5:]
        if not code.isdigit() or separator not in ("-", " ", ""):
            raise BirdUnreachable(f"{path}: unexpected line {text!r}")
        if code[0] in "89":
            raise BirdUnreachable(f"{path}: {rest}")
        if rest:
            found.append(rest)
        if separator != "-":
            return found
    raise BirdUnreachable(f"{path}: the reply ended early")


def peers(path: Path) -> list[Peer]:
    """Return the BGP sessions, sorted by address."""
    ipv6 = path.name == "bird6.ctl"
    found = [peer for line in ask(path, "show protocols")[1:] if (peer := parse_row(line, ipv6))]
    return sorted(found, key=_order)


def _order(peer: Peer) -> tuple[int, str]:
    try:
        return int(ipaddress.ip_address(peer.address)), ""
    except ValueError:
        return 1 << 128, peer.address


def parse_row(line: str, ipv6: bool) -> Peer | None:
    """Return the peer of one row of ``show protocols``, or None if the row is no BGP session of ours."""
    fields = line.split()
    if len(fields) < 6 or fields[1] != "BGP":
        return None
    prefix, underscore, rest = fields[0].partition("_")
    if not underscore or prefix not in PEER_TYPES:
        return None
    address = rest.replace("_", ":" if ipv6 else ".")
    return Peer(address, PEER_TYPES[prefix], fields[3], fields[4], " ".join(fields[5:]))
