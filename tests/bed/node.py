"""What tests ask of a host that runs the product: its daemons, its sessions, its records; and traffic meanwhile."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bed.cluster import Cluster
from bed.host import Host
from bed.namespaces import processes
from bed.probes import Address, Prober, ping
from calicoctl.node import birdctl
from resources.runtime import health

_NAMES = {"calico-libnetwo": "calico-libnetwork"}
"""The kernel cuts a process's name at 15 characters."""
_OURS = {"calico-felix", "calico-bgpd", "calico-libnetwork", "supervise", "agent", "exabgp"}
_STATUS_KEYS = ("/calico/felix/",)


def daemons(host: Host) -> dict[str, int]:
    """Return the processes of the product on a host: name and pid as the host counts them.

    ``supervise`` and ``agent`` are those of calico-node.
    """
    deadline = time.monotonic() + 2.0
    while True:
        running = _running(host)
        found = dict(running)
        if len(found) == len(running):
            return found
        if time.monotonic() > deadline:  # before that it may be a supervisor that is starting something
            raise AssertionError(f"something runs twice on {host.name}: {sorted(running)}")
        time.sleep(0.02)


def _running(host: Host) -> list[tuple[str, int]]:
    found = []
    for pid in processes(host.net.netns):
        try:
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
            words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = words[-1] if comm == "calico-node" else _NAMES.get(comm, comm)
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if name in _OURS and not fields["State"].strip().startswith("Z"):
            found.append((name, int(fields["NSpid"].split()[-1])))
    return found


def sessions(host: Host, version: int = 4) -> list[birdctl.Peer]:
    """Return the host's sessions of a family, sorted by address; none when bgpd does not answer."""
    try:
        return birdctl.peers(host.path(f"/run/calico/{'bird' if version == 4 else 'bird6'}.ctl"))
    except birdctl.BirdUnreachable:
        return []


def is_meshed(host: Host, others: int, version: int = 4) -> bool:
    """Whether a host has as many sessions of a family, all of them up."""
    found = sessions(host, version)
    return len(found) == others and all((peer.state, peer.info) == ("up", "Established") for peer in found)


def has_sessions(host: Host, others: int) -> bool:
    """Whether a host has as many sessions, all established; some may wait for what the peer has to tell."""
    found = sessions(host)
    return len(found) == others and all(peer.info == "Established" for peer in found)


def is_ready(host: Host, daemon: str) -> bool:
    """Whether a daemon (``felix``, ``bgpd``, ...) says that it is ready."""
    return health.ask(host.path(f"/run/calico/{daemon}.sock"), "/readiness")[0] == 204


def records(cluster: Cluster) -> dict[str, str]:
    """Return everything of the product in the store but what daemons say of themselves every so often."""
    found = cluster.store.contents("/calico/")
    return {key: value for key, value in found.items() if not key.startswith(_STATUS_KEYS)}


class Flood:
    """Pings every 10 ms while the block runs; `lost` are the times, since its begin, of those not answered in 1 s."""

    def __init__(self, source: Prober, address: Address) -> None:
        self.sent = 0
        self.lost: list[float] = []
        self._source, self._address = source, address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"flood {address}", daemon=True)

    def _run(self) -> None:
        began = time.monotonic()
        with self._source.entered():
            while not self._over.wait(0.01):
                sent = time.monotonic() - began
                if not ping(self._address, timeout=1.0).ok:
                    self.lost.append(round(sent, 2))
                self.sent += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(5.0)
