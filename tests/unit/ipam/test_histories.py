"""Any history of hosts, operators and lost answers, beside a slow model: who was told what, and what is free."""

import ipaddress
from collections import Counter
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.faulty_store import FaultyStore
from fakes.ipam_world import World
from ipam.audit import Kind
from ipam.cache import WatchedCache
from ipam.errors import AddressInUse, AffinityHeld, NotInPool, OutcomeUnknown, PoolUnusable, ReleaseRefused
from ipam.results import Assignment, Release, Shortage
from ipam.view import RESERVATIONS_PREFIX
from resources.datastore.sync import Change, Changes, InSync, OutOfSync
from resources.errors import DoesNotExist
from resources.names import HandleId, IPAddress, IPNetwork, NodeName

FIRST, SECOND = ipaddress.ip_network("10.8.0.0/28"), ipaddress.ip_network("10.9.0.0/29")
SIX = ipaddress.ip_network("fd00::/124")
BLOCK_SIZE: dict[IPNetwork, int] = {FIRST: 30, SECOND: 30, SIX: 126}
ADDRESSES: list[IPAddress] = [*FIRST, *SECOND, *SIX]
HOSTS = ("node1", "node2", "node3")
LIMIT = 3

hosts = st.sampled_from(HOSTS)
handles = st.sampled_from([HandleId("a"), HandleId("b"), HandleId("c")])
addresses = st.sampled_from(ADDRESSES)
versions = st.sampled_from([4, 6])


class Histories(RuleBasedStateMachine):
    """The model is `holders`: what somebody was told and has not given back."""

    is_exact = True
    """Whether a release always knows what was free before it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.faulty = FaultyStore(self.world.store)
        self.world.node(*HOSTS)
        self.allocators = {host: self.world.allocator(host, self.faulty) for host in HOSTS}
        self.holders: dict[IPAddress, HandleId] = {}
        self.disabled: set[IPNetwork] = set()
        self.reserved: set[IPAddress] = set()
        self.is_strict = False
        self.cooldown = 0

    @initialize()
    def begin(self) -> None:
        for pool in BLOCK_SIZE:
            self.write_pool(pool)

    def write_pool(self, pool: IPNetwork) -> None:
        self.world.pool(str(pool), blockSize=BLOCK_SIZE[pool], disabled=pool in self.disabled)

    def write_settings(self) -> None:
        limit = {"maxBlocksPerHost": LIMIT} if self.is_strict else {}
        self.world.config(strict_affinity=self.is_strict, ipCooldownSeconds=self.cooldown, **limit)

    # --- what hosts do

    @rule(host=hosts, version=versions, count=st.integers(1, 6), handle=handles)
    def auto_assign(self, host: str, version: int, count: int, handle: HandleId) -> None:
        enabled = [pool for pool in BLOCK_SIZE if pool.version == version and pool not in self.disabled]
        try:
            got = self.allocators[host].auto_assign(version=version, count=count, handle=handle)
        except PoolUnusable:
            assert not enabled
            return
        except OutcomeUnknown:
            self.find_out()
            return
        self.tell(got, enabled)
        self.check_shortage(host, got, enabled)

    def tell(self, got: Assignment, pools: list[IPNetwork]) -> None:
        for address in got.addresses:
            assert address not in self.holders
            assert address not in self.reserved
            assert any(address in pool for pool in pools)
            self.holders[address] = got.handle

    def find_out(self) -> None:
        """After "it is not known" whatever is there, or arrives yet, is the caller's."""
        self.faulty.deliver()
        for address, held in self.world.held().items():
            self.holders.setdefault(address, HandleId(held.handle or ""))

    def check_shortage(self, host: str, got: Assignment, pools: list[IPNetwork]) -> None:
        """Assert by looking at every address that nothing was left which the host might have had."""
        assert (got.shortage is None) == (len(got.addresses) == got.requested)
        if got.shortage is None:
            return
        free = [a for pool in pools for a in pool if a not in self.unavailable() and a not in self.reserved]
        owners = {cidr: block.node for cidr, block in self.world.blocks().items()}
        own = [cidr for cidr, node in owners.items() if node == host and any(cidr[0] in pool for pool in pools)]
        assert not [a for a in free if any(a in cidr for cidr in own)]
        if got.shortage is Shortage.BLOCK_LIMIT:
            assert len(own) >= (LIMIT if self.is_strict else 20)
            return
        assert not [a for a in free if not any(a in cidr for cidr in owners)]
        assert self.is_strict == (got.shortage is Shortage.STRICT)
        if not self.is_strict:
            assert free == []

    def unavailable(self) -> set[IPAddress]:
        """Return what is held or cooling down."""
        blocks = self.world.blocks().items()
        moment = self.world.clock.moment
        swept = [(cidr, block.swept(moment, self.cooldown)) for cidr, block in blocks]
        return {cidr[o] for cidr, block in swept for o, index in enumerate(block.allocations) if index is not None}

    @rule(host=hosts, address=addresses, handle=handles)
    def assign(self, host: str, address: IPAddress, handle: HandleId) -> None:
        unavailable = self.unavailable()
        pool = next(pool for pool in BLOCK_SIZE if address in pool)
        try:
            self.allocators[host].assign(address, handle=handle)
        except OutcomeUnknown:
            self.find_out()
        except AddressInUse:
            assert address in unavailable
            assert self.holders.get(address) != handle
        except NotInPool:
            assert pool in self.disabled
        except AffinityHeld:
            assert self.is_strict
            owner = next(block.node for cidr, block in self.world.blocks().items() if address in cidr)
            assert owner != host
        else:
            assert self.holders.get(address, handle) == handle
            self.holders[address] = handle

    @rule(host=hosts, some=st.lists(addresses, min_size=1, max_size=5))
    def release(self, host: str, some: list[IPAddress]) -> None:
        """Anybody releases on the holder's word; what nobody holds is reported."""
        releases = [Release(address, handle=self.holders.get(address)) for address in some]
        unallocated = self.allocators[host].release(releases)
        free = {address for address in some if address not in self.holders}
        assert set(unallocated) == free or (set(unallocated) < free and not self.is_exact)
        assert max(Counter(unallocated).values(), default=1) == 1
        for address in some:
            self.holders.pop(address, None)

    @rule(host=hosts, address=addresses, handle=handles)
    def release_what_is_anothers(self, host: str, address: IPAddress, handle: HandleId) -> None:
        if address in self.holders and self.holders[address] != handle:
            try:
                self.allocators[host].release([Release(address, handle=handle)])
            except ReleaseRefused:
                return
            raise AssertionError("it released what another holds")

    @rule(host=hosts, handle=handles)
    def release_by_handle(self, host: str, handle: HandleId) -> None:
        held = [address for address, holder in self.holders.items() if holder == handle]
        assert self.allocators[host].addresses_of_handle(handle) == sorted(held, key=lambda a: (a.version, a))
        try:
            assert self.allocators[host].release_by_handle(handle) == len(held)
        except DoesNotExist:
            assert held == []
        for address in held:
            del self.holders[address]

    @rule(host=hosts, node=hosts, must_be_empty=st.booleans())
    def give_up(self, host: str, node: str, must_be_empty: bool) -> None:
        self.allocators[host].release_host_affinities(NodeName(node), must_be_empty=must_be_empty)
        left = [block for block in self.world.blocks().values() if block.node == node]
        assert all(must_be_empty and not block.is_empty for block in left)

    @rule(host=hosts, pool=st.sampled_from([FIRST, SECOND, SIX]))
    def claim(self, host: str, pool: IPNetwork) -> None:
        before = {cidr: block.node for cidr, block in self.world.blocks().items()}
        try:
            result = self.allocators[host].claim_affinity(pool)
        except NotInPool:
            assert pool in self.disabled
            return
        assert set(result.failed) == {
            cidr for cidr, node in before.items() if cidr[0] in pool and node != host
        }
        assert len(result.claimed) + len(result.failed) == 2 ** (BLOCK_SIZE[pool] - pool.prefixlen)

    # --- what operators and time do

    @rule(pool=st.sampled_from([FIRST, SECOND, SIX]))
    def toggle_pool(self, pool: IPNetwork) -> None:
        self.disabled ^= {pool}
        self.write_pool(pool)

    @rule()
    def toggle_strictness(self) -> None:
        self.is_strict = not self.is_strict
        self.write_settings()

    @rule(seconds=st.sampled_from([0, 30]))
    def set_cooldown(self, seconds: int) -> None:
        self.cooldown = seconds
        self.write_settings()

    @rule(some=st.sets(addresses, max_size=4), pool=st.sampled_from([None, SECOND]))
    def reserve(self, some: set[IPAddress], pool: IPNetwork | None) -> None:
        self.reserved = {*some, *(pool or [])}
        self.world.reserve(*map(str, some), *([str(pool)] if pool else []))

    @rule(seconds=st.sampled_from([1, 31, 61]))
    def wait(self, seconds: int) -> None:
        self.world.clock.now += seconds

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def clock_jumps(self, seconds: int) -> None:
        self.world.clock.offset += seconds

    @rule(fault=st.sampled_from(["lose_answer", "delay", "fail"]), nth=st.integers(1, 3))
    def fault(self, fault: Literal["lose_answer", "delay", "fail"], nth: int) -> None:
        match fault:
            case "lose_answer":
                self.faulty.lose_answer(nth)
            case "delay":
                self.faulty.delay(nth)
            case "fail":
                self.faulty.fail(nth)

    @rule()
    def deliver(self) -> None:
        """What was on its way arrives: it was decided before.

        But one that compares only what does not exist can still find it so, after all of it came and went: it claims
        a block then, at worst with an address that nobody was told. Such a leak is found under its handle.
        """
        before = self.world.blocks()
        self.faulty.deliver()
        for cidr, block in self.world.blocks().items():
            assert cidr in before or block.node is not None
            assert block == before.get(cidr, block)
        for address, held in self.world.held().items():
            if address not in self.holders:
                self.holders[address] = HandleId(held.handle or "")

    # --- what always holds

    @precondition(lambda self: True)
    @invariant()
    def sound(self) -> None:
        self.world.assert_sound(self.holders, allow=frozenset({Kind.LEAKED_HANDLE}))


class CachedHistories(Histories):
    """The same with allocators that plan on what a watch has told them, which comes late or not at all.

    A release planned on an old block, whose answer is lost, cannot tell whether it or somebody before it freed an
    address: it may count it as released.
    """

    is_exact = False

    @initialize()
    def begin(self) -> None:
        super().begin()
        self.caches = {host: WatchedCache(self.faulty, NodeName(host)) for host in HOSTS}
        for host, cache in self.caches.items():
            self.allocators[host] = self.world.allocator(host, self.faulty, source=cache.source)
            for prefix in cache.prefixes:
                self.catch_up(host, prefix)
            cache.take(InSync())

    def catch_up(self, host: str, prefix: str) -> None:
        """Tell a cache all that changed below a prefix, as the watch would."""
        cache = self.caches[host]
        there = self.world.store.list(prefix)
        changes = [Change(kv.key, kv.value, kv.revision) for kv in there.items]
        gone = {kv.key for kv in cache.below(prefix)} - {kv.key for kv in there.items}
        cache.take(Changes((*changes, *(Change(key, None, there.revision) for key in sorted(gone)))))

    @rule(some=st.sets(addresses, max_size=4), pool=st.sampled_from([None, SECOND]))
    def reserve(self, some: set[IPAddress], pool: IPNetwork | None) -> None:
        """Reservations are not compared: one that the watch has not told yet comes after the assignment."""
        super().reserve(some, pool)
        for host in HOSTS:
            self.catch_up(host, RESERVATIONS_PREFIX)

    @rule(host=hosts, which=st.integers(0, 4))
    def the_watch_tells(self, host: str, which: int) -> None:
        self.catch_up(host, self.caches[host].prefixes[which])

    @rule(host=hosts, is_away=st.booleans())
    def the_watch_comes_and_goes(self, host: str, is_away: bool) -> None:
        if is_away:
            self.caches[host].take(OutOfSync("it is away"))
            return
        for prefix in self.caches[host].prefixes:
            self.catch_up(host, prefix)
        self.caches[host].take(InSync())


Histories.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
CachedHistories.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCachedHistories = CachedHistories.TestCase
