"""Which of a host's addresses the node uses (IP, IP6, IP_AUTODETECTION_METHOD; reference resources.md 5.9). Pure."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resources.errors import ConfigurationError, Rejected
from resources.names import IPAddress, IPInterface

SKIPPED = re.compile(
    r"^(docker.*|cbr.*|dummy.*|virbr.*|lxcbr.*|veth.*|lo|cali.*|tunl.*|flannel.*|kube-ipvs.*|cni.*|br-.*)\Z"
)
"""Interfaces that `first-found` passes over: bridges and tunnels that lead to containers, not to other hosts."""


@dataclass(frozen=True, slots=True)
class HostInterface:
    """An interface of the host that is up, with its addresses in the kernel's order."""

    name: str
    addresses: tuple[IPInterface, ...]
    fleeting: frozenset[IPInterface] = frozenset()
    """Those of its addresses that will go, or are not in use: IPv6 privacy addresses, deprecated ones, duplicates."""


_HINTS = {
    4: "set it by hand, e.g. IP=192.0.2.10; on a host with IPv6 only: IP=none and IP6=autodetect",
    6: "set it by hand, e.g. IP6=2001:db8::10, or IP6=none",
}


class NoAddress(Rejected):
    """The host has no address that fits the method."""

    reference = "no-node-address"


def choose(
    setting: str,
    method: str,
    version: int,
    interfaces: Sequence[HostInterface],
    source_towards: Callable[[IPAddress], IPAddress | None],
) -> IPInterface:
    """Return the node's address with its subnet.

    `setting` is an address (with or without length), or empty or ``autodetect`` for `method`. An address that no
    interface has is taken as it is (with /32): the operator may know better. `source_towards` asks the kernel which
    source address it would use towards a destination (``can-reach=``). No fleeting address is found by a method: the
    other hosts of the cluster would lose this one with it.

    Raises:
        ConfigurationError: the setting or the method cannot be understood.
        NoAddress: nothing found.
    """
    if setting and setting.lower() != "autodetect":
        return _explicit(setting, version, interfaces)
    usable = [
        (i, a) for i in interfaces for a in i.addresses
        if a.version == version and _is_usable(a) and a not in i.fleeting
    ]
    name, _, argument = method.partition("=")
    match name:
        case "" | "first-found":
            found = [a for i, a in usable if not SKIPPED.match(i.name)]
        case "interface":
            found = _by_pattern(argument, usable, wanted=True)
        case "skip-interface":
            found = _by_pattern(argument, usable, wanted=False)
        case "can-reach":
            try:
                source = source_towards(ipaddress.ip_address(argument))
            except ValueError:
                raise ConfigurationError(
                    f"can-reach={argument}: not an address", hint="use can-reach=ADDRESS, e.g. can-reach=192.0.2.1"
                ) from None
            there = [i for i in interfaces if any(a.ip == source for a in i.addresses)]
            found = [a for _, a in usable if a.ip == source] or [a for i, a in usable if i in there]
        case _:
            raise ConfigurationError(
                f"unknown autodetection method {method!r}",
                hint="use first-found, can-reach=ADDRESS, interface=REGEX[,...] or skip-interface=REGEX[,...]",
            )
    if not found:
        raise NoAddress(
            f"no IPv{version} address found by {method or 'first-found'} on {', '.join(i.name for i in interfaces)}",
            hint=_HINTS[version],
        )
    return found[0]


def _explicit(setting: str, version: int, interfaces: Sequence[HostInterface]) -> IPInterface:
    try:
        wanted = ipaddress.ip_interface(setting)
    except ValueError:
        raise ConfigurationError(f"invalid IP address specified: {setting}") from None
    if wanted.version != version:
        name = "ip" if version == 4 else "ip6"
        raise ConfigurationError(f"--{name} is wrong IP version", hint=f"{setting} is IPv{wanted.version}")
    if "/" in setting:
        return wanted
    on_host = [a for i in interfaces for a in i.addresses if a.ip == wanted.ip]
    return on_host[0] if on_host else wanted


def _by_pattern(
    patterns: str, usable: Sequence[tuple[HostInterface, IPInterface]], *, wanted: bool
) -> list[IPInterface]:
    found: list[IPInterface] = []
    try:
        expressions = [re.compile(pattern.strip()) for pattern in patterns.split(",") if pattern.strip()]
    except re.error as error:
        raise ConfigurationError(f"{patterns!r} is no regular expression: {error}") from None
    if wanted:
        for expression in expressions:
            found.extend(a for i, a in usable if expression.match(i.name))
        return found
    return [a for i, a in usable if not SKIPPED.match(i.name) and not any(e.match(i.name) for e in expressions)]


def _is_usable(address: IPInterface) -> bool:
    return not (address.ip.is_loopback or address.ip.is_link_local or address.ip.is_multicast)
