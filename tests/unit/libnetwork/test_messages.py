"""Requests as Docker was seen to send them, and answers byte for byte (reference libnetwork.md 1 to 3)."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libnetwork import messages
from libnetwork.messages import Message, NotAMessage, decode, encode

NETWORK, ENDPOINT = "978ea500" * 8, "863581aa" * 8

CREATE_NETWORK_20 = (
    f'{{"NetworkID":"{NETWORK}","Options":{{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":'
    '{"foo":"bar"}},"IPv4Data":[{"AddressSpace":"CalicoGlobalAddressSpace","Pool":"17.16.11.0/24","Gateway":"0.0.0.0/0",'
    '"AuxAddresses":{"x":"17.16.11.7/32"}}],"IPv6Data":[{"AddressSpace":"CalicoGlobalAddressSpace",'
    '"Pool":"fd00:17::/64","Gateway":"::/0"}]}\n'
)
CREATE_ENDPOINT_20 = (
    f'{{"NetworkID":"{NETWORK}","EndpointID":"{ENDPOINT}","Interface":{{"Address":"17.16.10.100/32","AddressIPv6":"",'
    '"MacAddress":"02:11:22:33:44:55"},"Options":{"com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":99}],'
    '"com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080}],'
    '"com.docker.network.endpoint.macaddress":"AhEiM0RV"}}\n'
)


def test_create_network_of_20_10() -> None:
    request = decode(CREATE_NETWORK_20.encode(), messages.CreateNetwork)
    assert request.network_id == NETWORK
    assert request.options == {messages.ENABLE_IPV6: True, messages.GENERIC: {"foo": "bar"}}
    assert request.ipv4_data == [
        messages.IPAMData(address_space=messages.GLOBAL_SPACE, pool="17.16.11.0/24", gateway="0.0.0.0/0")
    ]
    assert request.ipv6_data == [
        messages.IPAMData(address_space=messages.GLOBAL_SPACE, pool="fd00:17::/64", gateway="::/0")
    ]


def test_create_endpoint_of_20_10() -> None:
    request = decode(CREATE_ENDPOINT_20.encode(), messages.CreateEndpoint)
    assert (request.network_id, request.endpoint_id) == (NETWORK, ENDPOINT)
    assert request.interface == messages.EndpointInterface(address="17.16.10.100/32", mac_address="02:11:22:33:44:55")


def test_lists_and_maps_may_be_null() -> None:
    body = json.dumps({"NetworkID": NETWORK, "Options": None, "IPv4Data": None, "IPv6Data": None}).encode()
    assert decode(body, messages.CreateNetwork) == messages.CreateNetwork(network_id=NETWORK)
    body = json.dumps({"PoolID": "17.16.10.0/24", "Address": "", "Options": None}).encode()
    assert decode(body, messages.RequestAddress) == messages.RequestAddress(pool_id="17.16.10.0/24")


@pytest.mark.parametrize(
    "wanted",
    [
        messages.CreateNetwork,
        messages.NetworkRef,
        messages.CreateEndpoint,
        messages.EndpointRef,
        messages.Join,
        messages.RequestPool,
        messages.PoolRef,
        messages.RequestAddress,
        messages.ReleaseAddress,
        messages.AllocateNetwork,
        messages.Discovery,
    ],
)
@pytest.mark.parametrize("body", [b"", b"\n", b"null", b"[]", b"7", b"{", b"\xff\xfe"])
def test_what_is_no_request_is_refused(wanted: type[Message], body: bytes) -> None:
    with pytest.raises(NotAMessage):
        decode(body, wanted)


@pytest.mark.parametrize("identifier", ["", "../../x", "ABCDEF012345", "a" * 11, "g" * 64, "a" * 64 + "\n"])
def test_an_identifier_that_cannot_stand_in_a_key_is_refused(identifier: str) -> None:
    with pytest.raises(NotAMessage, match=r"\$.NetworkID"):
        decode(json.dumps({"NetworkID": identifier}).encode(), messages.NetworkRef)


def test_a_call_without_arguments_has_no_body() -> None:
    assert decode(b"", messages.NoArguments) == messages.NoArguments()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=20).map(lambda name: f"X{name}"), JSON, max_size=4))
def test_members_of_later_releases_are_passed_over(later: dict[str, object]) -> None:
    known = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/run/docker/netns/e14ccc934819"}
    assert decode(json.dumps({**later, **known}).encode(), messages.Join) == messages.Join(
        network_id=NETWORK, endpoint_id=ENDPOINT, sandbox_key="/run/docker/netns/e14ccc934819"
    )


@given(st.binary(max_size=60), st.sampled_from([messages.CreateEndpoint, messages.Join, messages.RequestAddress]))
def test_any_bytes_are_read_or_refused(body: bytes, wanted: type[Message]) -> None:
    with contextlib.suppress(NotAMessage):
        assert isinstance(decode(body, wanted), wanted)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (messages.Empty(), "{}"),
        (messages.Failure(err="no"), '{"Err":"no"}'),
        (messages.Activated(implements=["IpamDriver"]), '{"Implements":["IpamDriver"]}'),
        (
            messages.NetworkCapabilities(scope="global", connectivity_scope="global"),
            '{"Scope":"global","ConnectivityScope":"global"}',
        ),
        (messages.AddressCapabilities(), '{"RequiresMACAddress":false,"RequiresRequestReplay":false}'),
        (
            messages.AddressSpaces(),
            '{"LocalDefaultAddressSpace":"CalicoLocalAddressSpace",'
            '"GlobalDefaultAddressSpace":"CalicoGlobalAddressSpace"}',
        ),
        (messages.CreatedEndpoint(interface=messages.FilledInterface()), '{"Interface":{}}'),
        (
            messages.CreatedEndpoint(interface=messages.FilledInterface(mac_address="ee:ee:ee:ee:ee:ee")),
            '{"Interface":{"MacAddress":"ee:ee:ee:ee:ee:ee"}}',
        ),
        (messages.OperInfo(), '{"Value":{}}'),
        (
            messages.Joined(
                interface_name=messages.InterfaceName(src_name="temp218b43d95c8", dst_prefix="cali"),
                gateway="169.254.1.1",
                gateway_ipv6="fe80::203a:e5ff:fed4:8b94",
                static_routes=[
                    messages.StaticRoute(destination="169.254.1.1/32"),
                    messages.StaticRoute(destination="fe80::203a:e5ff:fed4:8b94/128"),
                ],
            ),
            '{"InterfaceName":{"SrcName":"temp218b43d95c8","DstPrefix":"cali"},"Gateway":"169.254.1.1",'
            '"GatewayIPv6":"fe80::203a:e5ff:fed4:8b94","StaticRoutes":[{"Destination":"169.254.1.1/32","RouteType":1,'
            '"NextHop":""},{"Destination":"fe80::203a:e5ff:fed4:8b94/128","RouteType":1,"NextHop":""}],'
            '"DisableGatewayService":false}',
        ),
        (
            messages.Pool(pool_id="17.16.10.0/24", pool="17.16.10.0/24", data={messages.GATEWAY: "0.0.0.0/0"}),
            '{"PoolID":"17.16.10.0/24","Pool":"17.16.10.0/24","Data":{"com.docker.network.gateway":"0.0.0.0/0"}}',
        ),
        (messages.Address(address="17.16.10.2/32"), '{"Address":"17.16.10.2/32","Data":{}}'),
    ],
)
def test_answers(answer: Message, text: str) -> None:
    assert encode(answer).decode() == text
