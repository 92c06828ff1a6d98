"""The owner thread: when it acts, what it survives, what it repairs, what it says."""

import errno
import ipaddress
import json
import re

import pytest

from fakes.felix_agent import FelixAgent, ready_flag
from fakes.felix_records import host_endpoint, network_profile, policy, pool, rule, settings, workload
from felix.agent import DATAPLANE, DATASTORE, REPAIR_SECONDS, RESTART_STATUS
from kernel.errors import DumpInterrupted, ToolFailed, ToolMissing
from kernel.monitor import LinkChanged, LinkGone, ResyncNeeded, RouteGone, RouteWritten
from kernel.route import PROTOCOL_BOOT, Route, RouteKey
from kernel.sets import SetSpec
from kernel.xtables import TableKey
from resources.datastore.keys import ResourceKey
from resources.datastore.sync import Changes, InSync, OutOfSync
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule
from resources.names import IfName

FILTER = TableKey(4, "filter")
NET = network_profile("net")
A0 = workload("a0", "10.1.0.1/32", profiles=["net"])
A1 = workload("a1", "10.1.0.2/32", profiles=["net"])
BAD_RULE = {"action": "Allow", "protocol": {"no": "such"}}
OLD = Route.on(IfName("lo"), protocol=80)
CALI = IfName("calia0")
A0_KEY = RouteKey(ipaddress.ip_network("10.1.0.1/32"))


@pytest.fixture
def felix() -> FelixAgent:
    return FelixAgent()


@pytest.fixture
def running(felix: FelixAgent) -> FelixAgent:
    """With one endpoint, programmed."""
    felix.host.kernel.links.add(CALI)
    felix.begin(NET, A0)
    assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}
    felix.log.clear()
    return felix


def chains(felix: FelixAgent) -> dict[str, tuple[str, ...]]:
    return felix.host.kernel.tables.rules(FILTER)


def full_of_old(felix: FelixAgent) -> None:
    """What an earlier felix left, none of it wanted any more."""
    kernel = felix.host.kernel
    kernel.tables.put(FILTER, "cali-tw-caliold", "-j DROP")
    kernel.sets.put(SetSpec(name="cali40s:old", type="hash:net", version=4), "10.9.9.9")
    kernel.routes.put(RouteKey(ipaddress.ip_network("10.9.9.9/32")), OLD)


def old_things(felix: FelixAgent) -> list[bool]:
    kernel = felix.host.kernel
    return [
        "cali-tw-caliold" in chains(felix),
        "cali40s:old" in kernel.sets.members,
        RouteKey(ipaddress.ip_network("10.9.9.9/32")) in kernel.routes.routes,
    ]


class TestWhenItActs:
    def test_nothing_before_the_store_is_in_sync(self, felix: FelixAgent) -> None:
        full_of_old(felix)
        felix.host.kernel.links.add(CALI)
        felix.put(ready_flag(True), NET, A0)
        felix.later(1000)
        assert felix.writes == 0
        assert felix.wait is None
        assert felix.health.waiting_for() == [DATASTORE, DATAPLANE]
        felix.hear(InSync())
        assert old_things(felix) == [False, False, False]
        assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}
        assert felix.health.waiting_for() == []

    @pytest.mark.parametrize("ready", [False, None], ids=["not ready", "no flag"])
    def test_nothing_while_the_store_is_not_ready_and_felix_says_it_is_fine(
        self, felix: FelixAgent, ready: bool | None
    ) -> None:
        full_of_old(felix)
        felix.begin(NET, A0, ready=ready)
        felix.plug("calia0")
        felix.later(1000)
        assert felix.writes == 0
        assert felix.ended == []
        assert felix.health.waiting_for() == []
        assert old_things(felix) == [True, True, True]
        felix.put(ready_flag(True))
        assert old_things(felix) == [False, False, False]
        assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}

    def test_an_empty_store_takes_everything_away(self, felix: FelixAgent) -> None:
        full_of_old(felix)
        felix.begin()
        assert old_things(felix) == [False, False, False]

    @pytest.mark.parametrize("locked", [ready_flag(False), (ready_flag(True)[0], None)], ids=["false", "gone"])
    def test_a_store_that_is_locked_ends_felix_and_changes_nothing(
        self, running: FelixAgent, locked: tuple[ResourceKey, None]
    ) -> None:
        before = running.writes
        other = workload("a0", "10.1.0.9/32", profiles=["net"])
        running.put(locked, other)
        running.put(ready_flag(True))
        running.later(1000)
        assert running.ended == [RESTART_STATUS]
        assert running.writes == before

    def test_nothing_is_written_before_the_interfaces_are_read(self, running: FelixAgent) -> None:
        """Else the routes of all interfaces would go, as none seems to be there."""
        again = FelixAgent(host=running.host)
        again.links_failure = DumpInterrupted("interfaces keep changing", errno=errno.EINTR)
        before = again.writes
        again.begin(NET, A0)
        again.later(5)
        assert again.writes == before
        assert again.health.waiting_for() == [DATAPLANE]
        again.links_failure = None
        again.later(10)
        assert again.health.waiting_for() == []
        assert again.writes == before

    def test_a_restart_writes_nothing(self, running: FelixAgent) -> None:
        again = FelixAgent(host=running.host)
        before = again.writes
        again.begin(NET, A0)
        assert again.health.waiting_for() == []
        assert again.writes == before
        assert again.events("dataplane.applied")[-1]["log_level"] == "debug"

    def test_the_store_may_go_away_for_a_day(self, running: FelixAgent) -> None:
        before = running.writes
        running.hear(OutOfSync("no etcd endpoint answers"))
        running.later(24 * 3600)
        assert running.host.cali_routes() == {"10.1.0.1/32": "calia0"}
        running.hear(InSync())
        assert running.writes == before
        assert running.health.waiting_for() == []
        assert [event["log_level"] for event in running.events("datastore.away")] == ["warning"]


class TestRecords:
    def test_an_unreadable_record_is_logged_with_its_key_and_harms_nobody(self, felix: FelixAgent) -> None:
        key = ResourceKey("workloadendpoints", "bad", "libnetwork")
        felix.plug("calia0")
        felix.begin()
        felix.put_raw(key, b'{"spec": {"node": 7}}')
        felix.put(NET, A0)
        assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}
        [event] = felix.events("record.unreadable")
        assert event["key"] == str(key)
        assert event["log_level"] == "error"
        assert event["effect"] == "it is skipped"

    def test_a_record_that_becomes_unreadable_counts_as_absent_until_it_is_mended(self, running: FelixAgent) -> None:
        running.put_raw(NET[0], b"not JSON")
        assert chains(running)["cali-pri-net"][0].endswith("--jump MARK --set-mark 0x40000/0x40000")
        assert any("net does not exist" in event["error"] for event in running.events("record.trouble"))
        running.put(NET)
        assert "--set-mark 0x10000/0x10000" in chains(running)["cali-pri-net"][0]
        assert [event["key"] for event in running.events("record.mended")] == [str(NET[0]), str(A0[0])]

    def test_a_policy_that_cannot_be_read_denies_what_it_selects(self, running: FelixAgent) -> None:
        document = {
            "metadata": {"name": "p"},
            "spec": {"selector": "has(net)", "types": ["Ingress"], "ingress": [{"action": "Permit"}]},
        }
        running.put_raw(ResourceKey("globalnetworkpolicies", "p"), json.dumps(document).encode())
        assert "--set-mark 0x40000/0x40000" in chains(running)["cali-pi-gnp/p"][0]
        assert not any("0x10000/0x10000" in rule for rule in chains(running)["cali-pi-gnp/p"])
        assert running.events("record.unreadable")[0]["effect"] == "a Deny stands in its place"
        [(key, [problem])] = running.agent.state()["problems"].items()  # type: ignore[attr-defined]
        assert key == "globalnetworkpolicies/p"
        assert problem.startswith("a Deny stands in its place: GlobalNetworkPolicy(p) cannot be read: ")
        running.put(policy("p", "has(net)"))
        assert running.agent.state()["problems"] == {}
        assert [event["key"] for event in running.events("record.mended")] == ["globalnetworkpolicies/p"]

    def test_what_is_wrong_with_a_record_is_told_once_and_shown(self, running: FelixAgent) -> None:
        second = workload("a1", "10.1.0.7/32", interface="calia0", profiles=["net"])
        running.put(second)
        running.put(second)
        running.put(policy("unrelated", "all()"))
        [event] = running.events("record.trouble")
        assert event["key"] == str(second[0])
        problems = running.agent.state()["problems"]
        assert isinstance(problems, dict)
        assert list(problems) == [str(second[0])]
        running.remove(A0[0])
        assert running.agent.state()["problems"] == {}

    def test_endpoints_are_shown_with_whether_they_are_programmed(self, running: FelixAgent) -> None:
        running.put(A1)
        assert running.agent.state()["endpoints"] == {
            "calia0": {"addresses": ["10.1.0.1"], "programmed": True},
            "calia1": {"addresses": ["10.1.0.2"], "programmed": False},
        }
        running.plug("calia1")
        running.remove(A0[0])
        assert running.agent.state()["endpoints"] == {"calia1": {"addresses": ["10.1.0.2"], "programmed": True}}


class TestSettings:
    def test_each_is_told_once_with_its_origin_and_again_when_it_changes(self, felix: FelixAgent) -> None:
        felix.begin(settings(FelixConfigurationSpec(log_prefix="one")))
        told = {event["name"]: (event["value"], event["origin"]) for event in felix.events("setting.effective")}
        assert told["LogPrefix"] == ("one", "FelixConfiguration default")
        assert told["MaxIpsetSize"] == ("1048576", "default")
        assert told["Ipv6Support"] == ("False", "test")
        felix.log.clear()
        felix.put(settings(FelixConfigurationSpec(log_prefix="two")))
        felix.put(NET)
        assert [(e["name"], e["value"]) for e in felix.events("setting.effective")] == [("LogPrefix", "two")]
        assert [parameters.log_prefix for parameters in felix.followed] == ["one", "two"]

    @pytest.mark.parametrize("at_once", [True, False])
    def test_flow_logs_that_the_kernel_cannot_do_are_done_without_and_told_once(
        self, felix: FelixAgent, at_once: bool
    ) -> None:
        felix.can_log = False
        felix.plug("calia0")
        wanted = settings(FelixConfigurationSpec(flow_logs_enabled=True))
        felix.begin(A0, NET, *([wanted] if at_once else []))
        felix.put(wanted)
        felix.put(settings(FelixConfigurationSpec(flow_logs_enabled=True, log_prefix="x")))
        assert not any("NFLOG" in rule for made in chains(felix).values() for rule in made)
        assert felix.agent.state()["failing"] == []
        assert felix.agent.state()["without"] == {"FlowLogsEnabled": "no NFLOG here"}
        (told,) = felix.events("setting.unsupported")
        assert (told["name"], told["hint"]) == ("FlowLogsEnabled", "get a kernel")
        assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}

    def test_flow_logs_that_the_kernel_can_do_are_written(self, felix: FelixAgent) -> None:
        felix.begin(A0, NET, settings(FelixConfigurationSpec(flow_logs_enabled=True)))
        assert any("NFLOG" in rule for made in chains(felix).values() for rule in made)
        assert felix.agent.state()["without"] == {}

    def test_what_becomes_of_packets_to_the_host_is_live(self, running: FelixAgent) -> None:
        running.put(settings(FelixConfigurationSpec(default_endpoint_to_host_action="Return"), name="node.node1"))
        assert chains(running)["cali-wl-to-host"][-1].endswith("--jump RETURN")
        assert running.ended == []

    @pytest.mark.parametrize(
        "spec",
        [
            FelixConfigurationSpec(interface_prefix="tap"),
            FelixConfigurationSpec(device_route_protocol=90),
            FelixConfigurationSpec(ip_forwarding="Disabled"),
            FelixConfigurationSpec(iptables_backend="Legacy"),
        ],
        ids=["prefix", "protocol", "forwarding", "back end"],
    )
    def test_what_the_effectors_are_made_with_restarts_felix_and_leaves_the_kernel_alone(
        self, running: FelixAgent, spec: FelixConfigurationSpec
    ) -> None:
        before = running.writes
        running.put(settings(spec))
        running.later(1000)
        assert running.ended == [RESTART_STATUS]
        assert running.writes == before

    def test_a_value_that_cannot_be_used_is_told_and_passed_over(self, felix: FelixAgent) -> None:
        annotations = {"config.projectcalico.org/IptablesRefreshInterval": "soon"}
        felix.begin(settings(FelixConfigurationSpec(), annotations=annotations))
        [event] = felix.events("setting.refused")
        assert (event["name"], event["value"]) == ("IptablesRefreshInterval", "soon")
        assert felix.ended == []

    def test_a_setting_of_a_wrong_type_takes_no_other_with_it(self, running: FelixAgent) -> None:
        key = ResourceKey("felixconfigurations", "default")
        wrong = {"ipv6Support": "no", "healthPort": "x", "failsafeInboundHostPorts": [{"port": "ssh"}], "ipipMTU": None}
        spec = {"defaultEndpointToHostAction": "Return", **wrong}
        metadata = {"name": "default", "annotations": {"config.projectcalico.org/LogPrefix": "hello", "other": "x"}}
        running.put_raw(key, json.dumps({"metadata": metadata, "spec": spec}).encode())
        assert chains(running)["cali-wl-to-host"][-1].endswith("--jump RETURN")
        assert running.followed[-1].log_prefix == "hello"
        assert running.ended == []
        [event] = running.events("record.unreadable")
        assert all(name in event["error"] for name in ("ipv6Support", "healthPort", "failsafeInboundHostPorts"))

    def test_interfaces_stay_guarded_while_a_setting_cannot_be_read(self, felix: FelixAgent) -> None:
        spec = {"interfacePrefix": "tap", "healthPort": "x"}
        felix.put_raw(ResourceKey("felixconfigurations", "default"), json.dumps({"spec": spec}).encode())
        felix.begin(workload("a0", "10.1.0.1/32", profiles=["net"], interface="tap0"), NET)
        assert "cali-tw-tap0" in chains(felix)

    @pytest.mark.parametrize("it", [{"spec": 5}, {"metadata": [], "spec": None}, {"metadata": {"annotations": 1}}])
    def test_settings_of_which_nothing_can_be_read_are_none(self, running: FelixAgent, it: object) -> None:
        running.put_raw(ResourceKey("felixconfigurations", "default"), json.dumps(it).encode())
        assert running.ended == []
        assert chains(running)["cali-wl-to-host"][-1].endswith("--jump DROP")

    def test_a_shorter_interval_counts_at_once(self, running: FelixAgent) -> None:
        running.put(settings(FelixConfigurationSpec(route_refresh_interval="5s")))
        running.host.kernel.routes.lose(A0_KEY)  # and nobody tells
        running.later(6)
        assert running.host.cali_routes() == {"10.1.0.1/32": "calia0"}

    def test_an_interval_of_zero_is_never_and_costs_nothing(self, running: FelixAgent) -> None:
        running.later(50)
        running.put(
            settings(
                FelixConfigurationSpec(
                    route_refresh_interval="0s",
                    ipsets_refresh_interval="0s",
                    iptables_refresh_interval="0s",
                    interface_refresh_interval="0s",
                )
            )
        )
        assert running.wait is None
        running.host.kernel.routes.lose(A0_KEY)
        running.later(10_000)
        assert running.host.cali_routes() == {}


class TestTrouble:
    def test_a_failed_apply_is_tried_again_later_and_later(self, felix: FelixAgent) -> None:
        felix.plug("calia0")
        felix.host.kernel.tables.unwritable = ToolFailed("iptables-nft-restore: killed")
        felix.begin(NET, A0)
        waits = []
        for _ in range(6):
            assert felix.wait is not None
            waits.append(felix.wait)
            felix.later(felix.wait)
        assert waits[:4] == sorted(waits[:4])
        assert 0.5 <= waits[0] <= 1.0
        assert 4.0 <= waits[-1] <= 8.0
        assert felix.host.cali_routes() == {}
        assert felix.health.waiting_for() == [DATAPLANE]
        felix.host.kernel.tables.unwritable = None
        felix.later(8)
        assert felix.host.cali_routes() == {"10.1.0.1/32": "calia0"}
        assert felix.health.waiting_for() == []

    def test_a_failure_is_told_once_with_the_way_out_and_so_is_its_end(self, running: FelixAgent) -> None:
        running.host.kernel.tables.unwritable = ToolMissing("not installed", hint="apt-get install iptables")
        running.put(policy("p", "has(net)"))
        running.later(60)
        assert running.health.waiting_for() == [DATAPLANE]
        [event] = running.events("dataplane.failed")
        assert (event["what"], event["hint"]) == ("table filter (IPv4)", "apt-get install iptables")
        assert running.agent.state()["failing"] == ["table filter (IPv4)"]
        running.host.kernel.tables.unwritable = None
        running.later(8)
        assert [event["what"] for event in running.events("dataplane.recovered")] == ["table filter (IPv4)"]
        assert running.health.waiting_for() == []
        assert running.agent.state()["failing"] == []

    def test_one_address_that_fails_does_not_make_felix_unready(self, running: FelixAgent) -> None:
        taken = RouteKey(ipaddress.ip_network("10.1.0.2/32"))
        running.host.kernel.routes.put(taken, Route.on(IfName("eth0"), protocol=PROTOCOL_BOOT))
        running.put(A1)
        running.plug("calia1")
        assert running.health.waiting_for() == []
        assert running.agent.state()["failing"] == ["route 10.1.0.2/32"]
        running.host.kernel.routes.lose(taken)
        running.hear(RouteGone(taken, Route.on(IfName("eth0"), protocol=PROTOCOL_BOOT)))
        assert running.host.cali_routes()["10.1.0.2/32"] == "calia1"

    def test_a_program_that_cannot_be_made_ready_is_told_and_ends_nothing(self, running: FelixAgent) -> None:
        tables = running.host.kernel.tables
        tables.unprepared = ToolFailed("cannot run iptables-nft-restore: Resource temporarily unavailable")
        running.put(A1)
        running.plug("calia1")
        assert running.host.cali_routes()["10.1.0.2/32"] == "calia1"
        assert [event["what"] for event in running.events("dataplane.failed")] == ["rules program"]
        tables.unprepared = None
        running.later(8)
        assert [event["what"] for event in running.events("dataplane.recovered")] == ["rules program"]

    def test_rules_of_which_the_kernel_does_not_tell_are_read_back(self, running: FelixAgent) -> None:
        tables = running.host.kernel.tables
        wanted = chains(running)["cali-tw-calia0"]
        tables.put(FILTER, "cali-tw-calia0")
        tables.silent = ToolFailed("the kernel did not answer")
        running.rules_changed()
        assert chains(running)["cali-tw-calia0"] == wanted

    def test_a_tunnel_that_is_to_go_waits_with_what_fails(self, running: FelixAgent) -> None:
        running.put(pool("10.0.0.0/16", ipip="Always"))
        running.host.kernel.tables.unwritable = ToolFailed("cannot write")
        running.put(pool("10.0.0.0/16", ipip="Never"))
        applied = len(running.events("dataplane.applied"))
        running.later(60)
        assert len(running.events("dataplane.applied")) - applied <= 20
        running.host.kernel.tables.unwritable = None
        running.later(8)
        assert running.agent.state()["failing"] == []
        assert not running.host.kernel.links.links()[IfName("tunl0")].up

    def test_flows_that_cannot_be_deleted_keep_the_address_closed(self, running: FelixAgent) -> None:
        running.remove(A0[0])
        assert running.host.to_clean == [ipaddress.ip_address("10.1.0.1")]
        running.put(workload("b0", "10.1.0.1/32", profiles=["net"]))
        running.plug("calib0")
        assert running.host.cali_routes() == {}
        missing = ToolMissing("the program conntrack is not installed")
        running.flows_done(missing)
        assert running.host.cali_routes() == {}
        assert running.events("flows.delete_failed")[0]["address"] == "10.1.0.1"
        assert running.host.to_clean == []
        for _ in range(20):
            running.later(8)
            running.flows_done(missing)
        assert running.host.cali_routes() == {}
        assert len(running.events("flows.delete_failed")) <= 22
        running.later(8)
        running.flows_done()
        assert running.host.cali_routes() == {"10.1.0.1/32": "calib0"}
        assert running.agent.state()["failing"] == []


class TestDrift:
    def test_rules_that_somebody_flushed_are_back_at_once(self, running: FelixAgent) -> None:
        before = chains(running)
        kernel = running.host.kernel.tables
        kernel.put(FILTER, "FORWARD", "-j DOCKER-USER")
        kernel.put(FILTER, "DOCKER-USER", "-j RETURN")
        kernel.put(FILTER, "cali-tw-calia0")
        running.rules_changed()
        after = chains(running)
        assert after["cali-tw-calia0"] == before["cali-tw-calia0"]
        assert after["FORWARD"] == (before["FORWARD"][0], "-j DOCKER-USER", *before["FORWARD"][1:])
        found = "FORWARD: ours were missing; chains changed: cali-tw-calia0"
        assert running.agent.state()["repaired"] == {"filter (IPv4)": {"times": 1, "found": found}}

    def test_somebody_who_changes_rules_all_the_time_does_not_keep_felix_busy(self, running: FelixAgent) -> None:
        kernel = running.host.kernel.tables
        wanted = chains(running)["cali-tw-calia0"]
        repaired = 0
        for _ in range(100):
            kernel.put(FILTER, "cali-tw-calia0")
            running.rules_changed()
            repaired += chains(running)["cali-tw-calia0"] == wanted
            running.later(REPAIR_SECONDS / 50)
        assert 1 <= repaired <= 5
        running.later(REPAIR_SECONDS)
        assert chains(running)["cali-tw-calia0"] == wanted

    def test_the_last_of_many_changes_is_noticed_without_being_told_again(self, running: FelixAgent) -> None:
        kernel = running.host.kernel.tables
        wanted = chains(running)["cali-tw-calia0"]
        for _ in range(2):
            kernel.put(FILTER, "cali-tw-calia0")
            running.rules_changed()
        assert chains(running)["cali-tw-calia0"] == ()
        running.later(REPAIR_SECONDS)
        assert chains(running)["cali-tw-calia0"] == wanted

    def test_a_route_deleted_by_hand_is_back_at_once(self, running: FelixAgent) -> None:
        route = running.host.kernel.routes.routes[A0_KEY]
        running.host.kernel.routes.lose(A0_KEY)
        running.hear(RouteGone(A0_KEY, route))
        assert running.host.cali_routes() == {"10.1.0.1/32": "calia0"}

    def test_foreign_routes_go_on_workload_interfaces_and_stay_elsewhere(self, running: FelixAgent) -> None:
        for destination, device in (("10.5.0.0/24", "calia0"), ("10.6.0.0/24", "eth0")):
            key = RouteKey(ipaddress.ip_network(destination))
            route = Route.on(IfName(device), protocol=PROTOCOL_BOOT)
            running.host.kernel.routes.put(key, route)
            running.hear(RouteWritten(key, route))
        assert running.host.cali_routes() == {"10.1.0.1/32": "calia0"}
        assert RouteKey(ipaddress.ip_network("10.6.0.0/24")) in running.host.kernel.routes.routes

    @pytest.mark.parametrize("told", [True, False])
    def test_lost_events_and_the_clock_repair_what_nobody_told(self, running: FelixAgent, told: bool) -> None:
        kernel = running.host.kernel
        running.put(A1)
        kernel.links.add(IfName("calia1"))
        kernel.routes.lose(A0_KEY)
        kernel.sysctls.put("net/ipv4/conf/calia0/proxy_arp", "0")
        if told:
            running.hear(ResyncNeeded("notifications of the kernel were lost"))
        else:
            running.later(91)
        assert running.host.cali_routes() == {"10.1.0.1/32": "calia0", "10.1.0.2/32": "calia1"}
        assert kernel.sysctls.read("net/ipv4/conf/calia0/proxy_arp") == "1"

    def test_set_members_are_put_right_by_the_clock(self, running: FelixAgent) -> None:
        kernel = running.host.kernel
        before = dict(kernel.sets.members)
        [name] = before
        kernel.sets.put(SetSpec(name=name, type="hash:net", version=4, maxelem=1000), "192.0.2.99")
        running.later(91)
        assert kernel.sets.members == before
        [event] = running.events("set.repaired")
        assert (event["set"], event["found"]) == (name, "members: 1 missing, 1 foreign")
        assert running.agent.state()["repaired"] == {f"set {name}": {"times": 1, "found": event["found"]}}

    def test_a_table_is_read_back_by_the_clock(self, running: FelixAgent) -> None:
        wanted = chains(running)["cali-tw-calia0"]
        running.host.kernel.tables.put(FILTER, "cali-tw-calia0")
        running.host.kernel.tables.changed_elsewhere()  # asked by another reader: felix never learns of it
        running.later(179)
        assert chains(running)["cali-tw-calia0"] == ()
        running.later(2)
        assert chains(running)["cali-tw-calia0"] == wanted

    def test_an_interface_that_is_renamed_takes_no_route_with_it(self, running: FelixAgent) -> None:
        links = running.host.kernel.links
        before = links.links()[CALI]
        running.host.kernel.routes.log.clear()
        links.rename(CALI, IfName("calix"))
        # the kernel keeps the route on the device
        running.host.kernel.routes.put(A0_KEY, Route.on(IfName("calix"), protocol=80))
        renamed = links.links()[IfName("calix")]
        assert renamed.index == before.index
        running.hear(LinkGone(CALI), LinkChanged(renamed))
        assert running.host.cali_routes() == {}


class TestCost:
    def test_nothing_to_do_is_nothing_done(self, running: FelixAgent) -> None:
        turns = len(running.events("dataplane.applied"))
        running.later(80)
        assert len(running.events("dataplane.applied")) == turns

    def test_what_has_nothing_to_do_with_workloads_is_not_worth_a_line(self, running: FelixAgent) -> None:
        running.plug("veth123")
        running.unplug("veth123")
        assert [event["log_level"] for event in running.events("dataplane.applied")] == ["debug", "debug"]

    def test_many_changes_heard_at_once_are_one_apply(self, felix: FelixAgent) -> None:
        felix.begin(NET, pool("10.1.0.0/16"))
        felix.log.clear()
        before = len(felix.host.kernel.tables.log)
        records = [workload(f"w{n:02}", f"10.1.1.{n}/32", profiles=["net"]) for n in range(40)]
        felix.hear(*(Changes((felix.change(record),)) for record in records))
        assert len(felix.events("dataplane.applied")) == 1
        assert len(felix.host.kernel.tables.log) == before + 1

    def test_the_line_of_an_apply_says_what_was_written(self, running: FelixAgent) -> None:
        web = EntityRule(selector="role == 'web'")
        running.put(policy("p", "has(net)", [rule("Allow", source=web)], types=["Ingress"]))
        [event] = running.events("dataplane.applied")
        assert (event["sets"], event["chains"], event["failed"]) == (1, 2, 0)
        assert "routes" not in event

    def test_a_thousand_sets_that_nobody_wants_any_more_go_in_seconds(self, running: FelixAgent) -> None:
        deny = [rule("Deny", source=EntityRule(selector=f"role == 'r{n}'")) for n in range(1000)]
        key, many = policy("p", "has(net)", deny)
        running.put((key, many))
        assert len(running.host.kernel.sets.members) > 1000
        running.remove(key)
        running.later(5.0)
        assert not any("cali40s:" in name for name in running.host.kernel.sets.members.keys() - kept(running))


class TestHostEndpoints:
    EXPECTING = host_endpoint("uplink", "", "192.0.2.10")

    def test_the_interface_that_has_the_address_is_secured_with_the_first_write(self, felix: FelixAgent) -> None:
        felix.begin(self.EXPECTING)
        assert "cali-fh-eth0" in chains(felix)
        assert len(felix.events("dataplane.applied")) == 1
        assert felix.agent.state()["host_endpoints"] == {"eth0": "uplink"}
        assert felix.agent.state()["problems"] == {}

    def test_it_follows_the_address(self, felix: FelixAgent) -> None:
        felix.begin(host_endpoint("x", "", "198.51.100.7"))
        assert not any("cali-fh-" in chain for chain in chains(felix))
        [problem] = felix.agent.state()["problems"].values()  # type: ignore[attr-defined]
        assert problem == ["it is not in effect: no interface has 198.51.100.7"]
        felix.plug("eth1")
        felix.give_address("eth1", "198.51.100.7/24")
        assert "cali-fh-eth1" in chains(felix)
        assert felix.agent.state()["problems"] == {}
        felix.take_address("eth1", "198.51.100.7/24")
        assert "cali-fh-eth1" in chains(felix), "it may come back at once"
        felix.later(0.2)
        assert not any("cali-fh-" in chain for chain in chains(felix))

    def test_it_follows_a_renamed_interface(self, felix: FelixAgent) -> None:
        felix.begin(self.EXPECTING)
        links = felix.host.kernel.links
        links.rename(IfName("eth0"), IfName("wan"))
        felix.hear(LinkGone(IfName("eth0")), LinkChanged(links.links()[IfName("wan")]))
        found = {chain for chain in chains(felix) if "cali-fh-" in chain}
        assert found == {"cali-fh-wan"}

    def test_an_address_that_nobody_told_of_is_found_by_the_clock(self, felix: FelixAgent) -> None:
        felix.begin(host_endpoint("x", "", "198.51.100.7"))
        felix.host.kernel.links.add_address(IfName("eth0"), ipaddress.ip_interface("198.51.100.7/24"))
        felix.later(91)
        assert "cali-fh-eth0" in chains(felix)

    def test_interfaces_that_cannot_be_read_delay_all_writes(self, felix: FelixAgent) -> None:
        felix.links_failure = DumpInterrupted("interrupted", errno=errno.EINTR)
        felix.begin(self.EXPECTING)
        assert felix.writes == 0
        felix.links_failure = None
        felix.later(10)
        assert "cali-fh-eth0" in chains(felix)


def kept(felix: FelixAgent) -> set[str]:
    """The sets that rules name."""
    return {name for rules in chains(felix).values() for text in rules for name in re.findall(r"cali40\S+", text)}


class TestRecordsThatCannotBeRead:
    """Written by another program: calicoctl would have refused them."""

    def raw(self, felix: FelixAgent, key: ResourceKey, spec: object, labels: object = None) -> None:
        document = {"metadata": {"name": key.name, "namespace": key.namespace, "labels": labels}, "spec": spec}
        felix.put_raw(key, json.dumps(document).encode())
        [event] = felix.events("record.unreadable")
        assert event["key"] == str(key)
        felix.log.clear()

    def test_a_policy_of_a_namespace_denies_there_and_nowhere_else(self, running: FelixAgent) -> None:
        spec = {"selector": "", "types": ["Ingress"], "ingress": [BAD_RULE]}
        self.raw(running, ResourceKey("networkpolicies", "p", "default"), spec)
        assert "cali-pi-np/default/p" not in chains(running)
        self.raw(running, ResourceKey("networkpolicies", "p", "libnetwork"), spec)
        assert chains(running)["cali-pi-np/libnetwork/p"][-1].endswith("--jump DROP")
        assert any("cali-pi-np/libnetwork/p" in text for text in chains(running)["cali-tw-calia0"])

    def test_a_policy_of_an_early_stage_denies_at_its_stage(self, running: FelixAgent) -> None:
        running.put(host_endpoint("h", "eth0", labels={"host": ""}))
        running.log.clear()
        spec = {"selector": "has(host)", "types": ["Ingress"], "ingress": [BAD_RULE], "applyOnForward": True}
        for flag, table in (("preDNAT", "mangle"), ("doNotTrack", "raw")):
            self.raw(running, ResourceKey("globalnetworkpolicies", "p"), {**spec, flag: True})
            rules = running.host.kernel.tables.rules(TableKey(4, table))
            assert rules["cali-pi-gnp/p"][-1].endswith("--jump DROP")
            assert any("cali-pi-gnp/p" in text for text in rules["cali-fh-eth0"])

    def test_a_host_endpoint_stays_closed(self, running: FelixAgent) -> None:
        spec = {"node": "node1", "interfaceName": "eth0", "profiles": ["net"], "ports": "all"}
        self.raw(running, ResourceKey("hostendpoints", "h"), spec, {"host": ""})
        made = chains(running)["cali-fh-eth0"]
        assert made[-1].endswith("--jump DROP")
        assert not any("cali-pri-net" in text for text in made)

    def test_a_network_set_opens_nothing(self, running: FelixAgent) -> None:
        strangers = rule("Allow", source=EntityRule(not_selector="has(bad)"))
        running.put(policy("p", "has(net)", [strangers], types=["Ingress"]))
        running.log.clear()
        assert chains(running)["cali-pi-gnp/p"] != ()
        self.raw(running, ResourceKey("globalnetworksets", "s"), {"nets": ["192.0.2.0/24", {}]}, {"bad": ""})
        assert chains(running)["cali-pi-gnp/p"] == ()
