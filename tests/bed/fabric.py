"""The fabric: one link that joins the hosts of a bed, and leads nowhere else."""

import contextlib
import hashlib
import threading
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from bed import claim as claims
from bed.command import Command, Done
from bed.namespaces import Namespace
from bed.probes import Prober

BRIDGE = "br0"


def mac(name: str) -> str:
    """Return the MAC that belongs to a name: a host that boots again has the same, as a real one has."""
    return "02:" + hashlib.sha1(name.encode()).digest()[:5].hex(":")


class Part(Protocol):
    """Something on the fabric that must be ended with it."""

    def close(self) -> None: ...


class Fabric(Prober):
    """A namespace with a bridge, and everything that hangs on it: the bed itself.

    `with Fabric() as fabric:` removes all of it at the end, whatever happened in between; what a killed process left
    is removed by the next Fabric that is made, or by `down()`. Several fabrics may exist at once: their addresses are
    the same, their namespaces are not.

    The fabric's own address is the last of its subnet. It is the hosts' default gateway and forwards nothing, and it
    may stand for "the world outside" in tests: `fabric.entered()` and `fabric.run()` work there. It has an IPv6
    address, too; hosts have one if they are made so.
    """

    def __init__(
        self, id: str | None = None, *, subnet: str = "10.77.0.0/24", subnet6: str = "fd00:77::/64", mtu: int = 1500
    ) -> None:
        claims.down()
        self.claim = claims.Claim.new(id)
        self.id, self.folder = self.claim.id, self.claim.folder
        self.subnet, self.mtu = IPv4Network(subnet), mtu
        self.subnet6 = IPv6Network(subnet6)
        self.address: IPv4Address = self.subnet[-2]
        self.address6 = self.beside(self.address)
        self.name = "fabric"
        self._hosts = iter(self.subnet.hosts())
        self._services = iter(list(self.subnet.hosts())[200:])
        self._parts: list[Part] = []
        self._lock = threading.Lock()
        self._kept = False
        try:
            self.core = self.namespace("core")
            self.core.run("echo 0 >/proc/sys/net/ipv4/ip_forward")
            self.core.ip(
                batch=f"link add {BRIDGE} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                f"addr add {self.address}/{self.subnet.prefixlen} dev {BRIDGE}\n"
                f"addr add {self.address6}/{self.subnet6.prefixlen} dev {BRIDGE} nodad\n"
                f"link set {BRIDGE} up\n"
            )
        except BaseException:
            self.claim.sweep()
            raise

    def namespace(self, name: str) -> Namespace:
        """Make a bare namespace that goes away with the fabric; it is not joined to it."""
        return Namespace(self.claim.prefix + name, label=name)

    def next_address(self, *, service: bool = False) -> IPv4Address:
        """Return the next unused address: hosts count from .1, services (etcd) from .201."""
        with self._lock:
            return next(self._services if service else self._hosts)

    def beside(self, address: IPv4Address) -> IPv6Address:
        """Return the IPv6 address that belongs to an address of the fabric: fd00:77::1 to 10.77.0.1."""
        return self.subnet6[int(address) - int(self.subnet.network_address)]

    def join(self, port: str, peer: Namespace) -> None:
        """Give `peer` an ``eth0`` that is joined to the bridge; `port` (15 bytes) names the bridge's end."""
        self.core.ip(
            batch=f"link add {port} mtu {self.mtu} type veth peer name eth0 mtu {self.mtu} netns {peer.netns}"
            f" address {mac(port)}\n"
            f"link set {port} master {BRIDGE} up\n"
        )

    def unplug(self, port: str) -> None:
        """Take the bridge's end away, and with it the host's ``eth0``; gone already is fine."""
        self.core.ip("link", "del", port, check=False)

    def link(self, port: str, *, up: bool) -> None:
        """Pull or plug the cable of one host: its ``eth0`` loses or regains its carrier."""
        self.core.ip("link", "set", port, "up" if up else "down")

    def add(self, part: Part) -> None:
        """Have `part` closed with the fabric, before it."""
        with self._lock:
            self._parts.append(part)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into the fabric's namespace, where the bridge's address is."""
        return self.core.entered()

    def run(
        self, command: Command, *, timeout: float = 30.0, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Done:
        """Run a command in the fabric's namespace."""
        return self.core.run(command, timeout=timeout, env=env, check=check)

    def keep(self) -> None:
        """Leave the bed up when this process ends; `down(fabric.id)` removes it."""
        self.claim.keep()
        self._kept = True

    def close(self) -> None:
        """Remove everything of this bed: processes, namespaces, mounts, cgroups, files."""
        with self._lock:
            parts, self._parts = self._parts[::-1], []
        try:
            for part in parts:
                part.close()
        finally:
            self.claim.sweep()
            with contextlib.suppress(OSError):
                claims.FOLDER.rmdir()

    def __enter__(self) -> "Fabric":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.close()
