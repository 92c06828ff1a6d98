"""What bgpd tells of its routes, and its figures, after a history (reference bgp.md 6, 73, 75)."""

from ipaddress import ip_address
from typing import Any

import pytest

from bgpd.calc.imports import Refusal
from bgpd.calc.paths import PathAttributes, Segment
from bgpd.engine import Page
from bgpd.report import MEANING, as_path
from fakes.bgp_host import ETH0, BgpHost, affinity_record, block_record, node_record, pool_record
from kernel.route import PROTOCOL_STATIC, Route
from resources.runtime.metrics import Family

OWN, B2, B3 = "10.65.1.0/26", "10.65.2.0/26", "10.65.3.0/26"
N2, N3 = "10.0.0.2", "10.0.0.3"


@pytest.fixture
def host() -> BgpHost:
    """A node with two peers that are up and told nothing."""
    host = BgpHost(max_prefixes=3)
    host.put(pool_record("p", "10.65.0.0/16"), *(node_record(f"node{n}", f"10.0.0.{n}/24") for n in (1, 2, 3)))
    host.put(pool_record("wrapped", "10.70.0.0/16", ipipMode="Always"))
    host.put(block_record(OWN, "node1"), affinity_record(OWN, "node1"))
    host.in_sync()
    host.run()
    for peer in (N2, N3):  # no graceful restart: what a peer told goes with its session
        host.exabgp.peer_up(peer, graceful=False)
        host.exabgp.peer_ends(peer)
    host.run()
    return host


def learned(host: BgpHost) -> dict[str, Any]:
    found = host.engine.routes()["routes"]
    assert isinstance(found, list)
    return {route["prefix"]: route for route in found}


def figures(host: BgpHost) -> dict[tuple[str, ...], float]:
    found = host.engine.answer(Page.METRICS)
    assert isinstance(found, list)
    assert all(isinstance(family, Family) for family in found)
    return {(family.name, *labels): number for family in found for labels, number in family.samples}


def test_every_refusal_has_a_meaning() -> None:
    assert set(MEANING) == set(Refusal)


def test_a_route_in_the_kernel_tells_by_whom_and_when(host: BgpHost) -> None:
    told_at = host.clock.now + 1e9
    host.exabgp.peer_sends(N2, [B2])
    host.run()
    route = learned(host)[B2]
    assert (route["in_kernel"], route["route"], route["why_not"]) == (True, f"via {N2} dev eth0 proto 81", "")
    [path] = route["paths"]
    assert (path["peer"], path["name"], path["next_hop"]) == (N2, "Mesh_10_0_0_2", N2)
    assert (path["chosen"], path["refused"], path["lost_by"], path["stale"]) == (True, None, None, False)
    assert path["since"] == pytest.approx(told_at, abs=5)


@pytest.mark.bgp_scenario(73)
def test_every_route_that_is_not_there_has_its_reason(host: BgpHost) -> None:
    host.put_route("10.65.9.0/26", Route.via(ip_address("10.0.0.99"), ETH0, protocol=PROTOCOL_STATIC))
    host.run()
    host.exabgp.peer_sends(N2, ["10.66.0.0/26", OWN, "10.65.9.0/26", "10.70.2.0/26"])
    host.exabgp.peer_sends(N3, [B3])
    host.run()
    found = learned(host)
    assert {prefix: (route["in_kernel"], route["paths"][0]["refused"]) for prefix, route in found.items()} == {
        "10.66.0.0/26": (False, "not-in-pool"),
        OWN: (False, "own-block"),
        "10.65.9.0/26": (False, None),
        "10.70.2.0/26": (False, None),
        B3: (True, None),
    }
    chosen = {prefix: route["paths"][0]["chosen"] for prefix, route in found.items()}
    assert chosen == {prefix: prefix not in ("10.66.0.0/26", OWN) for prefix in found}
    assert found["10.66.0.0/26"]["why_not"] == "no path is accepted"
    assert found[OWN]["why_not"] == "this node has it itself"
    assert found["10.65.9.0/26"]["why_not"].startswith("somebody else's route is there and stays: via 10.0.0.99")
    assert found["10.70.2.0/26"]["why_not"] == "ipipMode is Always and there is no tunl0 that is up"


def test_a_path_that_lost_says_by_what(host: BgpHost) -> None:
    host.exabgp.peer_sends(N2, [B2])
    host.exabgp.peer_sends(N3, [B2], local_preference=50)
    host.run()
    paths = learned(host)[B2]["paths"]
    assert {path["peer"]: path["lost_by"] for path in paths} == {N2: None, N3: "lower local preference"}
    assert {path["peer"]: path["chosen"] for path in paths} == {N2: True, N3: False}


def test_a_path_is_shown_with_what_came_with_it(host: BgpHost) -> None:
    host.exabgp.peer_sends(
        N2, [B2], originator_id="10.0.0.9", cluster_list=["7.7.7.7"], med=5, local_preference=200,
        community=[[64512, 7]],
    )  # fmt: skip
    host.exabgp.peer_sends(N3, [B3])
    host.run()
    (full,), (plain,) = (learned(host)[prefix]["paths"] for prefix in (B2, B3))
    names = ("originator", "clusters", "med", "local_preference", "communities", "origin", "external", "aggregator")
    assert {name: full[name] for name in names} == {
        "originator": "10.0.0.9", "clusters": ["7.7.7.7"], "med": 5, "local_preference": 200,
        "communities": ["64512:7"], "origin": "igp", "external": False, "aggregator": "",
    }  # fmt: skip
    assert (plain["originator"], plain["clusters"], plain["communities"]) == (None, [], [])


def test_a_session_tells_the_peers_identifier_once_it_is_known(host: BgpHost) -> None:
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run(3)
    sessions = host.engine.state()["sessions"]
    assert isinstance(sessions, list)
    assert {one["peer"]: one["router_id"] for one in sessions} == {N2: N2, N3: N3, "10.0.0.4": None}


def test_an_as_path_reads_as_elsewhere() -> None:
    attributes = PathAttributes(as_path=(Segment((65001, 64512)), Segment((65010, 65011), is_set=True)))
    assert as_path(attributes) == "65001 64512 {65010 65011}"
    assert as_path(PathAttributes()) == ""


@pytest.mark.bgp_scenario(75)
def test_figures_are_the_truth_after_refusals_a_limit_and_a_session_down(host: BgpHost) -> None:
    host.exabgp.peer_sends(N2, [B2, "10.66.0.0/26", *(f"10.65.{n}.0/26" for n in range(10, 14))])
    host.exabgp.peer_sends(N3, [B3])
    host.run()
    found = figures(host)
    peer = (N2, "mesh", "ipv4")
    assert found["calico_bgp_session_up", *peer] == 1
    assert found["calico_bgp_routes_received", N2] == 6
    assert found["calico_bgp_routes_accepted", N2] == 3
    assert found["calico_bgp_routes_refused", N2, "max-prefix"] == 2
    assert found["calico_bgp_routes_rejected_total", N2, "not-in-pool"] == 1
    assert found["calico_bgp_routes_offered", N2] == found["calico_bgp_routes_offered", N3] == 1
    assert found["calico_bgp_routes_in_kernel",] == 5  # our blackhole, three of one peer, one of the other
    assert found["calico_bgp_kernel_writes_total", "add", "ok"] == 5
    host.exabgp.peer_down(N2, "closing connection")
    host.run()
    found = figures(host)
    assert found["calico_bgp_session_up", *peer] == 0
    assert found["calico_bgp_session_transitions_total", *peer] == 2
    assert found["calico_bgp_session_last_error_info", *peer, "Socket: Connection closed"] == 1
    assert found["calico_bgp_routes_received", N2] == found["calico_bgp_routes_offered", N2] == 0
    assert found["calico_bgp_routes_in_kernel",] == 2
    assert found["calico_bgp_kernel_writes_total", "delete", "ok"] == 3
    assert found["calico_bgp_routes_rejected_total", N2, "not-in-pool"] == 1
    host.remove(node_record("node2", f"{N2}/24"))
    host.run(3)
    assert [of for of in figures(host) if N2 in of] == []
