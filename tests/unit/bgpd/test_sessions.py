"""Nodes and settings to sessions (reference bgp.md 1.4)."""

from ipaddress import IPv4Address, ip_address, ip_interface

import pytest

from bgpd.calc.secrets import Password, SecretName, Unread
from bgpd.calc.sessions import (
    Globals,
    NodeView,
    PeerKind,
    node_view,
    router_id,
    sessions,
    settings,
    waits,
    wanted_secrets,
)
from resources.kinds.base import Metadata
from resources.kinds.bgpconfiguration import BGPConfiguration, BGPConfigurationSpec
from resources.kinds.node import Node, NodeBGPSpec, NodeSpec
from resources.kinds.secret import BGPPassword, SecretKeyRef
from resources.names import AsNumber, NodeName

THIS = NodeName("n1")


def view(name: str, ipv4: str = "", ipv6: str = "", **members: object) -> NodeView:
    return NodeView(
        name=NodeName(name),
        ipv4=ip_interface(ipv4) if ipv4 else None,
        ipv6=ip_interface(ipv6) if ipv6 else None,
        **members,  # type: ignore[arg-type]
    )


def nodes(*views: NodeView) -> dict[NodeName, NodeView]:
    return {one.name: one for one in views}


def configuration(**spec: object) -> BGPConfiguration:
    return BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(**spec))  # type: ignore[arg-type]


N1, N2, N3 = (view(f"n{n}", f"10.0.0.{n}/24") for n in (1, 2, 3))


def test_a_mesh_is_every_other_node() -> None:
    found = sessions(THIS, nodes(N1, N2, N3), Globals())
    assert {str(address): spec.name for address, spec in found.peers.items()} == {
        "10.0.0.2": "Mesh_10_0_0_2",
        "10.0.0.3": "Mesh_10_0_0_3",
    }
    spec = found.peers[ip_address("10.0.0.2")]
    assert (spec.kind, spec.node, spec.local_address) == (PeerKind.MESH, "n2", ip_address("10.0.0.1"))
    assert (spec.local_as, spec.peer_as, spec.port) == (64512, 64512, 179)
    assert (spec.hold_seconds, spec.restart_seconds, spec.is_external) == (90, 120, False)
    assert found.unusable == ()


def test_each_family_has_its_own_sessions() -> None:
    both = view("n1", "10.0.0.1/24", "fd99::1/64")
    only6, only4 = view("n2", ipv6="fd99::2/64"), N3
    found = sessions(THIS, nodes(both, only6, only4), Globals())
    assert {spec.name for spec in found.peers.values()} == {"Mesh_fd99__2", "Mesh_10_0_0_3"}
    assert found.peers[ip_address("fd99::2")].local_address == ip_address("fd99::1")


def test_reflectors_are_in_no_mesh() -> None:
    reflector = view("n2", "10.0.0.2/24", is_reflector=True)
    assert set(sessions(THIS, nodes(N1, reflector, N3), Globals()).peers) == {ip_address("10.0.0.3")}
    assert sessions(NodeName("n2"), nodes(N1, reflector, N3), Globals()).peers == {}


@pytest.mark.parametrize(
    "found",
    [
        sessions(THIS, nodes(N1, N2), Globals(mesh=False)),
        sessions(THIS, nodes(N2, N3), Globals()),
        sessions(THIS, nodes(view("n1"), N2), Globals()),
        sessions(THIS, {}, Globals()),
    ],
    ids=["mesh off", "this node unknown", "this node without address", "nothing"],
)
def test_no_sessions(found: object) -> None:
    assert getattr(found, "peers") == {}  # noqa: B009


def test_an_address_counts_once() -> None:
    twin = view("n4", "10.0.0.3/24")
    mine = view("n5", "10.0.0.1/24")
    found = sessions(THIS, nodes(N1, N2, N3, twin, mine), Globals())
    assert found.peers[ip_address("10.0.0.3")].node == "n3"
    assert {one.what for one in found.unusable} == {"Node(n4)", "Node(n5)"}


def test_numbers_and_ports_of_nodes_come_before_the_global_ones() -> None:
    other = view("n2", "10.0.0.2/24", as_number=AsNumber(65002))
    found = sessions(
        THIS, nodes(N1, other, N3), Globals(as_number=AsNumber(64999), listen_port=1179, ports={NodeName("n3"): 1790})
    )
    two, three = found.peers[ip_address("10.0.0.2")], found.peers[ip_address("10.0.0.3")]
    assert (two.local_as, two.peer_as, two.is_external, two.port) == (64999, 65002, True, 1179)
    assert (three.peer_as, three.is_external, three.port) == (64999, False, 1790)


def test_of_two_sides_exactly_one_waits() -> None:
    assert waits(ip_address("10.99.0.9"), ip_address("10.99.0.10"))
    assert not waits(ip_address("10.99.0.10"), ip_address("10.99.0.9"))
    assert waits(ip_address("fd99::9"), ip_address("fd99::10"))


SECRET = SecretName("bgp", "mesh")


def test_the_mesh_has_its_password() -> None:
    globals = Globals(mesh_secret=SECRET)
    assert wanted_secrets(globals) == {SECRET}
    found = sessions(THIS, nodes(N1, N2), globals, secrets={SECRET: Password("s3cret")})
    (spec,) = found.peers.values()
    assert (spec.password, found.unusable) == ("s3cret", ())
    assert "s3cret" not in repr(found)


def test_a_password_that_cannot_be_read_withholds_the_session() -> None:
    for globals, secrets, reason in (
        (Globals(mesh_secret=SECRET), {SECRET: Unread("/x is not there")}, "password: /x is not there"),
        (Globals(mesh_secret=SECRET), {}, "password: the password was not read"),
        (Globals(mesh_fault="it names none"), {}, "it names none"),
    ):
        found = sessions(THIS, nodes(N1, N2), globals, secrets=secrets)
        assert found.peers == {}
        assert [(one.address, one.reason) for one in found.unusable] == [(ip_address("10.0.0.2"), reason)]


def test_a_node_that_cannot_be_read_is_absent_and_told() -> None:
    def node(**bgp: object) -> NodeView:
        spec = NodeSpec(bgp=NodeBGPSpec(**bgp))  # type: ignore[arg-type]
        return node_view(Node(metadata=Metadata(name="x"), spec=spec))

    assert node(ipv4_address="10.0.0.7").ipv4 == ip_interface("10.0.0.7/32")
    # as old releases stored it, and as felix reads it
    assert node(ipv4_address="::ffff:10.0.0.7/120").ipv4 == ip_interface("10.0.0.7/24")
    for text in ("10.0.0", "fd99::1/64", "127.0.0.1/8", "0.0.0.0", "224.0.0.5/32"):
        found = node(ipv4_address=text)
        assert found.ipv4 is None
        assert len(found.faults) == 1
        assert found.faults[0].startswith("ipv4Address: ")
    assert node(as_number=-1, ipv4_address="10.0.0.7/24").as_number is None
    assert sessions(THIS, nodes(N1, N2, node(ipv4_address="x")), Globals()).unusable[0].what == "Node(x)"
    assert node_view(Node(metadata=Metadata(name="x"))).addresses == ()


def test_settings_of_the_store() -> None:
    found = settings(
        {
            "default": configuration(
                node_to_node_mesh_enabled=False, as_number=65001, listen_port=1179, node_mesh_max_restart_time="1m30s"
            ),
            "node.n2": configuration(listen_port=1790),
            "other": configuration(listen_port=5),
        }
    )
    assert (found.mesh, found.as_number, found.listen_port, found.restart_seconds) == (False, 65001, 1179, 90)
    assert found.port_of(NodeName("n2")) == 1790
    assert found.port_of(NodeName("n3")) == 1179
    assert settings({}) == Globals()


def test_settings_that_cannot_be_used_are_told_and_the_defaults_stand() -> None:
    found = settings(
        {
            "default": configuration(as_number=1 << 32, listen_port=70000, node_mesh_max_restart_time="soon"),
            "node.n2": configuration(listen_port=0),
        }
    )
    assert (found.as_number, found.listen_port, found.restart_seconds) == (64512, 179, 120)
    assert found.port_of(NodeName("n2")) == 179
    assert len(found.unusable) == 4


def test_the_restart_time_has_twelve_bits() -> None:
    assert settings({"default": configuration(node_mesh_max_restart_time="3h0m0s")}).restart_seconds == 4095


def test_a_mesh_password_is_noticed() -> None:
    asked = BGPPassword(secret_key_ref=SecretKeyRef(name="s", key="k"))
    found = settings({"default": configuration(node_mesh_password=asked)})
    assert (found.mesh_secret, found.mesh_fault) == (SecretName("s", "k"), "")
    for none in (BGPPassword(), BGPPassword(secret_key_ref=SecretKeyRef(name="..", key="k"))):
        found = settings({"default": configuration(node_mesh_password=none)})
        assert found.mesh_secret is None
        assert found.mesh_fault


def test_router_ids() -> None:
    name = NodeName("n1")
    assert router_id(N1, name) == IPv4Address("10.0.0.1")
    assert router_id(N1, name, "1.2.3.4") == IPv4Address("1.2.3.4")
    hashed = router_id(N1, name, "hash")
    assert hashed == router_id(None, name) == router_id(view("n1", ipv6="fd99::1/64"), name)
    assert hashed != router_id(None, NodeName("n2"))
    for number in range(300):
        found = router_id(None, NodeName(f"node{number}"))
        assert 1 <= found.packed[0] <= 223
    with pytest.raises(ValueError, match="Expected 4 octets"):
        router_id(N1, name, "nonsense")


@pytest.mark.bgp_scenario(5)
def test_identifiers_of_names_that_meet_are_told() -> None:
    one, other = view("host-18655", ipv6="fd99::1/64"), view("host-54620", ipv6="fd99::2/64")
    identifier = router_id(None, one.name)
    assert identifier == router_id(None, other.name)
    found = sessions(one.name, nodes(one, other, N1), Globals())
    assert [(told.what, told.reason) for told in found.unusable] == [
        (
            "Node(host-54620)",
            f"its BGP identifier {identifier} is also that of host-18655: set CALICO_ROUTER_ID on one",
        )
    ]
    assert sessions(one.name, nodes(one, view("host-1", ipv6="fd99::2/64")), Globals()).unusable == ()
    by_address = view("n9", f"{identifier}/24")
    assert len(sessions(one.name, nodes(one, by_address), Globals()).unusable) == 1
