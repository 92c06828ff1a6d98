import ipaddress
import random
from dataclasses import replace

import pytest

from calicoctl.node.addresses import HostInterface
from calicoctl.node.options import OPTIONS
from calicoctl.node.startup import AddressTaken, Host, NameTaken, prepare
from resources.datastore.client import ResourceClient
from resources.datastore.memory import MemoryStore
from resources.errors import ConfigurationError
from resources.kinds import by_name
from resources.kinds.base import Metadata
from resources.kinds.felixconfiguration import KIND as FELIX_CONFIGURATION
from resources.kinds.node import KIND as NODE
from resources.kinds.node import NODE_ID_ANNOTATION, Node, NodeAddress, NodeSpec
from resources.kinds.pool import KIND as POOL
from resources.names import NodeName
from resources.runtime.options import Settings, Source, resolve


def settings(**environment: str) -> Settings:
    return resolve(OPTIONS, [Source("environment", environment)])


def host(name: str = "node1", node_id: str = "id-1", address: str = "172.16.60.215/24") -> Host:
    return Host(
        name=NodeName(name),
        node_id=node_id,
        interfaces=(HostInterface("eth0", (ipaddress.ip_interface(address),)),),
        networks=(ipaddress.ip_network("192.168.1.0/24"),),
        source_towards=lambda _: None,
    )


@pytest.fixture
def client() -> ResourceClient:
    return ResourceClient(MemoryStore())


def prepared(client: ResourceClient, who: Host, **environment: str) -> Node:
    return prepare(client, who, settings(**environment), rng=random.Random(1)).node


def test_a_first_host_finds_nothing_and_makes_everything(client: ResourceClient) -> None:
    node = prepared(client, host())
    assert str(node.ipv4) == "172.16.60.215/24"
    assert node.metadata.annotations[NODE_ID_ANNOTATION] == "id-1"
    assert node.spec.addresses == [NodeAddress(address="172.16.60.215/24", type="CalicoNodeIP")]
    assert client.get(by_name()["ClusterInformation"], "default").ready
    assert client.get(by_name()["Tier"], "default").spec.order == 1_000_000
    assert client.get(FELIX_CONFIGURATION, "node.node1").spec.default_endpoint_to_host_action == "Return"
    pools = {pool.metadata.name: pool for pool in client.list(POOL).items}
    assert pools.keys() == {"default-ipv4-ippool", "default-ipv6-ippool"}
    assert pools["default-ipv4-ippool"].spec.cidr == "172.16.0.0/16" or not pools[
        "default-ipv4-ippool"
    ].network.overlaps(ipaddress.ip_network("192.168.1.0/24"))
    assert not pools["default-ipv6-ippool"].spec.nat_outgoing


def test_done_again_it_changes_nothing(client: ResourceClient) -> None:
    prepared(client, host())
    before = client.store.list("/").items
    again = prepare(client, host(), settings())
    assert again.done == ()
    assert client.store.list("/").items == before


def test_no_default_pools_if_told_so(client: ResourceClient) -> None:
    prepared(client, host(), NO_DEFAULT_POOLS="true")
    assert client.list(POOL).items == ()


def test_no_default_pools_where_there_is_one(client: ResourceClient) -> None:
    prepared(client, host())
    client.ipam = None
    prepared(client, host("node2", "id-2", "172.16.60.216/24"))
    assert len(client.list(POOL).items) == 2


def test_another_host_with_the_same_name_is_refused_and_told_of_the_first(client: ResourceClient) -> None:
    prepared(client, host())
    before = client.get(NODE, "node1")
    with pytest.raises(NameTaken, match=r"node1 belongs to another host, with the address 172\.16\.60\.215/24") as told:
        prepared(client, host(node_id="id-2", address="172.16.60.216/24"))
    assert "calicoctl delete node node1" in (told.value.hint or "")
    assert client.get(NODE, "node1") == before


def test_another_host_with_the_same_address_is_refused(client: ResourceClient) -> None:
    prepared(client, host())
    with pytest.raises(AddressTaken, match=r"172\.16\.60\.215 of this host is registered by node node1"):
        prepared(client, host("node2", "id-2"))


def test_the_same_host_with_a_new_address_updates_its_record(client: ResourceClient) -> None:
    prepared(client, host())
    again = prepare(client, host(address="172.16.60.99/24"), settings())
    assert str(client.get(NODE, "node1").ipv4) == "172.16.60.99/24"
    assert again.done == ("updated node node1: its address is 172.16.60.99/24 (was 172.16.60.215/24)",)


def dual(four: str = "172.16.60.215/24", six: str = "2001:db8::7/64") -> Host:
    addresses = tuple(ipaddress.ip_interface(text) for text in (four, six))
    return replace(host(), interfaces=(HostInterface("eth0", addresses),))


def test_a_host_has_the_families_that_it_is_told_to_have(client: ResourceClient) -> None:
    both = prepare(client, dual(), settings(IP6="autodetect"))
    assert (str(both.node.ipv4), str(both.node.ipv6)) == ("172.16.60.215/24", "2001:db8::7/64")
    assert both.done[0] == "registered node node1 with 172.16.60.215/24 and 2001:db8::7/64"
    six = prepare(client, dual(), settings(IP="none", IP6="autodetect"))
    assert (six.node.ipv4, str(six.node.ipv6)) == (None, "2001:db8::7/64")
    assert [entry.address for entry in six.node.spec.addresses] == ["2001:db8::7/64"]
    assert six.done == (
        "updated node node1: its address is 2001:db8::7/64 (was 172.16.60.215/24 and 2001:db8::7/64)",
    )
    four = prepare(client, dual(), settings())
    assert (str(four.node.ipv4), four.node.ipv6) == ("172.16.60.215/24", None)


def test_a_host_without_any_address_is_refused(client: ResourceClient) -> None:
    with pytest.raises(ConfigurationError, match="this node would have no address") as refused:
        prepare(client, dual(), settings(IP="none"))
    assert "IP6=autodetect" in (refused.value.hint or "")
    assert client.store.list("/").items == ()


def test_what_others_wrote_into_the_node_stays(client: ResourceClient) -> None:
    prepared(client, host())

    def changed(node: Node) -> Node:
        spec = NodeSpec(
            bgp=node.spec.bgp, addresses=[*node.spec.addresses, NodeAddress(address="192.0.2.1", type="InternalIP")]
        )
        metadata = Metadata(
            name="node1", uid=node.metadata.uid, creation_timestamp=node.metadata.creation_timestamp,
            labels={"rack": "r1"}, annotations=node.metadata.annotations,
        )
        return Node(metadata=metadata, spec=spec)

    client.modify(NODE, "node1", changed)
    node = prepared(client, host(address="172.16.60.99/24"))
    assert node.metadata.labels == {"rack": "r1"}
    assert NodeAddress(address="192.0.2.1", type="InternalIP") in node.spec.addresses


def test_a_node_written_by_hand_is_adopted(client: ResourceClient) -> None:
    client.ensure_defaults()
    client.create(NODE, Node(metadata=Metadata(name="node1", labels={"rack": "r1"})))
    node = prepared(client, host())
    assert node.metadata.annotations[NODE_ID_ANNOTATION] == "id-1"
    assert node.metadata.labels == {"rack": "r1"}


def test_an_as_number_of_its_own(client: ResourceClient) -> None:
    node = prepared(client, host(), AS="1.10")
    assert node.spec.bgp is not None
    assert node.spec.bgp.as_number == 65546


@pytest.mark.parametrize("number", ["0", "0.0"])
def test_an_as_number_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(ConfigurationError, match=r"0 is no AS number \(RFC 7607\); leave it out"):
        settings(AS=number)


def test_a_locked_datastore_stays_locked(client: ResourceClient) -> None:
    client.ensure_defaults()
    client.set_datastore_ready(False)
    prepared(client, host())
    assert not client.get(by_name()["ClusterInformation"], "default").ready
