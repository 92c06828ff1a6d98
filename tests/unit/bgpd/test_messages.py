"""ExaBGP's lines, as recorded from the real 5.0.15 between two of it and two BIRDs, and our commands."""

import json
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.offers import Offer
from bgpd.calc.paths import Origin, PathAttributes, Segment
from bgpd.messages import (
    Answered,
    EndOfRib,
    FsmChanged,
    Hello,
    Ignored,
    Neighbours,
    Notified,
    Opened,
    Refreshed,
    Remark,
    SessionChanged,
    Shown,
    ShuttingDown,
    Unreadable,
    Updated,
    announce,
    end_of_rib,
    parse,
    withdraw,
)

RECORDED = (Path(__file__).parents[2] / "fixtures" / "bgpd" / "exabgp-5.0.15.lines").read_bytes().splitlines()
P2, P3 = ip_address("10.99.0.2"), ip_address("10.99.0.3")

EXPECTED = [
    Hello(14041, "0452bb411637644d", 0, 0),
    FsmChanged(P3, "CONNECT"),
    SessionChanged(P3, "connected"),
    # BIRD that helps others restart and does not itself: nothing of its to be kept
    Opened(P3, IPv4Address("10.99.0.3"), 64512, 240, None),
    Opened(P2, IPv4Address("10.99.0.2"), 65001, 240, 120),
    SessionChanged(P3, "up"),
    Updated(
        P2,
        ((ip_network("10.50.0.0/16"), P2),),
        PathAttributes(
            as_path=(Segment((65001, 64999)),), communities=("65001:1",), large_communities=("65001:2:3",)
        ),
    ),
    EndOfRib(P2, 4),
    Updated(
        P3,
        ((ip_network("17.16.11.0/26"), ip_address("10.99.0.4")),),
        PathAttributes(
            local_preference=100,
            communities=("64512:7",),
            originator=IPv4Address("10.99.0.4"),
            clusters=(IPv4Address("7.7.7.7"),),
        ),
    ),
    Updated(
        P2,
        ((ip_network("10.1.0.0/24"), P2),),
        PathAttributes(
            origin=Origin.INCOMPLETE,
            as_path=(Segment((65001, 65002)),),
            local_preference=200,
            med=50,
            communities=("64512:7", "65535:65281"),
        ),
    ),
    Updated(ip_address("10.99.0.1"), withdrawn=(ip_network("17.16.10.0/26"), ip_network("17.16.10.64/26"))),
    Notified(P3, 6, 2),
    SessionChanged(P3, "down", "notification received (6,2)"),
    SessionChanged(P3, "down", "closing connection"),
    Refreshed(P3, "begin"),
    Answered(True),
    Answered(False),
    Remark("exabgp 5.0.15"),
    None,  # the table of neighbours, below
    Shown(
        P2,
        ip_network("10.1.0.0/24"),
        P2,
        PathAttributes(
            origin=Origin.INCOMPLETE,
            as_path=(Segment((65001, 65002)),),
            local_preference=200,
            med=50,
            communities=("64512:7", "65535:65281"),
        ),
    ),
    Shown(
        ip_address("fd99::1"),
        ip_network("fd80:1::/122"),
        ip_address("fd99::4"),
        PathAttributes(communities=("64512:7",)),
    ),
    ShuttingDown(),
]


@pytest.mark.parametrize(("line", "expected"), list(zip(RECORDED, EXPECTED, strict=True)))
def test_recorded_lines_say_what_they_say(line: bytes, expected: object) -> None:
    if expected is not None:
        assert parse(line) == expected


def test_the_table_of_neighbours() -> None:
    [table] = [found for line in RECORDED if isinstance(found := parse(line), Neighbours)]
    second, third, sixth = table.rows
    assert (second.peer, second.local, second.is_up, second.seconds) == (P2, ip_address("10.99.0.1"), True, 5)
    assert (second.local_as, second.peer_as, second.hold_seconds) == (64512, 65001, 9)
    assert third.router_id == IPv4Address("10.99.0.3")
    assert (sixth.peer, sixth.is_up, sixth.router_id) == (ip_address("fd99::4"), False, None)


def test_an_event_and_a_table_of_the_same_route_agree() -> None:
    """Else a restarted bgpd would take every route for a changed one."""
    event, shown = (parse(line) for line in RECORDED if b"no-export" in line or b"65281" in line)
    assert isinstance(event, Updated)
    assert isinstance(shown, Shown)
    assert event.attributes == shown.attributes


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "update"}',
        b'{"type": "update", "neighbor": {"address": {"peer": "nobody"}, "message": {"update": {}}}}',
        b'{"type": "update", "neighbor": {"address": {"peer": "10.0.0.1"}, "message": {"update": {"announce": '
        b'{"ipv4 unicast": {"10.0.0.1": [{"nlri": "10.0.0.1/24"}]}}}}}}',
        b'{"type": "state", "neighbor": {"address": {"peer": "10.0.0.1"}}}',
        b'{"peer": {"address": "10.0.0.1"}}',
        b"[1]",
        b"{",
    ],
)
def test_what_cannot_be_read_is_told(line: bytes) -> None:
    assert isinstance(parse(line), Unreadable)


def test_types_that_nobody_needs_are_ignored() -> None:
    assert parse(b'{"type": "keepalive", "neighbor": {}}') == Ignored()


def test_other_families_are_left_out() -> None:
    said = {"announce": {"ipv4 multicast": {"10.0.0.1": [{"nlri": "10.1.0.0/24"}]}}}
    neighbor = {"address": {"local": "", "peer": "10.0.0.1"}, "message": {"update": said}}
    assert parse(json.dumps({"type": "update", "neighbor": neighbor}).encode()) == Updated(ip_address("10.0.0.1"))


def test_a_set_in_a_path() -> None:
    path = {"1": {"element": "as-set", "value": [3, 4]}, "0": {"element": "as-sequence", "value": [1]}}
    neighbor = {"address": {"peer": "10.0.0.1"}, "message": {"update": {"attribute": {"as-path": path}}}}
    parsed = parse(json.dumps({"type": "update", "neighbor": neighbor}).encode())
    assert isinstance(parsed, Updated)
    assert parsed.attributes.as_path == (Segment((1,)), Segment((3, 4), is_set=True))
    assert parsed.attributes.length == 2


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(line: bytes) -> None:
    parse(line)


@given(st.sampled_from(RECORDED), st.data())
def test_any_damage_is_survived(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    parse(line[:at] + data.draw(st.binary(max_size=5)) + line[at + data.draw(st.integers(0, 20)) :])


# --- commands ---------------------------------------------------------------------------------------------------------


def test_routes_with_equal_attributes_share_a_command() -> None:
    seven = Offer(
        None, PathAttributes(communities=("64512:7", "64512:8"), large_communities=("64512:1:2",))
    )  # fmt: skip
    routes = {
        ip_network("17.16.10.64/26"): seven,
        ip_network("17.16.10.0/26"): seven,
        ip_network("17.16.20.7/32"): Offer(),
    }
    assert announce(P3, routes) == [
        "neighbor 10.99.0.3 announce attributes next-hop self nlri 17.16.20.7/32",
        "neighbor 10.99.0.3 announce attributes next-hop self community [64512:7 64512:8] "
        "large-community [64512:1:2] nlri 17.16.10.0/26 17.16.10.64/26",
    ]


def test_all_attributes_in_exabgps_words() -> None:
    reflected = PathAttributes(
        origin=Origin.INCOMPLETE,
        as_path=(Segment((65001, 65002)), Segment((1, 2), is_set=True)),
        local_preference=200,
        med=5,
        communities=("64512:7",),
        originator=IPv4Address("10.99.0.1"),
        clusters=(IPv4Address("1.0.0.1"), IPv4Address("1.0.0.2")),
    )
    assert announce(P3, {ip_network("17.16.10.0/26"): Offer(ip_address("10.99.0.1"), reflected)}) == [
        "neighbor 10.99.0.3 announce attributes next-hop 10.99.0.1 origin incomplete as-path [ 65001 65002 ] ( 1 2 ) "
        "med 5 local-preference 200 community [64512:7] originator-id 10.99.0.1 cluster-list [ 1.0.0.1 1.0.0.2 ] "
        "nlri 17.16.10.0/26"
    ]


def test_a_command_has_a_hundred_prefixes_at_most() -> None:
    prefixes = [ip_network(f"10.{n}.0.0/26") for n in range(250)]
    commands = withdraw(P3, prefixes)
    assert [command.count("/26") for command in commands] == [100, 100, 50]
    assert commands[0].startswith("neighbor 10.99.0.3 withdraw attributes next-hop self nlri 10.0.0.0/26 10.1.0.0/26 ")


def test_nothing_to_say_is_no_command() -> None:
    assert announce(P3, {}) == withdraw(P3, []) == []


def test_the_end_is_said_for_the_family_of_the_session() -> None:
    assert end_of_rib(P3) == "neighbor 10.99.0.3 announce eor ipv4 unicast"
    assert end_of_rib(ip_address("fd99::1")) == "neighbor fd99::1 announce eor ipv6 unicast"
