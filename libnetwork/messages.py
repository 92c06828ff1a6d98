"""Each request and answer of Docker's network and IPAM plugin protocol as a frozen type.

Wire forms: reference libnetwork.md 1 to 3. Members that Docker adds in later releases are passed over, lists and maps
may be null, and only what a call cannot do without is required: an empty object is refused where it names nothing.
"""

from typing import Annotated, TypeVar

import msgspec

ENABLE_IPV4 = "com.docker.network.enable_ipv4"
"""Always there since Docker 28, normally true."""
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
GENERIC = "com.docker.network.generic"
"""The ``-o`` options of ``docker network create``, ``{}`` if none."""
OPTION_PREFIX = "com.docker.network."
GATEWAY = "com.docker.network.gateway"
"""In RequestPool's answer: the gateway, so that Docker asks for none. In RequestAddress: what the address is for."""
REQUEST_ADDRESS_TYPE = "RequestAddressType"

LOCAL_SPACE = "CalicoLocalAddressSpace"
GLOBAL_SPACE = "CalicoGlobalAddressSpace"

CONNECTED = 1
"""`RouteType` of a route without next hop."""

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12,128}\Z")]
"""Of a network or an endpoint: hex digits, 64 in every Docker. It becomes part of store keys and interface names."""

_WORDS = {"id": "ID", "ipv4": "IPv4", "ipv6": "IPv6"}


def _docker(name: str) -> str:
    return "".join(_WORDS.get(word, word.capitalize()) for word in name.split("_"))


class Message(msgspec.Struct, frozen=True, kw_only=True, rename=_docker):
    """Base of all: names in Docker's spelling; unknown members are ignored."""


class NoArguments(Message, frozen=True):
    """A call without a body."""


class Empty(Message, frozen=True):
    """``{}``: the answer of a call that only succeeds."""


class Failure(Message, frozen=True):
    """The body of every status but 200 (reference libnetwork.md 1.3)."""

    err: str


class Activated(Message, frozen=True):
    implements: list[str]


class NetworkCapabilities(Message, frozen=True):
    """`scope` is ``global`` (one record for the cluster) or ``local`` (one for each daemon)."""

    scope: str
    connectivity_scope: str


class AddressCapabilities(Message, frozen=True):
    requires_mac_address: bool = msgspec.field(default=False, name="RequiresMACAddress")
    requires_request_replay: bool = False


class AddressSpaces(Message, frozen=True):
    local_default_address_space: str = LOCAL_SPACE
    global_default_address_space: str = GLOBAL_SPACE


class IPAMData(Message, frozen=True):
    """One subnet of a network; `gateway` is a CIDR, ``0.0.0.0/0`` or ``::/0`` when our IPAM driver gave it."""

    address_space: str = ""
    pool: str = ""
    gateway: str = ""


class CreateNetwork(Message, frozen=True):
    network_id: Id
    options: dict[str, object] | None = None
    ipv4_data: list[IPAMData] | None = msgspec.field(default=None, name="IPv4Data")
    ipv6_data: list[IPAMData] | None = msgspec.field(default=None, name="IPv6Data")


class NetworkRef(Message, frozen=True):
    """DeleteNetwork and FreeNetwork."""

    network_id: Id


class AllocateNetwork(Message, frozen=True):
    network_id: Id


class EndpointInterface(Message, frozen=True):
    """What IPAM and the user gave: CIDRs, empty where there is none."""

    address: str = ""
    address_ipv6: str = msgspec.field(default="", name="AddressIPv6")
    mac_address: str = ""


class CreateEndpoint(Message, frozen=True):
    network_id: Id
    endpoint_id: Id
    interface: EndpointInterface | None = None


class FilledInterface(Message, frozen=True, omit_defaults=True):
    """Only what came empty may be filled: a value where one was given fails the container."""

    mac_address: str = ""


class CreatedEndpoint(Message, frozen=True):
    interface: FilledInterface


class EndpointRef(Message, frozen=True):
    """Leave, DeleteEndpoint, EndpointOperInfo, ProgramExternalConnectivity, RevokeExternalConnectivity."""

    network_id: Id
    endpoint_id: Id


class OperInfo(Message, frozen=True):
    value: dict[str, str] = {}


class Join(Message, frozen=True):
    network_id: Id
    endpoint_id: Id
    sandbox_key: str = ""


class InterfaceName(Message, frozen=True):
    """Docker moves `src_name` into the container and calls it `dst_prefix` and a number."""

    src_name: str
    dst_prefix: str


class StaticRoute(Message, frozen=True):
    destination: str
    route_type: int = CONNECTED
    next_hop: str = ""


class Joined(Message, frozen=True):
    """An IPv6 gateway or route only for an endpoint that has an IPv6 address: else the container does not start."""

    interface_name: InterfaceName
    gateway: str = ""
    gateway_ipv6: str = msgspec.field(default="", name="GatewayIPv6")
    static_routes: list[StaticRoute] = []
    disable_gateway_service: bool = False


class Discovery(Message, frozen=True):
    discovery_type: int = 0


class RequestPool(Message, frozen=True):
    address_space: str = ""
    pool: str = ""
    """A CIDR, or empty for any."""
    sub_pool: str = ""
    options: dict[str, str] | None = None
    v6: bool = False


class Pool(Message, frozen=True):
    pool_id: str
    pool: str
    data: dict[str, str] = {}


class PoolRef(Message, frozen=True):
    """ReleasePool."""

    pool_id: str


class RequestAddress(Message, frozen=True):
    pool_id: str
    address: str = ""
    """Bare, or empty for any."""
    options: dict[str, str] | None = None


class Address(Message, frozen=True):
    """`address` is a CIDR and goes onto the interface as it is: ``/32`` or ``/128``."""

    address: str
    data: dict[str, str] = {}


class ReleaseAddress(Message, frozen=True):
    pool_id: str
    address: str


M = TypeVar("M", bound=Message)


class NotAMessage(ValueError):
    """A body that is not the request its path announces; the text says what is wrong with it."""


def decode(body: bytes, wanted: type[M]) -> M:
    """Read a request.

    A call without arguments comes with no body at all. Any other empty body is what Docker sends when it repeats a
    request that was cut (reference libnetwork.md 5), and refused.

    Raises:
        NotAMessage: not JSON, not an object, a required member is missing, or a member has another type.
    """
    if wanted is NoArguments:
        return wanted()
    if not body:
        raise NotAMessage("the body is empty")
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotAMessage(str(error)) from error


def encode(answer: Message) -> bytes:
    return msgspec.json.encode(answer)
