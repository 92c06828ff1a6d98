import pytest

from fakes.sets import FakeSets
from felix.dataplane.sets import BUSY_ROUNDS, SetEffector
from felix.desired import IPSet, SetChange
from kernel.errors import NoRoom
from kernel.sets import KernelSet, SetSpec

WEB = "cali40s:web"
DB = "cali40s:db"


def ip_set(*members: str) -> IPSet:
    return IPSet("hash:net", 4, frozenset(members))


@pytest.fixture
def kernel() -> FakeSets:
    return FakeSets()


@pytest.fixture
def sets(kernel: FakeSets) -> SetEffector:
    return SetEffector(kernel, maxelem=1000)


def test_a_wanted_set_is_made_with_its_members(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1", "10.1.0.0/16")})
    assert sets.apply() == {}
    assert kernel.members[WEB] == {"10.0.0.1", "10.1.0.0/16"}


def test_a_single_address_may_be_written_with_or_without_its_length(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1/32")})
    sets.apply()
    sets.resync()
    assert sets.apply() == {}
    assert kernel.members[WEB] == {"10.0.0.1"}


def test_a_member_comes_and_another_goes_by_one_delta(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set(*(f"10.0.{n}.1" for n in range(200)))})
    sets.apply()
    kernel.log.clear()
    sets.want({WEB: SetChange(added=frozenset({"10.9.9.9/32"}), removed=frozenset({"10.0.0.1/32"}))})
    assert sets.apply() == {}
    assert "10.9.9.9" in kernel.members[WEB]
    assert "10.0.0.1" not in kernel.members[WEB]
    assert len(kernel.log) == 1


def test_what_others_did_to_a_set_is_told_once_and_mended(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1", "10.0.0.2"), DB: ip_set("10.0.0.3")})
    sets.apply()
    assert sets.take_drift() == {}
    kernel.put(SetSpec(name=WEB, type="hash:net", version=4, maxelem=1000), "10.0.0.2", "10.0.0.9", "10.0.0.8")
    kernel.lose(DB)
    sets.resync()
    sets.want({WEB: SetChange(added=frozenset({"10.0.0.4"}), removed=frozenset())})  # our own change is no drift
    assert sets.apply() == {}
    found = {name: drift.found for name, drift in sets.take_drift().items()}
    assert found == {WEB: "members: 1 missing, 2 foreign", DB: "it was gone"}
    assert kernel.members == {WEB: {"10.0.0.1", "10.0.0.2", "10.0.0.4"}, DB: {"10.0.0.3"}}
    sets.resync()
    sets.apply()
    assert sets.take_drift() == {}


def test_what_a_write_of_our_own_left_half_done_is_not_told_as_others_doing(
    kernel: FakeSets, sets: SetEffector
) -> None:
    sets.want({WEB: ip_set("10.0.0.1")})
    sets.apply()
    kernel.refuse.add(WEB)
    sets.want({WEB: SetChange(added=frozenset({"10.0.0.2"}), removed=frozenset())})
    assert list(sets.apply()) == [WEB]
    kernel.refuse.clear()
    kernel.put(SetSpec(name=WEB, type="hash:net", version=4, maxelem=1000), "10.0.0.2")
    assert sets.apply() == {}
    assert sets.take_drift() == {}
    assert kernel.members[WEB] == {"10.0.0.1", "10.0.0.2"}


def test_nothing_is_written_when_the_kernel_is_right_already(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1")})
    sets.apply()
    kernel.log.clear()
    again = SetEffector(kernel, maxelem=1000)
    again.want({WEB: ip_set("10.0.0.1")})
    assert again.apply() == {}
    assert again.sweep() == {}
    assert kernel.log == []


def test_a_set_of_another_size_is_rewritten(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1")})
    sets.apply()
    larger = SetEffector(kernel, maxelem=2000)
    larger.want({WEB: ip_set("10.0.0.2")})
    assert larger.apply() == {}
    assert kernel.read((WEB,)) == {
        WEB: KernelSet(
            spec=SetSpec(name=WEB, type="hash:net", version=4, maxelem=2000), members=frozenset({"10.0.0.2"})
        )
    }


def test_an_unwanted_set_goes_only_at_the_sweep(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1")})
    sets.apply()
    sets.want({WEB: None})
    sets.apply()
    assert WEB in kernel.members
    assert sets.unswept == 1
    sets.sweep()
    assert WEB not in kernel.members
    assert sets.unswept == 0


def test_a_set_that_is_in_use_for_a_moment_is_no_trouble_and_one_that_stays_so_is(
    kernel: FakeSets, sets: SetEffector
) -> None:
    in_use = {WEB}
    kernel.users.append(lambda: in_use)
    sets.want({WEB: ip_set("10.0.0.1"), DB: ip_set("10.0.0.2")})
    sets.apply()
    sets.want({WEB: None, DB: None})
    assert sets.sweep() == {}
    assert kernel.members.keys() == {WEB}
    assert sets.unswept == 1
    assert any(sets.sweep() for _ in range(2 * BUSY_ROUNDS))
    in_use.clear()
    assert sets.sweep() == {}
    assert sets.unswept == 0


def test_sets_of_others_are_never_touched(kernel: FakeSets, sets: SetEffector) -> None:
    kernel.put(SetSpec(name="operators-own", type="hash:net", version=4), "192.0.2.1")
    sets.want({WEB: ip_set("10.0.0.1")})
    sets.apply()
    sets.sweep()
    assert kernel.members["operators-own"] == {"192.0.2.1"}


def test_drift_is_repaired_after_a_resync(kernel: FakeSets, sets: SetEffector) -> None:
    sets.want({WEB: ip_set("10.0.0.1", "10.0.0.2")})
    sets.apply()
    kernel.put(SetSpec(name=WEB, type="hash:net", version=4, maxelem=1000), "10.0.0.2", "10.6.6.6")
    sets.resync()
    sets.apply()
    assert kernel.members[WEB] == {"10.0.0.1", "10.0.0.2"}


def test_one_set_that_fails_does_not_stop_the_others_and_is_tried_again(kernel: FakeSets, sets: SetEffector) -> None:
    kernel.refuse.add(WEB)
    sets.want({WEB: ip_set("10.0.0.1"), DB: ip_set("10.0.0.2")})
    assert sets.apply().keys() == {WEB}
    assert kernel.members[DB] == {"10.0.0.2"}
    kernel.refuse.clear()
    assert sets.apply() == {}
    assert kernel.members[WEB] == {"10.0.0.1"}


def test_a_set_with_more_members_than_fit_is_reported(kernel: FakeSets) -> None:
    small = SetEffector(kernel, maxelem=2)
    small.want({WEB: ip_set("10.0.0.1", "10.0.0.2", "10.0.0.3")})
    assert isinstance(small.apply()[WEB], NoRoom)
