"""The tunnels of a host, and how large packets may be: the effectors that follow the host's links, joined."""

from collections.abc import Callable, Collection, Mapping

from felix.calc.mtu import workload_mtu
from felix.dataplane.ipip import IpipEffector
from felix.dataplane.sizes import HostSizes, MtuTeller
from felix.dataplane.tables import Drift
from felix.dataplane.vxlan import VxlanEffector
from felix.desired import Update
from kernel.errors import DataplaneError
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from resources.names import IfName

Action = Callable[[], Mapping[str, DataplaneError]]


class Tunnels:
    """All tunnel devices, each with the size that the links leave it."""

    def __init__(self, *, sizes: HostSizes, mtu: MtuTeller, ipip: IpipEffector, vxlan: VxlanEffector) -> None:
        self._sizes, self._mtu, self._ipip, self._vxlan = sizes, mtu, ipip, vxlan

    def want(self, update: Update) -> None:
        """Take what the calculation changed. No kernel I/O."""
        if update.parameters is not None:
            self._sizes.follow(update.parameters.parameters)
        if update.surroundings is not None:
            self._sizes.want(update.surroundings.addresses)
            self._ipip.want(update.surroundings.ipip, update.surroundings.tunnel_address)
        for version, tunnel in update.remote.tunnels.items():
            self._vxlan.want(version, tunnel)
        for (version, node), end in update.remote.far_ends.items():
            self._vxlan.want_far_end(version, node, end)

    def links_changed(self, links: Mapping[IfName, Link], changed: Collection[IfName]) -> None:
        self._sizes.links_changed(links, changed)
        self._ipip.links_changed(links, changed)
        self._vxlan.links_changed(links, changed)

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether that matters here."""
        matters = [part.address_changed(entry) for part in (self._sizes, self._ipip, self._vxlan)]
        return any(matters)

    def neighbour_changed(self, device: IfName, entry: Neighbour | ForwardingEntry, *, gone: bool) -> bool:
        """Take note of an entry about who is where on a device; tell whether that matters here."""
        return self._vxlan.neighbour_changed(device, entry, gone=gone)

    def take_drift(self) -> dict[str, Drift]:
        """Return what others did to VXLAN devices and what is on them, by device, since this was last asked for."""
        return self._vxlan.take_drift()

    def resync(self) -> None:
        """Look at everything again at the next apply."""
        self._sizes.resync()
        self._ipip.resync()
        self._vxlan.resync()

    @property
    def due_in(self) -> float | None:
        """Seconds after which there is something to apply although nothing was heard, or None."""
        return self._ipip.due_in

    @property
    def written(self) -> int:
        """How many changes were made so far."""
        return self._ipip.written + self._vxlan.written

    @property
    def unready(self) -> frozenset[IfName]:
        """The VXLAN devices that are not as wanted, or not wanted: no route may lead there."""
        return self._vxlan.unready

    def take_remade(self) -> list[IfName]:
        """Return the devices that were made anew since the last call: the routes of those before are gone."""
        return self._vxlan.take_remade()

    def remove(self) -> Mapping[str, DataplaneError]:
        """Remove the VXLAN devices that nobody wants; return what failed. To be done before their rules go."""
        return self._vxlan.remove()

    def apply_vxlan(self, version: int) -> Mapping[str, DataplaneError]:
        """Make the VXLAN device of an address family as wanted; return what failed. Its rules must be there."""
        sizes = self._sizes.sizes
        return self._vxlan.apply(version, sizes.vxlan if version == 4 else sizes.vxlan_v6)

    def size_steps(self) -> Mapping[str, Action]:
        """Return what is to be done first, by what it is about; each may raise DataplaneError."""
        return {"mtu": self._sizes.refresh, "mtu file": self._tell_mtu}

    def device_steps(self) -> Mapping[str, Action]:
        """Return what is to be done when the rules are there that say who may send into a tunnel."""
        return {"tunnel tunl0": lambda: self._ipip.apply(self._sizes.sizes.ipip)}

    def _tell_mtu(self) -> Mapping[str, DataplaneError]:
        return self._mtu.tell(self._workload_mtu)

    @property
    def _workload_mtu(self) -> int:
        vxlan, vxlan_v6 = (self._vxlan.is_wanted(version) for version in (4, 6))
        return workload_mtu(self._sizes.sizes, ipip=self._ipip.is_wanted, vxlan=vxlan, vxlan_v6=vxlan_v6)

    # --- for people, callable from any thread ------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """Return how large packets may be and how each tunnel stands."""
        sizes = self._sizes.sizes
        return {
            "mtu": {"links": self._sizes.found, "workloads": self._mtu.told, "ipip": sizes.ipip},
            "ipip": self._ipip.state(),
            "vxlan": self._vxlan.state(),
        }

    def troubles(self) -> dict[str, str]:
        """Return what is asked for and cannot be had on this host, by what it is about."""
        found = {"ipip": self._ipip.trouble}
        return {what: trouble for what, trouble in found.items() if trouble}
