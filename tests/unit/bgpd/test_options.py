"""The settings of calico-bgpd and its command line."""

from pathlib import Path

import pytest

from bgpd import options
from bgpd.daemon import main
from resources.errors import ConfigurationError


def test_defaults() -> None:
    found = options.from_environment({})
    assert found[options.HOLD_SECONDS] == 90
    assert found[options.RUN_DIR] == Path("/run/calico")
    assert {setting.origin for setting in found} == {"default"}


def test_the_environment_counts() -> None:
    found = options.from_environment(
        {
            "BGPD_HOLD_SECONDS": "9",
            "CALICO_RUN_DIR": "/tmp/x",
            "CALICO_ROUTER_ID": "hash",
            "BGP_LOGSEVERITYSCREEN": "debug",
        }
    )
    assert (found[options.HOLD_SECONDS], found[options.RUN_DIR]) == (9, Path("/tmp/x"))
    assert (found[options.ROUTER_ID], found[options.LOG_LEVEL]) == ("hash", "Debug")
    assert found.origin(options.HOLD_SECONDS) == "environment"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BGPD_HOLD_SECONDS", "2"), ("BGPD_HOLD_SECONDS", "soon"), ("CALICO_RUN_DIR", "relative"),
        ("CALICO_ROUTER_ID", "1.2.3"), ("BGPD_MAX_PREFIXES", "0"), ("BGP_LOGSEVERITYSCREEN", "loud"),
        ("BGPD_STRICT_OWNERS", "perhaps"),
    ],
)
def test_what_cannot_be_used_ends_the_start(
    key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        options.from_environment({key: value})
    assert main([], {key: value}) == 1
    assert key in capsys.readouterr().err


def test_ending_a_speaker_that_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--end-speaker"], {"CALICO_RUN_DIR": str(tmp_path)}) == 0
    assert capsys.readouterr().out == "No BGP speaker is running.\n"


def test_every_option_says_what_it_is_for() -> None:
    names = [option.name for option in options.OPTIONS]
    assert len(set(names)) == len(names)
    for option in options.OPTIONS:
        assert option.help.endswith(".")
        assert option.keys
