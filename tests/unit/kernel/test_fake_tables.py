"""The tables in memory keep the contract of the kernel's."""

import pytest

from fakes.sets import FakeSets
from fakes.table_contract import FILTER, JUMP, Operator, TableContract, tagged
from fakes.tables import FakeTables
from kernel.errors import Busy, TableRefused, ToolMissing
from kernel.sets import SetSpec
from kernel.xtables import TableChange, TableKey


class FakeOperator:
    def __init__(self) -> None:
        self.sets = FakeSets()
        self.tables = FakeTables(self.sets)

    def append(self, key: TableKey, chain: str, rule: str) -> None:
        self.tables.put(key, chain, *self.tables.rules(key).get(chain, ()), rule)

    def rules(self, key: TableKey, chain: str) -> list[str]:
        return list(self.tables.rules(key).get(chain, ()))

    def make_set(self, name: str) -> None:
        self.sets.put(SetSpec(name=name, type="hash:net", version=4))


class TestFakeTables(TableContract):
    @pytest.fixture
    def operator(self) -> Operator:
        return FakeOperator()


def test_a_refused_chain_fails_the_whole_transaction() -> None:
    tables = FakeTables()
    tables.refuse.add("cali-x")
    with pytest.raises(TableRefused):
        tables.write(FILTER, JUMP)
    assert tables.read(FILTER).chains == {}
    assert tables.log == []


def test_reads_and_writes_can_be_made_to_fail() -> None:
    tables = FakeTables()
    tables.unwritable = tables.unreadable = ToolMissing("the program iptables-nft-save is not installed")
    with pytest.raises(ToolMissing):
        tables.read(FILTER)
    with pytest.raises(ToolMissing):
        tables.write(FILTER, JUMP)


def test_a_set_that_a_rule_names_cannot_be_destroyed() -> None:
    operator = FakeOperator()
    operator.make_set("cali40s")
    rule = tagged("a", "-m set --match-set cali40s src --jump ACCEPT")
    operator.tables.write(FILTER, TableChange(chains={"cali-x": [rule]}))
    assert [type(error) for error in operator.sets.destroy(["cali40s"]).values()] == [Busy]
    operator.tables.write(FILTER, TableChange(remove_chains=frozenset({"cali-x"})))
    assert operator.sets.destroy(["cali40s"]) == {}
