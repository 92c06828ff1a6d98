"""Workloads without Docker: a bare namespace with an address, attached to a host as the Docker driver does it."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address

from bed.command import Command, Done, Process
from bed.host import Host
from bed.probes import IPAddress, Prober

NEXT_HOP = "169.254.1.1"


def interface_name(id: str) -> str:
    """Return the host side's name for an endpoint id: ``cali`` and eleven characters."""
    return "cali" + hashlib.sha1(id.encode()).hexdigest()[:11]


class Workload(Prober):
    """A network namespace with ``cali0``, its end of a veth pair whose other end is on the host.

    Inside: the addresses as /32 (or /128), ``169.254.1.1 dev cali0 scope link`` and the default route via it; for IPv6
    the default route via the link-local address of the host's end, which has it from the start. The MTU is what felix
    told for this host, as the driver has it; 1500 where it has told nothing. On the host: the interface, up, and
    nothing else: route, proxy ARP and rules are felix's work. What tells felix is the caller's `record`, called with
    the workload when the interface exists; `unrecord` is called before it is taken away.

    Args:
        name: unique on its host.
        addresses: the workload's own, one or more, of either family.
        interface: the host side's name; by default made from the name.
    """

    def __init__(
        self,
        host: Host,
        name: str,
        addresses: Sequence[IPAddress | str] | IPAddress | str,
        *,
        interface: str | None = None,
        record: Callable[["Workload"], None] | None = None,
        unrecord: Callable[["Workload"], None] | None = None,
    ) -> None:
        self.host, self.name = host, name
        given = [addresses] if isinstance(addresses, (str, IPAddress)) else addresses
        self.addresses: list[IPAddress] = [ip_address(str(address)) for address in given]
        self.interface = interface or interface_name(f"{host.name}/{name}")
        self._unrecord = unrecord
        self.net = host.fabric.namespace(f"{host.name}-{name}")
        try:
            self._attach()
            if record:
                record(self)
        except BaseException:
            self.net.close()
            raise
        host.fabric.add(self)

    @property
    def address(self) -> IPAddress:
        """The first address."""
        return self.addresses[0]

    def address_of(self, version: int) -> IPAddress:
        """The first address of a family."""
        return self._of(version)[0]

    def _attach(self) -> None:
        mtu, gateway = self._mtu(), ""
        families = {address.version for address in self.addresses}
        batch = f"link add {self.interface} mtu {mtu} type veth peer name cali0 mtu {mtu} netns {self.net.netns}\n"
        if 6 in families:
            self.host.ip(batch=batch)
            gateway = link_local(self.host.read_file(f"/sys/class/net/{self.interface}/address").strip())
            batch = f"addr add {gateway}/64 dev {self.interface} nodad\n"
        self.host.ip(batch=f"{batch}link set {self.interface} up\n")
        lines = ["link set cali0 up"]
        lines += [f"addr add {address}/{address.max_prefixlen} dev cali0" for address in self._of(4)]
        lines += [f"addr add {address}/{address.max_prefixlen} dev cali0 nodad" for address in self._of(6)]
        if 4 in families:
            lines += [f"route add {NEXT_HOP} dev cali0 scope link", f"route add default via {NEXT_HOP} dev cali0"]
        self.net.ip(batch="\n".join(lines) + "\n")
        if gateway:
            self.net.ip("-6", "route", "add", "default", "via", gateway, "dev", "cali0")

    def _mtu(self) -> int:
        told = self.host.path("/var/lib/calico/mtu")
        return int(told.read_text()) if told.exists() else 1500

    def _of(self, version: int) -> list[IPAddress]:
        return [address for address in self.addresses if address.version == version]

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into the workload's network namespace."""
        return self.net.entered()

    def run(
        self, command: Command, *, timeout: float = 30.0, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Done:
        """Run a command with the workload's network and the host's files and processes."""
        return self.host.run(command, timeout=timeout, env=env, check=check, netns=self.net.path)

    def popen(self, command: Command, *, name: str = "") -> Process:
        """Leave a command running with the workload's network; it dies with the host at the latest."""
        return self.host.popen(command, name=f"{self.name}-{name or 'process'}", netns=self.net.path)

    def ip(self, *arguments: str, batch: str = "", check: bool = True) -> Done:
        """Run ``ip`` on the workload's network namespace."""
        return self.net.ip(*arguments, batch=batch, check=check)

    def close(self) -> None:
        """Take the workload away, the record first; closing twice is fine."""
        if self.net.path.exists():
            if self._unrecord:
                self._unrecord(self)
            self.host.ip("link", "del", self.interface, check=False)
            self.net.close()

    def __enter__(self) -> "Workload":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def link_local(mac: str) -> str:
    """Return the link-local IPv6 address the kernel makes from a MAC. Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ip_address(bytes.fromhex("fe80") + bytes(6) + identifier))
