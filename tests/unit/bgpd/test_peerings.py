"""BGPPeers to sessions: who peers with whom and how, and what a bad record does (reference bgp.md 1.4, 1.5, 6)."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address, ip_interface

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.calc.filters import Filter, closed
from bgpd.calc.peers import NextHopMode, Peering, peering_of
from bgpd.calc.secrets import Password, SecretName, Unread
from bgpd.calc.sessions import Globals, NodeView, PeerKind, Sessions, node_view, sessions, wanted_secrets
from resources.kinds.base import Metadata
from resources.kinds.bgppeer import BGPPeer, BGPPeerSpec
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec
from resources.kinds.secret import BGPPassword, SecretKeyRef
from resources.names import AsNumber, NodeName

TOR = "192.0.2.1"
OFF = Globals(mesh=False)


def view(name: str, ipv4: str = "", ipv6: str = "", *, cluster: str = "", **members: object) -> NodeView:
    """A node; those with `cluster` carry the label rr."""
    labels = {"name": name} | ({"rr": "yes"} if cluster else {})
    return NodeView(
        name=NodeName(name),
        ipv4=ip_interface(f"{ipv4}/24") if ipv4 else None,
        ipv6=ip_interface(f"{ipv6}/64") if ipv6 else None,
        is_reflector=bool(cluster),
        cluster_id=IPv4Address(cluster) if cluster else None,
        labels=labels,
        **members,  # type: ignore[arg-type]
    )


def nodes(*views: NodeView) -> dict[NodeName, NodeView]:
    return {one.name: one for one in views}


def peering(name: str = "p", /, **spec: object) -> Peering:
    given = {"peer_ip": TOR, "as_number": 64513} | spec
    return peering_of(name, BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(**given)))  # type: ignore[arg-type]


def among(selector: str, name: str = "p", **spec: object) -> Peering:
    return peering(name, **{"peer_ip": "", "as_number": 0, "peer_selector": selector} | spec)


N1, N2, N3 = (view(f"n{n}", f"10.0.0.{n}") for n in (1, 2, 3))
PLAIN = nodes(N1, N2, N3)
RR1 = view("r1", "10.0.0.11", cluster="1.0.0.1")
RR2 = view("r2", "10.0.0.12", cluster="1.0.0.1")
OTHER = view("r3", "10.0.0.13", cluster="1.0.0.2")


def found(
    this: str, all_nodes: Mapping[NodeName, NodeView], *peerings: Peering, globals: Globals = OFF, **more: object
) -> Sessions:
    return sessions(NodeName(this), all_nodes, globals, peerings, **more)  # type: ignore[arg-type]


def names(of: Sessions) -> set[str]:
    return {spec.name for spec in of.peers.values()}


def told(of: Sessions) -> dict[str, str]:
    return {one.what: one.reason for one in of.unusable}


# --- for whom


def test_a_global_peer_is_every_nodes() -> None:
    for this in ("n1", "n2"):
        (spec,) = found(this, PLAIN, peering()).peers.values()
        assert (spec.name, spec.kind, spec.node) == ("Global_192_0_2_1", PeerKind.GLOBAL, None)
        assert (spec.local_as, spec.peer_as, spec.is_external, spec.port) == (64512, 64513, True, 179)
        assert (spec.local_address, spec.passive) == (PLAIN[NodeName(this)].addresses[0], False)
        assert (spec.hold_seconds, spec.restart_seconds, spec.origin) == (90, 120, "p")
        assert (spec.hops, spec.any_source, spec.filters, spec.password) == (None, False, (), None)


@pytest.mark.bgp_scenario(7)
def test_a_peer_of_one_node_and_of_those_that_a_selector_picks() -> None:
    for one in (peering(node="n1"), peering(node_selector="name == 'n1'")):
        assert names(found("n1", PLAIN, one)) == {"Node_192_0_2_1"}
        assert found("n2", PLAIN, one).peers == {}


@pytest.mark.bgp_scenario(7)
def test_a_label_that_changes_moves_the_peer() -> None:
    one = peering(node_selector="rack == 'r1'")
    moved = nodes(view("n2", "10.0.0.2"), NodeView(name=NodeName("n1"), ipv4=N1.ipv4, labels={"rack": "r1"}))
    assert found("n1", PLAIN, one).peers == {}
    assert names(found("n1", moved, one)) == {"Node_192_0_2_1"}


@pytest.mark.bgp_scenario(8)
def test_a_peer_selector_is_a_session_with_each_node_and_both_sides_of_it() -> None:
    all_nodes = nodes(N1, N2, N3, RR1, RR2)
    one = among("has(rr)", node_selector="!has(rr)")
    assert names(found("n1", all_nodes, one)) == {"Node_10_0_0_11", "Node_10_0_0_12"}
    assert names(found("r1", all_nodes, one)) == {"Node_10_0_0_1", "Node_10_0_0_2", "Node_10_0_0_3"}
    # not mutual: the reflectors' side is not made
    manual = among("has(rr)", node_selector="!has(rr)", reverse_peering="Manual")
    assert names(found("n1", all_nodes, manual)) == {"Node_10_0_0_11", "Node_10_0_0_12"}
    assert found("r1", all_nodes, manual).peers == {}


def test_a_peer_selector_on_every_node_is_a_global_peering() -> None:
    all_nodes = nodes(N1, RR1, RR2)
    one = among("has(rr)")
    assert names(found("n1", all_nodes, one)) == {"Global_10_0_0_11", "Global_10_0_0_12"}
    assert names(found("r1", all_nodes, one)) == {"Global_10_0_0_12", "Node_10_0_0_1"}


def test_number_and_port_of_a_selected_node_are_its_own() -> None:
    all_nodes = nodes(N1, view("r1", "10.0.0.11", cluster="1.0.0.1", as_number=AsNumber(65001)))
    globals = Globals(mesh=False, listen_port=1179, ports={NodeName("r1"): 1790})
    (spec,) = found("n1", all_nodes, among("has(rr)"), globals=globals).peers.values()
    assert (spec.local_as, spec.peer_as, spec.port, spec.node) == (64512, 65001, 1790, "r1")
    (back,) = found("r1", all_nodes, among("has(rr)"), globals=globals).peers.values()
    assert (back.local_as, back.peer_as, back.port) == (65001, 64512, 1179)


def test_each_family_has_its_own_session_with_a_selected_node() -> None:
    both, only6 = view("r1", "10.0.0.11", "fd99::11", cluster="1.0.0.1"), view("n1", ipv6="fd99::1")
    assert names(found("n1", nodes(both, only6), among("has(rr)"))) == {"Global_fd99__11"}
    assert names(found("r1", nodes(both, only6), among("has(rr)"))) == {"Node_fd99__1"}


def test_of_two_nodes_one_waits_and_no_router_is_waited_for() -> None:
    all_nodes, one = nodes(N1, RR1), among("has(rr)")
    (mine,), (theirs,) = (found(this, all_nodes, one).peers.values() for this in ("n1", "r1"))
    assert (mine.passive, theirs.passive) == (True, False)
    low = view("n1", "10.0.0.1")
    assert not found("n1", nodes(low), peering(peer_ip="10.0.0.200")).peers[ip_address("10.0.0.200")].passive


def test_the_other_side_of_a_peering_with_a_nodes_address() -> None:
    one = peering(node="n1", peer_ip="10.0.0.2", as_number=64512)
    (spec,) = found("n1", PLAIN, one).peers.values()
    (back,) = found("n2", PLAIN, one).peers.values()
    assert (spec.name, spec.node, back.name, back.node) == ("Node_10_0_0_2", "n2", "Node_10_0_0_1", "n1")
    assert spec.passive is not back.passive
    assert found("n3", PLAIN, one).peers == {}
    every = peering(peer_ip="10.0.0.2", as_number=0)
    assert names(found("n2", PLAIN, every)) == {"Node_10_0_0_1", "Node_10_0_0_3"}
    assert names(found("n1", PLAIN, every)) == {"Global_10_0_0_2"}


@pytest.mark.parametrize("spec", [{"as_number": 65001}, {"peer_ip": "10.0.0.2:1790"}, {"reverse_peering": "Manual"}])
def test_no_other_side_where_it_could_not_fit(spec: dict[str, object]) -> None:
    one = peering(**{"node": "n1", "peer_ip": "10.0.0.2", "as_number": 64512} | spec)
    assert found("n2", PLAIN, one).peers == {}
    (mine,) = found("n1", PLAIN, one).peers.values()
    # something else that runs on that host is no node, and is not waited for
    assert mine.passive is (spec == {"reverse_peering": "Manual"})


@pytest.mark.bgp_scenario(11)
def test_the_port_of_a_peer() -> None:
    (spec,) = found("n1", PLAIN, peering(peer_ip="192.0.2.1:1790")).peers.values()
    assert spec.port == 1790
    ports = Globals(mesh=False, ports={NodeName("n2"): 1790})
    for text in ("10.0.0.2", "10.0.0.2:1790"):
        (spec,) = found("n1", PLAIN, peering(peer_ip=text, as_number=0), globals=ports).peers.values()
        assert (spec.port, spec.node) == (1790, "n2")


@pytest.mark.bgp_scenario(10)
def test_a_peer_that_is_this_node_is_passed_over() -> None:
    assert found("n1", nodes(N1), peering(peer_ip="10.0.0.1", as_number=64512)) == Sessions()
    assert found("n1", nodes(N1), among("all()")) == Sessions()


# --- which of several


@pytest.mark.bgp_scenario(9)
def test_the_mesh_gives_way_to_what_is_said_of_an_address() -> None:
    one = peering(node="n1", peer_ip="10.0.0.2", as_number=64512)
    all_sessions = found("n1", PLAIN, one, globals=Globals())
    assert names(all_sessions) == {"Node_10_0_0_2", "Mesh_10_0_0_3"}
    assert names(found("n2", PLAIN, one, globals=Globals())) == {"Node_10_0_0_1", "Mesh_10_0_0_3"}
    assert all_sessions.unusable == ()


@pytest.mark.bgp_scenario(9)
def test_one_for_this_node_comes_before_one_for_all() -> None:
    general, own = peering("a", max_restart_time="10s"), peering("b", node="n1", max_restart_time="20s")
    result = found("n1", PLAIN, general, own)
    (spec,) = result.peers.values()
    assert (spec.name, spec.restart_seconds, spec.origin) == ("Node_192_0_2_1", 20, "b")
    assert result.unusable == ()
    (spec,) = found("n2", PLAIN, general, own).peers.values()
    assert (spec.name, spec.restart_seconds) == ("Global_192_0_2_1", 10)


def test_what_a_node_says_itself_comes_before_what_others_ask_of_it() -> None:
    theirs = peering("a", node="n1", peer_ip="10.0.0.2", as_number=64512, ttl_security=1)
    mine = peering("b", node="n2", peer_ip="10.0.0.1", as_number=64512)
    (spec,) = found("n2", PLAIN, theirs, mine).peers.values()
    assert (spec.origin, spec.hops) == ("b", None)


@pytest.mark.bgp_scenario(15)
def test_of_two_of_one_rank_the_first_by_name_stands_and_the_other_is_told() -> None:
    result = found("n1", PLAIN, peering("b", as_number=64514), peering("a"))
    (spec,) = result.peers.values()
    assert (spec.origin, spec.peer_as) == ("a", 64513)
    assert told(result) == {"BGPPeer(b)": "192.0.2.1 is peered with by BGPPeer(a), with other options"}
    assert found("n1", PLAIN, peering("b"), peering("a")).unusable == ()
    asked = BGPPassword(secret_key_ref=SecretKeyRef(name="s", key="k"))
    secrets = {SecretName("s", "k"): Password("x")}
    result = found("n1", PLAIN, peering("b"), peering("a", password=asked), secrets=secrets)
    assert told(result).keys() == {"BGPPeer(b)"}


# --- reflectors


def test_whom_a_reflector_reflects_to() -> None:
    all_nodes = nodes(N1, RR1, RR2, OTHER)
    one = among("all()", node_selector="has(rr)")
    clients = {spec.node: spec.is_client for spec in found("r1", all_nodes, one).peers.values()}
    assert clients == {"n1": True, "r2": False, "r3": True}
    assert {spec.is_client for spec in found("n1", all_nodes, one).peers.values()} == {False}
    # a router in our AS is a client, one in another is not
    for number, is_client in ((64512, True), (64513, False)):
        (spec,) = found("r1", nodes(RR1), peering(as_number=number)).peers.values()
        assert spec.is_client is is_client


def test_reflectors_are_in_no_mesh_and_one_without_peers_is_told() -> None:
    all_nodes = nodes(N1, N2, RR1)
    assert names(found("n1", all_nodes, globals=Globals())) == {"Mesh_10_0_0_2"}
    lonely = found("r1", all_nodes, globals=Globals())
    assert lonely.peers == {}
    assert told(lonely) == {
        "Node(r1) routeReflectorClusterID": "a route reflector is in no mesh, and no BGPPeer gives it a peer"
    }
    assert found("r1", all_nodes, among("has(rr)"), globals=Globals()).unusable == ()


def test_a_cluster_id_that_cannot_be_read_keeps_the_node_out_of_the_mesh() -> None:
    spec = NodeSpec(bgp=NodeBGPSpec(ipv4_address="10.0.0.9/24", route_reflector_cluster_id="nonsense"))
    bad = node_view(Node(metadata=Metadata(name="n9", labels={"a": "b"}), spec=spec))
    assert (bad.is_reflector, bad.cluster_id, bad.labels) == (True, None, {"a": "b"})
    result = found("n1", nodes(N1, bad), globals=Globals())
    assert result.peers == {}
    assert "routeReflectorClusterID" in told(result)["Node(n9)"]


# --- how


def test_all_options() -> None:
    one = peering(
        local_as_number=64700, source_address="None", max_restart_time="5m0s", keepalive_time="20s",
        num_allowed_local_as_numbers=2, ttl_security=1, reachable_by="10.0.0.254", filters=["b", "a"],
        next_hop_mode="Self",
    )  # fmt: skip
    result = found("n1", PLAIN, one, filters={"a": Filter(), "b": Filter()})
    (spec,) = result.peers.values()
    assert (spec.local_as, spec.peer_as, spec.any_source, spec.restart_seconds) == (64700, 64513, True, 300)
    assert (spec.hold_seconds, spec.own_as_allowed, spec.hops, spec.gateway) == (60, 2, 1, ip_address("10.0.0.254"))
    assert (spec.filters, spec.next_hop_mode) == (("b", "a"), NextHopMode.SELF)
    assert result.unusable == ()


@pytest.mark.parametrize(
    ("spec", "mode"),
    [({}, NextHopMode.AUTO), ({"keep_original_next_hop": True}, NextHopMode.KEEP),
     ({"next_hop_mode": "Keep"}, NextHopMode.KEEP), ({"next_hop_mode": "Auto"}, NextHopMode.AUTO)],
)  # fmt: skip
def test_next_hop_modes(spec: dict[str, object], mode: NextHopMode) -> None:
    assert peering(**spec).next_hop_mode is mode
    assert peering(**spec).faults == ()


@pytest.mark.parametrize(
    ("text", "hold"), [("1s", 3), ("100ms", 3), ("0s", 3), ("20s", 60), ("2500ms", 8), ("10h", 65535)]
)
def test_keepalives_are_a_third_of_the_hold_time(text: str, hold: int) -> None:
    assert peering(keepalive_time=text).hold_seconds == hold


def test_times_have_their_bounds() -> None:
    assert peering(max_restart_time="3h").restart_seconds == 4095
    (spec,) = found("n1", PLAIN, peering(max_restart_time="0s")).peers.values()
    assert spec.restart_seconds == 0


@pytest.mark.bgp_scenario(14)
def test_a_local_number_is_what_the_other_side_expects() -> None:
    one = among("name == 'n2'", node="n1", local_as_number=64700)
    (mine,), (theirs,) = (found(this, PLAIN, one).peers.values() for this in ("n1", "n2"))
    assert (mine.local_as, mine.peer_as) == (64700, 64512)
    assert (theirs.local_as, theirs.peer_as) == (64512, 64700)


def test_filters_that_do_not_exist_are_passed_over_and_told() -> None:
    result = found("n1", PLAIN, peering(filters=["a", "b"]), filters={"b": Filter()})
    assert len(result.peers) == 1
    assert told(result) == {"BGPPeer(p)": "BGPFilter(a) does not exist and is passed over"}
    result = found("n1", PLAIN, peering(filters=["b"]), filters={"b": closed("it is no JSON")})
    assert len(result.peers) == 1
    assert told(result) == {
        "BGPPeer(p)": "BGPFilter(b) rejects every route from what cannot be read on: it is no JSON"
    }


SECRET = SecretName("bgp", "tor")


def test_a_peer_has_its_password_or_no_session() -> None:
    one = peering(password=BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="tor")))
    assert wanted_secrets(OFF, [one]) == {SECRET}
    (spec,) = found("n1", PLAIN, one, secrets={SECRET: Password("s3cret")}).peers.values()
    assert spec.password == "s3cret"
    without = found("n1", PLAIN, one, secrets={SECRET: Unread("/x is not there")})
    assert without.peers == {}
    assert [(one.address, one.reason) for one in without.unusable] == [(ip_address(TOR), "password: /x is not there")]


def test_the_mesh_does_not_take_the_place_of_a_session_that_is_withheld() -> None:
    one = peering(
        node="n1", peer_ip="10.0.0.2", as_number=64512,
        password=BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="tor")),
    )  # fmt: skip
    for bad in (one, peering(node="n1", peer_ip="10.0.0.2", as_number=64512, ttl_security=0)):
        for this, there in (("n1", "10.0.0.2"), ("n2", "10.0.0.1")):
            result = found(this, PLAIN, bad, globals=Globals())
            assert names(result) == {"Mesh_10_0_0_3"}
            assert [str(one.address) for one in result.unusable] == [there]


# --- bad records


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"peer_ip": ""}, "it names no peer"),
        ({"peer_ip": "nonsense"}, "nonsense"),
        ({"peer_ip": "10.0.0.1:0"}, "a port is between 1 and 65535"),
        ({"peer_ip": "0.0.0.0"}, "is the address of no host"),
        ({"peer_ip": "ff02::1"}, "is the address of no host"),
        ({"peer_selector": "all()"}, "peerIP and peerSelector are both given"),
        ({"node": "a", "node_selector": "all()"}, "node and nodeSelector are both given"),
        ({"node_selector": "(("}, "nodeSelector: "),
        ({"peer_ip": "", "peer_selector": "a ="}, "peerSelector: expected =="),
        ({"local_workload_selector": "all()"}, "nothing here peers with workloads"),
    ],
)
def test_a_peer_of_which_it_cannot_be_told_with_whom_it_is(spec: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        peering(**spec)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"as_number": 0}, "asNumber is missing, and the peer is no node whose own could be taken"),
        ({"peer_ip": "fd00::1"}, "this node has no IPv6 address"),
        ({"ttl_security": 0}, "ttlSecurity is 0: it is 1 to 255"),
        ({"next_hop_mode": "Never"}, "nextHopMode is 'Never': it is Auto or Self or Keep"),
        ({"next_hop_mode": "Self", "keep_original_next_hop": True}, "keepOriginalNextHop and nextHopMode are both"),
        ({"source_address": "x"}, "sourceAddress is 'x'"),
        ({"reverse_peering": "x"}, "reversePeering is 'x'"),
        ({"local_as_number": 0}, "localASNumber: 0 is no AS number"),
        ({"max_restart_time": "soon"}, "maxRestartTime: "),
        ({"max_restart_time": "-1s"}, "maxRestartTime: '-1s' is negative"),
        ({"keepalive_time": "5"}, "keepaliveTime: "),
        ({"reachable_by": "x"}, "reachableBy: 'x' is no IP address"),
        ({"reachable_by": "fd00::1"}, "reachableBy: fd00::1 is of another family than peerIP"),
        ({"password": BGPPassword()}, "password: names no secret"),
        ({"password": BGPPassword(secret_key_ref=SecretKeyRef(name="..", key="a"))}, "password: secretKeyRef.name"),
    ],
)
def test_a_bad_option_withholds_the_session_and_no_other(spec: dict[str, object], reason: str) -> None:
    result = found("n1", PLAIN, peering("bad", **spec), peering("good", peer_ip="192.0.2.9"))
    assert names(result) == {"Global_192_0_2_9"}
    (one,) = result.unusable
    assert (one.what, one.address is not None) == ("BGPPeer(bad)", True)
    assert reason in one.reason


# --- all together


_VIEWS = st.builds(
    lambda number, family, cluster, as_number: view(
        f"n{number}",
        f"10.0.0.{number}" if family != 6 else "",
        f"fd99::{number}" if family != 4 else "",
        cluster=cluster,
        as_number=as_number,
    ),
    st.integers(1, 6),
    st.sampled_from([4, 6, 46]),
    st.sampled_from(["", "", "1.0.0.1", "1.0.0.2"]),
    st.sampled_from([None, AsNumber(65001)]),
)
_AMONG = st.builds(
    lambda name, mine, theirs: among(theirs, name, node_selector=mine),
    st.sampled_from("abc"),
    st.sampled_from(["", "has(rr)", "!has(rr)", "name == 'n1'"]),
    st.sampled_from(["all()", "has(rr)", "!has(rr)", "name in {'n2', 'n3'}"]),
)


@settings(max_examples=200)
@given(st.lists(_VIEWS, max_size=6), st.lists(_AMONG, max_size=3), st.booleans())
def test_among_nodes_both_sides_want_the_same_session(
    views: list[NodeView], peerings: list[Peering], mesh: bool
) -> None:
    """Mesh and peer selectors: each session is wanted by both sides, one waits, and each expects the other's number."""
    everyone = nodes(*views)
    wanted = {name: found(name, everyone, *peerings, globals=Globals(mesh=mesh)) for name in everyone}
    for name, mine in wanted.items():
        assert all(address not in everyone[name].addresses for address in mine.peers)
        for spec in mine.peers.values():
            assert spec.node is not None
            back = wanted[spec.node].peers[spec.local_address]
            assert (back.node, back.address) == (name, spec.local_address)
            assert (back.local_as, back.peer_as) == (spec.peer_as, spec.local_as)
            assert back.passive is not spec.passive
            assert not (spec.is_client and not everyone[name].is_reflector)


_WORDS: dict[str, list[str]] = {
    "node": ["", "n1", "n2", "nobody"],
    "node_selector": ["", "all()", "name == 'n1'", "(("],
    "peer_ip": [TOR, "10.0.0.2", "10.0.0.2:1179", "[fd00::1]:1", "", "10.0.0.1", "x"],
    "peer_selector": ["", "all()", "a ="],
    "next_hop_mode": ["", "Self", "Keep", "Never"],
    "source_address": ["", "UseNodeIP", "None", "x"],
    "max_restart_time": ["", "5m", "0s", "100h", "-1h", "soon"],
    "keepalive_time": ["", "5s", "1ns", "99h", "5"],
    "reachable_by": ["", "10.0.0.254", "fd00::1", "x"],
    "reverse_peering": ["", "Auto", "Manual", "x"],
    "local_workload_selector": ["", "", "", "all()"],
}
_RIGHT = BGPPeerSpec(peer_ip=TOR, as_number=64513)
_SOME: dict[str, st.SearchStrategy[object]] = {
    **{name: st.sampled_from(words) | st.sampled_from(words) | st.text() for name, words in _WORDS.items()},
    "as_number": st.sampled_from([0, 64512, 64513]) | st.integers(0, 2**32 - 1),
    "local_as_number": st.none() | st.integers(0, 2**32 - 1),
    "num_allowed_local_as_numbers": st.none() | st.integers(),
    "ttl_security": st.none() | st.integers(0, 255),
    "filters": st.lists(st.text(), max_size=2),
    "keep_original_next_hop": st.booleans(),
    "password": st.builds(BGPPassword, secret_key_ref=st.builds(SecretKeyRef, name=st.text(), key=st.text())),
}


@st.composite
def _specs(draw: st.DrawFn) -> BGPPeerSpec:
    """Draw a right record with some of its fields drawn anew: were all of them, it would hardly ever be a peer."""
    names = draw(st.lists(st.sampled_from(sorted(_SOME)), max_size=5, unique=True))
    return msgspec.structs.replace(_RIGHT, **{name: draw(_SOME[name]) for name in names})


def test_no_record_brings_the_calculation_down() -> None:
    """Whatever is stored: it stands for sessions with right values, or is told, or does not concern this node."""
    came_to = Counter[str]()

    @settings(max_examples=300)
    @given(_specs())
    def check(spec: BGPPeerSpec) -> None:
        try:
            one = peering_of("p", BGPPeer(metadata=Metadata(name="p"), spec=spec))
        except ValueError:
            came_to["refused"] += 1
            return
        result = found("n1", PLAIN, one)
        came_to["told"] += bool(result.unusable)
        for found_one in result.peers.values():
            came_to["session"] += 1
            assert 3 <= found_one.hold_seconds <= 65535
            assert 0 <= found_one.restart_seconds <= 4095
            assert found_one.hops is None or 1 <= found_one.hops <= 255
            assert 1 <= found_one.port <= 65535
            assert found_one.own_as_allowed >= 0
            assert found_one.local_as
            assert found_one.peer_as
            assert spec.password is None

    check()
    assert min(came_to[what] for what in ("refused", "told", "session")) > 10, came_to
