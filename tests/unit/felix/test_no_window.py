"""While a change is written, nothing passes that neither the old state nor the new one lets pass.

Sets and tables are not written at one stroke, and neither are two sets: so the walk through the rules is repeated after
every single write to a kernel of fakes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fakes.felix_host import FelixHost
from fakes.felix_records import ELSEWHERE, HERE, network_profile, policy, profile, rule, tier, workload
from fakes.kernel import FakeKernel
from fakes.packets import Machine, Packet
from fakes.sets import FakeSets
from fakes.tables import FakeTables
from felix.calc.model import NO_GROWTH, Growth, members_order
from felix.calc.remote import RemoteChanges
from felix.desired import TABLES, Chain, ChainKey, Desired, IPSet, KernelChain
from felix.pipeline import Pipeline
from kernel.errors import DataplaneError
from kernel.sets import SetDelta
from kernel.xtables import KERNEL_CHAINS, TableChange, TableKey
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.rule import EntityRule, Rule
from resources.names import NodeName
from resources.runtime.options import Source

ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3", "far": "10.0.1.1"}
Records = Mapping[ResourceKey, Resource]


class WatchedSets(FakeSets):
    """Works through a batch member by member, as the kernel does, and lets somebody look after each."""

    look: Callable[[], None] = staticmethod(lambda: None)

    def apply(self, deltas: Sequence[SetDelta]) -> dict[str, DataplaneError]:
        for delta in deltas:
            single = [replace(delta, add=frozenset({one}), remove=frozenset()) for one in sorted(delta.add)]
            single += [replace(delta, add=frozenset(), remove=frozenset({one})) for one in sorted(delta.remove)]
            for step in single or [delta]:
                assert super().apply([step]) == {}
                self.look()
        return {}


class WatchedTables(FakeTables):
    look: Callable[[], None] = staticmethod(lambda: None)

    def write(self, key: TableKey, change: TableChange) -> dict[str, DataplaneError]:
        stuck = super().write(key, change)
        self.look()
        return stuck


class Watched:
    """Felix on fakes; `go` brings it to other records and returns what passed after each write, as ``a>b``."""

    def __init__(self) -> None:
        kernel = FakeKernel()
        self.sets = kernel.sets = WatchedSets()
        self.tables = kernel.tables = WatchedTables(kernel.sets)
        self.host = FelixHost(kernel=kernel)
        self.pipeline = Pipeline(NodeName(HERE), [Source("test", {"Ipv6Support": "false"})])
        self.records: Records = {}

    def go(self, records: Records) -> list[set[str]]:
        for key in self.records.keys() - records.keys():
            self.pipeline.update(key, None)
        for key, value in records.items():
            if self.records.get(key) != value:
                self.pipeline.update(key, value)
        self.records = records
        self.host.dataplane.want(self.pipeline.flush())
        seen: list[set[str]] = []
        self.sets.look = self.tables.look = lambda: seen.append(self.passing())
        assert self.host.dataplane.apply().is_clean
        self.sets.look = self.tables.look = lambda: None
        return seen

    def restart(self) -> None:
        """A new process: it knows nothing of what the old one had written."""
        self.host.restart()
        self.pipeline = Pipeline(NodeName(HERE), [Source("test", {"Ipv6Support": "false"})])
        self.records = {}

    def passing(self) -> set[str]:
        machine = Machine(in_the_kernel(self.tables, self.sets))
        return {
            f"{source}>{target}"
            for source in ADDRESSES
            for target in ADDRESSES
            if source != target and machine.forward(packet(source, target))
        }


def packet(source: str, target: str) -> Packet:
    def interface(name: str) -> str:
        return "eth0" if name == "far" else f"cali{name}"

    return Packet(
        source=ADDRESSES[source], destination=ADDRESSES[target],
        in_interface=interface(source), out_interface=interface(target),
    )  # fmt: skip


def in_the_kernel(tables: FakeTables, sets: FakeSets) -> Desired:
    chains: dict[ChainKey, Chain] = {}
    kernel_chains: dict[ChainKey, KernelChain] = {}
    for table in TABLES:
        for name, rules in tables.rules(TableKey(4, table)).items():
            made = Chain(rules, tuple(re.findall(r'"cali:([^"]{16})"', "\n".join(rules))))
            if name in KERNEL_CHAINS[table]:
                kernel_chains[ChainKey(4, table, name)] = KernelChain(inserts=made)
            else:
                chains[ChainKey(4, table, name)] = made
    held = sets.read(("cali",)).items()
    return Desired(
        sets={name: IPSet(one.spec.type, one.spec.version, one.members) for name, one in held},
        chains=chains,
        kernel_chains=kernel_chains,
        interfaces={},
        remote=RemoteChanges(),
    )


def endpoint(name: str, *, role: str = "") -> tuple[ResourceKey, Resource]:
    node = ELSEWHERE if name == "far" else HERE
    labels = {"name": name, **({"role": role} if role else {})}
    return workload(name, f"{ADDRESSES[name]}/32", node=node, profiles=["net"], labels=labels)


def state(*records: tuple[ResourceKey, Resource], **roles: str) -> Records:
    made = [endpoint(name, role=roles.get(name, "")) for name in ADDRESSES]
    return dict([network_profile("net"), *made, *records])


def of(role: str) -> EntityRule:
    return EntityRule(selector=f"role == '{role}'")


def ingress(name: str, selector: str, *rules: Rule, order: float = 5) -> tuple[ResourceKey, Resource]:
    return policy(name, selector, list(rules), types=["Ingress"], order=order)


ALLOW, DENY, PASS = (Rule(action=action) for action in ("Allow", "Deny", "Pass"))
DENY_BAD, DENY_EVIL = rule("Deny", source=of("bad")), rule("Deny", source=of("evil"))
ALLOW_GOOD, ALLOW_BETTER = rule("Allow", source=of("good")), rule("Allow", source=of("better"))
ELSE_DENY = ingress("else", "name == 'c'", DENY_BAD, DENY_EVIL)
ELSE_ALLOW = ingress("else", "name == 'c'", ALLOW_GOOD, ALLOW_BETTER)
def closes(change: TableChange) -> bool:
    return any(chain.startswith("cali-pi-") for chain in change.insert)


ELSE_BOTH = ingress("else", "name == 'c'", DENY_BAD, ALLOW_GOOD, rule("Deny", source=of("good")),
                    rule("Allow", source=of("bad")))  # fmt: skip
NET_DENIES = profile("net", [], [ALLOW], {"net": ""})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            state(ingress("p", "name == 'a'", DENY_BAD, ALLOW), ELSE_DENY, b="bad"),
            state(ingress("p", "name == 'a'", DENY_EVIL, ALLOW), ELSE_DENY, b="evil"),
            id="the denied one and its policy change their word for it",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", DENY_BAD, DENY_EVIL, ALLOW), b="bad"),
            state(ingress("p", "name == 'a'", DENY_BAD, DENY_EVIL, ALLOW), b="evil"),
            id="it goes from one denied set to another",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", DENY_BAD, DENY_EVIL, ALLOW), b="evil"),
            state(ingress("p", "name == 'a'", DENY_BAD, DENY_EVIL, ALLOW), b="bad"),
            id="and back",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", ALLOW_GOOD), ELSE_ALLOW, b="better"),
            state(ingress("p", "name == 'a'", ALLOW_BETTER), ELSE_ALLOW, b="good"),
            id="what was not allowed and what is not any more",
        ),
        pytest.param(
            state(ingress("p", "role == 'one'", DENY_BAD, ALLOW), a="one", b="bad"),
            state(
                ingress("p", "role == 'one'", DENY_BAD, ALLOW), policy("q", "role == 'two'", [], [DENY]),
                ELSE_DENY, a="one", b="two",
            ),
            id="it may not send any more instead of not being heard",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", rule("Allow", source=EntityRule(not_selector="role == 'bad'"))), b="bad"),
            state(ingress("p", "name == 'a'", rule("Allow", source=EntityRule(not_selector="role == 'evil'"))),
                  ingress("else", "name == 'c'", rule("Allow", source=EntityRule(not_selector="role == 'bad'"))),
                  b="evil"),
            id="all but it",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", ALLOW_GOOD)),
            state(ingress("p", "name == 'a'", rule("Deny", source=of("good")), ALLOW), b="good"),
            id="what allowed it, had it been good, denies it now that it is",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", DENY_BAD, ALLOW), ELSE_BOTH, b="bad"),
            state(ingress("p", "name == 'a'", rule("Allow", source=of("bad"))), ELSE_BOTH),
            id="what denied it, being bad, allows only the bad now that it is not",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", rule("Allow", source=of("good"), destination=of("bad"))), ELSE_BOTH,
                  b="good"),
            state(ingress("p", "name == 'a'", rule("Allow", source=of("good"), destination=of("bad"))), ELSE_BOTH,
                  a="bad"),
            id="no rule changes, but two sets that others allow and deny",
        ),
        pytest.param(
            state(ingress("p", "name == 'a'", rule("Pass", source=of("good")), DENY, order=1), b=""),
            state(ingress("p", "name == 'a'", rule("Pass", source=of("good")), order=1),
                  ingress("q", "name == 'a'", DENY, order=2), NET_DENIES, b="good"),
            id="passed on to who denies it now",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "while away"])
def test_what_is_denied_before_and_after_is_denied_in_between(
    before: Records, after: Records, restarted: bool
) -> None:
    watched = Watched()
    watched.go(before)
    assert "b>a" not in watched.passing()
    if restarted:
        watched.restart()
    seen = watched.go(after)
    assert seen
    assert not any("b>a" in passing for passing in seen)
    assert "b>a" not in watched.passing()


def test_the_order_of_members_and_rules() -> None:
    opens, closes, both = Growth.OPENS, Growth.CLOSES, Growth.OPENS | Growth.CLOSES
    assert members_order(opens, opens) == (True, False)
    assert members_order(closes, closes) == (False, True)
    assert members_order(NO_GROWTH, both) == (False, False)
    assert members_order(both, opens) == (True, True)
    assert members_order(both, closes) == (False, True)


@pytest.mark.parametrize(
    ("before", "after", "rewritten", "closed"),
    [
        pytest.param(state(ELSE_BOTH), state(ELSE_BOTH, far="good"), 0, 0, id="one member of one set"),
        pytest.param(state(ELSE_BOTH, far="good"), state(ELSE_BOTH, far="bad"), 1, 1, id="from one set to another"),
        pytest.param(state(ELSE_ALLOW, far="good"), state(ELSE_ALLOW, far="better"), 0, 0, id="sets with an order"),
        pytest.param(
            state(ELSE_BOTH), state(ELSE_BOTH, ingress("q", "name == 'b'", DENY)), 1, 0, id="rules, and no member"
        ),
    ],
)
def test_only_what_has_no_safe_order_costs_a_transaction_more(
    before: Records, after: Records, rewritten: int, closed: int
) -> None:
    watched = Watched()
    watched.go(before)
    watched.tables.log.clear()
    watched.go(after)
    closing = [change for _, change in watched.tables.log if closes(change)]
    assert len(closing) == closed
    assert len(watched.tables.log) - len(closing) == rewritten


def test_a_new_workload_that_joins_such_a_set_costs_nothing_more_here_and_none_when_it_goes() -> None:
    watched = Watched()
    without_b = {key: value for key, value in state(ELSE_BOTH).items() if key != endpoint("b")[0]}
    watched.go(without_b)
    watched.tables.log.clear()
    watched.go(state(ELSE_BOTH, b="good"))
    watched.go(without_b)
    assert len(watched.tables.log) == 2
    assert not any(closes(change) for _, change in watched.tables.log)


def test_a_closed_chain_keeps_its_rules_and_their_counters() -> None:
    watched = Watched()
    watched.go(state(ELSE_BOTH, far="good"))
    watched.tables.log.clear()
    watched.go(state(ELSE_BOTH, far="bad"))
    (_, closing), (_, opening) = watched.tables.log
    assert not closing.chains
    assert not opening.chains
    assert [chain for chain, _ in opening.delete] == list(closing.insert)


ROLES = ["", "x", "y", "z"]
SELECTORS = ["role == 'x'", "role in {'x', 'y'}", "role == 'y'", "role in {'y', 'z'}"]


def rules_about(actions: Sequence[str]) -> st.SearchStrategy[Rule]:
    """Draw rules with a selector at one end or at both: any set may be asked for by what opens and by what closes."""
    end = st.one_of(
        st.builds(lambda s: EntityRule(selector=s), st.sampled_from(SELECTORS)),
        st.builds(lambda s: EntityRule(not_selector=s), st.sampled_from(SELECTORS)),
    )
    ends = st.one_of(
        end.map(lambda one: {"source": one}),
        end.map(lambda one: {"destination": one}),
        st.builds(lambda one, other: {"source": one, "destination": other}, end, end),
    )
    return st.builds(lambda action, ends: rule(action, **ends), st.sampled_from(actions), ends)


RULES = st.one_of(rules_about(["Allow", "Deny"]), rules_about(["Pass"]), st.sampled_from([ALLOW, DENY, PASS]))
POLICIES = st.tuples(
    st.sampled_from(["has(name)", "name == 'a'", "role == 'x'", "role in {'y', 'z'}"]),
    st.none() | st.lists(RULES, max_size=3),
    st.none() | st.lists(RULES, max_size=3),
    st.sampled_from([1.0, 2.0, None]),
    st.sampled_from(["default", "first"]),
)
Drawn = tuple[str, list[Rule] | None, list[Rule] | None, float | None, str]


def drawn(policies: Mapping[int, Drawn], roles: Sequence[str | None]) -> Records:
    """Make records; an endpoint without a role (None) is not there at all."""
    made = []
    for number, (selector, into, out, order, tier_name) in policies.items():
        types = [name for name, rules in (("Ingress", into), ("Egress", out)) if rules is not None]
        made.append(policy(f"p{number}", selector, into or [], out or [], order=order, tier=tier_name, types=types))
    endpoints = [endpoint(name, role=role) for name, role in zip(ADDRESSES, roles, strict=True) if role is not None]
    return dict([network_profile("net"), tier("first", 1, "Pass"), *endpoints, *made])


POLICY_SETS = st.dictionaries(st.sampled_from(range(6)), POLICIES, max_size=6)
ROLE_SETS = st.tuples(*(st.sampled_from([*ROLES, *ROLES, None]) for _ in ADDRESSES))
STATES = st.builds(drawn, POLICY_SETS, ROLE_SETS)
UNDER_THE_SAME_POLICIES = st.builds(
    lambda policies, roles: [drawn(policies, each) for each in roles],
    POLICY_SETS,
    st.lists(ROLE_SETS, min_size=2, max_size=5),
)
"""Where only members change: one of them has a safe order, or needs none, and more may have none."""


@settings(max_examples=100)
@given(
    st.one_of(st.lists(STATES, min_size=2, max_size=4), UNDER_THE_SAME_POLICIES),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_at_every_moment_of_a_change_only_that_passes_which_passes_before_or_after(
    history: list[Records], restarts: list[bool]
) -> None:
    watched = Watched()
    watched.go(history[0])
    for records, restarted in zip(history[1:], restarts, strict=False):
        before = watched.passing()
        if restarted:
            watched.restart()
        seen = watched.go(records)
        after = watched.passing()
        for number, passing in enumerate(seen):
            note(f"after write {number} of {len(seen)}: {sorted(passing - before - after)}")
            assert passing <= before | after
