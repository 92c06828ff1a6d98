"""Which block comes next: order, limits, reservations; the search's cost follows what exists, not the pool's size."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import assign
from ipam.block import Block, Owner, new_block
from ipam.claim import Choice, How, Search, absent_block, next_block, start_index
from ipam.config import IPAMConfig
from ipam.pools import Pool
from ipam.ranges import Ranges, of_networks
from ipam.results import Shortage
from resources.names import HandleId, IPNetwork, NodeName, PoolName
from resources.selector import parse

NOW = datetime(2026, 11, 21, 9, 33, 20, tzinfo=UTC)
NODE, OTHER = NodeName("node1"), NodeName("node2")


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def pool(cidr: str, block_size: int) -> Pool:
    return Pool(
        name=PoolName("pool"), revision=1, network=net(cidr), block_size=block_size, disabled=False,
        node_selector=parse(""), namespace_selector=parse(""), uses=("Workload",), is_manual=False,
    )


@dataclass
class Known:
    """Blocks and tickets as a test says; counts how often blocks are looked at."""

    blocks: dict[IPNetwork, Block] = field(default_factory=dict)
    tickets: list[IPNetwork] = field(default_factory=list)
    unreadable: set[IPNetwork] = field(default_factory=set)
    looks: int = 0

    def ticketed(self) -> Iterable[IPNetwork]:
        return sorted(self.tickets, key=str)

    def existing(self) -> Sequence[IPNetwork]:
        return sorted({*self.blocks, *self.unreadable}, key=str)

    def block(self, cidr: IPNetwork) -> Block | None:
        self.looks += 1
        return self.blocks.get(cidr)

    def is_unreadable(self, cidr: IPNetwork) -> bool:
        return cidr in self.unreadable

    def add(self, cidr: str, node: NodeName | None, used: int = 0, *, ticket: bool = True, age: float = 3600) -> None:
        block = new_block(net(cidr), node or NODE, NOW - timedelta(seconds=age), 1)
        block, _ = assign.assign(block, used, Owner(HandleId("h")), lambda _: False)
        self.blocks[block.cidr] = block if node else replace(block, affinity=None, claimed_at=None)
        if node == NODE and ticket:
            self.tickets.append(block.cidr)


def search(*pools: Pool, reserved: Ranges | None = None, **settings: int) -> Search:
    config = IPAMConfig(
        strict_affinity=bool(settings.get("strict")), auto_allocate_blocks=bool(settings.get("auto", 1))
    )
    return Search(
        node=NODE, pools=pools, settings=config, reserved=reserved or Ranges(), limit=settings.get("limit", 20),
        now=NOW, shuffle=settings.get("shuffle", 0),
    )


SMALL = pool("10.0.0.0/28", 30)  # four blocks of four
FULL = 4


def chosen(result: Choice | Shortage) -> tuple[How, str]:
    assert isinstance(result, Choice)
    return result.how, str(result.cidr)


def test_own_blocks_come_first_in_key_order() -> None:
    known = Known()
    known.add("10.0.0.8/30", NODE, 1)
    known.add("10.0.0.12/30", NODE, 3)
    assert chosen(next_block(search(SMALL), known)) == (How.OWN, "10.0.0.12/30")
    known.add("10.0.0.12/30", NODE, FULL)
    assert chosen(next_block(search(SMALL), known)) == (How.OWN, "10.0.0.8/30")


def test_without_room_in_own_blocks_a_new_one_is_claimed_from_the_hosts_place_on() -> None:
    known = Known()
    start = start_index(SMALL, search(SMALL))
    for turn in range(4):
        how, cidr = chosen(next_block(search(SMALL), known))
        assert (how, cidr) == (How.NEW, str(SMALL.block_at((start + turn) % 4)))
        known.add(cidr, NODE, FULL)
    assert next_block(search(SMALL), known) is Shortage.EXHAUSTED


def test_the_same_host_starts_at_the_same_place_and_hosts_spread() -> None:
    large = pool("10.0.0.0/16", 26)
    nodes = [NodeName(f"node{n}") for n in range(200)]
    starts = [start_index(large, replace(search(large), node=node)) for node in nodes]
    assert starts == [start_index(large, replace(search(large), node=node)) for node in nodes]
    assert len(set(starts)) > 150
    assert max(starts) > 900
    assert min(starts) < 100


def test_blocks_of_one_address_start_anywhere() -> None:
    tiny = pool("10.0.0.0/24", 32)
    assert {start_index(tiny, search(tiny, shuffle=n)) for n in (3, 255, 256)} == {3, 255, 0}


def test_a_left_over_ticket_is_used_and_one_for_anothers_block_is_not() -> None:
    known = Known()
    known.add("10.0.0.4/30", OTHER)
    known.tickets += [net("10.0.0.4/30"), net("10.0.0.8/30")]
    assert chosen(next_block(search(SMALL), known)) == (How.NEW, "10.0.0.8/30")


def test_stale_tickets_do_not_count_against_the_limit() -> None:
    known = Known()
    for cidr in ("10.0.0.0/30", "10.0.0.4/30"):
        known.add(cidr, OTHER, FULL)
        known.tickets.append(net(cidr))
    assert chosen(next_block(search(SMALL, limit=1), known))[0] is How.NEW


@pytest.mark.parametrize("strict", [0, 1])
def test_at_the_limit_there_is_no_claim_and_no_borrowing_but_own_room_is_used(strict: int) -> None:
    known = Known()
    known.add("10.0.0.0/30", NODE, FULL)
    known.add("10.0.0.4/30", OTHER)
    assert next_block(search(SMALL, limit=1, strict=strict), known) is Shortage.BLOCK_LIMIT
    known.add("10.0.0.0/30", NODE, 3)
    assert chosen(next_block(search(SMALL, limit=1, strict=strict), known)) == (How.OWN, "10.0.0.0/30")


def test_the_limit_counts_blocks_in_the_chosen_pools_only() -> None:
    known = Known()
    known.add("192.0.2.0/30", NODE, FULL)
    assert chosen(next_block(search(SMALL, limit=1), known))[0] is How.NEW


def test_without_leave_to_claim_only_own_blocks_are_used() -> None:
    known = Known()
    assert next_block(search(SMALL, auto=0, strict=1), known) is Shortage.NO_CLAIMS
    known.add("10.0.0.0/30", NODE, 3)
    assert chosen(next_block(search(SMALL, auto=0, strict=1), known)) == (How.OWN, "10.0.0.0/30")


def fill(known: Known, node: NodeName | None = OTHER, used: int = FULL, age: float = 3600) -> None:
    for index in range(4):
        known.add(str(SMALL.block_at(index)), node, used, age=age)


def test_an_old_empty_block_of_another_is_reclaimed_a_young_or_used_one_is_not() -> None:
    known = Known()
    fill(known)
    known.add("10.0.0.4/30", OTHER, 0, age=61)
    assert chosen(next_block(search(SMALL, strict=1), known)) == (How.RECLAIM, "10.0.0.4/30")
    known.add("10.0.0.4/30", OTHER, 0, age=60)
    assert next_block(search(SMALL, strict=1), known) is Shortage.STRICT
    known.add("10.0.0.4/30", OTHER, 1, age=3600)
    assert next_block(search(SMALL, strict=1), known) is Shortage.STRICT
    known.add("10.0.0.4/30", OTHER, 0, age=-3600)
    assert next_block(search(SMALL, strict=1), known) is Shortage.STRICT


def test_an_empty_block_without_claim_time_is_old() -> None:
    known = Known()
    fill(known)
    known.blocks[net("10.0.0.8/30")] = replace(new_block(net("10.0.0.8/30"), OTHER, NOW, 1), claimed_at=None)
    assert chosen(next_block(search(SMALL), known)) == (How.RECLAIM, "10.0.0.8/30")


def test_nothing_is_reclaimed_while_a_block_is_free() -> None:
    known = Known()
    fill(known, used=0)
    del known.blocks[net("10.0.0.8/30")]
    assert chosen(next_block(search(SMALL), known)) == (How.NEW, "10.0.0.8/30")


def test_a_block_of_ours_that_lost_its_ticket_is_taken_again_before_anothers() -> None:
    known = Known()
    fill(known, used=0)
    known.add("10.0.0.12/30", NODE, 2, ticket=False)
    assert chosen(next_block(search(SMALL), known)) == (How.OWN, "10.0.0.12/30")


def test_borrowing_goes_through_the_hosts_order_unless_affinity_is_strict() -> None:
    known = Known()
    fill(known, used=3)
    start = start_index(SMALL, search(SMALL))
    assert chosen(next_block(search(SMALL), known)) == (How.BORROW, str(SMALL.block_at(start)))
    assert next_block(search(SMALL, strict=1), known) is Shortage.STRICT


def test_nobodys_block_with_addresses_can_be_borrowed_from() -> None:
    known = Known()
    fill(known, node=None)
    known.add("10.0.0.8/30", None, 2)
    assert chosen(next_block(search(SMALL), known)) == (How.BORROW, "10.0.0.8/30")


def test_a_load_balancers_block_is_left_alone() -> None:
    known = Known()
    fill(known)
    empty = new_block(net("10.0.0.8/30"), OTHER, NOW - timedelta(days=1), 1)
    known.blocks[empty.cidr] = replace(empty, affinity="virtual:load-balancer")
    assert next_block(search(SMALL), known) is Shortage.EXHAUSTED


def test_an_unreadable_block_is_full_and_counts_as_owned() -> None:
    known = Known()
    fill(known)
    known.unreadable.add(net("10.0.0.8/30"))
    known.tickets.append(net("10.0.0.8/30"))
    assert next_block(search(SMALL), known) is Shortage.EXHAUSTED
    assert next_block(search(SMALL, limit=1), known) is Shortage.BLOCK_LIMIT


def test_a_wholly_reserved_block_is_neither_used_nor_claimed_nor_borrowed_from() -> None:
    reserved = of_networks([net("10.0.0.0/29"), net("10.0.0.8/31"), net("10.0.0.10/31")])
    known = Known()
    known.add("10.0.0.0/30", NODE, 0)
    assert chosen(next_block(search(SMALL, reserved=reserved), known)) == (How.NEW, "10.0.0.12/30")
    known.add("10.0.0.12/30", OTHER, FULL)
    known.add("10.0.0.4/30", OTHER, 1)
    assert next_block(search(SMALL, reserved=reserved), known) is Shortage.EXHAUSTED


def test_a_block_with_only_reserved_addresses_left_has_no_room() -> None:
    known = Known()
    known.add("10.0.0.0/30", NODE, 3)
    reserved = of_networks([net("10.0.0.3/32")])
    assert chosen(next_block(search(SMALL, reserved=reserved), known))[0] is How.NEW


def test_blocks_left_of_another_size_are_not_used_and_nothing_is_claimed_over_them() -> None:
    known = Known()
    known.add("10.0.0.0/29", NODE, 0)
    known.add("10.0.0.8/31", OTHER, 0)
    assert chosen(next_block(search(SMALL), known)) == (How.NEW, "10.0.0.12/30")
    known.tickets.append(net("10.0.0.8/30"))
    assert chosen(next_block(search(SMALL), known)) == (How.NEW, "10.0.0.12/30")
    known.add("10.0.0.12/30", OTHER, FULL)
    assert next_block(search(SMALL), known) is Shortage.EXHAUSTED


def test_of_two_pools_the_first_is_emptied_first() -> None:
    second = pool("192.0.2.0/28", 30)
    known = Known()
    assert chosen(next_block(search(second, SMALL), known))[1].startswith("192.0.2.")
    for index in range(4):
        known.add(str(second.block_at(index)), OTHER, FULL)
    assert chosen(next_block(search(second, SMALL), known))[1].startswith("10.0.0.")


def test_a_pool_of_two_to_the_74_blocks_is_no_slower_to_search_than_a_small_one() -> None:
    vast = pool("fd00::/48", 122)
    known = Known()
    start = start_index(vast, search(vast))
    for turn in range(50):
        how, cidr = chosen(next_block(search(vast, limit=1000), known))
        assert (how, cidr) == (How.NEW, str(vast.block_at((start + turn) % vast.block_count)))
        known.add(cidr, OTHER, 0)
    assert known.looks == 0


def test_half_a_vast_pool_reserved_is_jumped_over() -> None:
    vast = pool("fd00::/48", 122)
    reserved = of_networks([net("fd00::/49"), net("fd00:0:0:8000::/50")])
    for node in ("a", "b", "c", "d", "e"):
        wanted = replace(search(vast, reserved=reserved), node=NodeName(node))
        _, cidr = chosen(next_block(wanted, Known()))
        assert net(cidr)[0] in net("fd00:0:0:c000::/50")


# --- against the obvious way

numbers = st.integers(0, 15)


@given(start=numbers, existing=st.sets(st.sampled_from([
    *net("10.0.0.0/26").subnets(new_prefix=30), *net("10.0.0.0/26").subnets(new_prefix=29),
    *net("10.0.0.0/26").subnets(new_prefix=31), net("10.0.1.0/30"), net("0.0.0.0/0"),
]), max_size=12), reserved=st.lists(st.tuples(st.integers(-8, 72), st.integers(0, 20)), max_size=4))
def test_the_first_free_block_is_the_one_found_by_walking(
    start: int, existing: set[IPNetwork], reserved: list[tuple[int, int]]
) -> None:
    base = int(net("10.0.0.0/26")[0])
    some = pool("10.0.0.0/26", 30)
    kept = Ranges((base + first, base + first + length) for first, length in reserved)
    kept_addresses = {base + first + n for first, length in reserved for n in range(length + 1)}
    expected = None
    for turn in range(16):
        candidate = some.block_at((start + turn) % 16)
        is_taken = any(candidate.overlaps(other) for other in existing)
        if not is_taken and not all(int(address) in kept_addresses for address in candidate):
            expected = candidate
            break
    assert absent_block(some, start, existing, kept) == expected


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))), st.integers(0, 70), st.integers(0, 9))
def test_ranges_are_sets_of_integers(pairs: list[tuple[int, int]], number: int, length: int) -> None:
    ranges = Ranges((first, first + more) for first, more in pairs)
    members = {first + n for first, more in pairs for n in range(more + 1)}
    span = range(number, number + length + 1)
    assert (number in ranges) == (number in members)
    assert ranges.covers(span[0], span[-1]) == members.issuperset(span)
    assert ranges.count_within(span[0], span[-1]) == len(members.intersection(span))
    assert ranges.next_outside(number) == next(n for n in range(number, 200) if n not in members)
    flat: Mapping[int, None] = dict.fromkeys(n for first, last in ranges.pairs() for n in range(first, last + 1))
    assert set(flat) == members
