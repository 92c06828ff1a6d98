"""Effector for the VXLAN devices, and for who is behind which tunnel address and MAC on them.

A device of ours is known by its name and kind. One that is as wanted is taken as it is, with what is on it; one that
differs is made anew. All on it is ours: what nobody wants goes. Nothing is learned from packets, so for each other host
there is a permanent neighbour (its tunnel address has that MAC) and a forwarding entry (that MAC is at that host).
"""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from ipaddress import ip_interface
from typing import TypeVar

from felix.calc.vxlan import OVERHEAD, FarEnd, Tunnel
from felix.dataplane.tables import Drift
from kernel.errors import AlreadyThere, DataplaneError
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from kernel.links import LinkKernel
from kernel.vxlan import VxlanDevice, VxlanKernel
from resources.names import IfName, IPAddress, IPInterface, NodeName
from resources.runtime.delta import Delta
from resources.vxlan import DEVICES

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class VxlanEffector:
    """Makes the VXLAN devices and the entries on them equal to the wanted ones."""

    def __init__(self, vxlan: VxlanKernel, links: LinkKernel) -> None:
        self._devices = {version: _Device(name, vxlan, links) for version, name in DEVICES.items()}

    @property
    def written(self) -> int:
        """How many things were written and removed so far."""
        return sum(device.written for device in self._devices.values())

    def want(self, version: int, tunnel: Tunnel | None) -> None:
        """Want this host's end in one address family; None: no device."""
        self._devices[version].want(tunnel)

    def want_far_end(self, version: int, node: NodeName, end: FarEnd | None) -> None:
        """Want to reach a host by the tunnel; None: not any more. No two have a tunnel address or MAC in common."""
        self._devices[version].want_far_end(node, end)

    @property
    def unready(self) -> frozenset[IfName]:
        """The devices that are not as wanted, or not wanted: no route may lead there."""
        return frozenset(device.name for device in self._devices.values() if not device.is_ready)

    def take_remade(self) -> list[IfName]:
        """Return the devices that were made anew since the last call: the routes of those before are gone."""
        return [device.name for device in self._devices.values() if device.take_remade()]

    def resync(self) -> None:
        """Read devices and entries back before the next apply."""
        for device in self._devices.values():
            device.resync()

    def links_changed(self, links: Mapping[IfName, Link], changed: Iterable[IfName]) -> None:
        """Take the interfaces as they are now."""
        changed = frozenset(changed)
        for device in self._devices.values():
            device.links_changed(links, changed)

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether that matters here."""
        matters = [one.address_changed(entry) for one in self._devices.values()]
        return any(matters)

    def neighbour_changed(self, name: IfName, entry: Neighbour | ForwardingEntry, *, gone: bool) -> bool:
        """Take note that an entry was written or is gone, perhaps by ourselves; tell whether that matters here."""
        matters = [one.neighbour_changed(entry, gone=gone) for one in self._devices.values() if one.name == name]
        return any(matters)

    def take_drift(self) -> dict[str, Drift]:
        """Return what others did to our devices and what is on them, by device, since this was last asked for."""
        found = ((device.name, device.take_drift()) for device in self._devices.values())
        return {name: drift for name, drift in found if drift is not None}

    def is_wanted(self, version: int) -> bool:
        """Whether there is to be a device of an address family."""
        return self._devices[version].is_wanted

    def state(self) -> dict[str, object]:
        """Return the devices that are wanted, for people; callable from any thread."""
        return {device.name: state for device in self._devices.values() if (state := device.state()) is not None}

    def remove(self) -> dict[str, DataplaneError]:
        """Remove the devices that nobody wants; return what failed, by device."""
        return self._each(DEVICES, _Device.remove)

    def apply(self, version: int, mtu: int) -> dict[str, DataplaneError]:
        """Write what is missing in one address family; return what failed. `mtu` is that of the device, in bytes."""
        return self._each((version,), lambda device: device.apply(mtu))

    def _each(
        self, versions: Iterable[int], act: Callable[["_Device"], Mapping[str, DataplaneError]]
    ) -> dict[str, DataplaneError]:
        failed: dict[str, DataplaneError] = {}
        for version in versions:
            device = self._devices[version]
            try:
                failed |= act(device)
            except DataplaneError as error:
                device.resync()
                failed[device.name] = error
        return failed


class _Device:
    """One device."""

    def __init__(self, name: IfName, vxlan: VxlanKernel, links: LinkKernel) -> None:
        self.name = name
        self.written = 0
        self._vxlan, self._kernel = vxlan, links
        self._tunnel: Tunnel | None = None
        self._ends: dict[NodeName, FarEnd] = {}
        self._neighbours: Delta[IPAddress, str] = Delta()
        self._entries: Delta[str, IPAddress | None] = Delta()
        self._takers: dict[IPAddress, NodeName] = {}
        self._mac_takers: dict[str, NodeName] = {}
        self._links: Mapping[IfName, Link] = {}
        self._due = self._resync_due = True
        self._remade = False
        self._mtu = 0
        self._is_known = False
        """Whether what is on the device was read or written by us, so that another find is somebody else's doing."""
        self._drift: Drift | None = None

    def state(self) -> dict[str, object] | None:
        tunnel = self._tunnel
        if tunnel is None:
            return None
        return {
            "ready": self.is_ready,
            "address": str(tunnel.address),
            "from": str(tunnel.local),
            "mtu": self._mtu,
            "hosts": len(self._ends),
        }

    def take_remade(self) -> bool:
        remade, self._remade = self._remade, False
        return remade

    def take_drift(self) -> Drift | None:
        drift, self._drift = self._drift, None
        return drift

    @property
    def is_ready(self) -> bool:
        return self._tunnel is not None and not self._due

    @property
    def is_wanted(self) -> bool:
        return self._tunnel is not None

    def address_changed(self, entry: LinkAddress) -> bool:
        matters = entry.device == self.name and self.is_wanted
        self._due |= matters
        return matters

    def neighbour_changed(self, entry: Neighbour | ForwardingEntry, *, gone: bool) -> bool:
        """What is known already is our own doing, or changes nothing; the rest is a hint to read all of it back."""
        if isinstance(entry, Neighbour):
            mac = None if gone or not entry.permanent else entry.mac or ""
            is_news = self._neighbours.actual.get(entry.address) != mac
        elif gone:
            is_news = entry.mac in self._entries.actual
        else:
            is_news = entry.remote is None or self._entries.actual.get(entry.mac) != entry.remote
        self._resync_due |= is_news
        return is_news and self.is_wanted

    def want(self, tunnel: Tunnel | None) -> None:
        self._tunnel = tunnel
        self._due = True

    def want_far_end(self, node: NodeName, end: FarEnd | None) -> None:
        before = self._ends.pop(node, None)
        if end is not None:
            self._ends[node] = end
        if before == end:
            return
        # in one update what one host gives up another may take: what is taken stands, in any order
        if before is not None and self._takers.get(before.tunnel) == node:
            del self._takers[before.tunnel]
            self._neighbours.unwant(before.tunnel)
        if before is not None and self._mac_takers.get(before.mac) == node:
            del self._mac_takers[before.mac]
            self._entries.unwant(before.mac)
        if end is not None:
            self._takers[end.tunnel] = self._mac_takers[end.mac] = node
            self._neighbours.want(end.tunnel, end.mac)
            self._entries.want(end.mac, end.host)

    def resync(self) -> None:
        self._due = self._resync_due = True

    def links_changed(self, links: Mapping[IfName, Link], changed: frozenset[IfName]) -> None:
        self._links = links
        if self.name in changed:
            self.resync()
        elif self._tunnel is not None and self._tunnel.parent in changed:
            self._due = True

    def remove(self) -> dict[str, DataplaneError]:
        if self._tunnel is None and self._due:
            with contextlib.suppress(AlreadyThere):  # of another kind: not ours, and nobody needs the name
                if self._vxlan.read(self.name) is not None:
                    self._vxlan.delete(self.name)
                    self.written += 1
            self._forget()
            self._due = False
        return {}

    def apply(self, mtu: int) -> dict[str, DataplaneError]:
        tunnel = self._tunnel
        if tunnel is None:
            return {}
        if self._due or mtu != self._mtu:
            self._due, self._mtu = True, mtu
            self._make(tunnel, mtu)
            self._due = False
        if self._resync_due:
            self._read()
        if not self._neighbours and not self._entries:
            return {}
        return self._write_neighbours() | self._write_entries()

    def _read(self) -> None:
        """Take what is on the device as it is, and note what others did to it."""
        found = self._kernel.neighbours(self.name).values()
        neighbours = {entry.address: entry.mac or "" for entry in found if entry.permanent}
        entries = self._vxlan.entries(self.name)
        if self._is_known:
            neighbour_drift = _compare("neighbours", self._neighbours.actual, neighbours)
            self._note(neighbour_drift, _compare("forwarding entries", self._entries.actual, entries))
        self._neighbours.saw_all(neighbours)
        self._entries.saw_all(entries)
        self._is_known, self._resync_due = True, False

    def _note(self, *drifts: Drift | None) -> None:
        """Keep it to be told, behind what is not told yet."""
        noted = [drift for drift in (self._drift, *drifts) if drift is not None]
        if noted:
            self._drift = Drift("; ".join(drift.found for drift in noted), lost=any(drift.lost for drift in noted))

    def _make(self, tunnel: Tunnel, mtu: int) -> None:
        """Have the device as it is to be, switched on, with its address and no other."""
        wanted = VxlanDevice(
            name=self.name,
            mac=tunnel.mac,
            vni=tunnel.vni,
            port=tunnel.port,
            local=tunnel.local,
            parent=tunnel.parent,
        )
        parent = self._links.get(tunnel.parent) if tunnel.parent is not None else None
        if parent is not None:
            mtu = min(mtu, parent.mtu - OVERHEAD[tunnel.version])  # the kernel takes no more
        found = self._vxlan.read(self.name)
        if found is None and self._is_known:
            self._note(Drift("it was gone", lost=True))
        if found is not None and found != wanted:
            self._vxlan.delete(self.name)
            self.written += 1
            found = None
        if found is None:
            self._forget()
            self._remade = True
            self._vxlan.create(wanted, mtu)
            self._is_known = True
            self.written += 1
        link = self._kernel.links()[self.name]
        if link.mtu != mtu:
            self._kernel.set_mtu(self.name, mtu)
            self.written += 1
        self._settle_addresses(ip_interface(tunnel.address))
        if not link.up:
            self._kernel.set_up(self.name)
            self.written += 1

    def _settle_addresses(self, wanted: IPInterface) -> None:
        found = {entry.address for entry in self._kernel.addresses() if entry.device == self.name}
        strays = {address for address in found if address != wanted and not address.ip.is_link_local}
        if wanted not in found:
            self._kernel.add_address(self.name, wanted)
            self.written += 1
        for address in strays:
            self._kernel.remove_address(self.name, address)
            self.written += 1

    def _forget(self) -> None:
        """A device that is not there has nothing on it."""
        self._neighbours.saw_all({})
        self._entries.saw_all({})
        self._is_known = self._resync_due = False

    def _write_neighbours(self) -> dict[str, DataplaneError]:
        return self._settle(
            "neighbour",
            self._neighbours,
            remove=lambda address: self._kernel.remove_neighbour(self.name, address),
            write=lambda address, mac: self._kernel.set_neighbour(self.name, address, mac),
        )

    def _write_entries(self) -> dict[str, DataplaneError]:
        def write(mac: str, host: IPAddress | None) -> None:
            assert host is not None  # a far end has one
            if mac in self._entries.actual and self._entries.actual[mac] is None:
                self._vxlan.remove_entry(self.name, mac)  # what is no host the kernel may not replace by one
            self._vxlan.set_entry(self.name, mac, host)

        return self._settle(
            "entry", self._entries, remove=lambda mac: self._vxlan.remove_entry(self.name, mac), write=write
        )

    def _settle(
        self, what: str, delta: Delta[K, V], *, remove: Callable[[K], None], write: Callable[[K, V], None]
    ) -> dict[str, DataplaneError]:
        """Remove what is stale and write what is missing; one that fails holds up nobody else."""
        failed: dict[str, DataplaneError] = {}
        for key in list(delta.stale()):
            with _noting(failed, f"{what} {key}"):
                remove(key)
                delta.gone(key)
                self.written += 1
        for key, value in list(delta.missing()):
            with _noting(failed, f"{what} {key}"):
                write(key, value)
                delta.saw(key, value)
                self.written += 1
        return failed


@contextlib.contextmanager
def _noting(failed: dict[str, DataplaneError], what: str) -> Iterator[None]:
    """Note an error instead of letting it go on."""
    try:
        yield
    except DataplaneError as error:
        failed[what] = error


def _compare(what: str, left: Mapping[K, V], there: Mapping[K, V]) -> Drift | None:
    """Return how what is there differs from what we left, in numbers."""
    changed = sum(1 for key in left.keys() & there.keys() if left[key] != there[key])
    counts = {"gone": len(left.keys() - there.keys()), "changed": changed, "foreign": len(there.keys() - left.keys())}
    texts = [f"{count} {how}" for how, count in counts.items() if count]
    return Drift(f"{what}: {', '.join(texts)}", lost=bool(counts["gone"] or changed)) if texts else None
