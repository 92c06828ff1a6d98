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
from fakes.felix_records import ELSEWHERE, HERE, network_profile, policy, rule, tier, workload
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


ROLES = ["", "x", "y", "z"]
# A set is named by what opens or by what closes, as `members_order` asks.
OPENING = ["role == 'x'", "role in {'x', 'y'}"]
CLOSING = ["role == 'y'", "role in {'y', 'z'}"]
RULES = st.one_of(
    st.builds(lambda s: rule("Allow", source=EntityRule(selector=s)), st.sampled_from(OPENING)),
    st.builds(lambda s: rule("Allow", destination=EntityRule(selector=s)), st.sampled_from(OPENING)),
    st.builds(lambda s: rule("Deny", source=EntityRule(not_selector=s)), st.sampled_from(OPENING)),
    st.builds(lambda s: rule("Deny", source=EntityRule(selector=s)), st.sampled_from(CLOSING)),
    st.builds(lambda s: rule("Deny", destination=EntityRule(selector=s)), st.sampled_from(CLOSING)),
    st.builds(lambda s: rule("Allow", source=EntityRule(not_selector=s)), st.sampled_from(CLOSING)),
    st.sampled_from([ALLOW, DENY, PASS]),
)
POLICIES = st.tuples(
    st.sampled_from(["has(name)", "name == 'a'", "role == 'x'", "role in {'y', 'z'}"]),
    st.none() | st.lists(RULES, max_size=3),
    st.none() | st.lists(RULES, max_size=3),
    st.sampled_from([1.0, 2.0, None]),
    st.sampled_from(["default", "first"]),
)
Drawn = tuple[str, list[Rule] | None, list[Rule] | None, float | None, str]


def drawn(policies: Mapping[int, Drawn], roles: Sequence[str]) -> Records:
    made = []
    for number, (selector, into, out, order, tier_name) in policies.items():
        types = [name for name, rules in (("Ingress", into), ("Egress", out)) if rules is not None]
        made.append(policy(f"p{number}", selector, into or [], out or [], order=order, tier=tier_name, types=types))
    return state(tier("first", 1, "Pass"), *made, **dict(zip(ADDRESSES, roles, strict=True)))


STATES = st.builds(
    drawn,
    st.dictionaries(st.sampled_from(range(4)), POLICIES, max_size=4),
    st.tuples(*(st.sampled_from(ROLES) for _ in ADDRESSES)),
)


@settings(max_examples=60)
@given(st.lists(STATES, min_size=2, max_size=4))
def test_at_every_moment_of_a_change_only_that_passes_which_passes_before_or_after(history: list[Records]) -> None:
    watched = Watched()
    watched.go(history[0])
    for records in history[1:]:
        before = watched.passing()
        seen = watched.go(records)
        after = watched.passing()
        for number, passing in enumerate(seen):
            note(f"after write {number} of {len(seen)}: {sorted(passing - before - after)}")
            assert passing <= before | after
