"""bgpd as a whole, on a fake ExaBGP and a fake kernel: histories and what must hold at their ends (bgp.md 6)."""

import json
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from structlog.testing import capture_logs

from bgpd import audit
from bgpd.audit import AUDIT_SECONDS
from bgpd.calc.imports import Refusal
from bgpd.calc.secrets import Password, SecretName, Unread
from bgpd.engine import KERNEL, NODE, SPEAKER, STORE
from fakes.bgp_host import (
    ETH0,
    BgpHost,
    affinity_record,
    block_record,
    configuration_record,
    endpoint_record,
    filter_record,
    node_record,
    peer_record,
    pool_record,
)
from kernel.errors import KernelFailure
from kernel.monitor import AddressAdded, ResyncNeeded
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, PROTOCOL_KERNEL, PROTOCOL_STATIC, Route, RouteKey
from resources.names import IfName

POOL = pool_record("p", "10.65.0.0/16")
NODES = [node_record(f"node{n}", f"10.0.0.{n}/24") for n in (1, 2, 3)]
OWN = [block_record("10.65.1.0/26", "node1"), affinity_record("10.65.1.0/26", "node1")]
N2, N3 = "10.0.0.2", "10.0.0.3"
B2, B3 = "10.65.2.0/26", "10.65.3.0/26"
GATEWAY = ip_address("10.0.0.99")


def started(*records: tuple[str, bytes], host: BgpHost | None = None) -> BgpHost:
    """Return a host whose store is in sync and whose ExaBGP runs."""
    host = host or BgpHost()
    host.put(POOL, *NODES, *OWN, *records)
    host.in_sync()
    host.run()
    return host


def meshed(*records: tuple[str, bytes], host: BgpHost | None = None) -> BgpHost:
    """Return a host with both peers up, having told one block each and that this is all."""
    host = started(*records, host=host)
    for peer, block in ((N2, B2), (N3, B3)):
        host.exabgp.peer_up(peer)
        host.exabgp.peer_sends(peer, [block])
        host.exabgp.peer_ends(peer)
    host.run()
    return host


ALL = {"10.65.1.0/26": "blackhole", B2: f"via {N2} dev eth0", B3: f"via {N3} dev eth0"}


# --- start -----------------------------------------------------------------------------------------------------------


def test_blocks_go_out_and_routes_come_in() -> None:
    host = meshed()
    assert host.routes == ALL
    assert host.offered(N2) == host.offered(N3) == {"10.65.1.0/26"}
    assert {peer.ends for peer in host.exabgp.peers.values()} == {1}
    assert host.phases == {"Mesh_10_0_0_2": "up Established", "Mesh_10_0_0_3": "up Established"}
    assert host.waits.waiting == set()


def test_nothing_is_done_before_the_store_was_read() -> None:
    host = BgpHost()
    host.put(POOL, *NODES, *OWN)
    host.kernel_says(ResyncNeeded("test"))
    host.run(600)
    assert host.kernel.routes.log == []
    assert host.exabgp.starts == 0
    assert host.waits.waiting == {STORE, NODE, SPEAKER, KERNEL}


def test_an_empty_store_that_was_read_is_an_answer_but_nobody_listens() -> None:
    host = BgpHost()
    host.in_sync()
    host.run(600)
    assert host.exabgp.starts == 0
    assert host.waits.waiting == {NODE, SPEAKER}


def test_a_single_node_needs_no_peer() -> None:
    host = BgpHost()
    host.put(POOL, NODES[0], *OWN)
    host.in_sync()
    host.run()
    assert host.waits.waiting == set()
    assert host.routes == {"10.65.1.0/26": "blackhole"}
    assert host.exabgp.environment["exabgp.tcp.bind"] == "10.0.0.1"


def test_our_end_of_rib_comes_after_our_routes() -> None:
    host = meshed()
    said = [command for command in host.exabgp.commands if command.startswith(f"neighbor {N2} ")]
    assert [words.split()[2:4] for words in said] == [["announce", "attributes"], ["announce", "eor"]]


def test_the_smaller_address_waits() -> None:
    host = started()
    assert host.exabgp.peers[N2].settings.get("passive") == "true"
    last = BgpHost("node3", "10.0.0.3/24")
    last.put(POOL, *NODES)
    last.in_sync()
    last.run()
    assert "passive" not in last.exabgp.peers["10.0.0.1"].settings


@pytest.mark.parametrize("moment", ["show neighbor json", "show adj-rib in json", "show adj-rib out json", "version"])
def test_a_session_comes_up_at_any_moment_of_the_start(moment: str) -> None:
    host = BgpHost()

    def come_up() -> None:
        host.exabgp.peer_up(N2)
        host.exabgp.peer_sends(N2, [B2])
        host.exabgp.peer_ends(N2)

    host.exabgp.before[moment] = come_up
    started(host=host)
    host.run(15)
    assert host.phases["Mesh_10_0_0_2"] == "up Established"
    assert host.routes[B2] == f"via {N2} dev eth0"
    assert host.offered(N2) == {"10.65.1.0/26"}


@pytest.mark.parametrize("moment", ["show neighbor json", "show adj-rib in json", "show adj-rib out json", "version"])
def test_a_session_falls_or_changes_at_any_moment_of_an_adoption(moment: str) -> None:
    host = meshed()
    host.run(60)
    host.exabgp.stay_behind()

    def change() -> None:
        host.exabgp.peer_notifies(N2, 6, 2)
        host.exabgp.peer_withdraws(N3, [B3])
        host.exabgp.peer_sends(N3, ["10.65.3.64/26"])

    host.exabgp.before[moment] = change
    again = started(host=BgpHost(kernel=host.kernel, exabgp=host.exabgp, clock=host.clock))
    again.run(200)
    assert again.routes == {"10.65.1.0/26": "blackhole", "10.65.3.64/26": f"via {N3} dev eth0"}


# --- nodes come and go ------------------------------------------------------------------------------------------------


def test_a_node_comes_without_touching_the_other_sessions() -> None:
    host = meshed()
    before = host.peering.neighbors[ip_address(N2)].transitions
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run()
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4"}
    host.exabgp.peer_up("10.0.0.4")
    host.run()
    assert host.offered("10.0.0.4") == {"10.65.1.0/26"}
    assert host.exabgp.peers["10.0.0.4"].ends == 1
    assert host.peering.neighbors[ip_address(N2)].transitions == before
    assert host.exabgp.starts == 1


def test_a_node_goes_with_its_routes_and_is_told_to_forget_ours() -> None:
    host = meshed()
    peer = host.exabgp.peers[N3]
    host.remove(NODES[2])
    host.run()
    assert set(host.exabgp.peers) == {N2}
    assert peer.offered == {}
    assert host.routes == {key: route for key, route in ALL.items() if key != B3}


def test_a_node_gets_another_address() -> None:
    host = meshed()
    host.put(node_record("node3", "10.0.0.33/24"))
    host.run()
    assert set(host.exabgp.peers) == {N2, "10.0.0.33"}
    host.exabgp.peer_up("10.0.0.33")
    host.exabgp.peer_sends("10.0.0.33", [B3])
    host.run()
    assert host.routes == {**ALL, B3: "via 10.0.0.33 dev eth0"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(configuration_record(asNumber=64600), id="the AS number of all"),
        pytest.param(node_record("node2", "10.0.0.2/24", asNumber=64601), id="the AS number of the peer"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["back before we know of the reload", "back after it"])
@pytest.mark.parametrize("is_new", [False, True], ids=["told", "found by the next bgpd"])
def test_a_session_that_is_made_anew_is_offered_everything_again(
    change: tuple[str, bytes], is_late: bool, is_new: bool
) -> None:
    host = meshed()
    host.run(30)
    if is_new:
        host = restarted(host)
        host.put(POOL, *(one for one in NODES if one[0] != change[0]), *OWN, change)
        host.in_sync()
    else:
        host.put(change)
    before = host.exabgp.signals
    host.run_until(lambda: host.exabgp.signals > before)
    if is_late:
        host.run(5)
    host.exabgp.peer_up(N2)
    host.run(5)
    assert "10.65.1.0/26" in host.offered(N2)
    # said before the reload is known of it may be lost with it
    assert host.exabgp.peers[N2].ends == (1 if is_late else 2)


@pytest.mark.bgp_scenario(21)
def test_ten_nodes_at_once_are_one_reload() -> None:
    host = meshed()
    for number in range(10, 20):
        host.put(node_record(f"node{number}", f"10.0.0.{number}/24"))
        host.run(0.005)
    host.run()
    assert len(host.exabgp.peers) == 12
    assert host.exabgp.signals == 1


def test_a_bad_record_harms_nobody_else() -> None:
    host = meshed(
        node_record("node8", "not an address"),
        pool_record("bad", "10.0.0.0.0/8"),
        ("/calico/ipam/v2/assignment/ipv4/block/10.65.9.0-26", b"{"),
        ("/calico/ipam/v2/host/node1/ipv4/block/10.65.9.0-26", b"[]"),
    )
    assert host.routes == ALL
    assert set(host.exabgp.peers) == {N2, N3}
    assert len(host.inventory.faults) >= 3


def test_no_mesh_no_sessions() -> None:
    host = meshed()
    host.put(configuration_record(nodeToNodeMeshEnabled=False))
    host.run()
    assert host.exabgp.peers == {}
    assert host.routes == {"10.65.1.0/26": "blackhole"}


def test_this_nodes_record_goes_and_comes_back() -> None:
    host = meshed()
    host.remove(NODES[0])
    host.run()
    assert host.exabgp.peers == {}
    assert host.exabgp.starts == 1
    assert NODE in host.waits.waiting
    host.put(NODES[0])
    host.run()
    assert set(host.exabgp.peers) == {N2, N3}
    assert host.exabgp.starts == 1


def test_another_listening_port_restarts_exabgp_and_keeps_routes() -> None:
    host = meshed()
    host.put(configuration_record("node.node1", listenPort=1790))
    host.run(3)
    assert host.exabgp.starts == 2
    assert host.exabgp.environment["exabgp.tcp.port"] == "1790"
    assert host.routes == ALL
    host.put(configuration_record("node.node2", listenPort=1791))
    host.run(3)
    assert host.exabgp.starts == 2
    assert host.exabgp.peers[N2].settings["connect"] == "1791"


# --- exports ----------------------------------------------------------------------------------------------------------


def test_only_confirmed_blocks_that_name_us_are_announced() -> None:
    host = meshed(
        block_record("10.65.4.0/26", "node1"),
        affinity_record("10.65.4.0/26", "node1", "pending"),
        block_record("10.65.5.0/26", "node1"),
        affinity_record("10.65.5.0/26", "node1", "pendingDeletion"),
        block_record("10.65.6.0/26", "node2"),
        affinity_record("10.65.6.0/26", "node1"),
    )
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.routes == ALL
    host.put(affinity_record("10.65.4.0/26", "node1"))
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26", "10.65.4.0/26"}
    assert host.routes["10.65.4.0/26"] == "blackhole"


def test_a_released_block_is_withdrawn_and_its_blackhole_goes() -> None:
    host = meshed()
    host.remove(*OWN)
    host.run()
    assert host.offered(N2) == set()
    assert "10.65.1.0/26" not in host.routes


def test_a_borrowed_address_is_announced_alone_and_withdrawn() -> None:
    host = meshed(endpoint_record("node1", "a", "10.65.2.7/32"), endpoint_record("node1", "b", "10.65.1.3/32"))
    assert host.offered(N2) == {"10.65.1.0/26", "10.65.2.7/32"}
    host.remove(endpoint_record("node1", "a"))
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26"}


def test_the_owner_of_a_block_learns_who_borrowed() -> None:
    host = meshed(endpoint_record("node2", "a", "10.65.1.7/32"))
    host.exabgp.peer_sends(N2, ["10.65.1.7/32"])
    host.exabgp.peer_sends(N3, ["10.65.1.8/32", "10.65.1.7/32"])
    host.run()
    assert host.routes["10.65.1.7/32"] == f"via {N2} dev eth0"
    assert host.refused("10.65.1.8/32") == ["own-block"]
    assert host.refused("10.65.1.7/32") == [None, "own-block"]
    host.remove(endpoint_record("node2", "a"))
    host.run()
    assert "10.65.1.7/32" not in host.routes


def test_a_local_workload_comes_before_a_learned_route() -> None:
    """felix's route is at the same key, so bgpd's would be a conflict."""
    host = meshed()
    host.exabgp.peer_sends(N3, ["10.65.2.9/32"])
    host.run()
    assert host.routes["10.65.2.9/32"] == f"via {N3} dev eth0"
    host.put(endpoint_record("node1", "a", "10.65.2.9/32"))
    host.run()
    assert "10.65.2.9/32" not in host.routes
    host.remove(endpoint_record("node1", "a"))
    host.run()
    assert host.routes["10.65.2.9/32"] == f"via {N3} dev eth0"


def test_a_pool_is_kept_home_and_let_out_again() -> None:
    host = meshed()
    host.put(pool_record("p", "10.65.0.0/16", disableBGPExport=True))
    host.run()
    assert host.offered(N2) == set()
    assert host.routes == ALL
    host.put(POOL)
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26"}


@pytest.mark.bgp_scenario(37)
def test_communities_change_without_a_withdrawal() -> None:
    advertised = [{"cidr": "10.65.0.0/16", "communities": ["64512:7"]}]
    host = meshed(configuration_record(prefixAdvertisements=advertised))
    assert host.exabgp.peers[N2].offered == {"10.65.1.0/26": ("64512:7",)}
    host.exabgp.commands.clear()
    host.put(configuration_record())
    host.run()
    assert host.exabgp.peers[N2].offered == {"10.65.1.0/26": ()}
    assert not [command for command in host.exabgp.commands if "withdraw" in command]


def test_a_flapping_block_ends_in_the_right_state_and_is_said_in_pieces() -> None:
    """ExaBGP mixes up an announcement and a withdrawal that it still queues, so they never meet."""
    host = meshed()
    said = len(host.exabgp.commands)
    for _ in range(10):
        host.remove(*OWN)
        host.run(0.01)
        host.put(*OWN)
        host.run(0.01)
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert len(host.exabgp.commands) - said <= 2 * 4


def test_a_peer_that_is_down_is_told_nothing_until_it_is_up() -> None:
    host = started()
    host.put(block_record("10.65.4.0/26", "node1"), affinity_record("10.65.4.0/26", "node1"))
    host.run()
    assert host.exabgp.commands == []
    host.exabgp.peer_up(N2)
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26", "10.65.4.0/26"}


def test_a_refused_command_has_the_offer_repeated() -> None:
    host = started()
    host.exabgp.refuse_commands = 1
    host.exabgp.peer_up(N2)
    host.run(3)
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.exabgp.peers[N2].ends >= 1


# --- imports ----------------------------------------------------------------------------------------------------------


def test_routes_that_must_not_come_in() -> None:
    host = meshed()
    reasons = {
        "0.0.0.0/0": "default",
        "10.65.1.0/26": "own-block",
        "10.65.1.0/24": "own-block",
        "10.65.1.5/32": "own-block",
        "10.0.0.2/32": "node-address",
        "10.0.0.0/25": "node-address",
        "127.0.0.0/8": "node-address",
        "10.66.0.0/26": "not-in-pool",
        "10.64.0.0/10": "own-block",
    }
    host.exabgp.peer_sends(N2, reasons)
    host.exabgp.peer_sends(N3, ["10.65.7.0/26"], next_hop="192.0.2.1")
    host.exabgp.peer_sends(N3, ["10.65.8.0/26"], next_hop="10.0.0.1")
    host.run()
    assert {prefix: host.refused(prefix)[0] for prefix in reasons} == reasons
    assert host.refused("10.65.7.0/26") == ["next-hop"]
    assert host.refused("10.65.8.0/26") == ["next-hop"]
    assert host.routes == ALL
    table = host.routing.rib.table(ip_address(N2))
    assert sum(table.refused.values()) == len(reasons)
    assert table.accepted == 1


@pytest.mark.bgp_scenario(44)
def test_a_next_hop_that_becomes_reachable_needs_no_new_update() -> None:
    host = meshed(node_record("node9", "172.16.0.9/24"))
    host.exabgp.peer_up("172.16.0.9")
    host.exabgp.peer_sends("172.16.0.9", ["10.65.9.0/26"])
    host.run()
    assert host.refused("10.65.9.0/26") == ["next-hop"]
    host.put_route("0.0.0.0/0", Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC))
    host.run()
    assert host.routes["10.65.9.0/26"] == "via 10.0.0.99 dev eth0"


@pytest.mark.bgp_scenario(46)
def test_the_best_path_is_replaced_and_never_missing() -> None:
    host = meshed()
    host.exabgp.peer_sends(N3, [B2], local_preference=50)
    host.run()
    assert host.routes == ALL
    host.kernel.routes.log.clear()
    host.exabgp.peer_withdraws(N2, [B2])
    host.run()
    assert host.routes == {**ALL, B2: f"via {N3} dev eth0"}
    assert host.kernel.routes.log == [f"replace {B2}"]


@pytest.mark.bgp_scenario(47)
def test_equal_paths_share_the_traffic() -> None:
    host = meshed()
    host.exabgp.peer_sends(N3, [B2])
    host.run()
    assert host.routes[B2] == f"nexthop via {N2} dev eth0 nexthop via {N3} dev eth0"
    host.exabgp.peer_withdraws(N2, [B2])
    host.run()
    assert host.routes[B2] == f"via {N3} dev eth0"


@pytest.mark.bgp_scenario(56)
def test_a_peer_with_too_many_routes_keeps_the_first() -> None:
    host = meshed(host=BgpHost(max_prefixes=3))
    first = [f"10.65.10.{n * 64}/26" for n in range(2)]
    host.exabgp.peer_sends(N2, first)
    host.run()
    host.exabgp.peer_sends(N2, ["10.65.11.0/26", "10.65.11.64/26"])
    host.exabgp.peer_sends(N3, ["10.65.12.0/26"])
    host.run()
    assert set(host.routes) == {*ALL, *first, "10.65.12.0/26"}
    assert host.refused("10.65.11.0/26") == ["max-prefix"]
    host.exabgp.peer_withdraws(N2, [B2])
    host.run()
    assert len(set(host.routes) & {"10.65.11.0/26", "10.65.11.64/26"}) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_block_from_another_node_than_the_store_says(strict: bool) -> None:
    host = meshed(block_record(B2, "node3"), host=BgpHost(is_strict=strict))
    assert host.refused(B2) == (["spoofed-owner"] if strict else [None])
    host.put(block_record(B2, "node2"))
    host.run()
    assert host.routes == ALL


# --- pools with tunnels -----------------------------------------------------------------------------------------------


def closed(prefix: str) -> dict[str, str]:
    """What stands in place of a route that is withheld: behind every other one to the prefix."""
    return {f"{prefix} metric 4294967295": "unreachable"}


def test_without_the_tunnel_nothing_is_sent_unwrapped() -> None:
    host = meshed()
    host.kernel.routes.log.clear()
    host.put(pool_record("p", "10.65.0.0/16", ipipMode="Always"))
    host.run()
    assert host.routes == {"10.65.1.0/26": "blackhole", **closed(B2), **closed(B3)}
    # at no moment have the packets the default route only
    assert [line.split()[0] for line in host.kernel.routes.log] == ["add", "add", "delete", "delete"]
    assert {str(prefix) for prefix in host.routing.withheld} == {B2, B3}
    withheld = host.engine.state()["withheld"]
    assert isinstance(withheld, dict)
    assert withheld[B2]["pool"] == "p"
    assert "Always" in withheld[B2]["reason"]
    host.put(POOL)
    host.run()
    assert host.routes == ALL
    assert host.routing.withheld == {}


OF_FELIX = Route.via(ip_address("10.65.2.1"), IfName("vxlan.calico"), protocol=PROTOCOL_FELIX, onlink=True)


def protocols(host: BgpHost) -> set[int]:
    return {host.kernel.routes.routes[RouteKey(ip_network(prefix))].protocol for prefix in ALL}


@pytest.mark.bgp_scenario(50)
@pytest.mark.parametrize("mode", ["Always", "CrossSubnet"])
def test_the_routes_of_a_pool_with_vxlan_are_handed_over_to_felix_and_back(mode: str) -> None:
    host = meshed()
    offered = host.offered(N2)
    host.put(pool_record("p", "10.65.0.0/16", vxlanMode=mode))
    host.run()
    assert host.routes == ALL  # they stand in until felix has its own
    for prefix in ALL:
        host.put_route(prefix, OF_FELIX)
    host.run(100)
    assert protocols(host) == {PROTOCOL_FELIX}
    assert host.routing.withheld == {}
    assert host.offered(N2) == offered
    host.put(POOL)
    host.run()
    assert protocols(host) == {PROTOCOL_FELIX}  # felix gives up its own
    for prefix in ALL:
        host.lose_route(prefix)
    host.run(0.01)
    assert host.routes == ALL


def test_without_felix_nothing_of_a_pool_with_vxlan_is_left() -> None:
    host = meshed(pool_record("p", "10.65.0.0/16", vxlanMode="Always"))
    host.run(10)
    assert host.routes == {}
    host.put(POOL)
    host.run()
    assert host.routes == ALL
    host.put(pool_record("p", "10.65.0.0/16", vxlanMode="Always"))
    host.run(4)
    assert host.routes == ALL
    host.put(pool_record("q", "10.99.0.0/16"))  # something that has all decided again gives no more time
    host.run(2)
    assert host.routes == {}


def test_felix_may_have_been_the_first_to_hear_of_the_pool() -> None:
    host = meshed()
    host.put_route(B2, OF_FELIX)
    host.run(100)
    host.put(pool_record("p", "10.65.0.0/16", vxlanMode="Always"))
    host.run(100)
    assert host.kernel.routes.routes[RouteKey(ip_network(B2))] == OF_FELIX


def test_bgpd_may_be_the_first_to_hear_that_a_pool_is_plain_again() -> None:
    host = meshed(pool_record("p", "10.65.0.0/16", vxlanMode="Always"))
    host.kernel.routes.put(RouteKey(ip_network(B2)), OF_FELIX)  # it was not heard of
    host.run(10)
    host.put(POOL)
    host.run()
    assert host.kernel.routes.routes[RouteKey(ip_network(B2))] == OF_FELIX
    host.lose_route(B2)
    host.run(0.01)
    assert host.routes == ALL


def test_ipip_goes_through_the_tunnel_that_is_up() -> None:
    host = meshed(pool_record("p", "10.65.0.0/16", ipipMode="Always"))
    assert B2 not in host.routes
    host.kernel.links.add(IfName("tunl0"), up=False)
    host.set_link(IfName("tunl0"), up=True)
    host.run()
    assert host.routes[B2] == f"via {N2} dev tunl0 onlink"
    host.set_link(IfName("tunl0"), up=False)
    host.run()
    assert B2 not in host.routes


def test_what_is_closed_is_opened_by_a_bgpd_that_comes_after() -> None:
    tunnelled = pool_record("p", "10.65.0.0/16", ipipMode="Always")
    host = meshed(tunnelled)
    shut = {"10.65.1.0/26": "blackhole", **closed(B2), **closed(B3)}
    assert host.routes == shut
    again = started(tunnelled, host=restarted(host))
    again.run(5)
    assert (again.routes, again.kernel.routes.log) == (shut, [])
    last = started(host=restarted(again))
    last.run(5)
    assert last.routes == ALL


def test_what_is_withheld_for_a_moment_is_nobodys_trouble() -> None:
    host = meshed()
    tunnelled = pool_record("p", "10.65.0.0/16", ipipMode="Always")
    with capture_logs() as said:
        host.put(tunnelled)
        host.run(4)
        assert host.routing.withheld
        host.put(POOL)
        host.run(20)
        assert [line["event"] for line in said if "withheld" in line["event"]] == []
        host.put(tunnelled)
        host.run(6)
        host.put(POOL)
        host.run()
    told = [(line["event"], line["log_level"]) for line in said if "withheld" in line["event"]]
    assert told == [("routes.withheld", "error"), ("routes.no_longer_withheld", "info")]


def test_a_withdrawn_route_that_was_withheld_leaves_nothing() -> None:
    host = meshed(pool_record("p", "10.65.0.0/16", ipipMode="Always"))
    host.exabgp.peer_withdraws(N2, [B2])
    host.run()
    assert host.routes == {"10.65.1.0/26": "blackhole", **closed(B3)}


def test_across_subnets_only() -> None:
    host = meshed(pool_record("p", "10.65.0.0/16", ipipMode="CrossSubnet"), node_record("node9", "10.1.0.9/24"))
    host.put_route("0.0.0.0/0", Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC))
    host.exabgp.peer_up("10.1.0.9")
    host.exabgp.peer_sends("10.1.0.9", ["10.65.9.0/26"])
    host.run()
    assert host.routes == {**ALL, **closed("10.65.9.0/26")}
    assert [str(prefix) for prefix in host.routing.withheld] == ["10.65.9.0/26"]
    host.kernel.links.add(IfName("tunl0"), up=False)
    host.set_link(IfName("tunl0"), up=True)
    host.run()
    assert host.routes == {**ALL, "10.65.9.0/26": "via 10.1.0.9 dev tunl0 onlink"}


# --- the kernel -------------------------------------------------------------------------------------------------------


def test_a_route_deleted_by_hand_comes_back_at_once() -> None:
    host = meshed()
    host.lose_route(B2)
    host.run(0.01)
    assert host.routes == ALL
    assert host.routing.fib.repairs == 1


def test_somebody_who_deletes_in_a_loop_is_not_joined() -> None:
    host = meshed()
    for _ in range(50):
        if B2 in host.routes:
            host.lose_route(B2)
        host.run(0.001)
    assert host.kernel.routes.log.count(f"add {B2}") <= 12
    host.run(2)
    assert host.routes == ALL


def test_all_routes_are_lost_and_notifications_too() -> None:
    host = meshed()
    for prefix in ALL:
        host.kernel.routes.lose(RouteKey(ip_network(prefix)))
    host.kernel_says(ResyncNeeded("test"))
    host.run()
    assert host.routes == ALL


def test_a_silent_loss_is_found_by_the_timer() -> None:
    host = meshed()
    host.kernel.routes.lose(RouteKey(ip_network(B3)))
    host.run(91)
    assert host.routes == ALL


def test_a_foreign_route_stays_and_is_reported() -> None:
    foreign = Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC)
    host = started()
    host.put_route(B2, foreign)
    host.run()
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2])
    host.run()
    assert B2 not in host.routes
    assert host.kernel.routes.routes[RouteKey(ip_network(B2))] == foreign
    kernel = host.engine.state()["kernel"]
    assert isinstance(kernel, dict)
    assert list(kernel["conflicts"]) == [B2]
    host.lose_route(B2)
    host.run()
    assert host.routes[B2] == f"via {N2} dev eth0"


def test_a_foreign_route_that_was_not_seen_is_not_overwritten() -> None:
    foreign = Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC)
    host = started()
    host.kernel.routes.put(RouteKey(ip_network(B2)), foreign)
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2, "10.65.2.64/26"])
    host.run()
    assert host.kernel.routes.routes[RouteKey(ip_network(B2))] == foreign
    assert [str(key) for key in host.routing.fib.conflicts] == [B2]
    assert "10.65.2.64/26" in host.routes


def test_a_route_taken_over_by_somebody_else_is_a_conflict() -> None:
    host = meshed()
    foreign = Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC)
    host.put_route(B2, foreign)
    host.run()
    assert host.kernel.routes.routes[RouteKey(ip_network(B2))] == foreign
    assert [str(key) for key in host.routing.fib.conflicts] == [B2]


def test_an_interface_goes_down_and_comes_back() -> None:
    host = meshed()
    host.set_link(ETH0, up=False)
    host.run()
    assert host.routes == {"10.65.1.0/26": "blackhole"}
    host.kernel.links.remove_address(ETH0, ip_interface("10.0.0.1/24"))
    host.set_link(ETH0, up=True)
    host.kernel.links.add_address(ETH0, ip_interface("10.0.0.1/24"))
    host.kernel_says(AddressAdded(host.kernel.links.addresses()[-1]))
    host.run()
    assert host.routes == ALL


def test_a_route_that_the_kernel_refuses_is_tried_again_and_harms_no_other() -> None:
    host = started()
    host.kernel.routes.refuse.add(RouteKey(ip_network(B2)))
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2, "10.65.2.64/26"])
    host.run(10)
    assert set(host.routes) == {"10.65.1.0/26", "10.65.2.64/26"}
    assert 2 <= host.kernel.routes.log.count(f"add {B2}") <= 8
    host.kernel.routes.refuse.clear()
    host.run(3)
    assert B2 in host.routes


def test_a_kernel_that_cannot_be_read_is_not_written() -> None:
    host = BgpHost()
    host.kernel.routes.unreadable = KernelFailure("no")
    started(host=host)
    assert host.kernel.routes.log == []
    assert KERNEL in host.waits.waiting
    host.kernel.routes.unreadable = None
    host.run(2)
    assert host.routes == {"10.65.1.0/26": "blackhole"}


def test_one_change_among_many_is_one_write() -> None:
    host = meshed()
    host.exabgp.peer_sends(N2, [f"10.65.{100 + n // 4}.{n % 4 * 64}/26" for n in range(400)])
    host.run()
    host.kernel.routes.log.clear()
    host.exabgp.commands.clear()
    host.exabgp.peer_withdraws(N2, ["10.65.100.0/26"])
    host.run(30)
    assert host.kernel.routes.log == ["delete 10.65.100.0/26"]
    assert host.exabgp.commands == []


def test_what_one_message_tells_is_judged_prefix_by_prefix() -> None:
    """Its prefixes share one path, and what follows from the path alone is worked out once."""
    host = BgpHost()
    host.put(
        pool_record("plain", "10.65.0.0/16"),
        pool_record("wrapped", "10.66.0.0/16", ipipMode="Always"),
        pool_record("felixs", "10.67.0.0/16", vxlanMode="Always"),
        *(node_record(f"node{n}", f"10.0.0.{n}/24") for n in (1, 2)),
    )
    host.in_sync()
    host.run()
    host.exabgp.peer_up(N2, graceful=False)
    host.exabgp.peer_sends(N2, [B2, "10.66.2.0/26", "10.67.2.0/26", "10.68.2.0/26", "10.65.3.0/26", "127.0.0.0/26"])
    host.run(5)
    assert {prefix: route for prefix, route in host.routes.items() if "unreachable" not in route} == {
        B2: f"via {N2} dev eth0",
        "10.65.3.0/26": f"via {N2} dev eth0",
    }
    assert set(map(str, host.routing.withheld)) == {"10.66.2.0/26"}
    refused = host.routing.rib.table(ip_address(N2)).refused
    assert refused == {Refusal.NOT_IN_POOL: 1, Refusal.NODE_ADDRESS: 1}


# --- sessions fall ----------------------------------------------------------------------------------------------------


@pytest.mark.bgp_scenario(54)
def test_what_is_withdrawn_while_it_is_written_is_absent_at_the_end() -> None:
    host = started()
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2, "10.65.2.64/26"])
    host.kernel.routes.meanwhile.append(lambda: host.exabgp.peer_withdraws(N2, [B2]))
    host.run(5)
    assert [line for line in host.kernel.routes.log if B2 in line] == [f"add {B2}", f"delete {B2}"]
    assert host.routes == {"10.65.1.0/26": "blackhole", "10.65.2.64/26": f"via {N2} dev eth0"}


def test_a_peer_without_graceful_restart_takes_its_routes_with_it() -> None:
    host = started()
    host.exabgp.peer_up(N2, graceful=None)
    host.exabgp.peer_sends(N2, [B2])
    host.run()
    host.exabgp.peer_down(N2)
    host.run(0.01)
    assert B2 not in host.routes
    host.exabgp.peer_up(N2, graceful=None)
    host.exabgp.peer_sends(N2, [B2])
    host.run()
    assert B2 in host.routes


def test_a_peer_that_restarts_gracefully_keeps_its_routes_until_it_has_told_all() -> None:
    host = meshed()
    host.exabgp.peer_sends(N2, ["10.65.2.64/26"])
    host.run()
    host.kernel.routes.log.clear()
    host.exabgp.peer_down(N2)
    host.run(60)
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2])
    host.run(5)
    assert host.kernel.routes.log == []
    assert host.phases["Mesh_10_0_0_2"] == "wait Established"
    host.exabgp.peer_ends(N2)
    host.run()
    assert host.kernel.routes.log == ["delete 10.65.2.64/26"]
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.phases["Mesh_10_0_0_2"] == "up Established"


def test_a_peer_that_never_returns_is_given_up_in_time() -> None:
    host = meshed()
    host.exabgp.peer_down(N2)
    host.run(119)
    assert B2 in host.routes
    host.run(2)
    assert B2 not in host.routes


@pytest.mark.bgp_scenario(64)
def test_a_second_restart_begins_the_time_anew() -> None:
    host = meshed()
    host.exabgp.peer_down(N2)
    host.run(100)
    host.exabgp.peer_up(N2)
    host.run(1)
    host.exabgp.peer_down(N2)
    host.run(100)
    assert B2 in host.routes
    host.run(30)
    assert B2 not in host.routes


def test_a_peer_that_falls_again_and_again_is_believed_for_two_restart_times() -> None:
    host = meshed()
    host.exabgp.peer_down(N2)
    for _ in range(11):
        host.run(10)
        assert B2 in host.routes
        host.exabgp.peer_up(N2)
        host.exabgp.peer_sends(N2, ["10.65.2.64/26"])
        host.run(10)
        assert B2 in host.routes
        host.exabgp.peer_down(N2)
    host.run(21)
    assert host.routes == {prefix: route for prefix, route in ALL.items() if prefix != B2}
    # then it is a peer like any other again
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2])
    host.exabgp.peer_ends(N2)
    host.run(1)
    host.exabgp.peer_down(N2)
    host.run(119)
    assert host.routes == ALL


def test_a_notification_ends_it_at_once() -> None:
    host = meshed()
    host.exabgp.peer_notifies(N2, 6, 2)
    host.run(0.01)
    assert B2 not in host.routes
    [row] = [row for row in host.snapshot.rows if row.name == "Mesh_10_0_0_2"]
    assert (row.state, row.text) == ("start", "Received: Administrative shutdown")


def test_our_hold_timer_ends_it_at_once() -> None:
    host = meshed()
    host.exabgp.peer_down(N3, "notification sent (4,0)")
    host.run(0.01)
    assert B3 not in host.routes
    [row] = [row for row in host.snapshot.rows if row.name == "Mesh_10_0_0_3"]
    assert row.text == "BGP Error: Hold timer expired"


@pytest.mark.parametrize(
    ("reason", "text"),
    [("notification sent (3,1)", "BGP Error: Malformed attribute list"), ("notification sent (7,7)", "BGP Error: 7/7")],
)
def test_a_session_that_we_ended_says_why(reason: str, text: str) -> None:
    host = meshed()
    host.exabgp.peer_down(N3, reason)
    host.run(0.01)
    assert B3 not in host.routes
    [row] = [row for row in host.snapshot.rows if row.name == "Mesh_10_0_0_3"]
    assert row.text == text


def twins(host: BgpHost) -> list[str]:
    told = host.engine.state()["twins"]
    assert isinstance(told, list)
    return told


@pytest.mark.bgp_scenario(5)
def test_a_peer_with_our_own_identifier_is_named_with_the_way_out() -> None:
    """Which of the two refuses the other first is chance, and so is what is heard last."""
    host = started(host=BgpHost(router_id="1.2.3.4"))
    host.exabgp.peer_up(N2, router_id="1.2.3.4")
    host.exabgp.peer_refuses(N2)
    host.exabgp.peer_up(N3)
    host.run()
    [two, three] = host.snapshot.rows
    assert (two.state, two.text) == ("start", "BGP Error: Bad BGP identifier")
    assert (three.state, three.text) != ("start", two.text)
    [told] = twins(host)
    assert told.startswith("node2 has this node's BGP identifier, 1.2.3.4: they get no session")
    assert "CALICO_ROUTER_ID" in told
    host.exabgp.peer_up(N2, router_id="1.2.3.5")
    host.run()
    assert twins(host) == []


def test_a_peer_of_another_as_may_have_our_identifier() -> None:
    other_as = peer_record("other", peerIP="10.0.0.9", asNumber=65001)
    host = started(other_as, host=BgpHost(router_id="1.2.3.4"))
    host.exabgp.peer_up("10.0.0.9", router_id="1.2.3.4")
    host.run()
    assert twins(host) == []
    assert [row.text for row in host.snapshot.rows if row.name.endswith("_9")] == [""]


def test_a_silent_peer_is_waited_for_thirty_seconds() -> None:
    """FRR and GoBGP say no End-of-RIB without graceful restart."""
    host = started()
    host.exabgp.peer_up(N2, graceful=None)
    host.run(29)
    assert not host.peering.have_told_all
    host.exabgp.peer_up(N3)
    host.exabgp.peer_ends(N3)
    host.run(2)
    assert host.peering.have_told_all


def test_a_refused_connection_shows_as_such() -> None:
    last = BgpHost("node3", "10.0.0.3/24")
    last.put(POOL, *NODES)
    last.in_sync()
    last.run()
    last.exabgp.peer_refuses(N2)
    last.run(0.1)
    [row] = [row for row in last.snapshot.rows if row.name == "Mesh_10_0_0_2"]
    assert (row.state, row.phase, row.text) == ("start", "Active", "Socket: Connection refused")


def test_a_passive_session_shows_as_such() -> None:
    host = started()
    assert host.phases["Mesh_10_0_0_2"] == "start Passive"


# --- restarts ---------------------------------------------------------------------------------------------------------


def restarted(host: BgpHost, **changes: object) -> BgpHost:
    """Kill -9 bgpd and start another; ExaBGP and the kernel live on."""
    host.exabgp.stay_behind()
    host.kernel.routes.log.clear()
    return BgpHost(kernel=host.kernel, exabgp=host.exabgp, clock=host.clock)


def test_bgpd_is_killed_and_nobody_notices() -> None:
    host = meshed()
    host.run(60)
    starts = host.exabgp.starts
    again = started(host=restarted(host))
    again.run(200)
    assert again.exabgp.starts == starts
    assert again.exabgp.signals == 0
    assert again.routes == ALL
    assert again.kernel.routes.log == []
    assert again.phases == {"Mesh_10_0_0_2": "up Established", "Mesh_10_0_0_3": "up Established"}
    assert again.waits.waiting == set()


def test_what_changed_while_bgpd_was_away_is_made_good() -> None:
    host = meshed()
    host.run(60)
    host.exabgp.stay_behind()
    host.exabgp.peer_withdraws(N2, [B2])
    host.exabgp.peer_sends(N3, ["10.65.3.64/26"])
    again = restarted(host)
    again.put(POOL, *NODES[:2], node_record("node5", "10.0.0.5/24"), *OWN)
    again.put(block_record("10.65.4.0/26", "node1"), affinity_record("10.65.4.0/26", "node1"))
    again.in_sync()
    third = again.exabgp.peers[N3]
    again.run(3)
    assert again.exabgp.starts == 1
    assert set(again.exabgp.peers) == {N2, "10.0.0.5"}
    assert third.offered == {}
    assert again.offered(N2) == {"10.65.1.0/26", "10.65.4.0/26"}
    again.exabgp.peer_up("10.0.0.5")
    again.exabgp.peer_ends("10.0.0.5")
    again.run(3)
    assert again.routes == {"10.65.1.0/26": "blackhole", "10.65.4.0/26": "blackhole"}


def test_a_route_that_nobody_tells_again_goes_when_all_have_had_their_say() -> None:
    host = meshed()
    host.exabgp.die()
    host.exabgp.outbox.clear()
    again = restarted(host)
    again.exabgp.left_behind = None
    started(host=again)
    again.exabgp.peer_up(N2)
    again.exabgp.peer_sends(N2, [B2])
    again.exabgp.peer_ends(N2)
    again.run(5)
    assert again.routes == ALL
    assert again.kernel.routes.log == []
    again.exabgp.peer_up(N3)
    again.exabgp.peer_ends(N3)
    again.run(5)
    assert again.kernel.routes.log == [f"delete {B3}"]


def test_a_peer_that_stays_away_does_not_keep_old_routes_for_ever() -> None:
    host = meshed()
    host.exabgp.die()
    host.exabgp.outbox.clear()
    again = restarted(host)
    again.exabgp.left_behind = None
    started(host=again)
    again.exabgp.peer_up(N2)
    again.exabgp.peer_sends(N2, [B2])
    again.exabgp.peer_ends(N2)
    again.run(115)
    assert again.routes == ALL
    again.run(10)
    assert again.routes == {key: route for key, route in ALL.items() if key != B3}


def test_an_old_blackhole_of_a_block_that_moved_goes_at_once() -> None:
    host = meshed()
    again = restarted(host)
    again.put(POOL, *NODES, block_record("10.65.1.0/26", "node2"))
    again.in_sync()
    again.run(0.3)
    assert "10.65.1.0/26" not in again.routes


def test_an_old_route_past_a_tunnel_goes_at_once() -> None:
    host = meshed()
    host.exabgp.die()
    host.exabgp.outbox.clear()
    again = restarted(host)
    again.exabgp.left_behind = None
    again.put(*NODES, *OWN, pool_record("p", "10.65.0.0/16", ipipMode="Always"))
    again.in_sync()
    again.run(0.3)
    assert again.routes == {"10.65.1.0/26": "blackhole"}


def test_a_store_that_does_not_answer_at_the_start_changes_nothing() -> None:
    host = meshed()
    host.exabgp.die()
    host.exabgp.outbox.clear()
    again = restarted(host)
    again.exabgp.left_behind = None
    again.out_of_sync()
    again.run(600)
    assert again.routes == ALL
    assert again.kernel.routes.log == []


@pytest.mark.bgp_scenario(70)
def test_a_store_that_goes_away_for_ten_minutes_changes_nothing() -> None:
    host = meshed()
    host.kernel.routes.log.clear()
    host.out_of_sync()
    host.run(600)
    host.in_sync()
    host.run()
    assert host.kernel.routes.log == []
    assert host.phases == {"Mesh_10_0_0_2": "up Established", "Mesh_10_0_0_3": "up Established"}


def test_exabgp_is_killed_and_no_route_is_touched() -> None:
    host = meshed()
    host.kernel.routes.log.clear()
    host.exabgp.die()
    host.run(3)
    assert host.exabgp.starts == 2
    for peer, block in ((N2, B2), (N3, B3)):
        host.exabgp.peer_up(peer)
        host.exabgp.peer_sends(peer, [block])
        host.exabgp.peer_ends(peer)
    host.run()
    assert host.kernel.routes.log == []
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.exabgp.peers[N2].ends == 1


def test_exabgp_keeps_dying_and_is_started_ever_more_slowly() -> None:
    host = started()
    for _ in range(40):
        if host.exabgp.pid is not None:
            host.exabgp.die()
        host.run(1)
    assert 6 <= host.exabgp.starts <= 14


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        ("the port may already be in use by another application", "another program listens on the BGP port"),
        ("this is an invalid address", "an address that this node's record names is on no interface of this host"),
    ],
)
def test_an_exabgp_that_cannot_listen_is_told_of_with_the_way_out_until_it_can(why: str, advice: str) -> None:
    host = started()
    host.exabgp.last = f"network can not bind to 10.0.0.1:179 (could not listen on 10.0.0.1:179, {why})"
    for _ in range(2):
        host.exabgp.die(1)
        host.run(0.5)
    assert host.speaker.trouble.startswith(f"it ended with status 1: {advice}")
    assert SPEAKER in host.waits.waiting
    host.run(5)
    assert host.speaker.trouble == ""
    assert SPEAKER not in host.waits.waiting


def test_a_block_disappears_during_the_outage_and_its_route_not_earlier() -> None:
    host = meshed()
    host.exabgp.die()
    host.run(3)
    host.exabgp.peer_up(N2)
    host.run()
    assert B2 in host.routes
    host.exabgp.peer_ends(N2)
    host.run(0.01)
    assert B2 not in host.routes
    assert B3 in host.routes


def test_a_relay_that_cuts_the_line_is_heard_again_and_no_session_falls() -> None:
    host = meshed()
    host.kernel.routes.log.clear()
    transitions = {peer: neighbor.transitions for peer, neighbor in host.peering.neighbors.items()}
    host.exabgp.cut_the_line()
    # nobody hears of these
    host.exabgp.peer_withdraws(N2, [B2])
    host.exabgp.peer_sends(N2, ["10.65.2.64/26"])
    host.exabgp.peer_sends(N3, ["10.65.3.64/26"])
    host.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    host.run(5)
    assert host.exabgp.starts == 1
    assert host.speaker.lost_events == 3
    expected = {prefix: route for prefix, route in ALL.items() if prefix != B2}
    expected |= {"10.65.2.64/26": f"via {N2} dev eth0", "10.65.3.64/26": f"via {N3} dev eth0"}
    assert host.routes == expected | {"10.65.1.64/26": "blackhole"}
    assert host.offered(N2) == host.offered(N3) == {"10.65.1.0/26", "10.65.1.64/26"}
    assert {peer: neighbor.transitions for peer, neighbor in host.peering.neighbors.items()} == transitions


def test_a_session_that_fell_while_the_line_was_cut_is_made_good() -> None:
    host = meshed()
    host.run(60)
    host.exabgp.cut_the_line()
    host.exabgp.peer_down(N2)
    host.exabgp.peer_notifies(N3, 6, 2)
    host.exabgp.peer_up(N3)
    host.run(5)
    assert host.phases == {"Mesh_10_0_0_2": "start Passive", "Mesh_10_0_0_3": "up Established"}
    # of the one that is up again nobody knows whether it has told all
    assert host.routes == ALL
    host.run(60)
    assert host.routes == {prefix: route for prefix, route in ALL.items() if prefix != B3}
    assert host.offered(N3) == {"10.65.1.0/26"}
    assert host.exabgp.starts == 1


def test_a_line_that_is_cut_again_and_again_ends_the_pair() -> None:
    host = meshed()
    host.exabgp.cut_the_line()
    host.run(5)
    host.exabgp.cut_the_line()
    host.run(5)
    assert host.exabgp.starts == 2
    assert host.routes == ALL


def test_the_relay_dies_and_the_pair_is_restarted() -> None:
    host = meshed()
    host.exabgp.lose_relay()
    host.run(3)
    assert host.exabgp.starts == 2
    assert host.routes == ALL


def test_a_command_that_exabgp_always_refuses_is_said_ever_more_rarely() -> None:
    host = meshed()
    host.exabgp.refuse_commands = 10_000
    host.put(block_record("10.65.1.64/26", "node1"), affinity_record("10.65.1.64/26", "node1"))
    host.run(600)
    tries = [line for line in host.exabgp.commands if line.startswith(f"neighbor {N2} announce attributes")]
    assert 5 <= len(tries) <= 25
    host.exabgp.refuse_commands = 0
    host.run(120)
    assert host.offered(N2) == host.offered(N3) == {"10.65.1.0/26", "10.65.1.64/26"}
    # the next ones are tried again soon, however many were refused together
    host.exabgp.refuse_commands = 6
    host.put(block_record("10.65.1.128/26", "node1"), affinity_record("10.65.1.128/26", "node1"))
    host.run(5)
    assert host.offered(N2) == host.offered(N3) == {"10.65.1.0/26", "10.65.1.64/26", "10.65.1.128/26"}
    assert host.exabgp.starts == 1


def test_what_a_peer_of_a_newer_session_does_not_tell_goes_though_bgpd_missed_its_beginning() -> None:
    host = meshed()
    host.run(60)
    # bgpd is held up for a minute, and the relay throws away what it does not read
    host.exabgp.peer_down(N2)
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, ["10.65.4.0/26"])
    host.exabgp.peer_ends(N2)
    host.clock.now += 60
    host.exabgp.cut_the_line()
    host.run(3)
    assert host.routes == {"10.65.1.0/26": "blackhole", "10.65.4.0/26": f"via {N2} dev eth0", B3: f"via {N3} dev eth0"}
    assert host.exabgp.starts == 1


def test_a_stuck_exabgp_is_ended_hard_and_replaced() -> None:
    host = meshed()
    host.exabgp.is_hung = True
    host.run(40)
    assert host.exabgp.starts == 2
    host.exabgp.is_hung = False
    host.run(60)
    assert host.speaker.is_settled
    assert host.routes == ALL


def test_a_forgotten_reload_is_repeated() -> None:
    host = meshed()
    host.exabgp.deaf_signals = 1
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run(5)
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4"}
    assert host.exabgp.signals == 2
    assert host.exabgp.starts == 1


def test_the_end_of_routes_is_said_again_after_a_reload_that_may_have_lost_it() -> None:
    host = meshed()
    assert host.exabgp.peers[N2].ends == 1
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run(5)
    assert host.exabgp.peers[N2].ends == 2
    host.run(60)
    host.put(node_record("node5", "10.0.0.5/24"))
    host.run(5)
    assert host.exabgp.peers[N2].ends == 2


def test_an_exabgp_that_is_slow_to_answer_is_asked_once_and_neither_told_again_nor_restarted() -> None:
    host = meshed()
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run_until(lambda: host.exabgp.signals == 1)
    host.exabgp.held = []
    host.run(12)
    assert host.exabgp.held == ["show neighbor json"]
    host.exabgp.catch_up()
    host.run(5)
    assert host.speaker.is_settled
    assert (host.exabgp.signals, host.exabgp.starts) == (1, 1)


NODE2 = node_record("node2", "10.0.0.2/24")


@pytest.mark.parametrize("deaf_signals", [0, 1])
@pytest.mark.parametrize("pause", [0.02, 0.05, 0.15, 0.3, 0.5, 1.0, 1.9, 2.5, 5.0])
def test_a_node_that_is_deleted_and_comes_back_at_once_has_its_session(pause: float, deaf_signals: int) -> None:
    """Whatever the reload that is to end its session has come to."""
    host = meshed()
    host.exabgp.deaf_signals = deaf_signals
    host.remove(NODE2)
    host.run(pause)
    host.put(NODE2)
    host.run(8)
    assert host.speaker.is_settled
    assert set(host.exabgp.peers) == {N2, N3}
    if not host.exabgp.peers[N2].is_up:
        host.exabgp.peer_up(N2)
        host.exabgp.peer_sends(N2, ["10.65.2.0/26"])
        host.exabgp.peer_ends(N2)
        host.run()
    assert host.peering.neighbors[ip_address(N2)].is_up
    assert host.routes == ALL
    assert host.exabgp.peers[N2].words == {"10.65.1.0/26": "self"}
    host.run(3 * AUDIT_SECONDS)
    assert host.exabgp.starts == 1


def test_a_lost_reload_is_not_repeated_when_the_peer_that_it_was_to_end_is_back() -> None:
    host = meshed()
    host.exabgp.deaf_signals = 1
    host.remove(NODE2)
    host.run(1)
    assert host.exabgp.signals == 1
    assert N2 in host.exabgp.peers
    session = host.exabgp.peers[N2]
    host.put(NODE2)
    host.run(8)
    assert host.exabgp.peers[N2] is session
    assert session.is_up
    assert host.routes == ALL


def test_a_poisoned_exabgp_is_restarted() -> None:
    host = meshed()
    host.kernel.routes.log.clear()
    host.exabgp.is_poisoned = True
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run(15)
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4"}
    assert host.exabgp.signals == 3
    assert host.exabgp.starts == 2
    assert host.kernel.routes.log == []


def test_a_configuration_that_exabgp_refuses_is_not_installed() -> None:
    host = meshed()
    host.exabgp.refuse_validation = "syntax error"
    host.put(node_record("node4", "10.0.0.4/24"))
    host.run(10)
    assert host.exabgp.signals == 0
    assert set(host.exabgp.peers) == {N2, N3}
    host.exabgp.refuse_validation = None
    host.put(node_record("node5", "10.0.0.5/24"))
    host.run(3)
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4", "10.0.0.5"}


def test_a_configuration_that_could_not_be_checked_is_checked_again() -> None:
    host = meshed()
    host.exabgp.is_unchecked = True
    with capture_logs() as logs:
        host.put(node_record("node4", "10.0.0.4/24"))
        host.run(25)
    told = [entry for entry in logs if entry["event"] == "configuration.unchecked"]
    assert told
    assert told[0]["reason"] == "Cannot allocate memory"
    assert 2 <= host.exabgp.validations <= 4
    assert host.exabgp.signals == 0
    host.exabgp.is_unchecked = False
    host.run(15)
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4"}
    assert (host.exabgp.starts, host.exabgp.signals) == (1, 1)


def test_a_check_that_could_not_be_made_is_forgotten_with_what_it_was_about() -> None:
    host = meshed()
    node4 = node_record("node4", "10.0.0.4/24")
    host.exabgp.is_unchecked = True
    host.put(node4)
    host.run(2)
    host.remove(node4)
    host.run(30)
    assert (host.exabgp.validations, host.exabgp.signals) == (1, 0)
    assert host.speaker.is_settled


def test_an_exabgp_that_dies_is_not_started_with_what_it_refused() -> None:
    host = meshed()
    host.exabgp.refuse_validation = "syntax error"
    host.put(node_record("node4", "10.0.0.4/24"))
    # nor is it taken for one that lost a session
    host.run(3 * AUDIT_SECONDS)
    assert host.exabgp.starts == 1
    host.exabgp.die()
    host.run(10)
    assert host.exabgp.starts == 2
    assert set(host.exabgp.peers) == {N2, N3}
    host.exabgp.refuse_validation = None
    host.put(node_record("node5", "10.0.0.5/24"))
    host.run(3)
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.4", "10.0.0.5"}
    assert host.exabgp.starts == 2


# --- does ExaBGP do what it was told ----------------------------------------------------------------------------------


def test_an_exabgp_that_does_as_told_is_left_alone() -> None:
    host = meshed()
    said = list(host.exabgp.commands)
    host.run(600)
    assert host.exabgp.commands == said
    assert (host.exabgp.starts, host.exabgp.signals) == (1, 0)


@pytest.mark.parametrize("ours", [[], ["10.65.1.0/26", "10.65.77.0/26"]])
def test_an_exabgp_that_announces_something_else_is_told_again(ours: list[str]) -> None:
    host = meshed()
    host.run(30)
    host.exabgp.peers[N2].offered = dict.fromkeys(ours, ())
    host.run(AUDIT_SECONDS + 10)
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.exabgp.starts == 1
    assert host.routes == ALL


def test_an_exabgp_that_takes_routes_and_sends_none_is_replaced() -> None:
    host = started()
    host.exabgp.is_mute = True
    for peer in (N2, N3):
        host.exabgp.peer_up(peer)
    host.run(AUDIT_SECONDS)
    assert host.exabgp.starts == 1
    host.run(30)
    assert host.exabgp.starts == 2


def test_an_exabgp_that_loses_what_it_is_told_is_replaced_and_no_route_is_touched() -> None:
    host = meshed()
    host.run(30)
    host.kernel.routes.log.clear()

    def lose() -> None:
        host.exabgp.peers[N2].offered.clear()
        host.exabgp.before[f"show adj-rib out {N2} json"] = lose

    lose()
    host.run(AUDIT_SECONDS + 20)
    assert host.exabgp.starts == 2
    assert host.kernel.routes.log == []
    assert host.routes == ALL


def test_a_session_that_nobody_told_of_is_found() -> None:
    host = meshed()
    host.run(30)
    # the words "down" and "up" were lost, and the routes with them
    host.exabgp.peers[N2].is_up = False
    host.run(AUDIT_SECONDS + 10)
    assert host.phases["Mesh_10_0_0_2"] == "start Passive"
    host.exabgp.peers[N2].is_up = True
    host.run(AUDIT_SECONDS + 10)
    assert host.phases["Mesh_10_0_0_2"] == "up Established"
    assert host.exabgp.starts == 1


def test_an_exabgp_that_lost_a_session_is_replaced() -> None:
    host = meshed()
    host.run(30)
    del host.exabgp.peers[N2]
    host.run(AUDIT_SECONDS + 20)
    assert host.exabgp.starts == 2
    assert set(host.exabgp.peers) == {N2, N3}


def test_an_audit_asks_about_everybody_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AUDIT_ROUTES", 2)
    more = [node_record(f"node{n}", f"10.0.0.{n}/24") for n in (4, 5, 6)]
    host = started(*more)
    peers = [f"10.0.0.{n}" for n in range(2, 7)]
    for peer in peers:
        host.exabgp.peer_up(peer)
    host.run(30)
    asked: list[str] = []
    for peer in peers:
        host.exabgp.before[f"show adj-rib out {peer} json"] = lambda peer=peer: asked.append(peer)  # type: ignore[misc]
    host.run(AUDIT_SECONDS)
    assert len(asked) == 2
    host.run(2 * AUDIT_SECONDS)
    assert sorted(asked) == peers


def test_a_node_that_is_up_and_silent_about_its_blocks_is_named() -> None:
    more = [block_record(block, "node2") for block in ("10.65.2.0/26", "10.65.2.64/26")]
    host = meshed(*more, block_record("10.65.3.0/26", "node3"))
    # it may still be at it
    assert host.engine.state()["untold"] == {}
    host.run(AUDIT_SECONDS + 10)
    assert host.engine.state()["untold"] == {"node2": ["10.65.2.64/26"]}
    host.exabgp.peer_sends(N2, ["10.65.2.64/26"])
    host.run()
    assert host.engine.state()["untold"] == {}
    host.put(block_record("10.65.3.64/26", "node3"))
    host.run()
    assert host.engine.state()["untold"] == {"node3": ["10.65.3.64/26"]}
    # not so where it is not to be announced
    host.put(pool_record("p", "10.65.0.0/16", disableBGPExport=True))
    host.run()
    assert host.engine.state()["untold"] == {}
    host.put(POOL)
    host.exabgp.peer_down(N3)
    host.run()
    assert host.engine.state()["untold"] == {}


# --- peers that are back ----------------------------------------------------------------------------------------------


def test_a_peer_that_answers_again_is_connected_to_at_once() -> None:
    last = BgpHost("node3", "10.0.0.3/24")
    last.put(POOL, *NODES)
    last.in_sync()
    last.run()
    last.exabgp.peer_up("10.0.0.1")
    first = last.exabgp.peers["10.0.0.1"]
    waiting = last.exabgp.peers[N2]
    last.run(4)
    assert last.probed == []
    last.run(8)
    assert {str(target.address) for target in last.probed} == {N2}
    last.answering.add(ip_address(N2))
    last.run(10)
    assert last.exabgp.peers[N2] is not waiting
    assert last.exabgp.peers["10.0.0.1"] is first
    assert first.is_up
    last.exabgp.peer_up(N2)
    last.run(60)
    assert last.exabgp.starts == 1


def last_of_three() -> BgpHost:
    """node3 with a session to node1, and none to node2, which answers to others."""
    last = BgpHost("node3", "10.0.0.3/24")
    last.put(POOL, *NODES)
    last.in_sync()
    last.run()
    last.exabgp.peer_up("10.0.0.1")
    last.answering.add(ip_address(N2))
    return last


def test_a_retry_is_called_back_when_the_peer_comes_by_itself() -> None:
    last = last_of_three()
    peer = last.exabgp.peers[N2]
    last.run_until(lambda: not last.speaker.is_settled, 20)
    last.exabgp.peer_up(N2)
    last.run(30)
    assert last.exabgp.peers[N2] is peer
    assert peer.is_up
    assert last.speaker.is_settled
    assert last.exabgp.signals == 0


def test_a_retry_of_what_exabgp_took_before_is_not_checked_again() -> None:
    last = last_of_three()
    last.run(12)
    assert (last.exabgp.signals, last.exabgp.validations) == (2, 0)
    last.put(node_record("node4", "10.0.0.4/24"))
    last.run()
    assert last.exabgp.validations == 1


def test_nobody_is_retried_while_sessions_come_up() -> None:
    last = BgpHost("node9", "10.0.0.9/24")
    others = [f"10.0.0.{n}" for n in range(1, 9)]
    last.put(POOL, *(node_record(f"node{n}", f"10.0.0.{n}/24") for n in range(1, 10)))
    last.in_sync()
    last.answering |= {ip_address(peer) for peer in others}
    for peer in others[:-1]:
        last.run(2)
        last.exabgp.peer_up(peer)
    assert last.probed == []
    last.run(5)
    assert {str(target.address) for target in last.probed} == {others[-1]}


def test_a_peer_with_a_connection_under_way_is_left_alone() -> None:
    """It would drop that connection for the one that asks."""
    last = last_of_three()
    last.exabgp.peer_connects(N2)
    last.run(12)
    assert last.probed == []
    # nothing came of it
    last.run(10)
    assert {str(target.address) for target in last.probed} == {N2}


def test_retries_are_not_what_a_slow_host_does_all_the_time() -> None:
    last = last_of_three()
    last.run_until(lambda: last.exabgp.signals == 1, 20)
    last.exabgp.held = []
    last.run(10)
    last.exabgp.catch_up()
    last.run(1)
    assert last.exabgp.signals == 2
    asked = len(last.probed)
    last.run(30)
    assert len(last.probed) == asked
    last.run(30)
    assert len(last.probed) > asked


def test_the_side_that_waits_does_not_probe() -> None:
    host = started()
    host.run(120)
    assert host.probed == []


def test_peers_that_answer_together_are_retried_together_and_ever_more_seldom() -> None:
    last = BgpHost("node9", "10.0.0.9/24")
    others = [f"10.0.0.{n}" for n in range(1, 9)]
    last.put(POOL, *(node_record(f"node{n}", f"10.0.0.{n}/24") for n in range(1, 10)))
    last.in_sync()
    last.answering |= {ip_address(peer) for peer in others}
    last.run(12)
    # out of the file and into it again
    assert last.exabgp.signals == 2
    for peer in others[1:]:
        last.exabgp.peer_up(peer)
    last.run(600)
    assert last.exabgp.peers.keys() == set(others)
    # the first one answers and never comes up
    assert last.exabgp.signals < 2 + 2 * 10
    assert all(last.exabgp.peers[peer].is_up for peer in others[1:])


def test_a_peer_is_asked_as_exabgp_would_ask_it() -> None:
    last = BgpHost("node3", "10.0.0.3/24")
    last.secrets[SecretName("bgp", "mesh")] = Password("s3cret")
    last.put(POOL, *NODES, configuration_record(nodeMeshPassword={"secretKeyRef": {"name": "bgp", "key": "mesh"}}))
    last.in_sync()
    last.run(10)
    assert {(str(target.address), target.port, str(target.local), target.password) for target in last.probed} == {
        ("10.0.0.1", 179, "10.0.0.3", "s3cret"), ("10.0.0.2", 179, "10.0.0.3", "s3cret")
    }
    assert "s3cret" not in repr(last.probed)


# --- settings of the store --------------------------------------------------------------------------------------------


def test_the_log_level_follows_the_store() -> None:
    host = started(configuration_record(logSeverityScreen="Warning"))
    host.put(configuration_record("node.node1", logSeverityScreen="Debug"))
    host.run()
    assert host.levels == ["Warning", "Debug"]


def test_a_mesh_password_that_cannot_be_read_withholds_the_mesh() -> None:
    host = started(configuration_record(nodeMeshPassword={"secretKeyRef": {"name": "s", "key": "k"}}))
    assert host.exabgp.peers == {}
    assert host.phases == {"Mesh_10_0_0_2": "down Down", "Mesh_10_0_0_3": "down Down"}


def test_the_mesh_has_the_password_that_a_file_holds_and_follows_the_file() -> None:
    secret = SecretName("s", "k")
    host = BgpHost()
    host.secrets[secret] = Password("one")
    asked = configuration_record(nodeMeshPassword={"secretKeyRef": {"name": "s", "key": "k"}})
    meshed(asked, host=host)
    assert host.exabgp.passwords == {N2: "one", N3: "one"}
    assert host.routes == ALL
    signals = host.exabgp.signals
    host.run(200)
    assert host.exabgp.signals == signals
    host.secrets[secret] = Password("two")
    host.run(100)
    assert host.exabgp.passwords == {N2: "two", N3: "two"}
    host.secrets[secret] = Unread("/x/s/k is not there")
    host.run(100)
    assert host.exabgp.peers == {}
    unusable = host.engine.state()["unusable"]
    assert [one["reason"] for one in unusable] == ["password: /x/s/k is not there"] * 2  # type: ignore[attr-defined]
    assert "two" not in str(host.engine.state())
    since = {row.since for row in host.snapshot.rows}
    assert all(host.clock.now + 1e9 - 100 <= one for one in since)  # not since the daemon was started
    host.run(20)
    assert {row.since for row in host.snapshot.rows} == since
    host.secrets[secret] = Password("two")
    host.run(10)  # who has just put it there waits
    assert set(host.exabgp.peers) == {N2, N3}


TOR = "10.0.0.200"
MESH_OFF = configuration_record(nodeToNodeMeshEnabled=False)


def unusable(host: BgpHost) -> dict[str, str]:
    return {one["what"]: one["reason"] for one in host.engine.state()["unusable"]}  # type: ignore[attr-defined]


def test_what_a_peer_opens_is_guarded_by_ttl_too_while_somebody_asks_for_it() -> None:
    host = meshed()
    assert host.exabgp.guarded is None
    host.put(peer_record("tor", peerIP=TOR, asNumber=65001, ttlSecurity=2))
    host.run(5)
    assert host.exabgp.guarded == {ip_address(TOR): 254}
    host.exabgp.guarded = None
    host.exabgp.die()
    host.run(30)
    assert host.exabgp.guarded == {ip_address(TOR): 254}
    host.exabgp.guarded = None
    host.exabgp.peer_up(TOR)
    host.run(1)
    assert host.exabgp.guarded == {ip_address(TOR): 254}
    host.exabgp.guard_fault = "cannot take a socket"
    with capture_logs() as said:
        host.run(300)
    assert [line["reason"] for line in said if line["event"] == "ttl.unchecked"] == ["cannot take a socket"]
    # what cannot be taken off yet is taken off later
    host.remove(peer_record("tor"))
    host.run(5)
    host.exabgp.guard_fault = None
    host.run(300)
    assert host.exabgp.guarded == {}


def test_a_router_of_another_as_beside_the_mesh() -> None:
    host = meshed(peer_record("tor", peerIP=TOR, asNumber=65001, ttlSecurity=1))
    assert host.phases[f"Global_{TOR.replace('.', '_')}"].startswith("start")
    assert (host.exabgp.peers[TOR].settings["peer-as"], host.exabgp.peers[TOR].settings["incoming-ttl"]) == (
        "65001", "255",
    )  # fmt: skip
    assert "passive" not in host.exabgp.peers[TOR].settings
    host.exabgp.peer_up(TOR)
    path = {"0": {"element": "as-sequence", "value": [65001]}}
    host.exabgp.peer_sends(TOR, ["10.65.9.0/26", "0.0.0.0/0", "10.65.9.7/32"], as_path=path, local_preference=None)
    host.run()
    assert host.routes == ALL | {"10.65.9.0/26": f"via {TOR} dev eth0"}
    assert host.refused("0.0.0.0/0") == ["default"]
    assert host.refused("10.65.9.7/32") == ["too-long"]
    # and hears of all blocks, those of others with the way that it has itself
    assert host.exabgp.peers[TOR].words == {
        "10.65.1.0/26": "self",
        B2: f"{N2} as-path [ 64512 ]",
        B3: f"{N3} as-path [ 64512 ]",
    }
    assert host.offered(N2) == {"10.65.1.0/26", "10.65.9.0/26"}


def test_peers_come_and_go_without_touching_the_others() -> None:
    host = meshed()
    before = {peer: host.exabgp.peers[peer].up_at for peer in (N2, N3)}
    tor = peer_record("tor", nodeSelector="rack == 'r1'", peerIP=TOR, asNumber=65001)
    host.put(tor)
    host.run()
    assert set(host.exabgp.peers) == {N2, N3}
    key, value = NODES[0]
    labelled = json.loads(value)
    labelled["metadata"]["labels"] = {"rack": "r1"}
    host.put((key, json.dumps(labelled).encode()))
    host.run()
    assert set(host.exabgp.peers) == {N2, N3, TOR}
    host.remove(tor)
    host.run()
    assert set(host.exabgp.peers) == {N2, N3}
    assert {peer: host.exabgp.peers[peer].up_at for peer in (N2, N3)} == before
    assert host.routes == ALL


def test_a_reflector_in_place_of_the_mesh() -> None:
    host = started(MESH_OFF, peer_record("rr", peerIP=TOR, asNumber=64512))
    assert set(host.exabgp.peers) == {TOR}
    host.exabgp.peer_up(TOR)
    host.exabgp.peer_sends(TOR, [B2, "10.65.3.9/32"], next_hop=N2)
    host.exabgp.peer_sends(TOR, [B3], next_hop=N3)
    host.exabgp.peer_sends(TOR, ["10.65.3.10/32"], next_hop=TOR)
    host.run()
    assert host.routes == ALL | {"10.65.3.9/32": f"via {N2} dev eth0"}
    assert host.refused("10.65.3.10/32") == ["too-long"]


def test_nodes_that_peer_by_selector_with_the_mesh_off() -> None:
    host = started(MESH_OFF, peer_record("all", peerSelector="all()"))
    assert host.phases == {"Global_10_0_0_2": "start Passive", "Global_10_0_0_3": "start Passive"}


@pytest.mark.bgp_scenario(20)
def test_bad_peers_harm_nobody_and_are_told() -> None:
    broken = [
        peer_record("a", peerIP="nonsense", asNumber=1),
        peer_record("b", peerIP=TOR, asNumber="abc"),
        peer_record("c", peerIP=TOR),
        peer_record("d", peerIP="10.0.0.201", asNumber=65001, filters=["f"]),
        peer_record("e", peerIP="192.0.2.1", asNumber=65001, sourceAddress="None"),
        peer_record("g", peerIP="10.0.0.203", asNumber=65001, reachableBy="192.0.2.254"),
        peer_record("h", peerIP="10.0.0.204", asNumber=65001, filters=["nosuch"], node="node9"),
    ]
    host = meshed(*broken, filter_record("f", importV4=[{"action": "Maybe"}]))
    assert set(host.exabgp.peers) == {N2, N3, "10.0.0.201"}
    assert host.routes == ALL
    assert unusable(host) == {
        "BGPPeer(c)": "asNumber is missing, and the peer is no node whose own could be taken",
        "BGPPeer(d)": "BGPFilter(f) rejects every route from what cannot be read on: " + str(
            host.inventory.filters["f"].fault
        ),
        "BGPPeer(e)": "sourceAddress is None, and this host has no route to 192.0.2.1",
        "BGPPeer(g)": "reachableBy: 192.0.2.254 is on no network of this host, so it cannot be a gateway",
    }
    assert host.phases["Global_10_0_0_203"] == "down Down"
    records = host.engine.state()["records"]
    assert {str(key).rpartition("/")[2] for key in records} == {"a", "b", "f"}  # type: ignore[attr-defined]
    host.remove(*broken)
    host.run()
    assert unusable(host) == {}
    host.put(peer_record("d", peerIP=TOR, asNumber=65001, filters=["nosuch"]))
    host.run()
    assert unusable(host) == {"BGPPeer(d)": "BGPFilter(nosuch) does not exist and is passed over"}


def test_filters_follow_the_store_and_touch_their_own_peers_only() -> None:
    service = "10.96.0.0/16"
    host = meshed(peer_record("tor", peerIP=TOR, asNumber=65001, filters=["f"]))
    host.exabgp.peer_up(TOR)
    path = {"0": {"element": "as-sequence", "value": [65001]}}
    host.exabgp.peer_sends(TOR, [service, "10.65.9.0/26"], as_path=path, local_preference=None)
    host.run()
    assert unusable(host) == {"BGPPeer(tor)": "BGPFilter(f) does not exist and is passed over"}
    assert host.refused(service) == ["not-in-pool"]
    assert host.offered(TOR) == {"10.65.1.0/26", B2, B3}
    host.exabgp.commands.clear()

    accept = {"action": "Accept", "cidr": service, "matchOperator": "In"}
    reject = {"action": "Reject", "cidr": B2, "matchOperator": "Equal"}
    host.put(filter_record("f", importV4=[accept], exportV4=[reject]))
    host.run()
    assert unusable(host) == {}
    assert host.routes[service] == f"via {TOR} dev eth0"
    assert host.offered(TOR) == {"10.65.1.0/26", B3}
    assert host.exabgp.commands == [f"neighbor {TOR} withdraw attributes next-hop self nlri {B2}"]
    # what lies in no pool is not for others without a filter of theirs
    assert host.offered(N2) == {"10.65.1.0/26", "10.65.9.0/26"}

    host.put(filter_record("f", importV4=[{"action": "Maybe"}], exportV4=[reject]))
    host.run()
    assert unusable(host)["BGPPeer(tor)"].startswith("BGPFilter(f) rejects every route from what cannot be read on: ")
    assert host.refused(service) == host.refused("10.65.9.0/26") == ["filter-reject"]
    assert host.routes == ALL
    host.remove(filter_record("f"))
    host.run()
    assert host.refused("10.65.9.0/26") == [None]
    assert host.offered(TOR) == {"10.65.1.0/26", B2, B3}


def test_a_rule_lets_single_workloads_and_routes_of_the_host_out() -> None:
    listener = peer_record("tor", peerIP=TOR, asNumber=65001, filters=["f"])
    host = meshed(listener, endpoint_record("node1", "a", "10.65.1.5/32"))
    host.put_route("192.168.7.0/24", Route.via(GATEWAY, ETH0, protocol=PROTOCOL_STATIC))
    host.exabgp.peer_up(TOR)
    host.run()
    assert host.offered(TOR) == {"10.65.1.0/26", B2, B3}
    rules = [{"action": "Accept", "interface": name} for name in ("cali*", "eth0")]
    host.put(filter_record("f", exportV4=rules))
    host.run()
    assert host.offered(TOR) == {"10.65.1.0/26", B2, B3, "10.65.1.5/32", "10.0.0.0/24", "192.168.7.0/24"}
    assert host.exabgp.peers[TOR].words["192.168.7.0/24"] == "self"
    assert host.offered(N2) == {"10.65.1.0/26"}
    host.lose_route("192.168.7.0/24")
    host.remove(endpoint_record("node1", "a"))
    host.run()
    assert host.offered(TOR) == {"10.65.1.0/26", B2, B3, "10.0.0.0/24"}


FAR = "192.0.2.7"
FAR_PEER = peer_record("far", peerIP=FAR, asNumber=65001, reachableBy=str(GATEWAY))


@pytest.mark.bgp_scenario(19)
def test_a_peer_behind_a_gateway_has_its_route_before_its_session_and_until_after_it() -> None:
    host = started(FAR_PEER)
    way = {f"{FAR}/32": f"via {GATEWAY} dev eth0"}
    assert set(host.exabgp.peers) == {N2, N3, FAR}
    assert host.routes == {"10.65.1.0/26": "blackhole"} | way
    host.exabgp.peer_up(FAR)
    path = {"0": {"element": "as-sequence", "value": [65001]}}
    host.exabgp.peer_sends(FAR, ["10.65.9.0/26"], as_path=path, local_preference=None)
    host.run()
    # what the peer tells goes the way that the peer itself is reached
    assert host.routes["10.65.9.0/26"] == f"via {GATEWAY} dev eth0"
    assert host.exabgp.peers[FAR].words == {"10.65.1.0/26": "self"}

    host.exabgp.deaf_signals = 1
    host.remove(FAR_PEER)
    host.run(1)
    assert FAR in host.exabgp.peers
    assert host.routes == {"10.65.1.0/26": "blackhole"} | way
    host.run(5)
    assert FAR not in host.exabgp.peers
    assert host.routes == {"10.65.1.0/26": "blackhole"}


def test_a_session_waits_for_the_route_to_its_peer_and_outlives_it() -> None:
    host = BgpHost()
    host.kernel.routes.refuse.add(RouteKey(ip_network(f"{FAR}/32")))
    started(FAR_PEER, host=host)
    assert set(host.exabgp.peers) == {N2, N3}
    host.kernel.routes.refuse.clear()
    host.run(5)
    assert set(host.exabgp.peers) == {N2, N3, FAR}
    host.exabgp.peer_up(FAR)
    host.set_link(ETH0, up=False)
    host.run()
    assert host.routes == {"10.65.1.0/26": "blackhole"}
    assert host.exabgp.peers[FAR].is_up
    host.kernel.links.remove_address(ETH0, ip_interface("10.0.0.1/24"))
    host.set_link(ETH0, up=True)
    host.kernel.links.add_address(ETH0, ip_interface("10.0.0.1/24"))
    host.kernel_says(AddressAdded(host.kernel.links.addresses()[-1]))
    host.run()
    assert host.routes[f"{FAR}/32"] == f"via {GATEWAY} dev eth0"


def test_a_route_of_somebody_else_to_the_peer_is_as_good() -> None:
    host = BgpHost()
    theirs = Route.via(ip_address("10.0.0.98"), ETH0, protocol=PROTOCOL_STATIC)
    host.kernel.routes.put(RouteKey(ip_network(f"{FAR}/32")), theirs)
    started(FAR_PEER, host=host)
    assert set(host.exabgp.peers) == {N2, N3, FAR}
    assert host.kernel.routes.routes[RouteKey(ip_network(f"{FAR}/32"))] == theirs


@pytest.mark.bgp_scenario(18)
def test_a_session_without_a_source_address_is_spoken_from_the_one_that_the_kernel_chooses() -> None:
    host = BgpHost()
    host.kernel.links.add_address(ETH0, ip_interface("10.1.0.1/24"))
    started(peer_record("any", peerIP=FAR, asNumber=65001, sourceAddress="None"), host=host)
    assert unusable(host) == {"BGPPeer(any)": f"sourceAddress is None, and this host has no route to {FAR}"}
    for gateway, source in (("10.0.0.99", "10.0.0.1"), ("10.1.0.99", "10.1.0.1")):
        host.put_route("0.0.0.0/0", Route.via(ip_address(gateway), ETH0, protocol=PROTOCOL_STATIC))
        host.run(3)
        assert host.exabgp.peers[FAR].settings["local-address"] == source
        assert source in host.exabgp.environment["exabgp.tcp.bind"].split()
    host.lose_route("0.0.0.0/0")
    host.run(3)
    assert host.exabgp.peers[FAR].settings["local-address"] == "10.1.0.1"


def test_a_source_address_that_goes_to_and_fro_does_not_start_exabgp_each_time() -> None:
    host = BgpHost()
    host.kernel.links.add_address(ETH0, ip_interface("10.1.0.1/24"))
    any_source = peer_record("any", peerIP=FAR, asNumber=65001, sourceAddress="None")
    started(any_source, host=host)
    ways = (("10.1.0.99", "10.1.0.1"), ("10.0.0.99", "10.0.0.1"))
    for gateway, source in ways * 4:
        host.put_route("0.0.0.0/0", Route.via(ip_address(gateway), ETH0, protocol=PROTOCOL_STATIC))
        host.run(3)
        assert host.exabgp.peers[FAR].settings["local-address"] == source
    # one for the address that it did not listen on
    assert host.exabgp.starts == 2
    host.remove(any_source)
    host.run(5)
    assert host.exabgp.environment["exabgp.tcp.bind"] == "10.0.0.1"


# --- reflection ------------------------------------------------------------------------------------------------------

REFLECTOR = node_record("node1", "10.0.0.1/24", routeReflectorClusterID="1.0.0.1")
CLIENTS = peer_record("clients", peerSelector="all()")


def reflector(*records: tuple[str, bytes], host: BgpHost | None = None) -> BgpHost:
    """Return a host that reflects between its clients node2 and node3, which have told one block each."""
    return meshed(REFLECTOR, MESH_OFF, CLIENTS, *records, host=host)


@pytest.mark.bgp_scenario(23)
def test_a_reflector_tells_each_client_of_the_others() -> None:
    host = reflector()
    assert host.exabgp.peers[N2].words == {
        "10.65.1.0/26": "self", B3: f"{N3} local-preference 100 originator-id {N3} cluster-list [ 1.0.0.1 ]",
    }  # fmt: skip
    assert host.exabgp.peers[N3].words == {
        "10.65.1.0/26": "self", B2: f"{N2} local-preference 100 originator-id {N2} cluster-list [ 1.0.0.1 ]",
    }  # fmt: skip
    assert host.routes == ALL
    assert host.exabgp.peers[N2].ends == host.exabgp.peers[N3].ends == 1


@pytest.mark.bgp_scenario(26)
def test_what_was_in_our_cluster_or_began_with_us_is_refused_and_counted() -> None:
    host = reflector()
    host.exabgp.peer_sends(N2, ["10.65.8.0/26"], cluster_list=["1.0.0.9", "1.0.0.1"], originator_id="10.0.0.9")
    host.exabgp.peer_sends(N2, ["10.65.9.0/26"], originator_id="10.0.0.1")
    host.run()
    assert (host.refused("10.65.8.0/26"), host.refused("10.65.9.0/26")) == (["cluster-loop"], ["originator-loop"])
    assert host.offered(N3) == {"10.65.1.0/26", B2}
    (session,) = [one for one in host.engine.state()["sessions"] if one["peer"] == N2]  # type: ignore[attr-defined]
    assert session["routes_refused"] == {"cluster-loop": 1, "originator-loop": 1}


@pytest.mark.bgp_scenario(28)
def test_what_a_client_withdraws_is_withdrawn_from_all_once() -> None:
    host = reflector()
    host.exabgp.commands.clear()
    host.exabgp.peer_withdraws(N2, [B2])
    host.run()
    assert host.exabgp.commands == [f"neighbor {N3} withdraw attributes next-hop self nlri {B2}"]


@pytest.mark.bgp_scenario(29)
def test_a_client_that_flaps_ends_in_the_right_state_and_is_said_in_pieces() -> None:
    host = reflector()
    host.exabgp.commands.clear()
    for number in range(100):
        host.exabgp.peer_withdraws(N2, [B2])
        host.run(0.05)
        host.exabgp.peer_sends(N2, [B2], med=number)
        host.run(0.05)
    host.run(2)
    assert host.exabgp.peers[N3].words[B2] == (
        f"{N2} med 99 local-preference 100 originator-id {N2} cluster-list [ 1.0.0.1 ]"
    )
    assert len(host.exabgp.commands) < 80
    assert {peer: host.exabgp.peers[peer].ends for peer in (N2, N3)} == {N2: 1, N3: 1}
    assert host.routes == ALL


def test_two_reflectors_of_one_cluster_do_not_reflect_to_each_other() -> None:
    second = node_record("node3", "10.0.0.3/24", routeReflectorClusterID="1.0.0.1")
    host = reflector(second)
    # what the client said goes to both; what the other reflector says of the client has our cluster in it
    assert host.offered(N3) == {"10.65.1.0/26", B2}
    assert host.offered(N2) == {"10.65.1.0/26", B3}
    host.exabgp.peer_sends(N3, [B2], next_hop=N2, originator_id=N2, cluster_list=["1.0.0.1"])
    host.run()
    assert host.refused(B2) == [None, "cluster-loop"]


@pytest.mark.bgp_scenario(25)
def test_reflectors_of_two_clusters_pass_on_both_ways_and_loops_end() -> None:
    second = node_record("node3", "10.0.0.3/24", routeReflectorClusterID="1.0.0.2")
    host = reflector(second)
    far = "10.65.7.0/26"
    host.exabgp.peer_sends(N3, [far], next_hop="10.0.0.7", originator_id="10.0.0.7", cluster_list=["1.0.0.2"])
    host.run()
    assert host.exabgp.peers[N2].words[far] == (
        "10.0.0.7 local-preference 100 originator-id 10.0.0.7 cluster-list [ 1.0.0.1 1.0.0.2 ]"
    )
    host.exabgp.peer_sends(N3, [B2], next_hop=N2, originator_id=N2, cluster_list=["1.0.0.2", "1.0.0.1"])
    host.run()
    assert host.refused(B2) == [None, "cluster-loop"]
    assert host.exabgp.peers[N3].words[B2].endswith(f"originator-id {N2} cluster-list [ 1.0.0.1 ]")


def test_a_node_begins_and_ends_to_reflect() -> None:
    host = meshed()
    assert host.offered(N2) == {"10.65.1.0/26"}
    sessions = {peer: host.exabgp.peers[peer].up_at for peer in (N2, N3)}
    host.put(CLIENTS)
    host.run()
    host.put(REFLECTOR)
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26", B3}
    host.put(NODES[0])
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert {peer: host.exabgp.peers[peer].up_at for peer in (N2, N3)} == sessions
    assert host.routes == ALL


def test_a_killed_reflector_comes_back_and_says_nothing_twice() -> None:
    host = reflector()
    host.exabgp.stay_behind()
    before = {peer: dict(host.exabgp.peers[peer].words) for peer in (N2, N3)}
    host.exabgp.commands.clear()
    again = BgpHost(kernel=host.kernel, exabgp=host.exabgp, clock=host.clock)
    again.put(POOL, *NODES[1:], *OWN, REFLECTOR, MESH_OFF, CLIENTS)
    again.in_sync()
    again.run(3)
    assert {peer: host.exabgp.peers[peer].words for peer in (N2, N3)} == before
    assert not [command for command in host.exabgp.commands if "withdraw" in command]
    assert again.routes == ALL


def test_a_reflector_that_starts_anew_says_its_end_when_it_has_heard_all() -> None:
    host = started(REFLECTOR, MESH_OFF, CLIENTS)
    host.exabgp.peer_up(N2)
    host.exabgp.peer_sends(N2, [B2])
    host.exabgp.peer_ends(N2)
    host.run()
    assert (host.offered(N2), host.exabgp.peers[N2].ends) == ({"10.65.1.0/26"}, 0)
    host.exabgp.peer_up(N3)
    host.exabgp.peer_sends(N3, [B3])
    host.exabgp.peer_ends(N3)
    host.run()
    assert (host.offered(N2), host.exabgp.peers[N2].ends) == ({"10.65.1.0/26", B3}, 1)
    assert host.exabgp.peers[N3].ends == 1


def test_a_reflector_does_not_wait_for_a_client_that_has_just_started_too() -> None:
    """Two that start at once would wait for each other."""
    host = started(REFLECTOR, MESH_OFF, CLIENTS)
    host.exabgp.peer_up(N2)
    host.exabgp.peer_ends(N2)
    host.exabgp.peer_up(N3, has_restarted=True)
    host.run(1)
    assert host.exabgp.peers[N2].ends == host.exabgp.peers[N3].ends == 1


def test_a_reflector_does_not_wait_for_a_client_that_stays_away() -> None:
    host = started(REFLECTOR, MESH_OFF, CLIENTS)
    host.exabgp.peer_up(N2)
    host.run(20)
    assert host.exabgp.peers[N2].ends == 0
    host.run(15)
    assert host.exabgp.peers[N2].ends == 1


def test_what_a_change_concerns_is_decided_and_said_again_and_nothing_else() -> None:
    many = [f"10.65.{16 + n // 256}.{n % 256}/32" for n in range(300)]
    host = reflector(peer_record("tor", peerIP=TOR, asNumber=65001))
    host.exabgp.peer_sends(N2, many)
    host.exabgp.peer_up(TOR)
    path = {"0": {"element": "as-sequence", "value": [65001]}}
    host.exabgp.peer_sends(TOR, ["10.65.200.0/26", "10.96.0.0/16"], as_path=path, local_preference=None)
    host.exabgp.peer_ends(TOR)
    host.run(3)

    def cost(*records: tuple[str, bytes]) -> tuple[int, int]:
        """Put records and return how many prefixes were decided again, and how many commands were said."""
        decided, commands = host.routing.rib.decided, len(host.exabgp.commands)
        host.put(*records)
        host.run(3)
        return host.routing.rib.decided - decided, len(host.exabgp.commands) - commands

    assert cost(filter_record("f", importV4=[{"action": "Reject"}])) == (0, 0)
    key, value = NODES[2]
    labelled = json.loads(value)
    labelled["metadata"]["labels"] = {"rack": "r1"}
    assert cost((key, json.dumps(labelled).encode())) == (0, 0)
    assert cost(endpoint_record("node1", "z", "10.65.1.9/32")) == (0, 0)
    block = "10.65.16.0/26"
    # what lies in it is decided anew, and withdrawn from the two who had it; the block is announced to all three
    assert cost(block_record(block, "node1"), affinity_record(block, "node1")) == (64, 5)
    # a node that is new has a session and no route yet
    decided, commands = cost(peer_record("x", peerIP="10.0.0.99", asNumber=65009))
    assert (decided, commands) == (0, 0)
    assert cost(peer_record("tor", peerIP=TOR, asNumber=65001, filters=["f"])) == (2, 2)
    assert host.refused("10.65.200.0/26") == ["filter-reject"]
    accept = {"action": "Accept", "cidr": "10.65.0.0/16", "matchOperator": "In"}
    assert cost(filter_record("f", importV4=[accept])) == (2, 2)


@pytest.mark.bgp_scenario(79)
def test_one_change_among_ten_thousand_is_one_line_for_each_neighbour() -> None:
    many = [f"10.65.{16 + n // 256}.{n % 256}/32" for n in range(10_000)]
    host = reflector()
    host.exabgp.peer_sends(N2, many)
    host.run(5)
    assert len(host.offered(N3)) == 10_002
    assert max(len(command) for command in host.exabgp.commands) < 4_000
    host.exabgp.commands.clear()
    writes = len(host.kernel.routes.log)
    host.exabgp.peer_sends(N2, [many[77]], med=5)
    host.run(5)
    assert [command.split()[:2] for command in host.exabgp.commands] == [["neighbor", N3]]
    host.exabgp.peer_withdraws(N2, [many[77]])
    host.run(5)
    assert host.exabgp.commands[1:] == [f"neighbor {N3} withdraw attributes next-hop self nlri {many[77]}"]
    assert len(host.kernel.routes.log) - writes == 1


def test_an_external_mesh() -> None:
    host = started(node_record("node2", "10.0.0.2/24", asNumber=65002))
    host.exabgp.peer_up(N2)
    path = {"0": {"element": "as-sequence", "value": [65002]}}
    host.exabgp.peer_sends(N2, [B2], as_path=path, local_preference=None)
    host.exabgp.peer_sends(N2, ["10.65.2.64/26"], as_path={"0": {"element": "as-sequence", "value": [65002, 64512]}})
    host.exabgp.peer_sends(N2, ["10.65.2.128/26"], as_path={"0": {"element": "as-sequence", "value": [65009]}})
    host.run()
    assert host.routes[B2] == f"via {N2} dev eth0"
    assert host.refused("10.65.2.64/26") == ["as-loop"]
    assert host.refused("10.65.2.128/26") == ["first-as"]
    assert host.offered(N2) == {"10.65.1.0/26"}


def test_both_families_each_over_its_own_session() -> None:
    nodes = [node_record(f"node{n}", f"10.0.0.{n}/24", ipv6=f"fd99::{n}/64") for n in (1, 2)]
    host = BgpHost()
    host.kernel.links.add_address(ETH0, ip_interface("fd99::1/64"))
    host.put(
        POOL, pool_record("p6", "fd80::/48"), *nodes, *OWN,
        block_record("fd80::40/122", "node1"), affinity_record("fd80::40/122", "node1"),
    )
    host.in_sync()
    host.run()
    for peer, block in ((N2, B2), ("fd99::2", "fd80::80/122")):
        host.exabgp.peer_up(peer)
        host.exabgp.peer_sends(peer, [block])
        host.exabgp.peer_ends(peer)
    host.run()
    assert host.offered(N2) == {"10.65.1.0/26"}
    assert host.offered("fd99::2") == {"fd80::40/122"}
    assert host.routes[B2] == f"via {N2} dev eth0"
    assert host.routes["fd80::80/122"] == "via fd99::2 dev eth0"
    assert host.routes["fd80::40/122"] == "blackhole"
    assert host.phases == {"Mesh_10_0_0_2": "up Established", "Mesh_fd99__2": "up Established"}


def test_a_link_local_next_hop_is_the_peer() -> None:
    host = BgpHost()
    for device in (ETH0, IfName("docker0")):
        link_local = RouteKey(ip_network("fe80::/64"), metric=256 if device == ETH0 else 255)
        host.kernel.routes.put(link_local, Route.on(device, protocol=PROTOCOL_KERNEL))
    host.kernel.links.add_address(ETH0, ip_interface("fd99::1/64"))
    nodes = [node_record(f"node{n}", f"10.0.0.{n}/24", ipv6=f"fd99::{n}/64") for n in (1, 2)]
    host.put(pool_record("p6", "fd80::/48"), *nodes)
    host.in_sync()
    host.run()
    host.exabgp.peer_up("fd99::2")
    host.exabgp.peer_sends("fd99::2", ["fd80::80/122"], next_hop="fe80::df:15ff:fe71:7d19")
    host.run()
    assert host.routes["fd80::80/122"] == "via fd99::2 dev eth0"


def test_state_says_everything() -> None:
    host = meshed()
    host.exabgp.peer_sends(N2, ["10.66.0.0/26"])
    host.run()
    state = host.engine.state()
    assert state["exports"] == {"10.65.1.0/26": {"communities": []}}
    sessions = state["sessions"]
    assert isinstance(sessions, list)
    assert sessions[0]["routes_refused"] == {"not-in-pool": 1}
    assert PROTOCOL_BGPD == 81
