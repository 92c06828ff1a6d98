"""50 sessions on one node, idle: processor time and memory of bgpd, ExaBGP and the relay, against BIRD in their place.

    .venv/bin/python benchmarks/bgp_sessions.py

Run as root. The peers are BIRDs on another host, with one route each. All sessions are up before the clock starts.
"""

import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bgp_usage import Usage, usage  # noqa: E402
from results import Row, tell  # noqa: E402

from bed import Cluster, Host, wait_until  # noqa: E402
from bed.bgp import put  # noqa: E402
from fakes.bgp_host import configuration_record, node_record, peer_record, pool_record  # noqa: E402

SESSIONS, IDLE_SECONDS = 50, 20.0
FIRST = 101
PEER = """
router id {address};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static {{ ipv4; route {prefix} blackhole; }}
protocol bgp node {{
  local {address} as 64512; neighbor {node} as 64512; hold time 90; strict bind on;
  connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"""
BIRD = """
router id {node};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
{neighbors}
"""
ONE = """\
protocol bgp p{n} {{
  local {node} as 64512; neighbor {address} as 64512; passive on; hold time 90; ipv4 {{ import all; export none; }};
}}
"""


def start_peers(host: Host, node: Host) -> list[str]:
    addresses = [f"10.77.0.{FIRST + number}" for number in range(SESSIONS)]
    for number, address in enumerate(addresses):
        host.ip("addr", "add", f"{address}/24", "dev", "eth0")
        text = PEER.format(address=address, node=node.address, prefix=f"10.128.{number}.0/26")
        host.write_file(f"/run/bird{number}.conf", text)
        command = ["bird", "-f", "-c", f"/run/bird{number}.conf", "-s", f"/run/bird{number}.ctl"]
        host.popen(command, name=f"bird{number}")
    return addresses


def established(host: Host) -> int:
    shown = host.run("ss -Htn state established 'sport = :179 or dport = :179'").stdout
    return len(shown.splitlines())


def routes(host: Host) -> int:
    return len(re.findall(r"^10\.128\.", host.ip("route").stdout, re.MULTILINE))


def measure(node: Host, command: list[str]) -> tuple[Usage, dict[str, float], float]:
    """Return the use when idle began, percent of a core by process while idle, and seconds until all was up."""
    began = time.monotonic()
    process = node.popen(command, env={"BGPD_HOLD_SECONDS": "90"})
    wait_until("all", lambda: established(node) == SESSIONS and routes(node) == SESSIONS, timeout=90, every=0.1)
    took = time.monotonic() - began
    time.sleep(5)
    before = usage(node)
    time.sleep(IDLE_SECONDS)
    after = usage(node)
    process.terminate()
    node.run("calico-bgpd --end-speaker; ip route flush proto 81; ip route flush proto bird", check=False)
    wait_until("the sessions to end", lambda: established(node) == 0, timeout=30)
    return after, {name: 100 * (after.cpu[name] - before.cpu[name]) / IDLE_SECONDS for name in after.cpu}, took


def main() -> None:
    with Cluster(2) as cluster:
        node = cluster["node1"]
        addresses = start_peers(cluster["node2"], node)
        neighbors = "".join(ONE.format(n=n, node=node.address, address=address) for n, address in enumerate(addresses))
        node.write_file("/run/bird.conf", BIRD.format(node=node.address, neighbors=neighbors))
        theirs, idle, up = measure(node, ["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl"])
        put(
            cluster.store,
            pool_record("p", "10.128.0.0/9"),
            configuration_record(nodeToNodeMeshEnabled=False),
            node_record("node1", f"{node.address}/24"),
            *(peer_record(f"p{n}", peerIP=address, asNumber=64512) for n, address in enumerate(addresses)),
        )
        ours, ours_idle, ours_up = measure(node, ["calico-bgpd"])
    title = f"{SESSIONS} sessions"
    tell([
        Row(name=f"bgpd: {title}, from start to all routes", samples=[ours_up], unit="s", reference=[up],
            reference_name="BIRD"),
        Row(name=f"bgpd: {title}, idle, CPU of all its processes", samples=[sum(ours_idle.values())], unit="%", aim=4,
            absolute=True, reference=[sum(idle.values())], reference_name="BIRD"),
        *(Row(name=f"memory of {name} with {title}", samples=[ours.memory[name]], unit="MB", aim=limit, absolute=True)
          for name, limit in (("exabgp", 40), ("bgpd", 45), ("relay", 12))),
        Row(name=f"memory of bgpd, ExaBGP and relay with {title}", samples=[sum(ours.memory.values())], unit="MB",
            reference=[sum(theirs.memory.values())], reference_name="BIRD"),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
