"""What every TableKernel must do. A test module for one implementation derives from `TableContract` and gives the
fixture `operator`.
"""

from typing import Protocol

import pytest

from kernel.errors import TableRefused
from kernel.xtables import KERNEL_CHAINS, TableChange, TableKernel, TableKey, TableState

FILTER = TableKey(4, "filter")
EVERY = [TableKey(version, table) for version in (4, 6) for table in KERNEL_CHAINS]


class Operator(Protocol):
    """A host and what is done to it from outside."""

    @property
    def tables(self) -> TableKernel: ...
    def append(self, key: TableKey, chain: str, rule: str) -> None:
        """Append a rule, in a chain that is made if it is not there."""

    def rules(self, key: TableKey, chain: str) -> list[str]:
        """Return all rules of a chain, in whichever words, as long as they are stable."""

    def make_set(self, name: str) -> None:
        """Make a set of addresses."""


def tagged(letter: str, rest: str) -> str:
    return f'-m comment --comment "cali:{letter * 16}" {rest}'


def tags(state: TableState, chain: str) -> list[str | None]:
    """Return the tags of an outside chain, None for a foreign rule."""
    return [rule.tag if rule.is_ours else None for rule in state.outside[chain]]


JUMP = TableChange(
    chains={"cali-FORWARD": [tagged("a", "--jump cali-x"), tagged("b", "--jump ACCEPT")], "cali-x": []},
    insert={"FORWARD": [tagged("1", "--jump cali-FORWARD")]},
)


class TableContract:
    @pytest.fixture
    def operator(self) -> Operator:
        raise AssertionError("a test module gives this fixture")

    @pytest.fixture
    def tables(self, operator: Operator) -> TableKernel:
        return operator.tables

    def test_there_is_nothing_of_ours_at_first(self, tables: TableKernel) -> None:
        for key in EVERY:
            state = tables.read(key)
            assert state.chains == {}
            assert not any(rule.is_ours for rules in state.outside.values() for rule in rules)

    @pytest.mark.parametrize("key", EVERY, ids=str)
    def test_chains_are_read_as_they_were_written(self, tables: TableKernel, key: TableKey) -> None:
        kernel_chain = KERNEL_CHAINS[key.table][0]
        change = TableChange(
            chains={"cali-x": [tagged("a", "-p tcp --jump RETURN"), tagged("b", "--jump RETURN")], "cali-y": []},
            insert={kernel_chain: [tagged("1", "--jump cali-x")]},
        )
        assert tables.write(key, change) == {}
        state = tables.read(key)
        assert state.chains == {"cali-x": ("a" * 16, "b" * 16), "cali-y": ()}
        assert tags(state, kernel_chain) == ["1" * 16]
        assert all(tables.read(other).chains == {} for other in EVERY if other != key)

    def test_a_chain_is_rewritten_whole(self, tables: TableKernel) -> None:
        tables.write(FILTER, JUMP)
        assert tables.write(FILTER, TableChange(chains={"cali-FORWARD": [tagged("c", "--jump DROP")]})) == {}
        assert tables.read(FILTER).chains == {"cali-FORWARD": ("c" * 16,), "cali-x": ()}

    def test_rules_without_a_tag_in_our_chains_are_seen(self, operator: Operator) -> None:
        operator.tables.write(FILTER, JUMP)
        operator.append(FILTER, "cali-x", "-s 10.0.0.1/32 -j ACCEPT")
        assert operator.tables.read(FILTER).chains["cali-x"] == ("",)

    def test_rules_go_first_and_last_in_a_kernel_chain(self, operator: Operator) -> None:
        operator.append(FILTER, "FORWARD", "-s 10.9.9.9/32 -j DROP")
        change = TableChange(
            chains={"cali-x": []},
            insert={"FORWARD": [tagged("1", "--jump cali-x"), tagged("2", "--jump cali-x")]},
            append={"FORWARD": [tagged("3", "--jump ACCEPT"), tagged("4", "--jump cali-x")]},
        )
        assert operator.tables.write(FILTER, change) == {}
        assert tags(operator.tables.read(FILTER), "FORWARD") == ["1" * 16, "2" * 16, None, "3" * 16, "4" * 16]

    def test_our_rules_are_deleted_by_their_text_and_foreign_ones_stay(self, operator: Operator) -> None:
        foreign = ["-s 10.9.9.9/32 -j DROP", '-m comment --comment "not cali: ours" -j ACCEPT']
        for rule in foreign:
            operator.append(FILTER, "FORWARD", rule)
        before = operator.rules(FILTER, "FORWARD")
        for _ in range(2):  # the second makes doubles
            operator.tables.write(FILTER, JUMP)
        operator.append(FILTER, "FORWARD", "-j cali-x")  # as releases without tags wrote them
        found = operator.tables.read(FILTER).outside["FORWARD"]
        assert [rule.is_ours for rule in found] == [True, True, False, False, True]
        delete = [("FORWARD", rule.text) for rule in found if rule.text is not None]
        assert operator.tables.write(FILTER, TableChange(delete=delete)) == {}
        assert operator.rules(FILTER, "FORWARD") == before

    def test_a_rule_of_ours_in_a_foreign_chain_is_seen(self, operator: Operator) -> None:
        operator.tables.write(FILTER, JUMP)
        operator.append(FILTER, "DOCKER-USER", "-s 10.9.9.9/32 -j DROP")
        assert "DOCKER-USER" not in operator.tables.read(FILTER).outside
        operator.append(FILTER, "DOCKER-USER", "-j cali-x")
        assert tags(operator.tables.read(FILTER), "DOCKER-USER") == [None, None]
        assert [rule.is_ours for rule in operator.tables.read(FILTER).outside["DOCKER-USER"]] == [False, True]

    def test_chains_are_removed(self, tables: TableKernel) -> None:
        tables.write(FILTER, JUMP)
        delete = [("FORWARD", rule.text) for rule in tables.read(FILTER).outside["FORWARD"] if rule.text is not None]
        change = TableChange(delete=delete, remove_chains=frozenset({"cali-FORWARD", "cali-x"}))
        assert tables.write(FILTER, change) == {}
        assert tables.read(FILTER).chains == {}

    def test_a_chain_somebody_jumps_to_stays_empty_and_the_others_go(self, operator: Operator) -> None:
        rule = tagged("a", "--jump ACCEPT")
        operator.tables.write(FILTER, TableChange(chains={"cali-x": [rule], "cali-y": [rule], "cali-z": [rule]}))
        operator.append(FILTER, "FORWARD", "-j cali-y")
        failed = operator.tables.write(FILTER, TableChange(remove_chains=frozenset({"cali-x", "cali-y", "cali-z"})))
        assert {chain: type(error) for chain, error in failed.items()} == {"cali-y": TableRefused}
        assert operator.tables.read(FILTER).chains == {"cali-y": ()}

    @pytest.mark.parametrize(
        ("guilty", "chains"),
        [
            (TableChange(chains={"cali-y": [tagged("c", "-m set --match-set nosuch src --jump DROP")]}), {"cali-y"}),
            (TableChange(chains={"cali-y": [tagged("c", "--jump cali-nosuch")]}), {"cali-y", None}),
            (TableChange(delete=[("FORWARD", "-s 10.1.1.1/32 -j DROP")]), {"FORWARD"}),
            (TableChange(append={"NOSUCH": [tagged("c", "--jump ACCEPT")]}), {"NOSUCH", None}),
        ],
        ids=["missing set", "missing chain", "nothing to delete", "missing foreign chain"],
    )
    def test_a_refused_change_changes_nothing(
        self, operator: Operator, guilty: TableChange, chains: set[str | None]
    ) -> None:
        """`chains`: what may be named as guilty."""
        operator.tables.write(FILTER, JUMP)
        before = operator.tables.read(FILTER)
        change = TableChange(
            chains={"cali-FORWARD": [tagged("d", "--jump DROP")], "cali-new": [], **guilty.chains},
            delete=guilty.delete,
            append=guilty.append,
            remove_chains=frozenset({"cali-x"}),
        )
        with pytest.raises(TableRefused) as refused:
            operator.tables.write(FILTER, change)
        assert refused.value.chain in chains
        assert operator.tables.read(FILTER) == before

    def test_a_rule_may_name_a_set(self, operator: Operator) -> None:
        operator.make_set("cali40s")
        rule = tagged("a", "-m set --match-set cali40s src --jump ACCEPT")
        assert operator.tables.write(FILTER, TableChange(chains={"cali-x": [rule]})) == {}
        assert operator.tables.read(FILTER).chains == {"cali-x": ("a" * 16,)}

    def test_an_empty_change_is_none(self, tables: TableKernel) -> None:
        before = tables.read(FILTER)
        assert tables.write(FILTER, TableChange()) == {}
        assert tables.read(FILTER) == before

    def test_changes_of_others_are_noticed_once_and_ours_are_not(self, operator: Operator) -> None:
        tables = operator.tables
        assert not tables.changed_elsewhere()
        tables.write(FILTER, JUMP)
        tables.write(TableKey(6, "nat"), TableChange(chains={"cali-x": []}))
        with pytest.raises(TableRefused):
            tables.write(FILTER, TableChange(chains={"cali-y": [tagged("c", "--jump cali-nosuch")]}))
        assert not tables.changed_elsewhere()
        operator.append(TableKey(4, "raw"), "PREROUTING", "-s 10.9.9.9/32 -j DROP")
        tables.write(FILTER, TableChange(remove_chains=frozenset({"cali-none"}), chains={"cali-y": []}))
        assert tables.changed_elsewhere()
        assert not tables.changed_elsewhere()
