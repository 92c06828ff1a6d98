"""What becomes of connections that are open when policy, labels or addresses change (reference felix.md 2.4, 8.1, 8.2).

An open flow goes on whatever policy says later; only with the address of its container does it go.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bed import wait_until
from bed.felix import FelixLab, Record
from bed.workload import Workload
from fakes.felix_records import policy, profile, rule
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule

ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass
class Flow:
    """A connection that was answered, so that connection tracking knows it as established."""

    client: socket.socket
    server: socket.socket
    answer_to: object = None

    def goes_on(self, *, timeout: float = 1.0) -> bool:
        """Return whether a word gets there and another back."""
        self.client.settimeout(timeout)
        self.server.settimeout(timeout)
        try:
            self.client.send(b"to")
            if self.answer_to is None:
                self.server.recv(10)
                self.server.send(b"fro")
            else:
                _, peer = self.server.recvfrom(10)
                self.server.sendto(b"fro", peer)
            return self.client.recv(10) == b"fro"
        except OSError:
            return False


@contextlib.contextmanager
def flow(kind: str, source: Workload, target: Workload, port: int) -> Iterator[Flow]:
    """Open a flow.

    Raises:
        TimeoutError: it does not get through.
    """
    with contextlib.ExitStack() as stack:
        with target.entered():
            server = stack.enter_context(socket.socket(socket.AF_INET, KINDS[kind]))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", port))
        with source.entered():
            client = stack.enter_context(socket.socket(socket.AF_INET, KINDS[kind]))
        client.settimeout(0.4)
        if kind == "tcp":
            server.listen()
            client.connect((str(target.address), port))
            server.settimeout(1.0)
            accepted, _ = server.accept()
            made = Flow(client, stack.enter_context(accepted))
        else:
            client.connect((str(target.address), port))
            made = Flow(client, server, answer_to="whoever asked")
        if not made.goes_on():
            raise TimeoutError(f"no {kind} from {source.name} to {target.name}")
        yield made


def can_open(kind: str, source: Workload, target: Workload, port: int) -> bool:
    try:
        with flow(kind, source, target, port):
            return True
    except TimeoutError:
        return False


def denies_in(lab: FelixLab) -> None:
    lab.put(policy("p", "name == 'a0'", [DENY], types=["Ingress"], order=1))


def denies_out(lab: FelixLab) -> None:
    lab.put(policy("p", "name in {'a1', 'a2'}", [], [DENY], types=["Egress"]))


def takes_the_label(lab: FelixLab) -> None:
    for name in ("a1", "a2"):
        lab.record(lab.workloads[name])


def empties_the_profile(lab: FelixLab) -> None:
    lab.put(profile("net-a", [], [ALLOW], {"net-a": ""}), remove=[ResourceKey("globalnetworkpolicies", "web")])


@pytest.mark.scenario(27, 28)
@pytest.mark.parametrize("change", [denies_in, denies_out, takes_the_label, empties_the_profile])
def test_what_is_open_goes_on_and_nothing_new_begins(lab: FelixLab, change: Callable[[FelixLab], None]) -> None:
    """From the same host and from the other; TCP and UDP. When it is allowed again, both."""
    a0 = lab.workloads["a0"]
    sources = [lab.workloads[name] for name in ("a1", "a2")]
    web: Record = policy("web", "name == 'a0'", [rule("Allow", source=EntityRule(selector="has(web)"))], order=10)
    for source in sources:
        lab.record(source, labels={"web": ""})
    lab.put(web)
    ways = [(kind, source) for kind in KINDS for source in sources]
    before = lab.snapshot()
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(flow(*way, a0, 7100 + at)) for at, way in enumerate(ways)]
        change(lab)
        assert [each.goes_on() for each in flows] == [True] * 4
        assert [can_open(*way, a0, 7200 + at) for at, way in enumerate(ways)] == [False] * 4
        assert [each.goes_on() for each in flows] == [True] * 4
        lab.restore(before)
        assert [each.goes_on() for each in flows] == [True] * 4
    assert [can_open(*way, a0, 7300 + at) for at, way in enumerate(ways)] == [True] * 4


@pytest.mark.scenario(8, 9)
@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_ends_with_the_address_and_does_not_reach_who_has_it_next(lab: FelixLab, kind: str) -> None:
    """The next is of another network, which a1 may not reach, and comes as soon as the first is gone."""
    a1, node1 = lab.workloads["a1"], lab.node1
    first = lab.attach(node1, "first", "10.65.0.20")
    with flow(kind, a1, first, 7400) as open_flow:
        lab.detach("first")
        second = lab.attach(node1, "second", "10.65.0.20", profiles=["net-b"])
        with second.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.getprotobyname(kind))
        receiver.settimeout(0.5)
        with receiver:
            lab.workloads["b1"].await_ping(second.address)
            open_flow.client.settimeout(0.2)
            with contextlib.suppress(OSError):
                open_flow.client.send(b"still there?")
            with pytest.raises(TimeoutError):
                receiver.recv(100)
    assert not can_open(kind, a1, second, 7401)
    assert can_open(kind, lab.workloads["b1"], second, 7401)


@pytest.mark.scenario(102)
@pytest.mark.parametrize("kind", KINDS)
def test_flows_go_when_an_address_moves_to_another_host(lab: FelixLab, kind: str) -> None:
    node1, node2, a1 = lab.node1, lab.node2, lab.workloads["a1"]
    here = lab.attach(node1, "here", "10.65.0.21")

    def known() -> bool:
        return "10.65.0.21" in node1.run("conntrack -L 2>/dev/null").stdout

    with flow(kind, a1, here, 7500):
        assert known()
        lab.detach("here")
        wait_until("the flows to be gone", lambda: not known())
        there = lab.attach(node2, "there", "10.65.0.21")
        node1.ip("route", "add", "10.65.0.21/32", "via", str(node2.address), "proto", "81")  # as bgpd would
        node2.ip("route", "add", f"{a1.address}/32", "via", str(node1.address), "proto", "81")
        try:
            a1.await_ping(there.address)
            assert can_open(kind, a1, there, 7501)
        finally:
            node1.ip("route", "del", "10.65.0.21/32")
            node2.ip("route", "del", f"{a1.address}/32")
