"""A node that reflects for 20 clients with 500 routes each, against BIRD in its place (reference bgp.md 6, row 31).

    .venv/bin/python benchmarks/bgp_reflector.py

Run as root. The clients are BIRDs on one host; the time goes from the start of the reflector until every client has all
routes of the others. Each (route, neighbour) is one announcement: 190,000 in all.
"""

import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bgp_usage import usage  # noqa: E402
from results import Row, tell  # noqa: E402

from bed import Cluster, Host, wait_until  # noqa: E402
from bed.bgp import put  # noqa: E402
from fakes.bgp_host import configuration_record, node_record, peer_record, pool_record  # noqa: E402

CLIENTS, ROUTES = 20, 500
FIRST = 101
CLIENT = """
router id {address};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static st {{ ipv4; {routes} }}
protocol bgp up {{
  local {address} as 64512; neighbor {reflector} as 64512; strict bind yes;
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"""
REFLECTOR = """
router id {address};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
template bgp reflected {{
  local {address} as 64512; rr client; passive on;
  ipv4 {{ import all; export where source = RTS_BGP; }};
}}
"""


def prefixes(client: int) -> list[str]:
    return [f"10.{128 + client}.{n // 4}.{n % 4 * 64}/26" for n in range(ROUTES)]


def start_clients(host: Host, reflector: Host) -> dict[int, str]:
    """Start the clients; return their addresses."""
    addresses = {number: f"10.77.0.{FIRST + number}" for number in range(CLIENTS)}
    for number, address in addresses.items():
        host.ip("addr", "add", f"{address}/24", "dev", "eth0")
        routes = " ".join(f"route {prefix} blackhole;" for prefix in prefixes(number))
        text = CLIENT.format(address=address, reflector=reflector.address, routes=routes)
        host.write_file(f"/run/bird{number}.conf", text)
        command = ["bird", "-f", "-c", f"/run/bird{number}.conf", "-s", f"/run/bird{number}.ctl"]
        host.popen(command, name=f"bird{number}")
    return addresses


def imported(host: Host, number: int) -> int:
    """Return how many routes a client has from the reflector."""
    shown = host.run(["birdc", "-s", f"/run/bird{number}.ctl", "show", "protocols", "all", "up"], check=False).stdout
    found = re.search(r"Routes: +(\d+) imported", shown)
    return int(found[1]) if found else 0


def measure(cluster: Cluster, addresses: dict[int, str], command: list[str]) -> tuple[float, float, float]:
    """Return seconds until all clients have all routes, seconds of CPU, and MB of memory of the reflector."""
    reflector, host = cluster["node1"], cluster["node2"]
    began = time.monotonic()
    process = reflector.popen(command, env={"BGPD_HOLD_SECONDS": "90"})
    waiting = set(addresses)
    while waiting:
        number = min(waiting)
        wait_until(
            f"client {number} to have all",
            lambda: imported(host, number) == (CLIENTS - 1) * ROUTES,  # noqa: B023
            timeout=240,
            every=0.1,
        )
        waiting.discard(number)
    seconds = time.monotonic() - began
    used = usage(reflector)
    process.terminate()
    return seconds, used.seconds, sum(used.memory.values())


def main() -> None:
    with Cluster(2) as cluster:
        reflector = cluster["node1"]
        addresses = start_clients(cluster["node2"], reflector)
        neighbors = "\n".join(
            f"protocol bgp c{number} from reflected {{ neighbor {address} as 64512; }}"
            for number, address in addresses.items()
        )
        reflector.write_file("/run/bird.conf", REFLECTOR.format(address=reflector.address) + neighbors)
        theirs = measure(cluster, addresses, ["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
        put(
            cluster.store,
            pool_record("p", "10.128.0.0/9"),
            configuration_record(nodeToNodeMeshEnabled=False),
            node_record("node1", f"{reflector.address}/24", routeReflectorClusterID="1.0.0.1"),
            *(
                peer_record(f"c{number}", node="node1", peerIP=address, asNumber=64512)
                for number, address in addresses.items()
            ),
        )
        ours = measure(cluster, addresses, ["calico-bgpd"])
    tell([
        Row(name=f"reflector: {CLIENTS} clients x {ROUTES} routes: {what}", samples=[mine], reference=[other],
            reference_name="BIRD", unit=unit)
        for what, unit, mine, other in zip(("until all have all", "CPU", "memory"), ("s", "s", "MB"), ours, theirs,
                                           strict=True)
    ])  # fmt: skip


if __name__ == "__main__":
    main()
