"""Sessions and routes as figures for Prometheus (reference bgp.md 4.10). Made when somebody scrapes, from the state."""

import os
from collections.abc import Iterable

from bgpd.neighbor import Neighbor
from bgpd.routing import Routing
from bgpd.speaker import Speaker
from resources.runtime.metrics import Family

Sample = tuple[tuple[str, ...], float]


def families(neighbors: Iterable[Neighbor], routing: Routing, speaker: Speaker, wall: float) -> list[Family]:
    """Return all figures of the owner's objects; call it on the owner's thread."""
    known = list(neighbors)
    return [*_sessions(known, wall), *_of_peers(known, routing), *_kernel(routing), *_speaker(speaker)]


def processes(speaker: Speaker) -> dict[str, int]:
    """Return the processes to look at, by name."""
    found = {"bgpd": os.getpid()}
    return found if speaker.pid is None else {**found, "exabgp": speaker.pid}


def _sessions(neighbors: list[Neighbor], wall: float) -> list[Family]:
    labels = ("peer", "type", "family")

    def of(neighbor: Neighbor) -> tuple[str, ...]:
        spec = neighbor.spec
        return str(spec.address), spec.kind.value.lower(), f"ipv{spec.version}"

    up: list[Sample] = [(of(one), float(one.is_up)) for one in neighbors]
    uptime: list[Sample] = [(of(one), max(0.0, wall - one.since)) for one in neighbors if one.is_up]
    transitions: list[Sample] = [(of(one), float(one.transitions)) for one in neighbors]
    errors: list[Sample] = [((*of(one), one.error), 1.0) for one in neighbors if one.error]
    return [
        Family("calico_bgp_session_up", "gauge", "Whether a session is Established.", labels, up),
        Family("calico_bgp_session_uptime_seconds", "gauge", "For how long a session is up.", labels, uptime),
        Family("calico_bgp_session_transitions_total", "counter", "Changes between up and down.", labels, transitions),
        Family("calico_bgp_session_last_error_info", "gauge", "The last trouble of a session that is down.",
               (*labels, "error"), errors),
    ]  # fmt: skip


def _of_peers(neighbors: list[Neighbor], routing: Routing) -> list[Family]:
    peers = [(str(one.spec.address), one) for one in neighbors]
    tables = [(peer, routing.rib.table(one.spec.address)) for peer, one in peers]
    refused: list[Sample] = sorted(
        ((str(peer), refusal.value), float(count)) for (peer, refusal), count in routing.rib.refusals.items()
    )
    now: list[Sample] = [
        ((peer, refusal.value), float(count)) for peer, table in tables for refusal, count in table.refused.items()
    ]
    return [
        Family("calico_bgp_routes_received", "gauge", "Routes that a peer has told.", ("peer",),
               [((peer,), float(len(table.entries))) for peer, table in tables]),
        Family("calico_bgp_routes_accepted", "gauge", "Those of them that may be used.", ("peer",),
               [((peer,), float(table.accepted)) for peer, table in tables]),
        Family("calico_bgp_routes_refused", "gauge", "Those that may not, by reason.", ("peer", "reason"), now),
        Family("calico_bgp_routes_rejected_total", "counter", "Refusals so far.", ("peer", "reason"), refused),
        Family("calico_bgp_routes_stale", "gauge", "Those kept from an earlier session, not told again yet.", ("peer",),
               [((peer,), float(len(table.stale))) for peer, table in tables]),
        Family("calico_bgp_routes_offered", "gauge", "Routes announced to a peer.", ("peer",),
               [((peer,), float(one.announced)) for peer, one in peers]),
    ]  # fmt: skip


def _kernel(routing: Routing) -> list[Family]:
    fib = routing.fib
    writes: list[Sample] = sorted((of, float(count)) for of, count in fib.counts.items())
    gauges = (
        ("in_kernel", "Routes of ours in the kernel, blackholes included.", len(fib.actual)),
        ("inherited", "Routes of an earlier bgpd that nobody told again yet.", len(fib.inherited)),
        ("withheld", "Routes whose packets would not travel as their pool asks.", len(routing.withheld)),
        ("conflicting", "Routes that somebody else has in the kernel.", len(fib.conflicts)),
        ("failed", "Routes that the kernel refused.", len(fib.failed)),
    )
    return [
        *(Family(f"calico_bgp_routes_{name}", "gauge", text, (), [((), float(count))]) for name, text, count in gauges),
        Family("calico_bgp_kernel_writes_total", "counter", "Routes written.", ("op", "result"), writes),
        Family("calico_bgp_drift_repairs_total", "counter", "Routes that others removed and we wrote again.", (),
               [((), float(fib.repairs))]),
    ]  # fmt: skip


def _speaker(speaker: Speaker) -> list[Family]:
    ready = float(speaker.is_ready)
    counters = (
        ("exabgp_restarts", "How often ExaBGP ended and was started again.", speaker.restarts),
        ("relay_lost", "Events that the relay threw away while nobody read them.", speaker.lost_events),
        ("reloads", "Configurations that ExaBGP took over while it ran.", speaker.reloads),
    )
    return [
        *(Family(f"calico_bgp_{name}_total", "counter", text, (), [((), float(n))]) for name, text, n in counters),
        Family("calico_bgp_speaker_up", "gauge", "Whether ExaBGP runs and answers.", (), [((), ready)]),
    ]
