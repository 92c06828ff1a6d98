"""What could be told to peers, by prefix, and what changed in it since they were told last.

`Book` holds the candidates (this node's own routes, the best learned ones, the host's own) and asks bgpd.calc.offers.
bgpd.routing writes into it, bgpd.peering reads.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from bgpd.calc.exports import Attributes
from bgpd.calc.filters import Filters
from bgpd.calc.offers import Candidate, Offer, OfferRules, offer
from bgpd.calc.paths import Path
from bgpd.calc.prefixes import PrefixTable
from bgpd.calc.sessions import PeerSpec
from resources.names import IPAddress, IPNetwork


class Book:
    """The candidates of one node."""

    def __init__(self) -> None:
        self.rules = OfferRules()
        self._own: Mapping[IPNetwork, Attributes] = {}
        self._workloads: Mapping[IPNetwork, str] = {}
        self._hosts: Mapping[IPNetwork, tuple[str, ...]] = {}
        self._learned: dict[IPNetwork, Path] = {}
        self._withheld: set[IPNetwork] = set()
        """Those that were learned, and that this host sends nothing to."""
        self._changed: set[IPNetwork] = set()
        self._all_changed = True
        self.is_transit = False
        """Whether this node tells anybody about what it learned."""

    # --- what is known -----------------------------------------------------------------------------------------------

    def set_own(self, exports: Mapping[IPNetwork, Attributes], workloads: Mapping[IPNetwork, str]) -> None:
        """Take this node's own routes.

        Args:
            exports: what it announces.
            workloads: the addresses of its workloads, each with its interface: only a filter lets one out that lies in
                a block of this node.
        """
        self._changed |= {prefix for prefix, _ in exports.items() ^ self._own.items()}
        self._changed |= {prefix for prefix, _ in workloads.items() ^ self._workloads.items()}
        self._own, self._workloads = dict(exports), dict(workloads)

    def set_learned(self, prefix: IPNetwork, path: Path | None, *, is_withheld: bool = False) -> None:
        """Take the best path to a prefix; None: there is none."""
        before, was_withheld = self._learned.get(prefix), prefix in self._withheld
        if (before is path or before == path) and was_withheld == is_withheld:
            return
        if path is None:
            self._learned.pop(prefix, None)
        else:
            self._learned[prefix] = path
        if path is not None and is_withheld:
            self._withheld.add(prefix)
        else:
            self._withheld.discard(prefix)
        if self.is_transit:
            self._changed.add(prefix)

    def set_rules(self, rules: OfferRules, blocks: Iterable[IPNetwork] = ()) -> None:
        """Take what decides, except filters and peers, which have their own.

        Args:
            blocks: those of this node that changed: what else there is around them is offered in another way.
        """
        rules = replace(rules, filters=self.rules.filters, peers=self.rules.peers)
        before, self.rules = self.rules, rules
        self.is_transit = self._is_transit()
        if replace(rules, own_blocks=before.own_blocks) != before:
            self._all_changed = True
            self._hosts = rules.surroundings.host_routes
        elif changed := dict.fromkeys(blocks):
            around = PrefixTable(changed)
            self._changed |= {prefix for prefix in self._learned if around.match(prefix) is not None}

    def set_filters(self, filters: Filters) -> None:
        """Take the BGPFilters. Whose peers name one that changed are to be offered everything again by the caller."""
        self.rules = replace(self.rules, filters=filters)

    def set_peers(self, peers: Mapping[IPAddress, PeerSpec]) -> None:
        """Take the sessions: whom a path came from decides who may hear of it."""
        was_transit, before = self.is_transit, self.rules.peers
        self.rules = replace(self.rules, peers=dict(peers))
        self.is_transit = self._is_transit()
        # one that is new has told nothing yet, and what one that is gone told goes with it
        others = any(address in before and _role(before[address]) != _role(peer) for address, peer in peers.items())
        if others or was_transit != self.is_transit:
            self._all_changed = True

    def _is_transit(self) -> bool:
        return self.rules.cluster_id is not None or any(peer.is_external for peer in self.rules.peers.values())

    # --- what follows ------------------------------------------------------------------------------------------------

    def take_changes(self) -> set[IPNetwork] | None:
        """Return the prefixes of which something changed since the last call; None: all."""
        changed, self._changed = self._changed, set()
        everything, self._all_changed = self._all_changed, False
        return None if everything else changed

    def prefixes(self, peer: PeerSpec) -> Iterator[IPNetwork]:
        """Yield the prefixes that `peer` may be told something of, some of them twice."""
        yield from self._own
        if self.is_transit:
            yield from self._learned
        if peer.filters:
            yield from self._workloads
            yield from self._hosts

    def offer(self, peer: PeerSpec, identifier: IPv4Address | None, prefix: IPNetwork) -> Offer | None:
        """Return what `peer` is to be told of a prefix, or None: nothing."""
        candidate = self._candidate(prefix)
        return None if candidate is None else offer(peer, identifier, prefix, candidate, self.rules)

    def _candidate(self, prefix: IPNetwork) -> Candidate | None:
        """Our own comes before what was learned, as in the kernel."""
        own, device = self._own.get(prefix), self._workloads.get(prefix)
        if own is not None or device is not None:
            return Candidate(attributes=own, devices=() if device is None else (device,))
        if (learned := self._learned.get(prefix)) is not None:
            return Candidate(path=learned, is_withheld=prefix in self._withheld)
        devices = self._hosts.get(prefix)
        return None if devices is None else Candidate(devices=devices, is_hosts=True)


def _role(peer: PeerSpec) -> tuple[bool, bool]:
    return peer.is_external, peer.is_client


def naming(peers: Iterable[PeerSpec], filters: Iterable[str]) -> list[IPAddress]:
    """Return the addresses of the peers that name one of some filters."""
    wanted = set(filters)
    return [peer.address for peer in peers if not wanted.isdisjoint(peer.filters)]
