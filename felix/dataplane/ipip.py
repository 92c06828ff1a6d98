"""Effector for the IPIP device tunl0: there and up, with the right size and one address (reference felix.md 2.7).

While a pool wants IPIP the device is ours and nobody else's addresses stay on it. When none does any more, its address
goes, and a little later it is switched off: other hosts may need a moment to stop sending through it, and a device that
is on with no rule before it would unpack what anybody sends. The device itself stays, the kernel has it for good.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from kernel.errors import AlreadyThere, DataplaneError, NoSuchDevice, NotSupported
from kernel.link import Link, LinkAddress
from kernel.links import LinkKernel
from resources.names import IfName

DEVICE = IfName("tunl0")
KIND = "ipip"
LINGER_SECONDS = 5.0
_HINT = "load it (modprobe ipip), take a kernel that has it, or set ipipMode of the pools to Never, or use vxlanMode"


class IpipEffector:
    """Makes tunl0 as wanted, or gives it up. IPv4 only, as IPIP is."""

    def __init__(self, kernel: LinkKernel, monotonic: Callable[[], float]) -> None:
        self._kernel = kernel
        self._monotonic = monotonic
        self._link: Link | None = None
        self._is_wanted: bool | None = None
        self._address: ipaddress.IPv4Interface | None = None
        self._off_at: float | None = None
        self._due = False
        self._mtu = 0
        self.trouble = ""
        """Why there is no tunnel although one is wanted."""
        self.written = 0
        """How many changes were made so far."""

    @property
    def is_wanted(self) -> bool:
        return bool(self._is_wanted)

    def want(self, wanted: bool, address: str | None) -> None:
        """Take whether there is to be a tunnel, and this host's own address of it (None: not known yet)."""
        if self._is_wanted and not wanted:
            self._off_at = self._monotonic() + LINGER_SECONDS
        elif wanted:
            self._off_at = None
        self._is_wanted = wanted
        self._address = ipaddress.IPv4Interface(f"{address}/32") if address else None
        self._due = True

    def links_changed(self, links: Mapping[IfName, Link], changed: Iterable[IfName]) -> None:
        if DEVICE in changed:
            self._link = links.get(DEVICE)
            self._due = True

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether it is one of this device."""
        self._due |= entry.device == DEVICE
        return entry.device == DEVICE

    def resync(self) -> None:
        """Look at everything again at the next apply."""
        self._due = True

    @property
    def due_in(self) -> float | None:
        """Seconds after which `apply` has something to do by itself, or None."""
        return None if self._off_at is None else max(0.0, self._off_at - self._monotonic())

    def state(self) -> dict[str, object]:
        """Return how it stands, for people."""
        link = self._link
        return {
            "wanted": self.is_wanted,
            "device": None if link is None else DEVICE,
            "up": link is not None and link.up,
            "mtu": None if link is None else link.mtu,
            "address": str(self._address.ip) if self.is_wanted and self._address is not None else None,
            "trouble": self.trouble,
        }

    def apply(self, mtu: int) -> Mapping[str, DataplaneError]:
        """Make the device as wanted.

        Raises:
            DataplaneError: not all of it could be done; it is tried again at the next call.
        """
        self._due |= mtu != self._mtu or self.due_in == 0
        if not self._due or self._is_wanted is None:
            return {}
        self._mtu = mtu
        if self._is_wanted:
            self._make(mtu)
        else:
            self._give_up()
        self._due = False
        return {}

    # --- wanted ------------------------------------------------------------------------------------------------------

    def _make(self, mtu: int) -> None:
        link = self._link or self._create()
        if link is None:
            return
        if link.kind != KIND:
            self.trouble = f"{DEVICE} is no IPIP device but of kind {link.kind or 'hardware'}, and stays as it is"
            return
        self.trouble = ""
        if link.mtu != mtu:
            self._kernel.set_mtu(DEVICE, mtu)
            self._did(replace(link, mtu=mtu))
        if not link.up:
            self._kernel.set_up(DEVICE)
            self._did(replace(link, mtu=mtu, up=True))
        self._keep_addresses({self._address} if self._address else set())

    def _did(self, link: Link) -> None:
        """Take it that the device is so now; the kernel's word on it comes later."""
        self._link = link
        self.written += 1

    def _create(self) -> Link | None:
        try:
            self._kernel.create_ipip(DEVICE)
            self.written += 1
        except AlreadyThere:
            pass  # loading the kernel's module has made it
        except NotSupported as error:
            self.trouble = f"this kernel has no IPIP ({error}); {_HINT}"
            return None
        link = self._kernel.links().get(DEVICE)
        if link is None:
            raise NoSuchDevice(f"there is no {DEVICE}, although another IPIP device takes its place", device=DEVICE)
        self._link = link
        return link

    def _keep_addresses(self, wanted: set[ipaddress.IPv4Interface]) -> None:
        there = self._addresses()
        for address in wanted - there:
            self._kernel.add_address(DEVICE, address)
            self.written += 1
        for address in sorted(there - wanted):
            self._kernel.remove_address(DEVICE, address)
            self.written += 1

    def _addresses(self) -> set[ipaddress.IPv4Interface]:
        return {
            found.address
            for found in self._kernel.addresses()
            if found.device == DEVICE and isinstance(found.address, ipaddress.IPv4Interface)
        }

    # --- not wanted --------------------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        self.trouble = ""
        link = self._link
        if link is None or link.kind != KIND:
            self._off_at = None
            return
        # without a pool a tunnel may be somebody else's; ours have single addresses
        ours = {address for address in self._addresses() if address.network.prefixlen == 32}
        for address in sorted(ours):
            self._kernel.remove_address(DEVICE, address)
            self.written += 1
        if ours and self._off_at is None:  # of a felix that was ended before it switched it off
            self._off_at = self._monotonic() + LINGER_SECONDS
        if self._off_at is not None and self._monotonic() >= self._off_at:
            self._off_at = None
            if link.up and not self._addresses():
                self._kernel.set_down(DEVICE)
                self._did(replace(link, up=False))
