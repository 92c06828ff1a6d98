"""10,000 blocks from one reflector into the kernel, with one next hop and with 200, against BIRD in our place.

    .venv/bin/python benchmarks/bgp_table.py

Run as root. The far side is a BIRD on another host of the bed. The clock runs from the moment at which that BIRD calls
the session up until the kernel has all routes; best of five (reference bgp.md 8.5). Then one route among the 10,000
changes: from its withdrawal and return at the far side to the kernel.
"""

import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bgp_usage import Usage, usage  # noqa: E402
from results import Row, tell  # noqa: E402

from bed import Cluster, Host, wait_until  # noqa: E402
from bed.bgp import put  # noqa: E402
from fakes.bgp_host import configuration_record, node_record, peer_record, pool_record  # noqa: E402

ROUTES, ROUNDS = 10_000, 5
FAR = """
router id {far};
timeformat protocol iso long ms;
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static many {{ ipv4; {routes} }}
protocol static one {{ ipv4; route 10.200.0.0/26 via 10.77.0.100; }}
protocol bgp peer {{
  local {far} as 64512; neighbor {near} as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import none; export where source = RTS_STATIC; next hop keep; }};
}}
"""
NEAR = """
router id {near};
protocol device {{ scan time 1; }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
protocol bgp peer {{ local {near} as 64512; neighbor {far} as 64512; passive on; ipv4 {{ import all; export none; }}; }}
"""


def prefix(number: int) -> str:
    return f"10.{128 + number // 1024}.{number // 4 % 256}.{number % 4 * 64}/26"


def configure(far: Host, near: Host, next_hops: int) -> None:
    routes = " ".join(f"route {prefix(n)} via 10.77.0.{20 + n % next_hops};" for n in range(ROUTES))
    far.write_file("/run/bird.conf", FAR.format(far=far.address, near=near.address, routes=routes))


def birdc(host: Host, *words: str) -> str:
    return host.run(["birdc", "-s", "/run/bird.ctl", *words], check=False).stdout


def up_since(far: Host) -> float:
    """Return when the far side called the session up, wall time; 0 while it does not."""
    shown = birdc(far, "show", "protocols", "peer")
    found = re.search(r"^peer +BGP +\S+ +up +(\S+ \S+) +Established", shown, re.MULTILINE)
    return datetime.fromisoformat(found[1]).timestamp() if found else 0.0


def count(host: Host) -> int:
    """Return how many routes to blocks the kernel has."""
    with host.entered(), open("/proc/thread-self/net/route", encoding="ascii") as table:
        return sum(line.split()[7] == "C0FFFFFF" for line in table if line[:5] != "Iface")


def measure(far: Host, near: Host) -> tuple[list[float], list[float]]:
    """Return the seconds of each round to all routes, and of single changes among them."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        birdc(far, "enable", "peer")
        wait_until("all routes", lambda: count(near) == ROUTES + 1, timeout=60, every=0.01)
        rounds.append(time.time() - up_since(far))
        if len(rounds) < ROUNDS:
            birdc(far, "disable", "peer")
            wait_until("no route", lambda: count(near) == 0, timeout=60, every=0.05)
    return rounds, [_one(far, near) for _ in range(ROUNDS * 4)]


def _one(far: Host, near: Host) -> float:
    birdc(far, "disable", "one")
    wait_until("it to go", lambda: count(near) == ROUTES, timeout=20, every=0.005)
    time.sleep(0.3)
    began = time.time()
    birdc(far, "enable", "one")
    wait_until("it to come", lambda: count(near) == ROUTES + 1, timeout=20, every=0.005)
    return time.time() - began


def run(cluster: Cluster, command: list[str], stop: Callable[[], None]) -> tuple[list[float], list[float], Usage]:
    near, far = cluster["node1"], cluster["node2"]
    process = near.popen(command, env={"BGPD_HOLD_SECONDS": "90"})
    speaker = far.popen(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
    rounds, single = measure(far, near)
    used = usage(near)
    speaker.terminate()
    process.terminate()
    stop()
    wait_until("the table to be empty", lambda: count(near) == 0, timeout=20)
    return rounds, single, used


def main() -> None:
    rows: list[Row] = []
    with Cluster(2) as cluster:
        near, far = cluster["node1"], cluster["node2"]
        near.write_file("/run/bird.conf", NEAR.format(near=near.address, far=far.address))
        put(
            cluster.store,
            pool_record("p", "10.128.0.0/9"),
            configuration_record(nodeToNodeMeshEnabled=False),
            node_record("node1", f"{near.address}/24"),
            peer_record("rr", peerIP=str(far.address), asNumber=64512, maxRestartTime="1s"),
        )

        def end() -> None:
            near.run("calico-bgpd --end-speaker; ip route flush proto 81; ip route flush proto bird", check=False)

        for next_hops in (1, 200):
            configure(far, near, next_hops)
            theirs = run(cluster, ["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"], end)
            ours = run(cluster, ["calico-bgpd"], end)
            hops = f"{next_hops} next hop{'s' * (next_hops > 1)}"
            rows += [
                row(f"bgpd: {ROUTES} routes by {hops}, session up to kernel, best of {ROUNDS}", "s",
                    [min(ours[0])], [min(theirs[0])], aim=3 if next_hops == 1 else 4),
                row(f"bgpd: CPU of {ROUNDS} times {ROUTES} routes by {hops}", "s",
                    [ours[2].seconds], [theirs[2].seconds], aim=12),
            ]  # fmt: skip
        rows += [
            row(f"bgpd: one route among {ROUTES}, told to kernel", "ms",
                [1000 * one for one in ours[1]], [1000 * one for one in theirs[1]]),
            *(row(f"memory of {name} with {ROUTES} routes", "MB", [size], aim=limit, absolute=True)
              for name, limit in (("exabgp", 55), ("bgpd", 70), ("relay", 12)) if (size := ours[2].memory.get(name))),
        ]  # fmt: skip
    tell(rows)


def row(
    name: str, unit: str, samples: list[float], reference: list[float] | None = None, *,
    aim: float | None = None, absolute: bool = False,
) -> Row:
    return Row(
        name=name, unit=unit, samples=samples, reference=reference or [], reference_name="BIRD" if reference else "",
        aim=aim, absolute=absolute,
    )  # fmt: skip


if __name__ == "__main__":
    main()
