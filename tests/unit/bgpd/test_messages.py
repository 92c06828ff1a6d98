"""ExaBGP's lines, as recorded from the real 5.0.15 between two of it and two BIRDs, and our commands."""

import json
import re
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.offers import Offer
from bgpd.calc.paths import Carried, Origin, PathAttributes, Segment
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
            carried=Carried(is_atomic=True, aggregator=(65001, IPv4Address("10.9.9.9"))),
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
            carried=Carried(is_atomic=True, aggregator=(65001, IPv4Address("10.9.9.9"))),
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


# --- what is only passed on -------------------------------------------------------------------------------------------

CARRIED = Carried(
    is_atomic=True,
    aggregator=(4200000000, IPv4Address("10.0.0.1")),
    extended_communities=("0x0002fde800000064", "0x000300640a000001", "0x0202fffffff00001", "0x4004fde84cbebc20"),
    unknown=("0x23 0xe0 0x0000fde8", "0x63 0xe0 0x0102"),
)
# as ExaBGP 5.0.15 writes them when it was told CARRIED
IN_EVENT = (
    '"atomic-aggregate": true, "aggregator": "4200000000:10.0.0.1", "extended-community": [ '
    '{ "value": 842122827661412, "string": "target:65000:100" }, '
    '{ "value": 844854594633729, "string": "origin:100:10.0.0.1" }, '
    '{ "value": 144959613004939265, "string": "target:4294967280:1" }, '
    '{ "value": 4613091092496038944, "string": "" } ], '
    '"attribute-0x23-0xE0": "0x0000fde8", "attribute-0x63-0xE0": "0x0102"'
)
IN_TABLE = (
    '"atomic-aggregate": true, "aggregator": "4200000000:10.0.0.1", "extended-community": ["target:65000:100", '
    '"origin:100:10.0.0.1", "target:4294967280:1", "0x4004FDE84CBEBC20"], "attribute-0x23-0xE0": "0x0000fde8", '
    '"attribute-0x63-0xE0": "0x0102"'
)
IN_COMMAND = (
    "atomic-aggregate aggregator ( 4200000000:10.0.0.1 ) extended-community [ 0x0002fde800000064 0x000300640a000001 "
    "0x0202fffffff00001 0x4004fde84cbebc20 ] attribute [ 0x23 0xe0 0x0000fde8 ] attribute [ 0x63 0xe0 0x0102 ]"
)


def event(attributes: str) -> Carried:
    head = '{"type": "update", "neighbor": {"address": {"peer": "10.0.0.1"}, "message": {"update": {"attribute": {'
    found = parse(f"{head}{attributes}}}}}}}}}}}".encode())
    assert isinstance(found, Updated), found
    return found.attributes.carried


def table(attributes: str) -> Carried:
    nlri = '"nlri": {"prefix": "10.1.0.0/24", "nexthop": "10.0.0.9"}'
    route = f'{{{nlri}, "attributes": {{{attributes}}}}}'
    found = parse(f'{{"peer": {{"address": "10.0.0.1"}}, "route": {route}}}'.encode())
    assert isinstance(found, Shown), found
    return found.attributes.carried


def test_what_is_only_passed_on_is_read_from_events_and_tables_alike() -> None:
    assert event(IN_EVENT) == table(IN_TABLE) == CARRIED


def test_what_is_only_passed_on_is_said_in_exabgps_words() -> None:
    [command] = announce(P3, {ip_network("17.16.10.0/26"): Offer(None, PathAttributes(carried=CARRIED))})
    assert command == f"neighbor 10.99.0.3 announce attributes next-hop self {IN_COMMAND} nlri 17.16.10.0/26"


communities = st.integers(0, 2**64 - 1)
unknown_attributes = st.dictionaries(
    st.sampled_from([19, 20, 35, 99, 127, 250]), st.tuples(st.sampled_from([0x40, 0xC0, 0xE0]), st.binary(max_size=9))
)


@given(st.lists(communities, max_size=5), unknown_attributes)
def test_every_value_of_an_event_comes_through(values: list[int], unknown: dict[int, tuple[int, bytes]]) -> None:
    """The words of a command say the same bytes; ExaBGP sorts both."""
    listed = ", ".join(f'{{ "value": {value}, "string": "anything" }}' for value in values)
    more = "".join(f', "attribute-0x{c:02X}-0x{f:02X}": "0x{v.hex()}"' for c, (f, v) in sorted(unknown.items()))
    [command] = announce(P3, {ip_network("10.1.0.0/24"): Offer(None, PathAttributes(
        carried=event(f'"extended-community": [ {listed} ]{more}')
    ))})  # fmt: skip
    wanted = [f"extended-community [ {' '.join(f'0x{value:016x}' for value in values)} ]"] if values else []
    wanted += [f"attribute [ 0x{c:02x} 0x{f:02x} 0x{v.hex()} ]" for c, (f, v) in sorted(unknown.items())]
    assert command == " ".join(["neighbor 10.99.0.3 announce attributes next-hop self", *wanted, "nlri 10.1.0.0/24"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target:1.2.3.4:5", "0x0102010203040005"),
        ("target:65535:4294967295", "0x0002ffffffffffff"),
        ("target:65536:65535", "0x020200010000ffff"),
        ("origin:1.2.3.4:5", "0x0103010203040005"),
        ("origin:65000:7", "0x02030000fde80007"),
        ("0x030C000000000008", "0x030c000000000008"),
        # their text does not say what they are
        ("encap:VXLAN", None),
        ("rate-limit:7", None),
        # no such thing
        ("target:65536:65536", None),
        ("target:1.2.3:5", None),
        ("origin:70000:1.2.3.4", None),
        ("origin:1:1.2.3.999", None),
        ("target:5", None),
        ("0x12", None),
        ("target:1:2 ] next-hop 10.9.9.9 community [ 1:1", None),
    ],
)
def test_an_extended_community_of_a_table(text: str, expected: str | None) -> None:
    found = table(f'"extended-community": ["{text}"]').extended_communities
    assert found == (() if expected is None else (expected,))


@pytest.mark.parametrize(
    "attributes",
    [
        '"aggregator": "65001"',
        '"aggregator": "65001:10.0.0.999"',
        '"aggregator": "65001:10.0.0.1 ) community [ 1:1"',
        '"attribute-0x63-0x80": "0x01"',  # not transitive
        '"attribute-0x05-0xE0": "0x00000064"',  # has a name, whatever its flags
        '"attribute-0x63-0xE0": "0x0"',
        '"attribute-0x63-0xE0": "[ 1 ]"',
        '"error": "\\"attribute-0x63-0xE0\\": \\"0x0102\\""',  # the text of an attribute, not one
    ],
)
def test_what_could_smuggle_a_word_into_a_command_is_left_out(attributes: str) -> None:
    assert event(attributes) == table(attributes) == Carried()


def test_no_text_of_a_peer_becomes_a_word() -> None:
    taken = 0

    @given(
        st.text(max_size=40)
        | st.from_regex(r"0x[0-9a-fA-F_g ]{15,17}")
        | st.from_regex(r"0x[0-9a-f]{16}", fullmatch=True)
    )
    def check(text: str) -> None:
        nonlocal taken
        found = table(f'"aggregator": {json.dumps(text)}, "extended-community": [{json.dumps(text)}]')
        for one in found.extended_communities:
            taken += 1
            assert re.fullmatch("0x[0-9a-fA-F]{16}", one)

    check()
    assert taken > 5


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
