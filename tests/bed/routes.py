"""The routes in the kernel of a host of the bed."""

import json

from bed.host import Host


def routes(host: Host, protocol: str = "81", *, version: int = 4) -> dict[str, str]:
    """Return the routes of a protocol, as ``via A dev D``, ``blackhole`` or ``unreachable``."""
    found = {}
    for route in json.loads(host.ip(f"-{version}", "-j", "-N", "route", "show", "table", "main").stdout or "[]"):
        if str(route.get("protocol")) == protocol:
            kind = {"6": "blackhole", "7": "unreachable"}.get(str(route.get("type")))
            destination = route["dst"] if "/" in route["dst"] else f"{route['dst']}/{32 if version == 4 else 128}"
            found[destination] = kind or f"via {route.get('gateway')} dev {route.get('dev')}"
    return found
