"""What changes in the kernel, as frozen messages: interfaces, addresses, routes, neighbours, rules.

A thread reads notifications and posts them (to `resources.runtime.loop.Loop.post`). They are hints: the state is what a
read says. Where notifications were lost `ResyncNeeded` comes, and the receiver reads everything again.

The kernel does not tell of everything: IPv4 routes that go because their interface went down or away go silently
(reference bgp.md 4.8), so on `LinkChanged` and `LinkGone` the routes of that interface are to be compared.
"""

import contextlib
import errno
import functools
import os
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kernel import link_wire, route_wire, socket_filter, vxlan_wire
from kernel.errors import DataplaneError, NotSupported, from_errno
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from kernel.netlink import Socket
from kernel.nfgen import changed_by, generation_events
from kernel.route import Route, RouteKey
from kernel.routes import interface_names
from kernel.xtables_lock import LockEvents
from resources.names import IfName

_RTNLGRP_LINK: Final = 1
_RTNLGRP_NEIGH: Final = 3
_RTNLGRP_IPV4_IFADDR: Final = 5
_RTNLGRP_IPV4_ROUTE: Final = 7
_RTNLGRP_IPV6_IFADDR: Final = 9
_RTNLGRP_IPV6_ROUTE: Final = 11
_PAUSE_SECONDS: Final = 1.0
_NEIGHBOUR_KINDS: Final = (link_wire.RTM_NEWNEIGH, link_wire.RTM_DELNEIGH, link_wire.RTM_GETNEIGH)
_ROUTE_KINDS: Final = (route_wire.RTM_NEWROUTE, route_wire.RTM_DELROUTE)

Notifications = list[tuple[int, int, bytes]]
"""Type, port of the causer, body."""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """An interface is new or changed. A rename comes as `LinkGone` of the old name and this."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface went (or went to another namespace, or has another name now)."""

    name: IfName


@dataclass(frozen=True, slots=True)
class AddressAdded:
    address: LinkAddress


@dataclass(frozen=True, slots=True)
class AddressGone:
    address: LinkAddress


@dataclass(frozen=True, slots=True)
class RouteWritten:
    """A route of table main is new or replaced, by somebody else than us."""

    key: RouteKey
    route: Route


@dataclass(frozen=True, slots=True)
class RouteGone:
    """A route of table main was deleted, by somebody else than us."""

    key: RouteKey
    route: Route


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """An entry about who is where on an interface was written or is gone, perhaps by ourselves.

    The kernel does not tell who wrote forwarding entries, so our own writes come as well: compare with what is known.
    """

    device: IfName
    entry: Neighbour | ForwardingEntry
    gone: bool


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """Somebody may have changed rules, perhaps ourselves: ask `TableKernel.changed_elsewhere`."""

    program: str
    """Name of the process, cut at 15 characters ("dockerd", "iptables-nft-re"); empty if a program let go the lock of
    the legacy tables, which does not tell its name."""


@dataclass(frozen=True, slots=True)
class ResyncNeeded:
    """Notifications were lost: what was learned so far may be wrong in any point."""

    reason: str


KernelEvent = (
    LinkChanged
    | LinkGone
    | AddressAdded
    | AddressGone
    | RouteWritten
    | RouteGone
    | NeighbourChanged
    | RulesChanged
    | ResyncNeeded
)


class Monitor:
    """Hears the kernel of the namespace of the thread that makes it.

    It hears from the moment it is made: make it, then read everything, then `start` it.
    """

    def __init__(
        self,
        post: Callable[[KernelEvent], None],
        *,
        routes: bool = True,
        rules: bool = False,
        neighbours_on: frozenset[IfName] = frozenset(),
        own_ports: frozenset[int] = frozenset(),
    ) -> None:
        """Subscribe.

        Args:
            post: takes each message; called from the monitor's thread.
            routes: whether to hear of routes.
            rules: whether to hear of changes of rules: of nftables where the kernel has them, and of programs that
                take the lock of the legacy tables.
            neighbours_on: interfaces, there or not yet, of whose neighbours and forwarding entries to hear. Those of
                all others, each ARP answer that a host gets among them, are dropped in the kernel and wake nobody.
            own_ports: `NetlinkRoutes.port` of those whose routes are not to be told: dropped in the kernel too, so that
                ten thousand at once wake nobody.
        """
        groups = [_RTNLGRP_LINK, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR]
        if routes:
            groups += [_RTNLGRP_IPV4_ROUTE, _RTNLGRP_IPV6_ROUTE]
        if neighbours_on:
            groups.append(_RTNLGRP_NEIGH)
        self._post = post
        self._rtnetlink = Socket(socket.NETLINK_ROUTE, groups=groups)
        self._sockets = {self._rtnetlink: self._hear_rtnetlink}
        self._lock_events: LockEvents | None = None
        if rules:
            self._hear_of_rules()
        self._own_ports, self._neighbours_on = own_ports, neighbours_on
        self._aim: frozenset[int] | None = None
        """The interfaces whose neighbours pass the filter."""
        self._names = interface_names()
        if own_ports or neighbours_on:
            self._aim_filter()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kernel-monitor", daemon=True)

    def _hear_of_rules(self) -> None:
        with contextlib.suppress(NotSupported):
            self._sockets[generation_events()] = self._hear_generation
        with contextlib.suppress(DataplaneError):  # the legacy back end polls besides
            self._lock_events = LockEvents()

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def close(self) -> None:
        """End the thread (at once, if it was never started) and the subscription."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for heard in self._sockets:
            heard.close()
        if self._lock_events is not None:
            self._lock_events.close()
        os.close(self._wake)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for heard, understand in self._sockets.items():
                selector.register(heard, selectors.EVENT_READ, functools.partial(self._hear, heard, understand))
            if self._lock_events is not None:
                selector.register(self._lock_events, selectors.EVENT_READ, self._hear_lock)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for ready, _ in selector.select():
                    if ready.data is not None and not self._stopping.is_set():
                        ready.data()

    def _hear(self, heard: Socket, understand: Callable[[Notifications], None]) -> None:
        try:
            messages = heard.receive()
        except OSError as exc:
            heard.drain()
            self._names = interface_names()
            self._aim_again(*self._neighbours_on)
            self._post(ResyncNeeded(str(from_errno(exc.errno or 0, "notifications of the kernel were lost"))))
            if exc.errno != errno.ENOBUFS:
                self._stopping.wait(_PAUSE_SECONDS)  # not known to happen; whatever it is, do not spin
            return
        understand(messages)

    def _hear_generation(self, messages: Notifications) -> None:
        for kind, _, body in messages:
            program = changed_by(kind, body)
            if program is not None:
                self._post(RulesChanged(program))

    def _hear_lock(self) -> None:
        if self._lock_events is not None and self._lock_events.happened():
            self._post(RulesChanged(""))

    def _hear_rtnetlink(self, messages: Notifications) -> None:
        decoder = route_wire.Decoder(self._names)
        for kind, _, body in messages:
            if kind in _ROUTE_KINDS:
                self._hear_route(kind, decoder, body)
            elif kind in (link_wire.RTM_NEWLINK, link_wire.RTM_DELLINK):
                self._hear_link(kind, body)
            elif kind in (link_wire.RTM_NEWADDR, link_wire.RTM_DELADDR):
                self._hear_address(kind, body)
            elif kind in (link_wire.RTM_NEWNEIGH, link_wire.RTM_DELNEIGH):
                self._hear_neighbour(kind, body)

    def _hear_route(self, kind: int, decoder: route_wire.Decoder, body: bytes) -> None:
        entry = decoder.entry(body)
        if entry is not None:
            self._post(RouteWritten(*entry) if kind == route_wire.RTM_NEWROUTE else RouteGone(*entry))

    def _hear_link(self, kind: int, body: bytes) -> None:
        link = link_wire.unpack_link(body)
        if link is None:
            return
        before = self._names.get(link.index)
        if kind == link_wire.RTM_DELLINK:
            self._names.pop(link.index, None)
            self._aim_again(before)
            self._post(LinkGone(before or link.name))
            return
        self._names[link.index] = link.name
        self._aim_again(before, link.name)
        if before is not None and before != link.name:
            self._post(LinkGone(before))
        self._post(LinkChanged(link))

    def _hear_address(self, kind: int, body: bytes) -> None:
        address = link_wire.unpack_address(body, self._names)
        if address is not None:
            self._post(AddressAdded(address) if kind == link_wire.RTM_NEWADDR else AddressGone(address))

    def _hear_neighbour(self, kind: int, body: bytes) -> None:
        found = link_wire.unpack_neighbour(body) or vxlan_wire.unpack_entry(body)
        device = self._names.get(found[0]) if found is not None else None
        if found is not None and device in self._neighbours_on:
            self._post(NeighbourChanged(device, found[1], gone=kind == link_wire.RTM_DELNEIGH))

    def _aim_again(self, *changed: IfName | None) -> None:
        """Aim the filter again if one of these names is another interface's now.

        An interface that gets such a name is told of afterwards: who then reads what is on it misses nothing.
        """
        if not self._neighbours_on.isdisjoint(changed):
            self._aim_filter()

    def _aim_filter(self) -> None:
        """Have the kernel tell of no route of our own, and of neighbours on the interfaces that have the names now."""
        indices = frozenset(index for index, name in self._names.items() if name in self._neighbours_on)
        if indices == self._aim:
            return
        sections: list[socket_filter.Section] = []
        if self._own_ports:
            sections.append(socket_filter.none_caused_by(self._own_ports, _ROUTE_KINDS))
        if self._neighbours_on:
            sections.append(socket_filter.neighbours_only_on(indices, _NEIGHBOUR_KINDS))
        self._rtnetlink.attach_filter(socket_filter.passing(*sections))
        self._aim = indices
