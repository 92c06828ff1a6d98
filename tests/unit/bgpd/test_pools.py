"""What a pool's record says to bgpd."""

from ipaddress import ip_network

import pytest

from bgpd.calc.pools import Encapsulation, Pool, pool_of
from resources.kinds.base import Metadata
from resources.kinds.pool import IPPool, IPPoolSpec


def read(**spec: object) -> Pool:
    given = {"cidr": "10.65.0.0/16"} | spec
    return pool_of("p", IPPool(metadata=Metadata(name="p"), spec=IPPoolSpec(**given)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("word", "mode"), [("", "Never"), ("Never", "Never"), ("CrossSubnet", "CrossSubnet")])
def test_no_mode_is_never(word: str, mode: str) -> None:
    found = read(ipip_mode=word, vxlan_mode="Always")
    assert (found.ipip, found.vxlan, found.network) == (
        Encapsulation(mode), Encapsulation.ALWAYS, ip_network("10.65.0.0/16")
    )  # fmt: skip


@pytest.mark.parametrize("member", ["ipip_mode", "vxlan_mode"])
def test_a_mode_that_nobody_knows_is_told_with_those_that_are(member: str) -> None:
    with pytest.raises(ValueError, match="Mode is 'always': it is Never, Always or CrossSubnet"):
        read(**{member: "always"})
