"""What the kernel tells, and what is posted when it had to drop some of it."""

import ipaddress
import queue
from collections.abc import Callable, Iterator

import pytest

from bed import Namespace
from kernel.link import LinkAddress
from kernel.monitor import (
    AddressAdded,
    AddressGone,
    KernelEvent,
    LinkChanged,
    LinkGone,
    Monitor,
    ResyncNeeded,
    RouteGone,
    RouteWritten,
    RulesChanged,
)
from kernel.route import Route, RouteKey
from kernel.routes import NetlinkRoutes
from kernel.xtables import TableChange, TableKey
from kernel.xtables_nft import NftTables
from resources.names import IfName

KEY = RouteKey(ipaddress.ip_network("10.1.0.0/26"))
CALI = IfName("cali1")


class Heard:
    def __init__(self) -> None:
        self._events: queue.SimpleQueue[KernelEvent] = queue.SimpleQueue()
        self.post = self._events.put

    def until(self, wanted: Callable[[KernelEvent], bool]) -> list[KernelEvent]:
        """Return all up to the first that is wanted."""
        events: list[KernelEvent] = []
        while not events or not wanted(events[-1]):
            try:
                events.append(self._events.get(timeout=5))
            except queue.Empty:
                raise AssertionError(f"only {events[-20:]} came") from None
        return events


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def routes(netns: Namespace) -> Iterator[NetlinkRoutes]:
    with netns.entered():
        routes = NetlinkRoutes()
        yield routes
        routes.close()


@pytest.fixture
def monitor(netns: Namespace, heard: Heard, routes: NetlinkRoutes) -> Iterator[Monitor]:
    with netns.entered():
        monitor = Monitor(heard.post, own_ports=frozenset({routes.port}))
    yield monitor
    monitor.close()


def is_link(name: str, *, running: bool) -> Callable[[KernelEvent], bool]:
    return lambda event: (
        isinstance(event, LinkChanged) and event.link.name == name and event.link.running is running and event.link.up
    )


def test_a_pair_comes_up_and_goes(netns: Namespace, heard: Heard, monitor: Monitor) -> None:
    monitor.start()
    netns.ip("link", "add", CALI, "type", "veth", "peer", "name", "far")
    netns.ip("link", "set", CALI, "up")
    heard.until(is_link(CALI, running=False))
    netns.ip("link", "set", "far", "up")
    heard.until(is_link(CALI, running=True))
    netns.ip("link", "del", CALI)
    heard.until(lambda event: event == LinkGone(CALI))


def test_a_rename_is_a_loss_and_a_gain(netns: Namespace, heard: Heard, monitor: Monitor) -> None:
    monitor.start()
    netns.ip("link", "add", "tmp0", "type", "veth", "peer", "name", "far")
    netns.ip("link", "set", "tmp0", "name", CALI)
    events = heard.until(lambda event: isinstance(event, LinkChanged) and event.link.name == CALI)
    assert events[-2] == LinkGone(IfName("tmp0"))


def test_what_happens_between_making_and_starting_is_heard(netns: Namespace, heard: Heard, monitor: Monitor) -> None:
    netns.ip("link", "add", CALI, "type", "veth", "peer", "name", "far")
    monitor.start()
    heard.until(lambda event: isinstance(event, LinkChanged) and event.link.name == CALI)


def test_addresses_come_and_go(netns: Namespace, heard: Heard, monitor: Monitor) -> None:
    monitor.start()
    netns.ip("link", "add", CALI, "type", "veth", "peer", "name", "far")
    for text in ("10.0.0.1/24", "fd00::1/64"):
        address = LinkAddress(device=CALI, address=ipaddress.ip_interface(text))
        netns.ip("address", "add", text, "dev", CALI)
        heard.until(lambda event, address=address: event == AddressAdded(address))  # type: ignore[misc]
        netns.ip("address", "del", text, "dev", CALI)
        heard.until(lambda event, address=address: event == AddressGone(address))  # type: ignore[misc]


def test_routes_of_others_are_told_and_our_own_are_not(
    netns: Namespace, heard: Heard, monitor: Monitor, routes: NetlinkRoutes
) -> None:
    monitor.start()
    ours = Route.blackhole(protocol=81)
    with netns.entered():
        routes.add({KEY: ours})
    netns.ip("route", "add", "blackhole", "10.2.0.0/26", "proto", "static")
    other = RouteKey(ipaddress.ip_network("10.2.0.0/26"))
    first = [event for event in heard.until(lambda event: isinstance(event, RouteWritten)) if _is_route(event)]
    assert first == [RouteWritten(other, Route.blackhole(protocol=4))]
    netns.ip("route", "del", "blackhole", "10.1.0.0/26")
    heard.until(lambda event: event == RouteGone(KEY, ours))
    netns.ip("-6", "route", "add", "blackhole", "fd00::/64", "proto", "81")
    heard.until(lambda event: event == RouteWritten(RouteKey(ipaddress.ip_network("fd00::/64")), ours))


def test_many_routes_of_our_own_wake_nobody(
    netns: Namespace, heard: Heard, monitor: Monitor, routes: NetlinkRoutes
) -> None:
    # so many would overflow the buffer, if they came to it
    ours = Route.blackhole(protocol=81)
    with netns.entered():
        for second in range(3):
            many = [RouteKey(ipaddress.ip_network(f"10.{second}.{i >> 8}.{i & 255}/32")) for i in range(15000)]
            assert routes.add(dict.fromkeys(many, ours)) == {}
    monitor.start()
    netns.ip("route", "add", "blackhole", "10.9.0.0/26", "proto", "static")
    told = heard.until(lambda event: isinstance(event, RouteWritten))
    assert [event for event in told if isinstance(event, RouteWritten | ResyncNeeded)] == [
        RouteWritten(RouteKey(ipaddress.ip_network("10.9.0.0/26")), Route.blackhole(protocol=4))
    ]


def test_lost_notifications_ask_for_a_resync_and_then_it_goes_on(
    netns: Namespace, heard: Heard, monitor: Monitor
) -> None:
    # nobody reads yet: the buffer overflows
    for second in range(3):
        prefixes = (f"10.{second}.{i >> 8}.{i & 255}" for i in range(15000))
        netns.ip(batch="\n".join(f"route add blackhole {prefix}" for prefix in prefixes))
    monitor.start()
    heard.until(lambda event: isinstance(event, ResyncNeeded))
    netns.ip("route", "add", "blackhole", "10.9.0.0/26", "proto", "static")
    last = RouteWritten(RouteKey(ipaddress.ip_network("10.9.0.0/26")), Route.blackhole(protocol=4))
    heard.until(lambda event: event == last)


def test_changes_of_rules_are_told_once_each_with_the_program(netns: Namespace, heard: Heard) -> None:
    with netns.entered():
        monitor = Monitor(heard.post, rules=True)
        tables = NftTables()
    monitor.start()
    with netns.entered():
        rules = [f"-s 10.0.{number >> 8}.{number & 255}/32 -j ACCEPT" for number in range(3000)]
        tables.write(TableKey(4, "filter"), TableChange(chains={"cali-x": rules}))
    netns.run("iptables-nft -A FORWARD -j DROP")
    netns.run("nft add table ip mine")
    events = heard.until(lambda event: event == RulesChanged("nft"))
    programs = [event.program for event in events if isinstance(event, RulesChanged)]
    assert programs == ["iptables-nft-re", "iptables-nft", "nft"]
    monitor.close()
    tables.close()


def test_a_monitor_that_was_never_started_closes(netns: Namespace) -> None:
    with netns.entered():
        Monitor(lambda event: None).close()


def _is_route(event: KernelEvent) -> bool:
    return isinstance(event, (RouteWritten, RouteGone))
