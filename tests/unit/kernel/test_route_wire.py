"""Route messages: ours read what ours wrote, and pyroute2, which knows nothing of us, reads the same."""

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from kernel import route_wire as wire
from kernel.errors import NoSuchDevice
from kernel.netlink import attribute
from kernel.route import NextHop, Route, RouteKey, RouteKind, Scope
from resources.names import IfName, IPAddress, IPNetwork

INDICES = {IfName(name): index for index, name in enumerate(("lo", "eth0", "cali1", "cali2", "tunl0"), 1)}
NAMES = {index: name for name, index in INDICES.items()}


def index_of(name: IfName) -> int:
    if name not in INDICES:
        raise NoSuchDevice(f"no interface {name}")
    return INDICES[name]


def _network(version: int, number: int, length: int) -> IPNetwork:
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    size = 32 if version == 4 else 128
    return kind((number >> (size - length) << (size - length), length)) if length else kind((0, 0))


addresses = st.ip_addresses()
v4_networks = st.builds(_network, st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 32))
v6_networks = st.builds(_network, st.just(6), st.integers(0, 2**128 - 1), st.integers(0, 128))
keys = st.builds(RouteKey, v4_networks | v6_networks, st.integers(0, 2**32 - 1))
devices = st.sampled_from(sorted(INDICES))
hops = st.builds(
    NextHop, gateway=st.none() | addresses, device=devices, onlink=st.booleans(), weight=st.integers(1, 256)
)
routes = st.builds(
    Route,
    protocol=st.integers(0, 255),
    kind=st.sampled_from(RouteKind),
    next_hops=st.lists(hops, min_size=1, max_size=5).map(tuple),
)


def sources(key: RouteKey) -> st.SearchStrategy[IPAddress | None]:
    return st.none() | st.ip_addresses(v=key.destination.version)


@st.composite
def entries(draw: st.DrawFn) -> tuple[RouteKey, Route]:
    key, route = draw(keys), draw(routes)
    scope = draw(st.none() | st.sampled_from(Scope)) if key.destination.version == 4 else None
    source = draw(sources(key))
    return key, Route(protocol=route.protocol, kind=route.kind, next_hops=route.next_hops, scope=scope, source=source)


@given(entries())
def test_what_was_packed_is_read(entry: tuple[RouteKey, Route]) -> None:
    assert wire.Decoder(NAMES).entry(wire.Packer(index_of).written(*entry)) == entry


@given(st.lists(entries(), max_size=8))
def test_one_decoder_reads_many(table: list[tuple[RouteKey, Route]]) -> None:
    decoder = wire.Decoder(NAMES)
    packer = wire.Packer(index_of)
    assert [decoder.entry(packer.written(*entry)) for entry in table] == table


@given(entries())
def test_pyroute2_reads_what_was_packed(entry: tuple[RouteKey, Route]) -> None:
    key, route = entry
    seen = by_pyroute2(wire.Packer(index_of).written(key, route))
    destination = seen.get_attr("RTA_DST") or str(key.destination.network_address)
    assert ipaddress.ip_network((destination, seen["dst_len"])) == key.destination
    assert (seen.get_attr("RTA_PRIORITY") or 0) == key.metric
    assert (seen["proto"], seen["type"], seen["scope"], seen["table"]) == (
        route.protocol,
        route.kind,
        route.scope,
        wire.TABLE_MAIN,
    )
    source = seen.get_attr("RTA_PREFSRC")
    assert (None if source is None else ipaddress.ip_address(source)) == route.source
    assert tuple(sorted(hops_by_pyroute2(seen))) == tuple(sorted(map(hop_in_words, route.next_hops)))


HopWords = tuple[str | None, int, bool, int]


def by_pyroute2(body: bytes) -> Any:
    message = rtmsg(struct.pack("=IHHII", 16 + len(body), wire.RTM_NEWROUTE, 0, 0, 0) + body)
    message.decode()
    return message


def hops_by_pyroute2(seen: Any) -> list[HopWords]:
    if seen.get_attr("RTA_MULTIPATH") is not None:
        return [_hop(hop, hop["oif"], hop["flags"], hop["hops"]) for hop in seen.get_attr("RTA_MULTIPATH")]
    if seen.get_attr("RTA_OIF") is None:
        return []
    return [_hop(seen, seen.get_attr("RTA_OIF"), seen["flags"], 0)]


def _hop(attributes: Any, index: int, flags: int, more: int) -> HopWords:
    via = attributes.get_attr("RTA_VIA")
    gateway = attributes.get_attr("RTA_GATEWAY") or (via["addr"] if via is not None else None)
    return (str(ipaddress.ip_address(gateway)) if gateway else "", index, bool(flags & 4), more + 1)


def hop_in_words(hop: NextHop) -> HopWords:
    assert hop.device is not None
    return (str(hop.gateway) if hop.gateway is not None else "", INDICES[hop.device], hop.onlink, hop.weight)


@given(entries())
def test_a_deletion_names_key_protocol_and_one_device_only(entry: tuple[RouteKey, Route]) -> None:
    key, route = entry
    seen = by_pyroute2(wire.Packer(index_of).deleted(key, route))
    assert (seen["proto"], seen["type"], seen["scope"]) == (route.protocol, 0, Scope.NOWHERE)
    assert seen["dst_len"] == key.destination.prefixlen
    assert (seen.get_attr("RTA_PRIORITY") or 0) == key.metric
    assert seen.get_attr("RTA_GATEWAY") is None
    assert seen.get_attr("RTA_MULTIPATH") is None
    one = len(route.next_hops) == 1
    assert seen.get_attr("RTA_OIF") == (INDICES[next(iter(route.devices))] if one else None)


def test_equal_routes_of_one_table_are_one_object() -> None:
    decoder = wire.Decoder(NAMES)
    route = Route.via(ipaddress.ip_address("192.0.2.7"), IfName("eth0"), protocol=81)
    first, second = (
        decoder.entry(wire.Packer(index_of).written(RouteKey(ipaddress.ip_network(text)), route))
        for text in ("10.1.0.0/26", "10.2.0.0/26")
    )
    assert first is not None
    assert second is not None
    assert first[1] is second[1]


def test_a_device_without_an_index_is_named() -> None:
    key, route = RouteKey(ipaddress.ip_network("10.0.0.1/32")), Route.on(IfName("nope0"), protocol=80)
    with pytest.raises(NoSuchDevice, match="nope0"):
        wire.Packer(index_of).written(key, route)


PLAIN = (RouteKey(ipaddress.ip_network("10.1.0.0/26")), Route.on(IfName("eth0"), protocol=80))
MULTIPATH = (
    RouteKey(ipaddress.ip_network("10.1.0.0/26")),
    Route.multipath(
        [
            NextHop(gateway=ipaddress.ip_address("192.0.2.7"), device=IfName("eth0")),
            NextHop(gateway=ipaddress.ip_address("192.0.2.8"), device=IfName("cali1")),
        ],
        protocol=80,
    ),
)


@pytest.mark.parametrize("entry", [PLAIN, MULTIPATH], ids=["plain", "multipath"])
def test_a_route_on_an_interface_that_is_going_is_left_out(entry: tuple[RouteKey, Route]) -> None:
    body = wire.Packer(index_of).written(*entry)
    assert wire.Decoder({INDICES[IfName("cali1")]: IfName("cali1")}).entry(body) is None


def changed(body: bytes, offset: int, value: int) -> bytes:
    """Return the body with one byte of struct rtmsg changed."""
    return body[:offset] + bytes([value]) + body[offset + 1 :]


@pytest.mark.parametrize(
    "body",
    [
        changed(wire.Packer(index_of).written(*PLAIN), 3, 0x10),
        changed(wire.Packer(index_of).written(*PLAIN), 4, 255),
        wire.Packer(index_of).written(*PLAIN) + attribute(15, struct.pack("=I", 1000)),
        changed(wire.Packer(index_of).written(*PLAIN), 9, 0x02),
        changed(wire.Packer(index_of).written(*PLAIN), 7, 10),
        changed(wire.Packer(index_of).written(*PLAIN), 0, 28),
    ],
    ids=["type of service", "table local", "table 1000", "cloned", "kind NAT", "family MPLS"],
)
def test_what_is_not_of_table_main_is_left_out(body: bytes) -> None:
    assert wire.Decoder(NAMES).entry(body) is None
