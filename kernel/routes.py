"""The kernel's main routing table: read whole, write in bulk, ask for the way to an address.

Writing follows reference bgp.md 4.8 and 8.1: packed messages, 512 to a send, in place (NLM_F_REPLACE), each refusal
mapped back to the route it is about. Both address families.
"""

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from kernel import route_wire as wire
from kernel.errors import DataplaneError, GatewayUnreachable, InvalidArgument, NoSuchDevice, NotPermitted, NotSupported
from kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, Socket, error_of
from kernel.route import NextHop, Route, RouteKey, RouteKind, Scope
from resources.names import IfName, IPAddress

__all__ = [
    "FoundRoutes",
    "NetlinkRoutes",
    "NextHop",
    "Owns",
    "Route",
    "RouteKernel",
    "RouteKey",
    "RouteKind",
    "Scope",
    "split",
]

Owns = Callable[[RouteKey, Route], bool]
"""Whether a route read from the kernel is the caller's to change (reference felix.md 2.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRoutes:
    """One reading of table main."""

    ours: Mapping[RouteKey, Route]
    foreign: Mapping[RouteKey, tuple[Route, ...]]
    """Somebody else's, never to be written at; a key may be there several times (IPv6, or appended)."""


class RouteKernel(Protocol):
    """Table main of one network namespace, type of service 0.

    The three writers try every route, and return only those that failed. After OutcomeUnknown in an answer, read
    again. An interface that is not there is NoSuchDevice, one that is down DeviceDown, a gateway on no network of this
    host GatewayUnreachable.
    """

    def read(self, owns: Owns) -> FoundRoutes:
        """Return all routes, told apart by `owns`.

        Raises:
            DataplaneError: the table cannot be read, or kept changing (DumpInterrupted).
        """

    def add(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        """Write routes whose keys are free; one that is taken, by whomever, is AlreadyThere and stays as it is."""

    def replace(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        """Write routes over whatever is at their keys, **foreign routes included**, without a moment in between."""

    def delete(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        """Delete routes as they were read or written; only one of the same protocol goes. Absent is done."""

    def lookup(self, address: IPAddress) -> Route | None:
        """Return how this host would send to `address` now, or None if it would not send."""


def split(entries: list[tuple[RouteKey, Route]], owns: Owns) -> FoundRoutes:
    """Tell ours from foreign routes. Of several of ours at one key the first, which the kernel uses, is kept."""
    ours: dict[RouteKey, Route] = {}
    foreign: dict[RouteKey, tuple[Route, ...]] = {}
    for key, route in entries:
        if owns(key, route):
            ours.setdefault(key, route)
        else:
            foreign[key] = (*foreign.get(key, ()), route)
    return FoundRoutes(ours=ours, foreign=foreign)


class NetlinkRoutes:
    """RouteKernel on rtnetlink, in the namespace of the thread that makes it and calls it."""

    def __init__(self) -> None:
        self._socket = Socket(socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """Marks this object's writes in the kernel's notifications (`kernel.monitor`)."""
        return self._socket.port

    def read(self, owns: Owns) -> FoundRoutes:
        return split(self.dump(), owns)

    def dump(self, *, protocol: int | None = None) -> list[tuple[RouteKey, Route]]:
        """Return all routes of table main, or those of one protocol (the kernel filters)."""
        entries: list[tuple[RouteKey, Route]] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                bodies = self._socket.dump(wire.RTM_GETROUTE, wire.pack_dump(family, protocol), "cannot read routes")
            except NotSupported:
                continue  # a kernel without this address family has no routes of it
            decoder = wire.Decoder(interface_names())
            for kind, body in bodies:
                if kind == wire.RTM_NEWROUTE and body[0] == family:
                    entry = decoder.entry(body)
                    if entry is not None:
                        entries.append(entry)
        return entries

    def add(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        return self._write(routes, wire.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "add")

    def replace(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        return self._write(routes, wire.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, "write")

    def delete(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]:
        failed = self._write(routes, wire.RTM_DELROUTE, 0, "delete")
        return {key: exc for key, exc in failed.items() if not _is_gone(exc)}

    def lookup(self, address: IPAddress) -> Route | None:
        try:
            _, body = self._socket.ask(wire.RTM_GETROUTE, wire.pack_lookup(address), f"cannot look up {address}")
        except (GatewayUnreachable, InvalidArgument, NotPermitted):
            return None  # no route or "unreachable", "blackhole", "prohibit": IPv4 answers with an errno
        route = wire.Decoder(_AskedNames()).route(body)  # one or two of what may be thousands
        return route if route is not None and route.kind.has_next_hops else None

    def _write(
        self, routes: Mapping[RouteKey, Route], kind: int, flags: int, verb: str
    ) -> dict[RouteKey, DataplaneError]:
        failed: dict[RouteKey, DataplaneError] = {}
        packer = wire.Packer(_Indices())
        pack = packer.deleted if kind == wire.RTM_DELROUTE else packer.written
        keys: list[RouteKey] = []
        messages: list[Message] = []
        for key, route in routes.items():
            try:
                body = pack(key, route)
            except NoSuchDevice as exc:
                failed[key] = NoSuchDevice(f"cannot {verb} route {key} {route}: {exc}", errno=exc.errno)
                continue
            keys.append(key)
            messages.append((kind, flags, body))
        for index, refusal in self._socket.execute(messages).items():
            key = keys[index]
            failed[key] = error_of(refusal, f"cannot {verb} route {key} {routes[key]}")
        return failed


class _Indices:
    """Interface name -> index, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[IfName, int] = {}

    def __call__(self, name: IfName) -> int:
        index = self._known.get(name)
        if index is None:
            index = self._known[name] = interface_index(name)
        return index


def interface_index(name: IfName) -> int:
    """Return the kernel's index of an interface.

    Raises:
        NoSuchDevice: there is none.
    """
    try:
        return socket.if_nametoindex(name)
    except OSError as exc:
        raise NoSuchDevice(f"no interface {name}", errno=errno.ENODEV, device=name) from exc


def interface_names() -> dict[int, IfName]:
    """Return index -> name of all interfaces."""
    return {index: IfName(name) for index, name in socket.if_nameindex()}


class _AskedNames(Mapping[int, IfName]):
    """Index -> name of interfaces, asked for one by one."""

    def __getitem__(self, index: int) -> IfName:
        try:
            return IfName(socket.if_indextoname(index))
        except OSError:
            raise KeyError(index) from None

    def __iter__(self) -> Iterator[int]:
        return iter(interface_names())

    def __len__(self) -> int:
        return len(interface_names())


def _is_gone(exc: DataplaneError) -> bool:
    return exc.errno in (errno.ESRCH, errno.ENODEV, errno.ENOENT)
