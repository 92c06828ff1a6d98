"""`calicoctl node routes`: every route that this host learned by BGP, where from, and what became of it.

bgpd decides and says why; this asks it (never imports it) at its socket and lays the answer out.
"""

import ipaddress
import time
from collections.abc import Iterable, Sequence

import msgspec

from calicoctl.output import plain_table
from resources.errors import CalicoError, Rejected
from resources.runtime import health, paths

PAGE = "/routes"
TIMEOUT_SECONDS = 10.0
RECENT_SECONDS = 20 * 3600
"""What is younger is shown by its time, as in `node status`, the rest by its date."""
NO = "no: "

HEADINGS = ("DESTINATION", "PEER", "NEXT HOP", "SINCE", "IN KERNEL")
WIDE_HEADINGS = (*HEADINGS, "AS PATH", "ORIGIN", "LOCAL-PREF", "MED", "COMMUNITIES", "ORIGINATOR", "CLUSTERS")


class BgpdSilent(CalicoError):
    """bgpd of this host does not answer, or not now."""

    reference = "bgpd-silent"


class BadDestination(Rejected):
    """Neither an address nor a prefix."""

    reference = "bad-destination"


class Path(msgspec.Struct, frozen=True):
    """One way to a destination, as one peer tells it."""

    peer: str
    next_hop: str
    since: float
    name: str = ""
    chosen: bool = False
    refused: str | None = None
    lost_by: str | None = None
    stale: bool = False
    external: bool = False
    as_path: str = ""
    origin: str = ""
    local_preference: int | None = None
    med: int = 0
    communities: list[str] = []
    originator: str | None = None
    clusters: list[str] = []
    extended_communities: list[str] = []
    """Eight bytes each, as ``0x0002fde800000064``."""
    aggregator: str = ""
    """``65001:192.0.2.1``"""
    atomic_aggregate: bool = False
    unknown_attributes: list[str] = []
    """Passed on without being understood: code, flags and value."""


class Route(msgspec.Struct, frozen=True):
    """One destination with all its paths; `why_not` is empty where `route` is in the kernel."""

    prefix: str
    in_kernel: bool
    paths: list[Path]
    route: str | None = None
    why_not: str = ""


class Routes(msgspec.Struct, frozen=True):
    """What bgpd tells. `meaning`: what each word of `refused` stands for."""

    routes: list[Route] = []
    meaning: dict[str, str] = {}


def ask() -> Routes:
    """Ask bgpd of this host.

    Raises:
        BgpdSilent: it does not answer.
    """
    code, text = health.ask(paths.health_socket("bgpd"), PAGE, timeout=TIMEOUT_SECONDS)
    if code == 0:
        hint = f"is it running? see calicoctl node status, and {paths.LOG}/bgpd/current"
        raise BgpdSilent(f"calico-bgpd does not answer: {text}", hint=hint)
    if code != 200:
        raise BgpdSilent(f"calico-bgpd: {text.strip() or f'status {code}'}")
    try:
        return msgspec.json.decode(text, type=Routes)
    except msgspec.DecodeError as error:
        raise BgpdSilent(f"what calico-bgpd says of its routes cannot be read: {error}") from error


def chosen(found: Routes, *, destination: str | None, peer: str | None, missing: bool) -> Routes:
    """Return a part of the routes.

    Args:
        destination: an address: the routes that cover it. A prefix: those that cover it or lie in it.
        peer: only what this one told.
        missing: only destinations that are not in the kernel.

    Raises:
        BadDestination: `destination` or `peer` cannot be read.
    """
    wanted = None if destination is None else _network(destination)
    if peer is not None:
        peer = _address(peer)
    routes = []
    for route in found.routes:
        if missing and route.in_kernel:
            continue
        if wanted is not None and not _touches(wanted, ipaddress.ip_network(route.prefix)):
            continue
        told = [path for path in route.paths if peer in (None, path.peer)]
        if told:
            routes.append(msgspec.structs.replace(route, paths=told))
    return Routes(routes, found.meaning)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise BadDestination(f"destination: {error}", hint="give an address or a prefix, 10.65.0.0/26") from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise BadDestination(f"--peer: {error}", hint="give its address, as calicoctl node status shows it") from None


def _touches(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return one.version == other.version and one.overlaps(other)


def tables(found: Routes, *, now: float, wide: bool, of: int = 0) -> str:
    """Return the routes for people: one line a path, and what the reasons mean that are shown.

    Args:
        of: from how many they were picked.
    """
    if not found.routes and of:
        return f"No such route among the {of} that this host learned by BGP; its own are in ip route\n"
    if not found.routes:
        return "No routes.\n"
    rows = [_row(route, path, now, wide) for route in found.routes for path in route.paths]
    text = plain_table(WIDE_HEADINGS if wide else HEADINGS, rows)
    legend = list(_legend(found))
    return text + "".join(f"{line}\n" for line in legend)


def _row(route: Route, path: Path, now: float, wide: bool) -> Sequence[str]:
    row = (route.prefix, path.peer, path.next_hop, _since(path.since, now), _standing(route, path))
    if not wide:
        return row
    return (
        *row,
        path.as_path or "-",
        path.origin,
        "-" if path.local_preference is None else str(path.local_preference),
        str(path.med),
        " ".join(path.communities) or "-",
        path.originator or "-",
        " ".join(path.clusters) or "-",
    )


def _standing(route: Route, path: Path) -> str:
    if path.refused is not None:
        return f"{NO}{path.refused}"
    if not path.chosen:
        return f"{NO}{path.lost_by or 'not decided yet'}"
    text = f"yes: {route.route}" if route.in_kernel else f"{NO}{route.why_not}"
    return f"{text} (stale)" if path.stale else text


def _since(moment: float, now: float) -> str:
    form = "%H:%M:%S" if now - moment < RECENT_SECONDS else "%Y-%m-%d"
    return time.strftime(form, time.localtime(moment))


def _legend(found: Routes) -> Iterable[str]:
    words = {path.refused for route in found.routes for path in route.paths if path.refused is not None}
    for word in sorted(words):
        yield f"{word}: {found.meaning.get(word, 'this calicoctl does not know what that means')}"
    if any(path.stale for route in found.routes for path in route.paths):
        yield "stale: told in an earlier session, and kept until the peer has told all its routes again"
