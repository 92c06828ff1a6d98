from felix.withheld import LASTING_SECONDS, Withheld
from resources.names import NodeName

A, B = NodeName("a"), NodeName("b")


def test_what_is_over_soon_is_never_told() -> None:
    withheld = Withheld()
    assert withheld.take({A: "no route"}, 0.0) == []
    assert withheld.texts == {"a": "no route"}
    assert withheld.due == LASTING_SECONDS
    assert withheld.lasting(LASTING_SECONDS - 0.1) == {}
    assert withheld.take({A: None}, LASTING_SECONDS - 0.1) == []
    assert withheld.texts == withheld.lasting(100.0) == {}
    assert withheld.due is None


def test_what_lasts_is_told_once_as_it_is_then_and_so_is_its_end() -> None:
    withheld = Withheld()
    withheld.take({A: "one", B: "other"}, 0.0)
    withheld.take({A: "two"}, 4.0)
    assert withheld.lasting(5.0) == {A: "two", B: "other"}
    assert (withheld.lasting(50.0), withheld.due) == ({}, None)
    assert withheld.take({A: None}, 60.0) == [A]
    assert withheld.texts == {"b": "other"}


def test_another_reason_is_told_too() -> None:
    withheld = Withheld()
    withheld.take({A: "one"}, 0.0)
    withheld.lasting(5.0)
    withheld.take({A: "two"}, 10.0)
    assert withheld.lasting(14.0) == {}
    assert withheld.lasting(15.0) == {A: "two"}
