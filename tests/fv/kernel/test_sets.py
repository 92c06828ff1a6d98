"""The kernel's own sets, through ipset, keep the contract."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bed import Namespace
from fakes.set_contract import PREFIXES, A, B, Operator, SetContract, members, nets
from kernel.sets import TEMPORARY_PREFIXES, IpsetSets, KernelSet, SetDelta, SetKernel, SetSpec
from kernel.sets_netlink import NetlinkSets


@dataclass
class RealOperator:
    netns: Namespace
    sets: SetKernel

    def use(self, name: str) -> None:
        self.netns.run(["iptables-nft", "-A", "INPUT", "-m", "set", "--match-set", name, "src", "-j", "DROP"])

    def make(self, spec: SetSpec, *inside: str) -> None:
        self.netns.run(["ipset", "create", spec.name, spec.type, "maxelem", str(spec.maxelem)])
        for member in inside:
            self.netns.run(["ipset", "add", spec.name, member])


    def lose(self, name: str) -> None:
        self.netns.run(["ipset", "destroy", name])


@pytest.fixture(params=["program", "netlink"])
def real(netns: Namespace, request: pytest.FixtureRequest) -> Iterator[RealOperator]:
    with netns.entered():
        if request.param == "program":
            yield RealOperator(netns, IpsetSets())
        else:
            quick = NetlinkSets(IpsetSets())
            yield RealOperator(netns, quick)
            quick.close()


class TestRealSets(SetContract):
    @pytest.fixture
    def operator(self, real: RealOperator) -> Operator:
        return real


def test_a_temporary_set_left_by_a_kill_is_no_obstacle(real: RealOperator) -> None:
    real.sets.apply([SetDelta(spec=A, add=members("10.0.0.1"))])
    real.make(nets("cali4t0", maxelem=7), "10.9.9.9")
    wanted = KernelSet(spec=nets(A.name, maxelem=50), members=members("10.0.0.2"))
    assert real.sets.rewrite([wanted]) == {}
    assert real.sets.read(PREFIXES) == {A.name: wanted}
    assert real.sets.read(TEMPORARY_PREFIXES) == {}


def test_a_large_set_and_a_small_change_in_it(real: RealOperator) -> None:
    inside = frozenset(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(20000))
    large = nets("cali40large", maxelem=1 << 20)
    assert real.sets.apply([SetDelta(spec=large, add=inside), SetDelta(spec=B)]) == {}
    assert real.sets.apply([SetDelta(spec=large, remove=frozenset({"10.0.0.7"}))]) == {}
    assert real.sets.read(PREFIXES)[large.name].members == inside - {"10.0.0.7"}


def test_a_member_added_by_hand_with_an_option_is_repaired(real: RealOperator) -> None:
    whole, part = members("10.0.0.0/8"), members("10.1.0.0/16")
    real.sets.apply([SetDelta(spec=A, add=whole)])
    for wanted in (part, frozenset[str]()):
        real.netns.run(["ipset", "-exist", "add", A.name, "10.1.0.0/16", "nomatch"])
        stray = real.sets.read(PREFIXES)[A.name].members - whole
        assert stray == {"10.1.0.0/16 nomatch"}
        assert real.sets.apply([SetDelta(spec=A, add=wanted, remove=stray)]) == {}
        assert real.sets.read(PREFIXES)[A.name].members == whole | wanted
