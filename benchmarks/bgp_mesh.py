"""A mesh of 50 nodes on one machine, restarted at once with empty kernels, beside BIRD (reference bgp.md 6, row 78).

    .venv/bin/python benchmarks/bgp_mesh.py [--nodes 50]

Run as root, with 8 GB of memory free. The time goes from the start of the first daemon until every kernel has every
block. What costs most is to start 150 Python processes: a host that starts its own alone needs half a second of
processor time for bgpd and as much for ExaBGP, so two processors cannot do it in less than some 25 seconds.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from results import Row, tell  # noqa: E402

from bed import Cluster, Host, Process, wait_until  # noqa: E402
from bed.bgp import Mesh, block  # noqa: E402

BIRD = """
router id {address};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static st {{ ipv4; route {prefix} blackhole; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP || source = RTS_STATIC; }}; }}
template bgp mesh {{
  local {address} as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 5;
  graceful restart on;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
{neighbors}
"""
PATIENCE_SECONDS = 200.0


def blocks(host: Host) -> int:
    """Return how many blocks the kernel of a host has, its own among them."""
    return len(re.findall(r"^(?:blackhole )?10\.65\.", host.ip("route").stdout, re.MULTILINE))


def until_all_have_all(cluster: Cluster, start: Callable[[], object]) -> float:
    """Start, and return the seconds until every kernel has every block."""
    began = time.monotonic()
    start()
    for host in cluster.hosts:
        wait_until(
            f"{host.name} to have all blocks",
            lambda: blocks(host) == len(cluster.hosts),  # noqa: B023
            timeout=PATIENCE_SECONDS,
            every=0.5,
        )
    return time.monotonic() - began


def bird(cluster: Cluster) -> float:
    """Have a BIRD on each host, and return how long they take; then end them and forget their routes."""
    for number, host in enumerate(cluster.hosts, 1):
        others = [
            f"protocol bgp n{int(other.address)} from mesh {{ neighbor {other.address} as 64512;"
            f"{' passive on;' if host.address < other.address else ''} }}"
            for other in cluster.hosts
            if other is not host
        ]
        text = BIRD.format(address=host.address, prefix=block(number), neighbors="\n".join(others))
        host.write_file("/run/bird.conf", text)
    command = ["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"]
    running: list[Process] = []
    took = until_all_have_all(cluster, lambda: running.extend(host.popen(command) for host in cluster.hosts))
    for process in running:
        process.kill()
    cluster.on_each(lambda host: host.run("ip route flush proto bird", check=False))
    return took


def restarted(cluster: Cluster, mesh: Mesh) -> float:
    """End everything on all nodes, routes too, and return how long a common start takes."""
    for daemon in mesh.daemons.values():
        daemon.kill()
    cluster.on_each(lambda host: host.run("calico-bgpd --end-speaker; ip route flush proto 81", check=False))
    return until_all_have_all(cluster, lambda: mesh.start(wait=False))


def fallen(cluster: Cluster, mesh: Mesh) -> int:
    """Return how often a session has fallen, on all nodes together: each has come up once at least."""
    sessions = [session for host in cluster.hosts for session in mesh.sessions(host.name).values()]
    return sum(session["transitions"] - 1 for session in sessions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with Cluster(given.nodes) as cluster:
        cluster.introduce()
        theirs = bird(cluster)
        mesh = Mesh(cluster, BGPD_HOLD_SECONDS="90")
        until_all_have_all(cluster, lambda: mesh.start(wait=False))
        ours = restarted(cluster, mesh)
        falls = fallen(cluster, mesh)
    title = f"bgpd: a mesh of {given.nodes} nodes on one machine, restarted at once"
    tell([
        Row(name=f"{title}, until every kernel has all", samples=[ours], unit="s", aim=15, absolute=True,
            reference=[theirs], reference_name="BIRD"),
        Row(name=f"{title}: sessions that fell meanwhile", samples=[falls], unit="", aim=0, absolute=True),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
