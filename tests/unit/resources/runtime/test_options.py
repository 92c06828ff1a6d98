import pytest

from resources.errors import ConfigurationError
from resources.runtime.options import Option, Source, boolean, choice, integer, resolve, seconds

PORT = Option(name="port", parse=integer(1, 65535), default=179, help="a port, 1 to 65535", keys=("PORT", "BGP_PORT"))
MESH = Option(name="mesh", parse=boolean, default=True, help="the mesh, on or off")
OPTIONS = (PORT, MESH)


def test_the_strongest_source_wins_and_is_named() -> None:
    file = Source("file", {"PORT": "1", "mesh": "off"})
    settings = resolve(OPTIONS, [Source("environment", {"BGP_PORT": "1790"}), file])
    assert (settings[PORT], settings.origin(PORT)) == (1790, "environment")
    assert (settings[MESH], settings.origin(MESH)) == (False, "file")


def test_an_empty_text_is_not_set() -> None:
    settings = resolve(OPTIONS, [Source("environment", {"PORT": " "})])
    assert (settings[PORT], settings.origin(PORT)) == (179, "default")


def test_a_bad_value_of_a_strict_source_ends_the_start_and_says_where() -> None:
    with pytest.raises(ConfigurationError, match=r"environment: PORT = '70000' cannot be used: .*between 1 and 65535"):
        resolve(OPTIONS, [Source("environment", {"PORT": "70000"})])


def test_a_bad_value_of_the_store_is_passed_over_and_reported() -> None:
    settings = resolve(OPTIONS, [Source("store", {"PORT": "x"}, strict=False), Source("file", {"PORT": "7"})])
    assert settings[PORT] == 7
    assert [(r.option, r.value) for r in settings.refused] == [("port", "x")]


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90.0), ("1.5", 1.5), ("1m30s", 90.0), ("500ms", 0.5), ("2h", 7200.0)]
)
def test_seconds(text: str, value: float) -> None:
    assert seconds()(text) == value


@pytest.mark.parametrize("text", ["", "-1", "5 seconds", "1d", "nan", "inf", "1m30"])
def test_not_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        seconds()(text)


def test_a_choice_keeps_the_listed_spelling() -> None:
    assert choice("Drop", "Return")("RETURN") == "Return"
    with pytest.raises(ValueError, match="Drop, Return"):
        choice("Drop", "Return")("accept")


def test_differs_names_what_changed() -> None:
    before, after = resolve(OPTIONS, []), resolve(OPTIONS, [Source("environment", {"PORT": "7"})])
    assert before.differs(after) == ["port"]
