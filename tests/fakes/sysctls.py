"""/proc/sys in memory. Obeys `fakes.sysctl_contract`."""

import errno

from fakes.links import FakeLinks
from kernel.errors import DataplaneError, InvalidArgument, NoSuchEntry

_PER_INTERFACE = {
    "net/ipv4/conf/{}/": ("route_localnet", "proxy_arp", "forwarding", "rp_filter", "arp_ignore", "accept_local"),
    "net/ipv4/neigh/{}/": ("proxy_delay",),
    "net/ipv6/conf/{}/": ("proxy_ndp", "forwarding", "accept_ra", "disable_ipv6", "addr_gen_mode"),
    "net/ipv6/neigh/{}/": ("proxy_delay",),
}


class FakeSysctls:
    """Sysctls of the host whose interfaces are `links`; every setting begins as 0.

    `refuse` maps a path to the error its write gives; `writes` keeps (path, value) of those that worked.
    """

    def __init__(self, links: FakeLinks) -> None:
        self.refuse: dict[str, DataplaneError] = {}
        self.writes: list[tuple[str, str]] = []
        self._links = links
        self._values = {"net/ipv4/ip_forward": "0"}

    def put(self, path: str, value: str) -> None:
        """Set as an operator would."""
        self._values[self._known(path, "cannot set")] = value

    def read(self, path: str) -> str:
        return self._values.get(self._known(path, "cannot read the setting"), "0")

    def write(self, path: str, value: str) -> None:
        self._known(path, "cannot set")
        if path in self.refuse:
            raise self.refuse[path]
        if not value.lstrip("-").isdigit():
            raise InvalidArgument(f"cannot set {path} to {value}", errno=errno.EINVAL)
        self._values[path] = value
        self.writes.append((path, value))

    def _known(self, path: str, what: str) -> str:
        if path in self._values:
            return path
        for pattern, names in _PER_INTERFACE.items():
            for interface in ("all", "default", *self._links.links()):
                folder = pattern.format(interface)
                if path.startswith(folder) and path.removeprefix(folder) in names:
                    return path
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"{path!r} is not the path of a setting", errno=errno.EINVAL)
        raise NoSuchEntry(f"{what} {path}: there is no such setting", errno=errno.ENOENT)
