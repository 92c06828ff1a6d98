"""One answer about a packet's whole way: what the hosts on it say, joined.

A host knows the policies of its own endpoints only, so a question about two ends needs what both their hosts concluded.
Every host is asked in the order in which the packet meets them, with the packet as it is there (masqueraded, if the
first host does that), until one denies.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from felix.calc.answers import HostVerdict, Outcome
from felix.calc.match import Packet
from felix.calc.verdict import HostView
from resources.names import IfName, IPAddress, NodeName


class Where(enum.Enum):
    """What is at one end of a packet's way."""

    WORKLOAD = "a workload"
    HOST = "a host itself"
    OUTSIDE = "outside of the cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One end. `node`: not of OUTSIDE; `interface`: the host's side of a workload's, else None."""

    where: Where
    node: NodeName | None = None
    interface: IfName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A host: what it concluded, its own addresses, and the interface by which it reaches everything else."""

    view: HostView
    addresses: frozenset[IPAddress]
    uplink: IfName


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a packet from one end to the other.

    DENIED as soon as one host denies, ALLOWED where each allows, else LEFT to the own rules of those hosts that leave
    it. `hosts`: as asked, in order; nobody where policy has nothing to say. `packet`: as it is after the last of them.
    """

    outcome: Outcome
    source: Place
    destination: Place
    hosts: tuple[HostVerdict, ...]
    packet: Packet


class Cluster:
    """Hosts that are asked together. Endpoints of hosts that are not among them count as outside."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._sites = {site.view.node: site for site in sites}

    def place_of(self, address: IPAddress) -> Place:
        """Return whose address it is. Of several workloads with one address the first by node and interface."""
        for node, site in sorted(self._sites.items()):
            if address in site.addresses:
                return Place(where=Where.HOST, node=node)
            for endpoint in site.view.endpoints_with(address):
                return Place(where=Where.WORKLOAD, node=node, interface=endpoint.interface)
        return Place(where=Where.OUTSIDE)

    def ask(self, packet: Packet, source: Place | None = None) -> Verdict:
        """Answer about a packet; `source`: where it really comes from, if that is not where its address belongs."""
        start, end = source or self.place_of(packet.source), self.place_of(packet.translated.destination)
        verdicts: list[HostVerdict] = []
        for node in dict.fromkeys(node for node in (start.node, end.node) if node is not None):
            site = self._sites[node]
            came = start.interface if node == start.node else site.uplink
            goes = end.interface if node == end.node else site.uplink
            if came is None and goes is None:
                break  # the host talks to itself
            verdicts.append(_on_host(site.view, packet, came, goes))
            if verdicts[-1].outcome is Outcome.DENIED:
                break
            if goes is not None and not verdicts[-1].is_untracked:
                packet = _as_it_leaves(site, packet)
        outcome = Outcome.LEFT
        if any(verdict.outcome is Outcome.DENIED for verdict in verdicts):
            outcome = Outcome.DENIED
        elif verdicts and all(verdict.outcome is Outcome.ALLOWED for verdict in verdicts):
            outcome = Outcome.ALLOWED
        return Verdict(outcome=outcome, source=start, destination=end, hosts=tuple(verdicts), packet=packet)


def _on_host(view: HostView, packet: Packet, came: IfName | None, goes: IfName | None) -> HostVerdict:
    """Ask one host; None stands for the host itself."""
    if came is not None and goes is not None:
        return view.forward(packet, came, goes)
    if came is not None:
        return view.to_host(packet, came)
    assert goes is not None
    return view.from_host(packet, goes)


def _as_it_leaves(site: Site, packet: Packet) -> Packet:
    """Return the packet after the host's NAT."""
    packet = packet.translated
    if not site.view.masquerades(packet):
        return packet
    own = sorted(address for address in site.addresses if address.version == packet.version)
    return replace(packet, source=own[0]) if own else packet
