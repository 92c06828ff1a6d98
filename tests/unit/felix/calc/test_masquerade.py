"""What this host must know of pools and nodes, as they come, change and go."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from fakes.felix_records import HERE, host, pool
from felix.calc.masquerade import Cluster
from felix.calc.model import Surroundings
from felix.calc.parameters import Parameters
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import NodeName, parse_network

PARAMETERS = Parameters()
POOL = pool("10.1.0.0/16", nat=True, ipip="CrossSubnet")
OWN, OTHER = host(HERE, "192.0.2.1/24", tunnel="10.1.0.1"), host("other", "192.0.2.2/24", ipv6="2001:db8::2/64")
NOTHING: frozenset[str] = frozenset()


def put(cluster: Cluster, *records: tuple[ResourceKey, Resource | None]) -> Surroundings | None:
    for key, value in records:
        cluster.readers[key.plural](key, value)
    return cluster.conclude(PARAMETERS, {})


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(NodeName(HERE))
    put(made, POOL, OWN, OTHER)
    return made


def test_it_tells_pools_hosts_and_what_is_ours(cluster: Cluster) -> None:
    assert cluster.told == Surroundings(
        pools={4: frozenset({"10.1.0.0/16"}), 6: NOTHING},
        masqueraded_pools={4: frozenset({"10.1.0.0/16"}), 6: NOTHING},
        hosts={4: frozenset({"192.0.2.1", "192.0.2.2"}), 6: frozenset({"2001:db8::2"})},
        ipip=True,
        tunnel_address="10.1.0.1",
        addresses=frozenset({ip_address("192.0.2.1")}),
    )


def test_a_pool_that_is_gone_is_forgotten(cluster: Cluster) -> None:
    now = put(cluster, (POOL[0], None))
    assert now is not None
    assert (now.pools[4], now.masqueraded_pools[4], now.ipip) == (NOTHING, NOTHING, False)


def test_a_node_that_is_gone_is_no_host_of_the_cluster_any_more(cluster: Cluster) -> None:
    now = put(cluster, (OTHER[0], None))
    assert now is not None
    assert (now.hosts[4], now.hosts[6]) == (frozenset({"192.0.2.1"}), NOTHING)
    now = put(cluster, (OWN[0], None))
    assert now is not None
    assert (now.hosts[4], now.tunnel_address, now.addresses) == (NOTHING, None, frozenset())


def test_what_changes_nothing_is_not_told(cluster: Cluster) -> None:
    assert put(cluster) is None
    assert put(cluster, POOL, OWN, OTHER) is None
    assert put(cluster, pool("10.1.0.0/16", nat=True, ipip="Always")) is None


def test_a_setting_that_matters_is_told_without_a_record(cluster: Cluster) -> None:
    before = cluster.told
    assert before is not None
    far = replace(PARAMETERS, external_nodes=(parse_network("198.51.100.0/24"),))
    expected = replace(before, hosts={4: before.hosts[4] | {"198.51.100.0/24"}, 6: before.hosts[6]})
    assert cluster.conclude(far, {}) == expected
    assert cluster.conclude(replace(PARAMETERS, ipip=False), {}) == replace(before, ipip=False)
    assert cluster.conclude(PARAMETERS, {}) == before
