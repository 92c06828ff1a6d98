import ipaddress
from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes.felix_host import FelixHost
from fakes.kernel import FakeKernel
from fakes.tables import FakeTables
from felix.dataplane.left_over import LeftOver
from felix.desired import Chain, ChainKey, IPSet, KernelChain, LocalInterface, SetChange, Update
from kernel.errors import DataplaneError, DumpInterrupted, NoSuchEntry, ReadOnly, ToolFailed, ToolMissing
from kernel.route import RouteKey
from kernel.xtables import TableChange, TableKey
from resources.names import GATEWAY, IfName

CALI1 = IfName("cali1")
A = ipaddress.ip_network("10.0.0.1/32")
FILTER = TableKey(4, "filter")


def chain(tag: str, body: str) -> Chain:
    padded = tag.ljust(16, "0")
    return Chain((f'-m comment --comment "cali:{padded}" {body}',), (padded,))


ENDPOINT_UP = Update(
    sets={"cali40s:web": IPSet("hash:net", 4, frozenset({"10.0.0.1"}))},
    chains={
        ChainKey(4, "filter", "cali-FORWARD"): chain("a", "-o cali1 -j cali-tw-cali1"),
        ChainKey(4, "filter", "cali-tw-cali1"): chain("b", "-m set --match-set cali40s:web src -j ACCEPT"),
    },
    kernel_chains={ChainKey(4, "filter", "FORWARD"): KernelChain(inserts=chain("c", "-j cali-FORWARD"))},
    interfaces={CALI1: LocalInterface(frozenset({A}), "02:00:00:00:00:01")},
)
ENDPOINT_DOWN = Update(
    sets={"cali40s:web": None},
    chains={
        ChainKey(4, "filter", "cali-FORWARD"): chain("d", "-j DROP"),
        ChainKey(4, "filter", "cali-tw-cali1"): None,
    },
    interfaces={CALI1: None},
)


def test_an_endpoint_is_programmed_from_sets_to_route(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean
    assert host.kernel.sets.members["cali40s:web"] == {"10.0.0.1"}
    assert "cali-tw-cali1" in host.kernel.tables.rules(FILTER)
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}
    assert host.kernel.sysctls.read("net/ipv4/conf/cali1/proxy_arp") == "1"
    assert host.kernel.sysctls.read("net/ipv4/ip_forward") == "1"
    assert host.kernel.links.neighbours(CALI1)[A.network_address].mac == "02:00:00:00:00:01"


def test_what_another_back_end_has_of_ours_goes_when_ours_is_in_place_and_not_before() -> None:
    old = FakeTables()
    old.put(FILTER, "cali-old", "-j DROP")
    host = FelixHost(left_over=LeftOver(lambda: (old, [FILTER])))
    host.kernel.tables.unwritable = ToolFailed("no")
    host.dataplane.want(ENDPOINT_UP)
    assert not host.dataplane.apply().is_clean
    assert "cali-old" in old.rules(FILTER)
    host.kernel.tables.unwritable = None
    host.dataplane.apply()
    assert "cali-old" not in old.rules(FILTER)


def test_the_next_write_is_prepared_when_the_endpoint_can_be_reached() -> None:
    routes_then: list[dict[str, str]] = []

    class Preparing(FakeTables):
        def prepare(self) -> None:
            routes_then.append(host.cali_routes())

    host = FelixHost(tables=Preparing())
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(replace(ENDPOINT_UP, chains={}, kernel_chains={}))
    host.dataplane.apply()
    assert routes_then == []  # no rule was written
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    assert routes_then == [{"10.0.0.1/32": "cali1"}]


def test_a_member_of_a_set_costs_one_write_of_that_set(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    writes, tables = len(host.kernel.sets.log), len(host.kernel.tables.log)
    host.dataplane.want(Update(sets={"cali40s:web": SetChange(frozenset({"10.0.0.2"}), frozenset())}))
    assert host.dataplane.apply().is_clean
    assert host.kernel.sets.log[writes:] == ["apply cali40s:web +1 -0"]
    assert len(host.kernel.tables.log) == tables


def test_an_endpoint_goes_without_a_trace(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    host.dataplane.want(ENDPOINT_DOWN)
    assert host.dataplane.apply().is_clean
    assert host.kernel.sets.members == {}
    assert "cali-tw-cali1" not in host.kernel.tables.rules(FILTER)
    assert host.cali_routes() == {}
    assert host.to_clean == [A.network_address]


def test_no_address_becomes_reachable_while_its_rules_cannot_be_written(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.tables.unwritable = ToolFailed("iptables-nft-restore: killed")
    host.dataplane.want(ENDPOINT_UP)
    assert not host.dataplane.apply().is_clean
    assert host.cali_routes() == {}
    host.kernel.tables.unwritable = None
    assert host.dataplane.apply().is_clean
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}


def test_forwarding_is_switched_on_after_the_tables(host: FelixHost) -> None:
    host.kernel.tables.unwritable = ToolFailed("no")
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    assert host.kernel.sysctls.writes == []  # neither forwarding nor proxy ARP: a container could send unpoliced
    host.kernel.tables.unwritable = None
    host.dataplane.apply()
    assert host.kernel.sysctls.writes.count(("net/ipv4/ip_forward", "1")) == 1


def test_a_container_is_no_router_of_its_host(host: FelixHost) -> None:
    """It has an IPv4 address only, and might advertise itself all the same."""
    host.kernel.links.add(CALI1)
    host.kernel.sysctls.put("net/ipv6/conf/cali1/accept_ra", "1")
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean
    assert host.kernel.sysctls.read("net/ipv6/conf/cali1/accept_ra") == "0"


class OneFamily(FakeTables):
    """Cannot write the tables of one address family."""

    broken = 6

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        if key.version == self.broken:
            raise ToolMissing(f"no program for table {key}")
        return super().write(key, change)


@pytest.mark.parametrize(("broken", "written"), [(6, {"10.0.0.1/32"}), (4, {"2001:db8::1/128"})])
def test_an_address_family_that_fails_stays_closed_and_does_not_hold_up_the_other(
    broken: int, written: set[str]
) -> None:
    kernel = FakeKernel()
    tables = OneFamily(kernel.sets)
    tables.broken = broken
    host = FelixHost(kernel=kernel, tables=tables, versions=(4, 6))
    kernel.links.add(CALI1)
    host.see_links()
    both = LocalInterface(frozenset({A, ipaddress.ip_network("2001:db8::1/128")}), None)
    host.dataplane.want(
        Update(
            chains={ChainKey(version, "filter", "cali-FORWARD"): chain("a", "-j DROP") for version in (4, 6)},
            interfaces={CALI1: both},
        )
    )
    report = host.dataplane.apply()
    assert list(report.failed) == [f"table filter (IPv{broken})"]
    assert not report.tables_written
    assert host.cali_routes().keys() == written


def test_the_gateway_is_answered_for_where_there_is_no_default_route(host: FelixHost) -> None:
    """Proxy ARP answers only for what the host would route elsewhere (reference felix.md 2.2)."""
    default = RouteKey(ipaddress.ip_network("0.0.0.0/0"))
    gateway = RouteKey(ipaddress.ip_network("169.254.1.1/32"))
    host.dataplane.apply()
    assert gateway not in host.kernel.routes.routes
    host.kernel.routes.lose(default)
    host.dataplane.apply()
    assert host.kernel.routes.routes[gateway].devices == {"lo"}
    host.kernel.routes.log.clear()
    host.restart()
    host.dataplane.apply()
    host.dataplane.apply()
    assert host.kernel.routes.log == []
    assert host.kernel.routes.routes[gateway].devices == {"lo"}


def test_a_container_that_asked_in_vain_is_answered_once_it_can_be_reached(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.routes.refuse.add(RouteKey(A))
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    assert host.kernel.announcer.heard == []
    host.kernel.routes.refuse.clear()
    host.dataplane.apply()
    host.dataplane.apply()
    assert host.kernel.announcer.heard == [(CALI1, GATEWAY, A.network_address)]


def test_the_kernel_does_not_check_the_sources_of_who_may_spoof(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.sysctls.put("net/ipv4/conf/default/rp_filter", "1")
    host.dataplane.want(Update(interfaces={CALI1: LocalInterface(frozenset({A}), None, spoofs=True)}))
    host.dataplane.apply()
    assert host.kernel.sysctls.read("net/ipv4/conf/cali1/rp_filter") == "0"
    host.dataplane.want(Update(interfaces={CALI1: LocalInterface(frozenset({A}), None)}))
    host.dataplane.apply()
    assert host.kernel.sysctls.read("net/ipv4/conf/cali1/rp_filter") == "1"


def test_an_interface_that_goes_before_it_is_answered_is_forgotten(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.routes.refuse.add(RouteKey(A))
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    host.dataplane.want(ENDPOINT_DOWN)
    host.kernel.links.remove(CALI1)
    host.see_links()
    host.kernel.routes.refuse.clear()
    assert host.dataplane.apply().is_clean
    assert host.kernel.announcer.heard == []


def test_no_route_is_touched_while_the_routes_cannot_be_read(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    host.restart()
    host.kernel.routes.log.clear()
    host.kernel.routes.unreadable = DumpInterrupted("the routes keep changing")
    assert list(host.dataplane.apply().failed) == ["route"]
    assert host.kernel.routes.log == []
    host.kernel.routes.unreadable = None
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean
    assert host.kernel.routes.log == []


def test_the_report_counts_what_was_written(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().written == {"sets": 1, "chains": 3, "settings": 3, "routes": 1}
    assert host.dataplane.apply().written == {}
    host.dataplane.want(ENDPOINT_DOWN)
    assert host.dataplane.apply().written == {"sets": 1, "chains": 2, "routes": 1}


def test_a_restart_with_nothing_changed_writes_nothing(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    for log in (host.kernel.sets.log, host.kernel.tables.log, host.kernel.routes.log, host.kernel.sysctls.writes):
        log.clear()
    host.restart()
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean
    assert host.kernel.sets.log == []
    assert host.kernel.tables.log == []
    assert host.kernel.routes.log == []
    assert host.kernel.sysctls.writes == []


def test_a_setting_that_cannot_be_written_fails_that_interface_only(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.kernel.links.add(IfName("cali2"))
    host.see_links()
    host.kernel.sysctls.refuse["net/ipv4/conf/cali1/proxy_arp"] = ReadOnly("read-only")
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.want(Update(interfaces={IfName("cali2"): LocalInterface(frozenset({A}), None)}))
    assert list(host.dataplane.apply().failed) == ["interface cali1"]
    assert host.kernel.sysctls.read("net/ipv4/conf/cali2/proxy_arp") == "1"


def test_a_setting_that_is_only_wished_for_may_be_missing(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.sysctls.refuse["net/ipv4/neigh/cali1/proxy_delay"] = NoSuchEntry("gone", errno=2)
    host.kernel.sysctls.put("net/ipv4/neigh/cali1/proxy_delay", "80")
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean


def test_a_set_that_somebody_destroyed_before_a_rule_names_it_closes_the_chain_until_the_next_try(
    host: FelixHost,
) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(Update(sets=ENDPOINT_UP.sets))
    host.dataplane.apply()
    assert host.kernel.sets.destroy(["cali40s:web"]) == {}
    host.dataplane.want(Update(chains=ENDPOINT_UP.chains, kernel_chains=ENDPOINT_UP.kernel_chains))
    assert list(host.dataplane.apply().failed) == ["table filter (IPv4) cali-tw-cali1"]
    assert [rule[-4:] for rule in host.kernel.tables.rules(FILTER)["cali-tw-cali1"]] == ["DROP"]
    assert host.dataplane.apply().is_clean
    assert "--match-set cali40s:web" in host.kernel.tables.rules(FILTER)["cali-tw-cali1"][0]


def test_rules_changed_by_others_are_noticed_and_repaired(host: FelixHost) -> None:
    host.dataplane.want(ENDPOINT_UP)
    host.dataplane.apply()
    host.dataplane.notice_foreign_changes()
    host.kernel.tables.put(FILTER, "FORWARD")
    assert host.dataplane.notice_foreign_changes()
    host.dataplane.apply()
    assert host.kernel.tables.rules(FILTER)["FORWARD"] == chain("c", "-j cali-FORWARD").rules
    assert not host.dataplane.notice_foreign_changes()


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("steps", range(1, 12))
def test_killed_between_any_two_kernel_calls_a_restart_ends_in_the_same_state(host: FelixHost, steps: int) -> None:
    """After `steps` kernel calls nothing more happens; a new process on the same kernel finishes the work."""
    host.kernel.links.add(CALI1)
    host.see_links()
    host.dataplane.want(ENDPOINT_UP)
    left = [steps]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    for part, names in (
        (host.kernel.sets, ("apply", "destroy")),
        (host.kernel.tables, ("write",)),
        (host.kernel.sysctls, ("write",)),
        (host.kernel.links, ("set_neighbour",)),
        (host.kernel.routes, ("add", "replace", "delete")),
    ):
        for name in names:
            _die_at(part, name, count)
    try:
        host.dataplane.apply()
    except Killed:
        assert not (host.cali_routes() and "cali-tw-cali1" not in host.kernel.tables.rules(FILTER))
    left[0] = 10**6
    host.restart()
    host.dataplane.want(ENDPOINT_UP)
    assert host.dataplane.apply().is_clean
    assert host.cali_routes() == {"10.0.0.1/32": "cali1"}
    assert host.kernel.sets.members.keys() == {"cali40s:web"}


def _die_at(part: object, name: str, count: Callable[[], None]) -> None:
    before = getattr(part, name)

    def wrapped(*args: object, **kwargs: object) -> object:
        count()
        return before(*args, **kwargs)

    setattr(part, name, wrapped)


def test_what_fails_is_reported_by_what_it_is_about(host: FelixHost) -> None:
    host.kernel.links.add(CALI1)
    host.see_links()
    host.kernel.routes.refuse.add(RouteKey(A))
    host.kernel.sets.refuse.add("cali40s:web")
    host.dataplane.want(ENDPOINT_UP)
    failed = host.dataplane.apply().failed
    assert {"set cali40s:web"} <= failed.keys()
    assert all(isinstance(error, DataplaneError) for error in failed.values())


CLOSING = frozenset({ChainKey(4, "filter", "cali-pi-p")})
POLICY_UP = Update(
    sets={"cali40s:web": IPSet("hash:net", 4, frozenset({"10.0.0.1"}))},
    chains={ChainKey(4, "filter", "cali-pi-p"): chain("p", "-m set --match-set cali40s:web src -j ACCEPT")},
)
MEMBER_CHANGE = Update(
    sets={"cali40s:web": SetChange(frozenset({"10.0.0.2"}), frozenset({"10.0.0.1"}), closing=CLOSING)}
)


def test_members_stay_as_they_are_while_their_rules_cannot_be_closed(host: FelixHost) -> None:
    host.dataplane.want(POLICY_UP)
    host.dataplane.apply()
    host.kernel.tables.unwritable = ToolFailed("the lock is held")
    host.dataplane.want(MEMBER_CHANGE)
    report = host.dataplane.apply()
    assert report.failed.keys() == {"table filter (IPv4)"}
    assert not report.tables_written
    assert host.kernel.sets.members["cali40s:web"] == {"10.0.0.1"}
    host.kernel.tables.unwritable = None
    assert host.dataplane.apply().is_clean
    assert host.kernel.sets.members["cali40s:web"] == {"10.0.0.2"}
    assert len(host.kernel.tables.rules(FILTER)["cali-pi-p"]) == 1


def test_who_is_killed_with_chains_closed_is_followed_by_one_who_opens_them() -> None:
    class Dying(FakeTables):
        left = 99

        def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
            self.left -= 1
            if self.left < 0:
                raise ToolFailed("killed")
            return super().write(key, change)

    tables = Dying()
    host = FelixHost(tables=tables)
    host.dataplane.want(POLICY_UP)
    host.dataplane.apply()
    tables.left = 1
    host.dataplane.want(MEMBER_CHANGE)
    assert host.dataplane.apply().failed
    assert "closed" in tables.rules(FILTER)["cali-pi-p"][0]
    tables.left = 99
    host.restart()
    host.dataplane.want(replace(POLICY_UP, sets={"cali40s:web": IPSet("hash:net", 4, frozenset({"10.0.0.2"}))}))
    assert host.dataplane.apply().is_clean
    assert len(tables.rules(FILTER)["cali-pi-p"]) == 1
