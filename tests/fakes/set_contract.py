"""What every SetKernel must do. A test module for one implementation derives from `SetContract` and gives the fixture
`operator`.
"""

import ipaddress
from typing import Protocol

import pytest

from kernel.errors import AlreadyThere, Busy, InvalidArgument, NoRoom
from kernel.sets import KernelSet, SetDelta, SetKernel, SetSpec, net_member, port_member

PREFIXES = ("cali40", "cali60")


class Operator(Protocol):
    """A host and what is done to it from outside."""

    @property
    def sets(self) -> SetKernel: ...
    def use(self, name: str) -> None:
        """Let a rule name a set."""

    def make(self, spec: SetSpec, *members: str) -> None:
        """Make a set behind the back of the port."""

    def lose(self, name: str) -> None:
        """Destroy a set behind the back of the port."""


def nets(name: str, *, version: int = 4, maxelem: int = 1000) -> SetSpec:
    return SetSpec(name=name, type="hash:net", version=version, maxelem=maxelem)


def members(*texts: str) -> frozenset[str]:
    return frozenset(net_member(ipaddress.ip_network(text)) for text in texts)


A, B, C = nets("cali40a"), nets("cali40b"), nets("cali40c")


class SetContract:
    @pytest.fixture
    def operator(self) -> Operator:
        raise AssertionError("a test module gives this fixture")

    @pytest.fixture
    def sets(self, operator: Operator) -> SetKernel:
        return operator.sets

    def test_there_is_nothing_at_first(self, sets: SetKernel) -> None:
        assert sets.read(PREFIXES) == {}

    @pytest.mark.parametrize(
        ("spec", "inside"),
        [
            (A, members("10.0.0.1/32", "10.1.0.0/16", "128.0.0.0/1")),
            (nets("cali60a", version=6), members("fd00::1/128", "2001:db8::/32", "::1.2.3.4/128", "8000::/1")),
            (
                SetSpec(name="cali40n:port", type="hash:ip,port", version=4),
                frozenset(port_member(ipaddress.ip_address("10.0.0.1"), p, 8080) for p in ("tcp", "udp", "sctp")),
            ),
            (nets("cali40" + "x" * 25), frozenset()),
        ],
        ids=["v4", "v6", "ports", "31 characters and empty"],
    )
    def test_a_set_is_read_as_it_was_written(self, sets: SetKernel, spec: SetSpec, inside: frozenset[str]) -> None:
        assert sets.apply([SetDelta(spec=spec, add=inside)]) == {}
        assert sets.read(PREFIXES) == {spec.name: KernelSet(spec=spec, members=inside)}

    def test_members_come_and_go(self, sets: SetKernel) -> None:
        sets.apply([SetDelta(spec=A, add=members("10.0.0.1", "10.0.0.2"))])
        sets.apply([SetDelta(spec=A, add=members("10.0.0.3"), remove=members("10.0.0.1"))])
        assert sets.read(PREFIXES)[A.name].members == members("10.0.0.2", "10.0.0.3")

    def test_what_is_done_already_is_no_failure(self, sets: SetKernel) -> None:
        delta = SetDelta(spec=A, add=members("10.0.0.1"), remove=members("10.0.0.9"))
        assert sets.apply([delta]) == {}
        assert sets.apply([delta]) == {}
        assert sets.destroy(["cali40nosuch"]) == {}

    def test_only_the_names_asked_for_are_read(self, operator: Operator) -> None:
        operator.make(nets("theirs"), "10.0.0.1")
        operator.sets.apply([SetDelta(spec=A), SetDelta(spec=nets("cali60a", version=6))])
        assert operator.sets.read(("cali40",)).keys() == {"cali40a"}

    def test_a_bad_set_does_not_stop_the_others(self, sets: SetKernel) -> None:
        small = nets("cali40small", maxelem=2)
        failed = sets.apply(
            [
                SetDelta(spec=A, add=members("10.0.0.1")),
                SetDelta(spec=small, add=members("10.0.0.1", "10.0.0.2", "10.0.0.3")),
                SetDelta(spec=B, add=members("10.0.0.2"), remove=members("10.0.0.3")),
                SetDelta(spec=nets("cali40zero"), add=frozenset({"0.0.0.0/0"})),
                SetDelta(spec=nets("c" * 32)),
                SetDelta(spec=C, add=members("10.0.0.4")),
            ]
        )
        assert {name: type(error) for name, error in failed.items()} == {
            "cali40small": NoRoom,
            "cali40zero": InvalidArgument,
            "c" * 32: InvalidArgument,
        }
        assert "cali40small" in str(failed["cali40small"])
        found = sets.read(PREFIXES)
        assert found[A.name].members == members("10.0.0.1")
        assert found[B.name].members == members("10.0.0.2")
        assert found[C.name].members == members("10.0.0.4")

    def test_a_bad_change_of_a_set_that_is_there_does_not_stop_the_others(self, sets: SetKernel) -> None:
        full, port = nets("cali40full", maxelem=2), SetSpec(name="cali40n:port", type="hash:ip,port", version=4)
        six = nets("cali60six", version=6)
        assert sets.apply([SetDelta(spec=spec) for spec in (A, B, full, port, six)]) == {}
        bad = SetDelta(spec=A, add=frozenset({"0.0.0.0/0"}))
        over = SetDelta(spec=full, add=members("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        more = [
            SetDelta(spec=B, add=members("10.0.0.5", "10.2.0.0/16")),
            SetDelta(spec=port, add=frozenset({"10.0.0.1,sctp:80"}), remove=frozenset({"10.0.0.1,tcp:80"})),
            SetDelta(spec=six, add=members("fd00::1", "fd01::/64")),
        ]
        failed = sets.apply([bad, over, *more])
        assert {name: type(error) for name, error in failed.items()} == {A.name: InvalidArgument, full.name: NoRoom}
        assert full.name in str(failed[full.name])
        found = sets.read(PREFIXES)
        assert [found[delta.spec.name].members for delta in more] == [delta.add for delta in more]

    def test_a_set_that_others_destroyed_is_made_again(self, operator: Operator) -> None:
        operator.sets.apply([SetDelta(spec=A, add=members("10.0.0.1")), SetDelta(spec=B)])
        operator.lose(A.name)
        changes = [SetDelta(spec=A, add=members("10.0.0.2")), SetDelta(spec=B, add=members("10.0.0.3"))]
        assert operator.sets.apply(changes) == {}
        found = operator.sets.read(PREFIXES)
        assert {name: held.members for name, held in found.items()} == {
            A.name: members("10.0.0.2"), B.name: members("10.0.0.3"),
        }  # fmt: skip

    def test_a_set_of_another_size_is_left_for_a_rewrite(self, sets: SetKernel) -> None:
        sets.apply([SetDelta(spec=A, add=members("10.0.0.1"))])
        larger = nets(A.name, maxelem=2000)
        failed = sets.apply([SetDelta(spec=larger, add=members("10.0.0.2"))])
        assert type(failed[A.name]) is AlreadyThere
        wanted = KernelSet(spec=larger, members=members("10.0.0.2"))
        assert sets.rewrite([wanted]) == {}
        assert sets.read(("cali",)) == {A.name: wanted}

    def test_a_rewrite_makes_what_is_missing(self, sets: SetKernel) -> None:
        wanted = KernelSet(spec=A, members=members("10.0.0.2"))
        assert sets.rewrite([wanted]) == {}
        assert sets.read(PREFIXES) == {A.name: wanted}

    def test_a_rewrite_of_a_set_in_use(self, operator: Operator) -> None:
        operator.sets.apply([SetDelta(spec=A, add=members("10.0.0.1"))])
        operator.use(A.name)
        wanted = KernelSet(spec=nets(A.name, maxelem=5), members=members("10.0.0.2"))
        assert operator.sets.rewrite([wanted]) == {}
        assert operator.sets.read(("cali",)) == {A.name: wanted}

    def test_a_failed_rewrite_leaves_the_set(self, sets: SetKernel) -> None:
        sets.apply([SetDelta(spec=A, add=members("10.0.0.1"))])
        tight = nets(A.name, maxelem=1)
        failed = sets.rewrite(
            [
                KernelSet(spec=tight, members=members("10.0.0.1", "10.0.0.2")),
                KernelSet(spec=B, members=members("10.0.0.5")),
            ]
        )
        assert failed.keys() == {A.name}
        found = sets.read(PREFIXES)
        assert found[A.name] == KernelSet(spec=A, members=members("10.0.0.1"))
        assert found[B.name].members == members("10.0.0.5")

    def test_sets_are_destroyed(self, sets: SetKernel) -> None:
        sets.apply([SetDelta(spec=A, add=members("10.0.0.1")), SetDelta(spec=B)])
        assert sets.destroy([A.name]) == {}
        assert sets.read(PREFIXES).keys() == {B.name}

    def test_a_set_in_use_is_busy_and_the_others_go(self, operator: Operator) -> None:
        operator.sets.apply([SetDelta(spec=A), SetDelta(spec=B), SetDelta(spec=C)])
        operator.use(B.name)
        failed = operator.sets.destroy([A.name, B.name, C.name])
        assert {name: type(error) for name, error in failed.items()} == {B.name: Busy}
        assert operator.sets.read(PREFIXES).keys() == {B.name}
