from hypothesis import given
from hypothesis import strategies as st

from resources.runtime.delta import Delta

KEYS = st.integers(0, 5)
MAPS = st.dictionaries(KEYS, st.integers(0, 2))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["want", "saw"]), KEYS, st.integers(0, 2)),
        st.tuples(st.sampled_from(["unwant", "gone"]), KEYS, st.just(0)),
        st.tuples(st.sampled_from(["want_all", "saw_all"]), MAPS, st.just(0)),
    )
)


@given(OPERATIONS)
def test_the_difference_is_that_of_two_plain_maps(operations: list[tuple[str, object, int]]) -> None:
    delta: Delta[int, int] = Delta()
    desired: dict[int, int] = {}
    actual: dict[int, int] = {}
    for name, argument, value in operations:
        side = desired if "want" in name else actual
        if isinstance(argument, dict):
            side.clear()
            side.update(argument)
            getattr(delta, name)(argument)
        elif name in ("want", "saw"):
            side[argument] = value  # type: ignore[index]
            getattr(delta, name)(argument, value)
        else:
            side.pop(argument, None)  # type: ignore[call-overload]
            getattr(delta, name)(argument)
    assert dict(delta.missing()) == {k: v for k, v in desired.items() if actual.get(k) != v or k not in actual}
    assert set(delta.stale()) == actual.keys() - desired.keys()
    assert bool(delta) == (desired != actual)
