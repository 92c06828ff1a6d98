"""ExaBGP and its relay in memory: the `Child` of bgpd.speaker, with the habits that reference bgp.md 2 found.

It reads the configuration it is given, answers commands with ExaBGP's lines, keeps adj-rib-in and -out, forgets both as
the real one does, and can be told to misbehave. What it says is queued in `outbox` until the test takes it.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from bgpd.plan import Found, digest
from bgpd.speaker import ChildEnded, ChildMessage, Lines, RelayClosed, Validated
from resources.names import IPAddress

_NEIGHBOR = re.compile(r"^neighbor (\S+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"^  ([a-z0-9-]+) ([^;{]+);$", re.MULTILINE)

Attributes = Mapping[str, object]


@dataclass
class FakePeer:
    """One neighbour of the running ExaBGP."""

    settings: dict[str, str]
    is_up: bool = False
    up_at: float = 0.0
    router_id: str | None = None
    graceful: bool = False
    received: dict[str, tuple[str, dict[str, object]]] = field(default_factory=dict)
    """adj-rib-in: prefix -> next hop and attributes."""
    offered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """adj-rib-out: prefix -> communities."""
    words: dict[str, str] = field(default_factory=dict)
    """adj-rib-out: prefix -> next hop and attributes as they were said."""
    ends: int = 0
    """End-of-RIBs that were sent in this session."""
    updates: int = 0
    """UPDATEs that were sent in this session, as it counts them itself."""

    @property
    def families(self) -> str:
        return "ipv6 unicast" if ":" in self.settings["local-address"] else "ipv4 unicast"


class FakeExabgp:
    """Implements Child. `now` is the test's clock."""

    def __init__(self) -> None:
        self.outbox: list[ChildMessage] = []
        self.now = 1000.0
        self.peers: dict[str, FakePeer] = {}
        self.pid: int | None = None
        self.environment: Mapping[str, str] = {}
        self.starts = 0
        self.signals = 0
        self.commands: list[str] = []
        """All that was ever said, questions left out."""
        self.refuse_validation: str | None = None
        self.is_unchecked = False
        """It cannot be asked whether it takes a configuration."""
        self.guarded: dict[IPAddress, int] | None = None
        """The least TTL of packets from an address, as it was set last."""
        self.guard_fault: str | None = None
        self.deaf_signals = 0
        """So many reloads to come are forgotten."""
        self.is_poisoned = False
        """Every reload fails, until the next start."""
        self.is_hung = False
        self.is_mute = False
        """It takes what it is told to announce, and sends nothing."""
        self.held: list[str] | None = None
        """Commands that it is too slow to answer now, if it is."""
        self.validations = 0
        self.refuse_commands = 0
        """So many commands to come are answered by error."""
        self.left_behind: Found | None = None
        """What `find` finds."""
        self.before: dict[str, Callable[[], None]] = {}
        """What happens just before a question is answered."""
        self.last = ""
        """The last line of its log."""
        self.unanswered = 0
        self.lost = 0
        self._boot = 0
        self._file = ""
        self._note: Found | None = None
        self._connection = 0
        self._connected: int | None = None
        self._has_relay = True

    # --- Child -------------------------------------------------------------------------------------------------------

    def find(self) -> Found | None:
        return self.left_behind

    def start(self, configuration: str, environment: Mapping[str, str]) -> int:
        assert self.pid is None, "two ExaBGP at once"
        self.starts += 1
        self.pid = 100 + self.starts
        self._boot += 1
        self.is_poisoned, self._has_relay = False, True
        self._file, self.environment, self.peers = configuration, dict(environment), {}
        self._load()
        return self.pid

    def validate(self, configuration: str, environment: Mapping[str, str]) -> None:
        self.validations += 1
        if self.is_unchecked:
            self.outbox.append(Validated(digest(configuration), "Cannot allocate memory", is_verdict=False))
        else:
            self.outbox.append(Validated(digest(configuration), self.refuse_validation))

    def install(self, configuration: str) -> None:
        self._file = configuration

    def reload(self) -> None:
        self.signals += 1
        if self.deaf_signals:
            self.deaf_signals -= 1
        elif not self.is_poisoned and self.pid is not None:
            self._load()

    def guard(self, least_ttl: Mapping[IPAddress, int]) -> str | None:
        if self.guard_fault is None:
            self.guarded = dict(least_ttl)
        return self.guard_fault

    def note(self, found: Found) -> None:
        self._note = found

    def connect(self, seconds: float) -> int:
        self._connection += 1
        self._connected = None
        if self.pid is not None and not self._has_relay:
            self.outbox.append(RelayClosed(self._connection, "connection refused"))
        elif self.pid is not None and not self.is_hung:
            self._connected = self._connection
            hello = {
                "type": "hello",
                "pid": self.pid,
                "boot": str(self._boot),
                "lost": self.lost,
                "unanswered": self.unanswered,
            }
            self._say(json.dumps(hello))
            for _ in range(self.unanswered):
                self._say("done")
            self.lost = self.unanswered = 0
        return self._connection

    def write(self, data: bytes) -> None:
        if self.is_hung or self._connected is None:
            return
        for line in data.decode("ascii").splitlines():
            if self.held is None:
                self._command(line)
            else:
                self.held.append(line)

    def end(self, *, hard: bool) -> None:
        self._connected = None
        if self.pid is not None and (hard or not self.is_hung):
            self.die(0)

    def catch_up(self) -> None:
        """Answer everything that was put to it while it was slow."""
        held, self.held = self.held or [], None
        for line in held:
            self._command(line)

    # --- what happens to it -------------------------------------------------------------------------------------------

    def peer_up(
        self, address: str, *, graceful: bool | None = True, router_id: str | None = None, has_restarted: bool = False
    ) -> None:
        """Bring a session up. `graceful` None: the peer's OPEN says nothing of a restart."""
        peer = self.peers[address]
        assert not peer.is_up
        self.peer_connects(address)
        capabilities: dict[str, object] = {"1": {"name": "multiprotocol", "families": ["ipv4/unicast"]}}
        if graceful is not None:
            flags = {peer.families.replace(" ", "/"): ["restart"]} if graceful else {}
            capabilities["64"] = {
                "name": "graceful restart",
                "time": 120,
                "address-family-flags": flags,
                "restart-flags": ["forwarding"] if has_restarted else [],
            }
        peer.router_id = router_id or (address if ":" not in address else "9.9.9.9")
        peer.graceful = bool(graceful)
        said = {"version": 4, "asn": 64512, "hold_time": 90, "router_id": peer.router_id, "capabilities": capabilities}
        self._event(address, "open", {"direction": "receive", "open": said})
        settings = peer.settings
        if peer.router_id == settings["router-id"] and settings["local-as"] == settings["peer-as"]:
            self.peer_down(address, "notification sent (2,3)")
            return
        self._event(address, "fsm", {"state": "OPENCONFIRM"})
        self._event(address, "fsm", {"state": "ESTABLISHED"})
        peer.received.clear()
        peer.is_up, peer.up_at, peer.ends = True, self.now, 0
        peer.updates = int(bool(peer.offered) and not self.is_mute)
        self._event(address, "state", {"state": "up"})

    def peer_connects(self, address: str) -> None:
        """A connection is there, and what the peer says is awaited."""
        self._event(address, "state", {"state": "connected"})
        self._event(address, "fsm", {"state": "CONNECT"})
        self._event(address, "fsm", {"state": "OPENSENT"})

    def peer_down(self, address: str, reason: str = "closing connection") -> None:
        peer = self.peers[address]
        peer.is_up = False
        self._event(address, "state", {"state": "down", "reason": reason})
        self._event(address, "fsm", {"state": "IDLE"})

    def peer_notifies(self, address: str, code: int, subcode: int) -> None:
        """The peer sends a NOTIFICATION and closes."""
        said = {"code": code, "subcode": subcode, "data": "0x", "message": ""}
        self._event(address, "notification", {"direction": "receive", "notification": said})
        self.peer_down(address, f"notification received ({code},{subcode})")

    def peer_refuses(self, address: str) -> None:
        """A connection is tried and refused."""
        self._event(address, "fsm", {"state": "ACTIVE"})
        self._event(address, "state", {"state": "connected"})
        self._event(address, "fsm", {"state": "CONNECT"})
        self.peer_down(address)

    def peer_sends(
        self, address: str, prefixes: Iterable[str], next_hop: str | None = None, **attributes: object
    ) -> None:
        """The peer announces prefixes; attributes in ExaBGP's words, with underscores."""
        peer = self.peers[address]
        assert peer.is_up
        said: dict[str, object] = {"origin": "igp", "local-preference": 100}
        said |= {key.replace("_", "-"): value for key, value in attributes.items()}
        listed = list(prefixes)
        for prefix in listed:
            peer.received[prefix] = (next_hop or address, said)
        announce = {peer.families: {next_hop or address: [{"nlri": prefix} for prefix in listed]}}
        self._event(address, "update", {"message": {"update": {"attribute": said, "announce": announce}}})

    def peer_withdraws(self, address: str, prefixes: Iterable[str]) -> None:
        peer = self.peers[address]
        listed = list(prefixes)
        for prefix in listed:
            peer.received.pop(prefix, None)
        withdraw = {peer.families: [{"nlri": prefix} for prefix in listed]}
        self._event(address, "update", {"message": {"update": {"withdraw": withdraw}}})

    def peer_ends(self, address: str) -> None:
        """The peer says that it has sent all (End-of-RIB)."""
        afi, safi = self.peers[address].families.split()
        self._event(address, "update", {"message": {"eor": {"afi": afi, "safi": safi}}})

    def die(self, status: int | None = -9) -> None:
        """End at once; nothing is said but that."""
        assert self.pid is not None
        if self._connected is not None:
            self.outbox.append(RelayClosed(self._connected, "the relay closed its socket"))
        self.outbox.append(ChildEnded(self.pid, status, self.last))
        self.pid, self._connected, self.peers = None, None, {}

    def lose_relay(self) -> None:
        """Only the relay dies."""
        self._has_relay = False
        self.cut_the_line()

    def cut_the_line(self) -> None:
        """The relay lets bgpd go, as it does with one that reads too slowly; what is on its way is lost."""
        assert self._connected is not None
        self.lost += len(self.outbox)
        self.outbox[:] = [RelayClosed(self._connected, "the relay closed its socket")]
        self._connected = None

    def stay_behind(self) -> None:
        """Let go of a bgpd that died; the next one will find this ExaBGP."""
        self.outbox.clear()
        self._connected = None
        self.left_behind = self._note

    # --- inside ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        wanted = {name: dict(_SETTING.findall(body)) for name, body in _NEIGHBOR.findall(self._file)}
        for address in self.peers.keys() - wanted.keys():
            gone = self.peers.pop(address)
            if gone.is_up:
                self._event(address, "fsm", {"state": "IDLE"})
        for address, settings in wanted.items():
            known = self.peers.get(address)
            if known is None:
                self.peers[address] = FakePeer(settings)
            elif _name(known.settings) != _name(settings):
                # to ExaBGP it is another peer, to whom nothing was announced
                if known.is_up:
                    self.peer_down(address, "stop, message [removed]")
                self.peers[address] = FakePeer(settings)
            elif known.settings != settings:
                known.settings = settings
                if known.is_up:
                    self.peer_down(address, "graceful restarted negotiated, closing without sending any notification")

    def _say(self, line: str) -> None:
        if self._connected is None:
            self.lost += 1
        else:
            self.outbox.append(Lines(self._connected, (line.encode("ascii"),)))

    def _event(self, address: str, kind: str, content: Mapping[str, object]) -> None:
        peer = self.peers.get(address)
        local = peer.settings["local-address"] if peer else ""
        neighbor = {"address": {"local": local, "peer": address}, "asn": {"local": 64512, "peer": 64512}, **content}
        self._say(json.dumps({"exabgp": "5.0.0", "time": self.now, "type": kind, "neighbor": neighbor}))

    def _command(self, line: str) -> None:
        self.before.pop(line, lambda: None)()
        match line.split():
            case ["show", "neighbor", "json"]:
                self._say(json.dumps([self._row(address) for address in self.peers]))
            case ["show", "adj-rib", "in", "json"]:
                for address, peer in self.peers.items():
                    for prefix, (next_hop, attributes) in peer.received.items():
                        self._show(address, prefix, next_hop, attributes)
            case ["show", "adj-rib", "out", "json"]:
                for address, peer in self.peers.items():
                    for prefix, communities in peer.offered.items():
                        self._show(address, prefix, peer.settings["local-address"], {"community": list(communities)})
            case ["show", "adj-rib", "out", wanted, "json"]:
                for address, peer in self.peers.items():
                    for prefix, communities in peer.offered.items() if address.startswith(wanted) else ():
                        self._show(address, prefix, peer.settings["local-address"], {"community": list(communities)})
            case ["version"]:
                self._say("exabgp 5.0.15")
            case words:
                self.commands.append(line)
                if self.refuse_commands:
                    self.refuse_commands -= 1
                    self._say("error")
                    return
                self._say("done" if self._do(words) else "error")
                return
        self._say("done")

    def _do(self, words: list[str]) -> bool:
        match words:
            case ["neighbor", address, "announce", "eor", afi, safi] if address in self.peers:
                peer = self.peers[address]
                peer.ends += peer.is_up
                peer.updates += int(peer.is_up and not self.is_mute)
                return peer.is_up and f"{afi} {safi}" == peer.families
            case ["neighbor", address, "flush", "adj-rib", "out"] if address in self.peers:
                peer = self.peers[address]
                peer.updates += int(peer.is_up and not self.is_mute and bool(peer.offered))
                return peer.is_up
            case ["neighbor", address, verb, "attributes", "next-hop", *rest] if address in self.peers:
                at = rest.index("nlri")
                said, offered = " ".join(rest[:at]), self.peers[address].offered
                for text in rest[at + 1 :]:
                    assert str(ip_network(text)) == text
                    assert ip_network(text).version == ip_address(address).version
                    if verb == "announce":
                        lists = " ".join(re.findall(r"community \[([^]]*)\]", said))
                        offered[text] = tuple(lists.split())
                        self.peers[address].words[text] = said
                    else:
                        offered.pop(text, None)
                        self.peers[address].words.pop(text, None)
                self.peers[address].updates += int(self.peers[address].is_up and not self.is_mute)
                return True
        return False

    @property
    def passwords(self) -> dict[str, str]:
        """What each session is signed with, by the peer's address."""
        coded = {address: peer.settings.get("md5-password", "") for address, peer in self.peers.items()}
        return {address: base64.b64decode(text.strip('"')).decode() for address, text in coded.items() if text}

    def _row(self, address: str) -> dict[str, object]:
        peer = self.peers[address]
        return {
            # as the real one: by the whole seconds
            "state": "up" if peer.is_up and self.now - peer.up_at >= 1 else "down",
            "duration": int(self.now - peer.up_at) if peer.is_up else 3,
            "fsm": "ESTABLISHED" if peer.is_up else "IDLE",
            "local": {
                "address": peer.settings["local-address"],
                "as": int(peer.settings["local-as"]),
                "id": peer.settings["router-id"],
                "hold": int(peer.settings["hold-time"]),
                "capabilities": {"graceful-restart": True},
            },
            "peer": {
                "address": address,
                "as": int(peer.settings["peer-as"]),
                "id": peer.router_id if peer.is_up else None,
                "hold": 90 if peer.is_up else None,
                "capabilities": {"graceful-restart": peer.graceful if peer.is_up else None},
            },
            "messages": {"sent": {"update": peer.updates}},
        }

    def _show(self, address: str, prefix: str, next_hop: str, attributes: Mapping[str, object]) -> None:
        family = {"afi": "ipv6" if ":" in prefix else "ipv4", "safi": "unicast"}
        route = {"nlri": {"prefix": prefix, "nexthop": next_hop, "family": family}, "attributes": attributes}
        self._say(json.dumps({"peer": {"address": address}, "route": route}))


def _name(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return what ExaBGP knows a neighbour by, beside its address."""
    return tuple(settings[key] for key in ("router-id", "local-address", "local-as", "peer-as"))
