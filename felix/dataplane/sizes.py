"""How large packets may be on this host: follows the host's links, and tells whoever makes workloads' interfaces.

The result is in a file (/var/lib/calico/mtu, as in the original): one decimal number and a newline. Docker's driver
reads it for each endpoint.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from felix.calc.mtu import Mtus, host_mtu, mtus
from felix.calc.parameters import Parameters
from kernel.errors import DataplaneError, from_errno
from kernel.link import Link, LinkAddress
from kernel.links import LinkKernel
from resources.names import IfName, IPAddress


class HostSizes:
    """The MTUs of the host's links and tunnels; what they are made of is looked at again only when it changed."""

    def __init__(self, kernel: LinkKernel) -> None:
        self._kernel = kernel
        self._parameters = Parameters()
        self._addresses: frozenset[IPAddress] = frozenset()
        self._carriers: frozenset[IfName] = frozenset()
        """The interfaces that have this host's own addresses, when they were looked at last."""
        self._links: Mapping[IfName, Link] = {}
        self._due = True
        self.found: int | None = None
        """The least MTU of the links that lead to other hosts; None: there is none, and 1500 is taken."""
        self.sizes = Mtus()

    def follow(self, parameters: Parameters) -> None:
        self._due = True
        self._parameters = parameters

    def want(self, addresses: frozenset[IPAddress]) -> None:
        """Take this host's own addresses: the interface that has one leads to other hosts."""
        self._due |= addresses != self._addresses
        self._addresses = addresses

    def links_changed(self, links: Mapping[IfName, Link], changed: Iterable[IfName]) -> None:
        """Take the interfaces as they are now; those of workloads come and go and are no reason to look."""
        self._links = links
        pattern = self._parameters.mtu_pattern
        self._due |= any(name in self._carriers or pattern.match(name) for name in changed)

    def address_changed(self, entry: LinkAddress) -> bool:
        """Take note that an address came or went; tell whether that matters here."""
        matters = entry.address.ip in self._addresses
        self._due |= matters
        return matters

    def resync(self) -> None:
        self._due = True

    def refresh(self) -> Mapping[str, DataplaneError]:
        """Work out `sizes` if anything changed. Raises DataplaneError: what addresses there are cannot be read."""
        if not self._due:
            return {}
        wanted = self._addresses
        there = self._kernel.addresses() if wanted else ()
        self._carriers = frozenset(found.device for found in there if found.address.ip in wanted)
        parameters = self._parameters
        self.found = host_mtu(self._links, parameters.mtu_pattern, self._carriers)
        self.sizes = mtus(
            self.found, ipip=parameters.ipip_mtu, vxlan=parameters.vxlan_mtu, vxlan_v6=parameters.vxlan_mtu_v6
        )
        self._due = False
        return {}


class MtuTeller(Protocol):
    """Tells whoever makes interfaces of workloads how large their packets may be."""

    @property
    def told(self) -> int | None:
        """What it told last; None: nothing yet."""

    def tell(self, mtu: int) -> Mapping[str, DataplaneError]:
        """Tell it from now on. Raises DataplaneError: it could not be told."""


class MtuFile:
    """The file that says how large packets of workloads may be; written only if it says something else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.told: int | None = None
        """What the file says; None: nothing yet."""

    def tell(self, mtu: int) -> Mapping[str, DataplaneError]:
        """Make the file say `mtu`.

        Raises:
            DataplaneError: it cannot be written; the old one stays.
        """
        if self.told == mtu and self._path.exists():
            return {}
        text = f"{mtu}\n"
        try:
            if self._said() != text:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                new = self._path.with_suffix(".new")
                new.write_text(text)
                os.replace(new, self._path)
        except OSError as error:
            raise from_errno(error.errno or errno.EIO, f"cannot write {self._path}") from error
        self.told = mtu
        return {}

    def _said(self) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._path.read_text()
        return ""
