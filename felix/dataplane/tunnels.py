"""The tunnels of a host, and how large packets may be: the effectors that follow the host's links, joined."""

from collections.abc import Callable, Collection, Mapping

from felix.calc.mtu import workload_mtu
from felix.dataplane.ipip import IpipEffector
from felix.dataplane.sizes import HostSizes, MtuTeller
from felix.desired import Update
from kernel.errors import DataplaneError
from kernel.link import Link, LinkAddress
from resources.names import IfName

Action = Callable[[], Mapping[str, DataplaneError]]


class Tunnels:
    """All tunnel devices, each with the size that the links leave it."""

    def __init__(self, *, sizes: HostSizes, mtu: MtuTeller, ipip: IpipEffector) -> None:
        self._sizes, self._mtu, self._ipip = sizes, mtu, ipip

    def want(self, update: Update) -> None:
        """Take what the calculation changed. No kernel I/O."""
        if update.parameters is not None:
            self._sizes.follow(update.parameters.parameters)
        if update.surroundings is not None:
            self._sizes.want(update.surroundings.addresses)
            self._ipip.want(update.surroundings.ipip, update.surroundings.tunnel_address)

    def links_changed(self, links: Mapping[IfName, Link], changed: Collection[IfName]) -> None:
        self._sizes.links_changed(links, changed)
        self._ipip.links_changed(links, changed)

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether that matters here."""
        return self._sizes.address_changed(entry) | self._ipip.address_changed(entry)

    def resync(self) -> None:
        """Look at everything again at the next apply."""
        self._sizes.resync()
        self._ipip.resync()

    @property
    def due_in(self) -> float | None:
        """Seconds after which there is something to apply although nothing was heard, or None."""
        return self._ipip.due_in

    @property
    def written(self) -> int:
        """How many changes were made so far."""
        return self._ipip.written

    def size_steps(self) -> Mapping[str, Action]:
        """Return what is to be done first, by what it is about; each may raise DataplaneError."""
        return {"mtu": self._sizes.refresh, "mtu file": self._tell_mtu}

    def device_steps(self) -> Mapping[str, Action]:
        """Return what is to be done when the rules are there that say who may send into a tunnel."""
        return {"tunnel tunl0": lambda: self._ipip.apply(self._sizes.sizes.ipip)}

    def _tell_mtu(self) -> Mapping[str, DataplaneError]:
        return self._mtu.tell(workload_mtu(self._sizes.sizes, ipip=self._ipip.is_wanted))

    # --- for people, callable from any thread ------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """Return how large packets may be and how each tunnel stands."""
        sizes = self._sizes.sizes
        return {
            "mtu": {"links": self._sizes.found, "workloads": self._mtu.told, "ipip": sizes.ipip},
            "ipip": self._ipip.state(),
        }

    def troubles(self) -> dict[str, str]:
        """Return what is asked for and cannot be had on this host, by what it is about."""
        found = {"ipip": self._ipip.trouble}
        return {what: trouble for what, trouble in found.items() if trouble}
