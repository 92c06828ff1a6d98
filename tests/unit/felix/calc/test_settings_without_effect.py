"""What a FelixConfiguration is warned of is what felix does not read."""

import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

import felix
from felix.calc.parameters import NAME_BY_FIELD, Parameters
from resources.kinds import problems_of
from resources.kinds.base import Metadata, Problem
from resources.kinds.felixconfiguration import KIND, NO_EFFECT, FelixConfiguration, FelixConfigurationSpec

FIELDS = {field.name: field.encode_name for field in msgspec.structs.fields(FelixConfigurationSpec)}


def warned(spec: dict[str, object], name: str = "default") -> list[Problem]:
    config = FelixConfiguration(metadata=Metadata(name=name), spec=msgspec.convert(spec, FelixConfigurationSpec))
    return [problem for problem in problems_of(KIND, KIND.complete(config)) if problem.warning]


def test_felix_reads_none_of_them() -> None:
    assert {FIELDS[name] for name in NO_EFFECT}.isdisjoint(NAME_BY_FIELD)


def test_a_field_that_nothing_acts_on_is_told_with_what_there_is_instead() -> None:
    (problem,) = warned({"logActionRateLimit": "10/second"})
    assert str(problem) == (
        "spec.logActionRateLimit = '10/second': stored, and nothing here acts on it; "
        "each packet that a rule with action Log matches writes a line"
    )
    (encrypted,) = warned({"wireguardEnabled": True})
    assert (encrypted.value, encrypted.hint) == ("true", "nothing is encrypted between the hosts")
    (scoped,) = warned({"nodeSelector": "rack == 'r1'"}, "rack")
    assert scoped.hint == "write an object node.<nodename> for each of them"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Parameters)])
def test_every_parameter_is_read_by_somebody(name: str) -> None:
    sources = (path.read_text() for path in Path(felix.__file__).parent.rglob("*.py"))
    assert any(re.search(rf"\.{name}\b", source) for source in sources)


def test_a_number_that_others_mark_their_routes_with_is_told() -> None:
    (problem,) = warned({"deviceRouteProtocol": 3})
    assert str(problem) == (
        "spec.deviceRouteProtocol = '3': stored, and passed over: ip route by itself marks its routes so, "
        "and felix would delete them; leave it out (80 is taken then), or give a number that nobody uses"
    )
    assert warned({"deviceRouteProtocol": 90}) == []


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"floatingIPs": "Disabled", "nftablesMode": "Auto", "bpfEnabled": False, "wireguardEnabled": False},
        {"logPrefix": "x", "iptablesBackend": "NFT", "bpfLogLevel": "", "logFilePath": "None"},
    ],
)
def test_what_the_original_writes_by_itself_and_what_felix_reads_is_not(spec: dict[str, object]) -> None:
    assert warned(spec) == []
