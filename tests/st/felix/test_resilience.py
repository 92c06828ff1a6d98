"""Kills, restarts and a store that comes and goes, with traffic running (reference felix.md 8.1, 8.7)."""

import re
import signal
import time
from collections.abc import Iterator

import pytest

from bed import wait_until
from bed.command import PATH, Process
from bed.felix import FelixLab
from bed.host import Host
from bed.workload import Workload
from fakes.felix_records import policy, rule, settings
from kernel.xtables import BackEnd
from resources.datastore.keys import ResourceKey, resource_key
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1"}
A0 = "name == 'a0'"
DENY_A1 = rule("Deny", source=EntityRule(selector="name == 'a1'"))
READY = ResourceKey("clusterinformations", "default")


@pytest.fixture(scope="module")
def own_lab(back_end: BackEnd) -> Iterator[FelixLab]:
    with FelixLab(back_end=back_end) as lab:
        for name, host, address in (
            ("a0", lab.node1, "10.65.0.2"), ("a1", lab.node1, "10.65.0.3"), ("b1", lab.node1, "10.66.0.2"),
            ("a2", lab.node2, "10.65.0.66"),
        ):  # fmt: skip
            lab.attach(host, name, address)
        yield lab


@pytest.fixture
def lab(own_lab: FelixLab) -> Iterator[FelixLab]:
    """a0, a1, b1 on node1, a2 on node2; afterwards felix runs, the store is as it was, and so is who reaches whom."""
    before, workloads = own_lab.snapshot(), set(own_lab.workloads)
    own_lab.forget_complaints()
    own_lab.tolerate("datastore.away", "status.write_failed")
    yield own_lab
    for name in set(own_lab.workloads) - workloads:
        own_lab.detach(name)
    own_lab.restore(before)
    for host in own_lab.hosts:
        if not own_lab.felix[host.name].alive:
            own_lab.start(host)
    assert own_lab.complaints() == []
    own_lab.expect(WITHIN)


class Flood:
    """Pings every 4 ms, one way or the other, that must (or must not) all be answered."""

    def __init__(self, source: Workload, target: Workload) -> None:
        self.name = f"{source.name}>{target.name}"
        command = ["stdbuf", "-oL", "ping", "-n", "-q", "-i", "0.004", "-W", "1", str(target.address)]
        self._process: Process = source.popen(command, name=f"flood-{target.name}-{time.monotonic_ns()}")
        wait_until(f"{self.name} to begin", lambda: "PING" in self._process.text)

    def stop(self) -> tuple[int, int]:
        """Return how many were sent and how many of them were not answered."""
        self._process.signal(signal.SIGINT)
        self._process.wait(10.0)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", self._process.text)
        assert found, self._process.text
        return int(found[1]), int(found[1]) - int(found[2])


@pytest.fixture
def floods(lab: FelixLab) -> Iterator[None]:
    """Through the whole test not one packet between a0 and its peers is lost, and none of b1's gets to a0."""
    a0, a1, a2, b1 = (lab.workloads[name] for name in ("a0", "a1", "a2", "b1"))
    opened = [Flood(a1, a0), Flood(a0, a2)]
    closed = Flood(b1, a0)
    time.sleep(0.05)
    yield
    for flood in opened:
        sent, lost = flood.stop()
        assert sent > 50
        assert lost <= 1, f"{flood.name}: {lost} of {sent} lost"  # the one under way at the end
    sent, lost = closed.stop()
    assert sent == lost > 50


def counters(host: Host) -> dict[str, int]:
    """Return how many packets each of our rules has met."""
    lines = host.run("iptables-save -c").stdout.splitlines()
    found = (re.match(r"\[(\d+):\d+\] (-A cali.*)", line) for line in lines)
    return {match[2]: int(match[1]) for match in found if match}


def programmed(host: Host) -> str:
    """Return everything of ours in the kernel, as text."""
    saved = host.run("iptables-save; ip6tables-save; ipset save | sort; ip route; ip -6 route show proto 80").stdout
    return "\n".join(re.sub(r"\[\d+:\d+\]", "", line) for line in saved.splitlines() if not line.startswith("#"))


@pytest.mark.scenario(12)
@pytest.mark.usefixtures("floods")
def test_a_restart_writes_nothing_and_loses_nothing(lab: FelixLab) -> None:
    node1 = lab.node1
    lab.put(policy("p", A0, [Rule(action="Pass")], types=["Ingress"]))
    before, counted, everything = lab.generation(node1), counters(node1), programmed(node1)
    monitor = node1.popen(["ip", "-4", "monitor", "link", "address", "route"], name="monitor")
    lab.felix["node1"].kill()
    lab.start(node1)
    lab.felix["node1"].terminate()
    lab.start(node1)
    assert lab.generation(node1) == before
    assert monitor.text == ""
    assert programmed(node1) == everything
    after = counters(node1)
    assert after.keys() == counted.keys()
    assert all(after[line] >= count for line, count in counted.items())
    assert any("cali-tw" in line and after[line] > counted[line] + 50 for line in counted)
    monitor.terminate()
    last_start = lab.last_start("node1")
    assert "dataplane.applied" not in last_start


@pytest.mark.usefixtures("floods")
@pytest.mark.parametrize("after_seconds", [0.0, 0.02, 0.05])
def test_a_kill_in_the_middle_of_an_apply_is_finished_by_the_next_start(lab: FelixLab, after_seconds: float) -> None:
    node1 = lab.node1
    names = [f"k{number}" for number in range(6)]
    for number, name in enumerate(names):
        lab.attach(node1, name, f"10.65.0.{20 + number}", record=False)
    for name in names:
        revision = lab.record(lab.workloads[name], wait=False)
        lab.write(policy(f"p-{name}", f"name == '{name}'", [DENY_A1, Rule(action="Pass")], types=["Ingress"]))
    time.sleep(after_seconds)
    lab.felix["node1"].kill()
    lab.start(node1)
    lab.settle(revision)
    a1 = lab.workloads["a1"]
    for name in names:
        assert not a1.ping(lab.workloads[name].address, timeout=0.1).ok
        assert lab.workloads["a2"].ping(lab.workloads[name].address, timeout=3.0).ok
    for name in names:
        lab.detach(name)


@pytest.mark.scenario(11, 13)
@pytest.mark.usefixtures("floods")
def test_while_felix_is_away_nothing_new_gets_traffic_and_afterwards_all_is_caught_up(lab: FelixLab) -> None:
    node1, a1 = lab.node1, lab.workloads["a1"]
    old = lab.attach(node1, "old", "10.65.0.40")
    lab.felix["node1"].kill()
    new = lab.attach(node1, "new", "10.65.0.41", wait=False)
    lab.write(remove=[lab.keys.pop("old")])
    lab.write(policy("p", "name == 'new'", [Rule(action="Allow")], types=["Ingress"]))
    assert not a1.ping(new.address, timeout=0.3).ok
    assert not new.ping(a1.address, timeout=0.3).ok
    assert "10.65.0.40" in programmed(node1)
    lab.start(node1)
    a1.await_ping(new.address, timeout=3.0)
    assert lab.workloads["b1"].ping(new.address).ok  # by the policy
    assert old.interface not in programmed(node1)
    assert "10.65.0.40" not in programmed(node1)


@pytest.mark.scenario(14)
@pytest.mark.usefixtures("floods")
def test_a_store_that_is_not_ready_changes_nothing(lab: FelixLab) -> None:
    node1 = lab.node1
    ready = lab.snapshot()[resource_key(READY)]
    locked = ready.replace(b'"datastoreReady":true', b'"datastoreReady":false')
    assert locked != ready
    lab.tolerate("datastore.locked", "datastore.not_ready")
    before = programmed(node1)
    lab.write_raw(READY, locked)
    for felix in lab.felix.values():
        assert felix.wait(5.0) == 129
    lab.write(remove=[lab.keys["a0"]])
    lab.start(node1)
    assert lab.ask(node1, "/liveness")[0] == 204
    assert lab.state(node1)["acting"] is False
    assert programmed(node1) == before
    lab.record(lab.workloads["a0"], wait=False)
    lab.write(policy("p", A0, [Rule(action="Pass")], types=["Ingress"]))
    lab.settle(lab.write_raw(READY, ready))
    assert "cali-pi-gnp/p" in programmed(node1)


@pytest.mark.scenario(15)
def test_an_empty_store_takes_everything_away_but_not_before_it_is_read(lab: FelixLab) -> None:
    node1 = lab.node1
    records = lab.snapshot()
    ready = resource_key(READY)
    lab.felix["node1"].kill()
    lab.felix["node2"].kill()
    before = programmed(node1)
    lab.restore({ready: records[ready]})
    lab.cluster.store.stop()
    lab.start(node1, wait=False)
    wait_until("felix to serve its health", lambda: lab.ask(node1, "/liveness")[0] == 204, timeout=20.0)
    status, waiting = lab.ask(node1, "/readiness")
    assert (status, "waiting for the datastore" in waiting) == (503, True)
    assert programmed(node1) == before
    lab.cluster.store.start()
    lab.await_ready(node1)
    after = programmed(node1)
    assert not any(workload.interface in after for workload in lab.workloads.values())
    assert "net-a" not in after
    assert "proto 80" not in after
    lab.restore(records)


@pytest.mark.scenario(107)
@pytest.mark.usefixtures("floods")
def test_the_store_restarts_is_compacted_and_stays_away_for_a_while(lab: FelixLab) -> None:
    node1, store = lab.node1, lab.cluster.store
    before = lab.generation(node1), programmed(node1)
    pid = lab.felix["node1"]
    store.stop(kill=True)
    time.sleep(1.5)
    assert lab.ask(node1, "/liveness")[0] == 204
    assert lab.ask(node1, "/readiness")[0] == 204
    store.start()
    store.compact()
    wait_until("felix to have the store again", lambda: lab.state(node1)["datastore_away"] is None, timeout=20.0)
    assert (lab.generation(node1), programmed(node1)) == before
    lab.put(policy("p", A0, [DENY_A1, Rule(action="Pass")], types=["Ingress"]))
    assert not lab.workloads["a1"].ping(lab.workloads["a0"].address, timeout=0.3).ok
    assert lab.felix["node1"] is pid
    assert pid.alive


@pytest.mark.scenario(109)
@pytest.mark.usefixtures("floods")
def test_settings_that_are_live_and_settings_that_restart(lab: FelixLab) -> None:
    node1, felix = lab.node1, lab.felix["node1"]

    def put(**fields: str | int) -> None:
        spec = FelixConfigurationSpec(default_endpoint_to_host_action="Return", **fields)  # type: ignore[arg-type]
        lab.write(settings(spec, name="node.node1"))

    put(log_severity_screen="Debug", ipsets_refresh_interval="1s")
    wait_until("a line of the level that was asked for", lambda: "level=debug" in felix.text, timeout=5.0)
    assert felix.alive
    lab.tolerate("setting.restart_needed")
    put(max_ipset_size=4096)
    assert felix.wait(5.0) == 129
    lab.start(node1)
    sets = node1.run("ipset save").stdout
    assert "maxelem 4096" in sets
    assert "maxelem 1048576" not in sets
    put()
    assert lab.felix["node1"].wait(5.0) == 129


@pytest.mark.scenario(108)
@pytest.mark.usefixtures("floods")
def test_a_switch_of_the_back_end_takes_everything_along_and_touches_nothing_else(lab: FelixLab) -> None:
    """There and back, with old chains where felix comes to: never both, never none, and no packet more or less."""
    node1, here = lab.node1, lab.back_end
    there = BackEnd.LEGACY if here is BackEnd.NFT else BackEnd.NFT
    lab.tolerate("setting.restart_needed")
    lab.put(policy("p", A0, [Rule(action="Pass")], types=["Ingress"]))

    def rules(back_end: BackEnd) -> list[str]:
        saved = node1.run(f"iptables-{back_end}-save; ip6tables-{back_end}-save").stdout.splitlines()
        return sorted(re.sub(r" ?\[\d+:\d+\]", "", line) for line in saved if not line.startswith("#"))

    def ours(back_end: BackEnd) -> list[str]:
        return [line for line in rules(back_end) if "cali" in line]

    def theirs(back_end: BackEnd) -> list[str]:
        return [line for line in rules(back_end) if "cali" not in line and line.startswith(("-A", ":MINE"))]

    def switch(to: BackEnd) -> None:
        setting = {BackEnd.NFT: "NFT", BackEnd.LEGACY: "Legacy"}[to]
        spec = FelixConfigurationSpec(default_endpoint_to_host_action="Return", iptables_backend=setting)
        lab.write(settings(spec, name="node.node1"))
        assert lab.felix["node1"].wait(5.0) == 129
        lab.start(node1)

    for back_end in BackEnd:
        program = f"iptables-{back_end}"
        node1.run(
            f"{program} -N MINE; {program} -A MINE -j RETURN; {program} -A FORWARD -s 198.51.100.7 -j MINE; "
            f"{program} -t nat -A POSTROUTING -s 198.51.100.0/24 -j MASQUERADE"
        )
    node1.run("nft add table inet theirs; nft add chain inet theirs mine")
    node1.run(f"iptables-{there} -N cali-old; iptables-{there} -A FORWARD -j cali-old")
    foreign = {back_end: theirs(back_end) for back_end in BackEnd}
    wanted = ours(here)
    try:
        for before, after in ((here, there), (there, here)):
            switch(after)
            wait_until("the old rules to go", lambda: ours(before) == [], timeout=5.0)  # noqa: B023
            assert ours(after) == wanted
            log = lab.felix["node1"].text.rpartition("backend.chosen")[2]
            assert f"back_end={after}" in log
            assert "set by IptablesBackend" in log
            assert "backend.swept" in log
            assert {back_end: theirs(back_end) for back_end in BackEnd} == foreign
            assert "inet theirs" in node1.run("nft list tables").stdout
    finally:
        for back_end in BackEnd:
            program = f"iptables-{back_end}"
            node1.run(
                f"{program} -D FORWARD -s 198.51.100.7 -j MINE; {program} -F MINE; {program} -X MINE; "
                f"{program} -t nat -D POSTROUTING -s 198.51.100.0/24 -j MASQUERADE"
            )
        node1.run("nft delete table inet theirs")
        lab.write(settings(FelixConfigurationSpec(default_endpoint_to_host_action="Return"), name="node.node1"))
        lab.felix["node1"].wait(5.0)


FAKE = """#!/bin/sh
case "$(cat /run/fake/mode)" in
fail) echo "killed by the test" >&2; exit 3 ;;
slow) sleep 0.7 ;;
esac
exec /usr/sbin/iptables-{}-restore "$@"
"""


@pytest.mark.scenario(105)
@pytest.mark.usefixtures("floods")
def test_rules_that_cannot_be_written_keep_a_new_endpoint_closed_until_they_can(lab: FelixLab) -> None:
    node1, a1 = lab.node1, lab.workloads["a1"]
    node1.write_file(f"/run/fake/iptables-{lab.back_end}-restore", FAKE.format(lab.back_end), mode=0o755)
    node1.write_file("/run/fake/mode", "")
    lab.felix["node1"].kill()
    felix = lab.start(node1, env={"PATH": f"/run/fake:{PATH}"})
    lab.tolerate("dataplane.failed")
    node1.write_file("/run/fake/mode", "fail")
    new = lab.attach(node1, "new", "10.65.0.50", wait=False)
    wait_until("felix to say so", lambda: lab.ask(node1, "/readiness")[0] == 503, timeout=5.0)
    assert not a1.ping(new.address, timeout=0.3).ok
    assert "10.65.0.50" not in node1.ip("route").stdout
    assert lab.ask(node1, "/liveness")[0] == 204
    assert "killed by the test" in felix.text
    node1.write_file("/run/fake/mode", "slow")
    a1.await_ping(new.address, timeout=15.0)
    node1.write_file("/run/fake/mode", "")
    wait_until("felix to be ready again", lambda: lab.ask(node1, "/readiness")[0] == 204, timeout=10.0)
    assert "dataplane.recovered" in felix.text
    felix.kill()
