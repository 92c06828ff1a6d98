"""Rules in the words of iptables-restore, and chains with their hashes.

The text is hashed as written here, and the hashes are those of the original Calico (reference felix.md 3.3), so that
either can take over rules that the other left. Conditions keep their order.
"""

import re
from collections.abc import Iterable
from typing import assert_never

from felix import desired
from felix.calc.model import PortRange
from felix.render.chains import (
    ClearMark,
    Condition,
    End,
    Goto,
    HasIcmpType,
    HasProtocol,
    InInterface,
    InNet,
    InPorts,
    InSet,
    InState,
    IsLocal,
    Jump,
    Log,
    MarkIs,
    Masquerade,
    OutInterface,
    PacketLog,
    Rule,
    SetMark,
    SourceNat,
    SourceNotRoutedBack,
    Target,
    Verdict,
)
from felix.render.names import rule_tags

COMMENT_MAX = 255
LOG_PREFIX_MAX = 29
PACKET_LOG_BYTES = 80
"""So much of a packet is handed on: the headers of IPv6 and TCP, with options."""
PORT_SLOTS = 15
APPENDS = "*appends*"
"""Rules that are appended to a kernel chain are hashed as if the chain had this at the end of its name."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_ @%+=:,./-]")


def render_chain(name: str, rules: Iterable[Rule], hashed_as: str | None = None) -> desired.Chain:
    """Return the chain as text with hashes; `hashed_as` if the hashes go by another name than the chain's."""
    return _tagged(hashed_as or name, [rule_text(rule) for rule in rules])


def render_kernel_chain(name: str, inserts: Iterable[Rule], appends: Iterable[Rule]) -> desired.KernelChain:
    """Return our rules in a chain of the kernel's."""
    return desired.KernelChain(render_chain(name, inserts), render_chain(name, appends, name + APPENDS))


def _tagged(hashed_as: str, texts: list[str]) -> desired.Chain:
    tags = rule_tags(hashed_as, texts)
    return desired.Chain(
        tuple(f'-m comment --comment "cali:{tag}" {text}' for tag, text in zip(tags, texts, strict=True)), tags
    )


def rule_text(rule: Rule) -> str:
    """Return what follows ``-A <chain>``, without the hash comment."""
    fragments = [f'-m comment --comment "{safe_comment(comment)}"' for comment in rule.comments]
    fragments += map(_condition, rule.conditions)
    fragments.append(_target(rule.target))
    return " ".join(fragments)


def safe_comment(text: str) -> str:
    """Return `text` with what a rule file could stumble over replaced, cut to what the kernel keeps."""
    return _UNSAFE.sub("_", text)[:COMMENT_MAX]


def _condition(condition: Condition) -> str:
    match condition:
        case MarkIs(value, mask, negated):
            return f"-m mark {_not(negated)}--mark {f'{value:#x}' if value else '0'}/{mask:#x}"
        case InSet(end, name, negated, port):
            direction = "src" if end is End.SOURCE else "dst"
            return f"-m set {_not(negated)}--match-set {name} {f'{direction},{direction}' if port else direction}"
        case HasProtocol(protocol, negated):
            return f"{_not(negated)}-p {protocol}"
        case InPorts(end, ports, negated):
            return f"-m multiport {_not(negated)}--{end.value}-ports {','.join(map(_ports, ports))}"
        case InNet(end, net, negated):
            return f"{_not(negated)}--{end.value} {net}"
        case InInterface(name):
            return f"--in-interface {name}"
        case OutInterface(name):
            return f"--out-interface {name}"
        case InState(states, negated):
            return f"-m conntrack {_not(negated)}--ctstate {states}"
        case HasIcmpType(version, kind, code, negated):
            module, option = ("icmp", "--icmp-type") if version == 4 else ("icmp6", "--icmpv6-type")
            return f"-m {module} {_not(negated)}{option} {kind if code is None else f'{kind}/{code}'}"
        case IsLocal(end, negated, outgoing):
            option = "--src-type" if end is End.SOURCE else "--dst-type"
            return f"-m addrtype {_not(negated)}{option} LOCAL{' --limit-iface-out' if outgoing else ''}"
        case SourceNotRoutedBack():
            return "-m rpfilter --invert --validmark"
        case _:
            assert_never(condition)


def _target(target: Target) -> str:
    match target:
        case Verdict():
            return f"--jump {target.value}"
        case Jump(chain):
            return f"--jump {chain}"
        case Goto(chain):
            return f"--goto {chain}"
        case SetMark(value, mask):
            return f"--jump MARK --set-mark {value:#x}/{mask:#x}"
        case ClearMark(bits):
            return f"--jump MARK --set-mark 0/{bits:#x}"
        case Log(prefix):
            return f'--jump LOG --log-prefix "{prefix[: LOG_PREFIX_MAX - 2]}: " --log-level 5'
        case PacketLog(group, prefix):
            return f'--jump NFLOG --nflog-group {group} --nflog-prefix "{prefix}" --nflog-size {PACKET_LOG_BYTES}'
        case Masquerade(ports, random):
            return "--jump MASQUERADE" + _to_ports(ports) + _random(random)
        case SourceNat(address, ports, random):
            to = address if ports is None else f"{address}:{ports[0]}-{ports[1]}"
            return f"--jump SNAT --to-source {to}{_random(random)}"
        case _:
            assert_never(target)


def _not(negated: bool) -> str:
    return "! " if negated else ""


def _ports(ports: PortRange) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}:{ports[1]}"


def _to_ports(ports: PortRange | None) -> str:
    return "" if ports is None else f" --to-ports {ports[0]}-{ports[1]}"


def _random(random: bool) -> str:
    return " --random-fully" if random else ""
