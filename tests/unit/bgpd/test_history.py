"""A reflector with a router beside it, after any history, has told its peers what a fresh one would tell them."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.bgp_host import (
    BgpHost,
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    filter_record,
    node_record,
    peer_record,
    pool_record,
)

N2, N3, TOR = "10.0.0.2", "10.0.0.3", "10.0.0.200"
PEERS = (N2, N3, TOR)
PREFIXES = ["10.65.2.0/26", "10.65.3.0/26", "10.65.1.64/26", "10.65.2.7/32", "10.96.0.0/16"]
BASE = [
    node_record("node2", "10.0.0.2/24"), node_record("node3", "10.0.0.3/24"),
    block_record("10.65.1.64/26", "node1"),
    block_record("10.65.1.0/26", "node1"), affinity_record("10.65.1.0/26", "node1"),
    peer_record("nodes", peerSelector="all()", filters=["inside"]),
    peer_record("tor", peerIP=TOR, asNumber=65001, filters=["outside", "inside"]),
]  # fmt: skip
RULES: list[dict[str, Any]] = [
    {"action": "Reject", "cidr": "10.65.2.0/24", "matchOperator": "In"},
    {"action": "Accept", "cidr": "10.96.0.0/16", "matchOperator": "In"},
    {"action": "Accept", "source": "RemotePeers", "operations": [{"addCommunity": {"value": "1:2"}}]},
    {"action": "Reject", "peerType": "eBGP"},
    {"action": "Accept", "interface": "cali*"},
    {"action": "Perhaps"},
]
CHOICES: dict[str, list[tuple[str, bytes] | None]] = {
    "node1": [
        node_record("node1", "10.0.0.1/24", routeReflectorClusterID="1.0.0.1"),
        node_record("node1", "10.0.0.1/24", routeReflectorClusterID="1.0.0.2"),
        node_record("node1", "10.0.0.1/24"),
    ],
    "pool": [pool_record("p", "10.65.0.0/16"), pool_record("p", "10.65.0.0/16", disableBGPExport=True)],
    "block": [
        affinity_record("10.65.1.64/26", "node1", "pending"), affinity_record("10.65.1.64/26", "node1"), None,
    ],
    "settings": [
        configuration_record(nodeToNodeMeshEnabled=False),
        configuration_record(
            nodeToNodeMeshEnabled=False, prefixAdvertisements=[{"cidr": "10.65.0.0/16", "communities": ["64512:7"]}]
        ),
    ],
    "borrowed": [endpoint_record("node1", "b", "10.65.2.7/32"), None],
    "local": [endpoint_record("node1", "a", "10.65.1.5/32"), None],
}
LIST = st.lists(st.sampled_from(RULES), max_size=2)


@dataclass
class World:
    """What there is: the records by their places, and what each peer said."""

    records: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    told: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {peer: {} for peer in PEERS})

    def start(self) -> BgpHost:
        host = BgpHost()
        host.put(*BASE, *self.records.values())
        host.in_sync()
        host.run()
        for peer in PEERS:
            self.come_up(host, peer)
        host.run(5)
        return host

    def come_up(self, host: BgpHost, peer: str) -> None:
        """A session comes up and the peer says all that it has to say."""
        host.exabgp.peer_up(peer)
        for prefix, said in self.told[peer].items():
            host.exabgp.peer_sends(peer, [prefix], **said)
        host.exabgp.peer_ends(peer)


def attributes(peer: str, number: int) -> dict[str, Any]:
    if peer == TOR:
        return {"as_path": {"0": {"element": "as-sequence", "value": [65001, number]}}, "local_preference": None}
    return {"med": number} if number % 2 else {"originator_id": N3, "cluster_list": ["1.0.0.2"]}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(PEERS), st.sampled_from(PREFIXES), st.integers(1, 4)),
        st.tuples(st.just("withdraw"), st.sampled_from(PEERS), st.sampled_from(PREFIXES)),
        st.tuples(st.just("filter"), st.sampled_from(["inside", "outside"]), LIST | st.none(), LIST),
        st.tuples(st.just("record"), st.sampled_from(sorted(CHOICES)), st.integers(0, 2)),
        st.tuples(st.just("bounce"), st.sampled_from(PEERS), st.booleans(), st.sampled_from([0.0, 0.3, 5.0])),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.3, 3.0])),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_history_does_not_matter(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for place, (first, *_) in CHOICES.items():
        if first is not None:
            world.records[place] = first
    host = world.start()
    for step in steps:
        match step:
            case ("say", peer, prefix, number):
                world.told[peer][prefix] = attributes(peer, number)
                host.exabgp.peer_sends(peer, [prefix], **world.told[peer][prefix])
            case ("withdraw", peer, prefix):
                if world.told[peer].pop(prefix, None) is not None:
                    host.exabgp.peer_withdraws(peer, [prefix])
            case ("filter", name, exports, imports):
                record = None if exports is None else filter_record(name, exportV4=exports, importV4=imports)
                change(world, host, name, record)
            case ("record", place, number):
                choices = CHOICES[place]
                change(world, host, place, choices[number % len(choices)])
            case ("bounce", peer, is_graceful, seconds):
                if is_graceful:
                    host.exabgp.peer_down(peer)
                else:
                    host.exabgp.peer_notifies(peer, 6, 2)
                host.run(seconds)
                world.come_up(host, peer)
            case ("wait", seconds):
                host.run(seconds)
    host.run(5)
    fresh = world.start()
    for peer in PEERS:
        assert host.exabgp.peers[peer].words == fresh.exabgp.peers[peer].words
    assert host.routes == fresh.routes


def change(world: World, host: BgpHost, place: str, record: tuple[str, bytes] | None) -> None:
    before = world.records.pop(place, None)
    if record is not None:
        world.records[place] = record
        host.put(record)
    elif before is not None:
        host.remove(before)
