"""The store's records, folded: what they mean and what they make necessary."""

from ipaddress import ip_network

import pytest

from bgpd.inventory import Dirt, Inventory
from fakes.bgp_host import (
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    filter_record,
    node_record,
    peer_record,
    pool_record,
    record,
)
from resources.blocks import AffinityState
from resources.datastore.sync import Change
from resources.names import NodeName

N1 = NodeName("n1")
BLOCK = ip_network("10.65.1.0/26")


def put(*records: tuple[str, bytes]) -> list[Change]:
    return [Change(key, value, 5) for key, value in records]


def gone(*records: tuple[str, bytes]) -> list[Change]:
    return [Change(key, None, 6) for key, _ in records]


@pytest.fixture
def inventory() -> Inventory:
    return Inventory(N1)


def test_it_follows_what_it_needs(inventory: Inventory) -> None:
    records = [
        node_record("n1", "10.0.0.1/24"), pool_record("p", "10.65.0.0/16"), configuration_record(),
        endpoint_record("n1", "a", "10.65.1.5/32"), block_record("10.65.1.0/26", "n1"),
        affinity_record("10.65.1.0/26", "n1"),
    ]
    for key, _ in records:
        assert any(key.startswith(prefix) for prefix in inventory.prefixes), key
    other = affinity_record("10.65.1.0/26", "n10")[0]
    assert not any(other.startswith(prefix) for prefix in inventory.prefixes)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([node_record("n2", "10.0.0.2/24")], Dirt(sessions=True, imports=True)),
        ([pool_record("p", "10.65.0.0/16")], Dirt(own=True, imports=True)),
        ([configuration_record(asNumber=5)], Dirt(sessions=True, own=True)),
        ([peer_record("t", peerIP="10.0.0.9", asNumber=5)], Dirt(sessions=True)),
        ([filter_record("f")], Dirt(sessions=True, filters={"f"})),
        ([affinity_record("10.65.1.0/26", "n1")], Dirt(own=True)),
        ([affinity_record("10.65.1.0/26", "n2")], Dirt()),
        ([block_record("10.65.1.0/26", "n1")], Dirt(own=True, prefixes={BLOCK})),
        ([block_record("10.65.1.0/26", "n2")], Dirt(prefixes={BLOCK})),
        ([endpoint_record("n1", "a", "10.65.1.5/32")], Dirt(own=True, prefixes={ip_network("10.65.1.5/32")})),
        ([endpoint_record("n2", "a", "10.65.1.5/32")], Dirt(prefixes={ip_network("10.65.1.5/32")})),
        ([record("profiles", "Profile", "x", {})], Dirt()),
    ],
)
def test_each_record_makes_necessary_what_it_must(
    inventory: Inventory, records: list[tuple[str, bytes]], expected: Dirt
) -> None:
    assert inventory.take(put(*records)) == []
    assert inventory.take_dirt() == expected
    assert inventory.take_dirt() == Dirt()
    inventory.take(put(*records))
    assert inventory.take_dirt() == Dirt()
    inventory.take(gone(*records))
    assert inventory.take_dirt() == expected
    inventory.take(gone(*records))
    assert inventory.take_dirt() == Dirt()


def test_a_change_that_does_not_concern_routing_makes_nothing_necessary(inventory: Inventory) -> None:
    key, value = node_record("n2", "10.0.0.2/24")
    inventory.take(put((key, value)))
    inventory.take_dirt()
    inventory.take(put((key, value.replace(b'"spec": {', b'"status": {}, "spec": {"orchRefs": [], '))))
    assert inventory.take_dirt() == Dirt()
    block, state = block_record("10.65.1.0/26", "n1")
    inventory.take(put((block, state)))
    inventory.take_dirt()
    inventory.take(put((block, state.replace(b'"allocations": []', b'"allocations": [0]'))))
    assert inventory.take_dirt() == Dirt()


def test_the_parts_are_there(inventory: Inventory) -> None:
    inventory.take(
        put(
            block_record("10.65.1.0/26", "n1"),
            affinity_record("10.65.1.0/26", "n1", "pending"),
            endpoint_record("n1", "a", "10.65.1.5/32", "fd80::5/128"),
            endpoint_record("n1", "b", "10.65.1.6"),
            endpoint_record("n2", "c", "10.65.2.6/32"),
        )
    )
    assert inventory.owners == {BLOCK: "n1"}
    assert inventory.affinities == {BLOCK: AffinityState.PENDING}
    assert {str(address): device for address, device in inventory.workloads.items()} == {
        "10.65.1.5/32": "calia", "fd80::5/128": "calia", "10.65.1.6/32": "calib",
    }
    assert inventory.holder(ip_network("10.65.2.6/32")) == "n2"
    assert inventory.holder(ip_network("10.65.2.7/32")) is None


def test_of_two_holders_the_first_by_key_counts_and_the_other_remains(inventory: Inventory) -> None:
    address = ip_network("10.65.1.5/32")
    first, second = endpoint_record("n1", "a", "10.65.1.5/32"), endpoint_record("n2", "a", "10.65.1.5/32")
    for order in ([first, second], [second, first]):
        inventory.take(put(*order))
        assert inventory.holder(address) == "n1"
        inventory.take(gone(first))
        assert inventory.holder(address) == "n2"
        inventory.take(gone(second))
        assert inventory.holder(address) is None


def test_an_endpoint_moves_and_changes_its_addresses(inventory: Inventory) -> None:
    key, _ = endpoint_record("n1", "a", "10.65.1.5/32")
    inventory.take(put(endpoint_record("n1", "a", "10.65.1.5/32", "10.65.1.6/32")))
    inventory.take_dirt()
    inventory.take(put((key, endpoint_record("n2", "a", "10.65.1.6/32", "10.65.1.7/32")[1])))
    dirt = inventory.take_dirt()
    assert dirt.own
    assert {str(prefix) for prefix in dirt.prefixes} == {"10.65.1.5/32", "10.65.1.6/32", "10.65.1.7/32"}
    assert inventory.workloads == {}
    assert inventory.holder(ip_network("10.65.1.5/32")) is None


@pytest.mark.parametrize(
    "bad",
    [
        (node_record("n2")[0], b"{"),
        (pool_record("p", "10.0.0.0/8")[0], pool_record("p", "10.0.0.1/8")[1]),
        (pool_record("p", "10.0.0.0/8")[0], pool_record("p", "10.0.0.0/8", ipipMode="Sometimes")[1]),
        (block_record("10.65.1.0/26", "n1")[0], b"{}"),
        (affinity_record("10.65.1.0/26", "n1")[0], b'{"state":"odd"}'),
        (endpoint_record("n1", "a", "10.65.1.5/32")[0], endpoint_record("n1", "a", "10.65.0.0/16")[1]),
        (endpoint_record("n1", "a", "10.65.1.5/32")[0], endpoint_record("n1", "a", "nonsense")[1]),
    ],
)
def test_a_bad_record_is_absent_told_once_and_taken_when_mended(
    inventory: Inventory, bad: tuple[str, bytes]
) -> None:
    good = {
        found[0]: found
        for found in (
            node_record("n2", "10.0.0.2/24"), pool_record("p", "10.0.0.0/8"), block_record("10.65.1.0/26", "n1"),
            affinity_record("10.65.1.0/26", "n1"), endpoint_record("n1", "a", "10.65.1.5/32"),
        )
    }[bad[0]]
    empty = snapshot(inventory)
    inventory.take(put(good))
    full = snapshot(inventory)
    assert full != empty
    [(key, fault)] = inventory.take(put(bad))
    assert key == bad[0]
    assert fault
    assert snapshot(inventory) == empty
    assert inventory.take(put(bad)) == []
    assert set(inventory.faults) == {key}
    inventory.take(put(good))
    assert snapshot(inventory) == full
    assert inventory.faults == {}
    inventory.take(put(bad))
    inventory.take(gone(bad))
    assert inventory.faults == {}


def snapshot(inventory: Inventory) -> object:
    return (
        dict(inventory.nodes), dict(inventory.pools), dict(inventory.owners), dict(inventory.affinities),
        inventory.workloads,
    )


def test_a_peer_that_is_mended_and_spoilt_again(inventory: Inventory) -> None:
    good, bad = peer_record("t", peerIP="10.0.0.9", asNumber=5), peer_record("t", peerIP="10.0.0.9:0", asNumber=5)
    (fault,) = inventory.take(put(bad))
    assert fault[1] == "BGPPeer(t) cannot be used: '10.0.0.9:0': a port is between 1 and 65535"
    assert inventory.peerings == {}
    assert inventory.take(put(good)) == []
    assert set(inventory.peerings) == {"t"}
    assert inventory.faults == {}
    inventory.take_dirt()
    assert inventory.take(put(good)) == []
    assert inventory.take_dirt() == Dirt()
    assert len(inventory.take(put(bad))) == 1
    assert inventory.peerings == {}
    assert inventory.take_dirt() == Dirt(sessions=True)
    inventory.take(gone(bad))
    assert inventory.faults == {}


def test_a_filter_is_there_as_long_as_its_record(inventory: Inventory) -> None:
    one = filter_record("f", importV4=[{"action": "Accept"}])
    inventory.take(put(one))
    assert [rule.is_accept for rule in inventory.filters["f"].imports[4]] == [True]
    assert inventory.take_dirt() == Dirt(sessions=True, filters={"f"})
    inventory.take(put(one))
    inventory.take(put(filter_record("f", importV4=[{"action": "Reject"}])))
    assert inventory.take_dirt() == Dirt(filters={"f"})
    inventory.take(gone(one))
    assert inventory.filters == {}
    assert inventory.take_dirt() == Dirt(sessions=True, filters={"f"})


def test_of_a_filter_that_cannot_be_read_what_is_readable_stands_and_the_rest_is_a_reject(
    inventory: Inventory,
) -> None:
    good = {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}
    bad = filter_record("f", importV4=[good, {"action": "Maybe"}, good], exportV6=[{"action": "Accept"}])
    assert len(inventory.take(put(bad))) == 1
    found = inventory.filters["f"]
    assert [rule.is_accept for rule in found.imports[4]] == [True, False]
    assert found.imports[4][1].prefixes is None
    assert [rule.is_accept for rule in found.exports[6]] == [True]
    assert found.exports[4] == ()
    assert "Maybe" in found.fault
    assert inventory.take_dirt() == Dirt(sessions=True, filters={"f"})
    inventory.take(put((bad[0], b"{")))
    found = inventory.filters["f"]
    assert [[rule.is_accept for rule in rules[version]] for rules in (found.imports, found.exports)
            for version in (4, 6)] == [[False]] * 4  # fmt: skip
    inventory.take(put(filter_record("f")))
    assert inventory.filters["f"].fault == ""
    assert inventory.faults == {}
