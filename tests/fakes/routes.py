"""Table main in memory. Obeys `fakes.route_contract`."""

import errno
from collections.abc import Callable, Mapping

from fakes.links import FakeLinks
from kernel.errors import AlreadyThere, DataplaneError, DeviceDown, GatewayUnreachable, InvalidArgument, NoSuchDevice
from kernel.route import PROTOCOL_KERNEL, NextHop, Route, RouteKey
from kernel.routes import FoundRoutes, Owns, split
from resources.names import IfName, IPAddress, IPInterface


class FakeRoutes:
    """RouteKernel of the host whose interfaces are `links`.

    `refuse` makes every write at a key fail, `unreadable` every read. `log` keeps the writes ("add 10.0.0.1/32"), so
    that a test can say "not one write".
    """

    def __init__(self, links: FakeLinks) -> None:
        self.refuse: set[RouteKey] = set()
        self.unreadable: DataplaneError | None = None
        self.log: list[str] = []
        self.meanwhile: list[Callable[[], None]] = []
        """What happens while the next batch is written."""
        self._links = links
        self._entries: dict[RouteKey, list[Route]] = {}
        links.on_lost.append(self._forget)
        links.on_address.append(self._connect)

    @property
    def routes(self) -> dict[RouteKey, Route]:
        """The first route at each key, the kernel's own (of addresses) left out."""
        return {key: found[0] for key, found in self._entries.items() if found[0].protocol != PROTOCOL_KERNEL}

    def put(self, key: RouteKey, route: Route) -> None:
        """Write as another program would: neither counted nor refused."""
        self._entries[key] = [route]

    def lose(self, key: RouteKey) -> None:
        """Remove as another program would."""
        self._entries.pop(key, None)

    # ---- RouteKernel

    def read(self, owns: Owns) -> FoundRoutes:
        if self.unreadable is not None:
            raise self.unreadable
        return split([(key, route) for key, found in self._entries.items() for route in found], owns)

    def add(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        return self._each("add", routes, self._add)

    def replace(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        return self._each("replace", routes, self._replace)

    def delete(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        return self._each("delete", routes, self._delete)

    def lookup(self, address: IPAddress) -> Route | None:
        if any(found.address.ip == address for found in self._links.addresses()):
            return Route.on(IfName("lo"), protocol=PROTOCOL_KERNEL)
        matching = [key for key in self._entries if address in key.destination]
        if not matching:
            return None
        best = min(matching, key=lambda key: (-key.destination.prefixlen, key.metric))
        route = self._entries[best][0]
        return route if route.kind.has_next_hops else None

    # ---- inside

    def _each(
        self, verb: str, routes: Mapping[RouteKey, Route], act: Callable[[RouteKey, Route], None]
    ) -> dict[RouteKey, DataplaneError]:
        failed: dict[RouteKey, DataplaneError] = {}
        while self.meanwhile:
            self.meanwhile.pop()()
        for key, route in routes.items():
            self.log.append(f"{verb} {key}")
            try:
                if key in self.refuse:
                    raise InvalidArgument(f"cannot {verb} route {key} {route}: refused", errno=errno.EINVAL)
                act(key, route)
            except DataplaneError as exc:
                failed[key] = exc
        return failed

    def _add(self, key: RouteKey, route: Route) -> None:
        resolved = self._resolve(key, route)
        if key in self._entries:
            raise AlreadyThere(f"cannot add route {key} {route}: File exists", errno=errno.EEXIST)
        self._entries[key] = [resolved]

    def _replace(self, key: RouteKey, route: Route) -> None:
        self._entries[key] = [self._resolve(key, route)]

    def _delete(self, key: RouteKey, route: Route) -> None:
        left = [found for found in self._entries.get(key, []) if not _is_meant(found, route)]
        if left:
            self._entries[key] = left
        else:
            self._entries.pop(key, None)

    def _resolve(self, key: RouteKey, route: Route) -> Route:
        """Check as the kernel does, and fill in the device of each gateway."""
        hops = tuple(self._resolve_hop(key, route, hop) for hop in route.next_hops)
        return Route(protocol=route.protocol, kind=route.kind, next_hops=hops, scope=route.scope, source=route.source)

    def _resolve_hop(self, key: RouteKey, route: Route, hop: NextHop) -> NextHop:
        what = f"cannot write route {key} {route}"
        links = self._links.links()
        device = hop.device
        if device is not None and device not in links:
            raise NoSuchDevice(f"{what}: no interface {device}", errno=errno.ENODEV)
        if hop.gateway is not None and not hop.onlink:
            near = [f.device for f in self._links.addresses() if hop.gateway in f.address.network]
            near = [name for name in near if links[name].up and device in (None, name)]
            if not near:
                raise GatewayUnreachable(f"{what}: Nexthop has invalid gateway", errno=errno.ENETUNREACH)
            device = near[0]
        if device is not None and not links[device].up:
            raise DeviceDown(f"{what}: Network is down", errno=errno.ENETDOWN)
        return NextHop(gateway=hop.gateway, device=device, onlink=hop.onlink, weight=hop.weight)

    def _connect(self, device: IfName, address: IPInterface) -> None:
        if self._links.links()[device].up and address.network.prefixlen < address.max_prefixlen:
            metric, source = (0, address.ip) if address.version == 4 else (256, None)
            route = Route.on(device, protocol=PROTOCOL_KERNEL, source=source)
            self._entries.setdefault(RouteKey(address.network, metric), []).append(route)

    def _forget(self, device: IfName) -> None:
        for key, found in list(self._entries.items()):
            left = [route for route in found if device not in route.devices]
            if left:
                self._entries[key] = left
            else:
                del self._entries[key]


def _is_meant(found: Route, route: Route) -> bool:
    if len(route.next_hops) == 1 and route.next_hops[0].device is not None and route.devices != found.devices:
        return False
    return found.protocol == route.protocol
