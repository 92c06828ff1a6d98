"""When the agent looks at its tunnels, what it says about them, and that one that fails harms no other."""

import ipaddress
import json
import queue
import random

from calicoctl.node.agent.engine import WAITS_FOR_STORE, WAITS_FOR_TUNNELS, Ask, Engine
from calicoctl.node.agent.keeper import Kept
from calicoctl.node.agent.tunnels import IPIP, Sources, TunnelKind
from fakes.clock import ManualClock
from ipam.errors import PoolExhausted
from ipam.tidy import NO_MARKS, Marks, Tidied
from resources.datastore.sync import Change, Changes, InSync, OutOfSync
from resources.errors import CalicoError, StoreUnavailable
from resources.names import NodeName, parse_address
from resources.runtime.backoff import Backoff

POOLS, NODES = "/calico/resources/v3/projectcalico.org/ippools/", "/calico/resources/v3/projectcalico.org/nodes/"


class FakeKeeper:
    """Notes what it is asked; `fails` is raised for IPIP."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.fails: CalicoError | None = None

    def settle(self, kind: TunnelKind, wanted: Sources) -> Kept:
        self.asked.append((kind.name, tuple(map(str, wanted.usable))))
        if self.fails and kind is IPIP:
            raise self.fails
        return Kept(parse_address("10.1.0.1") if wanted.is_wanted else None)

    def take(self) -> dict[str, tuple[str, ...]]:
        asked, self.asked = dict(self.asked), []
        return asked


class FakeTidier:
    """Gives up what it was shown before; `spare` is what there is to give up."""

    def __init__(self) -> None:
        self.spare: Marks = NO_MARKS
        self.asked: list[Marks] = []
        self.fails: CalicoError | None = None

    def tidy(self, before: Marks = NO_MARKS) -> Tidied:
        self.asked.append(before)
        if self.fails:
            raise self.fails
        given_up = tuple(cidr for cidr, mark in self.spare.items() if before.get(cidr) == mark)
        return Tidied(given_up, {cidr: mark for cidr, mark in self.spare.items() if cidr not in given_up})


class Ready:
    def __init__(self) -> None:
        self.said: list[str] = []

    def done(self, thing: str) -> None:
        self.said.append(thing)


class Agent:
    def __init__(self) -> None:
        self.clock, self.keeper, self.ready, self.tidier = ManualClock(), FakeKeeper(), Ready(), FakeTidier()
        self.engine = Engine(
            NodeName("node1"), self.keeper, self.tidier, self.ready,
            audit_seconds=90.0, tidy_seconds=300.0, clock=self.clock.monotonic,
            backoff=Backoff(1.0, 8.0, rng=random.Random(1)),
        )
        self.revision = 0

    def put(self, key: str, document: object) -> float | None:
        self.revision += 1
        value = None if document is None else json.dumps(document).encode()
        return self.engine.handle([Changes((Change(key, value, self.revision),))])

    def pool(self, name: str, cidr: str, **spec: object) -> float | None:
        return self.put(POOLS + name, {"kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})

    def node(self, name: str = "node1", **labels: str) -> float | None:
        return self.put(NODES + name, {"kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}})

    def state(self) -> dict[str, object]:
        reply: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.engine.handle([Ask(reply)])
        found = reply.get_nowait()
        assert isinstance(found, dict)
        return found

    def tunnels(self) -> dict[str, dict[str, object]]:
        found = self.state()["tunnels"]
        assert isinstance(found, dict)
        return found


def test_nothing_is_done_before_everything_was_read() -> None:
    agent = Agent()
    agent.node()
    assert agent.pool("a", "10.1.0.0/24", ipipMode="Always") is None
    assert (agent.keeper.take(), agent.ready.said) == ({}, [])
    assert agent.engine.handle([InSync()]) == 90.0
    assert agent.keeper.take() == {"ipip": ("10.1.0.0/24",), "vxlan": (), "vxlan-v6": ()}
    assert agent.ready.said == [WAITS_FOR_STORE, WAITS_FOR_TUNNELS]


def test_it_looks_when_a_pool_or_its_own_node_changes_and_every_so_often() -> None:
    agent = Agent()
    agent.node()
    agent.engine.handle([InSync()])
    agent.keeper.take()
    agent.node("node10")  # begins alike
    assert agent.keeper.take() == {}
    agent.pool("a", "10.1.0.0/24", vxlanMode="Always", nodeSelector="rack == 'a'")
    assert agent.keeper.take()["vxlan"] == ()
    agent.node(rack="a")
    assert agent.keeper.take()["vxlan"] == ("10.1.0.0/24",)
    agent.clock.now += 60
    assert agent.engine.handle([]) == 30.0
    assert agent.keeper.take() == {}
    agent.clock.now += 30
    agent.engine.handle([])
    assert agent.keeper.take().keys() == {"ipip", "vxlan", "vxlan-v6"}
    agent.put(POOLS + "a", None)
    assert agent.keeper.take()["vxlan"] == ()


def test_while_the_store_is_away_what_there_is_stays() -> None:
    agent = Agent()
    agent.node()
    agent.engine.handle([InSync()])
    agent.keeper.take()
    assert agent.engine.handle([OutOfSync("gone")]) is None
    agent.clock.now += 1000
    agent.engine.handle([])
    assert agent.keeper.take() == {}
    agent.engine.handle([InSync()])
    assert agent.keeper.take()


def test_a_tunnel_that_fails_is_tried_again_soon_and_shown_and_the_others_go_on() -> None:
    agent = Agent()
    agent.node()
    agent.pool("a", "10.1.0.0/24", ipipMode="Always")
    agent.pool("b", "10.2.0.0/24", vxlanMode="Always")
    agent.keeper.fails = PoolExhausted("nothing is free", hint="make the pool larger")
    wait = agent.engine.handle([InSync()])
    assert wait is not None
    assert wait <= 1.0
    assert agent.ready.said[-1] == WAITS_FOR_TUNNELS
    found = agent.tunnels()
    assert found["ipip"] == {
        "address": None, "pools": ["10.1.0.0/24"], "trouble": "nothing is free (make the pool larger)",
    }
    assert found["vxlan"]["address"] == "10.1.0.1"
    agent.keeper.fails = None
    agent.clock.now += wait
    assert agent.engine.handle([]) == 90.0
    assert agent.tunnels()["ipip"] == {"address": "10.1.0.1", "pools": ["10.1.0.0/24"], "trouble": ""}


def test_a_record_that_cannot_be_read_is_shown_and_skipped() -> None:
    agent = Agent()
    agent.node()
    agent.engine.handle([InSync()])
    agent.pool("a", "no cidr", ipipMode="Always")
    agent.keeper.take()
    agent.pool("b", "10.2.0.0/24", ipipMode="Always")
    assert agent.keeper.take()["ipip"] == ("10.2.0.0/24",)
    unusable = agent.state()["unusable"]
    assert isinstance(unusable, list)
    assert [entry["what"] for entry in unusable] == ["ippools/a"]


def test_without_a_node_record_nothing_is_touched() -> None:
    agent = Agent()
    agent.pool("a", "10.1.0.0/24", ipipMode="Always")
    agent.engine.handle([InSync()])
    assert agent.keeper.take() == {}
    assert "'calicoctl node run' registers it" in str(agent.tunnels()["ipip"]["trouble"])


def test_blocks_are_looked_through_every_so_often_and_given_up_the_second_time() -> None:
    agent = Agent()
    agent.node()
    block = ipaddress.ip_network("10.1.0.0/26")
    agent.tidier.spare = {block: (1, 2)}
    agent.engine.handle([InSync()])
    assert agent.tidier.asked == [NO_MARKS]
    for _ in range(10):
        agent.clock.now += 29
        agent.engine.handle([])
    assert agent.tidier.asked == [NO_MARKS]
    assert agent.state()["blocks_given_up"] == 0
    agent.clock.now += 29
    agent.engine.handle([])
    assert agent.tidier.asked == [NO_MARKS, {block: (1, 2)}]
    assert agent.state()["blocks_given_up"] == 1


def test_a_store_that_fails_meanwhile_is_asked_again_with_what_was_seen_before() -> None:
    agent = Agent()
    agent.node()
    block = ipaddress.ip_network("10.1.0.0/26")
    agent.tidier.spare = {block: (1, 2)}
    agent.engine.handle([InSync()])
    agent.tidier.fails = StoreUnavailable("gone")
    for fails in (agent.tidier.fails, None):
        agent.tidier.fails = fails
        agent.clock.now += 300
        agent.engine.handle([])
    assert agent.tidier.asked[1:] == [{block: (1, 2)}] * 2
