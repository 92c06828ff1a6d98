"""Whose a block is: every form that releases wrote, and what damage does (ipam.md 2)."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.blocks import AffinityState, MalformedRecord, affinity_state, block_owner

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
        b"", b"{}", b"[]", b"null", b"{", b"\xff", b'{"cidr":"17.16.10.0/29","affinity":"host:node1"}',
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
