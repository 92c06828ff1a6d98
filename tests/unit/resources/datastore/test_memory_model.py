"""The store in memory beside a model that keeps every past state whole."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fakes.clock import ManualClock
from resources.datastore.memory import MemoryStore
from resources.datastore.store import ABSENT, Committed, Compacted, KeyValue, Lost, Transaction

KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/b", "/b/1", "/é"])
PREFIXES = st.sampled_from(["", "/", "/a", "/a/", "/b/", "/zz"])
VALUES = st.binary(max_size=2)

State = dict[str, tuple[bytes, int]]


class StoreMachine(RuleBasedStateMachine):
    """`states[n]` is everything as it was at revision n; `leases` has the end and the revision of each key's lease."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.states: list[State] = [{}, {}]
        self.leases: dict[str, tuple[float, int]] = {}
        self.compacted = 0

    @property
    def now(self) -> State:
        return self.states[-1]

    @rule(
        guesses=st.dictionaries(KEYS, st.integers(0, 2), max_size=3),
        puts=st.dictionaries(KEYS, VALUES, max_size=3),
        deletes=st.frozensets(KEYS, max_size=2),
        lease=st.none() | st.integers(1, 5),
    )
    def commit(
        self, guesses: dict[str, int], puts: dict[str, bytes], deletes: frozenset[str], lease: int | None
    ) -> None:
        """Guess 0: absent; 1: the right revision; 2: the right revision of something else."""
        right = {key: self.now[key][1] if key in self.now else ABSENT for key in guesses}
        expect = {key: (ABSENT, right[key], len(self.states) + 7)[guess] for key, guess in guesses.items()}
        deletes -= puts.keys()
        outcome = self.store.commit(Transaction(expect=expect, puts=puts, deletes=deletes, lease_seconds=lease))
        if expect != right:
            assert isinstance(outcome, Lost)
            assert outcome.current == {
                key: KeyValue(key, *self.now[key]) if key in self.now else None for key in expect
            }
            return
        assert isinstance(outcome, Committed)
        revision = len(self.states)
        after = {key: item for key, item in self.now.items() if key not in deletes}
        after |= {key: (value, revision) for key, value in puts.items()}
        if puts or after != self.now:
            self.states.append(after)
            self.leases = {key: held for key, held in self.leases.items() if key in after and key not in puts}
            if lease is not None:
                self.leases |= dict.fromkeys(puts, (self.clock.now + max(lease, 2), revision))
        assert outcome.revision == len(self.states) - 1

    @rule(seconds=st.integers(1, 4))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.sleep(seconds)
        self.store.expire()
        for lease in sorted({lease for lease in self.leases.values() if lease[0] <= self.clock.now}):
            gone = {key for key, held in self.leases.items() if held == lease}
            self.states.append({key: item for key, item in self.now.items() if key not in gone})
            self.leases = {key: held for key, held in self.leases.items() if key not in gone}

    @rule(back=st.integers(0, 5))
    def compact(self, back: int) -> None:
        revision = max(1, len(self.states) - 1 - back)
        self.store.compact(revision)
        self.compacted = max(self.compacted, revision)

    @rule(prefix=PREFIXES, back=st.integers(0, 12))
    def watch(self, prefix: str, back: int) -> None:
        start = max(1, len(self.states) - back)
        if start < self.compacted:
            with pytest.raises(Compacted), self.store.watch({prefix: start}) as watch:
                next(iter(watch))
            return
        expected = []
        for revision in range(start, len(self.states)):
            before, after = self.states[revision - 1], self.states[revision]
            changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            expected += sorted(
                (revision, key, after[key][0] if key in after else None) for key in changed if key.startswith(prefix)
            )
        if expected:
            with self.store.watch({prefix: start}) as watch:
                batch = next(iter(watch))
            got = [(event.revision, event.key, event.value) for event in batch.events]
            assert sorted(got, key=lambda event: event[:2]) == expected
            assert [event[0] for event in got] == sorted(event[0] for event in got)

    @rule(prefix=PREFIXES)
    def list(self, prefix: str) -> None:
        snapshot = self.store.list(prefix)
        assert snapshot.revision == len(self.states) - 1
        assert [(kv.key, (kv.value, kv.revision)) for kv in snapshot.items] == sorted(
            (item for item in self.now.items() if item[0].startswith(prefix)), key=lambda item: item[0].encode()
        )

    @invariant()
    def every_key_reads_as_in_the_model(self) -> None:
        for key in ("/a", "/b/1", "/é"):
            expected = KeyValue(key, *self.now[key]) if key in self.now else None
            assert self.store.get(key) == expected


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
