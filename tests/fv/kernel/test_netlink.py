"""Answers of the kernel that get lost, and tables that change while they are read."""

import errno
import ipaddress
import threading

from bed import Namespace
from kernel import route_wire as wire
from kernel.errors import DumpInterrupted, OutcomeUnknown
from kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Socket, error_of
from kernel.route import Route, RouteKey
from kernel.routes import NetlinkRoutes, interface_index


def blackhole(number: int) -> tuple[RouteKey, Route]:
    return RouteKey(ipaddress.ip_network(((10 << 24) + (number << 6), 26))), Route.blackhole(protocol=81)


def test_lost_refusals_are_unknown_outcomes_and_the_socket_goes_on(netns: Namespace) -> None:
    message = (wire.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, wire.Packer(interface_index).written(*blackhole(1)))
    with netns.entered(), Socket(receive_buffer=4096) as tight:
        assert tight.execute([message]) == {}
        refused = tight.execute([message] * 400)
        assert refused.keys() == set(range(400))
        assert type(error_of(refused[399], "x")) is OutcomeUnknown
        after = tight.execute([message] * 2)
        assert [number for number, _ in after.values()] == [errno.EEXIST] * 2


def test_a_table_that_changes_all_the_time_is_read_whole_or_not_at_all(netns: Namespace) -> None:
    standing = dict(blackhole(number) for number in range(4000))
    stop = threading.Event()

    def churn() -> None:
        with netns.entered():
            routes = NetlinkRoutes()
            flapping = dict(blackhole(number) for number in range(100_000, 100_050))
            while not stop.is_set():
                routes.add(flapping)
                routes.delete(flapping)
            routes.close()

    with netns.entered():
        routes = NetlinkRoutes()
        routes.add(standing)
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(10):
                try:
                    ours = routes.read(lambda _, route: route.protocol == 81).ours
                except DumpInterrupted:
                    continue
                assert standing.keys() <= ours.keys()
        finally:
            stop.set()
            thread.join()
            routes.close()
