"""10,000 block routes by 200 gateways into the kernel: kernel.routes against ``ip -batch``, in one namespace, in turn.

    .venv/bin/python benchmarks/kernel_routes.py

Run as root. It puts itself into a new network namespace. Times are the best of five; what counts is the ratio
(reference bgp.md 8.1 and 8.5: at most 1).
"""

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Callable

from results import Row, tell

from kernel.routes import NetlinkRoutes, Route, RouteKey
from resources.names import IfName

ROUTES, GATEWAYS, ROUNDS = 10_000, 200, 5
ETH0 = IfName("eth0")
PREPARE = """\
link add eth0 type veth peer name far
link set eth0 up
link set far up
address add 192.0.2.1/24 dev eth0
"""


def main() -> None:
    if "inside" not in sys.argv:
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, "inside"])
    ip_batch(PREPARE)
    gateways = [ipaddress.IPv4Address("192.0.2.2") + number for number in range(GATEWAYS)]
    wanted = {
        RouteKey(ipaddress.IPv4Network(((10 << 24) + (number << 6), 26))): Route.via(
            gateways[number % GATEWAYS], ETH0, protocol=81
        )
        for number in range(ROUTES)
    }
    text = "".join(f"route replace {key} {route}\n" for key, route in wanted.items())
    routes = NetlinkRoutes()

    def write() -> None:
        assert routes.replace(wanted) == {}

    def read() -> None:
        assert len(routes.read(lambda _, route: route.protocol == 81).ours) == ROUTES

    def clear() -> None:
        assert routes.delete(wanted) == {}

    write()
    read()
    clear()
    rows: list[tuple[str, float, float]] = []
    ours, theirs = measure(write, clear), measure(lambda: ip_batch(text), clear)
    rows.append(("write into an empty table", ours, theirs))
    write()
    rows.append(("write the same again", measure(write), measure(lambda: ip_batch(text))))
    rows.append(("read all, as values", measure(read), measure(list_json)))
    rows.append(("delete all", measure(clear, write), measure(lambda: ip_batch(text.replace("replace", "del")), write)))
    tell([
        Row(name=f"{ROUTES} routes: {name}", samples=[mine], unit="s", reference=[other], reference_name="iproute2",
            aim=None if "read" in name else 1)
        for name, mine, other in rows
    ])  # fmt: skip


def measure(act: Callable[[], object], between: Callable[[], object] | None = None) -> float:
    """Return the seconds of the best of some rounds; `between` is run after each, outside the clock."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - began)
        if between is not None:
            between()
    return best


def ip_batch(text: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True, timeout=60)


def list_json() -> None:
    subprocess.run(["ip", "-j", "route"], stdout=subprocess.PIPE, check=True, timeout=60)


if __name__ == "__main__":
    main()
