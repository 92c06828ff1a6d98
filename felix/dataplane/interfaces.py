"""Effector for what a workload interface needs beside routes: sysctls and the static ARP entry (felix.md 2.3, 2.4).

Settings are written when the interface comes up, again at each resync, and only if they differ. One that cannot
be written makes that endpoint fail, nobody else.
"""

import errno
from collections.abc import Iterable, Mapping

from felix.desired import LocalInterface
from kernel.errors import DataplaneError, NoSuchDevice, NoSuchEntry
from kernel.link import Link
from kernel.links import LinkKernel
from kernel.sysctl import Sysctls
from resources.names import IfName

REQUIRED_V4 = (
    ("net/ipv4/conf/{}/route_localnet", "1"),
    ("net/ipv4/conf/{}/proxy_arp", "1"),
    ("net/ipv4/conf/{}/forwarding", "1"),
)
WISHED_V4 = (("net/ipv4/neigh/{}/proxy_delay", "0"),)
REQUIRED_V6 = (("net/ipv6/conf/{}/proxy_ndp", "1"), ("net/ipv6/conf/{}/forwarding", "1"))
WISHED_V6 = (("net/ipv6/conf/{}/accept_ra", "0"),)
DEFAULT_RP_FILTER = "net/ipv4/conf/default/rp_filter"
RP_FILTER = "net/ipv4/conf/{}/rp_filter"


class InterfaceEffector:
    """Writes the settings of workload interfaces that are there and up."""

    def __init__(self, sysctls: Sysctls, links: LinkKernel) -> None:
        self._sysctls = sysctls
        self._kernel = links
        self._wanted: dict[IfName, LocalInterface] = {}
        self._links: Mapping[IfName, Link] = {}
        self._due: set[IfName] = set()
        self._rp_filter = ""

    def resync(self) -> None:
        self._due.update(self._wanted)

    def want(self, interface: IfName, wanted: LocalInterface | None) -> None:
        if wanted is None:
            self._wanted.pop(interface, None)
            self._due.discard(interface)
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
            except (NoSuchDevice, NoSuchEntry) as error:
                if self._is_there(name):
                    failed[name] = error
            except DataplaneError as error:
                failed[name] = error
            if name not in failed:
                self._due.discard(name)
        return failed

    def _write(self, name: IfName, wanted: LocalInterface) -> None:
        versions = {address.version for address in wanted.addresses}
        if 4 in versions:
            for path, value in REQUIRED_V4:
                self._set(path.format(name), value)
            self._set(RP_FILTER.format(name), self._default_rp_filter())
            self._wish(WISHED_V4, name)
        if 6 in versions:
            for path, value in REQUIRED_V6:
                self._set(path.format(name), value)
            self._wish(WISHED_V6, name)
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

    def _set(self, path: str, value: str) -> None:
        if self._sysctls.read(path) != value:
            self._sysctls.write(path, value)

    def _default_rp_filter(self) -> str:
        # the raw table's rpfilter rule is the check; the interface keeps what the host's operator chose
        if not self._rp_filter:
            self._rp_filter = self._sysctls.read(DEFAULT_RP_FILTER)
        return self._rp_filter

    def _is_there(self, name: IfName) -> bool:
        try:
            self._sysctls.read(RP_FILTER.format(name))
        except NoSuchEntry:
            return False
        return True
