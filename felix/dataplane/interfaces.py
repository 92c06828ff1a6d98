"""Effector for what a workload interface needs beside routes: sysctls and the static ARP entry (felix.md 2.3, 2.4).

Settings are written when the interface comes up, again at each resync, and only if they differ. One that cannot
be written makes that endpoint fail, nobody else.

A container that sent its first packet before we were done has asked for its gateway in vain, and would ask again only
after a second. So where proxy ARP was just switched on the answer is sent unasked.
"""

import errno
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address

from felix.dataplane.forwarding import Forwarding
from felix.desired import LocalInterface
from kernel.arp import Announcer
from kernel.errors import DataplaneError, NoSuchDevice, NoSuchEntry
from kernel.link import Link
from kernel.links import LinkKernel
from kernel.sysctl import Sysctls
from resources.names import GATEWAY, IfName

PROXY_ARP = "net/ipv4/conf/{}/proxy_arp"
REQUIRED_V4 = (("net/ipv4/conf/{}/route_localnet", "1"), ("net/ipv4/conf/{}/forwarding", "1"), (PROXY_ARP, "1"))
WISHED_V4 = (("net/ipv4/neigh/{}/proxy_delay", "0"),)
PROXY_NDP = "net/ipv6/conf/{}/proxy_ndp"
WISHED = (("net/ipv6/conf/{}/accept_ra", "0"),)
"""Without IPv6 addresses too: a container shall not be the host's router."""
DEFAULT_RP_FILTER = "net/ipv4/conf/default/rp_filter"
RP_FILTER = "net/ipv4/conf/{}/rp_filter"


class InterfaceEffector:
    """Writes the settings of workload interfaces that are there and up."""

    def __init__(
        self, sysctls: Sysctls, links: LinkKernel, announcer: Announcer, forwarding: Forwarding
    ) -> None:
        self._sysctls = sysctls
        self._forwarding = forwarding
        self._kernel = links
        self._announcer = announcer
        self._wanted: dict[IfName, LocalInterface] = {}
        self._links: Mapping[IfName, Link] = {}
        self._due: set[IfName] = set()
        self._unannounced: set[IfName] = set()
        self._rp_filter = ""
        self.written = 0
        """How many settings were written so far."""

    def resync(self) -> None:
        self._due.update(self._wanted)

    def want(self, interface: IfName, wanted: LocalInterface | None) -> None:
        if wanted is None:
            self._wanted.pop(interface, None)
            self._due.discard(interface)
            self._unannounced.discard(interface)
        else:
            self._wanted[interface] = wanted
            self._due.add(interface)

    def links_changed(self, links: Mapping[IfName, Link], changed: Iterable[IfName]) -> None:
        self._links = links
        self._due.update(name for name in changed if name in self._wanted)

    def apply(self) -> dict[IfName, DataplaneError]:
        """Write what is due on interfaces that are up; return what failed, by interface."""
        failed: dict[IfName, DataplaneError] = {}
        for name in sorted(self._due):
            link = self._links.get(name)
            if link is None or not link.up:
                continue  # its event brings it back
            try:
                self._write(name, self._wanted[name])
            except (NoSuchDevice, NoSuchEntry):
                if not self._is_there(name):
                    self._due.discard(name)  # its event brings it back
                    continue
                failure = self._again(name)  # it went and came in between (a rename), or the setting is missing
                if failure is not None:
                    failed[name] = failure
            except DataplaneError as error:
                failed[name] = error
            if name not in failed:
                self._due.discard(name)
        return failed

    def announce(self, is_reachable: Callable[[IfName], bool]) -> dict[IfName, DataplaneError]:
        """Answer for the gateway where that became possible just now; nobody depends on it, so it cannot fail.

        Not before answers could come back: what a container has waiting goes out at once.
        """
        for name in [name for name in self._unannounced if is_reachable(name)]:
            self._unannounced.discard(name)
            link = self._links.get(name)
            for address in self._wanted[name].addresses:
                if link is not None and isinstance(address.network_address, IPv4Address):
                    try:
                        self._announcer.announce(link, GATEWAY, address.network_address)
                    except DataplaneError:
                        continue  # the container asks again by itself
        return {}

    def _write(self, name: IfName, wanted: LocalInterface) -> None:
        versions = {address.version for address in wanted.addresses}
        if 4 in versions:
            self._wish(WISHED_V4, name)
            self._set(RP_FILTER.format(name), "0" if wanted.spoofs else self._default_rp_filter())
            for path, value in REQUIRED_V4:
                if self._set(path.format(name), value) and path is PROXY_ARP:
                    self._unannounced.add(name)
        if 6 in versions:
            self._set(PROXY_NDP.format(name), "1")
            self.written += self._forwarding.switch_on_for(name)
        self._wish(WISHED, name)
        if wanted.mac:
            for address in wanted.addresses:
                if address.version == 4:
                    self._kernel.set_neighbour(name, address.network_address, wanted.mac)

    def _wish(self, settings: Iterable[tuple[str, str]], name: IfName) -> None:
        for path, value in settings:
            try:
                self._set(path.format(name), value)
            except DataplaneError as error:
                if error.errno not in (errno.ENOENT, errno.EROFS):
                    raise

    def _set(self, path: str, value: str) -> bool:
        """Return whether it had to be written."""
        if self._sysctls.read(path) == value:
            return False
        self._sysctls.write(path, value)
        self.written += 1
        return True

    def _default_rp_filter(self) -> str:
        # the raw table's rpfilter rule is the check; the interface keeps what the host's operator chose
        if not self._rp_filter:
            self._rp_filter = self._sysctls.read(DEFAULT_RP_FILTER)
        return self._rp_filter

    def _again(self, name: IfName) -> DataplaneError | None:
        try:
            self._write(name, self._wanted[name])
        except DataplaneError as error:
            return error
        return None

    def _is_there(self, name: IfName) -> bool:
        try:
            self._sysctls.read(RP_FILTER.format(name))
        except NoSuchEntry:
            return False
        return True
