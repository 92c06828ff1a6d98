"""Figures for Prometheus: its text format, and a TCP port to scrape. The only module that imports prometheus-client.

The library is imported when somebody asks for the first time: it takes 10 MB.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIEnvironment

from waitress.server import create_server

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `kind` is "gauge" or "counter"; each sample has its labels' values in the order of `labels`.

    A counter's name ends in ``_total``.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]


def text(families: Iterable[Family]) -> bytes:
    """Return the families in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            for family in families:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                made = kind(family.name, family.help, labels=family.labels)
                for values, number in family.samples:
                    made.add_metric(values, number)
                yield made

    registry = CollectorRegistry()
    registry.register(Once())
    return generate_latest(registry)


def serve(host: str, port: int, page: Callable[[], bytes]) -> None:
    """Serve ``/metrics`` on a TCP port from a daemon thread; `page` is called by a thread of the server's.

    Raises:
        OSError: the address cannot be bound.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        body = page()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
        return [body]

    server = create_server(application, host=host or "*", port=port, threads=1, ident=None)
    threading.Thread(target=server.run, name="metrics", daemon=True).start()


def process(pids: Mapping[str, int]) -> list[Family]:
    """Return memory and processor time of processes, by the name to show; one that is gone is left out."""
    import os

    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    memory: list[tuple[tuple[str, ...], float]] = []
    seconds: list[tuple[tuple[str, ...], float]] = []
    for name, pid in sorted(pids.items()):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        memory.append(((name,), float(int(fields[21]) * page)))
        seconds.append(((name,), (int(fields[11]) + int(fields[12])) / tick))
    return [
        Family("calico_process_resident_bytes", "gauge", "Memory of a process.", ("process",), memory),
        Family("calico_process_cpu_seconds_total", "counter", "Processor time of a process.", ("process",), seconds),
    ]
