"""The block as stored: byte for byte what Calico writes, and a reader that survives what others left."""

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import assign
from ipam.block import Block, Owner, decode, encode, new_block, parse_time
from ipam.errors import BlockUnreadable
from resources.names import HandleId, IPNetwork, NodeName

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CIDR = ipaddress.ip_network("17.16.10.8/29")
NOW = datetime(2026, 11, 21, 9, 33, 20, tzinfo=UTC)
NODE = NodeName("node1")


def examples() -> list[tuple[str, str]]:
    lines = (FIXTURES / "ipam" / "blocks.jsonl").read_text().splitlines()
    return [(record["what"], record["value"]) for record in map(json.loads, lines)]


def recorded() -> list[str]:
    lines = (FIXTURES / "calico-v3" / "ipam-steps.jsonl").read_text().splitlines()
    steps = map(json.loads, lines)
    return [step["value"] for step in steps if step["value"] and "/assignment/" in step["key"]]


def network_of(text: str) -> IPNetwork:
    return ipaddress.ip_network(json.loads(text)["cidr"])


def document(**members: object) -> bytes:
    """Return a /30 block with one address in use, changed as asked; None drops a member."""
    plain: dict[str, object] = {
        "cidr": "10.0.0.0/30", "affinity": "host:node1", "allocations": [0, None, None, None],
        "unallocated": [1, 2, 3], "attributes": [{"handle_id": "h"}], "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"0": 6}, "deleted": False,
    }
    plain.update(members)
    return json.dumps(plain).encode()


SMALL = ipaddress.ip_network("10.0.0.0/30")


def small(**members: object) -> Block:
    return decode(SMALL, document(**members))


def rewritten(block: Block) -> Block:
    """Return the block after our next write of it."""
    return decode(SMALL, encode(assign.written(assign.release(block, [], now=NOW, cooldown_seconds=0))))


@pytest.mark.parametrize(("what", "text"), examples(), ids=lambda value: value[:40])
def test_what_every_release_wrote_is_written_the_same_again(what: str, text: str) -> None:
    assert encode(decode(network_of(text), text.encode())).decode() == text


def test_what_the_original_was_recorded_writing_is_written_the_same_again() -> None:
    texts = recorded()
    assert len(texts) > 25
    for text in texts:
        assert encode(decode(network_of(text), text.encode())).decode() == text


def test_a_new_block_is_written_as_the_original_does() -> None:
    block = new_block(CIDR, NODE, NOW, 1795253600605701431)
    assert encode(block).decode() == dict(examples())["new, empty, claimed"]


def test_claiming_and_assigning_at_once_is_written_as_two_writes_of_the_original() -> None:
    attributes = {"type": "docker", "timestamp": "2026-11-21T09:33:20Z", "node": "node1"}
    owner = Owner(HandleId("docker-5f0c1d2e3a4b5968778695a4b3c2d1e0"), attributes)
    block, _ = assign.assign(new_block(CIDR, NODE, NOW, 1795253600605701431), 1, owner, lambda _: False)
    assert encode(assign.written(block)).decode() == dict(examples())["claimed and assigned at once"]


def test_go_escapes_what_html_would_misread() -> None:
    block, _ = assign.assign(
        new_block(SMALL, NODE, NOW, 1), 1, Owner(attributes={"note": "a<b&c> \u2028\u2029 é"}), lambda _: False
    )
    assert rb'{"note":"a\u003cb\u0026c\u003e \u2028\u2029 ' + "é".encode() in encode(block)
    assert decode(SMALL, encode(block)).owner(0) == Owner(attributes={"note": "a<b&c> \u2028\u2029 é"})


def test_sequence_numbers_beyond_floating_point_stay_exact() -> None:
    assert small(sequenceNumber=2**64 - 1).sequence == 2**64 - 1
    assert b'"sequenceNumber":18446744073709551615' in encode(small(sequenceNumber=2**64 - 1))


# --- what must be survived (reference ipam.md 2.7)


@pytest.mark.parametrize("value", [
    b"", b"{}", b"not json", b"null", b"[]", b'{"cidr":"10.0.0.0/30"}', b"[" * 5000,
    document(cidr="10.0.0.4/30"), document(cidr="10.0.0.0/29"), document(cidr="10.0.0.1/30"), document(cidr=7),
    document(allocations=[0, None, None]), document(allocations=[0] * 5), document(allocations="0"),
    document(allocations=[0, "x", None, None]), document(unallocated=None), document(unallocated=["1"]),
    document(attributes={}), document(attributes=["x"]), document(attributes=[{"handle_id": 5}]),
    document(attributes=[{"secondary": {"a": 1}}]), document(sequenceNumber="7"), document(affinity=["host:a"]),
], ids=lambda value: value.decode()[-40:])
def test_what_makes_no_sense_is_refused_with_its_key(value: bytes) -> None:
    with pytest.raises(BlockUnreadable) as refused:
        decode(SMALL, value)
    assert refused.value.key == "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
    assert refused.value.reason


def test_a_sequence_number_of_a_free_address_is_ignored_and_dropped_on_the_next_write() -> None:
    block = small(sequenceNumberForAllocation={"0": 6, "2": 5, "9": 5, "x": 5})
    assert encode(block) != encode(block.mended())
    assert rewritten(block).sequences == {0: 6}
    assert block.faults() == ()


def test_an_address_the_queue_lost_is_found_and_comes_last() -> None:
    block = small(unallocated=[3, 1])
    assert block.free() == (3, 1, 2)
    assert rewritten(block).unallocated == (3, 1, 2)
    assert block.faults() == ("address 10.0.0.2 is neither allocated nor in the list of free addresses",)


def test_an_address_twice_in_the_queue_is_taken_once_and_one_allocated_is_not_free() -> None:
    block = small(unallocated=[2, 1, 2, 0, 3, 9, -1])
    assert block.free() == (2, 1, 3)
    assert rewritten(block).unallocated == (2, 1, 3)
    assert set(block.faults()) == {
        "address 10.0.0.2 is twice in the list of free addresses",
        "address 10.0.0.0 is both allocated and in the list of free addresses",
        "free ordinal 9 is outside the block",
        "free ordinal -1 is outside the block",
    }


@pytest.mark.parametrize("index", [1, 7, -1])
def test_an_address_without_a_known_owner_is_in_use_and_stays_so(index: int) -> None:
    block = small(allocations=[0, index, None, None], unallocated=[2, 3])
    assert block.free() == (2, 3)
    assert block.owner(1) == Owner()
    assert block.faults() == (f"address 10.0.0.1 points at attribute {index} of 1",)
    after = rewritten(block)
    assert after.owner(1) == Owner()
    assert after.owner(0) == Owner(HandleId("h"))
    assert after.faults() == ()


def test_an_owner_of_nothing_goes_on_the_next_write_and_the_others_keep_theirs() -> None:
    owners = [{"handle_id": "unused"}, {"handle_id": "h"}, {"handle_id": "unused too"}, {"handle_id": "g"}]
    block = small(allocations=[1, 3, None, None], unallocated=[2, 3], attributes=owners)
    assert len(block.faults()) == 2
    after = rewritten(block)
    assert [after.owner(o) for o in range(4)] == [Owner(HandleId("h")), Owner(HandleId("g")), None, None]
    assert len(after.owners or ()) == 2


def test_what_an_import_appended_to_a_handle_does_not_hide_its_addresses() -> None:
    block = small(attributes=[{"handle_id": "abc\r\neth0"}])
    assert block.held_by(HandleId("abc")) == (0,)
    assert block.held_by(HandleId("abc\r\neth1")) == (0,)
    assert block.held_by(HandleId("ab")) == ()
    assert encode(block).count(b"eth0") == 1


def test_the_spelling_of_before_1_0_says_whose_block_it_is() -> None:
    block = small(affinity=None, hostAffinity="node7")
    assert block.node == "node7"
    assert b"hostAffinity" not in encode(block)
    assert decode(SMALL, encode(block)).node == "node7"


def test_members_nobody_knows_survive_every_write_at_every_level() -> None:
    owner = {"handle_id": "h", "alternateOwnerAttrs": {"node": "n2"}, "new": [1, {"x": None}]}
    block = small(attributes=[owner, {"handle_id": "g"}], allocations=[0, 1, None, None], unallocated=[2, 3],
                  zone={"a": [1, 2]}, flavour="x")
    block, _ = assign.assign(block, 1, Owner(HandleId("mine")), lambda _: False)
    block = assign.release(block, [1], now=NOW, cooldown_seconds=0)
    stored = json.loads(encode(assign.written(block)))
    assert (stored["zone"], stored["flavour"]) == ({"a": [1, 2]}, "x")
    assert stored["attributes"][0] == owner


def test_a_virtual_owner_is_nobodys_node_and_yet_not_nobody() -> None:
    block = small(affinity="virtual:load-balancer")
    assert (block.node, block.is_virtual) == (None, True)
    assert (small(affinity=None).node, small(affinity=None).is_virtual) == (None, False)
    assert small(affinity="").node is None


def test_a_block_with_nothing_but_a_windows_hosts_own_addresses_is_empty() -> None:
    kept = [{"handle_id": "Windows-Reserved-IPAM-Handle"}]
    assert small(attributes=kept).is_empty
    assert not small().is_empty
    assert not small(attributes=[{"releasedAt": "2026-11-21T09:33:20Z"}]).is_empty
    assert small(allocations=[None] * 4, unallocated=[0, 1, 2, 3], attributes=[]).is_empty


# --- cooling down


def cooling(released: datetime) -> Block:
    entry = {"releasedAt": released.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return small(allocations=[0, 1, None, 1], unallocated=[2], attributes=[{"handle_id": "h"}, entry])


def test_what_cools_down_is_not_free_before_its_time_and_free_after() -> None:
    block = cooling(NOW)
    early = block.swept(NOW + timedelta(seconds=29), 30)
    assert early.free() == (2,)
    late = block.swept(NOW + timedelta(seconds=30), 30)
    assert late.free() == (2, 1, 3)
    assert late.faults() == ()
    assert late.owner(0) == Owner(HandleId("h"))


@pytest.mark.parametrize("seconds", [0, -1])
def test_without_a_cooldown_what_somebody_left_cooling_is_free_at_once(seconds: int) -> None:
    assert cooling(NOW + timedelta(hours=1)).swept(NOW, seconds).free() == (2, 1, 3)


def test_a_cooling_address_is_held_by_nobody() -> None:
    block = small(attributes=[{"handle_id": "h", "releasedAt": "2026-11-21T09:33:20Z"}])
    assert block.held_by(HandleId("h")) == ()
    assert block.in_use == 1


@pytest.mark.parametrize(("text", "seconds"), [
    ("2026-11-21T09:33:20Z", 0), ("2026-11-21T10:33:20+01:00", 0), ("2026-11-21T09:33:25.123456789Z", 5),
])
def test_times_as_go_writes_them(text: str, seconds: int) -> None:
    assert parse_time(text) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "2026-11-21 09:33:20", "2026-11-21T09:33:20"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None
    assert small(affinity_claim_time=text).claim_age_seconds(NOW) is None


# --- any block at all

indexes = st.one_of(st.none(), st.integers(-1, 4))
odd_blocks = st.builds(
    lambda allocations, unallocated, owners, numbers: small(
        allocations=allocations, unallocated=unallocated, attributes=owners,
        sequenceNumberForAllocation={str(o): n for o, n in numbers.items()},
    ),
    st.lists(indexes, min_size=4, max_size=4),
    st.lists(st.integers(-1, 5), max_size=6),
    st.one_of(st.none(), st.lists(st.sampled_from([{}, {"handle_id": "a"}, {"handle_id": "b"}]), max_size=4)),
    st.dictionaries(st.integers(0, 5), st.integers(0, 2**64 - 1), max_size=4),
)


@given(odd_blocks)
def test_a_mended_block_says_the_same_and_has_no_fault(block: Block) -> None:
    after = decode(SMALL, encode(block.mended()))
    assert after.faults() == ()
    assert [after.owner(o) for o in range(4)] == [block.owner(o) for o in range(4)]
    assert after.free() == after.unallocated == block.free()
    assert after.sequences == {o: n for o, n in block.sequences.items() if o < 4 and block.owner(o) is not None}
    assert encode(after.mended()) == encode(after)


@given(odd_blocks)
def test_any_block_is_written_back_as_it_was_read(block: Block) -> None:
    assert decode(SMALL, encode(block)) == block
