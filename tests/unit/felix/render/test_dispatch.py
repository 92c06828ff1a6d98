"""Dispatch: every interface reaches its own chain, unknown ones are dropped, few chains change with one interface."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.render.chains import Goto, Rule, Verdict
from felix.render.dispatch import FROM, TO, Dispatch, Side, unknown_interface
from resources.names import IfName

SIDES = dict.fromkeys((FROM, TO), unknown_interface(Verdict.DROP))


def made(names: Iterable[str]) -> tuple[Dispatch, dict[str, list[Rule]]]:
    dispatch = Dispatch()
    for name in names:
        dispatch.add(IfName(name))
    return dispatch, fold({}, dispatch)


def fold(chains: dict[str, list[Rule]], dispatch: Dispatch) -> dict[str, list[Rule]]:
    for chain, rules in dispatch.take_changes(SIDES).items():
        if rules is None:
            del chains[chain]
        else:
            chains[chain] = rules
    return chains


def goes_to(chains: dict[str, list[Rule]], side: Side, interface: str) -> str:
    """Walk the chains; each rule matches one interface, exactly or by its beginning."""
    chain = side.root
    while chain in chains:
        for rule in chains[chain]:
            pattern = rule.conditions[0].name if rule.conditions else "+"  # type: ignore[union-attr]
            if interface == pattern or (pattern.endswith("+") and interface.startswith(pattern[:-1])):
                if not isinstance(rule.target, Goto):
                    return "dropped"
                chain = rule.target.chain
                break
    return chain


NAMES = st.lists(
    st.text(alphabet="ab", min_size=0, max_size=4).map(lambda tail: f"cali{tail}"), max_size=12, unique=True
)


@given(NAMES, NAMES)
def test_each_interface_reaches_its_chain_and_no_other(names: list[str], others: list[str]) -> None:
    _, chains = made(names)
    for side in SIDES:
        for name in {*names, *others}:
            wanted = f"{side.prefix}{name}" if name in names else "dropped"
            assert goes_to(chains, side, name) == wanted


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["cali", "calia", "caliab", "caliac", "calib", "tapx"]))))
def test_changes_fold_to_what_a_fresh_start_gives(steps: list[tuple[bool, str]]) -> None:
    dispatch, names = Dispatch(), set()
    chains = fold({}, dispatch)
    for add, name in steps:
        if add:
            dispatch.add(IfName(name))
            names.add(name)
        else:
            dispatch.remove(IfName(name))
            names.discard(name)
        assert fold(chains, dispatch) == made(names)[1]


def test_an_interface_named_like_a_bin_keeps_its_own_chain() -> None:
    _, chains = made(["calia", "caliab", "calib"])
    assert chains.keys() == {"cali-from-wl-dispatch", "cali-fw-calia/", "cali-to-wl-dispatch", "cali-tw-calia/"}
    assert goes_to(chains, FROM, "calia") == "cali-fw-calia"
    assert goes_to(chains, FROM, "caliabc") == "dropped"


def test_the_root_holds_single_bins_and_jumps_to_the_others() -> None:
    _, chains = made(["cali1a", "cali2a", "cali2b"])
    targets = [rule.target for rule in chains["cali-to-wl-dispatch"]]
    assert targets == [Goto("cali-tw-cali1a"), Goto("cali-tw-cali2/"), Verdict.DROP]
    assert len(chains["cali-tw-cali2/"]) == 3


@pytest.mark.parametrize("count", [10, 5000])
def test_one_more_interface_rewrites_the_root_and_one_child(count: int) -> None:
    dispatch, _ = made(f"cali{number * 7919 % 2**20:05x}" for number in range(count))
    dispatch.add(IfName("cali0ffff"))
    changes = dispatch.take_changes(SIDES)
    assert len(changes) <= 4
    assert dispatch.take_changes(SIDES) == {}
