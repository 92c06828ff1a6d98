"""What is stored where the document says nothing."""

import json

import pytest

from resources.documents import load
from resources.kinds.bgpconfiguration import BGPConfiguration
from resources.kinds.tier import DEFAULT_ORDER, Tier


def read(kind: str, name: str, **spec: object) -> object:
    document = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
    (found,) = load(json.dumps(document).encode(), "f").documents
    return found.resource


@pytest.mark.parametrize(
    ("spec", "order", "action"),
    [
        ({}, DEFAULT_ORDER, "Deny"),
        ({"order": 5}, 5, "Deny"),
        ({"defaultAction": "Pass"}, DEFAULT_ORDER, "Pass"),
        ({"order": 0, "defaultAction": "Pass"}, 0, "Pass"),
    ],
)
def test_a_tier_has_an_order_and_an_action(spec: dict[str, object], order: float, action: str) -> None:
    found = read("Tier", "t", **spec)
    assert isinstance(found, Tier)
    assert (found.spec.order, found.spec.default_action) == (order, action)


@pytest.mark.parametrize(("given", "stored"), [({}, "Info"), ({"logSeverityScreen": "Debug"}, "Debug")])
def test_a_bgp_configuration_says_how_much_is_logged(given: dict[str, str], stored: str) -> None:
    found = read("BGPConfiguration", "default", **given)
    assert isinstance(found, BGPConfiguration)
    assert found.spec.log_severity_screen == stored


def test_an_advertisement_may_name_a_community_that_is_defined() -> None:
    found = read(
        "BGPConfiguration", "default", communities=[{"name": "ours", "value": "64512:7"}],
        prefixAdvertisements=[{"cidr": "10.65.0.0/16", "communities": ["ours"]}],
    )  # fmt: skip
    assert isinstance(found, BGPConfiguration)
    assert [one.communities for one in found.spec.prefix_advertisements] == [["ours"]]
