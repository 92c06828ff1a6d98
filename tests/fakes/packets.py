"""A packet's way through rendered rules: reads rule text as the kernel would, and refuses what the kernel would refuse.

It knows the text of rules only, nothing of how they were made.
"""

import ipaddress
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from felix.desired import Chain, ChainKey, Desired, IPSet
from resources.names import IPAddress, parse_address

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
PORT_PROTOCOLS = {6, 17, 132, 136}
MODULES = {
    "--comment": "comment", "--match-set": "set", "--source-ports": "multiport", "--destination-ports": "multiport",
    "--mark": "mark", "--ctstate": "conntrack", "--icmp-type": "icmp", "--icmpv6-type": "icmp6",
    "--src-type": "addrtype", "--dst-type": "addrtype", "--limit-iface-out": "addrtype", "--invert": "rpfilter",
    "--validmark": "rpfilter",
}  # fmt: skip
ONLY_IN = {"REJECT": "filter", "NOTRACK": "raw"}
DEPTH_MAX = 16


class RuleRefused(Exception):
    """The kernel, or the program that writes rules, would not take this."""


@dataclass(frozen=True, kw_only=True)
class Packet:
    """`state`: connection tracking's view. `spoofed`: the way back to the source is another.

    `sent_to`: what NAT makes of destination and port on the way (`translated` is then set from there on).
    """

    source: str
    destination: str
    protocol: int = 6
    source_port: int = 40000
    destination_port: int = 80
    icmp: tuple[int, int] = (8, 0)
    in_interface: str = ""
    out_interface: str = ""
    state: str = "NEW"
    spoofed: bool = False
    mark: int = 0
    sent_to: tuple[str, int] | None = None
    translated: bool = False

    @property
    def version(self) -> int:
        return parse_address(self.source).version


Check = Callable[["Machine", Packet], bool]


@dataclass
class Rule:
    checks: list[Check] = field(default_factory=list)
    target: str = ""
    goto: bool = False
    options: list[str] = field(default_factory=list)
    text: str = ""


@dataclass
class Machine:
    """One family's tables of a host.

    `local`: the host's own addresses. `log`: prefixes that LOG printed. `flow_log`: groups and prefixes of NFLOG.
    `untracked`: whether connection tracking was kept from the last packet.
    `counted`: packets by table, chain and position of the rule that they matched, in chains of ours.
    """

    desired: Desired
    version: int = 4
    local: frozenset[str] = frozenset()
    log: list[str] = field(default_factory=list)
    flow_log: list[tuple[int, str]] = field(default_factory=list)
    counted: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    untracked: bool = False
    _parsed: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)

    def forward(self, packet: Packet, *, policy: str = "DROP") -> bool:
        """Tell whether a packet gets from one interface to another; `policy` is that of FORWARD."""
        return self._way(packet, ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "FORWARD"),
                         ("filter", "FORWARD"), ("mangle", "POSTROUTING"), policy=policy)  # fmt: skip

    def to_host(self, packet: Packet, *, policy: str = "DROP") -> bool:
        """Tell whether a packet gets in to the host itself; `policy` is that of INPUT."""
        return self._way(packet, ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "INPUT"), policy=policy)

    def from_host(self, packet: Packet, *, policy: str = "ACCEPT") -> bool:
        """Tell whether a packet of the host itself gets out."""
        return self._way(packet, ("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"),
                         ("mangle", "POSTROUTING"), policy=policy)  # fmt: skip

    def source_after_nat(self, packet: Packet) -> str:
        """Tell what nat's POSTROUTING does to the source: ``same``, ``MASQUERADE ...`` or ``SNAT ...``."""
        verdict, _ = self._kernel_chain("nat", "POSTROUTING", packet)
        return "same" if verdict in (None, "RETURN") else verdict

    def walk(self, table: str, chain: str, packet: Packet) -> tuple[str | None, int]:
        """Return the verdict of one chain, None if it returns, and the mark it leaves."""
        return self._walk(table, self.rules_of(table, chain), packet, 0, chain)

    def _way(self, packet: Packet, *hooks: tuple[str, str], policy: str) -> bool:
        assert packet.version == self.version
        self.untracked = False
        for table, chain in hooks:
            is_tracked = packet.state not in ("INVALID", "UNTRACKED")  # NAT is for flows that are
            if table == "filter" and packet.sent_to and is_tracked:
                address, port = packet.sent_to
                packet = replace(packet, destination=address, destination_port=port, translated=True)
            verdict, mark = self._kernel_chain(table, chain, packet)
            packet = replace(packet, mark=mark, state="UNTRACKED" if self.untracked else packet.state)
            if verdict in (None, "RETURN"):
                verdict = policy if table == "filter" else "ACCEPT"
            if verdict != "ACCEPT":
                return False
        return True

    def _kernel_chain(self, table: str, chain: str, packet: Packet) -> tuple[str | None, int]:
        ours = self.desired.kernel_chains.get(ChainKey(self.version, table, chain))
        if ours is None:
            return None, packet.mark
        for part in (ours.inserts, ours.appends):
            verdict, mark = self._walk(table, [parse(text) for text in part.rules], packet, 0)
            packet = replace(packet, mark=mark)
            if verdict is not None:
                return verdict, mark
        return None, packet.mark

    def _walk(
        self, table: str, rules: list[Rule], packet: Packet, depth: int, chain: str = ""
    ) -> tuple[str | None, int]:
        """Return the verdict, None at the end of the chain, and the mark."""
        if depth > DEPTH_MAX:
            raise RuleRefused("chains jump in a circle")
        for position, rule in enumerate(rules):
            if not all(check(self, packet) for check in rule.checks):
                continue
            self.counted[table, chain, position] += 1
            match rule.target:
                case "ACCEPT" | "DROP" | "REJECT":
                    return rule.target, packet.mark
                case "RETURN":
                    return None, packet.mark
                case "MASQUERADE" | "SNAT":
                    return " ".join([rule.target, *rule.options]), packet.mark
                case "NOTRACK":
                    self.untracked = True
                case "LOG":
                    self.log.append(rule.options[1])
                case "NFLOG":
                    options = dict(zip(rule.options[::2], rule.options[1::2], strict=True))
                    self.flow_log.append((int(options["--nflog-group"]), options["--nflog-prefix"]))
                case "MARK":
                    value, mask = (int(part, 0) for part in rule.options[1].split("/"))
                    packet = replace(packet, mark=packet.mark & ~mask | value)
                case target:
                    verdict, mark = self._walk(table, self.rules_of(table, target), packet, depth + 1, target)
                    packet = replace(packet, mark=mark)
                    if verdict is not None or rule.goto:
                        return verdict, mark
        return None, packet.mark

    def rules_of(self, table: str, chain: str) -> list[Rule]:
        key = (table, chain)
        if key not in self._parsed:
            found = self.desired.chains.get(ChainKey(self.version, table, chain))
            if found is None:
                raise RuleRefused(f"{table} has no chain {chain}")
            self._parsed[key] = parse_chain(found)
        return self._parsed[key]

    def check_all(self) -> None:
        """Read every rule, reachable or not; every chain and set that a rule names must exist."""
        for key in self.desired.chains:
            if key.version == self.version:
                for rule in self.rules_of(key.table, key.chain):
                    if rule.target in ONLY_IN and ONLY_IN[rule.target] != key.table:
                        raise RuleRefused(f"{rule.target} in table {key.table}")
                    if rule.target.startswith("cali"):
                        self.rules_of(key.table, rule.target)
                    for name in sets_in(rule.text):
                        self.members(name)

    def members(self, name: str) -> IPSet:
        found = self.desired.sets.get(name)
        if found is None or found.version != self.version:
            raise RuleRefused(f"no set {name} of IPv{self.version}")
        return found

    def in_set(self, name: str, directions: str, packet: Packet) -> bool:
        found = self.members(name)
        if found.type == "hash:ip,port":
            assert directions in ("src,src", "dst,dst")
            address, port = _end(packet, directions[:3])
            protocol = {number: text for text, number in PROTOCOLS.items()}.get(packet.protocol, "")
            return packet.protocol in PORT_PROTOCOLS and f"{address},{protocol}:{port}" in found.members
        address, _ = _end(packet, directions)
        return any(address in ipaddress.ip_network(member) for member in found.members)


def _end(packet: Packet, direction: str) -> tuple[IPAddress, int]:
    if direction == "src":
        return parse_address(packet.source), packet.source_port
    return parse_address(packet.destination), packet.destination_port


def sets_in(text: str) -> list[str]:
    words = text.split()
    return [words[at + 1] for at, word in enumerate(words) if word == "--match-set"]


def parse_chain(chain: Chain) -> list[Rule]:
    assert len(chain.rules) == len(chain.tags)
    for text, tag in zip(chain.rules, chain.tags, strict=True):
        assert text.startswith(f'-m comment --comment "cali:{tag}" ')
    return [parse(text) for text in chain.rules]


def parse(text: str) -> Rule:
    """Read one rule.

    Raises:
        RuleRefused: it could not be loaded.
    """
    if "\n" in text:
        raise RuleRefused("a rule of two lines")
    reader = _Reader(shlex.split(text))
    rule = reader.read()
    rule.text = text
    return rule


class _Reader:
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0
        self._rule = Rule()
        self._modules: list[str] = []
        self._protocol: int | None = None
        self._seen: set[str] = set()

    def read(self) -> Rule:
        negated = False
        while self._at < len(self._words):
            word = self._next()
            if word == "!":
                negated = True
                continue
            if word in ("--jump", "--goto"):
                self._rule.target, self._rule.goto = self._next(), word == "--goto"
                self._rule.options = self._words[self._at :]
                return self._rule
            self._option(word, negated)
            negated = False
        raise RuleRefused("no target")

    def _next(self) -> str:
        if self._at == len(self._words):
            raise RuleRefused("a word is missing")
        self._at += 1
        return self._words[self._at - 1]

    def _option(self, word: str, negated: bool) -> None:
        if word == "-m":
            self._modules.append(self._next())
            return
        if word in MODULES and (not self._modules or self._modules[-1] != MODULES[word]):
            raise RuleRefused(f"{word} without -m {MODULES[word]}")
        if word in ("-p", "--source", "--destination", "--in-interface", "--out-interface"):
            if word in self._seen:
                raise RuleRefused(f"multiple {word}")
            self._seen.add(word)
        if word in ("--limit-iface-out", "--validmark"):
            return
        check = self._check(word, negated)
        if check is not None:
            self._rule.checks.append((lambda machine, packet: not check(machine, packet)) if negated else check)

    def _check(self, word: str, negated: bool) -> Check | None:
        if word == "--invert":
            return lambda _, packet: packet.spoofed
        value = self._next()
        match word:
            case "--comment":
                if len(value) > 255:
                    raise RuleRefused("a comment of more than 255 characters")
                return None
            case "-p":
                return self._of_protocol(value, negated)
            case "--source" | "--destination":
                net = ipaddress.ip_network(value)
                side = "src" if word == "--source" else "dst"
                return lambda _, packet: _end(packet, side)[0] in net
            case "--in-interface" | "--out-interface":
                incoming = word == "--in-interface"
                return lambda _, packet: _named(packet.in_interface if incoming else packet.out_interface, value)
            case "--match-set":
                directions = self._next()
                return lambda machine, packet: machine.in_set(value, directions, packet)
            case "--source-ports" | "--destination-ports":
                return self._of_ports(value, "src" if word == "--source-ports" else "dst")
            case "--mark":
                wanted, mask = (int(part, 0) for part in value.split("/"))
                return lambda _, packet: packet.mark & mask == wanted
            case "--ctstate":
                states = value.split(",")
                return lambda _, packet: packet.state in states or ("DNAT" in states and packet.translated)
            case "--icmp-type" | "--icmpv6-type":
                return self._of_icmp(word, value)
            case "--src-type" | "--dst-type":
                return lambda machine, packet: str(_end(packet, word[2:5])[0]) in machine.local
        raise RuleRefused(f"unknown word {word}")

    def _of_protocol(self, value: str, negated: bool) -> Check:
        number = PROTOCOLS.get(value) or int(value)
        if not negated:
            self._protocol = number
        return lambda _, packet: packet.protocol == number

    def _of_ports(self, value: str, side: str) -> Check:
        if self._protocol not in PORT_PROTOCOLS:
            raise RuleRefused("multiport needs a protocol with ports")
        ranges = [tuple(map(int, part.split(":"))) for part in value.split(",")]
        if sum(map(len, ranges)) > 15:
            raise RuleRefused("too many ports")
        return lambda _, packet: any(one[0] <= _end(packet, side)[1] <= one[-1] for one in ranges)

    def _of_icmp(self, word: str, value: str) -> Check:
        if self._protocol != (1 if word == "--icmp-type" else 58):
            raise RuleRefused(f"{word} needs its protocol")
        parts = tuple(map(int, value.split("/")))
        return lambda _, packet: packet.icmp[: len(parts)] == parts


def _named(interface: str, pattern: str) -> bool:
    return interface.startswith(pattern[:-1]) if pattern.endswith("+") else interface == pattern


def machines(desired: Desired, local: Mapping[int, frozenset[str]] | None = None) -> dict[int, Machine]:
    """The tables of both families."""
    return {version: Machine(desired, version, (local or {}).get(version, frozenset())) for version in (4, 6)}
