"""Policies by packets (reference felix.md 8.2). What the rendered rules mean is tested without a kernel, in
tests/unit/felix; here it is shown that the kernel agrees, and how changes reach running traffic."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from bed import wait_until
from bed.felix import FelixLab, Record
from fakes.felix_records import network_profile, policy, profile, rule, tier, workload
from felix.calc.model import selector_set
from felix.render.names import set_name
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule, RuleMetadata
from resources.selector import parse

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
TO_A0, FROM_A0, B_TO_A0 = {"a1>a0", "a2>a0"}, {"a0>a1", "a0>a2"}, {"b1>a0", "b2>a0"}
NONE: set[str] = set()
ALLOW, DENY, PASS = (Rule(action=action) for action in ("Allow", "Deny", "Pass"))
A0 = "name == 'a0'"


def from_(name: str) -> EntityRule:
    return EntityRule(selector=f"name == '{name}'")


DENY_A1, ALLOW_A1 = rule("Deny", source=from_("a1")), rule("Allow", source=from_("a1"))


@pytest.mark.scenario(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 34)
@pytest.mark.parametrize(
    ("records", "closed", "opened"),
    [
        pytest.param([policy("p", A0, types=["Ingress"])], TO_A0, NONE, id="ingress without rules"),
        pytest.param([policy("p", A0, types=["Egress"])], FROM_A0, NONE, id="egress without rules"),
        pytest.param([policy("p", A0, [ALLOW], [DENY], types=["Ingress"])], NONE, B_TO_A0, id="types leave egress out"),
        pytest.param(
            [policy("p", A0, [ALLOW_A1], types=["Ingress", "Egress"])], {"a2>a0"} | FROM_A0, NONE, id="both, one let in"
        ),
        pytest.param(
            [policy("x", A0, [DENY_A1], order=10), policy("y", A0, [ALLOW], order=20)], {"a1>a0"}, B_TO_A0, id="order"
        ),
        pytest.param(
            [policy("x", A0, [DENY_A1], order=30), policy("y", A0, [ALLOW], order=20)], NONE, B_TO_A0, id="order, back"
        ),
        pytest.param([policy("p1", A0, [DENY], order=5), policy("p2", A0, [ALLOW], order=5)], TO_A0, NONE, id="names"),
        pytest.param(
            [policy("p1", A0, [DENY]), policy("p2", A0, [ALLOW], order=1000)], NONE, B_TO_A0, id="no order is last"
        ),
        pytest.param(
            [policy("p1", A0, [PASS], order=1), policy("p2", A0, [DENY], order=2)], NONE, NONE, id="pass to the profile"
        ),
        pytest.param(
            [tier("t1", 1), policy("p", A0, [PASS], tier="t1"), policy("q", A0, [DENY])], TO_A0, NONE, id="pass, tier"
        ),
        pytest.param(
            [tier("t1", 1), policy("p", A0, [ALLOW_A1], tier="t1")], {"a2>a0"}, NONE, id="end of a tier that denies"
        ),
        pytest.param(
            [tier("t1", 1, "Pass"), policy("p", A0, [ALLOW_A1], tier="t1")], NONE, NONE, id="end of a tier that passes"
        ),
        pytest.param(
            [tier("t1", 1), policy("p", "name == 'b1'", [ALLOW], tier="t1")],
            NONE,
            {"a0>b1", "a1>b1", "a2>b1"},
            id="a tier of others is skipped",
        ),
        pytest.param([policy(f"p{n}", A0, [DENY_A1], order=n) for n in range(7)], TO_A0, NONE, id="seven policies"),
    ],
)
def test_verdicts(lab: FelixLab, records: Sequence[Record], closed: set[str], opened: set[str]) -> None:
    lab.put(*records)
    lab.expect((WITHIN | opened) - closed)


@pytest.mark.scenario(29)
def test_an_endpoint_without_its_profile_is_closed_until_that_comes(lab: FelixLab) -> None:
    lab.tolerate("profile net-late does not exist")
    lab.record(lab.workloads["a0"], profiles=["net-late"])
    lab.expect(WITHIN - TO_A0 - FROM_A0)
    lab.put(profile("net-late", [ALLOW], [ALLOW]))
    # it is no member of net-a any more, so the others do not take what it sends
    lab.expect((WITHIN - FROM_A0) | {"b1>a0", "b2>a0"})


@pytest.mark.scenario(30)
def test_of_two_profiles_the_second_is_asked_if_the_first_says_nothing(lab: FelixLab) -> None:
    lab.put(profile("only-b", [rule("Allow", source=EntityRule(selector="has(net-b)"))], [ALLOW]))
    lab.record(lab.workloads["a0"], profiles=["only-b", "net-a"])
    lab.expect(WITHIN | {"b1>a0", "b2>a0"})


class Stream:
    """A connection that says something every 5 ms and expects to hear it back."""

    def __init__(self, lab: FelixLab, source: str, target: str, port: int) -> None:
        self._stop = threading.Event()
        self.silent_seconds = 0.0
        self.broken = ""
        target_workload = lab.workloads[target]
        with target_workload.entered():
            self._server = socket.create_server(("0.0.0.0", port))
        with lab.workloads[source].entered():
            self._client = socket.create_connection((str(target_workload.address), port), timeout=10.0)
        self._accepted, _ = self._server.accept()
        threading.Thread(target=self._echo, daemon=True).start()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _echo(self) -> None:
        try:
            while heard := self._accepted.recv(100):
                self._accepted.sendall(heard)
        except OSError:
            return

    def _talk(self) -> None:
        try:
            while not self._stop.wait(0.005):
                began = time.monotonic()
                self._client.sendall(b"?")
                self._client.recv(1)
                self.silent_seconds = max(self.silent_seconds, time.monotonic() - began)
        except OSError as error:
            self.broken = str(error)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(12.0)
        for each in (self._client, self._accepted, self._server):
            each.close()


@pytest.mark.scenario(27, 28)
def test_what_is_open_goes_on_when_policy_comes_and_goes_and_new_connections_obey(lab: FelixLab) -> None:
    stream = Stream(lab, "a1", "a0", 7001)
    a0, a1 = lab.workloads["a0"], lab.workloads["a1"]
    with a0.tcp_listen(80):
        lab.put(policy("p", A0, [DENY_A1, ALLOW], types=["Ingress"]))
        assert not a1.tcp_connect(a0.address, 80, timeout=0.4).ok
        lab.remove(ResourceKey("globalnetworkpolicies", "p"))
        assert a1.tcp_connect(a0.address, 80).ok
    stream.close()
    assert stream.broken == ""
    assert stream.silent_seconds < 1.0


def test_a_policy_counts_at_once_on_every_host(lab: FelixLab) -> None:
    took = []
    for name in ("a0", "a2"):
        target = lab.workloads[name]
        for put, opened in ((True, False), (False, True)):
            record = policy("p", f"name == '{name}'", [DENY], types=["Ingress"])
            began = time.monotonic()
            lab.write(record) if put else lab.write(remove=[record[0]])
            wait_until(
                f"{name} to be {'open' if opened else 'closed'}",
                lambda: lab.workloads["a1"].ping(target.address, timeout=0.1).ok is opened,  # noqa: B023
                timeout=5.0,
            )
            took.append(time.monotonic() - began)
    assert min(took) < 1.0, took  # the others may meet a busy machine


@pytest.mark.scenario(32)
def test_a_log_rule_counts_and_goes_on(lab: FelixLab) -> None:
    web = rule("Allow", source=from_("a1"))
    lab.put(policy("p", A0, [Rule(action="Log", source=from_("a1")), web], types=["Ingress"]))
    for _ in range(3):
        assert lab.workloads["a1"].ping(lab.workloads["a0"].address).ok
    assert not lab.workloads["a2"].ping(lab.workloads["a0"].address, timeout=0.3).ok
    lines = lab.node1.run("iptables-save -c -t filter").stdout.splitlines()
    [line] = [line for line in lines if "-j LOG" in line]
    assert line.startswith("[3:")
    assert '--log-prefix "calico-packet: " --log-level 5' in line


@pytest.mark.scenario(33)
def test_a_policy_is_here_only_while_it_selects_somebody_here(lab: FelixLab) -> None:
    def programmed() -> bool:
        found = lab.node1.run("iptables-save; ip6tables-save; ipset save").stdout
        chain, name = "cali-pi-gnp/web" in found, "cali40s:" in found and "10.66.0.66" in _set_of(lab, "role == 'db'")
        assert chain is name
        return chain

    lab.put(policy("web", "role == 'web'", [rule("Allow", source=EntityRule(selector="role == 'db'"))]))
    lab.record(lab.workloads["b2"], labels={"role": "db"})
    assert not programmed()
    lab.record(lab.workloads["a0"], labels={"role": "web"})
    assert programmed()
    lab.expect((WITHIN | {"b2>a0"}) - TO_A0)
    lab.record(lab.workloads["a0"])
    assert not programmed()


def _set_of(lab: FelixLab, selector: str) -> str:
    name = set_name(4, selector_set(parse(selector)).id)
    return lab.node1.run(["ipset", "save", name], check=False).stdout


@pytest.mark.scenario(35)
def test_annotations_of_all_sorts_do_not_disturb_the_rules(lab: FelixLab) -> None:
    nasty = {"quote": 'say "no"\n-A cali-FORWARD -j ACCEPT', "unicode": "Grüße 🐍", "shell": "$(reboot); `x` \\"}
    noted = Rule(action="Allow", source=from_("a1"), metadata=RuleMetadata(annotations=nasty))
    lab.put(policy("p", A0, [noted], types=["Ingress"]))
    lab.expect(WITHIN - {"a2>a0"})
    chain = lab.node1.run("iptables-save | grep -- '-A cali-pi-gnp/p'").stdout
    assert "quote=say _no__-A cali-FORWARD -j ACCEPT" in chain
    assert len(chain.splitlines()) == 2 - 1 + chain.count("-j RETURN")


@pytest.mark.scenario(36)
def test_a_policy_that_cannot_be_read_denies_and_harms_nobody_else(lab: FelixLab) -> None:
    lab.tolerate("record.unreadable")
    key = ResourceKey("globalnetworkpolicies", "p")
    spec = {"selector": A0, "types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": {"no": "such"}}]}
    revision = lab.write_raw(key, json.dumps({"metadata": {"name": "p"}, "spec": spec}).encode())
    lab.settle(revision)
    lab.expect(WITHIN - TO_A0)
    for host in lab.hosts:
        [line] = lab.said(host, "record.unreadable")
        assert "globalnetworkpolicies" in line
        assert "a Deny stands in its place" in line
    lab.put(policy("p", A0, [ALLOW_A1], types=["Ingress"]))
    lab.expect(WITHIN - {"a2>a0"})


@pytest.fixture
def intruder(lab: FelixLab) -> Iterator[list[int]]:
    """Counts what of b1's flood reaches a0: datagrams, one per millisecond at least."""
    a0, b1 = lab.workloads["a0"], lab.workloads["b1"]
    heard = [0, 0]
    stop = threading.Event()
    with a0.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("0.0.0.0", 7002))
    receiver.settimeout(0.1)
    with b1.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        while not stop.wait(0.0005):
            sender.sendto(b"x", (str(a0.address), 7002))
            heard[1] += 1

    def receive() -> None:
        while not stop.is_set():
            try:
                receiver.recv(10)
                heard[0] += 1
            except TimeoutError:
                continue

    threads = [threading.Thread(target=work, daemon=True) for work in (send, receive)]
    for thread in threads:
        thread.start()
    yield heard
    stop.set()
    for thread in threads:
        thread.join(5.0)
    receiver.close()
    sender.close()


@pytest.mark.scenario(112)
def test_a_policy_replaced_by_another_is_never_absent(lab: FelixLab, intruder: list[int]) -> None:
    """Another policy's allow waits behind it, so one packet would pass at any moment without both."""
    lab.put(policy("guard-1", A0, [DENY], types=["Ingress"], order=1))
    lab.put(policy("open", A0, [ALLOW], types=["Ingress"], order=2))
    time.sleep(0.05)
    intruder[0] = 0
    for turn in range(1, 9):
        after = policy(f"guard-{turn + 1}", A0, [DENY], types=["Ingress"], order=1)
        lab.put(after, remove=[ResourceKey("globalnetworkpolicies", f"guard-{turn}")])
    assert intruder[1] > 50
    assert intruder[0] == 0
    lab.remove(ResourceKey("globalnetworkpolicies", "guard-9"))
    wait_until("the flood to come through, as a control", lambda: intruder[0] > 0, timeout=3.0)


@pytest.mark.scenario(111)
def test_the_first_packets_of_a_new_container_meet_its_policy(lab: FelixLab) -> None:
    """It floods from the moment it is there, before felix knows of it; egress is denied, so not one gets out."""
    lab.put(policy("mute", "has(mute)", [], [DENY], types=["Egress"]))
    a0 = lab.workloads["a0"]
    with a0.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("0.0.0.0", 7003))
    receiver.settimeout(0.3)
    new = lab.attach(lab.node1, "new", "10.65.0.20", record=False)
    with new.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sent, stop = [0], threading.Event()

    def flood() -> None:
        while not stop.wait(0.0005):
            sender.sendto(b"x", (str(a0.address), 7003))
            sent[0] += 1

    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    with receiver, sender:
        lab.record(new, labels={"mute": ""})
        time.sleep(0.3)
        with pytest.raises(TimeoutError):
            receiver.recv(10)
        lab.remove(ResourceKey("globalnetworkpolicies", "mute"))
        receiver.settimeout(3.0)
        assert receiver.recv(10) == b"x"
        stop.set()
        flooding.join(5.0)
    assert sent[0] > 50


@pytest.mark.scenario(103)
def test_an_endpoint_that_is_there_twice_is_served_once(lab: FelixLab) -> None:
    """Two records name one interface: the lowest id has it, and the other one when that goes."""
    a0 = lab.workloads["a0"]
    rival = workload(
        "zz", "10.65.0.30/32", node="node1", interface=a0.interface, profiles=["net-a"], labels={"name": "zz"}, mac=""
    )
    lab.tolerate(f"it waits: interface {a0.interface} belongs to")
    lab.put(rival)
    assert "10.65.0.30" not in lab.node1.ip("route").stdout
    lab.expect(WITHIN)
    lab.remove(lab.keys["a0"])
    routes = lab.node1.ip("route").stdout
    assert f"10.65.0.30 dev {a0.interface}" in routes
    assert "10.65.0.2 dev" not in routes


@pytest.mark.scenario(54)
def test_a_member_that_two_endpoints_stand_for_stays_until_both_are_gone(lab: FelixLab) -> None:
    db = EntityRule(selector="role == 'db'")
    lab.put(policy("p", A0, [rule("Allow", source=db)], types=["Ingress"]))
    both = [
        workload(name, "10.66.0.66/32", node="node2", profiles=["net-b"], labels={"role": "db"}, mac="")
        for name in ("db1", "db2")
    ]
    lab.put(*both)
    assert lab.workloads["b2"].ping(lab.workloads["a0"].address).ok
    lab.remove(both[0][0])
    assert "add" in _set_of(lab, "role == 'db'")
    assert lab.workloads["b2"].ping(lab.workloads["a0"].address).ok
    lab.remove(both[1][0])
    assert "add" not in _set_of(lab, "role == 'db'")
    assert not lab.workloads["b2"].ping(lab.workloads["a0"].address, timeout=0.4).ok


def test_a_network_that_is_made_while_everything_runs(lab: FelixLab) -> None:
    lab.put(network_profile("net-c"))
    lab.record(lab.workloads["a0"], profiles=["net-c"])
    lab.record(lab.workloads["b2"], profiles=["net-c"])
    lab.expect((WITHIN - TO_A0 - FROM_A0 - {"b1>b2", "b2>b1"}) | {"a0>b2", "b2>a0"})
