"""The veth pair of an endpoint: names, creation, removal.

The host keeps ``cali`` and the first 11 characters of the endpoint id, Docker moves ``temp`` and the same 11 into the
container (reference libnetwork.md 6.4). Routes, proxy ARP and rules are felix's, which sees record and interface.
"""

import threading
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, IPv6Interface
from typing import Protocol

from kernel.errors import AlreadyThere, DataplaneError
from kernel.link import Link, link_local_of
from resources.errors import Transient
from resources.names import IfName, IPInterface

HOST_PREFIX = "cali"
CONTAINER_PREFIX = "temp"
_ID_CHARACTERS = 11


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
    def links(self) -> Mapping[IfName, Link]: ...
    def add_address(self, device: IfName, address: IPInterface) -> None: ...


class NoLinkLocal(Transient):
    """The host's end of a veth pair takes no IPv6 link-local address, so the container would have no IPv6 gateway."""

    reference = "no-link-local-address"


def host_interface(endpoint_id: str) -> IfName:
    return IfName(HOST_PREFIX + endpoint_id[:_ID_CHARACTERS])


def container_interface(endpoint_id: str) -> IfName:
    """Return the name of the container's end before Docker moves and renames it."""
    return IfName(CONTAINER_PREFIX + endpoint_id[:_ID_CHARACTERS])


class VethPairs:
    """Makes and removes pairs in the namespace of dockerd, which is the host's. Thread-safe."""

    def __init__(self, links: Links, *, mtu: Callable[[], int | None] = lambda: None) -> None:
        """`mtu` is asked for each pair; None: the kernel's default."""
        self._links = links
        self._mtu = mtu
        self._lock = threading.Lock()

    def create(self, endpoint_id: str, *, mac: str, ipv6: bool = False) -> IPv6Address | None:
        """Make the pair, both ends up, the container's with `mac`; one that is left over is replaced.

        The host's end keeps the MAC the kernel draws: equal ones would make equal link-local addresses. With `ipv6`
        it has its link-local address from the start, and that is returned: the container's IPv6 gateway. (The kernel
        makes the same one when the link is up, but first looks for a second or two whether somebody else has it, and
        answers nobody meanwhile. There is nobody else on the link.)

        Raises:
            NoLinkLocal: the host's end takes no IPv6 address.
        """
        host, container = host_interface(endpoint_id), container_interface(endpoint_id)
        mtu = self._mtu()
        with self._lock:
            try:
                self._links.create_veth(host, container, peer_mac=mac, mtu=mtu)
            except AlreadyThere:
                # either end may be what is left, of another pair too
                self._links.delete(host)
                self._links.delete(container)
                self._links.create_veth(host, container, peer_mac=mac, mtu=mtu)
            gateway = self._give_link_local(host) if ipv6 else None
            self._links.set_up(host)
            self._links.set_up(container)
            return gateway

    def _give_link_local(self, host: IfName) -> IPv6Address:
        mac = self._links.links()[host].mac
        assert mac is not None  # an Ethernet device has one
        address = link_local_of(mac)
        try:
            self._links.add_address(host, IPv6Interface((address, 64)))
        except DataplaneError as error:
            raise NoLinkLocal(
                f"{host} takes no IPv6 link-local address, so the container would have no IPv6 gateway: {error}",
                hint="switch IPv6 on (sysctl net.ipv6.conf.default.disable_ipv6=0); it needs an MTU of 1280 or more",
            ) from error
        return address

    def remove(self, endpoint_id: str) -> None:
        """Remove the pair, wherever the container's end is; absent is done."""
        with self._lock:
            self._links.delete(host_interface(endpoint_id))
