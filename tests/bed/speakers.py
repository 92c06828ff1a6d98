"""BIRD, FRR and GoBGP of Debian, each on a host of the bed, told the same thing in its own words.

    far = Frr(host, number=65001, neighbors=[Neighbor(address, number=64512)], announces=["10.50.0.0/16"])
    far.start()
    far.learned(4)     # {"10.65.1.0/26": Told(next_hop="10.77.0.1", as_path=(64512,))}

As a route reflector (`reflects`) it passes on what its clients tell; else it is a router of another AS.
"""

import ipaddress
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from bed.command import Process, wait_until
from bed.host import Host
from bed.routes import routes


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """A peer as the speaker sees it."""

    address: str
    number: int = 64512
    password: str = ""

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version


@dataclass(frozen=True)
class Told:
    """A route as the speaker has it."""

    next_hop: str
    as_path: tuple[int, ...] = ()


class Speaker(ABC):
    """One BGP speaker on a host, which it has for itself."""

    name: ClassVar[str]
    in_kernel: ClassVar[bool] = True
    """It writes what it learned to the kernel."""

    def __init__(
        self,
        host: Host,
        *,
        number: int = 64512,
        neighbors: Sequence[Neighbor] = (),
        announces: Sequence[str] = (),
        reflects: bool = False,
    ) -> None:
        self.host, self.number = host, number
        self.neighbors, self.announces, self.reflects = list(neighbors), list(announces), reflects
        self.processes: list[Process] = []

    @abstractmethod
    def start(self) -> None:
        """Write the configuration and start."""

    @abstractmethod
    def learned(self, version: int) -> dict[str, Told]:
        """Return the best routes that peers told it."""

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        self.processes.clear()

    def restart(self) -> None:
        """Take a changed configuration over, the hard way."""
        self.stop()
        self.start()

    def _of(self, version: int, prefixes: Iterable[str]) -> list[str]:
        return [prefix for prefix in prefixes if ipaddress.ip_network(prefix.split()[0]).version == version]


class Bird(Speaker):
    """BIRD 2. Its neighbors are its protocols peer0, peer1, ...; what it learned stays in the kernel when it ends.

    What it announces may have a way: ``10.0.0.0/8 via 192.0.2.1``.
    """

    name = "bird"

    def __init__(
        self,
        host: Host,
        *,
        number: int = 64512,
        neighbors: Sequence[Neighbor] = (),
        announces: Sequence[str] = (),
        reflects: bool = False,
        graceful: str = "on",
        restart_seconds: int = 120,
        next_hop_self: bool = False,
        more: str = "",
    ) -> None:
        """Take what it is to say.

        Args:
            graceful: its own word: on, off or aware.
            next_hop_self: it is itself the next hop of what it announces with another way, too.
            more: goes into each peering.
        """
        super().__init__(host, number=number, neighbors=neighbors, announces=announces, reflects=reflects)
        self._graceful, self._restart_seconds, self._more = graceful, restart_seconds, more
        self._next_hop = "next hop self; " if next_hop_self else ""

    def start(self, *, recover: bool = False) -> None:
        """Start it; to `recover`, it keeps what its kernel has until its peers have told all."""
        self.configure(*self.announces)
        options = ["-R"] if recover else []
        self.processes = [self.host.popen(["bird", "-f", *options, "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])]

    def configure(self, *announces: str) -> None:
        """Write down that it announces these; one that runs takes it over with ``ask("configure")``."""
        self.announces = list(announces)
        self.host.write_file("/run/bird.conf", self._configuration())

    @property
    def process(self) -> Process:
        return self.processes[0]

    def ask(self, command: str) -> str:
        return self.host.run(["birdc", "-s", "/run/bird.ctl", *command.split()], check=False).stdout

    def routes(self, version: int = 4) -> dict[str, str]:
        """Return what it has in its kernel."""
        return routes(self.host, "12", version=version)

    def has_exported(self, count: int) -> bool:
        """Whether it has announced so many prefixes to its first peer and no others."""
        return f" {count} exported" in self.ask("show protocols all peer0")

    def _configuration(self) -> str:
        lines = [f"router id {self.host.address};", "protocol device { scan time 2; }"]
        for version in sorted({neighbor.version for neighbor in self.neighbors}):
            static = " ".join(
                f"route {one if ' ' in one else f'{one} blackhole'};" for one in self._of(version, self.announces)
            )
            lines += [
                f"protocol direct {{ ipv{version}; }}",
                f"protocol kernel {{ ipv{version} {{ import none; export where source = RTS_BGP; }}; "
                "persist; graceful restart on; }",
                f"protocol static {{ ipv{version}; {static} }}",
            ]
        lines += [self._peering(f"peer{count}", neighbor) for count, neighbor in enumerate(self.neighbors)]
        return "\n".join(lines) + "\n"

    def _peering(self, name: str, neighbor: Neighbor) -> str:
        reflector = f"rr client; rr cluster id {self.host.address};" if self.reflects else ""
        password = f'password "{neighbor.password}";' if neighbor.password else ""
        local = self.host.address if neighbor.version == 4 else self.host.address6
        passes_on = " || source = RTS_BGP" if self.reflects or self.number != neighbor.number else ""
        return (
            f"protocol bgp {name} {{ local {local} as {self.number}; "
            f"neighbor {neighbor.address} as {neighbor.number}; {reflector} {password} {self._more} "
            f"connect delay time 1; connect retry time 2; "
            f"graceful restart {self._graceful}; graceful restart time {self._restart_seconds}; "
            f"ipv{neighbor.version} {{ {self._next_hop}import all; export where source = RTS_STATIC{passes_on}; }}; }}"
        )

    def learned(self, version: int) -> dict[str, Told]:
        return {
            prefix: Told(told["BGP.next_hop"].split()[0], tuple(int(word) for word in told["BGP.as_path"].split()))
            for prefix, told in self.told(version).items()
        }

    def told(self, version: int) -> dict[str, dict[str, str]]:
        """Return the attributes of the best route for each prefix that a peer told it, by its own names for them."""
        found: dict[str, dict[str, str]] = {}
        attributes: dict[str, str] = {}
        for line in self.ask(f"show route table master{version} all").splitlines():
            first, _, rest = line.strip().partition(" ")
            if "/" in first and not line[0].isspace():
                attributes = found[first] = {}
            elif first.startswith("BGP."):
                attributes.setdefault(first.rstrip(":"), rest)
        return {prefix: attributes for prefix, attributes in found.items() if attributes}


class Frr(Speaker):
    name = "frr"

    def start(self) -> None:
        self.host.write_file("/run/frr/zebra.conf", "")
        self.host.write_file("/run/frr/bgpd.conf", self._configuration())
        # they run as a user of their own, and keep crash logs in /var/tmp, which is the machine's
        self.host.run("chown -R frr:frr /run/frr; mountpoint -q /var/tmp || mount -t tmpfs tmpfs /var/tmp")
        files = ["-z", "/run/frr/zserv.api", "--vty_socket", "/run/frr"]
        for daemon in ("zebra", "bgpd"):
            own = ["-f", f"/run/frr/{daemon}.conf", "-i", f"/run/frr/{daemon}.pid"]
            self.processes.append(self.host.popen([f"/usr/lib/frr/{daemon}", *own, *files]))
            wait_until(f"{daemon} of FRR", partial(self._answers, daemon), timeout=20)

    def _answers(self, daemon: str) -> bool:
        return self.host.run(["vtysh", "--vty_socket", "/run/frr", "-d", daemon, "-c", "show version"], check=False).ok

    def _configuration(self) -> str:
        lines = [
            "frr defaults traditional",
            "log stdout",
            f"router bgp {self.number}",
            f" bgp router-id {self.host.address}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " no bgp network import-check",
            " bgp graceful-restart",
        ]
        for neighbor in self.neighbors:
            lines += [
                f" neighbor {neighbor.address} remote-as {neighbor.number}",
                f" neighbor {neighbor.address} timers connect 1",
            ]
            if neighbor.password:
                lines.append(f" neighbor {neighbor.address} password {neighbor.password}")
        for version in (4, 6):
            lines.append(f" address-family ipv{version} unicast")
            lines += [f"  network {prefix}" for prefix in self._of(version, self.announces)]
            for neighbor in self.neighbors:
                if neighbor.version == version:
                    lines.append(f"  neighbor {neighbor.address} activate")
                    if self.reflects:
                        lines.append(f"  neighbor {neighbor.address} route-reflector-client")
            lines.append(" exit-address-family")
        return "\n".join(lines) + "\n"

    def learned(self, version: int) -> dict[str, Told]:
        asked = ["vtysh", "--vty_socket", "/run/frr", "-d", "bgpd", "-c", f"show bgp ipv{version} unicast json"]
        found: dict[str, Told] = {}
        for prefix, paths in json.loads(self.host.run(asked).stdout or "{}").get("routes", {}).items():
            for path in paths:
                if path.get("bestpath") and path.get("peerId", "(unspec)") != "(unspec)":
                    hop = next(one["ip"] for one in path["nexthops"] if one.get("scope", "global") == "global")
                    found[prefix] = Told(hop, tuple(int(word) for word in path["path"].split()))
        return found


class GoBgp(Speaker):
    name = "gobgp"
    in_kernel = False  # it leaves that to FRR's zebra

    def start(self) -> None:
        self.host.write_file("/run/gobgpd.toml", self._configuration())
        self.processes = [
            self.host.popen(["gobgpd", "-t", "toml", "-f", "/run/gobgpd.toml", "--api-hosts", "127.0.0.1:50051"])
        ]
        wait_until("GoBGP", lambda: self.host.run(["gobgp", "global"], check=False).ok, timeout=20)
        for prefix in self.announces:
            version = ipaddress.ip_network(prefix).version
            hop = self.host.address if version == 4 else self.host.address6
            self.host.run(["gobgp", "global", "rib", "add", prefix, "nexthop", str(hop), "-a", f"ipv{version}"])

    def _configuration(self) -> str:
        lines = [
            "[global.config]",
            f"as = {self.number}",
            f'router-id = "{self.host.address}"',
            "port = 179",
            f'local-address-list = ["{self.host.address}", "{self.host.address6}"]',
        ]
        for neighbor in self.neighbors:
            lines += [
                "[[neighbors]]",
                "[neighbors.config]",
                f'neighbor-address = "{neighbor.address}"',
                f"peer-as = {neighbor.number}",
                *([f'auth-password = "{neighbor.password}"'] if neighbor.password else []),
                "[neighbors.timers.config]",
                "connect-retry = 1",
                "idle-hold-time-after-reset = 1",
                "[neighbors.graceful-restart.config]",
                "enabled = true",
                "restart-time = 60",
            ]
            if self.reflects:
                lines += [
                    "[neighbors.route-reflector.config]",
                    "route-reflector-client = true",
                    f'route-reflector-cluster-id = "{self.host.address}"',
                ]
            lines += [
                "[[neighbors.afi-safis]]",
                "[neighbors.afi-safis.config]",
                f'afi-safi-name = "ipv{neighbor.version}-unicast"',
                "[neighbors.afi-safis.mp-graceful-restart.config]",
                "enabled = true",
            ]
        return "\n".join(lines) + "\n"

    def learned(self, version: int) -> dict[str, Told]:
        text = self.host.run(["gobgp", "global", "rib", "-a", f"ipv{version}", "-j"]).stdout
        tables: dict[str, list[dict[str, Any]]] = json.loads(text or "{}")
        found: dict[str, Told] = {}
        for prefix, paths in tables.items():
            best = paths[0]
            if "neighbor-ip" not in best:
                continue
            attributes = {attribute["type"]: attribute for attribute in best["attrs"]}
            hop = attributes[14 if 14 in attributes else 3]["nexthop"]
            segments = attributes.get(2, {}).get("as_paths") or []
            found[prefix] = Told(hop, tuple(number for segment in segments for number in segment["asns"]))
        return found


SPEAKERS: tuple[type[Speaker], ...] = (Bird, Frr, GoBgp)
