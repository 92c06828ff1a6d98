"""From `docker run` on one host to the first ping answered from a container on another, against Docker's own bridge.

    .venv/bin/python benchmarks/first_ping.py

Run as root. Two hosts with all daemons and Docker. Each time the network is new, so the address is the first of a new
block: it is claimed, announced, learned by the other host and written to its kernel. Then the same with the block in
place. The reference is a container on a bridge network of the same dockerd, pinged by its own host.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from results import Row, tell  # noqa: E402

from bed import Cluster, Dockerd  # noqa: E402
from bed.daemons import node_run  # noqa: E402
from bed.probes import PingResult  # noqa: E402

SAMPLES = 8
PATIENCE_SECONDS = 30.0


class Watch(threading.Thread):
    """Pings without pause until the first answer, and remembers when that was."""

    def __init__(self, ping: Callable[[], PingResult]) -> None:
        super().__init__(daemon=True)
        self._ping, self._until = ping, time.monotonic() + PATIENCE_SECONDS
        self.answered_at = 0.0

    def run(self) -> None:
        while time.monotonic() < self._until:
            if self._ping().ok:
                self.answered_at = time.monotonic()
                return


def first_answer(ping: Callable[[], PingResult], act: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds from the beginning of `act` to the first answer, and to its end."""
    watch = Watch(ping)
    began = time.monotonic()
    watch.start()
    act()
    ended = time.monotonic()
    watch.join()
    if not watch.answered_at:
        raise RuntimeError("no ping was answered")
    return watch.answered_at - began, ended - began


def measure(cluster: Cluster) -> list[Row]:
    one, two = cluster.on_each(lambda host: Dockerd(host, cluster.store))
    new: list[float] = []
    known: list[float] = []
    bridged: list[float] = []
    for number in range(SAMPLES):
        net, subnet = f"net{number}", f"10.65.{number}.0/24"
        cluster["node1"].run(["calicoctl", "create", "-f", "-"], stdin=POOL.format(net=net, subnet=subnet))
        one.docker("network", "create", "--driver", "calico", "--ipam-driver", "calico-ipam", "--subnet", subnet, net)
        asker = two.run(f"asker{number}", "--net", net, "--ip", f"10.65.{number}.200")
        for found, last in ((new, 5), (known, 6)):
            address, name = f"10.65.{number}.{last}", f"c{number}-{last}"
            took, _ = first_answer(
                lambda: asker.ping(address, timeout=0.02),  # noqa: B023
                lambda: one.run(name, "--net", net, "--ip", address),  # noqa: B023
            )
            found.append(took)
    one.docker("network", "create", "--subnet", "10.99.0.0/24", "bridged")
    for number in range(SAMPLES):
        address = f"10.99.0.{10 + number}"
        took, _ = first_answer(
            lambda: one.host.ping(address, timeout=0.02),  # noqa: B023
            lambda: one.run(f"b{number}", "--net", "bridged", "--ip", address),  # noqa: B023
        )
        bridged.append(took)
    title = "docker run to first ping from another host"
    return [
        Row(name=f"{title}, {what}", samples=samples, unit="s", reference=bridged,
            reference_name="Docker's bridge, its own host")
        for what, samples in (("new block", new), ("block in place", known))
    ]  # fmt: skip


POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: {net}}}
spec: {{cidr: {subnet}, ipipMode: Never, natOutgoing: false}}
"""


def main() -> None:
    with Cluster(2, start=node_run) as cluster:
        rows = measure(cluster)
    tell(rows)


if __name__ == "__main__":
    main()
