"""What others change is repaired, and what is theirs stays (reference felix.md 8.7)."""

import re
import threading
import time
from collections.abc import Callable

import pytest

from bed import wait_until
from bed.dockerd import Dockerd
from bed.felix import FelixLab, tcp_passes
from fakes.felix_records import policy, pool, rule, settings
from kernel.monitor import KernelEvent, Monitor, RouteWritten, RulesChanged
from kernel.xtables import BackEnd
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}


def soon(what: str, condition: Callable[[], bool], *, timeout: float = 3.0) -> float:
    return wait_until(what, condition, timeout=timeout)


@pytest.mark.scenario(93, 95)
@pytest.mark.parametrize(
    "damage",
    [
        "iptables -D FORWARD 1; iptables -I cali-tw-{a0} 1 -j ACCEPT; iptables -t raw -F",
        "iptables -F FORWARD; iptables -D cali-tw-{a0} 3; iptables -t nat -F cali-POSTROUTING",
        "iptables -A FORWARD -j cali-FORWARD; iptables -R cali-from-wl-dispatch 1 -j ACCEPT; ip6tables -F",
        "iptables -F; iptables -X; iptables -t mangle -F",
    ],
    ids=["jump", "chain", "order", "everything"],
)
def test_rules_of_ours_are_back_within_a_second(lab: FelixLab, damage: str) -> None:
    node1, saved = lab.node1, lab.node1.run("iptables-save").stdout
    wanted = lab.ours(node1)
    lab.tolerate("rules.repaired")
    try:
        node1.run(damage.format(a0=lab.workloads["a0"].interface))
        soon("the rules to be as they were", lambda: lab.ours(node1) == wanted)
        lab.expect(WITHIN)
    finally:
        bring_back(lab, saved, wanted)


def bring_back(lab: FelixLab, saved: str, wanted: list[str]) -> None:
    """Load all rules as they were, as a firewall manager does; those of others are not felix's to bring back."""
    lab.node1.run(["iptables-restore"], stdin=saved)
    soon("the rules to be as they were", lambda: lab.ours(lab.node1) == wanted)


def test_a_flush_leaves_closed_pairs_closed_after_a_moment(lab: FelixLab) -> None:
    """FORWARD's policy is ACCEPT here, so that a flush opens everything; new connections tell for how long."""
    node1, a0, b1 = lab.node1, lab.workloads["a0"], lab.workloads["b1"]
    saved, wanted = node1.run("iptables-save").stdout, lab.ours(node1)
    lab.tolerate("rules.repaired")
    node1.run("iptables -P FORWARD ACCEPT; iptables -P INPUT ACCEPT")
    try:
        began = time.monotonic()
        node1.run("iptables -F")
        last_open = began
        with b1.entered():
            while time.monotonic() < began + 1.2:
                if tcp_passes(a0.address, 80, timeout=0.02).ok:
                    last_open = time.monotonic()
                    time.sleep(0.005)
        assert last_open - began < 1.0
    finally:
        bring_back(lab, saved, wanted)


@pytest.mark.scenario(94)
def test_a_rule_above_ours_is_passed_again_and_stays(lab: FelixLab) -> None:
    node1 = lab.node1
    theirs = '-I FORWARD 1 -s 198.51.100.0/24 -m comment --comment "it is mine" -j ACCEPT'
    node1.run(f"iptables {theirs}; iptables -I INPUT 1 -s 198.51.100.7 -j DROP; iptables -t nat -N MINE")
    try:
        before = lab.foreign(node1)

        def first(chain: str) -> str:
            return next(line for line in lab.saved(node1) if line.startswith(f"-A {chain} "))

        soon("ours to be first again", lambda: "cali-FORWARD" in first("FORWARD") and "cali-INPUT" in first("INPUT"))
        assert lab.foreign(node1) == before
        assert any("it is mine" in line for line in before)
        lab.expect(WITHIN)
    finally:
        node1.run(
            "iptables -D FORWARD -s 198.51.100.0/24 -m comment --comment 'it is mine' -j ACCEPT; "
            "iptables -D INPUT -s 198.51.100.7 -j DROP; iptables -t nat -X MINE"
        )


@pytest.mark.scenario(106)
def test_somebody_writes_rules_all_the_time_while_endpoints_come_and_go(lab: FelixLab) -> None:
    """Our writes and theirs cross: nothing of either is lost (a refused transaction is read back and repeated)."""
    node1 = lab.node1
    before, stop = lab.foreign(node1), threading.Event()

    def meddle() -> None:
        for number in range(200):
            if stop.wait(0.01):
                return
            node1.run(f"iptables -A INPUT -s 198.51.100.{number} -j DROP; iptables -t nat -N MINE{number}")

    meddling = threading.Thread(target=meddle)
    meddling.start()
    try:
        for number in range(8):
            lab.attach(node1, f"x{number}", f"10.65.0.{20 + number}", wait=False)
        for number in range(8):
            lab.workloads["a1"].await_ping(f"10.65.0.{20 + number}", timeout=10.0)
        for number in range(8):
            lab.detach(f"x{number}")
    finally:
        stop.set()
        meddling.join(20.0)
    added = [line for line in lab.foreign(node1) if line not in before]
    inputs = numbers(r"-A INPUT -s 198\.51\.100\.(\d+)/32 -j DROP", added)
    chains = numbers(r":MINE(\d+) ", added)
    assert len(inputs) >= 5
    assert inputs == list(range(len(inputs)))
    assert chains == list(range(len(chains)))
    clean = (f"iptables -D INPUT -s 198.51.100.{n} -j DROP; iptables -t nat -X MINE{n}" for n in inputs)
    node1.run("; ".join(clean))


def numbers(pattern: str, lines: list[str]) -> list[int]:
    return sorted(int(found[1]) for line in lines if (found := re.match(pattern, line)))


@pytest.fixture
def short_intervals(lab: FelixLab) -> None:
    spec = FelixConfigurationSpec(
        default_endpoint_to_host_action="Return", ipsets_refresh_interval="500ms", route_refresh_interval="500ms"
    )
    lab.put(settings(spec, name="node.node1"))


@pytest.mark.scenario(96)
@pytest.mark.usefixtures("short_intervals")
def test_set_members_are_put_right_and_a_stray_set_goes(lab: FelixLab) -> None:
    lab.tolerate("set.repaired")
    node1 = lab.node1
    lab.put(pool("10.65.0.0/24", nat=True))

    def sets() -> list[str]:
        return sorted(node1.run("ipset save").stdout.splitlines())

    wanted = sets()
    node1.run(
        "ipset del cali40masq-ipam-pools 10.65.0.0/24; ipset add cali40all-ipam-pools 198.51.100.0/24; "
        "ipset create cali40s:stray hash:net; ipset create theirs hash:ip; "
        "ipset destroy cali40all-ipam-pools 2>/dev/null; ipset flush cali40masq-ipam-pools"
    )
    soon("the sets to be as they were", lambda: [line for line in sets() if " theirs " not in line] == wanted)
    assert any(" theirs " in line for line in sets())
    soon("it to be told", lambda: "event=set.repaired set=cali40masq-ipam-pools" in lab.felix["node1"].text)
    node1.run("ipset destroy theirs")


@pytest.mark.any_back_end
@pytest.mark.scenario(97)
def test_routes_are_back_at_once_and_foreign_ones_go_where_they_do_not_belong(lab: FelixLab) -> None:
    node1, a0 = lab.node1, lab.workloads["a0"]

    def routes() -> list[str]:
        return sorted(node1.ip("-4", "route").stdout.splitlines())

    wanted = routes()
    node1.ip("route", "del", "10.65.0.2/32")
    assert soon("the route to be back", lambda: routes() == wanted) < 1.0
    node1.ip("route", "add", "198.51.100.0/24", "dev", a0.interface)
    soon("the foreign route to go", lambda: routes() == wanted)
    node1.ip("route", "replace", "10.65.0.2/32", "dev", lab.workloads["a1"].interface)
    soon("the route to be on its own interface", lambda: routes() == wanted)
    node1.ip("route", "add", "198.51.100.0/24", "via", str(lab.node2.address))
    time.sleep(0.3)
    assert [line for line in routes() if "198.51.100.0/24" in line]
    node1.ip("route", "del", "198.51.100.0/24")
    lab.expect(WITHIN)


@pytest.mark.any_back_end
@pytest.mark.scenario(98)
@pytest.mark.usefixtures("short_intervals")
def test_settings_of_an_interface_are_put_right(lab: FelixLab) -> None:
    node1, interface = lab.node1, lab.workloads["a0"].interface
    names = [f"net.ipv4.conf.{interface}.{name}" for name in ("proxy_arp", "forwarding", "route_localnet")]
    names.append("net.ipv4.ip_forward")
    for name in names:
        node1.sysctl(name, 0)
    soon("the settings to be back", lambda: all(node1.sysctl(name) == "1" for name in names))


@pytest.mark.any_back_end
@pytest.mark.scenario(99)
def test_an_interface_that_comes_later_and_one_that_comes_before(lab: FelixLab) -> None:
    node1, a1 = lab.node1, lab.workloads["a1"]
    made = lab.attach(node1, "first", "10.65.0.30")
    made.await_ping(a1.address, timeout=3.0)
    node1.ip("link", "set", made.interface, "down")
    soon("the route to be gone", lambda: "10.65.0.30" not in node1.ip("route").stdout)
    node1.ip("link", "set", made.interface, "name", "tmp0")
    time.sleep(0.1)
    node1.ip(batch=f"link set tmp0 name {made.interface}\nlink set {made.interface} up\n")
    a1.await_ping(made.address, timeout=3.0)


@pytest.mark.any_back_end
@pytest.mark.scenario(100)
def test_fast_flaps_and_renames_end_right(lab: FelixLab) -> None:
    node1, a0, a1 = lab.node1, lab.workloads["a0"], lab.workloads["a1"]
    node1.ip(batch=f"link set {a0.interface} down\nlink set {a0.interface} up\n" * 50)
    a1.await_ping(a0.address, timeout=5.0)
    away = f"link set {a0.interface} down\nlink set {a0.interface} name tmp0\nlink set tmp0 up\n"
    back = f"link set tmp0 down\nlink set tmp0 name {a0.interface}\nlink set {a0.interface} up\n"
    node1.ip(batch=(away + back) * 10)
    a1.await_ping(a0.address, timeout=5.0)
    lab.expect(WITHIN)


@pytest.mark.any_back_end
def test_a_renamed_interface_takes_no_route_along(lab: FelixLab) -> None:
    node1, a0 = lab.node1, lab.workloads["a0"]
    for old, new in ((a0.interface, "cali0other"), ("cali0other", a0.interface)):
        if not node1.ip("link", "set", old, "name", new, check=False).ok:  # kernels before 6.2 rename only what is down
            node1.ip(batch=f"link set {old} down\nlink set {old} name {new}\nlink set {new} up\n")
        there = new == a0.interface
        soon("the route to follow the name", lambda: ("10.65.0.2 dev" in node1.ip("route").stdout) is there)  # noqa: B023
    lab.workloads["a1"].await_ping(a0.address, timeout=3.0)


@pytest.mark.any_back_end
@pytest.mark.scenario(101)
def test_of_two_interfaces_with_one_address_the_newest_has_it_while_it_is_up(lab: FelixLab) -> None:
    node1 = lab.node1
    one = lab.attach(node1, "one", "10.65.0.31")
    two = lab.attach(node1, "two", "10.65.0.31")

    def device() -> str:
        found = re.search(r"10\.65\.0\.31 dev (\S+)", node1.ip("route").stdout)
        return found[1] if found else ""

    assert soon("the newest to have it", lambda: device() == two.interface)
    node1.ip("link", "set", two.interface, "down")
    soon("the other to have it", lambda: device() == one.interface)
    lab.workloads["a1"].await_ping(one.address, timeout=3.0)
    node1.ip("link", "set", two.interface, "up")
    soon("the newest to have it again", lambda: device() == two.interface)


@pytest.mark.any_back_end
@pytest.mark.scenario(102)
def test_an_address_that_moves_to_another_host(lab: FelixLab) -> None:
    node1, node2, a1 = lab.node1, lab.node2, lab.workloads["a1"]
    here = lab.attach(node1, "here", "10.65.0.32")
    assert a1.ping(here.address).ok
    lab.detach("here")
    there = lab.attach(node2, "there", "10.65.0.32")
    node1.ip("route", "add", "10.65.0.32/32", "via", str(node2.address), "proto", "81")  # as bgpd would
    node2.ip("route", "add", "10.65.0.3/32", "via", str(node1.address), "proto", "81")
    a1.await_ping(there.address, timeout=3.0)
    assert a1.ping(there.address).ttl == 62
    assert "10.65.0.32 dev cali" not in node1.ip("route").stdout
    assert f"10.65.0.32 dev {there.interface}" in node2.ip("route").stdout
    node1.ip("route", "del", "10.65.0.32/32")
    node2.ip("route", "del", "10.65.0.3/32")


def test_the_chains_of_an_endpoint_are_there_before_its_route(lab: FelixLab) -> None:
    node1 = lab.node1
    heard: list[tuple[KernelEvent, bool]] = []
    interface = ""

    def hear(event: KernelEvent) -> None:
        if isinstance(event, RouteWritten) and str(event.key) == "10.65.0.33/32":
            chains = node1.run(["iptables", "-S", f"cali-tw-{interface}"], check=False)
            dispatch = node1.run(["iptables", "-S", "cali-to-wl-dispatch"]).stdout
            heard.append((event, chains.ok and "-j DROP" in chains.stdout and "cali" in dispatch))
        elif isinstance(event, RulesChanged) and event.program.startswith("iptables-nft-re"):
            heard.append((event, True))

    with node1.entered():
        monitor = Monitor(hear, rules=True)
        monitor.start()
    try:
        made = lab.attach(node1, "ordered", "10.65.0.33", record=False)
        interface = made.interface
        lab.record(made)
        soon("the route", lambda: any(isinstance(event, RouteWritten) for event, _ in heard))
    finally:
        monitor.close()
    if lab.back_end is BackEnd.NFT:  # legacy tables do not tell of a change
        kinds = [type(event) for event, _ in heard]
        assert kinds.index(RulesChanged) < kinds.index(RouteWritten)
    assert all(complete for _, complete in heard)


@pytest.mark.scenario(110)
def test_docker_restarts_and_nothing_changes_for_ours(lab: FelixLab, docker: Dockerd) -> None:
    node1 = lab.node1
    docker.stop()
    docker.start()

    def first() -> str:
        return next(line for line in lab.saved(node1) if line.startswith("-A FORWARD "))

    soon("ours to be first", lambda: "cali-FORWARD" in first())
    lab.expect(WITHIN)
    last = [line for line in lab.saved(node1) if line.startswith("-A FORWARD ")][-2:]
    assert all("cali:" in line for line in last)
    assert any("DOCKER-ISOLATION" in line for line in lab.saved(node1))


def test_an_idle_felix_leaves_the_rules_alone(lab: FelixLab) -> None:
    deny = rule("Deny", source=EntityRule(selector="name == 'a1'"))
    lab.put(policy("p", "name == 'a0'", [deny, Rule(action="Pass")]))

    before, log = lab.generation(lab.node1), lab.felix["node1"].text
    time.sleep(1.0)
    assert lab.generation(lab.node1) == before
    assert lab.felix["node1"].text == log
