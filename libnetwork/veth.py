"""The veth pair of an endpoint: names, creation, removal.

The host keeps ``cali`` and the first 11 characters of the endpoint id, Docker moves ``temp`` and the same 11 into the
container (reference libnetwork.md 6.4). Routes, proxy ARP and rules are felix's, which sees record and interface.
"""

import threading
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Protocol

from kernel.errors import AlreadyThere
from kernel.links import LinkAddress, link_local
from libnetwork.deadline import Deadline
from resources.errors import Transient
from resources.names import IfName
from resources.runtime.backoff import Clock, SystemClock

HOST_PREFIX = "cali"
CONTAINER_PREFIX = "temp"
_ID_CHARACTERS = 11
_POLL_SECONDS = 0.01
LINK_LOCAL_PATIENCE_SECONDS = 2.0


class Links(Protocol):
    """What is needed of `kernel.links.LinkKernel`."""

    def create_veth(
        self,
        name: IfName,
        peer: IfName,
        *,
        mac: str | None = None,
        peer_mac: str | None = None,
        mtu: int | None = None,
    ) -> None: ...
    def set_up(self, name: IfName) -> None: ...
    def delete(self, name: IfName) -> None: ...
    def addresses(self) -> Iterable[LinkAddress]: ...


class NoLinkLocal(Transient):
    """The host's end of a veth pair got no IPv6 link-local address, so the container would have no IPv6 gateway."""

    reference = "no-link-local-address"


def host_interface(endpoint_id: str) -> IfName:
    return IfName(HOST_PREFIX + endpoint_id[:_ID_CHARACTERS])


def container_interface(endpoint_id: str) -> IfName:
    """Return the name of the container's end before Docker moves and renames it."""
    return IfName(CONTAINER_PREFIX + endpoint_id[:_ID_CHARACTERS])


class VethPairs:
    """Makes and removes pairs in the namespace of dockerd, which is the host's. Thread-safe."""

    def __init__(self, links: Links, *, mtu: int | None = None, clock: Clock | None = None) -> None:
        self._links = links
        self._mtu = mtu
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def create(self, endpoint_id: str, *, mac: str) -> None:
        """Make the pair, both ends up, the container's with `mac`; one that is left over is replaced.

        The host's end keeps the MAC the kernel draws: equal ones would make equal link-local addresses.
        """
        host, container = host_interface(endpoint_id), container_interface(endpoint_id)
        with self._lock:
            try:
                self._links.create_veth(host, container, peer_mac=mac, mtu=self._mtu)
            except AlreadyThere:
                # either end may be what is left, of another pair too
                self._links.delete(host)
                self._links.delete(container)
                self._links.create_veth(host, container, peer_mac=mac, mtu=self._mtu)
            self._links.set_up(host)
            self._links.set_up(container)

    def link_local(self, endpoint_id: str, deadline: Deadline) -> IPv6Address:
        """Return the link-local address of the host's end, the container's IPv6 gateway.

        The kernel gives it one soon after both ends are up.

        Raises:
            NoLinkLocal: it has none in time.
        """
        host = host_interface(endpoint_id)
        ends = self._clock.monotonic() + deadline.left(at_most=LINK_LOCAL_PATIENCE_SECONDS)
        while True:
            with self._lock:
                address = link_local(self._links.addresses(), host)
            if address is not None:
                return address
            if self._clock.monotonic() >= ends:
                raise NoLinkLocal(
                    f"{host} has no IPv6 link-local address, so the container would have no IPv6 gateway",
                    hint="switch IPv6 on: sysctl net.ipv6.conf.default.disable_ipv6=0",
                )
            self._clock.sleep(_POLL_SECONDS)

    def remove(self, endpoint_id: str) -> None:
        """Remove the pair, wherever the container's end is; absent is done."""
        with self._lock:
            self._links.delete(host_interface(endpoint_id))
