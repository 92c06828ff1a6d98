"""Assign and release inside one block, against a slow obvious model."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ipam import assign
from ipam.block import Block, Owner, decode, encode, new_block
from resources.names import HandleId, NodeName

CIDR = ipaddress.ip_network("10.0.0.0/28")
NODE = NodeName("node1")
NOW = datetime(2026, 11, 21, 9, 33, 20, tzinfo=UTC)
A, B = Owner(HandleId("a")), Owner(HandleId("b"), {"node": "node1"})


def nothing_reserved(_: int) -> bool:
    return False


def block() -> Block:
    return new_block(CIDR, NODE, NOW, 100)


def write(changed: Block) -> Block:
    return decode(CIDR, encode(assign.written(changed)))


def release(of: Block, *ordinals: int, cooldown: int = 0) -> Block:
    return assign.release(of, ordinals, now=NOW, cooldown_seconds=cooldown)


def test_the_first_address_of_a_block_is_given_first_its_network_address() -> None:
    after, taken = assign.assign(block(), 2, A, nothing_reserved)
    assert taken == (0, 1)
    assert str(after.address(0)) == "10.0.0.0"


def test_a_released_address_comes_last() -> None:
    full, _ = assign.assign(block(), 1, A, nothing_reserved)
    freed = release(full, 0)
    after, taken = assign.assign(freed, 16, B, nothing_reserved)
    assert taken == (*range(1, 16), 0)
    assert after.free() == ()


def test_releases_keep_the_order_they_were_asked_in() -> None:
    full, _ = assign.assign(block(), 16, A, nothing_reserved)
    assert release(full, 9, 3, 3, 12).free() == (9, 3, 12)


def test_a_release_of_what_is_free_changes_nothing() -> None:
    full, _ = assign.assign(block(), 2, A, nothing_reserved)
    assert encode(release(full, 5, 6)) == encode(full)


def test_reserved_addresses_are_passed_over_and_keep_their_place() -> None:
    base = int(CIDR[0])
    after, taken = assign.assign(block(), 3, A, lambda address: address - base in (0, 2))
    assert taken == (1, 3, 4)
    assert after.free()[:3] == (0, 2, 5)
    assert assign.room(after, lambda address: address - base in (0, 2)) == 11


def test_equal_owners_share_an_entry_and_an_entry_nobody_needs_goes() -> None:
    first, _ = assign.assign(block(), 2, A, nothing_reserved)
    second, _ = assign.assign(first, 1, B, nothing_reserved)
    third, _ = assign.assign(second, 1, Owner(HandleId("a"), {}), nothing_reserved)
    assert third.owners == (A, B)
    after = release(third, 0, 1, 3)
    assert after.owners == (B,)
    assert after.owner(2) == B


def test_null_missing_and_empty_members_of_an_owner_are_the_same() -> None:
    stored = decode(CIDR, encode(block()).replace(
        b'"attributes":null', b'"attributes":[{"handle_id":"a","secondary":null}]'
    ).replace(b'"allocations":[null', b'"allocations":[0').replace(b'"unallocated":[0,', b'"unallocated":['))
    after, _ = assign.assign(stored, 1, A, nothing_reserved)
    assert len(after.owners or ()) == 1
    assert after.held_by(HandleId("a")) == (0, 1)


def test_an_allocation_remembers_the_number_of_the_block_before_its_write() -> None:
    first, _ = assign.assign(block(), 1, A, nothing_reserved)
    stored = write(first)
    assert (stored.sequence, stored.sequences) == (101, {0: 100})
    second, _ = assign.assign(stored, 2, B, nothing_reserved)
    stored = write(second)
    assert (stored.sequence, stored.sequences) == (102, {0: 100, 1: 101, 2: 101})


def test_released_with_a_cooldown_an_address_is_kept_back_without_owner() -> None:
    full, _ = assign.assign(block(), 2, A, nothing_reserved)
    after = write(release(full, 0, cooldown=30))
    assert after.owner(0) == Owner(released_at="2026-11-21T09:33:20Z")
    assert 0 not in after.free()
    assert after.sequences == {1: 100}
    assert after.held_by(HandleId("a")) == (1,)


def test_one_address_can_be_taken_out_of_turn() -> None:
    after = assign.assign_ordinal(block(), 7, A)
    assert after.held_by(HandleId("a")) == (7,)
    assert after.free()[6:8] == (6, 8)


def test_a_block_taken_over_keeps_the_order_of_its_queue() -> None:
    full, _ = assign.assign(block(), 3, A, nothing_reserved)
    emptied = write(release(full, 2, 0, 1))
    mine = write(assign.taken_over(emptied, NodeName("node2"), NOW))
    assert (mine.node, mine.claimed_at) == ("node2", "2026-11-21T09:33:20Z")
    assert mine.free() == (*range(3, 16), 2, 0, 1)
    assert mine.sequence > emptied.sequence


def test_a_block_given_up_is_nobodys_and_keeps_its_addresses() -> None:
    full, _ = assign.assign(block(), 3, A, nothing_reserved)
    after = write(assign.disowned(full))
    assert (after.affinity, after.claimed_at) == (None, None)
    assert after.held_by(HandleId("a")) == (0, 1, 2)


# --- the model: two lists, kept the obvious way


@dataclass
class Model:
    queue: list[int] = field(default_factory=lambda: list(range(16)))
    owner: dict[int, Owner] = field(default_factory=dict)
    number: dict[int, int] = field(default_factory=dict)

    def assign(self, count: int, owner: Owner, reserved: frozenset[int], sequence: int) -> list[int]:
        taken = [o for o in self.queue if o not in reserved][:count]
        for o in taken:
            self.queue.remove(o)
            self.owner[o], self.number[o] = owner, sequence
        return taken

    def release(self, ordinals: list[int]) -> None:
        for o in ordinals:
            if o in self.owner:
                del self.owner[o], self.number[o]
                self.queue.append(o)


owners = st.builds(
    Owner, st.sampled_from([None, HandleId("a"), HandleId("b"), HandleId("c")]),
    st.sampled_from([{}, {"node": "node1"}, {"node": "node1", "x": "<"}]),
)
operations = st.one_of(
    st.tuples(st.just("assign"), st.integers(0, 20), owners, st.frozensets(st.integers(0, 15), max_size=4)),
    st.tuples(st.just("release"), st.lists(st.integers(0, 15), max_size=6), owners, st.just(frozenset[int]())),
)


@given(st.lists(operations, max_size=30))
def test_any_history_of_a_block_ends_as_the_model_says(
    history: list[tuple[str, int | list[int], Owner, frozenset[int]]]
) -> None:
    base, now, model = int(CIDR[0]), block(), Model()
    for _, argument, owner, reserved in history:
        if isinstance(argument, int):
            kept_back = frozenset(base + o for o in reserved)
            changed, taken = assign.assign(now, argument, owner, kept_back.__contains__)
            assert list(taken) == model.assign(argument, owner, reserved, now.sequence)
        else:
            changed = release(now, *argument)
            model.release(argument)
        now = write(changed)
        assert agrees(now, model)


def agrees(stored: Block, model: Model) -> bool:
    known: Mapping[int, Owner | None] = {o: stored.owner(o) for o in range(16)}
    distinct = {str(owner) for owner in model.owner.values()}
    return (
        stored.faults() == ()
        and list(stored.free()) == model.queue
        and {o: owner for o, owner in known.items() if owner is not None} == model.owner
        and dict(stored.sequences) == model.number
        and len(stored.owners or ()) == len(distinct)
    )
