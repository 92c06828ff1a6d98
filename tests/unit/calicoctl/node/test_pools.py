import ipaddress
import random

from hypothesis import given
from hypothesis import strategies as st

from calicoctl.node.options import OPTIONS
from calicoctl.node.pools import CANDIDATES, default_pools, free_range, random_ula
from resources.runtime.options import Source, resolve


def pools(taken: list[str], **environment: str) -> dict[str, str]:
    settings = resolve(OPTIONS, [Source("environment", environment)])
    networks = [ipaddress.ip_network(text) for text in taken]
    return {p.metadata.name: p.spec.cidr for p in default_pools(settings, networks, random.Random(1))}


def test_both_families_get_a_pool() -> None:
    assert pools([]).keys() == {"default-ipv4-ippool", "default-ipv6-ippool"}
    assert pools([])["default-ipv4-ippool"] == "192.168.0.0/16"


def test_a_range_that_the_host_uses_is_passed_over() -> None:
    assert pools(["192.168.7.0/24", "172.16.0.0/15"])["default-ipv4-ippool"] == "172.18.0.0/16"


def test_the_environment_names_the_ranges() -> None:
    found = pools([], CALICO_IPV4POOL_CIDR="10.1.0.0/16", CALICO_IPV6POOL_CIDR="fd80:24e2:f998:72d6::/64")
    assert found == {"default-ipv4-ippool": "10.1.0.0/16", "default-ipv6-ippool": "fd80:24e2:f998:72d6::/64"}


def test_a_host_that_uses_every_range_gets_no_ipv4_pool() -> None:
    assert free_range(CANDIDATES) is None


@given(st.integers())
def test_the_random_prefix_is_a_unique_local_64(seed: int) -> None:
    network = random_ula(random.Random(seed))
    assert network.prefixlen == 64
    assert network.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert int(network.network_address) >> 64 & 0xFFFF == 0
