"""VXLAN devices in memory. Obeys `fakes.vxlan_contract`."""

import errno

from fakes.links import FakeLinks
from kernel.errors import AlreadyThere, DataplaneError, InvalidArgument, NoSuchDevice
from kernel.link import ForwardingEntry
from kernel.vxlan import VxlanDevice, another_kind
from resources.names import IfName, IPAddress


class FakeVxlan:
    """VxlanKernel of the host whose interfaces are `links`.

    `missing` makes every creation fail, as on a kernel without VXLAN; `refuse` holds names on which every change fails.
    `log` keeps the writes, so that a test can say "not one write".
    """

    def __init__(self, links: FakeLinks) -> None:
        self.missing: DataplaneError | None = None
        self.refuse: set[IfName] = set()
        self.log: list[str] = []
        self._links = links
        self._devices: dict[IfName, VxlanDevice] = {}
        self._entries: dict[IfName, dict[str, IPAddress | None]] = {}
        links.on_lost.append(self._forget)

    # ---- what happens outside

    def lead_astray(self, name: IfName, mac: str) -> None:
        """Let there be an entry that leads to no host."""
        self._of(name)[mac] = None
        self._tell(name, mac, None)

    # ---- VxlanKernel

    def read(self, name: IfName) -> VxlanDevice | None:
        link = self._links.links().get(name)
        if link is not None and link.kind != "vxlan":
            raise another_kind(name, link.kind or "")
        return self._devices.get(name) if link is not None else None

    def create(self, device: VxlanDevice, mtu: int) -> None:
        self._write(f"create {device.name}", device.name)
        if self.missing is not None:
            raise self.missing
        links = self._links.links()
        if device.parent is not None and device.parent not in links:
            raise NoSuchDevice(f"no interface {device.parent}", errno=errno.ENODEV)
        same = (other for other in self._devices.values() if (other.vni, other.port) == (device.vni, device.port))
        if device.name in links or any(_version(other) == _version(device) for other in same):
            raise AlreadyThere(f"cannot make the VXLAN device {device.name}: File exists", errno=errno.EEXIST)
        self._devices[device.name], self._entries[device.name] = device, {}
        self._links.add(device.name, up=False, kind="vxlan")
        self._links.change(device.name, mac=device.mac)
        self._links.set_mtu(device.name, mtu)

    def delete(self, name: IfName) -> None:
        self._write(f"delete {name}", name)
        if self.read(name) is not None:
            self._links.delete(name)

    def entries(self, name: IfName) -> dict[str, IPAddress | None]:
        return dict(self._of(name))

    def set_entry(self, name: IfName, mac: str, remote: IPAddress) -> None:
        self._write(f"set {mac} on {name}", name)
        self._of(name)[mac] = remote
        self._tell(name, mac, remote)

    def remove_entry(self, name: IfName, mac: str) -> None:
        self._write(f"remove {mac} on {name}", name)
        if mac in self._of(name):
            self._tell(name, mac, self._of(name).pop(mac), gone=True)

    # ---- inside

    def _tell(self, name: IfName, mac: str, remote: IPAddress | None, *, gone: bool = False) -> None:
        self._links.tell_neighbour(name, ForwardingEntry(mac=mac, remote=remote), gone=gone)

    def _write(self, what: str, name: IfName) -> None:
        self.log.append(what)
        if name in self.refuse:
            raise InvalidArgument(f"cannot {what}", errno=errno.EINVAL)

    def _of(self, name: IfName) -> dict[str, IPAddress | None]:
        if name not in self._links.links():
            raise NoSuchDevice(f"no interface {name}", errno=errno.ENODEV, device=name)
        return self._entries.get(name, {})

    def _forget(self, name: IfName) -> None:
        if name not in self._links.links():
            self._devices.pop(name, None)
            self._entries.pop(name, None)
            for child in [device.name for device in self._devices.values() if device.parent == name]:
                self._links.delete(child)


def _version(device: VxlanDevice) -> int:
    return device.local.version if device.local is not None else 4
