"""Effector for felix's routes: /32 (and /128) to local containers, and those to other hosts in pools with VXLAN
(reference felix.md 2.4, 2.5).

A route is written only if its interface is there and up; else it stays wanted under the interface's name. An address
that two interfaces want belongs to the newest one, and one that is a container's here goes nowhere else. A route of
somebody else at the same place is left alone and reported; but one of bgpd's to another host is taken over in place, as
it is the pool that says which of the two has the route (adr/0038).
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from felix.desired import LocalInterface
from kernel.errors import AlreadyThere, DataplaneError, DeviceDown, NoSuchDevice
from kernel.link import Link
from kernel.route import (
    LAST_RESORT_METRIC,
    PROTOCOL_BGPD,
    PROTOCOL_FELIX,
    PROTOCOL_KERNEL,
    Route,
    RouteKey,
    RouteKind,
)
from kernel.routes import RouteKernel
from resources.names import IfName, IPAddress, IPNetwork
from resources.runtime.delta import Delta
from resources.vxlan import DEVICES

TUNNELS = frozenset(DEVICES.values())


def owns(prefixes: Collection[str], *, protocol: int, remove_external: bool) -> Callable[[RouteKey, Route], bool]:
    """Return the answer to "is this route felix's?": by protocol, or by a workload interface (felix.md 2.5).

    With another `protocol` than 80 a felix that had that one may have been here before.
    """

    def answer(key: RouteKey, route: Route) -> bool:
        if route.protocol in (protocol, PROTOCOL_FELIX):
            return True
        if not remove_external or route.kind is not RouteKind.UNICAST or route.protocol == PROTOCOL_KERNEL:
            return False
        if key.destination.version == 6 and (key.destination.is_link_local or key.destination.is_multicast):
            return False
        return bool(route.devices) and all(device.startswith(tuple(prefixes)) for device in route.devices)

    return answer


class RouteEffector:
    """Makes the routes to local workloads and to other hosts equal to the wanted ones."""

    def __init__(
        self,
        kernel: RouteKernel,
        *,
        owns: Callable[[RouteKey, Route], bool],
        protocol: int,
        flows_of: Callable[[IPAddress], None],
        source: IPAddress | None = None,
    ) -> None:
        """`flows_of` is called for each address whose flows are to be deleted; `flows_deleted` answers it."""
        self._kernel = kernel
        self._owns = owns
        self._protocol = protocol
        self._flows_of = flows_of
        self._source = source
        self._interfaces: dict[IfName, LocalInterface] = {}
        self._claims: dict[IPNetwork, set[IfName]] = {}
        self._remote: dict[RouteKey, Route] = {}
        self._extra: set[RouteKey] = set()
        self._barred: set[RouteKey] = set()
        """Routes to other hosts that wait for their interface."""
        self._links: Mapping[IfName, Link] = {}
        self._delta: Delta[RouteKey, Route] = Delta()
        self._on: dict[IfName, set[RouteKey]] = {}
        """The routes of ours that leave by each interface, in the kernel."""
        self._foreign: dict[RouteKey, tuple[Route, ...]] = {}
        self._cleaning: set[IPAddress] = set()
        self._unclean: dict[IPAddress, DataplaneError] = {}
        self._resync_due = True
        self.written = 0
        """How many routes were written and deleted so far."""

    def resync(self) -> None:
        """Read the routing table back before the next apply."""
        self._resync_due = True

    def want(self, interface: IfName, wanted: LocalInterface | None) -> None:
        """Set what an interface's addresses are; None: the interface is nobody's any more."""
        before = self._interfaces.pop(interface, None)
        if wanted is not None:
            self._interfaces[interface] = wanted
        old = before.addresses if before else frozenset[IPNetwork]()
        new = wanted.addresses if wanted else frozenset[IPNetwork]()
        for address in old - new:
            self._claims[address].discard(interface)
        for address in new - old:
            self._claims.setdefault(address, set()).add(interface)
        self._choose(old ^ new)

    def want_on(self, address: IPNetwork, device: IfName) -> None:
        """Want a route of ours that is no container's (the one that makes proxy ARP answer)."""
        key = RouteKey(address)
        self._extra.add(key)
        self._delta.want(key, self._route(device, address))

    def want_remote(self, prefix: IPNetwork, route: Route | None) -> None:
        """Want a route to another host, or a drop for an own block; None: not any more.

        What is unreachable is so as the last resort: every other route to the prefix comes before it (adr/0032).
        """
        key = RouteKey(prefix)
        if route is not None and route.kind is RouteKind.UNREACHABLE:
            self._delta.want(_last_resort(key), route)
            route = None
        elif key not in self._barred:
            self._delta.unwant(_last_resort(key))
        if route is None:
            self._remote.pop(key, None)
        else:
            self._remote[key] = route
        self._choose([prefix])

    def changed_by_others(self, key: RouteKey, route: Route, *, gone: bool) -> None:
        """Take note that somebody else wrote or deleted a route, so that drift is repaired at the next apply."""
        if gone:
            if self._delta.actual.get(key) == route:
                self._gone(key)
            elif key in self._delta.desired:
                self._foreign.pop(key, None)
        elif self._owns(key, route) or key in self._delta.desired:
            self._resync_due = True

    def links_changed(self, links: Mapping[IfName, Link], changed: Iterable[IfName]) -> None:
        """Take the interfaces as they are now. The kernel dropped the routes of one that went down or away."""
        self._links = links
        for name in changed:
            link = links.get(name)
            if link is None or not link.up:
                self.interface_lost(name)
            if wanted := self._interfaces.get(name):
                self._choose(wanted.addresses)

    def interface_lost(self, name: IfName) -> None:
        """Take it that the kernel dropped all routes of an interface: it went down or away, or was made anew."""
        for key in list(self._on.get(name, ())):
            self._clean(key, self._delta.actual[key])
            self._gone(key)

    def flows_deleted(self, address: IPAddress, failure: DataplaneError | None = None) -> None:
        """Note that the flows of `address` are gone: its routes may be written.

        With a `failure` they may not, as old flows would pass by the policy of the address's next owner; it is tried
        again when the address is wanted.
        """
        self._cleaning.discard(address)
        if failure is not None:
            self._unclean[address] = failure

    def is_written(self, interface: IfName) -> bool:
        """Return whether every route that is due on `interface` is in the kernel."""
        wanted = self._interfaces.get(interface)
        if wanted is None:
            return False
        return all(
            self._delta.actual.get(RouteKey(address)) is not None
            and interface in self._delta.actual[RouteKey(address)].devices
            for address in wanted.addresses
        )

    def is_there(self, address: IPNetwork) -> bool:
        """Return whether a route of ours to `address` was in the kernel when last looked."""
        return RouteKey(address) in self._delta.actual

    def refresh(self) -> dict[RouteKey, DataplaneError]:
        """Read the table back if that is due.

        Raises:
            DataplaneError: the table cannot be read.
        """
        if self._resync_due:
            found = self._kernel.read(self._owns)
            self._foreign = dict(found.foreign)
            self._delta.saw_all(found.ours)
            self._on = {}
            for key, route in found.ours.items():
                self._index(key, route)
            self._resync_due = False
        return {}

    def remove(self) -> dict[RouteKey, DataplaneError]:
        """Delete what is there and not wanted, or there on another interface; return what failed.

        A last resort stays until `add` has written what comes before it.
        """
        going = {key: self._delta.actual[key] for key in self._delta.stale() if key.metric != LAST_RESORT_METRIC}
        for key, route in self._delta.missing():
            there = self._delta.actual.get(key)
            if there is not None and there.devices != route.devices and _is_local(key, there):
                going[key] = there  # a move: the flows must go before the new route comes
        return self._delete(going)

    def _delete(self, going: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        if not going:
            return {}
        failed = self._kernel.delete(going)
        for key in going.keys() - failed.keys():
            self._gone(key)
            self._clean(key, going[key])
            self.written += 1
        self._resync_due |= bool(failed)
        return failed

    def add(self, version: int, *, barred: frozenset[IfName] = frozenset()) -> dict[RouteKey, DataplaneError]:
        """Write what is missing in one address family; return what failed.

        Addresses whose flows are still being deleted wait, and so do routes that leave by a `barred` interface: what
        they lead to is unreachable meanwhile.
        """
        self._bar(version, barred)
        failed = self._add(version, barred)
        doomed = [k for k in self._delta.stale() if k.metric == LAST_RESORT_METRIC and k.destination.version == version]
        return failed | self._delete({key: self._delta.actual[key] for key in doomed})

    def _bar(self, version: int, barred: frozenset[IfName]) -> None:
        """Make unreachable what routes to other hosts wait for, and no longer what they do not wait for."""
        waiting = {
            key
            for key, route in self._delta.missing()
            if key in self._remote and key.destination.version == version and not barred.isdisjoint(route.devices)
        }
        before = {key for key in self._barred if key.destination.version == version}
        for key in waiting - before:
            self._delta.want(_last_resort(key), Route.unreachable(protocol=self._protocol))
        for key in before - waiting:
            if key in self._remote or _last_resort(key) in self._delta.desired:
                self._delta.unwant(_last_resort(key))
        self._barred = (self._barred - before) | waiting

    def _add(self, version: int, barred: frozenset[IfName]) -> dict[RouteKey, DataplaneError]:
        wanted = {
            key: route
            for key, route in self._delta.missing()
            if key.destination.version == version and barred.isdisjoint(route.devices)
        }
        unclean = self._held_back(wanted)
        missing = {key: route for key, route in wanted.items() if _address_of(key) not in self._cleaning}
        if not missing:
            return unclean
        # a gateway must be somebody's neighbour before there can be a route through it
        near = {key: route for key, route in missing.items() if all(hop.gateway is None for hop in route.next_hops)}
        failed = self._write(near) | self._write({key: r for key, r in missing.items() if key not in near})
        for key in missing.keys() - failed.keys():
            self._saw(key, missing[key])
            self.written += 1
        for key in [k for k, error in failed.items() if isinstance(error, (NoSuchDevice, DeviceDown))]:
            del failed[key]  # the interface's own event brings it back
        if any(isinstance(error, AlreadyThere) and key not in self._foreign for key, error in failed.items()):
            failed = self._look_again(failed)
        self._resync_due |= any(not isinstance(error, AlreadyThere) for error in failed.values())
        return failed | unclean

    def _write(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        ours = {key: route for key, route in routes.items() if key in self._delta.actual or self._may_take(key)}
        fresh = {key: route for key, route in routes.items() if key not in ours}
        failed = self._kernel.replace(ours) if ours else {}
        return failed | (self._kernel.add(fresh) if fresh else {})

    def _look_again(self, failed: Mapping[RouteKey, DataplaneError]) -> dict[RouteKey, DataplaneError]:
        """Read the table because it held a route that we did not know of; return what is still wrong.

        It may be our own: an interface went down and up twice, and the first time's news made us write the route when
        the second time was over already. The second time's news then says that it is gone.
        """
        self._resync_due = True
        self.refresh()
        left = {key: error for key, error in failed.items() if key not in self._delta.actual}
        taken = {key: self._delta.desired[key] for key in left if self._may_take(key)}
        refused = self._kernel.replace(taken) if taken else {}
        for key in taken.keys() - refused.keys():
            self._saw(key, taken[key])
            self.written += 1
            del left[key]
        return left | refused

    def _may_take(self, key: RouteKey) -> bool:
        """Return whether what is wanted concerns another host, and what is there is bgpd's."""
        theirs = self._foreign.get(key, ())
        is_remote = key in self._remote and self._delta.desired.get(key) == self._remote[key]
        is_remote |= key.metric == LAST_RESORT_METRIC
        return is_remote and bool(theirs) and all(route.protocol == PROTOCOL_BGPD for route in theirs)

    def _saw(self, key: RouteKey, route: Route) -> None:
        self._gone(key)
        self._delta.saw(key, route)
        self._index(key, route)

    def _gone(self, key: RouteKey) -> None:
        before = self._delta.actual.get(key)
        if before is not None:
            for device in before.devices:
                self._on.get(device, set()).discard(key)
            self._delta.gone(key)

    def _index(self, key: RouteKey, route: Route) -> None:
        for device in route.devices:
            self._on.setdefault(device, set()).add(key)

    def _held_back(self, missing: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        """Ask again for the deletion of flows that failed before, and return those failures."""
        failed: dict[RouteKey, DataplaneError] = {}
        for key in missing:
            address = _address_of(key)
            failure = None if address is None else self._unclean.pop(address, None)
            if address is not None and failure is not None:
                failed[key] = failure
                self._clean_address(address)
        return failed

    def _choose(self, addresses: Iterable[IPNetwork]) -> None:
        for address in addresses:
            key = RouteKey(address)
            names = self._claims.get(address, set())
            claimants = [self._links[name] for name in names if name in self._links and self._links[name].up]
            if not claimants:
                if not names:
                    self._claims.pop(address, None)
                if not names and key in self._remote:
                    self._delta.want(key, self._remote[key])
                else:
                    self._delta.unwant(key)
                continue
            newest = max(claimants, key=lambda link: link.index)
            self._delta.want(key, self._route(newest.name, address))

    def _route(self, interface: IfName, address: IPNetwork) -> Route:
        source = self._source if self._source and self._source.version == address.version else None
        return Route.on(interface, protocol=self._protocol, source=source)

    def _clean(self, key: RouteKey, route: Route) -> None:
        """Have the flows of an address deleted whose route went, if it was a container's."""
        address = _address_of(key)
        if address is not None and key not in self._extra and _is_local(key, route):
            self._clean_address(address)

    def _clean_address(self, address: IPAddress) -> None:
        if address not in self._cleaning:
            self._cleaning.add(address)
            self._flows_of(address)


def _last_resort(key: RouteKey) -> RouteKey:
    return RouteKey(key.destination, LAST_RESORT_METRIC)


def _address_of(key: RouteKey) -> IPAddress | None:
    """Return the address that a route is for, if it is for one alone."""
    destination = key.destination
    return destination.network_address if destination.prefixlen == destination.max_prefixlen else None


def _is_local(key: RouteKey, route: Route) -> bool:
    """Return whether a route is to a container here: straight to an interface that is no tunnel."""
    hops = route.next_hops
    if _address_of(key) is None or not hops:
        return False
    return all(hop.gateway is None and hop.device not in TUNNELS for hop in hops)
