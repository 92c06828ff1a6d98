import ipaddress

import pytest

from calicoctl.overlaps import host_networks, overlaps, warnings
from fakes.faulty_store import FaultyStore
from resources.datastore.client import ResourceClient
from resources.datastore.memory import MemoryStore
from resources.documents import load
from resources.errors import StoreUnavailable
from resources.kinds.pool import IPPool, IPPoolSpec

TABLE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\tFE004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
cali0123456789a\t000A1011\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
eth0\t400A1011\t02004D0A\t0003\t0\t0\t0\tC0FFFFFF\t0\t0\t0
*\tC01314AD\t00000000\t0001\t0\t0\t0\tC0FFFFFF\t0\t0\t0
"""


def test_what_is_on_a_link_of_this_host_is_found_and_our_own_routes_are_not() -> None:
    assert list(host_networks(TABLE)) == [
        (ipaddress.ip_network("10.77.0.0/24"), "which is on eth0 of this host"),
        (ipaddress.ip_network("172.17.0.0/16"), "which is on docker0 of this host"),
    ]


def test_an_overlap_is_one_line_that_names_both() -> None:
    pools = [IPPool(spec=IPPoolSpec(cidr="172.17.0.0/20")), IPPool(spec=IPPoolSpec(cidr="10.1.0.0/16"))]
    assert list(overlaps(pools, host_networks(TABLE))) == [
        "pool 172.17.0.0/20 overlaps 172.17.0.0/16, which is on docker0 of this host: "
        "addresses in both cannot be reached"
    ]


def test_a_pool_over_the_subnet_of_fifty_nodes_is_one_line() -> None:
    pool = IPPool(spec=IPPoolSpec(cidr="10.77.0.0/24"))
    subnet = ipaddress.ip_network("10.77.0.0/24")
    known = [(subnet, f"the subnet of node node{number}") for number in range(50)]
    assert list(overlaps([pool], known)) == [
        "pool 10.77.0.0/24 overlaps 10.77.0.0/24, the subnet of node node0; 10.77.0.0/24, the subnet of node node1; "
        "and 48 more: addresses in both cannot be reached"
    ]


def test_a_store_that_is_away_is_told_at_once_and_not_asked_again_by_the_write() -> None:
    store = FaultyStore(MemoryStore())
    store.go_down("no answer")
    pool = load(b"{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.1.0.0/16}}", "pool.yaml").documents
    with pytest.raises(StoreUnavailable):
        warnings(ResourceClient(store), pool)
