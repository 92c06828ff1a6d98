"""The sets in memory keep the contract of ipset's."""

import pytest

from fakes.set_contract import PREFIXES, A, B, Operator, SetContract, members
from fakes.sets import FakeSets
from kernel.errors import InvalidArgument, ToolTimedOut
from kernel.sets import SetDelta, SetSpec


class FakeOperator:
    def __init__(self) -> None:
        self.sets = FakeSets()

    def use(self, name: str) -> None:
        self.sets.users.append(lambda: {name})

    def lose(self, name: str) -> None:
        self.sets.lose(name)

    def make(self, spec: SetSpec, *inside: str) -> None:
        self.sets.put(spec, *inside)


class TestFakeSets(SetContract):
    @pytest.fixture
    def operator(self) -> Operator:
        return FakeOperator()


def test_a_refused_set_fails_and_the_rest_goes_on() -> None:
    sets = FakeSets()
    sets.refuse.add(A.name)
    failed = sets.apply([SetDelta(spec=A, add=members("10.0.0.1")), SetDelta(spec=B, add=members("10.0.0.2"))])
    assert [type(error) for error in failed.values()] == [InvalidArgument]
    assert sets.members == {B.name: members("10.0.0.2")}
    assert sets.log == ["apply cali40a +1 -0", "apply cali40b +1 -0"]


def test_a_read_can_be_made_to_fail() -> None:
    sets = FakeSets()
    sets.unreadable = ToolTimedOut("ipset did not end")
    with pytest.raises(ToolTimedOut):
        sets.read(PREFIXES)
