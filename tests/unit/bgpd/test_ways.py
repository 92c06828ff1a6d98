"""By which gateway and from which address a session is spoken (reference bgp.md 1.5)."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from bgpd.calc.sessions import PeerKind, PeerSpec, Sessions
from bgpd.calc.surroundings import Surroundings
from bgpd.calc.ways import placed, ways
from kernel.route import PROTOCOL_BGPD, PROTOCOL_KERNEL, PROTOCOL_STATIC, Route, RouteKey, RouteKind
from resources.names import AsNumber, IfName

ETH0, ETH1 = IfName("eth0"), IfName("eth1")
FAR, GATEWAY = ip_address("192.0.2.7"), ip_address("10.0.0.254")


def own(network: str, source: str, device: IfName = ETH0) -> tuple[RouteKey, tuple[Route, ...]]:
    return RouteKey(ip_network(network)), (
        Route.on(device, protocol=PROTOCOL_KERNEL, source=ip_address(source) if "." in source else None),
    )


HERE = Surroundings(
    dict([
        own("10.0.0.0/24", "10.0.0.1"), own("10.1.0.0/24", "10.1.0.1", ETH1), own("fd99::/64", "fd99::1"),
        (RouteKey(ip_network("0.0.0.0/0")), (Route.via(ip_address("10.1.0.254"), ETH1, protocol=PROTOCOL_STATIC),)),
        (RouteKey(ip_network("172.16.0.0/12")), (Route(protocol=PROTOCOL_STATIC, kind=RouteKind.BLACKHOLE),)),
        (
            RouteKey(ip_network("203.0.113.0/24")),
            (replace(Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC), source=ip_address("10.9.9.9")),),
        ),
    ]),
    [ip_address(text) for text in ("10.0.0.1", "10.1.0.1", "10.9.9.9", "fd99::1")],
    [ETH0, ETH1],
)  # fmt: skip
SPEC = PeerSpec(
    address=FAR,
    kind=PeerKind.GLOBAL,
    local_address=ip_address("10.0.0.1"),
    local_as=AsNumber(64512),
    peer_as=AsNumber(65001),
    origin="far",
)
BEHIND = replace(SPEC, gateway=GATEWAY)
ANY = replace(SPEC, any_source=True)
WAY = {ip_network("192.0.2.7/32"): Route.via(GATEWAY, ETH0, protocol=PROTOCOL_BGPD)}


def put(
    spec: PeerSpec, *, here: Surroundings | None = HERE, there: bool = True, before: PeerSpec | None = None
) -> str | None:
    """Return the address that the session is spoken from, why it cannot be, or None: it waits."""
    known = {} if before is None else {before.address: before}
    found = placed(Sessions(peers={spec.address: spec}), here, WAY.keys() if there else (), known)
    if found.peers:
        return str(found.peers[spec.address].local_address)
    return next((one.reason for one in found.unusable), None)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.77", "10.0.0.1"), ("10.1.0.77", "10.1.0.1"), ("192.0.2.7", "10.1.0.1"), ("203.0.113.5", "10.9.9.9"),
        ("fd99::77", "fd99::1"), ("172.16.0.1", None), ("fd00::1", None), ("10.0.0.1", None),
    ],
)  # fmt: skip
def test_the_address_that_the_kernel_would_choose(address: str, source: str | None) -> None:
    found = HERE.source_to(ip_address(address))
    assert (None if found is None else str(found)) == source


def test_an_ordinary_session_depends_on_nothing_of_this() -> None:
    assert put(SPEC, here=None, there=False) == "10.0.0.1"
    assert ways([SPEC, ANY], HERE) == {}


def test_a_session_behind_a_gateway_waits_for_its_route() -> None:
    assert ways([BEHIND], HERE) == WAY
    assert put(BEHIND, here=None) is None
    assert put(BEHIND, there=False) is None
    assert put(BEHIND) == "10.0.0.1"
    # while an interface is down it stays
    assert put(BEHIND, here=Surroundings(), there=False, before=BEHIND) == "10.0.0.1"
    assert put(BEHIND, here=None, before=BEHIND) == "10.0.0.1"


def test_a_gateway_is_a_neighbour() -> None:
    lost = replace(BEHIND, gateway=ip_address("192.0.2.254"))
    assert ways([lost], HERE) == {}
    assert put(lost) == "reachableBy: 192.0.2.254 is on no network of this host, so it cannot be a gateway"
    assert put(lost, before=BEHIND) == put(lost)


def test_what_leads_to_a_peer_leads_to_what_it_tells_and_says_the_address() -> None:
    assert HERE.also({}) is HERE
    here = HERE.also(WAY)
    assert here.devices_to(FAR) == ("eth0",)
    assert HERE.devices_to(FAR) == ("eth1",)
    assert here.source_to(FAR) == ip_address("10.0.0.1")
    assert here == here.also(WAY) != HERE
    assert put(replace(ANY, gateway=GATEWAY), here=here) == "10.0.0.1"


def test_a_session_without_a_source_address_keeps_its_last() -> None:
    assert put(ANY) == "10.1.0.1"
    assert put(ANY, here=None) is None
    assert put(ANY, here=Surroundings()) == f"sourceAddress is None, and this host has no route to {FAR}"
    before = replace(ANY, local_address=ip_address("10.1.0.1"))
    assert put(ANY, here=Surroundings(), before=before) == "10.1.0.1"
