"""Counters and the packet log by real packets: what `calicoctl policy counters` says is what was sent."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bed import wait_until
from bed.felix import FelixLab
from bed.host import Host
from bed.packet_log import Logged, PacketLog
from bed.workload import Workload
from fakes.felix_records import host_endpoint, policy, rule, settings, tier
from felix.calc.model import Action, Direction, PolicyId
from felix.render.flowlog import Owner, rule_log
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule

A0 = "name == 'a0'"
Drops = dict[tuple[str, str, str], int]
"""Packets by interface, direction and where they were dropped."""


def to(port: int) -> EntityRule:
    return EntityRule(ports=[port])


WEB = policy(
    "web", A0, [rule("Allow", "UDP", destination=to(7080)), rule("Deny", "UDP", destination=to(7081)),
                rule("Pass", "UDP", destination=to(7082)), rule("Log", "UDP", destination=to(7083))],
    types=["Ingress"],
)  # fmt: skip


def datagrams(source: Workload, target: Workload, port: int, times: int) -> None:
    """Send single packets, each of which is new to connection tracking as long as nobody answers."""
    with source.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(times):
            sender.sendto(b"?" * 10, (str(target.address), port))


@contextmanager
def silent(workload: Workload, *ports: int) -> Iterator[None]:
    """Nobody answers at these ports, not even the workload's kernel."""
    with ExitStack() as stack:
        for port in ports:
            with workload.entered():
                listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                listener.bind(("0.0.0.0", port))
        yield


def counters(host: Host, *words: str) -> dict[str, list[dict[str, object]]]:
    found = json.loads(host.run(["calicoctl", "policy", "counters", "-o", "json", *words]).stdout)
    assert isinstance(found, dict)
    return found


def by_rule(host: Host, name: str) -> dict[tuple[str, int], tuple[int, int]]:
    """Packets and bytes by direction and number of the rules of a policy."""
    (found,) = counters(host, name)["policies"]
    rules = found["rules"]
    assert isinstance(rules, list)
    return {(one["direction"], one["rule"]): (one["packets"], one["bytes"]) for one in rules}


def drops(host: Host) -> Drops:
    return {
        (str(one["interface"]), str(one["direction"]), str(one["where"])): int(str(one["packets"]))
        for one in counters(host)["drops"]
    }


def more(before: Drops, after: Drops) -> Drops:
    found = {key: packets - before.get(key, 0) for key, packets in after.items()}
    return {key: packets for key, packets in found.items() if packets}


def kill(lab: FelixLab) -> None:
    """End node1's felix without a word."""
    lab.felix["node1"].signal(signal.SIGKILL)
    lab.felix["node1"].wait(5.0)


def test_each_rule_counts_exactly_what_was_sent(lab: FelixLab) -> None:
    lab.put(WEB)
    a0, a1, a2 = (lab.workloads[name] for name in ("a0", "a1", "a2"))
    with silent(a0, 7080, 7082, 7083):
        for port, times in ((7080, 3), (7081, 2), (7082, 4), (7083, 5), (7084, 6)):
            datagrams(a1, a0, port, times)
        datagrams(a2, a0, 7081, 7)
    size = 20 + 8 + 10
    sent = {("ingress", number): (times, times * size) for number, times in ((1, 3), (2, 9), (3, 4), (4, 5))}
    assert by_rule(lab.node1, "web") == sent
    assert drops(lab.node1).get((a0.interface, "ingress", "rule 2 of policy web (tier default)")) == 9
    assert drops(lab.node1).get((a0.interface, "ingress", "end of tier default: no policy matched")) == 11


def test_drops_have_the_name_of_the_endpoint_and_of_what_dropped(lab: FelixLab) -> None:
    before = drops(lab.node1)
    a0, a1, b1 = (lab.workloads[name] for name in ("a0", "a1", "b1"))
    datagrams(b1, a1, 7080, 2)
    datagrams(a0, a1, 4789, 3)
    with a0.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        header = b"\x45\0\0\x1c\0\0\0\0\x40\x11\0\0" + b"".join(
            socket.inet_aton(str(address)) for address in (a1.address, lab.workloads["a2"].address)
        )
        for _ in range(4):
            raw.sendto(header + b"\x1f\x90\x1f\x90\0\x08\0\0", (str(lab.workloads["a2"].address), 0))
    found = more(before, drops(lab.node1))
    assert found == {
        (a1.interface, "ingress", "no profile matched"): 2,
        (a0.interface, "egress", "a tunnel (VXLAN or IPIP) from within"): 3,
        ("", "", "spoofed source: no address of the interface that it came from"): 4,
    }


def test_an_interface_without_an_endpoint_is_told(lab: FelixLab) -> None:
    before = drops(lab.node1)
    kill(lab)  # or it would take the route away
    stranger = lab.attach(lab.node1, "stray", "10.65.0.20", record=False)
    try:
        lab.node1.ip("route", "add", "10.65.0.20/32", "dev", stranger.interface)
        lab.node1.sysctl(f"net.ipv4.conf.{stranger.interface}.forwarding", 1)
        mac = lab.node1.run(f"cat /sys/class/net/{stranger.interface}/address").stdout.strip()
        stranger.ip("neigh", "replace", "169.254.1.1", "lladdr", mac, "dev", "cali0", "nud", "permanent")
        datagrams(stranger, lab.workloads["a0"], 7080, 5)
    finally:
        lab.workloads.pop("stray").close()
    lab.start(lab.node1)
    found = more(before, drops(lab.node1))
    assert found == {("", "egress", "unknown interface: no endpoint of the store has it"): 5}


def test_a_host_endpoint_has_lines_of_its_own(lab: FelixLab) -> None:
    lab.put(
        host_endpoint("up", "eth0", node="node1", profiles=["net-a"], labels={"up": ""}),
        policy("hosts", "has(up)", [rule("Deny", "UDP", destination=to(7081)), rule("Pass")], types=["Ingress"]),
        policy("early", "has(up)", [rule("Deny", "UDP", destination=to(7082)), rule("Pass")], types=["Ingress"],
               pre_dnat=True, apply_on_forward=True),
    )  # fmt: skip
    with lab.node2.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port, times in ((7081, 3), (7082, 4), (7083, 5)):
            for _ in range(times):
                sender.sendto(b"?" * 10, (str(lab.node1.address), port))
    found = drops(lab.node1)
    assert found["eth0", "ingress", "rule 1 of policy hosts (tier default)"] == 3
    assert found["eth0", "ingress", "rule 1 of policy early (tier default)"] == 4
    assert found["eth0", "ingress", "no profile matched"] >= 5  # the host itself may hear more


def test_counters_outlive_felix_and_a_change_elsewhere(lab: FelixLab) -> None:
    lab.put(WEB)
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    datagrams(a1, a0, 7081, 3)
    before = by_rule(lab.node1, "web"), drops(lab.node1)
    kill(lab)
    done = lab.node1.run(["calicoctl", "policy", "counters"], check=False)
    assert done.exit == 1
    assert "calico-felix does not answer" in done.stderr
    assert "calicoctl node run" in done.stderr
    datagrams(a1, a0, 7081, 4)
    lab.start(lab.node1)
    lab.put(policy("other", "name == 'b1'", [rule("Deny")], types=["Ingress"]))
    after = by_rule(lab.node1, "web"), drops(lab.node1)
    size = 20 + 8 + 10
    assert after[0] == {**before[0], ("ingress", 2): (7, 7 * size)}
    assert more(before[1], after[1]) == {(a0.interface, "ingress", "rule 2 of policy web (tier default)"): 4}


def test_the_command_shows_names_and_says_what_there_is(lab: FelixLab) -> None:
    lab.tolerate("tier first does not exist")  # it goes before its policy, when the test is over
    lab.put(tier("first", 1, "Pass"), WEB, policy("guard", A0, [rule("Deny", "SCTP")], tier="first", types=["Ingress"]))
    datagrams(lab.workloads["a1"], lab.workloads["a0"], 7081, 3)
    shown = lab.node1.run(["calicoctl", "policy", "counters"]).stdout
    rows = [line.split() for line in shown.splitlines()]
    assert ["default", "web", "ingress", "2", "Deny", "udp", "to", "port", "7081", "3", "114"] in rows
    assert [row[1] for row in rows if row[:1] in (["first"], ["default"])][:2] == ["guard", "web"]
    done = lab.node1.run(["calicoctl", "policy", "counters", "wbe"], check=False)
    assert (done.exit, "these are: web, guard" in done.stderr) == (1, True)


def test_of_policies_that_endpoints_share_that_is_named_which_the_numbers_leave(lab: FelixLab) -> None:
    for number in (1, 2, 3):
        lab.put(policy(f"p{number}", "name in {'a0','a1'}", [rule("Deny", "UDP", destination=to(7080 + number))],
                       types=["Ingress"], order=number))  # fmt: skip
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    before = drops(lab.node1)
    datagrams(a1, a0, 7081, 3)
    datagrams(a1, a0, 7082, 4)
    alone = {(a0.interface, "ingress", f"rule 1 of policy p{number} (tier default)"): 2 + number for number in (1, 2)}
    assert more(before, drops(lab.node1)) == alone
    kill(lab)
    datagrams(a0, a1, 7082, 2)
    lab.start(lab.node1)
    both = "a rule of policy p1 or policy p2 (tier default)"
    assert more(before, drops(lab.node1)) == {(a0.interface, "ingress", both): 7, (a1.interface, "ingress", both): 2}


def test_only_what_is_counted_from_now_on(lab: FelixLab) -> None:
    lab.put(WEB)
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    datagrams(a1, a0, 7081, 3)
    flood = a1.popen(["python3", "-c", FLOOD, str(a0.address)])
    try:
        shown = counters(lab.node1, "--during", "0.5", "--endpoint", str(a0.address))
    finally:
        flood.signal(signal.SIGTERM)
        flood.wait(5.0)
    assert [one["where"] for one in shown["drops"]] == ["end of tier default: no policy matched"]
    assert shown["policies"] == []


def test_what_ends_a_way_is_logged_while_the_settings_say_so(lab: FelixLab) -> None:
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    lab.put(WEB)
    plain = lab.node1.run("iptables-save").stdout
    assert "NFLOG" not in plain
    lab.put(settings(FelixConfigurationSpec(flow_logs_enabled=True)))
    with lab.node1.entered():
        listener = PacketLog(1, 2)
    with listener, silent(a0, 7080, 7082):
        for port in (7080, 7081, 7082, 7084):
            datagrams(a1, a0, port, 1)
        heard = listener.wait_for(9)
    asked = json.loads(lab.ask(lab.node1, "/flowlog-prefixes")[1])["prefixes"]
    of_web = Owner(Direction.INGRESS, PolicyId("GlobalNetworkPolicy", "web"), "default")
    ends = {port: (str(a1.address), str(a0.address), port) for port in (7080, 7081, 7082, 7084)}
    assert logged_by(heard, 1) == {
        (rule_log(of_web, Action.ALLOW, 1).prefix, ends[7080]),
        (rule_log(of_web, Action.DENY, 2).prefix, ends[7081]),
        (rule_log(of_web, Action.PASS, 3).prefix, ends[7082]),
        ("ARI0|net-a", ends[7082]),
        ("DPI|default", ends[7084]),
    }
    assert logged_by(heard, 2) == {("ARE0|net-a", each) for each in ends.values()}
    assert {one.prefix for one in heard} <= asked.keys()
    assert asked["DPI1|default|gnp/web"] == {
        "group": 1, "direction": "ingress", "tier": "default", "kind": "GlobalNetworkPolicy", "namespace": "",
        "name": "web", "rule": 2, "action": "Deny",
    }  # fmt: skip
    lab.put(settings(FelixConfigurationSpec(flow_logs_enabled=False)))
    assert tagged(lab.node1.run("iptables-save").stdout) == tagged(plain)


def logged_by(heard: list[Logged], group: int) -> set[tuple[str, tuple[str, str, int]]]:
    return {(one.prefix, one.ends) for one in heard if one.group == group}


def tagged(saved: str) -> list[str]:
    return sorted(line for line in saved.splitlines() if "cali:" in line)


def test_nothing_gets_through_while_logging_comes_and_goes(lab: FelixLab) -> None:
    lab.put(policy("shut", A0, [rule("Deny")], types=["Ingress"]))
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    with a0.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("0.0.0.0", 7090))
    flood = a1.popen(["python3", "-c", FLOOD, str(a0.address)])
    with receiver:
        for on in (True, False, True, False):
            lab.put(settings(FelixConfigurationSpec(flow_logs_enabled=on)))
        # the last switch rewrote the chain: it counts from nothing again
        wait_until("a packet to be denied", lambda: by_rule(lab.node1, "shut")["ingress", 1][0] > 0, timeout=5.0)
        flood.signal(signal.SIGTERM)
        flood.wait(5.0)
        receiver.settimeout(0.1)
        with pytest.raises(TimeoutError):
            receiver.recv(10)


FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sender.sendto(b"?", (sys.argv[1], 7090))
    time.sleep(0.001)
"""
