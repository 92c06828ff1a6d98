"""Figures in Prometheus' format, as its own parser reads them."""

import http.client
import os
import socket

from prometheus_client.parser import text_string_to_metric_families

from resources.runtime.metrics import Family, process, serve, text

FAMILIES = [
    Family("calico_a_up", "gauge", 'Whether it is "up".', ("peer",), [(("10.0.0.2",), 1.0), (('a"b\\c\nd',), 0.0)]),
    Family("calico_a_writes_total", "counter", "Writes.", (), [((), 3.0)]),
    Family("calico_a_errors_total", "counter", "None so far.", ("reason",), []),
]


def test_what_is_written_is_what_is_read() -> None:
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text(FAMILIES).decode())
        for sample in family.samples
    }
    assert found == {
        ("calico_a_up", "10.0.0.2"): 1.0, ("calico_a_up", 'a"b\\c\nd'): 0.0, ("calico_a_writes_total",): 3.0,
    }


def test_a_port_serves_the_page_and_nothing_else() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve("127.0.0.1", port, lambda: text(FAMILIES))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, text(FAMILIES))
    connection.request("GET", "/state")
    assert connection.getresponse().status == 404
    connection.close()


def test_processes_have_memory_and_time_and_one_that_is_gone_is_left_out() -> None:
    memory, seconds = process({"here": os.getpid(), "gone": 1 << 30})
    [(labels, size)] = memory.samples
    assert labels == ("here",)
    assert size > 1_000_000
    assert [labels for labels, _ in seconds.samples] == [("here",)]
