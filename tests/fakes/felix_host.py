"""A host of fake kernel parts with felix's dataplane on it."""

import ipaddress

from fakes.clock import ManualClock
from fakes.kernel import FakeKernel
from fakes.mtu_file import FakeMtuFile
from fakes.tables import FakeTables
from felix.dataplane.driver import Dataplane
from felix.dataplane.forwarding import Forwarding
from felix.dataplane.interfaces import InterfaceEffector
from felix.dataplane.ipip import IpipEffector
from felix.dataplane.left_over import LeftOver
from felix.dataplane.routes import RouteEffector, owns
from felix.dataplane.sets import SetEffector
from felix.dataplane.sizes import HostSizes
from felix.dataplane.tables import TableEffector
from felix.dataplane.tunnels import Tunnels
from felix.dataplane.vxlan import VxlanEffector
from felix.desired import TABLES
from kernel.route import Route, RouteKey
from kernel.xtables import TableKey
from resources.names import IfName, IPAddress


class FelixHost:
    """A fake kernel with a default route and a dataplane on it; `restart` makes a fresh one, as a new process would."""

    def __init__(
        self,
        *,
        kernel: FakeKernel | None = None,
        tables: FakeTables | None = None,
        versions: tuple[int, ...] = (4,),
        clock: ManualClock | None = None,
        left_over: LeftOver | None = None,
    ) -> None:
        self._left_over = left_over
        self.kernel = kernel or FakeKernel()
        self._tables, self._versions = tables or self.kernel.tables, versions
        self.kernel.links.add(IfName("eth0"), ipaddress.ip_interface("192.0.2.10/24"))
        default = Route.via(ipaddress.ip_address("192.0.2.1"), IfName("eth0"), protocol=3)
        self.kernel.routes.put(RouteKey(ipaddress.ip_network("0.0.0.0/0")), default)
        self.to_clean: list[IPAddress] = []
        self.mtu_file = FakeMtuFile()
        self.clock = clock or ManualClock()
        self.restart()

    def restart(self) -> None:
        self.routes = RouteEffector(
            self.kernel.routes,
            owns=owns(("cali",), protocol=80, remove_external=True),
            protocol=80,
            flows_of=self.to_clean.append,
        )
        kernel = self.kernel
        forwarding = Forwarding(kernel.sysctls, kernel.routes, versions=(4,), workloads=("cali",))
        self.dataplane = Dataplane(
            sets=SetEffector(self.kernel.sets, maxelem=1000),
            tables=[
                TableEffector(self._tables, TableKey(version, table)) for version in self._versions for table in TABLES
            ],
            table_kernel=self._tables,
            interfaces=InterfaceEffector(kernel.sysctls, kernel.links, kernel.announcer, forwarding),
            routes=self.routes,
            route_kernel=self.kernel.routes,
            forwarding=forwarding,
            tunnels=Tunnels(
                sizes=HostSizes(self.kernel.links),
                mtu=self.mtu_file,
                ipip=IpipEffector(self.kernel.links, self.clock.monotonic),
                vxlan=VxlanEffector(self.kernel.vxlan, self.kernel.links),
            ),
            left_over=self._left_over,
        )
        self.see_links()

    def see_links(self) -> None:
        self.dataplane.links_changed(self.kernel.links.links())

    def flows_done(self) -> None:
        while self.to_clean:
            address = self.to_clean.pop()
            self.kernel.flows.delete(address)
            self.dataplane.flows_deleted(address)

    def cali_routes(self) -> dict[str, str]:
        """Destination -> device of every route on a workload interface."""
        return {
            str(key): next(iter(route.devices))
            for key, route in self.kernel.routes.routes.items()
            if any(device.startswith("cali") for device in route.devices)
        }
