"""Whose a block is: every form that releases wrote, and what damage does (ipam.md 2)."""

import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.blocks import AffinityState, BlockView, MalformedRecord, affinity_state, block_owner, block_view
from resources.names import NodeName

CIDR = ip_network("17.16.10.8/29")
OPEN = '"allocations":[null,null,null,null,null,null,null,null],"unallocated":[0,1,2,3,4,5,6,7],"attributes":null'


@pytest.mark.parametrize(
    ("value", "owner"),
    [
        (f'{{"cidr":"17.16.10.8/29","affinity":"host:node1",{OPEN},"deleted":false}}', "node1"),
        (f'{{"cidr":"17.16.10.8/29","affinity":"host:node1","strictAffinity":false,{OPEN}}}', "node1"),
        (f'{{"cidr":"17.16.10.8/29","affinity":null,{OPEN},"hostAffinity":"old"}}', "old"),
        (f'{{"cidr":"17.16.10.8/29","affinity":null,{OPEN}}}', None),
        (f'{{"cidr":"17.16.10.8/29","affinity":"virtual:load-balancer",{OPEN}}}', None),
        (f'{{"cidr":"17.16.10.8/29","affinity":"host:",{OPEN}}}', None),
        (f'{{"cidr":"17.16.10.8/29","affinity":"host:node1",{OPEN},"deleted":true}}', None),
        ('{"cidr":"17.16.10.8/29"}', None),
    ],
)
def test_the_owner_in_every_form(value: str, owner: str | None) -> None:
    assert block_owner(CIDR, value.encode()) == owner


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"cidr":"17.16.10.0/29","affinity":"host:node1"}',
        b'{"cidr":"17.16.10.8/29","affinity":7}',
    ],
)
def test_a_damaged_block_has_no_owner(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        block_owner(CIDR, value)


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (b'{"state":"confirmed","deleted":false}', AffinityState.CONFIRMED),
        (b'{"state":"pending","deleted":false}', AffinityState.PENDING),
        (b'{"state":"pendingDeletion"}', AffinityState.PENDING_DELETION),
        (b'{"state":""}', AffinityState.CONFIRMED),
        (b"{}", AffinityState.CONFIRMED),
        (b"", AffinityState.CONFIRMED),
        (b'{"state":"confirmed","deleted":true}', None),
    ],
)
def test_the_state_in_every_form(value: bytes, state: AffinityState | None) -> None:
    assert affinity_state(value) == state


@pytest.mark.parametrize("value", [b'{"state":"lost"}', b"[]", b"x", b'{"state":1}'])
def test_a_damaged_affinity_is_none(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        affinity_state(value)


@given(st.binary())
def test_any_bytes_are_survived(value: bytes) -> None:
    for read in (affinity_state, lambda data: block_owner(CIDR, data)):
        try:
            read(value)
        except MalformedRecord:
            pass


def block(allocations: list[object], attributes: object, affinity: str | None = "host:node1") -> bytes:
    record = {"cidr": str(CIDR), "affinity": affinity, "allocations": allocations, "attributes": attributes}
    return json.dumps(record).encode()


FREE = [None] * 5
OF_1 = {"handle_id": "a", "secondary": {"node": "node1"}}
OF_2 = {"handle_id": "b", "secondary": {"node": "node2", "type": "vxlanTunnelAddress"}}
NO_ONE = {"handle_id": None, "secondary": None}


@pytest.mark.parametrize(
    ("allocations", "attributes", "affinity", "borrowed"),
    [
        ([None] * 8, None, "host:node1", {}),
        ([0, 0, None, *FREE], [OF_1], "host:node1", {}),
        ([0, 1, 1, *FREE], [OF_1, OF_2], "host:node1", {".9": "node2", ".10": "node2"}),
        ([0, 1, None, *FREE], [OF_1, OF_2], None, {".8": "node1", ".9": "node2"}),
        ([0, 1, 7, *FREE], [NO_ONE, OF_2], "host:node1", {".9": "node2"}),
        ([-1, True, "1", *FREE], [OF_2, OF_2], "host:node1", {}),
        ([0, 1, 2, *FREE], [[], {"secondary": {"node": 7}}, {"secondary": {"node": ""}}], "host:node1", {}),
    ],
)
def test_who_else_holds_addresses(
    allocations: list[object], attributes: object, affinity: str | None, borrowed: dict[str, str]
) -> None:
    view = block_view(CIDR, block(allocations, attributes, affinity))
    assert view is not None
    assert view.owner == (None if affinity is None else "node1")
    assert view.borrowed == {ip_address(f"17.16.10{end}"): node for end, node in borrowed.items()}


def test_a_block_that_is_marked_as_deleted_is_none() -> None:
    assert block_view(CIDR, b'{"cidr":"17.16.10.8/29","affinity":"host:node1","deleted":true}') is None


@pytest.mark.parametrize("allocations", [[None] * 7, [None] * 9, [], None, {}])
def test_a_block_of_another_size_is_damaged(allocations: object) -> None:
    value = json.dumps({"cidr": str(CIDR), "affinity": "host:node1", "allocations": allocations}).encode()
    with pytest.raises(MalformedRecord, match="8 allocations"):
        block_view(CIDR, value)


def test_views_are_values() -> None:
    assert block_view(CIDR, block([0, 1, *FREE, None], [OF_1, OF_2])) == BlockView(
        NodeName("node1"), {ip_address("17.16.10.9"): NodeName("node2")}
    )
