"""Rules in either back end: found where the host's other rules are, kept in place beside those who write there, too
(reference felix.md 7.7, 8.7). More of it: test_drift.py, test_resilience.py."""

import re
import threading
import time

import pytest

from bed import wait_until
from bed.dockerd import Dockerd
from bed.felix import FelixLab
from fakes.felix_records import settings
from kernel.xtables import BackEnd
from resources.kinds.felixconfiguration import FelixConfigurationSpec

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}


def forward(lab: FelixLab) -> list[str]:
    return [line for line in lab.node1.run("iptables -S FORWARD").stdout.splitlines() if line.startswith("-A")]


def test_felix_takes_the_back_end_that_the_host_uses_and_says_so(lab: FelixLab) -> None:
    for host in lab.hosts:
        line = [line for line in lab.felix[host.name].text.splitlines() if "backend.chosen" in line][-1]
        assert f"back_end={lab.back_end}" in line
        assert "setting=Auto" in line
        other = BackEnd.NFT if lab.back_end is BackEnd.LEGACY else BackEnd.LEGACY
        assert "cali" not in host.run(f"iptables-{other}-save; ip6tables-{other}-save").stdout
        assert "cali-FORWARD" in host.run(f"iptables-{lab.back_end}-save").stdout


@pytest.mark.scenario(93, 95)
def test_a_firewall_that_is_loaded_anew_without_ours(lab: FelixLab, docker: Dockerd) -> None:
    """As ufw, firewalld and netfilter-persistent do it: iptables-restore of a file of their own."""
    node1 = lab.node1
    lab.tolerate("rules.repaired")
    files = {}
    for program in ("iptables", "ip6tables"):
        text = node1.run(f"{program}-save | grep -v cali").stdout
        files[program] = text.replace(":INPUT DROP", ":MINE - [0:0]\n:INPUT DROP")
    wanted = lab.ours(node1)
    times, _ = lab.repaired(node1)
    for program, text in files.items():
        node1.run([f"{program}-restore"], stdin=text)
    wait_until("ours to be back", lambda: lab.ours(node1) == wanted, timeout=3.0)
    assert [line for line in lab.foreign(node1) if line.startswith(":MINE")]
    lab.expect(WITHIN)
    wait_until("that to be counted", lambda: lab.repaired(node1)[0] > times, timeout=3.0)
    found = lab.repaired(node1)[1]  # the log has it too, but no more than once a minute
    assert "FORWARD: ours were missing" in found
    assert "gone" in found
    node1.run("iptables -X MINE")


@pytest.mark.scenario(94)
def test_another_program_above_ours_is_told_of_and_nothing_is_called_lost(lab: FelixLab) -> None:
    node1 = lab.node1
    times, _ = lab.repaired(node1)
    node1.run("iptables -I FORWARD 1 -s 198.51.100.0/24 -j ACCEPT")
    try:
        wait_until("ours to be first", lambda: "cali-FORWARD" in forward(lab)[0], timeout=3.0)
        wait_until("that to be counted", lambda: lab.repaired(node1)[0] > times, timeout=3.0)
        assert lab.repaired(node1)[1] == "FORWARD: ours were not in place"
        assert forward(lab)[1] == "-A FORWARD -s 198.51.100.0/24 -j ACCEPT"
    finally:
        node1.run("iptables -D FORWARD -s 198.51.100.0/24 -j ACCEPT")


def test_rules_that_are_to_be_last_stay_last(lab: FelixLab, docker: Dockerd) -> None:
    node1 = lab.node1
    spec = FelixConfigurationSpec(default_endpoint_to_host_action="Return", chain_insert_mode="Append")

    def ours_are_last() -> bool:
        places = ["cali" in line for line in forward(lab)]
        return places == sorted(places) and any(places)

    lab.put(settings(spec, name="node.node1"))
    wait_until("ours to be last", ours_are_last, timeout=3.0)
    lab.expect(WITHIN)
    node1.run("iptables -A FORWARD -s 198.51.100.0/24 -j ACCEPT")
    try:
        wait_until("ours to be last again", ours_are_last, timeout=3.0)
        assert "-A FORWARD -s 198.51.100.0/24 -j ACCEPT" in forward(lab)
    finally:
        node1.run("iptables -D FORWARD -s 198.51.100.0/24 -j ACCEPT")


def test_a_rule_of_another_program_that_takes_no_lock_and_no_room_is_found_in_time(lab: FelixLab) -> None:
    """A legacy table does not tell of it, so it is found when the tables are read back; nft tells at once."""
    node1 = lab.node1
    lab.tolerate("rules.repaired")
    spec = FelixConfigurationSpec(default_endpoint_to_host_action="Return", iptables_refresh_interval="1s")
    lab.put(settings(spec, name="node.node1"))
    wanted = lab.ours(node1)
    replace = "iptables -R cali-from-wl-dispatch 1 -i cali12345678+ -j ACCEPT"
    node1.run(replace, env={"XTABLES_LOCKFILE": "/run/another.lock"})
    assert lab.ours(node1) != wanted or lab.back_end is BackEnd.NFT
    wait_until("the rule to be ours again", lambda: lab.ours(node1) == wanted, timeout=4.0)


@pytest.mark.scenario(104)
def test_the_lock_of_iptables_is_waited_for_and_its_holder_is_named(lab: FelixLab) -> None:
    """Two seconds are waited out; longer is told, and made good. Rules in nft need no lock."""
    node1, a1 = lab.node1, lab.workloads["a1"]
    lab.tolerate("dataplane.failed")

    def hold(seconds: float) -> threading.Thread:
        command = ["flock", "/run/xtables.lock", "sleep", str(seconds)]
        holding = threading.Thread(target=node1.run, args=(command,))
        holding.start()
        time.sleep(0.2)
        return holding

    holding = hold(2.0)
    began = time.monotonic()
    waited = lab.attach(node1, "waited", "10.65.0.40", wait=False)
    a1.await_ping(waited.address, timeout=8.0)
    took = time.monotonic() - began
    holding.join()
    assert (took > 1.5) is (lab.back_end is BackEnd.LEGACY), took
    assert lab.ask(node1, "/readiness")[0] == 204
    if lab.back_end is BackEnd.NFT:
        return
    holding = hold(8.0)
    late = lab.attach(node1, "late", "10.65.0.41", wait=False)
    wait_until("felix to say so", lambda: lab.ask(node1, "/readiness")[0] == 503, timeout=7.5)
    log = "\n".join(lab.said(node1, "is held by"))
    assert re.search(r"the lock of iptables, /run/xtables.lock, is held by (flock|sleep) \(pid \d+\)", log)
    assert lab.ask(node1, "/liveness")[0] == 204
    assert not a1.ping(late.address, timeout=0.3).ok
    holding.join()
    a1.await_ping(late.address, timeout=12.0)
    wait_until("felix to be ready again", lambda: lab.ask(node1, "/readiness")[0] == 204, timeout=5.0)
