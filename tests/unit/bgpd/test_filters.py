"""What BGPFilters say about routes: the cases of Calico's own compiled filters, and a slow model beside them."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.filters import Filters, Rule, Ruling, Subject, closed, filter_of, ruling
from bgpd.calc.paths import NO_PATH_ATTRIBUTES, PathAttributes, Segment
from fakes.bgp_host import filter_record
from resources.codec import decode
from resources.datastore.keys import parse_resource_key
from resources.kinds import bgpfilter
from resources.kinds.bgpfilter import BGPFilter
from resources.names import IPNetwork


def parsed(**spec: object) -> BGPFilter:
    key, value = filter_record("f", **spec)
    parts = parse_resource_key(key, frozenset())
    assert parts is not None
    return decode(bgpfilter.KIND, value, 1, parts).resource


def rules(*listed: dict[str, Any]) -> tuple[Rule, ...]:
    version = 6 if any(":" in str(rule.get("cidr", "")) for rule in listed) else 4
    return filter_of(parsed(**{f"exportV{version}": list(listed)})).exports[version]


def subject(
    prefix: str = "10.65.1.0/26", *, learned: bool = True, external: bool = False, devices: tuple[str, ...] = (),
    **attributes: Any,
) -> Subject:
    return Subject(
        prefix=ip_network(prefix),
        attributes=PathAttributes(**attributes),
        is_learned=learned,
        is_external=external,
        devices=devices,
    )


def seq(*numbers: int) -> tuple[Segment, ...]:
    return (Segment(numbers),)


def verdict(found: Ruling | None) -> str:
    return "none" if found is None else "accept" if found.is_accept else "reject"


def cidr(operator: str, text: str, action: str = "Accept", **more: object) -> dict[str, object]:
    return {"action": action, "cidr": text, "matchOperator": operator, **more}


OPERATORS = (
    cidr("In", "77.0.0.0/16"), cidr("NotIn", "77.1.0.0/16", "Reject"), cidr("Equal", "77.2.0.0/16"),
    cidr("NotEqual", "77.3.0.0/16", "Reject"),
)  # fmt: skip
INTERFACES = (
    cidr("NotIn", "77.0.0.0/16", interface="eth0"),
    cidr("In", "77.1.0.0/16", "Reject", source="RemotePeers"),
    {"action": "Accept", "source": "RemotePeers"},
    {"action": "Reject"},
)
MESH = (cidr("In", "77.0.0.0/16", interface="*.calico"), {"action": "Reject", "interface": "tunl*"})
KINDS = (
    cidr("In", "10.0.0.0/8", peerType="eBGP"), cidr("In", "172.16.0.0/12", "Reject", peerType="iBGP"),
)  # fmt: skip
COMMUNITIES = (
    {"action": "Accept", "communities": {"values": ["65000:42"]}},
    {"action": "Reject", "communities": {"values": ["65000:100:200"]}},
)
PATHS = (
    {"action": "Accept", "asPathPrefix": [65000, 65001]}, {"action": "Reject", "asPathPrefix": [65000]},
)  # fmt: skip
PRIORITIES = ({"action": "Accept", "priority": 100}, {"action": "Reject", "priority": 1024})
LENGTHS = (cidr("In", "10.0.0.0/8", prefixLength={"min": 24, "max": 28}),)

CASES: dict[str, tuple[tuple[dict[str, Any], ...], Subject, str]] = {
    "in": (OPERATORS, subject("77.0.3.0/24"), "accept"),
    "in, itself": (OPERATORS, subject("77.0.0.0/16"), "accept"),
    "in, wider": (OPERATORS, subject("77.0.0.0/15"), "reject"),
    "not in": (OPERATORS, subject("77.2.0.0/16"), "reject"),
    "the only one that is left to Equal": (OPERATORS[2:], subject("77.2.0.0/16"), "accept"),
    "equal is of one length": (OPERATORS[2:], subject("77.2.0.0/17"), "reject"),
    "not equal": (OPERATORS[2:], subject("77.3.0.0/16"), "none"),
    "no rule matches": ((OPERATORS[0],), subject("77.1.0.0/16"), "none"),
    "no condition matches all": (({"action": "Reject"},), subject(), "reject"),
    "the first that matches": ((cidr("In", "77.0.0.0/8", "Reject"), *OPERATORS), subject("77.0.0.0/16"), "reject"),
    "interface": (INTERFACES, subject("10.1.0.0/16", learned=False, devices=("eth0",)), "accept"),
    "another interface": (INTERFACES, subject("10.1.0.0/16", learned=False, devices=("eth01",)), "reject"),
    "no interface": (INTERFACES, subject("10.1.0.0/16", learned=False), "reject"),
    "one of several interfaces": (INTERFACES, subject("10.1.0.0/16", learned=False, devices=("e", "eth0")), "accept"),
    "from peers": (INTERFACES, subject("77.0.5.0/24"), "accept"),
    "from peers, rejected": (INTERFACES, subject("77.1.5.0/24"), "reject"),
    "not from peers": (INTERFACES, subject("77.1.5.0/24", learned=False), "reject"),
    "a pattern of interfaces": (MESH, subject("77.0.9.0/24", devices=("vxlan.calico",)), "accept"),
    "a pattern that begins": (MESH, subject("10.0.9.0/24", devices=("tunl0",)), "reject"),
    "a dot is a dot": (MESH, subject("77.0.9.0/24", devices=("vxlan-calico",)), "none"),
    "eBGP": (KINDS, subject("10.1.0.0/16", external=True), "accept"),
    "not eBGP": (KINDS, subject("10.1.0.0/16"), "none"),
    "iBGP": (KINDS, subject("172.17.0.0/16"), "reject"),
    "not iBGP": (KINDS, subject("172.17.0.0/16", external=True), "none"),
    "community": (COMMUNITIES, subject(communities=("65000:1", "65000:42")), "accept"),
    "another community": (COMMUNITIES, subject(communities=("65000:421",)), "none"),
    "large community": (COMMUNITIES, subject(large_communities=("65000:100:200",)), "reject"),
    "community with zeros before it": (
        ({"action": "Accept", "communities": {"values": ["065000:042"]}},),
        subject(communities=("65000:42",)),
        "accept",
    ),
    "path": (PATHS, subject(as_path=seq(65000, 65001, 5)), "accept"),
    "path, itself": (PATHS, subject(as_path=seq(65000, 65001)), "accept"),
    "path over two segments": (PATHS, subject(as_path=seq(65000) + seq(65001)), "accept"),
    "path with a set": (PATHS, subject(as_path=(*seq(65000), Segment((7, 65001), is_set=True))), "accept"),
    "path, the beginning": (PATHS, subject(as_path=seq(65000, 7, 65001)), "reject"),
    "path, too short": (PATHS, subject(as_path=seq(65000)), "reject"),
    "path, elsewhere": (PATHS, subject(as_path=seq(5, 65000, 65001)), "none"),
    "no path": (PATHS, subject(), "none"),
    "priority": (PRIORITIES, subject(local_preference=2147483647 - 100), "accept"),
    "normal priority": (PRIORITIES, subject(local_preference=2147483647 - 1024), "reject"),
    "a route that nobody gave a priority": (PRIORITIES, subject(), "reject"),
    "a LOCAL_PREF that is no priority": (PRIORITIES, subject(local_preference=200), "reject"),
    "another priority": (PRIORITIES, subject(local_preference=2147483647 - 512), "none"),
    "length": (LENGTHS, subject("10.5.5.0/24"), "accept"),
    "length, longest": (LENGTHS, subject("10.5.5.0/28"), "accept"),
    "too short": (LENGTHS, subject("10.5.0.0/16"), "none"),
    "too long": (LENGTHS, subject("10.5.5.5/32"), "none"),
    "length, outside": (LENGTHS, subject("11.5.5.0/24"), "none"),
    "length, from the cidr's own": (
        (cidr("In", "10.0.0.0/8", prefixLength={"max": 16}),), subject("10.0.0.0/8"), "accept",
    ),
    "length, shorter than the cidr": (
        (cidr("In", "10.0.0.0/8", prefixLength={"min": 4}),), subject("0.0.0.0/4"), "none",
    ),
    "length, to the end": ((cidr("Equal", "10.0.0.0/8", prefixLength={"min": 30}),), subject("10.1.1.1/32"), "accept"),
    "not in, with length": (
        (cidr("NotIn", "10.0.0.0/8", "Reject", prefixLength={"min": 24, "max": 28}),), subject("10.5.0.0/16"), "reject",
    ),
    "not in, with length, in it": (
        (cidr("NotIn", "10.0.0.0/8", "Reject", prefixLength={"min": 24, "max": 28}),), subject("10.5.5.0/24"), "none",
    ),
    "IPv6": ((cidr("In", "fd00::/48"),), subject("fd00::4:0/122"), "accept"),
    "IPv6, outside": ((cidr("In", "fd00::/48"),), subject("fd01::4:0/122"), "none"),
    "all conditions": (
        (
            cidr(
                "In", "10.0.0.0/8", interface="eth*", source="RemotePeers", peerType="eBGP", asPathPrefix=[5],
                priority=1024, communities={"values": ["1:1"]},
            ),
        ),
        subject("10.1.0.0/16", external=True, devices=("eth1",), as_path=seq(5), communities=("1:1",)),
        "accept",
    ),
}  # fmt: skip


@pytest.mark.bgp_scenario(38)
@pytest.mark.parametrize("case", CASES)
def test_each_condition(case: str) -> None:
    listed, route, expected = CASES[case]
    assert verdict(ruling(rules(*listed), route)) == expected


@pytest.mark.parametrize(
    ("change", "is_met"),
    [
        ({"prefix": "11.1.0.0/16"}, False), ({"external": False}, False), ({"devices": ("cali1",)}, False),
        ({"as_path": seq(6)}, False), ({"communities": ("1:2",)}, False), ({"learned": False}, False),
        ({"local_preference": 2147483647 - 5}, False), ({}, True),
    ],
)  # fmt: skip
def test_a_rule_needs_all_of_its_conditions(change: dict[str, Any], is_met: bool) -> None:
    listed, _, _ = CASES["all conditions"]
    met: dict[str, Any] = {
        "prefix": "10.1.0.0/16", "external": True, "devices": ("eth1",), "as_path": seq(5), "communities": ("1:1",),
    }  # fmt: skip
    assert (ruling(rules(*listed), subject(**met | change)) is not None) is is_met


def operated(*operations: Mapping[str, object], **attributes: Any) -> PathAttributes:
    found = ruling(rules({"action": "Accept", "operations": list(operations)}), subject(**attributes))
    assert found is not None
    return found.attributes


@pytest.mark.bgp_scenario(38)
def test_operations_in_their_order() -> None:
    prepended = {"prependASPath": {"prefix": [65000, 65001]}}
    assert operated(prepended).as_path == seq(65000, 65001)
    assert operated(prepended, as_path=seq(7)).as_path == seq(65000, 65001, 7)
    assert operated(prepended, prepended).as_path == seq(65000, 65001, 65000, 65001)
    a_set = Segment((7, 8), is_set=True)
    assert operated(prepended, as_path=(a_set,)).as_path == (*seq(65000, 65001), a_set)

    added = operated({"addCommunity": {"value": "65001:200"}}, communities=("65000:1",))
    assert added.communities == ("65000:1", "65001:200")
    assert operated({"addCommunity": {"value": "1:2"}}, communities=("1:2",)).communities == ("1:2",)
    assert operated({"addCommunity": {"value": "65001:300:400"}}).large_communities == ("65001:300:400",)

    for value in (1, 512, 1024, 5000):
        assert operated({"setPriority": {"value": value}}).priority == value
    assert operated().local_preference is None


def test_priorities_order_paths_also_among_those_that_say_none() -> None:
    better, normal, worse = (NO_PATH_ATTRIBUTES.with_priority(value).preference for value in (512, 1024, 2000))
    assert better > 200 > normal == NO_PATH_ATTRIBUTES.preference == 100 > worse


def test_filters_are_asked_in_the_order_of_their_names_in_the_peer_and_unknown_ones_not_at_all() -> None:
    accept = filter_of(parsed(exportV4=[cidr("In", "10.0.0.0/8")], importV4=[{"action": "Reject"}]))
    reject = filter_of(parsed(exportV4=[{"action": "Reject"}]))
    known = Filters({"a": accept, "r": reject})
    for names, prefix, expected in (
        (("a", "r"), "10.1.0.0/16", "accept"), (("r", "a"), "10.1.0.0/16", "reject"),
        (("a", "r"), "11.1.0.0/16", "reject"), (("x", "a"), "10.1.0.0/16", "accept"),
        (("x",), "10.1.0.0/16", "none"), ((), "10.1.0.0/16", "none"),
    ):  # fmt: skip
        assert verdict(ruling(known.exports(names, 4), subject(prefix))) == expected
    assert verdict(ruling(known.imports(("r", "a"), 4), subject())) == "reject"
    assert list(known.imports(("a",), 6)) == []


def test_one_that_cannot_be_read_lets_nothing_through() -> None:
    known = Filters({"f": closed("no JSON")})
    for listed in (known.imports(("f",), 4), known.exports(("f",), 4)):
        assert verdict(ruling(listed, subject())) == "reject"
    assert verdict(ruling(known.exports(("f",), 6), subject("fd00::/64"))) == "reject"


@pytest.mark.parametrize(
    ("rule", "prefix", "expected"),
    [
        ({"action": "Accept"}, "192.168.0.0/24", False),
        ({"action": "Accept", "source": "RemotePeers"}, "192.168.0.0/24", False),
        (cidr("NotIn", "10.0.0.0/8"), "192.168.0.0/24", False),
        (cidr("In", "0.0.0.0/0"), "192.168.0.0/24", False),
        (cidr("In", "192.168.0.0/16"), "192.168.0.0/24", True),
        ({"action": "Accept", "interface": "eth0"}, "192.168.0.0/24", True),
        ({"action": "Accept", "interface": "eth0"}, "0.0.0.0/0", False),
        (cidr("In", "0.0.0.0/0"), "0.0.0.0/0", False),
        (cidr("Equal", "0.0.0.0/0"), "0.0.0.0/0", True),
        (cidr("In", "0.0.0.0/0", prefixLength={"max": 0}), "0.0.0.0/0", True),
    ],
)
def test_what_a_rule_points_at(rule: dict[str, Any], prefix: str, expected: bool) -> None:
    (found,) = rules(rule)
    assert found.points_at(ip_network(prefix)) is expected


# --- a slow model -----------------------------------------------------------------------------------------------------


def networks(least: int) -> st.SearchStrategy[IPNetwork]:
    """Draw networks that often meet."""
    return st.builds(
        lambda high, low, length: ip_network((0x0A000000 | high << 16 | low, length), strict=False),
        st.integers(0, 3), st.integers(0, 0xFFFF), st.integers(least, 32),
    )  # fmt: skip


LIMIT = st.none() | st.integers(0, 32)
DRAWN = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["Accept", "Reject"]),
        "cidr": networks(8).map(str),
        "matchOperator": st.sampled_from(["Equal", "NotEqual", "In", "NotIn"]),
    },
    optional={
        "prefixLength": st.fixed_dictionaries({}, optional={"min": st.integers(0, 32), "max": st.integers(0, 32)}),
        "source": st.just("RemotePeers"),
        "peerType": st.sampled_from(["eBGP", "iBGP"]),
        "asPathPrefix": st.lists(st.integers(1, 3), min_size=1, max_size=2),
        "communities": st.sampled_from([{"values": ["1:1"]}, {"values": ["1:1:1"]}]),
        "interface": st.sampled_from(["eth0", "eth*", "*0", "cali*"]),
    },
)
INTERFACES_MET = {"eth0": ["eth0"], "eth*": ["eth0", "eth1"], "*0": ["eth0"], "cali*": ["cali1"]}


def slow(rule: dict[str, Any], route: Subject) -> bool:
    network, prefix = ip_network(rule["cidr"]), route.prefix
    lengths = rule.get("prefixLength")
    whole = [network] if rule["matchOperator"] in ("Equal", "NotEqual") and lengths is None else None
    if whole is not None:
        within = prefix in whole
    else:
        within = prefix.subnet_of(network)  # type: ignore[arg-type]
        if lengths is not None:
            within = within and lengths.get("min", 0) <= prefix.prefixlen <= lengths.get("max", 32)
    conditions = [within is not rule["matchOperator"].startswith("Not")]
    if "source" in rule:
        conditions.append(route.is_learned)
    if "peerType" in rule:
        conditions.append(route.is_external == (rule["peerType"] == "eBGP"))
    if "asPathPrefix" in rule:
        flat = [number for segment in route.attributes.as_path for number in segment.numbers]
        conditions.append(flat[: len(rule["asPathPrefix"])] == rule["asPathPrefix"])
    if "communities" in rule:
        both = route.attributes.communities + route.attributes.large_communities
        conditions.append(rule["communities"]["values"][0] in both)
    if "interface" in rule:
        conditions.append(any(device in INTERFACES_MET[rule["interface"]] for device in route.devices))
    return all(conditions)


SUBJECTS = st.builds(
    lambda prefix, learned, external, device, numbers, communities, large: Subject(
        prefix=prefix,
        attributes=PathAttributes(
            as_path=(Segment(tuple(numbers)),) if numbers else (), communities=communities, large_communities=large
        ),
        is_learned=learned,
        is_external=external,
        devices=device,
    ),
    networks(0), st.booleans(), st.booleans(), st.sampled_from([(), ("eth0",), ("eth1",), ("cali1",)]),
    st.lists(st.integers(1, 3), max_size=3), st.sampled_from([(), ("1:1",), ("2:2", "1:1")]),
    st.sampled_from([(), ("1:1:1",)]),
)  # fmt: skip


@given(st.lists(DRAWN, max_size=4), SUBJECTS)
def test_it_says_what_a_slow_model_says(listed: list[dict[str, Any]], route: Subject) -> None:
    first = next((rule["action"] for rule in listed if slow(rule, route)), "None")
    assert verdict(ruling(rules(*listed), route)) == first.lower()
