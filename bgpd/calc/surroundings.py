"""What this host's own interfaces and routes say about reaching a next hop; routes of ours count for nothing here."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass

from bgpd.calc.prefixes import PrefixTable
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, PROTOCOL_KERNEL, NextHop, Route, RouteKey, RouteKind
from resources.names import IfName, IPAddress, IPNetwork

IPIP_DEVICE = IfName("tunl0")


@dataclass(frozen=True, slots=True)
class Reach:
    """How to send to a next hop: `hops` as a route takes them; `cost` 0 on a network of ours, 1 behind a router."""

    hops: tuple[NextHop, ...]
    cost: int


class Surroundings:
    """One reading of the host: its addresses, its devices that are up, and the routes that others wrote."""

    def __init__(
        self,
        routes: Mapping[RouteKey, Iterable[Route]] | None = None,
        addresses: Iterable[IPAddress] = (),
        devices: Iterable[IfName] = (),
    ) -> None:
        """
        Args:
            routes: of table main, of everybody but this program.
            devices: interfaces that are switched on.
        """
        usable: dict[IPNetwork, tuple[int, Route]] = {}
        connected: set[IPNetwork] = set()
        for key, found in (routes or {}).items():
            for route in found:
                if route.protocol in (PROTOCOL_FELIX, PROTOCOL_BGPD):
                    continue
                if route.protocol == PROTOCOL_KERNEL and _is_connected(route):
                    connected.add(key.destination)
                before = usable.get(key.destination)
                if before is None or key.metric < before[0]:
                    usable[key.destination] = (key.metric, route)
        self.connected = PrefixTable(dict.fromkeys(sorted(connected, key=str)))
        self.networks = frozenset(connected)
        self.addresses = frozenset(addresses)
        self.devices = frozenset(devices)
        self.ways = frozenset(device for _, route in usable.values() for device in route.devices)
        """The interfaces that routes of others leave by."""
        self._ways = {network: route for network, (_, route) in usable.items()}
        self._table = PrefixTable(self._ways)
        self._known: dict[IPAddress, Reach | None] = {}

    def also(self, routes: Mapping[IPNetwork, Route]) -> "Surroundings":
        """Return the same with a few routes of ours beside those of others: how peers themselves are reached."""
        if not routes:
            return self
        found = copy(self)
        found._ways = self._ways | dict(routes)
        found._table = PrefixTable(found._ways)
        found._known = {}
        return found

    def source_to(self, address: IPAddress) -> IPAddress | None:
        """Return the address of this host that the kernel would send from to `address`, or None if it has no way."""
        if address in self.addresses or address.is_link_local:
            return None  # a link-local one is on every interface
        found = self._table.at(address)
        if found is None or found[1].kind is not RouteKind.UNICAST:
            return None
        network, route = found
        if route.source is not None:
            return route.source if route.source in self.addresses else None
        gateway = next((hop.gateway for hop in route.next_hops if hop.gateway is not None), None)
        if gateway is not None:
            # the gateway's network says which address of the device it is
            return self.source_to(gateway) if gateway != address else None
        return min((own for own in self.addresses if own in network), key=int, default=None)

    @property
    def has_ipip(self) -> bool:
        """Whether packets can be wrapped in IPIP now."""
        return IPIP_DEVICE in self.devices

    def reach(self, address: IPAddress) -> Reach | None:
        """Return how to send to `address`, or None if this host would not, or would to itself."""
        if address not in self._known:
            self._known[address] = self._find(address)
        return self._known[address]

    def devices_to(self, address: IPAddress) -> tuple[str, ...]:
        """Return the interfaces that packets to `address` leave by."""
        found = self.reach(address)
        return () if found is None else tuple(dict.fromkeys(hop.device for hop in found.hops if hop.device))

    def are_neighbours(self, one: IPAddress, other: IPAddress) -> bool:
        """Return whether two addresses are on the same network of ours, so that they reach each other without us."""
        here = [self.connected.at(address) for address in (one, other)]
        return here[0] is not None and here[0] == here[1] and self.cost(one) == self.cost(other) == 0

    @property
    def host_routes(self) -> Mapping[IPNetwork, tuple[str, ...]]:
        """Where packets to the networks that others gave routes to leave by."""
        return {
            network: tuple(map(str, route.devices))
            for network, route in self._ways.items()
            if route.kind is RouteKind.UNICAST and not network.is_link_local and not network.is_multicast
        }

    def cost(self, address: IPAddress) -> int | None:
        found = self.reach(address)
        return None if found is None else found.cost

    def _find(self, address: IPAddress) -> Reach | None:
        if address in self.addresses:
            return None
        found = self._table.at(address)
        if found is None or found[1].kind is not RouteKind.UNICAST:
            return None
        hops = found[1].next_hops
        if any(hop.gateway is None for hop in hops):
            onlink = tuple(NextHop(gateway=address, device=hop.device) for hop in hops if hop.gateway is None)
            return Reach(onlink, 0)
        return Reach(tuple(NextHop(gateway=hop.gateway, device=hop.device) for hop in hops), 1) if hops else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surroundings) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.networks, self.addresses, self.devices))

    def _identity(self) -> tuple[object, ...]:
        return self.networks, self.addresses, self.devices, self._ways


def _is_connected(route: Route) -> bool:
    return route.kind is RouteKind.UNICAST and any(hop.gateway is None for hop in route.next_hops)
