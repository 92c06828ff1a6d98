"""What an earlier felix left in the other back end goes, once; what others have there stays."""

import pytest

from fakes.tables import FakeTables
from felix.dataplane.left_over import LeftOver
from kernel.errors import ToolFailed
from kernel.xtables import TableKey

FILTER, NAT6 = TableKey(4, "filter"), TableKey(6, "nat")
JUMP = '-m comment --comment "cali:0123456789abcdef" -j cali-FORWARD'


@pytest.fixture
def old() -> FakeTables:
    tables = FakeTables()
    tables.put(FILTER, "FORWARD", JUMP, "-j DOCKER-USER", "-j cali-FORWARD")
    tables.put(FILTER, "DOCKER-USER", "-j RETURN")
    tables.put(FILTER, "cali-FORWARD", "-j cali-x")
    tables.put(FILTER, "cali-x", "-j DROP")
    tables.put(NAT6, "felix-OUTPUT", "-j RETURN")
    return tables


def test_ours_go_and_the_others_stay(old: FakeTables) -> None:
    left_over = LeftOver(lambda: (old, [FILTER, NAT6]))
    assert left_over.sweep() == {}
    rules = {chain: list(found) for chain, found in old.rules(FILTER).items() if found}
    assert rules == {"FORWARD": ["-j DOCKER-USER"], "DOCKER-USER": ["-j RETURN"]}
    assert "felix-OUTPUT" not in old.rules(NAT6)
    assert len(old.log) == 2
    old.put(FILTER, "cali-x", "-j DROP")
    assert left_over.sweep() == {}
    assert len(old.log) == 2


def test_there_may_be_no_other_back_end() -> None:
    assert LeftOver(lambda: None).sweep() == {}


def test_what_cannot_be_written_is_told_and_tried_again(old: FakeTables) -> None:
    left_over = LeftOver(lambda: (old, [FILTER]))
    old.unwritable = ToolFailed("the lock is held")
    assert left_over.sweep() == {"old table filter (IPv4)": old.unwritable}
    old.unwritable = None
    assert left_over.sweep() == {}
    assert "cali-x" not in old.rules(FILTER)


def test_a_chain_that_somebody_else_uses_is_emptied_and_told(old: FakeTables) -> None:
    old.put(FILTER, "MINE", "-j RETURN", "-g cali-y")
    old.put(FILTER, "cali-y", "-j ACCEPT")
    assert LeftOver(lambda: (old, [FILTER])).sweep() == {}
    assert "cali-y" not in old.rules(FILTER)
    assert list(old.rules(FILTER)["MINE"]) == ["-j RETURN"]
