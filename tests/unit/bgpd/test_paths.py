"""The best of several paths, step by step (RFC 4271 9.1.2.2, reference bgp.md 4.6)."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.paths import ECMP_MAX, Choice, Origin, Path, PathAttributes, Segment, best, lost_by
from resources.names import IPAddress


def path(
    peer: str,
    *,
    next_hop: str | None = None,
    external: bool = False,
    identifier: str | None = None,
    **attributes: object,
) -> Path:
    said = PathAttributes(**attributes)  # type: ignore[arg-type]
    return Path(
        peer=ip_address(peer),
        next_hop=ip_address(next_hop or peer),
        attributes=said.from_outside() if external else said,
        is_external=external,
        identifier=IPv4Address(identifier or peer),
    )


def seq(*numbers: int) -> tuple[Segment, ...]:
    return (Segment(numbers),)


def near(_: IPAddress) -> int:
    return 0


def choose(*paths: Path) -> Choice:
    """Choose, whatever the order."""
    results = {best(order, near) for order in permutations(paths)}
    [result] = results
    assert result is not None
    return result


# each pair differs in one step and would be decided the other way by all later ones
STEPS = {
    "local preference, higher": (
        path("10.0.0.9", local_preference=200, as_path=seq(1, 2, 3), origin=Origin.INCOMPLETE, med=9),
        path("10.0.0.1", local_preference=199),
    ),
    "local preference, 100 if not said": (
        path("10.0.0.9", as_path=seq(1, 2)),
        path("10.0.0.1", local_preference=99),
    ),
    "local preference of an external path is 100": (
        path("10.0.0.9", local_preference=101, as_path=seq(5, 6, 7)),
        path("10.0.0.1", local_preference=500, external=True, as_path=seq(5)),
    ),
    "AS path, shorter": (
        path("10.0.0.9", as_path=seq(1), origin=Origin.INCOMPLETE),
        path("10.0.0.1", as_path=seq(1, 2)),
    ),
    "AS path, a set counts one": (
        path("10.0.0.9", as_path=(Segment((1,)), Segment((2, 3, 4), is_set=True)), origin=Origin.EGP),
        path("10.0.0.1", as_path=seq(1, 2, 3)),
    ),
    "origin, igp before egp": (
        path("10.0.0.9", as_path=seq(1), med=9),
        path("10.0.0.1", as_path=seq(1), origin=Origin.EGP),
    ),
    "origin, egp before incomplete": (
        path("10.0.0.9", origin=Origin.EGP),
        path("10.0.0.1", origin=Origin.INCOMPLETE),
    ),
    "MED, lower, of one neighbouring AS": (
        path("10.0.0.9", as_path=seq(1), med=5),
        path("10.0.0.1", as_path=seq(1), med=6, external=True),
    ),
    "external before internal": (
        path("10.0.0.9", external=True, as_path=seq(1), identifier="10.0.0.9"),
        path("10.0.0.1", as_path=seq(2)),
    ),
    "originator, lower": (
        path("10.0.0.9", originator=IPv4Address("1.1.1.1"), clusters=(IPv4Address(1), IPv4Address(2))),
        path("10.0.0.1", originator=IPv4Address("1.1.1.2")),
    ),
    "router id where there is no originator": (
        path("10.0.0.9", identifier="1.1.1.1", clusters=(IPv4Address(1),)),
        path("10.0.0.1", originator=IPv4Address("1.1.1.2")),
    ),
    "cluster list, shorter": (
        path("10.0.0.9", originator=IPv4Address("1.1.1.1"), clusters=(IPv4Address(1),)),
        path("10.0.0.1", originator=IPv4Address("1.1.1.1"), clusters=(IPv4Address(1), IPv4Address(2))),
    ),
    "peer address, lower": (
        path("10.0.0.8", identifier="1.1.1.1"),
        path("10.0.0.9", identifier="1.1.1.1"),
    ),
    "peer addresses compare as numbers": (
        path("10.0.0.9", identifier="1.1.1.1"),
        path("10.0.0.10", identifier="1.1.1.1"),
    ),
}


@pytest.mark.bgp_scenario(46)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_decides(step: str) -> None:
    winner, loser = STEPS[step]
    assert choose(winner, loser).best == winner


def test_med_of_another_as_does_not_count() -> None:
    first = path("10.0.0.1", as_path=seq(1), med=50)
    second = path("10.0.0.9", as_path=seq(2), med=5)
    assert choose(first, second).best == first


def test_med_strikes_out_before_the_rest_is_compared() -> None:
    """The case where comparing in pairs depends on the order."""
    a = path("10.0.0.1", as_path=seq(1), med=10)
    b = path("10.0.0.2", as_path=seq(2), med=0)
    c = path("10.0.0.3", as_path=seq(1), med=5)
    assert choose(a, b, c).best == b


def test_the_nearer_next_hop_wins_and_one_out_of_reach_never() -> None:
    costs = {ip_address("10.0.0.1"): 1, ip_address("10.0.0.9"): 0}
    far, close, lost = path("10.0.0.1"), path("10.0.0.9"), path("10.0.0.5", local_preference=900)
    choice = best([far, close, lost], costs.get)
    assert choice == Choice(close, (close,))
    assert best([lost], costs.get) is None
    assert best([], costs.get) is None


def test_equals_share() -> None:
    a, b = path("10.0.0.1"), path("10.0.0.2")
    worse = path("10.0.0.3", as_path=seq(1))
    assert choose(b, a, worse) == Choice(a, (a, b))


def test_one_next_hop_from_two_reflectors_is_one_path() -> None:
    a = path("10.0.0.1", next_hop="10.0.0.7", originator=IPv4Address("7.7.7.7"))
    b = path("10.0.0.2", next_hop="10.0.0.7", originator=IPv4Address("7.7.7.7"))
    assert choose(a, b) == Choice(a, (a,))


def test_a_group_has_an_end() -> None:
    many = [path(f"10.0.1.{n}") for n in range(1, 41)]
    choice = best(many, near)
    assert choice is not None
    assert [str(one.next_hop) for one in choice.group] == [f"10.0.1.{n}" for n in range(1, ECMP_MAX + 1)]


ATTRIBUTES = st.builds(
    PathAttributes,
    origin=st.sampled_from(Origin),
    as_path=st.sampled_from([(), seq(1), seq(2), seq(1, 2), seq(2, 1), (Segment((1, 2), is_set=True),)]),
    local_preference=st.sampled_from([None, 99, 100, 101]),
    med=st.integers(0, 2),
    originator=st.sampled_from([None, IPv4Address("1.1.1.1")]),
    clusters=st.sampled_from([(), (IPv4Address(1),)]),
)
PATHS = st.lists(
    st.builds(
        Path,
        peer=st.integers(1, 6).map(lambda n: IPv4Address(n)),
        next_hop=st.integers(1, 4).map(lambda n: IPv4Address(n)),
        attributes=ATTRIBUTES,
        is_external=st.booleans(),
        identifier=st.integers(1, 3).map(lambda n: IPv4Address(n)),
    ),
    max_size=6,
    unique_by=lambda one: one.peer,
)


@given(PATHS, st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_set_only(paths: list[Path], random: object) -> None:
    shuffled = list(paths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    choice = best(paths, near)
    assert best(shuffled, near) == choice
    if choice is None:
        assert not paths
        return
    assert choice.best in paths
    hops = [one.next_hop for one in choice.group]
    assert hops == sorted(set(hops), key=int)
    assert choice.best.next_hop in hops


@given(PATHS)
def test_what_was_not_chosen_may_go(paths: list[Path]) -> None:
    """Losing a path that does not count changes nothing."""
    choice = best(paths, near)
    if choice is not None:
        kept = [one for one in paths if one in choice.group or one == choice.best]
        again = best(kept, near)
        assert again is not None
        assert again.best == choice.best


@given(PATHS)
def test_what_was_not_chosen_lost_by_something(paths: list[Path]) -> None:
    choice = best(paths, near)
    for one in paths:
        assert choice is not None
        assert (lost_by(one, paths, near) is None) is (one in choice.group)


def test_by_what_a_path_lost() -> None:
    usual = path("10.0.0.1", as_path=seq(65001))
    longer = path("10.0.0.2", as_path=seq(65001, 65002))
    favoured = path("10.0.0.3", as_path=seq(65001, 65002), local_preference=200)
    assert lost_by(longer, [usual, longer], near) == "longer AS path"
    assert lost_by(usual, [usual, favoured], near) == "lower local preference"
    assert lost_by(favoured, [usual, favoured], near) is None
    twin = replace(usual, peer=IPv4Address("10.0.0.9"))
    for told in ([usual, twin], [twin, usual]):
        assert lost_by(twin, told, near) == "same next hop from 10.0.0.1"
    assert lost_by(usual, [usual], lambda _: None) == "next hop out of reach"
    crowd = [replace(path(f"10.0.1.{n}"), next_hop=IPv4Address(f"10.0.1.{n}")) for n in range(1, ECMP_MAX + 2)]
    assert [lost_by(one, crowd, near) for one in crowd] == [None] * ECMP_MAX + ["more than 16 equal next hops"]


@pytest.mark.parametrize(
    "inside", [{"local_preference": 200}, {"originator": IPv4Address("10.0.0.9")}, {"clusters": (IPv4Address(7),)}]
)
def test_what_is_said_inside_an_as_only_means_nothing_from_outside(inside: dict[str, Any]) -> None:
    assert PathAttributes(as_path=seq(5), med=3, **inside).from_outside() == PathAttributes(as_path=seq(5), med=3)


def test_paths_compare_by_value() -> None:
    assert replace(path("10.0.0.1")) == path("10.0.0.1")
