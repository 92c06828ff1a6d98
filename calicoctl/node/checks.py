"""`calicoctl node checksystem`: can this host do what we need, and which ports must be open (resources.md 5.9).

Features are tried, not looked up. Each failed check says what it is for and the way out.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from kernel import probe
from kernel.xtables import BackEnd
from kernel.xtables_detect import Choice, decide
from resources.errors import CalicoError
from resources.runtime.nodename import node_name

MINIMUM_KERNEL = (2, 6, 24)
NAME_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Opening:
    """Something that the host's INPUT policy must let in."""

    what: str
    from_whom: str
    rule: str
    """The match of an iptables rule for it."""
    purpose: str
    families: tuple[int, ...] = (4, 6)
    """The versions of IP that it concerns: iptables, ip6tables."""


def openings(
    *, etcd_ports: Iterable[int] = (), ipip: bool = False, vxlan: bool = False, docker: bool = True
) -> list[Opening]:
    """Return what must be open on a host, given what the cluster uses. Pure."""
    nodes = "the other nodes"
    found = [
        Opening("loopback", "this host", "-i lo", "the daemons talk to each other"),
        Opening("established", "anywhere", "-m conntrack --ctstate RELATED,ESTABLISHED", "replies"),
        Opening("icmp echo", "anywhere", "-p icmp --icmp-type echo-request", "ping, also by containers", (4,)),
        # nothing from beyond the link has that hop limit (RFC 4861)
        Opening(
            "icmpv6 133-136", "the link", "-p icmpv6 -m hl --hl-eq 255", "neighbour discovery, on hosts with IPv6", (6,)
        ),
        Opening("icmpv6 echo", "anywhere", "-p icmpv6 --icmpv6-type echo-request", "ping, on hosts with IPv6", (6,)),
        Opening("tcp 179", nodes, "-p tcp --dport 179", "BGP"),
    ]
    found += [
        Opening(f"tcp {port}", nodes, f"-p tcp --dport {port}", "etcd, on hosts that run a member")
        for port in sorted(set(etcd_ports))
    ]
    if ipip:
        found.append(Opening("protocol 4", nodes, "-p 4", "pools with IPIP", (4,)))
    if vxlan:
        found.append(Opening("udp 4789", nodes, "-p udp --dport 4789", "pools with VXLAN"))
    if docker:
        found.append(Opening("tcp 7946", nodes, "-p tcp --dport 7946", "Docker with --cluster-advertise"))
        found.append(Opening("udp 7946", nodes, "-p udp --dport 7946", "Docker with --cluster-advertise"))
    return found


def checksystem(
    config: str | None,
    *,
    choose_back_end: Callable[[str | None], Choice] | None = None,
    try_features: Callable[[BackEnd], Sequence[probe.Finding]] = lambda chosen: probe.try_features(back_end=chosen),
    missing_programs: Callable[[BackEnd], Sequence[str]] = probe.missing_programs,
) -> int:
    """Print the checks and the list of openings; 0 if the host has what is required."""
    good = _check_kernel_version()
    hints: list[str] = []
    click.echo("Checking iptables...")
    choice = (choose_back_end or _choose_back_end)(config)
    _row(f"{choice.back_end} back end", not choice.trouble)
    click.echo(f"\t\t  {choice.reason}")
    if choice.trouble:
        good = False
        hints.append(f"rules by the {choice.back_end} back end: {choice.trouble}; {choice.hint}")
    click.echo("Checking kernel features...")
    for finding in try_features(choice.back_end):
        optional = not finding.feature.required
        _row(finding.feature.name, finding.works, optional=optional)
        if not finding.works:
            hints.append(way_out(finding))
            good &= optional
    click.echo("Checking programs...")
    missing = missing_programs(choice.back_end)
    for program in probe.programs(choice.back_end):
        _row(program, program not in missing)
    if missing:
        good = False
        hints.append(f"install what is missing: {', '.join(missing)} (Debian: iptables ipset iproute2 conntrack)")
    click.echo("Checking settings...")
    good &= _check_settings(hints)
    for hint in hints:
        click.echo(f"  {hint}", err=True)
    _print_openings(config)
    if good:
        click.echo("System meets minimum system requirements to run Calico!")
        return 0
    click.echo("System doesn't meet one or more minimum systems requirements to run Calico")
    return 1


def way_out(finding: probe.Finding) -> str:
    """Return what a feature that does not work is for, what was said about it, and what to do. Pure."""
    feature = finding.feature
    what = f"{feature.name} ({feature.purpose}) does not work: {finding.detail or 'no reason was given'}"
    module = {"xt_MARK": "xt_mark", "ip_tables": "iptable_filter"}.get(feature.name, feature.name)
    if feature.required:
        return f"{what}; load it (modprobe {module}), or take a kernel that has it"
    return f"{what}; needed only for {feature.purpose}, {feature.without} without it (modprobe {module})"


def _choose_back_end(config: str | None) -> Choice:
    """Choose as felix does: by its environment, or the store if that answers, and by what is on the host."""
    setting = os.environ.get("FELIX_IPTABLESBACKEND", "") or _stored_back_end(config) or "Auto"
    return decide(setting)


def _stored_back_end(config: str | None) -> str:
    from calicoctl.session import open_client
    from resources.kinds.felixconfiguration import KIND

    try:
        with open_client(config) as client:
            found = {item.metadata.name: item.spec.iptables_backend for item in client.list(KIND).items}
            return found.get(f"node.{node_name()[0]}") or found.get("default", "")
    except CalicoError:
        return ""


def _check_kernel_version() -> bool:
    click.echo("Checking kernel version...")
    release = os.uname().release
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:3])
    good = numbers >= MINIMUM_KERNEL
    _row(release, good)
    return good


def _check_settings(hints: list[str]) -> bool:
    good = True
    writable = os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK)
    _row("/proc/sys writable", writable)
    if not writable:
        good = False
        hints.append("felix switches IP forwarding on; start the container with --privileged")
    name = socket.gethostname()
    known = name_in_hosts(name, _hosts())
    _row("own name in hosts", known, optional=True)
    if not known:
        hints.append(f"{name} is not in /etc/hosts: programs that ask for it wait for DNS when DNS is down")
    loose = _rp_filter() == "2"
    _row("rp_filter not loose", not loose, optional=True)
    if loose:
        hints.append("net.ipv4.conf.all.rp_filter = 2 (loose): spoofing is still caught by felix's own rule")
    return good


def name_in_hosts(name: str, text: str) -> bool:
    """Return whether a hosts file names a host. Pure."""
    wanted = name.lower()
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if wanted in (word.lower() for word in words[1:]):
            return True
    return False


def _hosts() -> str:
    try:
        return Path("/etc/hosts").read_text(errors="replace")
    except OSError:
        return ""


def _rp_filter() -> str:
    try:
        return Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip()
    except OSError:
        return ""


def _row(name: str, good: bool, *, optional: bool = False) -> None:
    verdict = "OK" if good else ("MISSING (optional)" if optional else "FAIL")
    click.echo(f"\t\t{name.ljust(NAME_WIDTH)}\t\t\t\t\t{verdict}")


def _print_openings(config: str | None) -> None:
    ports, ipip, vxlan, note = _what_the_cluster_uses(config)
    click.echo("What this host's firewall must let in (INPUT):")
    for opening in openings(etcd_ports=ports, ipip=ipip, vxlan=vxlan):
        click.echo(f"\t\t{opening.what.ljust(NAME_WIDTH)}from {opening.from_whom}: {opening.purpose}")
    if note:
        click.echo(f"  {note}", err=True)


def _what_the_cluster_uses(config: str | None) -> tuple[Sequence[int], bool, bool, str]:
    """Return etcd's ports and whether pools use IPIP and VXLAN; everything if the store cannot be asked."""
    from calicoctl.session import load_settings, open_client
    from resources.kinds import by_name

    try:
        settings = load_settings(config)
        ports = [urlsplit(endpoint).port or 2379 for endpoint in settings.endpoints]
    except CalicoError as error:
        return (2379,), True, True, f"the datastore is not configured, so everything is listed: {error}"
    try:
        with open_client(config) as client:
            pools = [pool.spec for pool in client.list(by_name()["IPPool"]).items]
    except CalicoError as error:
        return ports, True, True, f"the store cannot be asked which tunnels are used, so both are listed: {error}"
    ipip = any(pool.ipip_mode not in ("", "Never") for pool in pools)
    vxlan = any(pool.vxlan_mode not in ("", "Never") for pool in pools)
    return ports, ipip, vxlan, ""
