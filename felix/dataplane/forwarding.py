"""Makes the host forward packets, one address family at a time, without taking its own way out (adr/0041).

With the default `accept_ra` 1 the kernel takes no router advertisements on an interface that forwards. When IPv6
forwarding is switched on, be it for one interface of another kind, it forgets at once all default routes that it
learned from them: a host that has its IPv6 from its router would lose the network with the first container. Where
`accept_ra` is 2 they stay, and are renewed.
"""

from collections.abc import Collection, Mapping

import structlog

from kernel.errors import DataplaneError, NoSuchEntry
from kernel.route import PROTOCOL_RA
from kernel.routes import RouteKernel
from kernel.sysctl import Sysctls
from resources.names import IfName

SETTINGS = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
OF_INTERFACE = "net/ipv6/conf/{}/forwarding"
ACCEPT_RA = "net/ipv6/conf/{}/accept_ra"
_ONLY_WHERE_NOT_FORWARDING, _ALWAYS = "1", "2"


class Forwarding:
    """The host's forwarding, of those families in which it is wanted."""

    def __init__(
        self, sysctls: Sysctls, routes: RouteKernel, *, versions: Collection[int], workloads: Collection[str]
    ) -> None:
        """`workloads`: what the names of interfaces begin with whose advertisements count for nothing."""
        self._sysctls, self._routes = sysctls, routes
        self._versions, self._workloads = versions, tuple(workloads)

    def switch_on(self, version: int) -> Mapping[str, DataplaneError]:
        """Switch it on if it is off.

        Raises:
            DataplaneError: it stays off, for it cannot be had, or not without losing the host's default route.
        """
        if version in self._versions and self._sysctls.read(SETTINGS[version]) != "1":
            if version == 6:
                self._keep_routers()
            self._sysctls.write(SETTINGS[version], "1")
        return {}

    def switch_on_for(self, interface: IfName) -> bool:
        """Switch IPv6 forwarding on for a workload's interface; return whether it was off.

        Raises:
            DataplaneError: as above, or the interface is not there.
        """
        setting = OF_INTERFACE.format(interface)
        if self._sysctls.read(setting) == "1":
            return False
        self._keep_routers()
        self._sysctls.write(setting, "1")
        return True

    def _keep_routers(self) -> None:
        everything = self._routes.read(lambda *_: False).foreign.values()
        advertised = {
            device
            for routes in everything
            for route in routes
            if route.protocol == PROTOCOL_RA
            for device in route.devices
        }
        for device in sorted(advertised):
            if device.startswith(self._workloads):
                continue
            setting = ACCEPT_RA.format(device)
            try:
                if self._sysctls.read(setting) != _ONLY_WHERE_NOT_FORWARDING:
                    continue
                self._sysctls.write(setting, _ALWAYS)
            except NoSuchEntry:
                continue  # it is gone, and its routes with it
            structlog.get_logger().warning(
                "setting.changed", setting=setting, was=_ONLY_WHERE_NOT_FORWARDING, now=_ALWAYS,
                reason="IPv6 forwarding is switched on, and the host's own default route is from router advertisements",
            )  # fmt: skip
